"""Templates of pages: everything is escaped, and a name that is not there is an error."""

import functools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import jinja2


@functools.cache
def template(package: str, name: str) -> "jinja2.Template":
    """A template next to the modules of `package`; compiling it takes longer than filling it in."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(package, "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(name)
