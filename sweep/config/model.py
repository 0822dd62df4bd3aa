"""Group `model`: which model generates, its published shapes, and the tasks that a model can do."""

from dataclasses import dataclass, field
from typing import Any

from sweep.config.stages import Stages
from sweep.config.values import at_home
from sweep.refusals import require

TEXT = "text"
"""Task of an AR stage that writes text and no image."""

EDITS = "image_edit"
"""Task of changing a picture by an instruction."""

TASKS = ("text_to_image", EDITS, TEXT)


OWN = ("steps", "guidance_scale")
"""Fields of a workload that a model may have values of its own for (Model.own)."""


@dataclass
class Stack:
    """Published shape of one transformer stack of a model (text encoder, AR or DiT)."""

    params_b: float = 0.0  # parameters, billions
    layers: int = 0
    hidden: int = 0  # residual width
    heads: int = 0
    kv_heads: int = 0  # equal to heads without grouped-query attention
    intermediate: int = 0  # feed-forward width
    vocab: int = 0  # output vocabulary; 0 for a stack that emits no tokens
    head_dim: int = 0  # width of a head; 0: hidden ÷ heads
    gated: bool = False  # its feed-forward has a third matrix (SwiGLU, gated GELU)
    tokens: int = 0  # in a text encoder: prompts are padded to so many; 0: they are not

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            require(value >= 0, f"model.…{name}={value}: must be 0 or more, 0 where it is unknown")


@dataclass
class Dit(Stack):
    """Published shape of a DiT. A block has a set of weights for text and one for image tokens, or one for all."""

    joined_layers: int = 0  # of `layers`: blocks with one set of weights for all tokens (single-stream)
    refiners: int = 0  # further blocks before them: so many over the image's tokens, as many over the text's
    modulation: int = 0  # outputs of a block's modulation, in widths, for each of its sets of weights
    joined_modulation: int = 0  # likewise of a block of joined_layers
    modulation_in: int = 0  # width of what modulations are computed from; 0: hidden
    context: int = 0  # width of the text states that come in
    distilled: bool = False  # guidance is an input: one forward a step, no second branch
    prior: int = 0  # size of the codebook of the AR stage whose tokens its image tokens take as well; 0: none
    channels: int = 16  # of a latent pixel
    shared_modulation: bool = False  # one modulation for all blocks of a kind, and none of a block's own
    cached_text: bool = False  # text comes as the KV cache of an AR stage: attended to, and not computed again


@dataclass
class Vision(Stack):
    """Published shape of the vision tower of a text encoder, which makes tokens of a picture to edit."""

    patch: int = 14  # pixels on a side of a patch
    merge: int = 2  # patches on a side that become one token
    window: int = 112  # pixels on a side of the windows that attention stays inside
    whole_layers: int = 0  # of `layers`: those whose attention sees the whole picture


@dataclass
class Vae:
    """Published shape of a VAE's decoder."""

    params_b: float = 0.0  # parameters of encoder and decoder, billions
    channels: list[int] = field(default_factory=list)  # of its levels, from the latent's size to the picture's
    blocks: int = 0  # residual blocks of a level
    latent: int = 16  # channels of a latent pixel
    attention: bool = True  # one head over all latent pixels in the middle
    causal: bool = False  # three-dimensional, for video: kernels see two frames before the picture

    def __post_init__(self) -> None:
        for name in ("params_b", "blocks", "latent"):
            require(getattr(self, name) >= 0, f"model.vae.{name}={getattr(self, name)}: must be 0 or more")
        require(
            all(width >= 1 for width in self.channels), f"model.vae.channels={self.channels}: must be at least 1 each"
        )


@dataclass
class Model:
    """The model to generate with. Shapes are the published ones; `embedded` models come with this package."""

    name: str = "???"
    family: str = "???"  # code path: glm_image, qwen_image, flux, …
    summary: str = ""  # one line for the reader
    embedded: bool = False  # tiny: its weights are made from a seed at first use, or come with the package
    weights: str = ""  # name of an embedded model's trained weights; "" for random ones
    repo: str = ""  # where the published checkpoint lives (never downloaded by us)
    path: str | None = None  # folder of a checkpoint on this machine
    tasks: list[str] = field(default_factory=lambda: ["text_to_image"])  # text_to_image, image_edit, text
    size_multiple: int = 16  # width and height must be multiples of this, pixels
    max_pixels: int = 2048 * 2048
    patch: int = 2  # DiT patch, latent pixels
    vae_scale: int = 8  # pixels per latent pixel
    memory_gb: float = 0.0  # GPU memory that the weights need in bf16, GB
    edit_pixels: int = 0  # its pipeline scales a picture to edit to about so many pixels; 0: it does not
    ar: Stack | None = None
    dit: Dit | None = None
    text_encoder: Stack | None = None
    vision: Vision | None = None  # part of the text encoder, and of its params_b; None: it reads no pictures
    vae: Vae | None = None
    stages: Stages = field(default_factory=Stages)  # how its stages are started and sampled, where it has several
    own: dict[str, Any] = field(default_factory=dict)
    """Steps and guidance that it was distilled to (OWN). They replace those in a workload's file;
    `workload.steps=20` on the command line, or in a study, overrides both."""

    source: str = ""  # where the shapes come from

    def __post_init__(self) -> None:
        for name, value in self.own.items():
            require(name in OWN, f"model.own.{name}={value}: choose from {', '.join(OWN)}")
        for task in self.tasks:
            require(task in TASKS, f"model.tasks: unknown task '{task}'; choose from {', '.join(TASKS)}")
        self.path = at_home(self.path)
        own = f"model={self.name} has weights of its own and reads no checkpoint"
        choose = f"to load model.path={self.path}, choose the model of that checkpoint"
        require(not self.embedded or self.path is None, f"{own}; {choose}")
