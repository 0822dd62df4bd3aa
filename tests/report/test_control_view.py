"""What reports say about engines against the native pipeline: the terminal's lines and the page's section."""

import dataclasses
from typing import Any

from sweep.analysis.control_group import Comparison, ControlGroup, Missing, Side
from sweep.analysis.image_metrics import ImageDifference
from sweep.analysis.paired import Ratio
from sweep.report.page import control_view
from sweep.report.page.html import CellView, ReportContext, render
from tests.report import shapes
from tests.report.test_html import NASTY, Page

PHASES = {"denoise_step": 300.0, "vae_decode": 60.0, "other": 40.0}
DIFFERENT = ImageDifference(mean_diff=0.004, max_diff=0.31, psnr_db=38.2, ssim=0.98)


def side(engine: str, factor: float = 1.0, **fields: Any) -> Side:
    phases = {phase: ms * factor for phase, ms in PHASES.items()}
    known = {"latency_mean_s": 0.4 * factor, "peak_memory_gb": 24.3 if engine == "diffusers" else 20.1}
    return Side(**{"key": engine, "label": f"{engine} b1", "engine": engine, "phases_ms": phases, **known, **fields})


def pair(name: str = "teacache b1", **fields: Any) -> Comparison:
    ratio = Ratio(1.32, 1.30, 1.34, 4, 0.001)
    made = Comparison(name, "qwen_image", side("vllm_omni"), side("diffusers", 1.32), ratio, DIFFERENT)
    return dataclasses.replace(made, **fields)


def page(*compared: Comparison, missing: tuple[Missing, ...] = ()) -> Page:
    rows = [shapes.row("teacache", cell_key=key, engine=key) for key in ("vllm_omni", "diffusers")]
    cells = [CellView(row["cell"], "PASS", row) for row in rows]
    return Page(render(ReportContext(title="Sweep", cells=cells, control=ControlGroup(compared, missing))))


def test_a_line_tells_speed_memory_and_images() -> None:
    told = "teacache b1: vllm_omni vs diffusers: 1.32x (1.30-1.34), memory 20.1 vs 24.3 GB, "
    assert control_view.lines(ControlGroup((pair(),))) == [told + "images differ by 0.00400 on average"]
    same = ImageDifference(0.0, 0.0, float("inf"), 1.0)
    assert control_view.lines(ControlGroup((pair(images=same),))) == [told + "images identical"]
    none = pair(images=None, images_problem="4 images against 3 of the control")
    assert control_view.lines(ControlGroup((none,))) == [
        told + "images not compared: 4 images against 3 of the control"
    ]
    bare = pair(images=None, cell=side("vllm_omni", peak_memory_gb=None), ratio=Ratio(1.02, 0.9, 1.1, 4, 0.5))
    (line,) = control_view.lines(ControlGroup((bare,)))
    assert line.endswith("1.02x (0.90-1.10), within noise")


def test_lines_say_what_is_not_known_what_is_missing_and_stay_few() -> None:
    unsure = pair(ratio=Ratio(1.32, pairs=1), doubts=("dtype float32 against bfloat16 of diffusers",))
    gone = Missing("ring b1", "m", side("vllm_omni"), side("diffusers"), "vllm_omni: ERROR, out of memory")
    lines = control_view.lines(ControlGroup((unsure,), (gone,)))
    assert lines[0].endswith("on average ?")
    assert lines[1:] == [
        "ring b1: vllm_omni vs diffusers: not compared: vllm_omni: ERROR, out of memory",
        "? dtype float32 against bfloat16 of diffusers: teacache b1",
        "Start-to-start noise is unknown: both engines need an A/A run (the baseline measured again).",
    ]
    many = tuple(pair(f"teacache b{i}", doubts=("same doubt",)) for i in range(100))
    lines = control_view.lines(ControlGroup(many))
    assert len(lines) == control_view.LINES + 2
    assert lines[-2] == "88 more comparisons with diffusers are in report.json."
    assert lines[-1].endswith("teacache b5, 94 more")


def test_the_page_has_a_section_only_when_there_is_something_to_compare() -> None:
    assert "control" not in page().ids
    seen = page(pair())
    assert "control" in seen.ids
    assert seen.links.count("#cell-0") >= 2  # from here and from the table of cells
    for expected in (
        *("1.32× (1.30–1.34)", "20.1 / 24.3", "0.400 / 0.528", "38.2 dB", "0.00400 / 0.310"),
        *("400 ms", "528 ms", "denoise_step 300 / 396 ms (1.32×)", "vae_decode 60.0 / 79.2 ms"),
    ):
        assert expected in seen.text, expected
    assert "energy" not in seen.text, "nothing to say of it"
    assert "energy, J/image" in page(pair(cell=side("vllm_omni", energy_j_per_image=100.0))).text


def test_doubts_problems_and_missing_pairs_are_told_once() -> None:
    problem = {"images": None, "images_problem": "64×64 RGB with 32×32 RGB"}
    pairs = [pair(f"teacache b{i}", doubts=("dtype a against b",), **problem) for i in (1, 2)]
    missing = Missing("ring b1", "m", side("vllm_omni"), side("diffusers"), "diffusers: SKIP, requires 2 GPUs")
    text = page(*pairs, missing=(missing,)).text
    assert text.count("dtype a against b (teacache b1, teacache b2)") == 1
    assert text.count("64×64 RGB with 32×32 RGB (teacache b1, teacache b2)") == 1
    for seen in (text, page(missing=(missing,)).text):
        assert "ring b1: vllm_omni vs diffusers: diffusers: SKIP, requires 2 GPUs" in seen


def test_a_phase_of_one_engine_only_and_an_engine_without_phases() -> None:
    ours = side("vllm_omni", phases_ms={**PHASES, "stage_transfer": 5.0})
    assert "stage_transfer 5.00 / – ms" in page(pair(cell=ours)).text
    assert "versus" in page(pair(cell=ours)).classes
    assert "versus" not in page(pair(cell=side("vllm_omni", phases_ms={}))).classes


def test_hostile_names_and_reasons_are_text() -> None:
    nasty = pair(NASTY, cell=side(NASTY), doubts=(NASTY,), images=None, images_problem=NASTY)
    seen = page(nasty, missing=(Missing(NASTY, NASTY, side(NASTY), side("diffusers"), NASTY),))
    assert seen.tags.count("script") == 2
    assert seen.text.count("<script>alert(1)</script>") >= 8
    assert "49" not in seen.text.split()
