"""budget=20min: what comes first, what is started, what is said about the rest; decisions, then real sweeps."""

import dataclasses
import json
import random
import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from sweep.config.run import RunConfig
from sweep.config.values import seconds_of
from sweep.plan.cells import AA, REPEAT, Cell, again
from sweep.plan.plans import Plan, build_plan, repeats_of_baselines
from sweep.predict.times import Times, makespan
from sweep.refusals import ConfigError
from sweep.results.earlier import NOTHING_KNOWN, Expected
from sweep.results.records import ERROR, RunResult
from sweep.run.budget import Budget, Known, Took, expected_to_fit, fitting, ordered
from tests import stored
from tests.conftest import Finished, to_run

Sweep = Callable[..., Finished]

SETS = ((), ("teacache",), ("cache_dit",), ("vae_slicing",), ("teacache", "vae_slicing"))


def planned(aa: int = 2) -> Plan:
    """A baseline, three features and a pair, each in an engine of its own, with A/A runs."""
    cells = []
    for names in SETS:
        shape = stored.template(*names)
        cells.append(dataclasses.replace(shape, config={**shape.config, "aa": aa}))
    return build_plan([*cells, *repeats_of_baselines(cells)])


def named(plan: Plan) -> list[str]:
    """Labels of the first cells of its groups, in running order."""
    return [plan.cell(group.cells[0]).label for group in plan.groups]


def key(plan: Plan, label: str) -> str:
    return next(cell.key for cell in plan.cells if cell.label == label)


def known_of(plan: Plan, seconds: Mapping[str, float], start_s: float | None = None) -> Times:
    """Earlier results of these cells, by label."""
    loads = {} if start_s is None else {group.engine_key: start_s for group in plan.groups}
    return Times(Expected({key(plan, label): took for label, took in seconds.items()}, loads, frozenset()))


# -- decisions


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("20min", 1200), ("2h", 7200), ("1h30min", 5400), ("0.5h", 1800)]
)
def test_a_budget_is_a_time(text: str, seconds: float) -> None:
    assert seconds_of(text, "budget") == seconds
    assert RunConfig(budget=text).budget == text


@pytest.mark.parametrize("text", ["", "20", "min", "20m", "20 minutes", "-5min", "0s", "1e9s", "infh", "5min later"])
def test_what_is_no_time_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ConfigError, match=r"budget=.*as in 90s, 20min or 1h30min") as error:
        RunConfig(budget=text)
    assert len(str(error.value).splitlines()) == 1


def test_baselines_come_first_then_aa_then_single_features_then_pairs() -> None:
    plan = planned()
    worth = {("teacache",): 1.5, ("vae_slicing",): 3.0, ("cache_dit",): 2.0}
    made = ordered(plan, lambda cell: worth.get(cell.features, 9.0))
    assert named(made) == [
        "baseline b1",
        "baseline b1 A/A",
        "baseline b1 #2 A/A",
        "vae_slicing b1",
        "cache_dit b1",
        "teacache b1",
        "teacache+vae_slicing b1",
    ]
    assert [group.number for group in made.groups] == list(range(7)), "launchers count groups"
    assert {group.engine_key for group in made.groups} == {group.engine_key for group in plan.groups}
    assert made.cells == plan.cells, "no key changes"


def test_further_starts_come_last() -> None:
    plan = planned(aa=0)
    more = [again(cell, 1) for cell in plan.cells if cell.features == ("teacache",)]
    assert named(ordered(build_plan([*plan.cells, *more]), lambda cell: 1.0))[-1] == "teacache b1 start 2"


def test_groups_start_while_they_fit_and_none_after_the_first_that_does_not() -> None:
    plan = ordered(planned(aa=0), lambda cell: 1.0)
    labels = named(plan)
    known = Known(plan, known_of(plan, dict.fromkeys(labels, 10.0) | {labels[2]: 100.0}, 2.0), {}, frozenset())
    assert fitting(known, [0, 1, 2, 3], 12.0, 1, 1) == [0]
    assert fitting(known, [1, 2, 3], 11.9, 1, 1) == []
    assert fitting(known, [2, 3], 50.0, 1, 1) == [], "the shorter one after it waits as well"
    assert fitting(known, [0, 1, 3], 12.0, 2, 2) == [0, 1], "two at once"
    assert fitting(known, [0, 1, 3], 12.0, 2, 1) == [0], "but for a single device"
    assert fitting(known, [0], 0.0, 1, 1) == [], "nothing is left"
    left = {key(plan, label) for label in labels[2:]}
    assert expected_to_fit(known, 60.0, 1, 1) == frozenset(plan.by_key) - left


def test_what_nothing_is_known_of_takes_as_long_as_its_baseline_did() -> None:
    """Twice, where the baseline is interleaved; and an engine starts as the others did."""
    plan = planned(aa=1)
    baseline, feature = key(plan, "baseline b1"), plan.cell(key(plan, "teacache b1"))
    assert feature.interleaved
    unknown = Known(plan, Times(NOTHING_KNOWN), {}, frozenset())
    group = next(group for group in plan.groups if feature.key in group.cells)
    assert unknown.group_s(group) == 0.0, "so that something is tried"
    took = dataclasses.replace(unknown, took={baseline: Took(30.0, 5.0)})
    assert took.group_s(group) == 5.0 + 2 * 30.0
    aa = next(group for group in plan.groups if plan.cell(group.cells[0]).role == AA)
    assert took.group_s(aa) == 5.0 + 2 * 30.0, "it is interleaved with the baseline as well"
    alone = {cell.key: dataclasses.replace(cell, interleaved="") for cell in plan.cells}
    plain = dataclasses.replace(took, plan=Plan(tuple(alone.values()), plan.groups))
    assert plain.group_s(group) == 5.0 + 30.0
    assert dataclasses.replace(took, done=frozenset({feature.key})).group_s(group) == 0.0


def test_what_was_expected_is_corrected_by_what_was_measured() -> None:
    plan = planned(aa=0)
    times = known_of(plan, {"baseline b1": 10.0, "teacache b1": 16.0, "cache_dit b1": 14.0}, 2.0)
    known = Known(plan, times, {}, frozenset())
    group = next(group for group in plan.groups if key(plan, "cache_dit b1") in group.cells)
    assert known.factor == 1.0
    assert known.group_s(group) == 2.0 + 14.0
    slow = {key(plan, "baseline b1"): Took(20.0, 4.0), key(plan, "teacache b1"): Took(58.0, 4.0)}
    after = dataclasses.replace(known, took=slow)
    assert after.factor == 3.0, "78 s for 26 s"
    assert after.group_s(group) == 2.0 + 3 * 14.0
    pair = next(group for group in plan.groups if key(plan, "teacache+vae_slicing b1") in group.cells)
    assert after.group_s(pair) == 2.0 + 2 * 20.0, "as its baseline, twice"


def test_a_cell_that_failed_says_nothing_of_others() -> None:
    result = stored.result_of(stored.template(), random.Random(0))
    assert Took.of(dataclasses.replace(result, stage_s={"warm_up": 1.0, "measure": 4.0})) == Took(5.0, 5.0)
    assert Took.of(dataclasses.replace(result, stage_s={"measure": 4.0}, state=ERROR)) is None


def test_groups_side_by_side_wait_for_devices() -> None:
    groups = [(10.0, 1), (10.0, 1), (10.0, 2), (5.0, 1)]
    assert makespan(groups, 1, 4) == 35.0
    assert makespan(groups, 4, 99) == 10.0
    assert makespan(groups, 2, 2) == 25.0, "two, then the one that needs both, then the last"
    assert makespan([], 3, 3) == 0.0


def budget(plan: Plan, times: Times, seconds: float = 1e6, jobs: int = 1) -> Budget:
    return Budget("20min", seconds, times, jobs, 4)


def run(made: Budget, plan: Plan, took_s: Callable[[Cell], float], alone: tuple[int, ...] = ()) -> list[list[int]]:
    """Groups that are launched, on a clock that measurements turn."""
    waves = []
    for wave in made.waves(plan, [g.number for g in plan.groups], alone, frozenset(), reader(took_s)):
        waves.append(wave)
        made.began_s -= sum(took_s(plan.cell(key)) for number in wave for key in plan.groups[number].cells)
    return waves


def reader(took_s: Callable[[Cell], float]) -> Callable[..., Mapping[str, RunResult | None]]:
    def read(cells: list[Cell]) -> dict[str, RunResult | None]:
        return {
            cell.key: dataclasses.replace(
                stored.result_of(cell, random.Random(0)), stage_s={"measure": took_s(cell)}, load_s=0.0
            )
            for cell in cells
        }

    return read


def test_measured_times_decide_as_the_sweep_goes() -> None:
    """Nothing is known before: the baseline takes 10 s, so features are expected to take 20 s, and take 40 s."""
    plan = ordered(planned(aa=0), lambda cell: 1.0)
    made = budget(plan, Times(NOTHING_KNOWN), seconds=100.0)
    waves = run(made, plan, lambda cell: 40.0 if cell.features else 10.0)
    assert waves == [[0], [1], [2]], "10 + 40 + 40, and 10 s are left"
    assert {plan.cell(key).label for key in made.left_out} == set(named(plan)[3:])
    assert len(set(made.left_out.values())) == 1
    assert re.search(r"needs about 20 s, and 10 s were left of budget=20min", next(iter(made.left_out.values())))
    sentence = made.sentence(plan, "THE COMMAND")
    assert sentence.startswith("budget=20min: 2 of 5 cells were not run (")
    assert sentence.endswith("; to run the rest: THE COMMAND")


def test_a_launcher_gets_as_many_groups_as_it_runs_at_once() -> None:
    plan = ordered(planned(aa=0), lambda cell: 1.0)
    times = known_of(plan, dict.fromkeys(named(plan), 10.0))
    assert run(budget(plan, times, jobs=2), plan, lambda cell: 10.0) == [[0, 1], [2, 3], [4]]
    assert run(budget(plan, times, jobs=9), plan, lambda cell: 10.0) == [[0, 1, 2, 3, 4]]
    assert run(budget(plan, times, jobs=9), plan, lambda cell: 10.0, alone=(0,)) == [[0], [1, 2, 3, 4]]
    assert run(budget(plan, times, jobs=9), plan, lambda cell: 10.0, alone=(0, 2)) == [[0], [1], [2], [3, 4]]


def test_of_further_starts_those_are_added_that_fit_and_then_no_more() -> None:
    plan = ordered(planned(aa=0), lambda cell: 1.0)
    made = budget(plan, Times(NOTHING_KNOWN), seconds=1000.0)
    run(made, plan, lambda cell: 10.0)
    assert not made.used_up
    starts = [again(cell, 1) for cell in plan.cells if len(cell.features) == 1]
    assert made.further(plan, starts) == starts
    made.began_s -= made.left_s - 25.0
    added = made.further(plan, starts)
    assert [cell.role for cell in added] == [REPEAT] * 2
    assert made.starts_left_out == 1
    assert made.used_up
    assert made.further(plan, starts) == [], "whoever asks again gets none"
    assert made.starts_left_out == 1
    assert "1 cell was not added" in made.sentence(plan, "…")


# -- real sweeps of an engine that does nothing

NOOP = ("-m", "engine=noop", "feature=cache_dit,cfg_parallel,teacache", "aa=1", "plots=false", "workload.num_prompts=1")
SLOWEST = "teacache b1"


def summary(folder: Path) -> dict[str, tuple[str, str]]:
    """Status and code of the reason of each cell."""
    report = json.loads((folder / "report.json").read_text())
    return {
        cell["cell"]: (cell["status"], next((one["code"] for one in cell["findings"]), "")) for cell in report["cells"]
    }


@pytest.fixture
def slow_before(sweep: Sweep, tmp_path: Path) -> None:
    """An earlier sweep, in which one feature took eleven days, which is why it would not fit into any budget."""
    done = sweep(*NOOP, "hydra.sweep.dir=outputs/before")
    assert done.code == 1, done.err  # no feature engages on this engine
    (file,) = (tmp_path / "outputs" / "before").glob("teacache-b1-*/result.json")
    values = json.loads(file.read_text())
    file.write_text(json.dumps({**values, "stage_s": {"measure": 1e9}}))


@pytest.mark.usefixtures("slow_before")
@pytest.mark.parametrize("how", [(), ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")], ids=["here", "joblib"])
def test_what_does_not_fit_is_not_run_and_the_last_line_runs_it(
    sweep: Sweep, tmp_path: Path, how: tuple[str, ...]
) -> None:
    folder = tmp_path / "outputs" / "mine"
    done = sweep(*NOOP, *how, "budget=1h", "hydra.sweep.dir=outputs/mine")
    assert done.code == 1, done.out + done.err
    found = summary(folder)
    assert found.pop(SLOWEST) == ("NOT RUN", "budget")
    assert {code for status, code in found.values()}.isdisjoint({"budget", "not_run"})
    assert {"baseline b1", "baseline b1 A/A", "cache_dit b1", "cfg_parallel b1"} == found.keys()
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    assert sum(event["event"] == "engine_start" for event in events) == 4
    said, _, command = done.out.splitlines()[-1].partition("; to run the rest: ")
    assert said.startswith(f"budget=1h: 1 of 5 cells was not run ({SLOWEST})")
    keys = {cell["key"] for cell in json.loads((folder / "plan.json").read_text())["cells"]}

    words = shlex.split(command)
    assert words[1:3] == ["-m", "sweep"]
    assert not [word for word in words if word.startswith("budget")]
    rest = sweep(*words[3:])
    assert to_run(rest.out) == (1, 4)
    assert "budget" not in {code for _, code in summary(folder).values()}
    assert "NOT RUN" not in {status for status, _ in summary(folder).values()}
    assert "to run the rest" not in rest.out
    assert {cell["key"] for cell in json.loads((folder / "plan.json").read_text())["cells"]} == keys


def test_a_budget_that_is_over_at_once_runs_nothing_and_one_that_is_long_runs_all(sweep: Sweep, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    none = sweep(*NOOP, "budget=0.001s", "hydra.sweep.dir=out")
    assert none.code == 1, none.out + none.err
    assert set(summary(folder).values()) == {("NOT RUN", "budget")}
    assert "5 of 5 cells were not run" in none.out.splitlines()[-1]
    again_ = sweep(*NOOP, "budget=10h", "repeat=2", "hydra.sweep.dir=out")
    assert "NOT RUN" not in {status for status, _ in summary(folder).values()}
    assert "budget=" not in again_.out
    cells = json.loads((folder / "plan.json").read_text())["cells"]
    assert sum(cell["role"] == "repeat" for cell in cells) == 3, "further starts come as without a budget"
    assert len(list(folder.glob("*/result.json"))) == len(cells)


def test_a_sweep_has_one_budget_and_a_clear_error(sweep: Sweep, tmp_path: Path) -> None:
    for asked, named_ in {
        "budget=20": "budget=20: give it a time in s, min or h",
        "budget=1h,2h": "a sweep has one budget",
        "skip_oom=true,false": "for the whole sweep",
        "skip_oom=maybe": "skip_oom",
    }.items():
        done = sweep(*NOOP, asked)
        assert done.code == 2, asked
        assert named_ in done.err
        assert len(done.err.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())
