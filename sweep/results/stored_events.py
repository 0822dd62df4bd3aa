"""Lines of events.jsonl as they are read back: what is not whole, or not of the form that is written, is left out."""

from collections.abc import Iterator
from typing import Any

from sweep.results.files import parsed

NUMBERS = ("t", "clock_s", "done", "total", "level")
TEXTS = ("event", "key", "state", "reason", "root")


def parse(lines: bytes) -> Iterator[dict[str, Any]]:
    """Events in order; without lines that a full disk cut short."""
    for line in lines.split(b"\n"):
        try:
            event = parsed(line)
        except ValueError:
            continue
        if isinstance(event, dict) and _is_event(event):
            yield event


def _is_event(event: dict[str, Any]) -> bool:
    """Whether its fields have their types, and those that readers rely on are there."""
    if not all(isinstance(event[name], str) for name in TEXTS if name in event):
        return False
    if not all(_is_finite(event[name]) for name in NUMBERS if name in event):
        return False
    needed = {"cell": ("key", "state", "clock_s"), "added": ("root", "level")}.get(str(event.get("event")), ("event",))
    if event.get("event") == "cell" and event.get("state") == "running":
        needed = (*needed, "done", "total")
    return all(name in event for name in needed)


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15
