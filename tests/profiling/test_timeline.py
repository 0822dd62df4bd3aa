"""`python -m profiling timeline`: through the command line, on cells that were measured on an H200."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image
from small_traces import refusal

from profiling.__main__ import main
from profiling.measured_cell import UNKNOWN, Reading, RecordedCell, read_cell
from profiling.phases import PHASES, PhaseRecord
from profiling.plot_style import PHASE_COLOURS, style
from profiling.timeline.lanes import JOINED, LEFT_OUT, NEARLY, TIMES, Window, window_of
from profiling.timeline.plot import MOST_PROCESSES, draw
from tests.recorded import unpack


@pytest.fixture
def glm(tmp_path: Path) -> Path:
    return unpack("glm_b4", tmp_path / "glm")


def texts(figure) -> str:
    figure.canvas.draw()
    found = [text.get_text() for axes in figure.axes for text in (*axes.texts, *axes.get_yticklabels())]
    found += [axes.get_ylabel() for axes in figure.axes] + [axes.get_xlabel() for axes in figure.axes]
    legends = [axes.get_legend() for axes in figure.axes if axes.get_legend()]
    found += [text.get_text() for legend in legends for text in legend.get_texts()]
    return " | ".join([figure.get_suptitle(), figure.get_supxlabel(), *found])


def small_print_of(figure) -> str:
    """The notes below a picture, in one line."""
    return " ".join(figure.get_supxlabel().split())


def test_a_cell_becomes_a_trace_and_a_picture(glm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["timeline", str(glm)]) == 0
    said = capsys.readouterr().out
    assert ["ar_decode", "1280", "2929.6", "2695.6", "34.6", "%", "50", "%"] in [
        line.split() for line in said.splitlines()
    ]
    assert any(line.startswith("bottleneck: denoise_step, 54 %") for line in said.splitlines())
    assert str(glm / "timeline.png") in said
    assert len(json.loads((glm / "timeline.json").read_text())["traceEvents"]) > 3000
    with Image.open(glm / "timeline.png") as image:
        assert image.width == 1380
        assert 500 < image.height < 1000
    assert ElementTree.parse(glm / "timeline.svg").getroot().tag.endswith("svg")
    assert (glm / "timeline.svg").stat().st_size < 400_000
    assert not list(glm.glob(".*.tmp"))


def test_the_same_cell_gives_the_same_files(glm: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert (
            main(["timeline", str(glm), "--from", "3", "--to", "3.2", "--out", str(tmp_path / "figures" / name)]) == 0
        )
    for name in ("timeline.json", "timeline.png", "timeline.svg"):
        a, b = ((tmp_path / "figures" / which / name).read_bytes() for which in "ab")
        assert a == b, name
    assert not (glm / "timeline.json").exists()


def test_what_was_asked_for_is_shown_and_traced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = unpack("int8_b2", tmp_path / "int8")
    assert main(["timeline", str(folder), "--request", "r003"]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert [part for part in ("int8 b2", "3.617", "7.028", "r002.0") if part not in first] == []
    events = json.loads((folder / "timeline.json").read_text())["traceEvents"]
    assert {e["args"]["request"] for e in events if e["ph"] == "X"} == {"r002.0"}


@pytest.mark.parametrize("more", [[], ["--from", "-1"]], ids=["batch", "part"])
def test_a_cell_whose_phases_took_no_time_is_drawn(tmp_path: Path, more: list[str]) -> None:
    rows = ("request_id,rank,phase,index,start_s,host_ms,gpu_ms", "r0,0,request,0,0,0,", "r0,0,ar_decode,0,0,1e-290,")
    (tmp_path / "phases.csv").write_text("\n".join(rows) + "\n")
    assert main(["timeline", str(tmp_path), *more]) == 0
    json.loads((tmp_path / "timeline.json").read_text(), parse_constant=pytest.fail)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--request", "r9"], "no_request"),
        (["--repeat", "4"], "no_repeat"),
        (["--from", "99"], "nothing_there"),
        (["--repeat", "x"], "usage"),
    ],
)
def test_bad_wishes_are_one_line_and_code_2(
    glm: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: str
) -> None:
    assert refusal("timeline", glm, *arguments) == code
    assert main(["timeline", str(glm), *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("profiling: ")
    assert not (glm / "timeline.json").exists()


def test_a_folder_that_cannot_be_written_is_said_so(glm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["timeline", str(glm), "--out", str(glm / "phases.csv")]) == 2
    line = capsys.readouterr().err
    assert (str(glm / "phases.csv") in line, "--out" in line) == (True, True)
    assert refusal("timeline", glm, "--out", glm / "phases.csv") == "not_writable"


def test_the_picture_names_stages_phases_and_units(glm: Path) -> None:
    cell = read_cell(glm)
    with style():
        figure = draw(cell, window_of(cell))
        found = texts(figure)
    for expected in (
        *("baseline b4, request r000.0: 8.48 s", "engine", "AR stage", "DiT stage", "GPU", "host", "dit_forward"),
        *("ar_prefill", "ar_decode", "denoise_step", "vae_decode", "stage_transfer"),
        *("GPU busy,\n%", "GPU memory,\nGB", "GPU power,\nW", "time since the cell's first request, s"),
    ):
        assert expected in found
    assert small_print_of(figure) == " ".join([TIMES, JOINED, NEARLY])
    assert "text_encode" in found
    assert "image_encode" not in found, "only what is there is in the legend"


def test_the_picture_holds_few_shapes_however_many_steps_there_are(glm: Path) -> None:
    cell = read_cell(glm)
    with style():
        figure = draw(cell, window_of(cell))
    shapes = sum(len(collection.get_paths()) for collection in figure.axes[0].collections)
    assert shapes < 400 < len(cell.phases)


def test_a_picture_without_gpu_or_telemetry_says_what_it_leaves_out() -> None:
    phases = tuple(PhaseRecord(rank, "denoise_step", 0, 0.0, 5.0, None, "r") for rank in range(MOST_PROCESSES + 4))
    plain = RecordedCell("a_b $x^2$ " * 30, phases, clock=UNKNOWN)
    readings = tuple(Reading(t / 10, None, {"cpu_pct": 99.0, "rss_gb": 1.0}) for t in range(3))
    with style():
        figure = draw(plain, window_of(plain))
        found = texts(figure)
        measured = texts(draw(RecordedCell("c", phases, readings), Window(0.0, 0.2)))
    assert small_print_of(figure) == f"{LEFT_OUT} 4 more processes are in timeline.json."
    assert "a_b $x^2$ a_b" in found
    assert "CPU busy,\n% of a core" in measured
    assert "memory,\nGB" in measured
    assert "GPU" not in measured


def test_lines_of_several_gpus_are_named_once(glm: Path) -> None:
    cell = read_cell(glm)
    two = tuple(Reading(r.time_s, gpu, r.values) for r in cell.telemetry for gpu in (0, 1))
    with style():
        figure = draw(replace(cell, telemetry=two), window_of(cell))
    assert texts(figure).count("GPU 1") == 1
    assert [len(axes.lines) for axes in figure.axes[1:]] == [2, 2, 2]


def test_every_phase_has_a_colour_of_its_own() -> None:
    assert set(PHASES) < set(PHASE_COLOURS)
    assert len(set(PHASE_COLOURS.values())) == len(PHASE_COLOURS)


def test_help_is_quick_and_loads_no_plotting(glm: Path) -> None:
    """Also of the module that reads a cell: nothing but the drawing needs matplotlib."""
    code = (
        "import sys; from profiling.__main__ import main\n"
        "try: main(['timeline', '--help'])\nexcept SystemExit: pass\n"
        "import profiling.timeline.trace, profiling.timeline.plot\n"
        "print([name for name in ('matplotlib', 'seaborn', 'numpy', 'torch', 'sweep') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "--request ID" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr
