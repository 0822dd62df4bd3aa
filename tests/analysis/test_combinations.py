"""What single features say about a combination: rows of stored sweeps, and handmade ones."""

import dataclasses
import functools
from pathlib import Path

import pytest
from msgspec import structs

from profiling.evidence import RankEvidence
from sweep.analysis import combinations
from sweep.analysis.engagement import Executed
from sweep.analysis.pixel_gates import Pixels
from sweep.analysis.summary import summarise
from sweep.findings import Finding, deciding
from sweep.plan.cells import Cell
from sweep.plan.plans import build_plan
from tests import stored

TWO_RANKS = "ring"  # lossless
CACHE = "teacache"  # lossy


@functools.cache
def cell(*features: str, baseline: str = "") -> Cell:
    made = stored.template(*features)
    name = "+".join(features) or "baseline"
    key = stored.key_of(name)
    return dataclasses.replace(
        made, key=key, origin=key, label=name, baseline_key=baseline or stored.key_of("baseline")
    )


def vllm_cell(names: tuple[str, ...]) -> Cell:
    """A cell whose features' files name what vLLM-Omni counts; they share a rule there."""
    shape = cell()
    body = {"lossy": False, "gpus": 1, "evidence": "more vae_decoder_calls", "engines": {"noop": {}}}
    bodies = {name: {"summary": name, **body} for name in names}
    key = stored.key_of(names)
    changed = {"features": names, "config": {**shape.config, "feature": bodies}}
    return dataclasses.replace(shape, key=key, origin=key, label="+".join(names), **changed)


def row(of: Cell, status: str = "PASS", speedup: float = 1.5, mean_diff: float = 0.0, max_diff: float = 0.0) -> dict:
    told = {"findings": [Finding("made_up", "", status)], "notes": [], "speedup": speedup, "status": status}
    return {"cell_key": of.key, **told, "mean_diff": mean_diff, "max_diff": max_diff}


def skipping(skipped: int, run: int) -> tuple[RankEvidence, ...]:
    return (RankEvidence(0, 16, 8, run, skipped, 16, 9),)


def judged(rows: list[dict], cells: list[Cell], evidence: dict | None = None, floors: dict | None = None) -> dict:
    """The last row once all are judged, with its status, the codes that decided it, and those of its notes."""
    found = {key: [Executed((ranks,))] for key, ranks in (evidence or {}).items()}
    combinations.judge(rows, {one.key: one for one in cells}, lambda key: found.get(key, []), floors or {})
    last = rows[-1]
    grave = deciding(last["findings"])
    return last | {"status": grave[0].status, "code": grave[0].code, "noted": [note.code for note in last["notes"]]}


def test_the_gain_is_the_pair_over_the_product_of_its_members(tmp_path: Path) -> None:
    made = stored.many_cells(4)
    cache, slicing = (next(c for c in made.cells if c.features == (name,)) for name in ("cache_dit", "vae_slicing"))
    both = dataclasses.replace(
        cache,
        key="f" * 16,
        origin="f" * 16,
        label="cache_dit+vae_slicing b1",
        features=("cache_dit", "vae_slicing"),
        config={**cache.config, "feature": {**cache.config["feature"], **slicing.config["feature"]}},
    )
    plan = build_plan([*made.cells, both])
    folder = stored.store(tmp_path, plan)
    rows = {found["cell"]: found for found in summarise(folder, plan, folder.load_results(plan)).rows}
    expected = rows[both.label]["speedup"] / rows[cache.label]["speedup"] / rows[slicing.label]["speedup"]
    assert rows[both.label]["interaction_gain"] == pytest.approx(expected)
    assert rows[cache.label].get("interaction_gain") is None


@pytest.mark.parametrize("status", ["PASS", "WARN"])
def test_a_cache_does_not_hide_what_a_lossless_feature_loses(status: str) -> None:
    """Its gate would allow 0.02; ring alone may not differ by 0.0083."""
    cells = [cell(TWO_RANKS), cell(CACHE), cell(TWO_RANKS, CACHE)]
    rows = [row(cells[0], "FAIL", 1.56, 0.0083, 0.153), row(cells[1], mean_diff=0.01), row(cells[2], status, 3.7, 0.02)]
    found = judged(rows, cells)
    assert found["status"] == "FAIL"
    assert found["code"] == "member_fails"


@pytest.mark.parametrize(
    ("single", "floor"),
    [
        (row(cell(TWO_RANKS), "FAIL"), Pixels()),  # did not engage alone, say: no pixel is lost
        (row(cell(TWO_RANKS), "PASS", 1.1, 0.0026, 0.02), Pixels()),  # the order of sums
        (row(cell(TWO_RANKS), "PASS", 1.1, 0.0083, 0.153), Pixels(0.01, 0.2)),  # two baselines differ as much
        (row(cell(TWO_RANKS, baseline="of another batch"), "FAIL", 1.1, 0.0083, 0.153), Pixels()),
    ],
)
def test_what_a_member_does_not_lose_alone_is_no_loss(single: dict, floor: Pixels) -> None:
    other = single["cell_key"] if single["status"] == "FAIL" and single["mean_diff"] else ""
    alone = cell(TWO_RANKS, baseline="of another batch") if other else cell(TWO_RANKS)
    cells = [alone, cell(CACHE), cell(TWO_RANKS, CACHE)]
    floors = {("tiny_glm_image", "diffusers"): floor}
    assert judged([single, row(cells[1]), row(cells[2], mean_diff=0.02)], cells, floors=floors)["status"] == "PASS"


def tiles(count: int) -> tuple[RankEvidence, ...]:
    (one,) = skipping(0, 64)
    return (structs.replace(one, counts={"vae_decoder_calls": count}),)


@pytest.mark.parametrize(
    ("together", "status", "silent"),
    [
        (18, "PASS", ""),  # 9 tiles of each of two images
        (9, "FAIL", "vae_slicing"),
        (2, "FAIL", "vae_tiling"),
    ],
)
def test_what_one_feature_counts_is_no_evidence_of_another(together: int, status: str, silent: str) -> None:
    """Slicing decodes two images one by one, tiling a batch in nine tiles: either raises the calls of the decoder."""
    names = ("vae_slicing", "vae_tiling")
    cells = [vllm_cell(name) for name in (*(names[:1],), *(names[1:],), names)]
    evidence = dict(zip((one.key for one in cells), (tiles(2), tiles(9), tiles(together)), strict=True))
    found = judged([row(one) for one in cells], cells, evidence)
    assert found["status"] == status
    grave = deciding(found["findings"])
    assert [(one.code, one.text.split()[0]) for one in grave if silent] == [("not_engaged", silent)] * bool(silent)


def test_a_lossy_feature_is_judged_by_the_combination_s_own_images() -> None:
    cells = [cell(TWO_RANKS), cell(CACHE), cell(TWO_RANKS, CACHE)]
    rows = [row(cells[0]), row(cells[1], "FAIL", mean_diff=0.4, max_diff=0.9), row(cells[2], mean_diff=0.01)]
    assert judged(rows, cells)["status"] == "PASS"


@pytest.mark.parametrize(("skipped", "noted"), [(14, ["skips_less"]), (40, [])])
def test_a_cache_that_skips_less_in_company_is_a_note(skipped: int, noted: list[str]) -> None:
    cells = [cell("cfg_parallel"), cell(CACHE), cell("cfg_parallel", CACHE)]
    evidence = {cells[1].key: skipping(43, 57), cells[2].key: skipping(skipped, 100 - skipped)}
    found = judged([row(one) for one in cells], cells, evidence)
    assert (found["noted"], found["status"]) == (noted, "PASS")


def test_without_its_members_a_combination_stays_as_it_is() -> None:
    both = cell(TWO_RANKS, CACHE)
    found = judged([row(both)], [both])
    assert found["interaction_gain"] is None
    assert (found["status"], found["noted"]) == ("PASS", [])
