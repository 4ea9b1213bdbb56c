"""Lighthouse's categories of every page of a report, opened from disk in headless Chromium.

    python benchmarks/pages.py results/scenes/report

prints a Markdown table: scores out of 100, the milliseconds of the first and of the largest paint,
rules of axe-core that are broken, and the number of elements. Bars: 95 in each category, no broken
rule, first paint within a second.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "unit"))

from page_audit import audit

VIEWS = {"desk": {"width": 1400, "height": 900}, "phone": {"width": 390, "height": 800}}


def main() -> None:
    """Audit all pages in the widths of a desk and of a phone."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("report", type=Path)
    folder = parser.parse_args().report.resolve()
    pages = [*sorted(folder.glob("*.html")), *sorted(folder.glob("runs/*.html"))[:1]]
    print(
        "| page | view | performance | accessibility | best practices | seo | first | largest |"
        " broken | elements |\n|" + "---|" * 10
    )
    with sync_playwright() as session:
        browser = session.chromium.launch(
            executable_path=shutil.which("chromium") or shutil.which("chromium-browser"),
            args=["--no-sandbox"],
        )
        for page in pages:
            for view, size in VIEWS.items():
                found = audit(browser, page.as_uri(), viewport=size)
                paints = [found.metrics[f"{one} contentful paint"] for one in ("first", "largest")]
                cells = [
                    page.relative_to(folder),
                    view,
                    *(f"{score:.0f}" for score in found.scores.values()),
                    *(f"{paint:.0f} ms" for paint in paints),
                    ", ".join(found.violations) or "none",
                    found.facts["elements"],
                ]
                print("| " + " | ".join(map(str, cells)) + " |", flush=True)
        browser.close()


if __name__ == "__main__":
    main()
