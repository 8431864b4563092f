"""Manifests for tests: a small well-formed one of each kind, changed key by key and written to a folder."""

import copy
import json

INPUTS = [
    {"name": "features", "dtype": "float32", "shape": ["V", "F"]},
    {"name": "edge_index", "dtype": "int64", "shape": [2, "E"], "high": "V"},
]
MODEL = {
    "source": "python",
    "target": "gnomon.zoo.graph.gcn:build",
    "arguments": {"in_features": "$F", "hidden": 8, "classes": 3, "layers": 2},
    "inputs": INPUTS,
}
SIZES = {"V": 16, "E": 32, "F": 4}
HOST = {
    "arch": "x86_64",
    "cores": 4,
    "isa": ("avx2", "fma"),
    "memory_bytes": 8 * 2**30,
    "disk_bytes": 100 * 2**30,
    "accelerators": [{"vendor": "NVIDIA", "name": "NVIDIA A100", "memory_bytes": 40 * 2**30, "arch": "sm_80"}],
}


def manifest(kind, name="small", version="1.0.0", **spec):
    return {"apiVersion": "gnomon/v1", "kind": kind, "metadata": {"name": name, "version": version}, "spec": spec}


def task(name="small", version="1.0.0", **spec):
    return manifest("Task", name, version, **copy.deepcopy({"dims": SIZES, "model": MODEL, **spec}))


def write(folder, name, document):
    """`document` as a file; JSON is YAML 1.2."""
    path = folder / name
    path.write_text(document if isinstance(document, str) else json.dumps(document, indent=1), encoding="utf-8")
    return path
