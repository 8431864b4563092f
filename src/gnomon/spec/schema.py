"""JSON Schema (2020-12) of manifests, for editors and for checks outside Gnomon."""

from typing import Any

from gnomon.core.errors import UnknownName, did_you_mean
from gnomon.core.records import json_schema
from gnomon.spec.manifest import KINDS

# What the reader asks beyond the schema, because it spans several keys or because JSON has one kind of number
BEYOND = (
    "a file source has exactly one of 'file' and 'package'",
    "the model source 'onnx' has 'weights' and neither 'target' nor 'arguments'; the others have 'target', as "
    "'package.module:callable' (python), as the name of a class (huggingface) or as any text (external)",
    "the inputs of python and huggingface models are named as arguments are",
    "no two inputs and no two outputs have the same name",
    "a layout has a letter of its own for each axis",
    "a stage has exactly one of 'target' and 'code'",
    "an input's 'low' lies below its 'high'",
    "quality has 'evaluate' and 'metric' both or not at all",
    "a task has 'model', 'extends' or a matrix of models",
    "a matrix is not empty, and no part stands both in the task and in its matrix",
    "the metric 'quality' wants a quality that can be evaluated",
    "the keys of a scenario fit its name and each other",
    "a split has exactly one source; only a generated one has 'arguments' and 'seed', the others have 'sha256'",
    "a dataset has 'examples', 'splits' or both, and 'feeds' names a split of one without 'examples'",
    "an expected output has 'file' and 'sha256' both or not at all",
    "a whole number is not written with a decimal point (4, not 4.0)",
)


def schema(kind: str) -> dict[str, Any]:
    """The schema of a kind of manifest. Raises UnknownName.

    It accepts what the reader accepts, but for the rules in `BEYOND`.
    """
    if kind not in KINDS:
        raise UnknownName(
            f"no kind of manifest is called {kind!r}.{did_you_mean(kind, KINDS)} Known: {', '.join(KINDS)}"
        )
    return {
        "title": f"{kind} manifest of Gnomon",
        "$comment": "Beyond this schema: " + "; ".join(BEYOND),
        **json_schema(KINDS[kind]),
    }
