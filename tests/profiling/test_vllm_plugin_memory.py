"""Peaks of memory by phase, of the first request of each shape, with an allocator of our own."""

from dataclasses import dataclass, field
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from observed import load  # noqa: E402
from omni_doubles import Batch, Here, Pipeline, lines  # noqa: E402

from profiling.vllm_plugin import request_session  # noqa: E402
from profiling.vllm_plugin.memory import Allocated, shape_of  # noqa: E402

LOADED = 1000


@dataclass
class Allocator:
    """Counts what parts of the pipeline say they take while they run."""

    now: int = LOADED
    peak: int = LOADED
    reserved: int = 4096
    reads: int = 0

    def take(self, size: int) -> None:
        """Allocate and free."""
        self.peak = max(self.peak, self.now + size)
        self.reserved = max(self.reserved, self.peak)

    def read(self) -> Allocated:
        self.reads += 1
        return Allocated(self.now, self.peak, self.reserved)

    def reset(self) -> None:
        self.peak = self.now


@dataclass
class Sampling:
    """OmniDiffusionSamplingParams."""

    height: int | None = 64
    width: int | None = 32


@dataclass
class OneRequest:
    """OmniDiffusionRequest."""

    sampling_params: Sampling = field(default_factory=Sampling)


@dataclass
class Shaped(Batch):
    """A batch that says how large its pictures are."""

    requests: tuple[OneRequest, ...] = (OneRequest(),)


@pytest.fixture
def allocator(monkeypatch: pytest.MonkeyPatch) -> Allocator:
    """What the plugin reads instead of CUDA's."""
    found = Allocator()
    monkeypatch.setattr(request_session, "meter", lambda device: found)
    return found


def hungry(allocator: Allocator, encode: int, block: int, decode: int) -> Any:
    """A pipeline whose parts take so much while they run."""
    pipeline = Pipeline()
    parts = (
        (pipeline.text_encoder, encode),
        (pipeline.transformer.transformer_blocks[1], block),
        (pipeline.vae.decoder, decode),
    )
    for part, size in parts:
        part.register_forward_pre_hook(lambda *_, size=size: allocator.take(size))
    return pipeline


def memory(counts: dict[str, int]) -> dict[str, int]:
    """Those of the counts, by short names."""
    return {
        name.removeprefix("memory_").removesuffix("_bytes"): n for name, n in counts.items() if name[:7] == "memory_"
    }


def test_each_phase_has_its_own_peak(here: Here, allocator: Allocator) -> None:
    load(here, hungry(allocator, encode=300, block=70, decode=9000)).execute_model(Shaped())
    (record,) = lines(here.folder)
    assert here.reports == []
    assert memory(record.evidence.counts) == {
        "loaded": LOADED,
        "peak_text_encode": LOADED + 300,
        "peak_denoise_step": LOADED + 70,
        "peak_dit_forward": LOADED + 70,
        "peak_vae_decode": LOADED + 9000,
        "peak_request": LOADED + 9000,
        "reserved": LOADED + 9000,
    }


def test_later_requests_of_a_shape_are_left_alone_and_carry_its_peaks(here: Here, allocator: Allocator) -> None:
    runner = load(here, hungry(allocator, encode=300, block=70, decode=900))
    runner.execute_model(Shaped(("warm-up",)))
    reads = allocator.reads
    allocator.now = 5000  # would show
    runner.execute_model(Shaped(("measured",)))
    assert allocator.reads == reads
    first, second = lines(here.folder)
    assert first.evidence.counts == second.evidence.counts
    runner.execute_model(Shaped(("a", "b"), requests=(OneRequest(), OneRequest())))  # another shape
    assert allocator.reads > reads
    assert memory(lines(here.folder)[-1].evidence.counts)["peak_vae_decode"] == 5900


def test_a_request_that_fails_leaves_its_shape_unknown(here: Here, allocator: Allocator) -> None:
    pipeline = hungry(allocator, encode=300, block=70, decode=900)
    runner = load(here, pipeline)
    pipeline.fail_at = "scheduler"
    with pytest.raises(MemoryError):
        runner.execute_model(Shaped(("bad",)))
    pipeline.fail_at = ""
    runner.execute_model(Shaped(("good",)))
    (record,) = lines(here.folder)
    assert here.reports == []
    assert memory(record.evidence.counts)["peak_vae_decode"] == LOADED + 900


@pytest.mark.parametrize("batch", [Batch(), Batch(dummy=True), Shaped(dummy=True), Shaped(requests=())])
def test_a_request_without_a_shape_or_of_vllm_omni_itself_is_not_read(
    here: Here, allocator: Allocator, batch: Batch
) -> None:
    runner = load(here, hungry(allocator, encode=1, block=1, decode=1))
    reads = allocator.reads
    runner.execute_model(batch)
    (record,) = lines(here.folder)
    assert allocator.reads == reads
    assert memory(record.evidence.counts) == {}


def test_shapes() -> None:
    requests = (OneRequest(Sampling(512, 768)), OneRequest(Sampling(512, 768)))
    assert shape_of(Shaped(requests=requests)) == (2, 512, 768)
    assert shape_of(Shaped(requests=(OneRequest(Sampling(None, None)),))) is None
    assert shape_of(None) is None


def test_no_allocator_counts_on_a_cpu(here: Here) -> None:
    load(here).execute_model(Shaped())
    (record,) = lines(here.folder)
    assert memory(record.evidence.counts) == {}
