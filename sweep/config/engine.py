"""Groups `engine` and `parallel`: what runs the model, how long it may take, and on how many devices."""

from dataclasses import dataclass, field
from typing import Any

from sweep.refusals import require


def resolved_dtype(asked: str, device: str) -> str:
    """engine.dtype with `auto` resolved for cpu or cuda."""
    return asked if asked != "auto" else "float32" if device == "cpu" else "bfloat16"


@dataclass
class EngineConfig:
    """Which engine runs the model, and how long it may take."""

    name: str = "diffusers"
    device: str = "auto"  # auto: cuda where there is one, else cpu
    dtype: str = "auto"  # auto: float32 on cpu, bfloat16 on cuda
    warmup: int = 1  # batches generated before measuring, at the measured shape
    threads_per_rank: int = 1  # OpenMP threads of a CPU rank
    fork: bool = True  # fork its processes from one that has imported everything, which starts faster (Linux)
    load_timeout_s: float = 300.0  # also covers the imports that all engines share, before the first one loads
    warmup_timeout_s: float = 300.0
    request_timeout_s: float = 300.0  # for one batch
    collective_timeout_s: float = 120.0  # how long ranks wait for one another
    # vllm_omni only
    args: dict[str, Any] = field(default_factory=dict)  # further keyword arguments, passed on unchanged
    max_num_seqs: int = 8  # largest number of requests that run as one batch
    placement: str = "shared"  # shared: AR and DiT stage on the same GPUs; split: the AR stage on a GPU of its own
    plugin: bool = True  # record phases and evidence inside the workers
    # endpoint only
    url: str | None = None  # http://HOST:PORT of the server; for replicas all of them, separated by spaces
    served_model: str | None = None  # its name for the model; None: the first that it lists
    api_key_env: str | None = None  # environment variable that holds its key

    def __post_init__(self) -> None:
        require(self.device in ("auto", "cpu", "cuda"), f"engine.device={self.device}: choose auto, cpu or cuda")
        require(self.max_num_seqs >= 1, f"engine.max_num_seqs={self.max_num_seqs}: must be at least 1")
        require(self.placement in ("shared", "split"), f"engine.placement={self.placement}: choose shared or split")
        require(
            self.dtype in ("auto", "float32", "bfloat16"),
            f"engine.dtype={self.dtype}: choose auto, float32 or bfloat16",
        )
        require(self.warmup >= 0, f"engine.warmup={self.warmup}: must be 0 or more")
        require(self.threads_per_rank >= 1, f"engine.threads_per_rank={self.threads_per_rank}: must be at least 1")
        for name in ("load_timeout_s", "warmup_timeout_s", "request_timeout_s", "collective_timeout_s"):
            require(getattr(self, name) > 0, f"engine.{name}={getattr(self, name)}: must be more than 0 seconds")


@dataclass
class Parallel:
    """How many devices one cell may use. Cells that need more are skipped."""

    name: str = "auto"
    gpus: int | None = None  # None: as many as the machine has

    def __post_init__(self) -> None:
        require(self.gpus is None or self.gpus >= 1, f"parallel.gpus={self.gpus}: must be at least 1")
