"""`profile=`: what is recorded, how such rows are marked, and that their speed is never judged."""

import contextlib
import csv
import gzip
import json
import os
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from sweep.run.profiler import Found, Profile
from tests.conftest import ROOT, Finished
from tests.conftest import environment as of_tests
from tests.faults.conftest import NOOP, Sweep, sweep
from tests.nsys import STUB_OF_ANALYZE, fake_nsys, phases_of, ranges_of, real_nsys

__all__ = ["sweep"]  # the fixture

FEW = ("plots=false", "workload.num_prompts=1", "workload.repeats=2", "workload.steps=2")
QWEN = "model=tiny_qwen_image"  # without an AR stage: a request is quick, and a torch trace of it small


def with_fake_nsys(sweep: Sweep) -> Path:
    """Sweeps find a script in place of nsys; returns the log of its commands."""
    script, log = fake_nsys(sweep.base)
    sweep.environment["NSYS"] = str(script)
    return log


def verbs(log: Path) -> list[str]:
    """The commands to nsys, in order, without the checks of its version and the agents."""
    asked = [line.split()[0] for line in log.read_text().splitlines()]
    return [verb for verb in asked if not verb.startswith("--")]


def test_each_cell_is_a_recording_of_its_own_in_one_engine(sweep: Sweep) -> None:
    log = with_fake_nsys(sweep)
    sweep.inject("profiling.errors", STUB_OF_ANALYZE)
    done = sweep.run("-m", *NOOP, "batch=1,2", "profile=nsys")
    assert done.code == 0, done.out + done.err
    assert verbs(log) == ["launch", "launch", *["start", "stop"] * 2], "one launch is the check before anything loads"
    rows = sweep.rows()
    assert {row["profiled"] for row in rows.values()} == {"nsys"}
    for label, row in rows.items():
        cell = sweep.cell_path(label)
        assert row["trace"] == f"{cell.name}/trace.nsys-rep"
        assert (cell / "trace.nsys-rep").read_bytes() == b"a trace"
        assert (cell / "nsys_phases.csv").is_file()
        assert json.loads((cell / "result.json").read_text())["trace"] == "trace.nsys-rep"
        assert row["status"] == "PASS"
    assert "pip install nvidia-nvtx" in done.err, "the script is no NVTX tool"
    asked = sweep.flag.read_text().split()
    assert asked[:2] == ["analyze", str(cell / "trace.nsys-rep")]
    assert asked[2:] == ["--host-only", "--save", str(cell), "--format", "json"]


def test_what_the_analysis_leaves_out_of_a_trace_is_noted(tmp_path: Path) -> None:
    export = tmp_path / "trace.sqlite"
    export.write_bytes(gzip.decompress((ROOT / "tests/data/traces/cuda_graph_node.sqlite.gz").read_bytes()))
    (tmp_path / "trace.nsys-rep").write_bytes(b"older than its export")
    os.utime(tmp_path / "trace.nsys-rep", (1, 1))
    profile = Profile("nsys", tmp_path)
    for changed in (0, 1):
        with contextlib.closing(sqlite3.connect(export)) as database, database:
            database.execute('UPDATE CUPTI_ACTIVITY_KIND_KERNEL SET start = 0, "end" = 0 WHERE rowid <= ?', (changed,))
        profile.found = Found("trace.nsys-rep")
        profile.analyse("cuda")
        assert profile.found.trace == "trace.nsys-rep"
        assert profile.found.note.startswith("nsys: GPU operations left out") == bool(changed)
        assert profile.found.note.endswith(": 1" if changed else "")
    assert (tmp_path / "nsys_phases.csv").exists()


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sweep, Finished]:
    """The same sweep with and without a profiler in one folder: two sets of cells, two baselines, one noise floor."""
    sweep = Sweep(tmp_path_factory.mktemp("both"))
    with_fake_nsys(sweep)
    stub = STUB_OF_ANALYZE.replace("other is", "denoise_step is").replace("other,1", "denoise_step,1")
    sweep.inject("profiling.errors", stub)
    few = (*FEW, QWEN, "aa=1", "feature=vae_slicing", f"hydra.sweep.dir={sweep.folder}")
    done = sweep.run("-m", *few, "profile=off,nsys", timeout_s=200)
    assert done.code == 0, done.out + done.err
    return sweep, done


def test_the_sentence_of_the_bottleneck_is_in_the_note(both: tuple[Sweep, Finished]) -> None:
    row = both[0].rows()["baseline b1 profile=nsys"]
    assert row["bottleneck"] == "denoise_step"
    assert row["note"] == "nsys: denoise_step is 400", "of the process that spends most in it"


def test_speed_of_profiled_cells_is_not_judged_and_other_cells_are_not_judged_by_them(
    both: tuple[Sweep, Finished],
) -> None:
    sweep, done = both
    rows = sweep.rows()
    profiled = {label: row for label, row in rows.items() if row["profiled"]}
    assert sorted(profiled) == ["baseline b1 profile=nsys", "vae_slicing b1 profile=nsys"], "no A/A of what is profiled"
    for row in profiled.values():
        assert row["speedup"] == row["called"] == row["baseline_beside_s"] == row["interaction_gain"] == ""
        assert row["mean_diff"] == "0.0", "images are still compared"
        assert row["evidence"].startswith("1 rank; 2 DiT forwards")
        assert row["valid"] == "True"
    usual = rows["vae_slicing b1 profile=off"]
    assert usual["speedup"] != ""
    assert usual["profiled"] == ""
    assert "profiled" in done.out
    report = json.loads((sweep.folder / "report.json").read_text())
    assert [noise["starts"] for noise in report["noise"]] == [2], "the baseline and its A/A, not the profiled one"
    assert {cell["cell"]: cell["profiled"] for cell in report["cells"]}["baseline b1 profile=nsys"] == "nsys"


def test_compare_says_that_profiled_cells_are_others(sweep: Sweep) -> None:
    with_fake_nsys(sweep)
    folders = {}
    for name, asked in (("usual", "off"), ("one", "nsys"), ("two", "nsys")):
        folders[name] = str(sweep.base / name)
        sweep.run("-m", *NOOP, f"profile={asked}", f"hydra.sweep.dir={folders[name]}")
    done = sweep.run(folders["usual"], folders["one"], module="sweep.compare")
    assert done.code == 2
    assert "usual has profile off" in done.err
    assert "one has nsys" in done.err
    done = sweep.run(folders["one"], folders["two"], "--format", "json", module="sweep.compare")
    assert done.code == 0, done.err
    (cell,) = json.loads(done.out)["comparisons"][0]["cells"]
    assert cell["speed"]["verdict"] == ""
    assert cell["speed"]["why_code"] == "profiled"


def test_a_rerun_with_a_profiler_measures_anew(sweep: Sweep) -> None:
    with_fake_nsys(sweep)
    here = f"hydra.sweep.dir={sweep.folder}"
    assert sweep.run("-m", *NOOP, here).code == 0
    assert sweep.run("-m", *NOOP, here, "profile=nsys").code == 0
    with (sweep.folder / "summary.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert sorted(row["profiled"] for row in rows) == ["", "nsys"]
    assert len({row["cell_key"] for row in rows}) == 2


@pytest.mark.parametrize(
    ("arguments", "environment", "named"),
    [
        (["profile=nsys"], {"NSYS": "/nowhere/nsys", "PATH": "/nowhere"}, ["profile=nsys:", "profiling doctor"]),
        (["profile=nsys"], {"NVTX_INJECTION64_PATH": "/tool.so"}, ["profile=nsys "]),
        (["profile=torch", "engine=noop"], {}, ["profile=torch ", "engine=noop"]),
        (
            ["profile=torch", "engine=vllm_omni", "model=qwen_image", "engine.plugin=false"],
            {},
            ["profile=torch ", "engine.plugin=false"],
        ),
        (["profile=nsight"], {}, ["profile=nsight:", "off", "nsys", "torch"]),
    ],
)
def test_what_cannot_record_is_refused_before_anything_is_loaded(
    sweep: Sweep, arguments: list[str], environment: dict[str, str], named: list[str]
) -> None:
    sweep.environment |= environment
    sweep.inject("profiling.nsys.nsys_cli", "PLACES = ()")
    done = sweep.run("-m", *arguments, f"hydra.sweep.dir={sweep.folder}")
    assert done.code == 2, done.out + done.err
    (line,) = done.err.splitlines()
    assert all(fact in line for fact in named), line
    assert not sweep.folder.exists()


def test_torch_records_the_first_batch_of_every_rank(sweep: Sweep) -> None:
    done = sweep.run("-m", *FEW, QWEN, "feature=cfg_parallel", "profile=torch", timeout_s=200)
    assert done.code == 0, done.out + done.err
    seen = {}
    for rank in (0, 1):
        trace = sweep.cell_path("cfg_parallel b1") / f"trace-rank{rank}.json.gz"
        with gzip.open(trace) as handle:
            seen[rank] = Counter(e["name"] for e in json.load(handle)["traceEvents"] if e.get("ph") == "X")
    assert [seen[rank][name] for rank in (0, 1) for name in ("request", "denoise_step")] == [1, 2, 1, 2]
    assert seen[0]["dit_forward"] == 2, "each rank has one of both branches"
    assert sum("aten::" in name for name in seen[0]) > 20
    row = sweep.rows()["cfg_parallel b1"]
    assert (row["profiled"], row["speedup"], row["status"]) == ("torch", "", "PASS")
    assert row["trace"].endswith("/trace-rank0.json.gz")


def test_ranges_of_every_rank_are_in_the_trace_and_only_of_measured_requests(sweep: Sweep) -> None:
    nsys = real_nsys()
    ran = sweep.run("-m", *FEW, "feature=cfg_parallel", "profile=nsys", timeout_s=200)
    assert ran.code == 0, ran.out + ran.err
    assert "nvidia-nvtx" not in ran.err
    for label in ("baseline b1", "cfg_parallel b1"):
        cell = sweep.cell_path(label)
        traced = ranges_of(nsys, cell / "trace.nsys-rep")
        recorded = phases_of(cell)
        assert sorted(sorted(one.items()) for one in traced.values()) == sorted(
            sorted(one.items()) for one in recorded.values()
        )
    assert len(recorded) == 2
    cells = [str(sweep.cell_path(name)) for name in ("baseline b1", "cfg_parallel b1")]
    command = [sys.executable, "-m", "profiling", "diff", *cells, "--format", "json"]
    done = subprocess.run(command, env=of_tests() | sweep.environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["on_host"], "nothing ran on a GPU"
    row = sweep.rows()[label]
    assert (row["status"], row["profiled"]) == ("PASS", "nsys")


def test_a_sweep_under_nsys_has_ranges_in_every_process(sweep: Sweep) -> None:
    nsys, trace = real_nsys(), sweep.base / "whole.nsys-rep"
    command = [str(nsys.path), "profile", "--trace=nvtx", "--sample=none", "--cpuctxsw=none", f"--output={trace}"]
    arguments = ["-m", *FEW, "feature=cfg_parallel", "aa=0", f"hydra.sweep.dir={sweep.folder}"]
    done = subprocess.run(
        [*command, sys.executable, "-m", "sweep", *arguments],
        env=of_tests() | sweep.environment,
        cwd=sweep.base,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("engines are spawned") + done.stderr.count("engines are spawned") == 1
    found = ranges_of(nsys, trace)
    main = next(counts for counts in found.values() if "plan" in counts)
    assert main == {"plan": 1, "engine_load": 2, "warm_up": 2, "measure": 2}
    engines = sorted((counts["request"], counts["denoise_step"]) for counts in found.values() if counts["request"])
    # the baseline: warm-up, two requests, and as many interleaved with the other cell, whose two ranks make three each
    assert engines == [(3, 6), (3, 6), (6, 12)]
    rows = sweep.rows()
    assert all("disturbed" in sweep.doubts(label) for label in rows)
