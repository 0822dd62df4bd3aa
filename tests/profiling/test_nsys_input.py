"""What `analyze` and `diff` are given: every bad trace is one clear line and exit code 2; odd ones are read."""

import os
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from small_traces import PROCESS, THREAD, Written, by_name, phases_of, profiling, profiling_process, simple, unpacked


def refusal(*arguments: object, env: dict[str, str] | None = None) -> str:
    """The one line."""
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
    ("make", "said"),
    [
        (text(""), "the file is empty"),
        (text("hello, this is no database, whatever its name says. " * 99), "not a readable SQLite file"),
        (truncated, "export it again with nsys export"),
        (other_database, "no export of Nsight Systems"),
        (without("NVTX_EVENTS"), "no NVTX ranges: record with nsys profile -t cuda,nvtx"),
        (only_open, "every NVTX range was still open when recording ended"),
        (no_cuda, "no CUDA activity: record with nsys profile -t cuda,nvtx (--host-only"),
        (of_schema("4.0.0"), "export schema 4.0.0, this tool reads 3.x"),
        (of_schema("99.1.0"), "export schema 99.1.0"),
        (of_schema("2.11.0"), "export schema 2.11.0"),
        (of_schema("soon"), "export schema soon"),
        (without_column, "CUPTI_ACTIVITY_KIND_KERNEL has no column correlationId"),
    ],
)
def test_bad_trace_is_one_line(make: Callable[[Path], Path], said: str, tmp_path: Path) -> None:
    path = make(tmp_path / "it's a #1 trace?.sqlite")
    assert said in refusal("analyze", path)
    assert str(path) in refusal("analyze", path)
    assert said in refusal("diff", unpacked("cuda_graph_node", tmp_path), path)


def test_no_such_file_a_folder_and_another_kind(tmp_path: Path) -> None:
    assert f"{tmp_path / 'nowhere.sqlite'}: no such file" in refusal("analyze", tmp_path / "nowhere.sqlite")
    assert "no trace.nsys-rep in this folder: cells have one with profile=nsys" in refusal("analyze", tmp_path)
    (tmp_path / "trace.qdrep").write_text("x")
    assert "neither a .nsys-rep nor its .sqlite export" in refusal("analyze", tmp_path / "trace.qdrep")


def test_a_cell_without_a_recording_says_why(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"state": "error", "reason": "CUDA out of memory"}')
    assert "no trace.nsys-rep in this folder: the cell was not measured: CUDA out of memory" in refusal(
        "analyze", tmp_path
    )
    chrome = tmp_path / "trace-rank0.json.gz"
    chrome.write_bytes(b"x")
    assert "profile=torch left trace-rank0.json.gz, which opens in" in refusal("analyze", tmp_path)
    assert "a Chrome trace opens in https://ui.perfetto.dev" in refusal("analyze", chrome)


def test_without_nsys_the_table_beside_the_trace_is_named(tmp_path: Path) -> None:
    (tmp_path / "trace.nsys-rep").write_bytes(b"x")
    (tmp_path / "nsys_phases.csv").write_text("phase\n")
    said = refusal("analyze", tmp_path, env={"NSYS": str(tmp_path / "nowhere")})
    assert f"what the sweep found in it stands in {tmp_path / 'nsys_phases.csv'}" in said


def test_bad_usage_is_one_line(tmp_path: Path) -> None:
    trace = simple(tmp_path / "trace.sqlite")
    assert "the following arguments are required" in refusal("analyze")
    assert "invalid choice: 'xml'" in refusal("analyze", trace, "--format", "xml")
    for command in (("analyze",), ("diff", trace)):
        assert "argument --top: '-1' is not a number from 0 on" in refusal(*command, trace, "--top", "-1")
    assert "must end in .png, .svg, .pdf" in refusal("analyze", trace, "--plot", tmp_path / "plot.gif")
    assert "invalid choice: 'analyse'" in refusal("analyse", trace)


def test_nothing_is_saved_where_nothing_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    said = refusal("analyze", simple(tmp_path / "trace.sqlite"), "--save", tmp_path / "file")
    assert "file" in said


def test_later_minor_schema_and_strange_names_are_read(tmp_path: Path) -> None:
    path = simple(tmp_path / "it's a #1 trace? %41.sqlite", lambda written: setattr(written, "version", "3.99.7"))
    found = by_name(phases_of(path))["request"]
    assert (found["projected_ns"], found["busy_ns"]) == (60, 50)


def test_host_times_alone_where_that_is_asked_for(tmp_path: Path) -> None:
    done = profiling("analyze", no_cuda(tmp_path / "trace.sqlite"), "--host-only")
    assert done.code == 0, done.err
    assert "nothing ran on a GPU" in done.out
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
    assert "no CUDA activity" in profiling("analyze", cells[0]).err
    assert "no CUDA activity" in profiling("diff", *cells).err
    for cell in cells:
        (cell / "result.json").write_text('{"device": "cpu"}')
    assert "nothing ran on a GPU" in profiling("analyze", cells[0]).out
    said = profiling("diff", *cells).out
    assert "largest: request, +0.3 µs on the host; nothing ran on a GPU" in said
    assert ["request", "1", "0.1", "µs", "0.4", "µs", "+0.3", "µs"] in [row.split() for row in said.splitlines()]
    told = profiling("diff", cells[0], unpacked("glm_image_h200", tmp_path))
    assert (told.code, "has no CUDA activity and the other has" in told.err) == (2, True)


def test_ranges_that_never_ended_or_ended_elsewhere_are_left_out(tmp_path: Path) -> None:
    def more(written: Written) -> None:
        written.range("left open", 5, None)
        written.range("ended by another thread", 5, 90, endGlobalTid=THREAD + 1, eventType=60)
        written.range("start and end", 5, 90, endGlobalTid=THREAD, eventType=60)

    path = simple(tmp_path / "trace.sqlite", more)
    found = by_name(phases_of(path))
    assert set(found) == {"request", "start and end"}
    assert found["start and end"]["projected_ns"] == 60
    assert "1 ranges were still open when recording ended: left out" in profiling("analyze", path).out


def test_operations_launched_before_recording_began_are_counted_apart(tmp_path: Path) -> None:
    def more(written: Written) -> None:
        written.operation(999, 2, 9)

    path = simple(tmp_path / "trace.sqlite", more)
    assert by_name(phases_of(path))["request"]["operations"] == 2
    assert "1 operations belong to no recorded API call" in profiling("analyze", path).out


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
    said = refusal("analyze", tmp_path / "trace.nsys-rep", env=fake_nsys(tmp_path, "echo broken; exit 1"))
    if "broken" in said and "was not found" not in said:
        pytest.skip("another nsys is installed here")
    assert "install Nsight Systems, or set NSYS=/path/to/nsys" in said or "could not export it" in said


def test_recording_is_exported_by_nsys_and_a_failure_is_told(tmp_path: Path) -> None:
    simple(tmp_path / "made.sqlite")
    (tmp_path / "trace.nsys-rep").write_text("a recording")
    copies = f'{VERSION}; while [ "$1" != -o ]; do shift; done; cp "{tmp_path / "made.sqlite"}" "$2"'
    done = profiling_process("analyze", tmp_path / "trace.nsys-rep", env=fake_nsys(tmp_path, copies))
    assert done.code == 0, done.err
    assert "request is" in done.out
    assert not (tmp_path / "trace.sqlite").exists(), "what was made on the way is gone"
    fails = f"{VERSION}; echo Processing; echo 'Importer error: no QdstrmImporter' >&2; exit 1"
    said = refusal("analyze", tmp_path / "trace.nsys-rep", env=fake_nsys(tmp_path, fails))
    assert "nsys 2025.3.1 could not export it: Importer error: no QdstrmImporter" in said


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
