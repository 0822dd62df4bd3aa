"""Seconds of a phase: the least that physics allows, and what is predicted. Pure.

The limit counts only what cannot be avoided: every operation at the data sheet's peak, every weight and cached value
read once a call at its bandwidth, whichever takes longer. A prediction adds how much of the peaks is reached
(`Factors`), what kernels without products move, what the host launches, and what devices exchange.
"""

from dataclasses import dataclass

from sweep.predict.effects import ALL_TO_ALL, RING
from sweep.predict.factors import Factors
from sweep.predict.hardware import Device
from sweep.predict.stages import (
    AR_DECODE,
    AR_PREFILL,
    BYTES,
    DENOISE,
    HOST_AHEAD,
    HOST_COPY,
    IMAGE_ENCODE,
    OTHER,
    STAGE_TRANSFER,
    SUM,
    TEXT_ENCODE,
    VAE_DECODE,
    Exchange,
    Phase,
)
from sweep.refusals import ConfigError

COMPUTE, BANDWIDTH, LAUNCH, LINK, HOST = "compute-bound", "bandwidth-bound", "launch-bound", "link-bound", "host"
"""What takes most of a phase's time."""

SHARPNESS = 6.0
"""Exponent with which device and host time are joined: they overlap, and the longer one counts. Infinity is `max`."""


@dataclass(frozen=True)
class Timed:
    """A phase with its seconds."""

    phase: Phase
    limit_s: float
    seconds: float
    bound: str
    device_s: float = 0.0  # compute, memory and exchange, without waiting for the host

    @property
    def name(self) -> str:
        """The phase's name."""
        return self.phase.name


class Unknown(ConfigError):
    """A figure of the device that a prediction needs and that its file lacks."""


def peak(device: Device, dtype: str) -> float:
    """Operations a second in `dtype`. Raises Unknown where the device's file lacks them."""
    found = device.peak(dtype)
    if found is None:
        raise Unknown(f"hardware={device.name} has no peak in {dtype} (peak_tflops.{dtype})")
    return found


def bandwidth(device: Device) -> float:
    """Bytes a second of its memory. Raises Unknown likewise."""
    if device.bandwidth_bytes_s is None:
        raise Unknown(f"hardware={device.name} does not say its bandwidth (bandwidth_gb_s)")
    return device.bandwidth_bytes_s


def exchange_s(device: Device, sent: float, calls: float, share: float, ranks: int) -> float:
    """Seconds to send so many bytes in so many calls: at a share of the link, or as all-reduces of `ranks` took.

    Raises Unknown where the device's file has neither.
    """
    if device.link_bytes_s is not None:
        return sent / (share * device.link_bytes_s)
    each = device.all_reduce_s(sent / calls, ranks) if calls else 0.0
    if each is None:
        raise Unknown(f"hardware={device.name} does not say how fast devices exchange (link_gb_s, all_reduce)")
    return calls * each


def limit_s(phase: Phase, device: Device) -> float:
    """Least seconds that the phase can take, on each of its devices."""
    return max(compute_limit_s(phase, device), read_limit_s(phase, device))


def compute_limit_s(phase: Phase, device: Device) -> float:
    """Seconds that its operations take at the peaks of their dtypes."""
    work = phase.work
    operations = work.linear / peak(device, phase.dtype)
    return operations + (work.attention + work.convolution) / peak(device, phase.state)


def read_limit_s(phase: Phase, device: Device) -> float:
    """Seconds that reading its weights and its KV cache takes at the bandwidth."""
    return (phase.weight_bytes + phase.cache_bytes) / bandwidth(device)


def timed(phase: Phase, device: Device, by: Factors, pixels: float = 0.0) -> Timed:
    """One phase. `pixels` are those of the whole batch, which the request carries back."""
    least = limit_s(phase, device)
    if phase.name == OTHER:
        whole = by.other_s + by.pixel_s * pixels + (by.stages_s if phase.calls > 1 else 0.0)
        return Timed(phase, least, whole, HOST)
    if phase.name == STAGE_TRANSFER:
        return Timed(
            phase,
            least,
            by.transfer_s + sum(sent.sent for sent in phase.exchanges) / bandwidth(device),
            HOST,
        )
    parts = {COMPUTE: sum(compute_s(phase, device, by)), LINK: exchanges_s(phase, device, by)}
    reading = (phase.weight_bytes + phase.cache_bytes) / (by.read * bandwidth(device))
    parts[BANDWIDTH] = max(0.0, reading - parts[COMPUTE]) + moved_s(phase, device, by)
    ahead = sum(one.sent for one in phase.exchanges if one.kind == HOST_AHEAD) / by.host_link
    on_device = max(sum(parts.values()), ahead)
    host = _host_s(phase, by)
    whole = (on_device**SHARPNESS + host**SHARPNESS) ** (1 / SHARPNESS) + fixed_s(phase, by)
    parts[LINK] += max(0.0, ahead - sum(parts.values()))
    bound = LAUNCH if host > on_device else max(parts, key=lambda part: parts[part])
    return Timed(phase, least, whole, bound, on_device)


def compute_s(phase: Phase, device: Device, by: Factors) -> tuple[float, float, float]:
    """Seconds of products with weights, attention and convolutions."""
    work = phase.work
    share = {"fp8": by.linear_fp8, "int8": by.linear_int8}.get(phase.dtype, by.linear)
    attention = work.attention / (by.attention * peak(device, phase.state))
    if phase.attention:
        attention *= by.sdpa
    products = work.linear / (share * peak(device, phase.dtype))
    convolved = by.convolution * (by.tiled if phase.tiled else 1.0)
    return products, attention, work.convolution / (convolved * peak(device, phase.state))


def moved_s(phase: Phase, device: Device, by: Factors) -> float:
    """Seconds of kernels without products."""
    if phase.name in (IMAGE_ENCODE, VAE_DECODE):
        return 0.0  # its convolutions' share includes what lies between them
    moved = phase.work.moved * BYTES[phase.state] / (by.moved * bandwidth(device))
    return moved / by.fused if phase.compiled else moved


def exchanges_s(phase: Phase, device: Device, by: Factors) -> float:
    """Seconds of exchanges between devices, and between host and device, that nothing overlaps."""
    return sum(sent_s(exchange, device, by) for exchange in phase.exchanges if exchange.kind != HOST_AHEAD)


def sent_s(exchange: Exchange, device: Device, by: Factors) -> float:
    """Seconds of one way of exchanging."""
    if exchange.kind == HOST_COPY:
        return exchange.sent / by.host_link
    share = {ALL_TO_ALL: by.all_to_all, RING: by.ring, SUM: by.sum}.get(exchange.kind, by.gather)
    return exchange_s(device, exchange.sent, exchange.calls, share, exchange.ranks)


def _host_s(phase: Phase, by: Factors) -> float:
    if phase.name in (AR_PREFILL, AR_DECODE):
        return 0.0  # CUDA graphs: a step costs the host a fixed time, below
    each = by.launch_compiled_s if phase.compiled else by.launch_s
    call = {ALL_TO_ALL: by.all_to_all_s, RING: by.ring_s, SUM: by.sum_s, HOST_COPY: 0.0, HOST_AHEAD: 0.0}
    exchanged = sum(exchange.calls * call.get(exchange.kind, by.gather_s) for exchange in phase.exchanges)
    return (phase.work.kernels * each + exchanged) * phase.ranks**by.crowd


def fixed_s(phase: Phase, by: Factors) -> float:
    """Seconds of the host that no work on a device overlaps."""
    return {
        TEXT_ENCODE: by.encode_s,
        AR_PREFILL: by.prefill_s,
        AR_DECODE: by.token_s,
        IMAGE_ENCODE: by.decode_s,
        VAE_DECODE: by.decode_s,
        DENOISE: 0.0,
    }.get(phase.name, 0.0) * phase.calls
