"""Texts that stream: server-sent events as OpenAI's endpoints send them, what arrived when, and what is wrong with it.

Pure: bytes and times in. Events are parsed where they arrive, which takes microseconds each.
"""

from typing import Any

import msgspec

from sweep.run.client.messages import HTTP, REPLY

SHOWN = 60  # characters of what cannot be read
LONGEST = 1 << 20  # bytes of one line
DONE = b"[DONE]"
SHORT = 16  # bytes of data that may be DONE
NOT_DATA = (b"event:", b"id:", b"retry:", b":")
"""What else a line may begin with (WHATWG, "Server-sent events"); none of it concerns a text."""


class Delta(msgspec.Struct):
    """What a chunk of a chat adds."""

    content: str | None = None
    reasoning_content: str | None = None


class Choice(msgspec.Struct):
    """One text of a chunk."""

    text: str | None = None
    delta: Delta | None = None


class Usage(msgspec.Struct):
    """Tokens, as the server counts them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class Chunk(msgspec.Struct):
    """The data of an event, as far as it is read."""

    choices: list[Choice] = []
    usage: Usage | None = None
    metrics: dict[str, Any] | None = None
    error: Any = None


_decode = msgspec.json.Decoder(Chunk).decode


class Heard:
    """A stream so far. Times in seconds, on the clock of whoever feeds it."""

    def __init__(self) -> None:
        self.chunks_s: list[float] = []  # when each chunk with text was there
        self.usage: Usage | None = None
        self.metrics: dict[str, Any] = {}
        self.error = ""  # what is wrong with it, in one line
        self.failure = ""  # the same as a code of `messages`
        self.done = False
        self._rest = b""

    def take(self, data: bytes, now_s: float) -> bool:
        """Parse what has arrived; returns whether to read on."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if line and line != b"\r":  # events end with an empty one
                self._line(line, now_s)
        if len(self._rest) > LONGEST:
            self._wrong(f"a line of the stream is longer than {LONGEST:,} bytes")
        return not self.failure

    def end(self, now_s: float) -> None:
        """The stream has ended: check that it is complete."""
        if not self.failure:
            self._line(self._rest, now_s)
        if self.failure:
            return
        if not self.done:
            self._wrong(f"the stream ended without [DONE] after {self.said}")
        elif not self.chunks_s:
            self._wrong("the stream holds no text")

    @property
    def output_tokens(self) -> int:
        """As the server counts them; else chunks, which may hold several."""
        return self.usage.completion_tokens if self.usage else len(self.chunks_s)

    @property
    def prompt_tokens(self) -> int:
        """As the server counts them; 0 where it does not."""
        return self.usage.prompt_tokens if self.usage else 0

    @property
    def said(self) -> str:
        """`3 chunks`, for messages."""
        return "1 chunk" if len(self.chunks_s) == 1 else f"{len(self.chunks_s)} chunks"

    def _line(self, line: bytes, now_s: float) -> None:
        if self.done or self.failure:
            return
        if not line.startswith(b"data:"):
            if line.strip() and not line.startswith(NOT_DATA):
                self._wrong(f"the reply is no stream of events: {line[:SHOWN]!r}")
            return
        data = line[5:]
        if len(data) < SHORT and data.strip() == DONE:
            self.done = True
            return
        try:
            chunk = _decode(data)
        except msgspec.MsgspecError:
            self._wrong(f"malformed chunk after {self.said}: {data.strip()[:SHOWN]!r}")
            return
        if chunk.error is not None:
            message = chunk.error.get("message") if isinstance(chunk.error, dict) else chunk.error
            self.failure, self.error = HTTP, f"after {self.said}: {' '.join(str(message).split())[: 2 * SHOWN]}"
            return
        if chunk.usage is not None:
            self.usage = chunk.usage
        if chunk.metrics:
            self.metrics = chunk.metrics
        for choice in chunk.choices:
            if choice.text or _of_chat(choice.delta):
                self.chunks_s.append(now_s)
                return

    def _wrong(self, why: str) -> None:
        self.failure, self.error = REPLY, why


def _of_chat(delta: Delta | None) -> str | None:
    return delta.content or delta.reasoning_content if delta is not None else None
