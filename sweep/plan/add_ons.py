"""`base=A add=B,C`: the cells of a sweep that measures what B and C add to A.

Pure: typed words in, feature sets or ConfigError with one line out. Knows no configuration and no results.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sweep.config.run import ADD_ONS
from sweep.plan.axes import pairs_and_more
from sweep.refusals import require

BASE, ADD = ADD_ONS

Names = tuple[str, ...]
"""Features of one cell, sorted."""


@dataclass(frozen=True)
class AddOns:
    """A base and what is added to it, one feature set at a time."""

    base: Names
    added: tuple[Names, ...]

    def combinations(self, size: int) -> list[Names]:
        """The base, then the base with each add-on, and with every combination of up to `size` single ones."""
        return [self.base, *(tuple(sorted({*self.base, *names})) for names in pairs_and_more(self.added, size))]


def add_ons(given: Mapping[str, Sequence[Names]], with_features: bool = False) -> AddOns | None:
    """What `base` and `add` ask for; None when neither is given. Raises ConfigError.

    `with_features`: whether `feature` is on the command line as well.
    """
    bases, added = given.get(BASE, ()), given.get(ADD, ())
    if not bases and not added:
        return None
    base_words, add_words = (f"{word}={_typed(given.get(word, ()))}" for word in (BASE, ADD))
    require(not with_features, "feature= does not go with base= and add=, which name all features; drop feature=")
    require(
        bool(bases),
        f"{add_words}: needs a base, e.g. base=cfg_parallel; for gains over the plain baseline, use feature=",
    )
    require(bool(added), f"{base_words}: needs add-ons, e.g. add=teacache,ulysses")
    one = f"use one base a sweep; for a combination, write base=[{','.join(sorted(set().union(*bases)))}]"
    require(len(bases) == 1, f"{base_words}: {one}")
    require(
        all((*bases, *added)),
        f"{base_words} {add_words}: [] names no feature; for gains over the plain baseline, use feature=",
    )
    for names in added:
        twice = sorted({*names} & {*bases[0]})
        require(not twice, f"{add_words}: {', '.join(twice)} is in the base already ({base_words})")
    return AddOns(bases[0], tuple(dict.fromkeys(added)))


def _typed(values: Sequence[Names]) -> str:
    return ",".join(names[0] if len(names) == 1 else f"[{','.join(names)}]" for names in values)
