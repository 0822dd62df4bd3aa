"""What torch's FLOP counter counts in the networks themselves, built on the meta device from their recipes."""

import functools
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from sweep.checkpoints import glm_image, qwen_image, z_image
from sweep.checkpoints.parts import on_meta
from sweep.checkpoints.recipe import FAMILIES, Recipe

FLUX_TINY = {"num_layers": 2, "num_single_layers": 4, "attention_head_dim": 32, "num_attention_heads": 4}


def recipe(model: str, tiny: bool) -> Recipe:
    family = FAMILIES[model]
    return Recipe(model, dict(family.tiny_layers if tiny else family.real_layers), tiny, 0)


def counted(call: Any) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        call()
    return counter.get_total_flops()


def meta(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(*shape, device="meta", dtype=dtype)


def qwen_dit(tiny: bool, side: int, text: int, batch: int) -> int:
    from diffusers import QwenImageTransformer2DModel

    plan = recipe("qwen_image", tiny)
    config = {**qwen_image.DIT, **(qwen_image.TINY_DIT if tiny else {}), "num_layers": plan.layers["dit"]}
    network = on_meta(lambda: QwenImageTransformer2DModel(**config))
    network.pos_embed = _Rotary(config["attention_head_dim"] // 2)
    tokens = side // 16
    return counted(
        lambda: network(
            hidden_states=meta(batch, tokens * tokens, 64),
            encoder_hidden_states=meta(batch, text, config["joint_attention_dim"]),
            timestep=meta(batch),
            img_shapes=[[(1, tokens, tokens)]] * batch,
        )
    )


class _Rotary(torch.nn.Module):
    """Rotary tables on the meta device: the network's own are computed with values."""

    def __init__(self, half: int) -> None:
        super().__init__()
        self.half = half

    def forward(self, shapes: Any, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        (_, height, width) = shapes[0][0]
        text = kwargs.get("max_txt_seq_len") or next(int(a) for a in args if isinstance(a, int))
        return tuple(
            torch.empty(n, self.half, device="meta", dtype=torch.complex64) for n in (height * width, text)
        )
