"""Image tokens between AR stage and DiT: what was written is kept, and a DiT that receives others is reported."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from profiling.evidence import RankEvidence
from profiling.image_tokens import fingerprint
from sweep.engines.diffusers.hand_over import KEPT, HandOver, Tokens, with_hand_over
from tests.engines.conftest import MODELS, make_request

NOTHING = RankEvidence(0, 0, 0, 0, 0, 0, 0)
PREVIEW = [0] * 256
WRITTEN = [11, 12, 13, 14]
DOUBLED = [11, 11, 12, 12, 11, 11, 12, 12, 13, 13, 14, 14, 13, 13, 14, 14]


class Pipe:
    """A pipeline whose AR stage writes WRITTEN after a preview."""

    def __init__(self) -> None:
        self.vision_language_encoder = self
        self.transformer = torch.nn.Identity()
        self.transformer.forward = lambda **_: None

    def generate(self, input_ids: torch.Tensor) -> torch.Tensor:
        return torch.cat([input_ids, torch.tensor([[*PREVIEW, *WRITTEN, 1]] * len(input_ids))], dim=1)

    def run(self, *given: list[int], requests: int = 1) -> Tokens:
        """A request after which the DiT was called with these."""
        follow = HandOver(self, lambda arguments: "write" not in arguments)
        self.vision_language_encoder.generate(input_ids=torch.zeros(requests, 3, dtype=torch.int64))
        self.transformer(prior_token_id=torch.zeros(1, 64, dtype=torch.int64), write=True)
        for ids in given:
            self.transformer(prior_token_id=torch.tensor([ids] * requests))
        return follow.tokens([make_request()] * requests)


@pytest.mark.parametrize(
    ("given", "broken"),
    [
        ([DOUBLED], 0),
        ([DOUBLED, DOUBLED], 0),
        ([DOUBLED, DOUBLED[::-1]], 2),  # other tokens from some step on
        ([DOUBLED[::-1]], 2),
        ([WRITTEN], 2),  # not doubled
        ([], 2),  # the DiT was given none
    ],
)
def test_a_dit_that_is_given_other_tokens_is_told(given: list[list[int]], broken: int) -> None:
    found = Pipe().run(*given, requests=2)
    assert found.written == found.kept == (tuple(WRITTEN),) * 2
    evidence = with_hand_over(NOTHING, found.written, found.received)
    assert evidence.counts == {"hand_overs": 2, "hand_overs_broken": broken}
    assert bool(evidence.settings) == bool(broken)


def test_models_without_an_ar_stage_hand_over_nothing() -> None:
    assert with_hand_over(NOTHING, (), ()) == NOTHING


def test_tokens_of_large_images_are_compared_and_not_kept() -> None:
    many = tuple(range(KEPT + 1))
    assert Tokens((many,), (fingerprint(many),)).kept == ()


@pytest.mark.parametrize(("model", "lengths"), [(MODELS[0], [4, 4]), (MODELS[1], [])])
def test_an_engine_says_what_its_ar_stage_wrote(model: str, lengths: list[int], baseline: Callable) -> None:
    output, _ = baseline(model, make_request(steps=2), make_request("a cat", 1, steps=2))
    assert [len(tokens) for tokens in output.image_tokens] == lengths
    counts = {"hand_overs": 2, "hand_overs_broken": 0} if lengths else {}
    assert [rank.counts for rank in output.evidence] == [counts | {"text_encoder_calls": 4 if lengths else 2}]


def test_an_edit_hands_over_too(picture: Path, baseline: Callable) -> None:
    output, _ = baseline("tiny_glm_image_random", make_request(input_image=str(picture)))
    assert len(output.image_tokens[0]) == 4
    assert output.evidence[0].counts == {"hand_overs": 1, "hand_overs_broken": 0, "text_encoder_calls": 2}
