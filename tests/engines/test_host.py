"""The parent's side of an engine process: its log, which the engine keeps writing while it is read."""

import dataclasses
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from sweep.engines.process.failures import one_line
from sweep.engines.process.host import EngineHost
from sweep.results.folder import SweepFolder
from tests.engines.conftest import make_spec

LINES, LINE = 500_000, "x" * 9
BY_DYNAMO = """RuntimeError: RuntimeError when making fake tensor call
  Explanation: Dynamo failed to run FX node with fake tensors: call_method view(*(FakeTensor(..., device='cuda:0',
               dtype=torch.bfloat16), -1, s39*s89), **{}): got ValueError('Cannot view a tensor with
               shape torch.Size([s38, s67 - s7])')
  Hint: Your code may result in an error when running in eager.
"""
"""What vLLM-Omni 0.26 printed for fp8 in batches of two."""


@pytest.mark.parametrize("reader", ["for the cause of a failure", "for the cell's engine.log"])
def test_reading_the_log_loses_nothing_that_is_printed_meanwhile(reader: str, tmp_path: Path) -> None:
    """The engine's file and ours have one position: if it were moved, the engine would print over its own lines."""
    cell = SimpleNamespace(folder="cell")
    (tmp_path / cell.folder).mkdir()
    with EngineHost(dataclasses.replace(make_spec("tiny_qwen_image"), engine="noop"), 30) as host:
        host.load(30)  # it prints nothing itself
        code = f"import os\nfor _ in range({LINES}): os.write(1, b'{LINE}\\n')"
        rank = subprocess.Popen([sys.executable, "-c", code], stdout=host.log)
        while rank.poll() is None:
            if reader == "for the cause of a failure":
                host._last_lines(65_536)
            else:
                SweepFolder(tmp_path).save_log(cell, host.log, 0)  # type: ignore[arg-type]
        SweepFolder(tmp_path).save_log(cell, host.log, 0)  # type: ignore[arg-type]
        assert (tmp_path / "cell" / "engine.log").read_text().splitlines() == [LINE] * LINES
        assert set(host._last_lines(65_536)[1:]) == {LINE}


def test_an_error_of_torch_compile_is_told_with_what_it_met() -> None:
    error = "RuntimeError: RuntimeError when making fake tensor call"
    assert one_line(BY_DYNAMO) == error + ": ValueError('Cannot view a tensor with shape torch.Size([s38, s67 - s7])')"
    assert one_line(error + "\n  Explanation: nothing else") == error


def test_an_engine_s_process_starts_without_hydra() -> None:
    """It reads the schema of a run, and composes none: a quarter of a second for each engine."""
    code = "import sys, sweep.engines.process.child; print({'hydra', 'omegaconf'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
