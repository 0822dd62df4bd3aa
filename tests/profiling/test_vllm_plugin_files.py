"""Reading what vLLM-Omni's processes write while they write it."""

import json
from pathlib import Path

import pytest

from profiling.atomic_write import write_atomic
from profiling.phases import PhaseRecord
from profiling.vllm_plugin.record_files import (
    ArRecord,
    Installed,
    Transfer,
    append_line,
    ar_record,
    dit_record,
    markers,
    phase_records,
    read_lines,
    timings,
    transfer,
)

EVIDENCE = {
    "rank": 1,
    "dit_forwards": 40,
    "denoise_steps": 20,
    "blocks_run": 800,
    "blocks_skipped": 0,
    "block_sequence": 4096,
    "dit_parameters": 7,
    "settings": {"dtype": "bfloat16"},
    "counts": {"vae_decoder_calls": 1},
}


def test_lines_are_read_on_from_where_reading_stopped(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    assert read_lines(path) == ([], 0)
    append_line(path, {"number": 1})
    append_line(path, {"number": 2})
    found, offset = read_lines(path)
    assert [line["number"] for line in found] == [1, 2]
    assert read_lines(path, offset) == ([], offset)
    append_line(path, {"number": 3})
    assert read_lines(path, offset)[0] == [{"number": 3}]


def test_a_half_written_line_is_left_for_later(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    whole = json.dumps({"text": "größer"}, ensure_ascii=False).encode() + b"\n"
    for cut in range(len(whole)):
        path.write_bytes(whole + whole[:cut])
        found, offset = read_lines(path)
        assert (len(found), offset) == (1, len(whole))
        path.write_bytes(whole + whole)
        assert read_lines(path, offset)[0] == [{"text": "größer"}]


def test_markers_in_order_of_process(tmp_path: Path) -> None:
    assert markers(tmp_path) == markers(tmp_path / "missing")
    for pid, hooks in ((20, ["A.b"]), (3, [])):
        write_atomic(tmp_path / f"installed-{pid}.json", json.dumps({"pid": pid, "hooks": hooks}))
    write_atomic(tmp_path / "failed-20.txt", "Traceback: no such class")
    found = markers(tmp_path)
    assert found.installed == (Installed(3, ()), Installed(20, ("A.b",)))
    assert found.failed == ("Traceback: no such class",)
    assert not list(tmp_path.glob(".*"))  # nothing temporary stays


def test_a_record_survives_the_file(tmp_path: Path) -> None:
    recorded = (
        PhaseRecord(1, "request", 0, 100.5, 2000.123456, 1999.87654),
        PhaseRecord(1, "vae_decode", 0, 102.0, 3.0),
    )
    line = {"requests": ["a"], "dummy": False, "start_s": 100.5, "phases": timings(recorded), "evidence": EVIDENCE}
    append_line(tmp_path / "dit.jsonl", line)
    record = dit_record(read_lines(tmp_path / "dit.jsonl")[0][0])
    assert (record.requests, record.dummy, record.start_s) == (("a",), False, 100.5)
    assert (record.evidence.rank, record.evidence.counts) == (1, {"vae_decoder_calls": 1})
    assert record.phases == (("request", 0, 100.5, 2000.1235, 1999.8765), ("vae_decode", 0, 102.0, 3.0, None))


def test_phases_of_all_kinds_count_from_the_epoch() -> None:
    dit = dit_record(
        {
            "requests": [],
            "dummy": False,
            "start_s": 12.0,
            "phases": [["request", 0, 12.0, 9.0, 8.5]],
            "evidence": EVIDENCE,
        }
    )
    evidence = {"rank": 0, "steps": 1, "settings": {}}
    ar = ar_record({"requests": ["a"], "phases": [["ar_prefill", 0, 10.5, 20.0, None]], "evidence": evidence})
    assert ar == ArRecord(("a",), 0, 1, {}, (("ar_prefill", 0, 10.5, 20.0, None),))
    handed = transfer({"request": "a", "start_s": 11.0, "host_ms": 0.6, "tokens_sent": "4:ab"})
    assert handed == Transfer("a", 11.0, 0.6, "4:ab")
    assert phase_records([dit, handed, ar], epoch_s=10.0) == (
        PhaseRecord(0, "ar_prefill", 0, 0.5, 20.0),
        PhaseRecord(0, "stage_transfer", 0, 1.0, 0.6, None, "a"),
        PhaseRecord(1, "request", 0, 2.0, 9.0, 8.5),
    )


def test_a_line_that_says_more_is_read() -> None:
    """As an earlier plugin wrote them."""
    evidence = {"rank": 0, "steps": 1, "parameters": 5, "settings": {}}
    assert ar_record({"requests": [], "phases": [], "evidence": evidence}) == ArRecord((), 0, 1, {}, ())
    handed = {"request": "a", "start_s": 1.0, "host_ms": 0.6, "tokens_sent": "4:ab", "tokens_emitted": 261}
    assert transfer(handed) == Transfer("a", 1.0, 0.6, "4:ab")


def test_a_line_of_another_kind_is_refused() -> None:
    with pytest.raises(KeyError):
        dit_record({"request": "a"})
