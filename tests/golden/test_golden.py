"""What is said of stored sweeps and traces stays as it is. An intended change: `python -m tests.golden` writes it anew,
and the commit names it."""

import difflib
import gzip
import io
import json
import re
import tarfile
from collections.abc import Mapping

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


def unpack() -> dict[str, str]:
    """Inverse of `pack` for the stored texts."""
    with tarfile.open(GOLDEN) as archive:
        members = [(entry.name, archive.extractfile(entry)) for entry in archive]
        return {name: file.read().decode() for name, file in members if file is not None}


def same_everywhere(name: str, text: str) -> list[str]:
    """Lines without the last digits of long numbers, in which processors differ; of JSON with a line a value."""
    if name.endswith("json") and "\nexit code" not in text:
        text = json.dumps(json.loads(text), indent=0, ensure_ascii=False)
    return NUMBER.sub(lambda found: f"{float(found[0]):.9g}", text).splitlines()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return dict(outputs.all_outputs(tmp_path_factory.mktemp("golden")))


@pytest.mark.parametrize("name", sorted(unpack()) if GOLDEN.exists() else [])
def test_output_is_as_it_was(found: dict[str, str], name: str) -> None:
    before, after = (same_everywhere(name, text) for text in (unpack()[name], found[name]))
    changed = list(difflib.unified_diff(before, after, "before", "after", lineterm="", n=1))
    assert not changed, "\n".join(changed[:60])


def test_every_output_is_compared(found: dict[str, str]) -> None:
    assert sorted(found) == sorted(unpack())
