"""From names to files: which manifests there are, which version a reference means, and which paths a manifest may name.

Manifests are looked for in the folder of the manifest that refers to them, in the folders of `--search`, in what
installed packages register under the entry-point group 'gnomon.manifests' (a package with YAML files), and in the zoo.
"""

import importlib.machinery
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path, PurePosixPath, PureWindowsPath

from packaging.version import Version

from gnomon.core.errors import ManifestError, MissingReference, UnknownName, VersionConflict, did_you_mean
from gnomon.spec.load import LARGEST_FILE, Loaded, load
from gnomon.spec.manifest import Manifest

ENTRY_POINTS = "gnomon.manifests"
_SUFFIXES = (".yaml", ".yml")
_HEAD = re.compile(r"""^[ \t{]*["']?apiVersion["']?[ \t]*:[ \t]*["']?gnomon/""", re.MULTILINE)
_KIND = re.compile(r"""^[ \t{]*["']?kind["']?[ \t]*:[ \t]*["']?([A-Z][a-z]+)""", re.MULTILINE)
_NAME = re.compile(r"""["'{,\s]name["']?[ \t]*:[ \t]*["']?([a-z0-9][a-z0-9._-]*)""")
_MOST_FILES = 5_000  # a search folder is no home directory


@dataclass(frozen=True, slots=True)
class Found:
    """A manifest and where it stands. why: how it was chosen, in words."""

    manifest: Manifest
    loaded: Loaded
    why: str

    @property
    def path(self) -> Path:
        return self.loaded.path


def shipped_folder() -> Path:
    """The folder of the zoo; its Python is not imported."""
    return Path(str(resources.files("gnomon").joinpath("zoo")))


def registered_folders() -> list[Path]:
    """Folders of the packages that other distributions register; a package is located, not imported."""
    folders: list[Path] = []
    for point in metadata.entry_points(group=ENTRY_POINTS):
        top, _, rest = point.value.partition(":")[0].partition(".")
        spec = importlib.machinery.PathFinder.find_spec(top)
        for location in (spec.submodule_search_locations or []) if spec else []:
            folders.append(Path(location, *rest.split(".")) if rest else Path(location))
    return folders


def manifest_files(folder: Path | None = None, search: Sequence[Path] = ()) -> list[Path]:
    """Files that call themselves manifests: in `folder`, in `search`, registered, shipped; each once, in this order."""
    near = [*([folder] if folder is not None else []), *search]
    candidates = [p for f in near for p in _listed(f.glob("*"))]
    candidates += [p for f in (*registered_folders(), shipped_folder()) for p in _listed(f.rglob("*"))]
    files: dict[Path, Path] = {}
    for path in candidates:
        files.setdefault(path.resolve(), path)
    return [path for path in files.values() if _claims_to_be_one(path)]


def _listed(paths: Iterator[Path]) -> list[Path]:
    found: list[Path] = []
    for count, path in enumerate(paths):
        if count >= _MOST_FILES:
            raise ManifestError(f"{path.parent}: more than {_MOST_FILES:,} files; name a smaller folder with --search")
        if path.suffix in _SUFFIXES and path.is_file():
            found.append(path)
    return sorted(found)


def _claims_to_be_one(path: Path) -> bool:
    try:
        small = path.stat().st_size <= LARGEST_FILE
        return small and _HEAD.search(path.read_text("utf-8", errors="replace")) is not None
    except OSError:
        return False


def task_names(search: Sequence[Path] = ()) -> list[str]:
    """Names of the tasks that can be given to `resolve`: shipped, registered, and those in `search`."""
    return sorted({found.manifest.metadata.name for found in tasks(search)})


def tasks(search: Sequence[Path] = ()) -> list[Found]:
    """Every task manifest that can be read, in the order of names and versions."""
    found = [f for f in _readable(manifest_files(None, search))[0] if f.manifest.kind == "Task"]
    return sorted(found, key=lambda f: (f.manifest.metadata.name, Version(f.manifest.metadata.version)))


def _readable(files: Sequence[Path], name: str | None = None) -> tuple[list[Found], list[str]]:
    """Manifests of these files (only those that may be called `name`), and what is wrong with the rest."""
    found, broken = [], []
    for path in files:
        if name is not None and name not in _NAME.findall(path.read_text("utf-8", errors="replace")):
            continue  # parsing is a thousand times slower than this look
        try:
            loaded = load(path)
            found.append(Found(loaded.manifest(), loaded, f"in {path.parent}"))
        except ManifestError as error:
            broken.append(str(error).splitlines()[0])
    return found, broken


def find(kind: str, reference: str, folder: Path | None = None, search: Sequence[Path] = ()) -> Found:
    """The manifest that `name@constraint` means: of `kind`, the highest version that satisfies the constraint.

    Raises UnknownName when there is none of that name, ManifestError when it is of another kind, VersionConflict when
    no version satisfies, or when two different manifests claim the same name and version.
    """
    name, _, constraint = reference.partition("@")
    files = manifest_files(folder, search)
    readable, broken = _readable(files, name)
    named = [f for f in readable if f.manifest.metadata.name == name]
    of_kind = [f for f in named if f.manifest.kind == kind]
    if not of_kind:
        if named:
            others = ", ".join(f"{f.manifest.kind} in {f.path}" for f in named)
            raise ManifestError(f"wanted a {kind} called {name!r}; there is a {others}")
        known = _names_at_a_glance(files, kind)
        skipped = f" Skipped: {broken[0]}" if broken else ""
        names = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "") or "none"
        raise UnknownName(f"no {kind.lower()} is called {name!r}.{did_you_mean(name, known)} Known: {names}.{skipped}")
    satisfying = [f for f in of_kind if satisfies(f.manifest, constraint)]
    if not satisfying:
        have = ", ".join(sorted({f.manifest.metadata.version for f in of_kind}, key=Version))
        raise VersionConflict(f"no version of {kind.lower()} {name!r} satisfies {constraint!r}; there are: {have}")
    best = max(Version(f.manifest.metadata.version) for f in satisfying)
    candidates = [f for f in satisfying if Version(f.manifest.metadata.version) == best]
    if len({f.manifest.digest for f in candidates}) > 1:
        places = " and ".join(str(f.path) for f in candidates)
        raise VersionConflict(
            f"{kind.lower()} {name}@{best} is ambiguous: {places} differ. Give one of them another version, "
            f"or pin it as {name}@{candidates[0].manifest.digest}"
        )
    chosen = candidates[0]
    count = len({f.manifest.metadata.version for f in of_kind})
    why = f"highest of {count} version{'s' if count > 1 else ''} that satisfies {constraint or '*'!r}"
    return Found(chosen.manifest, chosen.loaded, why)


def _names_at_a_glance(files: Sequence[Path], kind: str) -> list[str]:
    """Names of the manifests of a kind, to be offered: found without parsing."""
    names = set()
    for path in files:
        text = path.read_text("utf-8", errors="replace")
        name, found = _NAME.search(text), _KIND.search(text)
        if name is not None and found is not None and found[1] == kind:
            names.add(name[1])
    return sorted(names)


def satisfies(manifest: Manifest, constraint: str) -> bool:
    """Does a manifest satisfy '^1.2', '~1.2', '>=1,<2', '1.2.0', '*', '' or 'sha256:...'?"""
    if constraint.startswith("sha256:"):
        return manifest.digest == constraint
    return version_satisfies(manifest.metadata.version, constraint)


def version_satisfies(version: str, constraint: str) -> bool:
    """SemVer ranges: '^1.2' is >=1.2,<2 (^0.2 is >=0.2,<0.3); '~1.2' is >=1.2,<1.3; '1.2' is exactly 1.2.

    Versions before a release (1.0rc1) satisfy only a constraint that names one.
    """
    found = Version(version)
    if constraint in ("", "*"):
        return not found.is_prerelease
    clauses = constraint.split(",")
    if found.is_prerelease and not any(re.search("a|b|rc", clause) for clause in clauses):
        return False
    return all(_clause_holds(found, clause) for clause in clauses)


def _clause_holds(found: Version, clause: str) -> bool:
    match = re.fullmatch(r"(\^|~|==|>=|<=|>|<|!=)?(.*)", clause)
    assert match is not None  # the grammar of references was checked
    operator, wanted = match[1] or "==", Version(match[2])
    if operator in ("^", "~"):
        return wanted <= found < Version(_upper(operator, wanted)) and not (
            found.is_prerelease and found.release >= Version(_upper(operator, wanted)).release
        )
    holds = {
        "==": found == wanted, ">=": found >= wanted, "<=": found <= wanted,
        ">": found > wanted, "<": found < wanted, "!=": found != wanted,
    }  # fmt: skip
    return holds[operator]


def _upper(operator: str, wanted: Version) -> str:
    """The first version beyond a caret or tilde range."""
    release = [*wanted.release]
    if operator == "~":
        keep = min(len(release), 2)
    else:  # the leftmost number that is not zero may not change
        keep = next((i + 1 for i, number in enumerate(release) if number), len(release))
    return ".".join(str(n) for n in [*release[: keep - 1], release[keep - 1] + 1])


def inside(folder: Path, relative: str) -> Path:
    """The file `relative` to `folder`, which must lie in that folder when all symbolic links are followed.

    Raises ManifestError for an absolute path, '..', a backslash, a link that leaves the folder, and a folder;
    MissingReference when there is no such file.
    """
    pure = PurePosixPath(relative)
    if pure.is_absolute() or PureWindowsPath(relative).drive or "\\" in relative or ".." in pure.parts:
        raise ManifestError(
            f"the path {relative!r} may not leave the manifest's folder; wanted one such as './part.yaml'"
        )
    if "\0" in relative:
        raise ManifestError("a path may not hold a NUL character")
    path = folder / pure
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ManifestError(f"the path {relative!r} leaves the manifest's folder through a symbolic link")
    if path.is_dir():
        raise ManifestError(f"{relative!r} is a folder; wanted a file")
    if not path.is_file():
        near = did_you_mean(path.name, [p.name for p in path.parent.iterdir()]) if path.parent.is_dir() else ""
        raise MissingReference(f"there is no file {relative!r} in {folder.resolve()}.{near}")
    return path
