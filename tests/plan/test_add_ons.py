"""`base=A add=B,C`: the cells that it makes, what is reused, and what is refused in one line."""

import csv
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sweep.plan.add_ons import AddOns, add_ons
from sweep.plan.cells import at_level
from sweep.refusals import ConfigError
from tests import recompute, stored
from tests.conftest import Finished, to_run
from tests.test_cli_errors import check_refused

Sweep = Callable[..., Finished]
NOOP = ("-m", "engine=noop", "plots=false", "workload.num_prompts=3", "aa=2", "hydra.sweep.dir=out")


@pytest.fixture(autouse=True)
def in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_base_comes_alone_and_with_each_add_on() -> None:
    asked = AddOns(("tp",), (("teacache",), ("cfg_parallel", "ring")))
    assert asked.combinations(1) == [("tp",), ("teacache", "tp"), ("cfg_parallel", "ring", "tp")]


def test_combine_combines_add_ons_and_never_drops_the_base() -> None:
    asked = AddOns(("cfg_parallel", "tp"), (("a",), ("b",)))
    assert asked.combinations(2)[1:] == [
        ("a", "cfg_parallel", "tp"), ("b", "cfg_parallel", "tp"), ("a", "b", "cfg_parallel", "tp")
    ]  # fmt: skip


def test_without_either_word_there_are_no_add_ons() -> None:
    assert add_ons({}, with_features=True) is None


def test_the_dry_run_shows_baseline_base_and_base_with_each_add_on(sweep: Sweep) -> None:
    asked = ("base=[cfg_parallel,teacache]", "add=vae_slicing,attention", "model=tiny_qwen_image", "dry_run=true")
    done = sweep("-m", *asked, "aa=1")
    assert done.code == 0, done.err
    assert to_run(done.out)[:2] == (5, 0)
    for label in ("baseline b1 ", "baseline b1 A/A ", "cfg_parallel+teacache b1 "):
        assert f"│ {label}" in done.out
    for added in ("attention+cfg_parallel+teacache b1 ", "cfg_parallel+teacache+vae_slicing b1 "):
        assert f"│ {added}" in done.out


def test_a_study_keeps_its_other_axes_and_leaves_its_features(sweep: Sweep) -> None:
    done = sweep("-m", "+study=batch", "base=cfg_parallel", "add=teacache", "batch=1,2", "aa=0", "dry_run=true")
    assert done.code == 0, done.err
    assert to_run(done.out)[:2] == (6, 0)
    assert "cache_dit b" not in done.out


def test_cells_of_a_plain_sweep_are_reused_and_get_their_gains(sweep: Sweep, tmp_path: Path) -> None:
    """Also what differs between batches: each add-on is compared with the base of its own batch."""
    sweep(*NOOP, "feature=[teacache],[teacache,vae_slicing]", "batch=1,2")
    before = {row["cell"]: row for row in rows(tmp_path / "out")}
    assert {row["gain_over_base"] for row in before.values()} == {""}
    done = sweep(*NOOP, "base=teacache", "add=vae_slicing", "batch=1,2")
    assert to_run(done.out) == (0, 8), "cells, and those kept: nothing runs again"
    after = {row["cell"]: row for row in rows(tmp_path / "out")}
    assert {label: row["cell_key"] for label, row in after.items()} == {
        label: row["cell_key"] for label, row in before.items()
    }
    for batch in (1, 2):
        both = after[f"teacache+vae_slicing b{batch}"]
        assert both["base"] == f"teacache b{batch}"
        alone = float(after[both["base"]]["speedup"])
        assert float(both["gain_over_base"]) == pytest.approx(float(both["speedup"]) / alone)
        assert float(both["gain_over_base_low"]) < float(both["gain_over_base"]) < float(both["gain_over_base_high"])
    assert sum(bool(row["gain_over_base"]) for row in after.values()) == 2
    wrong, _ = recompute.differences(tmp_path / "out")
    assert not wrong, "\n".join(wrong)
    assert "add-ons gain over teacache b1 is unknown, as it is FAIL" in done.out, "no feature engages in this engine"
    assert {"add_on"} <= {one["code"] for one in json.loads((tmp_path / "out/report.json").read_text())["conclusions"]}


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "summary.csv").open(newline="") as handle:
        return list(csv.DictReader(handle))


def test_each_setting_of_an_add_on_is_compared_with_the_one_base(sweep: Sweep, tmp_path: Path) -> None:
    swept = "feature.teacache.rel_l1_thresh=0.1,0.3"
    sweep(*NOOP, "base=vae_slicing", "add=teacache", swept)
    gained = [row for row in rows(tmp_path / "out") if row["gain_over_base"]]
    assert [row["cell"].partition(" b1 ")[2] for row in gained] == ["rel_l1_thresh=0.1", "rel_l1_thresh=0.3"]
    assert {row["base"] for row in gained} == {"vae_slicing b1"}


REFUSED = {
    "base=cfg_parallel": ["base=cfg_parallel:", "add="],
    "add=teacache,tp": ["add=teacache,tp:", "base=", "feature="],
    "base=cfg_paralel add=teacache": ["'cfg_paralel'", "did you mean 'cfg_parallel'?"],
    "base=cfg_parallel add=tp,teacahe": ["'teacahe'", "did you mean 'teacache'?"],
    "base=cfg_parallel,tp add=teacache": ["base=cfg_parallel,tp:", "base=[cfg_parallel,tp]"],
    "base=[cfg_parallel,tp] add=teacache,tp": ["add=teacache,tp:", "tp is in the base already"],
    "base=tp base=ring add=teacache": ["base=tp base=ring:", "base=[tp,ring]"],
    "base=tp add=teacache add=ring": ["add=teacache add=ring:", "add=teacache,ring"],
    "base=tp add=teacache feature=ring": ["drop feature="],
    "base=[] add=tp": ["base=[] add=tp:", "feature="],
    "base= add=tp": ["base=:", "choose base by name", "cfg_parallel"],
    "base=tp add=3": ["add=3:", "choose add by name", "teacache"],
    "base=tp add=glob(*)": ["add=glob(*):", "add=teacache,ulysses"],
    "bas=tp add=teacache": ["'bas'", "'base'"],
}


@pytest.mark.parametrize("asked", REFUSED)
def test_what_cannot_be_meant_is_refused(sweep: Sweep, tmp_path: Path, asked: str) -> None:
    check_refused(sweep("-m", *asked.split()), tmp_path, REFUSED[asked])


def test_a_single_run_has_no_add_ons(sweep: Sweep, tmp_path: Path) -> None:
    check_refused(sweep("base=cfg_parallel", "add=teacache"), tmp_path, ["base=cfg_parallel", "add -m"])


def test_a_base_is_named_before_any_name_is_looked_up() -> None:
    with pytest.raises(ConfigError, match="needs a base"):
        add_ons({"add": [("anything",)]})


def test_a_searched_level_is_compared_with_the_base_at_that_level() -> None:
    base = stored.template("cfg_parallel")
    load = {**base.config["load"], "name": "closed", "max_concurrency": 1}
    root = dataclasses.replace(base, config={**base.config, "load": load})
    added = dataclasses.replace(root, key="f" * 16, base_key=root.key)
    assert at_level(added, 4).base_key == at_level(root, 4).key
    assert at_level(root, 4).base_key == ""
