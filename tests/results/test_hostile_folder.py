"""A folder made to do harm: nothing outside it is read or written, nothing is waited for, no variable is resolved."""

import base64
import dataclasses
import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from msgspec import structs
from PIL import Image

from profiling.atomic_write import write_atomic
from sweep.frames import load
from sweep.plan.cells import Cell
from sweep.plan.plans import Plan
from sweep.plan.typed import typed
from sweep.refusals import ConfigError
from sweep.report.build import rebuild
from sweep.report.plots import draw
from sweep.results import stored_images
from sweep.results.files import ContainedFiles, Unfit, read_regular
from sweep.results.folder import SweepFolder
from sweep.run.session import execute
from tests import stored
from tests.conftest import environment

SECRET = "hunter2-and-more"


@pytest.fixture(scope="module")
def made() -> Plan:
    return stored.many_cells(4)


@pytest.fixture
def folder(made: Plan, tmp_path: Path) -> SweepFolder:
    """A stored sweep whose every cell has an image; next to it, what is none of its business."""
    outside = tmp_path / "outside"
    outside.mkdir()
    Image.new("RGB", (8, 8), (1, 2, 3)).save(outside / "private.png")
    (outside / "private.txt").write_text(SECRET, encoding="utf-8")
    sweep = stored.store(tmp_path / "sweep", made)
    for number, cell in enumerate(made.cells):
        with_image(sweep, cell, number)
    return sweep


@pytest.fixture(autouse=True)
def one_plot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all plots, because drawing takes longest."""
    monkeypatch.setattr(draw, "PLOTS", {"speedup": draw.PLOTS["speedup"]})


def with_image(sweep: SweepFolder, cell: Cell, shade: int, name: str = "images/prompt_00.png") -> None:
    """Give a cell's first request an image."""
    result = sweep.load_result(cell)
    assert result is not None
    path = sweep.cell_path(cell) / name
    path.parent.mkdir(exist_ok=True)
    image = Image.new("RGB", (8, 8), (shade, 0, 0))
    image.save(path)
    first = structs.replace(result.requests[0], image=name, image_hash=hashlib.sha256(image.tobytes()).hexdigest())
    sweep.save_result(cell, dataclasses.replace(result, requests=(first, *result.requests[1:])))


def everything_below(path: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file."""
    found = (one for one in path.rglob("*") if one.is_file())
    return {str(one): (one.stat().st_size, one.stat().st_mtime_ns) for one in found}


def read_all(sweep: SweepFolder) -> str:
    """Everything that reads a folder; what came of it as text. Nothing outside the folder may change."""
    outside = sweep.path.parent / "outside"
    before = everything_below(outside)
    try:
        rebuild(sweep)
        sweep.events()
        tables = load(sweep.path)
        text = f"{tables.summary.to_csv()} {tables.requests.to_csv()} {tables.problems}"
    except ConfigError as error:
        text = str(error)
    assert everything_below(outside) == before
    written = (sweep.path / name for name in ("summary.csv", "report.json", "report.html"))
    text += "".join(path.read_text(encoding="utf-8") for path in written if path.is_file())
    assert SECRET not in text
    return text


def status_of(sweep: SweepFolder, cell: Cell) -> tuple[str, str]:
    report = json.loads((sweep.path / "report.json").read_text(encoding="utf-8"))
    return next((one["status"], one["reason"]) for one in report["cells"] if one["cell_key"] == cell.key)


def test_a_cell_that_is_a_link_out_of_the_folder_is_an_error(folder: SweepFolder, made: Plan) -> None:
    cell = made.cells[1]
    elsewhere = folder.path.parent / "outside" / "cell"
    shutil.move(folder.cell_path(cell), elsewhere)
    folder.cell_path(cell).symlink_to(elsewhere)
    text = read_all(folder)
    assert status_of(folder, cell)[0] == "ERROR"
    assert "outside" in status_of(folder, cell)[1]
    assert str((cell.key, "requests.csv")) in text
    with pytest.raises(ConfigError, match="leads out"):
        execute(made, folder.path, lambda numbers: pytest.fail("nothing may run"))


@pytest.mark.parametrize("kind", ["the file", "its folder"])
def test_an_image_that_is_a_link_out_of_the_folder_is_not_shown(folder: SweepFolder, made: Plan, kind: str) -> None:
    cell = made.cells[1]
    image = folder.cell_path(cell) / "images" / "prompt_00.png"
    outside = folder.path.parent / "outside"
    if kind == "the file":
        image.unlink()
        image.symlink_to(outside / "private.png")
    else:
        shutil.rmtree(image.parent)
        shutil.copy(outside / "private.png", outside / "prompt_00.png")
        image.parent.symlink_to(outside)
    private = (outside / "private.png").read_bytes()
    assert base64.b64encode(private).decode() not in read_all(folder)
    assert status_of(folder, cell)[0] == "ERROR"


@pytest.mark.parametrize("name", ["summary.csv", "report.json", "report.html", "plots", "plots/speedup.png"])
def test_what_is_written_is_not_written_through_a_link(folder: SweepFolder, name: str) -> None:
    outside = folder.path.parent / "outside"
    target = outside if name == "plots" else outside / "private.txt"
    (folder.path / name).parent.mkdir(exist_ok=True)
    (folder.path / name).symlink_to(target)
    text = read_all(folder)
    assert (target / "private.txt" if target.is_dir() else target).read_text(encoding="utf-8") == SECRET
    assert ("plots" in text and "leads out" in text) == (name == "plots")


def test_half_written_files_are_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "private").write_text(SECRET, encoding="utf-8")
    (tmp_path / f".summary.csv.{os.getpid()}.tmp").symlink_to(tmp_path / "private")
    write_atomic(tmp_path / "summary.csv", "a,b\n")
    assert (tmp_path / "private").read_text(encoding="utf-8") == SECRET
    assert (tmp_path / "summary.csv").read_text(encoding="utf-8") == "a,b\n"


def test_no_variable_of_the_reader_is_resolved(
    folder: SweepFolder, made: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", SECRET)
    path = folder.path / "plan.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    for cell in values["cells"]:
        cell["config"]["model"]["name"] = "${oc.env:TOKEN}"
        cell["config"]["workload"]["prompt"] = "${oc.env:TOKEN}"
        for body in cell["config"]["feature"].values():
            body["label"] = body["evidence"] = "${oc.env:TOKEN}"
    path.write_text(json.dumps(values), encoding="utf-8")
    assert "${oc.env:TOKEN}" in read_all(folder)
    cell = folder.load_plan().cells[1]
    assert SECRET not in repr(cell.run_config)
    assert cell.run_config.workload.prompt == "${oc.env:TOKEN}"
    assert dataclasses.asdict(typed(cell.config, type(cell.run_config), "it")) == cell.config


def test_a_pipe_in_place_of_a_file_is_not_waited_for(folder: SweepFolder, made: Plan) -> None:
    """In a separate process, which would hang forever if it waited for a pipe."""
    places = (
        *(folder.path / "manifest.json", folder.path / "events.jsonl"),
        folder.cell_path(made.cells[0]) / "phases.csv",
        folder.cell_path(made.cells[1]) / "result.json",
        folder.cell_path(made.cells[2]) / "quality.json",
        folder.cell_path(made.cells[3]) / "images" / "prompt_00.png",
    )
    for path in places:
        path.unlink(missing_ok=True)
        os.mkfifo(path)
    code = f"""
from pathlib import Path
from sweep.frames import load
from sweep.report.build import rebuild
from sweep.report.plots import draw
from sweep.results.folder import SweepFolder
draw.PLOTS.clear()
folder = SweepFolder(Path({str(folder.path)!r}))
rebuild(folder)
load(folder.path)
(folder.path / "plan.json").unlink()
__import__("os").mkfifo(folder.path / "plan.json")
folder.load_plan()
"""
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, timeout=240)
    assert b"plan.json cannot be read: it is not a regular file" in done.stderr
    assert "regular file" in status_of(folder, made.cells[1])[1]


def huge_png(side: int) -> bytes:
    """A small file that claims side × side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 100_000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def test_an_image_of_400_megapixels_is_refused_before_it_is_decoded(folder: SweepFolder, made: Plan) -> None:
    cell = made.cells[1]
    path = folder.cell_path(cell) / "images" / "prompt_00.png"
    path.write_bytes(huge_png(20_000))
    read_all(folder)
    status, reason = status_of(folder, cell)
    assert status == "ERROR"
    assert "images/prompt_00.png has 20000×20000 pixels" in reason
    for read in (stored_images.opened, stored_images.size):
        with pytest.raises(Unfit, match="pixels"):
            read(path)


@pytest.mark.parametrize("harm", ["a bit", "the pixels", "gone"])
def test_a_changed_image_is_named_and_measured_again(folder: SweepFolder, made: Plan, harm: str) -> None:
    cell = made.cells[1]
    result = folder.load_result(cell)
    assert result is not None
    path = folder.cell_path(cell) / "images" / "prompt_00.png"
    assert folder.damaged_image(cell, result, pixels=True) == ""
    content = bytearray(path.read_bytes())
    if harm == "a bit":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif harm == "gone":
        path.unlink()
    else:
        Image.new("RGB", (8, 8), (200, 0, 0)).save(path)
    assert folder.damaged_image(cell, result, pixels=True).startswith("images/prompt_00.png ")
    assert bool(folder.damaged_image(cell, result)) == (harm != "the pixels"), "which only decoding shows"


def test_only_what_is_inside_is_inside(tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "file").write_text("x", encoding="utf-8")
    (tmp_path / "sweep" / "inner").symlink_to("..")
    (tmp_path / "sweep" / "good").write_text("y", encoding="utf-8")
    (tmp_path / "sweep" / "link").symlink_to("good")
    (tmp_path / "seen").symlink_to("sweep")
    files = ContainedFiles(tmp_path / "seen")
    assert files.read(tmp_path / "seen" / "link") == files.read(tmp_path / "seen" / "good") == b"y"
    for name in ("../sweeps/file", "inner/sweeps/file", "inner/new"):
        with pytest.raises(Unfit):
            files.check(tmp_path / "seen" / name)
    with pytest.raises(Unfit, match="regular"):
        read_regular(Path(os.devnull))
