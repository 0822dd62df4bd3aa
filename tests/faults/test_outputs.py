"""Outputs that cannot be written to: nothing that was measured is lost, and one line reports it."""

import contextlib
import os
import pty
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Finished, environment
from tests.faults.conftest import NOOP, Sweep
from tests.faults.test_files import fill_disk

SMALL = (*NOOP, "workload.num_prompts=1", "workload.repeats=1")

full_device = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")


def shell(folder: Path, *arguments: str, redirected: str) -> Finished:
    """`python -m …` with its outputs redirected as a shell does it."""
    command = f"{shlex.join([sys.executable, '-m', *arguments])} {redirected}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment(), capture_output=True, encoding="utf-8", timeout=240
    )
    return Finished(done.returncode, done.stdout, done.stderr)


def on_a_terminal(sweep: Sweep, *arguments: str) -> str:
    """What a sweep prints that has a terminal to print to; its exit code must be 0."""
    ours, theirs = pty.openpty()
    process = sweep.start(*arguments, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # the end of it
        while piece := os.read(ours, 65_536):
            shown += piece
    os.close(ours)
    assert process.wait(240) == 0, shown
    return shown.decode()


@full_device
def test_a_full_output_costs_no_result_and_is_said_once(sweep: Sweep) -> None:
    done = shell(sweep.base, "sweep", *SMALL, f"hydra.run.dir={sweep.folder}", redirected="> /dev/full")
    assert done.code == 0
    assert done.err.splitlines() == ["sweep: standard output cannot be written (No space left on device)"]
    assert sweep.statuses() == {"baseline b1": ("PASS", "")}
    assert sweep.manifest()["exit_code"] == 0
    helped = shell(sweep.base, "sweep", "--help", redirected="> /dev/full")
    assert (helped.code, helped.err) == (0, done.err)
    report = shell(sweep.base, "sweep.report", str(sweep.folder), "--no-plots", redirected="> /dev/full")
    assert report.code == 0
    assert len(report.err.splitlines()) == 1
    compared = shell(sweep.base, "sweep.compare", str(sweep.folder), str(sweep.folder), redirected="> /dev/full")
    assert compared.code == 3, "1 would mean slower"
    assert compared.err.splitlines() == ["sweep.compare: standard output cannot be written (No space left on device)"]


def test_closed_descriptors_cost_no_result_and_take_no_file(sweep: Sweep) -> None:
    done = shell(sweep.base, "sweep", *SMALL, f"hydra.run.dir={sweep.folder}", redirected="<&- >&- 2>&-")
    assert done.code == 0
    assert sweep.statuses() == {"baseline b1": ("PASS", "")}
    for path in (path for path in sweep.folder.rglob("*") if path.is_file()):
        assert "cell to run" not in path.read_text(encoding="utf-8"), path


def test_compare_into_a_closed_pipe_is_no_verdict(sweep: Sweep) -> None:
    assert sweep.run(*SMALL, f"hydra.run.dir={sweep.folder}").code == 0
    both = ("sweep.compare", str(sweep.folder), str(sweep.folder))
    closed = shell(sweep.base, *both, redirected=">&-")
    assert (closed.code, closed.err) == (3, "")
    read, write = os.pipe()
    os.close(read)
    process = sweep.start(*both[1:], module=both[0], stdout=write)
    os.close(write)
    _, err = process.communicate(timeout=240)
    assert (process.returncode, err) == (3, "")
    written = shell(sweep.base, *both, "--output", "compared.txt", redirected=">&-")
    assert (written.code, written.err) == (0, ""), "nothing was to be printed"
    assert (sweep.base / "compared.txt").is_file()


def test_report_on_a_full_disk_is_one_line(sweep: Sweep) -> None:
    assert sweep.run(*SMALL, f"hydra.run.dir={sweep.folder}").code == 0
    fill_disk(sweep, ".summary.csv.")
    done = sweep.run(str(sweep.folder), "--no-plots", module="sweep.report")
    assert done.code == 2
    (line,) = done.err.splitlines()
    assert line.startswith("sweep.report: ")
    assert "No space left on device" in line


def test_markup_and_escapes_in_prompts_and_folders_are_shown_as_they_are(sweep: Sweep) -> None:
    place = sweep.base / "[red] [/x]"
    prompts = "workload.prompt='a [/x] cat','[red] dog','a \x1b[31mred\x1b[0m fox'"
    arguments = ("-m", *SMALL, prompts, f"hydra.sweep.dir='{place}'")
    for given in ([], ["dry_run=true"]):
        done = sweep.run(*arguments, *given)
        assert done.code == 0, done.err
        assert "a [/x] cat" in done.out
        assert "\x1b" not in done.out + done.err
        assert "\\x1b[31mred" in done.out
    assert b"\x1b" not in (place / "summary.csv").read_bytes()
    assert f"{place}/summary.csv" in on_a_terminal(sweep, *arguments, "batch=2")


def test_a_gigabyte_on_standard_error_is_cut_in_the_middle(sweep: Sweep) -> None:
    """Here 20 MB, of which both ends are kept."""
    sweep.inject(
        "sweep.engines.noop.engine",
        """
import os

def load(self):
    os.write(2, b"the first line" + os.linesep.encode())
    for number in range(20):
        os.write(2, b"x" * 1_000_000)
    os.write(2, os.linesep.encode() + b"the last line" + os.linesep.encode())

NoopEngine.load = load
""",
    )
    assert sweep.run(*SMALL, f"hydra.run.dir={sweep.folder}").code == 0
    log = (sweep.cell_path("baseline b1") / "engine.log").read_bytes()
    assert log.startswith(b"the first line\n")
    assert log.endswith(b"\nthe last line\n")
    assert b"bytes are left out here]" in log
    assert 8_000_000 < len(log) < 9_000_000
