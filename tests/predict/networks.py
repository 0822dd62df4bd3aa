"""The networks themselves, of diffusers and transformers, on torch's meta device: names and shapes, but no memory.

What torch counts in them, operations and live bytes, is what sweep/predict must say.
"""

import math
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from sweep.checkpoints import flux2_klein, glm_image, qwen_image, z_image
from sweep.checkpoints.parts import on_meta
from sweep.config.model import Vision

TINY_GLM: Mapping[str, Any] = {  # of tiny_models/world_2
    "attention_head_dim": 24,
    "num_attention_heads": 4,
    "text_embed_dim": 64,
    "time_embed_dim": 32,
    "condition_dim": 16,
    "prior_vq_quantizer_codebook_size": 1024,
}
SOURCE = (1, 48, 86)
"""Latent frames, rows and columns of tokens of the picture that an edit starts from: 1376×768 pixels."""

VAES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "qwen_image": ("AutoencoderKLQwenImage", {}),
    "tiny_qwen_image": ("AutoencoderKLQwenImage", {"base_dim": 8, "z_dim": 16}),
    "glm_image": ("AutoencoderKL", glm_image.VAE),
    "z_image": ("AutoencoderKL", z_image.VAE),
    "flux": ("AutoencoderKL", z_image.VAE),
    "flux2_klein": ("AutoencoderKLFlux2", flux2_klein.VAE),
    "tiny_glm_image": (
        "AutoencoderKL",
        {**glm_image.VAE, "block_out_channels": (16, 32, 48, 48), "layers_per_block": 1, "norm_num_groups": 8},
    ),
}


def meta(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(*shape, device="meta", dtype=dtype)


def operations(call: Callable[[], Any]) -> int:
    """What torch's FLOP counter counts."""
    with FlopCounterMode(display=False) as counter, torch.no_grad(), torch.device("meta"):
        call()
    return counter.get_total_flops()


class _Alive(TorchDispatchMode):
    """Bytes of all tensors alive, and the most that there were."""

    def __init__(self, given: Iterator[torch.Tensor]) -> None:
        super().__init__()
        self.known = {tensor.untyped_storage()._cdata for tensor in given}
        self.now = self.most = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self.known:
                    self.known.add(storage._cdata)
                    self.now += storage.nbytes()
                    self.most = max(self.most, self.now)
                    weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())
        return result

    def _gone(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


def most_alive(network: torch.nn.Module, call: Callable[[], Any]) -> int:
    """Bytes of the tensors that a call has alive at its fullest moment, weights not counted."""
    with torch.no_grad(), torch.device("meta"), _Alive(network.parameters()) as alive:
        call()
    return alive.most


@contextmanager
def attention_not_materialised() -> Iterator[None]:
    """Attention as FlashAttention runs it: without a matrix of scores, which the meta device would make."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            torch.nn.functional, "scaled_dot_product_attention", lambda query=None, *a, **k: torch.empty_like(query)
        )
        yield


class _Rotary(torch.nn.Module):
    """Tables of Qwen-Image's rotary embedding; the network computes them with values."""

    def __init__(self, half: int) -> None:
        super().__init__()
        self.half = half

    def forward(self, shapes: Any, *args: Any, max_txt_seq_len: int, **kwargs: Any) -> Any:
        seen = sum(height * width for _, height, width in shapes[0])
        return tuple(meta(n, self.half, dtype=torch.complex64) for n in (seen, max_txt_seq_len))


def _indexing_by_masks() -> AbstractContextManager[Any]:
    """On the meta device a mask selects everything, which is as large as it can be."""
    import torch.fx.experimental._config as experimental

    return experimental.patch(meta_nonzero_assume_all_nonzero=True)


def dit(
    model: str, layers: int, dtype: torch.dtype = torch.float32
) -> tuple[torch.nn.Module, Callable[[int, int, int], Any]]:
    """A DiT, and a call of it: tokens on a side of the picture, text tokens, pictures."""

    def made(kind: Any, **settings: Any) -> torch.nn.Module:
        return on_meta(lambda: kind(**settings)).to(dtype)

    def a(*shape: int) -> torch.Tensor:
        return meta(*shape, dtype=dtype)

    import diffusers

    if "qwen" in model:
        tiny = qwen_image.TINY_DIT if model.startswith("tiny") else {}
        settings = {**qwen_image.DIT, **tiny, "num_layers": layers}
        network = made(diffusers.QwenImageTransformer2DModel, **settings)
        network.pos_embed = _Rotary(settings["attention_head_dim"] // 2)

        def call(side: int, text: int, batch: int) -> Any:
            pictures = [(1, side, side)] + ([SOURCE] if "edit" in model else [])
            return network(
                hidden_states=a(batch, sum(math.prod(one) for one in pictures), 64),
                encoder_hidden_states=a(batch, text, settings["joint_attention_dim"]),
                timestep=a(batch),
                img_shapes=[pictures] * batch,
            )
    elif "glm" in model:
        settings = {**glm_image.DIT, **(TINY_GLM if model.startswith("tiny") else {}), "num_layers": layers}
        network = made(diffusers.GlmImageTransformer2DModel, **settings)

        def call(side: int, text: int, batch: int) -> Any:
            with _indexing_by_masks():
                return network(
                    hidden_states=a(batch, 16, 2 * side, 2 * side),
                    encoder_hidden_states=a(batch, text, settings["text_embed_dim"]),
                    prior_token_id=meta(batch, side * side, dtype=torch.long),
                    prior_token_drop=meta(batch, side * side, dtype=torch.bool),
                    timestep=a(batch),
                    target_size=a(batch, 2),
                    crop_coords=a(batch, 2),
                )
    elif model == "z_image":
        network = made(diffusers.ZImageTransformer2DModel, **{**z_image.DIT, "n_layers": layers})

        def call(side: int, text: int, batch: int) -> Any:
            pictures = [a(16, 1, 2 * side, 2 * side)] * batch
            return network(pictures, a(batch), [a(text, 2560)] * batch)
    elif model == "flux2_klein":
        single = layers * 4 // 5
        settings = {**flux2_klein.DIT, "joint_attention_dim": 7680}
        network = made(
            diffusers.Flux2Transformer2DModel, **settings, num_layers=layers - single, num_single_layers=single
        )

        def call(side: int, text: int, batch: int) -> Any:
            return network(
                hidden_states=a(batch, side * side, 128),
                encoder_hidden_states=a(batch, text, 7680),
                timestep=a(batch),
                guidance=None,
                img_ids=a(side * side, 4),
                txt_ids=a(text, 4),
            )
    else:
        single = layers * 2 // 3
        network = made(
            diffusers.FluxTransformer2DModel, guidance_embeds=True, num_layers=layers - single, num_single_layers=single
        )

        def call(side: int, text: int, batch: int) -> Any:
            return network(
                hidden_states=a(batch, side * side, 64),
                encoder_hidden_states=a(batch, text, 4096),
                pooled_projections=a(batch, 768),
                timestep=a(batch),
                guidance=a(batch),
                img_ids=a(side * side, 3),
                txt_ids=a(text, 3),
            )

    return network, call


def vae(model: str, dtype: torch.dtype = torch.float32) -> tuple[torch.nn.Module, Callable[[int, int], Any]]:
    """A VAE, and a decode of it: pixels on a side, pictures."""
    import diffusers

    name, settings = VAES[model]
    network = on_meta(lambda: getattr(diffusers, name)(**settings)).to(dtype)
    frames = (1,) if name == "AutoencoderKLQwenImage" else ()
    latent = settings.get("latent_channels", 16)
    return network, lambda side, batch: network.decode(meta(batch, latent, *frames, side // 8, side // 8, dtype=dtype))


def encode(network: Any, width: int, height: int, dtype: torch.dtype = torch.float32) -> Any:
    """A picture encoded by a VAE."""
    frames = (1,) if type(network).__name__ == "AutoencoderKLQwenImage" else ()
    return network.encode(meta(1, 3, *frames, height, width, dtype=dtype))


def vision(layers: int, outputs: int) -> tuple[Vision, Callable[[int, int], Any]]:
    """A narrow vision tower of Qwen2.5-VL with values, as places of windows need them; and a call: rows and columns."""
    from transformers.models.qwen2_5_vl import configuration_qwen2_5_vl, modeling_qwen2_5_vl

    config = configuration_qwen2_5_vl.Qwen2_5_VLVisionConfig(
        depth=layers,
        fullatt_block_indexes=[layers - 1],
        hidden_size=32,
        num_heads=2,
        intermediate_size=64,
        out_hidden_size=outputs,
        attn_implementation="eager",  # torch counts no other on a CPU
    )
    network = modeling_qwen2_5_vl.Qwen2_5_VisionTransformerPretrainedModel(config)
    shape = Vision(layers=layers, hidden=32, heads=2, kv_heads=2, intermediate=64, gated=True, whole_layers=1)

    def call(rows: int, columns: int) -> Any:
        with torch.device("cpu"):
            patches = torch.zeros(rows * columns * 4, 3 * 2 * 14 * 14)
            return network(patches, torch.tensor([[1, 2 * rows, 2 * columns]]))

    return shape, call


def ar(model: str, layers: int) -> tuple[Callable[[int, int], Any], Callable[[int, int], Any]]:
    """GLM-Image's AR stage: a prefill of so many tokens, and a decode after so many, of so many texts."""
    from transformers import GlmImageConfig, GlmImageForConditionalGeneration

    tiny = model.startswith("tiny")
    own = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4, "num_key_value_heads": 2}
    text = {**(own if tiny else glm_image.AR), "num_hidden_layers": layers}
    rotary = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}
    config = GlmImageConfig(
        text_config={
            **text,
            "vocab_size": glm_image.VOCABULARY,
            "vision_vocab_size": 1024 if tiny else 16512,
            "attention_bias": True,
            "rope_parameters": {**rotary, "mrope_section": glm_image.TINY_MROPE if tiny else glm_image.MROPE},
        },
        vision_config={**glm_image.TINY_VISION, "depth": 1, "image_size": 2048, "patch_size": 16},
        vq_config={"num_embeddings": 16384, **glm_image.TINY_VQ},
    )
    network = on_meta(lambda: GlmImageForConditionalGeneration(config))

    def read(new: int, batch: int, cache: Any = None) -> Any:
        out = network.model.language_model(
            inputs_embeds=meta(batch, new, text["hidden_size"]),
            position_ids=meta(3, batch, new, dtype=torch.long),
            past_key_values=cache,
            use_cache=True,
        )
        network.lm_head(out.last_hidden_state[:, -1:])
        return out.past_key_values

    def decode(before: int, batch: int) -> Any:
        with torch.no_grad(), torch.device("meta"):
            cache = read(before, batch)
        return lambda: read(1, batch, cache)

    return read, decode


def text_encoder(model: str) -> Callable[[int], Any]:
    """The text encoder of a model: a forward over so many tokens."""
    import transformers

    if model == "z_image":
        config = transformers.Qwen3Config(**z_image.TEXT, num_hidden_layers=36, vocab_size=1000)
        network = on_meta(lambda: transformers.Qwen3Model(config))
        return lambda tokens: network(
            inputs_embeds=meta(1, tokens, 2560),
            use_cache=False,
            position_ids=meta(1, tokens, dtype=torch.long),
            attention_mask={"full_attention": None},
        )
    if model == "qwen_image_edit":
        from transformers.models.qwen2_5_vl import configuration_qwen2_5_vl, modeling_qwen2_5_vl

        shape = configuration_qwen2_5_vl.Qwen2_5_VLTextConfig(
            **qwen_image.TEXT,
            num_hidden_layers=28,
            vocab_size=1000,
            rope_scaling={"type": "mrope", "mrope_section": qwen_image.MROPE},
        )
        reader = on_meta(lambda: modeling_qwen2_5_vl.Qwen2_5_VLTextModel(shape))
        return lambda tokens: reader(
            inputs_embeds=meta(1, tokens, 3584),
            use_cache=False,
            position_ids=meta(3, 1, tokens, dtype=torch.long),
            attention_mask={"full_attention": None},
        )
    widths = {
        "glm_image": glm_image.GLYPHS,
        "flux": {"d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64},
    }[model]
    settings = transformers.T5Config(
        **widths, vocab_size=384, feed_forward_proj="gated-gelu", is_encoder_decoder=False, use_cache=False
    )
    encoder = on_meta(lambda: transformers.T5EncoderModel(settings))
    return lambda tokens: encoder(meta(1, tokens, dtype=torch.long))
