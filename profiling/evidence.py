"""What one rank really executed, counted inside the engine: by our engines and by our plugin in vLLM-Omni's workers.

Knows nothing of the conclusions drawn from it.
"""

from msgspec import Struct, field


class RankEvidence(Struct, frozen=True):
    """Counts are totals of one batch of requests; vLLM-Omni's plugin counts one call of a pipeline."""

    rank: int
    dit_forwards: int  # transformer forwards; includes those answered by a cache, not branches run by another rank
    denoise_steps: int
    blocks_run: int  # transformer blocks executed
    blocks_skipped: int  # blocks that a full forward would have executed but a cache answered
    block_sequence: int  # longest image-token sequence that a block of this rank saw; 0 when unknown
    dit_parameters: int  # DiT parameters held by this rank, on any device (a shard counts as its own size)
    settings: dict[str, str] = field(default_factory=dict)  # read back from the loaded pipeline
    counts: dict[str, int] = field(default_factory=dict)  # other counts, e.g. vae_decoder_calls
