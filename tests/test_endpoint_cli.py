"""A server that runs already: `python -m sweep.serve` in one process, a load that attaches to it in another."""

import csv
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.conftest import Finished, environment
from tests.test_cli_errors import check_refused

pytest.importorskip("fastapi")
pytest.importorskip("aiohttp")
pytest.importorskip("uvloop")

MODEL = ("model=tiny_qwen_image", "workload.steps=2", "workload.num_prompts=2")
LOAD = ("-m", "engine=endpoint", *MODEL, "load=closed", "load.max_concurrency=2", "load.num_requests=12", "plots=false")
KEY = "a-key-that-nobody-may-see"
Run = Callable[..., Finished]


def serving(folder: Path, *overrides: str, **variables: str) -> Iterator[str]:
    """URL of `python -m sweep.serve`, which ends by Ctrl-C."""
    command = [sys.executable, "-m", "sweep.serve", "--port", "0", "--name", "mine", *overrides]
    process = subprocess.Popen(command, cwd=folder, env=environment() | variables, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = next(line for line in process.stdout if "is served at" in line)
    yield line.split("is served at ")[1].split()[0]
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    process.stdout.close()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The embedded server as a command of its own."""
    yield from serving(tmp_path_factory.mktemp("server"), "model=tiny_qwen_image", "batch=2")


@pytest.fixture(scope="module")
def replica(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A second one, of the same model under the same name, which leaves a core to the sweep."""
    folder = tmp_path_factory.mktemp("replica")
    yield from serving(folder, "model=tiny_qwen_image", "batch=2", SWEEP_LEASES=str(folder / "leases"))


def rows(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "summary.csv").open() as handle:
        return {row["cell"]: row for row in csv.DictReader(handle)}


def test_everything_but_what_it_runs_is_measured(sweep: Run, tmp_path: Path, url: str) -> None:
    done = sweep(*LOAD, "feature=teacache", f"engine.url={url}", "hydra.sweep.dir=sweep")
    assert done.code == 0, done.out + done.err
    (row,) = rows(tmp_path / "sweep").values()  # no baseline: it would be the same server
    assert (row["status"], row["reason_code"]) == ("WARN", "unverifiable")
    assert row["requests_sent"] == "12"
    assert row["requests_failed"] == "0"
    assert float(row["queue_mean_s"]) >= 0
    assert float(row["images_per_s"]) > 0


def test_its_pictures_are_those_of_the_same_engine_offline(sweep: Run, tmp_path: Path, url: str) -> None:
    assert sweep(*LOAD, f"engine.url={url}", "hydra.sweep.dir=there").code == 0
    assert sweep("-m", *MODEL, "workload.repeats=1", "aa=0", "plots=false", "hydra.sweep.dir=here").code == 0

    def hashes(folder: str) -> dict[tuple[int, int], str]:
        (result,) = (tmp_path / folder).glob("*/result.json")
        told = json.loads(result.read_text())["requests"]
        return {(one["prompt_index"], one["seed"]): one["image_hash"] for one in told}

    assert hashes("here").items() <= hashes("there").items()


def test_replicas_share_a_load(sweep: Run, tmp_path: Path, url: str, replica: str) -> None:
    done = sweep(*LOAD, f"engine.url={url} {replica}", "hydra.sweep.dir=both")
    assert done.code == 0, done.out + done.err
    (row,) = rows(tmp_path / "both").values()
    assert (row["requests_sent"], row["requests_failed"]) == ("12", "0")
    (table,) = (tmp_path / "both").glob("*/requests.csv")
    with table.open() as handle:
        told = list(csv.DictReader(handle))
    assert {one["server"] for one in told} == {url, replica}
    assert len({(one["prompt_index"], one["seed"]) for one in told}) == 12


@pytest.mark.parametrize(
    ("urls", "why"),
    [
        ("http://127.0.0.1:9 http://127.0.0.1:9/", "names a server twice"),
        ("http://127.0.0.1:9 127.0.0.1:8", "engine.url=127.0.0.1:8: not a URL"),
    ],
)
def test_replicas_that_cannot_be_are_refused(sweep: Run, urls: str, why: str) -> None:
    done = sweep(*LOAD, f"engine.url={urls}")
    assert done.code == 2
    assert why in done.err + done.out


def test_a_replica_that_is_not_there_is_named(sweep: Run, tmp_path: Path, url: str) -> None:
    assert sweep(*LOAD, f"engine.url={url} http://127.0.0.1:9", "hydra.sweep.dir=sweep").code == 1
    (row,) = rows(tmp_path / "sweep").values()
    assert "no server answers at http://127.0.0.1:9" in row["reason"]


def test_without_a_server_the_cell_is_an_error_that_says_so(sweep: Run, tmp_path: Path) -> None:
    done = sweep(*LOAD, "engine.url=http://127.0.0.1:9", "hydra.sweep.dir=sweep")
    assert done.code == 1, done.out + done.err
    (row,) = rows(tmp_path / "sweep").values()
    assert row["status"] == "ERROR"
    assert "no server answers at http://127.0.0.1:9" in row["reason"]


def test_another_model_name_is_an_error_that_says_which_there_are(sweep: Run, tmp_path: Path, url: str) -> None:
    done = sweep(*LOAD, f"engine.url={url}", "engine.served_model=other", "hydra.sweep.dir=sweep")
    assert done.code == 1, done.out + done.err
    (row,) = rows(tmp_path / "sweep").values()
    assert "serves mine, not 'other'" in row["reason"]


class Guarded(BaseHTTPRequestHandler):
    """Wants a key, and has nothing to give."""

    def do_GET(self) -> None:
        right = self.headers.get("Authorization") == f"Bearer {KEY}"
        body = json.dumps({"data": [{"id": "theirs"}]} if right else {"error": {"message": "bad key"}}).encode()
        self.send_response(200 if right else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        right = self.headers.get("Authorization") == f"Bearer {KEY}"
        self.send_response(500 if right else 401)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def guarded() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Guarded)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("key", [KEY, "the-wrong-key-of-this-test"])
def test_a_key_is_sent_and_written_nowhere(
    sweep: Run, tmp_path: Path, guarded: str, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("SERVERS_KEY", key)
    given = (f"engine.url={guarded}", "engine.api_key_env=SERVERS_KEY", "engine.warmup=0", "hydra.sweep.dir=sweep")
    done = sweep(*LOAD, *given)
    assert done.code == 1, done.out + done.err
    (row,) = rows(tmp_path / "sweep").values()
    assert ("HTTP 500" if key == KEY else "is the key in engine.api_key_env right?") in row["reason"]
    written = b"".join(path.read_bytes() for path in (tmp_path / "sweep").rglob("*") if path.is_file())
    assert key.encode() not in written + (done.out + done.err).encode()


BAD = {
    ("engine.url=null",): ["engine.url="],
    ("engine.url=nonsense",): ["engine.url=nonsense"],
    ("engine.url=http://127.0.0.1:1", "engine.api_key_env=NO_SUCH_VARIABLE"): ["NO_SUCH_VARIABLE"],
    ("engine.url=http://127.0.0.1:1", "load=offline"): ["load=closed"],
}


@pytest.mark.parametrize("arguments", BAD, ids=" ".join)
def test_bad_input_is_one_line(
    sweep: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    check_refused(sweep("-m", "engine=endpoint", "load=closed", *arguments), tmp_path, BAD[arguments])


@pytest.mark.parametrize("bad", ["--port=99999", "model=tiny_qwen_imag", "engine=endpoint"])
def test_a_server_that_cannot_be_started_says_why(sweep: Run, bad: str) -> None:
    done = sweep(bad, module="sweep.serve")
    assert done.code == 2
    assert len(done.err.strip().splitlines()) == 1, done.err


def test_a_port_in_use_is_said(sweep: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = sweep("--port", str(port), "engine=noop", module="sweep.serve")
    assert done.code == 2, done.out + done.err
    assert "in use" in done.err
    assert len(done.err.strip().splitlines()) == 1
