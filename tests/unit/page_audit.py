"""What Lighthouse scores of a page, as far as it can be measured without a network.

Categories, weights and scoring curves are those that Lighthouse publishes
(``core/config/default-config.js`` and ``core/audits/metrics`` of GoogleChrome/lighthouse, as of
version 12; desktop curves). Left out is what a page on disk has no answer to: HTTPS, redirects,
status codes, ``robots.txt``. Instead of the speed index, which needs a film, stands an upper bound:
the time of the largest paint.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

CURVES = {
    "first contentful paint": (934, 1600, 10),
    "speed index": (1311, 2300, 10),
    "largest contentful paint": (1200, 2400, 25),
    "total blocking time": (150, 350, 30),
    "cumulative layout shift": (0.1, 0.25, 25),
}
"""Milliseconds (or the shift) that score 0.9 and 0.5, and the weight in the category."""
WEIGHTS = {
    10: "aria-allowed-attr aria-hidden-body aria-required-attr aria-required-children"
    " aria-required-parent aria-roles aria-valid-attr aria-valid-attr-value button-name"
    " duplicate-id-aria image-alt input-button-name input-image-alt label meta-refresh"
    " meta-viewport select-name video-caption",
    3: "form-field-multiple-labels heading-order html-xml-lang-mismatch landmark-one-main"
    " skip-link",
    1: "aria-deprecated-role autocomplete-valid presentation-role-conflict svg-img-alt",
    7: "accesskeys aria-command-name aria-conditional-attr aria-dialog-name aria-hidden-focus"
    " aria-input-field-name aria-meter-name aria-progressbar-name aria-prohibited-attr aria-text"
    " aria-toggle-field-name aria-tooltip-name aria-treeitem-name bypass color-contrast"
    " definition-list dlitem document-title frame-title html-has-lang html-lang-valid"
    " link-in-text-block link-name list listitem object-alt tabindex target-size td-headers-attr"
    " th-has-data-cells valid-lang",
}
"""Rules of axe-core by their weight in the category accessibility."""
RULES = {rule: weight for weight, rules in WEIGHTS.items() for rule in rules.split()}
BEST_PRACTICES = {
    "geolocation-on-start": 1,
    "notification-on-start": 1,
    "paste-preventing-inputs": 3,
    "image-aspect-ratio": 1,
    "image-size-responsive": 1,
    "doctype": 1,
    "charset": 1,
    "deprecations": 5,
    "third-party-cookies": 5,
    "errors-in-console": 1,
    "inspector-issues": 1,
}
SEO = {
    "is-crawlable": 93 / 23,
    "document-title": 1,
    "meta-description": 1,
    "link-text": 1,
    "crawlable-anchors": 1,
    "image-alt": 1,
    "hreflang": 1,
    "canonical": 1,
}
EMPTY = "data:text/html,<title>nothing</title><p>nothing"
"""What opening any page takes is taken off: on a busy machine it is most of the time."""
PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
PAINTED = f"() => {PAINT} !== undefined"
ISSUES = {
    "MixedContentIssue",
    "CookieIssue",
    "BlockedByResponseIssue",
    "HeavyAdIssue",
    "ContentSecurityPolicyIssue",
}
"""What DevTools reports that counts; advice such as on placeholders of lazy images does not."""
SETTLED = 700
"""Milliseconds without anything new, after which a page is measured."""

OBSERVE = """
window.audit = { paints: [], shifts: [], tasks: [], asked: [] };
const watch = (type, keep) => new PerformanceObserver((list) =>
  list.getEntries().forEach(keep)).observe({ type, buffered: true });
watch("largest-contentful-paint", (one) => audit.paints.push(one.startTime));
watch("layout-shift", (one) => {
  if (!one.hadRecentInput) audit.shifts.push([one.startTime, one.value]);
});
watch("longtask", (one) => audit.tasks.push([one.startTime, one.duration]));
navigator.geolocation.getCurrentPosition = () => audit.asked.push("geolocation");
Notification.requestPermission = () => audit.asked.push("notification");
"""

FACTS = """() => {
  const all = (selector) => [...document.querySelectorAll(selector)];
  const meta = (name) => document.querySelector(`meta[name=${name}]`)?.content ?? "";
  const shown = all("img").filter((one) => one.naturalWidth && one.clientWidth);
  const links = all("a[href]");
  let small = 0, letters = 0;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const parent = walker.currentNode.parentElement;
    if (parent.closest("script, style, noscript") || !parent.checkVisibility()) continue;
    const count = walker.currentNode.data.trim().length;
    letters += count;
    if (parseFloat(getComputedStyle(parent).fontSize) < 12) small += count;
  }
  return {
    doctype: document.doctype?.name === "html" && document.compatMode === "CSS1Compat",
    charset: document.characterSet === "UTF-8" && document.documentElement.outerHTML
      .slice(0, 1024).toLowerCase().includes("charset"),
    title: document.title, description: meta("description"), robots: meta("robots"),
    viewport: meta("viewport"), lang: document.documentElement.lang,
    canonical: all("link[rel=canonical]").length, hreflang: all("link[hreflang]").length,
    vague: links.filter((one) => ["click here", "here", "more", "read more", "this", "link"]
      .includes(one.textContent.trim().toLowerCase())).map((one) => one.outerHTML),
    dead: all("a").filter((one) => !one.hasAttribute("href")
      || one.getAttribute("href").startsWith("javascript:")).map((one) => one.outerHTML),
    noAlt: all("img:not([alt])").length,
    skewed: shown.filter((one) => getComputedStyle(one).objectFit === "fill"
      && Math.abs(one.naturalWidth / one.naturalHeight * one.clientHeight - one.clientWidth) > 2)
      .map((one) => one.src.slice(-40)),
    blurred: shown.filter((one) => one.naturalWidth * 1.34 < one.clientWidth
      && one.clientWidth > 64).length,
    unsized: shown.filter((one) => !(one.hasAttribute("width") && one.hasAttribute("height"))
      && !one.closest(".panel")).map((one) => one.outerHTML.slice(0, 120)),
    eager: shown.filter((one) => one.loading !== "lazy" && !one.closest(".panel")
      && one.getBoundingClientRect().top > 3 * innerHeight).length,
    handlers: all("*").filter((one) => one.getAttributeNames()
      .some((name) => name.startsWith("on"))).map((one) => one.outerHTML.slice(0, 120)),
    pasting: all("input, textarea").filter((one) => one.onpaste).length,
    cookies: document.cookie, elements: all("*").length, small: letters ? small / letters : 0,
    sideways: document.documentElement.scrollWidth > innerWidth,
  };
}"""


@dataclass(frozen=True)
class Audit:
    """What was found of one page."""

    scores: Mapping[str, float]
    """By category, 0 to 100."""
    metrics: Mapping[str, float]
    """In milliseconds, the shift as it is."""
    violations: tuple[str, ...]
    """Rules of axe-core that are broken."""
    facts: Mapping[str, Any]
    outside: tuple[str, ...]
    """Addresses elsewhere that the page asked for."""
    said: tuple[str, ...]
    """Errors and warnings of the console."""


def log_normal(value: float, p10: float, median: float) -> float:
    """Return the score of a metric: 0.9 at `p10`, 0.5 at the median, of a log-normal curve."""
    if value <= 0:
        return 1.0
    spread = math.log(median / p10) / 0.9061938024368232  # where erf is 0.8
    return 0.5 * (1 - math.erf(math.log(value / median) / spread))


def weighted(passed: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """Return the score of a category out of 100."""
    return 100 * sum(weights[k] * passed[k] for k in passed) / sum(weights[k] for k in passed)


def shift_of(shifts: list[list[float]]) -> float:
    """Return the largest sum of layout shifts in a window of 5 s without a gap of 1 s."""
    largest = total = 0.0
    first = last = -math.inf
    for at, value in sorted(shifts):
        if at - last > 1000 or at - first > 5000:
            first, total = at, 0.0
        total, last = total + value, at
        largest = max(largest, total)
    return largest


def audit(browser: Any, url: str, *, good: float = 95, loads: int = 3, **context: Any) -> Audit:
    """Open a page and audit it; one that is slow again, for a busy machine may be the reason."""
    first = _load(browser, url, context, full=True)
    metrics = dict(first.metrics)
    for _ in range(loads - 1):
        if _performance(metrics) >= good:
            break
        again = _load(browser, url, context, full=False).metrics
        metrics = {name: min(metrics[name], again[name]) for name in CURVES}
    return replace(
        first, scores={"performance": _performance(metrics), **first.scores}, metrics=metrics
    )


def _performance(metrics: Mapping[str, float]) -> float:
    speeds = {name: log_normal(metrics[name], *CURVES[name][:2]) for name in CURVES}
    return weighted(speeds, {name: curve[2] for name, curve in CURVES.items()})


def _load(browser: Any, url: str, context: Mapping[str, Any], *, full: bool) -> Audit:
    opened = browser.new_context(**context)
    said, outside, issues = [], [], []
    try:
        opened.add_init_script(OBSERVE)
        tab = opened.new_page()
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("console", lambda one: said.append(one.text) if _is_bad(one.type) else None)
        base = url.rpartition("/report/")[0]
        tab.on("request", lambda one: outside.append(one.url) if _leaves(one.url, base) else None)
        session = opened.new_cdp_session(tab)
        session.on("Audits.issueAdded", lambda one: issues.append(one["issue"]["code"]))
        session.send("Audits.enable")
        for _ in range(2):  # the first starts a process
            tab.goto(EMPTY)
            tab.wait_for_function(PAINTED)
        opening = tab.evaluate(PAINT)
        tab.goto(url)
        tab.wait_for_timeout(SETTLED)
        tab.wait_for_function(PAINTED)
        seen, paint = tab.evaluate("window.audit"), tab.evaluate(PAINT)
        largest = max([paint, *seen["paints"]])
        blocked = [duration - 50 for at, duration in seen["tasks"] if at + duration > paint]
        first, last = (max(0.0, at - opening) for at in (paint, largest))
        values = (first, last, last, sum(blocked), shift_of(seen["shifts"]))
        metrics = dict(zip(CURVES, values, strict=True))
        if not full:
            return Audit({}, metrics, (), {}, (), ())
        facts = tab.evaluate(FACTS)
        broken, kept = _rules(tab)
        scores = {
            "accessibility": weighted(dict.fromkeys(broken, 0.0) | dict.fromkeys(kept, 1.0), RULES),
            "best practices": weighted(_practices(facts, seen, said, issues), BEST_PRACTICES),
            "seo": weighted(_findable(facts), SEO),
        }
        return Audit(scores, metrics, tuple(broken), facts, tuple(outside), tuple(said))
    finally:
        opened.close()


def _is_bad(kind: str) -> bool:
    return kind in ("error", "warning")


def _leaves(url: str, base: str) -> bool:
    return not url.startswith((base, "data:", "blob:"))


def _rules(tab: Any) -> tuple[list[str], list[str]]:
    """Return the rules of axe-core that are broken, and those that are kept."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(tab, options={"preload": False}).response
    broken = [one["id"] for one in found["violations"]]
    kept = [one["id"] for one in found["passes"] if one["id"] in RULES]
    for rule in broken:
        RULES.setdefault(rule, 0)
    return broken, [rule for rule in kept if rule not in broken]


def _practices(
    facts: Mapping[str, Any], seen: Mapping[str, Any], said: list[str], issues: list[str]
) -> dict[str, float]:
    deprecated = [code for code in issues if "Deprecation" in code]
    return {
        "geolocation-on-start": "geolocation" not in seen["asked"],
        "notification-on-start": "notification" not in seen["asked"],
        "paste-preventing-inputs": not facts["pasting"],
        "image-aspect-ratio": not facts["skewed"],
        "image-size-responsive": not facts["blurred"],
        "doctype": facts["doctype"],
        "charset": facts["charset"],
        "deprecations": not deprecated,
        "third-party-cookies": not facts["cookies"],
        "errors-in-console": not said,
        "inspector-issues": not ISSUES & set(issues),
    }


def _findable(facts: Mapping[str, Any]) -> dict[str, float]:
    return {
        "is-crawlable": "noindex" not in facts["robots"],
        "document-title": bool(facts["title"].strip()),
        "meta-description": bool(facts["description"].strip()),
        "link-text": not facts["vague"],
        "crawlable-anchors": not facts["dead"],
        "image-alt": not facts["noAlt"],
        "hreflang": not facts["hreflang"],
        "canonical": facts["canonical"] <= 1,
    }
