"""What the commands say about every stored sweep and trace: the texts that a redesign must not change.

Stored sweeps (`tests/data/sweeps`) are folders as an earlier version wrote them: a sweep that was run on a CPU, and a
made-up one in which every kind of row occurs, as it was and with its features 1.25 times slower. Reports are those of
`docs/results`.
"""

import contextlib
import gzip
import io
import itertools
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from sweep.analysis.summary import summarise
from sweep.plan.plans import Plan
from sweep.report.build import rebuild
from sweep.report.page import contents
from sweep.results.folder import SweepFolder
from tests.conftest import ROOT

SWEEPS = ROOT / "tests" / "data" / "sweeps"
TRACES = ROOT / "tests" / "data" / "traces"
RESULTS = ROOT / "docs" / "results"
FORMATS = {"text": "txt", "markdown": "md", "json": "json"}


def all_outputs(scratch: Path) -> Iterator[tuple[str, str]]:
    """(file name, text) of everything; unpacks into `scratch`."""
    reports = dict(_stored_sweeps(scratch))
    for name, folder in reports.items():
        for file in ("summary.csv", "report.json", "terminal.txt", "report.html"):
            yield f"sweeps/{name}/{file}", (folder / file).read_text()
    reports |= {path.parent.name: path for path in sorted(RESULTS.glob("*/report.json"))}
    yield from _comparisons(scratch, reports)
    yield from _traces(scratch)


def unpack(name: str, folder: Path) -> Path:
    """A stored sweep in `folder`; its path."""
    with tarfile.open(SWEEPS / f"{name}.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder


def _stored_sweeps(scratch: Path) -> Iterator[tuple[str, Path]]:
    """Each with summary.csv, report.json, report.html (without plots) and what the terminal shows."""
    for archive in sorted(SWEEPS.glob("*.tar.gz")):
        name = archive.name.removesuffix(".tar.gz")
        folder = unpack(name, scratch / name)
        console = Console(file=io.StringIO(), width=160)
        with contextlib.chdir(scratch):
            rebuild(SweepFolder(Path(name)), plots=False, console=console)
            write_page(SweepFolder(Path(name)))
        assert isinstance(console.file, io.StringIO)
        (folder / "terminal.txt").write_text(console.file.getvalue())
        yield name, folder


def write_page(folder: SweepFolder) -> None:
    """report.html as a sweep writes it, but without plots, whose bytes are matplotlib's."""
    made = folder.load_plan()
    loaded = folder.load_results(made)
    found = summarise(folder, made, loaded)
    shown = Plan(tuple(made.by_key[row["cell_key"]] for row in found.rows), made.groups)
    note = json.loads((folder.path / "report.json").read_text())["sweep"]["note"]
    results = {key: result for key, (result, _) in loaded.items()}
    contents.write(folder, shown, found.rows, results, [], note, found.control)


def _comparisons(scratch: Path, reports: dict[str, Path]) -> Iterator[tuple[str, str]]:
    pairs = [("mixed-before", "mixed-after"), ("mixed-after", "mixed-before"), ("batch-2-gpus", "matrix-2-gpus")]
    pairs += [(name, name) for name in reports]
    asked = {f"{before}-{after}": [reports[before], reports[after]] for before, after in pairs}
    options = [(name, both, []) for name, both in asked.items()]
    options += [(f"{name}-relative", both, ["--relative"]) for name, both in itertools.islice(asked.items(), 3)]
    options += [(f"{name}-best", [path], ["--best"]) for name, path in reports.items()]
    for name, paths, further in options:
        for kind, suffix in FORMATS.items():
            yield f"compare/{name}.{suffix}", _compare(scratch, [*paths], ["--format", kind, *further])


def _compare(scratch: Path, paths: list[Path], further: list[str]) -> str:
    """Output and exit code of `python -m sweep.compare`; files are named from the root, so that no path differs."""
    from sweep.compare.__main__ import main

    shown = scratch / "output"
    shown.unlink(missing_ok=True)
    named = [str(path.relative_to(ROOT if path.is_relative_to(ROOT) else scratch)) for path in paths]
    for path, name in zip(paths, named, strict=True):
        link = scratch / name
        if not link.exists():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
    error = io.StringIO()
    with contextlib.chdir(scratch), contextlib.redirect_stderr(error):
        try:
            code: object = main([*named, *further, "--output", str(shown)])
        except SystemExit as stopped:
            code = stopped.code
    return f"{shown.read_text() if shown.exists() else error.getvalue()}\nexit code {code}\n"


def _traces(scratch: Path) -> Iterator[tuple[str, str]]:
    names = []
    for packed in sorted(TRACES.glob("*.sqlite.gz")):
        (scratch / packed.stem).write_bytes(gzip.decompress(packed.read_bytes()))
        names.append(packed.stem)
    for name in names:
        for kind in ("json", "csv", "text"):
            yield f"analyze/{name}.{kind}", _profiling(scratch, "analyze", name, "--format", kind)
    for kind in ("json", "text"):
        yield f"analyze/diff.{kind}", _profiling(scratch, "diff", names[0], names[1], "--format", kind)


def _profiling(scratch: Path, *arguments: str) -> str:
    from profiling.__main__ import main

    shown = io.StringIO()
    with contextlib.chdir(scratch), contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
        code = main(list(arguments))
    return f"{shown.getvalue()}\nexit code {code}\n"
