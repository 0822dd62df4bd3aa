"""What each part is trained on: losses over the pool, and how the parts hand over to each other."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from sweep.checkpoints.training import forwards, networks, sizes
from sweep.checkpoints.training.pool import Pool, glyph_ids
from sweep.checkpoints.training.trainer import Recipe, Trainer
from sweep.checkpoints.world import codes

if TYPE_CHECKING:
    import numpy as np

OWN_MISTAKES = 0.06
"""Share of preview tokens that are wrong, in half of the examples: at inference some are."""

STRANGE_PREVIEWS = 0.35
"""Share of examples whose preview is another scene's. Without them target tokens copy the preview instead of reading
the sentence: the right corner in 31 % of pictures."""

WRONG_CODES = 0.01
"""Share of target tokens that the DiT is given wrong, because the AR stage is not perfect."""

UNGUIDED = 0.1
"""Share of examples without sentence and text, which classifier-free guidance needs."""

WORDS = 3.0
"""Weight of words in the DiT's loss: their lines are thin, so that little of the loss is theirs."""

KL = 5e-4  # weight of the latents' distance from a standard normal distribution


def train_autoencoder(pool: Pool, recipe: Recipe, device: str, seed: int, folder: Path) -> None:
    """vae.pt: weights, and mean and standard deviation of each latent channel over the pool."""
    torch.manual_seed(seed + 2)
    model = networks.autoencoder().to(device)
    pictures = _on(device, pool.pictures)

    def loss() -> Tensor:
        pick = torch.randint(len(pictures), (recipe.batch,), device=device)
        real = _as_input(pictures[pick])
        mean, logvar = model.encoder(real).chunk(2, 1)
        logvar = logvar.clamp(-20, 10)
        drawn = model.decoder(mean + (0.5 * logvar).exp() * torch.randn_like(mean))
        divergence = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        return (drawn - real).abs().mean() + 2 * (drawn - real).square().mean() + KL * divergence

    Trainer(recipe, [model], loss, folder).run()
    some = encode(model, pictures[:8192])
    state = {"weights": model.state_dict(), "mean": some.mean((0, 2, 3)), "std": some.std((0, 2, 3))}
    torch.save(state, folder / "vae.pt")


@torch.no_grad()
def encode(model: Any, pictures: Tensor) -> Tensor:
    """(N, 16, 8, 8): the means of the latents of (N, 64, 64, 3) pictures of uint8."""
    return torch.cat([model.encoder(_as_input(part)).chunk(2, 1)[0].float() for part in pictures.split(2048)])


def _on(device: str, array: "np.ndarray") -> Tensor:
    import numpy as np

    return torch.from_numpy(np.array(array)).to(device)


def _as_input(pictures: Tensor) -> Tensor:
    """(B, 3, 64, 64) in [−1, 1] from uint8."""
    return pictures.permute(0, 3, 1, 2).float() / 127.5 - 1


def train_autoregressive(pool: Pool, recipe: Recipe, vocabulary: int, device: str, seed: int, folder: Path) -> None:
    """ar.pt: weights."""
    torch.manual_seed(seed + 1)
    model = networks.autoregressive(vocabulary).to(device)
    text = torch.nn.ModuleList([model.model.language_model, model.lm_head])
    prompts, lengths, tokens = (_on(device, array) for array in (pool.prompts, pool.lengths, pool.codes))
    images, longest, batch = tokens.shape[1], prompts.shape[1], recipe.batch
    index = torch.arange(longest + images, device=device)[None]
    is_preview = (torch.arange(images, device=device) < codes.PREVIEW)[None]

    def loss() -> Tensor:
        pick = torch.randint(len(lengths), (batch,), device=device)
        right, length = tokens[pick].long(), lengths[pick].long()
        strange = torch.rand(batch, 1, device=device) < STRANGE_PREVIEWS
        mistaken = (torch.rand(batch, images, device=device) < OWN_MISTAKES) & (
            torch.rand(batch, 1, device=device) < 0.5
        )
        wrong = torch.where(strange, right.roll(1, 0), torch.randint(codes.EMPTY, (batch, images), device=device))
        given = torch.where((strange | mistaken) & is_preview, wrong, right)
        place = index - length[:, None]
        ids = functional.pad(prompts[pick].long(), (0, images))
        ids = torch.where(place < 0, ids, given.gather(1, place.clamp(0, images - 1)))
        ids = torch.where(place >= images, sizes.PAD, ids)
        select = length[:, None] - 1 + torch.arange(images, device=device)[None]
        with torch.autocast(device, torch.bfloat16):
            logits = forwards.image_tokens(model, ids, forwards.token_places(length, longest), select)
        each = functional.cross_entropy(logits.float().flatten(0, 1), right.flatten(), reduction="none").view_as(right)
        preview = (each[:, : codes.PREVIEW] * ~strange).mean()
        return 0.5 * preview + 0.5 * each[:, codes.PREVIEW :].mean()

    Trainer(recipe, [text], loss, folder).run()
    torch.save({"weights": model.state_dict()}, folder / "ar.pt")


def train_denoiser(pool: Pool, recipe: Recipe, device: str, seed: int, folder: Path, compiled: bool = True) -> None:
    """dit.pt: weights of the DiT and of the glyph encoder, which learn together. Needs vae.pt."""
    torch.manual_seed(seed + 3)
    latents = _latents(pool, device, folder)
    tokens = _on(device, pool.codes[:, codes.PREVIEW :])
    words = _on(device, pool.glyphs)
    model, encoder = networks.denoiser().to(device), networks.glyph_encoder().to(device)
    rope = tuple(one.to(device) for one in model.rope(latents[:1].float().cpu()))
    batch, length = recipe.batch, words.shape[1]
    per_patch, per_latent = upsampled(device), upsampled(device, sizes.LATENT_SIDE // sizes.GRID)
    nothing = torch.tensor(glyph_ids(""), device=device)
    size = torch.full((batch, 2), float(sizes.SIDE), device=device)
    run = torch.compile(forwards.block, fullgraph=True, dynamic=False) if compiled else forwards.block

    def loss() -> Tensor:
        pick = torch.randint(len(latents), (batch,), device=device)
        clean = latents[pick].float()
        keep = torch.rand(batch, device=device) >= UNGUIDED
        ids = torch.where(keep[:, None], words[pick].long(), nothing)
        # A batch is padded on the left to its longest text, with zeros that everything attends to.
        padded_to = torch.randint(1, length + 1, (batch, 1), device=device)
        in_batch = torch.arange(length, device=device)[None] >= length - padded_to
        mixed = torch.rand(batch, 1, device=device) < 0.3
        seen = (ids != 0) | (mixed & in_batch)
        prior = tokens[pick].long()
        other = tokens[torch.randint(len(tokens), (batch,), device=device)].long()
        prior = torch.where(torch.rand(prior.shape, device=device) < WRONG_CODES, other, prior)
        sigma = _noise_levels(torch.rand(batch, device=device), torch.rand(batch, device=device) < 0.75)
        noise, part = torch.randn_like(clean), sigma.view(batch, 1, 1, 1)
        predicted = forwards.velocity(
            model,
            clean * (1 - part) + noise * part,
            forwards.glyphs(encoder, ids, ids != 0),
            seen,
            prior[:, per_patch],
            keep.float(),
            sigma * 1000 - 1,
            size,
            rope,
            run,
            bf16=True,
        )
        is_words = (prior >= codes.WORDS) & (prior < codes.THINGS)
        weight = torch.where(is_words, WORDS, 1.0)[:, per_latent]
        return ((predicted - (noise - clean)).square() * weight.view(batch, 1, *clean.shape[2:])).mean()

    if compiled:  # outside of any capture
        loss().backward()
    Trainer(recipe, [model, encoder], loss, folder).run()
    torch.save({"weights": model.state_dict(), "glyphs": encoder.state_dict()}, folder / "dit.pt")


def upsampled(device: str, times: int = 2, grid: int = sizes.GRID) -> Tensor:
    """Of each place in a finer grid of (times · grid)², the target token that covers it. The DiT's patches: twice."""
    side = torch.arange(times * grid, device=device) // times
    return (side[:, None] * grid + side[None]).flatten()


def _noise_levels(uniform: Tensor, shifted: Tensor) -> Tensor:
    """sigma in (0, 1]: as the scheduler shifts them where `shifted`, else evenly."""
    uniform = uniform.clamp_min(1e-3)
    shift = sizes.shift()
    return torch.where(shifted, shift / (shift + 1 / uniform - 1), uniform)


@torch.no_grad()
def _latents(pool: Pool, device: str, folder: Path) -> Tensor:
    """(N, 16, 8, 8) of fp16: every picture of the pool, each channel of mean 0 and standard deviation 1."""
    stored = torch.load(folder / "vae.pt", map_location=device, weights_only=True)
    model = networks.autoencoder().to(device)
    model.load_state_dict(stored["weights"])
    mean, std = (stored[name].view(1, -1, 1, 1) for name in ("mean", "std"))
    found = []
    for first in range(0, len(pool), 20_000):
        pictures = _on(device, pool.pictures[first : first + 20_000])
        found.append(((encode(model, pictures) - mean) / std).half())
    return torch.cat(found)
