"""An engine's process that serves over HTTP: it reports its batches, and generates as before afterwards."""

import json
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("fastapi")

from sweep.engines.process.failures import EngineFailure
from sweep.engines.process.forkserver import SHARED_VARIABLE
from sweep.engines.process.host import EngineHost
from sweep.engines.protocol import Output
from sweep.engines.serving.settings import ServeSettings
from tests import fork_server
from tests.engines.conftest import make_request, make_spec


def post(url: str, seed: int) -> dict[str, object]:
    body = {"prompt": "a red circle", "size": "64x64", "num_inference_steps": 2, "seed": seed}
    asked = urllib.request.Request(url + "/v1/images/generations", json.dumps(body).encode())
    asked.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(asked, timeout=120) as reply:
        return dict(json.load(reply))


@pytest.fixture(autouse=True)
def forked_as_commands_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the server of all tests: a process has one for life."""
    monkeypatch.setenv(SHARED_VARIABLE, fork_server.shared())


def test_it_serves_and_hands_over_what_its_batches_were(tmp_path: Path) -> None:
    made: list[Output] = []
    with EngineHost(make_spec("tiny_glm_image_random"), 300) as host:
        host.load(300)
        (before,) = host.generate([make_request(seed=3)], tmp_path, 300, "generating").image_hashes
        url = host.serve(ServeSettings("tiny", batch=2, batch_wait_ms=50), 60)
        watching = threading.Thread(target=lambda: made.extend(host.served(300)))
        watching.start()
        with ThreadPoolExecutor(4) as clients:
            replies = list(clients.map(lambda seed: post(url, seed), range(6)))
        host.stop_serving(60)
        watching.join(60)
        (after,) = host.generate([make_request(seed=3)], tmp_path, 300, "generating").image_hashes
    assert before == after
    sizes = [len(output.request_ids) for output in made]
    assert sum(sizes) == 6
    assert max(sizes) <= 2
    assert all(output.evidence and output.phases for output in made)
    assert all(reply["metrics"]["batch_size"] in sizes for reply in replies)  # type: ignore[index]


def test_a_port_in_use_is_said_and_costs_no_engine() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken, EngineHost(make_spec("tiny_glm_image_random"), 300) as host:
        host.load(300)
        with pytest.raises(EngineFailure, match=r"starting the server.*in use") as caught:
            host.serve(ServeSettings("tiny", port=taken.getsockname()[1]), 60)
        assert caught.value.alive
