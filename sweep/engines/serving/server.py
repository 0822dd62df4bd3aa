"""Serving in the engine's process: uvicorn in its own thread, batches in the thread that loaded the engine."""

import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import uvicorn

from sweep.engines.protocol import Engine, Output, Request
from sweep.engines.serving.app import make_app
from sweep.engines.serving.batching import BatchQueue, Served, Waiting
from sweep.engines.serving.replies import Counts
from sweep.engines.serving.settings import ServeSettings
from sweep.engines.serving.writing import refusal, written

START_S = 30.0  # for uvicorn to listen
IDLE_S = 0.05  # between two looks at whether to stop
STOP_S = 5.0


class Server:
    """Serves a loaded engine at `url` from when it is made until `stop`; `run` generates meanwhile."""

    def __init__(
        self, engine: Engine, settings: ServeSettings, check: Callable[[Request], str] = lambda request: ""
    ) -> None:
        self._engine, self._settings = engine, settings
        self._queue = BatchQueue(settings.batch, settings.batch_wait_ms / 1e3, settings.queue)
        self._counts = Counts()
        self._images = Path(tempfile.mkdtemp(prefix="sweep-served-"))
        listening = socket.create_server((settings.host, settings.port))  # OSError: the port is in use
        self.url = f"http://{settings.host}:{listening.getsockname()[1]}"
        app = make_app(self._queue, settings, self._counts, check, lambda request: refusal(engine, request))
        self._uvicorn = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off", timeout_keep_alive=600))
        self._thread = threading.Thread(target=self._uvicorn.run, kwargs={"sockets": [listening]}, daemon=True)
        self._thread.start()
        until = time.monotonic() + START_S
        while not self._uvicorn.started:
            if not self._thread.is_alive() or time.monotonic() > until:
                raise OSError(f"the server does not listen at {self.url}")
            time.sleep(0.005)

    def run(self, stopping: Callable[[], bool], made: Callable[[Output], None]) -> None:
        """Generate what clients request, batch by batch, until `stopping`. `made` receives each batch's result.

        An engine that fails answers its batch with the error; if it cannot take another one, the error is raised.
        """
        while not stopping():
            batch = self._queue.take(IDLE_S)
            if not batch:
                continue
            self._counts.running = len(batch)
            try:
                output = self._generate(batch)
            except Exception as error:
                for one in batch:
                    one.answer.set_exception(error)
                if not self._engine.alive:
                    raise
                continue
            finally:
                self._counts.running = 0
            made(output)

    def stop(self) -> None:
        """Refuse what waits, answer what runs, and end the HTTP side."""
        self._queue.stop()
        self._uvicorn.should_exit = True
        self._thread.join(STOP_S)
        shutil.rmtree(self._images, ignore_errors=True)

    def _generate(self, batch: list[Waiting]) -> Output:
        began = time.perf_counter()
        if batch[0].request.text is not None:
            output = written(self._engine, batch[0])
        else:
            made = self._engine.generate([one.request for one in batch], self._images)
            output = made if isinstance(made, Output) else next(iter(made))
        self._counts.batches += 1
        self._counts.by_size[len(batch)] = self._counts.by_size.get(len(batch), 0) + 1
        for position, one in enumerate(batch):
            png = self._taken(output.image_paths[position])
            one.answer.set_result(Served(png, output, position, began - one.since_s))
        return output

    def _taken(self, name: str) -> bytes:
        """The image's bytes; deletes its file."""
        if not name:
            return b""
        path = self._images / name
        data = path.read_bytes()
        path.unlink()
        return data
