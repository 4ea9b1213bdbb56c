"""Stands for Java with SPICE's jar: the same arguments, the same files, another way to score.

Run as ``spice_stand_in.py LOG MODE IN [-cache DIR] -out OUT -subset -silent``. A text's tuples are
its words; colours and numbers make categories that are undefined where references have none. Texts
that are not in the cache are "parsed", as often as they occur, which the log tells.
"""

import json
import sys
import time
from pathlib import Path

COLOURS, NUMBERS = {"red", "green"}, {"two", "three"}
CATEGORIES = ("Object", "Relation", "Attribute", "Color", "Cardinality", "Size")


def main() -> None:
    log, mode, given, *rest = sys.argv[1:]
    cache = None
    if rest[0] == "-cache":
        cache, rest = Path(rest[1]), rest[2:]
    assert rest[0] == "-out", rest
    assert rest[2:] == ["-subset", "-silent"], rest
    assert not Path(rest[1]).exists()
    raw = Path(given).read_bytes()
    assert raw.isascii()
    entries = json.loads(raw)
    assert all(list(entry) == ["image_id", "test", "refs"] for entry in entries)
    calls = Path(log).read_text("utf-8").splitlines() if Path(log).exists() else []
    fails = mode.endswith("always") or not calls
    parsed = parse(entries, cache)
    with Path(log).open("a", encoding="utf-8") as stream:
        stream.write(json.dumps({"cache": cache and str(cache), "parsed": parsed}) + "\n")
    if fails and mode.startswith("crash"):
        print("java.lang.OutOfMemoryError: Java heap space\n\tat A.b(C.java:1)", file=sys.stderr)
        sys.exit(1)
    if fails and mode.startswith("hang"):
        time.sleep(600)
    results = [{"image_id": e["image_id"], "scores": score(e)} for e in entries]
    if fails and mode.startswith("babble"):
        results = {"scores": "?"}
    if fails and mode.startswith("skip"):
        results = results[1:]
    Path(rest[1]).write_text(json.dumps(results[::-1] if isinstance(results, list) else results))


def parse(entries: list, cache: Path | None) -> list[str]:
    known = set()
    if cache is not None:
        assert cache.is_dir()
        file = cache / "data.json"
        known = set(json.loads(file.read_text("utf-8"))) if file.exists() else set()
    parsed = []
    for texts in ([t for e in entries for t in e["refs"]], [e["test"] for e in entries]):
        new = [text for text in texts if text not in known]
        parsed += new
        if cache is not None:
            known |= set(new)
            file.write_text(json.dumps(sorted(known)), encoding="utf-8")
    return parsed


def score(entry: dict) -> dict:
    test = set(entry["test"].split())
    reference = {word for text in entry["refs"] for word in text.split()}
    scores = {"All": f_score(test, reference) | {"tp": 1, "numImages": 1}}
    for category in CATEGORIES:
        chosen = {"Color": COLOURS, "Cardinality": NUMBERS}.get(category)
        if chosen is None:
            scores[category] = scores["All"]
        elif chosen & reference:
            scores[category] = f_score(test & chosen, reference & chosen)
        else:
            scores[category] = {"pr": None, "re": None, "f": None}
    return scores


def f_score(test: set, reference: set) -> dict:
    both = len(test & reference)
    total = len(test) + len(reference)
    return {"pr": 0.5, "re": 0.5, "f": 2 * both / total if total else 0.0}


if __name__ == "__main__":
    main()
