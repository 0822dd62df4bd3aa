"""Times, sizes, numbers and texts in a trace that cannot be true, and tables that are missing or named otherwise."""

import gzip
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_traces import (
    PROCESS,
    RECORDED,
    THREAD,
    Written,
    by_name,
    document_of,
    phases_of,
    profiling,
    refusal,
    simple,
    unpacked,
)

from profiling.nsys import export, plausible, sqlite_file

KERNEL, COPY, RUNTIME = (f"CUPTI_ACTIVITY_KIND_{name}" for name in ("KERNEL", "MEMCPY", "RUNTIME"))
IMPOSSIBLE: dict[str, tuple[object, object]] = {
    "not collected": (0, 0),
    "reversed": (45, 42),
    "float": (42.5, 45),
    "NULL": (None, 45),
    "NULL end": (42, None),
    "text": ("soon", 45),
    "blob": (b"\x00", 45),
    "negative": (-5, 45),
    "days later": (10**16, 10**16 + 5),
    "hours later": (5 * 10**13, 5 * 10**13 + 5),
    "huge": ((1 << 63) - 9, (1 << 63) - 1),
    "very negative": (-(1 << 63), -(1 << 63)),
}


def changed(path: Path, *statements: str, values: tuple[object, ...] = ()) -> Path:
    """A trace changed by SQL; its tables no longer require integers."""
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA synchronous = OFF")
        for table in (KERNEL, COPY, RUNTIME, "NVTX_EVENTS"):
            if database.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone():
                names = [f'"{row[1]}"' for row in database.execute(f"PRAGMA table_info({table})")]
                database.execute(f"CREATE TABLE free ({','.join(names)})")
                database.execute(f"INSERT INTO free SELECT * FROM {table}")
                database.execute(f"DROP TABLE {table}")
                database.execute(f"ALTER TABLE free RENAME TO {table}")
        for statement in statements:
            database.execute(statement, values if "?" in statement else ())
    database.close()
    return path


def numbers(path: Path) -> dict[str, dict[str, Any]]:
    """All numbers of all phases, without the trace's name."""
    return {name: {**phase, "trace": ""} for name, phase in by_name(phases_of(path)).items()}


def three(path: Path) -> Path:
    return simple(path, lambda written: written.launch(30, 42, 45))


@pytest.mark.parametrize("times", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_operations_with_impossible_times_are_left_out_and_counted(
    times: tuple[object, object], tmp_path: Path
) -> None:
    path = changed(three(tmp_path / "a.sqlite"), f'UPDATE {KERNEL} SET start=?, "end"=? WHERE start = 42', values=times)
    found, two = document_of(path), numbers(simple(tmp_path / "b.sqlite"))
    (request,) = found["phases"]
    assert {**request, "kernels": [], "name": "", "trace": ""} == {**two["request"], "kernels": [], "name": ""}
    assert found["traces"][0]["left_out"] == {"operations": 1}


@pytest.mark.parametrize("times", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_impossible_times_are_found_in_every_batch_that_is_read(
    times: tuple[object, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "BATCH_ROWS", 1)
    path = changed(three(tmp_path / "a.sqlite"), f'UPDATE {KERNEL} SET start=?, "end"=? WHERE start = 42', values=times)
    assert export.read(path).left_out == plausible.LeftOut(operations=1)


def test_damage_in_a_later_batch_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = unpacked("vllm_omni_h200", tmp_path)
    with sqlite3.connect(path) as database:
        database.execute(f"UPDATE {KERNEL} SET start = start + 1 WHERE rowid = 5000")  # the page that changes is late
    database.close()
    before, after = gzip.decompress((RECORDED / "vllm_omni_h200.sqlite.gz").read_bytes()), bytearray(path.read_bytes())
    size = int.from_bytes(before[16:18], "big")
    pages = [at for at in range(size, len(before), size) if before[at : at + size] != after[at : at + size]]
    for at in pages:
        after[at : at + size] = b"\x07" * size
    path.write_bytes(after)
    monkeypatch.setattr(sqlite_file, "BATCH_ROWS", 100)
    assert len(pages) == 1
    assert refusal("analyze", path) == "unreadable"


def test_what_is_left_out_is_said_in_every_format(tmp_path: Path) -> None:
    path = changed(three(tmp_path / "a.sqlite"), f'UPDATE {KERNEL} SET "end"=0 WHERE start = 42')
    said = "GPU operations left out, because their times are missing, reversed or outside the recording: 1"
    assert said in profiling("analyze", path).out.splitlines()
    assert profiling("analyze", path, "--format", "csv").err.splitlines() == [f"profiling: {path}: {said}"]


OF_THE_HOST = {name: times for name, times in IMPOSSIBLE.items() if name != "hours later"}  # a host may wait that long


@pytest.mark.parametrize("times", OF_THE_HOST.values(), ids=OF_THE_HOST)
def test_ranges_and_calls_with_impossible_times_are_left_out_and_counted(
    times: tuple[object, object], tmp_path: Path
) -> None:
    def more(written: Written) -> None:
        written.range("inner", 42, 45)
        written.range("other", 43, 45)
        written.call(42, 45)

    path = simple(tmp_path / "a.sqlite", more)
    changed(
        path,
        'UPDATE NVTX_EVENTS SET start=?, "end"=? WHERE start = 42',
        f'UPDATE {RUNTIME} SET start=?, "end"=? WHERE start = 42',
        values=times,
    )
    found = document_of(path)
    trace, phases = found["traces"][0], by_name(found["phases"])
    open_end = times[1] is None  # a range that recording ended before
    assert trace["still_open"] == int(open_end)
    assert trace["left_out"] == {"calls": 1} | ({} if open_end else {"ranges": 1})
    assert set(phases) == {"request", "other"}
    assert phases["request"]["projected_ns"] == 60


def test_kernels_without_times_do_not_change_what_a_recorded_request_took(tmp_path: Path) -> None:
    path = unpacked("vllm_omni_h200", tmp_path)
    changed(
        path,
        f'UPDATE {KERNEL} SET start=0, "end"=0 WHERE rowid IN '
        f"(SELECT rowid FROM {KERNEL} ORDER BY start LIMIT 3 OFFSET 3000)",
    )
    request = by_name(phases_of(path))["request"]
    assert (request["projected_ns"], request["verdict"]) == (383_334_847, "compute-bound")
    assert document_of(path)["traces"][0]["left_out"] == {"operations": 3}


def test_diff_says_what_is_left_out_of_which_trace(tmp_path: Path) -> None:
    good = three(tmp_path / "a.sqlite")
    bad = changed(three(tmp_path / "b.sqlite"), f'UPDATE {KERNEL} SET "end"=0 WHERE start = 42')
    lines = profiling("diff", good, bad).out.splitlines()
    said = "GPU operations left out, because their times are missing, reversed or outside the recording: 1"
    assert f"in B, {said}" in lines
    document = json.loads(profiling("diff", good, bad, "--format", "json").out)
    assert document["left_out"] == [{}, {"operations": 1}]
    assert "left_out" not in profiling("diff", good, good, "--format", "json").out


def test_a_whole_recording_may_be_shifted_below_zero(tmp_path: Path) -> None:
    path, day = unpacked("cuda_graph_node", tmp_path), 10**14
    before = numbers(path)
    changed(
        path, *(f'UPDATE {one} SET start=start-{day}, "end"="end"-{day}' for one in (KERNEL, RUNTIME, "NVTX_EVENTS"))
    )
    assert numbers(path) == before


def test_work_cannot_start_before_its_launch() -> None:
    start, launched = np.array([0, 10**9, 5 * 10**9, 7]), np.array([10**9 + 5, 5 * 10**9])
    assert plausible.after_launch(start, np.array([0, 0, 1, -1]), launched).tolist() == [False, True, True, True]


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (f'UPDATE {KERNEL} SET "end"=start-1', "no_times"),
        ('UPDATE NVTX_EVENTS SET "end"=start-1', "no_times"),
        (f"DELETE FROM {RUNTIME}", "no_calls"),
    ],
)
def test_where_nothing_is_left_the_command_says_why(make: str, code: str, tmp_path: Path) -> None:
    path = changed(simple(tmp_path / "a.sqlite"), make)
    assert refusal("analyze", path) == code
    assert refusal("diff", path, path) == code


@pytest.mark.parametrize(
    ("table", "code", "names"),
    [
        (RUNTIME, "no_calls", ["2 GPU operations"]),
        ("NVTX_EVENTS", "no_ranges", []),
        (KERNEL, "no_cuda", []),
    ],
)
def test_a_table_of_another_name_is_named(table: str, code: str, names: list[str], tmp_path: Path) -> None:
    path = changed(simple(tmp_path / "a.sqlite"), f"ALTER TABLE {table} RENAME TO {table}_V2")
    done = profiling("analyze", path)
    (line,) = done.err.splitlines()
    assert (done.code, refusal("analyze", path)) == (2, code)
    assert [name for name in (f"no table {table}, but {table}_V2", *names) if name not in line] == []


def test_without_the_calls_host_times_can_still_be_had(tmp_path: Path) -> None:
    path = changed(simple(tmp_path / "a.sqlite"), f"DROP TABLE {RUNTIME}")
    assert f"(no table {RUNTIME})" in profiling("analyze", path).err
    done = profiling("analyze", path, "--host-only")
    assert done.code == 0, done.err
    assert "request launched nothing on a GPU" in done.out


@pytest.mark.parametrize("number", [1 << 40, (1 << 63) - 1, -(1 << 63), -7, "matmul", None, 1.5, b"x"])
def test_numbers_of_names_may_be_anything(number: object, tmp_path: Path) -> None:
    path = simple(tmp_path / "a.sqlite", lambda written: written.launch(30, 45, 49, "[copy]"))
    changed(
        path,
        f"UPDATE {KERNEL} SET demangledName = ?",
        f"UPDATE {COPY} SET copyKind = ?",
        values=(number,),
    )
    request = by_name(phases_of(path))["request"]
    assert (request["busy_ns"], request["operations"]) == (54, 3)
    unnamed = f"kernel {number}" if isinstance(number, int) else "[unnamed kernel]"
    assert {one["kernel"] for one in request["kernels"] if one["kind"] == "kernel"} == {unnamed}


@pytest.mark.parametrize("size", [-1, 1 << 62, "many", None])
def test_impossible_sizes_are_no_bytes_and_counted(size: object, tmp_path: Path) -> None:
    def more(written: Written) -> None:
        written.launch(30, 42, 45, "[copy]")
        written.launch(31, 45, 49, "[copy]")

    path = changed(simple(tmp_path / "a.sqlite", more), f"UPDATE {COPY} SET bytes = ? WHERE start = 42", values=(size,))
    request = by_name(phases_of(path))["request"]
    assert (request["copied_bytes"], request["copy_ns"]) == (4, 7)
    assert document_of(path)["traces"][0]["left_out"] == {"sizes": 1}


def test_missing_correlation_numbers_do_not_match(tmp_path: Path) -> None:
    path = changed(three(tmp_path / "a.sqlite"), f"UPDATE {KERNEL} SET correlationId = NULL WHERE start = 42")
    changed(path, f"UPDATE {RUNTIME} SET correlationId = NULL WHERE start = 30")
    assert document_of(path)["traces"][0]["unknown"] == 1


def test_calls_whose_name_is_not_in_the_file_are_found(tmp_path: Path) -> None:
    path = changed(three(tmp_path / "a.sqlite"), f"UPDATE {RUNTIME} SET nameId = 12345 WHERE start = 30")
    changed(path, f"UPDATE {RUNTIME} SET nameId = NULL WHERE start = 15")
    trace = document_of(path)["traces"][0]
    assert (trace["operations"], trace["unknown"]) == (3, 0)


def of_bytes(table: str, column: str) -> Callable[[Path], Path]:
    return lambda path: changed(path, f"UPDATE {table} SET {column} = CAST(X'C4E3BAC3' AS TEXT)")


def test_text_that_is_not_utf8_costs_only_itself(tmp_path: Path) -> None:
    unused = changed(simple(tmp_path / "a.sqlite"), "INSERT INTO StringIds VALUES (99, CAST(X'C4E3BAC3' AS TEXT))")
    assert numbers(unused)["request"]["kernels"][0]["kernel"] == "matmul"
    used = of_bytes("StringIds", "value")(unpacked("cuda_graph_node", tmp_path))
    assert {one["kernel"] for one in numbers(used)["dit"]["kernels"]} == {"���"}
    gpu = of_bytes("TARGET_INFO_GPU", "name")(unpacked("cuda_graph_graph", tmp_path))
    assert "���" in profiling("analyze", gpu).out


def test_escape_sequences_and_line_breaks_are_shown(tmp_path: Path) -> None:
    evil = "x\n\x1b[31mred\x9b\u202e\x07"

    def more(written: Written) -> None:
        written.range(evil, 0, 100, domainId=1)
        written.add("NVTX_EVENTS", start=1, eventType=75, globalTid=THREAD, text=evil, domainId=1)
        written.launch(30, 42, 45, evil)
        written.range(evil, 0, 100)

    path = simple(tmp_path / "a.sqlite", more)
    changed(
        path, "CREATE TABLE TARGET_INFO_GPU (id, name)", "INSERT INTO TARGET_INFO_GPU VALUES (9, ?)", values=(evil,)
    )
    other = simple(tmp_path / "b.sqlite", lambda written: written.range(evil, 0, 100))
    shown = r"x\n\x1b[31mred\x9b\u202e\x07"
    for command in (("analyze", path, "--all"), ("analyze", path, "--format", "csv"), ("diff", path, other)):
        out = profiling(*command).out
        assert shown in out
        assert not {"\x1b", "\x9b", "\u202e", "\x07"} & set(out)
        assert not [line for line in out.splitlines() if line.startswith("\\x1b")]
    refused = profiling("analyze", tmp_path / f"none{evil}.sqlite")
    assert refused.err.count("\n") == 1
    assert shown in refused.err


def test_a_trace_in_wal_mode_leaves_no_files_behind(tmp_path: Path) -> None:
    path = unpacked("cuda_graph_node", tmp_path)
    raw = bytearray(path.read_bytes())
    raw[18] = raw[19] = 2  # the file format version of WAL mode
    path.write_bytes(raw)
    assert profiling("analyze", path).code == 0
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_processes_of_odd_threads_are_kept_apart(tmp_path: Path) -> None:
    path = changed(simple(tmp_path / "a.sqlite"), "UPDATE NVTX_EVENTS SET globalTid = NULL")
    (found,) = phases_of(path)
    assert (found["process"], found["operations"]) == (0, 0)
    assert PROCESS >> 24 & 0xFFFFFF != 0


@pytest.mark.parametrize("number", [2**62, -(2**63), -1, 0])
def test_correlation_numbers_may_be_any_integers(number: int, tmp_path: Path) -> None:
    path = three(tmp_path / "a.sqlite")
    changed(path, f"UPDATE {KERNEL} SET correlationId = ? WHERE start = 42", values=(number,))
    changed(path, f"UPDATE {RUNTIME} SET correlationId = ? WHERE start = 30", values=(number,))
    (request,) = phases_of(path)
    assert (request["operations"], request["busy_ns"]) == (3, 53)


@pytest.mark.parametrize("number", [2**62, -(2**63), "x", 1.5, None])
def test_threads_and_processes_that_cannot_be_true_own_nothing_else(number: object, tmp_path: Path) -> None:
    path = three(tmp_path / "a.sqlite")
    changed(path, f"UPDATE {KERNEL} SET globalPid = ? WHERE start = 42", values=(number,))
    changed(path, f"UPDATE {RUNTIME} SET globalTid = ? WHERE start = 30", values=(number,))
    (request,) = phases_of(path)
    assert (request["operations"], request["busy_ns"]) == (2, 50)
