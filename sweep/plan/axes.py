"""What the overrides of a sweep vary: their values, and the feature sets that they ask for. Pure.

Knows Hydra's grammar, not what a field means.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sweep.config.stages import PREFIX
from sweep.refusals import require

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override


def values_of(override: "Override") -> list[str]:
    """The values of one override: several for a sweep, else one. Raises ConfigError for one that lists none."""
    if not override.is_sweep_override():
        return [override.get_value_element_as_str()]
    example = f"{override.get_key_element()}=1,2,4"
    require(override.is_discrete_sweep(), f"{override.input_line}: give a list of values, e.g. {example}")
    values = list(dict.fromkeys(override.sweep_string_iterator()))
    require(bool(values), f"{override.input_line}: gives no value; choose at least one")
    return values


def feature_names(value: str) -> tuple[str, ...]:
    """`teacache` or `[cfg_parallel,teacache]` as sorted names without repeats."""
    names = value.strip().removeprefix("[").removesuffix("]").split(",")
    return tuple(sorted({name.strip().strip("'\"") for name in names if name.strip()}))


def short_name(field: str) -> str:
    """A field in a label: `steps`; with its stage where other stages have a field of that name: `ar.max_num_seqs`."""
    return field.removeprefix(PREFIX) if field.startswith(PREFIX) else field.rpartition(".")[2]


def pairs_and_more(choices: Sequence[tuple[str, ...]], size: int) -> list[tuple[str, ...]]:
    """The choices, then all combinations of up to `size` of the single features among them."""
    import itertools

    singles = sorted({choice[0] for choice in choices if len(choice) == 1})
    result = list(dict.fromkeys(tuple(sorted(choice)) for choice in choices))
    for count in range(2, min(size, len(singles)) + 1):
        result += [combo for combo in itertools.combinations(singles, count) if combo not in result]
    return result
