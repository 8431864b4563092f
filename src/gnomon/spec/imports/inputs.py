"""The inputs that a manifest of ML ModelScope declares, as inputs of a Gnomon model.

Its `dimensions` are channels, height, width whatever the layout, without the batch; float32, HWC and RGB are meant
where nothing is stated.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gnomon.core.errors import did_you_mean
from gnomon.spec.grammar import INPUT, LARGEST_SIZE
from gnomon.spec.imports.reading import Reading, what
from gnomon.spec.load import Place

DTYPES = {
    "float32": "float32", "float": "float32", "single": "float32", "fp32": "float32", "float64": "float64",
    "double": "float64", "float16": "float16", "half": "float16", "fp16": "float16", "bfloat16": "bfloat16",
    "int64": "int64", "long": "int64", "int32": "int32", "int": "int32", "int16": "int16", "int8": "int8",
    "uint8": "uint8", "byte": "uint8", "bool": "bool",
}  # fmt: skip
CHANNELS = {"RGB": 3, "BGR": 3, "GRAY": 1, "GRAYSCALE": 1, "L": 1, "RGBA": 4}


def read_inputs(of: Reading) -> list[dict[str, Any]]:
    """The inputs that can be said, each with a remark for every key; what cannot is remarked on and left out."""
    return _Inputs(of).inputs()


@dataclass
class _Inputs:
    of: Reading

    def inputs(self) -> list[dict[str, Any]]:
        given = self.of.get("inputs")
        if given is None:
            self.of.say(("inputs",), "unmapped", note="none are stated; write spec.inputs of the model")
            return []
        if isinstance(given, Mapping | str):
            self.of.say(("inputs",), "mended", note="one input that stands outside a list", done=False)
            found = self.one_input(("inputs",), 0)
            return [found] if found is not None else []
        if not isinstance(given, list):
            self.of.say(("inputs",), "refused", note=f"wanted a list of tables, got {what(given)}")
            return []
        found_inputs: list[dict[str, Any]] = []
        for i in range(len(given)):
            one = self.one_input(("inputs", i), i)
            if one is None:
                continue
            if any(one["name"] == other["name"] for other in found_inputs):
                self.of.say(("inputs", i), "refused", note=f"a second input is called {one['name']!r}")
            else:
                found_inputs.append(one)
        return found_inputs

    def one_input(self, place: Place, index: int) -> dict[str, Any] | None:
        if isinstance(self.of.get(*place), str):  # the shorthand: only its type
            kind, inner = self.of.text(*place), False
        elif self.of.table(*place):
            kind = self.of.text(*place, "type") if self.of.get(*place, "type") is not None else None
            inner = self.of.get(*place, "parameters") is not None and self.of.table(*place, "parameters")
        else:
            return None
        under = (*place, "parameters")
        image = kind is not None and kind.lower() in ("image", "images")
        stated = self.of.get(*under, "dimensions") if inner else None
        layout, mode = ("HWC", "RGB")
        if image and inner:
            layout = self.word((*under, "layout"), ("HWC", "CHW"), "HWC")
            mode = self.word((*under, "color_mode"), tuple(CHANNELS), "RGB")
        shape = self.shape(under, stated, image, layout, CHANNELS[mode])
        dtype = self.dtype((*under, "element_type")) if inner else "float32"
        if shape is None or dtype is None:
            if shape is None:
                why = f"{kind or 'an input'} without a shape; write it into spec.inputs of the model"
                self.of.say(place, "unmapped", note=why, done=False)
            return None
        one: dict[str, Any] = {"name": self.layer(under, index) if inner else f"input_{index}", "dtype": dtype}
        one["shape"] = shape
        if kind is not None and image and not isinstance(self.of.get(*place), str):
            self.of.say((*place, "type"), "mapped", "model: spec.inputs", "an image: batch first, sizes by layout")
        if image:
            one |= {"layout": f"N{layout}", "semantics": self.semantics(under, mode, CHANNELS[mode])}
            if dtype == "uint8":
                one["high"] = 256
        return one

    def layer(self, under: Place, index: int) -> str:
        for key in ("input_layer", "layer_name"):
            value = self.of.get(*under, key)
            if isinstance(value, str) and INPUT.holds(value):
                self.of.say((*under, key), "mapped", "model: spec.inputs.name")
                return value
            if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
                note = "an index; the graph's own name is taken when its file is found"
                self.of.say((*under, key), "kept", "metadata.labels", note)
                return f"input_{value}"
            if value is not None:
                self.of.say((*under, key), "refused", note=f"wanted the name or index of an input, got {value!r:.60}")
        return f"input_{index}"

    def word(self, place: Place, known: tuple[str, ...], default: str) -> str:
        text = self.of.text(*place)
        if text is None:
            return default
        if text.upper() not in known:
            near = did_you_mean(text, known)
            self.of.say(place, "refused", note=f"{text!r:.40} is none of {', '.join(known)}.{near} Taken as {default}")
            return default
        self.of.say(place, "mapped", "model: spec.inputs")
        return text.upper()

    def dtype(self, place: Place) -> str | None:
        text = self.of.text(*place)
        if text is None:
            return "float32"
        dtype = DTYPES.get(text.strip().lower())
        if dtype is None:
            note = f"no tensor of Gnomon has the element type {text!r:.40}.{did_you_mean(text, DTYPES)}"
            self.of.say(place, "unmapped", note=note)
            return None
        self.of.say(place, "mapped", "model: spec.inputs.dtype", "" if dtype == text else f"as {dtype}")
        return dtype

    def semantics(self, under: Place, mode: str, channels: int) -> str:
        """What the values mean, as far as mean and scale say it."""
        mean = self.numbers((*under, "mean"), channels)
        scale = self.numbers((*under, "scale"), channels, lambda x: x != 0)
        said = [mode]
        if mean is not None or scale is not None:
            said.append(f"(x - {mean or 0}) / {scale or 1}")
        return ", ".join(said)

    def numbers(self, place: Place, channels: int, holds: Callable[[float], bool] = lambda x: True) -> Any:
        value = self.of.get(*place)
        if value is None:
            return None
        numbers = [_number(one) for one in (value if isinstance(value, list) else [value])]
        if any(one is None or not holds(one) for one in numbers) or len(numbers) not in (1, channels):
            self.of.say(
                place, "refused", note=f"wanted a number or one for each of {channels} channels, got {value!r:.60}"
            )
            return None
        self.of.say(place, "mapped", "model: spec.inputs.semantics", "described; what is fed is already normalised")
        return [float(one) for one in numbers if one is not None] if isinstance(value, list) else numbers[0]

    def shape(self, under: Place, stated: Any, image: bool, layout: str, channels: int) -> list[int | str] | None:
        place = (*under, "dimensions")
        if stated is None:
            names: list[int | str] = ["B", channels, "H", "W"] if layout == "CHW" else ["B", "H", "W", channels]
            return names if image else None
        if isinstance(stated, str):
            stated = re.findall(r"-?\w+", stated)
            self.of.say(place, "mended", note="a list written as text", done=False)
        axes = stated if isinstance(stated, list) else [stated]
        if image and len(axes) == 4 and _size(axes[0], "B") in ("B", 1):
            self.of.say(place, "mended", note="the batch is no part of the dimensions; left out", done=False)
            axes = axes[1:]
        if image and len(axes) == 1:
            axes = [channels, axes[0], axes[0]]
        if (image and len(axes) != 3) or not axes:
            self.of.say(
                place, "refused", note=f"wanted channels, height and width without the batch, got {stated!r:.60}"
            )
            return None
        defaults = "CHW" if image else [f"D{i}" for i in range(1, len(axes) + 1)]
        sizes = [_size(axis, default) for axis, default in zip(axes, defaults, strict=True)]
        if any(size is None for size in sizes):
            self.of.say(
                place, "refused", note=f"wanted sizes from 1 to {LARGEST_SIZE:,} or -1 for any, got {stated!r:.60}"
            )
            return None
        whole: list[int | str] = [size for size in sizes if size is not None]
        if image and layout == "HWC":
            if whole[2] in (1, 3, 4) and whole[0] not in (1, 3, 4):
                self.of.say(place, "mended", note="height, width, channels where channels come first", done=False)
            else:
                whole = [whole[1], whole[2], whole[0]]
        self.of.say(place, "mapped", "model: spec.inputs.shape", f"as {['B', *whole]}")
        return ["B", *whole]


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if abs(number) < 1e300 else None


def _size(axis: Any, default: str) -> int | str | None:
    """A size, or a name for one that is open (-1, 0, nothing, a word); None for what is neither."""
    number = _number(axis)
    if number is not None and number.is_integer() and 1 <= number <= LARGEST_SIZE:
        return int(number)
    if axis is None or number in (-1, 0):
        return default
    if isinstance(axis, str) and re.fullmatch(r"[A-Za-z]\w{0,15}", axis, re.ASCII):
        return "B" if axis.lower() in ("n", "batch", "batch_size") else axis[0].upper() + axis[1:]
    return None
