"""Requests of edits that come with their pictures: a chain is a line with one seed, each of its turns a request.

A turn edits the picture that the turn before made, so a turn of all chains is sent before the next turn of any.
Requests that are generated together are of different chains. Knows nothing of engines.
"""

from collections.abc import Sequence

from sweep.config.workload import Workload
from sweep.engines.protocol import Request
from sweep.workload.edit_files import EditTurn
from sweep.workload.inputs import Inputs

Line = tuple[tuple[int, EditTurn], ...]
"""Its turns, each with its prompt_index: its place among all turns of all lines."""

Shape = tuple[tuple[int, bool, bool], ...]


def build(workload: Workload, batch: int, seed: int, inputs: Inputs) -> list[Request]:
    """As many chains as the workload has lines and seeds, and as many more as fill the last batches.

    Lines of one shape (turns, pictures, masks) run together, so that a batch is one call of a model. A line's first
    chain has seed `seed`, its next `seed + 1`, and so on, and all turns of a chain have its seed. A larger batch has
    all requests of a smaller one. Of the first turn, `input_image` is the file in the user's folder; of later ones it
    is "" until the turn before is done, and `follows` says which that is.
    """
    found: list[Request] = []
    for chains in _grouped(workload, batch, inputs.edits):
        used: dict[int, int] = {}  # seeds taken so far by each line
        seeds = []
        for chain in chains:
            first = chain[0][0]
            seeds.append(seed + used.get(first, 0))
            used[first] = used.get(first, 0) + 1
        for turn in range(len(chains[0])):
            for chain, own in zip(chains, seeds, strict=True):
                found.append(_request(workload, inputs, chain, turn, own, len(found)))
    return found


def number(workload: Workload, batch: int, edits: Sequence[EditTurn]) -> int:
    """How many `build` makes."""
    return sum(len(chains) * len(chains[0]) for chains in _grouped(workload, batch, edits))


def _grouped(workload: Workload, batch: int, edits: Sequence[EditTurn]) -> list[list[Line]]:
    """Chains by the shape of their line, so many of each as are full batches."""
    lines: dict[int, list[tuple[int, EditTurn]]] = {}
    for index, turn in enumerate(edits):
        lines.setdefault(turn.line, []).append((index, turn))
    distinct = [tuple(line) for line in lines.values()]
    slots = range(workload.number_of(len(distinct)))
    groups: dict[Shape, list[Line]] = {}
    for slot in slots:
        line = distinct[slot % len(distinct)]
        groups.setdefault(_shape(workload, line), []).extend([line] * workload.seeds_per_prompt)
    return [_filled(chains, batch) for chains in groups.values()]


def _filled(chains: list[Line], batch: int) -> list[Line]:
    """The same and as many more, each line again and again, as fill the last batch."""
    distinct = list({line[0][0]: line for line in chains}.values())
    return chains + [distinct[place % len(distinct)] for place in range(-len(chains) % batch)]


def _shape(workload: Workload, line: Line) -> Shape:
    return tuple((turn.count, turn.mask is None, _negative(workload, turn) is None) for _, turn in line)


def _negative(workload: Workload, edit: EditTurn) -> str | None:
    return workload.negative_prompt if edit.negative_prompt is None else edit.negative_prompt


def _request(workload: Workload, inputs: Inputs, chain: Line, turn: int, seed: int, number: int) -> Request:
    index, edit = chain[turn]
    paths = [inputs.path_of(picture) for picture in edit.pictures]
    first, further = (paths[0], paths[1:]) if turn == 0 else ("", paths)
    return Request(
        request_id=f"r{number:03d}",
        prompt=edit.instruction,
        prompt_index=index,
        seed=seed,
        height=workload.height,
        width=workload.width,
        steps=workload.steps,
        guidance_scale=workload.guidance_scale,
        negative_prompt=_negative(workload, edit),
        prompt_tokens=workload.prompt_tokens,
        input_image=first,
        further_images=tuple(further),
        mask=inputs.path_of(edit.mask) if edit.mask else None,
        input_size=workload.input_size,
        line=edit.line,
        turn=edit.turn if len(chain) > 1 else 0,
        follows=chain[turn - 1][0] if turn else None,
    )
