"""Recorded traces of real runs on an H200: what `analyze` must find, to the nanosecond.

Projected times are those of `nsys stats -r nvtx_gpu_proj_sum` on the same file; where an nsys is installed that is
tested too.
"""

import csv
import io
import re
import subprocess
from pathlib import Path

import pytest
from small_traces import by_name, phases_of, profiling, unpacked

from profiling.nsys import nsys_cli, rendering
from tests.bench import traces
from tests.conftest import ROOT

EXPECTED = {
    "vllm_omni_h200": {
        "request": (2, 383_334_847, 332_504_351),
        "dit": (24, 216_538_749, 193_645_469),
        "vae_decode": (2, 138_918_370, 135_893_183),
        "text_encode": (4, 14_254_896, 2_414_787),
        "sched_step": (12, 173_536, 125_728),
    },
    "glm_image_h200": {
        "ar_prefill": (1, 18_304_114, 1_221_687),
        "ar_decode": (48, 119_157_855, 43_635_270),
        "gpu_model_runner: forward": (49, 57_035_659, 41_487_625),
        "request": (1, 127_026_642, 69_546_753),
        "dit": (8, 85_575_624, 56_172_179),
        "text_encode": (2, 25_207_692, 2_473_872),
        "vae_decode": (1, 11_209_310, 10_781_600),
        "sched_step": (4, 246_111, 28_736),
    },
    "cuda_graph_node": {"graph": (3, 2_064_098, 2_063_585), "dit": (3, 1_021_857, 1_021_857)},
    "cuda_graph_graph": {"graph": (3, 2_062_754, 2_062_754), "dit": (3, 1_023_553, 1_023_553)},
}
"""Trace: phase: instances, projected ns, busy ns."""


@pytest.mark.parametrize("name", EXPECTED)
def test_instances_projected_and_busy_of_every_phase(name: str, tmp_path: Path) -> None:
    found = by_name(phases_of(unpacked(name, tmp_path)))
    told = {
        phase: (found[phase]["instances"], found[phase]["projected_ns"], found[phase]["busy_ns"]) for phase in found
    }
    assert {phase: told[phase] for phase in EXPECTED[name]} == EXPECTED[name]


@pytest.mark.parametrize("name", EXPECTED)
def test_five_parts_add_up_to_the_projected_time(name: str, tmp_path: Path) -> None:
    for phase in phases_of(unpacked(name, tmp_path)):
        parts = ("compute", "communication_exposed", "copy_exposed", "idle_for_host", "idle_otherwise")
        assert sum(phase[f"{part}_ns"] for part in parts) == phase["projected_ns"], phase["name"]
        assert phase["busy_ns"] + phase["gap_ns"] == phase["projected_ns"]


def test_ar_decode_is_bound_by_the_host_and_vae_decode_by_kernels(tmp_path: Path) -> None:
    found = by_name(phases_of(unpacked("glm_image_h200", tmp_path)))
    decode, prefill, vae = found["ar_decode"], found["ar_prefill"], found["vae_decode"]
    assert decode["verdict"] == "launch-bound"
    assert re.findall(r"[\d,]+%?", decode["sentence"])[:3] == ["90%", "1,389", "37%"], "late of all launches, GPU busy"
    assert decode["graph_launches"] == 48, "one CUDA graph a token"
    assert (prefill["verdict"], vae["verdict"]) == ("launch-bound", "compute-bound")
    assert decode["process"] != vae["process"], "AR and DiT stages are processes of their own"


def test_graphs_traced_node_by_node_show_their_kernels_and_whole_ones_say_what_is_not_seen(tmp_path: Path) -> None:
    node = by_name(phases_of(unpacked("cuda_graph_node", tmp_path)))["graph"]
    whole = by_name(phases_of(unpacked("cuda_graph_graph", tmp_path)))["graph"]
    assert (node["graph_launches"], node["operations"]) == (3, 9)
    assert (whole["graph_launches"], whole["operations"]) == (3, 3)
    assert [kernel["kernel"] for kernel in whole["kernels"]] == ["[CUDA graph]"]
    advice = "--cuda-graph-trace=node"
    assert advice in profiling("analyze", unpacked("cuda_graph_graph", tmp_path)).out
    assert advice not in profiling("analyze", unpacked("cuda_graph_node", tmp_path)).out


def test_several_traces_are_one_list_of_phases(tmp_path: Path) -> None:
    paths = [unpacked(name, tmp_path) for name in ("cuda_graph_node", "cuda_graph_graph")]
    found = phases_of(*paths)
    assert {phase["trace"] for phase in found} == set(map(str, paths))
    assert len(found) == 4


def test_saved_tables_and_plot(tmp_path: Path) -> None:
    trace, out = unpacked("vllm_omni_h200", tmp_path), tmp_path / "new" / "folder"
    done = profiling("analyze", trace, "--save", out, "--plot", out / "phases.png", "--format", "csv")
    assert done.code == 0, done.err
    rows = list(csv.DictReader(io.StringIO(done.out)))
    assert done.out == (out / "nsys_phases.csv").read_text()
    vae = next(row for row in rows if row["phase"] == "vae_decode")
    assert (vae["projected_ns"], vae["busy_share"], vae["communication_hidden_share"]) == ("138918370", "0.978223", "")
    kernels = list(csv.DictReader(io.StringIO((out / "kernels.csv").read_text())))
    total = sum(int(row["total_ns"]) for row in kernels if row["phase"] == "dit")
    assert total == pytest.approx(193_645_469, rel=1e-3), "one stream: hardly anything overlaps"
    assert (out / "phases.png").read_bytes().startswith(b"\x89PNG")


def test_every_column_is_described() -> None:
    described = (ROOT / "docs" / "nsys.md").read_text()
    assert [
        name for name in (*rendering.PHASE_COLUMNS, *rendering.KERNEL_COLUMNS) if f"`{name}`" not in described
    ] == []


def test_saved_beside_the_trace_the_tables_name_it_as_seen_from_there(tmp_path: Path) -> None:
    trace = unpacked("cuda_graph_node", tmp_path)
    assert profiling("analyze", trace, "--save", tmp_path).code == 0
    for name in ("nsys_phases.csv", "kernels.csv"):
        rows = list(csv.DictReader(io.StringIO((tmp_path / name).read_text())))
        assert {row["trace"] for row in rows} == {trace.name}


def by_nsys(path: Path) -> dict[str, tuple[int, int]]:
    """Instances and projected ns of every range's name by `nsys stats`."""
    command = [
        str(nsys_cli.find().path),
        "stats",
        "-r",
        "nvtx_gpu_proj_sum",
        "-f",
        "csv",
        "--timeunit",
        "nsec",
        str(path),
    ]
    out = subprocess.run(command, capture_output=True, text=True, timeout=300).stdout
    lines = out[out.index("Range,Style") :].split("\n\n")[0]
    rows = csv.DictReader(io.StringIO(lines))
    return {row["Range"]: (int(row["Range Instances"]), int(row["Total Proj Time (ns)"])) for row in rows}


def nsys_stats_works(folder: Path) -> bool:
    try:
        return bool(by_nsys(unpacked("cuda_graph_node", folder)))
    except (nsys_cli.NsysError, ValueError, OSError):
        return False


def test_figures_equal_those_of_nsys_on_recorded_and_generated_traces(tmp_path: Path) -> None:
    if not nsys_stats_works(tmp_path):
        pytest.skip("no nsys whose stats work")
    large = tmp_path / "large.sqlite"
    traces.write(large, 20_000)
    for path in (unpacked("vllm_omni_h200", tmp_path), unpacked("glm_image_h200", tmp_path), large):
        ours: dict[str, tuple[int, int]] = {}
        for phase in phases_of(path):
            if phase["instances"] and phase["process"] != 201:  # nsys of 2023 leaves out graphs traced whole
                name = f"{phase['domain']}:{phase['name']}" if phase["domain"] else phase["name"]
                instances, projected_ns = ours.get(name, (0, 0))
                ours[name] = instances + phase["instances"], projected_ns + phase["projected_ns"]
        assert ours == by_nsys(path)
