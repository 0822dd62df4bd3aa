"""Group `workload`: which prompts, pictures and texts, of what size."""

from dataclasses import dataclass

from sweep.config.model import EDITS, TASKS, TEXT
from sweep.refusals import require

WORLD_TURNS = "world_turns"
"""The shipped edits of several turns, with pictures of their own; other sets have only prompts."""

PROMPT_SETS = ("world", "world_edits", WORLD_TURNS, "short", "mixed", "long")


LONGEST_TEXT = 131_072
"""Most tokens of a prompt, and of what is written after it."""


@dataclass
class Workload:
    """The requests of a cell: which prompts, what size, how many steps, which seeds."""

    name: str = "text_to_image"
    task: str = "text_to_image"  # image_edit, or text, which is measured under load
    prompts: str | None = (
        None  # file of prompts: .txt (one per line), .jsonl, .json, .csv, .tsv; None: the shipped ones
    )
    prompts_column: str | None = None  # its column or key that holds the prompts; None: prompt, text or caption
    prompt: str | None = None  # a single prompt instead of a file
    prompt_set: str = "short"  # shipped prompts: world, world_edits, world_turns, short, mixed, long
    num_prompts: int | None = None  # None: all prompts of a file or lines of a folder of yours, else `shipped_prompts`
    shipped_prompts: int = 4  # how many of the shipped prompts, or how often a single `prompt`, without num_prompts
    prompt_tokens: int | None = None  # pad or trim each prompt to this many tokens of the model's tokenizer
    negative_prompt: str | None = " "
    input_image: str | None = None  # file for image_edit; None: an image generated from the seed
    edits: str | None = None  # folder with edits.jsonl for image_edit: pictures with instructions; docs/edits.md
    input_width: int | None = None  # pixels to which pictures are resized before they are edited; None: as the result
    input_height: int | None = None  # where only one of the two is given, the other keeps the result's shape
    width: int = 64  # pixels
    height: int = 64  # pixels
    steps: int = 8  # denoising steps
    guidance_scale: float = 4.0  # classifier-free guidance (true_cfg_scale on Qwen-Image); 1 disables it
    checks: bool = True  # check whether pictures match prompts, where the model learnt a world that can be checked
    seeds_per_prompt: int = 1
    repeats: int = 3  # how often the same requests are measured
    # text only
    input_len: int | None = None  # tokens of random prompts, where neither prompt nor prompts is given
    output_len: int | None = None  # tokens to write; None: as many as the reply in a ShareGPT file has, else 128
    prompt_ids: bool | None = None  # send random prompts as tokens, which makes input_len exact; None: if embedded
    temperature: float = 1.0  # 0 takes the likeliest token

    def __post_init__(self) -> None:
        require(self.task in TASKS, f"workload.task={self.task}: choose from {', '.join(TASKS)}")
        require(
            self.prompt_set in PROMPT_SETS,
            f"workload.prompt_set={self.prompt_set}: choose {', '.join(PROMPT_SETS[:-1])} or {PROMPT_SETS[-1]}",
        )
        counts = ("num_prompts", "shipped_prompts", "steps", "seeds_per_prompt", "repeats")
        for name in (*counts, "width", "height", "input_width", "input_height"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"workload.{name}={value}: must be at least 1")
        require(
            self.prompt_tokens is None or self.prompt_tokens <= 1_000_000,
            f"workload.prompt_tokens={self.prompt_tokens}: must be at most 1,000,000",
        )
        require(self.steps <= 1000, f"workload.steps={self.steps}: must be at most 1000")
        require(self.guidance_scale >= 0, f"workload.guidance_scale={self.guidance_scale}: must be 0 or more")
        require(
            self.prompt_tokens is None or self.prompt_tokens >= 1,
            f"workload.prompt_tokens={self.prompt_tokens}: must be at least 1",
        )
        self._check_text()
        self._check_edits()

    def number_of(self, there: int) -> int:
        """How many prompts a cell generates out of `there` distinct ones: as configured, else a file's whole content.

        For edits in a folder it counts lines, each with all its turns.
        """
        if self.num_prompts is not None:
            return self.num_prompts
        yours = self.edits is not None or (self.prompts is not None and self.prompt is None)
        return there if yours else self.shipped_prompts

    @property
    def input_size(self) -> tuple[int, int] | None:
        """Width and height to which pictures are resized before they are edited; None: those of the result."""
        width, height = self.input_width, self.input_height
        if width is None and height is None:
            return None
        return (
            width if width is not None else max(1, round((height or 0) * self.width / self.height)),
            height if height is not None else max(1, round((width or 0) * self.height / self.width)),
        )

    @property
    def reads_edits(self) -> bool:
        """Whether pictures come with their instructions: from a folder of the user's, or the shipped one."""
        shipped = self.prompt_set == WORLD_TURNS and self.prompt is None and self.prompts is None
        return self.task == EDITS and (self.edits is not None or shipped)

    def _check_edits(self) -> None:
        for name in ("edits", "input_width", "input_height"):
            value = getattr(self, name)
            require(value is None or self.task == EDITS, f"workload.{name}={value}: goes with workload=image_edit")
        require(
            self.task == EDITS or self.prompt_set != WORLD_TURNS,
            f"workload.prompt_set={WORLD_TURNS}: goes with workload=image_edit",
        )
        source = f"edits={self.edits}" if self.edits is not None else f"prompt_set={self.prompt_set}"
        for name in ("prompt", "prompts", "input_image") if self.edits is not None else ("input_image",):
            value = getattr(self, name)
            require(
                value is None or not self.reads_edits,
                f"workload.{source} has pictures and instructions of its own; drop workload.{name}={value}",
            )

    def _check_text(self) -> None:
        for name in ("input_len", "output_len"):
            value = getattr(self, name)
            require(value is None or self.task == TEXT, f"workload.{name}={value}: goes with workload=text")
            require(
                value is None or 1 <= value <= LONGEST_TEXT,
                f"workload.{name}={value}: must be from 1 to {LONGEST_TEXT:,} tokens",
            )
        require(0 <= self.temperature <= 2, f"workload.temperature={self.temperature}: must be from 0 to 2")
        given = self.prompt is not None or self.prompts is not None or self.input_len is not None
        require(
            self.task != TEXT or given,
            "workload.task=text needs workload.input_len=N for random prompts, or workload.prompts=FILE",
        )
