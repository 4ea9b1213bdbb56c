"""Penn Treebank tokens in Python: a twin of CoreNLP's tokeniser for captions, without Java.

Written from what the jar answers to probes, not from its source. At each place the longest of
the patterns wins. Only what survives the removal of punctuation is told apart: quotes, single
punctuation marks and periods at the end of a sentence are dropped at once.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from capscope.metrics.tokenizer import one_line

# Abbreviations keep their period. Those in the second group need a capital, those in the third a
# digit behind them.
_ABBREVIATIONS = (
    "ed.d ph.d adj adm adv al ala alex apr ariz asst assn assoc atty attys aug ave bhd bldg "
    "blvd brig bros calif capt cf cie cmdr co col colo comdr conn corp cos cpl ct dak dec "
    "dept det dr drs elec ens esq est etc ext feb fla fri ft ga gen gov govs hon inc ind insp "
    "intl invt jan jos jr jul jun kan kans ky lieut lt ltd maj mar md messrs mfg mich minn "
    "mlle mme mo mon mont mr mrs ms msgr mt mtg natl neb nev nov oct okla penn pfc ph plc "
    "ppte pptes ppty pptys pres prof profs pte ptes pty ptys pvt rd rep reps rev rt sen sens "
    "sep sept seq sfc sgt spc sq sr st ste supt supts sys tel tenn thu thurs treas tue tues "
    "univ va vs vt wed wis wisc wm wyo"
).replace(" ", "|")
_CAPITAL_ABBREVIATIONS = "Ark|Az|Del|Ill|La|Mass|Miss|Ore|Pa|Tex|Wash"
_NUMBER_ABBREVIATIONS = "art|ca|figs?|nos?|op|pp|prop"

# A single letter loses its period before these words, also when they begin the next line.
_STARTERS = (
    "A About According Additionally After An As At But Earlier He Her Here However If In It Last "
    "Many More Mr. Ms. Now Once One Other Our She Since So Some Such That The Their Then There "
    "These They This We What When While Yet You"
)
_BEFORE_STARTER = re.compile(
    r"\s+(?:"
    + "|".join(f"{word[0]}(?i:{re.escape(word[1:])})" for word in _STARTERS.split(" "))
    + r")\s"
)

_NUMERALS = "\u00b2\u00b3\u00b9\u00bc-\u00be\u2070-\u218f\u2460-\u24ff"  # 2 squared, one half
_A = rf"[^\W_{_NUMERALS}]"  # letter or digit
_L = rf"[^\W\d_{_NUMERALS}]"  # letter
_Q = "['`\u2018\u2019\u201b\x91\x92]"  # apostrophe, as people type it
_H = "[-\u2010\u2011\u058a]"  # hyphen
_U = rf"{_A}+(?:_{_A}+)*"  # under_score
_W = rf"{_L}{_A}*(?:[.!?]{_L}{_A}*)*"  # word, street.A, a!b
_D = rf"{_U}(?:[.,]+{_U})*[.,]*{_H}{_U}(?:{_H}{_U})*"  # black-and-white, 2.5-3
_S = rf"{_A}+(?:{_H}{_L}+)*"  # between slashes
_CLITIC = r"(?i:s|d|m|ll|re|ve)"
_NOT_CLITIC = rf"(?!{_CLITIC}(?![A-Za-z]))"
_END = "(?![A-Za-z0-9])"
_LINK = r"[^\s<>\"|()]*[^\s<>\"|().!?,{}-]"

# Every pattern is tried at every place; the longest match wins.
_WORDS = tuple(
    re.compile(pattern)
    for pattern in (
        _W,
        _U,
        rf"{_D}(?:{_H}[dlo]{_Q}{_L}{{2,}})?|{_U}{_H}[dlo]{_Q}{_L}{{2,}}",
        rf"(?:{_W}|{_U}|{_D})\.(?=[,;:])",
        rf"{_S}(?:/{_S}){{1,2}}",
        r"[A-Za-z](?:\.[A-Za-z])*\.",
        rf"(?i:{_ABBREVIATIONS})\.",
        rf"(?:{_CAPITAL_ABBREVIATIONS}|{_CAPITAL_ABBREVIATIONS.upper()})\.",
        rf"(?i:{_NUMBER_ABBREVIATIONS})\.(?=\s?\d)",
        rf"[dlo]{_Q}{_A}{{2,}}(?:{_H}{_U})*|n{_Q}{_L}{{2,}}|(?![IY])[A-Z]{_Q}{_L}{{2,}}|[nN]{_Q}[tT]",
        rf"[dljDLJ]['\u2019\x92](?![smdSMD])|[yY]['\u2019\x92](?={_L})(?![smdSMD])",
        rf"(?i:e{_Q}er|c{_Q}mon|s{_Q}mores|li{_Q}l|ol{_Q}(?![smd])|dunkin{_Q}|nor{_Q}easter|cap{_Q}n)",
        rf"(?i:[a-z]+[aeiouy]{_Q}[aeiou][a-z]*)",
        rf"[A-Za-z]+[AEIOUYaeiouy]{_Q}{_NOT_CLITIC}[A-Z][A-Za-z]*",
        rf"(?i:'{_CLITIC}(?![a-z])|[\u2019\x92]{_CLITIC}|'t(?=is|was))",
        rf"(?i:{_Q}(?:em|til|cause)|'n(?:'|(?=\s))|[\u2019\x92]n[\u2019\x92]?|{_Q}\d0s|{_Q}\d\d(?=\s))",
        r"[A-Z]+(?:(?:&(?:amp|AMP);|[&+])[A-Z]+)+|[A-Z]+\$",
        rf"{_A}[^\s<>\"|()]*@(?:[^\s<>\"|().]+\.)*[^\s<>\"|().]+",
        rf"#{_L}+|@[A-Za-z_][A-Za-z0-9_]*",
        rf"(?i:https?://{_LINK}|www(?:\.[a-z0-9-]+)+(?:/{_LINK})?)",
        rf"(?i:(?:{_A}+\.)+(?:com|net|org|edu)){_END}(?:/{_LINK})?",
        r"[cC]\+\+|[cCfF]#|(?i:anti-|pro-)",
        r"[-+]?(?:\d+(?:[.:,]\d+)*|(?:[.:,]\d+)+)",
    )
)
_MARKS = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?:\(\d{3}\)[ -]?|\d{3}[- ])\d{3}[- ]\d{4}",
        r"\d{1,4}[- ]\d{1,4}/\d{1,4}",
        r"<[A-Za-z][\w.@=\"' /]*>|</[A-Za-z]\w*>",
        r"&(?i:amp|lt|gt|quot|apos|nbsp);|&#\d+;",
        rf"[<>]?[:;=][-o'*]?[()DdPpO@|\\\[\]{{]{_END}",
        r"\^_\^|-_-|>_<",
        r"<<|>>|[!?]+|\*+|#+|_+|-+|\.{3,}|''|``",
    )
)
_PLAIN = re.compile(r"[A-Za-z]+(?=[ \n])")
_NEGATED = re.compile(rf"[A-Za-z]*[A-MO-Za-mo-z](?=[nN]{_Q}[tT])")
_PLAIN_APOSTROPHE = re.compile(rf"(?i:n?{_Q}(?:t|{_CLITIC}))")

_TWO_WORDS = {
    word.replace(" ", ""): word.split(" ")
    for word in ("can not", "gim me", "gon na", "got ta", "lem me", "wan na")
}
_WRITTEN_AS = {
    **{"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"},
    **{"\u20ac": "$", "\u00a4": "$", "\u20a0": "$", "\x80": "$", "\u00a3": "#", "\u00a2": "cents"},
    **{"\u00bc": "1/4", "\u00bd": "1/2", "\u00be": "3/4", "\u2153": "1/3", "\u2154": "2/3"},
    **{"&amp;": "&", "&lt;": "<", "&gt;": ">"},
}
_DROPPED_MARKS = frozenset(["!", "?", "-", "--", "---", "----", "''", "``", "&quot;", "&apos;"])
_DROPPED = frozenset(
    ".,:;!?'\"`\u2018\u2019\u201a\u201b\u201c\u201d\u00ab\u00bb\u2039\u203a\u2026"
    "\u2013\u2014\u2015\u2010\u2011\u058a\x91\x92\x93\x94\x96\x97"
)
_KEPT_CATEGORIES = frozenset(["Pc", "Pd", "Pe", "Pi", "Po", "Ps", "Sc", "Sk", "Sm", "So", "No"])


def treebank_tokens(caption: str, following: str = "") -> list[str]:
    """Return the tokens of one caption without punctuation, as the jar and its filter would.

    Parameters
    ----------
    caption : str
        One line.
    following : str
        The rest of the file, for the published behaviour; by default the caption is alone.
    """
    text = f"{caption}\n{following}".replace("\u00ad", "")
    end = text.index("\n")
    tokens: list[str] = []
    place = 0
    while place < end:
        if text[place] == " ":
            place += 1
            continue
        plain = _PLAIN.match(text, place)
        if plain is not None:
            word = plain.group().lower()
            tokens += _TWO_WORDS.get(word, (word,))
            place = plain.end()
            continue
        found, place = _next(text, place)
        tokens += found
    return tokens


def _next(text: str, place: int) -> tuple[Sequence[str], int]:
    """Return the tokens of the longest match at `place`, and where it ends."""
    word = max((m.end() for p in _WORDS if (m := p.match(text, place))), default=place)
    mark = max((m.end() for p in _MARKS if (m := p.match(text, place))), default=place)
    if mark > word:
        return _mark(text[place:mark]), mark
    negated = _NEGATED.match(text, place)
    if negated is not None and negated.end() + 3 > word:
        word = negated.end()
    if word > place:
        return _word(text, place, word)
    return _character(text[place]), place + 1


def _word(text: str, place: int, end: int) -> tuple[Sequence[str], int]:
    if end - place == 2 and text[end - 1] == "." and _BEFORE_STARTER.match(text, end):
        end -= 1  # the letter B. The
    word = text[place:end].lower().replace("&amp;", "&")
    if _PLAIN_APOSTROPHE.fullmatch(word):
        word = word.replace("\u2019", "'").replace("\x92", "'")
    return _TWO_WORDS.get(word, (word,)), end


def _mark(mark: str) -> Sequence[str]:
    if mark in _WRITTEN_AS or mark.lower() in _WRITTEN_AS:
        return (_WRITTEN_AS[mark.lower()],)
    if mark[0] == "." or mark.lower() in _DROPPED_MARKS:
        return ()
    written = mark.lower().replace(" ", "\u00a0")
    if mark[0] in "<&":
        return (written,)
    return (written.replace("(", "-lrb-").replace(")", "-rrb-"),)


def _character(character: str) -> Sequence[str]:
    if character in _WRITTEN_AS:
        return (_WRITTEN_AS[character],)
    kept = unicodedata.category(character) in _KEPT_CATEGORIES and character < "\U00010000"
    return (character,) if kept and character not in _DROPPED else ()


def treebank_tokenize(captions: Sequence[str], *, parity: bool = False) -> list[str]:
    """Tokenise captions as `capscope.metrics.tokenizer.ptb_tokenize` does, without Java."""
    lines = [one_line(caption) for caption in captions]
    following = [""] * len(lines)
    if parity:
        after = ""
        for place in reversed(range(len(lines))):
            following[place] = after
            if lines[place].strip():
                after = lines[place] + "\n"
    return [
        " ".join(treebank_tokens(line, after)) for line, after in zip(lines, following, strict=True)
    ]
