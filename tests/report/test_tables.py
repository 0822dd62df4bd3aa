"""The words of numbers, and the terminal table as it prints."""

import io
import math

import pytest
from rich.console import Console

from sweep.analysis import paired
from sweep.findings import MORE_STARTS, Finding
from sweep.report import terminal, words
from tests.report import shapes


def printed(rows, width):
    out = io.StringIO()
    Console(file=out, width=width).print(terminal.summary_table(rows, width))
    return out.getvalue()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, ""),
        (0.0, "0"),
        (0.8451, "0.845"),
        (12.345, "12.3"),
        (1270.4, "1270"),
        (2.4e-6, "2.40e-06"),
        (math.inf, "inf"),
    ],
)
def test_digits(value, expected):
    assert words.digits(value) == expected


def test_units_stand_behind_a_number_and_not_behind_nothing():
    assert words.digits(0.5, "s") == "0.500 s"
    assert words.digits(None, "s") == ""


def test_speedup_with_and_without_interval():
    assert words.speedup_text({"speedup": 1.423, "speedup_low": 1.38, "speedup_high": 1.47}) == "1.42x (1.38-1.47)"
    assert words.speedup_text({"speedup": 1.423, "speedup_low": None, "speedup_high": math.nan}) == "1.42x"
    assert words.speedup_text({"speedup": 1.0, "speedup_low": 1.0, "speedup_high": 1.0}) == "1.00x"
    assert words.speedup_text({"speedup": ""}) == ""


def test_quality_in_words():
    assert words.quality_text({"mean_diff": 0.0, "psnr_db": math.inf}) == "identical"
    assert words.quality_text({"mean_diff": 0.02, "psnr_db": 30.61}) == "30.6 dB"
    assert words.quality_text({"mean_diff": 0.02}) == "diff 0.0200"
    assert words.quality_text({"mean_diff": math.nan, "psnr_db": None}) == ""


def test_every_cell_its_numbers_and_every_reason_are_in_the_table():
    out = printed(shapes.with_errors(), 160)
    for item in shapes.with_errors():
        assert item["cell"] in out
        assert item["reason"] in out
    for text in ("identical", "denoise_step 53%", "2 ranks, 8 DiT forwards each", "SKIP", "ERROR", "0.739"):
        assert text in out
    assert "nan" not in out.lower()


@pytest.mark.parametrize("width", [60, 80, 100, 139, 140, 200])
def test_the_table_fits_its_terminal(width):
    rows = [*shapes.with_errors(), shapes.row("cache_dit+cfg_parallel+teacache+ulysses", 4)]
    lines = printed(rows, width).splitlines()
    assert max(len(line) for line in lines) <= width
    joined = " ".join("".join(lines).split())
    assert "2 ranks" in joined or "report.html" in joined, "the evidence, or where it is"


def test_a_narrow_terminal_still_shows_the_evidence_of_what_failed():
    row = {"cell": "teacache b1", "status": "FAIL", "reason": "did not engage", "evidence": "1 rank; 0 blocks skipped"}
    assert "0 blocks skipped" in printed([row, shapes.row("", 1)], 80)


def test_labels_are_never_read_as_markup():
    label = "[bold]x[/bold] [/nonsense] b1"
    assert label in printed([{"cell": label, "status": "ERROR", "reason": "[red]no[/red]"}], 160)


def test_a_doubted_measurement_is_marked_and_explained():
    out = printed([shapes.row("teacache", invalid_reason="A/A drift 12 %")], 120)
    assert "PASS ?" in out
    assert "PASS  teacache b1: not valid: A/A drift 12 %" in [line.rstrip() for line in out.splitlines()]


def test_colours_only_in_a_terminal():
    assert "\x1b[" not in printed(shapes.with_errors(), 120)


def test_cells_with_the_same_reason_share_a_line_and_skipped_ones_only_that():
    skipped = [{"cell": f"ring b{n}", "status": "SKIP", "reason": "requires 4 GPUs"} for n in (1, 2)]
    out = printed([shapes.row("", 1), *skipped], 120)
    assert [line.strip() for line in out.splitlines() if "ring" in line] == ["SKIP  ring b1, b2: requires 4 GPUs"]


def test_cells_that_were_not_run_are_a_line_and_no_rows():
    rows = [
        {"cell": f"tp b{n}", "status": "NOT RUN", "reason": "the sweep ended before the cell began"} for n in (1, 2)
    ]
    out = printed([shapes.row("", 1), *rows], 120)
    assert [line for line in out.splitlines() if "tp" in line] == [
        "NOT RUN tp b1, b2: the sweep ended before the cell began"
    ]


def test_notes_are_shown_but_how_well_a_speedup_is_known_is_left_to_the_conclusions():
    vague, other = Finding(MORE_STARTS, "speed-up known to ±8.6%"), Finding("other", "other images")
    rows = [shapes.row("teacache", notes=[vague, other]), shapes.row("tp", notes=[vague])]
    out = printed(rows, 120)
    assert "note  teacache b1: other images" in [line.rstrip() for line in out.splitlines()]
    assert "note  tp" not in out


def test_evidence_is_cut_to_one_line_and_leaves_the_numbers_whole():
    rows = [shapes.row("teacache", evidence="block " * 60), shapes.row("", 1)]
    lines = [line for line in printed(rows, 150).splitlines() if "teacache" in line]
    assert len(lines) == 1
    assert words.speedup_text(rows[0]) in lines[0]
    assert lines[0].rstrip().endswith("…")


SIZES = (80, 100, 140)


@pytest.mark.parametrize("width", SIZES)
@pytest.mark.parametrize("shape", sorted(shapes.SHAPES))
def test_every_row_is_one_line_and_only_its_label_is_shortened(shape, width):
    rows = shapes.SHAPES[shape]()
    for row in rows:
        row |= {"called": paired.NO_DIFFERENCE, "baseline_beside_s": 1.236} if row["features"] else {}
    lines = printed(rows, width).splitlines()
    assert max(map(len, lines)) <= width
    (rule,) = (place for place, line in enumerate(lines) if set(line) == {"─"})
    table = lines[rule + 1 : lines.index("", rule)]
    table = [line for line in table if not line.startswith("── ")]
    assert len(table) == sum(row["status"] != "SKIP" for row in rows)
    whole = "\n".join(" ".join(line.split()) for line in table)
    for row in rows:
        if row["status"] != "SKIP":
            words_of = (row["status"], words.speedup_text(row), words.verdict_text(row), words.quality_text(row))
            assert " ".join(filter(None, words_of[:3])) in whole, words_of
            assert words_of[3] in whole


@pytest.mark.parametrize("width", SIZES)
def test_labels_too_long_stay_apart(width):
    names = ["cache_dit+cfg_parallel+teacache", "cache_dit+cfg_parallel+ulysses"]
    rows = [shapes.row(name, batch, called=paired.FASTER) for name in names for batch in (1, 16)]
    shown = [line.split("  ")[0].split(" PASS")[0] for line in printed(rows, width).splitlines() if "PASS" in line]
    assert len({*shown}) == 4
    assert all(label.endswith(("b1", "b16")) for label in shown)


def test_models_engines_and_sizes_that_vary_are_headings_and_not_in_labels():
    rows = shapes.rows_of(["teacache"], [1, 2]) + shapes.rows_of(["teacache"], [1, 2], model="other", width=128)
    for row in rows:
        row["cell"] += f" model={row['model']} width={row['width']}"
    out = printed(rows, 100)
    assert [line.split(" ─")[0] for line in out.splitlines() if line.startswith("── ")] == [
        "── tiny_glm_image · 64×64",
        "── other · 128×64",
    ]
    assert "model=" not in out
    assert "width=" not in out


def test_what_does_not_vary_needs_no_heading():
    assert "── " not in printed(shapes.full(), 100)
    single = [shapes.row("", model=name) | {"cell": f"baseline b1 model={name}"} for name in ("a", "b")]
    assert "model=a" in printed(single, 100), "a heading for each cell would only be longer"


def test_the_verdict_is_a_word_and_latencies_divide_to_the_speedup():
    row = shapes.row("teacache", called=paired.FASTER, baseline_beside_s=2.16, latency_mean_s=1.74)
    line = next(line for line in printed([row, shapes.row("")], 100).splitlines() if "teacache" in line)
    assert "faster" in line
    assert "2.16 → 1.74" in line
    assert words.latency_text(row | {"baseline_latency_s": 2.2}, " → ") == "2.20 → 1.74"
    assert words.latency_text(row | {"status": "ERROR", "speedup": None}, " → ") == "1.74"
    for called in (paired.SLOWER, paired.NO_DIFFERENCE):
        assert words.verdict_text(row | {"called": called}) == called
    assert words.verdict_text(row | {"called": paired.UNKNOWN}) == "unknown"
    assert words.verdict_text(shapes.row("")) == words.verdict_text(row | {"profiled": "nsys"}) == ""


def test_a_narrow_terminal_says_which_columns_it_has_no_room_for():
    rows = [shapes.row("cache_dit+cfg_parallel", called=paired.NO_DIFFERENCE, evidence="2 ranks"), shapes.row("")]
    assert "For img/s, bottleneck, evidence, see report.html" in printed(rows, 80)
    assert "see report.html" not in printed(rows, 160)


def test_notes_name_a_few_cells_and_failures_come_first():
    rows = [shapes.row("teacache", cell=f"f{n} b1", notes=[Finding("other", "other images")]) for n in range(1, 9)]
    rows.append(shapes.row("tp", status="FAIL", reason="did not engage"))
    lines = [line for line in printed(rows, 120).splitlines() if line.startswith(("note", "FAIL"))]
    assert lines == ["FAIL  tp b1: did not engage", "note  f1 b1, f2 b1, f3 b1 and 5 more: other images"]


def test_a_terminal_without_utf_8_gets_signs_that_it_has():
    rows = shapes.two_models()
    for row in rows:
        row |= {"baseline_beside_s": 1.2} if row["features"] else {}
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii")
    Console(file=out, width=80).print(terminal.summary_table(rows, 80))
    out.flush()
    assert b"1.20>" in raw.getvalue()
    assert b"-- tiny_qwen_image" in raw.getvalue()


def test_a_baseline_beside_the_cells_is_told():
    said = "Speed-ups compare each cell with its interleaved baseline"
    assert said in " ".join(printed([shapes.row("teacache", baseline_beside_s=0.5), shapes.row("")], 120).split())
    assert said not in printed([shapes.row("teacache"), shapes.row("")], 120)


def test_that_verdicts_are_of_single_cells_is_told_where_there_are_several():
    rows = [shapes.row(""), shapes.row("teacache", p_holm=0.2), shapes.row("tp", p_holm=0.02)]
    assert "allows 5 % error for its cell alone; 2 cells are judged" in " ".join(printed(rows, 160).split())
    assert "for its cell alone" not in printed(rows[:2], 160)


def test_an_a_a_run_is_explained_to_those_who_meet_it():
    judged = shapes.row("teacache", called=paired.FASTER)
    for rows in ([judged, shapes.row("", aa=True)], [shapes.row("teacache", called=paired.UNKNOWN)]):
        assert words.mentions_aa(rows)
        assert words.AA_EXPLAINED in " ".join(printed(rows, 120).split())
    assert not words.mentions_aa([judged, shapes.row("")])
    assert words.AA_EXPLAINED not in printed([judged, shapes.row("")], 120)
