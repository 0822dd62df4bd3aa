"""Where the shipped features engaged: each of them on one rank of two, in the warm-up alone, in some of the batches."""

import dataclasses
import functools

import pytest
from msgspec import structs

from profiling.evidence import RankEvidence
from sweep.analysis import engagement, status
from sweep.analysis.engagement import NOT_ENGAGED, PARTLY_ENGAGED, Executed, executed
from sweep.analysis.evidence import counted
from sweep.analysis.pixel_gates import Pixels
from sweep.config.feature import Feature
from sweep.findings import FAIL, PASS, WARN, Finding, status_of
from sweep.plan.features import parse_features
from sweep.results.records import DONE, BatchRow, RunResult
from tests import stored

PLAIN = RankEvidence(
    0, dit_forwards=16, denoise_steps=8, blocks_run=64, blocks_skipped=0, block_sequence=64, dit_parameters=1000
)
SHOWN = {
    "cfg_parallel": {"dit_forwards": 8},
    "teacache": {"blocks_skipped": 20},
    "cache_dit": {"blocks_skipped": 20},
    "ulysses": {"block_sequence": 32},
    "ring": {"block_sequence": 32},
    "tp": {"dit_parameters": 600},
    "vae_slicing": {"settings": {"vae_slicing": "on"}},
    "attention": {"settings": {"attention_backend": "_native_math"}},
}
"""What each feature leaves on a rank where it engaged, by the rules in its file."""

BASELINE = Executed(((structs.replace(PLAIN, settings={"attention_backend": "native"}),),) * 4)


@functools.cache
def feature(name: str) -> Feature:
    (found,) = parse_features(stored.template(name).config["feature"])
    return found


def batch(name: str, *engaged: bool) -> tuple[RankEvidence, ...]:
    """A batch on as many ranks as there are arguments, each of which says whether the feature engaged on that rank."""
    left = structs.replace(PLAIN, settings={"vae_slicing": "off", "attention_backend": "native"})
    return tuple(structs.replace(left, rank=r, **(SHOWN[name] if on else {})) for r, on in enumerate(engaged))


ON, OFF = (True, True), (False, False)


def where(name: str, *starts: Executed) -> Finding | None:
    """The finding about engagement, if there is one."""
    found = status.judge([feature(name)], starts, BASELINE, Pixels())
    assert status_of(found) != PASS or found[0].code == "engaged"
    return next((one for one in found if one.status != PASS), None)


def run(name: str, *batches: tuple[bool, ...], warm_up: tuple[bool, ...] = ON) -> Executed:
    return Executed(tuple(batch(name, *one) for one in batches), (batch(name, *warm_up),))


@pytest.mark.parametrize("name", SHOWN)
def test_a_feature_counts_where_it_engaged(name: str) -> None:
    assert where(name, run(name, ON, ON, ON, ON)) is None

    one_rank = where(name, run(name, *[(True, False)] * 4))
    assert one_rank
    assert (one_rank.status, one_rank.code) == (FAIL, NOT_ENGAGED)
    assert "on rank 0 but not on rank 1" in one_rank.text
    assert one_rank.text.startswith(f"{name} ")
    other = where(name, run(name, *[(False, True)] * 4))
    assert other
    assert (other.status, "on rank 1 but not on rank 0" in other.text) == (FAIL, True)

    warm_up_alone = where(name, run(name, OFF, OFF, OFF, OFF))
    assert warm_up_alone
    assert (warm_up_alone.status, warm_up_alone.code) == (FAIL, NOT_ENGAGED)
    assert "in the warm-up alone" in warm_up_alone.text
    nowhere = where(name, run(name, OFF, OFF, warm_up=OFF))
    assert nowhere
    assert (nowhere.status, "warm-up" in nowhere.text) == (FAIL, False)

    some = where(name, run(name, ON, ON, ON, OFF))
    assert some
    assert (some.status, some.code) == (WARN, PARTLY_ENGAGED)
    assert some.text.startswith(f"{name} engaged in 3 of 4 batches (not in batch 4)")
    one = where(name, run(name, OFF, OFF, ON, OFF))
    assert one
    assert (one.status, "engaged in 1 of 4 batches (in batch 3)" in one.text) == (WARN, True)
    on_a_rank = where(name, run(name, ON, ON, ON, (True, False)))
    assert on_a_rank
    assert (on_a_rank.status, "(not in batch 4 on rank 1)" in on_a_rank.text) == (WARN, True)

    twice = where(name, run(name, ON, ON, ON, ON), run(name, ON, ON, ON, OFF))
    assert twice
    assert (twice.status, twice.text.startswith("engine start 2 of 2: ")) == (WARN, True)
    dead = where(name, run(name, ON, ON, ON, OFF), run(name, OFF, OFF, OFF, OFF))
    assert dead
    assert (dead.status, dead.text.startswith("engine start 2 of 2: ")) == (FAIL, True), "the graver one is said"


def test_one_batch_of_twelve_and_repeats_of_the_same_requests() -> None:
    """Batches of repeats are named by what was sent and how often it was sent before."""
    twelve = [ON if number == 6 else OFF for number in range(12)]
    assert "in 1 of 12 batches (in batch 7)" in where("teacache", run("teacache", *twelve)).text  # type: ignore[union-attr]
    ran = run("teacache", *[ON, ON, ON, OFF] * 3)
    repeated = dataclasses.replace(ran, repeats=(0,) * 4 + (1,) * 4 + (2,) * 4)
    assert "in 9 of 12 batches (not in batch 4 of every repeat)" in where("teacache", repeated).text  # type: ignore[union-attr]
    once = dataclasses.replace(run("teacache", *[ON] * 7, OFF), repeats=(0,) * 4 + (1,) * 4)
    assert "in 7 of 8 batches (not in batch 4 of repeat 2)" in where("teacache", once).text  # type: ignore[union-attr]
    many = where("teacache", run("teacache", *[ON, OFF] * 20))
    assert many
    assert len(many.text) < 200


def test_ranks_that_take_turns_are_told_apart_from_batches() -> None:
    turns = where("teacache", run("teacache", (True, False), (False, True)))
    assert turns
    assert (turns.status, "0 of 2" in turns.text, "batches 1 and 2" in turns.text) == (WARN, False, True)


def test_a_lost_branch_is_a_rank_without_forwards() -> None:
    """Half of the forwards on one rank, none on the other: the second guidance branch ran nowhere."""
    lost = tuple(structs.replace(PLAIN, rank=rank, dit_forwards=forwards) for rank, forwards in ((0, 8), (1, 0)))
    found = where("cfg_parallel", Executed((lost,) * 4))
    assert found
    assert (found.status, "not on rank 1: 0 DiT forwards" in found.text) == (FAIL, True)


def test_no_start_no_evidence_and_a_batch_without_are_not_engaged() -> None:
    for nothing in ((), (Executed(),), (Executed(((), ())),)):
        found = where("teacache", *nothing)
        assert found
        assert (found.status, found.code) == (FAIL, NOT_ENGAGED), nothing
    unseen = where("teacache", Executed((batch("teacache", True), (), batch("teacache", True))))
    assert unseen
    assert (unseen.status, "(not in batch 2)" in unseen.text) == (WARN, True)


@pytest.mark.parametrize(
    ("name", "ranks"),
    [
        ("teacache", [{"blocks_skipped": 40}, {"blocks_skipped": 8}]),  # branches skip what they can
        ("ulysses", [{"block_sequence": 33}, {"block_sequence": 31}]),  # 64 tokens do not always divide
        ("ring", [{"block_sequence": 40}, {"block_sequence": 24}]),  # padded to what the kernel wants
        ("tp", [{"dit_parameters": 700}, {"dit_parameters": 500}]),  # what cannot be split lies on each
        ("cfg_parallel", [{"dit_forwards": 8}, {"dit_forwards": 8, "denoise_steps": 0}]),  # its steps were not counted
    ],
)
def test_uneven_ranks_are_no_false_alarm(name: str, ranks: list[dict]) -> None:
    uneven = tuple(structs.replace(PLAIN, rank=rank, **changes) for rank, changes in enumerate(ranks))
    assert where(name, Executed((uneven, uneven[:2]))) is None


def test_a_count_of_work_that_one_rank_does_alone_is_asked_of_that_rank() -> None:
    """Where only rank 0 decodes images, rank 1 has no decoder calls to raise; but it must have quantised layers."""
    base, tiles = {"vae_decoder_calls": 1, "quantized_layers": 0}, {"vae_decoder_calls": 9, "quantized_layers": 4}
    before = (structs.replace(PLAIN, counts=base),)
    ranks = tuple(
        structs.replace(PLAIN, rank=rank, counts=counts)
        for rank, counts in enumerate((tiles, {"vae_decoder_calls": 0, "quantized_layers": 0}))
    )
    assert not any(counted("more vae_decoder_calls", ranks, before).values())
    found = counted("more quantized_layers", ranks, before)
    assert found[0] is None
    assert found[1] is not None
    assert all(counted("more vae_decoder_calls", ranks[1:], before).values()), "one rank must"


def test_evidence_of_a_stored_result_is_kept_by_batch_and_with_its_warm_up() -> None:
    rows = [BatchRow(number, number // 2, 1.0, {}, {}, (PLAIN,)) for number in range(4)]
    result = RunResult("key", "label", DONE, batches=tuple(rows), warm_up=((PLAIN,),))
    again = RunResult.from_bytes(result.to_bytes())
    assert executed(again) == Executed(((PLAIN,),) * 4, ((PLAIN,),), (0, 0, 1, 1))


def test_a_batch_is_compared_with_the_same_batch() -> None:
    """A baseline whose last batch is smaller decodes less in it."""
    counts = [{"vae_decoder_calls": number} for number in (1, 4)]
    other = Executed(tuple((structs.replace(PLAIN, counts=one),) for one in counts))
    ran = Executed(tuple((structs.replace(PLAIN, counts={"vae_decoder_calls": n}),) for n in (2, 8)))
    check = functools.partial(counted, "more vae_decoder_calls")
    assert engagement.judge("tiles", [ran], other, check) is None
    assert engagement.judge("tiles", [Executed(ran.batches[:1])], other, check), "then with all of them"
