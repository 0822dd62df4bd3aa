"""What kept results were measured with, and how that differs from now."""

from sweep.run.provenance import KEPT, Older, older, sentence, told_by

NOW = {"sweep": "0.3.0", "torch": "2.13.0", "git_commit": "new"}


def test_only_what_differs_is_told_once_for_all_cells_of_one_version() -> None:
    then = {"sweep": "0.2.0", "torch": "2.13.0", "git_commit": "old"}
    found = older([("a", then), ("b", NOW), ("c", then), ("d", NOW | {"torch": "2.12.0"})], NOW)
    changed = ("sweep", "0.2.0", "0.3.0"), ("git_commit", "old", "new")
    assert found == [Older(("a", "c"), changed), Older(("d",), (("torch", "2.12.0", "2.13.0"),))]
    line = sentence(found)
    assert line.startswith("3 kept cells")
    assert all(told in line for told in ("0.2.0", "old", "2.12.0", "hydra.sweep.dir"))
    assert "\n" not in line


def test_what_is_unknown_or_not_installed_any_more_is_no_difference() -> None:
    assert older([("a", {}), ("b", {"vllm": "0.26.0"}), ("c", {"sweep": "0.3.0"})], NOW) == []
    assert sentence([]) == ""


def test_results_that_do_not_say_it_are_those_of_the_run_that_kept_them_first() -> None:
    manifest = {"versions": {"sweep": "0.2.0"}, "git_commit": None}
    assert told_by(manifest, "a") == {"sweep": "0.2.0"}
    manifest[KEPT] = [{"cells": ["a"], "changed": [["sweep", "0.1.0", "0.2.0"]]}]
    assert told_by(manifest, "a") == {"sweep": "0.1.0"}
    assert told_by(manifest, "b") == {"sweep": "0.2.0"}
    assert told_by({}, "a") == {}
