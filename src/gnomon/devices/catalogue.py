"""The catalogue of accelerators: one data sheet per file under `data/`, and a user's own file of the same form."""

import difflib
import functools
import json
import os
import re
from pathlib import Path
from typing import Any

from gnomon.core.digest import digest
from gnomon.core.errors import DamagedData, UnknownName, UsageError
from gnomon.core.paths import home
from gnomon.core.records import Problem, StructureError, from_json, structure, to_json
from gnomon.devices.device import Device
from gnomon.devices.sanity import contradictions

_DATA = Path(__file__).parent / "data"
_MAKERS = {"nvidia", "amd", "geforce", "tesla", "instinct"}  # 'NVIDIA Tesla T4', 'Tesla T4' and 'T4' are one name
_LARGEST_FILE = 100_000  # bytes; a data sheet has about 2,000


def names() -> list[str]:
    """The catalogue's short names ('H100-SXM', 'T4'), sorted; what `get` and `--device` take."""
    return sorted(_files())


def every() -> list[Device]:
    """All devices of the catalogue, in the order of `names()`."""
    return list(_catalogue().values())


def get(name_or_path: str) -> Device:
    """A device by short name, alias or full name, in any case; or a user's device file (*.yaml, or a path).

    Raises UnknownName with the nearest names, UsageError naming file and key when a file does not describe a device.
    """
    text = str(name_or_path).strip()
    if Path(text).suffix.lower() in (".yaml", ".yml") or os.sep in text:
        return load(Path(text).expanduser())
    slug = _index().get(key_of(text))
    if slug is not None:
        return _catalogue()[slug]
    near = [known for known in names() if known.lower().startswith(text.lower())] if text else []
    if near:
        raise UnknownName(f"no device is called {text!r}; there are {', '.join(near)}. Choose one of these")
    guess = difflib.get_close_matches(key_of(text), list(_index()), n=1)
    hint = f" Did you mean {_index()[guess[0]]!r}?" if guess else ""
    raise UnknownName(
        f"no device is called {text!r}.{hint} Known: {', '.join(names())}; or give the path of a device file (*.yaml)"
    )


def load(path: Path) -> Device:
    """The device that a YAML 1.2 file describes. Raises UsageError, one line `file: key: wanted, got` per problem."""
    document = _read_yaml(path)
    try:
        device: Device = structure(Device, document)
    except StructureError as error:
        raise UsageError(_told(path, error.problems)) from None
    problems = contradictions(device)
    if problems:
        raise UsageError(_told(path, problems))
    return device


def key_of(name: str) -> str:
    """What names are compared by: lower case, one '-' between words, makers' and series' names left out."""
    words = re.findall(r"[a-z0-9.]+", name.casefold())
    return "-".join([word for word in words if word not in _MAKERS] or words)


def _told(path: Path, problems: list[Problem]) -> str:
    return "\n".join(f"{path}: {problem.where}: {problem.message}" for problem in problems[:10])


def _files() -> dict[str, Path]:
    return {path.stem: path for path in _DATA.glob("*.yaml")}


@functools.cache
def _catalogue() -> dict[str, Device]:
    """Short name -> device. Reading 25 files with a pure-Python YAML parser takes 0.25 s, so the result is kept as JSON
    under the digest of the files: a changed file is another digest, a damaged copy is written again."""
    files = {name: _files()[name] for name in names()}
    identity = digest({name: path.read_text(encoding="utf-8") for name, path in files.items()})
    copy = home() / f"catalogue-{identity[7:23]}.json"
    try:
        kept = json.loads(copy.read_text(encoding="utf-8"))
        return {name: from_json(kept[name], Device) for name in files}
    except (OSError, ValueError, LookupError, TypeError, DamagedData):
        devices = {name: load(path) for name, path in files.items()}
    _write(copy, json.dumps({name: to_json(device) for name, device in devices.items()}))
    return devices


def _write(path: Path, text: str) -> None:
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)  # readers see the old file or the whole new one
    except OSError:  # a read-only home: the next process parses again
        part.unlink(missing_ok=True)


@functools.cache
def _index() -> dict[str, str]:
    """Everything that a device is called -> its short name."""
    index: dict[str, str] = {}
    for slug, device in _catalogue().items():
        for name in (slug, device.name, *device.aliases):
            if index.setdefault(key_of(name), slug) != slug:
                raise UsageError(f"{_files()[slug]}: aliases: {name!r} already means {index[key_of(name)]}")
    return index


def _read_yaml(path: Path) -> Any:
    from ruamel.yaml import YAML  # 0.04 s, not needed when the catalogue's copy is there
    from ruamel.yaml.composer import Composer, ComposerError
    from ruamel.yaml.error import YAMLError
    from ruamel.yaml.events import AliasEvent

    class Plain(Composer):
        """Refuses anchors' uses: a few lines of nested aliases can stand for gigabytes."""

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.parser.check_event(AliasEvent):
                event = self.parser.peek_event()
                raise ComposerError(None, None, "a device file may not use aliases (*name)", event.start_mark)
            return super().compose_node(parent, index)

    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise UsageError(f"{path}: wanted a device file of some 2,000 bytes, got {path.stat().st_size}")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"{path}: cannot be read: {error.strerror or error}. Wanted the path of a device file"
        ) from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: wanted text in UTF-8, got other bytes") from None
    reader = YAML(typ="safe", pure=True)
    reader.Composer = Plain
    try:
        return reader.load(text)
    except RecursionError:
        raise UsageError(f"{path}: wanted a device file, got a document nested too deep") from None
    except (YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark is not None else ""
        what = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UsageError(f"{path}: {where}wanted YAML 1.2, got: {what}") from None
