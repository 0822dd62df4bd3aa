"""Plain values as dataclasses of the schema. Texts stay unchanged: interpolations were resolved when composing."""

from collections.abc import Mapping
from typing import Any, TypeVar

from sweep.refusals import ConfigError

T = TypeVar("T")


def typed(values: Mapping[str, Any], kind: type[T], what: str) -> T:
    """`values` as a `kind`; fields that it does not have are left out. Raises ConfigError, which begins with `what`.

    OmegaConf would resolve `${oc.env:…}` in a stored text, and so expose the reader's environment.
    """
    import msgspec

    try:
        return msgspec.convert(values, kind, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{what}: {error}") from error
