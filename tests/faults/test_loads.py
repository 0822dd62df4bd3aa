"""Loads that go wrong: counted, explained, nothing lost, no process left."""

import contextlib
import os
import signal

import psutil
import pytest

from tests.faults.conftest import NOOP, Sweep, alive, wait_for
from tests.faults.test_engine import in_generate

pytest.importorskip("fastapi")
pytest.importorskip("aiohttp")
pytest.importorskip("uvloop")

LOAD = ("-m", *NOOP, "load=closed", "load.max_concurrency=2", "load.num_requests=40")
CELL = "baseline b1 2 in flight"
COUNTED = "globals().setdefault('count', [0]); count[0] += 1\n"


def processes_of(sweep: Sweep) -> list[int]:
    """The engines of a sweep and its load generators that are still there."""
    found = [pid for pid in sweep.engine_pids() if alive(pid)]
    for process in psutil.process_iter(["cmdline"]):
        if "sweep.run.client.process" in (process.info["cmdline"] or []):
            with contextlib.suppress(psutil.Error):
                if process.environ().get("TMPDIR") == str(sweep.base / "tmp"):
                    found.append(process.pid)
    return found


def test_an_engine_killed_under_load_ends_its_cell_and_the_next_one_gets_another(sweep: Sweep) -> None:
    once = "if count[0] == 20 and not FLAG.exists():\n    FLAG.touch(); import os; os.kill(os.getpid(), 9)"
    in_generate(sweep, COUNTED + once)
    done = sweep.run(*LOAD, "load.max_concurrency=2,3")
    assert done.code == 1, done.out + done.err
    assert sweep.statuses()["baseline b1 2 in flight"] == ("ERROR", "crash")
    assert "SIGKILL" in sweep.reason("baseline b1 2 in flight")
    assert sweep.statuses()["baseline b1 3 in flight"] == ("PASS", "")
    assert len(sweep.engine_pids()) == 2
    kept = [row for row in sweep.requests("baseline b1 2 in flight") if row["exit_code"] == "0"]
    assert 10 <= len(kept) < 20, "what was answered before; two of those generated warmed up"


def test_requests_that_fail_are_counted_by_kind_with_what_the_server_said(sweep: Sweep) -> None:
    in_generate(sweep, COUNTED + "if count[0] in (10, 20):\n    raise ValueError('no such luck')")
    done = sweep.run(*LOAD)
    assert done.code == 1, done.out + done.err
    assert sweep.statuses()[CELL] == ("FAIL", "requests_failed")
    assert "2 of 40 requests failed" in sweep.reason(CELL)
    assert "no such luck" in sweep.reason(CELL)
    row = sweep.rows()[CELL]
    assert (row["requests_sent"], row["requests_failed"]) == ("40", "2")
    failed = [row for row in sweep.requests(CELL) if row["exit_code"] == "1"]
    assert [row["failure"] for row in failed] == ["http", "http"]


def test_a_full_server_refuses_and_that_is_said(sweep: Sweep) -> None:
    in_generate(sweep, "import time; time.sleep(0.02)")
    done = sweep.run(*LOAD, "load.max_concurrency=8", "load.queue=1")
    assert done.code == 1, done.out + done.err
    (cell,) = sweep.statuses()
    assert sweep.statuses()[cell] == ("FAIL", "requests_failed")
    assert "refused because the server was full" in sweep.reason(cell)


def test_a_server_that_hangs_costs_its_time_limit_and_no_more(sweep: Sweep) -> None:
    sweep.inject("sweep.run.load_driver", "SLACK_S = 1.0")
    in_generate(sweep, COUNTED + "if count[0] > 10:\n    import time; time.sleep(3600)")
    done = sweep.run(*LOAD, "load.num_requests=12", "engine.request_timeout_s=2")
    assert done.code == 1, done.out + done.err
    assert sweep.statuses()[CELL] == ("ERROR", "timeout")


def test_when_no_request_succeeds_the_cell_is_an_error_that_says_why(sweep: Sweep) -> None:
    in_generate(sweep, COUNTED + "if count[0] > 1:\n    raise ValueError('no such luck')")  # the first warms up
    done = sweep.run(*LOAD)
    assert done.code == 1, done.out + done.err
    assert sweep.statuses()[CELL] == ("ERROR", "requests")
    assert "none of 40 requests succeeded" in sweep.reason(CELL)
    assert "no such luck" in sweep.reason(CELL)


def test_a_load_generator_that_dies_is_an_error_and_the_engine_serves_the_next_cell(sweep: Sweep) -> None:
    code = """
_due = LoadDriver._due

def due(self, turn):
    if turn.intended_s is None and self._load.max_concurrency == 2 and turn.requests[0].request_id == "r030":
        import dataclasses
        return msgspec.structs.replace(_due(self, turn), upload="/no/such/file")
    return _due(self, turn)

LoadDriver._due = due
"""
    sweep.inject("sweep.run.load_driver", code)
    done = sweep.run(*LOAD, "load.max_concurrency=2,3")
    assert done.code == 1, done.out + done.err
    assert sweep.statuses()["baseline b1 2 in flight"] == ("ERROR", "client")
    assert sweep.statuses()["baseline b1 3 in flight"] == ("PASS", "")
    assert len(sweep.engine_pids()) == 1


def test_a_slow_load_generator_makes_its_row_invalid(sweep: Sweep) -> None:
    code = """
import time, aiohttp
_request = aiohttp.ClientSession._request

async def request(self, *arguments, **options):
    time.sleep(0.06)
    return await _request(self, *arguments, **options)

aiohttp.ClientSession._request = request
"""
    sweep.inject("sweep.run.client.messages", code)
    done = sweep.run(*LOAD)
    assert done.code == 0, done.out + done.err
    assert "client_bottleneck" in sweep.doubts(CELL)
    assert "the client was the bottleneck" in sweep.rows()[CELL]["invalid_reason"]


def test_replies_that_are_no_pictures_are_told_as_what_they_are(sweep: Sweep) -> None:
    code = """
_reply_before = _reply

def _reply(served, size):
    import io
    from PIL import Image
    told = _reply_before(served, size)
    seed = served[0].output.request_ids[served[0].position]
    other = {"r001": Image.new("RGB", (64, 64)), "r002": Image.effect_noise((32, 32), 60).convert("RGB")}.get(seed)
    if other is not None:
        file = io.BytesIO()
        other.save(file, "PNG")
        told["data"] = [{"b64_json": base64.b64encode(file.getvalue()).decode()}]
    if seed == "r003":
        told["data"] = [{"b64_json": base64.b64encode(b"not a picture").decode()}]
    if seed == "r004":
        told = {}
    return told
"""
    sweep.inject("sweep.engines.serving.app", code)
    model = ("model=tiny_qwen_image", "workload.steps=2", "workload.num_prompts=1")
    load = ("load=closed", "load.max_concurrency=2", "load.num_requests=12")
    done = sweep.run("-m", "plots=false", "aa=0", *model, *load)
    assert done.code == 1, done.out + done.err
    assert set(sweep.findings(CELL)) >= {"requests_failed", "images_blank", "images_wrong_size"}
    failed = [row for row in sweep.requests(CELL) if row["exit_code"] == "1"]
    assert sorted((row["request_id"], row["failure"]) for row in failed) == [("r003.0", "reply"), ("r004.0", "reply")]


def test_ctrl_c_ends_a_load_at_once_and_the_same_command_completes_it(sweep: Sweep) -> None:
    in_generate(sweep, "import time; time.sleep(0 if FLAG.exists() else 0.1)")
    process = sweep.start(*LOAD, "load.num_requests=400")
    sweep.wait_until(process, lambda: sweep.is_running(CELL) and list(sweep.folder.glob("*/records.jsonl")))
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, out + err
    assert not processes_of(sweep)
    assert sweep.statuses()[CELL] == ("ERROR", "interrupted")
    assert [row for row in sweep.requests(CELL) if row["exit_code"] == "0"], "what was answered is kept"
    sweep.flag.touch()
    done = sweep.run(*LOAD, "load.num_requests=400")
    assert done.code == 0, done.out + done.err
    assert sweep.rows()[CELL]["requests_sent"] == "400"


def test_a_sweep_killed_under_load_leaves_its_records_and_no_process(sweep: Sweep) -> None:
    in_generate(sweep, "import time; time.sleep(0.02)")
    process = sweep.start(*LOAD, "load.num_requests=4000")
    sweep.wait_until(process, lambda: sweep.is_running(CELL) and list(sweep.folder.glob("*/records.jsonl")))
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    wait_for(lambda: not processes_of(sweep))
    done = sweep.run(str(sweep.folder), module="sweep.report")
    assert done.code == 1, done.out + done.err
    assert sweep.statuses()[CELL] == ("ERROR", "cut_off")


SOAK = ("-m", *NOOP, "+study=soak", "load.max_concurrency=2", "load.duration_s=1", "load.parts=8")
LEAKING = "globals().setdefault('kept', []).append(b'x' * 1_000_000)\nimport time; time.sleep(0.01)"


def test_a_server_that_leaks_is_named_after_a_kill_and_a_rerun_in_one_report(sweep: Sweep) -> None:
    in_generate(sweep, LEAKING)
    process = sweep.start(*SOAK)
    sweep.wait_until(process, lambda: len(list(sweep.folder.glob("*/result.json"))) >= 2)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    wait_for(lambda: not processes_of(sweep))
    kept = {path: path.read_bytes() for path in sweep.folder.glob("*/result.json")}
    sweep.run(str(sweep.folder), "--no-plots", module="sweep.report")
    told = [row for row in sweep.rows().values() if row["status"] in ("PASS", "WARN")]
    assert len(told) == len(kept) >= 2, "a sweep that was killed has not planned the parts that it added"
    done = sweep.run(*SOAK)
    assert done.code == 0, done.out + done.err
    assert all(path.read_bytes() == data for path, data in kept.items()), "what was measured stays"
    assert len(sweep.rows()) == 8
    assert "memory_grows" in sweep.findings("baseline b1 part 1")
    assert sweep.statuses()["baseline b1 part 1"][0] == "WARN"
    assert "MB a request" in " ".join(done.out.split())


def test_texts_that_break_off_are_counted_with_how_far_they_came(sweep: Sweep) -> None:
    code = """
_write = NoopEngine.write

def write(self, request):
    writing = _write(self, request)
    return Writing(writing.prompt_tokens, broken(request.request_id, writing.tokens))

def broken(name, tokens):
    for number, token in enumerate(tokens):
        if number == 2 and name in ("r003", "r007"):
            raise ValueError("no such luck")
        yield token

NoopEngine.write = write
"""
    sweep.inject("sweep.engines.noop.engine", code)
    done = sweep.run(*LOAD, "workload=text", "workload.input_len=5", "workload.output_len=4")
    assert done.code == 1, done.out + done.err
    assert sweep.statuses()[CELL] == ("FAIL", "requests_failed")
    assert "2 of 40 requests failed" in sweep.reason(CELL)
    assert "after 2 chunks: ValueError: no such luck" in sweep.reason(CELL)
    failed = [row for row in sweep.requests(CELL) if row["exit_code"] == "1"]
    assert {(row["request_id"], row["failure"]) for row in failed} == {("r003.0", "http"), ("r007.0", "http")}
    assert {row["output_tokens"] for row in sweep.requests(CELL) if row["exit_code"] == "0"} == {"4"}


def test_an_engine_killed_while_it_writes_is_a_crash_and_what_was_answered_is_kept(sweep: Sweep) -> None:
    code = """
_write = NoopEngine.write

def write(self, request):
    if request.request_id == "r020":
        import os
        os.kill(os.getpid(), 9)
    return _write(self, request)

NoopEngine.write = write
"""
    sweep.inject("sweep.engines.noop.engine", code)
    done = sweep.run(*LOAD, "workload=text", "workload.input_len=5", "workload.output_len=4")
    assert done.code == 1, done.out + done.err
    assert sweep.statuses()[CELL] == ("ERROR", "crash")
    assert len([row for row in sweep.requests(CELL) if row["exit_code"] == "0"]) >= 15
    assert not processes_of(sweep)
