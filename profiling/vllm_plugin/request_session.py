"""Counts what one diffusion pipeline does during a request, and writes it as a line.

Wrapped methods (`diffusion`) count into a Session, which opens and closes the request and writes the line. Knows
nothing of how calls are intercepted.
"""

import os
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from profiling import cache_contexts
from profiling.image_tokens import received
from profiling.phases import PhaseRecorder
from profiling.vllm_plugin import pipeline_facts
from profiling.vllm_plugin.memory import Peaks, Shape, meter
from profiling.vllm_plugin.record_files import Place, append_line, paused, timings
from profiling.vllm_plugin.tracing import Tracing
from profiling.vllm_plugin.writer import writer

Evidence = dict[str, Any]
Prior = tuple[Any, int, int]
"""Prior ids (a tensor, one row an image), latent height and width."""


class Session:
    """One pipeline under observation, with what was counted since its request began.

    A request is what one thread runs from `begin` to `finish` or `fail`; calls from other threads pass through.
    """

    def __init__(self, runner: Any, place: Place) -> None:
        self.runner = runner
        self.place = place
        self.found = pipeline_facts.describe(runner.pipeline)
        self.device = str(getattr(getattr(runner, "device", None), "type", "cpu"))
        self.recorder = PhaseRecorder(pipeline_facts.rank(), self.device)
        self.recorder.epoch = 0.0  # absolute times
        self.peaks = Peaks(meter(self.device))
        self.tracing = Tracing(place, f"rank{self.recorder.rank}")
        self.thread: int | None = None  # runs the request; None: no request
        self.stepwise = False
        self.stepping = False  # inside scheduler.step
        self.requests: list[str] = []
        self.dummy = False
        self.blocks = [0]
        self.sequence = [0]
        self.blocks_due = 0
        self.calls: Counter[str] = Counter()
        self.attention: dict[str, list[int]] = {}
        self.prompt_hits = 0  # of the prompt cache, when the request began
        self.adapted: tuple[Any, ...] | None = None  # layers that hold a LoRA adapter; None: not looked for yet
        self.timestep: Any = None  # of the last DiT forward, where the pipeline has no scheduler
        self.prior: Prior | None = None  # of the first DiT forward

    def running(self) -> bool:
        """Whether this thread runs a request of the pipeline."""
        return self.thread is not None and self.thread == threading.get_ident()

    def begin(self, requests: Iterable[str], dummy: bool, stepwise: bool = False, shape: Shape | None = None) -> None:
        """A request starts. Never raises; if the recorder fails, the request is not observed."""
        self.requests, self.dummy, self.stepwise = list(requests), dummy, stepwise
        self.prior = self.timestep = None
        self.blocks[0] = self.sequence[0] = self.blocks_due = 0
        self.calls.clear()
        self.prompt_hits = self._prompt_hits()
        if self.adapted is None and not dummy:  # an adapter is loaded before the first request that names it
            self.adapted = pipeline_facts.adapted_layers(self.found.transformers)
        for cell in self.attention.values():
            cell[0] = 0
        try:
            if paused(self.place.folder):
                return
            self.tracing.begin()
            self.recorder.watch = self.peaks.boundary if self.peaks.begin(shape) else None
            self.recorder.begin("request")
        except Exception:
            self.place.report()
            return
        self.thread = threading.get_ident()
        _RUNNING.append(self)

    def fail(self) -> None:
        """The request raised: close what is open and forget it. Never raises itself."""
        try:
            self._leave()
            self.recorder.watch = None
            self.recorder.abort()
            self.recorder.drain()
            self.tracing.end()
        except Exception:  # the device may be lost
            self.place.report()

    def finish(self) -> None:
        """The request is done: its line is written as soon as the GPU has finished. Never raises."""
        if self.thread is None:
            return
        try:
            self._leave()
            self.recorder.end("request")
            self.tracing.end()
            closed = self.recorder.drain()
            line = {"requests": self.requests, "dummy": self.dummy, "start_s": closed[0].opened.start}
            evidence = self.evidence(sum(one.opened.phase == "denoise_step" for one in closed))
            path, prior = self.path(), self.prior

            def write() -> None:
                full = with_tokens(evidence, prior)
                append_line(path, line | {"phases": timings(self.recorder.read(closed)), "evidence": full})

            writer(self.device).add(lambda: all(one.over() for one in closed), write, self.place.report)
        except Exception:
            self.place.report()

    def path(self) -> Path:
        """The file that the lines go to."""
        return self.place.folder / f"dit-rank{self.recorder.rank}-{os.getpid()}.jsonl"

    def _leave(self) -> None:
        self.thread = None
        _RUNNING[:] = [session for session in _RUNNING if session is not self]

    def end_step(self) -> None:
        """End a denoising step that no scheduler ended."""
        if self.recorder.is_open("denoise_step") and not self.recorder.is_open("dit_forward"):
            self.recorder.end("denoise_step")

    @contextmanager
    def uncounted(self) -> Iterator[None]:
        """Do not count blocks that run inside: they denoise nothing."""
        before, longest = self.blocks[0], self.sequence[0]
        try:
            yield
        finally:
            self.blocks[0], self.sequence[0] = before, longest

    def evidence(self, steps: int) -> Evidence:
        """What ran since `begin`, as the fields of RankEvidence without the tokens; does not wait for the GPU."""
        vae = self.found.vaes[0] if self.found.vaes else None
        graphs = pipeline_facts.compiled_graphs()
        gpu = pipeline_facts.visible_gpu()
        most = getattr(getattr(self.runner, "od_config", None), "max_num_seqs", None)
        resident = pipeline_facts.resident(self.found.parameters, self.device)
        cached = [one for transformer in self.found.transformers for one in cache_contexts.contexts(transformer)]
        return {
            "rank": self.recorder.rank,
            "dit_forwards": self.calls["dit_forwards"],
            "denoise_steps": steps,
            "blocks_run": self.blocks[0],
            "blocks_skipped": max(0, self.blocks_due - self.blocks[0]),
            "block_sequence": self.sequence[0],
            "dit_parameters": self.found.dit_parameters,
            "settings": {
                **self.found.settings,
                **self._attention(),
                "cache_backend": self._cache_backend(),
                **({} if most is None else {"max_num_seqs": str(most)}),
                **({"gpu": gpu} if gpu else {}),
                **(cache_contexts.settings(cached) if cached else {}),
                "vae_use_slicing": str(getattr(vae, "use_slicing", "unknown")),
                "vae_use_tiling": str(getattr(vae, "use_tiling", "unknown")),
            },
            "counts": {
                **self.found.counts,
                "resident_parameters": resident,
                "offloaded_parameters": max(0, self.found.held - resident),
                "vae_decoder_calls": self.calls["vae_decoder_calls"],
                "vae_parallel_decodes": self.calls["vae_parallel_decodes"],
                "text_encoder_calls": self.calls["text_encoder_calls"],
                "prompt_cache_hits": self._prompt_hits() - self.prompt_hits,
                "extrapolations": self.calls["extrapolations"],
                "lora_layers": sum(map(pipeline_facts.is_adapted, self.adapted or ())),
                **cache_contexts.counts(cached),
                **self.peaks.counts(),
                **({} if graphs is None else {"compiled_graphs": graphs}),
            },
        }

    def _prompt_hits(self) -> int:
        """Hits of vLLM-Omni's prompt-embedding cache since it was installed; 0 without one."""
        return int(getattr(getattr(self.runner, "prompt_embed_cache", None), "hits", 0))

    def _cache_backend(self) -> str:
        """Name of the enabled cache, read from the runner's state and not from the configuration."""
        backend = getattr(self.runner, "cache_backend", None)
        if backend is not None and backend.is_enabled():
            return str(getattr(self.runner.od_config, "cache_backend", type(backend).__name__))
        return "none"

    def _attention(self) -> dict[str, str]:
        """Back ends counted by calls; where blocks are compiled, by layers as configured."""
        called = {name: cell[0] for name, cell in self.attention.items() if cell[0]}
        source, found = ("calls", called) if self.found.attention else ("layers", dict(self.found.backends))
        return {
            "attention_backend": pipeline_facts.backends(found),
            f"attention_{source}": ",".join(f"{name}:{count}" for name, count in sorted(found.items())) or "none",
        }


def with_tokens(evidence: Evidence, prior: Prior | None) -> Evidence:
    """Evidence with the fingerprints of the prior ids that the first DiT forward received, one per row of its batch."""
    tokens = []
    if prior is not None:
        ids, height, width = prior
        tokens = [received(row, height // 2, width // 2) for row in ids.tolist()]  # a position covers 2 x 2 latents
    settings, counts = evidence["settings"], evidence["counts"]
    count = sum(int(one.split(":")[0]) for one in tokens)
    return {
        **evidence,
        "settings": settings | ({"tokens_received": ";".join(tokens)} if tokens else {}),
        "counts": counts | {"tokens_received": count},
    }


_RUNNING: list[Session] = []
"""The sessions whose request runs now; more than one only where threads run several pipelines."""


def running() -> Session | None:
    """The session whose request runs in this thread."""
    ident = threading.get_ident()
    return next((session for session in _RUNNING if session.thread == ident), None)
