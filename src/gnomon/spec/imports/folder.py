"""Files and folders of manifests of ML ModelScope: import them all, and write what they become."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from gnomon.core.digest import file_digest
from gnomon.core.errors import DamagedData, GnomonError, ManifestError
from gnomon.spec.imports.assets import Assets
from gnomon.spec.imports.mlmodelscope import import_bytes
from gnomon.spec.imports.report import Failed, Imported
from gnomon.spec.load import file_bytes
from gnomon.spec.write import yaml_text

_SUFFIXES = (".yml", ".yaml")
_MOST_FILES = 5_000


def import_path(path: Path, assets: Path | None = None) -> list[Imported | Failed]:
    """Each manifest of a file or of a folder and all below it, in the order of their paths: a result or an error.

    assets: a folder with files that somebody has fetched. Raises ManifestError when there is nothing to import.
    """
    found = Assets(assets) if assets is not None else None
    return [_one(file, found) for file in _files(path)]


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in _SUFFIXES and file.is_file())
    if not files:
        raise ManifestError(f"{path}: no file in this folder ends in .yml or .yaml")
    if len(files) > _MOST_FILES:
        raise ManifestError(f"{path}: more than {_MOST_FILES:,} manifests; name a smaller folder")
    return files


def _one(file: Path, assets: Assets | None) -> Imported | Failed:
    try:
        return import_bytes(file, file_bytes(file), assets=assets)
    except ManifestError as error:
        return Failed(str(file), str(error))


def write_all(
    results: Sequence[Imported | Failed], source: Path, out: Path, *, force: bool = False
) -> tuple[list[Imported | Failed], list[Path]]:
    """Write what was imported from `source` below `out`, in the folders that the files came from.

    Returns the results, those that could not be written as Failed, and the files written. An existing file is left as
    it is, and an error, unless `force`.
    """
    home = source if source.is_dir() else source.parent
    after: list[Imported | Failed] = []
    written: list[Path] = []
    for result in results:
        if isinstance(result, Imported):
            folder = out / Path(result.source).parent.relative_to(home)
            try:
                written += _write(result, folder, force, written)
            except GnomonError as error:
                result = Failed(result.source, str(error))
        after.append(result)
    return after, written


def _write(imported: Imported, folder: Path, force: bool, before: Sequence[Path]) -> list[Path]:
    stem = Path(imported.source).stem
    texts = {folder / f"{stem}.{role}.yaml": yaml_text(document) for role, document in imported.documents.items()}
    for path in texts:
        if path in before:
            raise ManifestError(f"{imported.source}: {path} was just written for another manifest of that name")
        if path.exists() and not force:
            raise ManifestError(f"{imported.source}: {path} exists; pass --force to write over it")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, asset in imported.files.items():
            _copy(asset, folder / name)
        for path, text in texts.items():
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ManifestError(f"{imported.source}: {folder} cannot be written: {error.strerror}") from error
    return list(texts)


def _copy(asset: Path, target: Path) -> None:
    """Copy a file whose name begins with its SHA-256; one that is there already is not copied again."""
    if not target.exists():
        shutil.copyfile(asset, target)
    if not file_digest(target).removeprefix("sha256:").startswith(target.stem):
        raise DamagedData(f"{target} is not what it was when it was imported")
