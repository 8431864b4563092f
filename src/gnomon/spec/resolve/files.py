"""Files and code that a task names: there, as pinned, and allowed."""

from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from gnomon.core.digest import file_digest
from gnomon.core.errors import (
    DamagedData,
    ManifestError,
    NotRunnable,
    did_you_mean,
)
from gnomon.core.paths import home
from gnomon.spec.code import locate, why_not_inline
from gnomon.spec.find import inside
from gnomon.spec.load import Loaded
from gnomon.spec.manifest import (
    Source,
    TaskSpec,
)
from gnomon.spec.resolve.attempt import Attempt, Part
from gnomon.spec.trust import is_trusted


def pinned_file(attempt: Attempt, source: Source, part: Part, key: str, lock_key: str) -> str | None:
    """Absolute path of a file whose bytes have the stated SHA-256; None when it has not or is not there."""
    where = part.where(key)
    try:
        path = inside(part.folder, source.file) if source.file is not None else package_file(str(source.package))
        found = file_digest(path)
    except ManifestError as error:
        attempt.fail(ManifestError, f"{where}: {error}")
    except NotRunnable as error:
        attempt.fail(NotRunnable, f"{where}: {error}")
    except OSError as error:
        attempt.fail(NotRunnable, f"{where}: {source.file or source.package} cannot be read: {error.strerror}")
    else:
        if found != f"sha256:{source.sha256}":
            attempt.fail(
                DamagedData, f"{where}: wanted SHA-256 {source.sha256}, {path} has {found.removeprefix('sha256:')}"
            )
            return None
        attempt.lock[lock_key] = found
        attempt.decide(f"{lock_key}: {path}, SHA-256 as stated")
        return str(path.resolve())
    return None


def cached_file(attempt: Attempt, url: str, sha256: str, part: Part, key: str, lock_key: str) -> str | None:
    """The file of an address when it lies in the cache with the right bytes. Nothing is fetched."""
    place = cache_file(sha256)
    where = part.where(key)
    if not place.is_file():
        attempt.fail(
            NotRunnable,
            f"{where}: {url} is not in the local cache, and Gnomon fetches nothing. Put it at {place}",
        )
        return None
    found = file_digest(place)
    if found != f"sha256:{sha256}":
        attempt.fail(
            DamagedData,
            f"{where}: wanted SHA-256 {sha256}, {place} has {found.removeprefix('sha256:')}; fetch it anew",
        )
        return None
    attempt.lock[lock_key] = found
    attempt.decide(f"{lock_key}: {place}, SHA-256 as stated, for {url}")
    return str(place)


def check_code(attempt: Attempt, loaded: Loaded, origin: Mapping[str, Loaded], spec: TaskSpec) -> None:
    """Callables that the task itself names."""
    if spec.quality.evaluate is not None:
        home = origin.get("quality", loaded)
        locate_code(attempt, spec.quality.evaluate, Part(None, home, ("spec", "quality"), "", "", ""), "evaluate")
    if spec.training is not None and ":" in spec.training.loss:
        home = origin.get("training", loaded)
        locate_code(attempt, spec.training.loss, Part(None, home, ("spec", "training"), "", "", ""), "loss")


def locate_code(attempt: Attempt, target: str, part: Part, key: str) -> None:
    try:
        owner = locate(target, part.folder, attempt.trust)
    except ManifestError as error:
        attempt.fail(ManifestError, f"{part.where(key)}: {error}")
    else:
        attempt.decide(f"code: {target}, {owner}")


def holder(attempt: Attempt, part: Part) -> str:
    """Digest of the manifest in which a part stands in full."""
    return part.loaded.manifest().digest


def check_inline_code(attempt: Attempt, code: str, function: str, part: Part, key: str) -> None:
    """Admits code in a manifest that is on the trust list, or with --trust. Reads it, runs none of it."""
    wrong = why_not_inline(code, function)
    digest = holder(attempt, part)
    if wrong is not None:
        attempt.fail(ManifestError, f"{part.where(key)}: {wrong}")
    elif not attempt.trust and not is_trusted(digest):
        attempt.fail(
            ManifestError,
            f"{part.where(key)}: code inside a manifest runs only when you trust this very manifest ({digest}). "
            f"Read it, then: gnomon trust {part.loaded.path}",
        )
    else:
        attempt.decide(f"code: {key} inside {part.loaded.path}, {'--trust' if attempt.trust else 'on the trust list'}")


def package_file(text: str) -> Path:
    """The file that 'distribution/path/inside' means, found without importing the package."""
    name, _, inner = text.partition("/")
    try:
        distribution = metadata.distribution(name)
    except metadata.PackageNotFoundError as error:
        raise NotRunnable(f"the package {name!r} is not installed: pip install {name}") from error
    files = [str(f) for f in distribution.files or ()]
    if files and inner not in files:
        raise ManifestError(f"{name} {distribution.version} has no file {inner!r}.{did_you_mean(inner, files)}")
    return inside(Path(str(distribution.locate_file(""))), inner)


def cache_file(sha256: str) -> Path:
    """Where a file that was fetched by its SHA-256 lies in the Gnomon home."""
    return home() / "data" / sha256
