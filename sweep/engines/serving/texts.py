"""OpenAI's text endpoints: completions and chats, whole or as a stream of server-sent events.

A text ends after exactly `max_tokens`, or where one of its `stop` strings begins: an AR stage that writes an image's
tokens has no end of its own. A client that goes away ends its text.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec
from fastapi import FastAPI
from fastapi import Request as HttpRequest
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, Field

from sweep.engines.protocol import Request, Text
from sweep.engines.serving.batching import BatchQueue, Full, Served, Stopped
from sweep.engines.serving.replies import Counts, failed, full, invalid, name_of, other_model, stopping, timings
from sweep.engines.serving.settings import ServeSettings

MOST_TOKENS = 131_072  # of one text
LOOK_S = 0.2  # between two looks at whether the client of a text that is not streamed is still there
DONE = b"data: [DONE]\n\n"

TokenId = Annotated[int, Field(ge=0)]
TokenIds = Annotated[list[TokenId], Field(min_length=1)]
Prompt = Annotated[str, Field(min_length=1)]


class StreamOptions(BaseModel):
    """What a stream holds besides the text."""

    include_usage: bool = False


class Asked(BaseModel):
    """What completions and chats have in common. Other fields of OpenAI's and vLLM's are taken and change nothing."""

    model: str | None = None
    max_tokens: int | None = Field(None, ge=1, le=MOST_TOKENS)
    temperature: float | None = Field(1.0, ge=0, le=2, allow_inf_nan=False)
    seed: int | None = Field(None, ge=0, lt=2**63)
    stop: str | list[str] | None = None
    n: int | None = Field(1, ge=1, le=1)
    stream: bool | None = False
    stream_options: StreamOptions | None = None


class Completion(Asked):
    """Body of POST /v1/completions. A list holds the tokens of one prompt, or one prompt."""

    prompt: Prompt | TokenIds | Annotated[list[Prompt | TokenIds], Field(min_length=1, max_length=1)]


class Message(BaseModel):
    """One message of a chat; parts of it may be texts only."""

    role: str = Field(pattern="^[a-z]{1,16}$")
    content: str | list[dict[str, Any]] | None = ""


class Chat(Asked):
    """Body of POST /v1/chat/completions."""

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1, le=MOST_TOKENS)


class Heard:
    """The tokens of one text, on their way from the engine's thread to the loop of the HTTP side."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._tokens: asyncio.Queue[str | None] = asyncio.Queue()
        self.gone = False  # no client waits for more

    def tell(self, token: str) -> bool:
        """As Waiting.tell; called in the engine's thread."""
        if not self.gone:
            self._loop.call_soon_threadsafe(self._tokens.put_nowait, token)
        return not self.gone

    def end(self, *_: object) -> None:
        """No more will come; called in the loop."""
        self._tokens.put_nowait(None)

    async def next(self) -> list[str]:
        """All tokens that are there, at least one; [] after the last one."""
        found = [await self._tokens.get()]
        while not self._tokens.empty():
            found.append(self._tokens.get_nowait())
        tokens = [one for one in found if one is not None]
        if tokens and found[-1] is None:
            self.end()  # for the next call
        return tokens


@dataclass
class Told:
    """How much of a text there is. What was sent before a stop string was complete is not taken back."""

    stops: tuple[str, ...]
    most: int
    tokens: int = 0
    text: str = field(default="", repr=False)  # only kept where a stop string may be in it

    def take(self, token: str) -> tuple[str, str]:
        """The part of a token to send, and why the text ends with it: length, stop or ""."""
        self.tokens += 1
        if self.stops:
            before = len(self.text)
            self.text += token
            found = [at for at in map(self.text.find, self.stops) if at >= 0]
            if found:
                return self.text[before : max(before, min(found))], "stop"
        return token, "length" if self.tokens == self.most else ""


@dataclass(frozen=True)
class Shape:
    """How completions and chats differ in what they reply."""

    prefix: str
    kind: str
    chunk_kind: str
    whole: Callable[[str], dict[str, Any]]
    part: Callable[[str, bool], dict[str, Any]]  # a text, and whether it is the first


COMPLETION = Shape(
    "cmpl", "text_completion", "text_completion", lambda text: {"text": text}, lambda text, _: {"text": text}
)
CHAT = Shape(
    "chatcmpl",
    "chat.completion",
    "chat.completion.chunk",
    lambda text: {"message": {"role": "assistant", "content": text}},
    lambda text, first: {"delta": ({"role": "assistant"} if first else {}) | {"content": text}},
)


def add_texts(
    app: FastAPI, queue: BatchQueue, settings: ServeSettings, counts: Counts, check: Callable[[Request], str]
) -> None:
    """Add both endpoints. `check` says in one line why the engine cannot write a text, "" if it can."""

    async def answer(asked: HttpRequest, body: Asked, request: Request, shape: Shape) -> Response:
        if body.model not in (None, settings.model):
            return other_model(str(body.model), settings)
        if why := check(request):
            return invalid(why)
        heard, began = Heard(), time.perf_counter()
        try:
            submitted = queue.submit(request, heard.tell)
        except Full:
            return full(counts, settings)
        except Stopped:
            return stopping()
        served = asyncio.wrap_future(submitted)
        served.add_done_callback(heard.end)
        assert request.text is not None
        stops = [body.stop] if isinstance(body.stop, str) else body.stop or []
        one = _Text(heard, served, Told(tuple(filter(None, stops)), request.text.max_tokens), counts, began)
        reply = _Reply(shape, f"{shape.prefix}-{request.request_id}", settings.model)
        if body.stream:
            usage = body.stream_options is not None and body.stream_options.include_usage
            return StreamingResponse(reply.events(one, usage), media_type="text/event-stream")
        return await reply.json(one, asked)

    @app.post("/v1/completions")
    async def completions(asked: HttpRequest, body: Completion) -> Response:
        counts.received += 1
        prompt = body.prompt
        if isinstance(prompt, list) and not isinstance(prompt[0], int):
            prompt = prompt[0]
        text, ids = (prompt, ()) if isinstance(prompt, str) else ("", tuple(prompt))
        wanted = Text(body.max_tokens or 16, ids, (), _temperature(body))  # type: ignore[arg-type]
        return await answer(asked, body, _request(asked, body, counts, wanted, text), COMPLETION)

    @app.post("/v1/chat/completions")
    async def chats(asked: HttpRequest, body: Chat) -> Response:
        counts.received += 1
        messages = []
        for message in body.messages:
            parts = [{"text": message.content}] if isinstance(message.content, str) else message.content or []
            if not all(isinstance(part.get("text"), str) for part in parts):
                return invalid("messages: this server reads text only, no pictures")
            messages.append((message.role, "".join(part["text"] for part in parts)))
        if not any(text for _, text in messages):
            return invalid("messages: there is no text in them")
        most = body.max_completion_tokens or body.max_tokens or 16
        wanted = Text(most, (), tuple(messages), _temperature(body))
        return await answer(asked, body, _request(asked, body, counts, wanted, ""), CHAT)


def _temperature(body: Asked) -> float:
    return 1.0 if body.temperature is None else body.temperature


def _request(asked: HttpRequest, body: Asked, counts: Counts, wanted: Text, prompt: str) -> Request:
    nothing: dict[str, Any] = {"height": 0, "width": 0, "steps": 0, "guidance_scale": 0.0}  # no picture
    return Request(name_of(asked, counts), prompt, counts.received, body.seed or 0, **nothing, text=wanted)


@dataclass
class _Text:
    """A text that is being written."""

    heard: Heard
    served: "asyncio.Future[Served]"
    told: Told
    counts: Counts
    began_s: float

    async def parts(self) -> AsyncIterator[list[tuple[str, str]]]:
        """What to send of the available tokens, each with why the text ends. Raises what the engine raised."""
        ended = False
        try:
            while not ended and (tokens := await self.heard.next()):
                found = []
                for token in tokens:
                    found.append(self.told.take(token))
                    if ended := bool(found[-1][1]):
                        break
                yield found
            self.heard.gone = True
            if self.served.cancelled():  # while it waited
                raise Stopped("the server is being stopped")
            served = await self.served
            self.counts.answered += 1
            self.counts.prompt_tokens += served.output.prompt_tokens[0]
            self.counts.queued_s += served.queued_s
            self.counts.e2e_s += time.perf_counter() - self.began_s
        except BaseException:
            self.leave()
            raise
        finally:
            self.counts.written_tokens += self.told.tokens

    def leave(self) -> None:
        """No client waits for it any more: it is ended, or not begun."""
        if not self.served.done():
            self.counts.abandoned += 1
            self.served.cancel()
        self.heard.gone = True

    def usage(self) -> dict[str, int]:
        """Its token counts, once it is complete."""
        read = self.served.result().output.prompt_tokens[0]
        return {
            "prompt_tokens": read,
            "completion_tokens": self.told.tokens,
            "total_tokens": read + self.told.tokens,
        }


@dataclass(frozen=True)
class _Reply:
    """A text in the form that a client wants."""

    shape: Shape
    name: str
    model: str

    async def events(self, one: _Text, usage: bool) -> AsyncIterator[bytes]:
        """An event a token, then usage where it is wanted. An engine that fails in between ends it with an error."""
        head = self._head(self.shape.chunk_kind)
        first = True
        try:
            async for parts in one.parts():
                events = []
                for text, why in parts:
                    choice = {"index": 0, **self.shape.part(text, first), "finish_reason": why or None}
                    events.append(_event({**head, "choices": [choice]}))
                    first = False
                yield b"".join(events)
            if usage:
                totals = {"usage": one.usage(), "metrics": timings(one.served.result())}
                yield _event({**head, "choices": [], **totals})
            yield DONE
        except Stopped:
            yield _event(msgspec.json.decode(bytes(stopping().body)))
        except Exception as why:
            yield _event(msgspec.json.decode(bytes(failed(one.counts, why).body)))
        finally:
            one.leave()

    async def json(self, one: _Text, asked: HttpRequest) -> Response:
        """The whole text."""
        watching = asyncio.create_task(_leave_when_gone(one, asked))
        texts: list[str] = []
        ended = ""
        try:
            async for parts in one.parts():
                texts += [text for text, _ in parts]
                ended = parts[-1][1]
        except Stopped:
            return stopping()
        except Exception as why:
            return failed(one.counts, why)
        finally:
            watching.cancel()
        choice = {"index": 0, **self.shape.whole("".join(texts)), "logprobs": None, "finish_reason": ended or "stop"}
        totals = {"usage": one.usage(), "metrics": timings(one.served.result())}
        return JSONResponse({**self._head(self.shape.kind), "choices": [choice], **totals})

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.name, "object": kind, "created": int(time.time()), "model": self.model}


async def _leave_when_gone(one: _Text, asked: HttpRequest) -> None:
    while not await asked.is_disconnected():
        await asyncio.sleep(LOOK_S)
    one.leave()


def _event(data: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(data) + b"\n\n"
