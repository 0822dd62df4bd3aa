"""Memory of the fullest device, by component: what is held all the time, and what the largest phase needs on top. Pure.

Components are compared one by one with what was measured, because errors cancel in a sum. Weights, cache and latents
are counted. What lives inside a forward is counted from the tensors that are alive at its fullest moment; the
allocator's rounding, workspaces of convolutions and what the framework holds are fitted.
"""

import functools
import math
from dataclasses import dataclass

from sweep.config.model import Dit, Stack, Vae
from sweep.predict import decoder, dit, vae
from sweep.predict.effects import BLOCKS, MODELS
from sweep.predict.factors import ASSUMED, COUNTED, Factors
from sweep.predict.point import Point, shaped
from sweep.predict.stages import BYTES, TILE, tiles

ALIVE_IN_A_BLOCK = 16.0
"""Values alive in a DiT's forward for each token, in widths: 15.0 in Qwen-Image, 15.1 GLM-Image, 15.8 Z-Image, 17.3
FLUX (tests/predict counts the tensors of diffusers' networks on the meta device, attention not materialised). 21.4 in
FLUX.2-klein, whose single-stream blocks project into attention and feed-forward at once; its VAE needs still more."""

# The figures from here to WORKSPACE were read off docs/results/memory-1-gpu/peaks.csv: torch's allocator in the workers
# of vLLM-Omni 0.26, Qwen-Image, 512² to 2048², batches of 1 to 28, up to four ranks.
OF_PRODUCTS = 33.5e6
"""Bytes of cuBLAS's workspace on Hopper, 32 MiB."""

FREED_EARLY = 0.83
"""Share of ALIVE_IN_A_BLOCK that vLLM-Omni's forwards keep alive: they free earlier than diffusers'."""

NARROWED = (7.9, 4.0)
"""With tensor parallelism over n ranks, in widths: what stays whole, and what is divided by n."""

EXCHANGED, PASSED = 2.5, 5.5
"""Widths kept for each token of the whole sequence by exchanging tokens for heads, and by passing keys and values."""

REMEMBERED = 4.0
"""Widths for each token that a cache keeps of the last step, for each guidance branch of a rank."""

COMMUNICATORS = {"branches": 0.6e9, "width": 0.75e9, "exchanging": 1.8e9, "rings": 1.45e9}
"""Bytes of buffers that a group of ranks holds outside of the allocator, by what it divides."""

WORKSPACE, MOST_WORKSPACE = 0.23, 5.67e9
"""Workspace of the convolutions of a causal decode: share of what is alive, up to so many bytes."""

KEPT_FREE, KEPT_FREE_BY_MANY, MANY = 0.15, 0.5, (4, 16)
"""What the allocator keeps reserved during a decode, as a share of it: with batches up to the first number, and from
the second one on. It gives back what it can before it fails, so this is measured but not needed."""

FRAGMENTED = 0.18
"""Further share of a decode that must be free, because holes are too small: batches of 28 pictures of 1024² fit into an
H200, those of 30 do not."""

ALIVE_IN_A_DECODE = 3.0
"""Values alive for each pixel of a decode at its fullest moment, in channels of the last level but one, which its
first block takes at the picture's size: input, norm, activation."""

ALIVE_IN_A_CAUSAL_DECODE = 18.0
"""Likewise of a causal VAE, in channels of the last level: with padded frames, and a frame cached for each kernel."""

ALIVE_IN_AN_ENCODE, ALIVE_IN_A_CAUSAL_ENCODE = 5.0, 10.1
"""Values alive for each pixel of a picture to edit while it is encoded, in channels of the level of its size."""

PARTS = (
    "dit_weights",
    "text_encoder_weights",
    "ar_weights",
    "vae_weights",
    "kv_cache",
    "ar_reserved",
    "framework",
    "dit_activations",
    "vae_activations",
    "latents",
    "allocator",
)
"""Components of a ledger."""

TOGETHER = ("dit_activations", "vae_activations")
"""Components where only the largest counts: their phases follow one another and reuse the memory."""


@dataclass(frozen=True)
class Ledger:
    """Bytes by component, of the fullest device."""

    parts: tuple[tuple[str, float], ...]
    room: float | None = None  # bytes that one process can allocate

    def __getitem__(self, name: str) -> float:
        return dict(self.parts).get(name, 0.0)

    @functools.cached_property
    def needed(self) -> float:
        """Bytes without which it runs out: all but what the allocator would give back, and unusable holes."""
        held = sum(size for name, size in self.parts if name not in (*TOGETHER, "allocator"))
        return held + self._largest * (1 + FRAGMENTED)

    @functools.cached_property
    def total(self) -> float:
        """Bytes at the fullest moment, as a driver would report them; never more than there is."""
        held = sum(size for name, size in self.parts if name not in TOGETHER) + self._largest
        return held if self.room is None else min(held, self.room)

    @property
    def told(self) -> float:
        """Bytes to report: at the fullest moment, or what would be needed where that is more than there is."""
        return self.needed if self.fits is False else self.total

    @property
    def fits(self) -> bool | None:
        """Whether there is room; None where the room is unknown."""
        return None if self.room is None else self.needed <= self.room

    @property
    def _largest(self) -> float:
        return max((size for name, size in self.parts if name in TOGETHER), default=0.0)

    @staticmethod
    def grade(name: str) -> str:
        """How a component is known."""
        return ASSUMED if name in ("framework", "allocator", *TOGETHER) else COUNTED


def ledger(point: Point, by: Factors, room: float | None, reserved: float | None = None) -> Ledger:
    """The ledger of a device with `room` bytes. `reserved` is the share that an AR stage of vLLM takes beforehand."""
    memory_bytes = room or 0.0
    shape, decoded = shaped(point.model)
    text, ar = point.model.text_encoder, point.model.ar
    value = BYTES[point.dtype]
    found = {
        "dit_weights": _dit_weights(point, shape),
        "text_encoder_weights": _held(text) * value,
        "vae_weights": _vae_parameters(decoded) * value,
        "framework": by.context_bytes + _communicators(point),
        "dit_activations": _alive(point, shape),
        "vae_activations": max(_decoding(point, decoded, by), _encoding(point, decoded, by)),
        "latents": 4.0 * point.drawn_at_once * decoded.latent * _pixels(point) / point.model.vae_scale**2,
    }
    if point.effects.weights_on_host == MODELS:  # they take turns
        found[min(("dit_weights", "text_encoder_weights"), key=lambda name: found[name])] = 0.0
    if ar is not None:
        if reserved is not None:
            found["ar_reserved"] = reserved * memory_bytes if not point.stage_devices else 0.0
            if point.cached_text:  # BAGEL's DiT stage holds the whole stack, and so does its AR stage
                found["ar_weights"] = _held(ar) * value
        else:
            found["ar_weights"] = _held(ar) * value
            kept = point.batch * (point.prompt_tokens + point.ar_tokens) * decoder.cache_values(ar)
            found["kv_cache"] = kept * value
    found["allocator"] = max(found[name] for name in TOGETHER) * _kept_free(point)
    alone = Ledger(tuple((name, found[name]) for name in PARTS if found.get(name)), room)
    if reserved is not None and point.stage_devices and reserved * memory_bytes > alone.total:
        return Ledger((("ar_reserved", reserved * memory_bytes),), room)  # the AR stage's own device is the fullest
    return alone


def _communicators(point: Point) -> float:
    does = point.effects
    divided = {
        "branches": does.branches,
        "width": does.width,
        "exchanging": does.tokens // does.rings,
        "rings": does.rings,
    }
    found = sum(COMMUNICATORS[name] for name, ranks in divided.items() if ranks > 1)
    return found or (COMMUNICATORS["width"] if point.ranks > 1 else 0.0)


def _kept_free(point: Point) -> float:
    few, many = MANY
    share = min(1.0, max(0.0, (point.drawn_at_once - few) / (many - few)))
    return KEPT_FREE + (KEPT_FREE_BY_MANY - KEPT_FREE) * share


def _held(stack: Stack | None) -> float:
    """Parameters of a text encoder or AR stage: those that its file says, else those of its layers and tables."""
    if stack is None:
        return 0.0
    return stack.params_b * 1e9 or decoder.of(stack, 1).weights


def _dit_weights(point: Point, shape: Dit) -> float:
    whole = dit.of(shape, point.model.patch, 1, 1)
    does = point.effects
    products = whole.blocks.weights * BYTES[does.dtype or point.dtype] / does.width
    rest = whole.modulation.weights * BYTES[point.dtype]
    ends = (whole.ends.weights + shape.prior * shape.hidden) * BYTES[point.dtype]
    if does.weights_on_host == BLOCKS:
        return (products + rest) * 2 / shape.layers + ends  # the block that runs and the next one
    if does.gathers:
        return (products + rest) / point.ranks + (products + rest) / shape.layers + ends
    return (products + rest) / does.stages + ends


def _vae_parameters(shape: Vae) -> float:
    """Encoder and decoder; where the file does not say it, an encoder as large as the decoder."""
    return shape.params_b * 1e9 or 2 * vae.of(shape, TILE, TILE, 8).weights


def _alive(point: Point, shape: Dit) -> float:
    does = point.effects
    exchanging = does.tokens // does.rings
    whole = ALIVE_IN_A_BLOCK * (FREED_EARLY if point.engine == "vllm_omni" else 1.0)
    widths = whole if does.width == 1 else NARROWED[0] + NARROWED[1] / does.width
    if does.skip:
        widths += REMEMBERED * max(1.0, point.branches / does.branches)
    passing = (EXCHANGED / does.rings if exchanging > 1 else 0.0) + (PASSED / exchanging if does.rings > 1 else 0.0)
    tokens = point.image_tokens / does.tokens + point.text_tokens
    alive = tokens * widths + (point.image_tokens + point.text_tokens) * passing / does.width
    workspace = OF_PRODUCTS if point.device == "cuda" else 0.0
    return point.drawn_at_once * shape.hidden * alive * BYTES[point.dtype] + workspace


def _pixels(point: Point) -> int:
    """Pixels of a picture, and of the one to edit."""
    return point.width * point.height + (math.prod(point.source) if point.edits else 0)


def _encoding(point: Point, shape: Vae, by: Factors) -> float:
    """Pictures to edit are encoded one by one."""
    if not point.edits:
        return 0.0
    found = alive_in_an_encode(shape, math.prod(point.source)) * BYTES[point.dtype]
    return found + min(WORKSPACE * found, MOST_WORKSPACE) if shape.causal else found * by.workspace


def _decoding(point: Point, shape: Vae, by: Factors) -> float:
    pixels = point.width * point.height
    pictures = 1 if point.effects.slices else point.drawn_at_once
    if point.effects.tiles and tiles(point.width, point.height) > 1:
        pixels = TILE * TILE
    attended = (pixels / point.model.vae_scale**2) ** 2 if shape.attention and point.device == "cpu" else 0.0
    alive = max(alive_in_a_decode(shape, pixels, point.model.vae_scale), attended)
    found = pictures * alive * BYTES[point.dtype]
    return found + min(WORKSPACE * found, MOST_WORKSPACE) if shape.causal else found * by.workspace


def alive_in_an_encode(shape: Vae, pixels: float) -> float:
    """Values alive at the fullest moment of an encode of so many pixels."""
    return (ALIVE_IN_A_CAUSAL_ENCODE if shape.causal else ALIVE_IN_AN_ENCODE) * shape.channels[-1] * pixels


def alive_in_a_decode(shape: Vae, pixels: float, scale: int) -> float:
    """Values alive at the fullest moment of a decode of so many pixels."""
    if shape.causal:
        return ALIVE_IN_A_CAUSAL_DECODE * shape.channels[-1] * pixels
    before = shape.channels[-2] if len(shape.channels) > 1 else shape.channels[-1]
    return ALIVE_IN_A_DECODE * before * pixels
