"""Entry point of an engine's process: `python -m sweep.engines.child FD`.

Reads commands from the pipe FD, answers each with ("ok", value) or ("error", EngineError). Leads its own
process group and ends it when the parent is gone, however the parent died.
"""

import contextlib
import os
import signal
import sys
import threading
import time
import traceback
from multiprocessing.connection import Connection

from sweep.engines.base import Engine, EngineError, EngineSpec


def create(spec: EngineSpec) -> Engine:
    """The engine named by the spec; imports only that engine's module."""
    if spec.engine == "noop":
        from sweep.engines.noop import NoopEngine

        return NoopEngine(spec)
    if spec.engine == "diffusers":
        from sweep.engines.diffusers.engine import DiffusersEngine

        return DiffusersEngine(spec)
    raise ValueError(f"unknown engine {spec.engine!r}")


def prepare(engine: str, family: str) -> None:
    """Import what the engine will need, so that loading it later takes less time."""
    if engine == "diffusers":
        from sweep.engines.diffusers.engine import import_pipeline

        import_pipeline(family)


def end_with_parent(parent: int, interval_s: float = 0.5) -> None:
    """Kill our whole process group once `parent` is no longer our parent."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(interval_s)
        os.killpg(os.getpgid(0), signal.SIGKILL)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()


def serve(pipe: Connection) -> None:
    """Answer commands until ("close",) or until the pipe is closed."""
    engine: Engine | None = None
    while True:
        try:
            command, *arguments = pipe.recv()
        except EOFError:
            break
        try:
            if command == "prepare":
                prepare(*arguments)
                pipe.send(("ok", None))
            elif command == "load":
                engine = create(arguments[0])
                engine.load()
                pipe.send(("ok", None))
            elif command == "generate":
                assert engine is not None
                pipe.send(("ok", engine.generate(*arguments)))
            elif command == "close":
                break
        except Exception as error:
            with contextlib.suppress(OSError, MemoryError):  # the log's disk may be full too
                traceback.print_exc()
                sys.stderr.flush()
            pipe.send(("error", EngineError(type(error).__name__, str(error))))
    if engine is not None:
        engine.close()


if __name__ == "__main__":
    end_with_parent(int(sys.argv[2]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when we stop
    serve(Connection(int(sys.argv[1])))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # tearing down torch takes over a second, and nothing is left to save
