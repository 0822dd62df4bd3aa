"""What a paper takes from a sweep, through the command line: plots at a column's width, tables, and what is refused."""

import re
import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pandas
import pytest
from PIL import Image

from sweep.report import escaping, summary_tables
from sweep.report.plots import draw, intervals, sheet
from sweep.report.plots.lines import HUES, LINES, MUTED, spread
from sweep.report.plots.sheet import PRINT_SIZE, Sheet
from tests.conftest import ROOT, Finished, finished
from tests.report import shapes

PUBLISHED = ROOT / "docs" / "results" / "matrix-2-gpus"


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A sweep on two H200 as it was published: without plan and cells."""
    for name in ("summary.csv", "manifest.json", "report.json"):
        (tmp_path / "sweep").mkdir(exist_ok=True)
        shutil.copy(PUBLISHED / name, tmp_path / "sweep")
    return tmp_path / "sweep"


def ends_as_the_sweep(done: Finished) -> bool:
    """Whether it ended silently, with the exit code of a sweep with failed cells."""
    return (done.code, done.err) == (1, "")


def report(folder: Path, *options: str) -> Finished:
    return finished("sweep.report", (folder.name, *options), folder.parent)


def figure(name, rows, on):
    """A figure as it would be drawn on this sheet."""
    with draw.style(), sheet.drawing_on(on):
        import matplotlib

        matplotlib.rcParams.update(sheet.sizes())
        return draw.PLOTS[name](draw.cleaned(pandas.DataFrame(rows)))


def texts_of(drawn):
    from matplotlib.text import Text

    return [text for text in drawn.findobj(Text) if text.get_text() and text.get_visible()]


def test_a_column_wide_pdf_keeps_its_width_and_its_text(published: Path) -> None:
    done = report(published, "--plots", "speedup", "--format", "pdf,svg", "--format", "png", "--width", "3.3")
    assert ends_as_the_sweep(done)
    drawn = {path.name: path for path in (published / "plots").iterdir()}
    assert set(drawn) == {"speedup.pdf", "speedup.svg", "speedup.png"}
    data = drawn["speedup.pdf"].read_bytes()
    (box,) = re.findall(rb"/MediaBox \[ 0 0 ([\d.]+)", data)
    assert float(box) == pytest.approx(3.3 * 72)
    assert b"/Subtype /Type3" not in data
    assert b"/Subtype /CIDFontType2" in data
    root = ElementTree.parse(drawn["speedup.svg"]).getroot()
    assert "teacache b1" in {one.text for one in root.iter("{http://www.w3.org/2000/svg}text")}
    with Image.open(drawn["speedup.png"]) as image:
        assert image.width == pytest.approx(3.3 * sheet.PRINT_DPI, abs=1)
    assert "speedup: " in done.out, "the small print, for a caption"
    assert "Whiskers" not in "".join(root.itertext())


def test_nothing_but_the_plots_is_written(published: Path) -> None:
    before = {path.name: path.read_bytes() for path in published.iterdir()}
    assert ends_as_the_sweep(report(published, "--plots", "memory", "--format", "svg"))
    after = {path.name: path.read_bytes() for path in published.iterdir() if path.is_file()}
    assert after == before
    assert [path.name for path in (published / "plots").iterdir()] == ["memory.svg"]


@pytest.mark.parametrize("name", ["heatmap", "speedup", "phases", "batch", "memory", "quality", "image_quality"])
def test_in_a_column_all_texts_have_one_size_and_none_is_cut(name: str) -> None:
    drawn = figure(name, shapes.full(), Sheet(("pdf",), 3.3, False))
    assert drawn.get_figwidth() == 3.3
    assert drawn.get_figheight() <= 11
    assert {text.get_fontsize() for text in texts_of(drawn)} == {PRINT_SIZE}
    assert drawn._suptitle is None
    drawn.draw_without_rendering()
    for item in (*drawn.axes, *drawn.legends):
        box = item.get_tightbbox()
        assert box.x0 >= -1, item
        assert box.x1 <= drawn.bbox.x1 + 1, item


def test_lines_are_named_at_their_ends_and_have_no_legend() -> None:
    drawn = figure("batch", shapes.full(), sheet.SCREEN)
    assert drawn.legends == []
    shown = [text.get_text() for text in texts_of(drawn)]
    assert shown.count("teacache") == shown.count("baseline") == 2, "latency and throughput"


def test_there_are_never_more_colours_of_lines_than_can_be_told_apart() -> None:
    names = ["", *(f"f{n}" for n in range(20))]
    plain = {batch: shapes.row("", batch) for batch in (1, 2)}
    rows = [
        plain[batch] | {"features": name, "cell": f"{name} b{batch}", "speedup": 1.1 + n / 10}
        for n, name in enumerate(names)
        for batch in (1, 2)
    ]
    lines = [line for line in figure("batch", rows, sheet.SCREEN).axes[0].lines if len(line.get_xdata()) == 2]
    assert len(lines) == LINES
    colours = [line.get_color() for line in lines]
    hued = [colour for colour in colours if colour in HUES]
    assert len(hued) == len(set(hued)) == len(HUES)
    assert colours.count(MUTED) == LINES - len(HUES) - 1


@pytest.mark.parametrize(
    ("places", "expected"),
    [([], []), ([0.5], [0.5]), ([0.2, 0.8], [0.2, 0.8]), ([0.5, 0.5], [0.45, 0.55]), ([1.0, 1.0], [0.9, 1.0])],
)
def test_names_are_moved_as_little_as_keeps_them_apart(places: list[float], expected: list[float]) -> None:
    assert spread(places, 0.1) == pytest.approx(expected)


def test_names_that_do_not_all_fit_share_the_room() -> None:
    assert spread([0.5] * 5, 1.0) == pytest.approx([0.0, 0.25, 0.5, 0.75, 1.0])


def test_the_whiskers_of_a_latency_are_those_of_its_speedup() -> None:
    row = shapes.row("teacache", latency_mean_s=2.0, speedup=1.5, speedup_low=1.2, speedup_high=2.0)
    frame = draw.cleaned(pandas.DataFrame([shapes.row(""), row]))
    low, high, said = intervals.of(frame, "latency_mean_s")
    assert (low[1], high[1]) == pytest.approx((1.5, 2.5))
    assert pandas.isna(low[0]), "a baseline has no speed-up"
    assert said == intervals.FROM_SPEEDUP
    assert intervals.of(frame, "peak_memory_gb")[2] == ""


@pytest.mark.parametrize(("seconds", "unit"), [(0.9, "ms"), (1.1, "s")])
def test_phases_are_in_seconds_above_a_thousand_milliseconds(seconds: float, unit: str) -> None:
    row = {**shapes.row(""), **dict.fromkeys(("text_encode_ms", "ar_decode_ms", "ar_prefill_ms", "vae_decode_ms"), 0)}
    row |= {"denoise_step_ms": 1000 * seconds, "other_ms": 0.0}
    (axes,) = figure("phases", [row], sheet.SCREEN).axes
    assert axes.get_xlabel().startswith(f"mean time per generation, {unit}\n")


def test_quality_has_the_gates_that_hold_for_each_cell() -> None:
    rows = [shapes.row("teacache", gate_fail_mean_diff=0.25), shapes.row("ulysses", gate_fail_mean_diff=0.005)]
    drawn = figure("image_quality", rows, sheet.SCREEN)
    (axes,) = [one for one in drawn.axes if one.get_xlabel().startswith("mean pixel")]
    segments = [segment for lines in axes.collections for segment in lines.get_segments()]
    gates = sorted(float(one[0][0]) for one in segments if one[0][0] == one[1][0])
    assert gates == [0.005, 0.25]
    without = figure("image_quality", [shapes.row("teacache")], sheet.SCREEN)
    assert [one.get_xlabel().partition("\n")[0] for one in without.axes] == ["PSNR, dB", "SSIM"]


def test_a_latex_table_has_every_measured_cell(published: Path) -> None:
    done = report(published, "--latex")
    assert ends_as_the_sweep(done)
    frame = pandas.read_csv(published / "summary.csv")
    rows = [line for line in done.out.splitlines() if line.endswith(r"\\") and not line.startswith("cell")]
    assert len(rows) == (frame["status"] != "SKIP").sum()
    assert r"cfg\_parallel+teacache b1 & faster & 4.01$\times$ (3.91--4.08) & 0.579 & 2.32 & 37.5 dB & " in done.out
    assert "% 21 cells were skipped." in done.out
    assert "% Random weights" in done.out
    for begin, end in (("\\begin{tabular}", "\\end{tabular}"), ("\\toprule", "\\bottomrule")):
        assert done.out.count(begin) == done.out.count(end) == 1


def test_a_markdown_table_has_the_same_cells(published: Path) -> None:
    done = report(published, "--markdown")
    assert ends_as_the_sweep(done)
    lines = done.out.splitlines()
    assert lines[0].startswith("| cell | verdict | speed-up (95 %) | latency, s | baseline, s |")
    assert {line.count("|") for line in lines if line.startswith("|")} == {9}
    assert any(line.startswith(r"| ring b2 | faster | 1.56× (1.54–1.58) |") and "| FAIL |" in line for line in lines)


HOSTILE = r"\input{/etc/passwd} 50% a_b & c#1 {x} $y$ ^~ | <b> `z` -- [1] @me"


def test_what_users_typed_is_neither_latex_nor_markdown() -> None:
    row = shapes.row("teacache") | {"cell": HOSTILE}
    latex = summary_tables.latex([row])
    assert r"\textbackslash{}input\{/etc/passwd\} 50\% a\_b \& c\#1 \{x\} \$y\$" in latex
    assert (
        r"\textasciicircum{}\textasciitilde{} \textbar{} \textless{}b\textgreater{} {`}z{`} -{}- {[}1{]} @me" in latex
    )
    assert latex.count(" & ") == 2 * latex.splitlines()[3].count(" & "), "heading and row have as many fields"
    markdown = summary_tables.markdown([row])
    assert r"a\_b &amp; c\#" in markdown
    assert r"\| &lt;b&gt; \`z\` -- \[1\] @" in markdown
    assert "@me" not in markdown


@pytest.mark.parametrize("letter", [chr(code) for code in range(33, 127)])
def test_every_letter_of_a_keyboard_is_escaped_or_harmless(letter: str) -> None:
    shown = escaping.latex(f"a{letter}b")
    bare = re.sub(r"\\(text\w+|[{}$&#%_])|\{.\}|\{\}", "", shown)
    assert not set(bare) & set("\\{}$&#%_^~")
    assert letter in shown or shown.startswith("a\\text")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--width", "3.3"), "--width is about plots; add --plots"),
        (("--no-title",), "--no-title is about plots"),
        (("--latex", "--format", "pdf"), "--format is about plots"),
        (("--latex", "--markdown"), "choose one"),
        (("--plots", "--width", "wide"), "--width wide: give inches from 2 to 40"),
        (("--plots", "--width", "nan"), "--width nan: give inches"),
        (("--plots", "--width=-3"), "--width -3: give inches"),
        (("--plots", "--format", "pdf,gif"), "--format gif: choose from png, svg, pdf"),
        (("--plots", "speed"), "--plots speed: no such plot; choose from heatmap, speedup"),
        (("--plots", "../speedup"), "no such plot"),
        (("--plots", "pictures"), "has no plan.json"),
        (("--plots", "rate"), "has nothing to show for rate"),
    ],
)
def test_what_cannot_be_made_is_refused_in_one_line(published: Path, options: tuple[str, ...], said: str) -> None:
    before = sorted(published.iterdir())
    done = report(published, *options)
    assert (done.code, done.out) == (2, "")
    (line,) = done.err.splitlines()
    assert said in line
    assert sorted(published.iterdir()) == before


def test_a_folder_without_a_sweep_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = report(tmp_path / "empty", "--latex")
    assert (done.code, done.out) == (2, "")
    assert "it has neither plan.json nor summary.csv" in done.err
