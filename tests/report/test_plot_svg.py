"""Plots inside the page: they follow its colours, and a file brings nothing but shapes."""

import re
from pathlib import Path

import pandas
import pytest

from sweep.report.page import plot_svg
from sweep.report.page.html import ReportContext, render
from sweep.report.page.oklab import contrast, from_oklab, to_oklab
from sweep.report.plots.draw import draw_all
from tests.report import shapes
from tests.report.test_html import Page

HEAD = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 9 9">'
PLOT_TEXTS = ("#000000", "#111111", "#262626", "#333333", "#555555")


@pytest.fixture(scope="module")
def plots(tmp_path_factory):
    frame = pandas.DataFrame(shapes.with_errors())
    return [path for path in draw_all(frame, tmp_path_factory.mktemp("plots")) if path.suffix == ".svg"]


def test_every_colour_of_a_plot_follows_the_page(plots):
    page = render(ReportContext(title="Sweep", plots=plots))
    shown = page[page.index('<div class="plots">') : page.index("<dialog")]
    assert not re.search(r"(fill|stroke)[:=]\s*\"?#", shown)
    used = set(re.findall(r"var\((--p[0-9a-f]{6})\)", shown))
    for scheme in re.findall(r":root\{(--p[^}]*)\}", page):
        assert used <= set(re.findall(r"(--p[0-9a-f]{6}):#[0-9a-f]{6}", scheme))
    assert len(re.findall(r":root\{--p", page)) == 2
    assert len(used) > 5


def test_plots_refer_to_their_own_parts_and_to_nothing_else(plots):
    seen = Page(render(ReportContext(title="Sweep", plots=plots)))
    assert len(plots) > 3
    assert len(seen.ids) == len(set(seen.ids))
    assert seen.sources == []


def test_a_plot_brings_neither_scripts_nor_styles_nor_links(tmp_path):
    path = tmp_path / "odd.svg"
    path.write_text(
        f"{HEAD}<style>* {{color: red}}</style><script>alert(1)</script><foreignObject><p>hello</p></foreignObject>"
        '<image href="https://example.com/a.png"/><path d="M 0 0" onclick="alert(2)" style="fill: url(http://a/b)"/>'
        '<text style="fill: #111111">a &lt;b&gt;</text></svg>'
    )
    markup = plot_svg.inline(path, "p-", 'plot: "odd"').markup
    for gone in ("<style", "<script", "foreignObject", "example.com", "onclick", "url(", "alert"):
        assert gone not in markup
    assert "a &lt;b&gt;</text>" in markup
    assert 'aria-label="plot: &quot;odd&quot;"' in markup


@pytest.mark.parametrize("content", ["", "<svg", "<html></html>"])
def test_what_is_no_svg_is_shown_as_its_png(tmp_path, content):
    path = tmp_path / "speedup.svg"
    path.write_text(content)
    assert "not embedded" in render(ReportContext(title="Sweep", plots=[path]))
    path.with_suffix(".png").write_bytes(b"\x89PNG...")
    assert Page(render(ReportContext(title="Sweep", plots=[path]))).sources == ["data:image/png;base64,iVBORy4uLg=="]
    assert plot_svg.inline(Path("gone.svg"), "", "") is None


@pytest.mark.parametrize("colour", PLOT_TEXTS)
def test_texts_of_plots_read_as_well_on_a_dark_page(colour):
    assert contrast(colour, "#ffffff") >= 4.5
    assert contrast(plot_svg.dark_of(colour), plot_svg.DARK_WHITE) >= 4.5


def test_a_dark_colour_keeps_its_hue_and_white_becomes_the_background():
    assert plot_svg.dark_of("#ffffff") == plot_svg.DARK_WHITE
    for colour in ("#0173b2", "#d55e00", "#029e73", "#ece133"):
        (_, a, b), (_, dark_a, dark_b) = to_oklab(colour), to_oklab(plot_svg.dark_of(colour))
        assert a * dark_a + b * dark_b > 0.98 * ((a * a + b * b) * (dark_a**2 + dark_b**2)) ** 0.5
        assert contrast(plot_svg.dark_of(colour), plot_svg.DARK_WHITE) > 2
        assert from_oklab(to_oklab(colour)) == colour


def test_contrast_is_that_of_wcag():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
