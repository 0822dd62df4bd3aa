"""Mixes of a load: shares, sizes and seeds."""

import statistics

import pytest

from sweep.config.load import Mix
from sweep.config.workload import Workload
from sweep.engines.protocol import Request
from sweep.refusals import ConfigError
from sweep.workload.mixes import TO_MAKE, mixed
from sweep.workload.requests import build_requests

ASKED = build_requests(Workload(prompt_set="world", num_prompts=4000), 1, 7)
PROMPTS = 1 + max(one.prompt_index for one in ASKED)
INSTRUCTIONS = ("make it red", "move it left")


def made(mix: Mix, requests: list[Request] = ASKED, seed: int = 7) -> list[Request]:
    return mixed(requests, mix, seed, INSTRUCTIONS, PROMPTS, 16, 512 * 512)


def test_without_a_mix_requests_are_as_they_were() -> None:
    assert made(Mix()) == ASKED


def test_the_share_of_edits_is_what_was_asked_for_and_no_request_comes_twice() -> None:
    found = made(Mix(edits=0.3))
    edits = [one for one in found if one.input_image is not None]
    assert len(edits) / len(found) == pytest.approx(0.3, abs=0.03)  # 4 standard errors
    assert {one.prompt for one in edits} == set(INSTRUCTIONS)
    assert all(one.input_image == TO_MAKE for one in edits)
    assert len({(one.prompt, one.seed) for one in found}) == len(found)
    texts = {one.prompt_index: one.prompt for one in found}
    assert all(texts[one.prompt_index] == one.prompt for one in found), "an index names one prompt"


def test_sizes_follow_paretos_law_within_what_the_model_makes() -> None:
    found = made(Mix(sizes="pareto", alpha=2.5, x_min=64))
    sides = [one.width for one in found]
    assert all(one.width == one.height and one.width % 16 == 0 for one in found)
    assert min(sides) == 64
    assert max(sides) == 512, "the tail is cut where the model's pictures end"
    for share in (0.5, 0.8, 0.95):
        expected = 64 * (1 - share) ** (-1 / 2.5)
        assert statistics.quantiles(sides, n=100)[round(share * 100) - 1] == pytest.approx(expected, abs=16)


def test_sizes_of_a_list_are_equally_likely() -> None:
    sides = [one.width for one in made(Mix(sizes="choice", sides=[64, 128, 256]))]
    for side in (64, 128, 256):
        assert sides.count(side) / len(sides) == pytest.approx(1 / 3, abs=0.03)


def test_a_longer_load_begins_with_a_shorter_one_and_a_seed_decides() -> None:
    mix = Mix(edits=0.5, sizes="pareto")
    assert made(mix)[:50] == made(mix, ASKED[:50])
    assert made(mix) == made(mix)
    assert [one.size for one in made(mix)] != [one.size for one in made(mix, seed=8)]
    assert [one.size for one in made(mix)] == [one.size for one in made(Mix(sizes="pareto"))]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"edits": 1.5}, "load.mix.edits=1.5"),
        ({"sizes": "normal"}, "load.mix.sizes=normal: choose fixed, pareto or choice"),
        ({"sizes": "choice"}, "load.mix.sides"),
        ({"sides": [64]}, "load.mix.sizes=choice"),
        ({"sizes": "pareto", "alpha": 0}, "load.mix.alpha=0"),
        ({"sizes": "pareto", "x_min": 0}, "load.mix.x_min=0"),
        ({"upload": 0}, "load.mix.upload=0"),
    ],
)
def test_a_bad_mix_is_one_line(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said.replace(".", r"\.")):
        Mix(**settings)  # type: ignore[arg-type]
