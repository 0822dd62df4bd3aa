"""Finds the SQLite export for what the command line names: a trace or a cell's folder.

Knows which files a cell's folder may hold, and nothing of what a trace contains.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from profiling.errors import Refusal
from profiling.measured_cell import stored_result
from profiling.nsys import nsys_cli
from profiling.torch_trace import TRACE_FILE

EXPORTS = (".sqlite", ".sqlite3", ".db")
CHROME = (".json", ".json.gz")


@contextmanager
def sqlite_of(trace: Path) -> Iterator[Path]:
    """The trace's SQLite export: the file itself, a newer export next to it, or one made now and removed afterwards.

    A folder means the recording in it. Raises Refusal when there is no such file, when it is of another kind, or when
    nsys cannot export it.
    """
    if trace.is_dir():
        if not (trace / nsys_cli.TRACE).is_file():
            raise Refusal(f"{trace}: this folder has no {nsys_cli.TRACE}; {_why_none(trace)}", "no_trace")
        trace = trace / nsys_cli.TRACE
    if not trace.is_file():
        raise Refusal(f"{trace}: no such file", "no_such_file")
    if not trace.stat().st_size:
        raise Refusal(f"{trace}: the file is empty", "empty")
    if trace.suffix in EXPORTS:
        yield trace
        return
    if trace.suffix != ".nsys-rep":
        chrome = trace.name.endswith(CHROME)
        hint = "; open a Chrome trace in https://ui.perfetto.dev" if chrome else ""
        raise Refusal(f"{trace}: neither a .nsys-rep file nor its .sqlite export{hint}", "unknown_kind")
    beside = trace.with_suffix(".sqlite")
    if beside.is_file() and beside.stat().st_size and beside.stat().st_mtime >= trace.stat().st_mtime:
        yield beside
        return
    with tempfile.TemporaryDirectory(prefix="profiling-nsys-") as folder:
        made = Path(folder) / "trace.sqlite"
        try:
            nsys_cli.find().export(trace, made)
        except nsys_cli.NsysError as error:
            table = trace.with_name(nsys_cli.PHASES_TABLE)
            hint = f"; the sweep's analysis of this trace is in {table}" if table.is_file() else ""
            raise Refusal(f"{error}{hint}", "not_exported") from error
        yield made


def _why_none(folder: Path) -> str:
    """Why a folder holds no recording of Nsight Systems, as far as its files show."""
    if found := sorted(folder.glob(TRACE_FILE.format(name="*"))):
        return f"open {found[0].name} from profile=torch in https://ui.perfetto.dev"
    if reason := stored_result(folder).get("reason"):
        return f"the cell was not measured: {reason}"
    return "profile=nsys records one for each cell"
