"""How the embedded GLM-Image learns the world (`sweep.checkpoints.world`): VAE, AR model, glyph encoder and DiT.

    python -m sweep.checkpoints.training OUT        (make train; one GPU, minutes; --smoke: seconds on a CPU)

Each part is trained separately, from pictures, sentences and image tokens that are drawn from a seed:

    pool      draws them                                     VAE   pictures → latents → pictures
    AR        sentence → image tokens                        DiT   latents from image tokens and quoted text
    export    writes the folder that engines load            scores tests sentences that training never saw

The networks are the pipeline's own classes (diffusers, transformers); only their forward passes are written anew
(`forwards`), without what keeps a training step from running as one CUDA graph.
"""
