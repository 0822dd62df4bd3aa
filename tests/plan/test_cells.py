"""Cells, baselines, A/A, grouping: pure decisions, tested through the real configuration files."""

import dataclasses
import random
from collections.abc import Iterable

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from sweep.config.run import CONF, RunConfig, register
from sweep.machine.devices import Devices
from sweep.plan import features as feature_rules
from sweep.plan import nothing_runs
from sweep.plan.axes import pairs_and_more
from sweep.plan.building import build_cell
from sweep.plan.cells import Cell, again
from sweep.plan.plans import Plan, build_plan, outdated, repeats_of_baselines
from sweep.plan.settings import settings_of
from sweep.refusals import ConfigError

TWO_CORES = Devices("cpu", 2)


@pytest.fixture(scope="module", autouse=True)
def hydra():
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


def cell(*overrides: str, repeat: int = 0, devices: Devices = TWO_CORES) -> Cell:
    cfg = compose("config", list(overrides))
    made = build_cell(cfg, lambda run: devices, lambda run: "prompts", lambda run, found: None)
    return again(made, repeat) if repeat else made


def run_config(*overrides: str) -> RunConfig:
    made = OmegaConf.to_object(compose("config", list(overrides)))
    assert isinstance(made, RunConfig)
    return made


def labels(cells: Iterable[Cell]) -> list[str]:
    return [c.label for c in cells]


def test_the_plan_is_the_same_for_every_order_of_cells() -> None:
    cells = [cell(f"feature={f}", f"batch={b}") for f in ("[]", "teacache", "cfg_parallel") for b in (1, 2, 4)]
    cells.append(cell("feature=[]", repeat=1))
    made = build_plan(cells)
    for seed in range(6):
        assert build_plan(random.Random(seed).sample(cells, len(cells))) == made
    assert len(made.groups) == 4, "one engine start each: baseline, two features, and the A/A repeat in a fresh engine"
    assert labels(made.cell(key) for key in made.groups[0].cells) == ["baseline b1", "baseline b2", "baseline b4"]
    assert labels(made.cell(key) for key in made.groups[-1].cells) == ["baseline b1 A/A"]


def test_cells_named_twice_run_once() -> None:
    assert len(build_plan([cell("feature=teacache"), cell("feature=[teacache]")]).cells) == 1


def test_key_changes_with_what_can_change_the_result_and_with_nothing_else() -> None:
    base = cell("feature=teacache").key
    for changed in (
        "workload.steps=5",
        "seed=1",
        "batch=2",
        "feature.teacache.rel_l1_thresh=0.3",
        "engine.dtype=bfloat16",
    ):
        assert cell("feature=teacache", changed).key != base, changed
    for same in (
        "engine.load_timeout_s=5",
        "plots=false",
        "hardware.price_per_gpu_hour=3",
        "aa=0",
        "budget=1h",
        "skip_oom=true",
    ):
        assert cell("feature=teacache", same).key == base, same


def test_batch_shares_an_engine_and_feature_options_do_not() -> None:
    base = cell("feature=teacache").engine_key
    assert cell("feature=teacache", "batch=4", "workload.steps=3").engine_key == base
    assert cell("feature=teacache", "feature.teacache.rel_l1_thresh=0.3").engine_key != base


def test_baseline_of_a_cell_is_the_same_cell_without_features() -> None:
    assert cell("feature=teacache", "batch=2").baseline_key == cell("batch=2").key
    assert cell("batch=2", repeat=1).baseline_key == cell("batch=2").key
    assert cell("batch=2", repeat=1).engine_key != cell("batch=2").engine_key


@pytest.mark.parametrize(
    ("overrides", "code", "named"),
    [
        (["feature=[teacache,cache_dit]"], "conflict", {"cache_dit", "teacache"}),
        (["feature=ulysses"], "feature_not_in_model", {"ulysses"}),
        (["feature=[cfg_parallel,ulysses]", "model=tiny_qwen_image"], "too_few_devices", {"4", "CPU", "2"}),
        (["feature=cfg_parallel", "parallel=x1"], "too_few_devices_allowed", {"2", "CPU", "parallel=x1", "1"}),
    ],
)
def test_what_cannot_run_is_skipped_with_its_reason(overrides: list[str], code: str, named: set[str]) -> None:
    made = cell(*overrides)
    assert made.skip is not None
    assert (made.skip.code, made.skip.status) == (code, "SKIP")
    assert named <= set(made.skip.text.replace(",", "").split())
    assert build_plan([made]).groups == ()


def test_gpu_needs_multiply_in_a_combination() -> None:
    made = cell("feature=[cfg_parallel,ulysses]", "feature.ulysses.degree=4", devices=Devices("cuda", 8))
    assert made.gpus == 8


def test_skip_names_gpus_where_gpus_are_missing() -> None:
    made = cell("feature=[cfg_parallel,ulysses]", "model=tiny_qwen_image", devices=Devices("cuda", 2))
    assert made.skip is not None
    assert "4 GPUs" in made.skip.text


def test_pairs_of_the_listed_features() -> None:
    asked = pairs_and_more([("b",), ("a",), ("c",)], 2)
    assert asked == [("b",), ("a",), ("c",), ("a", "b"), ("a", "c"), ("b", "c")]
    assert pairs_and_more([("a", "b"), ("a",)], 1) == [("a", "b"), ("a",)]
    assert len(pairs_and_more([(name,) for name in "abcdef"], 2)) == 6 + 15


def test_a_sweep_of_conflicts_only_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"feature=.*cache_dit.*teacache"):
        nothing_runs.refuse_if_nothing_runs(build_plan([cell("feature=[teacache,cache_dit]"), cell()]))


def test_plan_survives_json() -> None:
    made = build_plan([cell("feature=teacache"), cell()])
    assert Plan.from_json(made.to_json()) == made
    assert made.cells[0].run_config == run_config("workload.num_prompts=4"), "the number that is planned is stored"


def test_every_shipped_feature_is_complete() -> None:
    for file in sorted((CONF / "feature").glob("*.yaml")):
        (feature,) = feature_rules.parse_features(run_config(f"feature={file.stem}").feature)
        assert feature.name == file.stem
        assert feature.label
        assert feature.summary
        assert feature.evidence
        assert feature.engines
        for other in feature.conflicts:
            assert (CONF / "feature" / f"{other}.yaml").exists(), other


def test_the_baseline_runs_beside_cells_on_a_cpu_and_on_request_on_gpus_that_have_room() -> None:
    assert cell("feature=teacache").interleaved == cell("feature=[]").key
    assert cell("feature=[]").interleaved == ""
    assert cell("feature=teacache", "interleave=false").interleaved == ""
    four = Devices("cuda", 4)
    assert cell("feature=teacache", devices=four).interleaved == ""
    assert cell("feature=teacache", "interleave=true", devices=four).interleaved
    assert cell("feature=teacache", "interleave=true", devices=Devices("cuda", 1)).interleaved == "", "no room"
    for count, room in ((3, False), (4, True)):  # the AR stage of each has a GPU of its own
        split = ("engine=vllm_omni", "model.family=glm_image", "engine.placement=split", "interleave=true")
        cells = [cell(f"feature={f}", *split, devices=Devices("cuda", count)) for f in ("[]", "cache_dit")]
        assert bool(cells[1].interleaved) == room
        made = build_plan(cells)
        assert made.groups[-1].gpus == (4 if room else 2)
        assert bool(made.notes) != room, "that it is not interleaved is said"


def test_a_baseline_beside_a_cell_needs_a_gpu_of_its_own_and_no_core() -> None:
    for devices, needed in ((Devices("cuda", 4), 2), (TWO_CORES, 1)):
        cells = [cell(f"feature={f}", "interleave=true", devices=devices) for f in ("[]", "teacache")]
        made = build_plan(cells)
        assert [group.gpus for group in made.groups] == [1, needed]


def test_a_cell_whose_baseline_is_not_in_the_plan_runs_alone() -> None:
    assert build_plan([cell("feature=teacache")]).cells[0].interleaved == ""
    single = cell("feature=teacache", "interleave=true", devices=Devices("cuda", 4))
    assert build_plan([single]).notes == (), "no GPU is lacking"


def test_too_few_gpus_are_no_reason_where_nothing_would_be_interleaved() -> None:
    """An engine that generates nothing."""
    names = ("[]", "teacache")
    cells = [cell("engine=noop", f"feature={f}", "interleave=true", devices=Devices("cuda", 1)) for f in names]
    assert build_plan(cells).notes == ()


def test_aa_is_measured_as_often_as_asked_and_beside_the_baseline_like_the_others() -> None:
    cells = [cell(f"feature={f}", f"batch={b}", "aa=3") for f in ("[]", "teacache") for b in (1, 2)]
    again = repeats_of_baselines(cells)
    assert labels(again) == ["baseline b1 A/A", "baseline b1 #2 A/A", "baseline b1 #3 A/A"]
    assert {c.interleaved for c in again} == {cell("feature=[]", "batch=1", "aa=3").key}
    assert len({c.engine_key for c in again}) == 3
    assert repeats_of_baselines([cell("feature=[]")]) == [], "nothing to judge"


def with_files(files: dict[str, str], *overrides: str) -> Cell:
    cfg = compose("config", list(overrides))
    args = (lambda run: TWO_CORES, lambda run: "prompts", lambda run, found: None)
    return build_cell(cfg, *args, files=lambda run: files)


def test_a_checkpoint_that_changed_is_another_cell_and_another_engine() -> None:
    one, other = (with_files({"/models/x": digits}) for digits in ("a" * 16, "b" * 16))
    assert len({one.key, other.key, cell().key}) == 3
    assert len({one.engine_key, other.engine_key, cell().engine_key}) == 3
    assert one.baseline_key == one.key
    assert with_files({}).key == cell().key, "what reads no files keeps the key that it had"


def test_cells_of_changed_files_are_outdated_with_their_further_starts_and_no_others() -> None:
    old, new = (with_files({"/models/x": digits}) for digits in ("a" * 16, "b" * 16))
    others = [with_files({}, "batch=2"), with_files({}, "workload.steps=7"), with_files({}, "engine.warmup=3")]
    earlier = build_plan([old, again(old, 1), again(old, 2), *others])
    assert {c.key for c in outdated(earlier, build_plan([new, again(new, 1)]))} == {
        old.key,
        again(old, 1).key,
        again(old, 2).key,
    }
    assert outdated(earlier, build_plan([old])) == []


def test_plans_of_versions_without_a_field_are_outdated_all_the_same() -> None:
    old, new = with_files({}), with_files({"/models/x": "b" * 16})
    for section in ("", "engine"):
        told = {**old.config, "engine": dict(old.config["engine"])}
        (told[section] if section else told).pop("args" if section else "profile")
        before = Plan((dataclasses.replace(old, config=told),), ())
        assert [c.key for c in outdated(before, Plan((new,), ()))] == [old.key]
    other = {**old.config, "engine": {**old.config["engine"], "args": {"seconds": 1}}}
    before = Plan((dataclasses.replace(old, config=other),), ())
    assert outdated(before, Plan((new,), ())) == [], "free-form options count"


GLM = ("model=glm_image", "engine=vllm_omni")
GPUS = Devices("cuda", 4)


def test_fields_of_stages_are_part_of_the_keys_only_where_they_are_set() -> None:
    plain, set_ = cell(*GLM, devices=GPUS), cell(*GLM, "model.stages.ar.max_model_len=8192", devices=GPUS)
    assert "stages" in plain.config["model"]
    assert plain.run_config.model.stages.given() == {}
    again = cell(*GLM, "model.stages.ar.max_model_len=null", devices=GPUS)
    assert (again.key, again.engine_key) == (plain.key, plain.engine_key), "as before there were such fields"
    assert set_.engine_key != plain.engine_key
    assert set_.key != plain.key
    both = cell(*GLM, "feature=teacache", "model.stages.ar.max_model_len=8192", devices=GPUS)
    assert both.baseline_key == set_.key, "the baseline with the same stages"
    assert settings_of(set_)["model.stages.ar.max_model_len"] == 8192
    assert not any("stages" in name for name in settings_of(plain))


def test_devices_of_stages_are_leased_and_what_cannot_be_placed_is_skipped() -> None:
    apart = cell(*GLM, "model.stages.dit.devices=1", devices=GPUS)
    assert (apart.gpus, apart.skip) == (2, None)
    wide = cell(*GLM, "model.stages.dit.devices=1", "feature=cfg_parallel", devices=GPUS)
    assert wide.skip
    assert (wide.skip.code, "runs on 2 GPUs with these features, not on 1" in wide.skip.text) == (
        "misplaced_stages",
        True,
    )


@pytest.mark.parametrize(
    ("overrides", "why"),
    [
        (("model.stages.ar.max_model_len=100",), "engine diffusers runs all stages in one process and takes"),
        (("model=tiny_qwen_image", "model.stages.ar.top_p=0.5"), "tiny_qwen_image has no stages of its own"),
        (("engine=endpoint", "model.stages.ar.top_p=0.5"), "was started with stages of its own"),
        ((*GLM, "model.stages.ar.top_p=0"), "model.stages.ar.top_p=0.0: must be from 0.001 to 1"),
        ((*GLM, "model.stages.ar.block_size=0"), "must be at least 1"),
        ((*GLM, "model.stages.ar.kv_cache_dtype=fp4"), "did you mean 'fp8'?"),
        ((*GLM, "model.stages.ar.devices=0+0"), "must be numbers of the cell's GPUs"),
        ((*GLM, "model.stages.connector=rdma"), "choose from shared_memory, mooncake_store"),
    ],
)
def test_fields_of_stages_that_cannot_be_are_one_line(overrides: tuple[str, ...], why: str) -> None:
    with pytest.raises(ConfigError) as refused:
        cell(*overrides)
    assert why in str(refused.value)
    assert "\n" not in str(refused.value)
