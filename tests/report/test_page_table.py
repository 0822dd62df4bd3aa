"""The page's table and matrix: one story about a number, and what may be noise looks like it."""

import pytest

from sweep.analysis import paired
from sweep.report.matrix import matrices
from sweep.report.page import matrix_view, said, table
from sweep.report.page.html import CellView, ReportContext, phases_of, render
from tests.report import shapes
from tests.report.test_html import Page


def page(*rows, **fields):
    return Page(render(ReportContext("Sweep", cells=[CellView(r["cell"], r["status"], r) for r in rows], **fields)))


def fields_of(*rows):
    """Texts of each row by heading."""
    view = table.view([{"anchor": "", **row} for row in rows])
    headings = [heading for heading, _ in view["columns"]]
    return [{h: one for h, (one, _) in zip(headings, line["fields"], strict=True)} for line in view["lines"]]


def test_speed_and_quality_are_the_first_columns():
    row = shapes.row("teacache", called=paired.FASTER, baseline_latency_s=0.9)
    headings = [heading for heading, _ in table.view([{"anchor": "", **row}])["columns"]]
    assert headings[:5] == ["speed-up (95 %)", "verdict", "latency, s", "its baseline, s", "quality, PSNR"]


def test_a_model_that_varies_is_a_column_and_leaves_the_label():
    rows = [
        shapes.row("teacache", model=name, cell=f"teacache b1 model={name} steps=4") | {"anchor": ""}
        for name in ("tiny_glm_image", "tiny_qwen_image")
    ]
    view = table.view(rows)
    assert view["several_models"]
    assert [(line["label"], line["model"]) for line in view["lines"]] == [
        ("teacache b1 steps=4", "tiny_glm_image"),
        ("teacache b1 steps=4", "tiny_qwen_image"),
    ]
    alone = table.view(rows[:1])
    assert not alone["several_models"]
    assert alone["lines"][0]["label"] == rows[0]["cell"]


def test_skipped_cells_are_one_line_with_their_reasons():
    few = "requires 4 GPUs, only 2 available"
    skipped = [shapes.failed(name, "SKIP", few) for name in ("tp", "ring", "tp+ring")]
    skipped.append(shapes.failed("ring+ulysses", "SKIP", "ring conflicts with ulysses"))
    rows = [row | {"anchor": ""} for row in (shapes.row("teacache"), *skipped)]
    seen = page(*rows)
    assert f"SKIP 4 cells: {few} (3), ring conflicts with ulysses (1)" in seen.text
    assert [line["label"] for line in table.view(rows)["lines"]] == ["teacache b1"]
    assert all(row["cell"] in seen.text for row in skipped)
    assert "Show cells that are PASS 1 SKIP 4" in seen.text


def test_cells_that_were_not_run_are_one_line_too():
    rows = [shapes.row("teacache"), shapes.failed("tp", "NOT RUN", "the sweep ended before the cell began")]
    seen = page(*rows)
    assert "NOT RUN 1 cell: the sweep ended before the cell began (1) the sweep ended" in seen.text
    assert "NOT RUN details of 1 cell" in seen.text


def test_the_baseline_of_a_speedup_has_its_latency_next_to_it():
    (fields,) = fields_of(shapes.row("teacache", latency_mean_s=0.5, baseline_latency_s=0.8, speedup=1.6))
    assert (fields["latency, s"].text, fields["its baseline, s"].text) == ("0.500", "0.800")
    row = shapes.row("teacache", latency_mean_s=0.5, baseline_latency_s=0.8, speedup=1.6, speedup_low=None)
    assert "0.800 s (baseline) ÷ 0.500 s = 1.60×" in page(row).text


def test_a_verdict_that_is_not_known_says_so_and_is_muted():
    faster, even, unknown = fields_of(
        *(
            shapes.row("teacache", called=called, speedup_low=0.99, speedup_high=1.02)
            for called in (paired.FASTER, paired.NO_DIFFERENCE, paired.UNKNOWN)
        )
    )
    assert [row["verdict"].text for row in (faster, even, unknown)] == ["faster", "no difference", "unknown"]
    assert [row["speed-up (95 %)"].muted for row in (faster, even, unknown)] == [False, True, True]


@pytest.mark.parametrize(("low", "high", "off"), [(0.98, 1.02, False), (1.03, 1.09, True), (0.8, 0.95, True)])
def test_an_a_a_run_whose_interval_leaves_out_1_says_so(low, high, off):
    row = shapes.row("", aa=True, speedup_low=low, speedup_high=high)
    assert (said.verdict_of(row).text == said.OFF_ONE) == off
    assert (said.OFF_ONE in page(shapes.row(""), row).text) == off
    assert said.verdict_of(shapes.row("teacache", speedup_low=1.1, speedup_high=1.2)).text != said.OFF_ONE


def test_an_interaction_without_an_interval_is_muted():
    bare = shapes.row("ring+tp", interaction_gain=0.7)
    known = bare | {"interaction_low": 0.6, "interaction_high": 0.8}
    assert said.gain_of(bare) == said.Said("0.70×", muted=True)
    assert said.gain_of(known) == said.Said("0.70× (0.60–0.80)")
    assert said.gain_of(known | {"interaction_high": 1.1}).muted


def test_phases_are_compared_with_the_baseline_of_the_speedup_only():
    baseline, cell = shapes.row(""), shapes.row("teacache")
    before = phases_of(cell, baseline)
    assert before["denoise_step"] == baseline["denoise_step_ms"]
    interleaved = cell | {"baseline_beside_s": 0.9}
    assert phases_of(interleaved, baseline) == {}  # stored by an earlier version, without its phases
    assert phases_of(interleaved | {"baseline_denoise_step_ms": 303.0}, baseline) == {"denoise_step": 303.0}
    assert phases_of(cell, None) == phases_of(baseline, baseline) == {}
    shown = Page(render(ReportContext("Sweep", cells=[CellView("a", "PASS", cell, baseline_phases_ms=before)]))).text
    assert f"denoise_step {before['denoise_step']:.0f} → {cell['denoise_step_ms']:.0f} ms" in shown


def test_colour_is_speed_alike_on_both_sides_of_1():
    rows = [shapes.row(name, speedup=ratio) for name, ratio in (("tp", 2.0), ("ring", 0.5), ("ring+tp", 1.4))]
    assert matrix_view.reach_of(matrices(rows)) == 2
    steps = {name: matrix_view.step_of(ratio, 2) for name, ratio in (("a", 2.0), ("b", 0.5), ("c", 1.0), ("d", 1.05))}
    assert steps == {"a": matrix_view.STEPS, "b": -matrix_view.STEPS, "c": 0, "d": 0}
    assert [matrix_view.step_of(1.3, 2), matrix_view.step_of(1 / 1.3, 2)] == [2, -2]
    assert (
        matrix_view.reach_of(matrices([shapes.row("tp", speedup=1.01), shapes.row("ring", speedup=1.0)]))
        == matrix_view.LEAST_REACH
    )


def test_what_may_be_noise_is_hatched_in_pairs_as_in_singles():
    def classes(called):
        return page(*(shapes.row(name, called=called) for name in ("ring", "tp", "ring+tp"))).classes.count("hatched")

    assert classes(paired.FASTER) == 0
    assert classes(paired.NO_DIFFERENCE) == classes(paired.UNKNOWN) == 3 + 1  # and the legend


def test_conclusions_come_first():
    rows = [shapes.row("", cell="baseline b1"), shapes.row("teacache", p_holm=0.001, called=paired.FASTER)]
    seen = page(*rows, conclusions=["teacache is fastest.", "ring <did> nothing."], command="python -m sweep")
    assert seen.text.index("teacache is fastest. ring <did> nothing.") < seen.text.index("python -m sweep")
