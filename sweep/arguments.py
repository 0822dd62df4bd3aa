"""What people type, set right or refused before Hydra reads it.

Pure: arguments in, arguments out, or ConfigError with one line. Knows Hydra's grammar, not what a field means.
"""

import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from sweep import slips
from sweep.config.run import ADD_ONS, field_names
from sweep.config.values import at_home
from sweep.names import choices
from sweep.refusals import ConfigError, nearest, require

GROUPS = ("engine", "model", "parallel", "workload", "load", "hardware", "study", "feature")
"""Folders of conf/, whose files are chosen by name; `feature` takes several."""


def prepared(arguments: Sequence[str]) -> list[str]:
    """The arguments as Hydra is to read them. Raises ConfigError."""
    flags, overrides = _separated(arguments)
    sweeps = bool({"-m", "--multirun"} & {*flags})
    overrides = slips.by_hub_id([_home(override) for override in overrides])
    if wrong := contradiction([*flags, *overrides]):
        raise ConfigError(wrong)
    for override in overrides:
        _check(override)
    if wrong := slips.misplaced(flags, overrides, sweeps):
        raise ConfigError(wrong)
    if sweeps:
        return [*flags, *map(_deferred, overrides)]
    chosen = " ".join(override for override in overrides if override.startswith("feature="))
    return [*flags, *(forced(override) if _of_one(override, chosen) else override for override in overrides)]


_GATE = re.compile(r"\+{0,2}(feature\.(\w+)\.gate\.\w+=.*)", re.DOTALL)

_NULL, QUOTED_NULL = re.compile(r"\bnull\b"), "'null'"
"""Quote null: Hydra's grammar has no choice of null, and reads the quoted one as an unused gate."""


def _of_one(override: str, chosen: str) -> bool:
    """Whether it sets a gate of a chosen feature."""
    found = _GATE.fullmatch(override)
    return bool(found and re.search(rf"\b{found[2]}\b", chosen))


def forced(override: str) -> str:
    """`feature.teacache.gate.fail_ssim=0.9` as an override that adds what the feature's file lacks; others unchanged.

    A file sets the gates that it uses; which there are is checked when cells are planned.
    """
    found = _GATE.fullmatch(override)
    return f"++{found[1]}" if found else override


def contradiction(arguments: Sequence[str]) -> str:
    """Options that mix a sweep with a single run. Hydra would ignore them or end with a traceback."""
    sweeps = bool({"-m", "--multirun"} & {*arguments})
    folder = next((a for a in arguments if a.startswith(f"hydra.{'run' if sweeps else 'sweep'}.dir=")), "")
    if folder:
        _, _, place = folder.partition("=")
        if sweeps:
            return f"{folder} is for a single run; for a sweep (-m), write hydra.sweep.dir={place}"
        return f"{folder} is for sweeps (-m); for a single run, write hydra.run.dir={place}"
    if sweeps and {"--cfg", "-c"} & {a.partition("=")[0] for a in arguments}:
        return "--cfg shows a single configuration; drop -m and give each option one value"
    return ""


def _separated(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Hydra's flags, each with its value, and the overrides, in any order. Raises ConfigError."""
    from hydra._internal.utils import get_args_parser

    parser = get_args_parser()
    options: dict[str, Any] = parser._option_string_actions  # the only list of them that argparse has

    def refuse(message: str) -> NoReturn:
        raise ConfigError(f"{message}; flags are listed by python -m sweep --hydra-help")

    parser.error = refuse
    flags: list[str] = []
    overrides: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if not argument.startswith("-"):
            overrides.append(argument)
            continue
        name, _, value = argument.partition("=")
        known = [name] if name in options else [option for option in options if option.startswith(name)]
        if len({options[option].dest for option in known}) != 1:
            _refuse_flag(argument, options)
        action = options[known[0]]
        given = [argument]
        if not value and action.nargs in (None, "?"):  # a flag without a value has nargs 0
            given += _value(rest, action, overrides)
        if given == [argument] and not value and action.nargs == "?":
            given = [f"{action.option_strings[0]}={action.const}"]  # otherwise it would consume the next override
        flags += given
    parser.parse_args(flags)
    return flags, overrides


def _value(rest: Iterator[str], action: Any, overrides: list[str]) -> list[str]:
    """The value that follows a flag. An optional one is a choice of the flag, else the next override."""
    following = next(rest, None)
    if following is None:
        return []
    if action.nargs == "?" and following not in (action.choices or ()):
        overrides.append(following)
        return []
    return [following]


def _refuse_flag(argument: str, options: Iterable[str]) -> NoReturn:
    name, equals, value = argument.lstrip("-").partition("=")
    field = name.replace("-", "_")
    if field in field_names():
        raise ConfigError(f"unknown flag '{argument}'; write {field}={value if equals else '…'} without dashes")
    raise ConfigError(
        f"unknown flag '{argument}'{slips.joined(argument) or nearest(argument.partition('=')[0], options)}"
    )


def _home(override: str) -> str:
    """`hydra.sweep.dir=~/mine` with the home folder: no shell expands it there, and Hydra would make a folder `~`."""
    found = re.fullmatch(r"(\+{0,2}hydra\.(?:run|sweep)\.dir=)(['\"]?)(~[^'\"]*)\2", override)
    if found:
        return f"{found[1]}{found[2]}{at_home(found[3])}{found[2]}"
    other = re.fullmatch(r"(\+{0,2}[\w./]+=)(~/[^'\",]*)", override)  # Hydra accepts ~ only in quotes
    return f"{other[1]}{at_home(other[2])}" if other else override


def _deferred(override: str) -> str:
    """In a multirun, write `feature.teacache.rel_l1_thresh=0.3` and `base=cfg_parallel` as a choice of one value.

    Hydra first composes a configuration without the swept values. It has no features yet and would refuse their
    fields; and `base` is not a field. Choices are left to the sweeper, which knows which cells have the feature.
    """
    found = re.fullmatch(r"\+{0,2}(feature\.\w+\.[\w.]+|base|add)=(?!\w+\()(.+)", override, re.DOTALL)
    if not found:
        return override
    if _GATE.fullmatch(override):
        return f"{found[1]}=choice({_NULL.sub(QUOTED_NULL, found[2])})"
    require(found[2].strip() != "null", f"{override}: a sweep cannot set an option to null; give it a value")
    return f"{found[1]}=choice({found[2]})"


def _check(override: str) -> None:
    """Refuse values that would end Hydra with a traceback. Raises ConfigError."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import Glob

    field = override.partition("=")[0].lstrip("+~")
    require(bool(field.strip()), f"'{override}' names no field; write key=value, e.g. batch=2")
    require(field != "group", f"{override}: internal; it numbers the jobs of a sweep and is not for the command line")
    group = "feature" if field in ADD_ONS else field
    if group not in GROUPS and "glob(" not in override:
        return
    (parsed,) = OverridesParser.create().parse_overrides([override])  # says which override is wrong
    value = parsed._value
    example = "teacache,ulysses" if field in ADD_ONS else "1,2"
    require(
        not isinstance(value, Glob) or field in GROUPS,
        f"{override}: glob() chooses files of a group; {field} takes values, e.g. {field}={example}",
    )
    if parsed.is_delete() or group not in GROUPS or isinstance(value, Glob):
        return
    for one in _elements(value):
        names = one if group == "feature" and isinstance(one, list) else [one]
        for name in names:
            require(
                _is_name(name),
                f"{override}: choose {field} by name{f' or list names, as in {field}=[a,b]' * (group == 'feature')}; "
                f"there are: {', '.join(choices(group))}",
            )


def _elements(value: Any) -> list[Any]:
    """The values of an override: those of a sweep, else one."""
    from hydra.core.override_parser.types import ChoiceSweep

    if isinstance(value, ChoiceSweep):
        return list(value.list)
    return [value]


def _is_name(value: Any) -> bool:
    from hydra.core.override_parser.types import QuotedString

    return isinstance(value, QuotedString | str) and bool(str(getattr(value, "text", value)).strip())


def without_optimisation() -> None:
    """Have Hydra read overrides alike under `python -O`: its parser does some of its work inside assert statements."""
    if not sys.flags.optimize:
        return
    from hydra.core.override_parser import overrides_visitor as visitor

    path = str(visitor.__file__)
    whole: dict[str, Any] = {"__name__": visitor.__name__}
    exec(compile(Path(path).read_text(encoding="utf-8"), path, "exec", optimize=0), whole)
    for name, function in vars(whole["HydraOverrideVisitor"]).items():
        if name.startswith(("visit", "is_", "_")) and not name.startswith("__"):
            setattr(visitor.HydraOverrideVisitor, name, function)


def as_utf8(argument: str) -> str:
    """An argument that the locale could not decode (C without UTF-8 mode), as the UTF-8 that it most likely is."""
    try:
        argument.encode("utf-8")
    except UnicodeEncodeError:
        return os.fsencode(argument).decode("utf-8", "surrogateescape")
    return argument
