"""A folder of files that somebody has fetched: found by name, their MD5 compared with what a manifest states."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from gnomon.core.digest import file_digest
from gnomon.core.errors import ManifestError
from gnomon.spec.onnx_graph import Graph, read_graph

_MOST_FILES = 100_000


@dataclass(frozen=True, slots=True)
class Found:
    """A file that is the one meant. name: unique by its content. how: what was compared, in words."""

    path: Path
    name: str
    sha256: str
    how: str
    graph: Graph


class Assets:
    """The files below a folder, by name. Raises ManifestError when there is no such folder or it holds too many."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise ManifestError(f"--assets: there is no folder {folder}")
        self._folder = folder
        self._by_name: dict[str, list[Path]] = {}
        for count, path in enumerate(sorted(folder.rglob("*"))):
            if count >= _MOST_FILES:
                raise ManifestError(f"--assets: more than {_MOST_FILES:,} files in {folder}; name a smaller folder")
            if path.is_file():
                self._by_name.setdefault(path.name, []).append(path)

    def find(self, name: str, md5: str | None) -> Found | None:
        """The ONNX file called `name` whose bytes have this MD5 (any, when None); None when none is called so.

        Raises ManifestError when files are called so and none has the MD5, when several could be meant, or when the one
        that is meant is no ONNX file.
        """
        named = self._by_name.get(name, [])
        if not named:
            return None
        if md5 is None:
            if len({file_digest(path) for path in named}) > 1:
                places = " and ".join(map(str, named[:3]))
                raise ManifestError(f"no MD5 is stated and {places} differ; leave one of them in {self._folder}")
            return _found(named[0], "pinned as it is: no MD5 is stated")
        sums = [(path, _md5(path)) for path in named]
        right = next((path for path, found in sums if found == md5.lower()), None)
        if right is None:
            came = ", ".join(f"{path} has {found}" for path, found in sums[:3])
            raise ManifestError(f"wanted the MD5 {md5[:64]}, {came}. Fetch the file again")
        return _found(right, f"MD5 {md5.lower()} as stated")


def _found(path: Path, how: str) -> Found:
    sha256 = file_digest(path).removeprefix("sha256:")
    return Found(path, f"{sha256[:16]}{path.suffix.lower()}", sha256, how, read_graph(path))


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
