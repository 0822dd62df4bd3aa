"""Folders of edits through the command line: turns that edit what earlier turns made, and unusable folders."""

import hashlib
import json
from pathlib import Path

import pytest
from PIL import Image

from sweep.report.page import contents
from sweep.results.folder import SweepFolder
from tests.faults.conftest import NOOP, Sweep

EDIT = ("-m", *NOOP, "workload=image_edit", "workload.edits=mine", "engine.warmup=0")

PAINTS = """
import dataclasses, hashlib
from PIL import Image
from sweep.engines.images import read_input, store

_generate = NoopEngine.generate

def generate(self, requests, folder):
    output = _generate(self, requests, folder)
    made = []
    for request in requests:
        image = read_input(request).resize(request.size)
        image.putpixel((request.turn, 0), (255, 255, 255))
        made.append(image)
        if folder:
            with (FLAG.parent / "sent.jsonl").open("a") as handle:
                handle.write(json.dumps([request.line, request.turn, request.seed, request.input_image]) + chr(10))
    names = [store(image, request, folder) for image, request in zip(made, requests)]
    hashes = [hashlib.sha256(image.tobytes()).hexdigest() for image in made]
    return dataclasses.replace(output, image_paths=tuple(names), image_hashes=tuple(hashes))

import json
NoopEngine.generate = generate
"""
"""Makes the engine that does nothing add a white pixel in the column of its turn to the picture that it is given."""


@pytest.fixture
def folder(sweep: Sweep) -> Path:
    mine = sweep.base / "mine"
    mine.mkdir()
    Image.new("RGB", (48, 32), "red").save(mine / "a.png")
    Image.new("RGB", (48, 32), "blue").save(mine / "b.png")
    Image.new("L", (16, 16)).save(mine / "small.png")
    (mine / "text.png").write_text("no picture")
    (mine / "nothing.png").touch()
    Image.new("RGB", (48, 32)).save(sweep.base / "outside.png")
    (mine / "link.png").symlink_to(sweep.base / "outside.png")
    return mine


def test_turn_after_turn_edits_what_the_cell_made_before(sweep: Sweep, folder: Path) -> None:
    sweep.inject("sweep.engines.noop.engine", PAINTS)
    lines = [{"image": name, "turns": ["one", "two", "three"]} for name in ("a.png", "b.png")]
    (folder / "edits.jsonl").write_text("\n".join(map(json.dumps, lines)))
    size = ("workload.input_width=32", "workload.input_height=32", "workload.repeats=2")
    done = sweep.run(*EDIT, *size, "batch=2")
    assert done.code == 0, done.out + done.err
    cell = sweep.cell_path("baseline b2")
    rows = sweep.requests("baseline b2")
    first = [(row["line"], row["turn"], row["batch_index"]) for row in rows if row["repeat"] == "0"]
    assert first == [(line, turn, str(int(turn) - 1)) for turn in "123" for line in "12"]
    assert {(row["input_width"], row["input_height"], row["width"]) for row in rows} == {("32", "32", "64")}
    sent = [json.loads(line) for line in (sweep.base / "sent.jsonl").read_text().splitlines()]
    for line, turn, seed, given in sent:
        made = cell / "images" / f"prompt_{3 * (line - 1) + turn - 2:02d}_seed_{seed}.png"
        assert Path(given) == made.resolve() if turn > 1 else Path(given).parent == sweep.folder / "inputs"
    with Image.open(cell / "images" / "prompt_05_seed_0.png") as last:
        white = [place for place in range(5) if last.getpixel((place, 0)) == (255, 255, 255)]
        assert white[-1:] == [3], "the last turn's own mark"
        assert last.getpixel((2, 0)) != last.getpixel((40, 40)), "the marks of the turns before are in the last picture"
        assert hashlib.sha256(last.tobytes()).hexdigest() == rows[5]["image_hash"]
    _page_shows_chains(sweep.folder)


def test_a_turn_that_fails_ends_its_own_chain_alone(sweep: Sweep, folder: Path) -> None:
    sweep.inject("sweep.engines.noop.engine", PAINTS + BREAKS)
    lines = [{"image": name, "turns": ["one", "two", "three"]} for name in ("a.png", "b.png")]
    (folder / "edits.jsonl").write_text("\n".join(map(json.dumps, lines)))
    done = sweep.run(*EDIT, "batch=2", "workload.repeats=1")
    assert done.code == 1
    made = [(row["line"], row["turn"], row["exit_code"]) for row in sweep.requests("baseline b2")]
    assert sorted(made) == [
        *(("1", "1", "0"), ("1", "2", "1"), ("1", "3", "1")),
        *(("2", turn, "0") for turn in "123"),
    ]
    images = sorted(path.name for path in (sweep.cell_path("baseline b2") / "images").iterdir())
    assert images == [f"prompt_{place:02d}_seed_0.png" for place in (0, 3, 4, 5)]


BREAKS = """
_paint = generate

def breaking(self, requests, folder):
    if any((request.line, request.turn) == (1, 2) for request in requests):
        raise ValueError("this turn cannot be drawn")
    return _paint(self, requests, folder)

NoopEngine.generate = breaking
"""
"""Makes the second turn of the first line fail, in an engine that continues."""


def _page_shows_chains(path: Path) -> None:
    stored = SweepFolder(path)
    plan = stored.load_plan()
    results = {cell.key: stored.load_result(cell) for cell in plan.cells}
    rows = [{"status": "PASS", "cell": cell.label} for cell in plan.cells]
    (view,) = contents.gather(stored, plan, rows, results, ()).cells
    turns = [(image.turn, image.source is not None) for image in view.images]
    assert turns == [(f"turn {turn} of 3", turn == 1) for _ in "ab" for turn in (1, 2, 3)], "one line after the other"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (None, "no edits.jsonl"),
        ("", "edits.jsonl is empty"),
        ('{"image": "a.png"}', "line 1: has no instruction"),
        ('{"image": "c.png", "instruction": "go"}', "line 1: no picture c.png"),
        ('{"image": "text.png", "instruction": "go"}', "line 1: text.png is no picture"),
        ('{"image": "nothing.png", "instruction": "go"}', "line 1: nothing.png is empty"),
        ('{"image": "../outside.png", "instruction": "go"}', "line 1: ../outside.png is outside the folder"),
        ('{"image": "link.png", "instruction": "go"}', "line 1: link.png is outside the folder"),
        ('{"image": "a.png", "turns": ["go", ""]}', "line 1, turn 2: has no instruction"),
        ('{"image": "a.png", "instruction": "go", "mask": "small.png"}', "mask small.png is 16×16 pixels"),
        ('{"image": "a.png", "instruction": "go", "maks": "b.png"}', "unknown key 'maks'; did you mean 'mask'?"),
    ],
)
def test_a_folder_that_cannot_be_used_is_one_line(sweep: Sweep, folder: Path, line: str | None, words: str) -> None:
    if line is not None:
        (folder / "edits.jsonl").write_text(line)
    done = sweep.run(*EDIT)
    assert done.code == 2
    assert done.err.startswith("sweep: workload.edits=mine")
    assert words in done.err
    assert done.err.count("\n") == 1
    assert not sweep.folder.exists(), "nothing was started"


@pytest.mark.parametrize(
    ("line", "more", "words"),
    [
        (
            {"image": ["a.png", "b.png"]},
            (),
            "tiny_glm_image with engine diffusers takes one picture, workload.edits=mine",
        ),
        ({"image": "a.png", "mask": "b.png"}, (), "takes no mask, workload.edits=mine, line 1 has one"),
        ({"image": "a.png", "mask": "b.png"}, ("workload.input_width=32",), "line 1 has a mask"),
        ({"image": "a.png", "turns": ["a", "b"]}, ("load=closed",), "line 1, turn 1 has 2 turns: load=closed"),
    ],
)
def test_what_no_model_or_load_takes_is_one_line(
    sweep: Sweep, folder: Path, line: dict[str, object], more: tuple[str, ...], words: str
) -> None:
    told = line if "turns" in line else {**line, "instruction": "go"}
    (folder / "edits.jsonl").write_text(json.dumps(told))
    done = sweep.run("-m", "workload=image_edit", "workload.edits=mine", *more)
    assert done.code == 2
    assert words in done.err
    assert done.err.count("\n") == 1


def test_an_edit_changed_while_the_sweep_was_planned_is_refused(sweep: Sweep, folder: Path) -> None:
    (folder / "edits.jsonl").write_text('{"image": "a.png", "instruction": "go"}')
    sweep.inject("sweep.results.folder", CHANGED)
    done = sweep.run(*EDIT)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "a.png: the file changed while the sweep was planned" in done.err


CHANGED = """
_keep = SweepFolder.keep_inputs

def keep_inputs(self, plan):
    (FLAG.parent / "mine" / "a.png").write_bytes(b"another")
    _keep(self, plan)

SweepFolder.keep_inputs = keep_inputs
"""
