"""Manifests in the shape of ML ModelScope's, written for these tests: clean ones of each framework, and messy ones."""

import json

HEAD = """name: {name} # of the model
framework:
  name: {framework}
  version: {constraint} # a constraint
version: {version}
"""
CONTAINER = """container:
  amd64:
    cpu: example/agent:amd64-cpu
    gpu: example/agent:amd64-gpu
  ppc64le:
    cpu: example/agent:ppc64le-cpu
"""
ABOUT = """description: >
  A small network, folded
  over two lines.
references:
  - https://example.org/paper.pdf
  - https://example.org/code
license: Apache License, Version 2.0
"""
IMAGE = """inputs:
  - type: image
    description: the picture
    parameters:
      element_type: {dtype}
      input_layer: {layer}
      layout: {layout}
      color_mode: {mode}
      dimensions: {dimensions}
      mean: {mean}
      scale: {scale}
"""
LABELS = """output:
  type: classification
  description: the label
  parameters:
    element_type: float32
    probabilities_layer: {layer}
    features_url: https://example.org/classes.txt
    features_checksum: 0123456789abcdef0123456789abcdef
"""
MODEL = """model:
  base_url: {base}
  graph_path: {graph}
  weights_path: {weights}
  is_archive: {archive}
  graph_checksum: {md5}
  weights_checksum:
"""
ATTRIBUTES = """attributes:
  kind: CNN
  training_dataset: a thousand classes
  manifest_author: somebody
  top1: 71.20
  top5:
  IoU threshold: 0.5
hidden: false
"""


def manifest(
    name="Net_v1.0", framework="Onnxruntime", constraint="1.6.0", version="1.0", about=ABOUT, container=CONTAINER,
    image=True, dtype="float32", layer="0", layout="CHW", mode="RGB", dimensions="[3, 32, 32]", mean="[1, 2.5, 3]",
    scale="255", out="1", base="https://example.org/models/", graph="net.onnx", weights="", archive="false", md5="",
    extra="",
):  # fmt: skip
    """One manifest as text, its parts as they are in the wild."""
    inputs = IMAGE.format(
        dtype=dtype, layer=layer, layout=layout, mode=mode, dimensions=dimensions, mean=mean, scale=scale
    )
    return (
        HEAD.format(name=name, framework=framework, constraint=constraint, version=version)
        + container
        + about
        + (inputs if image else "")
        + LABELS.format(layer=out)
        + MODEL.format(base=base, graph=graph, weights=weights, archive=archive, md5=md5)
        + ATTRIBUTES
        + extra
    )


BOXES = """output:
  type: boundingbox
  parameters: {boxes_layer: 2, classes_layer: 0, probabilities_layer: 1, scale_width: 300, xmin_index: 0}
"""
RAW = """name: Clicks
framework: {name: TensorFlow, version: 1.12}
version: 2.0.1
inputs:
  - type: raw
    description: history
    parameters: {input_layer: 'Inputs/history', url: https://example.org/h.txt, dimensions: [10, 4]}
  - type: raw
    parameters: {input_layer: 'Inputs/length', element_type: int64, dimensions: [1]}
output: {type: raw, parameters: {probabilities_layer: 'net/Softmax'}}
model: {base_url: https://example.org/, graph_path: clicks.pb, is_archive: false}
attributes: {kind: CTR, training_dataset: , top1: , top5: }
"""

# name -> a manifest without inline code: importing it and going back loses nothing
CLEAN = {
    "onnx": manifest(),
    "onnx-named": manifest(layer="data", mean="[0.0, 0.0, 0.0]", scale="[58.3, 57.1, 57.3]"),
    "onnx-url": manifest(base="", graph="https://example.org/x/net.onnx", md5="a638cf028b5870da29e09ccc2f7182e7"),
    "onnx-bgr": manifest(mode="BGR", scale="1.0", container=""),
    "onnx-grey": manifest(mode="L", dimensions="[1, 28, 28]", mean="0.5", scale="0.5"),
    "onnx-open": manifest(dimensions="[3, -1, -1]"),
    "onnx-square": manifest(dimensions="[64]"),
    "torch": manifest("Seg_101", "PyTorch", "1.8.1", graph="seg.pt", mean="[123.675, 116.280, 103.530]"),
    "torch-caret": manifest("Seg_102", "PyTorch", "^1.8", graph="seg.pt", version="1.120"),
    "torch-range": manifest("Seg_103", "PyTorch", '">=1.8, <2.0"', graph="seg.pth", version="v1.2"),
    "tensorflow": manifest("Mobile_0.25_128", "TensorFlow", "1.12", layer="'input'", layout="HWC", graph="f.pb"),
    "tensorflow-uint8": manifest("Mask", "TensorFlow", "1.x", dtype="uint8", layout="HWC", layer="'image_tensor'"),
    "tensorflow-archive": manifest(
        "Arch", "TensorFlow", "'*'", archive="true", base="https://example.org/a.tgz", graph="f.pb"
    ),
    "tensorflow-raw": RAW,
    "mxnet": manifest("Gluon", "MXNet", "1.7.0", graph="model-symbol.json", weights="model-0000.params", layer="data"),
    "caffe": manifest("Classic", "Caffe", "1.0", graph="net.prototxt", weights="net.caffemodel", layer="data"),
    "boxes": manifest("Boxes").replace(LABELS.format(layer="1"), BOXES),
    "no-dimensions": manifest("Any", dimensions=""),
    "no-inputs": manifest("None", image=False),
    "general": "name: Reader\nframework: {name: Onnxruntime, version: 1.6.0}\nversion: 1.0\n"
    "inputs:\n  - type: general\noutput: {type: text}\n"
    "model: {graph_path: https://example.org/reader.onnx, is_archive: false}\n",
    "unknown-keys": manifest("Odd", extra="quantised: true\nnested: {a: [1, {b: 2}, []], c: {}}\n'a/b~#c': 1\n"),
    "latest": manifest("Newest", version="latest", constraint="latest"),
    "least": "name: least\nmodel: {}\n",
    "unicode": manifest("Net é", about="description: 網絡 é\nlicense:\nreferences:\n"),
    "dollar": manifest("Dollar", graph="$HOME/net.pb", base="$$x"),
}

CODE = """preprocess: |
  import os
  import numpy as np
  open("canary", "w").close()
  def preprocess(ctx, data):
    os.system("touch canary")
    return np.asarray(data)
postprocess: |
  def postprocess(ctx, data):
    return data[0].tolist()
"""
LAUGHS = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x, x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 20)]
)

# name -> (text or bytes, what the outcome must show): a remark's note, or the error when it starts with '!'
MESSY = {
    "tabs": (manifest().replace("  ", "\t"), "tabs as indentation"),
    "tab-after-colon": (manifest().replace("license: ", "license:\t"), "tabs as indentation"),
    "tabs-ambiguous": ("name: a\nmodel:\n  x:\n    y: 1\n\tz: 2\n", "!:5: a tab as indentation means different"),
    "inline-code": (manifest(extra=CODE), "inline code of 6 lines"),
    "code-as-list": (manifest(extra="before_preprocess: [import os, os.abort()]\n"), "inline code"),
    "code-in-tabs": (manifest(extra=CODE).replace("  ", "\t"), "inline code of 6 lines"),
    "crlf": (manifest().replace("\n", "\r\n"), "as net_v1.0"),
    "byte-order-mark": ("\ufeff" + manifest(), "as net_v1.0"),
    "latin-1": (manifest().replace("somebody", "Schrödinger").encode("latin-1"), "!wanted UTF-8 text.*iconv"),
    "utf-16": (manifest().encode("utf-16"), "!wanted UTF-8"),
    "binary": (bytes(range(256)), "!"),
    "empty": ("", "!the file is empty"),
    "only-a-comment": ("# nothing\n", "!the file is empty"),
    "a-list": ("- name: a\n", "!wanted a manifest of ML ModelScope.*got a list"),
    "a-word": ("hello\n", "!got only 'hello'"),
    "other-yaml": ("name: deploy\nsteps: [build]\n", "!no manifest of ML ModelScope"),
    "two-documents": (manifest() + "---\n" + manifest(), "!wanted one document"),
    "duplicate-equal": (manifest() + "license: Apache License, Version 2.0\n", "given twice with the same value"),
    "duplicate-different": (manifest() + "license: MIT\n", "!license: the key is given twice"),
    "alias": (manifest().replace("mean: [1", "mean: &m [1").replace("scale: 255", "scale: *m"), "described"),
    "merge-key": (
        "base: &base {is_archive: false, graph_path: a.onnx}\nname: a\nmodel: {<<: *base, graph_path: b.onnx}\n",
        "merge key",
    ),
    "unknown-alias": ("name: *nobody\n", "!alias"),
    "alias-bomb": (LAUGHS + "\nname: a\n", "!more than 50,000 values"),
    "deep": ("name: a\nmodel: " + "[" * 60 + "]" * 60 + "\n", "!nested deeper"),
    "large": (manifest() + "#" * 10_000_000, "!larger than 256 KiB"),
    "tag": ("name: !!python/object/apply:os.system ['touch canary']\n", "!tag"),
    "not-a-number": (manifest(scale=".nan"), "!no number that a manifest can hold"),
    "unclosed": ("name: 'a\nmodel: {}\n", "!this is not YAML"),
    "no-name": (manifest().split("\n", 1)[1], "!name: wanted the model's name"),
    "name-misspelt": ("nmae: a\nmodel: {}\n", "!Did you mean 'nmae'"),
    "name-null": ("name:\nmodel: {}\n", "!name: wanted the model's name"),
    "name-number": ("name: 18\nmodel: {}\n", "as '18'|^$"),
    "name-list": ("name: [a]\nmodel: {}\n", "!name: wanted the model's name"),
    "name-signs": ("name: '???'\nmodel: {}\n", "!letters a-z or digits"),
    "name-template": ("name: '{{ model }}'\nmodel: {}\n", "!name"),
    "version-missing": ("name: a\nmodel: {}\n", "none is stated; taken as 0"),
    "version-word": (manifest(version="stable"), "'stable' is no version; taken as 0"),
    "version-template": (manifest(version="{{ version | default('1.0') }}"), "filled in as '1.0'"),
    "template-go": (manifest(graph="'{{ .Name }}-{{ .Framework.Version }}.onnx'"), "as 'Net_v1.0-1.6.0.onnx'"),
    "template-open": (manifest(graph="'{{ where }}/net.onnx'"), "nothing to fill it in"),
    "framework-text": ("name: a\nmodel: {}\nframework: ort\n", "wanted a table, got 'ort'"),
    "framework-unknown": (manifest(framework="CNTK"), "no Python package that we know"),
    "constraint-or": (manifest(constraint="'1.0 || 2.0'"), "no range of PEP 440"),
    "inputs-table": ("name: a\nmodel: {}\ninputs: {type: image}\n", "outside a list"),
    "inputs-shorthand": ("name: a\nmodel: {}\ninputs: [image]\n", "file that is not here"),
    "inputs-number": ("name: a\nmodel: {}\ninputs: 3\n", "wanted a list of tables, got 3"),
    "inputs-list-of-numbers": ("name: a\nmodel: {}\ninputs: [3]\n", "wanted a table, got 3"),
    "inputs-twice": ("name: a\ninputs:\n" + "- {type: image, parameters: {input_layer: x}}\n" * 2, "a second input"),
    "parameters-list": ("name: a\nmodel: {}\ninputs: [{type: image, parameters: [3]}]\n", "wanted a table, got a list"),
    "dimensions-words": (manifest(dimensions="[3, height, width]"), r"as \['B', 3, 'Height', 'Width'\]"),
    "dimensions-text": (manifest(dimensions="'[3, 224, 224]'"), "a list written as text"),
    "dimensions-text-items": (manifest(dimensions="['3', '224', '224']"), r"as \['B', 3, 224, 224\]"),
    "dimensions-batch": (manifest(dimensions="[-1, 3, 8, 8]"), "batch is no part"),
    "dimensions-hwc": (manifest(layout="HWC", dimensions="[224, 200, 3]"), r"as \['B', 224, 200, 3\]"),
    "dimensions-negative": (manifest(dimensions="[3, -5, 8]"), "wanted sizes"),
    "dimensions-nested": (manifest(dimensions="[[3], 8, 8]"), "wanted sizes"),
    "dimensions-table": (manifest(dimensions="{h: 3}"), "wanted sizes"),
    "dtype-unknown": (manifest(dtype="flaot32"), "Did you mean 'float32'"),
    "dtype-short": (manifest(dtype="float"), "as float32"),
    "dtype-list": (manifest(dtype="[float32]"), "wanted text, got a list"),
    "layout-unknown": (manifest(layout="HCW"), "none of HWC, CHW"),
    "mean-words": (manifest(mean="[a, b, c]"), "wanted a number or one for each of 3"),
    "mean-two": (manifest(mean="[1, 2]"), "wanted a number or one for each of 3"),
    "scale-zero": (manifest(scale="0"), "wanted a number or one for each of 3"),
    "layer-table": (manifest(layer="{a: b}"), "wanted the name or index"),
    "model-text": ("name: a\nmodel: net.onnx\n", "wanted a table, got 'net.onnx'"),
    "model-missing": ("name: a\ninputs: [image]\n", "only described"),
    "graph-list": ("name: a\nmodel: {graph_path: [a, b]}\n", "wanted text, got a list"),
    "archive-yes": (manifest(archive="yes"), "as net_v1.0"),
    "references-text": (manifest(about="references: https://example.org\n"), "as net_v1.0"),
    "references-tables": (manifest(about="references: [{url: x}]\n"), "wanted a list of texts"),
    "number-keys": (manifest(extra="1: a\n"), "unknown key"),
    "number-keys-twice": (manifest(extra="1: a\n'1': b\n"), "!two keys are equal as text"),
    "misspelt-key": (manifest(extra="hiden: true\n"), "unknown key. Did you mean 'hidden'"),
    "escape": (manifest("\"a\\e[31m\""), "as a-31m"),
}  # fmt: skip


def data_of(text):
    return text if isinstance(text, bytes) else text.encode()


def as_json(value):
    return json.dumps(value, sort_keys=True)
