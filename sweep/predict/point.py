"""The input of a prediction: one configuration, reduced to what its work depends on. Pure.

`point_of` makes one of a RunConfig. Knows nothing of seconds, bytes or machines.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from sweep.config.engine import resolved_dtype
from sweep.config.model import EDITS, TEXT, Dit, Model, Vae
from sweep.config.run import RunConfig
from sweep.engines import registry
from sweep.engines.vllm_omni.families import BATCHING
from sweep.plan import features as feature_rules
from sweep.predict import vision
from sweep.predict.effects import Effects, merged
from sweep.refusals import require

TOKENS_OF_A_PROMPT = {"world": 12, "world_edits": 12, "world_turns": 12, "short": 20, "mixed": 60, "long": 250}
"""Tokens of the shipped prompts, roughly; workload.prompt_tokens overrides them."""

TEMPLATE = {"bagel": 2, "qwen_image": 34, "qwen_image_edit": 64, "glm_image": 60, "z_image": 12}
"""Tokens that a pipeline puts around a prompt: its chat template."""

GLYPHS = 8
"""Tokens of GLM-Image's quoted text, one a byte; two where nothing is quoted."""


@dataclass(frozen=True)
class Point:
    """One configuration. Sizes in pixels."""

    model: Model = field(hash=False)
    engine: str
    device: str  # cpu or cuda
    dtype: str
    batch: int
    width: int
    height: int
    steps: int
    branches: float  # guidance branches of a step, on average: 2, or 1 where guidance is off or distilled
    text_tokens: int  # of a prompt, as the DiT sees them
    prompt_tokens: int  # as the text encoder or the AR stage reads them
    effects: Effects
    ranks: int  # devices of the DiT
    stage_devices: int = 0  # further devices, of the AR stage
    edits: bool = False  # the DiT also sees the picture to edit
    source: tuple[int, int] = (0, 0)  # width and height in which it sees it
    pictures: int = 1  # of a cell: prompts × seeds × repeats
    features: tuple[str, ...] = ()

    @property
    def gpus(self) -> int:
        """Devices of the cell."""
        return self.ranks + self.stage_devices

    @property
    def pixels(self) -> float:
        """Of all pictures of a batch."""
        return float(self.batch * self.width * self.height)

    @property
    def image_tokens(self) -> int:
        """Tokens of the picture in the DiT, those of the picture to edit among them."""
        side = self.model.patch * self.model.vae_scale
        seen = [(self.width, self.height)] + ([self.source] if self.edits else [])
        return sum((width // side) * (height // side) for width, height in seen)

    @property
    def ar_tokens(self) -> int:
        """Tokens that the AR stage writes for a picture: preview, target, end. After GLM-Image's processor.

        One that hands over its KV cache writes a few unused tokens, until it learns that the cache is on its way.
        """
        if self.cached_text:
            return UNREAD_TOKENS
        side = self.model.size_multiple
        rows, columns = self.height // side, self.width // side
        ratio, half = rows / columns, side // 2
        preview = max(1, int(math.sqrt(ratio) * half)) * max(1, int(math.sqrt(1 / ratio) * half))
        return rows * columns + 1 + (0 if self.edits else preview)

    @property
    def cached_text(self) -> bool:
        """Whether the AR stage hands over the KV cache of its prompt, and no tokens."""
        return self.model.dit is not None and self.model.dit.cached_text

    @property
    def drawn_at_once(self) -> int:
        """Pictures of a batch that the DiT draws together: vLLM-Omni draws those of some families one by one."""
        return 1 if self.engine == "vllm_omni" and self.model.family not in BATCHING else self.batch

    @property
    def compiled(self) -> bool:
        """Whether the DiT's blocks are compiled: vLLM-Omni does so where the model says how, diffusers does not."""
        if self.effects.compiled is not None:
            return self.effects.compiled
        return self.engine == "vllm_omni" and self.model.family not in EAGER_FAMILIES


EAGER_FAMILIES = ("glm_image", "bagel", "hunyuan_image3")
"""Families whose DiT vLLM-Omni runs eagerly: no _repeated_blocks, or deployed so (conf/feature/eager.yaml)."""


def shaped(model: Model) -> tuple[Dit, Vae]:
    """DiT and VAE of a model whose shapes are known. Raises ConfigError."""
    known = (
        model.dit is not None
        and model.vae is not None
        and model.dit.layers
        and (model.dit.modulation or model.dit.joined_modulation or model.dit.cached_text)
    )
    require(
        bool(known),
        f"model={model.name} cannot be predicted: conf/model/{model.name}.yaml does not say the whole shape of its "
        "DiT and VAE (context, modulation, channels)",
    )
    assert model.dit is not None
    assert model.vae is not None
    return model.dit, model.vae


def check_stages(model: Model) -> None:
    """Raises ConfigError for stages that run in a way whose times are unknown."""
    eager = bool(model.stages.ar.enforce_eager) and model.ar is not None and not (model.dit and model.dit.cached_text)
    require(
        not eager,
        "model.stages.ar.enforce_eager=true cannot be predicted: how long a step takes is known with CUDA graphs alone",
    )


def point_of(run: RunConfig, device: str = "cuda", learnt: Mapping[str, float] | None = None) -> Point:
    """The point of `run`, on `cpu` or `cuda`. Raises ConfigError for what cannot be predicted."""
    kind, work, model = registry.kind(run.engine.name), run.workload, run.model
    require(
        kind.generates and not kind.attaches, f"engine={run.engine.name} cannot be predicted: it runs no model of ours"
    )
    require(work.task != TEXT, "workload.task=text cannot be predicted: only pictures can")
    dit, _ = shaped(model)
    check_stages(model)
    chosen = feature_rules.parse_features(run.feature, run.engine.name)
    ranks = feature_rules.gpus_needed(chosen)
    edits = work.task == EDITS
    source = vision.scaled(model, *(work.input_size or (work.width, work.height))) if edits else (0, 0)
    said = (work.prompt_tokens or TOKENS_OF_A_PROMPT[work.prompt_set]) + picture_tokens(model, source)
    guided = work.guidance_scale > 1 and work.negative_prompt is not None and not dit.distilled
    effects = merged(chosen, learnt)
    if run.engine.args.get("enforce_eager"):
        effects = _eager(effects)
    return Point(
        model=model,
        engine=run.engine.name,
        device=device,
        dtype=resolved_dtype(run.engine.dtype, device),
        batch=run.batch,
        width=work.width,
        height=work.height,
        steps=work.steps,
        branches=_branches(model, work.steps) if guided else 1,
        text_tokens=_text_tokens(model, said),
        prompt_tokens=said + TEMPLATE.get(model.family, 0),
        effects=effects,
        ranks=ranks,
        stage_devices=kind.stage_devices(run),
        edits=edits,
        source=source,
        pictures=(work.num_prompts or work.shipped_prompts) * work.seeds_per_prompt * work.repeats,
        features=tuple(feature.name for feature in chosen),
    )


UNREAD_TOKENS = 3
"""Tokens of BAGEL's AR stage: the first one, and those of the steps until its KV cache is on its way."""

BRANCHES, GUIDED_FROM, SHIFT = 3, 0.4, 3.0
"""For BAGEL: guidance branches, the time from which a step is guided (`cfg_interval`), and how times are shifted."""


def _branches(model: Model, steps: int) -> float:
    if model.family != "bagel":
        return 2
    even = (1 - step / steps for step in range(steps))
    guided = sum(SHIFT * time / (1 + (SHIFT - 1) * time) > GUIDED_FROM for time in even)
    return 1 + (BRANCHES - 1) * guided / steps


def picture_tokens(model: Model, source: tuple[int, int]) -> int:
    """Tokens of a picture to edit among those of its prompt; 0 where the text encoder reads none."""
    return vision.tokens(model.vision, *source) if model.vision is not None and all(source) else 0


def _text_tokens(model: Model, prompt: int) -> int:
    if model.text_encoder is not None and model.text_encoder.tokens:
        return model.text_encoder.tokens
    return GLYPHS if model.family == "glm_image" else prompt


def _eager(effects: Effects) -> Effects:
    return dataclasses.replace(effects, compiled=False)
