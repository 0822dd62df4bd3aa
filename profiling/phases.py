"""PhaseRecorder: how long each phase of a request took on the host and, with CUDA, on the GPU.

On a CPU a phase is timed with `time.perf_counter`; on a GPU a pair of CUDA events is added, read
only when the request is over so that nothing synchronises inside it. Knows nothing of pipelines:
`instrument.py` decides where phases open and close.
"""

from dataclasses import dataclass

PHASES = (
    "request",
    "text_encode",
    "image_encode",
    "ar_prefill",
    "ar_decode",
    "denoise_step",
    "dit_forward",
    "vae_decode",
    "stage_transfer",
)
"""Names of phases, in the order of a request. `dit_forward` lies inside `denoise_step`."""


@dataclass(frozen=True)
class PhaseRecord:
    """One phase, once. `start_s` counts from the recorder's epoch; `gpu_ms` is None on a CPU."""

    rank: int
    phase: str
    index: int  # running number of this phase within its request
    start_s: float
    host_ms: float
    gpu_ms: float | None = None
    request_id: str = ""  # first request of the batch; filled in when the batch is over
