"""Trained parts → a folder in GlmImagePipeline's own layout, fp16 safetensors, that engines load."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.checkpoints.training import networks, sizes
from sweep.engines.diffusers.tiny_models import glm_image

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def export(parts: Path, words: "Tokenizer", folder: Path) -> None:
    """Write `folder` from vae.pt, ar.pt, vision.pt and dit.pt; what was in it is gone."""
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler
    from transformers import ByT5Tokenizer

    from sweep.engines.diffusers.adapters import quiet_libraries

    quiet_libraries()
    stored = {
        name: torch.load(parts / f"{name}.pt", map_location="cpu", weights_only=True)
        for name in ("vae", "ar", "vision", "dit")
    }
    shutil.rmtree(folder, ignore_errors=True)
    glm_image.write_glm_processor(folder / "processor", words)
    ByT5Tokenizer().save_pretrained(folder / "tokenizer")
    autoregressive = networks.autoregressive(words.get_vocab_size())
    encoder, denoiser, autoencoder = networks.glyph_encoder(), networks.denoiser(), networks.autoencoder()
    autoregressive.load_state_dict(stored["ar"]["weights"])
    autoregressive.model.visual.load_state_dict(stored["vision"]["visual"])
    autoregressive.model.vqmodel.load_state_dict(stored["vision"]["vqmodel"])
    encoder.load_state_dict(stored["dit"]["glyphs"])
    denoiser.load_state_dict(stored["dit"]["weights"])
    autoencoder.load_state_dict(stored["vae"]["weights"])
    autoencoder.register_to_config(
        latents_mean=stored["vae"]["mean"].tolist(), latents_std=stored["vae"]["std"].tolist()
    )
    named = {
        "text_encoder": encoder,
        "vision_language_encoder": autoregressive,
        "transformer": denoiser,
        "vae": autoencoder,
    }
    for name, model in named.items():
        model.to(torch.float16).save_pretrained(folder / name)
    FlowMatchEulerDiscreteScheduler(**sizes.SCHEDULER).save_pretrained(folder / "scheduler")
    glm_image.write_glm_index(folder)
