"""The networks before training: the pipeline's own classes at the sizes of `sizes`, initialised so that they learn."""

from typing import TYPE_CHECKING

from sweep.checkpoints.training import sizes

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, GlmImageTransformer2DModel
    from transformers import GlmImageForConditionalGeneration, T5EncoderModel

AR_BRANCH = 0.3
"""Gain of what each layer of the AR model adds. Embeddings have 0.7, so that three layers do not drown them."""


def autoregressive(vocabulary: int) -> "GlmImageForConditionalGeneration":
    """AR model with a head over image tokens; its vision tower and codebook serve edits."""
    import torch
    from transformers import GenerationConfig, GlmImageConfig, GlmImageForConditionalGeneration

    head = sizes.AR["hidden_size"] // sizes.AR["num_attention_heads"]
    config = GlmImageConfig(
        text_config=sizes.AR
        | {
            "vocab_size": vocabulary,
            "max_position_embeddings": 131072,
            "attention_bias": True,
            "pad_token_id": sizes.PAD,
            "eos_token_id": sizes.IMAGE_END,
            "vision_vocab_size": sizes.CODEBOOK,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": sizes.ROPE_THETA,
                "partial_rotary_factor": sizes.ROTARY / head,
                "mrope_section": list(sizes.ROPE_SECTIONS),
            },
        },
        vision_config=dict(sizes.VISION),
        vq_config=dict(sizes.VISION_CODES),
        image_token_id=sizes.IMAGE,
        image_start_token_id=sizes.IMAGE_START,
        image_end_token_id=sizes.IMAGE_END,
    )
    model = GlmImageForConditionalGeneration(config)
    with torch.no_grad():
        text = model.model.language_model
        for part in (text, model.lm_head):
            _initialise(part)
        text.embed_tokens.weight.normal_(0.0, 0.7)
        for layer in text.layers:
            layer.post_self_attn_layernorm.weight.fill_(AR_BRANCH)
            layer.post_mlp_layernorm.weight.fill_(AR_BRANCH)
        _initialise(model.model.visual)
        _initialise(model.model.vqmodel)
        model.model.visual.embeddings.position_embedding.weight.normal_(0.0, 0.1)
        model.model.vqmodel.quantize.embedding.weight.normal_(0.0, 1.0)
    model.generation_config = GenerationConfig(
        do_sample=True, temperature=0.9, top_p=0.75, eos_token_id=sizes.IMAGE_END, pad_token_id=sizes.PAD
    )
    return model


def glyph_encoder() -> "T5EncoderModel":
    """ByT5-like encoder of quoted text."""
    import torch
    from transformers import T5Config, T5EncoderModel

    model = T5EncoderModel(T5Config(**sizes.GLYPH_ENCODER, dropout_rate=0.0))
    with torch.no_grad():
        _initialise(model)
        model.shared.weight.normal_(0.0, 1.0)
        for block in model.encoder.block:  # T5 does not divide by the root of the head's width: its queries do
            block.layer[0].SelfAttention.q.weight.mul_(sizes.GLYPH_ENCODER["d_kv"] ** -0.5)
    return model


def denoiser() -> "GlmImageTransformer2DModel":
    """DiT whose blocks add nothing at first: their gates and the output start at zero."""
    import torch
    from diffusers import GlmImageTransformer2DModel

    model = GlmImageTransformer2DModel(**sizes.DIT)
    with torch.no_grad():
        model.prior_token_embedding.weight.normal_(0.0, 0.5)
        gates = [block.norm1.linear for block in model.transformer_blocks]
        for linear in (*gates, model.norm_out.linear, model.proj_out):
            linear.weight.zero_()
            linear.bias.zero_()
    return model


def autoencoder() -> "AutoencoderKL":
    """VAE with eight pixels per latent pixel."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(**sizes.VAE)


def _initialise(module: object) -> None:
    """Matrices of 1 / sqrt(fan in), zero biases."""
    import torch

    assert isinstance(module, torch.nn.Module)
    for part in module.modules():
        if isinstance(part, torch.nn.Linear):
            part.weight.normal_(0.0, part.in_features**-0.5)
            if part.bias is not None:
                part.bias.zero_()
