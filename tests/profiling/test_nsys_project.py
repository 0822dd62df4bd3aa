"""Ranges laid over operations: every number against a count of single nanoseconds, on small random recordings."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_traces import PROCESS, THREAD, Written

from profiling.nsys import export, projection
from profiling.nsys.phase_analysis import Phase, analyse
from profiling.nsys.verdict import BOUNDS, judge, short, waiting

NAMES = ("matmul", "matmul", "norm", "ncclDevKernel_AllGather", "[copy]")


def made_at_random(path: Path, seed: int) -> Written:
    """Two processes, three threads, two streams each, nested ranges of a few names, graphs; launches late and early."""
    dice = random.Random(seed)
    written = Written(path)
    threads = [(PROCESS, THREAD), (PROCESS, THREAD + 1), (PROCESS + (1 << 24), THREAD + (1 << 24))]
    for process, thread in threads:
        clock, free = dice.randrange(50), [0, 0]
        for _ in range(dice.randrange(1, 40)):
            clock += dice.randrange(1, 12)
            graph = dice.random() < 0.15
            call = written.call(clock, clock + 2, "cudaGraphLaunch" if graph else "cudaLaunchKernel", thread)
            for _ in range(dice.randrange(1, 5) if graph else 1):
                stream = dice.randrange(2) if seed % 2 else 0  # every second recording has one stream
                start = max(free[stream], clock + 3 + dice.choice((0, 0, 0, 5)))
                free[stream] = start + dice.randrange(0 if seed % 5 == 0 else 1, 14)
                written.operation(call, start, free[stream], dice.choice(NAMES), process, stream)
            clock += 2
        for depth in range(3):
            at = 0
            while at < clock + 10:
                end = at + dice.randrange(5, 120 // (depth + 1))
                written.range(dice.choice(("request", "step", f"level {depth}")), at, end, thread)
                at = end + dice.randrange(1, 9)
    return written


def counted(found: export.Export, thread: int, start: int, end: int) -> dict[str, int]:
    """What a range is, by counting nanoseconds."""
    operations, calls = found.operations, found.calls
    order = sorted(
        (
            (int(calls.start[call]), int(operations.start[index]), index)
            for index, call in enumerate(operations.call.tolist())
            if call >= 0 and calls.thread[call] == thread
        )
    )
    inside = [index for called, _, index in order if start <= called <= end]
    if not inside:
        return {}
    begin, stop = int(operations.start[inside].min()), int(operations.end[inside].max())
    runs = {sort: np.zeros(stop - begin, bool) for sort in ("kernel", "communication", "copy")}
    for index in inside:
        runs[sort_of(found, index)][operations.start[index] - begin : operations.end[index] - begin] = True
    busy = runs["kernel"] | runs["communication"] | runs["copy"]
    late = np.zeros(stop - begin, bool)
    for at in np.flatnonzero(~busy).tolist():
        idle_since = max(int(operations.end[index]) for index in inside if operations.end[index] <= begin + at)
        following = min(
            (operations.start[index], rank, index)
            for rank, index in enumerate(inside)
            if operations.start[index] > begin + at
        )
        late[at] = calls.end[operations.call[following[2]]] >= idle_since
    return {
        "projected": stop - begin,
        "compute": int(runs["kernel"].sum()),
        "communication": int((runs["communication"] & ~runs["kernel"]).sum()),
        "copy": int((runs["copy"] & ~runs["kernel"] & ~runs["communication"]).sum()),
        "idle_for_host": int((~busy & late).sum()),
        "idle_otherwise": int((~busy & ~late).sum()),
        "launches": len({int(operations.call[i]) for i in inside}),
    }


def sort_of(found: export.Export, index: int) -> str:
    name = found.names[found.operations.name[index]]
    return "copy" if name.startswith("[") else "communication" if name.startswith("nccl") else "kernel"


@pytest.mark.parametrize("seed", range(40))
def test_every_range_is_what_counting_nanoseconds_says(seed: int, tmp_path: Path) -> None:
    found = export.read(made_at_random(tmp_path / "small.sqlite", seed).save())
    checked = 0
    for thread in projection.threads(found):
        mine = np.flatnonzero(found.ranges.thread == thread.thread)
        projected = projection.project(thread, found.ranges.start[mine], found.ranges.end[mine])
        for place, which in enumerate(mine.tolist()):
            expected = counted(found, thread.thread, int(found.ranges.start[which]), int(found.ranges.end[which]))
            if not expected:
                assert projected.projected[place] == 0
                continue
            told = dict(zip(projection.COLUMNS, projected.parts[place].tolist(), strict=True))
            told |= {"projected": int(projected.projected[place]), "launches": int(projected.launches[place])}
            assert told == expected
            checked += 1
    assert checked


@pytest.mark.parametrize("seed", range(10))
def test_kernels_of_a_phase_are_those_launched_in_it_each_once(seed: int, tmp_path: Path) -> None:
    """Ranges of one name lie in each other here; what both hold counts once."""
    found = export.read(made_at_random(tmp_path / "small.sqlite", seed).save())
    for phase in analyse(found, "small").phases:
        expected: dict[str, list[int]] = {}
        ranges = [
            (int(start), int(end), int(thread))
            for start, end, thread, name in zip(
                found.ranges.start, found.ranges.end, found.ranges.thread, found.ranges.name, strict=True
            )
            if name == phase.name and thread >> 24 & 0xFFFFFF == phase.process
        ]
        for index, call in enumerate(found.operations.call.tolist()):
            at, thread = int(found.calls.start[call]), int(found.calls.thread[call])
            if any(start <= at <= end and thread == own for start, end, own in ranges):
                lasting = int(found.operations.end[index] - found.operations.start[index])
                expected.setdefault(found.names[found.operations.name[index]], []).append(lasting)
        told = {kernel.name: (kernel.count, kernel.total_ns) for kernel in phase.kernels}
        assert told == {name: (len(lasts), sum(lasts)) for name, lasts in expected.items()}


def test_chunks_hold_all_ranges_once(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = np.array([3, 0, 9, 1, 1, 1, 5])
    for size in (1, 4, 6, 100):
        slices = projection.chunks(lengths, size)
        assert np.concatenate([np.arange(7)[one] for one in slices]).tolist() == list(range(7))
        assert all(lengths[one].sum() <= size or one.stop - one.start == 1 for one in slices)


def test_sweeping_in_chunks_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = export.read(made_at_random(tmp_path / "small.sqlite", 3).save())
    whole = analyse(found, "small")
    chunks = projection.chunks
    monkeypatch.setattr(projection, "chunks", lambda lengths: chunks(lengths, 2))
    assert analyse(found, "small") == whole


def phase(**values: int) -> Phase:
    sums = {name: 0 for name in Phase.__annotations__ if name not in ("name", "process", "domain", "kernels")}
    return Phase("step", 1, "", **(sums | values), kernels=())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "bound", "numbers"),
    [
        ({"compute_ns": 60, "idle_for_host_ns": 40}, "compute-bound", ["60%", "40%"]),
        (
            {"idle_for_host_ns": 59, "launches": 200, "late_launches": 198, "compute_ns": 41},
            "launch-bound",
            ["99%", "200 launches", "41%"],
        ),
        (
            {"communication_exposed_ns": 50, "communication_ns": 80, "compute_ns": 40},
            "communication-bound",
            ["56%", "38%", "100%"],
        ),
        (
            {"copy_exposed_ns": 50, "copy_ns": 50, "copied_bytes": 1000},
            "memory-copy-bound",
            ["100%", "1 kB", "20 GB/s"],
        ),
        ({"idle_otherwise_ns": 50, "compute_ns": 40}, "wait-bound", ["56%", "44%"]),
    ],
)
def test_the_largest_part_names_the_verdict(values: dict[str, int], bound: str, numbers: list[str]) -> None:
    parts = ("compute_ns", "communication_exposed_ns", "copy_exposed_ns", "idle_for_host_ns", "idle_otherwise_ns")
    found = judge(phase(projected_ns=sum(values.get(part, 0) for part in parts), **values))
    assert found.bound == bound
    assert bound in BOUNDS
    assert found.sentence.startswith(f"step is {bound}: ")
    assert [number for number in numbers if number not in found.sentence] == []


def test_other_parts_are_told_when_they_are_large() -> None:
    parts = {"compute_ns": 64, "idle_for_host_ns": 14, "communication_exposed_ns": 13, "copy_exposed_ns": 9}
    said = judge(phase(projected_ns=100, **parts)).sentence
    assert said.endswith("; also: waiting for the host 14%, communication 13%")


def test_a_process_that_waits_for_another_in_collectives_is_named() -> None:
    spent = phase(projected_ns=100_000_000, compute_ns=60_000_000)
    ranks = [replace(spent, process=number, communication_ns=ns) for number, ns in ((11, 38_000_000), (12, 16_000_000))]
    outer = [replace(one, name="outer", projected_ns=120_000_000) for one in ranks]
    (said,) = waiting([*outer, *ranks])
    assert said == (
        "step: communication takes 38.0 ms in process 11 and 16.0 ms in process 12; "
        "process 11 spends the difference waiting for process 12"
    )
    assert waiting([ranks[0]]) == waiting([ranks[0], replace(ranks[0], process=12)]) == []


def test_a_phase_without_gpu_work_has_no_verdict() -> None:
    assert judge(phase(host_ns=2_000_000)).bound == ""
    assert "2.0 ms" in judge(phase(host_ns=2_000_000)).sentence


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("void at::native::fill_kernel<4, at::Functor<float>>(int, T1)", "at::native::fill_kernel"),
        ("void at::native::<unnamed>::norm_kernel<T1>(T1)", "at::native::norm_kernel"),
        ("void (anonymous namespace)::softmax<float>(float*)", "softmax"),
        ("[memcpy Host-to-Device]", "[memcpy Host-to-Device]"),
        ("nvjet_sm90_tst", "nvjet_sm90_tst"),
        ("<lambda>", "<lambda>"),
    ],
)  # fmt: skip
def test_kernels_are_shown_without_their_arguments(name: str, shown: str) -> None:
    assert short(name) == shown
