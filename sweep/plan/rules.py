"""Rules of a configuration that involve more than one field: sizes and tasks of the model, texts, mixes of a load.

Raises ConfigError with one line for the user. Knows nothing of cells, machines or files that are read.
"""

from pathlib import Path

from sweep.config.load import FIXED
from sweep.config.model import EDITS, TEXT
from sweep.config.run import RunConfig
from sweep.engines import registry
from sweep.refusals import require

OFFLINE = "offline"
"""Name of the load in which an engine gets one batch after another."""

MOST_INPUT_PIXELS = 64_000_000
"""Most pixels of a picture to edit, the same as for those that reports open."""


def check_run(config: RunConfig) -> None:
    """Rules that involve more than one field. Raises ConfigError with one line for the user."""
    registry.check(config)
    model, work = config.model, config.workload
    if work.task == TEXT:
        _check_text(config)
        return
    for name in ("width", "height"):
        value = getattr(work, name)
        multiple = model.size_multiple
        nearest = max(multiple, round(value / multiple) * multiple)
        require(
            value % multiple == 0,
            f"workload.{name}={value}: {model.name} needs a multiple of {multiple}; the nearest is {nearest}",
        )
    require(
        work.width * work.height <= model.max_pixels,
        f"workload.width={work.width}, workload.height={work.height}: {model.name} generates at most "
        f"{model.max_pixels:,} pixels; choose a smaller size",
    )
    require(
        work.task in model.tasks,
        f"workload.task={work.task}: {model.name} supports only {', '.join(model.tasks)}",
    )
    _check_mix(config)
    _check_input_size(config)


def _check_input_size(config: RunConfig) -> None:
    work, size = config.workload, config.workload.input_size
    if size is None:
        return
    asked = f"workload.input_width={work.input_width}, workload.input_height={work.input_height}"
    require(
        config.load.name == OFFLINE,
        f"{asked}: goes with load=offline; under load, load.mix.upload is the side of the pictures that edits send",
    )
    require(size[0] * size[1] <= MOST_INPUT_PIXELS, f"{asked}: edits at most {MOST_INPUT_PIXELS:,} pixels")


def _check_mix(config: RunConfig) -> None:
    mix, model, kind = config.load.mix, config.model, registry.kind(config.engine.name)
    if config.load.name == OFFLINE:
        return  # conf/load/offline.yaml has none
    edits = config.workload.task == EDITS
    require(
        mix.edits is None or not edits,
        f"load.mix.edits={mix.edits} mixes edits into workload.task=text_to_image; with image_edit all are edits",
    )
    anything = kind.attaches or not kind.generates
    require(
        not mix.edits or anything or EDITS in model.tasks,
        f"load.mix.edits={mix.edits}: {model.name} supports only {', '.join(model.tasks)}",
    )
    sides, most = f"load.mix.sides={mix.sides}: {model.name}", model.max_pixels
    for side in mix.sides:
        require(side % model.size_multiple == 0, f"{sides} needs multiples of {model.size_multiple}")
        require(side * side <= most, f"{sides} generates at most {most:,} pixels")
    if mix.mask is not None:
        asked = f"load.mix.mask={mix.mask}"
        require(kind.attaches, f"{asked}: only servers of your own take masks (engine=endpoint)")
        require(Path(mix.mask).is_file(), f"{asked}: no such file")
        require(bool(mix.edits) or edits, f"{asked}: goes with edits (load.mix.edits=0.5 or workload=image_edit)")
    one_size = registry.served(config).get("size")
    require(
        mix.sizes == FIXED or not one_size,
        f"load.mix.sizes={mix.sizes}: the AR stage that vllm serve starts writes pictures of one size",
    )


def _check_text(config: RunConfig) -> None:
    kind, model = registry.kind(config.engine.name), config.model
    require(
        config.load.name != OFFLINE,
        f"workload.task={TEXT} is measured under load; say how requests arrive: load=closed or load=open",
    )
    anything = kind.attaches or not kind.generates
    require(not config.load.mix.mixes, "load.mix goes with images; texts have workload.input_len and a file's lengths")
    require(
        anything or TEXT in model.tasks,
        f"workload.task={TEXT}: {model.name} supports only {', '.join(model.tasks)}",
    )
