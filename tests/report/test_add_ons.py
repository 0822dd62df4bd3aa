"""Where a reader meets the gain of an add-on: sentences, terminal, page and report.json of one stored sweep."""

import csv
import dataclasses
import io
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from rich.console import Console

from sweep.plan.cells import BASELINE, FEATURE, Cell, again
from sweep.plan.plans import build_plan
from sweep.report import report_rows
from sweep.report.build import rebuild
from sweep.report.conclusions import conclude
from sweep.results.folder import SweepFolder
from tests import recompute, stored
from tests.conftest import ROOT
from tests.golden import outputs
from tests.report.test_conclusions import row

TRUTH = stored.SPEEDS["cache_dit"]
"""What cache_dit gains in a stored sweep, whatever it is added to."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep with interleaved baselines, of `base=vae_slicing add=cache_dit`."""
    baseline = measured()
    base = measured("vae_slicing")
    both = dataclasses.replace(measured("cache_dit", "vae_slicing"), base_key=base.key)
    starts = [dataclasses.replace(again(baseline, n), interleaved=baseline.key) for n in (1, 2)]
    sweep = stored.store(tmp_path_factory.mktemp("add-ons") / "out", build_plan([baseline, base, both, *starts]))
    return sweep.path


def measured(*features: str) -> Cell:
    name, baseline_key = "+".join(features), stored.key_of("")
    key = stored.key_of(name)
    made = dataclasses.replace(stored.template(*features), key=key, origin=key, engine_key=key)
    return dataclasses.replace(
        made,
        label=f"{name or 'baseline'} b1",
        role=FEATURE if features else BASELINE,
        baseline_key=baseline_key,
        interleaved=baseline_key if features else "",
    )


@pytest.fixture(scope="module")
def shown(folder: Path) -> str:
    """What the terminal shows of it."""
    console = Console(file=io.StringIO(), width=160)
    rebuild(SweepFolder(folder), plots=False, console=console)
    outputs.write_page(SweepFolder(folder))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_every_number_is_what_the_files_say_and_close_to_the_truth(folder: Path, shown: str) -> None:
    wrong, _ = recompute.differences(folder)
    assert not wrong, "\n".join(wrong)
    with (folder / "summary.csv").open(newline="") as handle:
        (found,) = [one for one in csv.DictReader(handle) if one["gain_over_base"]]
    assert float(found["gain_over_base"]) == pytest.approx(TRUTH, rel=0.03)
    assert float(found["gain_over_base_low"]) < TRUTH < float(found["gain_over_base_high"])


def test_report_json_has_the_gain_and_the_base_it_is_over(folder: Path, shown: str) -> None:
    found = json.loads((folder / "report.json").read_text())
    jsonschema.validate(found, json.loads((ROOT / "sweep" / "report" / "report.schema.json").read_text()))
    (cell,) = [one for one in found["cells"] if "over_base" in one]
    assert cell["features"] == ["cache_dit", "vae_slicing"]
    assert cell["over_base"]["base_key"] == next(
        one["cell_key"] for one in found["cells"] if one["features"] == ["vae_slicing"]
    )
    assert cell["over_base"]["low"] < cell["over_base"]["ratio"] < cell["over_base"]["high"]


def test_a_report_without_its_folder_has_the_gain_too(folder: Path, shown: str) -> None:
    rows, _ = report_rows.read(folder / "report.json")
    with (folder / "summary.csv").open(newline="") as handle:
        stored_rows = list(csv.DictReader(handle))
    for name in ("base", "gain_over_base", "gain_over_base_low", "gain_over_base_high"):
        assert [str(one[name] or "") for one in rows] == [one[name] for one in stored_rows]


def test_terminal_and_page_say_the_same(folder: Path, shown: str) -> None:
    said = re.search(r"On top of vae_slicing b1: cache_dit (1\.\d\dx \(1\.\d\d-1\.\d\d\))", shown)
    assert said, shown
    page = (folder / "report.html").read_text()
    on_page = said[1].replace("x", "×").replace("-", "–")
    assert page.count(on_page) == 2, "in the table and in the cell's section"
    assert "over base (95 %)" in page
    assert f"{on_page} over vae_slicing b1" in page


# -- sentences


def added(features: str, gain: float, **fields: Any) -> dict[str, Any]:
    interval = {"gain_over_base": gain, "gain_over_base_low": gain - 0.05, "gain_over_base_high": gain + 0.05}
    return row(features, 1.5, 1.6, **{"base": "cfg_parallel b1", **interval, **fields})


def sentences(*rows: dict[str, Any]) -> list[str]:
    return [one.text for one in conclude(rows) if one.code == "add_on"]


BASE = row("cfg_parallel", 1.5, 1.6)


def test_add_ons_are_named_with_their_gains_the_largest_first() -> None:
    rows = [BASE, added("cfg_parallel+ulysses", 1.01), added("cfg_parallel+teacache", 1.45)]
    assert sentences(*rows) == ["On top of cfg_parallel b1: teacache 1.45x (1.40-1.50), ulysses 1.01x (0.96-1.06)."]
    (one,) = [one for one in conclude(rows) if one.code == "add_on"]
    assert one.cells[0] == BASE["cell_key"]
    assert set(one.cells) == {each["cell_key"] for each in rows}


@pytest.mark.parametrize(
    ("fields", "why"),
    [({"status": "FAIL"}, "FAIL"), ({"valid": False}, "not valid")],
)
def test_an_add_on_that_cannot_be_used_has_no_gain(fields: dict[str, Any], why: str) -> None:
    rows = [BASE, added("cfg_parallel+ulysses", 1.01), added("cfg_parallel+teacache", 1.45, **fields)]
    (sentence,) = sentences(*rows)
    assert sentence.endswith(f"ulysses 1.01x (0.96-1.06); no gain known for teacache ({why}).")


def test_without_a_base_that_can_be_used_no_gain_is_claimed() -> None:
    (sentence,) = sentences(BASE | {"status": "ERROR"}, added("cfg_parallel+teacache", 1.45))
    assert sentence == "What add-ons gain over cfg_parallel b1 is unknown, as it is ERROR."
    profiled = {"profiled": "nsys"}
    (sentence,) = sentences(BASE | profiled, added("cfg_parallel+teacache", 1.45, **profiled))
    assert sentence == "What add-ons gain over cfg_parallel b1 is unknown, as it is profiled."


def test_gains_without_known_noise_are_not_judged() -> None:
    (sentence,) = sentences(BASE, added("cfg_parallel+teacache", 1.45, called=""))
    assert sentence.endswith("teacache 1.45x (1.40-1.50) (not judged).")


def test_several_settings_of_one_add_on_are_named_by_their_cells() -> None:
    labels = [f"cfg_parallel+teacache b1 rel_l1_thresh={value}" for value in (0.1, 0.3)]
    rows = [added("cfg_parallel+teacache", 1.2 + n / 10, cell=label) for n, label in enumerate(labels)]
    (sentence,) = sentences(BASE, *rows)
    assert all(label in sentence for label in labels)


def test_each_batch_has_its_base_and_many_are_cut() -> None:
    rows = []
    for batch in range(1, 10):
        rows += [row("cfg_parallel", 1.5, 1.6, batch), row("cfg_parallel+teacache", 1.5, 1.6, batch)]
        rows[-1] |= {"base": f"cfg_parallel b{batch}", "gain_over_base": 1.0 + batch / 10}
    found = sentences(*rows)
    assert found[1] == "On top of cfg_parallel b2: teacache 1.20x."
    assert len(found) == 7
    assert found[-1].startswith("Gains over 3 more bases")
