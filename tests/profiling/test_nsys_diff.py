"""`diff A B`: which phases and kernels explain the difference."""

import json
import re
from pathlib import Path
from typing import Any

from small_traces import Written, profiling, refusal, unpacked

from profiling.nsys.diff import compare
from profiling.nsys.launches import Repeat, repeat_of

BLOCK = ("norm", "qkv", "attention", "proj", "norm", "up", "gelu", "down")


RING = ("norm", "qkv", "send", "attention", "merge", "receive", "proj", "norm", "up", "gelu", "down")


def denoised(path: Path, steps: list[int], requests: int = 2, block: tuple[str, ...] = BLOCK) -> Path:
    """A DiT whose forward runs embed, then so many blocks, then out; a step takes as long as it has kernels."""
    written = Written(path)
    at = 0
    for _ in range(requests):
        begin = at
        for blocks in steps:
            forward = at
            for name in ("embed", *block * blocks, "out"):
                written.launch(at, at + 10, at + 18, name)
                at += 10
            written.range("dit_forward", forward, at - 1)
            written.launch(at, at + 10, at + 18, "euler")
            at += 10
            written.range("denoise_step", forward, at - 1)
        written.range("request", begin, at - 1)
    return written.save()


def difference(a: Path, b: Path) -> dict[str, Any]:
    done = profiling("diff", a, b, "--format", "json")
    assert done.code == 0, done.err
    return json.loads(done.out)


def test_skipped_blocks_explain_what_a_cache_saves(tmp_path: Path) -> None:
    a = denoised(tmp_path / "baseline.sqlite", [6] * 5)
    b = denoised(tmp_path / "teacache.sqlite", [6, 0, 0, 6, 0], requests=3)
    found = difference(a, b)
    assert found["requests"] == [2, 3]
    phases = {one["phase"]: one for one in found["phases"]}
    saved = 3 * 6 * len(BLOCK)
    assert phases["dit_forward"]["change_ns"] == -10 * saved
    assert phases["denoise_step"]["ranges"] == [5, 5]
    assert sum(one["change_ns"] for one in found["kernels"]) == -8 * saved, "each kernel in one phase only"
    assert {one["phase"] for one in found["kernels"] if one["change_ns"]} == {"dit_forward"}
    (order,) = found["orders"]
    assert (order["missing"], order["of"], order["added"]) == (6 * len(BLOCK), 6 * len(BLOCK) + 2, 0)
    assert order["ranges"] == 9
    assert order["repeats"] == {"group": len(BLOCK), "times": 6}


def test_the_launch_order_and_the_largest_change_are_sentences(tmp_path: Path) -> None:
    a = denoised(tmp_path / "baseline.sqlite", [6] * 5)
    b = denoised(tmp_path / "teacache.sqlite", [6, 0, 0, 6, 0], requests=3)
    (order,) = compare(a, b).orders
    skipped = "48 are missing (a group of 8 repeated 6 times, like transformer blocks)"
    assert order.clause == f"9 of 15 ranges in B launch 2 operations instead of 50; {skipped}"
    assert order.sentence == f"dit_forward: {order.clause}"
    lines = profiling("diff", a, b).out.splitlines()
    assert f"  {order.sentence}" in lines
    assert lines[-1] == f"largest change: dit_forward, −1.4 µs, mostly kernels ({order.clause})"


def test_what_blocks_launch_in_addition_is_told_as_such(tmp_path: Path) -> None:
    a, b = denoised(tmp_path / "a.sqlite", [6] * 2), denoised(tmp_path / "b.sqlite", [6] * 2, block=RING)
    (order,) = difference(a, b)["orders"]
    assert (order["missing"], order["added"]) == (0, 3 * 6)
    assert order["added_repeats"] == {"group": 3, "times": 6}
    assert re.findall(r"\d+", order["sentence"]) == ["4", "4", "68", "50", "18", "3", "6"], "nothing about missing ones"


def test_a_trace_against_itself_has_no_difference(tmp_path: Path) -> None:
    trace = unpacked("glm_image_h200", tmp_path)
    found = difference(trace, trace)
    assert all(one["change_ns"] == 0 for kind in ("phases", "kernels") for one in found[kind])
    assert found["orders"] == []
    assert profiling("diff", trace, trace).out.splitlines()[-1] == "no phase changed on the GPU"


def test_recorded_traces_and_phases_that_only_one_has(tmp_path: Path) -> None:
    a, b = unpacked("vllm_omni_h200", tmp_path), unpacked("glm_image_h200", tmp_path)
    found = difference(a, b)
    phases = {one["phase"]: one for one in found["phases"]}
    assert phases["request"]["on_gpu_ns"] == [383_334_847 / 2, 127_026_642]
    assert phases["dit"]["ranges"] == [12, 8]
    assert "ar_decode" in found["alone"][1]
    assert phases["ar_decode"]["on_gpu_ns"] == [0, 119_157_855], "what only one has is a change too"
    largest = profiling("diff", a, b).out.splitlines()[-1]
    assert ("ar_decode" in largest, "+119.2 ms" in largest) == (True, True)
    assert not any("cub::" in phase for phase in phases), "libraries' own ranges are no phases"
    total = sum(one["total_ns"][0] for one in found["kernels"])
    assert abs(total * 2 / 332_504_351 - 1) < 0.01, "all that ran in A's requests"
    changes = [abs(one["change_ns"]) for one in found["kernels"]]
    assert changes == sorted(changes, reverse=True)


def test_nothing_in_common_is_refused(tmp_path: Path) -> None:
    a = denoised(tmp_path / "a.sqlite", [1])
    written = Written(tmp_path / "b.sqlite")
    written.range("something else", 0, 100)
    written.launch(10, 20, 30)
    b = written.save()
    done = profiling("diff", a, b)
    assert (done.code, len(done.err.splitlines())) == (2, 1)
    assert (str(a) in done.err, str(b) in done.err) == (True, True)
    assert refusal("diff", a, b) == "no_common_range"


def test_repeats_are_found_where_they_are() -> None:
    assert repeat_of(BLOCK * 5) == Repeat(8, 5)
    assert repeat_of(("a", "b", "c", "d", "e", "f", "g", "h")) is None
    mostly = list(BLOCK * 20)
    mostly[50] = "other"
    assert repeat_of(tuple(mostly)) == Repeat(8, 20)
