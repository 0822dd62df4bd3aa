"""Status rules with plain numbers: no engine, no files."""

import dataclasses
import math

import pytest
from msgspec import structs

from profiling.evidence import RankEvidence
from sweep.analysis import status, summary
from sweep.analysis.engagement import Executed
from sweep.analysis.evidence import describe_evidence, not_engaged, total_evidence
from sweep.analysis.pixel_gates import Pixels
from sweep.config.feature import LOSSLESS_GATE, LOSSY_GATE, Feature, Gate
from sweep.findings import FAIL, PASS, WARN, Finding, deciding, status_of, texts

BASE = (
    RankEvidence(
        0, dit_forwards=20, denoise_steps=10, blocks_run=80, blocks_skipped=0, block_sequence=64, dit_parameters=1000
    ),
)
CFG = Feature(name="cfg_parallel", gpus=2, evidence="fewer_forwards_per_rank")
CACHE = Feature(name="teacache", lossy=True, evidence="skipped_blocks", gate=Gate(**LOSSY_GATE))
SP = Feature(name="ulysses", gpus=2, evidence="sharded_sequence", gate=Gate(**LOSSLESS_GATE))
TP = Feature(name="tp", gpus=2, evidence="sharded_parameters")
SKIPPING = (structs.replace(BASE[0], blocks_skipped=4),)
SAME = Pixels(0.0, 0.0)
ATTENTION = Feature(name="attention", evidence="attention_backend", options={"backend": "flash"})


def judge(features, starts, baseline, *further, **options) -> list[Finding]:
    """Engine starts of one batch each."""
    return status.judge(features, [Executed((ranks,)) for ranks in starts], Executed((baseline,)), *further, **options)


def status_for(*arguments, **options) -> str:
    return status_of(judge(*arguments, **options))


def code(*arguments) -> str:
    """Why a feature did not engage; "" when it did."""
    found = not_engaged(*arguments)
    return found.code if found else ""


def ranks(**changes: int) -> tuple[RankEvidence, ...]:
    return tuple(structs.replace(BASE[0], rank=rank, **changes) for rank in range(2))


def counted(ranks: int = 1, **counts: int) -> tuple[RankEvidence, ...]:
    return tuple(structs.replace(BASE[0], rank=rank, counts=counts) for rank in range(ranks))


def on(backend: str) -> tuple[RankEvidence, ...]:
    return (structs.replace(BASE[0], settings={"attention_backend": backend}),)


def test_half_the_forwards_on_two_ranks_is_engaged() -> None:
    (found,) = judge([CFG], [ranks(dit_forwards=10)], BASE, SAME)
    assert (found.status, found.code) == (PASS, "engaged")


@pytest.mark.parametrize(("seen", "expected"), [(16, PASS), (18, PASS), (32, FAIL)])
def test_two_features_that_cut_the_sequence_cut_it_in_four(seen: int, expected: str) -> None:
    """Half is what one of them does; a part may be padded."""
    ring = dataclasses.replace(SP, name="ring")
    four = tuple(structs.replace(BASE[0], rank=rank, block_sequence=seen) for rank in range(4))
    assert status_for([ring, SP], [four], BASE, SAME) == expected


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
    found = deciding(judge([feature], [evidence], BASE, SAME, "faster"))
    assert [(one.status, one.code) for one in found] == [(FAIL, "not_engaged")]
    assert found[0].text.startswith(feature.name)


def test_every_member_of_a_combination_must_engage() -> None:
    (found,) = judge([CFG, CACHE], [ranks(dit_forwards=10)], BASE, SAME)
    assert (found.status, found.code) == (FAIL, "not_engaged")
    assert found.text.startswith("teacache")


def test_it_must_engage_in_every_start() -> None:
    assert status_for([CFG], [ranks(dit_forwards=10), ranks()], BASE, SAME) == FAIL


def test_shards_are_evidence() -> None:
    assert not_engaged(SP, ranks(block_sequence=32), BASE) is None
    assert not_engaged(TP, ranks(dit_parameters=600), BASE) is None


def test_attention_must_run_on_the_back_end_asked_for_and_not_on_the_baselines() -> None:
    assert not_engaged(ATTENTION, on("flash"), on("native")) is None
    assert not_engaged(ATTENTION, on("FLASH"), on("native")) is None, "either case is one name"
    assert code(ATTENTION, on("flash"), on("flash")) == "other_attention", "the baseline's is the same"
    assert code(ATTENTION, on("flash,native"), on("native")) == "other_attention"


MORE = Feature(name="fp8", lossy=True, evidence="more quantized_layers")
FEWER = Feature(name="cpu_offload", evidence="fewer resident_parameters")


def test_more_than_the_baseline_counted_is_evidence() -> None:
    assert not_engaged(MORE, counted(quantized_layers=240), counted(quantized_layers=0)) is None
    assert not_engaged(MORE, counted(quantized_layers=240), BASE) is None, "the baseline has none to count"
    same = not_engaged(MORE, counted(quantized_layers=1240), counted(quantized_layers=1240))
    assert same is not None
    assert same.code == "count_unchanged"
    assert "1,240" in same.text
    assert code(MORE, BASE, counted(quantized_layers=4)) == "count_unchanged"
    assert code(MORE, BASE, BASE) == "not_counted"


def test_fewer_than_the_baseline_counted_is_evidence_only_where_the_cell_counted() -> None:
    assert not_engaged(FEWER, counted(resident_parameters=60), counted(resident_parameters=100)) is None
    assert not_engaged(FEWER, counted(resident_parameters=0), counted(resident_parameters=100)) is None
    assert code(FEWER, counted(resident_parameters=100), counted(resident_parameters=100)) == "count_unchanged"
    assert code(FEWER, BASE, counted(resident_parameters=100)) == "not_counted"
    assert code(FEWER, counted(resident_parameters=60), ()) == "unverifiable"


def test_counts_are_those_of_the_rank_with_most() -> None:
    uneven = (*counted(resident_parameters=10), *counted(resident_parameters=100))
    assert not_engaged(FEWER, uneven, counted(resident_parameters=100)), "one rank still holds everything"
    assert "quantized_layers 240" in describe_evidence(counted(2, quantized_layers=240))


def test_a_comparison_without_a_name_is_no_rule() -> None:
    for rule in ("more", "fewer ", "less quantized_layers"):
        assert code(Feature(name="x", evidence=rule), counted(quantized_layers=1), BASE) == "unknown_rule"


def test_a_combination_needs_the_ranks_of_all_and_shared_ranks_once() -> None:
    shards = Feature(name="hsdp", gpus=2, shares_ranks=True, evidence="sharded_parameters")
    assert status_for([CFG, shards], [ranks(dit_forwards=10, dit_parameters=500)], BASE, SAME) == PASS, (
        "they share ranks"
    )
    assert code(shards, (structs.replace(BASE[0], dit_parameters=500),), BASE) == "too_few_ranks"
    two = deciding(judge([CFG, SP], [ranks(dit_forwards=10, block_sequence=32)], BASE, SAME))
    assert [(one.status, one.code) for one in two] == [(FAIL, "not_engaged")]
    assert {"cfg_parallel", "ulysses", "2", "4"} <= set(two[0].text.split())


def test_no_baseline_to_compare_with_is_a_warning() -> None:
    assert status_for([CFG], [ranks(dit_forwards=10)], (), None) == WARN
    assert status_for([CACHE], [SKIPPING], (), None) == PASS


@pytest.mark.parametrize(("mean_diff", "expected"), [(0.01, PASS), (0.15, WARN), (0.3, FAIL)])
def test_lossy_gate(mean_diff: float, expected: str) -> None:
    assert status_for([CACHE], [SKIPPING], BASE, Pixels(mean_diff, 0.9)) == expected


@pytest.mark.parametrize(
    ("mean_diff", "max_diff", "expected"), [(0.0023, 0.0196, PASS), (0.02, 0.02, FAIL), (0.001, 0.5, FAIL)]
)
def test_lossless_gate_leaves_room_for_reduction_order_only(mean_diff: float, max_diff: float, expected: str) -> None:
    assert status_for([SP], [ranks(block_sequence=32)], BASE, Pixels(mean_diff, max_diff)) == expected


def test_what_two_runs_of_the_baseline_differ_by_is_no_loss() -> None:
    floor = Pixels(0.04, 0.6)
    assert status_for([SP], [ranks(block_sequence=32)], BASE, Pixels(0.041, 0.61), floor=floor) == PASS
    assert status_for([SP], [ranks(block_sequence=32)], BASE, Pixels(0.05, 0.61), floor=floor) == FAIL
    assert status_for([CACHE], [SKIPPING], BASE, Pixels(0.13, 0.9), floor=floor) == PASS


@pytest.mark.parametrize("feature", [SP, CACHE])
@pytest.mark.parametrize(
    ("pixels", "floor"),
    [
        (Pixels(math.nan, 0.0), SAME),
        (Pixels(0.0, math.nan), SAME),
        (Pixels(math.inf, 0.0), SAME),
        (Pixels(0.001, 0.01), Pixels(math.nan, math.nan)),
    ],
)
def test_a_difference_that_is_not_a_number_never_passes(feature: Feature, pixels: Pixels, floor: Pixels) -> None:
    evidence = tuple(structs.replace(one, blocks_skipped=4) for one in ranks(block_sequence=32))
    assert status_for([feature], [evidence], BASE, SAME) == PASS
    assert status_for([feature], [evidence], BASE, pixels, floor=floor) == FAIL


def test_a_speed_up_without_a_verdict_is_said_with_why() -> None:
    why = Finding("noise_unknown", "no A/A run")
    found = judge([CFG], [ranks(dit_forwards=10)], BASE, SAME, unjudged=why)
    assert [(one.status, one.code) for one in found] == [(PASS, "engaged"), (PASS, "speed_not_judged")]
    assert "no A/A run" in texts(deciding(found))
    silent = judge([CFG], [ranks()], BASE, SAME, unjudged=why)
    assert [one.code for one in silent] == ["not_engaged", "speed_not_judged"]


def test_slower_beyond_the_noise_is_a_warning() -> None:
    assert status_for([CFG], [ranks(dit_forwards=10)], BASE, SAME, "slower") == WARN
    assert status_for([CFG], [ranks(dit_forwards=10)], BASE, SAME, "no difference") == PASS


def test_totals_add_counts_and_keep_maxima() -> None:
    (total,) = total_evidence([BASE, BASE])
    assert (total.dit_forwards, total.denoise_steps, total.block_sequence) == (40, 20, 64)


def test_a_sweep_that_did_not_get_to_all_its_cells_ends_with_1() -> None:
    for ended, code in (("PASS", 0), ("WARN", 0), ("SKIP", 0), ("NOT RUN", 1), ("FAIL", 1), ("ERROR", 1)):
        assert summary.exit_code([{"status": "PASS"}, {"status": ended}]) == code
