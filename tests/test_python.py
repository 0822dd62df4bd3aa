"""Sweeps from Python: the answers are those of the commands, errors are exceptions, interrupts are passed on."""

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

import sweep.frames
from sweep.analysis import columns
from sweep.analysis.column import IDENTITY, QUALITY
from sweep.api import SweepError, compare, load, plan, run
from sweep.overrides import as_typed, folder_override, quoted
from sweep.refusals import ConfigError
from tests.conftest import ROOT, Finished, environment

SMALL = {
    "model": "tiny_qwen_image",
    "feature": ["teacache"],
    "feature.teacache.rel_l1_thresh": 10,
    "workload.num_prompts": 1,
    "workload.steps": 3,
    "workload.repeats": 1,
    "aa": 0,
    "interleave": False,
    "plots": False,
}
TYPED = (
    *("model=tiny_qwen_image", "feature=teacache", "feature.teacache.rel_l1_thresh=10", "workload.num_prompts=1"),
    *("workload.steps=3", "workload.repeats=1", "aa=0", "interleave=false", "plots=false"),
)
NOOP = "engine=noop plots=false workload.num_prompts=1 workload.repeats=1 aa=0"

NOT_TIMES = (*columns.of_kind(IDENTITY, QUALITY), "features", "status", "reason_code", "evidence")


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in environment().items():
        monkeypatch.setenv(name, value)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def test_the_answers_are_those_of_the_command_line(
    tmp_path: Path, sweep: Callable[..., Finished], capsys: pytest.CaptureFixture[str]
) -> None:
    """Plan, run and command: the same cells with the same images, status and options, in the same columns."""
    planned = plan(SMALL)
    assert not list(tmp_path.iterdir()), "a plan leaves nothing"
    tables = run(SMALL, "from python")
    assert "teacache b1: done" in capsys.readouterr().out, "progress is shown"
    done = sweep("-m", *TYPED, "hydra.sweep.dir=typed")
    assert done.code in (0, 1), done.err
    ours, theirs = rows(tmp_path / "from python" / "summary.csv"), rows(tmp_path / "typed" / "summary.csv")
    compared = [*NOT_TIMES, "option.teacache.rel_l1_thresh"]
    assert list(ours[0]) == list(theirs[0]) == list(tables.summary)
    assert [[row[name] for name in compared] for row in ours] == [[row[name] for name in compared] for row in theirs]
    assert ours[1]["psnr_db"] not in ("", "inf"), "there is something to compare"
    assert planned.cells.cell_key.tolist() == [row["cell_key"] for row in ours]
    assert planned.cells.features.tolist() == ["baseline", "teacache"]
    assert planned.cells["option.teacache.rel_l1_thresh"].tolist()[1:] == [10]
    assert planned.plan.by_key.keys() == tables.plan.by_key.keys()


def test_a_plan_says_what_is_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planned = plan(f"{NOOP} feature=teacache,cache_dit combine=2")
    (skipped,) = planned.cells[planned.cells.status == "SKIP"].to_dict("records")
    assert skipped["features"] == "cache_dit+teacache"
    assert "conflicts with" in skipped["reason"]
    assert pandas.isna(skipped["engine_start"])
    assert "conflicts with" in planned._repr_html_()
    assert "3 cells to run, 1 skipped, 3 engine starts" in planned._repr_html_()
    assert capsys.readouterr() == ("", "")


def test_a_failed_cell_is_a_result_and_a_folder_resumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables = run(f"-m {NOOP} feature=teacache", tmp_path / "it's ${here}", quiet=True)
    assert tables.summary.set_index("features").status.to_dict() == {"baseline": "PASS", "teacache": "FAIL"}
    assert capsys.readouterr() == ("", "")
    run([*NOOP.split(), "feature=teacache"], tmp_path / "it's ${here}")
    assert "0 cells to run, 2 kept from an earlier run" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["it's ${here}"]


def test_without_a_folder_a_new_one_is_made(tmp_path: Path) -> None:
    run(NOOP, quiet=True)
    (summary,) = tmp_path.glob("outputs/*/*/summary.csv")
    assert len(rows(summary)) == 1


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ("feature=teacahe", "did you mean 'teacache'?"),
        ({"batch": 0}, "batch=0: must be at least 1"),
        ({"batch": []}, "choose at least one"),
        ({"batch": {1, 2}}, "is no text, number, list or dict"),
        (["batch=1", 2], "2 is not text"),
        ("workload.prompt='a cat", "close the quotes"),
        ("batch=1 hydra.sweep.dir=mine", "folder=…"),
    ],
    ids=str,
)
def test_bad_input_is_an_exception_with_one_line(
    overrides: object, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SweepError) as error:
        run(overrides, "mine")  # type: ignore[arg-type]
    message = str(error.value)
    assert said in message
    assert "\n" not in message
    assert not message.startswith("sweep:")
    assert error.value.code == 2
    assert message not in capsys.readouterr().err, "the exception says it"
    assert not list(tmp_path.iterdir())


def test_texts_and_lists_of_a_dict_are_what_the_command_reads() -> None:
    """Commas, quotes, words that mean something to Hydra: a text is one value."""
    texts = ["a cat, a dog", "it's", 'say "no"', "true", "1e3", "${oc.env:HOME}", r"back\slash", r"\'", "\\", ""]
    texts += ["\\${x}", "a=b", "[x]", "{a: b}", "choice(1,2)", "ünïcode 🐉", "$", "~/x", "a\nb", "teacache", "0x10"]
    for text in texts:
        (override,) = as_typed({"workload.prompt": text})
        parsed = OverridesParser.create().parse_override(override)
        assert OmegaConf.create({"text": parsed.value()}).text == text, override
        assert not parsed.is_sweep_override()
    fields = {"+study": "quick", "batch": (1, 2), "feature": ["a", ["b", "c"]], "load.slo": {"ttft": None, "e2el": 8.5}}
    typed = ["+study=quick", "batch=1,2", "feature=a,[b,c]", "load.slo={ttft:null,e2el:8.5}"]
    assert as_typed(fields) == typed
    assert as_typed({"x": pandas.Series([0.1])[0], "y": True, "z": Path("a b")}) == ["x=0.1", "y=true", "z='a b'"]
    assert as_typed("-m +study=quick 'feature=[a,b]'") == ["+study=quick", "feature=[a,b]"]
    assert folder_override(Path("a,b")) == "hydra.sweep.dir='a,b'"
    assert quoted("x") == "'x'"


def test_a_comparison_is_the_commands(sweep: Callable[..., Finished]) -> None:
    before = str(ROOT / "docs" / "results" / "matrix-2-gpus")
    after = f"{before}/report.json"
    found = compare(before, after, "--relative")
    done = sweep(before, after, "--relative", "--format", "json", module="sweep.compare")
    assert found.values == json.loads(done.out)
    assert bool(found.failed_on) == bool(done.code)
    (compared,) = found.values["comparisons"]
    assert found.cells["speed.verdict"].tolist() == [cell["speed"]["verdict"] for cell in compared["cells"]]
    assert "matrix-2-gpus → " in found._repr_html_()
    with pytest.raises(SweepError, match=r"nowhere does not exist; give a sweep's folder or its report\.json"):
        compare(before, "nowhere")


def test_a_program_that_dies_of_a_signal_is_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as the kernel's when memory is short. Nothing is loaded then."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text("import os\nos.kill(os.getpid(), 9)\n")
    monkeypatch.setenv("PYTHONPATH", f"{site}{os.pathsep}{os.environ['PYTHONPATH']}")
    with pytest.raises(SweepError, match="python -m sweep ended with -9: it printed nothing"):
        run(NOOP, "mine")


SCRIPT = """
import signal
import sweep

signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background are started with it ignored
try:
    sweep.api.run("engine=noop workload.num_prompts=5 workload.repeats=200000 aa=0 batch=1", "cut")
except KeyboardInterrupt:
    print(len(sweep.frames.load("cut").summary), "cell after the interrupt", flush=True)
"""


@pytest.mark.parametrize("whom", ["the program alone", "all, as a terminal does"])
def test_an_interrupt_ends_the_sweep_and_keeps_what_is_finished(whom: str, tmp_path: Path) -> None:
    """A program without `if __name__ == "__main__"`; notebooks may interrupt their own process alone."""
    (tmp_path / "program.py").write_text(SCRIPT)
    command = [sys.executable, "program.py"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, process_group=0) as program:
        assert program.stdout is not None
        for line in program.stdout:
            if "b1: loading" in line:
                break
        os.kill(program.pid if whom == "the program alone" else -program.pid, signal.SIGINT)
        rest = program.stdout.read()  # until all processes that print to it are gone
    assert program.returncode == 0
    assert rest.splitlines()[-1] == "1 cell after the interrupt", rest
    (row,) = rows(tmp_path / "cut" / "summary.csv")
    assert row["reason_code"] == "interrupted"


def test_sweep_has_its_python_interface_without_importing_it() -> None:
    code = "import sys, sweep; print(len([m for m in sys.modules if m.startswith('sweep')])); sweep.api.run"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
    assert sweep.frames.load is load
    with pytest.raises(AttributeError, match="no attribute 'runs'"):
        _ = sweep.runs  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="does not exist"):
        load("nowhere")
