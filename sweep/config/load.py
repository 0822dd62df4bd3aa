"""Group `load`: how requests arrive, how they differ, and which limits they have to meet."""

from dataclasses import dataclass, field

from sweep.config.values import at_home
from sweep.refusals import require

FIXED, PARETO, CHOICE = "fixed", "pareto", "choice"
SIZES = (FIXED, PARETO, CHOICE)


@dataclass
class Mix:
    """How the requests of a load for images differ from one another, all drawn from `seed`."""

    edits: float | None = None  # share of requests that edit a picture, where the workload makes pictures from text
    prompts: str | None = None  # file of instructions for the edits, as workload.prompts; None: the shipped ones
    upload: int | None = None  # side in pixels of the pictures that edits send; None: as large as the result
    mask: str | None = None  # image file that edits send as `mask`, to servers that take one
    sizes: str = FIXED  # fixed: workload.width × height; pareto, choice: squares of sides that are drawn
    sides: list[int] = field(default_factory=list)  # choice: these sides in pixels, equally likely
    alpha: float = 2.5  # pareto: how fast the tail falls; smaller is heavier
    x_min: int | None = None  # pareto: the smallest side in pixels; None: workload.width

    def __post_init__(self) -> None:
        require(
            self.edits is None or 0 <= self.edits <= 1,
            f"load.mix.edits={self.edits}: must be from 0 to 1, a share of the requests",
        )
        require(self.sizes in SIZES, f"load.mix.sizes={self.sizes}: choose {', '.join(SIZES[:-1])} or {SIZES[-1]}")
        require(self.alpha > 0, f"load.mix.alpha={self.alpha}: must be more than 0")
        for name in ("upload", "x_min"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"load.mix.{name}={value}: must be at least 1 pixel")
        require(all(side >= 1 for side in self.sides), f"load.mix.sides={self.sides}: must be at least 1 pixel each")
        listed = self.sizes == CHOICE
        require(not listed or bool(self.sides), "load.mix.sizes=choice needs load.mix.sides=[64,128]")
        require(listed or not self.sides, f"load.mix.sides={self.sides} goes with load.mix.sizes=choice")
        self.prompts, self.mask = at_home(self.prompts), at_home(self.mask)

    @property
    def mixes(self) -> bool:
        """Whether requests differ at all."""
        return bool(self.edits) or self.sizes != FIXED


LOADS = ("offline", "closed", "open")
LAWS = ("constant", "poisson", "gamma", "burst")
SEARCHES = ("", "concurrency", "slo", "soak")


@dataclass
class Slo:
    """What a request under load has to meet, each in milliseconds; None: no limit."""

    ttft: float | None = None  # from sending it to its first AR token
    tpot: float | None = None  # per AR token after the first
    e2el: float | None = None  # from when it was due until its last byte

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            require(value is None or value > 0, f"load.slo.{name}={value}: must be more than 0 ms")


@dataclass
class Load:
    """How requests arrive. Offline, the engine gets one batch after another; else it is served over HTTP."""

    name: str = "offline"  # offline, closed (max_concurrency in flight), open (due at given times)
    max_concurrency: int | None = None  # most requests in flight; closed needs it, open has no limit without it
    request_rate: float | None = None  # open: requests a second, on average
    arrivals: str = "poisson"  # open: constant, poisson, gamma, burst
    burstiness: float = 1.0  # gamma: below 1 arrivals cluster, 1 is poisson
    burst: int = 8  # burst: requests that come at once, for half of the rate
    trace: str | None = None  # open: file of recorded arrival times instead of a rate
    num_requests: int | None = None  # None: enough for a steady state (`requests`)
    clients: int = 1  # processes that send the requests
    ramp_s: float = 0.0  # how long the load takes to reach its full level
    warmup_requests: int = 2  # sent first and left out
    batch_wait_ms: float = 0.0  # how long the first request of a batch waits for company
    queue: int = 1024  # requests that may wait in the server; it answers further ones with 429
    slo: Slo = field(default_factory=Slo)
    mix: Mix = field(default_factory=Mix)
    attain: float = 0.95  # share of requests that has to meet the SLO
    # What else to measure: concurrency (twice as many in flight until throughput stops growing), slo (the highest
    # request rate that meets the SLO) or soak (the same load again and again, part by part); "" for nothing.
    search: str = ""
    precision: float = 0.05  # search=slo: ends when that rate is known to this, relative
    most: float = 64  # highest max_concurrency or request_rate of a search
    duration_s: float | None = None  # how long requests are sent; None: until num_requests are
    parts: int = 24  # search=soak: number of parts; each is stored when it is done
    part: int = 0  # search=soak: which one this is, counted from 0

    def __post_init__(self) -> None:
        require(self.name in LOADS, f"load={self.name}: choose {', '.join(LOADS[:-1])} or {LOADS[-1]}")
        require(self.arrivals in LAWS, f"load.arrivals={self.arrivals}: choose {', '.join(LAWS[:-1])} or {LAWS[-1]}")
        for name in ("num_requests", "burst", "queue", "clients"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"load.{name}={value}: must be at least 1")
        for name in ("ramp_s", "warmup_requests", "batch_wait_ms"):
            require(getattr(self, name) >= 0, f"load.{name}={getattr(self, name)}: must be 0 or more")
        for name in ("max_concurrency", "request_rate", "burstiness"):
            value = getattr(self, name)
            require(value is None or value > 0, f"load.{name}={value}: must be more than 0")
        self.trace = at_home(self.trace)
        self._check_search()
        if self.name == "closed":
            require(self.max_concurrency is not None, "load=closed needs load.max_concurrency=N, or several: 1,2,4,8")
            require(self.request_rate is None, "load.request_rate goes with load=open; load=closed has a concurrency")
        if self.name == "open":
            paced = (self.request_rate is None) != (self.trace is None)
            require(paced, "load=open needs load.request_rate=R (requests a second) or load.trace=FILE, and not both")

    def _check_search(self) -> None:
        require(
            self.search in SEARCHES, f"load.search={self.search}: choose {', '.join(SEARCHES[1:-1])} or {SEARCHES[-1]}"
        )
        require(0 < self.attain <= 1, f"load.attain={self.attain}: must be more than 0 and at most 1")
        require(0.001 <= self.precision < 1, f"load.precision={self.precision}: must be from 0.001 to 1 (0.05 is 5 %)")
        require(self.most > 0, f"load.most={self.most}: must be more than 0")
        require(
            self.duration_s is None or self.duration_s > 0, f"load.duration_s={self.duration_s}: must be more than 0"
        )
        require(self.parts >= 1, f"load.parts={self.parts}: must be at least 1")
        right = {"concurrency": ("closed",), "slo": ("open",), "soak": ("closed", "open")}.get(self.search, LOADS)
        require(self.name in right, f"load.search={self.search} needs load={right[0]}")
        if self.search == "slo":
            limits = any(value is not None for value in vars(self.slo).values())
            require(limits, "load.search=slo needs a limit, in ms: load.slo.e2el=2000, load.slo.ttft or load.slo.tpot")
            require(self.trace is None, "load.search=slo chooses rates itself; drop load.trace")

    @property
    def level(self) -> str:
        """How heavy it is: `4 in flight`, `2/s`; "" offline and for a recorded trace. For a soak, which part it is."""
        if self.search == "soak":
            return f"part {self.part + 1}"
        if self.name == "closed":
            return f"{self.max_concurrency} in flight"
        return "" if self.name != "open" or self.request_rate is None else f"{self.request_rate:g}/s"

    @property
    def requests(self) -> int:
        """How many are sent: num_requests, else 24 after the first ones that fill a server and before the last ones."""
        return self.num_requests or (64 if self.max_concurrency is None else 24 + 3 * self.max_concurrency)
