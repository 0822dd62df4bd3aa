"""`python -m profiling doctor` with real and broken installations of nsys, and its decisions."""

import json
import os
import re
import sys
import time
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from driver_doubles import EVENT_REASONS, amd, nvml, unsupported

from profiling.doctor import machine, nsys_self_test
from profiling.doctor.command import NAMES_ONLY, NO_LIBRARY, NOT_RECORDED, RECORDED, UNTESTED, ranges_finding
from profiling.doctor.machine import LITTLE_ROOM, MISSING, NO_DRIVER, NO_PACKAGE, NOT_WRITABLE, OK, WARNING
from profiling.doctor.nsys_self_test import Trial
from profiling.nsys import nsys_cli
from tests.conftest import Finished, environment, finished

FAKE = """#!{python}
import pathlib, sqlite3, subprocess, sys, time

def out():
    return pathlib.Path(sys.argv[sys.argv.index("-o") + 1])

def export(*ranges):
    with sqlite3.connect(out()) as database:
        database.execute("create table StringIds (id, value)")
        if ranges:
            database.execute("create table NVTX_EVENTS (text, textId)")
        for number, name in enumerate(ranges):
            database.execute("insert into StringIds values (?, ?)", (number, name))
            database.execute("insert into NVTX_EVENTS values (null, ?)", (number,))

command = sys.argv[1]
if command == "--version":
    print("NVIDIA Nsight Systems version {version}.54-234433681190v0")
elif command == "profile":
    {profile}
elif command == "export":
    {export}
"""


@pytest.fixture
def nsys(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """An nsys that runs the given code; the variables that make it the machine's."""

    def make(profile: str = "out().touch()", export: str = "pass", version: str = "2023.4.4") -> dict[str, str]:
        path = tmp_path / "nsys"
        path.write_text(FAKE.format(python=sys.executable, profile=profile, export=export, version=version))
        path.chmod(0o755)
        return {"NSYS": str(path)}

    return make


def doctor(*arguments: str, **variables: str) -> Finished:
    return finished("profiling", ["doctor", *arguments], Path.cwd(), environment() | variables, timeout_s=120)


def findings(*arguments: str, **variables: str) -> dict[str, dict[str, str]]:
    """The command's findings by name."""
    done = doctor("--format", "json", *arguments, **variables)
    assert (done.code, done.err) == (0, "")
    return {finding["name"]: finding for finding in json.loads(done.out)["findings"]}


def test_without_nsys_it_says_so_and_what_still_works(monkeypatch: pytest.MonkeyPatch) -> None:
    bare = {"NSYS": "", "PATH": "/usr/bin:/bin"}
    for name, value in bare.items():
        monkeypatch.setenv(name, value)
    if nsys_cli.candidates():
        pytest.skip("nsys is installed on this machine")
    found = findings(**bare)
    assert found["nsys"]["status"] == "missing"
    assert "NSYS=" in found["nsys"]["remedy"]
    assert "NSYS=" not in found["nsys"]["found"], "the remedy is said once"
    assert (found["nvtx ranges"]["code"], "nvtx" in found["nvtx ranges"]["found"]) == (UNTESTED, True)


def test_text_has_a_line_a_finding_and_remedies_below(nsys: Callable[..., dict[str, str]]) -> None:
    done = doctor(**nsys(profile="sys.exit('no ptrace here')"))
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("nsys trial "))
    assert lines[at].split()[:3] == ["nsys", "trial", "missing"]
    text = lines[at].split("  ")[-1].strip()
    assert text.endswith(": no ptrace here")
    assert lines[at + 1].strip().startswith("→ ")
    columns = {line.index(line.split("  ")[-1].strip()) for line in lines[:at] if line}
    assert columns == {lines[at].index(text)}
    count = sum(line.split("  ")[0] != "" and (" missing " in line or " warning " in line) for line in lines[:-1])
    assert lines[-1].split()[0] == str(count), "the last line counts what is not ok"


def test_recording_that_fails(nsys: Callable[..., dict[str, str]]) -> None:
    found = findings(**nsys(profile="sys.exit('no ptrace here')"))
    assert found["nsys"]["status"] == "ok"
    assert found["nsys"]["found"].startswith("2023.4.4, ")
    assert found["nsys trial"]["status"] == "missing"
    assert found["nvtx ranges"]["status"] == "warning"


def test_importer_that_is_missing_although_the_exit_code_is_0(nsys: Callable[..., dict[str, str]]) -> None:
    said = "Importer error status: The importer binary and its dependencies were not found."
    found = findings(**nsys(profile=f"out().with_suffix('.qdstrm').touch(); print({said!r}); print('Generated:')"))
    assert found["nsys trial"]["status"] == "missing"
    assert found["nsys trial"]["code"] == nsys_self_test.IMPORT
    assert said in found["nsys trial"]["found"]
    assert {"QdstrmImporter", "host-linux-x64"} <= set(re.split(r"[^\w-]+", found["nsys trial"]["remedy"]))


@pytest.mark.parametrize(
    ("export", "said"),
    [
        ("sys.exit('cannot read schema')", r"nsys 2023\.4\.4 .*: cannot read schema$"),
        ("pass", r"nsys 2023\.4\.4 .*: \S"),
        ("out().write_text('no database, a text of some length')", r"SQLite .*: file is not a database$"),
    ],
    ids=["says why", "leaves no file", "leaves another file"],
)
def test_export_that_fails(nsys: Callable[..., dict[str, str]], export: str, said: str) -> None:
    found = findings(**nsys(export=export))
    assert found["nsys trial"]["status"] == "missing"
    assert found["nsys trial"]["code"] == nsys_self_test.EXPORT
    assert re.search(said, found["nsys trial"]["found"])
    assert "profiling-doctor-" not in found["nsys trial"]["found"], "the temporary recording is not named"


@pytest.mark.parametrize(("command", "step"), [("profile", nsys_self_test.RECORD), ("export", nsys_self_test.EXPORT)])
def test_nsys_that_hangs_is_given_up_with_all_it_started(
    nsys: Callable[..., dict[str, str]], tmp_path: Path, command: str, step: str
) -> None:
    child = "subprocess.Popen(['sleep', '300']).pid"
    hangs = f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str({child})); time.sleep(300)"
    start = time.monotonic()
    found = findings("--timeout", "1", **nsys(**{command: hangs}))
    assert time.monotonic() - start < 30
    assert found["nsys trial"]["code"] == step
    assert "within 1 s" in found["nsys trial"]["found"]
    pid = int((tmp_path / "pid").read_text())
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_range_that_is_not_in_the_recording(nsys: Callable[..., dict[str, str]]) -> None:
    found = findings(**nsys(profile="out().touch(); print('backend: nvtx')", export="export('another')"))
    assert found["nsys trial"]["status"] == "ok"
    assert (found["nvtx ranges"]["status"], found["nvtx ranges"]["code"]) == ("missing", NOT_RECORDED)
    assert "nvtx" in found["nvtx ranges"]["found"].split("through ")[-1], "the library that it was pushed through"
    assert "nvidia-nvtx" in found["nvtx ranges"]["remedy"]


def test_process_that_no_tool_was_attached_to(nsys: Callable[..., dict[str, str]]) -> None:
    """The fake runs what it is to record, as an nsys that injects nothing would."""
    found = findings(**nsys(profile="out().touch(); subprocess.run(sys.argv[-4:])", export="export()"))
    assert (found["nvtx ranges"]["status"], found["nvtx ranges"]["code"]) == ("missing", NO_LIBRARY)
    assert "nsys 2023.4" in found["nvtx ranges"]["found"]


def test_recorded_range_names_the_library_that_reached_nsys(nsys: Callable[..., dict[str, str]]) -> None:
    found = findings(**nsys(profile="out().touch(); print('backend: torch.cuda.nvtx')", export="export('doctor')"))
    assert (found["nvtx ranges"]["status"], found["nvtx ranges"]["code"]) == ("warning", NAMES_ONLY)
    assert "torch.cuda.nvtx" in found["nvtx ranges"]["found"]


def test_real_nsys_records_and_exports_a_range() -> None:
    try:
        there = nsys_cli.find()
    except nsys_cli.NsysError:
        pytest.skip("no nsys on this machine")
    found = findings()
    assert found["nsys"]["found"] == f"{there}, {there.path}"
    assert found["nsys trial"]["status"] == "ok"
    assert found["nvtx ranges"]["status"] in ("ok", "warning")
    assert found["nvtx ranges"]["code"] in (RECORDED, NAMES_ONLY)


NOT_THERE = Trial(nsys_self_test.RANGES, "it is not there", "none")


@pytest.mark.parametrize(
    ("done", "version", "nvtx", "status", "code", "names"),
    [
        (Trial("", "", "nvtx"), (2025, 3, 1), "0.2.17", OK, RECORDED, ["nvtx 0.2.17"]),
        (Trial("", "", "libnvtx3interop"), (2023, 4, 4), "0.2.17", OK, RECORDED, ["libnvtx3interop", "nsys 2023.4"]),
        (Trial("", "", "libnvtx3interop"), (2023, 4, 4), "", OK, RECORDED, ["libnvtx3interop"]),
        (NOT_THERE, (2023, 4, 4), "0.2.17", MISSING, NO_LIBRARY, ["nsys 2023.4", "nvtx 0.2.17"]),
        (replace(NOT_THERE, backend=""), (2023, 4, 4), "0.2.17", MISSING, NO_LIBRARY, ["nsys 2023.4"]),
        (replace(NOT_THERE, backend="nvtx"), (2023, 4, 4), "0.2.17", MISSING, NOT_RECORDED, ["it is not there"]),
        (Trial(nsys_self_test.IMPORT, "broken", "nvtx"), (2025, 3, 1), "0.2.17", WARNING, UNTESTED, ["nvtx 0.2.17"]),
    ],
)
def test_by_which_library_ranges_reach_nsys(
    done: Trial, version: tuple[int, int, int], nvtx: str, status: str, code: str, names: list[str]
) -> None:
    finding = ranges_finding(done, version, nvtx)
    assert (finding.status, finding.code) == (status, code)
    assert [name for name in names if name not in finding.found] == []
    assert bool(finding.remedy) == (status != OK)


@pytest.mark.parametrize("arguments", [("--format", "yaml"), ("--timeout", "-1"), ("--timeout", "soon"), ("more",)])
def test_bad_usage_is_one_line_and_2(arguments: tuple[str, ...]) -> None:
    done = doctor(*arguments)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)


def test_help_says_that_missing_things_are_no_failure() -> None:
    assert "exit codes: 0 done, even when something is missing" in doctor("--help").out


def test_folder_for_traces_that_cannot_be_written(tmp_path: Path, nsys: Callable[..., dict[str, str]]) -> None:
    found = findings(TMPDIR=str(tmp_path / "nowhere"), **nsys())["disk"]
    assert (found["status"], found["code"]) == ("warning", NOT_WRITABLE)
    assert f"TMPDIR={tmp_path / 'nowhere'}" in found["found"]


def test_disk_that_is_nearly_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: types.SimpleNamespace(free=1.5e9))
    finding = machine.disk_finding(None)
    assert (finding.status, finding.code) == (WARNING, LITTLE_ROOM)
    assert "1.5 GB" in finding.found
    assert "TMPDIR" in finding.remedy


def test_driver_and_what_its_gpus_answer(driver: Callable[..., None]) -> None:
    def power(gpu: int) -> int:
        return 300_000 if gpu == 0 else unsupported()

    driver(
        nvml(
            nvmlSystemGetDriverVersion=lambda: "570.1",
            nvmlDeviceGetName=lambda gpu: "Simulated GPU",
            nvmlDeviceGetPowerUsage=power,
            nvmlDeviceGetTotalEnergyConsumption=lambda gpu: 1,
            nvmlDeviceGetClockInfo=lambda gpu, kind: 1000,
            nvmlDeviceGetCurrentClocksEventReasons=lambda gpu: 0 if gpu == 0 else unsupported(),
            **EVENT_REASONS,
        )
    )
    here, answers = machine.nvidia_findings()
    assert (here.status, here.found) == (OK, "570.1, 2 × Simulated GPU")
    assert answers.status == WARNING
    assert re.fullmatch(r"GPU 1 \D* power, throttle reasons", answers.found), "GPU 0 reports all, GPU 1 lacks these"
    assert "throttle reasons" in answers.remedy


def test_driver_that_does_not_answer_and_package_that_is_not_there(driver: Callable[..., None]) -> None:
    driver(nvml(nvmlInit=unsupported))
    (finding,) = machine.nvidia_findings()
    assert (finding.status, finding.code) == (MISSING, NO_DRIVER)
    assert "NVML: not supported" in finding.found
    driver()
    (finding,) = machine.nvidia_findings()
    assert (finding.status, finding.code) == (MISSING, NO_PACKAGE)
    assert "nvidia-ml-py" in finding.found
    assert "nvidia-ml-py" in finding.remedy


def test_amd_gpu_with_and_without_its_library(driver: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.amd_finding(False).status == OK
    monkeypatch.setattr(machine.importlib.util, "find_spec", lambda name: None)
    assert (machine.amd_finding(True).status, machine.amd_finding(True).code) == (MISSING, NO_PACKAGE)
    monkeypatch.setattr(machine.importlib.util, "find_spec", lambda name: name)
    driver(amdsmi=amd())
    assert (machine.amd_finding(True).status, "1 GPU" in machine.amd_finding(True).found) == (OK, True)
    driver(amdsmi=amd(amdsmi_init=unsupported))
    assert (machine.amd_finding(True).status, machine.amd_finding(True).code) == (MISSING, NO_DRIVER)
    assert "NVMLError: not supported" in machine.amd_finding(True).found


SYS_ADMIN, PERFMON = 1 << 21, 1 << 38


@pytest.mark.parametrize(
    ("paranoid", "held", "status"),
    [(2, 0, OK), (-1, 0, OK), (3, 0, WARNING), (4, SYS_ADMIN, OK), (4, PERFMON, OK), (None, SYS_ADMIN, MISSING)],
)
def test_permission_to_sample_the_cpu(paranoid: int | None, held: int, status: str) -> None:
    finding = machine.cpu_samples_finding(paranoid, held)
    assert finding.status == status
    assert (machine.NOT_FOR_TRACING in finding.remedy) == (status != OK)


@pytest.mark.parametrize(
    ("params", "held", "status"),
    [
        ("RmProfilingAdminOnly: 0\n", 0, OK),
        ("RmProfilingAdminOnly: 1\n", SYS_ADMIN, OK),
        ("RmProfilingAdminOnly: 1\n", 0, WARNING),
        (None, 0, MISSING),
    ],
)
def test_permission_to_read_gpu_counters_which_tracing_does_not_need(
    params: str | None, held: int, status: str
) -> None:
    finding = machine.gpu_counters_finding(params, held)
    assert finding.status == status
    assert (machine.NOT_FOR_TRACING in finding.remedy) == (status != OK)


@pytest.mark.parametrize(("scope", "status"), [(None, OK), (0, OK), (1, OK), (2, WARNING), (3, WARNING)])
def test_permission_to_look_into_running_processes(scope: int | None, status: str) -> None:
    assert machine.ptrace_finding(scope).status == status


def test_capabilities_are_those_of_this_process() -> None:
    assert machine.capabilities().bit_length() <= 64
    if os.geteuid() == 0 and "CapEff:\t0000000000000000" not in Path("/proc/self/status").read_text():
        assert machine.capabilities() > 0


def test_telemetry_is_really_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.sampler_finding().status == OK
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    finding = machine.sampler_finding()
    assert finding.status == MISSING
    assert "/nowhere/python" in finding.found
