"""Where locks are kept: a place that is ours, whatever others have put there under our name."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sweep.machine import leases


@pytest.fixture
def usual(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The usual place, which others can write to; the user's cache is the other one."""
    monkeypatch.delenv(leases.LEASES_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "sweep-leases"
    monkeypatch.setattr(leases, "_usual", lambda: folder)
    leases._say.cache_clear()
    return folder


def elsewhere(folder: Path) -> None:
    (folder.parent / "elsewhere").mkdir()
    folder.symlink_to(folder.parent / "elsewhere")


SQUATTED: dict[str, Callable[[Path], object]] = {
    "is a link": elsewhere,
    "is no folder": Path.touch,
    "belongs to another user": lambda folder: (folder.mkdir(), os.chown(folder, os.getuid() + 1, -1)),
}


@pytest.mark.parametrize("how", SQUATTED)
def test_a_place_that_is_not_ours_is_not_used_which_is_said_once(
    how: str, usual: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if "user" in how and os.getuid() != 0:
        pytest.skip("only root can give a folder away")
    SQUATTED[how](usual)
    found = leases.lease_folder()
    assert found.is_relative_to(tmp_path / "cache")
    assert found.stat().st_mode & 0o777 == 0o700
    assert leases.lease_folder() == found
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{usual} {how}" in line
    assert str(found) in line
    assert list((tmp_path / "elsewhere").iterdir() if how == "is a link" else []) == []


def test_a_place_of_ours_that_others_can_write_to_is_closed(usual: Path, capsys: pytest.CaptureFixture[str]) -> None:
    usual.mkdir()
    usual.chmod(0o777)
    assert leases.lease_folder() == usual
    assert usual.stat().st_mode & 0o777 == 0o700
    assert capsys.readouterr().err == ""


def test_no_place_at_all_is_said_with_what_to_do(usual: Path, tmp_path: Path) -> None:
    usual.touch()
    (tmp_path / "cache").touch()
    with pytest.raises(OSError, match=rf"{usual} is no folder, and {tmp_path}/cache.*{leases.LEASES_VARIABLE}"):
        leases.lease_folder()


def test_a_lock_is_not_opened_through_a_link(usual: Path, tmp_path: Path) -> None:
    usual.mkdir()
    (usual / "gpu.lock").symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match="symbolic links"):
        leases.open_lock(usual / "gpu.lock")
    assert not (tmp_path / "target").exists()
