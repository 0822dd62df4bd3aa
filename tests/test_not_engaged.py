"""Features forced not to engage end as FAIL with the code not_engaged, although their pixels and times look fine."""

import csv
import re
from pathlib import Path

from tests.conftest import ROOT

QUICK = ("aa=0", "workload.num_prompts=1", "workload.repeats=1", "interleave=false", "plots=false")


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


def test_guidance_that_is_off_leaves_cfg_parallel_nothing_to_split(sweep, tmp_path: Path) -> None:
    """Qwen-Image leaves guidance out without a negative prompt: both ranks then compute the same forward."""
    done = sweep(
        *("-m", "model=tiny_qwen_image", "feature=cfg_parallel", "workload.negative_prompt=null"),
        *("workload.steps=4", *QUICK, "hydra.sweep.dir=sweep"),
    )
    row = rows(tmp_path / "sweep")["cfg_parallel"]
    assert row["status"] == "FAIL", done.out
    assert row["reason_code"] == "not_engaged"
    assert row["reason"].startswith("cfg_parallel ")
    assert " 1 " in row["reason"], "forwards"
    assert float(row["mean_diff"]) == 0, "the pixels look fine"
    assert done.code == 1


def test_caches_that_may_not_skip(sweep, tmp_path: Path) -> None:
    """TeaCache with a threshold of 0, Cache-DiT whose warm-up is longer than the run."""
    done = sweep(
        *("-m", "feature=teacache,cache_dit", "feature.teacache.rel_l1_thresh=0"),
        *("feature.cache_dit.max_warmup_steps=20", "workload.steps=8", *QUICK, "hydra.sweep.dir=sweep"),
    )
    for name in ("teacache", "cache_dit"):
        row = rows(tmp_path / "sweep")[name]
        assert row["status"] == "FAIL", done.out
        assert row["reason_code"] == "not_engaged"
        assert row["reason"].startswith(f"{name} ")
        assert row["evidence"].split("; ")[2].startswith("0 of ")
        assert float(row["mean_diff"]) == 0, "the pixels look fine"
    assert done.code == 1


def test_attention_switch_that_nothing_reads(sweep, tmp_path: Path) -> None:
    """The scheduler's configuration takes any name; the DiT's attention never looks there. The real one works."""
    conf = tmp_path / "conf"
    feature_file(
        conf,
        "silent",
        "attention",
        call=("call: transformer.set_attention_backend", "call: scheduler.register_to_config"),
    )
    done = sweep(
        *("-m", "--config-dir", str(conf), "feature=silent,attention", "workload.steps=2"),
        *(*QUICK, "hydra.sweep.dir=sweep"),
    )
    found = rows(tmp_path / "sweep")
    assert found["silent"]["status"] == "FAIL", done.out
    assert found["silent"]["reason_code"] == "not_engaged"
    assert found["silent"]["reason"].startswith("silent ")
    assert {"native", "_native_math"} <= set(re.findall(r"\w+", found["silent"]["reason"]))
    assert found["attention"]["status"] in ("PASS", "WARN"), found["attention"]["reason"]
    assert done.code == 1
