"""The command line: Hydra's entry point, and exit codes for people and CI.

Exit codes: 0 every cell is fine or skipped, 1 a cell is FAIL or ERROR, 2 bad input (reported in one line), 130 Ctrl-C.
"""

import os
import re
import sys
from typing import NoReturn

import hydra
from omegaconf import DictConfig

from sweep import __version__, config
from sweep.run.interrupts import Interrupts

config.register()


@hydra.main(version_base="1.3", config_path=str(config.CONF), config_name="config")
def run(cfg: DictConfig) -> None:
    """One job: a group that the sweeper launched, or a single run, which is a sweep of one cell."""
    from sweep import launch

    if cfg.group is not None:
        launch.run_launched_group(cfg)
        return
    try:
        code = launch.run_single(cfg)
    except config.ConfigError as error:
        refuse(str(error))  # here, because Hydra would add lines of its own
    else:
        raise SystemExit(code)


def refuse(message: str) -> NoReturn:
    """Bad input: one line, exit code 2."""
    print(f"sweep: {message}", file=sys.stderr)
    raise SystemExit(2) from None


def defer_feature_options(arguments: list[str]) -> list[str]:
    """In a multirun, write `feature.teacache.rel_l1_thresh=0.3` as a choice of one value.

    Hydra first composes a configuration without the swept values. It has no features yet and would refuse their
    fields. Choices are left to the sweeper, which knows which cells have the feature.
    """
    if not _sweeps(arguments):
        return arguments
    option = re.compile(r"\+{0,2}(feature\.[\w.]+)=(?!\w+\()(.+)", re.DOTALL)
    return [f"{m[1]}=choice({m[2]})" if (m := option.fullmatch(a)) else a for a in arguments]


def _sweeps(arguments: list[str]) -> bool:
    """Whether the arguments ask for a sweep and not for a single run."""
    return bool({"-m", "--multirun"} & set(arguments))


def contradiction(arguments: list[str]) -> str:
    """Options that mix a sweep with a single run. Hydra would ignore them or end with a traceback."""
    sweeps = _sweeps(arguments)
    folder = next((a for a in arguments if a.startswith(f"hydra.{'run' if sweeps else 'sweep'}.dir=")), "")
    if folder:
        _, _, place = folder.partition("=")
        if sweeps:
            return f"{folder} is for a single run; for a sweep (-m), write hydra.sweep.dir={place}"
        return f"{folder} is for sweeps (-m); for a single run, write hydra.run.dir={place}"
    if sweeps and {"--cfg", "-c"} & {a.partition("=")[0] for a in arguments}:
        return "--cfg shows a single configuration; drop -m and give each option one value"
    return ""


def main() -> None:
    """Run, and turn every kind of bad input into one line and exit code 2."""
    from sweep.cli_errors import explain

    wants_trace = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra pass exceptions on to us instead of printing them
    if "--version" in sys.argv[1:]:  # Hydra would print only its own
        print(f"sweep {__version__} (Hydra {hydra.__version__})")
        return
    sys.argv[1:] = defer_feature_options(sys.argv[1:])
    if wrong := contradiction(sys.argv[1:]):
        refuse(wrong)
    try:
        with Interrupts():
            run()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except Exception as error:
        message = explain(error)
        if message is None or wants_trace:
            raise
        refuse(message)
