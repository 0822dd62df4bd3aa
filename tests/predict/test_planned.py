"""What is predicted of the cells of a plan: which device counts, what fits, what may gain most."""

import dataclasses
import math
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from sweep.config.hardware import Hardware
from sweep.config.run import CONF, register
from sweep.findings import SKIP
from sweep.machine.devices import Devices
from sweep.plan.building import build_cell
from sweep.plan.cells import AA, Cell, again
from sweep.plan.plans import Plan, build_plan, repeats_of_baselines
from sweep.predict import devices, fitting
from sweep.predict.devices import device_chosen, device_here
from sweep.predict.hardware import Device, device_for, hardware_for
from sweep.predict.planned import forecast
from sweep.predict.starts import COMPILED, EAGER, ON_CPU, TWO_STAGES

QWEN = ("engine=vllm_omni", "model=qwen_image", "workload=image_1024", "engine.max_num_seqs=64")


@pytest.fixture(autouse=True)
def hydra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """On a machine that nothing was measured on."""
    monkeypatch.setenv("SWEEP_CACHE", str(tmp_path / "cache"))
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


def cell(*given: str, gpus: int = 4) -> Cell:
    """A cell on a machine with GPUs."""
    kind = Devices("cuda", gpus) if "engine=vllm_omni" in given else Devices("cpu", 4)
    return build_cell(compose("config", list(given)), lambda run: kind, lambda run: "", lambda run, found: None)


def planned(*batches: int, features: tuple[str, ...] = ("[]", "cfg_parallel", "teacache")) -> Plan:
    cells = [cell(*QWEN, f"feature={name}", f"batch={batch}") for name in features for batch in batches]
    return build_plan([*cells, *repeats_of_baselines(cells)])


def gpus_here(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(devices, "device_names", lambda: list(names))


def name_of(device: Device | None) -> str | None:
    return device.name if device else None


@pytest.mark.parametrize(
    ("chosen", "here", "expected"),
    [
        ("auto", ["NVIDIA L40S"], "l40s"),
        ("auto", ["NVIDIA T4"], None),
        ("auto", [], None),
        ("h200", ["NVIDIA H200", "NVIDIA H200"], "h200"),
        ("h200", ["NVIDIA L40S"], "l40s"),
        ("h200", ["NVIDIA T4"], None),
        ("h200", ["NVIDIA H200 NVL"], None),
    ],
)
def test_cells_run_on_the_gpu_that_is_here_whatever_was_chosen(
    monkeypatch: pytest.MonkeyPatch, chosen: str, here: list[str], expected: str | None
) -> None:
    gpus_here(monkeypatch, *here)
    hardware = Hardware() if chosen == "auto" else hardware_for(chosen)
    assert name_of(device_here(hardware, "cuda")) == expected
    assert name_of(device_here(hardware, "cpu")) is None, "and a CPU is none of these"
    assert name_of(device_chosen(hardware)) == (None if chosen == "auto" else chosen)


def test_what_was_given_on_the_command_line_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus_here(monkeypatch, "NVIDIA H200")
    smaller = dataclasses.replace(hardware_for("h200"), usable_gb=40.0)
    found = device_here(smaller, "cuda")
    assert found is not None
    assert found.usable_bytes == 40e9


def test_times_are_of_all_batches_of_a_cell() -> None:
    made = planned(1, 4)
    found = forecast(made.cells, device_for("h200"))
    assert found.grade.startswith("fitted")
    for one in made.cells:
        work = one.run_config.workload
        count = 1 + -(-(work.num_prompts or work.shipped_prompts) // one.config["batch"]) * work.repeats
        assert found.cells_s[one.key] == pytest.approx(found.cells[one.key].prediction.latency_s * count), one.label
    again = next(one for one in made.cells if one.role == AA)
    assert found.cells_s[again.key] == found.cells_s[again.origin]


def test_loads_are_not_predicted_and_of_what_is_recorded_only_the_memory() -> None:
    cells = [cell(*QWEN, "load=closed", "load.max_concurrency=2"), cell(*QWEN, "profile=torch")]
    found = forecast(cells, device_for("h200"))
    assert found.cells.keys() == {cells[1].key}
    assert found.cells_s == {}


def test_a_model_without_shapes_and_an_engine_without_a_model_are_left_out() -> None:
    cells = [cell("engine=noop"), cell("engine=vllm_omni", "model=sd3_5_large", "workload=image_1024")]
    assert forecast(cells, device_for("h200")).cells == {}


def test_what_may_gain_most_is_what_is_fast_or_uncertain() -> None:
    made = planned(1, features=("[]", "cfg_parallel", "teacache", "cpu_offload"))
    found = forecast(made.cells, device_for("h200"))
    worth = {one.features: found.worth(one) for one in made.cells}
    assert worth["cfg_parallel",] > worth[()] > worth["cpu_offload",]
    cached = next(one for one in made.cells if one.features == ("teacache",))
    other = next(one for one in made.cells if one.features == ("cfg_parallel",))
    assert found.cells[cached.key].error > found.cells[other.key].error, "how much a cache skips is assumed"
    assert found.worth(cell("engine=noop", "feature=teacache")) == math.inf, "nobody knows"
    repeated = again(cached, 1)
    assert found.worth(repeated) == worth["teacache",]


def test_engines_start_as_they_did() -> None:
    h200 = device_for("h200")

    def start(*given: str) -> object:
        one = cell(*given)
        return forecast([one], h200).cells[one.key].start

    assert start(*QWEN) == COMPILED
    assert start(*QWEN, "feature=eager") == EAGER
    assert start("engine=vllm_omni", "model=glm_image", "workload=image_1024") == TWO_STAGES
    for one in (COMPILED, EAGER, TWO_STAGES, ON_CPU):
        assert one.later_s < one.first_s


def test_a_batch_that_ran_out_of_memory_is_skipped_with_the_figures() -> None:
    """A batch of 64 pictures of the whole Qwen-Image; 1 fits an H200, and neither fits an RTX 4090."""
    made = planned(1, 64)
    found = fitting.too_large(made, forecast(made.cells, device_for("h200")))
    assert {made.cell(key).config["batch"] for key in found} == {64}
    finding = next(iter(found.values()))
    assert (finding.code, finding.status) == (fitting.TOO_LARGE, SKIP)
    needs, has = finding.text.split(" by prediction, ")
    assert float(needs.removeprefix("needs ").removesuffix(" GB")) > 150
    assert has.startswith("h200 has 150 (largest part: ")
    small = fitting.too_large(made, forecast(made.cells, device_for("rtx_4090")))
    assert len(small) == len(made.cells)
    unknown = dataclasses.replace(device_for("h200"), usable_bytes=None, memory_bytes=None)
    assert fitting.too_large(made, forecast(made.cells, unknown)) == {}, "nobody knows how large it is"


def test_cells_that_are_left_out_take_nothing_else_with_them() -> None:
    made = planned(1, 64)
    found = fitting.too_large(made, forecast(made.cells, device_for("h200")))
    less = fitting.without(made, found)
    assert {one.key for one in less.cells if one.skip} == found.keys()
    assert less.by_key.keys() == made.by_key.keys(), "no key changes"
    run = {key for group in less.groups for key in group.cells}
    assert run == made.by_key.keys() - found.keys()
    assert fitting.without(made, {}) is made
    waits = [dataclasses.replace(one, interleaved=one.baseline_key if one.features else "") for one in made.cells]
    large = next(one for one in waits if not one.features and one.config["batch"] == 64)
    alone = fitting.without(build_plan(waits), {large.key: next(iter(found.values()))})
    assert not [one for one in alone.cells if one.interleaved == large.key]
    assert [one for one in alone.cells if one.interleaved and one.features], "others keep theirs"


def test_the_note_names_what_will_not_fit() -> None:
    made = planned(1, 64)
    found = fitting.too_large(made, forecast(made.cells, device_for("h200")))
    text = fitting.note(made, found)
    assert "b64 and 2 more will probably not fit: needs" in text
    assert text.endswith("skip_oom=true leaves them out")
    assert fitting.note(made, {}) == ""


def test_a_prediction_of_an_edit_has_the_picture_that_is_edited() -> None:
    """In the DiT, in the text encoder and in the VAE; vLLM-Omni edits the pictures of a batch one by one."""
    device = device_for("h200")
    edit = ("model=qwen_image_edit", "workload=image_edit_1024")
    cells = [
        cell("engine=vllm_omni", "model=qwen_image", "workload=image_1024"),
        *(cell(f"engine={name}", *edit, f"batch={batch}") for name in ("vllm_omni", "diffusers") for batch in (1, 2)),
    ]
    found = [one.prediction for one in forecast(cells, device).cells.values()]
    plain, one, two, native, natives = ({phase.name: phase for phase in each.phases} for each in found)
    assert "image_encode" not in plain
    assert one["denoise_step"].limit_s > 2.2 * plain["denoise_step"].limit_s
    assert one["text_encode"].limit_s > 10 * plain["text_encode"].limit_s
    assert two["text_encode"].phase.calls == 2 * one["text_encode"].phase.calls
    assert natives["text_encode"].phase.calls == native["text_encode"].phase.calls
    assert two["image_encode"].phase.calls == natives["image_encode"].phase.calls == 2
    memory = [each.memory["dit_activations"] for each in found]
    assert memory[2] == memory[1]
    assert memory[4] > 1.9 * memory[3]
