"""Where code named by a manifest lives, found without running any of it.

Only modules of installed distributions (and Gnomon's own) may be named; with `trust` also those of the manifest's
folder. Packages are located level by level through the path finder, which, unlike `importlib.util.find_spec`, does not
import a module's parents; the callable is looked for in the source's syntax tree.
"""

import ast
import importlib
import importlib.machinery
import json
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

from gnomon.core.errors import ManifestError, did_you_mean

_ROOT = Path(__file__).resolve().parents[2]  # the folder that holds Gnomon: on the path, installed or not


def locate(target: str, folder: Path, trust: bool = False) -> str:
    """Where `module:callable` is, in words. Runs no code.

    Raises ManifestError when the module is missing, belongs to no installed distribution (unless `trust` is given and
    it lies in `folder`), or plainly has no such callable.
    """
    module, _, name = target.partition(":")
    spec = _find_module(module, None)
    origin = Path(spec.origin).resolve() if spec is not None and spec.origin else None
    owner = _owner(module.split(".")[0], origin) if origin is not None else None
    if owner is None:
        local = _find_module(module, [str(folder)])
        if local is not None and local.origin:
            if not trust:
                raise ManifestError(
                    f"{target!r} is code in {folder}, of no installed package; it runs only with --trust. "
                    "Read it first, or install it as a package"
                )
            origin, owner = Path(local.origin).resolve(), f"trusted, in {folder}"
    if owner is None or origin is None:
        if origin is None:
            raise ManifestError(
                f"no module {module!r} is installed. Install the package that has it, "
                "or put it beside the manifest and pass --trust"
            )
        raise ManifestError(
            f"{target!r} ({origin}) belongs to no installed package; only code of installed packages may be named, "
            "or code beside the manifest with --trust"
        )
    names = top_level_names(origin)
    if names is not None and name not in names:
        raise ManifestError(f"{module!r} has no callable {name!r}.{did_you_mean(name, names)}")
    return owner


def source_of(module: str, folder: Path) -> Path | None:
    """The file of a module, installed or in `folder`; None when there is none."""
    spec = _find_module(module, None) or _find_module(module, [str(folder)])
    return Path(spec.origin) if spec is not None and spec.origin else None


def top_level_names(source: Path) -> set[str] | None:
    """Names that a module binds at its top level; None when that cannot be told (no Python source, `import *`)."""
    if source.suffix != ".py":
        return None
    try:
        tree = ast.parse(source.read_bytes())
    except (SyntaxError, ValueError, OSError, RecursionError):
        return None
    return _bound(tree)


def why_not_inline(code: str, function: str) -> str | None:
    """Why this text cannot be a stage: no Python, or no `function` in it; None when it can. Runs none of it."""
    try:
        names = _bound(ast.parse(code))
    except (SyntaxError, ValueError, RecursionError) as error:
        line = f" (its line {error.lineno})" if isinstance(error, SyntaxError) and error.lineno else ""
        return f"wanted Python, got what it cannot read{line}: {getattr(error, 'msg', error)}"
    if names is not None and function not in names:
        return f"wanted code that defines {function}(context, batch), got {', '.join(sorted(names)) or 'no name'}"
    return None


def _bound(tree: ast.Module) -> set[str] | None:
    """Names that run of a module's top level binds; None when that cannot be told."""
    names: set[str] = set()
    for statement in _statements(tree.body):
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(statement.name)
        elif isinstance(statement, ast.Import | ast.ImportFrom):
            names |= {(a.asname or a.name).split(".")[0] for a in statement.names}
        else:
            names |= {n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return None if "*" in names or "__getattr__" in names else names


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that run when a module is imported, those inside `if` and `try` included."""
    for statement in body:
        yield statement
        if isinstance(statement, ast.If | ast.Try | ast.With):
            for block in ("body", "orelse", "finalbody"):
                yield from _statements(getattr(statement, block, []))
            for handler in getattr(statement, "handlers", []):
                yield from _statements(handler.body)


def _find_module(module: str, path: Sequence[str] | None) -> importlib.machinery.ModuleSpec | None:
    """The spec of a dotted module; parents are located, not imported."""
    if path is not None:
        importlib.invalidate_caches()  # a file written a moment ago
    spec, parts = None, module.split(".")
    for level in range(1, len(parts) + 1):
        spec = importlib.machinery.PathFinder.find_spec(".".join(parts[:level]), path)
        if spec is None:
            return None
        path = list(spec.submodule_search_locations or [])
    return spec


def _owner(top: str, origin: Path) -> str | None:
    """The installed distribution that a module's file belongs to, in words; None when there is none."""
    if top == "gnomon" and origin.is_relative_to(_ROOT / "gnomon"):
        return "part of gnomon"
    for name in metadata.packages_distributions().get(top, []):
        found = metadata.distribution(name)
        if origin.is_relative_to(Path(str(found.locate_file(""))).resolve()):
            return f"installed with {name} {found.version}"
    for found in metadata.distributions():  # editable installs list no modules, only their project's folder
        if found.name == "gnomon":  # its tests and examples are not part of it
            continue
        link = json.loads(found.read_text("direct_url.json") or "{}")
        if link.get("dir_info", {}).get("editable") and origin.is_relative_to(_folder_of(link.get("url", ""))):
            return f"installed (editable) with {found.name} {found.version}"
    return None


def _folder_of(url: str) -> Path:
    from urllib.parse import unquote, urlparse

    return Path(unquote(urlparse(url).path) or "/nonexistent").resolve()
