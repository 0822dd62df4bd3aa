"""`python -m sweep.compare` over made-up reports, through the real command line."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sweep.compare import decide, describe, markdown
from sweep.compare.load import parse
from tests import processor_time
from tests.compare.documents import Document, cell, report, slower_phase, write
from tests.conftest import Finished, environment, finished

Compare = Callable[..., Finished]


@pytest.fixture
def compare(tmp_path: Path) -> Compare:
    """Run the command over documents (written to folders a, b, …) or plain arguments."""

    def run(*arguments: Document | str) -> Finished:
        given = []
        for number, argument in enumerate(arguments):
            if isinstance(argument, str):
                given.append(argument)
            else:
                given.append(write(tmp_path / "abcdefgh"[number], argument).name)
        return finished("sweep.compare", given, tmp_path)

    return run


def refused(done: Finished) -> str:
    """The one line of a refusal."""
    assert done.code == 2, done
    assert done.out == ""
    (line,) = done.err.splitlines()
    assert line.startswith("sweep.compare: ")
    return line.removeprefix("sweep.compare: ")


def test_a_report_against_itself_is_fine(compare: Compare) -> None:
    done = compare(report(), report())
    assert (done.code, done.err) == (0, "")
    assert "2 cells compared: 2 no difference" in done.out
    (found,) = decide.compare_reports(parse(report(), "a"), [parse(report(), "b")], decide.Options())
    assert done.out.splitlines()[0] == describe.conclusion([], found.matched)


def test_a_slowdown_in_one_phase_fails_and_names_the_phase(compare: Compare) -> None:
    done = compare(report(), slower_phase(report(), "teacache b1", "denoise_step", 200))
    assert done.code == 1
    assert f"{decide.SLOWER} 1.33x (1.29-1.36)" in done.out
    assert "denoise_step +200 ms of +200 ms (100 %)" in done.out
    assert compare(report(), slower_phase(report(), "teacache b1", "vae_decode", 200), "--fail-on", "none").code == 0
    assert compare(report(), slower_phase(report(), "teacache b1", "vae_decode", 200), "--min-change", "50").code == 0


def test_a_report_json_is_as_good_as_its_folder(compare: Compare, tmp_path: Path) -> None:
    write(tmp_path / "x", report())
    assert compare("x", "x/report.json").code == 0


def test_a_status_that_got_worse_fails_with_its_reason(compare: Compare) -> None:
    worse = report(cell("baseline b1"), cell(status="FAIL", reason="teacache did not engage: no block was skipped"))
    done = compare(report(), worse)
    assert done.code == 1
    assert "PASS -> FAIL" in done.out
    assert "did not engage" in done.out
    assert compare(report(), worse, "--fail-on", "regression").code == 0


def test_quality_fails_only_when_asked(compare: Compare) -> None:
    blurred = {"mean_diff": 0.09, "max_diff": 0.6, "psnr_db": 24.1, "ssim": 0.8, "identical": False}
    after = report(cell("baseline b1"), cell(quality=blurred))
    done = compare(report(), after)
    assert done.code == 0
    assert "worse: diff 0.0040 -> 0.0900, PSNR 39.0 -> 24.1 dB, SSIM 0.990 -> 0.800" in done.out
    assert compare(report(), after, "--fail-on", "regression,status,quality").code == 1


def test_further_reports_are_compared_with_the_first(compare: Compare) -> None:
    done = compare(report(), report(), slower_phase(report(), "teacache b1", "ar_decode", 300))
    assert done.code == 1
    assert "a -> b" in done.out
    assert "a -> c" in done.out


def test_what_one_report_lacks_is_listed(compare: Compare) -> None:
    done = compare(report(cell(), cell("tp b1")), report(cell(), cell("ring b1")))
    assert done.code == 0
    assert "only in a: tp b1 (PASS)" in done.out
    assert "only in b: ring b1 (PASS)" in done.out


def test_what_to_know_before_believing_is_said(compare: Compare) -> None:
    before, after = report(sd=0.001), report(cell("baseline b1", factor=1.08), cell(factor=1.08), sd=0.001)
    after["sweep"] |= {"git_commit": "fedcba9876543210", "random_weights": True, "note": "Random weights: made up."}
    after["sweep"]["versions"]["torch"] = "2.14.0"
    after["sweep"]["machine"]["cpu_cores"] = 8
    done = compare(before, after)
    for words in (
        "every cell took 1.08x as long",
        "Random weights: made up.",
        "versions changed: torch 2.13.0 -> 2.14.0",
        "machine changed: cpu_cores 2 -> 8",
        "commit: 0123456789ab -> fedcba987654",
    ):
        assert words in done.out
    assert compare(before, after, "--relative").code == 0


def test_other_schema_versions_are_refused(compare: Compare) -> None:
    assert "schema_version is 2, but this version reads 1" in refused(compare(report(), report(schema_version=2)))


def test_nothing_in_common_says_what_differs(compare: Compare) -> None:
    qwen = [c | {"cell_key": "q" + c["cell_key"], "model": "tiny_qwen_image"} for c in report()["cells"]]
    line = refused(compare(report(), report(*qwen)))
    assert line == "no cells in common: a has model tiny_glm_image, b has tiny_qwen_image"
    fewer = [c | {"cell_key": "s" + c["cell_key"], "steps": 4} for c in report()["cells"]]
    assert refused(compare(report(), report(*fewer))) == "no cells in common: a has steps 8, b has 4"
    hidden = [c | {"cell_key": "h" + c["cell_key"]} for c in report()["cells"]]
    assert "differ in something that reports do not hold" in refused(compare(report(), report(*hidden)))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is not a report.json"),
        ("[]", "no schema_version"),
        ("\udcff", "is not a report.json"),
        ('{"schema_version": 1}', "cells is missing"),
        ('{"schema_version": 1, "cells": [], "noise": []}', "a has no cells"),
        ('{"schema_version": 1, "cells": [{}], "noise": []}', "cells[0].status is missing"),
    ],
)
def test_unreadable_files_are_refused(compare: Compare, tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "report.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    write(tmp_path / "b", report())
    assert words in refused(compare("a", "b"))


def test_a_latency_that_cannot_be_is_refused(compare: Compare) -> None:
    """Relative to another, 1e-320 s would be infinite."""
    bounds = "samples has a latency that is not between"
    cases = [(latency, bounds) for latency in (0.0, -1.0, 1e-320, 1e300)]
    for latency, words in (*cases, (float("nan"), "samples has"), (10**400, "too large")):
        broken = report(cell(starts=[{"samples": [[0, 0, 0, latency]], "reference": []}]))
        assert words in refused(compare(report(), broken))


def test_bad_usage_is_one_line(compare: Compare, tmp_path: Path) -> None:
    assert "give two reports" in refused(compare(report()))
    (tmp_path / "empty").mkdir()
    assert "python -m sweep.report empty" in refused(compare("empty", "empty"))
    assert "does not exist" in refused(compare("nowhere", "empty"))
    for arguments in (
        ("--fail-on", "regresion"),
        ("--fail-on", "none,status"),
        ("--min-change", "x"),
        ("--min-change", "-1"),
        ("--format", "pdf"),
        ("--output", "no/such/folder/x"),
    ):
        refused(compare(report(), report(), *arguments))


def test_json_is_valid_and_holds_every_cell(compare: Compare, tmp_path: Path) -> None:
    identical = {"mean_diff": 0.0, "max_diff": 0.0, "psnr_db": float("inf"), "ssim": 1.0, "identical": True}
    before = report(cell("baseline b1", quality=identical), cell())
    done = compare(before, slower_phase(before, "teacache b1", "vae_decode", 200), "--format", "json")
    found = json.loads(done.out, parse_constant=pytest.fail)
    assert (done.code, found["schema_version"], found["exit_code"]) == (1, 1, 1)
    assert found["failed_on"] == ["regression"]
    (comparison,) = found["comparisons"]
    baseline, teacache = comparison["cells"]
    assert baseline["speed"]["verdict"] == decide.NO_DIFFERENCE
    assert teacache["speed"]["verdict"] == decide.SLOWER
    assert teacache["speed"]["high"] < 1
    assert teacache["speed"]["p_value"] <= teacache["speed"]["p_holm"] < 0.05
    assert teacache["phases"]["shifts"][0]["phase"] == "vae_decode"
    quiet = compare(report(), report(), "--format", "json", "--output", "out.json")
    assert quiet.out == ""
    assert json.loads((tmp_path / "out.json").read_text())["exit_code"] == 0


def test_markdown_has_counts_first_what_changed_then_the_rest_folded(compare: Compare) -> None:
    after = slower_phase(report(), "teacache b1", "vae_decode", 200)
    done = compare(report(), after, "--format", "markdown")
    lines = done.out.splitlines()
    (found,) = decide.compare_reports(parse(report(), "a"), [parse(after, "b")], decide.Options())
    assert describe.counts(found) == {decide.SLOWER: 1, decide.NO_DIFFERENCE: 1}
    assert lines[0].startswith(f"**{describe.summary(found)}**")
    assert f"| **teacache b1** | {decide.SLOWER} 1.33x" in done.out.split("<details>")[0]
    assert "baseline b1" in done.out.split("<details>")[1]
    assert done.out.count("<details>") == done.out.count("</details>")


def test_markdown_shows_what_a_report_holds_as_it_is(compare: Compare) -> None:
    nasty = "a | b `code` <img src=x> @octocat #12 [x](https://e.org) _i_ \x1b[31m\n# heading"
    before, after = report(cell(), cell("tp b1")), report(cell(status="ERROR", reason=nasty), cell("tp b1"))
    after["cells"][1]["cell"] = nasty
    done = compare(before, after, "--format", "markdown")
    assert done.code == 1
    for raw in ("<img", "@octocat", "#12", "`code`", "\x1b", "](http", " | b", "https://"):
        assert raw not in done.out.replace(r"\`code\`", "").replace(r"\| b", "").replace(r"\](http", "")
    rows = [line for line in done.out.splitlines() if line.startswith("|")]
    assert {line.replace(r"\|", "").count("|") for line in rows} == {5}


def test_terminals_get_no_escape_sequences_from_a_report(compare: Compare) -> None:
    done = compare(report(), report(cell("baseline b1"), cell(status="ERROR", reason="\x1b[2Jgone [bold]x[/bold]")))
    assert "\x1b" not in done.out
    assert "[bold]x[/bold]" in done.out


def test_a_comment_stays_below_githubs_limit(compare: Compare) -> None:
    long = "x|" * 3000
    cells = [cell(f"f{i} b1", status="FAIL", reason=long) for i in range(400)]
    done = compare(report(*(c | {"status": "PASS"} for c in cells)), report(*cells), "--format", "markdown")
    assert done.code == 1
    assert len(done.out) < 65_536
    assert len(markdown.escape(long)) < 1000


def test_best_ranks_what_passed_over_all_reports(compare: Compare) -> None:
    def sped(name: str, ratio: float, **fields: object) -> Document:
        return cell(
            name, speedup={"ratio": ratio, "low": ratio - 0.1, "high": ratio + 0.1, "called": "faster"}, **fields
        )

    first = report(
        cell("baseline b1"), sped("tp b1", 1.3), sped("broken b1", 9, status="FAIL"), sped("odd b1", 9, valid=False)
    )
    second = report(sped("ring b1", 1.7), sped("teacache b2", 1.1, batch=2))
    done = compare(first, second, "--best", "--format", "json")
    one, two = json.loads(done.out)["rankings"]
    assert [(c["cell"], c["report"]) for c in one["cells"]] == [("ring b1", "b"), ("tp b1", "a")]
    assert one["left_out"] == 2
    assert [c["cell"] for c in two["cells"]] == ["teacache b2"]
    alone = compare(first, "--best")
    assert alone.code == 0
    assert "tp b1" in alone.out
    assert "1.30x (1.20-1.40)" in alone.out
    assert "broken" not in alone.out
    assert "**" in compare(first, "--best", "--format", "markdown").out


def test_best_recommends_nothing_that_noise_may_have_made(compare: Compare) -> None:
    vague = cell("teacache b1", speedup={"ratio": 1.26, "low": 0.85, "high": 1.86, "called": "no difference"})
    sure = cell("cfg_parallel b1", speedup={"ratio": 1.1, "low": 1.05, "high": 1.15, "called": "faster"})
    (ranking,) = json.loads(compare(report(vague, sure), "--best", "--format", "json").out)["rankings"]
    assert [c["cell"] for c in ranking["cells"]] == ["cfg_parallel b1", "teacache b1"]


def quality(psnr_db: float | None, ssim: float | None, mean_diff: float | None = 0.01) -> Document:
    return {"mean_diff": mean_diff, "max_diff": mean_diff, "psnr_db": psnr_db, "ssim": ssim}


def of_quality() -> Document:
    """The faster, the poorer; the last two are identical and of unknown quality."""

    def sped(name: str, ratio: float, of: Document) -> Document:
        return cell(name, speedup={"ratio": ratio, "low": ratio, "high": ratio, "called": "faster"}, quality=of)

    return report(
        sped("threshold=1.0 b1", 2.0, quality(16.4, 0.7)),
        sped("threshold=0.3 b1", 1.5, quality(34.9, 0.98)),
        sped("threshold=0.2 b1", 1.4, quality(35.0, 0.97)),
        sped("threshold=0.1 b1", 1.3, quality(40.1, 0.99)),
        sped("cfg_parallel b1", 1.2, quality(None, 1.0, 0.0)),
        sped("unknown b1", 3.0, quality(None, None, None)),
    )


def best(compare: Compare, *options: str) -> Document:
    (ranking,) = json.loads(compare(of_quality(), "--best", *options, "--format", "json").out)["rankings"]
    return ranking


def test_only_cells_that_are_good_enough_are_ranked(compare: Compare) -> None:
    found = best(compare, "--min-psnr", "35")
    assert [one["cell"] for one in found["cells"]] == ["threshold=0.2 b1", "threshold=0.1 b1", "cfg_parallel b1"]
    assert (found["too_poor"], found["left_out"]) == (3, 0)
    both = best(compare, "--min-psnr", "35", "--min-ssim", "0.98")
    assert [one["cell"] for one in both["cells"]] == ["threshold=0.1 b1", "cfg_parallel b1"]
    assert best(compare)["too_poor"] == 0


def test_how_many_are_not_good_enough_is_said(compare: Compare) -> None:
    for form in ("text", "markdown"):
        out = compare(of_quality(), "--best", "--min-psnr", "35", "--format", form).out
        assert "3 left out: below 35 dB PSNR, or quality unknown" in out
        assert "1.0 b1" not in out


def test_a_least_quality_goes_with_best_and_is_a_number(compare: Compare) -> None:
    assert "--min-psnr goes with --best" in refused(compare(report(), report(), "--min-psnr", "35"))
    assert "'good' is not a number" in refused(compare(report(), "--best", "--min-ssim", "good"))


@pytest.mark.parametrize("form", ["text", "markdown", "json"])
def test_the_best_of_two_reports_still_fails_on_a_regression(compare: Compare, form: str) -> None:
    slower = slower_phase(report(), "teacache b1", "denoise_step", 200)
    done = compare(report(), slower, "--best", "--format", form)
    assert done.code == 1
    assert "FAILED: a cell is slower beyond noise" in done.out
    assert compare(report(), slower, "--best", "--fail-on", "none").code == 0
    fine = compare(report(), report(), "--best", "--format", form)
    assert (fine.code, "no regression" in fine.out) == (0, True)


def test_the_best_of_reports_with_nothing_in_common_is_no_regression(compare: Compare) -> None:
    done = compare(report(), report(cell("baseline b9", batch=9), cell("teacache b9", batch=9)), "--best")
    assert done.code == 0
    assert "no cells in common" in done.out


HEAVY = ("torch", "pandas", "matplotlib", "numpy", "scipy", "hydra")


def test_help_has_examples_and_starts_fast(compare: Compare) -> None:
    """It imports nothing heavy; `make bench` has seconds."""
    code = f"import sys, sweep.compare.__main__; print([name for name in {HEAVY} if name in sys.modules])"
    imported = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True)
    assert imported.stdout.strip() == "[]", imported
    done = compare("--help")
    assert done.code == 0
    assert "python -m sweep.compare outputs/before outputs/after" in done.out
    assert "lost" in done.out


def test_time_grows_no_faster_than_the_number_of_cells(compare: Compare) -> None:
    """Ten thousand take less than five seconds (`make bench`)."""
    text = json.dumps(report(*(cell(f"f{i} b1", seed=i) for i in range(50))))
    base = json.loads(text)["cells"]

    def compared(count: int) -> None:
        many = [base[i % 50] | {"cell": f"f{i} b1", "cell_key": f"{i:016x}"} for i in range(count)]
        done = compare(report(*many), slower_phase(report(*many), "f7 b1", "vae_decode", 300))
        assert f"{count:,} cells compared" in done.out
        assert "f7 b1" in done.out

    few_s, many_s = (processor_time.of_commands(lambda count=count: compared(count)) for count in (1_000, 4_000))
    assert many_s < 2 * 4 * few_s
