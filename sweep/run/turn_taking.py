"""Edits in several turns: which picture a request edits, once the turn before has made it.

A schedule is made before anything runs, so what later turns edit is filled in when they are sent: the picture that this
cell made in the turn before, in its first repeat, so that all repeats send the same. Reads no picture.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from sweep.engines.images import image_name
from sweep.engines.process.failures import EngineFailure
from sweep.engines.protocol import Request
from sweep.run.schedule import Turn


def with_kept(request: Request, kept: Mapping[str, str]) -> Request:
    """The request with the sweep's copies of its pictures and mask. `kept` has their paths by the user's."""
    return dataclasses.replace(
        request,
        input_image=request.input_image and kept[request.input_image],
        further_images=tuple(kept[path] for path in request.further_images),
        mask=request.mask and kept[request.mask],
    )


def first_of_each_shape(rounds: Sequence[Sequence[Request]]) -> list[tuple[Request, ...]]:
    """The first batch, and of edits the first of each number of pictures, with and without a mask, whose pictures are
    there before anything was made."""
    found: dict[tuple[int, bool], tuple[Request, ...]] = {}
    for requests in rounds:
        if requests[0].follows is None:
            found.setdefault((len(requests[0].images), requests[0].mask is None), tuple(requests))
    return list(found.values())


def with_made(turn: Turn, folder: Path, generates: bool) -> Turn:
    """The turn with the pictures that turns before it have made in `folder`, the cell's.

    Raises EngineFailure when there is none to edit, unless the engine `generates` none.
    """
    if all(request.follows is None for request in turn.requests):
        return turn
    asked = tuple(_edits_made(request, folder, generates) for request in turn.requests)
    return dataclasses.replace(turn, requests=asked)


def _edits_made(request: Request, folder: Path, generates: bool) -> Request:
    if request.follows is None:
        return request
    made = folder / image_name(dataclasses.replace(request, prompt_index=request.follows))
    if not made.is_file() and not generates:
        return request
    if not made.is_file():
        why = f"turn {request.turn} has no picture to edit: turn {request.turn - 1} made none"
        raise EngineFailure("exception", why, alive=True)
    return dataclasses.replace(request, input_image=str(made))
