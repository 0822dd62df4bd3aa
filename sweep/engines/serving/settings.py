"""How an engine is served, and the names used in its replies. Plain data, picklable."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ServeSettings:
    """What an embedded server needs to know in addition to its engine."""

    model: str  # its name for clients
    batch: int = 1  # most requests that the engine generates together
    batch_wait_ms: float = 0.0  # how long the first request of a batch waits for company
    queue: int = 1024  # requests that may wait; more are answered with 429
    body_mb: float = 64.0  # largest request body
    host: str = "127.0.0.1"
    port: int = 0  # 0: any free one
