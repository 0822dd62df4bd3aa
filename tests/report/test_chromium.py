"""The page in a real browser, from disk, with no network: 22 cells × 20 prompts of 1024×1024, hostile texts."""

from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pandas
import pytest

from sweep.report.page import contents
from sweep.report.plots.draw import draw_all
from tests.report import browser as driver
from tests.report.made_up import HOSTILE, made_up

pytestmark = pytest.mark.skipif(driver.executable() is None, reason="no Chromium here")
TEACACHE = "[...document.querySelectorAll('details.cell')].find(part => part.textContent.includes('teacache b1'))"
LOADED = """new Promise(done => {
    const shown = () => [...document.querySelectorAll('details[open] img')].every(image => image.complete)
    const look = () => shown() ? setTimeout(done, 50) : setTimeout(look, 50)
    setTimeout(look, 300)
})"""


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    sweep = made_up(tmp_path_factory.mktemp("sweep"))
    shown = [row for row in sweep.rows if set(row["features"].split("+")) <= {"", "ring", "tp"}]  # one is hostile
    drawn = draw_all(pandas.DataFrame(shown), sweep.folder.path / "plots")
    return contents.write(sweep.folder, sweep.plan, sweep.rows, sweep.results, drawn, HOSTILE)


@pytest.fixture(scope="module")
def browser():
    with driver.started(limit_s=600) as found:
        yield found


@pytest.fixture
def opened(report, browser):
    browser.window(1280, 900)
    browser.open("about:blank")
    browser.open(report.as_uri())
    return browser


def test_the_page_is_small_and_opens_at_once(report, browser):
    """In seconds of the page's own thread, not of a machine that may be busy."""
    assert report.stat().st_size < 20_000_000
    browser.window(1280, 900)
    browser.open("about:blank")
    browser.call("Performance.enable", timeDomain="threadTicks")
    browser.open(report.as_uri())
    used = {metric["name"]: metric["value"] for metric in browser.call("Performance.getMetrics")["metrics"]}
    browser.call("Performance.disable")
    assert 0 < used["TaskDuration"] < 2


def test_nothing_hostile_runs_and_all_of_it_is_shown(opened):
    opened.evaluate("document.getElementById('open-all').click()")
    opened.evaluate(LOADED)
    assert opened.evaluate("document.title") == "Sweep of tiny_glm_image"
    assert opened.evaluate("document.querySelectorAll('script').length") == 2
    assert opened.evaluate("document.querySelectorAll('[onerror], img[src=x]').length") == 0
    assert opened.evaluate("document.body.innerText").count(HOSTILE) > 300
    methods = [event.get("method") for event in opened.seen]
    assert "Page.javascriptDialogOpening" not in methods
    asked = [e["params"]["request"]["url"] for e in opened.seen if e.get("method") == "Network.requestWillBeSent"]
    assert all(url.startswith(("file:", "data:image/")) for url in asked)
    assert not [e for e in opened.seen if e.get("method") == "Log.entryAdded"]  # e.g. a breach of the policy


def test_images_are_filled_when_a_section_opens(opened):
    assert opened.evaluate("document.querySelectorAll('.cell img[src]').length") == 0
    opened.evaluate(f"{TEACACHE}.open = true; {LOADED}")
    shown = f"[...{TEACACHE}.querySelectorAll('img')]"
    assert opened.evaluate(f"{shown}.length") == 80  # baseline and cell, and both again in the difference
    assert opened.evaluate(f"{shown}.every(image => image.src.startsWith('data:image/') && image.naturalWidth > 100)")


def test_a_timeline_has_its_lanes_on_one_axis(opened):
    opened.evaluate(f"{TEACACHE}.open = true; {LOADED}")
    drawn = f"[...{TEACACHE}.querySelectorAll('.timeline svg')]"
    boxes = opened.evaluate(f"{drawn}.map(part => part.getBoundingClientRect()).map(box => [box.left, box.right])")
    assert len(boxes) == 9
    assert len({tuple(box) for box in boxes}) == 1
    assert boxes[0][1] - boxes[0][0] > 600
    denoise = f"{TEACACHE}.querySelector('.timeline .lane-phases path[fill=\"#0173B2\"]').getBoundingClientRect()"
    assert opened.evaluate(f"{denoise}.width") > 300


def test_a_preview_leads_to_its_file(report, opened):
    links = opened.evaluate(f"[...{TEACACHE}.querySelectorAll('figure a')].map(link => link.href)")
    assert len(links) == 40
    assert all(Path(url2pathname(urlsplit(link).path)).is_file() for link in links)
    opened.open(links[0])
    assert opened.evaluate("document.contentType") == "image/png"
    assert opened.evaluate("document.images[0].naturalWidth") == 1024


def test_a_field_of_the_matrix_leads_to_its_section_by_keyboard(opened):
    opened.evaluate("document.querySelector('.matrix tbody a').focus()")
    opened.press("Enter")
    opened.evaluate(LOADED)
    assert opened.evaluate("document.querySelector(location.hash).open")
    assert abs(opened.evaluate("document.querySelector(location.hash).getBoundingClientRect().top")) < 100


def test_columns_sort_by_number_both_ways_with_absent_last(opened):
    heading = "[...document.querySelectorAll('.cells th')].find(th => th.textContent.startsWith('speed-up'))"
    values = f"[...document.querySelectorAll('.cells tbody tr')].map(row => row.cells[{heading}.cellIndex].dataset.v)"
    for order, reverse in (("descending", True), ("ascending", False)):
        opened.evaluate(f"{heading}.querySelector('button').focus()")
        opened.press("Enter")
        assert opened.evaluate(f"{heading}.ariaSort") == order
        found = opened.evaluate(values)
        numbers = [float(value) for value in found if value]
        assert numbers == sorted(numbers, reverse=reverse)
        assert len(numbers) == 20
        assert found[len(numbers) :] == [""] * (len(found) - len(numbers))


def test_the_slider_amplifies_every_difference(opened):
    slider = f"{TEACACHE}.querySelector('input.amp')"
    opened.evaluate(f"{TEACACHE}.open = true; {slider}.value = 37")
    opened.evaluate(f"{slider}.dispatchEvent(new Event('input', {{bubbles: true}}))")
    assert opened.evaluate(f"getComputedStyle({TEACACHE}.querySelector('.diff')).filter") == "brightness(37)"
    assert opened.evaluate("[...document.querySelectorAll('output')].every(output => output.textContent === '37×')")


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_never_scrolls_sideways(opened, width):
    opened.window(width, 900, dark=width == 390)
    opened.evaluate(f"{TEACACHE}.open = true; {LOADED}")
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
