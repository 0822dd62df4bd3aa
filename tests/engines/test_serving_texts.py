"""Texts over HTTP: streamed and whole, stopped, refused, left by their clients."""

import http.client
import json
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("fastapi")

from sweep.engines.noop.engine import NoopEngine
from sweep.engines.protocol import NO_TEXT, Output, Request, Text, Writing
from sweep.engines.serving.batching import BatchQueue
from sweep.engines.serving.server import Server
from sweep.engines.serving.settings import ServeSettings
from tests.engines.test_serving import Drawing, post, text
from tests.engines.test_serving import request as picture

COMPLETIONS, CHATS = "/v1/completions", "/v1/chat/completions"


class Speaking(NoopEngine):
    """Counts: ` 0`, ` 1`, …; each number once it may; fails where a prompt says so."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.go.set()
        self.asked: list[Request] = []
        self.said: list[int] = []  # how many tokens of each text

    def refusal(self, request: Request) -> str:
        assert request.text is not None
        return "at most 3 tokens" if len(request.text.prompt_ids) > 3 else ""

    def write(self, request: Request) -> Writing:
        self.asked.append(request)
        self.said.append(0)
        return Writing(super().write(request).prompt_tokens, self.numbers(request))

    def numbers(self, request: Request) -> Iterator[str]:
        assert request.text is not None
        for number in range(request.text.max_tokens):
            if number == 2 and "fail" in request.prompt:
                raise ValueError("no such luck")
            assert self.go.wait(30)
            if "slow" in request.prompt:
                time.sleep(0.01)
            self.said[-1] += 1
            yield f" {number}"


@contextmanager
def serving(engine: Any = None, **settings: Any) -> Iterator[tuple[Any, str, list[Output]]]:
    engine, made, stop = engine or Speaking(), [], threading.Event()
    server = Server(engine, ServeSettings("tiny", **settings))
    thread = threading.Thread(target=server.run, args=(stop.is_set, made.append))
    thread.start()
    try:
        yield engine, server.url, made
    finally:
        engine.go.set()
        stop.set()
        thread.join()
        server.stop()


def events(url: str, path: str = COMPLETIONS, **body: Any) -> list[Any]:
    """Data of the events of a stream; the last is the text [DONE]."""
    asked = urllib.request.Request(
        url + path, json.dumps({**body, "stream": True}).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(asked, timeout=60) as reply:
        assert reply.headers["Content-Type"].startswith("text/event-stream")
        whole = reply.read().decode()
    lines = whole.split("\n\n")
    assert lines.pop() == ""
    assert all(line.startswith("data: ") for line in lines)
    data = [line.removeprefix("data: ") for line in lines]
    return [*map(json.loads, data[:-1]), data[-1]] if data[-1] == "[DONE]" else [*map(json.loads, data)]


def asking(url: str, **body: Any) -> http.client.HTTPConnection:
    """A client that has asked and not read its reply."""
    where = urllib.parse.urlsplit(url)
    client = http.client.HTTPConnection(str(where.hostname), where.port, timeout=60)
    client.request("POST", COMPLETIONS, json.dumps(body), {"Content-Type": "application/json"})
    return client


def until(found: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not found():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_text_streams_token_by_token_and_ends_with_usage() -> None:
    with serving() as (engine, url, made):
        *chunks, usage, done = events(
            url, prompt="a b c", max_tokens=4, seed=7, temperature=0.5, stream_options={"include_usage": True}
        )
        assert done == "[DONE]"
        assert [one["choices"][0]["text"] for one in chunks] == [" 0", " 1", " 2", " 3"]
        assert [one["choices"][0]["finish_reason"] for one in chunks] == [None, None, None, "length"]
        assert {one["model"] for one in chunks} == {"tiny"}
        assert {one["object"] for one in chunks} == {"text_completion"}
        assert len({one["id"] for one in chunks}) == 1
        assert usage["choices"] == []
        assert usage["usage"] == {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
        assert usage["metrics"]["stage_durations"]["queue_wait_ms"] >= 0
        (asked,) = engine.asked
        assert (asked.prompt, asked.seed, asked.text.temperature) == ("a b c", 7, 0.5)
        (output,) = made
        assert (output.output_tokens, output.prompt_tokens) == (4, (3,))
        assert [phase.phase for phase in output.phases] == ["request", "ar_prefill", "ar_decode"]
        assert events(url, prompt="a", max_tokens=1)[-1] == "[DONE]", "without usage"


def test_tokens_are_there_before_the_text_is_complete() -> None:
    with serving() as (engine, url, _):
        engine.go.clear()
        client = asking(url, prompt="slow", max_tokens=50, stream=True)
        reply = client.getresponse()
        engine.go.set()
        assert b'" 0"' in reply.readline()
        assert engine.said[-1] < 50
        assert b"[DONE]" in reply.read()
        client.close()


def test_a_whole_text_and_a_chat_have_the_same_words() -> None:
    with serving() as (engine, url, _):
        status, whole = post(url, COMPLETIONS, prompt=[5, 6], max_tokens=3)
        assert status == 200
        assert whole["choices"] == [{"index": 0, "text": " 0 1 2", "logprobs": None, "finish_reason": "length"}]
        assert whole["usage"] == {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}
        said = [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": [{"type": "text", "text": "go"}]},
        ]
        _, chat = post(url, CHATS, messages=said, max_completion_tokens=3)
        assert chat["object"] == "chat.completion"
        assert chat["choices"][0]["message"] == {"role": "assistant", "content": " 0 1 2"}
        first, second, third, done = events(url, CHATS, messages=said, max_tokens=3)
        assert [one["choices"][0]["delta"] for one in (first, second, third)] == [
            {"role": "assistant", "content": " 0"},
            {"content": " 1"},
            {"content": " 2"},
        ]
        assert first["object"] == "chat.completion.chunk"
        assert done == "[DONE]"
        assert [asked.text.prompt_ids for asked in engine.asked] == [(5, 6), (), ()]
        assert engine.asked[1].text.messages == (("system", "be brief"), ("user", "go"))
        assert post(url, COMPLETIONS, prompt=["one"], max_tokens=1)[1]["usage"]["prompt_tokens"] == 1
        counted = dict(line.rsplit(" ", 1) for line in text(url + "/metrics").splitlines() if line[0] != "#")
        assert counted["sweep_generation_tokens_total"] == "10"
        assert counted["sweep_prompt_tokens_total"] == "9"
        assert counted["sweep_requests_success_total"] == "4"


def test_a_stop_string_ends_a_text() -> None:
    with serving() as (engine, url, _):
        _, whole = post(url, COMPLETIONS, prompt="slow", max_tokens=1000, stop=["x", " 4"])
        assert (whole["choices"][0]["text"], whole["choices"][0]["finish_reason"]) == (" 0 1 2 3", "stop")
        assert whole["usage"]["completion_tokens"] == 5
        assert engine.said[0] < 1000
        *_, last, done = events(url, prompt="slow", max_tokens=1000, stop="4")
        assert last["choices"][0] == {"index": 0, "text": " ", "finish_reason": "stop"}
        assert done == "[DONE]"


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        (COMPLETIONS, {}, 400, "prompt: "),
        (COMPLETIONS, {"prompt": ""}, 400, "prompt"),
        (COMPLETIONS, {"prompt": []}, 400, "prompt"),
        (COMPLETIONS, {"prompt": [1, -1]}, 400, "prompt"),
        (COMPLETIONS, {"prompt": [1, 2, 3, 4]}, 400, "at most 3 tokens"),
        (COMPLETIONS, {"prompt": "x", "max_tokens": 0}, 400, "max_tokens: "),
        (COMPLETIONS, {"prompt": "x", "n": 2}, 400, "n: "),
        (COMPLETIONS, {"prompt": "x", "temperature": -1}, 400, "temperature: "),
        (COMPLETIONS, {"prompt": "x", "model": "large"}, 404, "'large' does not exist"),
        (COMPLETIONS, {"prompt": "fail", "max_tokens": 5}, 500, "ValueError: no such luck"),
        (COMPLETIONS, {"prompt": "x" * 2_100_000}, 413, "may hold 2 MB"),
        (CHATS, {"messages": []}, 400, "messages: "),
        (CHATS, {"messages": [{"role": "user", "content": ""}]}, 400, "no text"),
        (
            CHATS,
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]},
            400,
            "no pictures",
        ),
    ],
)
def test_what_cannot_be_written_is_said_in_one_line(path: str, body: dict[str, Any], status: int, said: str) -> None:
    with serving(body_mb=2) as (_, url, _made):
        got, reply = post(url, path, **body)
        assert got == status
        assert said in reply["error"]["message"]
        assert "\n" not in reply["error"]["message"]
        assert post(url, COMPLETIONS, prompt="x")[0] == 200, "the next one is served"


def test_an_engine_that_fails_ends_the_stream_with_its_error() -> None:
    with serving() as (_, url, _made):
        first, second, error = events(url, prompt="fail", max_tokens=5)
        assert [one["choices"][0]["text"] for one in (first, second)] == [" 0", " 1"]
        assert error["error"]["message"] == "ValueError: no such luck"


def test_an_engine_that_writes_no_text_says_so() -> None:
    with serving(Silent()) as (_, url, _made):
        status, reply = post(url, COMPLETIONS, prompt="x")
        assert (status, reply["error"]["message"]) == (400, NO_TEXT)


class Silent(Drawing):
    refusal = write = None  # type: ignore[assignment]


def test_a_full_queue_refuses_texts() -> None:
    with serving(queue=1) as (engine, url, _):
        engine.go.clear()
        with ThreadPoolExecutor(2) as clients:
            running = clients.submit(post, url, COMPLETIONS, prompt="a")
            until(lambda: bool(engine.asked))
            waiting = clients.submit(post, url, COMPLETIONS, prompt="b")
            until(lambda: "waiting 1" in text(url + "/metrics"))
            assert post(url, COMPLETIONS, prompt="c", stream=True)[0] == 429
            engine.go.set()
            assert (running.result()[0], waiting.result()[0]) == (200, 200)


def test_a_text_among_pictures_is_written_alone() -> None:
    queue = BatchQueue(2, 0.0, 9)
    asked = [picture(0), replace(picture(1), text=Text(1)), replace(picture(2), text=Text(1)), picture(3)]
    for one in asked:
        queue.submit(one)
    taken = [[one.request.request_id for one in queue.take(0.0)] for _ in range(3)]
    assert taken == [["r0", "r3"], ["r1"], ["r2"]]


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_ends_its_text(stream: bool) -> None:
    with serving() as (engine, url, made):
        client = asking(url, prompt="slow", max_tokens=100_000, stream=stream)
        until(lambda: bool(engine.said) and engine.said[0] > 3)
        client.close()
        until(lambda: len(made) == 1)
        assert engine.said[0] < 10_000
        assert "sweep_requests_abandoned_total 1" in text(url + "/metrics")
        assert post(url, COMPLETIONS, prompt="next", max_tokens=2)[0] == 200


def test_a_client_that_goes_away_while_it_waits_is_not_written_for() -> None:
    with serving() as (engine, url, _):
        engine.go.clear()
        with ThreadPoolExecutor(1) as clients:
            running = clients.submit(post, url, COMPLETIONS, prompt="first")
            until(lambda: bool(engine.asked))
            client = asking(url, prompt="second", stream=True)
            until(lambda: "waiting 1" in text(url + "/metrics"))
            client.close()
            until(lambda: "abandoned_total 1" in text(url + "/metrics"))
            engine.go.set()
            assert running.result()[0] == 200
            assert post(url, COMPLETIONS, prompt="third")[0] == 200
        assert [asked.prompt for asked in engine.asked] == ["first", "third"]
