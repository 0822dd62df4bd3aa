"""What `analyze` and `diff` are given: every bad trace is one clear line and exit code 2; odd ones are read."""

import os
import sqlite3
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from small_traces import (
    PROCESS,
    THREAD,
    Written,
    by_name,
    document_of,
    phases_of,
    profiling,
    profiling_process,
    refusal,
    simple,
    unpacked,
)

from profiling.nsys import nsys_cli
from profiling.nsys.rendering import HOST_ONLY


def refused(*arguments: object, env: dict[str, str] | None = None) -> str:
    """The one line that says why."""
    done = profiling_process(*arguments, env=env) if env else profiling(*arguments)
    assert done.code == 2, done
    assert done.out == ""
    (line,) = done.err.splitlines()
    return line


def truncated(path: Path) -> Path:
    whole = unpacked("vllm_omni_h200", path.parent)
    path.write_bytes(whole.read_bytes()[:300_000])
    return path


def without(table: str) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        simple(path)
        with sqlite3.connect(path) as database:
            database.execute(f"DROP TABLE {table}")
        database.close()
        return path

    return make


def no_cuda(path: Path) -> Path:
    written = Written(path)
    written.range("request", 0, 100)
    return written.save()


def only_open(path: Path) -> Path:
    return simple(
        path, lambda written: written.rows.update(NVTX_EVENTS=[{"start": 0, "eventType": 59, "globalTid": THREAD}])
    )


def of_schema(version: str) -> Callable[[Path], Path]:
    return lambda path: simple(path, lambda written: setattr(written, "version", version))


def text(content: str) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        path.write_text(content)
        return path

    return make


def other_database(path: Path) -> Path:
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE t (x)")
    database.close()
    return path


def without_column(path: Path) -> Path:
    simple(path)
    with sqlite3.connect(path) as database:
        database.execute("ALTER TABLE CUPTI_ACTIVITY_KIND_KERNEL RENAME COLUMN correlationId TO correlation")
    database.close()
    return path


@pytest.mark.parametrize(
    ("make", "code", "names"),
    [
        (text(""), "empty", []),
        (text("hello, this is no database, whatever its name says. " * 99), "unreadable", ["nsys export"]),
        (truncated, "unreadable", ["nsys export"]),
        (other_database, "not_an_export", ["META_DATA_EXPORT"]),
        (without("NVTX_EVENTS"), "no_ranges", ["nsys profile -t cuda,nvtx"]),
        (only_open, "ranges_open", []),
        (no_cuda, "no_cuda", ["nsys profile -t cuda,nvtx", "--host-only"]),
        (of_schema("4.0.0"), "unknown_schema", ["4.0.0", "3.x"]),
        (of_schema("99.1.0"), "unknown_schema", ["99.1.0"]),
        (of_schema("2.11.0"), "unknown_schema", ["2.11.0"]),
        (of_schema("soon"), "unknown_schema", ["soon"]),
        (without_column, "no_column", ["CUPTI_ACTIVITY_KIND_KERNEL", "correlationId"]),
    ],
)
def test_bad_trace_is_one_line(make: Callable[[Path], Path], code: str, names: list[str], tmp_path: Path) -> None:
    path = make(tmp_path / "it's a #1 trace?.sqlite")
    good = unpacked("cuda_graph_node", tmp_path)
    for command in (("analyze", path), ("diff", good, path)):
        line = refused(*command)
        assert [name for name in (str(path), *names) if name not in line] == []
        assert refusal(*command) == code


def test_no_such_file_a_folder_and_another_kind(tmp_path: Path) -> None:
    nowhere, other = tmp_path / "nowhere.sqlite", tmp_path / "trace.qdrep"
    other.write_text("x")
    for path, code in ((nowhere, "no_such_file"), (tmp_path, "no_trace"), (other, "unknown_kind")):
        assert refusal("analyze", path) == code
        assert str(path) in refused("analyze", path)
    assert "profile=nsys" in refused("analyze", tmp_path)


def test_a_cell_without_a_recording_says_why(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"state": "error", "reason": "CUDA out of memory"}')
    assert "CUDA out of memory" in refused("analyze", tmp_path)
    chrome = tmp_path / "trace-rank0.json.gz"
    chrome.write_bytes(b"x")
    line = refused("analyze", tmp_path)
    assert ("trace-rank0.json.gz" in line, "https://ui.perfetto.dev" in line) == (True, True)
    assert refusal("analyze", tmp_path) == "no_trace"
    assert "https://ui.perfetto.dev" in refused("analyze", chrome)
    assert refusal("analyze", chrome) == "unknown_kind"


def test_without_nsys_the_table_beside_the_trace_is_named(tmp_path: Path) -> None:
    (tmp_path / "trace.nsys-rep").write_bytes(b"x")
    (tmp_path / "nsys_phases.csv").write_text("phase\n")
    assert str(tmp_path / "nsys_phases.csv") in refused("analyze", tmp_path, env={"NSYS": str(tmp_path / "nowhere")})


def test_bad_usage_is_one_line(tmp_path: Path) -> None:
    trace = simple(tmp_path / "trace.sqlite")
    assert "TRACE" in refused("analyze")
    assert "'xml'" in refused("analyze", trace, "--format", "xml")
    for command in (("analyze",), ("diff", trace)):
        assert "argument --top: '-1'" in refused(*command, trace, "--top", "-1")
        assert refusal(*command, trace, "--top", "-1") == "usage"
    assert str(tmp_path / "plot.gif") in refused("analyze", trace, "--plot", tmp_path / "plot.gif")
    assert refusal("analyze", trace, "--plot", tmp_path / "plot.gif") == "unknown_kind"
    assert "'analyse'" in refused("analyse", trace)


def test_nothing_is_saved_where_nothing_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert str(tmp_path / "file") in refused("analyze", simple(tmp_path / "trace.sqlite"), "--save", tmp_path / "file")


def test_later_minor_schema_and_strange_names_are_read(tmp_path: Path) -> None:
    path = simple(tmp_path / "it's a #1 trace? %41.sqlite", lambda written: setattr(written, "version", "3.99.7"))
    found = by_name(phases_of(path))["request"]
    assert (found["projected_ns"], found["busy_ns"]) == (60, 50)


def test_host_times_alone_where_that_is_asked_for(tmp_path: Path) -> None:
    done = profiling("analyze", no_cuda(tmp_path / "trace.sqlite"), "--host-only")
    assert done.code == 0, done.err
    assert HOST_ONLY in done.out.splitlines()
    assert ["request", "321", "1", "0.1", "µs"] in [row.split() for row in done.out.splitlines()]


def test_a_cell_that_ran_on_a_cpu_needs_no_option(tmp_path: Path) -> None:
    cells = [tmp_path / "a", tmp_path / "b"]
    for cell, end in zip(cells, (100, 400), strict=True):
        cell.mkdir()
        written = Written(cell / "trace.sqlite")
        written.range("request", 0, end)
        written.save()
        (cell / "trace.nsys-rep").write_bytes(b"older than its export")
        os.utime(cell / "trace.nsys-rep", (1, 1))
        (cell / "result.json").write_text('{"device": "cuda"}')
    assert refusal("analyze", cells[0]) == "no_cuda"
    assert refusal("diff", *cells) == "no_cuda"
    for cell in cells:
        (cell / "result.json").write_text('{"device": "cpu"}')
    assert HOST_ONLY in profiling("analyze", cells[0]).out.splitlines()
    lines = profiling("diff", *cells).out.splitlines()
    assert lines[-1] == "largest change: request, +0.3 µs on the host; nothing ran on a GPU"
    assert ["request", "1", "0.1", "µs", "0.4", "µs", "+0.3", "µs"] in [row.split() for row in lines]
    assert refusal("diff", cells[0], unpacked("glm_image_h200", tmp_path)) == "cuda_in_one"


def test_ranges_that_never_ended_or_ended_elsewhere_are_left_out(tmp_path: Path) -> None:
    def more(written: Written) -> None:
        written.range("left open", 5, None)
        written.range("ended by another thread", 5, 90, endGlobalTid=THREAD + 1, eventType=60)
        written.range("start and end", 5, 90, endGlobalTid=THREAD, eventType=60)

    path = simple(tmp_path / "trace.sqlite", more)
    found = by_name(phases_of(path))
    assert set(found) == {"request", "start and end"}
    assert found["start and end"]["projected_ns"] == 60
    assert document_of(path)["traces"][0]["still_open"] == 1
    assert "ranges left out, because still open when recording ended: 1" in profiling("analyze", path).out


def test_operations_launched_before_recording_began_are_counted_apart(tmp_path: Path) -> None:
    def more(written: Written) -> None:
        written.operation(999, 2, 9)

    path = simple(tmp_path / "trace.sqlite", more)
    assert by_name(phases_of(path))["request"]["operations"] == 2
    assert document_of(path)["traces"][0]["unknown"] == 1
    said = "operations without a recorded API call, because launched before recording began: 1"
    assert said in profiling("analyze", path).out


def test_calls_with_unexpected_names_are_found_too(tmp_path: Path) -> None:
    """Calls are first read by names that launch; an operation without its call has the rest read as well."""

    def more(written: Written) -> None:
        call = written.call(60, 62, "cuSomethingNew")
        written.operation(call, 90, 120)

    assert by_name(phases_of(simple(tmp_path / "trace.sqlite", more)))["request"]["projected_ns"] == 100


def test_correlation_numbers_count_by_process(tmp_path: Path) -> None:
    """Two processes use the same numbers."""

    def more(written: Written) -> None:
        other = PROCESS + (1 << 24)
        written.range("request", 0, 100, other + 5)
        written.correlation = 0
        written.operation(written.call(10, 13, thread=other + 5), 1000, 1007, process=other)

    found = phases_of(simple(tmp_path / "trace.sqlite", more))
    assert sorted((phase["process"], phase["projected_ns"]) for phase in found) == [(321, 60), (322, 7)]


def test_correlation_numbers_may_be_far_apart(tmp_path: Path) -> None:
    def more(written: Written) -> None:
        written.correlation = 1 << 31
        written.launch(60, 90, 120)

    assert by_name(phases_of(simple(tmp_path / "trace.sqlite", more)))["request"]["operations"] == 3


def fake_nsys(folder: Path, script: str) -> dict[str, str]:
    path = folder / "nsys"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return {"NSYS": str(path), "PATH": os.environ["PATH"]}


VERSION = 'if [ "$1" = --version ]; then echo "NVIDIA Nsight Systems version 2025.3.1.90-253135822126v0"; exit; fi'


def test_recording_without_nsys_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "trace.nsys-rep").write_text("a recording")
    said = refused("analyze", tmp_path / "trace.nsys-rep", env=fake_nsys(tmp_path, "echo broken; exit 1"))
    assert nsys_cli.INSTALL in said
    assert f"{tmp_path / 'nsys'}: broken" in said, "what was tried"


def test_recording_is_exported_by_nsys_and_a_failure_is_told(tmp_path: Path) -> None:
    simple(tmp_path / "made.sqlite")
    (tmp_path / "trace.nsys-rep").write_text("a recording")
    copies = f'{VERSION}; while [ "$1" != -o ]; do shift; done; cp "{tmp_path / "made.sqlite"}" "$2"'
    done = profiling_process("analyze", tmp_path / "trace.nsys-rep", env=fake_nsys(tmp_path, copies))
    assert done.code == 0, done.err
    assert "request is" in done.out
    assert not (tmp_path / "trace.sqlite").exists(), "what was made on the way is gone"
    fails = f"{VERSION}; echo Processing; echo 'Importer error: no QdstrmImporter' >&2; exit 1"
    said = refused("analyze", tmp_path / "trace.nsys-rep", env=fake_nsys(tmp_path, fails))
    assert "nsys 2025.3.1" in said
    assert said.endswith(": Importer error: no QdstrmImporter")


def test_folder_of_a_cell_stands_for_its_trace(tmp_path: Path) -> None:
    (tmp_path / "trace.nsys-rep").write_text("a recording")
    simple(tmp_path / "trace.sqlite")
    (found,) = phases_of(tmp_path)
    assert found["name"] == "request"


def test_newer_export_beside_the_recording_is_used(tmp_path: Path) -> None:
    (tmp_path / "trace.nsys-rep").write_text("a recording")
    simple(tmp_path / "trace.sqlite")
    done = profiling_process("analyze", tmp_path / "trace.nsys-rep", env=fake_nsys(tmp_path, "exit 1"))
    assert done.code == 0, done.err


def test_a_package_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU host to which only some packages were copied."""
    monkeypatch.setitem(sys.modules, "adbc_driver_manager", None)
    assert "'adbc_driver_manager'" in refused("analyze", unpacked("cuda_graph_node", tmp_path))
