"""The site in a real browser: it opens from disk, answers to hands and keys, and runs nothing."""

import json
import shutil

import pytest
from toy_results import HOSTILE
from toy_site import RUNS, write_site

from capscope.report.portrait import call
from capscope.report.site import PAGES

pytestmark = pytest.mark.slow
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return write_site(tmp_path_factory.mktemp("site"))


@pytest.fixture
def visit(browser, site):
    """Open a page of the site; what goes wrong in it fails the test."""
    opened, errors = [], []

    def go(page, viewport=DESK, scheme="light"):
        context = browser.new_context(viewport=viewport, color_scheme=scheme)
        opened.append(context)
        tab = context.new_page()
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.on("dialog", lambda dialog: errors.append(f"dialog: {dialog.message}"))
        tab.on(
            "console",
            lambda said: errors.append(said.text) if said.type in ("error", "warning") else None,
        )
        name, _, anchor = page.partition("#")
        tab.goto((site / name).as_uri() + (f"#{anchor}" if anchor else ""))
        return tab

    yield go
    for context in opened:
        context.close()
    assert errors == []


def barriers(tab):
    """Return what axe-core has against a page: the rule and the elements."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is missing")
    found = axe.Axe().run(tab, options={"preload": False}).response["violations"]
    return [(one["id"], [node["html"] for node in one["nodes"]]) for one in found]


def painted(tab, selector):
    """Return how many pixels of the canvas of a panel are not transparent."""
    return tab.wait_for_function(
        """(selector) => {
          const canvas = document.querySelector(selector + " canvas");
          if (!canvas || !canvas.width) return 0;
          const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
          return data.filter((value, i) => i % 4 === 3 && value > 0).length;
        }""",
        arg=selector,
        timeout=5000,
    ).json_value()


@pytest.mark.parametrize("page", [*PAGES, f"runs/{RUNS[0]}.html", "report.html"])
@pytest.mark.parametrize(("viewport", "scheme"), [(DESK, "light"), (PHONE, "dark")])
def test_pages_have_no_errors_and_no_barriers(visit, page, viewport, scheme):
    tab = visit(page, viewport, scheme)
    assert barriers(tab) == []
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_an_opened_image_has_no_barriers_either(visit):
    tab = visit("gallery.html#image=1&word=1")
    tab.wait_for_selector(".comparison td .panel")
    assert barriers(tab) == []


def test_words_are_searched_by_text_captioner_and_verdict(visit):
    tab = visit("gallery.html")
    count = tab.locator("#count")
    assert count.inner_text() == "2 of 2 images"
    tab.fill("[name=word]", "<SCRIPT")
    assert count.inner_text() == "2 of 2 images"
    assert tab.locator("mark").all_inner_texts() == [HOSTILE] * 2
    tab.select_option("[name=verdict]", "hallucinated")
    assert count.inner_text() == "1 of 2 images"
    tab.fill("[name=word]", "a")
    assert count.inner_text() == "1 of 2 images"  # that of base, at its second word
    tab.select_option("[name=run]", label="gridtd xe (seed 1)")
    assert count.inner_text() == "0 of 2 images"
    tab.click("text=Clear")
    tab.wait_for_function("document.querySelector('#count').textContent === '2 of 2 images'")


def test_pointing_at_a_word_shows_its_map_the_words_before_and_others_side_by_side(visit):
    tab = visit("gallery.html")
    tab.click("#found a >> nth=0")
    tab.wait_for_selector(".portrait")
    tab.select_option(".choices select >> nth=0", label="gridtd xe (seed 1)")
    assert tab.evaluate("document.querySelector('.stage canvas').width") == 0
    tab.hover(".strip button >> nth=1")
    assert painted(tab, ".stage") > 0
    words = tab.locator(".strip b")
    assert words.all_inner_texts() == ["a", HOSTILE]
    assert "--against-rgb" in words.nth(0).get_attribute("style")
    assert "probability 0.50; hallucinated" in tab.locator(".said").inner_text()
    rows = tab.locator(".small-multiples tbody tr")
    assert rows.count() == 2
    assert rows.locator(".panel").count() == 4  # two explainers of two captioners: both say it
    assert painted(tab, ".small-multiples td") > 0
    tab.mouse.move(2, 2)
    tab.wait_for_function("document.querySelector('.stage canvas').width === 0")


def test_everything_is_done_by_keys_as_well(visit):
    tab = visit("gallery.html")
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.textContent") == "Skip to the content"
    tab.focus("#found a")
    tab.keyboard.press("Enter")
    tab.wait_for_selector(".portrait")
    tab.focus(".strip button")
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("Enter")
    assert painted(tab, ".stage") > 0
    assert "word=1" in tab.evaluate("location.hash")
    tab.keyboard.press("Escape")
    assert tab.locator(".portrait").count() == 0
    assert tab.evaluate("document.activeElement.matches('#found a')")


def test_the_address_of_a_word_leads_back_to_it(visit):
    tab = visit("gallery.html#image=2&run=1&explainer=1&word=0")
    tab.wait_for_selector(".comparison .panel")
    chosen = tab.locator(".choices select").evaluate_all(
        "all => all.map((one) => one.selectedOptions[0].textContent)"
    )
    assert chosen == [tab.evaluate("capscope.known.runs[1]"), "attention"]
    assert tab.locator(".strip [aria-pressed=true] b").count() == 1


def test_hostile_text_stays_text_on_the_single_page_too(visit):
    tab = visit("report.html")
    tab.click("#found a >> nth=0")
    tab.wait_for_selector(".portrait")
    assert HOSTILE in tab.locator(".strip").inner_text()
    assert HOSTILE in tab.locator(".references").inner_text()
    assert tab.locator("main script").count() == 0


def test_the_theme_is_switched_and_kept(visit):
    tab = visit("index.html")
    before = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    tab.click(".theme")
    after = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (before, after) == ("rgb(255, 255, 255)", "rgb(22, 27, 33)")
    tab.reload()
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == after


def test_tables_sort_by_numbers(visit):
    tab = visit("matrix.html")
    tab.click("table[data-filters] thead button >> nth=2")
    values = tab.locator("[data-filters] td[data-value]:nth-child(3)").evaluate_all(
        "all => all.map((cell) => Number(cell.dataset.value))"
    )
    assert values == sorted(values, reverse=True)
    assert tab.locator("th[aria-sort=descending]").count() == 1


def test_rows_of_the_matrix_are_filtered_by_captioner_and_explainer(visit):
    tab = visit("matrix.html")
    assert tab.locator(".filters output").inner_text() == "6 of 6 rows"
    tab.select_option(".filters [name=captioner]", "base xe (seed 1)")
    tab.select_option(".filters [name=explainer]", "LRP")
    assert tab.locator(".filters output").inner_text() == "1 of 6 rows"
    shown = tab.locator("[data-filters] tbody tr:visible").all_inner_texts()
    assert [text.split("\t")[:2] for text in shown] == [["base xe (seed 1)", "LRP"]]


def test_print_shows_tables_whole(visit):
    tab = visit("matrix.html")
    tab.emulate_media(media="print")
    assert not tab.locator(".site nav, header nav").is_visible()
    assert (
        tab.locator(".wide").first.evaluate("one => getComputedStyle(one).overflowX") == "visible"
    )


def test_a_thousand_images_are_searched_at_once(browser, site, tmp_path):
    """The list of a thousand images is one small file; pictures come as they are scrolled to."""
    shutil.copytree(site, tmp_path / "site")
    index = tmp_path / "site" / "gallery" / "index.js"
    first = json.loads(index.read_text().removeprefix("capscope.list(").removesuffix(");\n"))[0]
    index.write_text(call("list", [first | {"id": k} for k in range(1000)]))
    context = browser.new_context(viewport=DESK)
    tab = context.new_page()
    tab.goto((tmp_path / "site" / "gallery.html").as_uri())
    assert tab.locator("#count").inner_text() == "1000 of 1000 images"
    assert tab.locator("#found li").count() < 200
    loaded = "[...document.images].filter((one) => one.complete && one.naturalWidth).length"
    assert tab.evaluate(loaded) < 100
    tab.fill("[name=word]", "nothing says this")
    assert tab.locator("#found li").count() == 0
    assert not tab.locator(".more").is_visible()
    tab.fill("[name=word]", "")
    for _ in range(40):
        tab.evaluate("scrollTo(0, document.body.scrollHeight)")
        tab.wait_for_timeout(50)
        if tab.locator("#found li").count() == 1000:
            break
    assert tab.locator("#found li").count() == 1000
    context.close()
