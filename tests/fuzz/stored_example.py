"""A small stored sweep with every file that one can have: images, phases, telemetry, a trace's tables, events."""

import dataclasses
import hashlib
import io
from pathlib import Path

from msgspec import structs
from PIL import Image
from rich.console import Console

from profiling.nsys.nsys_cli import PHASES_TABLE
from profiling.phases import PhaseRecord
from profiling.telemetry.samples import TelemetrySample
from sweep.plan.cells import Cell
from sweep.report.build import rebuild
from sweep.results.folder import SweepFolder
from tests import stored


def make(path: Path) -> Path:
    """Store it at `path`, with its report; returns the path."""
    plan = stored.many_cells(4)
    folder = stored.store(path, plan)
    for number, cell in enumerate(plan.cells):
        _complete(folder, cell, number)
        for state, values in (("loading", {}), ("running", {"done": 1, "total": 4}), ("done", {})):
            folder.emit("cell", key=cell.key, state=state, **values)
    (folder.cell_path(plan.cells[-1]) / "result.json").unlink()  # cut off, so that events are read
    versions = {"sweep": "0.2.0", "torch": "2.13.0"}
    machine = {"system": "Linux", "cpu_cores": 2, "gpus": ["one", "two"]}
    folder.save_manifest(folder.load_manifest() | {"versions": versions, "machine": machine, "git_commit": "abc"})
    rebuild(folder, plots=False, console=Console(file=io.StringIO()))
    return path


def _complete(folder: SweepFolder, cell: Cell, shade: int) -> None:
    """Give a cell images, phases, telemetry and what a trace says."""
    result = folder.load_result(cell)
    assert result is not None
    (folder.cell_path(cell) / "images").mkdir()
    rows = []
    for request in result.requests:
        if request.repeat == 0:
            image = Image.new("RGB", (8, 8), (shade, request.prompt_index, 0))
            name = f"images/prompt_{request.prompt_index:02}.png"
            image.save(folder.cell_path(cell) / name)
            digest = hashlib.sha256(image.tobytes()).hexdigest()
            request = structs.replace(request, image=name, image_hash=digest)
        rows.append(request)
    phases = [
        PhaseRecord(0, name, 0, start_s, took_ms, None, "p0.0")
        for name, start_s, took_ms in (("request", 0.0, 300.0), ("ar_decode", 0.0, 200.0), ("denoise_step", 0.2, 90.0))
    ]
    fields = {field.name for field in dataclasses.fields(TelemetrySample)}
    known = {"time_s": 0.1, "cpu_pct": 100.0, "rss_gb": 0.5, "gpu_index": None}
    given = {name: value for name, value in known.items() if name in fields}
    complete = dataclasses.replace(result, requests=tuple(rows), first_request_s=0.0)
    folder.save_result(cell, complete, phases, [TelemetrySample(**given)])
    table = "phase,process,verdict,sentence\nrequest,1,launch-bound,It waits.\n"
    (folder.cell_path(cell) / PHASES_TABLE).write_text(table, encoding="utf-8")
