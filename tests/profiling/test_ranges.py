"""NVTX ranges as a profiler sees them: a real tool (an injection library) around real processes."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from tests.engines.conftest import answers

ROOT = Path(__file__).resolve().parents[2]
INJECTION = ROOT / "tests" / "data" / "nvtx_injection.c"

PUSH_TWO = """
import json
from profiling import ranges
ranges.push("denoise_step", 7)
ranges.push("dit_forward", 14)
ranges.pop()
ranges.pop()
print(json.dumps(ranges.backend()))
"""

NO_OTHER_LIBRARY = """
import sys
from profiling import ranges
sys.modules["torch"] = None
ranges.find_interop_library = lambda: "/nowhere/libnvtx3interop.so"
"""


@dataclass(frozen=True)
class Event:
    """One line of the tool's log."""

    kind: str
    domain: str
    name: str
    payload: int


def compile_tool(folder: Path, *flags: str) -> Path:
    """The injection library, or a skip where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler")
    library = folder / "nvtx_injection.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-Wall", *flags, str(INJECTION), "-o", str(library)], check=True)
    return library


def run(script: str, tool: Path | None, log: Path) -> tuple[object, list[Event], str]:
    """What the script printed as JSON, the events that the tool saw, and what was said on stderr."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NVTX_")}
    environment |= {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]),
        "OMP_NUM_THREADS": "1",
        "NVTX_LOG": str(log),
    }
    if tool is not None:
        environment["NVTX_INJECTION64_PATH"] = str(tool)
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), logged(log), done.stderr


def logged(log: Path) -> list[Event]:
    """The events that the tool saw."""
    lines = log.read_text().splitlines() if log.exists() else []
    return [Event(kind, domain, name, int(payload)) for _, kind, domain, name, payload in map(split, lines)]


def split(line: str) -> list[str]:
    """Columns of a line of the log."""
    return line.split("\t")


def nested(events: list[Event]) -> list[tuple[str, int, int]]:
    """(name, payload, depth) of each range; fails on a pop without a push or a range that stays open."""
    ranges: list[tuple[str, int, int]] = []
    depth = 0
    for event in events:
        if event.kind == "push":
            ranges.append((event.name, event.payload, depth))
            depth += 1
        elif event.kind == "pop":
            depth -= 1
        assert depth >= 0
    assert depth == 0
    return ranges


def test_no_tool_no_warning_no_ranges(tmp_path: Path) -> None:
    backend, events, said = run(PUSH_TWO, None, tmp_path / "log")
    assert (backend, events, said) == ("none", [], "")


def test_names_payloads_and_domain(tmp_path: Path) -> None:
    backend, events, said = run(PUSH_TWO, compile_tool(tmp_path), tmp_path / "log")
    assert (backend, said) == ("nvtx", "")
    assert nested(events) == [("denoise_step", 7, 0), ("dit_forward", 14, 1)]
    assert {event.domain for event in events if event.kind in ("push", "pop")} == {"sweep"}


def test_a_tool_too_old_for_the_nvtx_package_is_reached_through_the_library(tmp_path: Path) -> None:
    from profiling.ranges import InteropLibrary

    try:
        InteropLibrary()
    except OSError:
        pytest.skip("no libnvtx3interop on this machine")
    backend, events, said = run(PUSH_TWO, compile_tool(tmp_path, "-DOLD_TOOL"), tmp_path / "log")
    assert (backend, said) == ("libnvtx3interop", "")
    assert nested(events) == [("denoise_step", 7, 0), ("dit_forward", 14, 1)]


def test_a_tool_that_cannot_be_reached_is_said_loudly_once(tmp_path: Path) -> None:
    script = NO_OTHER_LIBRARY + PUSH_TWO
    backend, events, said = run(script, compile_tool(tmp_path, "-DOLD_TOOL"), tmp_path / "log")
    assert backend == "none"
    assert nested(events) == []
    assert said.count("RuntimeWarning") == 1
    assert all(name in said for name in ("nvtx: ", "libnvtx3interop: ", "torch.cuda.nvtx: ")), "what was tried"


def generate(pipe: Connection, tool: str, log: str) -> None:
    """In a process of its own, with the tool: the back end of two generations, and what was recorded of them."""
    os.environ |= {"NVTX_INJECTION64_PATH": tool, "NVTX_LOG": log}  # read when the first range is pushed
    from profiling import ranges
    from profiling.instrument import attach
    from profiling.phases import PhaseRecorder
    from tests.profiling.tiny_pipelines import arguments, load

    pipeline = load("tiny_glm_image_random")
    recorder = PhaseRecorder(rank=0, device="cpu")
    attach(pipeline, recorder)
    with recorder.phase("request"):
        pipeline(**arguments(pipeline))
    records = recorder.take()

    def fail(module: object, inputs: object) -> None:
        raise MemoryError

    pipeline.transformer.transformer_blocks[0].register_forward_pre_hook(fail)
    with contextlib.suppress(MemoryError), recorder.phase("request"):
        pipeline(**arguments(pipeline))
    records += recorder.take()
    pipe.send((ranges.backend(), [(record.phase, record.index) for record in records]))


def test_a_generation_seen_from_outside_is_the_one_that_was_recorded(tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    log = tmp_path / "log"
    ((backend, records),) = answers(1, generate, str(compile_tool(tmp_path)), str(log))
    events = logged(log)
    assert backend == "nvtx"
    seen = Counter((name, payload) for name, payload, _ in nested(events))
    assert seen == Counter(records)
    assert {name for name, _ in seen} >= {"request", "ar_prefill", "ar_decode", "denoise_step", "vae_decode"}
    assert sum(count for (name, _), count in seen.items() if name == "ar_decode") > 200
