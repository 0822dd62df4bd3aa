"""Work of a VAE's decoder, counted from its shape. Pure.

Source: diffusers' AutoencoderKL and AutoencoderKLQwenImage (0.40).
"""

from functools import lru_cache

from sweep.config import Vae
from sweep.predict.work import Work, attend, key_of, product

FRAMES = 3
"""Frames that a causal kernel sees; all but one are padding when a picture is decoded, and are multiplied as well."""


def of(vae: Vae, width: int, height: int, scale: int, batch: int = 1) -> Work:
    """Decoding `batch` pictures of width × height pixels, `scale` pixels for each latent one."""
    return _of(key_of(vae), width, height, scale).by(tokens=batch)


@lru_cache(maxsize=4096)
def _of(shape: tuple[object, ...], width: int, height: int, scale: int) -> Work:
    vae = Vae(*shape)  # type: ignore[arg-type]
    taps = 9 * (FRAMES if vae.causal else 1)
    pixels = (width // scale) * (height // scale)
    first, last = vae.channels[0], vae.channels[-1]
    done = _convolution(pixels, taps, vae.latent, first) + _residual(pixels, taps, first, first) * 2
    if vae.causal:
        done += _convolution(pixels, 1, vae.latent, vae.latent)
    if vae.attention:
        done += product(pixels, first, 3 * first) + attend(pixels, pixels, first) + product(pixels, first, first)
    inputs = first
    for level, channels in enumerate(vae.channels):
        done += _residual(pixels, taps, inputs, channels)
        done += _residual(pixels, taps, channels, channels) * (vae.blocks - 1)
        inputs = channels
        if level < len(vae.channels) - 1:
            pixels *= 4
            inputs = channels // 2 if vae.causal else channels
            done += _convolution(pixels, 9, channels, inputs)
    return done + _convolution(pixels, taps, last, 3)


def _convolution(pixels: float, taps: int, inputs: int, outputs: int) -> Work:
    return Work(
        convolution=2.0 * pixels * taps * inputs * outputs,
        weights=float(taps * inputs * outputs),
        moved=float(pixels * (inputs + outputs)),
        kernels=2,
    )


def _residual(pixels: float, taps: int, inputs: int, outputs: int) -> Work:
    """Two convolutions, each after a norm and an activation, and a sum; another convolution where widths differ."""
    done = _convolution(pixels, taps, inputs, outputs) + _convolution(pixels, taps, outputs, outputs)
    if inputs != outputs:
        done += _convolution(pixels, 1, inputs, outputs)
    return done + Work(moved=float(pixels * (4 * inputs + 7 * outputs)), kernels=6)
