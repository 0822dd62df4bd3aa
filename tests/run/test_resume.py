"""The command that an interrupted sweep prints does what it says when it is pasted into a shell."""

import shlex
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from sweep.run import resume

FOLDERS = ["outputs/a-b/10-00-00", "/tmp/two words", "it's", "a,b", "k=v", "[x]", "back\\slash", "ü", "$HOME", "{a}"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_any_folder_survives_the_shell_and_hydra(folder: str) -> None:
    words = shlex.split(resume.command(["python", "-m", "sweep", "-m", "batch=1,2"], Path(folder)))
    assert words[:5] == ["python", "-m", "sweep", "-m", "batch=1,2"]
    (override,) = OverridesParser.create().parse_overrides(words[5:])
    assert (override.key_or_group, str(override.value())) == ("hydra.sweep.dir", folder)


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("python3 -m sweep -m +study=quick", "python3 -m sweep -m +study=quick hydra.sweep.dir=out"),
        ("python -X dev -m sweep --multirun batch=1", "python -X dev -m sweep --multirun batch=1 hydra.sweep.dir=out"),
        ("python -m sweep batch=2", "python -m sweep batch=2 hydra.run.dir=out"),
        ("python /venv/bin/gen-sweep -m batch=1", "/venv/bin/gen-sweep -m batch=1 hydra.sweep.dir=out"),
        ("python -m sweep -m hydra.sweep.dir=old batch=1", "python -m sweep -m batch=1 hydra.sweep.dir=out"),
        (
            "python -m sweep -m +engine.args.api_key=x",
            "python -m sweep -m '+engine.args.api_key=***' hydra.sweep.dir=out",
        ),
    ],
)
def test_the_command_is_the_one_that_was_typed_with_its_folder(typed: str, expected: str) -> None:
    assert resume.command(shlex.split(typed), Path("out")) == expected
