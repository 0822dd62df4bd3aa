"""Text that prompts quote is looked for in pictures: pure rules, the real reader where it is installed, and rows."""

import csv
import dataclasses
import hashlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from sweep.analysis import picture_text
from sweep.analysis.picture_text import Reading
from sweep.analysis.quoted_text import quoted, shows
from sweep.checkpoints.world import pictures, scenes
from sweep.config.feature import Feature
from sweep.findings import WARN
from tests.conftest import Finished, environment, finished

DOUBLE = """
import hashlib, json, pathlib

known = json.loads((pathlib.Path(__file__).parent / "lines.json").read_text())

class Found:
    def __init__(self, txts):
        self.txts = txts

class RapidOCR:
    def __init__(self, params):
        assert params

    def __call__(self, pixels, use_cls):
        return Found(known[hashlib.sha256(pixels[..., ::-1].tobytes()).hexdigest()])
"""
"""In place of the package: what is read in a picture is written in a file, by hash of its pixels."""


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [
        ('a shop sign that says "Fresh bread"', ("Fresh bread",)),
        ("the words 'OPEN 24 h' in a window", ("OPEN 24 h",)),
        ("“山” over 「大人」 and 'ok'", ("山", "大人", "ok")),
        ("a cat's hat and the dogs' bone", ()),
        ("it's the boss's 'BAR'", ("BAR",)),
        ('an empty "" and a blank " "', ()),
        ("no text at all", ()),
    ],
)
def test_texts_in_quotation_marks(prompt: str, texts: tuple[str, ...]) -> None:
    assert quoted(prompt) == texts


@pytest.mark.parametrize(
    ("lines", "text", "there"),
    [
        (["Fresh bread"], "Fresh bread", True),
        (["Freshbread"], "Fresh bread", True),
        (["Since 1920", "Fresh", "bread"], "Fresh bread", True),
        (["bread", "Fresh"], "Fresh bread", False),
        (["Fresh breads"], "Fresh bread", False),
        (["fresh bread"], "Fresh bread", False),
        (["１２"], "12", True),
        (["O"], "0", False),
        ([], "a", False),
    ],
)
def test_a_text_is_there_whole_and_exact(lines: list[str], text: str, there: bool) -> None:
    assert shows(lines, text) == there


def readings(lines: str) -> picture_text.Readings:
    """One letter per picture: what is read where A was requested."""
    return {(place, 0): Reading(("A",), tuple(line.strip())) for place, line in enumerate(lines)}


@pytest.mark.parametrize(
    ("baseline", "mine", "lost"),
    [("AAAA", "AAAA", 0), ("AAAA", "BAAA", 0), ("AAAA", "BBAA", 2), ("ABAA", "BABA", 0), ("BBBB", "BBBB", 0)],
)
def test_a_feature_that_loses_texts_is_warned_of(baseline: str, mine: str, lost: int) -> None:
    found = picture_text.judge([Feature(name="teacache")], readings(mine), readings(baseline))
    assert [(one.code, one.status) for one in found] == [("loses_text", WARN)] * bool(lost)
    assert all(f"{lost} of 4 pictures" in one.text and '"A" is read as "B"' in one.text for one in found)
    assert picture_text.judge([], readings(mine), readings(baseline)) == []


def test_the_share_is_of_pictures_with_all_their_texts() -> None:
    assert picture_text.columns(readings("AAB ")) == {"text_right": 0.5}
    assert picture_text.columns({}) == {}
    assert not Reading(("A", "B"), ("A",)).right
    assert Reading(("A",), ()).wrong == '"A" is not there'


QWEN = (
    *("model=tiny_qwen_image", "feature=vae_slicing", "workload.steps=2", "workload.repeats=1"),
    *("interleave=false", "aa=0", "plots=false"),
)


def run(base: Path, *arguments: str, module: str = "sweep") -> Finished:
    """`python -m MODULE …` in this folder, whose folder `site` comes before installed packages."""
    variables = environment()
    path = os.pathsep.join([str(base / "site"), variables["PYTHONPATH"]])
    return finished(module, arguments, base, {**variables, "PYTHONPATH": path})


def test_ocr_without_its_packages_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    absent = "import sys\nsys.modules['rapidocr'] = sys.modules['onnxruntime'] = None\n"
    (tmp_path / "site" / "sitecustomize.py").write_text(absent)
    done = run(tmp_path, "-m", "ocr=true", *QWEN, "hydra.sweep.dir=sweep")
    assert done.code == 2
    assert "ocr=true needs rapidocr and onnxruntime; run pip install" in done.err
    assert "[ocr]" in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert not (tmp_path / "sweep").exists()


def rows_of(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "summary.csv").open() as handle:
        return {row["cell"]: row for row in csv.DictReader(handle)}


def test_what_is_read_is_a_column_and_read_once(tmp_path: Path) -> None:
    prompts, site = tmp_path / "prompts.txt", tmp_path / "site"
    prompts.write_text('a sign that says "OPEN"\nno text\nthe word "山"\n')
    site.mkdir()
    (site / "rapidocr.py").write_text(DOUBLE)
    (site / "onnxruntime.py").touch()
    workload = (f"workload.prompts={prompts}", "workload.num_prompts=3")
    done = run(tmp_path, "-m", "ocr=true", *QWEN, *workload, "hydra.sweep.dir=sweep")
    assert "text in pictures could not be read: FileNotFoundError" in done.err, "there is no lines.json yet"
    assert done.code == 0, done.out + done.err
    folder = tmp_path / "sweep"
    assert {row["text_right"] for row in rows_of(folder).values()} == {""}
    lines = {}
    for path in folder.glob("*/images/*.png"):
        with Image.open(path) as image:
            lines[hashlib.sha256(image.convert("RGB").tobytes()).hexdigest()] = ["OPEN"]
    (site / "lines.json").write_text(json.dumps(lines))
    assert run(tmp_path, "sweep", "--no-plots", module="sweep.report").err == ""
    assert {row["text_right"] for row in rows_of(folder).values()} == {"0.5"}
    (site / "lines.json").unlink()
    assert run(tmp_path, "sweep", "--no-plots", module="sweep.report").err == "", "nothing is read again"


def test_the_real_reader_reads_the_words_of_the_world_and_no_others(tmp_path: Path) -> None:
    """At 64 pixels. 95 of 100 words were read, and none of 100 was mistaken for one that differs in a character."""
    pytest.importorskip("rapidocr")
    wanted, files = [], []
    with_words = (asked for asked in scenes.wishes(9, held=True) if asked.writing)
    for place, asked in zip(range(10), with_words, strict=False):
        assert asked.writing is not None
        text, other = asked.writing.text, "7" + asked.writing.text[1:]
        for said in (text, other):
            changed = dataclasses.replace(asked, writing=dataclasses.replace(asked.writing, text=said))
            rng = random.Random(place)
            drawn = (pictures.render(scenes.arrange(changed, rng), rng) * 255).round().astype("uint8")
            files.append(str(tmp_path / f"{len(files)}.png"))
            Image.fromarray(drawn).save(files[-1])
            wanted.append((text, said == text))
    command = [sys.executable, "-m", "sweep.analysis.ocr_worker"]
    done = subprocess.run(command, input=json.dumps(files), capture_output=True, text=True, check=True)
    read = [json.loads(line) for line in done.stdout.splitlines()]
    found = [shows(lines, text) for lines, (text, _) in zip(read, wanted, strict=True)]
    assert sum(one for one, (_, right) in zip(found, wanted, strict=True) if right) >= 8
    assert not any(one for one, (_, right) in zip(found, wanted, strict=True) if not right)
