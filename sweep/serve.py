"""`python -m sweep.serve`: an engine with its features as an OpenAI-compatible server, until Ctrl-C.

The server that loads are measured with, for other clients. What it runs is said as for a sweep:

    python -m sweep.serve --port 8000 model=tiny_glm_image feature=teacache batch=4 load.batch_wait_ms=20
"""

import argparse
import contextlib
import signal
import sys
from collections.abc import Sequence

from omegaconf import DictConfig

from sweep.config.run import CONF, register
from sweep.refusals import ConfigError, require
from sweep.streams import refusal, say, steady

NAME = "sweep.serve"


def main(given: Sequence[str] | None = None) -> int:
    """Exit code 0 after Ctrl-C, 1 when the engine fails, 2 for bad input."""
    steady(NAME)
    parser = argparse.ArgumentParser(
        prog=f"python -m {NAME}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    parser.add_argument("--port", type=int, default=8000, help="0: any free one (default: 8000)")
    parser.add_argument("--name", default="", help="what clients call the model (default: its name here)")
    parser.add_argument("override", nargs="*", help="as of python -m sweep: model=…, feature=…, batch=…, load.queue=…")
    options = parser.parse_args(given)
    from sweep.cli_errors import explain

    for number in (signal.SIGINT, signal.SIGTERM):  # also where a shell started it with SIGINT ignored
        signal.signal(number, signal.default_int_handler)
    try:
        return _serve(options)
    except KeyboardInterrupt:
        return 0
    except Exception as error:
        message = explain(error)
        if message is None:
            raise
        refusal(NAME, message)
        return 2


def _composed(overrides: Sequence[str]) -> DictConfig:
    from hydra import compose, initialize_config_dir

    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", list(overrides))


def _serve(options: argparse.Namespace) -> int:
    from sweep.engines import registry
    from sweep.engines.process.failures import EngineFailure
    from sweep.engines.process.host import EngineHost
    from sweep.engines.serving.settings import ServeSettings
    from sweep.machine.devices import discover
    from sweep.machine.leases import lease
    from sweep.plan.engine_spec import engine_spec
    from sweep.plan.preflight import cell_from, require_serving

    require(0 <= options.port <= 65535, f"--port {options.port}: must be from 0 to 65535")
    require_serving(NAME)
    cell = cell_from(_composed(options.override), options.override)
    run, kind = cell.run_config, registry.kind(cell.run_config.engine.name)
    require(kind.serves and not kind.attaches, f"engine {run.engine.name} cannot be served by this command")
    require(cell.skip is None, cell.skip.text if cell.skip else "")
    devices = discover(run.engine, run.model, run.hardware)
    name = options.name or run.model.name
    settings = ServeSettings(
        name, run.batch, run.load.batch_wait_ms, run.load.queue, host=options.host, port=options.port
    )
    with lease(devices, cell.gpus, say) as gpu_ids, contextlib.ExitStack() as stack:
        say(f"loading {cell.label} of {run.model.name}")
        try:
            spec = engine_spec(run, devices, cell.gpus, gpu_ids)
            host = stack.enter_context(EngineHost(spec, run.engine.load_timeout_s))
            host.load(run.engine.load_timeout_s)
            url = host.serve(settings, run.engine.load_timeout_s)
            say(f"{name} is served at {url} (Ctrl-C ends it)")
            for _ in host.served(None):
                pass
        except EngineFailure as error:
            if error.alive:
                raise ConfigError(error.reason) from None
            refusal(NAME, error.reason)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
