"""Plots are drawn for real; what they show is read back from the figures and the files."""

import itertools
import math
import xml.etree.ElementTree as ElementTree
from unittest import mock

import matplotlib
import pandas
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from sweep.analysis import paired
from sweep.findings import Finding
from sweep.report.plots import draw, heatmap
from sweep.report.plots.draw import draw_all
from sweep.report.plots.loads import draw_soak
from sweep.report.plots.panels import BARS
from sweep.report.plots.pareto import front_of
from sweep.report.plots.sheet import Sheet, drawing_on
from tests.report import shapes

EXPECTED = {
    "only_baseline": {"phases", "memory"},
    "one_cell": {"speedup", "phases", "memory", "quality", "image_quality"},
    "errors": {"heatmap", "speedup", "phases", "memory", "quality", "image_quality"},
    "forty": {"heatmap", "speedup", "phases", "batch", "memory", "quality", "image_quality", "exactness"},
    "two_models": {"heatmap", "speedup", "phases", "batch", "memory", "quality", "image_quality"},
    "many_settings": {"heatmap", "speedup", "phases", "batch", "memory", "quality", "image_quality"},
    "ladder": {"phases", "memory", "concurrency"},
}


VECTORS_ALONE = ("two_models", "many_settings")
"""Shapes whose many plots are drawn once: pixels come from the same figures, which five other shapes show."""


def figure(name, rows):
    """The figure as drawn, before it becomes a file."""
    with draw.style():
        return draw.PLOTS[name](draw.cleaned(pandas.DataFrame(rows)))


def colours(axes):
    return [to_hex(bar.get_facecolor()) for bar in axes.patches]


def texts(drawn):
    from matplotlib.text import Text

    return [item.get_text() for item in drawn.findobj(Text) if item.get_text()]


@pytest.fixture(scope="module")
def drawn(request, tmp_path_factory):
    """The plots of a shape of sweep: the files, and their figures by name. Drawing changes nothing else."""
    figures = {}

    def kept(name, draw_one):
        def draw_and_keep(frame):
            figures[name] = draw_one(frame)
            return figures[name]

        return draw_and_keep

    folder = tmp_path_factory.mktemp(request.param) / "plots"
    frame, before = pandas.DataFrame(shapes.SHAPES[request.param]()), dict(matplotlib.rcParams)
    copy = frame.copy()
    formats = ("svg",) if request.param in VECTORS_ALONE else ("png", "svg")
    keeping = mock.patch.dict(draw.PLOTS, {name: kept(name, one) for name, one in draw.PLOTS.items()})
    with keeping, drawing_on(Sheet(formats)):
        written = draw_all(frame, folder, note="Random weights.")
    assert sorted(written) == sorted(folder.iterdir())
    pandas.testing.assert_frame_equal(frame, copy)
    assert dict(matplotlib.rcParams) == before
    return request.param, written, figures


@pytest.mark.parametrize("drawn", EXPECTED, indirect=True)
def test_each_shape_of_sweep_gives_the_plots_that_have_something_to_show(drawn):
    shape, written, _ = drawn
    assert {path.stem for path in written} == EXPECTED[shape]
    for path in written:
        if path.suffix == ".png":
            with Image.open(path) as image:
                assert image.info["dpi"][0] == pytest.approx(150, abs=0.5)
                assert min(image.size) > 250
                assert len(image.convert("L").resize((64, 64)).getcolors()) > 5  # no empty picture
        else:
            assert ElementTree.parse(path).getroot().tag.endswith("svg")


@pytest.mark.parametrize("drawn", ["forty", "two_models", "many_settings"], indirect=True)
def test_no_text_is_cut_and_no_row_label_overlaps_the_next(drawn):
    shape, _, figures = drawn
    shown = {name: figure for name, figure in figures.items() if figure is not None}
    assert shown.keys() == EXPECTED[shape]
    for name, figure in shown.items():
        page = figure.bbox
        for item in [*figure.legends, *figure.axes, *([figure._suptitle] if figure._suptitle else [])]:
            box = item.get_tightbbox()
            assert box.x0 >= page.x0 - 1, f"{name}: {item} is cut"
            assert box.x1 <= page.x1 + 1, f"{name}: {item} is cut"
        for axes in figure.axes:
            boxes = [label.get_window_extent() for label in axes.get_yticklabels()]
            boxes.sort(key=lambda box: box.y0)
            assert all(low.y1 <= high.y0 + 1 for low, high in itertools.pairwise(boxes)), name


@pytest.mark.parametrize("rows", [[], [shapes.failed("tp", "ERROR", "killed")], [{"cell": "baseline b1"}]])
def test_nothing_to_show_draws_nothing(rows, tmp_path):
    assert draw_all(pandas.DataFrame(rows), tmp_path / "plots") == []
    assert not (tmp_path / "plots").exists()


@pytest.mark.parametrize("drawn", ["errors"], indirect=True)
def test_a_summary_read_back_from_csv_draws_the_same(drawn, tmp_path):
    shape, first, _ = drawn
    pandas.DataFrame(shapes.SHAPES[shape]()).to_csv(tmp_path / "summary.csv", index=False)
    second = draw_all(pandas.read_csv(tmp_path / "summary.csv"), tmp_path / "plots", note="Random weights.")
    assert [path.name for path in first] == [path.name for path in second]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(first, second, strict=True))


def test_speedup_bars_and_whiskers_are_the_numbers_of_the_rows():
    rows = [shapes.row(""), shapes.row("teacache", speedup=1.5, speedup_low=1.25, speedup_high=1.75)]
    axes = figure("speedup", rows).axes[0]
    assert [bar.get_width() for bar in axes.patches] == [1.5]
    whisker = axes.collections[0].get_segments()[0]
    assert [x for x, _ in whisker] == [1.25, 1.75]


@pytest.mark.parametrize(
    ("low", "high", "called", "colour"),
    [
        (1.1, 1.3, paired.FASTER, draw.FASTER),
        (0.9, 1.3, paired.NO_DIFFERENCE, draw.UNCLEAR),
        (0.7, 0.9, paired.SLOWER, draw.SLOWER),
        (0.7, 0.9, paired.UNKNOWN, draw.UNCLEAR),
        (None, None, paired.UNKNOWN, draw.NO_INTERVAL),
    ],
)
def test_a_speedup_has_the_colour_of_its_verdict_and_none_without_one(low, high, called, colour):
    speedup = 1.2 if high != 0.9 else 0.8
    row = shapes.row("teacache", speedup=speedup, speedup_low=low, speedup_high=high, called=called)
    drawn = figure("speedup", [row])
    assert colours(drawn.axes[0]) == [colour.lower()]
    assert [to_hex(patch.get_facecolor()) for patch in drawn.legends[0].get_patches()] == [colour.lower()]


def test_phases_leave_out_what_is_nested_and_add_up_to_the_request():
    row = shapes.row("")
    drawn = figure("phases", [row])
    assert sum(bar.get_width() for bar in drawn.axes[0].patches) == pytest.approx(row["request_ms"])
    assert {"ar_prefill", "ar_decode", "denoise_step", "vae_decode", "other"} <= set(texts(drawn))
    assert not {"dit_forward", "request"} & set(texts(drawn))


def test_batch_lines_follow_the_rows():
    axes = figure("batch", shapes.full()).axes[0]
    expected = {
        tuple(r["latency_mean_s"] for r in shapes.full() if r["features"] == name and not r["cell"].endswith("A/A"))
        for name in ("", "cache_dit", "cfg_parallel", "teacache", "cfg_parallel+teacache")
    }
    assert expected <= {tuple(line.get_ydata()) for line in axes.lines}


def test_batch_lines_mark_what_failed_and_leave_out_the_baseline_against_itself():
    rows = [shapes.row(name, batch) for name in ("", "teacache") for batch in (1, 2)]
    rows[3]["status"] = "FAIL"
    again = [shapes.row("", 1, aa=True) | {"cell": f"baseline b1{number} A/A"} for number in ("", " #2")]
    drawn = figure("batch", rows + again)
    marked = [line for line in drawn.axes[0].lines if line.get_marker() == "X" and len(line.get_xdata())]
    assert [tuple(line.get_data()) for line in marked] == [([2.0], [rows[3]["latency_mean_s"]])]
    assert "teacache ✗ FAIL" in texts(drawn)
    assert not [text for text in texts(drawn) if "A/A" in text]


def test_of_many_feature_sets_the_single_ones_are_drawn_and_the_fastest_combinations():
    slow, fast = ([f"{kind}{n}" for n in range(7)] for kind in ("slow", "fast"))
    speeds = dict.fromkeys(slow, 0.9) | {f"{name}+x": 2.0 + n for n, name in enumerate(fast)}
    shape = {batch: shapes.row("", batch) for batch in (1, 2)}
    rows = [
        shape[batch] | {"features": name, "cell": f"{name} b{batch}", "speedup": speeds.get(name, 1.0)}
        for name in ("", *slow, *speeds)
        for batch in (1, 2)
    ]
    found = set(texts(figure("batch", rows)))
    assert {"baseline", *slow, *(f"{name}+x" for name in fast[1:])} <= found, "14 lines"
    assert "fast0+x" not in found


def test_cells_that_differ_in_a_parameter_are_lines_of_their_own():
    rows = [
        shapes.row("teacache", batch) | {"cell": f"teacache b{batch} rel_l1_thresh={threshold}"}
        for batch in (1, 2)
        for threshold in (0.1, 0.3)
    ]
    assert {"teacache rel_l1_thresh=0.1", "teacache rel_l1_thresh=0.3"} <= set(texts(figure("batch", rows)))


def test_models_and_sizes_stand_in_panels_of_their_own():
    found = set(texts(figure("speedup", shapes.two_models())))
    assert {"tiny_glm_image · 64×64 · 8\u00a0steps", "tiny_qwen_image · 128×128 · 8\u00a0steps"} <= found


def test_identical_images_stand_left_of_every_different_one():
    axes = figure("quality", shapes.full()).axes[0]
    x = {float(place[0]) for points in axes.collections for place in points.get_offsets() if place[0]}
    names = {tick.get_text(): place for tick, place in zip(axes.get_xticklabels(), axes.get_xticks(), strict=True)}
    assert min(x) == names["identical"] < math.log10(0.0043) == pytest.approx(sorted(x)[1])


def test_cells_without_numbers_and_failures_are_said():
    assert "cache_dit b1 [FAIL]" in texts(figure("speedup", shapes.with_errors()))
    drawn = figure("speedup", shapes.with_errors())
    draw.footnote(drawn, "Random weights.", draw.cleaned(pandas.DataFrame(shapes.with_errors())))
    assert (
        drawn.get_supxlabel()
        .replace("\n", " ")
        .endswith("Random weights. Cells without numbers are not shown: 1 SKIP, 1 ERROR.")
    )


def test_a_long_or_foreign_label_draws(tmp_path):
    names = ("a" * 200, "一只猫+$x^2$", "+".join(["cfg_parallel"] * 12))
    rows = [
        shapes.row("teacache", batch) | {"features": name, "cell": f"{name} b{batch}"}
        for batch, name in enumerate(names, start=1)
    ]
    assert draw_all(pandas.DataFrame(rows), tmp_path)


def test_a_called_speedup_is_coloured_as_called_whatever_its_interval():
    row = shapes.row("teacache", speedup=1.2, speedup_low=1.1, speedup_high=1.3, called=paired.NO_DIFFERENCE)
    drawn = figure("speedup", [row])
    assert draw.WITHIN_NOISE in texts(drawn)
    assert colours(drawn.axes[0]) == [to_hex(draw.UNCLEAR)]


def test_the_front_holds_what_nothing_beats():
    assert front_of([(0.0, 1.2), (0.1, 1.1), (0.1, 1.5), (0.2, 1.5), (0.0, 0.9)]) == [0, 2]
    assert front_of([(0.0, 0.9)]) == []


def test_the_heatmap_says_status_speedup_gain_and_why_not():
    rows = [shapes.row(name, speedup=1.5) for name in ("teacache", "tp")]
    rows += [shapes.row("teacache+tp", speedup=1.25, interaction_gain=0.8, status="WARN")]
    rows += [shapes.failed("ring", "SKIP", "requires 4 GPUs, only 2 available")]
    rows[-1]["findings"] = [Finding("too_few_devices", rows[-1]["reason"], "SKIP", "needs 4 GPUs")]
    assert {"✓ PASS", "! WARN", "– SKIP", "1.50×", "1.25×", "gain 0.80", "needs 4 GPUs"} <= set(
        texts(figure("heatmap", rows))
    )


def test_the_heatmap_breaks_long_names_and_says_how_many_larger_sets_there_are():
    singles = [shapes.row(name, speedup=1.5) for name in ("prompt_embed_cache", "lora")]
    said = texts(figure("heatmap", [*singles, shapes.row("cache_dit+lora+scm"), shapes.row("cache_dit+lora+tp")]))
    assert "prompt_embed_\ncache" in said
    assert any("2 sets of three or more features: see report.html" in text.replace("\n", " ") for text in said)
    assert not any("three or more" in text for text in texts(figure("heatmap", singles)))


def test_of_very_many_cells_the_most_telling_are_drawn_and_it_says_so():
    rows = [shapes.row("teacache", speedup=0.5 + i / 1000) | {"cell": f"teacache b1 n={i}"} for i in range(1000)]
    drawn = figure("speedup", rows)
    widths = [bar.get_width() for bar in drawn.axes[0].patches]
    assert len(widths) == BARS
    assert {0.5, 0.5 + 999 / 1000} <= set(widths)
    assert drawn.get_supxlabel().startswith("40 of 1000 cells are drawn")


@pytest.mark.parametrize("name", ["phases", "batch"])
def test_times_of_cells_with_a_baseline_beside_them_are_not_for_comparing(name):
    rows = [shapes.row(features, batch) for features in ("", "teacache") for batch in (1, 2)]
    said = "speed-ups compare each cell with its interleaved baseline"
    assert said not in figure(name, rows).get_supxlabel()
    assert said in figure(name, [row | {"baseline_beside_s": 0.5} for row in rows]).get_supxlabel()


@pytest.mark.parametrize(("low", "high", "cut"), [(1.1, 1.5, False), (0.95, 1.6, False), (0.4, 3.1, True)])
def test_whiskers_of_the_quality_plot_are_whole_or_said_to_be_longer(low, high, cut):
    rows = [
        shapes.row("tp", speedup=1.1, speedup_low=1.05, speedup_high=1.15),
        shapes.row("teacache", speedup=1.3, speedup_low=low, speedup_high=high),
    ]
    drawn = figure("quality", rows)
    bottom, top = drawn.axes[0].get_ylim()
    assert (bottom < low and high < top) is not cut
    assert ("Some whiskers extend beyond the plot." in drawn.get_supxlabel()) is cut
    assert top - bottom < 1.5, "points stay apart"


def test_what_a_profiler_recorded_is_in_no_plot_of_speed_and_said_to_be_profiled_elsewhere(tmp_path):
    rows = [{**row, "profiled": "nsys", "speedup": None, "interaction_gain": None} for row in shapes.full()]
    written = draw_all(pandas.DataFrame(rows), tmp_path)
    assert {path.stem for path in written} == {"heatmap", "phases", "memory"}
    assert any("profiled" in text for text in texts(figure("phases", rows)))
    assert "profiled" in texts(figure("heatmap", rows))


def test_what_a_load_does_offline_is_a_line_and_the_knee_has_a_ring():
    drawn = figure("concurrency", shapes.ladder())
    throughput, latency = drawn.axes[:2]
    dotted = [line for line in throughput.lines if line.get_linestyle() == ":"]
    assert [set(line.get_ydata()) for line in dotted] == [{2.5}]
    assert "offline, full batches" in texts(drawn)
    for axes, value in ((throughput, 2.0), (latency, 2.0)):
        (ring,) = [line for line in axes.lines if line.get_label() == "knee" and len(line.get_xdata())]
        assert tuple(ring.get_data()) == ([4.0], [value])
    assert throughput.get_ylim()[1] > 2.5
    assert "Rings: the knee" in drawn.get_supxlabel()


def test_an_offline_rate_far_above_is_said_and_flattens_nothing():
    drawn = figure("concurrency", shapes.ladder(offline=6000.0))
    assert drawn.axes[0].get_ylim()[1] < 5
    assert "baseline offline, full batches: 6e+03 images/s, far above." in drawn.get_supxlabel()


def test_a_ladder_without_knee_and_offline_cell_has_neither():
    drawn = figure("concurrency", [row | {"knee": False} for row in shapes.ladder()[1:]])
    assert not [line for line in drawn.axes[0].lines if line.get_linestyle() == ":"]
    assert "knee" not in drawn.get_supxlabel()


def test_loads_with_several_batches_are_drawn_by_batch():
    larger = [row | {"batch": 4, "images_per_s": 2 * row["images_per_s"]} for row in shapes.ladder()[1:]]
    rows = shapes.ladder()[1:] + larger
    drawn = figure("batch_under_load", rows)
    assert [axes.get_ylabel().partition(",")[0] for axes in drawn.axes] == ["throughput", "latency", "peak memory"]
    assert {"baseline, closed, 4 in flight", "baseline, closed, 1 in flight"} <= set(texts(drawn))
    assert (1.0, 2.0) in {tuple(line.get_ydata()) for line in drawn.axes[0].lines}
    assert figure("batch_under_load", shapes.ladder()) is None


def test_texts_have_throughput_in_requests():
    rows = [row | {"images_per_s": None} for row in shapes.ladder()[1:]]
    axes = figure("concurrency", rows).axes[0]
    assert axes.get_ylabel().startswith("requests/s")
    assert tuple(axes.lines[0].get_ydata()) == (1.0, 1.7, 2.0, 2.02)


def test_a_long_load_is_drawn_part_by_part() -> None:
    parts = [
        {"cell": f"baseline b1 part {part}", "load": "closed, 2 in flight", "part": part, "latency_mean_s": 1.0}
        for part in range(1, 5)
    ]
    frame = pandas.DataFrame(
        [{"batch": 1, "status": "PASS", "images_per_s": 2.0, "requests_per_s": 2.0, **one} for one in parts]
    )
    figure = draw_soak(draw.cleaned(frame))
    assert figure is not None
    assert list(figure.axes[0].lines[0].get_xdata()) == [1, 2, 3, 4]
    assert draw_soak(draw.cleaned(frame[:2])) is None


def test_the_heatmap_colours_speed_borders_status_and_hatches_noise():
    rows = [
        shapes.row("teacache", speedup=2.0, speedup_low=1.9, speedup_high=2.1, called="faster"),
        shapes.row("tp", speedup=0.5, speedup_low=0.4, speedup_high=0.6, called="slower", status="FAIL"),
        shapes.row("teacache+tp", speedup=1.0, speedup_low=0.9, speedup_high=1.1, called="no difference"),
    ]
    drawn = figure("heatmap", rows)
    patches = drawn.axes[0].patches
    fills = [to_hex(one.get_facecolor()) for one in patches if one.get_fill()]
    assert sorted(fills) == sorted(["#85b8e2", "#f4a56b", "#f5f5f5"])
    (hatched,) = [one for one in patches if one.get_hatch()]
    assert hatched.get_y() > 1, "the pair"
    assert to_hex(heatmap.BORDERS["FAIL"]["edgecolor"]) in [to_hex(one.get_edgecolor()) for one in patches]
    said = [text.get_text() for text in drawn.legends[0].get_texts()]
    assert said == ["✓ PASS", "✗ FAIL", "within noise"]
    assert "speed-up" in [axes.get_ylabel() for axes in drawn.axes], "the colour bar"
