"""Texts through the command line: served here and by a server that runs already, timed token by token."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import jsonschema
import pytest
import yaml

from tests import recompute
from tests.conftest import ROOT, Finished, finished
from tests.test_cli_errors import check_refused
from tests.test_endpoint_cli import serving
from tests.test_loads_cli import requests, rows

pytest.importorskip("fastapi")
pytest.importorskip("aiohttp")
pytest.importorskip("uvloop")

NOOP = ("-m", "workload=text", "engine=noop", "aa=0", "plots=false", "load=closed", "load.max_concurrency=2")
SCHEMA = json.loads((ROOT / "sweep" / "report" / "report.schema.json").read_text())
CELL = "baseline b1 2 in flight"
Run = Callable[..., Finished]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real AR stage, two texts at a time."""
    base = tmp_path_factory.mktemp("written")
    work = ("workload=text", "model=tiny_glm_image_random", "workload.input_len=24", "workload.output_len=12")
    load = (
        "load=closed",
        "load.max_concurrency=2",
        "load.num_requests=30",
        "load.slo.ttft=60000",
        "load.slo.tpot=60000",
    )
    done = finished("sweep", ("-m", *work, *load, "aa=1", "hydra.sweep.dir=sweep"), base)
    assert done.code == 0, done.out + done.err
    return base / "sweep"


def test_a_text_has_every_time_of_its_tokens_and_no_image(written: Path) -> None:
    row = rows(written)[CELL]
    assert (row["status"], row["requests_sent"], row["requests_failed"]) == ("PASS", "30", "0")
    assert not any(row[name] for name in ("images_per_s", "images_per_s_per_gpu", "energy_j_per_image", "mean_diff"))
    assert all(float(row[name]) > 0 for name in ("ttft_mean_s", "queue_mean_s"))
    # A client that finds all tokens of a text at once, on a busy machine, knows no gaps between them.
    assert all(float(row[name]) >= 0 for name in ("tpot_mean_s", "itl_mean_s", "itl_p95_s"))
    rate = float(row["requests_per_s"])
    assert float(row["output_tokens_per_s"]) == pytest.approx(12 * rate)
    assert float(row["input_tokens_per_s"]) == pytest.approx(24 * rate)
    assert float(row["goodput_share"]) == 1
    assert row["bottleneck"] in ("ar_prefill", "ar_decode")
    assert not list(written.glob("*/images"))


def test_numbers_of_texts_are_what_their_files_say(written: Path) -> None:
    wrong, compared = recompute.differences(written)
    assert not wrong, "\n".join(wrong)
    assert compared > 50


def test_times_of_a_text_follow_one_another(written: Path) -> None:
    found = requests(written, CELL)
    assert {(row["prompt_tokens"], row["output_tokens"]) for row in found} == {("24", "12")}
    assert len({row["prompt_index"] for row in found}) == 30
    for row in found:
        sent, first, done = (float(row[f"{name}_s"]) for name in ("sent", "first_token", "done"))
        gaps = [float(gap) for gap in row["itl_s"].split()]
        assert len(gaps) == 11
        assert sent < first < done
        assert float(row["ttft_s"]) == pytest.approx(first - sent)
        assert float(row["tpot_s"]) == pytest.approx(sum(gaps) / 11, abs=1e-5)
        assert float(row["ttft_s"]) + sum(gaps) <= float(row["e2e_s"]) + 1e-4
        assert float(row["ttft_s"]) > float(row["queue_s"])
        assert not row["image"]


def test_a_report_of_texts_is_one_of_its_format(written: Path) -> None:
    report = json.loads((written / "report.json").read_text())
    jsonschema.validate(report, SCHEMA, jsonschema.Draft202012Validator)
    assert report["cells"][0]["metrics"]["itl_mean_s"] >= 0


def test_an_engine_that_writes_at_once_is_as_fast_as_its_client(sweep: Run, tmp_path: Path) -> None:
    lengths = ("workload.input_len=8,16", "workload.output_len=5", "load.num_requests=20")
    done = sweep(*NOOP, *lengths, "hydra.sweep.dir=sweep")
    assert done.code == 0, done.out + done.err
    found = rows(tmp_path / "sweep")
    assert len(found) == 2
    for length in (8, 16):
        row = next(row for name, row in found.items() if f"input_len={length}" in name)
        assert float(row["input_tokens_per_s"]) == pytest.approx(length / 5 * float(row["output_tokens_per_s"]))


def test_conversations_are_sent_with_the_length_of_their_replies(sweep: Run, tmp_path: Path) -> None:
    turns = [[("human", "one two three"), ("gpt", "four five")], [("human", "six"), ("gpt", "seven " * 10)]]
    entries = [{"conversations": [{"from": who, "value": text} for who, text in one]} for one in turns]
    (tmp_path / "shared.json").write_text(json.dumps(entries))
    load = ("load=open", "load.request_rate=100", "load.num_requests=12", "load.slo.e2el=60000")
    file = ("workload.prompts=shared.json", "workload.output_len=null")
    done = sweep(*NOOP[:-2], *load, *file, "hydra.sweep.dir=sweep")
    assert done.code == 0, done.out + done.err
    (row,) = rows(tmp_path / "sweep").values()
    asked = requests(tmp_path / "sweep", row["cell"].replace("/", "_"))
    assert {(row["prompt_tokens"], row["output_tokens"]) for row in asked} == {("3", "3"), ("1", "13")}
    assert {row["seed"] for row in asked} == {str(seed) for seed in range(6)}
    assert float(row["goodput_share"]) == 1
    assert float(row["e2e_with_queue_mean_s"]) >= float(row["latency_mean_s"])


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The embedded server as a command of its own."""
    yield from serving(tmp_path_factory.mktemp("server"), "model=tiny_glm_image_random")


@pytest.mark.parametrize("tokens", [True, False])
def test_a_server_that_runs_already_is_sent_words_unless_it_may_be_sent_tokens(
    sweep: Run, tmp_path: Path, url: str, tokens: bool
) -> None:
    work = ("workload=text", "workload.input_len=6", "workload.output_len=4", f"workload.prompt_ids={tokens or 'null'}")
    load = ("load=closed", "load.max_concurrency=2", "load.num_requests=12", "plots=false")
    done = sweep("-m", "engine=endpoint", f"engine.url={url}", *work, *load, "hydra.sweep.dir=sweep")
    assert done.code == 0, done.out + done.err
    found = requests(tmp_path / "sweep", CELL)
    assert {row["output_tokens"] for row in found} == {"4"}
    lengths = {int(row["prompt_tokens"]) for row in found}
    assert lengths == {6} if tokens else min(lengths) > 12, "a byte is a token of this model"
    row = rows(tmp_path / "sweep")[CELL]
    assert (row["status"], row["requests_failed"]) == ("PASS", "0")
    assert float(row["ttft_mean_s"]) > 0
    assert float(row["queue_mean_s"]) >= 0


TIERS = {
    "text_smoke": "5",
    "text_functional": "100",
    "text_baseline": "1000",
    "text_slo": "1000",
    "customer_service": "500",
    "content_platform": "1000",
    "code_assistant": "500",
}
"""Presets, and how many texts each sends."""


@pytest.mark.parametrize("study", TIERS)
def test_a_preset_is_one_command(sweep: Run, tmp_path: Path, study: str) -> None:
    """Here with fewer and shorter texts."""
    smaller = ("load.num_requests=5", "workload.output_len=2", "load.slo.e2el=60000", "plots=false")
    done = sweep("-m", f"+study={study}", "engine=noop", *smaller, "hydra.sweep.dir=sweep")
    assert done.code == 0, done.out + done.err
    (row,) = rows(tmp_path / "sweep").values()
    assert (row["status"], row["requests_sent"], row["requests_failed"]) == ("PASS", "5", "0")
    assert float(row["ttft_mean_s"]) > 0


@pytest.mark.parametrize(("study", "sent"), TIERS.items())
def test_a_preset_sends_as_many_texts_as_its_tier_says(study: str, sent: str) -> None:
    chosen = yaml.safe_load((ROOT / "conf" / "study" / f"{study}.yaml").read_text())
    assert str(chosen["load"]["num_requests"]) == sent


def test_the_first_tier_runs_on_a_server_that_runs_already(sweep: Run, tmp_path: Path, url: str) -> None:
    done = sweep("-m", "+study=text_smoke", "engine=endpoint", f"engine.url={url}", "hydra.sweep.dir=sweep")
    assert done.code == 0, done.out + done.err
    (row,) = rows(tmp_path / "sweep").values()
    assert (row["status"], row["requests_sent"], row["requests_failed"]) == ("PASS", "5", "0")
    found = requests(tmp_path / "sweep", row["cell"])
    assert {one["output_tokens"] for one in found} == {"20"}


def test_a_ladder_of_texts_names_its_knee(sweep: Run, tmp_path: Path) -> None:
    smaller = ("load.num_requests=40", "load.max_concurrency=1,2,4", "workload.output_len=2", "plots=false")
    done = sweep("-m", "+study=text_ramp", "engine=noop", *smaller, "hydra.sweep.dir=sweep")
    assert done.code == 0, done.out + done.err
    (ladder,) = json.loads((tmp_path / "sweep" / "report.json").read_text())["ladders"]
    assert ladder["level"] == "concurrency"
    assert "requests/s" in ladder["text"]


BAD = {
    ("load=offline",): ["workload.task=text", "load=closed"],
    ("workload.input_len=null",): ["workload.input_len=N", "workload.prompts=FILE"],
    ("workload.input_len=0",): ["workload.input_len=0:"],
    ("workload.output_len=200000",): ["workload.output_len=200000:", "131,072"],
    ("workload.input_len=100000", "load.num_requests=10000"): ["workload.input_len=100000", "100,000,000"],
    ("workload.temperature=-1",): ["workload.temperature=-1"],
    ("workload.prompts=missing.json",): ["workload.prompts=missing.json:"],
    ("workload=text_to_image", "workload.output_len=5"): ["workload.output_len=5:", "workload=text"],
    ("engine=diffusers", "model=tiny_qwen_image"): ["workload.task=text", "tiny_qwen_image"],
}


@pytest.mark.parametrize("arguments", BAD, ids=" ".join)
def test_bad_input_is_one_line(
    sweep: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    check_refused(sweep(*NOOP, *arguments), tmp_path, BAD[arguments])


def test_a_feature_of_several_devices_is_skipped(sweep: Run, tmp_path: Path) -> None:
    load = ("load=closed", "load.max_concurrency=1", "dry_run=true", "hardware.gpus=2")
    done = sweep("-m", "workload=text", "feature=cfg_parallel", *load)
    assert done.code == 0, done.err
    assert "writes texts on one device, and cfg_parallel needs several" in " ".join(done.out.split())
