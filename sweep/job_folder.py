"""The folder that Hydra makes for a single run before it calls us: removed where the run left nothing in it.

A refused run and a dry run leave no trace that way. Knows Hydra's jobs, not what runs in them.
"""

import contextlib
from pathlib import Path
from typing import Any

from hydra._internal import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

_run_job = hydra.run_job


def leave_none_empty() -> None:
    """Have Hydra's folders removed again if nothing was put into them."""
    hydra.run_job = run_job


def run_job(*, config: DictConfig, job_dir_key: str, **others: Any) -> Any:
    """Like Hydra's own, but then removes the folders that it made, if they are empty."""
    new = _missing(config, job_dir_key)
    try:
        return _run_job(config=config, job_dir_key=job_dir_key, **others)
    finally:
        with contextlib.suppress(OSError):  # not empty, so none of its parents is
            for path in new:
                path.rmdir()


def _missing(config: DictConfig, key: str) -> list[Path]:
    """The job's folder and its parents that are not there yet, from the innermost one."""
    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(config)  # which the name may refer to
    try:
        folder = Path(str(OmegaConf.select(config, key))).absolute()
        return [path for path in (folder, *folder.parents) if not path.exists()]
    except Exception:  # Hydra hits the same error and reports it
        return []
    finally:
        HydraConfig.instance().cfg = before
