"""Features forced not to engage end as FAIL with the code not_engaged, although their pixels and times look fine."""

import csv
import re
from pathlib import Path

import pytest

from tests.conftest import ROOT, Finished, finished

QUICK = ("aa=0", "workload.num_prompts=1", "workload.repeats=1", "interleave=false", "plots=false")

FORCED = (
    # Qwen-Image leaves guidance out without a negative prompt: both ranks then compute the same forward.
    *("model=tiny_qwen_image", "workload.negative_prompt=null"),
    # TeaCache with a threshold of 0, Cache-DiT whose warm-up is longer than the run.
    *("feature.teacache.rel_l1_thresh=0", "feature.cache_dit.max_warmup_steps=20", "workload.steps=4"),
)
FEATURES = "feature=cfg_parallel,teacache,cache_dit,silent,attention"


def rows(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "summary.csv").open() as handle:
        return {row["features"]: row for row in csv.DictReader(handle) if row["role"] == "feature"}


def feature_file(conf: Path, name: str, shipped: str, **changes: str) -> None:
    """A copy of a shipped feature file under another name, with texts replaced."""
    text = (ROOT / "conf" / "feature" / f"{shipped}.yaml").read_text().replace(f"{shipped}:", f"{name}:", 1)
    for old, new in changes.values():
        assert old in text
        text = text.replace(old, new)
    (conf / "feature").mkdir(parents=True, exist_ok=True)
    (conf / "feature" / f"{name}.yaml").write_text(text)


@pytest.fixture(scope="module")
def forced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Finished]:
    """One sweep of all that is forced not to engage, and of one feature that does."""
    base = tmp_path_factory.mktemp("forced")
    feature_file(
        base / "conf",
        "silent",
        "attention",
        call=("call: transformer.set_attention_backend", "call: scheduler.register_to_config"),
    )
    arguments = ("-m", "--config-dir", "conf", FEATURES, *FORCED, *QUICK, "hydra.sweep.dir=sweep")
    return base / "sweep", finished("sweep", arguments, base)


def test_guidance_that_is_off_leaves_cfg_parallel_nothing_to_split(forced: tuple[Path, Finished]) -> None:
    folder, done = forced
    row = rows(folder)["cfg_parallel"]
    assert row["status"] == "FAIL", done.out
    assert row["reason_code"] == "not_engaged"
    assert row["reason"].startswith("cfg_parallel ")
    assert " 1 " in row["reason"], "forwards"
    assert float(row["mean_diff"]) == 0, "the pixels look fine"
    assert done.code == 1


def test_caches_that_may_not_skip(forced: tuple[Path, Finished]) -> None:
    folder, done = forced
    for name in ("teacache", "cache_dit"):
        row = rows(folder)[name]
        assert row["status"] == "FAIL", done.out
        assert row["reason_code"] == "not_engaged"
        assert row["reason"].startswith(f"{name} ")
        assert row["evidence"].split("; ")[2].startswith("0 of ")
        assert float(row["mean_diff"]) == 0, "the pixels look fine"
    assert done.code == 1


def test_attention_switch_that_nothing_reads(forced: tuple[Path, Finished]) -> None:
    """The scheduler's configuration takes any name; the DiT's attention never looks there. The real one works."""
    folder, done = forced
    found = rows(folder)
    assert found["silent"]["status"] == "FAIL", done.out
    assert found["silent"]["reason_code"] == "not_engaged"
    assert found["silent"]["reason"].startswith("silent ")
    assert {"native", "_native_math"} <= set(re.findall(r"\w+", found["silent"]["reason"]))
    assert found["attention"]["status"] in ("PASS", "WARN"), found["attention"]["reason"]
    assert done.code == 1
