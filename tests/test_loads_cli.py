"""Cells under load through the command line: next to offline ones, in every table, with what follows from them."""

import base64
import csv
import io
import itertools
import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.conftest import Finished, finished, to_run
from tests.test_cli_errors import check_refused

pytest.importorskip("fastapi")
pytest.importorskip("aiohttp")
pytest.importorskip("uvloop")

NOOP = ("-m", "engine=noop", "aa=0")
Run = Callable[..., Finished]


def _png() -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def rows(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "summary.csv").open() as handle:
        return {row["cell"]: row for row in csv.DictReader(handle)}


def requests(folder: Path, cell: str) -> list[dict[str, str]]:
    (path,) = [one for one in folder.iterdir() if one.name.rpartition("-")[0] == cell.replace(" ", "-")]
    with (path / "requests.csv").open() as handle:
        return list(csv.DictReader(handle))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real engine offline and served, one prompt at a time, with a feature."""
    base = tmp_path_factory.mktemp("served")
    work = ("model=tiny_qwen_image", "workload.steps=4", "workload.num_prompts=2", "workload.repeats=1")
    load = ("load=offline,closed", "load.max_concurrency=1,2", "load.num_requests=6", "load.slo.e2el=60000")
    done = finished("sweep", ("-m", "feature=teacache", "aa=1", *work, *load, "hydra.sweep.dir=sweep"), base)
    assert done.code == 0, done.out + done.err
    (base / "printed").write_text(done.out)
    return base / "sweep"


def test_served_pictures_are_those_of_offline_and_are_kept(served: Path) -> None:
    offline = requests(served, "baseline b1 offline")
    first = {(row["prompt_index"], row["seed"]): row["image_hash"] for row in offline if row["repeat"] == "0"}
    load = requests(served, "baseline b1 closed 2 in flight")
    assert len(load) == 6
    assert {row["seed"] for row in load} == {str(seed) for seed in range(3)}, "prompts come again with new seeds"
    same = {(row["prompt_index"], row["seed"]): row["image_hash"] for row in load}
    assert first.items() <= same.items()
    assert [bool(row["image"]) for row in sorted(load, key=lambda row: row["request_id"])] == [True] * 2 + [False] * 4


def test_a_feature_engages_and_is_judged_under_load_as_offline(served: Path) -> None:
    found = rows(served)
    for load in ("offline", "closed 1 in flight", "closed 2 in flight"):
        row = found[f"teacache b1 {load}"]
        assert row["status"] in ("PASS", "WARN"), row["reason"]
        assert "blocks skipped" in row["evidence"]
        assert float(row["mean_diff"]) > 0
        assert row["speedup"]


def test_noise_is_of_the_load_that_it_is_used_for(served: Path) -> None:
    noise = json.loads((served / "report.json").read_text())["noise"]
    assert [(one["engine"], one["starts"]) for one in noise] == [("diffusers", 2), ("diffusers under load", 3)]


def test_times_of_a_request_follow_one_another(served: Path) -> None:
    for row in requests(served, "teacache b1 closed 2 in flight"):
        sent, start, done = (float(row[f"{name}_s"]) for name in ("sent", "start", "done"))
        assert sent < start < done
        assert float(row["e2e_s"]) == pytest.approx(done - sent)
        assert float(row["queue_s"]) <= start - sent + 1e-3
        assert float(row["intended_s"]) == pytest.approx(sent)


def test_what_loads_say_together_is_said_everywhere(served: Path) -> None:
    report = json.loads((served / "report.json").read_text())
    assert [(one["name"], one["level"]) for one in report["ladders"]] == [
        ("baseline b1", "concurrency"),
        ("teacache b1", "concurrency"),
    ]
    assert all(one["code"] in ("knee", "still_grows") for one in report["ladders"]), "which one is the machine's to say"
    assert [one["name"] for one in report["serving"]] == ["baseline b1", "teacache b1"]
    printed = " ".join((served.parent / "printed").read_text().split())
    page = (served / "report.html").read_text()
    for one in (*report["ladders"], *report["serving"]):
        assert one["text"] in printed
        assert one["text"] in page
    assert (served / "plots" / "concurrency.png").exists()


def test_columns_of_a_load_are_filled_and_offline_they_are_empty(served: Path) -> None:
    found = rows(served)
    offline, load = found["baseline b1 offline"], found["baseline b1 closed 2 in flight"]
    own = (
        "load",
        "concurrency",
        "queue_mean_s",
        "goodput_per_s",
        "in_flight",
        "batch_mean",
        "requests_sent",
        "window_s",
    )
    assert not any(offline[name] for name in own)
    assert all(load[name] for name in own)
    assert load["load"] == "closed, 2 in flight"
    assert 1 <= float(load["in_flight"]) <= 2
    assert float(load["goodput_share"]) == 1
    assert float(load["goodput_per_s"]) == pytest.approx(float(load["requests_per_s"]))
    assert float(load["in_flight"]) == pytest.approx(
        float(load["requests_per_s"]) * float(load["latency_mean_s"]), rel=0.2
    )


def test_an_open_load_sends_at_its_rate_and_counts_from_when_requests_were_due(sweep: Run, tmp_path: Path) -> None:
    rate = ("load=open", "load.request_rate=50,200", "load.arrivals=constant", "load.num_requests=60")
    done = sweep(*NOOP, *rate, "hydra.sweep.dir=sweep")
    assert done.code == 0, done.out + done.err
    found = rows(tmp_path / "sweep")
    assert [row["load"] for row in found.values()] == ["open, 50/s constant", "open, 200/s constant"]
    sent = sorted(float(row["intended_s"]) for row in requests(tmp_path / "sweep", "baseline b1 50_s"))
    gaps = [after - before for before, after in itertools.pairwise(sent)]
    assert gaps == pytest.approx([0.02] * 59)
    for row in found.values():
        assert float(row["e2e_with_queue_mean_s"]) >= float(row["latency_mean_s"])
    assert (tmp_path / "sweep" / "plots" / "rate.png").exists()


def test_metadata_is_kept_with_the_sweep(sweep: Run, tmp_path: Path) -> None:
    told = ("+metadata.model_version=v1.0", "+metadata.hardware=8xDCU")
    done = sweep(*NOOP, "load=closed", "load.max_concurrency=1", *told, "plots=false", "hydra.sweep.dir=sweep")
    assert done.code == 0, done.out + done.err
    manifest = json.loads((tmp_path / "sweep" / "manifest.json").read_text())
    assert manifest["metadata"] == {"model_version": "v1.0", "hardware": "8xDCU"}


def test_batches_wait_for_company_when_told_to(sweep: Run, tmp_path: Path) -> None:
    wait = "load.batch_wait_ms=0,500"
    done = sweep(
        *NOOP, "batch=4", "load=closed", "load.max_concurrency=4", wait, "plots=false", "hydra.sweep.dir=sweep"
    )
    assert done.code == 0, done.out + done.err
    found = rows(tmp_path / "sweep")
    assert float(found["baseline b4 batch_wait_ms=500 4 in flight"]["batch_mean"]) == 4
    assert float(found["baseline b4 batch_wait_ms=0 4 in flight"]["batch_mean"]) <= 4


def test_edits_are_uploaded(sweep: Run, tmp_path: Path) -> None:
    work = ("workload=image_edit", "workload.steps=2", "workload.num_prompts=1", "model=tiny_glm_image")
    load = ("load=offline,closed", "load.max_concurrency=1", "load.num_requests=2", "workload.repeats=1")
    done = sweep("-m", *work, *load, "plots=false", "aa=0", "hydra.sweep.dir=sweep")
    assert done.code == 0, done.out + done.err
    (offline,) = requests(tmp_path / "sweep", "baseline b1 offline")
    load_first = requests(tmp_path / "sweep", "baseline b1 closed 1 in flight")[0]
    assert load_first["image_hash"] == offline["image_hash"]


def test_a_load_mixes_edits_and_sizes_and_tells_them_apart(sweep: Run, tmp_path: Path) -> None:
    mix = ("load.mix.edits=0.4", "load.mix.sizes=choice", "load.mix.sides=[32,64]", "load.mix.upload=48")
    load = ("load=closed", "load.max_concurrency=2", "load.num_requests=40", "load.clients=2")
    done = sweep(*NOOP, *load, *mix, "plots=false", "hydra.sweep.dir=sweep")
    assert done.code == 0, done.out + done.err
    made = requests(tmp_path / "sweep", "baseline b1 2 in flight")
    assert {one["task"] for one in made} == {"generate", "edit"}
    assert {one["width"] for one in made} == {"32", "64"}
    (row,) = rows(tmp_path / "sweep").values()
    assert row["load"] == "closed, 2 in flight (40% edits, choice sizes)"
    assert float(row["edit_latency_mean_s"]) > 0
    assert float(row["generate_latency_mean_s"]) > 0
    (folder,) = [one for one in (tmp_path / "sweep").iterdir() if one.is_dir() and (one / "result.json").exists()]
    sides = set()
    for one in (folder / "inputs").glob("*.png"):
        with Image.open(one) as picture:
            sides.add(picture.size)
    assert sides == {(48, 48)}
    assert "sweep_requests_received_total 4" in (folder / "server_metrics.txt").read_text()


def test_edits_and_pictures_of_two_sizes_are_made_by_the_real_engine(sweep: Run, tmp_path: Path) -> None:
    work = ("-m", "model=tiny_glm_image", "workload.steps=1", "workload.num_prompts=2", "aa=0", "plots=false")
    mix = ("load.mix.edits=0.5", "load.mix.sizes=pareto", "load.mix.x_min=64", "load.mix.alpha=1")
    load = ("load=closed", "load.max_concurrency=2", "load.num_requests=4", "load.warmup_requests=0")
    done = sweep(*work, *load, *mix, "engine.warmup=0", "hydra.sweep.dir=sweep")
    assert done.code == 0, done.out + done.err
    made = requests(tmp_path / "sweep", "baseline b1 2 in flight")
    assert {one["exit_code"] for one in made} == {"0"}
    assert {one["task"] for one in made} == {"generate", "edit"}
    assert len({one["width"] for one in made}) > 1
    assert "not checked against their prompts" in done.out


BAD = {
    ("load=closed", "load.max_concurrency=null"): ["load=closed", "load.max_concurrency=N"],
    ("load=closed", "load.max_concurrency=0"): ["load.max_concurrency=0:"],
    ("load=open", "load.request_rate=null"): ["load=open", "load.request_rate=R"],
    ("load=open", "load.arrivals=sometimes"): ["load.arrivals=sometimes:", "poisson"],
    ("load=open", "load.trace=missing.txt", "load.request_rate=null"): ["load.trace=missing.txt:"],
    ("load=closed", "load.slo.ttft=-1"): ["load.slo.ttft=-1"],
    ("load=closed", "load.num_requests=0"): ["load.num_requests=0:"],
    ("load=closed", "load.num_requests=9999999"): ["1,000,000"],
    ("load=closed", "profile=torch"): ["profile=torch", "load=closed"],
    ("load=close",): ["close", "closed"],
    ("load=closed", "load.mix.edits=0.5", "workload=image_edit"): ["load.mix.edits=0.5", "image_edit"],
    ("load=closed", "load.mix.edits=0.5", "model=tiny_qwen_image"): ["load.mix.edits=0.5", "tiny_qwen_image"],
    ("load=closed", "load.mix.sizes=choice", "load.mix.sides=[63]", "model=tiny_qwen_image"): ["[63]", "multiples"],
    ("load=closed", "load.mix.mask=missing.png", "load.mix.edits=0.5"): ["load.mix.mask=missing.png", "endpoint"],
    ("load=closed", "load.mix.edits=1.5"): ["load.mix.edits=1.5"],
    ("load=closed", "load.clients=0"): ["load.clients=0"],
}


@pytest.mark.parametrize("arguments", BAD, ids=" ".join)
def test_a_bad_load_is_one_line(
    sweep: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    check_refused(sweep("-m", *arguments), tmp_path, BAD[arguments])


def test_a_search_measures_on_in_the_same_engine_and_a_rerun_measures_nothing(sweep: Run, tmp_path: Path) -> None:
    asked = (*NOOP, "load=closed", "load.max_concurrency=1", "load.search=concurrency", "load.most=4", "plots=false")
    first = sweep(*asked, "hydra.sweep.dir=sweep")
    assert first.code == 0, first.out + first.err
    found = rows(tmp_path / "sweep")
    assert [row["concurrency"] for row in found.values()] == ["1", "2", "4"][: len(found)]
    assert len(found) >= 2, "one is always compared with twice as many"
    report = json.loads((tmp_path / "sweep" / "report.json").read_text())
    assert report["sweep"]["engine_starts"] == 1
    assert len(report["ladders"]) == 1
    again = sweep(*asked, "hydra.sweep.dir=sweep")
    assert again.code == 0, again.out + again.err
    assert to_run(again.out)[0] == 0
    assert "other command" not in again.out + again.err
    assert rows(tmp_path / "sweep").keys() == found.keys()


class OneAtATime(BaseHTTPRequestHandler):
    """A server that takes 50 ms for each picture, one after another."""

    protocol_version = "HTTP/1.1"
    turn = threading.Lock()
    picture = base64.b64encode(_png()).decode()

    def do_GET(self) -> None:
        self._answer({"data": [{"id": "fixed"}]})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        with self.turn:
            time.sleep(0.05)
        self._answer({"data": [{"b64_json": self.picture}]})

    def _answer(self, told: dict[str, Any]) -> None:
        body = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_the_rate_that_meets_an_slo_is_searched_and_said(sweep: Run, tmp_path: Path) -> None:
    """Never more than the server can do. How much less depends on how busy this machine is."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), OneAtATime)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    load = ("+study=slo", "load.request_rate=10", "load.slo.e2el=300", "load.arrivals=constant", "load.precision=0.6")
    asked = ("-m", "engine=endpoint", f"engine.url={url}", *load, "load.num_requests=30", "plots=false")
    try:
        done = sweep(*asked, "hydra.sweep.dir=sweep")
    finally:
        server.shutdown()
        server.server_close()
    assert done.code == 0, done.out + done.err
    (ladder,) = json.loads((tmp_path / "sweep" / "report.json").read_text())["ladders"]
    assert ladder["code"] in ("slo_attained", "saturated")
    assert ladder["knee"] is None or ladder["knee"] <= 22
    assert "e2el 300 ms for 95% of requests" in ladder["text"]
    assert ladder["text"] in " ".join(done.out.split())
