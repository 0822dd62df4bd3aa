"""Checkpoints in the local cache of the Hugging Face Hub, found by their Hub id: no network, nothing is downloaded.

Knows the cache's layout, `models--OWNER--NAME/refs/main` and `snapshots/COMMIT`; does not import huggingface_hub.
"""

import os
import re
from pathlib import Path

from sweep.refusals import ConfigError

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
COMMIT = re.compile(r"[0-9a-f]{7,64}")


def folder_of(asked: str, field: str) -> str:
    """The folder that `asked` means: itself where that is a folder or no Hub id, else that id's snapshot in the cache.

    `field` is named in errors. Raises ConfigError, with the download command, if the snapshot is missing or incomplete.
    """
    if not HUB_ID.fullmatch(asked) or Path(asked).exists():
        return asked
    cache = cache_folder()
    get = f"to download it, run: hf download {asked}"
    snapshot = _snapshot(cache / f"models--{asked.replace('/', '--')}")
    if snapshot is None:
        raise ConfigError(f"{field}={asked}: no such folder, and not in the Hub cache ({cache}); {get}")
    if _is_incomplete(snapshot):
        raise ConfigError(f"{field}={asked}: its copy in the Hub cache is incomplete ({snapshot}); {get}")
    return str(snapshot)


def cache_folder() -> Path:
    """Where the Hub's own library keeps checkpoints: HF_HUB_CACHE, else HF_HOME/hub, else below ~/.cache."""
    named = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    if named:
        return Path(named).expanduser()
    home = os.environ.get("HF_HOME")
    folder = Path(home) if home else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return folder.expanduser() / "hub"


def _snapshot(repository: Path) -> Path | None:
    """The commit that `main` was at the last download; None where there is none."""
    try:
        commit = (repository / "refs" / "main").read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return None
    snapshot = repository / "snapshots" / commit
    return snapshot.absolute() if COMMIT.fullmatch(commit) and snapshot.is_dir() else None


def _is_incomplete(snapshot: Path) -> bool:
    """Whether a link leads to a missing file, or there are no files."""
    files = [path for path in snapshot.rglob("*") if not path.is_dir()]
    return not files or not all(path.exists() for path in files)
