"""What an imported manifest said, from Gnomon's documents alone.

Most keys follow from the spec; what the spec cannot say stands in labels `mlmodelscope/<place>` as JSON, so that an
import loses nothing but inline code, of which the label `mlmodelscope-code/<key>` keeps the SHA-256.
"""

import json
from collections.abc import Mapping
from typing import Any

from gnomon.spec.imports.text import leaves
from gnomon.spec.load import Place

KEPT = "mlmodelscope"
CODE = "mlmodelscope-code"
_WITHOUT = f"{KEPT}-without"


def to_mlmodelscope(documents: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The ML ModelScope manifest that became `documents` ('model' and, if there is one, 'software'), as plain data.

    It says what the file said, with versions as text and without inline code.
    """
    labels = documents["model"]["metadata"].get("labels", {})
    document = implied(documents)
    for place in json.loads(labels.get(_WITHOUT, "[]")):
        _drop(document, tuple(place))
    document = _pruned(document)
    for label, text in labels.items():
        if label.startswith(f"{KEPT}/"):
            document = _put(document, _place(label.removeprefix(KEPT)), json.loads(text))
    return document


def remaining(original: Mapping[str, Any], documents: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The labels that `to_mlmodelscope` needs beside the spec to give back `original`."""
    derived = dict(leaves(implied(documents)))
    said = dict(leaves(original)) if original else {}
    labels = {_label(place): _json(value) for place, value in said.items() if not _same(value, derived.get(place, ...))}
    extra = [list(place) for place in derived if place and place not in said]
    if extra:
        labels[_WITHOUT] = _json(extra)
    return labels


def implied(documents: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What the specs and the metadata say by themselves, in the keys of ML ModelScope."""
    model = documents["model"]
    meta, spec = model["metadata"], model["spec"]
    document: dict[str, Any] = {"name": meta["name"], "version": meta["version"]}
    packages = documents["software"]["spec"].get("packages", []) if "software" in documents else []
    if len(packages) == 1 and "==" in packages[0]:
        package, _, version = packages[0].partition("==")
        document["framework"] = {"name": package, "version": version.removesuffix(".*")}
    for key in ("description", "license"):
        if meta.get(key):
            document[key] = meta[key]
    if meta.get("references"):
        document["references"] = list(meta["references"])
    if spec["inputs"]:
        document["inputs"] = [_input(one) for one in spec["inputs"]]
    if spec["source"] == "external":
        document["model"] = {key: _without_dollar(value) for key, value in spec.get("arguments", {}).items()}
    pruned: dict[str, Any] = _pruned(document)
    return pruned


def _input(given: Mapping[str, Any]) -> dict[str, Any]:
    shape, layout = list(given["shape"])[1:], str(given.get("layout"))
    image = layout in ("NCHW", "NHWC")
    dimensions = [shape[2], shape[0], shape[1]] if layout == "NHWC" else shape
    parameters = {"element_type": given["dtype"], "input_layer": given["name"], "dimensions": dimensions}
    return {
        "type": "image" if image else "raw",
        "parameters": {**parameters, **({"layout": layout[1:]} if image else {})},
    }


def _without_dollar(value: Any) -> Any:
    return value[1:] if isinstance(value, str) and value.startswith("$$") else value


def _same(a: Any, b: Any) -> bool:
    return b is not ... and _json(a) == _json(b)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _label(place: Place) -> str:
    """'mlmodelscope/inputs/#0/type'; '/', '~' and '#' inside a key are written '~1', '~0' and '~2'."""
    parts = (
        f"#{part}" if isinstance(part, int) else part.replace("~", "~0").replace("/", "~1").replace("#", "~2")
        for part in place
    )
    return "/".join([KEPT, *parts])


def _place(pointer: str) -> Place:
    return tuple(
        int(part[1:]) if part.startswith("#") else part.replace("~2", "#").replace("~1", "/").replace("~0", "~")
        for part in pointer.split("/")[1:]
    )


def _drop(document: Any, place: Place) -> None:
    for part in place[:-1]:
        document = document[part]
    if isinstance(document, list):
        document[int(place[-1])] = {}
    else:
        document.pop(place[-1])


def _pruned(value: Any) -> Any:
    """Without the tables that lost all their keys; items of lists keep their place, but for the last ones."""
    if isinstance(value, dict):
        return {key: item for key, item in ((k, _pruned(v)) for k, v in value.items()) if item not in ({}, [])}
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        items = [_pruned(item) for item in value]
        while items and items[-1] == {}:
            items.pop()
        return items
    return value


def _put(document: Any, place: Place, value: Any) -> Any:
    """`document` with a value at a place, the tables and lists on the way made as they are needed."""
    if not place:
        return value
    part, rest = place[0], place[1:]
    if isinstance(part, int):
        items = document if isinstance(document, list) else []
        items += [{}] * (part + 1 - len(items))
        items[part] = _put(items[part], rest, value)
        return items
    table = document if isinstance(document, dict) else {}
    table[part] = _put(table.get(part), rest, value)
    return table
