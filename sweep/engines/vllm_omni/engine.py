"""VllmOmniEngine: vLLM-Omni's offline API behind the same protocol as the other engines.

Maps a batch of requests to one `Omni.generate` call and reads back from the workers what really ran
(`profiling/vllm_plugin` writes it, `worker_records.py` reads it). Knows nothing of cells or verdicts. vllm_omni is
imported only when an engine is loaded; `versions.py` has the differences between its versions.
"""

import contextlib
import dataclasses
import hashlib
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from profiling.evidence import RankEvidence
from profiling.phases import PhaseRecord
from sweep.engines.images import fault_of, store
from sweep.engines.process import temp_folders
from sweep.engines.protocol import EngineSpec, Output, Request
from sweep.engines.vllm_omni import stages
from sweep.engines.vllm_omni.adapter_requests import name_adapter
from sweep.engines.vllm_omni.arguments import data_ranks
from sweep.engines.vllm_omni.preload import ENVIRONMENT
from sweep.engines.vllm_omni.torch_traces import Traces
from sweep.engines.vllm_omni.versions import adapter
from sweep.engines.vllm_omni.worker_records import Workers


class VllmOmniEngine:
    """Implements sweep.engines.protocol.Engine on vllm_omni.Omni."""

    def __init__(self, spec: EngineSpec) -> None:
        self.spec = spec
        self._omni: Any = None
        self._workers: Workers | None = None
        self._folder: Path | None = None
        self._traces: Traces | None = None
        self._epoch_s = 0.0
        self._stages: stages.Stages | None = None
        self.alive = True

    def load(self) -> dict[str, float]:
        """Start vLLM-Omni's processes; returns seconds by part.

        Options were checked against the installed version when the sweep was planned (`options`). Raises
        FileNotFoundError for a missing checkpoint, RuntimeError when workers did not load our plugin; and what
        vLLM-Omni raises.
        """
        checkpoint = Path(self.spec.checkpoint)
        if not checkpoint.is_dir():
            raise FileNotFoundError(f"no checkpoint at '{checkpoint}'")
        os.environ.update(ENVIRONMENT)
        self._folder = temp_folders.make()
        if self.spec.plugin:
            self._workers = Workers(self._folder)
            self._workers.announce()
        start = time.perf_counter()
        version = adapter()
        spec = dataclasses.replace(self.spec, arguments=version.constructor(self.spec.arguments))
        self._stages = stages.describe(spec, self._folder)
        arguments = self._stages.arguments
        omni = version.omni_class()
        imported = time.perf_counter()
        self._omni = omni(model=str(checkpoint), **arguments)
        loaded = time.perf_counter()
        if self._workers is not None:
            inside = version.dit_in_caller(self._stages.count, self.spec.ranks, arguments)
            self._workers.check(1 if inside else 1 + self.spec.ranks)
        self._epoch_s = time.perf_counter()
        return {"import_s": imported - start, "engine_s": loaded - imported}

    def generate(self, requests: Sequence[Request], folder: Path | None) -> Output:
        """Generate all requests in one call, as one batch where the model supports it."""
        if self._omni is None or self._stages is None:
            raise RuntimeError("generate called before load")
        version, form = adapter(), self._stages
        requests = [form.fit(request) for request in requests]
        if why := next(filter(None, map(form.too_long, requests)), ""):
            raise ValueError(why)  # vLLM-Omni would end its engine
        prompts = [form.prompt(request) for request in requests]
        parameters = [form.parameters(request, self._omni.default_sampling_params_list) for request in requests]
        for own in parameters:
            name_adapter(own[-1], self.spec.arguments)
        if self._workers is not None:
            self._workers.begin()
        version.set_batch(self._omni, len(requests))
        sent = time.perf_counter()
        with self._not_survived():  # vLLM-Omni ends its workers after any exception
            generated = version.generate(self._omni, prompts, parameters)
        latency_s = time.perf_counter() - sent
        failed = next((one.error for one in generated if one.error), None)
        if failed:
            raise RuntimeError(failed)
        images = [one.images[0] for one in generated if one.images]
        if len(images) != len(requests):
            raise RuntimeError(f"vLLM-Omni returned {len(images)} images for {len(requests)} requests")
        phases: tuple[PhaseRecord, ...] = ()
        evidence: tuple[RankEvidence, ...] = ()
        if self._workers is not None:
            hand_overs = len(requests) * (form.count - 1)
            with self._not_survived():  # a worker that did not report one batch will not report the next
                phases, evidence = self._workers.collect(
                    requests,
                    self.spec.ranks,
                    hand_overs,
                    self._epoch_s,
                    caches=len(requests) * form.caches,
                    data_ranks=data_ranks(self.spec.arguments),
                )
        ttft_s, tpot_s = form.token_times(generated)
        return Output(
            request_ids=tuple(request.request_id for request in requests),
            start_s=sent - self._epoch_s,
            latency_s=latency_s,
            image_paths=tuple(store(image, request, folder) for image, request in zip(images, requests, strict=True)),
            image_hashes=tuple(hashlib.sha256(image.tobytes()).hexdigest() for image in images),
            output_tokens=form.output_tokens(generated),
            prompt_tokens=tuple(form.count_tokens(request.prompt) for request in requests),
            phases=(PhaseRecord(0, "request", 0, sent - self._epoch_s, latency_s * 1000.0), *phases),
            evidence=evidence,
            ttft_s=ttft_s,
            tpot_s=tpot_s,
            image_faults=tuple(map(fault_of, images, (r.size for r in requests))),
            epoch_s=self._epoch_s,
        )

    def trace(self, folder: Path | None) -> None:
        """As protocol.Traced: for the first request of a batch, one trace per DiT rank and one of the AR stage.

        Raises RuntimeError without the plugin, or when a trace is lost.
        """
        if self._workers is None:
            raise RuntimeError("trace called before load, or without the plugin")
        if folder is not None:
            self._traces = Traces(self._workers.folder, self.spec.ranks)
            self._traces.ask(folder)
        elif self._traces is not None:
            self._traces.wait()

    @contextlib.contextmanager
    def _not_survived(self) -> Iterator[None]:
        """The engine does not survive an exception in the block."""
        try:
            yield
        except Exception:
            self.alive = False
            raise

    def close(self) -> None:
        """End vLLM-Omni's processes; safe to call twice."""
        omni, self._omni = self._omni, None
        if omni is not None:
            omni.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
