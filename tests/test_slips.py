"""What a new user types first: each slip ends with one line that says what to do, exit code 2 and nothing written."""

import json
import re
from pathlib import Path

import pytest

from sweep.results import latest
from tests.conftest import Finished, to_run
from tests.fuzz import overrides

STUDIES = {
    "study=quick": "study=quick: write -m +study=quick",
    "-m study=quick": "study=quick: write +study=quick",
    "+study=quick": "+study=quick describes a sweep; write -m +study=quick",
    "quick": "write -m +study=quick",
}

SHORT_NAMES = {
    "rel_l1_thresh=0.1": "its full name is feature.teacache.rel_l1_thresh",
    "-m feature=teacache rel_l1_thresh=0.1,0.2": "its full name is feature.teacache.rel_l1_thresh",
    "teacache.rel_l1_thresh=0.1": "its full name is feature.teacache.rel_l1_thresh",
    "feature.teacache.rel_l1_thresh=0.1": "feature 'teacache' is not chosen; add feature=teacache",
    "-m feature=teacache feature.teacahe.rel_l1_thresh=0.1": "did you mean 'teacache'?",
    "num_prompts=2": "its full name is workload.num_prompts",
    "+num_prompts=2": "its full name is workload.num_prompts",
    "max_concurrency=4": "its full name is load.max_concurrency",
    "gpus=2": "write parallel.gpus or hardware.gpus",
    "fail_broken=0.1": "its full name is feature.NAME.gate.fail_broken (NAME: ",
    "num_prompt=2": "did you mean 'workload.num_prompts'?",
    "resume=outputs/mine": "its full name is hydra.sweep.dir",
}

CHOICES = {
    "feature=teacahe": "unknown feature 'teacahe'; did you mean 'teacache'?",
    "feature=[teacache,teacahe]": "unknown feature 'teacahe'; did you mean 'teacache'?",
    "-m feature=teacache,teacahe": "unknown feature 'teacahe'; did you mean 'teacache'?",
    "feature=teacache+tp": "a combination is written as 'feature=[teacache,tp]'",
    "feature=none": "for the baseline alone, leave feature out",
    "-m feature=all": "-m +study=compat",
    "-m feature=teacache feature=tp": "write -m feature=teacache,tp for one after another, or 'feature=[teacache,tp]'",
    "teacache=true": "write feature=teacache",
    "engine=cuda": "write engine.device=cuda",
    "workload=prompts.txt": "write workload.prompts=prompts.txt",
    "model=noop": "there is engine=noop",
}

VALUES = {
    "load.slo.ttft=0.1s": "must be a number of milliseconds, without the unit",
    "engine.load_timeout_s=5min": "must be a number of seconds, without the unit",
    "workload.width=64px": "must be a whole number, without a unit",
    "-m batch=1-4": "list them with commas, as in -m batch=1,2,4",
    "batch=0": "batch=0: must be at least 1",
    f"feature={300 * 'a'}": "unknown feature",
    "dry_run=maybe": "choose true, false or json",
}

GRAMMAR = {
    "batch 2": "'batch' is not a valid override; it has no value; write batch=… without spaces",
    "feature = teacache": "it has no value; write feature=… without spaces around the =",
    "-m feature=teacache, tp": "write lists without spaces, as in feature=teacache,b",
    "-m feature=[teacache,tp": "a square bracket is missing",
    "feature=“teacache”": "its quotes are typographic; type straight ones",
    "–m feature=teacache": "it begins with a dash that is no hyphen; type -m",
    "-m outputs/mine": "write hydra.sweep.dir=outputs/mine",
}

PASTED = {
    "feature='teacache": "a quote in it is never closed",
    "-m feature=teacache": "quotes join it into one argument, so write it without them: -m feature=teacache",
}
"""Arguments that a shell's quotes went into, or around."""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In which commands run."""
    monkeypatch.chdir(tmp_path)


def check_refused(done: Finished | overrides.Ended, folder: Path, advice: str) -> None:
    """One line that gives the advice, exit code 2, and a folder as empty as before."""
    assert done.code == 2, done.err
    assert len(done.err.splitlines()) == 1, done.err
    assert advice in done.err, done.err
    assert not [path for path in folder.iterdir() if path.is_dir()], "something was written"


@pytest.mark.parametrize("command", [*STUDIES, *SHORT_NAMES, *CHOICES, *VALUES, *GRAMMAR])
def test_a_slip_is_answered_with_what_to_write(tmp_path: Path, command: str) -> None:
    advice = {**STUDIES, **SHORT_NAMES, **CHOICES, **VALUES, **GRAMMAR}[command]
    check_refused(overrides.run(command.split(" ")), tmp_path, advice)


@pytest.mark.parametrize("argument", PASTED)
def test_a_quote_that_was_pasted_is_named(tmp_path: Path, argument: str) -> None:
    check_refused(overrides.run([argument]), tmp_path, PASTED[argument])


@pytest.mark.parametrize("command", ["+study=quick", "rel_l1_thresh=0.1", "batch=0", "-m feature=teacahe"])
def test_a_command_in_a_process_of_its_own_answers_alike(sweep, tmp_path: Path, command: str) -> None:
    advice = {**STUDIES, **SHORT_NAMES, **CHOICES, **VALUES}.get(command, "did you mean 'teacache'?")
    check_refused(sweep(*command.split(" ")), tmp_path, advice)


@pytest.mark.parametrize("where", [["-m", "hydra.sweep.dir=notes.txt"], ["hydra.run.dir=notes.txt"]])
def test_a_file_in_the_place_of_the_folder_is_named(sweep, tmp_path: Path, where: list[str]) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    check_refused(sweep("engine=noop", *where), tmp_path, "output folder notes.txt is a file")
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_the_full_name_of_an_option_is_taken(sweep) -> None:
    done = sweep("-m", "feature=teacache", "feature.teacache.rel_l1_thresh=0.1,0.2", "dry_run=true")
    assert done.code == 0, done.err


def test_a_study_shows_its_configuration_without_m(sweep) -> None:
    assert sweep("+study=quick", "--cfg", "job").code == 0


@pytest.mark.parametrize("mine", [False, True], ids=["new", "mine"])
def test_a_dry_run_leaves_no_folder_and_takes_none_away(sweep, tmp_path: Path, mine: bool) -> None:
    before = [tmp_path / "mine"] if mine else []
    for path in before:
        path.mkdir()
    done = sweep("engine=noop", "dry_run=true", "hydra.run.dir=mine/deeper/one")
    assert done.code == 0, done.err
    assert list(tmp_path.iterdir()) == before
    assert not [path for parent in before for path in parent.iterdir()]


EMPTY = {
    "feature=fp8": "nothing can run: fp8 is not available with engine diffusers; engine=vllm_omni has it",
    "-m feature=fp8": "nothing can run: fp8 is not available with engine diffusers; engine=vllm_omni has it",
    "-m feature=fp8,int8 batch=1,2": "nothing can run: all 4 cells are skipped, fp8 b1 because fp8 is not available",
    "-m feature=tp": "nothing can run: tp does not support tiny_glm_image",
}


@pytest.mark.parametrize("command", EMPTY)
def test_a_sweep_of_which_nothing_can_run_is_no_success(tmp_path: Path, command: str) -> None:
    check_refused(overrides.run(command.split(" ")), tmp_path, EMPTY[command])


def test_an_empty_sweep_that_is_allowed_has_tables(sweep, tmp_path: Path) -> None:
    done = sweep("-m", "feature=fp8", "allow_empty=true", "plots=false", "hydra.sweep.dir=one")
    assert done.code == 0, done.err
    assert "SKIP" in (tmp_path / "one" / "summary.csv").read_text()


def test_a_sweep_of_which_something_runs_is_not_empty() -> None:
    assert overrides.run(["-m", "feature=fp8,teacache", "dry_run=true"]).code == 0


def test_the_plan_of_an_empty_sweep_says_how_it_would_end() -> None:
    done = overrides.run(["-m", "feature=fp8", "dry_run=true"])
    assert done.code == 0, done.err
    said = " ".join(done.out.split())
    assert "nothing can run: fp8 is not available with engine diffusers; engine=vllm_omni has it" in said
    assert "exit code 2 (allow_empty=true: 0)" in said


COMMIT = "75e0b4be04f60ec59a75f475837eced720f823b6"
HUB_ID = "Qwen/Qwen-Image"
BY_HUB_ID = (
    f"model={HUB_ID}",
    f"model.path={HUB_ID}",
    f"model=qwen_image model.path={HUB_ID}",
    "model=qwen/qwen-image",
)


@pytest.fixture
def hub_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of Qwen-Image in an empty cache of the Hub, and no variable that names another one."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path_factory.mktemp("huggingface")
    monkeypatch.setenv("HF_HOME", str(home))
    return home / "hub" / "models--Qwen--Qwen-Image"


def downloaded(repository: Path) -> Path:
    """The snapshot that a download leaves there: its files are links to blobs."""
    snapshot = repository / "snapshots" / COMMIT
    for folder in (snapshot, repository / "blobs", repository / "refs"):
        folder.mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    (repository / "blobs" / "0a1b").write_text("{}")
    (snapshot / "model_index.json").symlink_to("../../blobs/0a1b")
    return snapshot


@pytest.mark.parametrize("command", BY_HUB_ID)
def test_a_hub_id_that_is_not_downloaded_is_told_the_command(tmp_path: Path, hub_cache: Path, command: str) -> None:
    check_refused(overrides.run(command.split(" ")), tmp_path, "to download it, run: hf download Qwen/Qwen-Image")


def test_a_hub_id_means_the_checkpoint_in_the_cache(sweep, tmp_path: Path, hub_cache: Path) -> None:
    snapshot = downloaded(hub_cache)
    for number, command in enumerate(BY_HUB_ID):
        done = sweep("engine=noop", "plots=false", f"hydra.run.dir={number}", *command.split(" "))
        assert done.code == 0, done.err
        (cell,) = json.loads((tmp_path / str(number) / "plan.json").read_text())["cells"]
        assert (cell["config"]["model"]["name"], cell["config"]["model"]["path"]) == ("qwen_image", str(snapshot))


def test_a_download_that_was_cut_short_is_not_taken(tmp_path: Path, hub_cache: Path) -> None:
    (downloaded(hub_cache) / "weights.safetensors").symlink_to("../../blobs/missing")
    check_refused(overrides.run([f"model={HUB_ID}"]), tmp_path, "is incomplete")


def test_a_folder_of_that_name_is_meant_first(tmp_path: Path, hub_cache: Path) -> None:
    downloaded(hub_cache)
    (tmp_path / HUB_ID).mkdir(parents=True)
    done = overrides.run(["model=qwen_image", "engine.device=cpu", f"model.path={HUB_ID}"])
    assert done.code == 2
    assert f"model.path={HUB_ID}: not a checkpoint" in done.err


MODELS = {
    "model=Qwen/Qwen-Imge": "did you mean 'Qwen/Qwen-Image'?",
    "model=someone/something": "black-forest-labs/FLUX.1-dev (flux)",
    "model=./checkpoint": "model.path=./checkpoint",
    "-m model=Qwen/Qwen-Image,zai-org/GLM-Image": "give one Hub id at a time",
    "model=qwen_image engine.device=cpu": "hf download Qwen/Qwen-Image",
    "clip=openai/clip-vit-base-patch32": "hf download openai/clip-vit-base-patch32",
}


@pytest.mark.parametrize("command", MODELS)
def test_a_model_that_is_not_here_is_told_what_there_is(tmp_path: Path, hub_cache: Path, command: str) -> None:
    check_refused(overrides.run(command.split(" ")), tmp_path, MODELS[command])


def prompts_planned(sweep, folder: Path, *arguments: str) -> int:
    """How many distinct prompts each request of a plan comes from, and that as many are generated."""
    done = sweep("engine=noop", "plots=false", "hydra.run.dir=one", *arguments)
    assert done.code == 0, done.err
    plan = json.loads((folder / "one" / "plan.json").read_text())
    (inputs,) = plan["inputs"]
    assert plan["cells"][0]["config"]["workload"]["num_prompts"] == len(inputs["prompts"])
    assert not inputs["notes"]
    return len(inputs["prompts"])


@pytest.mark.parametrize("arguments", [(), ("workload=image_1024", "model=qwen_image", "model.path=.")])
def test_a_file_of_prompts_is_used_whole(sweep, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / "mine.txt").write_text("".join(f"picture {number}\n" for number in range(11)))
    assert prompts_planned(sweep, tmp_path, "workload.prompts=mine.txt", *arguments) == 11


def test_fewer_prompts_of_a_file_are_said(sweep, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("a\nb\nc\n")
    done = sweep("engine=noop", "workload.prompts=mine.txt", "workload.num_prompts=2", "dry_run=true")
    assert done.code == 0
    assert "workload.prompts=mine.txt has 3 prompts; workload.num_prompts=2 takes only the first 2" in done.err


def test_a_study_says_nothing_of_how_much_of_a_file_is_used(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("".join(f"picture {number}\n" for number in range(7)))
    done = overrides.run(["-m", "+study=quick", "workload.prompts=mine.txt", "dry_run=true"])
    assert (done.code, done.err) == (0, "")


def planned(sweep, *arguments: str) -> str:
    """What is printed about a small sweep."""
    small = ("engine=noop", "plots=false", "workload.prompts=mine.txt", "workload.repeats=2")
    done = sweep("-m", *small, *arguments)
    assert done.code == 0, done.err
    return done.out


def test_a_dry_run_says_what_will_run_and_what_is_known_of_its_time(sweep, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("a\nb\nc\n")
    new = planned(sweep, "batch=1,2", "dry_run=true")
    (row,) = [line for line in new.splitlines() if "baseline b2" in line]
    assert row.replace("│", "").split()[3:] == ["1", "3", "4", "2"], "devices, prompts, requests, repeats"
    assert to_run(new) == (2, 0, 1), "cells, skipped, engine starts"
    assert "prompts: all 3 of mine.txt" in new
    assert "expected time: unknown, because none of these cells was measured here before" in new
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"], "nothing is written"

    planned(sweep, "batch=1", "hydra.sweep.dir=outputs/one")
    elsewhere = planned(sweep, "batch=1,2", "dry_run=true", "hydra.sweep.dir=outputs/two")
    assert re.search(r"expected time: about \d+ s for 1 of 2 cells, unknown for the others", elsewhere)
    assert to_run(elsewhere) == (2, 0, 1)
    more = planned(sweep, "batch=1,2", "dry_run=true", "hydra.sweep.dir=outputs/one")
    assert to_run(more) == (1, 1, 0, 1), "cells, kept, skipped, engine starts"
    assert "expected time: unknown" in more
    again = planned(sweep, "batch=1", "dry_run=true", "hydra.sweep.dir=outputs/one")
    assert to_run(again) == (0, 1, 0, 0)
    assert "expected time: none, because the folder has all results" in again
    assert not (tmp_path / "outputs" / "two").exists()


ONE = ("engine=noop", "plots=false", "workload.num_prompts=1", "workload.repeats=1")


def ran(done: Finished) -> None:
    assert done.code == 0, done.err


def test_the_sweep_that_ran_last_is_outputs_latest(sweep, tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    ran(sweep(*ONE))
    first = (outputs / "latest").resolve()
    assert first.parent.parent == outputs, "the default folder, by date and time"
    ran(sweep("-m", *ONE, "hydra.sweep.dir=outputs/mine"))
    assert (outputs / "latest").readlink() == Path("mine"), "relative, so that outputs can be moved"
    ran(sweep("-m", *ONE, "hydra.sweep.dir=elsewhere"))
    ran(sweep(*ONE, "dry_run=true"))
    assert sweep("-m", "batch=0").code == 2
    assert (outputs / "latest").readlink() == Path("mine"), "neither what is not in outputs nor what did not run"
    again = sweep("-m", *ONE, "hydra.sweep.dir=outputs/latest")
    ran(again)
    assert (outputs / "latest").readlink() == Path("mine")
    assert to_run(again.out)[0] == 0, "that sweep is resumed"


def test_a_file_that_is_called_latest_stays(sweep, tmp_path: Path) -> None:
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "latest").write_text("mine")
    ran(sweep(*ONE))
    assert (tmp_path / "outputs" / "latest").read_text() == "mine"
    assert not [path for path in (tmp_path / "outputs").iterdir() if path.name.startswith(".")]


def test_where_no_link_can_be_made_the_sweep_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object, **__: object) -> None:
        raise OSError("no links on this file system")

    monkeypatch.setattr(Path, "symlink_to", unsupported)
    (tmp_path / "outputs" / "mine").mkdir(parents=True)
    latest.point_to(tmp_path / "outputs" / "mine", tmp_path / "outputs")
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["mine"]
