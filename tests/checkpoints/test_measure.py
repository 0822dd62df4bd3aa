"""The rules of the two caches, on changes made by hand, and the report on a real tiny DiT."""

from collections.abc import Callable
from pathlib import Path

import pytest

from sweep.checkpoints.measure import dbcache_skips, generate, load, relative_change, report, teacache_skips, traced


def test_dbcache_waits_for_warmup_and_never_skips_more_than_three_in_a_row() -> None:
    assert dbcache_skips(12, lambda full, step: 0.0) == [4, 5, 6, 8, 9, 10]
    assert dbcache_skips(12, lambda full, step: 0.24) == []


def test_dbcache_compares_with_the_last_full_step() -> None:
    assert dbcache_skips(12, lambda full, step: 0.1 * (step - full)) == [4, 5, 7, 8, 10, 11]
    asked: list[tuple[int, int]] = []
    dbcache_skips(8, lambda full, step: asked.append((full, step)) or 1.0)  # type: ignore[func-returns-value]
    assert asked == [(3, 4), (4, 5), (5, 6), (6, 7)]


def test_teacache_adds_up_rescaled_changes() -> None:
    # A change of 0.1 counts 0.085: two fit under 0.2.
    assert teacache_skips([0.1] * 6) == [1, 2, 4, 5]
    assert teacache_skips([0.3] * 6) == []


@pytest.mark.parametrize("model", ["qwen_image", "z_image"])
def test_a_random_dit_changes_like_a_trained_one(model: str, tiny: Callable[[str], Path]) -> None:
    pipeline = load(tiny(model), "float32")
    with traced(pipeline.transformer) as trace:
        pictures = [generate(pipeline, "a red fox", 64, 20)]
    pictures.append(generate(pipeline, "a bakery at dawn", 64, 20))
    steps = trace.steps(20)
    assert len(trace.residuals) == len(trace.inputs) == {"qwen_image": 40, "z_image": 20}[model]
    changes = [relative_change(a, b) for a, b in zip(steps.residuals[3:], steps.residuals[4:], strict=False)]
    assert min(changes) > 0.03
    assert max(changes) < 0.6
    assert max(relative_change(a, b) for a, b in zip(steps.residuals[:3], steps.residuals[1:4], strict=True)) > 0.2
    skipped = [line for line in report(steps, pictures).splitlines() if "skips" in line]
    counts = [int(line.split()[2]) for line in skipped]
    assert all(3 <= count <= 15 for count in counts), skipped
