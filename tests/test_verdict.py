"""Status rules with plain numbers: no engine, no files."""

import dataclasses

import pytest

from sweep.config import Feature
from sweep.engines.base import RankEvidence
from sweep.verdict import FAIL, PASS, WARN, Pixels, judge, not_engaged, total_evidence

BASE = (
    RankEvidence(
        0, dit_forwards=20, denoise_steps=10, blocks_run=80, blocks_skipped=0, block_sequence=64, dit_parameters=1000
    ),
)
CFG = Feature(name="cfg_parallel", gpus=2, evidence="fewer_forwards_per_rank")
CACHE = Feature(name="teacache", lossy=True, evidence="skipped_blocks")
SP = Feature(name="ulysses", gpus=2, evidence="sharded_sequence")
TP = Feature(name="tp", gpus=2, evidence="sharded_parameters")
SKIPPING = (dataclasses.replace(BASE[0], blocks_skipped=4),)
SAME = Pixels(0.0, 0.0)
ATTENTION = Feature(name="attention", evidence="attention_backend", options={"backend": "flash"})


def ranks(**changes: int) -> tuple[RankEvidence, ...]:
    return tuple(dataclasses.replace(BASE[0], rank=rank, **changes) for rank in range(2))


def on(backend: str) -> tuple[RankEvidence, ...]:
    return (dataclasses.replace(BASE[0], settings={"attention_backend": backend}),)


def test_half_the_forwards_on_two_ranks_is_engaged() -> None:
    verdict = judge([CFG], [ranks(dit_forwards=10)], BASE, SAME)
    assert (verdict.status, verdict.reason) == (PASS, "engaged, images identical")


@pytest.mark.parametrize(
    ("feature", "evidence"),
    [
        (CFG, ranks()),
        (CFG, BASE),
        (CACHE, BASE),
        (SP, ranks()),
        (TP, ranks()),
        (CACHE, ()),
        (ATTENTION, BASE),
        (Feature(name="x", evidence="no such rule"), BASE),
    ],
)
def test_feature_that_never_engaged_fails_even_with_fine_pixels(feature: Feature, evidence) -> None:
    verdict = judge([feature], [evidence], BASE, SAME, "faster")
    assert verdict.status == FAIL
    assert "did not engage" in verdict.reason


def test_every_member_of_a_combination_must_engage() -> None:
    verdict = judge([CFG, CACHE], [ranks(dit_forwards=10)], BASE, SAME)
    assert verdict.status == FAIL
    assert verdict.reason.startswith("teacache did not engage")


def test_it_must_engage_in_every_start() -> None:
    assert judge([CFG], [ranks(dit_forwards=10), ranks()], BASE, SAME).status == FAIL


def test_shards_are_evidence() -> None:
    assert not_engaged(SP, ranks(block_sequence=32), BASE) == ""
    assert not_engaged(TP, ranks(dit_parameters=600), BASE) == ""


def test_attention_must_run_on_the_back_end_asked_for_and_not_on_the_baselines() -> None:
    assert not_engaged(ATTENTION, on("flash"), on("native")) == ""
    assert "as in the baseline" in not_engaged(ATTENTION, on("flash"), on("flash"))
    assert (
        not_engaged(ATTENTION, on("flash,native"), on("native")) == "attention ran on flash,native; flash was asked for"
    )


def test_no_baseline_to_compare_with_is_a_warning() -> None:
    assert judge([CFG], [ranks(dit_forwards=10)], (), None).status == WARN
    assert judge([CACHE], [SKIPPING], (), None).status == PASS


@pytest.mark.parametrize(("mean_diff", "status"), [(0.01, PASS), (0.15, WARN), (0.3, FAIL)])
def test_lossy_gate(mean_diff: float, status: str) -> None:
    assert judge([CACHE], [SKIPPING], BASE, Pixels(mean_diff, 0.9)).status == status


@pytest.mark.parametrize(
    ("mean_diff", "max_diff", "status"), [(0.0023, 0.0196, PASS), (0.02, 0.02, FAIL), (0.001, 0.5, FAIL)]
)
def test_lossless_gate_leaves_room_for_reduction_order_only(mean_diff: float, max_diff: float, status: str) -> None:
    assert judge([SP], [ranks(block_sequence=32)], BASE, Pixels(mean_diff, max_diff)).status == status


def test_what_two_runs_of_the_baseline_differ_by_is_no_loss() -> None:
    floor = Pixels(0.04, 0.6)
    assert judge([SP], [ranks(block_sequence=32)], BASE, Pixels(0.041, 0.61), floor=floor).status == PASS
    assert judge([SP], [ranks(block_sequence=32)], BASE, Pixels(0.05, 0.61), floor=floor).status == FAIL
    assert judge([CACHE], [SKIPPING], BASE, Pixels(0.13, 0.9), floor=floor).status == PASS


def test_slower_beyond_the_noise_is_a_warning() -> None:
    assert judge([CFG], [ranks(dit_forwards=10)], BASE, SAME, "slower").status == WARN
    assert judge([CFG], [ranks(dit_forwards=10)], BASE, SAME, "no difference").status == PASS


def test_totals_add_counts_and_keep_maxima() -> None:
    (total,) = total_evidence([BASE, BASE])
    assert (total.dit_forwards, total.denoise_steps, total.block_sequence) == (40, 20, 64)
