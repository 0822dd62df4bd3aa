"""Work of a VAE's decoder and encoder, counted from the decoder's shape. Pure.

Source: diffusers' AutoencoderKL and AutoencoderKLQwenImage (0.40).
"""

from functools import lru_cache

from sweep.config.model import Vae
from sweep.predict.work import Work, attend, key_of, product

FRAMES = 3
"""Frames that a causal kernel sees; all but one are padding when a picture is decoded, and are multiplied as well."""


def of(vae: Vae, width: int, height: int, scale: int, batch: int = 1) -> Work:
    """Decoding `batch` pictures of width × height pixels, `scale` pixels for each latent one."""
    return _of(key_of(vae), width, height, scale).by(tokens=batch)


def encoded(vae: Vae, width: int, height: int, scale: int) -> Work:
    """Encoding one picture, which is how pipelines encode those of a batch."""
    return _encoded(key_of(vae), width, height, scale)


@lru_cache(maxsize=4096)
def _of(shape: tuple[object, ...], width: int, height: int, scale: int) -> Work:
    vae = Vae(*shape)  # type: ignore[arg-type]
    taps = 9 * (FRAMES if vae.causal else 1)
    pixels = (width // scale) * (height // scale)
    first, last = vae.channels[0], vae.channels[-1]
    done = _convolution(pixels, taps, vae.latent, first) + _residual(pixels, taps, first, first) * 2
    if vae.causal:
        done += _convolution(pixels, 1, vae.latent, vae.latent)
    done += _attention(vae, pixels)
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


@lru_cache(maxsize=4096)
def _encoded(shape: tuple[object, ...], width: int, height: int, scale: int) -> Work:
    """The decoder backwards, with one residual block fewer per level, and twice the latent channels at its end."""
    vae = Vae(*shape)  # type: ignore[arg-type]
    taps = 9 * (FRAMES if vae.causal else 1)
    levels = vae.channels[::-1]
    pixels = (width // scale) * (height // scale) * 4 ** (len(levels) - 1)
    inputs, last = levels[0], levels[-1]
    done = _convolution(pixels, taps, 3, inputs)
    for level, channels in enumerate(levels):
        done += _residual(pixels, taps, inputs, channels)
        done += _residual(pixels, taps, channels, channels) * (vae.blocks - 2)
        inputs = channels
        if level < len(levels) - 1:
            pixels //= 4
            done += _convolution(pixels, 9, channels, channels)
    done += _residual(pixels, taps, last, last) * 2 + _attention(vae, pixels)
    done += _convolution(pixels, taps, last, 2 * vae.latent)
    return done + _convolution(pixels, 1, 2 * vae.latent, 2 * vae.latent) if vae.causal else done


def _attention(vae: Vae, pixels: int) -> Work:
    """One head over all latent pixels, in the middle."""
    if not vae.attention:
        return Work()
    width = vae.channels[0]
    return product(pixels, width, 3 * width) + attend(pixels, pixels, width) + product(pixels, width, width)


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
