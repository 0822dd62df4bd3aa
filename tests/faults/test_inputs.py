"""Files that a sweep reads and that change while it runs: what was planned is what runs and what is recorded."""

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import ROOT, to_run
from tests.faults.conftest import NOOP, Sweep
from tests.faults.test_files import PICTURES

HELD = """
import time

def load(self):
    (FLAG.parent / "loading").touch()
    while not FLAG.exists():
        time.sleep(0.02)

def generate(self, requests, folder, before=NoopEngine.generate):
    import hashlib, json
    for request in requests:
        seen = [request.prompt, hashlib.sha256(pathlib.Path(request.input_image).read_bytes()).hexdigest()]
        with (FLAG.parent / "seen.jsonl").open("a") as handle:
            handle.write(json.dumps(seen) + chr(10))
    return before(self, requests, folder)

NoopEngine.load = load
NoopEngine.generate = generate
"""


def draw(path: Path, colour: str) -> None:
    Image.new("RGB", (64, 64), colour).save(path)


@pytest.mark.parametrize("deleted", [False, True], ids=["edited", "deleted"])
def test_files_that_change_while_a_sweep_runs_change_nothing(sweep: Sweep, deleted: bool) -> None:
    prompts, image = sweep.base / "p.txt", sweep.base / "cat.png"
    prompts.write_text("a fox\na crow\n")
    draw(image, "red")
    sweep.inject("sweep.engines.noop.engine", HELD)
    once = ("workload.num_prompts=2", "workload.repeats=1", "engine.warmup=0")
    edit = ("workload=image_edit", "workload.prompts=p.txt", "workload.input_image=cat.png", *once)
    arguments = ("-m", *NOOP, *edit, "batch=1,2")
    running = sweep.start(*arguments)
    sweep.wait_until(running, (sweep.base / "loading").exists)
    if deleted:
        prompts.unlink()
        image.unlink()
    else:
        prompts.write_text("two kites\nthree\n")
        draw(image, "blue")
    sweep.flag.touch()
    out, err = running.communicate(timeout=240)
    assert running.returncode == 0, out + err
    assert sweep.statuses() == {"baseline b1": ("PASS", ""), "baseline b2": ("PASS", "")}
    seen = [json.loads(line) for line in (sweep.base / "seen.jsonl").read_text().splitlines()]
    assert [prompt for prompt, _ in seen] == ["a fox", "a crow"] * 2, "of both cells"
    assert len({picture for _, picture in seen}) == 1
    for label in ("baseline b1", "baseline b2"):
        stored = json.loads((sweep.cell_path(label) / "result.json").read_text())
        assert stored["prompts"] == ["a fox", "a crow"]
    (inputs,) = json.loads((sweep.folder / "plan.json").read_text())["inputs"]
    assert inputs["prompts"] == ["a fox", "a crow"]
    assert len(inputs["cells"]) == 2, "prompts are kept once for all cells"
    if not deleted:
        again = sweep.run(*arguments)
        assert again.code == 0, again.err
        assert to_run(again.out) == (2,), "with other prompts and another image, other cells"


def test_control_characters_of_prompts_are_shown_on_the_page(sweep: Sweep) -> None:
    sweep.inject("sweep.engines.noop.engine", PICTURES)
    prompts = ROOT / "tests" / "data" / "prompts" / "controls.txt"
    page = (f"workload.prompts={prompts}", "plots=true")
    done = sweep.run("-m", *NOOP, *page)
    assert done.code == 0, done.err
    assert "control characters" in done.err
    shown = (sweep.folder / "report.html").read_text()
    assert "A \\x1b[31mred" in shown
    assert "teapot\\x00 and" in shown
    assert not [character for character in shown if ord(character) < 32 and character not in "\t\n\r"]
    stored = json.loads((sweep.cell_path("baseline b1") / "result.json").read_text())
    assert stored["prompts"][0].startswith("A \x1b[31mred"), "the model gets them as they are"


@pytest.mark.parametrize("sweeps", [False, True], ids=["single", "sweep"])
def test_an_escaped_interpolation_in_a_prompt_is_text(sweep: Sweep, sweeps: bool) -> None:
    """`\\${…}` is resolved once, by Hydra, and its result is no interpolation; in a file nothing is one."""
    sweep.inject("sweep.engines.noop.engine", HELD.replace("NoopEngine.load = load", ""))
    where = f"hydra.{'sweep' if sweeps else 'run'}.dir={sweep.folder}"
    prompt = "workload.prompt='a \\${oc.env:HOME} cat'"
    done = sweep.run(*["-m"] * sweeps, *NOOP, prompt, "workload=image_edit", "workload.num_prompts=1", where)
    assert done.code == 0, done.err
    stored = json.loads((sweep.cell_path("baseline b1") / "result.json").read_text())
    assert stored["prompts"] == ["a ${oc.env:HOME} cat"]
    seen = [json.loads(line)[0] for line in (sweep.base / "seen.jsonl").read_text().splitlines()]
    assert set(seen) == {"a ${oc.env:HOME} cat"}
