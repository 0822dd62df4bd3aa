"""How long a sweep still takes, as far as its events show."""

import time
from typing import Any

import pytest

from sweep.run.progress import CellStates


class Folder:
    """Events as a sweep's folder gives them."""

    def __init__(self) -> None:
        self.new: list[dict[str, Any]] = []

    def events(self, offset: int) -> tuple[list[dict[str, Any]], int]:
        told, self.new = self.new, []
        return told, offset + len(told)


class Planned:
    """Four cells."""

    class Cell:
        def __init__(self, key: str) -> None:
            self.key, self.label, self.skip = key, key, ""

    def __init__(self) -> None:
        self.cells = [self.Cell(key) for key in "abcd"]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds of time.perf_counter."""
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def test_imports_that_all_cells_share_are_no_part_of_the_estimate(clock: list[float]) -> None:
    folder: Any = Folder()
    plan: Any = Planned()
    states = CellStates(folder, plan, set(), 0)

    def tell(seconds: float, key: str, state: str) -> str:
        clock[0] = 100.0 + seconds
        folder.new.append({"event": "cell", "key": key, "state": state, "clock_s": clock[0]})
        states.update()
        return states.time_left()

    assert tell(1, "a", "waiting") == ""
    assert tell(31, "a", "loading") == ""
    assert tell(51, "a", "done") == "about 1:00 left", "20 s a cell, three to go"
    assert tell(52, "b", "waiting") == "about 1:03 left"
    assert tell(71, "b", "done") == "about 0:40 left"
    assert tell(72, "c", "error") == "about 0:13 left"
    assert tell(73, "d", "done") == ""
