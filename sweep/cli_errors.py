"""Bad input explained in one line: what was asked, what is wrong, what to do.

Knows the exceptions of Hydra, OmegaConf and our own ConfigError; anything else is a bug, not bad input.
"""

import re
import traceback

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from sweep import slips
from sweep.names import choices, groups, unknown_field
from sweep.refusals import ConfigError, nearest
from sweep.results.files import unusable

ENTRANCE = ("sweep.cli", "sweep.__main__", "sweep.job_folder")
"""Modules that do nothing but call Hydra."""


def explain(error: BaseException) -> str | None:
    """One line for the user, or None when `error` is not the user's mistake."""
    from hydra.errors import MissingConfigException, OverrideParseException

    if isinstance(error, ConfigError):
        return str(error)
    if isinstance(error, MissingConfigException):
        return _missing_choice(error)
    if isinstance(error, OverrideParseException):
        return f"'{error.override}' is not a valid override; {slips.unreadable(str(error.override))}"
    if isinstance(error, HydraException | OmegaConfBaseException):
        return _composition(error)
    if _inside_hydra(error):
        return _uncomposable(error)
    if isinstance(error, OSError) and not _went_through_us(error):
        # Hydra makes the run's folder before it calls us.
        return f"{unusable(error.filename, error)}; choose another with hydra.run.dir=DIR"
    return None


def _went_through_us(error: BaseException) -> bool:
    """Whether our own code, beyond the entry point, was running when `error` was raised."""
    frames = traceback.walk_tb(error.__traceback__)
    names = [str(frame.f_globals.get("__name__")) for frame, _ in frames]
    return any(name.startswith("sweep.") and name not in ENTRANCE for name in names)


def _inside_hydra(error: BaseException) -> bool:
    """Whether Hydra or OmegaConf raised it while composing; odd overrides make them raise in many ways."""
    if isinstance(error, OSError) or _went_through_us(error):
        return False
    *_, (last, _) = traceback.walk_tb(error.__traceback__)
    return str(last.f_globals.get("__name__")).partition(".")[0] in ("hydra", "omegaconf", "antlr4")


def _uncomposable(error: BaseException) -> str:
    """The override that Hydra was about to apply, which only its stack frames show."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        override = frame.f_locals.get("override")
        line = getattr(override, "input_line", None)
        parent = str(line).partition("=")[0].lstrip("+~").rpartition(".")[0]
        if line and parent and "NoneType" in str(error):
            return f"{line}: {parent} is empty (null) here, so nothing in it can be set"
        if line:
            return f"{line}: cannot be applied ({_first_line(str(error))})"
    return f"the configuration cannot be composed ({_first_line(str(error))}); check the overrides"


def _missing_choice(error: Exception) -> str:
    path = str(getattr(error, "missing_cfg_file", "") or "")
    group, _, choice = path.removeprefix("/").rpartition("/")
    if not group:
        return _first_line(str(error))
    if group.partition("/")[0] in groups():  # our groups have no groups inside
        group, _, choice = path.removeprefix("/").partition("/")
    if group == "model" and "/" in choice:
        return slips.no_such_model(choice)
    options = choices(group) or list(getattr(error, "options", None) or [])
    hint = slips.choice_advice(group, choice) or nearest(choice, options)
    return f"unknown {group} '{choice}'{hint}" + (f" (choose from {', '.join(options)})" if options else "")


def _composition(error: BaseException) -> str:
    text = str(error)
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    key = re.search(r"(?:override|append to|delete) (?:config(?: value)? )?'?([\w./]+)'?", text)
    full_key = getattr(cause, "full_key", None) or (key.group(1) if key else "")
    if str(full_key) == "hydra.launcher.n_jobs":
        return f"{full_key} is a field of another launcher; choose hydra/launcher=joblib first"
    if str(full_key).startswith("engine.args."):
        return f"{full_key} is not there yet; add it with +{full_key}=…"
    if "not in struct" in str(cause) or "is not in struct" in text or "not in '" in str(cause):
        unchosen = re.fullmatch(r"feature\.(\w+)", str(full_key))
        if unchosen and unchosen[1] in choices("feature"):
            return f"{_asked(error, str(full_key))}: feature '{unchosen[1]}' is not chosen; add feature={unchosen[1]}"
        return unknown_field(_asked(error, str(full_key)), _siblings(cause, str(full_key)))
    if present := re.match(r"Could not append to config\. An item is already at '(.*)'", text):
        return f"+{present[1]}: the field is already there; drop the + to set it"
    if text.startswith("Ambiguous value"):
        line = re.search(r"argument '(.*?)'\n", text, re.DOTALL)
        override = line.group(1) if line else ""
        if override.partition("=")[0].lstrip("+") in slips.TEXTS:
            return f"{override} reads as several values; {slips.several(override)}, or add -m to sweep"
        return f"{_first_line(text)}; add -m to sweep over several values"
    if "Could not find" in text and "override" in text.lower():
        group = re.search(r"'([\w/]+)'", text)
        return unknown_field(_asked(error, group.group(1) if group else str(full_key)))
    if wrong := re.match(
        r"Value '(.*)' (?:of type '\w+' could not be converted to|is not a valid) (\w+)", str(cause), re.S
    ):
        return slips.not_a(wrong[2], str(full_key), wrong[1])
    first = _first_line(str(cause))
    return f"{full_key}: {first}" if full_key and str(full_key) not in first else first


def _asked(error: BaseException, key: str) -> str:
    """The whole field of the override that failed: for `teacache.rel_l1_thresh`, Hydra names only `teacache`."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        line = getattr(frame.f_locals.get("override"), "input_line", None)
        field = str(line).partition("=")[0].lstrip("+~")
        if line and field.startswith(f"{key}."):
            return field
    return key


def _siblings(cause: BaseException, full_key: str) -> list[str]:
    """Fields next to the unknown one, such as the options of one feature."""
    parent = getattr(cause, "parent_node", None)
    prefix = full_key.rpartition(".")[0]
    return [f"{prefix}.{key}" for key in parent] if parent is not None and prefix else []


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "unknown error")
