"""The work of each phase of one batch of pictures, per device, with what the features change. Pure.

A phase is a number of calls, each with its Work and what it exchanges between devices. Knows nothing of seconds.
"""

import dataclasses
import math
from dataclasses import dataclass

from sweep.config.model import Stack
from sweep.predict import decoder, dit, vae, vision
from sweep.predict.effects import ALL_TO_ALL, BLOCKS, MODELS, RING
from sweep.predict.point import Point, shaped
from sweep.predict.work import NOTHING, Work

TEXT_ENCODE, AR_PREFILL, AR_DECODE, STAGE_TRANSFER = "text_encode", "ar_prefill", "ar_decode", "stage_transfer"
IMAGE_ENCODE, DENOISE, VAE_DECODE, OTHER = "image_encode", "denoise_step", "vae_decode", "other"
"""In the order of a request; names of summary.csv's {phase}_ms."""

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "fp8": 1, "int8": 1}

TILE, STRIDE = 256, 192
"""Side of a tile of the VAE and distance to the next one, in pixels (diffusers' and vLLM-Omni's default)."""

SUM, GATHER, SEND = "sum", "gather", "send"
HOST_COPY, HOST_AHEAD = "host_copy", "host_ahead"
"""Ways in which devices exchange apart from Effects.exchange: all-reduce, all-gather, point to point, from host memory,
and from host memory one block ahead of the one that runs."""

TOKEN_BYTES = 8
"""Bytes of a token id that the AR stage hands over."""


@dataclass(frozen=True)
class Exchange:
    """What a device sends to the others in one way, and in how many calls."""

    kind: str
    sent: float  # bytes, of each device
    calls: float  # each of which the host launches
    ranks: int = 2  # devices that exchange with each other

    def __mul__(self, times: float) -> "Exchange":
        return dataclasses.replace(self, sent=self.sent * times, calls=self.calls * times)


@dataclass(frozen=True)
class Phase:
    """All of a phase of one batch."""

    name: str
    work: Work  # per device
    calls: float = 1.0  # forwards or decodes
    exchanges: tuple[Exchange, ...] = ()
    dtype: str = "bfloat16"  # of products with weights
    state: str = "bfloat16"  # of everything else
    compiled: bool = False
    attention: str = ""  # back end; "" for the engine's own
    tiled: bool = False  # a VAE's work in small tiles
    ranks: int = 1  # processes that share the host's processor in it

    @property
    def weight_bytes(self) -> float:
        """Weights that are read, in bytes, over all calls."""
        return self.work.weights * BYTES[self.dtype]

    @property
    def cache_bytes(self) -> float:
        """KV cache that is read."""
        return self.work.cache * BYTES[self.state]


def of(point: Point) -> tuple[Phase, ...]:
    """The phases of one batch, in their order. Raises ConfigError where shapes are missing."""
    before, after = around(point)
    return (*before, denoise(point), *after)


def around(point: Point) -> tuple[tuple[Phase, ...], tuple[Phase, ...]]:
    """What comes before the DiT, and after it."""
    found = [_text_encode(point)] if point.model.text_encoder is not None else []
    if point.model.ar is not None:
        found += _ar(point, point.model.ar)
    if point.edits and point.model.ar is None:  # GLM-Image's DiT also writes a cache of the picture: not counted
        found.append(_encode(point))
    stages = 1 if point.model.ar is None else 2
    return tuple(found), (_decode(point), Phase(OTHER, NOTHING, stages, state=point.dtype))


def around_key(point: Point) -> tuple[object, ...]:
    """All that `around` depends on: points that share it share these phases."""
    does = point.effects
    what = (id(point.model), point.engine, point.device, point.dtype, point.batch, point.width, point.height)
    asked = (point.branches, point.text_tokens, point.prompt_tokens, point.source if point.edits else None)
    changed = (does.weights_on_host, does.dtype, does.tiles, does.slices, does.tile_ranks and point.ranks)
    return (*what, *asked, *changed)


def _text_encode(point: Point) -> Phase:
    """The text encoder reads the prompt and, where there is guidance, the negative prompt, one after the other.

    It reads a picture to edit with each of them.
    """
    stack = point.model.text_encoder
    assert stack is not None
    length = stack.tokens or (point.text_tokens if point.model.ar is not None else point.prompt_tokens)
    together = point.batch if point.model.ar is not None else point.drawn_at_once  # fits assumed this for GLM-Image
    work = decoder.of(stack, length, batch=together)
    if point.edits and point.model.vision is not None:
        work += vision.of(point.model.vision, stack.hidden, *point.source, together)
    calls = point.branches * point.batch / together
    swapped = (_swapped(point),) if point.effects.weights_on_host == MODELS else ()
    return Phase(TEXT_ENCODE, work * calls, calls, swapped, point.dtype, point.dtype)


def rounds(point: Point) -> int:
    """How often the AR stage reads and writes, where a batch has more requests than it takes at once."""
    most = point.model.stages.ar.max_num_seqs if point.model.ar is not None else None
    return math.ceil(point.batch / min(point.batch, most or point.batch))


def _ar(point: Point, stack: Stack) -> list[Phase]:
    prompt, tokens = point.prompt_tokens, point.ar_tokens
    handed = Exchange(SEND, float(point.batch * tokens * TOKEN_BYTES), 1)
    if point.cached_text:  # from the device into shared memory, and back
        cache = point.batch * prompt * decoder.cache_values(stack) * BYTES[point.dtype]
        handed = Exchange(HOST_COPY, 2.0 * cache, 2)
    times = rounds(point)
    together = math.ceil(point.batch / times)
    prefill, written = decoder.of(stack, prompt, batch=together), decoder.written(stack, prompt, tokens, together)
    return [
        Phase(AR_PREFILL, prefill * times, times, dtype=point.dtype, state=point.dtype),
        Phase(AR_DECODE, written * times, (tokens - 1) * times, dtype=point.dtype, state=point.dtype),
        Phase(STAGE_TRANSFER, NOTHING, 1, (handed,), point.dtype, point.dtype),
    ]


def forward(point: Point) -> tuple[Work, list[Exchange]]:
    """One forward of the DiT over one guidance branch, on one device, and what it exchanges."""
    shape, _ = shaped(point.model)
    does = point.effects
    whole = dit.of(shape, point.model.patch, point.image_tokens, point.text_tokens, point.drawn_at_once)
    text = 0 if point.cached_text else point.text_tokens
    share = (point.image_tokens / does.tokens + text) / whole.tokens
    runs = 1 - does.skip
    blocks = whole.blocks.by(tokens=share, width=1 / does.width)
    further = 0.0 if point.compiled else does.product_kernels * whole.products
    ran = blocks + whole.modulation + Work(kernels=further)
    work = ran * (runs / does.stages) + whole.ends.by(tokens=share)
    return work, _exchanges(point, whole, runs)


def _exchanges(point: Point, whole: dit.Forward, runs: float) -> list[Exchange]:
    shape, does = point.model.dit, point.effects
    assert shape is not None
    layers = shape.layers * runs
    states = point.drawn_at_once * whole.tokens * shape.hidden * BYTES[point.dtype]  # of a block, in bytes
    held = (whole.blocks.weights + whole.modulation.weights) * BYTES[does.dtype or point.dtype]
    done: list[Exchange] = []
    exchanging = does.tokens // does.rings
    if exchanging > 1:  # queries, keys, values and output change their owner
        sent = 4 * states / does.tokens * (exchanging - 1) / exchanging
        done.append(Exchange(ALL_TO_ALL, sent, 4, exchanging) * layers)
    if does.rings > 1:  # keys and values pass around the whole ring
        sent = 2 * states / does.tokens * (does.rings - 1)
        done.append(Exchange(RING, sent, 2 * (does.rings - 1), does.rings) * layers)
    if does.width > 1:  # two sums, of attention and feed-forward; text and image tokens each where weights differ
        calls = 2 * (2 if shape.joined_layers < shape.layers else 1)
        sent = 2 * 2 * states / does.tokens * (does.width - 1) / does.width
        done.append(Exchange(SUM, sent, calls, does.width) * layers)
    if does.stages > 1:
        done.append(Exchange(SEND, states, does.stages - 1))
    if does.gathers:
        done.append(Exchange(GATHER, held * (point.ranks - 1) / point.ranks * runs, layers, point.ranks))
    if does.weights_on_host == BLOCKS:
        done.append(Exchange(HOST_AHEAD, held, shape.layers))
    return done


def denoise(point: Point) -> Phase:
    """All steps of the DiT."""
    work, exchanges = forward(point)
    does = point.effects
    forwards = point.steps * max(1.0, point.branches / does.branches) * point.batch / point.drawn_at_once
    done = [exchange * forwards for exchange in exchanges]
    if does.branches > 1:  # each rank sends its noise prediction once a step
        side = point.model.vae_scale
        channels = point.model.dit.channels if point.model.dit else 0
        noise = point.batch * channels * (point.width // side) * (point.height // side) * BYTES[point.dtype]
        done.append(Exchange(GATHER, noise, 1, does.branches) * point.steps)
    if does.weights_on_host == MODELS:
        done.append(_swapped(point))
    return Phase(
        DENOISE,
        work * forwards,
        forwards,
        tuple(done),
        does.dtype or point.dtype,
        point.dtype,
        point.compiled and does.rings == 1,  # ring attention is not traced, so blocks run eagerly around it
        does.attention,
        ranks=point.ranks,
    )


def _swapped(point: Point) -> Exchange:
    """What passes between host and device when DiT and text encoder change places: one out, the other in."""
    shape, _ = shaped(point.model)
    held = dit.parameters(shape, point.model.patch) * BYTES[point.effects.dtype or point.dtype]
    stack = point.model.text_encoder
    held += decoder.of(stack, 1).weights * BYTES[point.dtype] if stack is not None else 0
    return Exchange(HOST_COPY, held, 1)


def tiles(width: int, height: int) -> int:
    """Tiles that cover a picture; one where it is no larger than a tile."""
    if width <= TILE and height <= TILE:
        return 1
    return len(range(0, width, STRIDE)) * len(range(0, height, STRIDE))


def _encode(point: Point) -> Phase:
    """The VAE encodes the pictures to edit, one by one."""
    _, shape = shaped(point.model)
    work = vae.encoded(shape, *point.source, point.model.vae_scale) * point.batch
    return Phase(IMAGE_ENCODE, work, point.batch, dtype=point.dtype, state=point.dtype)


def _decode(point: Point) -> Phase:
    _, shape = shaped(point.model)
    does, scale = point.effects, point.model.vae_scale
    if does.tiles:
        number = tiles(point.width, point.height)
        one = vae.of(shape, min(TILE, point.width), min(TILE, point.height), scale, point.batch)
        calls = number / point.ranks if does.tile_ranks and number > 1 else number
        return Phase(VAE_DECODE, one * calls, calls, dtype=point.dtype, state=point.dtype, tiled=number > 1)
    calls = point.batch if does.slices else point.batch // point.drawn_at_once
    work = vae.of(shape, point.width, point.height, scale, point.batch // calls) * calls
    return Phase(VAE_DECODE, work, calls, dtype=point.dtype, state=point.dtype)
