"""What each part is trained on: losses over the pool, and how the parts hand over to each other."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from sweep.checkpoints.training import forwards, networks, sizes
from sweep.checkpoints.training.pool import Edits, Pool, glyph_ids
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
"""Share of wrong target tokens in the DiT's input, because the AR stage is not perfect."""

UNGUIDED = 0.1
"""Share of examples without sentence and text, which classifier-free guidance needs."""

WORDS = 3.0
"""Weight of words in the DiT's loss: their lines are thin, so they make up little of the loss."""

EDIT_EVERY = 8
"""One DiT step in this many trains edits: it learns those in a fraction of the time that drawing takes."""

EDITED = 0.25
"""Edits that the AR model sees in addition to sentences, relative to its batch. Their sequences are short."""

COSINES = 20.0  # factor for cosines to image tokens before they are compared
NOISE = 0.02  # highest standard deviation of the noise added to the vision tower's pictures

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

    Trainer(recipe, [model], [loss], folder).run()
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


def train_vision(pool: Pool, recipe: Recipe, vocabulary: int, device: str, seed: int, folder: Path) -> None:
    """vision.pt: weights of the tower and of the codebook, which together read the image tokens of a picture."""
    torch.manual_seed(seed + 4)
    model = networks.autoregressive(vocabulary).to(device)
    tower, read = model.model.visual, model.model.vqmodel
    pictures, tokens = _on(device, pool.pictures), _on(device, pool.codes[:, codes.PREVIEW :])

    def loss() -> Tensor:
        pick = torch.randint(len(pictures), (recipe.batch,), device=device)
        given = pictures[pick].permute(0, 3, 1, 2).float() / 255
        given = given + NOISE * torch.rand(recipe.batch, 1, 1, 1, device=device) * torch.randn_like(given)
        cosines = forwards.source_tokens(model, given)
        return functional.cross_entropy(COSINES * cosines.flatten(0, 1), tokens[pick].long().flatten())

    Trainer(recipe, [tower, read.quant_conv, read.quantize], [loss], folder).run()
    torch.save({"visual": tower.state_dict(), "vqmodel": read.state_dict()}, folder / "vision.pt")


def train_autoregressive(
    pool: Pool, edits: Edits, recipe: Recipe, vocabulary: int, device: str, seed: int, folder: Path
) -> None:
    """ar.pt: weights."""
    torch.manual_seed(seed + 1)
    model = networks.autoregressive(vocabulary).to(device)
    text = torch.nn.ModuleList([model.model.language_model, model.lm_head])
    drawing = _drawing_loss(pool, recipe.batch, model, device)
    editing = _editing_loss(edits, int(recipe.batch * EDITED), model, device)
    Trainer(recipe, [text], [lambda: drawing() + EDITED * editing()], folder).run()
    torch.save({"weights": model.state_dict()}, folder / "ar.pt")


def _drawing_loss(pool: Pool, batch: int, model: Any, device: str) -> Callable[[], Tensor]:
    """Loss of image tokens after sentences: half of it comes from the target."""
    prompts, lengths, tokens = (_on(device, array) for array in (pool.prompts, pool.lengths, pool.codes))
    images, longest = tokens.shape[1], prompts.shape[1]
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
        ids = _continued(prompts[pick].long(), length, given, index)
        select = length[:, None] - 1 + torch.arange(images, device=device)[None]
        with torch.autocast(device, torch.bfloat16):
            logits = forwards.image_tokens(model, ids, forwards.token_places(length, longest), select)
        each = functional.cross_entropy(logits.float().flatten(0, 1), right.flatten(), reduction="none").view_as(right)
        preview = (each[:, : codes.PREVIEW] * ~strange).mean()
        return 0.5 * preview + 0.5 * each[:, codes.PREVIEW :].mean()

    return loss


def _editing_loss(edits: Edits, batch: int, model: Any, device: str) -> Callable[[], Tensor]:
    """Loss of target tokens after a source's image tokens and an instruction."""
    prompts, lengths, tokens = (_on(device, array) for array in (edits.prompts, edits.lengths, edits.codes))
    images, longest = tokens.shape[2], prompts.shape[1]
    index = torch.arange(longest + images, device=device)[None]

    def loss() -> Tensor:
        pick = torch.randint(len(lengths), (batch,), device=device)
        (source, right), length = tokens[pick].long().unbind(1), lengths[pick].long()
        given = prompts[pick].long()
        given = torch.cat([given[:, :1], source, given[:, 1 + images :]], 1)
        ids = _continued(given, length, right, index)
        select = length[:, None] - 1 + torch.arange(images, device=device)[None]
        with torch.autocast(device, torch.bfloat16):
            logits = forwards.image_tokens(model, ids, forwards.edit_places(length, longest), select)
        return functional.cross_entropy(logits.float().flatten(0, 1), right.flatten())

    return loss


def _continued(prompts: Tensor, length: Tensor, images: Tensor, index: Tensor) -> Tensor:
    """(B, longest + n): prompts (B, longest), each followed by its image tokens (B, n), padded on the right."""
    count = images.shape[1]
    place = index - length[:, None]
    ids = torch.where(place < 0, functional.pad(prompts, (0, count)), images.gather(1, place.clamp(0, count - 1)))
    return torch.where(place >= count, sizes.PAD, ids)


def train_denoiser(
    pool: Pool, edits: Edits, recipe: Recipe, device: str, seed: int, folder: Path, compiled: bool = True
) -> None:
    """dit.pt: weights of the DiT and of the glyph encoder, which learn together. Needs vae.pt."""
    torch.manual_seed(seed + 3)
    model, encoder = networks.denoiser().to(device), networks.glyph_encoder().to(device)
    run = torch.compile(forwards.block, fullgraph=True, dynamic=False) if compiled else forwards.block
    latents, words = _latents(pool.pictures, device, folder), _on(device, pool.glyphs)
    tokens = _on(device, pool.codes[:, codes.PREVIEW :])
    before, after = _latents(edits.pictures, device, folder).unflatten(0, (-1, 2)).unbind(1)
    said, changed = _on(device, edits.glyphs), _on(device, edits.codes)
    given = _Denoising(model, encoder, run, device, tokens)
    all_guided = torch.ones(recipe.batch, device=device)

    def drawing() -> Tensor:
        pick = torch.randint(len(latents), (recipe.batch,), device=device)
        keep = (torch.rand(recipe.batch, device=device) >= UNGUIDED).float()
        return given.error(latents[pick].float(), words[pick].long(), tokens[pick].long(), keep)

    def editing() -> Tensor:
        pick = torch.randint(len(after), (recipe.batch,), device=device)
        old, new = changed[pick].long().unbind(1)
        source = forwards.Source(before[pick].float(), old[:, given.per_patch])
        return given.error(after[pick].float(), said[pick].long(), new, all_guided, source)

    if compiled:  # outside of any capture
        for loss in (drawing, editing):
            loss().backward()
    by_turns = [*[drawing] * (EDIT_EVERY - 1), editing]
    Trainer(recipe, [model, encoder], by_turns, folder).run()
    torch.save({"weights": model.state_dict(), "glyphs": encoder.state_dict()}, folder / "dit.pt")


class _Denoising:
    """The DiT's input, and the error of its output."""

    def __init__(self, model: Any, encoder: Any, run: Any, device: str, tokens: Tensor) -> None:
        self._model, self._encoder, self._run, self._device, self._tokens = model, encoder, run, device, tokens
        self._rope = tuple(one.to(device) for one in model.rope(torch.zeros(1, 1, *[sizes.LATENT_SIDE] * 2)))
        self._nothing = torch.tensor(glyph_ids(""), device=device)
        self.per_patch = upsampled(device)
        self._per_latent = upsampled(device, sizes.LATENT_SIDE // sizes.GRID)

    def error(
        self, clean: Tensor, words: Tensor, prior: Tensor, keep: Tensor, source: "forwards.Source | None" = None
    ) -> Tensor:
        """Weighted mean squared error for latents (B, 16, 8, 8), glyph ids, target tokens; `keep` 0 is unguided."""
        device, (batch, length) = self._device, words.shape
        ids = torch.where(keep[:, None] > 0, words, self._nothing)
        # A batch is padded on the left to its longest text, with zeros that everything attends to.
        padded_to = torch.randint(1, length + 1, (batch, 1), device=device)
        in_batch = torch.arange(length, device=device)[None] >= length - padded_to
        mixed = torch.rand(batch, 1, device=device) < 0.3
        seen = (ids != 0) | (mixed & in_batch)
        other = self._tokens[torch.randint(len(self._tokens), (batch,), device=device)].long()
        prior = torch.where(torch.rand(prior.shape, device=device) < WRONG_CODES, other, prior)
        sigma = _noise_levels(torch.rand(batch, device=device), torch.rand(batch, device=device) < 0.75)
        noise, part = torch.randn_like(clean), sigma.view(batch, 1, 1, 1)
        predicted = forwards.velocity(
            self._model,
            clean * (1 - part) + noise * part,
            forwards.glyphs(self._encoder, ids, ids != 0),
            seen,
            prior[:, self.per_patch],
            keep,
            sigma * 1000 - 1,
            torch.full((batch, 2), float(sizes.SIDE), device=device),
            self._rope,
            self._run,
            bf16=True,
            source=source,
        )
        is_words = (prior >= codes.WORDS) & (prior < codes.THINGS)
        weight = torch.where(is_words, WORDS, 1.0)[:, self._per_latent]
        return ((predicted - (noise - clean)).square() * weight.view(batch, 1, *clean.shape[2:])).mean()


def upsampled(device: str, times: int = 2, grid: int = sizes.GRID) -> Tensor:
    """For each place in a finer grid of (times · grid)², the target token that covers it. DiT patches: times = 2."""
    side = torch.arange(times * grid, device=device) // times
    return (side[:, None] * grid + side[None]).flatten()


def _noise_levels(uniform: Tensor, shifted: Tensor) -> Tensor:
    """sigma in (0, 1]: as the scheduler shifts them where `shifted`, else evenly."""
    uniform = uniform.clamp_min(1e-3)
    shift = sizes.shift()
    return torch.where(shifted, shift / (shift + 1 / uniform - 1), uniform)


@torch.no_grad()
def _latents(pictures: "np.ndarray", device: str, folder: Path) -> Tensor:
    """(N, 16, 8, 8) of fp16 for (…, 64, 64, 3) pictures: each channel of mean 0 and standard deviation 1."""
    stored = torch.load(folder / "vae.pt", map_location=device, weights_only=True)
    model = networks.autoencoder().to(device)
    model.load_state_dict(stored["weights"])
    mean, std = (stored[name].view(1, -1, 1, 1) for name in ("mean", "std"))
    flat = pictures.reshape(-1, *pictures.shape[-3:])
    found = []
    for first in range(0, len(flat), 20_000):
        found.append(((encode(model, _on(device, flat[first : first + 20_000])) - mean) / std).half())
    return torch.cat(found)
