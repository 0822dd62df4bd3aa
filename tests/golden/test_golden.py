"""Numbers, codes and statuses of stored sweeps and traces stay the same, even where the words about them change.

After an intended change `python -m tests.golden` writes them anew, and the commit names it.
"""

import csv
import difflib
import gzip
import io
import json
import re
import tarfile
from collections.abc import Iterable, Mapping

import pytest

from tests.conftest import ROOT
from tests.golden import outputs

GOLDEN = ROOT / "tests" / "data" / "golden.tar.gz"
NUMBER = re.compile(r"-?\d+\.\d{9,}(?:[eE][-+]?\d+)?|-?\d(?:\.\d+)?[eE][-+]\d+")


def pack(texts: Mapping[str, str]) -> bytes:
    """Texts by name as an archive, the same bytes for the same texts."""
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as zipped, tarfile.open(fileobj=zipped, mode="w") as archive:
        for name, text in sorted(texts.items()):
            data = text.encode()
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def compared(texts: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The outputs that have fields."""
    refused = ("sweep.compare:", "profiling:")  # one line of prose
    return {name: text for name, text in texts if name.endswith(COMPARED) and not text.startswith(refused)}


def unpack() -> dict[str, str]:
    """Inverse of `pack` for the stored texts."""
    with tarfile.open(GOLDEN) as archive:
        members = [(entry.name, archive.extractfile(entry)) for entry in archive]
        return {name: file.read().decode() for name, file in members if file is not None}


PROSE = {"reason", "invalid_reason", "note", "text", "why", "doubt", "problem", "short", "sentence", "advice", "images"}
"""Fields and columns that are for people alone."""

COMPARED = ("json", "csv")
"""Outputs with fields. What is all prose, `python -m tests.golden DIR` writes for `diff -r` between two checkouts."""


def fields_of(name: str, text: str) -> list[str]:
    """One line per value of an output, without prose, and without the last digits, in which processors differ."""
    if name.endswith("csv"):
        rows = csv.DictReader(io.StringIO(text.partition("\nexit code")[0]))
        values: object = [{key: value for key, value in row.items() if key not in PROSE} for row in rows]
    else:
        values = without_prose(json.loads(text.partition("\nexit code")[0]))
    shown = json.dumps(values, indent=0, ensure_ascii=False)
    return NUMBER.sub(lambda found: f"{float(found[0]):.9g}", shown).splitlines()


def without_prose(value: object) -> object:
    """JSON values without the fields that are for people alone."""
    if isinstance(value, dict):
        kept = {key: inner for key, inner in value.items() if key not in PROSE}
        return {key: without_prose(inner) for key, inner in kept.items()}
    if isinstance(value, list):
        return [without_prose(inner) for inner in value if not isinstance(inner, str) or " " not in inner]
    return value


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return compared(outputs.all_outputs(tmp_path_factory.mktemp("golden")))


@pytest.mark.parametrize("name", sorted(unpack()) if GOLDEN.exists() else [])
def test_output_is_as_it_was(found: dict[str, str], name: str) -> None:
    before, after = (fields_of(name, text) for text in (unpack()[name], found[name]))
    changed = list(difflib.unified_diff(before, after, "before", "after", lineterm="", n=1))
    assert not changed, "\n".join(changed[:60])


def test_every_output_is_compared(found: dict[str, str]) -> None:
    assert sorted(found) == sorted(unpack())
