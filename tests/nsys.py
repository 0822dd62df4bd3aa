"""nsys for tests: the real one where there is one, and a script that behaves like it as far as a sweep can tell.

The script keeps what real nsys 2023.4 was seen to do: the engine leads a session of its own, an agent without a parent
lives until the engine ends, `launch` ends with 128 plus the signal, `stop` ends with 0 also when the trace could not be
written.
"""

import csv
import os
import sqlite3
import sys
from collections import Counter
from pathlib import Path

import psutil
import pytest

from profiling.nsys.nsys_cli import Nsys, NsysError, find

SCRIPT = """#!{python} -S
import os, pathlib, signal, subprocess, sys, time

verb, options = sys.argv[1], [a for a in sys.argv[2:] if a.startswith("--")]
given = dict(a[2:].split("=", 1) for a in options if "=" in a)
state = pathlib.Path(os.environ.get("TMPDIR", "/tmp"))
LOG = {log!r}
with open(LOG, "a") as log:
    log.write(" ".join(sys.argv[1:]) + "\\n")
if verb == "--version":
    print("NVIDIA Nsight Systems version 2099.1.2-fake")
elif verb == "--start-agent":
    time.sleep(600)
elif verb == "launch":
    command = sys.argv[2 + len([a for a in sys.argv[2:] if a.startswith("--")]):]
    first = next(n for n, a in enumerate(sys.argv) if n > 1 and not a.startswith("--"))
    agent = subprocess.Popen([sys.argv[0], "--start-agent", "--session-name=" + given["session-new"]],
                             start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    {launch}
    child = subprocess.Popen(sys.argv[first:], start_new_session=True)
    code = child.wait()
    agent.kill()
    sys.exit(code if code >= 0 else 128 - code)
elif verb == "start":
    (state / "output").write_text(given["output"])
elif verb == "stop":
    {stop}
    pathlib.Path((state / "output").read_text()).write_bytes(b"a trace")
"""

STUB_OF_ANALYZE = """
import sys, types
stub = types.ModuleType("profiling.nsys.analyze")
stub.__dict__.update(FLAG=FLAG)
exec('''
import pathlib, sys

def configure(parser):
    parser.add_argument("trace")
    parser.add_argument("--host-only", action="store_true")
    parser.add_argument("--save")
    parser.add_argument("--format")

def run(asked):
    FLAG.write_text(" ".join(sys.argv[1:]))
    assert pathlib.Path(asked.trace).is_file()
    folder = pathlib.Path(asked.save)
    head = "phase,process,instances,host_ns,projected_ns,busy_ns,busy_share,verdict,sentence"
    rows = [f"other,1,4,{size},,,,host,other is {size}" for size in (5, 400)]
    (folder / "nsys_phases.csv").write_text(chr(10).join([head, *rows]) + chr(10))
    (folder / "kernels.csv").write_text("name" + chr(10))
    print('{"traces": [{}]}')
    return 0
''', stub.__dict__)
sys.modules["profiling.nsys.analyze"] = stub
"""
"""Code for `Sweep.inject("profiling.errors", …)`: an analysis that finds phase `other` in two processes."""


def fake_nsys(folder: Path, stop: str = "pass", launch: str = "pass") -> tuple[Path, Path]:
    """The script, and the log of its commands. `stop` and `launch` are code that runs on that command."""
    script, log = folder / "nsys", folder / "nsys.log"
    script.write_text(SCRIPT.format(python=sys.executable, log=str(log), stop=stop, launch=launch))
    script.chmod(0o755)
    return script, log


def real_nsys() -> Nsys:
    """The nsys of this machine, or a skip."""
    try:
        return find()
    except NsysError as error:
        pytest.skip(str(error))


def nsys_processes(mark: str = "sweep-") -> list[str]:
    """Command lines of agents and launchers of the sessions of sweeps, but for those of other tests' sessions."""
    found = []
    for process in psutil.process_iter():
        try:
            line = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if f"--session-name={mark}" in line or f"--session-new={mark}" in line:
            found.append(line)
    return found


def ranges_of(nsys: Nsys, trace: Path) -> dict[int, Counter[str]]:
    """How often each range of the domain `sweep` is in a trace, by process."""
    exported = trace.with_suffix(".sqlite")
    nsys.export(trace, exported)
    query = (
        "select (e.globalTid >> 24) & 0xffffff, coalesce(e.text, s.value) from NVTX_EVENTS e left join StringIds s"
        " on s.id = e.textId where e.eventType = 59 and e.domainId in"
        " (select domainId from NVTX_EVENTS where eventType = 75 and coalesce(text, '') = 'sweep'"
        "  union select d.domainId from NVTX_EVENTS d join StringIds t on t.id = d.textId"
        "  where d.eventType = 75 and t.value = 'sweep')"
    )
    found: dict[int, Counter[str]] = {}
    with sqlite3.connect(exported) as connection:
        for process, name in connection.execute(query):
            found.setdefault(process, Counter())[name] += 1
    return found


def phases_of(cell: Path) -> dict[str, Counter[str]]:
    """How often each phase is in a cell's phases.csv, by rank."""
    found: dict[str, Counter[str]] = {}
    with (cell / "phases.csv").open() as handle:
        for row in csv.DictReader(handle):
            found.setdefault(row["rank"], Counter())[row["phase"]] += 1
    return found


def owner() -> str:
    """What sessions of a sweep that this process starts would not be called: for `nsys_processes`."""
    return f"sweep-{os.getpid()}-"
