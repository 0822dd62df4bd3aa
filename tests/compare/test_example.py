"""The workflow in examples/: what it runs exists."""

import shlex
from collections.abc import Callable
from typing import Any

import yaml

from sweep.compare.__main__ import parser
from tests.conftest import ROOT, Finished


def workflow() -> dict[str, Any]:
    """The example as values."""
    text = (ROOT / "examples" / "github-actions.yml").read_text(encoding="utf-8")
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def test_its_comparison_is_a_command_that_exists() -> None:
    (script,) = [step["run"] for step in workflow()["jobs"]["compare"]["steps"] if step.get("name") == "Compare"]
    (line,) = [line for line in script.splitlines() if "sweep.compare" in line]
    arguments = shlex.split(line.split("sweep.compare")[1])
    chosen = parser().parse_args(arguments)
    assert (chosen.reports, chosen.format) == (["base", "head"], "markdown")


def test_its_sweep_can_be_planned(sweep: Callable[..., Finished]) -> None:
    done = sweep(*shlex.split(workflow()["env"]["SWEEP"]), "dry_run=true")
    assert done.code == 0, done
    assert "A/A" in done.out
