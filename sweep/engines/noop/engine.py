"""An engine that does nothing: it measures the overhead of the framework itself (`make bench`)."""

import hashlib
import itertools
import time
from collections.abc import Sequence
from pathlib import Path

from profiling.evidence import RankEvidence
from profiling.phases import PhaseRecord
from sweep.engines.protocol import EngineSpec, Output, Request, Writing


class NoopEngine:
    """Returns at once, with no images."""

    alive = True

    def __init__(self, spec: EngineSpec) -> None:
        self.spec = spec

    def load(self) -> None:
        """Nothing to load."""

    def generate(self, requests: Sequence[Request], folder: Path | None) -> Output:
        """A request that takes no time and makes no image."""
        start = time.perf_counter()
        digest = hashlib.sha256(b"").hexdigest()
        end = time.perf_counter()
        latency = max(end - start, 1e-9)
        return Output(
            request_ids=tuple(r.request_id for r in requests),
            start_s=start,
            latency_s=latency,
            image_paths=tuple("" for _ in requests),
            image_hashes=tuple(digest for _ in requests),
            output_tokens=0,
            prompt_tokens=tuple(0 for _ in requests),
            phases=(PhaseRecord(0, "request", 0, start, latency * 1000),),
            evidence=(RankEvidence(0, 0, 0, 0, 0, 0, 0),),
            epoch_s=0.0,
        )

    def refusal(self, request: Request) -> str:
        """It writes any text."""
        return ""

    def write(self, request: Request) -> Writing:
        """The same word again and again, at once. A token of the prompt is a word."""
        assert request.text is not None
        said = request.prompt.split() + [word for _, text in request.text.messages for word in text.split()]
        return Writing(len(request.text.prompt_ids) or len(said), itertools.repeat(" noop", request.text.max_tokens))

    def close(self) -> None:
        """Nothing to close."""
