"""Notes of a row that follow from what its engine counted."""

from types import SimpleNamespace
from typing import Any

from profiling.evidence import RankEvidence
from sweep.analysis.notes import _cut_prompts


def batch(**counts: int) -> Any:
    return SimpleNamespace(evidence=(RankEvidence(0, 4, 2, 8, 0, 16, 100, counts=counts),))


def test_prompts_that_the_pipeline_cut_are_told() -> None:
    read = [SimpleNamespace(prompt_tokens=tokens) for tokens in (1024, 1024, 30, 1024)]
    data: Any = SimpleNamespace(batches=[batch(prompts_cut=2), batch(), batch(prompts_cut=1)], requests=read)
    (note,) = _cut_prompts(data)
    assert (note.code, note.status) == ("prompt_too_long", "")
    assert all(number in note.text for number in ("3 of 4", "1,024"))
    data.batches = [batch(), SimpleNamespace(evidence=())]
    assert _cut_prompts(data) == []
