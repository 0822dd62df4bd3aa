"""Places for replies in shared memory: none overlaps another that is still in use, whatever their sizes."""

import random
from collections import deque

import pytest

pytest.importorskip("aiohttp")

from sweep.run.client.lookers import Ring


@pytest.mark.parametrize("seed", range(20))
def test_no_two_replies_share_a_byte(seed: int) -> None:
    rng, ring, held = random.Random(seed), Ring(100), deque[tuple[int, int]]()
    full = 0
    for _ in range(2000):
        length = rng.randrange(0, 60)
        begin = ring.take(length)
        if begin is None:
            full += 1
            assert held, "an empty ring takes whatever fits"
            held.popleft()
            ring.free()
            continue
        assert 0 <= begin <= 100 - length
        for other, end in held:
            assert begin + length <= other or begin >= end or length == 0 or other == end
        held.append((begin, begin + length))
        if rng.random() < 0.3:
            held.popleft()
            ring.free()
    assert full > 100


def test_what_can_never_be_held_is_refused() -> None:
    ring = Ring(10)
    assert ring.take(10) == 0
    assert ring.take(1) is None
    with pytest.raises(ValueError, match="11 bytes"):
        ring.take(11)
