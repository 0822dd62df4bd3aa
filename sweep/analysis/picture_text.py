"""Whether pictures show the text that their prompts quote, as OCR reads it (ocr=true). For any model.

A process of its own reads all pictures that were not read yet (`ocr_worker`); the lines are stored in the cells'
quality.json, by picture. OCR makes mistakes too, so its findings are WARN at most.
"""

import contextlib
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sweep.analysis import image_pairs
from sweep.analysis.quoted_text import quoted, shows
from sweep.config.feature import Feature
from sweep.engines.process.failures import one_line
from sweep.findings import WARN, Finding
from sweep.plan.cells import Cell
from sweep.plan.plans import Plan
from sweep.results.folder import SweepFolder
from sweep.results.records import RunResult

LOSES = "loses_text"
"""Code of the finding that a feature loses text which the baseline's pictures show."""

FEWEST_LOST = 2
"""A single lost text may have been misread."""

TIMEOUT_S = 3600.0

Key = tuple[int, int]
"""prompt_index, seed."""


@dataclass(frozen=True)
class Reading:
    """What was read in one picture."""

    texts: tuple[str, ...]  # that the prompt quotes
    lines: tuple[str, ...]

    @property
    def right(self) -> bool:
        """Whether all quoted texts are there."""
        return all(shows(self.lines, text) for text in self.texts)

    @property
    def wrong(self) -> str:
        """For people: `"M8Q" is read as "MSQ"`."""
        missing = next((text for text in self.texts if not shows(self.lines, text)), "")
        return f'"{missing}" is read as "{" ".join(self.lines)}"' if self.lines else f'"{missing}" is not there'


Readings = Mapping[Key, Reading]
"""Readings of the pictures of a cell whose prompts quote text."""


def measure(folder: SweepFolder, plan: Plan, results: Mapping[str, RunResult | None]) -> str:
    """Read all pictures that were not read yet. Returns why nothing could be read, or ""."""
    wanted: dict[tuple[str, str], str] = {}  # cell key and name -> file
    for cell in plan.cells:
        result = results.get(cell.key)
        if cell.config.get("ocr") and result is not None:
            known = folder.load_quality(cell)
            for _, file, digest, _ in _with_text(result):
                if _name(digest) not in known:
                    with contextlib.suppress(ValueError):  # outside the folder: `image_pairs` says so
                        wanted[cell.key, _name(digest)] = str(folder.image_path(cell, file).absolute())
    return _read(folder, plan, wanted) if wanted else ""


def of(folder: SweepFolder, cell: Cell, result: RunResult) -> Readings:
    """What `measure` found of the first start of a cell; {} without ocr=true, and where no prompt quotes text."""
    made = list(_with_text(result)) if cell.config.get("ocr") else []
    known = folder.load_quality(cell) if made else {}
    return {
        key: Reading(texts, tuple(known[_name(digest)]["lines"]))
        for key, _, digest, texts in made
        if _name(digest) in known
    }


def columns(mine: Readings) -> dict[str, float]:
    """The row's column, a share in [0, 1]; {} where no picture was read."""
    return {"text_right": sum(one.right for one in mine.values()) / len(mine)} if mine else {}


def judge(features: Sequence[Feature], mine: Readings, baseline: Readings) -> list[Finding]:
    """WARN for several texts that the baseline's pictures show and the feature's do not, less those that it mends."""
    shared = sorted(mine.keys() & baseline.keys())
    lost = [key for key in shared if baseline[key].right and not mine[key].right]
    count = len(lost) - sum(mine[key].right and not baseline[key].right for key in shared)
    if not features or count < FEWEST_LOST:
        return []
    share = f"{count} of {len(shared)} pictures no longer show the text that was asked for"
    more = ", …" if len(lost) > 1 else ""
    return [Finding(LOSES, f"{share}, as OCR reads them ({mine[lost[0]].wrong}{more})", WARN)]


def _with_text(result: RunResult) -> Iterator[tuple[Key, str, str, tuple[str, ...]]]:
    """Key, file, pixel hash and quoted texts of the stored images whose prompt quotes any."""
    for key, (file, digest) in image_pairs.stored_images(result).items():
        if texts := quoted(result.prompts[key[0]] if key[0] < len(result.prompts) else ""):
            yield key, file, digest, texts


def _name(digest: str) -> str:
    return f"text:{digest}"


def _read(folder: SweepFolder, plan: Plan, wanted: Mapping[tuple[str, str], str]) -> str:
    """Have the worker read these files and store every line that it prints, even if it ends before the last."""
    files = list(dict.fromkeys(wanted.values()))
    said: dict[str, list[str]] = {}
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        worker = subprocess.Popen(
            [sys.executable, "-m", "sweep.analysis.ocr_worker"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, encoding="utf-8",
        )  # fmt: skip
        watchdog = threading.Timer(TIMEOUT_S, worker.kill)
        watchdog.start()
        try:
            assert worker.stdin is not None
            assert worker.stdout is not None
            with contextlib.suppress(BrokenPipeError), worker.stdin:
                worker.stdin.write(json.dumps(files))
            with worker.stdout:
                for file, line in zip(files, worker.stdout, strict=False):
                    if (lines := json.loads(line)) is not None:
                        said[file] = lines
            if worker.wait() == 0:
                return ""
        finally:
            watchdog.cancel()
            worker.kill()
            worker.wait()
            found: dict[str, dict[str, dict[str, list[str]]]] = {}
            for (key, name), file in wanted.items():
                if file in said:
                    found.setdefault(key, {})[name] = {"lines": said[file]}
            image_pairs.save(folder, plan, found)
        errors.seek(0)
        last = (errors.read().strip().splitlines() or ["no message"])[-1]
        return f"text in pictures could not be read: {one_line(last)}"
