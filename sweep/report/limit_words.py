"""How far a cell is from the limit of its devices, in sentences: how much it reaches, and what takes the rest.

Seconds of each phase are measured; how a phase divides them is predicted. Plain values in, text out.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sweep.predict import reached as causes
from sweep.predict.factors import FITTED
from sweep.predict.hardware import Device, is_measured
from sweep.predict.reached import Reached, Spent
from sweep.report.limit_cells import LimitCell
from sweep.report.words import digits, listed, percent

LEAST = 0.03
"""The smallest share of the time at which a loss is named."""

MOST = 4
"""Losses that one sentence names."""

WHOLE = ("text_encode", "ar_prefill", "ar_decode", "other")
"""Phases that are one loss: a fit barely separates the host's part of a short call from the device's."""

IN_WORDS = {
    causes.PRODUCTS: "the DiT's matrix products and attention at {share} of the peak",
    causes.READING: "weights of {phase} at {share} of the bandwidth",
    causes.SMALL_KERNELS: "kernels without products in {phase}",
    causes.EXCHANGE: "exchange between devices",
    causes.HOST_COPIES: "copies of weights from host memory",
    causes.LAUNCHES: "waiting for the host to launch {phase}",
    causes.HOST: "the host's part of {phase}",
    "text_encode": "the text encoder",
    "ar_prefill": "AR prefill at {share} of the limit",
    "ar_decode": "AR decode at {share} of the bandwidth",
    "image_encode": "the VAE's encoder at {share} of the peak",
    "vae_decode": "the VAE's convolutions at {share} of the peak",
    "other": "the request outside all phases",
}
"""What seconds are spent on."""

PHASES_OF_A_VAE = ("image_encode", "vae_decode")

PHASES = {"denoise_step": "the DiT", "image_encode": "the VAE's encoder", "vae_decode": "the VAE"}


@dataclass(frozen=True)
class Loss:
    """Seconds beyond the limit, for one reason."""

    text: str  # `the VAE's convolutions at 17 % of the peak`
    seconds: float


def losses(found: Reached) -> list[Loss]:
    """The largest first. Products, attention and convolutions of a phase are one: a fit barely separates them."""
    joined: dict[tuple[str, str], list[Spent]] = {}
    for one in found.spent:
        joined.setdefault(_joined(one), []).append(one)
    by_text: dict[str, float] = {}
    for (phase, what), parts in joined.items():
        text = _words(phase, what, parts)
        by_text[text] = by_text.get(text, 0.0) + sum(one.lost_s for one in parts)
    return sorted((Loss(*both) for both in by_text.items()), key=lambda one: -one.seconds)


def _joined(one: Spent) -> tuple[str, str]:
    if one.phase in WHOLE:
        return one.phase, one.phase
    if one.on in (causes.PRODUCTS, causes.ATTENTION, causes.CONVOLUTIONS):
        return one.phase, one.phase if one.phase in PHASES_OF_A_VAE else causes.PRODUCTS
    return one.phase, one.on


def _words(phase: str, what: str, parts: Sequence[Spent]) -> str:
    seconds = sum(one.seconds for one in parts)
    share = sum(one.limit_s for one in parts) / seconds if seconds else 0.0
    return IN_WORDS[what].format(phase=PHASES.get(phase, phase), share=percent(share))


def between(found: Reached, most: int = MOST) -> str:
    """`24 % to kernels without products in the DiT, 18 % to …`: shares of the measured time; "" where none is known."""
    named = [one for one in losses(found) if one.seconds >= LEAST * found.latency_s][:most]
    return ", ".join(f"{percent(one.seconds / found.latency_s)} to {one.text}" for one in named)


def devices(found: Reached) -> str:
    """`2 H200`, `1 H200`."""
    return f"{found.ran.gpus} {called(found.device)}"


def called(device: Device) -> str:
    """`H200`: the name without its maker."""
    name = device.match[0] if device.match else device.name
    return name.removeprefix("NVIDIA ").removeprefix("AMD ")


def component(name: str) -> str:
    """`DiT weights`: a component of a ledger."""
    for part in ("dit", "vae", "ar", "kv"):
        if name.startswith(f"{part}_"):
            return {"dit": "DiT"}.get(part, part.upper()) + name.removeprefix(part).replace("_", " ")
    return name.replace("_", " ")


def sentence(one: LimitCell) -> str:
    """`cfg_parallel b1 reaches 38 % of what 2 H200 allow (0.474 of 1.25 s). It loses 23 % of its time to …`."""
    found = one.found
    times = f"{digits(found.limit_s)} of {digits(found.latency_s, 's')}"
    verb = "allows" if found.ran.gpus == 1 else "allow"
    said = f"{one.name} reaches {percent(found.limit_share)} of what {devices(found)} {verb} ({times})."
    if lost := between(found):
        said += f" Of its time it loses {lost}."
    return " ".join(filter(None, (said, _recorded(one))))


def _recorded(one: LimitCell) -> str:
    """What a trace says of the longest phase; "" without one."""
    phase = max(one.found.phases_s, key=lambda name: one.found.phases_s[name], default="")
    seen = one.recorded.get(phase)
    if seen is None:
        return ""
    return (
        f"Nsight Systems: in {phase} the GPU is busy {percent(seen.busy)} of the time and waits for launches "
        f"{percent(seen.for_host)} of it."
    )


def winners(cells: Iterable[LimitCell]) -> str:
    """How far the fastest cells of several contexts are, in one sentence; "" for none."""
    chosen = list(cells)
    if not chosen:
        return ""
    first = chosen[0].found
    same = all(devices(one.found) == devices(first) for one in chosen)
    names = listed(
        [
            f"{one.name} reaches {percent(one.found.limit_share)}" + ("" if same else f" of {devices(one.found)}")
            for one in chosen
        ],
        MOST,
    )
    named = [one for one in losses(first) if one.seconds >= LEAST * first.latency_s][:2]
    most = listed([f"{one.text} ({percent(one.seconds / first.latency_s)} of the time)" for one in named], 2)
    allowed = f"Of what {devices(first)} {'allows' if first.ran.gpus == 1 else 'allow'}" if same else "Of the limit"
    whose = f"{chosen[0].name} loses" if len(chosen) > 1 else "it loses"
    return f"{allowed}, {names}" + (f"; {whose} most to {most}." if most else ".")


def known_as(cells: Sequence[LimitCell]) -> str:
    """How predictions and limits are known, in a sentence or two."""
    first = cells[0]
    by, device = first.calibration.factors, first.found.device
    if by.grade == FITTED:
        held = first.calibration.held_out.get("latency")
        off = f", which were off by {percent(held.median)} (median) on cells held out" if held else ""
        own = ", this one among them" if first.fitted_on else ""
        said = f"Predictions use factors fitted on {by.origin}{own}{off}."
    else:
        said = f"Predictions use assumed factors{f' ({by.origin})' if by.origin else ''}."
    limit = "what PyTorch's products reached on this machine" if is_measured(device) else "its data sheet's peak"
    return f"{said} The limit is counted from the model's shape, at {limit} and bandwidth."
