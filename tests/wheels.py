"""The real source of vLLM-Omni for tests that hold our tables against it: wheels, unpacked once and never imported."""

import functools
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / ".pytest_cache" / "wheels"
VERSIONS = ("0.26.0", "0.30.0")
DOWNLOAD_S = 120


@functools.cache
def wheel_source(version: str) -> Path:
    """Folder with the unpacked wheel of vllm-omni `version`; skips the test where it cannot be had.

    Wheels are looked for in .venv/wheels, then in $SWEEP_WHEELS, else downloaded (without dependencies).
    """
    unpacked = CACHE / f"vllm_omni-{version}"
    if unpacked.is_dir():
        return unpacked
    wheel = _find(version) or _download(version)
    if wheel is None:
        pytest.skip(f"no wheel of vllm-omni {version}: put it into .venv/wheels or a folder named by SWEEP_WHEELS")
    CACHE.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=CACHE))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(partial)
    try:
        partial.rename(unpacked)
    except OSError:  # another test process was first
        shutil.rmtree(partial, ignore_errors=True)
    return unpacked


def _find(version: str) -> Path | None:
    folders = [ROOT / ".venv" / "wheels", *map(Path, filter(None, [os.environ.get("SWEEP_WHEELS")])), CACHE]
    found = (wheel for folder in folders for wheel in sorted(folder.glob(f"vllm_omni-{version}-*.whl")))
    return next(found, None)


def _download(version: str) -> Path | None:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", str(CACHE)]
    try:
        subprocess.run([*command, f"vllm-omni=={version}"], check=True, capture_output=True, timeout=DOWNLOAD_S)
    except (subprocess.SubprocessError, OSError):
        return None
    return _find(version)
