"""One fork server for all test processes: commands fork their engines from it, and import torch once in all.

Importing it, in that server, imports what engines on a CPU need, and makes every fork read the `sitecustomize.py` of
its PYTHONPATH as a new interpreter would: that is how faults get into engines (tests/faults).
"""

import contextlib
import functools
import os
import runpy
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sweep.engines import registry
from sweep.engines.process import forkserver


@functools.cache
def shared() -> str:
    """SHARED_VARIABLE for commands that are to fork from the server, which is started unless it runs already.

    Known once: a test may set the variable in its own process, for what it starts, where it names another module.
    """
    _start()
    module, _, everyones = os.environ.get(forkserver.SHARED_VARIABLE, "").partition(":")
    if module == __name__ and everyones != forkserver.address():
        raise AssertionError("a test of this process started a fork server of its own, into whose forks no fault gets")
    return f"{registry.kind('diffusers').preload['cpu']}:{forkserver.address()}"


def for_all() -> str:
    """SHARED_VARIABLE for test processes that are to use the server of this one, which is started."""
    _start()
    return f"{__name__}:{forkserver.address()}"


def _start() -> None:
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    log = Path(tempfile.gettempdir()) / f"sweep-tests-imports-{os.getpid()}.log"  # gone once all is imported
    forkserver.start_server(
        __name__, {"PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": "", forkserver.LOG_VARIABLE: str(log)}
    )


def _with_site(target: Callable[..., None], *arguments: Any) -> None:
    for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep):
        if (file := Path(folder) / "sitecustomize.py").is_file():
            runpy.run_path(str(file))
            break
    target(*arguments)


def _read_site_in_every_fork() -> None:
    begin = forkserver._begin

    @functools.wraps(begin)
    def _begin(surroundings: forkserver.Surroundings, target: Callable[..., None], *arguments: Any) -> None:
        begin(surroundings, _with_site, target, *arguments)

    forkserver._begin = _begin


if os.environ.get(forkserver.LOG_VARIABLE):
    import sweep.engines.diffusers.preload  # imports them

    with contextlib.suppress(ModuleNotFoundError):  # the extra `serve`
        import sweep.engines.serving.server  # noqa: F401

    _read_site_in_every_fork()
