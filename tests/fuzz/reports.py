"""Damaged sweeps by the hundred: `python -m tests.fuzz.reports --count 200 --seed 0`, and `--reports` for report.json.

Whatever the files of a stored sweep contain, report, load and compare end soon, with exit code 0, 1 or 2 and at most
one clear line, and write nothing outside the folder. Each case follows from its seed alone. Exit code 1 when one did
not.
"""

import argparse
import contextlib
import copy
import io
import json
import random
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweep.compare.__main__ import main as compare
from sweep.frames import load
from sweep.refusals import ConfigError
from sweep.report.__main__ import main as report
from sweep.report.plots import draw
from sweep.results.folder import SweepFolder
from sweep.run.group import is_finished
from sweep.run.manifest import progress
from sweep.run.progress import CellStates
from tests.fuzz import stored_example

LIMIT_S = 60.0
"""A case that takes longer hangs."""

PLOTS_EVERY = 50
"""Cases that draw plots, which takes longest: one in so many."""

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 7, 2**31, 2**63, -(2**63), 10**40, 10**400),
    *(0.0, -0.5, 1e-320, 1e16, 1e308, -1e308, float("inf"), float("-inf"), float("nan")),
    *("", "x", "../../outside", "/etc/passwd", "\x1b]0;owned\x07", "\x00", "[/x]", "${oc.env:HOME}", "\ud800"),
    "9" * 5000,
    *([], {}, [[]], {"a": 1}, [1, 2, 3], {"": None}),
)
"""What takes the place of a value."""


@dataclass(frozen=True)
class Case:
    """One mutation of one file."""

    seed: int
    file: str  # relative to the sweep's folder
    how: str
    content: bytes


FILES = ("plan.json", "result.json", "result.json", "manifest.json", "events.jsonl", "side")
SIDE = ("quality.json", "phases.csv", "requests.csv", "telemetry.csv", "nsys_phases.csv")
REPORT = ("report.json",)
"""What is changed: a file of the sweep, of a cell, or one of those that can be made again."""


def case(seed: int, folder: Path, kinds: Sequence[str] = FILES) -> Case:
    """The mutation with this seed, of the sweep in `folder`."""
    rng = random.Random(seed)
    kind = rng.choice(kinds)
    found = [folder / kind] if (folder / kind).exists() else []
    for name in SIDE if kind == "side" else (kind,):
        found += sorted(folder.glob(f"*/{name}"))
    path = rng.choice(found)
    content = path.read_bytes()
    if path.suffix == ".json" and rng.random() < 0.75:
        how, content = _change_value(rng, content)
    elif path.suffix == ".jsonl" and rng.random() < 0.75:
        lines = content.splitlines()
        place = rng.randrange(len(lines))
        how, lines[place] = _change_value(rng, lines[place])
        content = b"\n".join(lines) + b"\n"
    else:
        how, content = _change_bytes(rng, content)
    return Case(seed, str(path.relative_to(folder)), how, content)


def _change_value(rng: random.Random, content: bytes) -> tuple[str, bytes]:
    """Give one value of a JSON text another, or take it away, double it or nest it."""
    values = json.loads(content)
    places = list(_places(values))
    owner_path, name = rng.choice(places)
    owner = values
    for step in owner_path:
        owner = owner[step]
    how = rng.choice(("replace", "replace", "replace", "remove", "add", "nest"))
    where = f"{how} {'/'.join(map(str, (*owner_path, name)))}"
    if how == "replace":
        owner[name] = copy.deepcopy(rng.choice(VALUES))
        where += f" by {ascii(owner[name])[:60]}"
    elif how == "remove":
        del owner[name]
    elif how == "add":
        if isinstance(owner, list):
            owner.insert(rng.randrange(len(owner) + 1), copy.deepcopy(owner[name]))
        else:
            owner[f"{name}x"] = owner[name]
    else:
        for _ in range(rng.choice((1, 70, 900))):
            owner[name] = rng.choice(([owner[name]], {"a": owner[name]}))
    return where, json.dumps(values).encode()


def _places(values: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every value inside, as the path of its owner and its name or number there."""
    inner = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for name, value in inner:
        yield path, name
        yield from _places(value, (*path, name))


def _change_bytes(rng: random.Random, content: bytes) -> tuple[str, bytes]:
    """Cut a file, change bytes, or put others in."""
    changed = bytearray(content)
    how = rng.choice(("cut", "flip", "insert", "delete", "double", "empty", "noise"))
    place = rng.randrange(len(changed) or 1)
    if how == "cut":
        del changed[place:]
    elif how == "flip":
        for _ in range(rng.choice((1, 1, 20))):
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    elif how == "insert":
        odd = (b"\x00", b"\xff\xfe", b"\r\n", b",,,,", b'"', b"[" * 100_000, b"1e999", b"-")
        changed[place:place] = rng.choice(odd)
    elif how == "delete":
        del changed[place : place + rng.randrange(1, 40)]
    elif how == "double":
        changed += bytes(changed)
    else:
        changed = bytearray(b"" if how == "empty" else rng.randbytes(300))
    return f"{how} at {place}", bytes(changed)


def problems(one: Case, folder: Path, whole: Path) -> list[str]:
    """What goes wrong when the sweep in `folder`, a copy of `whole`, has this mutation; [] when all ends well."""
    path = folder / one.file
    path.write_bytes(one.content)
    plots = dict(draw.PLOTS)
    if one.seed % PLOTS_EVERY:
        draw.PLOTS.clear()
    try:
        with _limited():
            return [*_told(folder, whole, one.file)]
    except Exception:
        return [traceback.format_exc()]
    finally:
        draw.PLOTS.update(plots)


def _told(folder: Path, whole: Path, changed: str) -> Iterator[str]:
    """Run everything that reads a sweep with this file changed; yield what should not be."""
    if changed != "report.json":
        yield from _command("sweep.report", lambda: report([str(folder)]), (0, 1, 2))
        with contextlib.suppress(ConfigError):
            tables = load(folder)
            tables.summary.to_csv()
            sweep = SweepFolder(folder)  # what a rerun reads first
            for cell in tables.plan.cells:
                is_finished(sweep, cell)
            progress(sweep, tables.plan, *sweep.events())
            CellStates(sweep, tables.plan, set(), 0).update()
    with contextlib.suppress(ConfigError):
        load(folder / "report.json").summary.to_csv()
    yield from _command("sweep.compare", lambda: compare([str(whole), str(folder), "--format", "json"]), (0, 1, 2))
    yield from _command("sweep.compare", lambda: compare([str(folder), str(whole), "--relative"]), (0, 1, 2))
    yield from _command("sweep.compare", lambda: compare([str(folder), "--best"]), (0, 2))


def _command(name: str, run: Any, codes: Sequence[int]) -> Iterator[str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = run()
        except SystemExit as stopped:
            code = stopped.code
    lines = err.getvalue().splitlines()
    if code not in codes:
        yield f"{name} ended with {code}"
    if code == 2 and (len(lines) != 1 or not lines[0].startswith(f"{name}: ") or len(lines[0]) > 1000):
        yield f"{name} was refused with {lines}"
    shown = out.getvalue() + err.getvalue()
    if "Traceback" in shown or set("\x1b\x00\x07") & set(shown):
        yield f"{name} printed {ascii(shown)[:300]}"


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    """Raise TimeoutError in a block that takes longer than LIMIT_S."""

    def end(*_: object) -> None:
        raise TimeoutError(f"longer than {LIMIT_S:g} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, LIMIT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def failures(seeds: Sequence[int], kinds: Sequence[str] = FILES) -> list[str]:
    """What goes wrong in these cases, each with the case before it."""
    found = []
    with tempfile.TemporaryDirectory(prefix="sweep-fuzz-") as name:
        base = Path(name)
        whole = stored_example.make(base / "whole")
        before = _everything(whole)
        for seed in seeds:
            folder = Path(shutil.copytree(whole, base / "case" / "sweep", symlinks=True))
            one = case(seed, folder, kinds)
            wrong = problems(one, folder, whole)
            if sorted(path.name for path in base.iterdir()) != ["case", "whole"] or _everything(whole) != before:
                wrong.append("something was written outside the folder")
                before = _everything(whole)
            if [path.name for path in (base / "case").iterdir()] != ["sweep"]:
                wrong.append("something was written next to the folder")
            found += [f"seed {seed}, {one.file}, {one.how}: {what}" for what in wrong]
            shutil.rmtree(base / "case")
    return found


def _everything(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


def main() -> int:
    """Try the sweeps of some seeds; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.reports", description=str(__doc__).split("\n")[0])
    parser.add_argument("--count", type=int, default=200, help="number of damaged sweeps (default 200)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first (default 0)")
    parser.add_argument("--reports", action="store_true", help="damage report.json instead of what it is made from")
    chosen = parser.parse_args()
    seeds = range(chosen.seed, chosen.seed + chosen.count)
    found = failures(seeds, REPORT if chosen.reports else FILES)
    print("\n".join([*found, f"{chosen.count} damaged sweeps, {len(found)} failures"]))
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
