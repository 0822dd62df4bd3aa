"""What is written in the background: after the GPU, in order, and nothing waits for it."""

import os
import threading
from pathlib import Path

import pytest

from profiling.vllm_plugin import writer
from profiling.vllm_plugin.writer import Writer


def test_nothing_is_written_before_it_is_ready_and_all_in_order() -> None:
    writer, over, written = Writer("cpu"), threading.Event(), list[int]()
    for number in range(3):
        writer.add(over.is_set, lambda number=number: written.append(number), lambda: None)  # type: ignore[misc]
    assert written == []
    over.set()
    writer.settle()
    assert written == [0, 1, 2]


def test_what_fails_is_reported_and_the_next_is_written() -> None:
    writer, written, reported = Writer("cpu"), list[str](), list[str]()

    def fail() -> bool:
        raise OSError("the disk is full")

    def report() -> None:
        import sys

        reported.append(str(sys.exc_info()[1]))

    writer.add(fail, lambda: written.append("lost"), report)
    writer.add(lambda: True, lambda: written.append("next"), report)
    writer.settle()
    assert (written, reported) == (["next"], ["the disk is full"])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_has_a_writer_of_its_own(tmp_path: Path) -> None:
    writer.writer("cpu")
    child = os.fork()
    if not child:
        writer.settle()  # the parent's thread is not here: must not wait for it
        writer.writer("cpu").add(lambda: True, (tmp_path / "written").touch, lambda: None)
        writer.settle()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert (tmp_path / "written").exists()
