"""The environment on the page: words and units, never keys and bytes."""

import json

from sweep.report.page.environment import described, words
from tests.conftest import ROOT


def test_a_manifest_is_told_in_words_and_units():
    manifest = json.loads((ROOT / "docs" / "results" / "matrix-2-gpus" / "manifest.json").read_text())
    found = described(manifest)
    assert found["machine"] == "2 × NVIDIA H200, driver 580.159.04, 32 CPU cores, 270 GB of memory, Linux x86_64"
    assert "PyTorch 2.11.0" in found["versions"]
    assert "layers: 20 DiT, 4 text, 1 vision" in found["random weights"]
    assert "transformer 6.84 B" in found["random weights"]
    assert found["duration"] == "5 min 40 s, until 2026-11-21 20:41:17 UTC"
    assert found["engine starts"] == "9; 18 with earlier runs in the same folder"
    assert found["exit code"] == "1 (some cells are FAIL or ERROR)"
    assert not [name for name in found if "_" in name]


def test_other_keys_and_odd_values_are_shown_as_they_are():
    found = described(
        {"machine": "a laptop", "rack_unit": {"row": 3, "shelf": None}, "duration_s": "long", "cells": [1]}
    )
    assert found["machine"] == "a laptop"
    assert found["rack unit"] == "row 3"
    assert found["duration"] == ""
    assert "cells" not in found


def test_nothing_is_said_of_an_empty_manifest():
    assert not any(described({}).values())


def test_words_are_one_line():
    assert words({"cores": 2, "gpus": [], "cards": [{"name": "H200"}]}) == "cores 2, cards name H200"
