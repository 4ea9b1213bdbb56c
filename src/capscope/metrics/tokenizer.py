"""The tokens that caption metrics compare: Penn Treebank tokens without punctuation.

CoreNLP's tokeniser looks beyond the end of a line: ``... letter B.`` loses its period only if the
next caption starts with a word such as ``The``. Here each caption is tokenised as if it were
alone, by a separator line in between; ``parity=True`` keeps the published behaviour, where a
caption's tokens depend on its successor in the file.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence

from capscope.errors import CapscopeError
from capscope.lifeline import tied
from capscope.metrics.java import TOKENIZER_JAR, jar, java_command

# Brackets are listed in capitals, as published: in lower case they stay.
PUNCTUATION = frozenset(
    (
        *("''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-"),
        *(".", "?", "!", ",", ":", "-", "--", "...", ";"),
    )
)

# A word in capitals that starts no sentence: periods come out as at the end of a file.
_SEPARATOR = "Zzz"
_LINE_SEPARATORS = re.compile("[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")


def one_line(caption: str) -> str:
    """Replace everything that some program takes for a line end by a blank."""
    return _LINE_SEPARATORS.sub(" ", caption)


def ptb_tokenize(
    captions: Sequence[str], *, parity: bool = False, timeout: float = 300.0
) -> list[str]:
    """Tokenise captions as pycocoevalcap does; one Java process for all of them (0.5 s for 25,000).

    Parameters
    ----------
    captions : sequence of str
        Raw text. Line separators inside a caption count as blanks.
    parity : bool
        Let each caption see its successor, as in the published evaluation; the order then matters.
    timeout : float
        Seconds.

    Returns
    -------
    list of str
        Lower-case tokens joined by one blank. A few tokens hold a no-break space (``22 3/4``).

    Raises
    ------
    CapscopeError
        Java or its jar is missing, fails, or does not finish in time.
    """
    lines = [one_line(caption) for caption in captions]
    if not lines:
        return []
    step = 1
    if not parity:
        lines = [line for caption in lines for line in (caption, _SEPARATOR)]
        step = 2
    tokenized = _run_tokenizer("\n".join(lines), timeout).split("\n")
    if tokenized[-1] == "" and len(tokenized) == len(lines) + 1:
        tokenized.pop()
    separators = set(tokenized[1::2]) if step == 2 else {_SEPARATOR.lower()}
    if len(tokenized) != len(lines) or separators != {_SEPARATOR.lower()}:
        raise CapscopeError(
            f"the PTB tokeniser returned {len(tokenized)} lines for {len(lines)}: captions would "
            "get each other's tokens. Please report this with the captions."
        )
    return [drop_punctuation(line) for line in tokenized[::step]]


def drop_punctuation(tokenized: str) -> str:
    """Remove punctuation tokens; tokens are separated by U+0020 and nothing else."""
    return " ".join(token for token in tokenized.rstrip().split(" ") if token not in PUNCTUATION)


def _run_tokenizer(text: str, timeout: float) -> str:
    command = java_command(
        "-cp",
        str(jar(TOKENIZER_JAR)),
        "edu.stanford.nlp.process.PTBTokenizer",
        "-preserveLines",
        "-lowerCase",
    )
    try:
        done = subprocess.run(
            tied(command),
            input=text.encode("utf-8", "replace"),
            capture_output=True,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired as error:
        raise CapscopeError(
            f"the PTB tokeniser did not finish in {timeout:g} s: raise metrics.timeout"
        ) from error
    except OSError as error:
        raise CapscopeError(f"cannot start Java ({command[0]}): {error.strerror}") from error
    if done.returncode != 0:
        message = done.stderr.decode("utf-8", "replace").strip()[-500:]
        raise CapscopeError(f"the PTB tokeniser failed: {message}")
    return done.stdout.decode("utf-8")
