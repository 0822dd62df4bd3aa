"""docs/example/report.html, the page of a sweep on two H200: as today's code makes it, and in a real browser."""

import re

import pytest

from sweep.findings import SKIP
from sweep.report.page import published
from tests.conftest import ROOT
from tests.report import browser as driver

EXAMPLE = ROOT / "docs" / "example" / "report.html"
SWEEP = ROOT / "docs" / "results" / "matrix-2-gpus"
AGAIN = f"python -m sweep.report.page.published {SWEEP.relative_to(ROOT)} {EXAMPLE.relative_to(ROOT)}"
PHONE, DESK = 390, 1440

in_a_browser = pytest.mark.skipif(driver.executable() is None, reason="no Chromium here")
CONTRASTS = """(() => {
    const channels = (text) => text.match(/[\\d.]+/g).map(Number);
    const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
        .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const behind = (part) => {
        for (; part; part = part.parentElement) {
            const colour = channels(getComputedStyle(part).backgroundColor);
            if (colour.length === 3 || colour[3] === 1) return colour;
        }
        return [255, 255, 255];
    };
    const found = new Map();
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const part = walker.currentNode.parentElement;
        if (!walker.currentNode.data.trim() || !part.checkVisibility() || part.closest("script, svg")) continue;
        const [text, back] = [channels(getComputedStyle(part).color), behind(part)];
        const [low, high] = [light(text), light(back)].sort((a, b) => a - b);
        found.set(`${part.tagName} ${part.className} ${text} on ${back}`, (high + 0.05) / (low + 0.05));
    }
    return [...found];
})()"""


@pytest.fixture(scope="module")
def tab():
    with driver.started(limit_s=300) as found:
        yield found


@pytest.fixture
def opened(tab):
    def open_(width: int, dark: bool = False, height: int = 900):
        tab.window(width, height, dark)
        tab.open("about:blank")
        tab.open(EXAMPLE.as_uri())
        return tab

    return open_


def without_plots(page: str) -> str:
    """The page without what matplotlib made, which differs from version to version."""
    page = re.sub(r"<section>\n<h2>Plots</h2>.*?</section>\n", "", page, flags=re.DOTALL)
    return re.sub(r":root\{--p[0-9a-f]{6}.*?</style>", "</style>", page, flags=re.DOTALL)


def test_the_example_is_what_the_code_makes_today():
    stored = EXAMPLE.read_text()
    today = re.sub(r"\n\n+", "\n", published.page(SWEEP, plots=False))
    assert today == re.sub(r"\n\n+", "\n", without_plots(stored)), f"make it again: {AGAIN}"
    assert stored.count("<svg role=") == 10
    assert len(stored) < 1_500_000


def test_a_folder_that_is_no_published_sweep_is_refused(tmp_path, capsys):
    assert published.main([str(tmp_path), str(tmp_path / "page.html")]) == 2
    assert "is not a published sweep" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@in_a_browser
def test_forty_eight_cells_take_few_screens_of_a_phone(opened):
    """The example has more: 68."""
    page = opened(PHONE)
    assert page.evaluate("document.querySelectorAll('.cells tbody tr').length") == 47
    height = page.evaluate("document.documentElement.scrollHeight")
    assert height < 6000, height
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE


@in_a_browser
def test_speed_and_quality_are_seen_without_scrolling(opened):
    page = opened(DESK)
    places = page.evaluate(
        "[...document.querySelectorAll('.cells th[aria-sort]')]"
        ".map(th => [th.textContent.trim(), th.getBoundingClientRect().right])"
    )
    right = page.evaluate("document.querySelector('.cells').parentElement.getBoundingClientRect().right")
    seen = [heading for heading, edge in places if edge <= right]
    assert {"speed-up (95 %)", "verdict", "latency, s", "quality, PSNR", "bottleneck"} <= set(seen)
    assert "called" not in " ".join(heading for heading, _ in places)


@in_a_browser
@pytest.mark.parametrize("dark", [False, True])
def test_every_text_has_enough_contrast(opened, dark):
    page = opened(DESK, dark)
    page.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")
    found = page.evaluate(CONTRASTS)
    assert len(found) > 30
    assert [one for one in found if one[1] < 4.5] == []


@in_a_browser
def test_plots_follow_the_colour_scheme(opened):
    back = "getComputedStyle(document.querySelector('.plot [id$=patch_1] path')).fill"
    assert opened(DESK).evaluate(back) == "rgb(255, 255, 255)"
    assert opened(DESK, dark=True).evaluate(back) == "rgb(24, 28, 33)"


@in_a_browser
def test_the_keyboard_alone_filters_sorts_opens_a_cell_and_a_plot(opened):
    page = opened(DESK)
    focused = "document.activeElement"

    def reach(selector: str) -> None:
        for _ in range(200):
            page.press("Tab")
            if page.evaluate(f"{focused}.matches({selector!r})"):
                return
        raise AssertionError(f"Tab never reaches {selector}")

    rows = "[...document.querySelectorAll('.cells tbody tr')].filter(row => row.checkVisibility())"
    statuses = f"[...new Set({rows}.map(row => row.dataset.status))].sort()"
    assert page.evaluate(statuses) == ["FAIL", "PASS", "WARN"]
    assert page.evaluate("document.querySelector('details.skipped').checkVisibility()")
    reach(".filter[value=PASS]")
    page.press(" ")
    reach(".filter[value=SKIP]")
    page.press(" ")
    assert page.evaluate(statuses) == ["FAIL", "WARN"]
    assert not page.evaluate("document.querySelector('details.skipped').checkVisibility()")
    assert page.evaluate("[...document.querySelectorAll('details.cell')].filter(c => c.checkVisibility()).length") == 8

    reach(".cells th:nth-child(3) button")
    page.press("Enter")
    speeds = page.evaluate(f"{rows}.map(row => Number(row.cells[2].dataset.v))")
    assert len(speeds) == 8
    assert speeds == sorted(speeds, reverse=True)

    reach(".cells tbody a")
    page.press("Enter")
    assert page.evaluate("document.querySelector(location.hash).open")
    inside = f"document.querySelector(location.hash).contains({focused})"  # in a later turn of the page's loop
    page.evaluate(f"new Promise(done => {{ const look = () => {inside} ? done() : setTimeout(look, 10); look() }})")

    page.evaluate("document.querySelector('.plot').focus()")
    page.press("Enter")
    assert page.evaluate("document.getElementById('large').open")
    assert page.evaluate("document.querySelector('#large svg').getBoundingClientRect().width") > 0.9 * DESK
    page.press("Escape")
    assert not page.evaluate("document.getElementById('large').open")
    assert page.evaluate(f"{focused}.className") == "plot"


@in_a_browser
def test_a_link_to_a_skipped_cell_opens_what_is_folded_around_it(opened):
    page = opened(DESK)
    folded = f"[...document.querySelectorAll('details.cell[data-status={SKIP}]')][0]"
    assert not page.evaluate(f"{folded}.checkVisibility()")
    page.evaluate(f"location.hash = {folded}.id")
    page.evaluate("new Promise(done => setTimeout(done, 50))")
    assert page.evaluate(f"{folded}.open && {folded}.checkVisibility()")
