"""Names read from a package's Python source without importing it: fields, keyword look-ups, constants.

Knows Python's syntax and nothing of vLLM-Omni. A name that is not where it is expected raises LookupError.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Source:
    """A package's folder; each of its modules is parsed at most once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._modules: dict[str, ast.Module] = {}

    def module(self, path: str) -> ast.Module:
        """The parsed module at `path`, relative to the package."""
        if path not in self._modules:
            file = self.folder / path
            if not file.is_file():
                raise LookupError(f"{self.folder.name} has no {path}")
            self._modules[path] = ast.parse(file.read_bytes())
        return self._modules[path]

    def define(self, path: str, qualname: str) -> ast.AST:
        """The class, method or function `qualname` of a module; of several the last, which is in effect."""
        found: ast.AST = self.module(path)
        for part in qualname.split("."):
            matches = [node for node in getattr(found, "body", []) if getattr(node, "name", None) == part]
            if not matches:
                raise LookupError(f"{self.folder.name}/{path} has no {qualname}")
            found = matches[-1]
        return found

    def fields(self, path: str, name: str) -> frozenset[str]:
        """Public annotated names in the body of class `name`: the fields of a dataclass without its bases'."""
        body = getattr(self.define(path, name), "body", [])
        annotated = (node.target for node in body if isinstance(node, ast.AnnAssign))
        names = {target.id for target in annotated if isinstance(target, ast.Name)}
        return frozenset(name for name in names if not name.startswith("_"))

    def members(self, path: str, name: str) -> frozenset[str]:
        """Names that the body of class `name` assigns strings to: the members of an enumeration."""
        body = getattr(self.define(path, name), "body", [])
        named = [node for node in body if isinstance(node, ast.Assign) and literal(node.value)]
        return frozenset(target.id for node in named for target in node.targets if isinstance(target, ast.Name))

    def function(self, path: str, qualname: str) -> Function:
        """The function or method `qualname`."""
        found = self.define(path, qualname)
        if not isinstance(found, Function):
            raise LookupError(f"{self.folder.name}/{path}: {qualname} is not a function")
        return found

    def strings(self, path: str, name: str) -> frozenset[str]:
        """All string literals in the value that the module's top level assigns to `name`."""
        for node in self.module(path).body:
            targets: list[Any] = getattr(node, "targets", None) or [getattr(node, "target", None)]
            value = getattr(node, "value", None)
            if value is not None and any(isinstance(target, ast.Name) and target.id == name for target in targets):
                return frozenset(text for part in ast.walk(value) if (text := literal(part)))
        raise LookupError(f"{self.folder.name}/{path} does not assign {name}")


def literal(node: ast.AST) -> str:
    """The text of a string literal, or an empty string."""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def parameters(function: Function) -> frozenset[str]:
    """Names of a function's parameters, without self, *args and **kwargs."""
    arguments = function.args
    names = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return frozenset(names) - {"self", "cls"}


def looked_up(function: Function, how: tuple[str, ...]) -> frozenset[str]:
    """Keys that a function takes out of mappings whose name ends in `kwargs`, and uses.

    `how`: "get" for `.get("key")`, "pop" for `.pop("key")`, "[]" for `["key"]`. A pop whose value is
    thrown away drops the key, and is not counted.
    """
    dropped = {id(node.value) for node in ast.walk(function) if isinstance(node, ast.Expr)}
    return frozenset(key for node, form, key in _look_ups(function) if form in how and id(node) not in dropped)


def _look_ups(function: Function) -> Iterator[tuple[ast.AST, str, str]]:
    for node in ast.walk(function):
        if isinstance(node, ast.Subscript):
            owner, form, key = node.value, "[]", literal(node.slice)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
            owner, form, key = node.func.value, node.func.attr, literal(node.args[0])
        else:
            continue
        if key and isinstance(owner, ast.Name) and owner.id.endswith("kwargs"):
            yield node, form, key


def spelled(function: Function) -> frozenset[str]:
    """Keys that a function which renames keys names: arguments of calls, left of `in`, items of tuples."""
    names: set[str] = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Call):
            is_method = isinstance(node.func, ast.Attribute)
            names.update(literal(argument) for argument in (node.args[:1] if is_method else node.args))
        elif isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In | ast.NotIn):
            names.add(literal(node.left))
        elif isinstance(node, ast.Tuple):
            names.update(literal(item) for item in node.elts)
    return frozenset(name for name in names if name.isidentifier() and name == name.lower())


def spelled_flags(function: Function) -> frozenset[str]:
    """String literals that begin with two dashes and are arguments of calls."""
    calls = (node for node in ast.walk(function) if isinstance(node, ast.Call))
    found = (literal(argument) for call in calls for argument in call.args)
    return frozenset(text for text in found if text.startswith("--"))


def compared(function: Function) -> frozenset[str]:
    """String literals that a function compares something with."""
    comparisons = (node for node in ast.walk(function) if isinstance(node, ast.Compare))
    return frozenset(text for node in comparisons for part in ast.walk(node) if (text := literal(part)))


def attributes(folder: Path) -> frozenset[str]:
    """Every name that a folder's own modules read or set as an attribute (`.name`)."""
    texts = (file.read_text(encoding="utf-8") for file in sorted(folder.glob("*.py")))
    return frozenset(name for text in texts for name in re.findall(r"\.(\w+)", text))
