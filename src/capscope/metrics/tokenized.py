"""Files of captions, tokenised: by the jar or its twin, from the cache where they are known."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from capscope.metrics.cache import LineCache
from capscope.metrics.tokenizer import one_line, ptb_tokenize
from capscope.metrics.treebank import treebank_tokenize


@dataclass(frozen=True)
class Tokenizer:
    """How captions become tokens.

    Attributes
    ----------
    program : {"java", "python"}
        CoreNLP's jar, or its twin `treebank_tokenize`.
    parity : bool
        Each caption sees its successor in the file, as published (see `ptb_tokenize`).
    timeout : float
        Seconds to wait for the jar.
    cache : Path or None
        Folder that keeps what the jar said, by the hash of the ordered file.
    """

    program: str = "java"
    parity: bool = False
    timeout: float = 300.0
    cache: Path | None = None

    def files(
        self, files: Iterable[Sequence[str]], if_new: Callable[[], None] | None = None
    ) -> list[list[str]]:
        """Tokenise lists of captions.

        Parameters
        ----------
        files : iterable of sequences of str
        if_new : callable, optional
            Called before the jar is started, if some file is not in the cache.

        Returns
        -------
        list of list of str
            Tokens joined by one blank.
        """
        texts = [[one_line(caption) for caption in file] for file in files]
        if self.program == "python":
            return [treebank_tokenize(file, parity=self.parity) for file in texts]
        cache = LineCache(self.cache, "ptb-parity" if self.parity else "ptb")
        found = [cache.get(file) for file in texts]
        new = [place for place, tokens in enumerate(found) if tokens is None]
        if new:
            if if_new is not None:
                if_new()
            for place, tokens in zip(new, self._java([texts[k] for k in new]), strict=True):
                cache.put(texts[place], tokens)
                found[place] = tokens
        return [tokens for tokens in found if tokens is not None]

    def _java(self, files: Sequence[Sequence[str]]) -> list[list[str]]:
        """Run the jar: once for all files, or for `parity` once for each."""
        if self.parity:
            return [ptb_tokenize(file, parity=True, timeout=self.timeout) for file in files]
        texts = [text for file in files for text in file]
        return regroup(ptb_tokenize(texts, timeout=self.timeout), files)


def regroup(texts: Sequence[str], groups: Sequence[Sequence[str]]) -> list[list[str]]:
    """Cut a row of texts into lists as long as `groups`."""
    ends = np.cumsum([0, *map(len, groups)]).tolist()
    return [list(texts[start:stop]) for start, stop in pairwise(ends)]
