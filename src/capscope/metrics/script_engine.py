"""The script engine that SPICE 1.0 asks Java for, as a jar of one class.

Before it writes its scores, SPICE has a JavaScript engine indent them: it puts the text as
``jsonString``, runs a script, and gets ``result``. Java has had no such engine since version 15.
The class made here hands ``jsonString`` back unindented. A runtime without a compiler is enough
for it: its few straight methods are written as bytecode (Java Virtual Machine Specification, 4).
"""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

from capscope.files import atomic_path

NAME = "UnindentedJson"
_PARENT = "javax/script/AbstractScriptEngine"
_TEXT = "Ljava/lang/String;"
_SERVICE = "META-INF/services/javax.script.ScriptEngineFactory"

_PUBLIC, _SUPER = 0x0001, 0x0020
_JAVA_6 = 50  # the last class files that need no stack maps
_NULL, _CONSTANT, _THIS, _RETURN, _RETURN_REFERENCE = 0x01, 0x12, 0x2A, 0xB1, 0xB0
_CALL_PARENT, _CALL_STATIC = 0xB7, 0xB8


def write_script_engine(path: Path) -> None:
    """Write the jar; on the class path, Java finds it under the name ``JavaScript``."""
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as jar:
        for name, content in ((f"{NAME}.class", _class()), (_SERVICE, NAME.encode())):
            jar.writestr(zipfile.ZipInfo(name), content)


def _class() -> bytes:
    """Return a class that is a script engine and its own factory."""
    pool = _Constants()
    start = pool.member(_PARENT, "<init>", "()V")
    get = pool.member(_PARENT, "get", f"({_TEXT})Ljava/lang/Object;")
    one = "(Ljava/lang/Object;)Ljava/util/List;"
    singleton = pool.member("java/util/Collections", "singletonList", one)

    def call(kind: int, method: int) -> bytes:
        return struct.pack(">BH", kind, method)

    def text(value: str) -> bytes:
        return bytes([_CONSTANT, pool.text(value)])

    nothing = bytes([_NULL, _RETURN_REFERENCE])
    script = f"({_TEXT}Ljavax/script/ScriptContext;)Ljava/lang/Object;"
    names = text("JavaScript") + call(_CALL_STATIC, singleton) + bytes([_RETURN_REFERENCE])
    given = bytes([_THIS]) + text("jsonString") + call(_CALL_PARENT, get)
    methods = [
        ("<init>", "()V", bytes([_THIS]) + call(_CALL_PARENT, start) + bytes([_RETURN])),
        ("getNames", "()Ljava/util/List;", names),
        ("getScriptEngine", "()Ljavax/script/ScriptEngine;", bytes([_THIS, _RETURN_REFERENCE])),
        ("eval", script, nothing),
        ("get", f"({_TEXT})Ljava/lang/Object;", given + bytes([_RETURN_REFERENCE])),
    ]
    for part in ("EngineName", "EngineVersion", "LanguageName", "LanguageVersion"):
        methods.append((f"get{part}", f"(){_TEXT}", text(NAME) + bytes([_RETURN_REFERENCE])))
    written = b"".join(_method(pool, *method) for method in methods)
    interfaces = [pool.type("javax/script/ScriptEngineFactory")]
    head = [_PUBLIC | _SUPER, pool.type(NAME), pool.type(_PARENT), len(interfaces), *interfaces]
    body = struct.pack(f">{len(head)}HHH", *head, 0, len(methods)) + written + struct.pack(">H", 0)
    return struct.pack(">IHH", 0xCAFEBABE, 0, _JAVA_6) + pool.table() + body


def _method(pool: _Constants, name: str, signature: str, code: bytes) -> bytes:
    """Return a public method that needs two places on the stack and three variables at most."""
    attribute = struct.pack(">HHI", 2, 3, len(code)) + code + struct.pack(">HH", 0, 0)
    head = [_PUBLIC, pool.utf8(name), pool.utf8(signature), 1, pool.utf8("Code")]
    return struct.pack(">5HI", *head, len(attribute)) + attribute


class _Constants:
    """The constant pool of a class file: each entry once, by its number from 1."""

    def __init__(self) -> None:
        self._entries: dict[bytes, int] = {}

    def table(self) -> bytes:
        return struct.pack(">H", len(self._entries) + 1) + b"".join(self._entries)

    def utf8(self, value: str) -> int:
        return self._number(struct.pack(">BH", 1, len(value)) + value.encode("ascii"))

    def text(self, value: str) -> int:
        return self._number(struct.pack(">BH", 8, self.utf8(value)))

    def type(self, name: str) -> int:
        return self._number(struct.pack(">BH", 7, self.utf8(name)))

    def member(self, owner: str, name: str, signature: str) -> int:
        pair = self._number(struct.pack(">BHH", 12, self.utf8(name), self.utf8(signature)))
        return self._number(struct.pack(">BHH", 10, self.type(owner), pair))

    def _number(self, entry: bytes) -> int:
        return self._entries.setdefault(entry, len(self._entries) + 1)
