"""Makes a tiny recording and reads it back: whether this nsys records, imports, exports, and sees our NVTX ranges.

On real machines each of these can fail alone, and nsys's exit code reveals few of the failures. Knows no remedies.
"""

import contextlib
import os
import secrets
import sqlite3
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from profiling import ranges
from profiling.nsys.nsys_cli import Nsys, NsysError, end_agents, last_line, run

RECORD, IMPORT, EXPORT, RANGES = "record", "import", "export", "ranges"

NAME, INDEX = "doctor", 7
PROGRAM = f"""
import sys
sys.path.insert(0, sys.argv[1])
from profiling import ranges
ranges.push({NAME!r}, {INDEX})
ranges.pop()
print("backend:", ranges.backend(), flush=True)
"""


@dataclass(frozen=True)
class Trial:
    """Which step failed, and why."""

    failed: str = ""  # RECORD, IMPORT, EXPORT or RANGES; "" when all went well
    problem: str = ""  # what went wrong in that step
    backend: str = ""  # back end of `ranges` in the recorded process; "" when it printed none


def attempt(nsys: Nsys, timeout_s: float) -> Trial:
    """Record a process that opens one range, import it and export it; each step within `timeout_s`."""
    with tempfile.TemporaryDirectory(prefix="profiling-doctor-") as folder:
        recording = Path(folder) / "trial.nsys-rep"
        session = f"doctor-{os.getpid()}-{secrets.token_hex(4)}"
        command = [str(nsys.path), "profile", f"--session-new={session}", "-t", "nvtx", "--sample=none"]
        command += ["--cpuctxsw=none", "-o", str(recording)]
        command += [sys.executable, "-c", PROGRAM, str(Path(ranges.__file__).resolve().parents[1])]
        try:
            done = run(command, timeout_s, {**os.environ, "TMPDIR": folder})
        except subprocess.TimeoutExpired:
            end_agents(lambda name: name == session)
            return Trial(RECORD, f"it did not finish within {timeout_s:g} s")
        except OSError as error:
            return Trial(RECORD, str(error))
        said = done.stdout + done.stderr
        named = [line.removeprefix("backend: ") for line in done.stdout.splitlines() if line.startswith("backend: ")]
        backend = named[-1].strip() if named else ""
        if not recording.exists():
            if list(Path(folder).glob("*.qdstrm")):  # nsys still exits with 0
                return Trial(IMPORT, _of_importer(said), backend)
            return Trial(RECORD, last_line(said), backend)
        export = Path(folder) / "trial.sqlite"
        try:
            nsys.export(recording, export, timeout_s)
            seen = names_seen(export)
        except NsysError as error:
            return Trial(EXPORT, error.problem, backend)
        except sqlite3.Error as error:
            return Trial(EXPORT, f"the SQLite export cannot be read: {error}", backend)
        if NAME not in seen:
            return Trial(RANGES, "the test range is missing from the recording", backend)
        return Trial("", "", backend)


def names_seen(export: Path) -> set[str]:
    """Names of all ranges in an export; nsys leaves out tables that would be empty."""
    with contextlib.closing(sqlite3.connect(f"file:{export}?mode=ro", uri=True)) as database:
        tables = {name for (name,) in database.execute("select name from sqlite_master where type = 'table'")}
        if "NVTX_EVENTS" not in tables:
            return set()
        query = "select coalesce(text, value) from NVTX_EVENTS left join StringIds on textId = id"
        return {str(name) for (name,) in database.execute(query)}


def _of_importer(said: str) -> str:
    """The line about the importer in what nsys printed."""
    lines = [line.strip() for line in said.replace("\r", "\n").splitlines() if "importer" in line.lower()]
    return lines[0] if lines else "it left a .qdstrm file and printed no reason"
