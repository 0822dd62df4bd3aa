"""What reports say about predictions and limits: sentences, the page's section, plots; from published sweeps."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from sweep.predict.calibrate import Calibration
from sweep.predict.factors import Factors
from sweep.report import costs, drawing, limit_cells, limit_words
from sweep.report.__main__ import main as command
from sweep.report.conclusions import LIMIT, conclude
from sweep.report.limit_cells import LimitCell, recorded
from sweep.report.page import limit_view, published
from sweep.report.plots import draw, limits, sheet
from sweep.report.plots.sheet import PRINT_SIZE, Sheet
from sweep.report.words import digits
from tests.conftest import ROOT

RESULTS = ROOT / "docs" / "results"


@pytest.fixture(autouse=True)
def as_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was calibrated on this machine."""
    monkeypatch.setenv("SWEEP_CACHE", str(tmp_path / "cache"))
    limit_cells.calibration_for.cache_clear()


def cells_of(name: str) -> list[LimitCell]:
    folder = RESULTS / name
    return limit_cells.published(folder, published._rows(folder / "summary.csv"))


def one(name: str, cell: str) -> LimitCell:
    return next(found for found in cells_of(name) if found.name == cell)


@pytest.mark.parametrize("name", ["matrix-2-gpus", "glm-features-2-gpus", "single-1-gpu"])
def test_no_cell_that_ran_on_h200_was_faster_than_its_limit(name: str) -> None:
    found = cells_of(name)
    assert len(found) >= 9
    for cell in found:
        assert 0.05 < cell.found.limit_share < 0.7, cell.name
        assert all((share or 0) < 1 for share in map(cell.found.limit_share_of, cell.found.phases_s)), cell.name
        assert 0 < cell.found.mfu <= 1


def test_the_sentence_says_how_much_is_reached_and_where_the_rest_goes() -> None:
    cell = one("matrix-2-gpus", "cfg_parallel b1")
    said = limit_words.sentence(cell)
    assert said.startswith("cfg_parallel b1 reaches 38 % of what 2 H200 allow (0.474 of 1.25 s). Of its time it loses ")
    shares = [int(share) for share in re.findall(r"(\d+) % to ", said)]
    assert shares == sorted(shares, reverse=True)
    assert 3 <= len(shares) <= limit_words.MOST
    assert sum(shares) <= 100 * (1 - cell.found.limit_share) + 1, "losses and the limit are the measured time"


def test_losses_and_the_limit_add_up_to_the_measured_phases() -> None:
    for cell in cells_of("glm-features-2-gpus"):
        found = cell.found
        measured = sum(seconds for phase, seconds in found.phases_s.items() if phase in found.limits_s)
        lost = sum(loss.seconds for loss in limit_words.losses(found))
        assert lost + found.limit_s == pytest.approx(measured, rel=1e-6), cell.name


def test_what_takes_longest_is_named_first() -> None:
    ar = limit_words.losses(one("glm-features-2-gpus", "baseline b1").found)[0]
    assert ar.text.startswith("AR decode at 16 % of the bandwidth")
    assert limit_words.losses(one("single-1-gpu", "layerwise_offload b2").found)[0].text.startswith("copies of weights")
    assert "launch the DiT" in limit_words.losses(one("matrix-2-gpus", "ring b1").found)[0].text


def test_a_profiled_sweep_says_how_busy_the_gpu_was() -> None:
    """From nsys_phases.csv: 4,046,979,377 of 5,239,511,740 ns busy, 1,073,565,688 waiting for the host."""
    said = limit_words.sentence(one("why-2-gpus", "baseline b1"))
    assert said.endswith("in denoise_step the GPU is busy 77 % of the time and waits for launches 20 % of it.")


def test_tables_of_several_processes_count_together_and_other_domains_do_not() -> None:
    line = {"phase": "request", "domain": "sweep", "projected_ns": "100", "busy_ns": "60", "idle_for_host_ns": "30"}
    other = line | {"busy_ns": "20", "idle_for_host_ns": "70"}
    found = recorded([line, other, line | {"domain": "NCCL"}, {"phase": "x"}, line | {"busy_ns": "no"}])
    assert found == {"request": limit_cells.Recorded(0.4, 0.5)}


def test_conclusions_say_it_once_of_the_cells_to_take() -> None:
    folder = RESULTS / "matrix-2-gpus"
    rows = published._with_p_values(published._rows(folder / "summary.csv"))
    sentences = conclude(rows, limits=cells_of("matrix-2-gpus"))
    (said,) = [one for one in sentences if one.code == LIMIT]
    assert said.text.startswith("Of what 2 H200 allow, cfg_parallel+teacache b1 reaches 30 %")
    assert len(said.cells) == 3
    assert not [one for one in conclude(rows) if one.code == LIMIT]


def test_the_section_has_the_baseline_and_the_best_of_each_context() -> None:
    found = cells_of("matrix-2-gpus")
    best = [cell.key for cell in found if cell.name.startswith("cfg_parallel+teacache")]
    view = limit_view.view(found, best)
    assert view is not None
    assert [line[0] for line in view["lines"]][:2] == ["baseline b1", "cfg_parallel+teacache b1"]
    line = dict(zip(view["headings"][:9], view["lines"][1][:9], strict=True))
    said = one("matrix-2-gpus", "cfg_parallel+teacache b1").found.said
    assert (line["predicted, s"], line["measured, s"], line["limit, s"]) == (digits(said.latency_s), "0.579", "0.174")
    assert (line["reached"], line["MFU"], line["measured"]) == ("30 %", "30 %", "23.3")
    assert line["memory predicted, GB"] == digits(said.memory.total / 1e9)
    assert view["lines"][1][9::2] == ["1.48", "50 %"], "USD for 1,000 images on two devices of 4.59 an hour; saved"
    assert len(view["lines"]) == len(view["phases"]) == 6
    assert len(view["sentences"]) == 3
    assert "this one among them" in view["known_as"]
    totals = {line[0]: line[1:] for line in view["ledger"]["lines"]}
    assert totals["measured peak"][0] == "22.5"
    assert totals["DiT weights"][0] == "13.7", "6.84 B parameters in bfloat16"
    assert limit_view.view([], []) is None
    assert len(limit_view.view(found, [])["lines"]) == 3, "no winner: baselines alone"  # type: ignore[index]


def test_what_workers_recorded_stands_in_the_ledger() -> None:
    cell = one("matrix-2-gpus", "baseline b1")
    parts = {"weights": 15.9e9, "vae_activations": 5.25e9}
    seen = dataclasses.replace(cell, found=dataclasses.replace(cell.found, parts_bytes=parts))
    view = limit_view.view([seen], [])
    assert view is not None
    lines = {line[0]: line[1] for line in view["ledger"]["lines"]}
    assert (lines["weights, measured"], lines["VAE activations, measured"]) == ("15.9", "5.25")


def test_assumed_factors_are_called_assumed() -> None:
    cell = one("matrix-2-gpus", "baseline b1")
    said = limit_words.known_as([dataclasses.replace(cell, calibration=Calibration(Factors()))])
    assert said.startswith("Predictions use assumed factors.")


def test_the_page_is_as_before_where_no_device_is_known(tmp_path: Path) -> None:
    for name in ("summary.csv", "report.json", "manifest.json"):
        content = (RESULTS / "glm-features-2-gpus" / name).read_text().replace("NVIDIA H200", "NVIDIA Nobody knows")
        (tmp_path / name).write_text(content)
    page = published.page(tmp_path, plots=False)
    assert "How far from the limit" not in page
    assert "How far from the limit" in published.page(RESULTS / "glm-features-2-gpus", plots=False)


# -- costs


def test_a_cell_costs_its_devices_for_its_time() -> None:
    found = cells_of("matrix-2-gpus")
    rows, prices = costs.priced([cell.row for cell in found], found)
    by_name = {row["cell"]: row for row in rows}
    one_gpu, two = by_name["baseline b2"], by_name["cfg_parallel b2"]
    assert one_gpu[costs.COST] == pytest.approx(1000 * 4.59 * float(str(one_gpu["latency_mean_s"])) / 3600 / 2)
    assert two[costs.COST] == pytest.approx(1000 * 2 * 4.59 * float(str(two["latency_mean_s"])) / 3600 / 2)
    assert two[costs.SAVING] == pytest.approx(1 - 2 / float(str(two["speedup"])))
    assert two["saving_low"] < two[costs.SAVING] < two["saving_high"]
    assert two[costs.SAVING] < 0, "less than twice as fast on two devices"
    assert costs.SAVING not in one_gpu
    assert prices == "Prices: H200 at 4.59 USD an hour (list price, 2026-10-07)."
    assert {row["role"] for row in rows} == {"baseline", "feature"}


def test_the_price_of_the_sweep_goes_before_the_list_price() -> None:
    found = cells_of("matrix-2-gpus")
    rows, prices = costs.priced([dict(cell.row) | {"cost_per_image": 0.001} for cell in found], found)
    assert {row[costs.COST] for row in rows} == {1.0}
    assert prices == ""
    assert costs.priced([{"cell_key": "a", "role": "baseline"}], []) == ([], "")


@pytest.mark.parametrize(
    ("options", "first"),
    [((), "cell"), (("--markdown",), "| cell | GPUs |"), (("--latex",), "% needs \\usepackage{booktabs}")],
)
def test_the_table_of_costs_is_printed_where_a_price_is_known(
    options: tuple[str, ...], first: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command([str(RESULTS / "matrix-2-gpus"), "--costs", *options])
    out = capsys.readouterr().out
    assert out.startswith(first)
    assert "cost of 1,000 images" in out
    assert "4.59 USD an hour" in out
    assert not (RESULTS / "matrix-2-gpus" / "plots").exists()


def test_without_a_price_the_table_of_costs_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert command([str(RESULTS / "glm-load-2-gpus"), "--costs"]) == 2
    assert "no price is known; run with hardware=NAME" in capsys.readouterr().err


# -- plots


def drawn(name: str, folder: str, on: Sheet) -> Any:
    with draw.style(), sheet.drawing_on(on):
        import matplotlib

        matplotlib.rcParams.update(sheet.sizes())
        return drawing.of_limits(cells_of(folder))[name]()


@pytest.mark.parametrize("folder", ["matrix-2-gpus", "glm-features-2-gpus"])
@pytest.mark.parametrize("name", drawing.OF_LIMITS)
def test_in_a_column_all_texts_have_one_size_and_none_is_cut(name: str, folder: str) -> None:
    from matplotlib.text import Text

    figure = drawn(name, folder, Sheet(("pdf",), 3.3, False))
    assert figure.get_figwidth() == 3.3
    shown = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
    assert {text.get_fontsize() for text in shown} == {PRINT_SIZE}
    assert not [text for text in shown if "\\math" in text.get_text()]
    figure.draw_without_rendering()
    for item in (*figure.axes, *figure.legends):
        box = item.get_tightbbox()
        assert box.x0 >= -1, item
        assert box.x1 <= figure.bbox.x1 + 1, item


def test_the_prediction_plot_has_a_point_for_each_cell_and_counts_those_in_the_band() -> None:
    found = [cell for cell in cells_of("matrix-2-gpus") if cell.compared]
    figure = drawn("prediction", "matrix-2-gpus", sheet.SCREEN)
    points = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 1]
    assert len(points) == len(found) == 45
    within = sum(abs(cell.found.prediction_error) <= limits.BAND for cell in found)
    assert figure.get_supxlabel().startswith(f"{within} of 45 cells are within ±25%")
    assert within >= 36


def test_no_point_of_the_roofline_is_above_the_roof() -> None:
    figure = drawn("roofline", "glm-features-2-gpus", sheet.SCREEN)
    for line in figure.axes[0].lines:
        if len(line.get_xdata()) == 1:
            intensity, achieved = line.get_xdata()[0], line.get_ydata()[0]
            assert achieved <= min(1978.9e12, 4.8e12 * intensity)


def test_bars_of_the_ledger_add_up_to_the_prediction() -> None:
    cell = one("glm-features-2-gpus", "hsdp b1")
    stacked = limits._stacked(cell.found.said.memory)
    assert sum(size for _, size in stacked) == pytest.approx(cell.found.said.memory.total / 1e9)


def test_nothing_is_drawn_of_nothing() -> None:
    assert [make() for make in drawing.of_limits([]).values()] == [None, None, None]
