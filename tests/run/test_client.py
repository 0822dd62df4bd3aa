"""The load generator: requests sent when they are due, answers timed and checked, faults reported as what they are."""

import base64
import contextlib
import io
import itertools
import json
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

pytest.importorskip("aiohttp")
pytest.importorskip("uvloop")

from sweep.engines.images import BLANK, WRONG_SIZE
from sweep.run.client.messages import Answer, Due, Ended, Job, Told
from sweep.workload import arrivals

PATH = "/v1/images/generations"
NOISE = np.random.default_rng(0).integers(0, 255, (16, 16, 3)).astype(np.uint8)


def png(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def reply(*pictures: str) -> bytes:
    data = [{"b64_json": one} for one in pictures]
    return json.dumps({"data": data, "metrics": {"batch_size": 1}}).encode()


RIGHT = reply(png(Image.fromarray(NOISE)))
BODIES = {
    "right": RIGHT,
    "empty": b"",
    "malformed": RIGHT[:40],
    "no picture": reply(),
    "torn": reply(png(Image.fromarray(NOISE))[:200]),
    "text": reply(base64.b64encode(b"not a picture").decode()),
    "blank": reply(png(Image.new("RGB", (16, 16)))),
    "small": reply(png(Image.fromarray(NOISE[:8]))),
}


class Handler(BaseHTTPRequestHandler):
    """Answers as the prompt says; the server keeps when requests came and went."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        came = time.perf_counter()
        sent = self.rfile.read(int(self.headers["Content-Length"]))
        form = self.headers["Content-Type"].startswith("multipart/form-data")
        prompt = "right" if form else json.loads(sent)["prompt"]
        if prompt == "hang":
            time.sleep(3)
        if prompt.startswith("wait"):
            time.sleep(float(prompt.removeprefix("wait")))
        if prompt == "reset":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"half")
            self.wfile.flush()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
            return
        status = int(prompt) if prompt.isdecimal() else 200
        body = BODIES.get(prompt, RIGHT)
        if status != 200:
            body = json.dumps({"error": {"message": f"answered {status}\nas asked"}}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        entry = (prompt, came, time.perf_counter(), self.headers.get("Authorization"), self.path, sent)
        self.server.log.append(entry)  # type: ignore[attr-defined]
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    with answering() as made:
        yield made


@pytest.fixture
def other() -> Iterator[ThreadingHTTPServer]:
    with answering() as made:
        yield made


@contextlib.contextmanager
def answering() -> Iterator[ThreadingHTTPServer]:
    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.log = []  # type: ignore[attr-defined]
    made.daemon_threads = True
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()


def send(url: str, prompts: list[str], times: list[float] | None = None, **job: object) -> tuple[list[Answer], Ended]:
    return send_and_begin(url, prompts, times, **job)[:2]


def send_and_begin(
    url: str, prompts: list[str], times: list[float] | None = None, **job: object
) -> tuple[list[Answer], Ended, float]:
    due = [
        Due(f"r{number}", {"prompt": prompt}, (16, 16), times[number] if times else None)
        for number, prompt in enumerate(prompts)
    ]
    whole = Job(url, PATH, due, **{"timeout_s": 30.0, **job})
    command = [sys.executable, "-m", "sweep.run.client.process"]
    done = subprocess.run(command, input=msgspec.json.encode(whole), capture_output=True, check=True, timeout=120)
    records = [msgspec.json.decode(line, type=Told) for line in done.stdout.splitlines()]
    assert done.stderr == b""
    (ended,) = [one.ended for one in records if one.ended]
    answers = sorted((one.answer for one in records if one.answer), key=lambda one: int(one.id[1:]))
    assert [one.id for one in answers] == [f"r{number}" for number in range(len(prompts))], "each is answered once"
    (began_s,) = [one.began_s for one in records if one.began_s is not None]
    return answers, ended, began_s


def url_of(server: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}"


def test_what_comes_back_is_told_as_what_it_is(server: ThreadingHTTPServer) -> None:
    said = {
        "right": ("", ""),
        "empty": ("the reply is empty", ""),
        "malformed": ("the reply is no list of pictures", ""),
        "no picture": ("the reply holds no picture", ""),
        "torn": ("the picture does not decode", ""),
        "text": ("the picture does not decode", ""),
        "blank": ("", BLANK),
        "small": ("", WRONG_SIZE),
        "500": ("HTTP 500: answered 500 as asked", ""),
        "429": ("HTTP 429: answered 429 as asked", ""),
        "hang": ("no reply within 1 s", ""),
        "reset": ("Client", ""),
    }
    answers, _ = send(url_of(server), list(said), concurrency=4, timeout_s=1.0)
    for answer, (error, fault) in zip(answers, said.values(), strict=True):
        assert answer.error.startswith(error) if error else not answer.error, answer
        assert answer.fault == fault
        assert "\n" not in answer.error
        assert answer.sent_s <= answer.done_s
    right = answers[0]
    assert right.metrics == {"batch_size": 1}
    assert len(right.image_hash) == 64
    assert right.first_byte_s is not None
    assert right.sent_s <= right.first_byte_s <= right.done_s
    assert answers[-2].status == 0
    assert [one.failure for one in answers] == ["", *["reply"] * 5, "", "", "http", "refused", "timeout", "connection"]


def test_replies_of_an_engine_without_pictures_are_read_for_their_metrics(server: ThreadingHTTPServer) -> None:
    (one,), _ = send(url_of(server), ["text"], pictures=False)
    assert (one.error, one.fault, one.metrics) == ("", "", {"batch_size": 1})


def test_of_replicas_the_one_with_the_fewest_in_flight_is_asked(
    server: ThreadingHTTPServer, other: ThreadingHTTPServer
) -> None:
    first, second = url_of(server), url_of(other)
    warm_up = [Due("w0", {"prompt": "right"}, (16, 16))]
    prompts = ["wait1", "wait0.1", "wait0.1", "wait0.1"]  # the first one keeps its server busy
    answers, _ = send(first, prompts, concurrency=2, replicas=[second], warm_up=warm_up)
    assert [one.server for one in answers] == [first, second, second, second]
    asked = {url_of(one): [line[0] for line in one.log] for one in (server, other)}  # type: ignore[attr-defined]
    assert asked == {first: ["right", "wait1"], second: ["right", "wait0.1", "wait0.1", "wait0.1"]}, "all warm up"


def test_a_replica_that_is_gone_loses_its_requests_alone(server: ThreadingHTTPServer) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        gone = f"http://127.0.0.1:{unused.getsockname()[1]}"
        answers, _ = send(url_of(server), ["wait0.5", "right"], concurrency=2, replicas=[gone])
    assert [one.failure for one in answers] == ["", "connection"]
    assert [one.server for one in answers] == [url_of(server), gone]


def test_a_single_server_is_not_named(server: ThreadingHTTPServer) -> None:
    (one,), _ = send(url_of(server), ["right"])
    assert one.server == ""


def test_warm_up_comes_first_and_is_not_told_of(server: ThreadingHTTPServer) -> None:
    warm_up = [Due("w0", {"prompt": "wait0.1"}, (16, 16))]
    _, _, began_s = send_and_begin(url_of(server), ["right"], warm_up=warm_up)
    first, second = server.log  # type: ignore[attr-defined]
    assert (first[0], second[0]) == ("wait0.1", "right")
    assert first[2] <= began_s <= second[1]


def test_no_server_is_an_error_of_every_request() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    answers, _ = send(f"http://127.0.0.1:{port}", ["right"] * 3)
    assert all("Connect" in one.error and one.status == 0 for one in answers)


@pytest.mark.parametrize("clients", [1, 2])
def test_as_many_are_in_flight_as_may_be(server: ThreadingHTTPServer, clients: int) -> None:
    answers, ended = send(url_of(server), ["wait0.05"] * 12, concurrency=3, clients=clients)
    events = sorted([(one.sent_s, 1) for one in answers] + [(one.done_s, -1) for one in answers])
    assert max(itertools.accumulate(change for _, change in events)) == 3
    assert ended.wall_s >= 12 / 3 * 0.05
    assert ended.cpu_s > 0


def test_a_ramp_lets_one_client_after_the_other_begin(server: ThreadingHTTPServer) -> None:
    answers, _ = send(url_of(server), ["wait0.3"] * 4, concurrency=4, ramp_s=0.4)
    for number, one in enumerate(sorted(answers, key=lambda one: one.sent_s)):
        assert one.sent_s >= 0.1 * number


def test_each_request_goes_to_its_own_endpoint(server: ThreadingHTTPServer) -> None:
    due = [Due("r0", {"prompt": "right"}, (16, 16)), Due("r1", {"prompt": "right"}, (16, 16), path="/nowhere")]
    command = [sys.executable, "-m", "sweep.run.client.process"]
    job = Job(url_of(server), PATH, due, 30.0)
    subprocess.run(command, input=msgspec.json.encode(job), capture_output=True, check=True, timeout=120)
    assert sorted(entry[4] for entry in server.log) == ["/nowhere", PATH]  # type: ignore[attr-defined]


def test_an_edit_sends_its_picture_and_its_mask(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    for name in ("picture", "mask"):
        (tmp_path / name).write_bytes(f"bytes of the {name}".encode())
    files = {"upload": str(tmp_path / "picture"), "mask": str(tmp_path / "mask")}
    due = [Due("r0", {"prompt": "make it red", "seed": 7, "negative_prompt": None}, (16, 16), **files)]
    command = [sys.executable, "-m", "sweep.run.client.process"]
    job = Job(url_of(server), PATH, due, 30.0)
    subprocess.run(command, input=msgspec.json.encode(job), capture_output=True, check=True, timeout=120)
    (entry,) = server.log  # type: ignore[attr-defined]
    for part in (b'name="image"', b"bytes of the picture", b'name="mask"', b"bytes of the mask", b"make it red"):
        assert entry[5].count(part) == 1
    assert b"negative_prompt" not in entry[5]


@pytest.mark.parametrize("clients", [1, 3])
def test_requests_are_sent_when_they_are_due_and_timed_as_the_server_times_them(
    server: ThreadingHTTPServer, clients: int
) -> None:
    """However late: what counts is that later ones are not moved."""
    times = list(itertools.islice(arrivals.times("poisson", 40.0, 1), 60))
    prompts = [f"number {number}" for number in range(60)]
    answers, ended, began_s = send_and_begin(url_of(server), prompts, times, clients=clients)
    assert [one.intended_s for one in answers] == times
    assert all(one.sent_s >= one.intended_s for one in answers)
    late = sorted(one.sent_s - one.intended_s for one in answers)
    assert ended.send_lag_s == pytest.approx(late[-1], abs=1e-6)
    log = sorted(server.log, key=lambda entry: int(entry[0].split()[1]))  # type: ignore[attr-defined]
    for one, (_, came, went, *_) in zip(answers, log, strict=True):
        assert began_s + one.sent_s < came
        assert one.done_s - one.sent_s > went - came


def test_a_stall_delays_what_is_due_meanwhile_and_nothing_else(server: ThreadingHTTPServer) -> None:
    """With one request in flight, a reply of 0.5 s shows in every later one, from when it was due."""
    times = [0.0, 0.1, 0.2, 0.3, 2.0]
    answers, _ = send(url_of(server), ["wait0.5", "right", "right", "right", "right"], times, concurrency=1)
    waited = [one.done_s - one.intended_s for one in answers]
    assert waited[1] >= 0.4
    assert waited[2] >= 0.3
    assert waited[3] >= 0.2
    assert [one.intended_s for one in answers] == times


def test_pictures_are_kept_and_headers_sent(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    file = tmp_path / "one.png"
    due = [Due("r0", {"prompt": "right"}, (16, 16), image=str(file))]
    job = Job(url_of(server), PATH, due, 30.0, headers={"Authorization": "Bearer secret"})
    command = [sys.executable, "-m", "sweep.run.client.process"]
    done = subprocess.run(command, input=msgspec.json.encode(job), capture_output=True, check=True, timeout=120)
    assert np.array_equal(np.asarray(Image.open(file)), NOISE)
    assert b"secret" not in done.stdout + done.stderr
    assert server.log[0][3] == "Bearer secret"  # type: ignore[attr-defined]
