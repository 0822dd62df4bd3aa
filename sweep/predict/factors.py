"""How much of a machine's peaks the phases reach, and what its host costs: assumed, or fitted on sweeps. Pure.

A share is what is reached ÷ what the data sheet says. Times are of the host. `calibrate.py` fits them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

ASSUMED, COUNTED, MEASURED, FITTED = "assumed", "counted", "measured on this machine", "fitted on these sweeps"
"""Grades of a figure."""


@dataclass(frozen=True)
class Factors:
    """One set of factors, for one kind of device. The defaults are marked as assumed."""

    linear: float = 0.65  # products with weights: share of the dtype's peak
    attention: float = 0.50  # attention: share of bfloat16's peak
    convolution: float = 0.18
    moved: float = 0.60  # kernels without products: share of the memory bandwidth
    fused: float = 6.0  # how many times fewer bytes they move in compiled blocks
    read: float = 0.80  # weights and KV cache of a step that writes tokens: share of the memory bandwidth
    linear_fp8: float = 0.40
    linear_int8: float = 0.35
    sdpa: float = 1.5  # attention by a back end other than the engine's own: times as long
    tiled: float = 0.4  # convolutions over small tiles: share of what they reach over a whole picture
    all_to_all: float = 0.3  # exchanges: share of the link's bandwidth, copies before and after them included
    ring: float = 0.4
    sum: float = 0.5
    gather: float = 0.5
    host_link: float = 45e9  # weights from host memory, bytes/s
    launch_s: float = 25e-6  # host time of a kernel, eager
    launch_compiled_s: float = 12e-6
    all_to_all_s: float = 100e-6  # host time of one exchange
    ring_s: float = 200e-6
    sum_s: float = 50e-6
    gather_s: float = 100e-6
    crowd: float = 0.1  # these and launches take ranks^crowd times as long: processes share the host's processor
    encode_s: float = 8e-3  # text encoder: tokenizer and hand-over, for each call
    prefill_s: float = 10e-3  # AR stage: scheduling of a prompt
    token_s: float = 1.5e-3  # AR stage: the host's part of a token
    transfer_s: float = 1e-3  # hand-over between stages
    decode_s: float = 3e-3  # VAE: host time of a call
    other_s: float = 20e-3  # request: from the prompt to the first stage, and back from the last one
    stages_s: float = 90e-3  # ... where there is an AR stage as well
    pixel_s: float = 40e-9  # ... and of each pixel: to the host, to 8 bits
    context_bytes: float = 1.45e9  # memory that the framework holds on a device, outside of its allocator
    workspace: float = 2.4  # a decode with two-dimensional convolutions: memory taken ÷ alive
    grade: str = ASSUMED
    origin: str = ""  # where they were fitted: sweeps and date
    skip: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # model → feature → share of skipped blocks


SHARES: Mapping[str, float] = {
    **dict.fromkeys(("linear", "attention", "convolution", "moved", "linear_fp8", "linear_int8"), 1.0),
    **dict.fromkeys(("tiled", "all_to_all", "ring", "sum", "gather"), 1.0),
    "read": 0.9,  # a copy through PyTorch reaches 4.3 of an H200's 4.8 TB/s, and sweeps of few layers cannot show more
}
"""Factors that are shares, and the most that each can be."""
