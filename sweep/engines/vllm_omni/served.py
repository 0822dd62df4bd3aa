"""VllmOmniServer: `vllm serve … --omni`, started for a load with the options of the offline engine, and stopped again.

Clients send their requests to it over HTTP; what its workers record about each batch is read here (`served_batches`).
The command runs in a process of our group, forked from one that has imported everything where that is possible.
"""

import contextlib
import dataclasses
import importlib
import multiprocessing
import os
import shutil
import socket
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

from profiling.vllm_plugin.request_names import MIDDLEWARE
from sweep.engines.endpoint.engine import EndpointEngine
from sweep.engines.process import temp_folders
from sweep.engines.protocol import EngineSpec, Output, Request
from sweep.engines.vllm_omni import stages
from sweep.engines.vllm_omni.preload import ENVIRONMENT
from sweep.engines.vllm_omni.serve_flags import flags
from sweep.engines.vllm_omni.served_batches import ServedBatches
from sweep.engines.vllm_omni.versions import adapter
from sweep.engines.vllm_omni.worker_records import Workers

HOST = "127.0.0.1"
POLL_S = 0.05
LEAST_REST_S = 0.5  # after the last reply, for workers to record what they did for it
STOP_S = 15.0


class VllmOmniServer:
    """Implements sweep.engines.protocol.Engine and Serves."""

    def __init__(self, spec: EngineSpec) -> None:
        self.spec = spec
        self.url = ""
        self._folder: Path | None = None
        self._workers: Workers | None = None
        self._batches: ServedBatches | None = None
        self._process: multiprocessing.process.BaseProcess | None = None

    @property
    def alive(self) -> bool:
        """Whether the server runs."""
        return self._process is not None and self._process.is_alive()

    def load(self) -> dict[str, float]:
        """Start the server; returns seconds by part once it answers.

        Raises FileNotFoundError for a missing checkpoint, RuntimeError when the server ends, or its workers did not
        load our plugin.
        """
        checkpoint = Path(self.spec.checkpoint)
        if not checkpoint.is_dir():
            raise FileNotFoundError(f"no checkpoint at '{checkpoint}'")
        os.environ.update(ENVIRONMENT | {"VLLM_LOGGING_COLOR": "0"})
        self._folder = temp_folders.make()
        if self.spec.plugin:
            self._workers = Workers(self._folder)
            self._workers.announce()
        version, given = adapter(), {**self.spec.arguments, "max_num_seqs": self.spec.serve["batch"]}
        if self.spec.serve["batch_wait_ms"]:
            given["request_batch_max_wait_ms"] = self.spec.serve["batch_wait_ms"]
        spec = dataclasses.replace(self.spec, arguments=version.constructor(given))
        form = stages.describe(spec, self._folder)
        began = time.perf_counter()
        port = _free_port()
        self.url = f"http://{HOST}:{port}"
        command = [
            *("serve", str(checkpoint), "--omni", "--host", HOST, "--port", str(port)),
            *("--served-model-name", self.spec.model, "--disable-uvicorn-access-log"),
            *(("--middleware", MIDDLEWARE) if self.spec.plugin else ()),
            *flags(form.arguments),
        ]
        self._process = multiprocessing.get_context("spawn").Process(target=run_command, args=(command,))
        self._process.start()
        self._await_health()
        if self._workers is not None:
            inside = version.dit_in_caller(form.count, self.spec.ranks, form.arguments)
            self._workers.check(1 if inside else 1 + self.spec.ranks)
        self._batches = ServedBatches(self.spec.ranks, form.count > 1, time.perf_counter())
        return {"engine_s": time.perf_counter() - began}

    def generate(self, requests: Sequence[Request], folder: Path | None) -> Output:
        """Send the requests at once, which warms the server up. No picture is kept."""
        there = dataclasses.replace(self.spec, url=self.url, served_model=self.spec.model)
        output = EndpointEngine(there).generate(requests, folder)
        made: list[Output] = []
        self._rest(made.append)
        return dataclasses.replace(output, evidence=made[-1].evidence if made else ())

    def follow(self, stopping: Callable[[], bool], made: Callable[[Output], None]) -> None:
        """As protocol.Serves."""
        while not stopping():
            self._hand_over(made)
            time.sleep(POLL_S)
        self._rest(made)

    def close(self) -> None:
        """End the server and its processes; safe to call twice."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(OSError):
                process.terminate()
            process.join(STOP_S)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _rest(self, made: Callable[[Output], None]) -> None:
        """Hand over the records of requests that were already answered."""
        until = time.monotonic() + LEAST_REST_S
        while time.monotonic() < until or (self._batches is not None and self._batches.waiting):
            self._hand_over(made)
            time.sleep(POLL_S)

    def _hand_over(self, made: Callable[[Output], None]) -> None:
        if not self.alive:
            raise RuntimeError(self._ended("while it served"))
        if self._workers is None or self._batches is None:
            return
        self._batches.add(self._workers.read())
        for output in self._batches.complete(time.perf_counter()):
            made(output)

    def _await_health(self) -> None:
        """Wait until the server answers; the host sets the time limit."""
        while True:
            if not self.alive:
                raise RuntimeError(self._ended("while it started"))
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/health", timeout=5.0):
                return  # another status than 200 raises
            time.sleep(0.2)

    def _ended(self, when: str) -> str:
        """In words that make the host look for the error in the log."""
        code = self._process.exitcode if self._process else None
        return f"vllm serve ended with exit code {code} {when} (see stack trace above)"


def run_command(command: list[str]) -> None:
    """`vllm-omni COMMAND`, as its console script runs it. In the server's own process."""
    sys.argv = ["vllm-omni", *command]
    importlib.import_module("vllm_omni.entrypoints.cli.main").main()


def _free_port() -> int:
    """A port that is free now."""
    with socket.create_server((HOST, 0)) as listening:
        port: int = listening.getsockname()[1]
        return port
