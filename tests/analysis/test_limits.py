"""What rows say about predictions and limits: made-up stored sweeps of Qwen-Image on H200."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from sweep.analysis.summary import Summary, summarise
from sweep.config.run import CONF, register
from sweep.plan.cells import BASELINE, FEATURE, Cell
from sweep.plan.plans import build_plan
from sweep.plan.preflight import cell_from
from sweep.predict import shapes
from sweep.predict.executed import Executed
from sweep.refusals import ConfigError
from sweep.report.build import rebuild
from tests import recompute, stored

H200S = {"gpus": ["NVIDIA H200"] * 2}
RANDOM = {"qwen_image": {"layers": {"dit": 20, "text": 4}, "parameters": {"text_encoder": 1027376824}}}
STEPS = 20


def composed(feature: str, *more: str) -> Cell:
    register()
    given = ["engine=vllm_omni", "model=qwen_image", "workload=image_1024", f"workload.steps={STEPS}", *more]
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        made = cell_from(compose("config", [f"feature=[{feature}]", *given]))
    key, base = stored.key_of(feature, *more), stored.key_of("", *more)
    role = FEATURE if feature else BASELINE
    keys: Any = {"key": key, "origin": key, "engine_key": key, "baseline_key": base}
    return dataclasses.replace(made, skip=None, device="cuda", role=role, **keys)


def swept(folder: Path, cells: list[Cell], manifest: Mapping[str, Any], **more: Any) -> Summary:
    """Summary of a stored sweep of these cells."""
    made = stored.store(folder, build_plan(cells), **{"dit_parameters": 0, **more})
    made.save_manifest(made.load_manifest() | dict(manifest))
    plan = made.load_plan()
    return summarise(made, plan, made.load_results(plan))


KNOWN = {"machine": H200S, "random_weights": RANDOM}


def test_rows_say_what_the_shape_of_the_model_and_the_data_sheet_say(tmp_path: Path) -> None:
    """Counted again here: a block of Qwen-Image multiplies every token with 12 h² weights, twice the operations."""
    (row,) = swept(tmp_path, [composed("")], KNOWN).rows
    hidden, layers, tokens, peak = 3072, 20, 4096 + 20, 989.4e12
    forward = layers * tokens * (24 * hidden**2 + 4 * tokens * hidden)
    denoise = 2 * STEPS * forward
    assert row["denoise_step_mfu"] == pytest.approx(denoise / (row["denoise_step_ms"] / 1000 * peak), rel=0.01)
    assert row["limit_latency_s"] == pytest.approx(denoise / peak, rel=0.04), "the rest is the VAE"
    assert row["limit_share"] == pytest.approx(row["limit_latency_s"] / row["latency_mean_s"])
    assert row["prediction_error"] == pytest.approx(row["predicted_latency_s"] / row["latency_mean_s"] - 1)
    assert 0.9 * row["limit_share"] < row["mfu"] <= row["limit_share"], "little is read that is not computed with"
    assert row["ar_decode_bandwidth_share"] is None
    assert 15 < row["predicted_peak_memory_gb"] < 30, "7.9 B parameters"


def test_derived_columns_are_recomputed_from_the_files(tmp_path: Path) -> None:
    small = "workload.width=512", "workload.height=512"
    sweep = stored.store(
        tmp_path / "s", build_plan([composed("", *small), composed("teacache", *small)]), dit_parameters=0
    )
    sweep.save_manifest(sweep.load_manifest() | KNOWN)
    rebuild(sweep, plots=False)
    wrong, _ = recompute.differences(sweep.path)
    assert not wrong, "\n".join(wrong)
    text = (sweep.path / "summary.csv").read_text()
    share = recompute.Sweep(sweep.path).rows[0]["limit_share"]
    (sweep.path / "summary.csv").write_text(text.replace(share, str(float(share) * 1.0001)))
    assert any("limit_share" in line for line in recompute.differences(sweep.path)[0])


def test_the_limit_is_of_the_blocks_that_ran_and_the_prediction_of_those_that_were_expected_to(tmp_path: Path) -> None:
    """The made-up evidence of teacache skips half of the blocks; its file and the calibration expect more."""
    summary = swept(tmp_path, [composed(""), composed("teacache")], KNOWN)
    baseline, cached = summary.rows
    vae = baseline["limit_latency_s"] - baseline["denoise_step_mfu"] * baseline["denoise_step_ms"] / 1000
    halved = (baseline["limit_latency_s"] - vae) / 2 + vae
    assert cached["limit_latency_s"] == pytest.approx(halved, rel=0.01)
    found = summary.reached[cached["cell_key"]]
    assert found.ran.effects.skip == 0.5
    assert found.said.point.effects.skip == pytest.approx(0.65, abs=0.05)


def test_ranks_count_in_the_whole_mfu(tmp_path: Path) -> None:
    """Half of the work each, and the VAE on both."""
    baseline, both = swept(tmp_path, [composed(""), composed("cfg_parallel")], KNOWN).rows
    assert both["limit_latency_s"] < 0.55 * baseline["limit_latency_s"]
    assert both["mfu"] * both["latency_mean_s"] == pytest.approx(both["limit_latency_s"], rel=0.03)


@pytest.mark.parametrize(
    ("cells", "manifest"),
    [
        ([composed("")], {"random_weights": RANDOM}),
        ([composed("")], {"machine": {"gpus": ["NVIDIA Nobody knows"]}}),
        ([composed("")], {"machine": {"gpus": ["NVIDIA H200", "NVIDIA L40S"]}}),
        ([composed("", "model=sd3_5_large")], KNOWN),
        ([dataclasses.replace(composed(""), device="cpu")], {"machine": {"gpus": [], "cpu": "Nobody's"}}),
    ],
    ids=["no machine", "unknown GPU", "two kinds", "a model without shape", "unknown CPU"],
)
def test_nothing_is_said_where_too_little_is_known(
    cells: list[Cell], manifest: Mapping[str, Any], tmp_path: Path
) -> None:
    summary = swept(tmp_path, cells, manifest)
    assert summary.rows[0]["latency_mean_s"]
    assert not summary.reached
    assert summary.rows[0].get("predicted_latency_s") is None
    assert summary.rows[0].get("limit_share") is None


def test_another_model_under_the_same_name_is_not_judged(tmp_path: Path) -> None:
    """A rank whose parameters differ from the shape's ran something else."""
    assert not swept(tmp_path / "9", [composed("")], KNOWN, dit_parameters=9).reached
    assert swept(tmp_path / "own", [composed("")], KNOWN, dit_parameters=6_837_149_248).reached


def test_a_profiled_row_says_nothing_but_its_cell_is_known(tmp_path: Path) -> None:
    summary = swept(tmp_path, [composed("", "profile=nsys")], KNOWN)
    assert summary.rows[0].get("limit_share") is None
    assert summary.reached[summary.rows[0]["cell_key"]].limit_share > 0


def test_chosen_hardware_counts_where_it_is_what_ran(tmp_path: Path) -> None:
    """With half of the peak the limit is twice as long; the chosen L40S did not run."""
    rows = [
        swept(tmp_path / str(number), [composed("", *given)], KNOWN).rows[0]
        for number, given in enumerate(
            [("hardware=h200",), ("hardware=h200", "hardware.peak_tflops.bfloat16=494.7"), ("hardware=l40s",)]
        )
    ]
    assert rows[1]["limit_latency_s"] == pytest.approx(2 * rows[0]["limit_latency_s"], rel=0.01)
    assert rows[2]["limit_latency_s"] == rows[0]["limit_latency_s"]


def checkpoint(folder: Path, layers: int) -> Path:
    """The configuration of a small Qwen-Image with a transformer of two tensors, and a copy in another precision."""
    part = folder / "transformer"
    part.mkdir(parents=True)
    shape = {"num_layers": layers, "num_attention_heads": 24, "attention_head_dim": 128, "joint_attention_dim": 3584}
    config_json = {"_class_name": "QwenImageTransformer2DModel", "in_channels": 64, "out_channels": 16, **shape}
    (part / "config.json").write_text(json.dumps(config_json))
    tensor = {"dtype": "BF16", "shape": [3, 4], "data_offsets": [0, 24]}
    for name in ("one.safetensors", "two.safetensors", "one.fp16.safetensors"):
        text = json.dumps({"__metadata__": {"format": "pt"}, name.split(".")[0]: tensor}).encode()
        (part / name).write_bytes(len(text).to_bytes(8, "little") + text + bytes(24))
    return folder


def test_shapes_of_a_checkpoint_travel_in_the_manifest(tmp_path: Path) -> None:
    from sweep.run.manifest import facts_of

    folder = checkpoint(tmp_path / "weights", layers=10)
    cells = [composed("", f"model.path={folder}")]
    plan = build_plan(cells)
    facts = facts_of(stored.store(tmp_path / "s", plan), plan)
    assert facts["shapes"]["qwen_image"]["dit"]["layers"] == 10
    assert facts["shapes"]["qwen_image"]["dit"]["params_b"] == pytest.approx(24e-9)
    facts = json.loads(json.dumps(facts)) | {"machine": H200S}
    (row,) = swept(tmp_path / "elsewhere", cells, facts).rows
    (deeper,) = swept(tmp_path / "deeper", cells, {"machine": H200S}).rows
    assert row["limit_latency_s"] == pytest.approx(deeper["limit_latency_s"] / 6, rel=0.15), "60 blocks as published"


@pytest.mark.parametrize("content", [b"", b"\xff" * 64, (5).to_bytes(8, "little") + b"{not}"])
def test_a_file_that_is_no_safetensors_is_refused(content: bytes, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "weights", layers=10)
    (folder / "transformer" / "one.safetensors").write_bytes(content)
    with pytest.raises(ConfigError, match="no shape can be read"):
        shapes.of_checkpoint(shapes.named("qwen_image"), folder)


def test_components_of_memory_are_those_of_the_fullest_rank() -> None:
    less = {"memory_loaded_bytes": 10, "memory_peak_denoise_step_bytes": 12, "memory_reserved_bytes": 15}
    most = {"memory_loaded_bytes": 10, "memory_peak_dit_forward_bytes": 17, "memory_peak_vae_decode_bytes": 30}
    found = Executed(counts=(less, most)).parts_bytes
    assert found == {"weights": 10, "dit_activations": 7, "vae_activations": 20}
    assert Executed(counts=({"text_encoder_calls": 2},)).parts_bytes == {}
    staged = Executed(counts=({**most, "ar_memory_reserved_bytes": 50, "ar_memory_used_bytes": 20}, less)).parts_bytes
    assert staged == found | {"ar_reserved": 50}, "what the AR stage reserves is not the DiT's"


def test_seconds_by_cause_add_up_to_what_was_measured(tmp_path: Path) -> None:
    summary = swept(tmp_path, [composed(""), composed("cfg_parallel")], KNOWN)
    for found in summary.reached.values():
        for phase in ("denoise_step", "vae_decode"):
            parts = [one for one in found.spent if one.phase == phase]
            assert sum(one.seconds for one in parts) == pytest.approx(found.phases_s[phase])
            assert sum(one.limit_s for one in parts) == pytest.approx(max(found.limits_s[phase]))
        assert np.all(np.diff([one.lost_s for one in found.spent]) <= 0), "largest loss first"
