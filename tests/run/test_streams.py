"""Texts that stream: when each chunk was there, and streams that are malformed, cut off, refused or reset."""

import json
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgspec
import pytest

pytest.importorskip("aiohttp")
pytest.importorskip("uvloop")

from sweep.run.client.messages import Answer, Due, Job, Told
from sweep.run.client.streams import LONGEST, Heard

PATH = "/v1/completions"


def event(**told: object) -> bytes:
    return b"data: " + json.dumps(told).encode() + b"\n\n"


def said(text: str | None) -> bytes:
    return event(choices=[{"index": 0, "text": text, "finish_reason": None}], usage=None)


USAGE = event(choices=[], usage={"prompt_tokens": 5, "completion_tokens": 3}, metrics={"batch_size": 1})
DONE = b"data: [DONE]\n\n"
WHOLE = said(" a") + said(" b") + said(" c") + USAGE + DONE


def heard(*parts: bytes) -> Heard:
    """A part each second."""
    found = Heard()
    for second, part in enumerate(parts):
        if not found.take(part, float(second)):
            return found
    found.end(float(len(parts)))
    return found


def test_a_chunk_is_there_when_its_last_byte_is() -> None:
    one = said(" b")
    found = heard(said(" a"), one[:20], one[20:] + said(""), said(None), said(" c") + USAGE, DONE)
    assert found.chunks_s == [0.0, 2.0, 4.0], "without empty ones"
    assert (found.output_tokens, found.prompt_tokens, found.metrics) == (3, 5, {"batch_size": 1})
    assert (found.failure, found.error) == ("", "")


def test_however_it_is_cut_a_stream_says_the_same() -> None:
    for length in (1, 2, 7, 100):
        found = heard(*(WHOLE[at : at + length] for at in range(0, len(WHOLE), length)))
        assert (len(found.chunks_s), found.output_tokens, found.error) == (3, 3, "")


def test_chats_and_other_lines_of_events_are_read() -> None:
    first = event(choices=[{"delta": {"role": "assistant", "content": ""}}])
    thought = event(choices=[{"delta": {"reasoning_content": "hm"}}])
    chat = event(choices=[{"delta": {"content": "yes"}}])
    found = heard(b": hello\r\n\r\nevent: x\r\nid: 1\r\n", first, thought, chat, DONE.replace(b"\n", b"\r\n"))
    assert found.chunks_s == [2.0, 3.0]
    assert found.output_tokens == 2, "chunks, where the server counts no tokens"
    assert heard(b"data:" + said(" a")[6:], b"data:[DONE]").error == "", (
        "the space and the last line's end may be missing"
    )


@pytest.mark.parametrize(
    ("parts", "failure", "error"),
    [
        ([], "reply", "the stream ended without [DONE] after 0 chunks"),
        ([said(" a"), said(" b")], "reply", "the stream ended without [DONE] after 2 chunks"),
        ([said(" a"), said(" b")[:30]], "reply", "malformed chunk after 1 chunk: b'{"),
        ([said(" a"), b"data: {oh\n\n", DONE], "reply", "malformed chunk after 1 chunk: b'{oh'"),
        ([event(choices="none"), DONE], "reply", "malformed chunk after 0 chunks"),
        ([b"data: \xff\n\n", DONE], "reply", "malformed chunk"),
        ([b"data: []\n\n", DONE], "reply", "malformed chunk"),
        ([b'{"choices": []}'], "reply", 'the reply is no stream of events: b\'{"choices"'),
        ([USAGE, DONE], "reply", "the stream holds no text"),
        ([b"data: " + b"x" * (LONGEST + 1)], "reply", "a line of the stream is longer than"),
        ([said(" a"), event(error={"message": "out of\nluck"})], "http", "after 1 chunk: out of luck"),
        ([event(error="out of luck")], "http", "after 0 chunks: out of luck"),
    ],
)
def test_what_is_wrong_with_a_stream_is_said(parts: list[bytes], failure: str, error: str) -> None:
    found = heard(*parts)
    assert found.failure == failure
    assert found.error.startswith(error)
    assert "\n" not in found.error


STREAMS = {
    "right": [said(" a"), 0.25, said(" b"), 0.25, said(" c") + USAGE, DONE],
    "cut off": [said(" a")],
    "malformed": [said(" a"), b"data: {oh\n\n", 3.0, DONE],
    "reset": [said(" a"), 0.1, said(" b"), "reset"],
    "hang": [said(" a"), 3.0],
    "error": [said(" a"), event(error={"message": "no such luck"}), DONE],
}


class Handler(BaseHTTPRequestHandler):
    """Streams as the prompt says, in chunks of HTTP/1.1."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        prompt = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["prompt"]
        self.send_response(429 if prompt == "full" else 200)
        if prompt == "full":
            body = json.dumps({"error": {"message": "later"}}).encode()
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for part in STREAMS[prompt]:
            if isinstance(part, float):
                time.sleep(part)
            elif part == "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.close_connection = True
                self.connection.close()
                return
            else:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
                self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_: object) -> None:
        pass


class Quiet(ThreadingHTTPServer):
    """Clients that go away in mid-stream are what is tested."""

    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    made = Quiet(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{made.server_address[1]}"
    made.shutdown()
    made.server_close()


def test_streams_are_told_as_what_they_are(url: str) -> None:
    wrong = {
        "right": ("", ""),
        "cut off": ("reply", "the stream ended without [DONE] after 1 chunk"),
        "malformed": ("reply", "malformed chunk after 1 chunk"),
        "reset": ("connection", "after 2 chunks: Client"),
        "hang": ("timeout", "only 1 chunk of the reply within 1 s"),
        "error": ("http", "after 1 chunk: no such luck"),
        "full": ("refused", "HTTP 429: later"),
    }
    due = [Due(prompt, {"prompt": prompt}, (0, 0)) for prompt in wrong]
    job = Job(url, PATH, due, 1.0, warm_up=[Due("w0", {"prompt": "right"}, (0, 0))], decoders=0, streams=True)
    command = [sys.executable, "-m", "sweep.run.client.process"]
    done = subprocess.run(command, input=msgspec.json.encode(job), capture_output=True, check=True, timeout=120)
    assert done.stderr == b""
    records = [msgspec.json.decode(line, type=Told) for line in done.stdout.splitlines()]
    answers: dict[str, Answer] = {one.answer.id: one.answer for one in records if one.answer}
    assert answers.keys() == wrong.keys(), "each is answered once"
    for name, (failure, error) in wrong.items():
        assert answers[name].failure == failure, answers[name]
        assert answers[name].error.startswith(error) if error else not answers[name].error
    right = answers["right"]
    assert (right.output_tokens, right.prompt_tokens, right.metrics) == (3, 5, {"batch_size": 1})
    first, second, third = right.chunks_s
    assert right.first_byte_s is not None
    assert right.sent_s <= right.first_byte_s <= first < second - 0.1
    assert second < third - 0.1
    assert third <= right.done_s + 1e-6
    assert right.first_token_s == first
    assert len(answers["reset"].chunks_s) == 2, "what was there is kept"
