"""What commands print: control characters shown, and outputs that are gone, closed or of another encoding."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_traces import profiling, simple

from profiling.doctor.command import table
from profiling.doctor.machine import OK, Finding
from profiling.printing import clean, compact_json, for_spreadsheets, json_text
from tests.conftest import environment

SPEAKS = """
import sys
from profiling.printing import complain, finish, prepare, say
prepare()
say("first → \\x1b[31mred\\x9b\\r\\nsecond\\tline")
say("x" * 100_000)
complain("one\\nline → \\x1b")
sys.exit(finish("it", 1))
"""


def test_what_a_terminal_would_act_on_is_shown() -> None:
    assert clean("a\x1b[2J\r\n\x00\x7f\x9b") == r"a\x1b[2J\r\n\x00\x7f\x9b"
    assert clean("evil \u202e txt \u2028 \ud800 \ufeff") == r"evil \u202e txt \u2028 \ud800 \ufeff"
    assert clean("two\nlines\x07", keep="\n") == "two\nlines\\x07"


def test_other_text_stays_as_it_is() -> None:
    text = "void at::native::gemm<float>(int) × 一只猫　café 👩\u200d🚀 C:\\new"
    assert clean(text) == text


def speaks(redirected: str, **env: str) -> tuple[int, bytes, bytes]:
    """Exit code, stdout and stderr of a command under a shell's redirection."""
    command = f'"{sys.executable}" -c "$CODE" {redirected}'
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"],
        env=environment() | {"CODE": SPEAKS} | env,
        capture_output=True,
        timeout=60,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(("encoding", "arrow"), [("ascii", b"?"), ("latin-1", b"?"), ("utf-8", "→".encode())])
def test_characters_that_the_encoding_lacks_are_replaced(encoding: str, arrow: bytes) -> None:
    code, out, err = speaks("", PYTHONIOENCODING=encoding)
    assert code == 1
    assert out.splitlines()[0] == b"first " + arrow + rb" \x1b[31mred\x9b\r"
    assert out.splitlines()[1] == b"second\tline"
    assert err == b"one\\nline " + arrow + b" \\x1b\n"


def test_a_reader_that_went_away_changes_nothing() -> None:
    code, out, err = speaks("| head -n 1")
    assert (code, out.count(b"\n"), err.splitlines()[1:]) == (1, 1, [])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_one_line_and_an_exit_code() -> None:
    code, _, err = speaks("> /dev/full")
    assert code == 2
    assert err.decode().splitlines()[1:] == [f"it: the output could not be written ({os.strerror(28)})"]
    assert speaks("> /dev/full 2> /dev/full") == (2, b"", b"")


@pytest.mark.parametrize("closed", [">&-", "<&- >&-", "<&- >&- 2>&-"])
def test_closed_descriptors_are_not_given_to_files(closed: str) -> None:
    code, out, _ = speaks(closed)
    assert (code, out) == (1, b"")
    checks = "import os, profiling.printing as p; p.prepare(); assert os.open(os.devnull, os.O_RDONLY) > 2"
    assert speaks(closed, CODE=checks)[0] == 0


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trace whose range has a name that no small encoding has."""
    path = tmp_path_factory.mktemp("trace") / "trace.sqlite"
    return simple(path, lambda written: written.range("一只猫", 0, 100))


def command(*arguments: object, stdout: int = subprocess.PIPE, **env: str) -> "subprocess.CompletedProcess[bytes]":
    """`python -m profiling …`."""
    return subprocess.run(
        [sys.executable, "-m", "profiling", *map(str, arguments)],
        env=environment() | {"NSYS": "/nowhere", **env},
        stdout=stdout,
        stderr=subprocess.PIPE,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("arguments", "encoding", "shown"),
    [
        (("analyze", "T"), "ascii", b"* ??? is compute-bound"),
        (("diff", "T", "T"), "latin-1", b"???"),
        (("doctor",), "ascii", b"? install Nsight"),
        (("timeline", "--help"), "ascii", b"a measured cell"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_commands_print_in_any_encoding(trace: Path, arguments: tuple[str, ...], encoding: str, shown: bytes) -> None:
    done = command(*(trace if one == "T" else one for one in arguments), PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, b"")
    assert shown in done.stdout
    done.stdout.decode(encoding)


@pytest.mark.parametrize("arguments", [("analyze", "T", "--format", "json"), ("--help",)], ids=["analyze", "--help"])
def test_commands_end_quietly_without_a_reader(trace: Path, arguments: tuple[str, ...]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = command(*(trace if one == "T" else one for one in arguments), stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("arguments", [("analyze", "T"), ("--help",)], ids=["analyze", "--help"])
def test_commands_say_that_their_output_is_lost(trace: Path, arguments: tuple[str, ...]) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    done = command(*(trace if one == "T" else one for one in arguments), stdout=full)
    os.close(full)
    line = f"profiling: the output could not be written ({os.strerror(28)})\n"
    assert (done.returncode, done.stderr.decode()) == (2, line)


def test_names_of_files_are_shown_too(trace: Path, tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"x\n\x1b[31m\xff.sqlite")
    odd.write_bytes(trace.read_bytes())
    shown = r"x\n\x1b[31m\udcff.sqlite"
    for done in (profiling("analyze", odd, "--save", tmp_path / "out"), profiling("diff", odd, odd)):
        assert (done.code, done.err) == (0, "")
        assert shown in done.out
    assert shown in (tmp_path / "out" / "nsys_phases.csv").read_text()
    assert shown in profiling("analyze", odd / "none").err


def test_spreadsheets_compute_nothing_of_a_name(tmp_path: Path) -> None:
    path = simple(tmp_path / "a.sqlite", lambda written: written.launch(30, 42, 45, "=1+1"))
    assert profiling("analyze", path, "--save", tmp_path).code == 0
    with (tmp_path / "kernels.csv").open(newline="") as file:
        assert {row["kernel"] for row in csv.DictReader(file)} == {"matmul", "'=1+1"}
    assert for_spreadsheets("a=b") == "a=b"
    assert [for_spreadsheets(one)[0] for one in ("@x", "-x", "+x", "\tx")] == ["'"] * 4


def test_bad_usage_and_findings_cannot_trick_a_terminal() -> None:
    done = profiling("an\x1b[2Jalyze\n")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "\x1b" not in done.err + table([Finding("driver", OK, "GPU\x1b[2J", "do\x07")])


def test_json_is_strict() -> None:
    assert json.loads(json_text({"a": "\x7f\x1b"})) == {"a": "\x7f\x1b"}
    assert "\x7f" not in json_text("\x7f") + compact_json("\x7f")
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="not JSON compliant"):
            json_text([value])
        with pytest.raises(ValueError, match="not JSON compliant"):
            compact_json([value])
