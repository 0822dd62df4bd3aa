"""What commands print: control characters shown, and outputs that are gone, closed or of another encoding."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from profiling.printing import clean
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
    assert clean("evil \u202e txt \u2028 \ud800") == r"evil \u202e txt \u2028 \ud800"
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
