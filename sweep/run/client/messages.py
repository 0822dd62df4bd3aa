"""Messages to and from the load generator: plain records, as JSON over pipes."""

from typing import Any

import msgspec

REFUSED, HTTP, TIMEOUT, CONNECTION, REPLY = "refused", "http", "timeout", "connection", "reply"
"""Why a request failed: the server was full (429), answered with another status, did not answer in time, could not be
reached or hung up, or sent no picture or text."""


AGAIN = "-"
"""Separates a request's id from how often it was sent before, if it was."""


class Due(msgspec.Struct, frozen=True):
    """One request to send."""

    id: str  # also sent as X-Request-Id
    body: dict[str, Any]
    size: tuple[int, int]  # width and height that its pictures must have
    intended_s: float | None = None  # seconds after the start; None: as soon as another one is done
    image: str = ""  # file for its picture; "" keeps none
    upload: str = ""  # file of the picture to edit; the body is sent as a form then
    path: str = ""  # of the endpoint, where it is another one than the job's
    mask: str = ""  # file that is sent with the picture


class Job(msgspec.Struct, frozen=True):
    """A load: requests in the order in which they are sent."""

    url: str
    path: str  # of the endpoint
    requests: list[Due]
    timeout_s: float
    warm_up: list[Due] = []  # sent before the load begins, and not reported
    concurrency: int | None = None  # most requests in flight
    clients: int = 1  # processes that send
    ramp_s: float = 0.0  # without times: how long it takes until as many are in flight
    duration_s: float | None = None  # requests without an intended time are repeated for this long
    headers: dict[str, str] = {}
    decoders: int = 1  # processes that look at replies; 0: none is looked at
    pictures: bool = True  # whether replies hold any
    streams: bool = False  # replies are texts, as events
    replicas: list[str] = []  # URLs of further servers: a request goes to the one with the fewest in flight


class Answer(msgspec.Struct, frozen=True):
    """The outcome of one request. Times in seconds after the start of the load."""

    id: str
    intended_s: float
    sent_s: float
    done_s: float  # last byte, or when it failed
    status: int  # of HTTP; 0 where there was no reply
    first_byte_s: float | None = None
    error: str = ""
    failure: str = ""  # the same as a code, one of the above
    fault: str = ""  # what is wrong with its picture (`sweep/engines/images.py`)
    image_hash: str = ""  # sha256 of the pixels
    metrics: dict[str, Any] = {}  # the server's own, of its reply
    # Of a text:
    chunks_s: list[float] = []  # when each chunk of it arrived
    output_tokens: int = 0
    prompt_tokens: int = 0
    counted: bool = True  # by the server; else a token is a chunk, which may hold several
    server: str = ""  # URL of the one that was asked, where there are several

    @property
    def first_token_s(self) -> float | None:
        """When the first chunk of a text arrived; None where there is none."""
        return self.chunks_s[0] if self.chunks_s else None


class Ended(msgspec.Struct, frozen=True):
    """The load generator's own state over the whole load."""

    wall_s: float
    cpu_s: float  # of the generator without its decoders
    loop_lag_s: float  # 99th percentile of how late its event loop was
    send_lag_s: float  # the same of requests with an intended time


class Told(msgspec.Struct, frozen=True):
    """One line of output: one of these."""

    began_s: float | None = None  # start of the load on time.perf_counter, which all processes of a machine share
    answer: Answer | None = None
    ended: Ended | None = None
