"""Files that are damaged, disks that are full, folders that cannot be used: the report stays true."""

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from profiling.vllm_plugin.tracing import WRITING
from tests.conftest import to_run
from tests.faults.conftest import NOOP, Sweep, numbers, wait_for

FULL = """
import builtins, errno, io, os

_open = io.open

class Full:
    def __init__(self, handle, name):
        self.handle, self.name = handle, name
    def __getattr__(self, name):
        return getattr(self.handle, name)
    def __enter__(self):
        return self
    def __exit__(self, *_):
        self.handle.close()
    def write(self, *_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.name))

def full_open(file, mode="r", *arguments, **options):
    handle = _open(file, mode, *arguments, **options)
    return Full(handle, file) if {name!r} in str(file) and mode[0] in "wxa" and FLAG.exists() else handle

io.open = builtins.open = full_open
"""
"""A disk that has no room for files with this in their path, while the flag is there."""

PICTURES = """
import hashlib
from PIL import Image

_generate = NoopEngine.generate

def generate(self, requests, folder):
    output = _generate(self, requests, folder)
    names, hashes = [], []
    for request in requests:
        image = Image.linear_gradient("L").rotate(request.prompt_index * 90 + self.spec.threads_per_rank)
        hashes.append(hashlib.sha256(image.tobytes()).hexdigest())
        names.append(f"images/prompt_{request.prompt_index}.png" if folder else "")
        if folder:
            (folder / "images").mkdir(exist_ok=True)
            image.save(folder / names[-1])
    import dataclasses
    return dataclasses.replace(output, image_paths=tuple(names), image_hashes=tuple(hashes))

NoopEngine.generate = generate
"""
"""Makes the engine that does nothing store a picture for every request."""


def fill_disk(sweep: Sweep, name: str, at_once: bool = True) -> None:
    """From now on, or once the flag is set, there is no room for files with `name` in their path."""
    sweep.inject("sweep.results.folder", FULL.format(name=name))
    if at_once:
        sweep.flag.touch()


def damage(path: Path, how: str) -> None:
    stored = json.loads(path.read_text())
    if how == "cut short":
        path.write_bytes(path.read_bytes()[:200])
    elif how == "not JSON":
        path.write_bytes(b"\x80\xff\x00 nonsense")
    elif how == "a list":
        path.write_text("[1, 2]")
    elif how == "another schema":
        path.write_text(json.dumps(stored | {"schema_version": 99}))
    elif how == "another cell":
        path.write_text(json.dumps(stored | {"key": "0123456789abcdef"}))
    elif how == "no time":
        batches = [batch | {"latency_s": 0} for batch in stored["batches"]]
        path.write_text(json.dumps(stored | {"batches": batches}))
    elif how == "an unknown phase":
        batches = [batch | {"phase_ms": {"thinking": 1.0}} for batch in stored["batches"]]
        path.write_text(json.dumps(stored | {"batches": batches}))
    elif how == "a part missing":
        path.write_text(json.dumps({key: value for key, value in stored.items() if key != "batches"}))


DAMAGES = (
    "cut short",
    "not JSON",
    "a list",
    "another schema",
    "another cell",
    "a part missing",
    "no time",
    "an unknown phase",
)


def test_results_that_cannot_be_read_are_said_so_and_measured_again(sweep: Sweep) -> None:
    cells = {f"baseline b1 steps={number}": how for number, how in enumerate(DAMAGES, start=1)}
    arguments = ("-m", *NOOP, f"workload.steps={','.join(str(n) for n in range(1, len(cells) + 2))}")
    assert sweep.run(*arguments).code == 0
    for cell, how in cells.items():
        damage(sweep.cell_path(cell) / "result.json", how)
    report = sweep.run(str(sweep.folder), "--no-plots", module="sweep.report")
    assert (report.code, "Traceback" in report.err) == (1, False)
    for cell, found in sweep.statuses().items():
        assert found == (("ERROR", "result_unreadable") if cell in cells else ("PASS", "")), cell
        assert ("result.json" in sweep.reason(cell)) == (cell in cells), cell
    assert " 99" in sweep.reason("baseline b1 steps=4"), "the schema"
    assert "0123456789abcdef" in sweep.reason("baseline b1 steps=5"), "the other cell"
    again = sweep.run(*arguments)
    assert again.code == 0, again.err
    assert to_run(again.out) == (len(DAMAGES), 1)
    assert [cell for cell in cells if f"{cell} is measured again: result.json" in again.err] == list(cells)
    assert {status for status, _ in sweep.statuses().values()} == {"PASS"}


@pytest.mark.parametrize("rest", [0, 300, None], ids=["empty", "half", "a bit"])
def test_image_cut_short_is_an_error_that_names_it_and_a_rerun_heals(sweep: Sweep, rest: int | None) -> None:
    sweep.inject("sweep.engines.noop.engine", PICTURES)
    assert sweep.run("-m", *NOOP, "batch=1,2").code == 0
    image = sweep.cell_path("baseline b2") / "images" / "prompt_1.png"
    if rest is None:
        content = bytearray(image.read_bytes())
        content[len(content) // 2] ^= 1
        image.write_bytes(content)
    else:
        os.truncate(image, rest)
    trace = image.parents[1] / WRITING.format(name="rank0")
    for half in (image.parent / ".prompt_2.png.4242", trace):
        half.write_bytes(b"left by a process that was killed")
    sweep.run(str(sweep.folder), "--no-plots", module="sweep.report")
    assert sweep.statuses() == {"baseline b1": ("PASS", ""), "baseline b2": ("ERROR", "images_not_comparable")}
    assert "images/prompt_1.png" in sweep.reason("baseline b2")
    again = sweep.run("-m", *NOOP, "batch=1,2")
    assert again.code == 0, again.out + again.err
    assert to_run(again.out) == (1, 1)
    assert "baseline b2 is measured again: images/prompt_1.png" in again.err
    assert Image.open(image).getpixel((5, 5)) is not None
    assert not list(image.parent.glob(".*"))
    assert not trace.exists(), "whoever waits for the next one would wait for this"


def test_no_room_for_a_result_ends_that_cell_with_the_reason(sweep: Sweep) -> None:
    fill_disk(sweep, "baseline-b2-")
    done = sweep.run("-m", *NOOP, "batch=1,2,3")
    assert done.code == 1
    assert sweep.statuses()["baseline b2"] == ("ERROR", "not_stored")
    assert "No space left on device" in sweep.reason("baseline b2")
    assert sweep.manifest()["engine_starts"] == 1
    assert [sweep.statuses()[f"baseline b{n}"][0] for n in (1, 3)] == ["PASS", "PASS"]
    assert "Traceback" not in done.err
    sweep.flag.unlink()
    again = sweep.run("-m", *NOOP, "batch=1,2,3")
    assert again.code == 0, again.out + again.err
    assert to_run(again.out) == (1, 2)


@pytest.mark.parametrize("name", [".requests.csv", ".result.json"])
def test_no_room_for_one_file_of_a_result(sweep: Sweep, name: str) -> None:
    fill_disk(sweep, f"{name}.")
    done = sweep.run("-m", *NOOP, "batch=1")
    assert done.code == 1
    assert sweep.statuses()["baseline b1"] == ("ERROR", "not_stored")
    assert "No space left on device" in sweep.reason("baseline b1")
    assert not list(sweep.folder.glob("*/.*.tmp"))


def test_no_room_for_an_image(sweep: Sweep) -> None:
    sweep.flag.touch()
    sweep.inject("sweep.engines.noop.engine", PICTURES + FULL.format(name="prompt_1.png"))
    done = sweep.run("-m", *NOOP, "batch=1")
    assert done.code == 1
    assert sweep.statuses()["baseline b1"] == ("ERROR", "exception")
    reason = sweep.reason("baseline b1")
    assert numbers(reason)[:3] == [1, 4, 3], "1 of 4 images, the other 3 are there"
    assert "OSError: [Errno 28] No space left on " in reason
    assert [r["prompt_index"] for r in sweep.requests("baseline b1") if r["exit_code"] == "1"] == ["1"]


def test_no_room_for_events_costs_no_cell_and_is_said_once(sweep: Sweep) -> None:
    fill_disk(sweep, "events.jsonl")
    done = sweep.run("-m", *NOOP, "batch=1,2")
    assert done.code == 0, done.err
    assert {status for status, _ in sweep.statuses().values()} == {"PASS"}
    said = [line for line in done.err.splitlines() if "events.jsonl" in line]
    assert len(said) == 1, done.err
    assert "No space left on device" in said[0]


def test_event_cut_short_by_a_full_disk_is_left_out(sweep: Sweep) -> None:
    sweep.folder.mkdir()
    (sweep.folder / "events.jsonl").write_text('{"t": 1.0, "event": "cell", "key": "abc\n')
    done = sweep.run("-m", *NOOP, "batch=1")
    assert done.code == 0, done.err
    assert sweep.manifest()["engine_starts"] == 1


@pytest.mark.parametrize("name", ["summary.csv", "manifest.json"])
def test_no_room_for_the_report_keeps_results_and_says_one_line(sweep: Sweep, name: str) -> None:
    sweep.inject("sweep.engines.noop.engine", "FLAG.touch()")  # full from the first engine on
    fill_disk(sweep, f".{name}.", at_once=False)
    done = sweep.run("-m", *NOOP, "batch=1")
    assert "Traceback" not in done.err
    assert "No space left on device" in done.err
    assert (f"python -m sweep.report {sweep.folder}" if name == "summary.csv" else name) in done.err
    assert done.code == (1 if name == "summary.csv" else 0)
    sweep.flag.unlink()
    del sweep.faults["sweep.engines.noop.engine"]
    again = sweep.run("-m", *NOOP, "batch=1")
    assert again.code == 0, again.err
    assert to_run(again.out) == (0, 1)
    assert sweep.statuses()["baseline b1"][0] == "PASS"


@pytest.mark.parametrize("name", ["plan.json", "manifest.json"])
def test_no_room_before_anything_runs_is_refused(sweep: Sweep, name: str) -> None:
    fill_disk(sweep, f".{name}.")
    done = sweep.run("-m", *NOOP, "batch=1")
    assert done.code == 2
    (line,) = done.err.splitlines()
    assert str(sweep.folder) in line
    assert "No space left on device" in line


@pytest.mark.parametrize(("place", "plain"), [("file/below", False), ("file/below", True), ("proc", False)])
def test_folder_that_cannot_be_written_is_refused(sweep: Sweep, place: str, plain: bool) -> None:
    (sweep.base / "file").write_text("not a folder")
    folder = "/proc/nowhere" if place == "proc" else str(sweep.base / place)
    done = sweep.run(*([] if plain else ["-m"]), *NOOP, f"hydra.{'run' if plain else 'sweep'}.dir={folder}")
    assert done.code == 2
    assert len(done.err.splitlines()) == 1, done.err
    assert folder in done.err
    assert ".dir=DIR" in done.err, "the option that names another"


@pytest.mark.parametrize(
    "content",
    [
        *('{"cells": [', "[]", '{"cells": [{"key": 1}], "groups": []}', "\x00"),
        *('{"cells": [], "groups": [], "inputs": 1}', '{"cells": [], "groups": [], "inputs": [[]]}'),
    ],
)
def test_damaged_plan_is_refused_with_one_line(sweep: Sweep, content: str) -> None:
    sweep.folder.mkdir()
    (sweep.folder / "plan.json").write_text(content)
    for done in (sweep.run("-m", *NOOP), sweep.run(str(sweep.folder), module="sweep.report")):
        assert done.code == 2
        assert len(done.err.splitlines()) == 1, done.err
        assert str(sweep.folder / "plan.json") in done.err


def test_second_sweep_in_one_folder_is_refused_and_the_first_unharmed(sweep: Sweep) -> None:
    sweep.inject(
        "sweep.engines.noop.engine",
        """
import time

def load(self):
    (FLAG.parent / "loading").touch()
    while not FLAG.exists():
        time.sleep(0.02)

NoopEngine.load = load
""",
    )
    first = sweep.start("-m", *NOOP, "batch=1,2")
    sweep.wait_until(first, (sweep.base / "loading").exists)
    plan = (sweep.folder / "plan.json").read_bytes()
    second = sweep.run("-m", *NOOP, "batch=4")
    assert second.code == 2
    (line,) = second.err.splitlines()
    assert str(sweep.folder) in line
    assert (sweep.folder / "plan.json").read_bytes() == plan
    sweep.flag.touch()
    out, err = first.communicate(timeout=240)
    assert first.returncode == 0, out + err
    assert sweep.statuses() == {"baseline b1": ("PASS", ""), "baseline b2": ("PASS", "")}


def test_reader_of_the_output_went_away(sweep: Sweep) -> None:
    """`python -m sweep … | head -1`: files are written, the exit code is the sweep's own."""
    read, write = os.pipe()
    process = sweep.start("-m", *NOOP, "batch=1,2", stdout=write)
    os.close(write)
    os.read(read, 1)
    os.close(read)
    _, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert err == ""
    assert sweep.statuses() == {"baseline b1": ("PASS", ""), "baseline b2": ("PASS", "")}
    assert sweep.manifest()["exit_code"] == 0
    wait_for(lambda: not list(sweep.folder.glob(".*.tmp")))
