"""Entry point of an engine's process: `python -m sweep.engines.process.child FD PARENT`.

Reads commands from the pipe FD (or from one that it fetches, see `nsys_session`). Answers each with any number of
("record", Output), then ("ok", value) or ("error", EngineError); records of what it serves over HTTP follow the "ok".
Leads its own process group and ends it when the parent is gone, however it died.
"""

import contextlib
import gc
import importlib
import os
import sys
import traceback
from collections.abc import Iterator
from multiprocessing.connection import Connection

from profiling import ranges
from profiling.child_signals import leave_to_parent
from sweep.engines import registry
from sweep.engines.process.orphans import end_when, process_exists
from sweep.engines.process.temp_folders import name_semaphores
from sweep.engines.protocol import Engine, EngineError, EngineSpec, Output, Serves, Traced
from sweep.engines.serving.settings import ServeSettings


def create(spec: EngineSpec) -> Engine:
    """The engine named by the spec; imports only that engine's module."""
    kind = registry.kind(spec.engine)
    module, _, name = (kind.server if spec.serve else kind.engine).partition(":")
    engine: Engine = getattr(importlib.import_module(module), name)(spec)
    return engine


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Pause garbage collection: a spawned engine imports thousands of modules, none of them garbage, and passes over
    them take a sixth of the time. What exists afterwards is frozen, so no later pass scans it."""
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


def serve(pipe: Connection) -> None:
    """Answer commands until ("close",) or until the pipe is closed."""
    engine: Engine | None = None
    while True:
        try:
            command, *arguments = pipe.recv()
        except EOFError:
            break
        try:
            if command == "load":
                with collector_paused():
                    engine = create(arguments[0])
                    loaded = engine.load()
                pipe.send(("ok", loaded))
            elif command == "generate":
                assert engine is not None
                made = engine.generate(*arguments)
                for output in [made] if isinstance(made, Output) else made:
                    pipe.send(("record", output))
                pipe.send(("ok", None))
            elif command == "serve":
                assert engine is not None
                serve_http(engine, pipe, *arguments)
            elif command == "stop":
                pipe.send(("ok", None))
            elif command == "trace":
                if not isinstance(engine, Traced):
                    raise ValueError("this engine cannot record a trace of itself")
                pipe.send(("ok", engine.trace(*arguments)))
            elif command == "close":
                break
        except Exception as error:
            with contextlib.suppress(OSError, MemoryError):  # the disk of the log may be full too
                traceback.print_exc()
                sys.stderr.flush()
            alive = engine is not None and engine.alive
            pipe.send(("error", EngineError(type(error).__name__, str(error), alive)))
    if engine is not None:
        engine.close()


def serve_http(engine: Engine, pipe: Connection, settings: ServeSettings) -> None:
    """Answer requests over HTTP until another command comes; hand over the result of each batch."""

    def made(output: Output) -> None:
        pipe.send(("record", output))

    if isinstance(engine, Serves):
        pipe.send(("ok", engine.url))
        engine.follow(pipe.poll, made)
        return
    from sweep.engines.serving.server import Server

    server = Server(engine, settings)
    try:
        pipe.send(("ok", server.url))
        server.run(pipe.poll, made)
    finally:
        server.stop()


def main(pipe: Connection) -> None:
    """Serve, then end at once."""
    leave_to_parent()
    serve(pipe)
    sys.stdout.flush()
    sys.stderr.flush()
    if ranges.attached():
        return  # a tool writes what it has buffered only when Python exits normally
    os._exit(0)  # tearing down torch takes over a second, and nothing is left to save


def main_forked(pipe: Connection, parent: int) -> None:
    """The same in a process forked by `forkserver`, whose system parent is the server; `parent` started the sweep."""
    end_when(lambda: not process_exists(parent))
    main(pipe)


def recorded(address: str) -> int:
    """The pipe of a process that nsys started. What we print goes to the log and not through nsys."""
    from sweep.engines.process.nsys_session import take_over

    if os.getpgid(0) != os.getpid():
        os.setpgid(0, 0)
    pipe, output = take_over(address)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.close(output)
    return pipe


if __name__ == "__main__":
    where, asked_by, started_by = sys.argv[1], int(sys.argv[2]), os.getppid()  # nsys may be between the two
    name_semaphores()
    end_when(lambda: os.getppid() != started_by or not process_exists(asked_by))
    main(Connection(int(where) if where.isdecimal() else recorded(where)))
