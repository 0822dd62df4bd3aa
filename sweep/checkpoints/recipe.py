"""What to build: model, depth of each part, widths, seed. Knows nothing of tensors or files."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

VERSION = 1  # of the recipes as a whole; raise it when the same recipe would produce different files


class CheckpointError(Exception):
    """A checkpoint cannot be built as requested; the message is one line for the user."""


@dataclass(frozen=True)
class Family:
    """A model that can be built."""

    summary: str
    layers: Mapping[str, int]  # default depth of each part, in the order of the folder's name
    tiny_layers: Mapping[str, int]
    real_layers: Mapping[str, int]
    workload: str = "image_1024"  # workload that its real widths are meant for
    fixed_by_loader: tuple[str, ...] = ()  # vLLM-Omni ignores the config of these parts: it loads real sizes only
    in_diffusers: bool = True  # diffusers has its pipeline
    single_streams: int = 0  # blocks of the real DiT with one set of weights for all tokens
    least: Mapping[str, int] = field(default_factory=dict)  # lowest depths of parts that need more than one layer


FAMILIES: Mapping[str, Family] = {
    "qwen_image": Family(
        "dual-stream DiT after a Qwen2.5-VL text encoder",
        layers={"dit": 20, "text": 4, "vision": 1},
        tiny_layers={"dit": 4, "text": 2, "vision": 1},
        real_layers={"dit": 60, "text": 28, "vision": 32},
    ),
    "qwen_image_edit": Family(
        "the same DiT with an input image, which the text encoder also sees",
        layers={"dit": 20, "text": 4, "vision": 4},
        tiny_layers={"dit": 4, "text": 2, "vision": 1},
        real_layers={"dit": 60, "text": 28, "vision": 32},
        workload="image_edit_1024",
    ),
    "z_image": Family(
        "single-stream DiT after a Qwen3 text encoder",
        layers={"dit": 30, "text": 4},
        tiny_layers={"dit": 2, "text": 2},
        real_layers={"dit": 30, "text": 36},
        fixed_by_loader=("dit",),
    ),
    "glm_image": Family(
        "AR model that writes image tokens, then a DiT that renders them",
        layers={"ar": 4, "dit": 6, "vision": 2},
        tiny_layers={"ar": 2, "dit": 2, "vision": 1},
        real_layers={"ar": 40, "dit": 30, "vision": 40},
    ),
    "flux": Family(
        "DiT of dual-stream and single-stream blocks after T5 and CLIP",
        layers={"dit": 12, "text": 4},
        tiny_layers={"dit": 3, "text": 2},
        real_layers={"dit": 57, "text": 24},
        single_streams=38,
        least={"dit": 2},
    ),
    "flux2_klein": Family(
        "four-step DiT with shared modulation after a Qwen3 text encoder",
        layers={"dit": 25, "text": 4},
        tiny_layers={"dit": 5, "text": 4},
        real_layers={"dit": 25, "text": 36},
        single_streams=20,
        least={"dit": 2, "text": 4},
    ),
    "bagel": Family(
        "AR model and DiT in one stack of layers with two sets of weights",
        layers={"dit": 4, "vision": 2},
        tiny_layers={"dit": 2, "vision": 1},
        real_layers={"dit": 28, "vision": 26},
        fixed_by_loader=("vae",),
        in_diffusers=False,
    ),
}
MINIMUM_LAYERS = {"text": 2}  # Z-Image reads the second-to-last hidden state


@dataclass(frozen=True)
class Recipe:
    """One checkpoint, fully resolved. Equal recipes give equal files on the same kind of device."""

    model: str
    layers: Mapping[str, int]  # part → number of layers
    tiny: bool = False  # toy widths, for CPU tests
    seed: int = 0

    @property
    def family(self) -> Family:
        """Defaults and limits of this model."""
        return FAMILIES[self.model]

    @property
    def name(self) -> str:
        """Name of the folder, such as `qwen_image-20-layers-random`: the depths that matter to a reader."""
        defaults = self.family.tiny_layers if self.tiny else self.family.layers
        shown = [part for part in self.layers if part in ("dit", "ar") or self.layers[part] != defaults[part]]
        depths = [f"{self.layers[part]}-{part}" for part in shown]
        depth = f"{self.layers['dit']}-layers" if shown == ["dit"] else "-".join([*depths, "layers"])
        return "-".join([self.model, *["tiny"] * self.tiny, depth, *[f"seed{self.seed}"] * bool(self.seed), "random"])

    @property
    def loads_in_vllm_omni(self) -> bool:
        """False when vLLM-Omni would build sizes that differ from this checkpoint, and refuse it."""
        real = self.family.real_layers
        return not any(self.tiny or self.layers.get(part) != real.get(part) for part in self.family.fixed_by_loader)

    def identity(self) -> dict[str, object]:
        """What two checkpoints must share to be the same one, as JSON values."""
        return {
            "model": self.model,
            "layers": dict(self.layers),
            "tiny": self.tiny,
            "seed": self.seed,
            "recipe": VERSION,
        }


def resolve(model: str, asked: Mapping[str, int | None], tiny: bool = False, seed: int = 0) -> Recipe:
    """The recipe of `model` with the depths in `asked` (None: the default of that part).

    Raises CheckpointError for a part that the model does not have, or a depth outside 1 … the real model's.
    """
    family = FAMILIES[model]
    recipe = Recipe(model, family.tiny_layers if tiny else family.layers, tiny, seed)
    for part, count in asked.items():
        if count is None:
            continue
        if part not in family.layers:
            known = ", ".join(f"--{name}-layers" for name in family.layers)
            raise CheckpointError(f"--{part}-layers: {model} has no such part; choose from {known}")
        lowest, highest = {**MINIMUM_LAYERS, **family.least}.get(part, 1), family.real_layers[part]
        if not lowest <= count <= highest:
            raise CheckpointError(
                f"--{part}-layers {count}: must be from {lowest} to {highest}, the depth of the real {model}"
            )
        recipe = replace(recipe, layers={**recipe.layers, part: count})
    if seed < 0:
        raise CheckpointError(f"--seed {seed}: must be 0 or more")
    return recipe


def streams(recipe: Recipe) -> tuple[int, int]:
    """Dual-stream and single-stream blocks of a DiT that has both, in the same proportion as in the real one."""
    family, depth = recipe.family, recipe.layers["dit"]
    single = round(family.single_streams * depth / family.real_layers["dit"])
    single = min(max(single, 1), depth - 1)
    return depth - single, single
