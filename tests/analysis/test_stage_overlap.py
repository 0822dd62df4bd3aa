"""Seconds in which the AR stage and the DiT stage compute at once."""

import random

import pytest

from profiling.phases import PhaseRecord
from profiling.telemetry.samples import joined
from sweep.analysis.stage_overlap import Busy, busy, common


def phase(name: str, start_s: float, ms: float, gpu_ms: float | None = None, rank: int = 0) -> PhaseRecord:
    return PhaseRecord(rank, name, 0, start_s, ms, gpu_ms)


def test_one_request_after_another_overlaps_nowhere_and_the_next_one_beside_it_does() -> None:
    first = [phase("ar_prefill", 0.0, 1000), phase("ar_decode", 1.0, 1000), phase("denoise_step", 2.0, 2000)]
    assert busy(first) == Busy(2.0, 2.0, 0.0)
    beside = [phase("ar_prefill", 3.0, 500), phase("ar_decode", 3.5, 1500, rank=0), phase("vae_decode", 4.0, 250)]
    assert busy([*first, *beside]) == Busy(4.0, 2.25, 1.25)


def test_the_gpu_may_take_longer_than_the_host() -> None:
    found = busy([phase("ar_decode", 0.0, 10, 1000), phase("denoise_step", 0.5, 10, 1000)])
    assert found == Busy(1.0, 1.0, pytest.approx(0.5))


def test_one_stage_has_no_overlap_and_other_ranks_and_phases_do_not_count() -> None:
    assert busy([phase("denoise_step", 0.0, 10), phase("ar_decode", 0.0, 10, rank=1)]) is None
    assert busy([phase("ar_decode", 0.0, 10), phase("request", 0.0, 10), phase("stage_transfer", 0.0, 10)]) is None


@pytest.mark.parametrize("seed", range(50))
def test_seconds_in_both_are_those_that_counting_finds(seed: int) -> None:
    drawn = random.Random(seed)
    two = [[sorted(drawn.choices(range(30), k=2)) for _ in range(drawn.randrange(8))] for _ in range(2)]
    seconds = [{n for begin, end in one for n in range(begin, end)} for one in two]
    found = common(*(joined([(begin, end) for begin, end in one]) for one in two))
    assert sum(end - begin for begin, end in found) == len(seconds[0] & seconds[1])
