"""The command line: Hydra's entry point, and exit codes for people and CI.

Exit codes: 0 every cell is fine or skipped, 1 a cell is FAIL, ERROR or NOT RUN (except for a budget), 2 bad input, or
no cell can run (reported in one line), 130 Ctrl-C.
"""

import os
import sys
from typing import NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from sweep import __version__, slips
from sweep.arguments import as_utf8, prepared, without_optimisation
from sweep.config.run import CONF, register
from sweep.masking import masked_text
from sweep.run.interrupts import Interrupts
from sweep.streams import refusal, steady

register()


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def run(cfg: DictConfig) -> None:
    """One job: a group that the sweeper launched, or a single run, which is a sweep of one cell."""
    from sweep import launch
    from sweep.cli_errors import explain

    if cfg.group is not None:
        launch.run_launched_group(cfg)
        return
    if study := HydraConfig.get().runtime.choices.get("study"):
        refuse(slips.without_a_sweep(study))
    try:
        code = launch.run_single(cfg)
    except Exception as error:
        message = explain(error)
        if message is None:
            raise
        refuse(message)  # here, because Hydra would add lines of its own
    else:
        raise SystemExit(code)


def refuse(message: str) -> NoReturn:
    """Bad input: one line without secrets, exit code 2."""
    refusal("sweep", masked_text(message))
    raise SystemExit(2) from None


def main() -> None:
    """Run, and turn every kind of bad input into one line and exit code 2."""
    from sweep.cli_errors import explain

    steady("sweep")
    wants_trace = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra pass exceptions on to us instead of printing them
    if "--version" in sys.argv[1:]:  # Hydra would print only its own
        print(f"sweep {__version__} (Hydra {hydra.__version__})")
        return
    sys.orig_argv[:] = map(as_utf8, sys.orig_argv)
    sys.argv[1:] = map(as_utf8, sys.argv[1:])
    try:
        without_optimisation()
        sys.argv[1:] = prepared(sys.argv[1:])
        from sweep.composing import compose_less  # imports more than --version needs
        from sweep.job_folder import leave_none_empty

        compose_less()
        leave_none_empty()
        with Interrupts():
            run()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except Exception as error:
        message = explain(error)
        if message is None or wants_trace:
            raise
        refuse(message)
