"""An engine over HTTP: replies, batches, limits, errors, and what the metrics count."""

import base64
import io
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

pytest.importorskip("fastapi")

from sweep.engines.noop.engine import NoopEngine
from sweep.engines.protocol import Output, Request
from sweep.engines.serving.batching import BatchQueue, Full, Stopped
from sweep.engines.serving.server import Server
from sweep.engines.serving.settings import ServeSettings


class Drawing(NoopEngine):
    """Draws a blank picture; waits until `go`, fails for prompts that say so."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.go.set()
        self.seen: list[tuple[Request, ...]] = []

    def generate(self, requests: Sequence[Request], folder: Path | None) -> Output:
        self.seen.append(tuple(requests))
        self.go.wait(30)
        if "fail" in requests[0].prompt:
            raise ValueError("no such luck")
        if "die" in requests[0].prompt:
            self.alive = False
            raise RuntimeError("gone")
        assert folder is not None
        names = [f"images/{one.request_id}.png" for one in requests]
        (folder / "images").mkdir(exist_ok=True)
        for one, name in zip(requests, names, strict=True):
            Image.new("RGB", (one.width, one.height), "red").save(folder / name)
        blank = super().generate(requests, folder)
        return Output(**{**vars(blank), "image_paths": tuple(names)})


Served = tuple[Drawing, str, list[Output]]


@contextmanager
def serving(**settings: Any) -> Iterator[Served]:
    engine, made, stop = Drawing(), [], threading.Event()
    check: Callable[[Request], str] = lambda one: "at most 64 pixels" if one.width > 64 else ""  # noqa: E731
    server = Server(engine, ServeSettings("tiny", **settings), check)
    failure: list[BaseException] = []

    def run() -> None:
        try:
            server.run(stop.is_set, made.append)
        except RuntimeError as error:
            failure.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield engine, server.url, made
    finally:
        engine.go.set()
        stop.set()
        thread.join()
        server.stop()


def post(url: str, path: str = "/v1/images/generations", **body: Any) -> tuple[int, dict[str, Any]]:
    asked = urllib.request.Request(url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(asked, timeout=60) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def text(url: str) -> str:
    with urllib.request.urlopen(url, timeout=60) as reply:
        return reply.read().decode()


def test_a_picture_comes_back_with_what_it_took() -> None:
    with serving() as (engine, url, made):
        status, reply = post(url, prompt="a cat", size="32x64", num_inference_steps=3, seed=7, n=2)
        assert status == 200
        pictures = [Image.open(io.BytesIO(base64.b64decode(one["b64_json"]))) for one in reply["data"]]
        assert [one.size for one in pictures] == [(32, 64), (32, 64)]
        assert set(reply["metrics"]["stage_durations"]) == {"queue_wait_ms", "stage_0_gen_ms"}
        assert reply["metrics"]["stage_durations"]["queue_wait_ms"] >= 0
        ((first,), (second,)) = engine.seen
        assert (first.prompt, first.width, first.height, first.steps, first.seed) == ("a cat", 32, 64, 3, 7)
        assert second.seed == 8
        assert len(made) == 2
        assert json.loads(text(url + "/v1/models"))["data"][0]["id"] == "tiny"
        assert json.loads(text(url + "/health")) == {"status": "ok"}
        counted = dict(line.rsplit(" ", 1) for line in text(url + "/metrics").splitlines() if line[0] != "#")
        assert counted["sweep_requests_success_total"] == "1"
        assert counted['sweep_batches_of_size_total{size="1"}'] == "2"


def test_requests_that_wait_together_are_generated_together() -> None:
    with serving(batch=3, batch_wait_ms=50) as (engine, url, _):
        engine.go.clear()
        with ThreadPoolExecutor(6) as clients:
            first = clients.submit(post, url, prompt="first", steps=2)
            while not engine.seen:
                pass
            rest = [clients.submit(post, url, prompt="more", seed=number) for number in range(4)]
            other = clients.submit(post, url, prompt="larger", size="64x32")
            while "waiting 5" not in text(url + "/metrics"):
                pass
            engine.go.set()
            sizes = [one.result()[1]["metrics"]["batch_size"] for one in (first, *rest, other)]
        assert sizes[0] == 1
        assert sorted(sizes[1:5]) == [1, 3, 3, 3]
        assert sizes[5] == 1, "of another size"


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"prompt": "x", "size": "64"}, 400, "size: "),
        ({"prompt": "x", "size": "128x64"}, 400, "at most 64 pixels"),
        ({"prompt": "x", "num_inference_steps": 0}, 400, "num_inference_steps: "),
        ({"size": "64x64"}, 400, "prompt: "),
        ({"prompt": "x", "model": "large"}, 404, "'large' does not exist"),
        ({"prompt": "fail"}, 500, "ValueError: no such luck"),
        ({"prompt": "x" * 3_000_000}, 413, "may hold 2 MB"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(body: dict[str, Any], status: int, said: str) -> None:
    with serving(body_mb=2) as (_, url, _):
        got, reply = post(url, **body)
        assert got == status
        assert said in reply["error"]["message"]
        assert "\n" not in reply["error"]["message"]
        assert post(url, prompt="x")[0] == 200, "the next one is served"


def test_a_full_queue_refuses() -> None:
    with serving(queue=2) as (engine, url, _):
        engine.go.clear()
        with ThreadPoolExecutor(3) as clients:
            running = clients.submit(post, url, prompt="a")
            while not engine.seen:
                pass
            waiting = [clients.submit(post, url, prompt="b") for _ in range(2)]
            while "waiting 2" not in text(url + "/metrics"):
                pass
            status, reply = post(url, prompt="c")
            assert status == 429
            assert "2 requests wait already" in reply["error"]["message"]
            engine.go.set()
            assert [one.result()[0] for one in (running, *waiting)] == [200] * 3


def test_an_engine_that_is_gone_answers_and_ends_the_server() -> None:
    with serving() as (engine, url, _):
        status, reply = post(url, prompt="die")
        assert (status, reply["error"]["message"]) == (500, "RuntimeError: gone")
        assert not engine.alive


def test_an_edit_brings_its_picture() -> None:
    with serving() as (engine, url, _):
        picture = io.BytesIO()
        Image.new("RGB", (8, 8)).save(picture, "PNG")
        line = "--b"
        parts = [f'{line}\r\nContent-Disposition: form-data; name="prompt"\r\n\r\nmake it red\r\n'.encode()]
        head = f'{line}\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'.encode()
        body = b"".join([*parts, head, picture.getvalue(), f"\r\n{line}--\r\n".encode()])
        asked = urllib.request.Request(
            url + "/v1/images/edits", body, {"Content-Type": "multipart/form-data; boundary=b"}
        )
        with urllib.request.urlopen(asked, timeout=60) as reply:
            assert reply.status == 200
        ((one,),) = engine.seen
        assert one.input_image is not None
        assert not Path(one.input_image).exists(), "it is gone when it is answered"


def request(number: int, **changed: Any) -> Request:
    whole = {"height": 64, "width": 64, "steps": 2, "guidance_scale": 4.0, **changed}
    return Request(f"r{number}", "a cat", number, 0, **whole)


def test_a_queue_waits_for_company_and_no_longer() -> None:
    now = 0.0
    queue = BatchQueue(2, 0.0, 3, lambda: now)
    assert queue.take(0.0) == []
    for number, steps in enumerate((2, 3, 2)):
        queue.submit(request(number, steps=steps))
    with pytest.raises(Full):
        queue.submit(request(4))
    assert [one.request.request_id for one in queue.take(0.0)] == ["r0", "r2"]
    assert [one.request.request_id for one in queue.take(0.0)] == ["r1"]
    gone = queue.submit(request(5))
    gone.cancel()
    assert queue.take(0.0) == []
    queue.submit(request(6))
    queue.stop()
    assert len(queue) == 0
    with pytest.raises(Stopped):
        queue.submit(request(7))
