"""The order in which a cell's requests are sent, and when. Pure: requests in, turns out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sweep.engines.protocol import Request


@dataclass(frozen=True)
class Turn:
    """Requests that are sent together; to the interleaved baseline's engine as well, right before or after."""

    requests: tuple[Request, ...]
    repeat: int  # how often the same requests were sent before
    doing: str  # for messages
    keep_images: bool = False
    baseline_first: bool = False
    intended_s: float | None = None  # seconds since the measurement began; None: as soon as the turn before is done


def offline(rounds: Sequence[Sequence[Request]], repeats: int) -> tuple[Turn, ...]:
    """Every batch of `rounds` in order, `repeats` times; images of the first repeat are kept.

    The baseline alternates between going first and going second, so that neither always finds the machine warm.
    """
    return tuple(
        Turn(
            requests=tuple(requests),
            repeat=repeat,
            doing=f"generating batch {number + 1} of {len(rounds)}, repeat {repeat + 1}",
            keep_images=repeat == 0,
            baseline_first=(repeat + number) % 2 == 0,
        )
        for repeat in range(repeats)
        for number, requests in enumerate(rounds)
    )


def load(requests: Sequence[Request], due_s: Iterator[float] | None) -> tuple[Turn, ...]:
    """One turn per request, each due at its time; without times, as soon as it may be sent.

    Images are kept of the first request of each prompt, which is also the first one offline.
    """
    seen: set[int] = set()
    turns = []
    for request in requests:
        turns.append(
            Turn(
                requests=(request,),
                repeat=0,
                doing="serving",
                keep_images=request.text is None and request.prompt_index not in seen,
                intended_s=None if due_s is None else next(due_s),
            )
        )
        seen.add(request.prompt_index)
    return tuple(turns)
