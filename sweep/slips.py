"""Arguments that are nearly right: what was meant, in one line.

Pure except for what it looks up in conf/. Knows the command line's grammar and names, not what a field means.
"""

import re
from collections.abc import Sequence
from pathlib import PurePath

from sweep.config.run import ADD_ONS, field_names
from sweep.names import choices, choosing, groups, groups_of, hub_ids
from sweep.places import THIS_MACHINE, machine_conf
from sweep.refusals import nearest, require

TEXTS = ("workload.prompt", "workload.negative_prompt")
"""Fields that hold sentences: a comma, a quote or a letter beyond ASCII needs quotes of Hydra's own."""

TYPOGRAPHIC = "‘’‚“”„«»"
"""Quotes that word processors and web pages put in place of straight ones."""

DASHES = "–—−"
"""What they put in place of hyphens."""

NOTHING = ("none", "off", "baseline", "no", "false")
EVERYTHING = ("all", "any", "every", "*")

UNITS = {"load.slo.": ("milliseconds", "200"), "_ms": ("milliseconds", "20"), "_s": ("seconds", "60")}
"""Units that are not typed, by how the field's name begins or ends, each with an example."""


def misplaced(flags: Sequence[str], overrides: Sequence[str], sweeps: bool) -> str:
    """A study without its `+`, which Hydra adds to the configuration, features or add-ons in two places, of which it
    drops one, or add-ons in a single run.

    "" when there is none. A configuration file of one's own (--config-name) may name a study, which may be replaced.
    """
    own = any(flag.startswith(("--config-n", "-cn", "--config-p", "-cp")) for flag in flags)
    for override in overrides:
        if re.match(r"(\+\+)?study=", override) and not own:
            return f"{override}: write {'' if sweeps else '-m '}+{override.lstrip('+')}"
    if wrong := _misplaced_add_ons(overrides, sweeps):
        return wrong
    features = [override for override in overrides if re.match(r"\+{0,2}feature=", override)]
    if len(features) > 1:
        names = ",".join(override.partition("=")[2] for override in features)
        one = (
            f"-m feature={names} for one after another" if "[" not in names else "-m feature=a,b for one after another"
        )
        both = f", or 'feature=[{names}]' for both at once" if not {*"[,"} & {*"".join(features)} else ""
        return f"{' '.join(features)}: features are given once; write {one}{both}"
    return ""


def _misplaced_add_ons(overrides: Sequence[str], sweeps: bool) -> str:
    for word in ADD_ONS:
        given = [override for override in overrides if re.match(rf"\+{{0,2}}{word}=", override)]
        if given and not sweeps:
            return f"{given[0]}: base= and add= make cells of a sweep; add -m"
        if len(given) > 1:
            names = ",".join(override.partition("=")[2] for override in given)
            one = f"'base=[{re.sub(r'[][]', '', names)}]' for a combination" if word == "base" else f"add={names}"
            return f"{' '.join(given)}: {word} is given once; write {one}"
    return ""


def by_hub_id(overrides: Sequence[str]) -> list[str]:
    """`model=Qwen/Qwen-Image` as `model=qwen_image model.path=Qwen/Qwen-Image`, and that path alone likewise.

    Unknown ids are left unchanged: a configuration of one's own may have choices in folders. Raises ConfigError.
    """
    given = {override.partition("=")[0]: override.partition("=")[2].strip("'\"") for override in overrides}
    model, path = given.get("model"), given.get("model.path")
    if model and "/" in model:
        known = {one.lower(): (one, name) for one, name in hub_ids().items()}
        require(
            "," not in model or not {*model.lower().split(",")} & {*known},
            f"model={model}: give one Hub id at a time, because each model has its own model.path",
        )
        if found := known.get(model.lower()):
            own = [override for override in overrides if not override.startswith("model=")]
            return [f"model={found[1]}", *([] if path else [f"model.path={found[0]}"]), *own]
    if path and "/" in path and not {"model", "+study"} & {*given} and (name := hub_ids().get(path)):
        return [f"model={name}", *overrides]
    return list(overrides)


def no_such_model(name: str) -> str:
    """One line about a `model=` that is no choice but reads as a Hub id or a path."""
    if name.startswith(("/", ".", "~")):
        return f"model={name}: for a checkpoint's folder, write its model and model.path={name}, as in model=qwen_image"
    ids = ", ".join(f"{one} ({name})" for one, name in hub_ids().items())
    near = nearest(name, hub_ids())
    return f"model={name}: no model here has this Hub id{near}{' There' if near else '; there'} are: {ids}"


def without_a_sweep(study: str) -> str:
    """A study in a single run, which takes its fixed values and sweeps nothing."""
    return f"+study={study} describes a sweep; write -m +study={study}"


def unreadable(override: str) -> str:
    """What to do about an argument that Hydra's grammar does not take."""
    key, equals, value = override.partition("=")
    plain = key.lstrip("+~")
    if override[:1] in DASHES:
        return f"it begins with a dash that is no hyphen; type {'-' * _hyphens(override)}{override.lstrip(DASHES)}"
    if set(TYPOGRAPHIC) & set(override) and plain not in TEXTS:
        return f"its quotes are typographic; type straight ones, as in '{_straight(override)}'"
    if not equals:
        return _bare(override)
    if plain in TEXTS:
        return _quoting(override)
    if value.count("[") != value.count("]"):
        return "a square bracket is missing; write 'feature=[a,b]'"
    if value.count("'") % 2 or value.count('"') % 2:
        return "a quote in it is never closed"
    if value.endswith(",") or value.startswith(","):
        return f"a value is missing at a comma; write lists without spaces, as in {key}={value.strip(',') or 'a'},b"
    return _quoting(override)


def _hyphens(override: str) -> int:
    """One before a letter, two before a word."""
    return 1 if len(override.lstrip(DASHES).partition("=")[0]) == 1 else 2


def _straight(text: str) -> str:
    """Without quotes, which what is left rarely needs."""
    return "".join(letter for letter in text if letter not in TYPOGRAPHIC)


def _bare(word: str) -> str:
    """An argument without `=`."""
    name = word.lstrip("+~")
    if name in (*groups(), *field_names()):
        return f"it has no value; write {'-m +' * (name == 'study')}{name}=… without spaces around the ="
    if owners := groups_of(name):
        return f"write {' or '.join(choosing(name, owners))}"
    if not re.search(r"\w", word):
        return "write lists and values without spaces, as in feature=a,b"
    if "/" in word:
        return f"to run in that folder again, write hydra.sweep.dir={word}"
    return f"write key=value{nearest(name, (*groups(), *field_names()))}"


def _quoting(override: str) -> str:
    """How to write a value that Hydra's grammar would take apart."""
    key, equals, value = override.partition("=")
    inner = value.strip("\"'")
    plain = key.lstrip("+")
    if plain in TEXTS and equals and not {'"', "'", "\\"} & set(inner) and len(inner) <= 80 and "\n" not in inner:
        return f"""write key=value, and quote a text twice: '{plain}="{inner}"'"""
    if plain in TEXTS:
        example = f"""'{plain}="…"', with \\" for a quote inside"""
        return f"write key=value, and quote a text twice: {example}; or use workload.prompts=FILE"
    example = f"""'{plain if equals else "key"}="…"'"""
    return f"write key=value, and quote what has spaces or special characters twice: {example}"


def several(override: str) -> str:
    """What to do about a text that reads as several values."""
    return _quoting(override).removeprefix("write key=value, and ")


def joined(flag: str) -> str:
    """Flags and overrides that one pair of quotes made a single argument; "" where that is not it."""
    return f"; quotes join it into one argument, so write it without them: {flag}" if " " in flag.strip() else ""


def choice_advice(group: str, choice: str) -> str:
    """What to do about a choice that a group does not have, beyond the nearest name; "" for nothing."""
    if group == "feature" and choice.lower() in NOTHING:
        return "; for the baseline alone, leave feature out"
    if group == "feature" and choice.lower() in EVERYTHING:
        return "; list the features, as in feature=teacache,tp, or run a study: -m +study=compat"
    parts = choice.split("+")
    if group == "feature" and len(parts) > 1 and {*parts} <= {*choices("feature")}:
        return f"; a combination is written as 'feature=[{','.join(parts)}]'"
    if group == "feature" and len(parts) > 1:
        return "; a combination is written as 'feature=[a,b]'"
    if group == "engine" and choice in ("cpu", "cuda", "gpu"):
        return f"; for the device, write engine.device={choice.replace('gpu', 'cuda')}"
    if group == "workload" and re.search(r"\.(txt|jsonl?|csv|tsv)$", choice):
        return f"; for prompts of your own, write workload.prompts={choice}"
    if group == "hardware":
        return _hardware_advice(choice)
    if others := [owner for owner in groups_of(choice) if owner != group]:
        return f"; there is {' and '.join(choosing(choice, others))}"
    return ""


def _hardware_advice(choice: str) -> str:
    """The same for hardware: what was not measured yet, a file, a device by the name that its driver has for it."""
    from sweep.predict.hardware import by_device_name

    if choice == THIS_MACHINE:
        return "; measure it first, with python -m sweep.predict measure"
    if choice.endswith((".yaml", ".yml")):
        return f"; move the file to {machine_conf() / 'hardware'} and write hardware={PurePath(choice).stem}"
    known = by_device_name(choice)
    return f"; write hardware={known.name}" if known else ""


def not_a(kind: str, field: str, value: str) -> str:
    """What a field takes, where `value` is not of that kind (OmegaConf's name of it)."""
    asked = f"{field}={value}"
    if "bool" in kind.lower():
        return f"{asked}: must be true or false"
    whole = kind == "Integer"
    number = "a whole number" if whole else "a number"
    if kind not in ("Integer", "Float"):
        return f"{asked}: must be of type {kind}"
    if re.fullmatch(r"\d+\s*(-|:|\.\.)\s*\d+", value) or re.fullmatch(r"\d+( +\d+)+", value):
        return f"{asked}: must be {number}; to sweep over several, list them with commas, as in -m {field}=1,2,4"
    for name, (unit, example) in UNITS.items():
        if field.startswith(name) or field.endswith(name):
            return f"{asked}: must be {number} of {unit}, without the unit, as in {field}={example}"
    if re.fullmatch(r"[\d.]+\s*[A-Za-z%]+", value):
        return f"{asked}: must be {number}, without a unit"
    return f"{asked}: must be {number}"
