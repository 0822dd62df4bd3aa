"""HandOver: the image tokens that a pipeline's AR stage writes, and those that its DiT receives.

Keeps the tensors of both while a request runs and looks at them once it is over. Knows the layout of GLM-Image's
tokens (`profiling.image_tokens`); knows nothing of what they mean.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from msgspec import structs

from profiling.evidence import RankEvidence
from profiling.image_tokens import fingerprint, image_ids, received
from sweep.engines.protocol import Request

POSITION = 16
"""Pixels that a position of the DiT covers in each direction."""

KEPT = 64
"""The most image tokens that are kept with a request: those of 256×256 pixels."""


@dataclass(frozen=True)
class Tokens:
    """For each request of a batch; () on a rank without an AR stage, or without a DiT that receives tokens."""

    written: tuple[tuple[int, ...], ...] = ()  # the image's tokens, row by row, without the preview
    received: tuple[str, ...] = ()  # as `profiling.image_tokens.received`; "changed" if they differ from step to step

    @property
    def kept(self) -> tuple[tuple[int, ...], ...]:
        """What is stored with the requests: the tokens of images that are not too large."""
        return self.written if all(len(one) <= KEPT for one in self.written) else ()


class HandOver:
    """Follows a pipeline after loading. `is_branch` decides from a DiT call's arguments whether it predicts noise."""

    def __init__(self, pipe: Any, is_branch: Callable[[Mapping[str, Any]], bool]) -> None:
        self._written: torch.Tensor | None = None  # (requests, tokens), preview included
        self._given: list[torch.Tensor] = []  # (requests, positions), one unless the pipeline changes them
        encoder = getattr(pipe, "vision_language_encoder", None)
        if encoder is None:
            return
        generate = encoder.generate

        def kept(**arguments: Any) -> torch.Tensor:
            made: torch.Tensor = generate(**arguments)
            self._written = made[:, arguments["input_ids"].shape[-1] :]
            return made

        def look(_: torch.nn.Module, positional: tuple[Any, ...], arguments: dict[str, Any]) -> None:
            given = arguments.get("prior_token_id")
            if given is not None and is_branch(arguments) and not any(given is one for one in self._given):
                self._given.append(given)

        encoder.generate = kept
        pipe.transformer.register_forward_pre_hook(look, with_kwargs=True)

    def reset(self) -> None:
        """Forget the last batch."""
        self._written, self._given = None, []

    def tokens(self, requests: Sequence[Request]) -> Tokens:
        """What was written and given for the batch that is over; waits for the device."""
        height, width, edit = requests[0].height, requests[0].width, requests[0].input_image is not None
        written = self._written.tolist() if self._written is not None else []
        rows, columns = height // POSITION, width // POSITION
        given = [[received(ids, rows, columns) for ids in one.tolist()] for one in self._given]
        return Tokens(
            tuple(tuple(image_ids(ids, height, width, edit)) for ids in written),
            tuple(one.pop() if len(one) == 1 else "changed" for one in map(set, zip(*given, strict=True))),
        )


def with_hand_over(evidence: RankEvidence, written: Sequence[Sequence[int]], given: Sequence[str]) -> RankEvidence:
    """A rank's evidence, plus how many requests were handed over and how many differ from what the AR stage wrote.

    Same counts as from vLLM-Omni's workers. `written` comes from rank 0, which alone runs the AR stage.
    """
    if not written:
        return evidence
    sent = [fingerprint(ids) for ids in written]
    wrong = len(sent) if len(sent) != len(given) else sum(one != other for one, other in zip(sent, given, strict=True))
    tokens = {"tokens_sent": ";".join(sent), "tokens_received": ";".join(given) or "none"} if wrong else {}
    counts = {**evidence.counts, "hand_overs": len(sent), "hand_overs_broken": wrong}
    return structs.replace(evidence, settings={**evidence.settings, **tokens}, counts=counts)
