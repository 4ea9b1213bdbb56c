"""What docs/reliability.md says was survived is what the long tests wrote down."""

import csv
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_documentation_quotes_the_table_of_the_long_tests():
    with (ROOT / "results" / "reliability.csv").open(encoding="utf-8") as stream:
        measured = [tuple(line.values()) for line in csv.DictReader(stream)]
    text = (ROOT / "docs" / "reliability.md").read_text("utf-8")
    quoted = re.findall(r"^\| (.+?) \| (\d+) \| (\d+) \|$", text, re.M)
    assert quoted == measured
