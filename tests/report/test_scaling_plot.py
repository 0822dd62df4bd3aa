"""Strong scaling, of the stored sweep on four GPUs and of made-up rows."""

import pandas
import pytest

from sweep.report.plots import draw
from tests.conftest import ROOT
from tests.report import shapes
from tests.report.test_plots import figure, texts

STORED = ROOT / "docs" / "results" / "scaling-4-gpus" / "summary.csv"


def lines(axes):
    """Points of the solid lines, by their last value: (devices, values)."""
    return {
        (tuple(line.get_xdata()), tuple(round(float(y), 3) for y in line.get_ydata()))
        for line in axes.lines
        if line.get_linestyle() == "-" and len(line.get_xdata()) > 1
    }


def test_lines_of_the_stored_sweep_begin_at_its_baselines_and_end_at_its_cells():
    stored = pandas.read_csv(STORED, dtype=str)
    drawn, table = figure("scaling", stored), draw.cleaned(stored)
    assert {"1024×1024", "2048×2048", "tp", "ulysses", "cfg_parallel", "cfg_parallel+ulysses"} <= set(texts(drawn))
    for number, width in enumerate((1024, 2048)):
        speed, rate, memory = drawn.axes[number::2]
        cells = table[(table["width"] == width) & (table["status"] == "PASS") & (table["role"] != "aa")]
        first = cells[cells["gpus"] == 1].iloc[0]
        for axes, column in ((speed, "speedup"), (rate, "images_per_s_per_gpu"), (memory, "peak_memory_gb")):
            expected = set()
            for _, part in cells[cells["gpus"] > 1].groupby("features"):
                part = part.sort_values("gpus")
                values = [first[column], *part[column]]
                expected.add(((1.0, *part["gpus"]), tuple(round(float(value), 3) for value in values)))
            assert len(expected) == 4
            assert lines(axes) == expected
        (ideal,) = [line for line in speed.lines if line.get_linestyle() == "--"]
        assert list(ideal.get_xdata()) == list(ideal.get_ydata()) == [1, 2, 3, 4]


def scaled(features, gpus, **fields):
    label = f"{features or 'baseline'} b1" + (f" degree={gpus}" if gpus > 1 else "")
    return shapes.row(features, gpus=gpus, **fields) | {"cell": label, "load": ""}


@pytest.mark.parametrize(
    ("rows", "shown"),
    [
        ([scaled("", 1), scaled("ulysses", 2), scaled("ulysses", 4)], True),
        ([scaled("", 1), scaled("ulysses", 2), scaled("tp", 4)], False),  # one number of devices each
        ([scaled("", 1), scaled("ulysses", 2), scaled("ulysses", 4) | {"load": "closed"}], False),
        ([scaled("", 1), *(scaled("ulysses", 2) | {"cell": f"ulysses b1 x={n}"} for n in (1, 2)), scaled("ulysses", 4)],
         False),  # another setting, too
        ([row | {"gpus": None} for row in (scaled("", 1), scaled("ulysses", 2), scaled("ulysses", 4))], False),
    ],
)  # fmt: skip
def test_it_is_drawn_where_a_feature_ran_on_several_numbers_of_devices(rows, shown):
    assert (figure("scaling", rows) is not None) is shown


def test_profiled_cells_are_left_out(tmp_path):
    rows = [scaled("", 1), scaled("ulysses", 2), scaled("ulysses", 4) | {"profiled": "torch"}]
    assert draw.draw_all(pandas.DataFrame(rows), tmp_path, only=["scaling"]) == []


def test_batches_are_lines_of_their_own():
    rows = [
        row | {"batch": batch, "cell": row["cell"].replace("b1", f"b{batch}")}
        for batch in (1, 4)
        for row in (scaled("", 1), scaled("ulysses", 2), scaled("ulysses", 4))
    ]
    found = set(texts(figure("scaling", rows)))
    assert {"ulysses b1", "ulysses b4"} <= found
