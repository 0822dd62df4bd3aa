"""Group `hardware`: figures of a device, and where each is from."""

from dataclasses import dataclass, field

from sweep.refusals import nearest, require

AUTO = "auto"

FIGURES = (
    *("price_per_gpu_hour", "peak_tflops", "bandwidth_gb_s", "memory_gb", "usable_gb", "link_gb_s", "peer_gb_s"),
    *("launch_us", "all_reduce", "power_w", "idle_w"),
)
"""Fields of Hardware that are figures, each with an origin in `sources`."""

DTYPES = ("float32", "tf32", "bfloat16", "fp8", "int8")
"""What products of matrices are computed in; float16 is as fast as bfloat16 on all hardware in conf/hardware/."""

DATA_SHEET, DRIVER, LIST_PRICE, MEASURED, GIVEN = (
    "data sheet",
    "driver",
    "list price",
    "measured on this machine",
    "given",
)
GRADES = (DATA_SHEET, DRIVER, LIST_PRICE, MEASURED, GIVEN)
"""How a figure of hardware is known: from the maker, as a driver reports it, from a price list, measured, or given
on the command line."""


@dataclass
class Origin:
    """Where a figure of the hardware comes from."""

    grade: str = DATA_SHEET
    source: str = ""  # document, page or command
    date: str = ""  # YYYY-MM-DD of publishing, reading or measuring it; "" where the source has a version of its own

    def __post_init__(self) -> None:
        require(
            self.grade in GRADES, f"hardware.sources: unknown grade '{self.grade}'; choose from {', '.join(GRADES)}"
        )


@dataclass
class AllReduce:
    """How long one all-reduce takes."""

    ranks: int = 2
    bytes: int = 1  # of the tensor that each rank holds
    us: float = 1.0

    def __post_init__(self) -> None:
        require(self.ranks >= 2, f"hardware.all_reduce: ranks={self.ranks}: must be at least 2")
        require(self.bytes >= 1, f"hardware.all_reduce: bytes={self.bytes}: must be at least 1")
        require(self.us > 0, f"hardware.all_reduce: us={self.us}: must be more than 0 microseconds")


@dataclass
class Hardware:
    """The machine. None means that the value is discovered, or unknown.

    Figures are those of one device: a GPU or, without one, a CPU core that runs one rank. They are for predictions and
    for cost; they change neither what runs nor on which devices.
    """

    name: str = AUTO
    gpus: int | None = None  # devices to use; on a CPU: ranks that may run at once (None: one per core)
    price_per_gpu_hour: float | None = None  # for cost_per_image, in your currency; in USD in the shipped files
    kind: str = "cuda"  # cuda, or cpu: what the figures are of
    match: list[str] = field(default_factory=list)  # whole names of such a device as drivers report them
    peak_tflops: dict[str, float] = field(default_factory=dict)  # dtype (DTYPES) -> 10^12 operations a second, dense
    bandwidth_gb_s: float | None = None  # of its memory, 10^9 bytes/s read and written together
    memory_gb: float | None = None  # 10^9 bytes, as the driver reports it
    usable_gb: float | None = None  # 10^9 bytes, the part of it that one process can allocate, its context included
    link_gb_s: float | None = None  # 10^9 bytes/s that it sends to all other devices of its host together
    peer_gb_s: float | None = None  # 10^9 bytes/s that it sends to a single one of them
    launch_us: float | None = None  # time of the host to launch one kernel from PyTorch, microseconds
    all_reduce: list[AllReduce] = field(default_factory=list)  # between devices of one host, by size
    power_w: float | None = None  # power limit, W
    idle_w: float | None = None  # power without work, W
    sources: dict[str, Origin] = field(default_factory=dict)  # figure (FIGURES) -> where it comes from

    def __post_init__(self) -> None:
        require(self.gpus is None or self.gpus >= 1, f"hardware.gpus={self.gpus}: must be at least 1")
        require(self.kind in ("cuda", "cpu"), f"hardware.kind={self.kind}: choose cuda or cpu")
        require(
            self.price_per_gpu_hour is None or self.price_per_gpu_hour >= 0,
            f"hardware.price_per_gpu_hour={self.price_per_gpu_hour}: must be 0 or more",
        )
        for name in FIGURES:
            value = getattr(self, name)
            if isinstance(value, int | float) and name != "price_per_gpu_hour":
                require(value > 0, f"hardware.{name}={value}: must be more than 0")
        for dtype, peak in self.peak_tflops.items():
            choose = f"choose from {', '.join(DTYPES)}"
            require(dtype in DTYPES, f"hardware.peak_tflops: unknown dtype '{dtype}'; {choose}")
            require(peak > 0, f"hardware.peak_tflops.{dtype}={peak}: must be more than 0")
        for name in self.sources:
            require(name in FIGURES, f"hardware.sources: no figure is called '{name}'{nearest(name, FIGURES)}")
