"""Ranks of one engine: rank 0 lives in the calling process, the others are spawned here, one pipe each.

Starts, commands and ends processes, and joins them with torch.distributed. Knows nothing of
pipelines: what a rank does with a command is its runner's business. A rank ends when its pipe closes
or when the process of rank 0 is gone.
"""

import multiprocessing
import multiprocessing.connection
import multiprocessing.process
import os
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import torch

from sweep.engines.process import temp_folders

CLOSE_TIMEOUT_S = 5.0  # how long ranks may take to end by themselves
ERROR_GRACE_S = 5.0  # after rank 0 failed: how long the others may take to report an error of their own


class RankError(RuntimeError):
    """A rank failed; the message names the rank."""


@dataclass(frozen=True)
class RankPlace:
    """The place of a rank. `rendezvous` is a file path that all ranks can write."""

    rank: int
    ranks: int
    rendezvous: str
    device: str  # "cpu" or "cuda:N"
    threads: int  # OpenMP threads of this rank
    timeout_s: float  # how long a collective waits for the other ranks


class Runner(Protocol):
    """What a rank does. Built by the factory in the rank's own process."""

    def run(self, command: Any) -> Any:
        """Carry `command` out, together with the runners of the other ranks."""


def join(place: RankPlace) -> None:
    """Set this process's threads and, with more than one rank, join the process group (gloo on CPU, nccl on CUDA)."""
    device = torch.device(place.device)
    torch.set_num_threads(place.threads)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if place.ranks > 1:
        # All ranks are on this machine; a host name that does not resolve must not matter.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
        # The name "cpu:gloo" is gloo for tensors on the CPU. From "gloo" alone diffusers concludes that it has to put
        # what it gathers on the accelerator that torch was built for, whether the machine has one or not.
        torch.distributed.init_process_group(
            backend="nccl" if device.type == "cuda" else "cpu:gloo",
            init_method=Path(place.rendezvous).as_uri(),
            rank=place.rank,
            world_size=place.ranks,
            timeout=timedelta(seconds=place.timeout_s),
            device_id=device if device.type == "cuda" else None,  # else NCCL guesses it, and warns
        )


def leave() -> None:
    """Leave the process group, if in one."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


class RankProcesses:
    """Ranks 1 … n-1. `factory(place, argument)` builds a rank's Runner; both must be picklable."""

    def __init__(self, ranks: int) -> None:
        self._folder = temp_folders.make() if ranks > 1 else None  # a single rank needs no rendezvous
        self.rendezvous = str(self._folder / "rendezvous") if self._folder else ""
        self._ranks = ranks
        self._processes: list[multiprocessing.process.BaseProcess] = []
        self._connections: list[Connection] = []

    def start(self, factory: Callable[[RankPlace, Any], Runner], places: list[RankPlace], argument: Any) -> None:
        """Spawn one process per place; `receive` then waits until each has built its runner."""
        spawn = multiprocessing.get_context("spawn")
        for place in places:
            ours, theirs = spawn.Pipe()
            process = spawn.Process(
                target=_rank_main, args=(theirs, factory, place, argument), name=f"rank-{place.rank}", daemon=True
            )
            process.start()
            theirs.close()
            self._processes.append(process)
            self._connections.append(ours)

    def send(self, command: Any) -> None:
        """Give every rank `command`."""
        for index, connection in enumerate(self._connections):
            try:
                connection.send(command)
            except (BrokenPipeError, OSError) as error:
                raise self._died(index) from error

    def receive(self, timeout_s: float) -> list[Any]:
        """Each rank's answer to its oldest unanswered command, in rank order. Raises RankError."""
        deadline = time.monotonic() + timeout_s
        return [self._answer(index, deadline) for index in range(len(self._connections))]

    def blame(self) -> RankError | None:
        """After rank 0 failed: the error of another rank that explains it, or None."""
        deadline = time.monotonic() + ERROR_GRACE_S
        while time.monotonic() < deadline and self._connections:
            ready = multiprocessing.connection.wait(self._connections, timeout=0.1)
            for connection in ready:
                index = self._connections.index(connection)  # type: ignore[arg-type]
                try:
                    self._answer(index, deadline)
                except RankError as error:
                    return error
            if ready:
                return None
        return None

    def close(self) -> None:
        """End all ranks; safe to call twice."""
        for connection in self._connections:
            connection.close()
        deadline = time.monotonic() + CLOSE_TIMEOUT_S
        for process in self._processes:
            process.join(max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()
        self._processes, self._connections = [], []
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _answer(self, index: int, deadline: float) -> Any:
        connection = self._connections[index]
        if not connection.poll(max(0.0, deadline - time.monotonic())):
            raise RankError(f"rank {index + 1} of {self._ranks} did not answer in time")
        try:
            failed, answer = connection.recv()
        except (EOFError, OSError) as error:
            raise self._died(index) from error
        if failed:
            raise RankError(f"rank {index + 1} of {self._ranks} failed: {answer}")
        return answer

    def _died(self, index: int) -> RankError:
        process = self._processes[index]
        process.join(1.0)
        return RankError(f"rank {index + 1} of {self._ranks} died with exit code {process.exitcode}")


def _rank_main(
    connection: Connection, factory: Callable[[RankPlace, Any], Runner], place: RankPlace, argument: Any
) -> None:
    _end_with_parent()
    try:
        runner = factory(place, argument)
        connection.send((False, None))
        while True:
            try:
                command = connection.recv()
            except (EOFError, OSError):
                break
            connection.send((False, runner.run(command)))
        leave()
    except KeyboardInterrupt:
        os._exit(130)
    except BaseException as error:
        traceback.print_exc()
        try:
            connection.send((True, f"{type(error).__name__}: {error}"))
        finally:
            sys.stderr.flush()
            os._exit(1)  # closes this rank's sockets: the others stop waiting for it


def _end_with_parent() -> None:
    """End this process as soon as its parent is gone, also in the middle of a computation."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="parent-watch").start()
