"""Requests are the same for a cell and its baseline, batches are full, and no request occurs twice."""

import re
from pathlib import Path

import pytest

from sweep.config.workload import Workload
from sweep.refusals import ConfigError
from sweep.run import source_pictures
from sweep.workload.prompts import shipped_prompts
from sweep.workload.requests import batches, build_requests


def pairs(workload: Workload, batch: int = 1, seed: int = 0) -> list[tuple[int, int]]:
    return [(r.prompt_index, r.seed) for r in build_requests(workload, batch, seed)]


def test_one_request_a_prompt_carries_the_workload() -> None:
    workload = Workload(num_prompts=3, width=96, height=32, steps=5, guidance_scale=2.5, prompt_tokens=40)
    requests = build_requests(workload, batch=1, seed=7)
    assert [r.request_id for r in requests] == ["r000", "r001", "r002"]
    assert [r.prompt for r in requests] == shipped_prompts("short")[:3]
    assert [(r.prompt_index, r.seed) for r in requests] == [(0, 7), (1, 7), (2, 7)]
    first = requests[0]
    assert (first.width, first.height, first.steps, first.guidance_scale) == (96, 32, 5, 2.5)
    assert (first.negative_prompt, first.prompt_tokens, first.input_image) == (" ", 40, None)


def test_seeds_per_prompt() -> None:
    assert pairs(Workload(num_prompts=2, seeds_per_prompt=3), seed=5) == [(p, s) for p in (0, 1) for s in (5, 6, 7)]


def test_one_prompt_cycles_with_further_seeds() -> None:
    assert pairs(Workload(prompt="", num_prompts=3, seeds_per_prompt=2)) == [(0, s) for s in range(6)]


def test_last_batch_is_filled_with_further_seeds_of_the_first_prompts() -> None:
    assert pairs(Workload(num_prompts=4), batch=3) == [(0, 0), (1, 0), (2, 0), (3, 0), (0, 1), (1, 1)]
    assert pairs(Workload(num_prompts=2), batch=5) == [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2)]


@pytest.mark.parametrize("given", [1, 3, 4, 28, 40])
@pytest.mark.parametrize("seeds", [1, 2])
def test_batches_are_full_unique_and_only_append(given: int, seeds: int) -> None:
    workload = Workload(prompt_set="mixed", num_prompts=given, seeds_per_prompt=seeds)
    alone = build_requests(workload, 1, 0)
    assert len(alone) == given * seeds
    for batch in (2, 3, 4, 7, 64):
        requests = build_requests(workload, batch, 0)
        assert requests[: len(alone)] == alone
        assert len(requests) - len(alone) < batch
        assert (
            len({(r.prompt_index, r.seed) for r in requests}) == len({r.request_id for r in requests}) == len(requests)
        )
        split = batches(requests, batch)
        assert {len(part) for part in split} == {batch}
        assert [r for part in split for r in part] == requests


def test_batch_of_zero_is_refused() -> None:
    with pytest.raises(ConfigError, match="batch=0"):
        build_requests(Workload(), 0, 0)
    with pytest.raises(ConfigError, match="batch=0"):
        batches([], 0)


def test_given_picture_reaches_every_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = source_pictures.make(tmp_path / "cat.PNG", 0, (16, 16))
    monkeypatch.chdir(tmp_path)
    requests = build_requests(Workload(task="image_edit", input_image="cat.PNG"), 1, 0)
    assert {r.input_image for r in requests} == {str(picture.resolve())}  # an engine may run in another folder


@pytest.mark.parametrize(
    ("name", "content"),
    [("none.png", None), ("cat.gif", b"GIF89a"), ("cat.png", b"")],
)
def test_unusable_picture_is_refused(tmp_path: Path, name: str, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=rf"workload\.input_image=.*{name}:"):
        build_requests(Workload(task="image_edit", input_image=str(tmp_path / name)), 1, 0)


def test_folder_as_picture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"workload.input_image={tmp_path}:")):
        build_requests(Workload(task="image_edit", input_image=str(tmp_path)), 1, 0)


def test_picture_for_text_to_image_is_refused(tmp_path: Path) -> None:
    picture = source_pictures.make(tmp_path / "cat.png", 0, (16, 16))
    with pytest.raises(ConfigError, match=r"workload\.input_image=.* workload\.task=text_to_image\b"):
        build_requests(Workload(input_image=str(picture)), 1, 0)
