"""Tasks without a manifest: a configuration of Hugging Face, or a bare `module:callable`, as the manifest it means."""

import ast
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gnomon.core.errors import ManifestError
from gnomon.spec.code import source_of, top_level_names
from gnomon.spec.manifest import API_VERSION

# model_type of a configuration -> the class that is meant when it names no architecture
_CLASSES = {
    "bert": "BertModel", "distilbert": "DistilBertModel", "roberta": "RobertaModel", "gpt2": "GPT2LMHeadModel",
    "llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM", "mixtral": "MixtralForCausalLM",
    "opt": "OPTForCausalLM", "qwen2": "Qwen2ForCausalLM", "gpt_neox": "GPTNeoXForCausalLM",
    "t5": "T5ForConditionalGeneration",
    "vit": "ViTForImageClassification", "swin": "SwinForImageClassification", "resnet": "ResNetForImageClassification",
    "convnext": "ConvNextForImageClassification",
}  # fmt: skip
_IMAGE = ("vit", "swin", "resnet", "convnext", "deit", "beit", "convnextv2", "mobilenet_v2", "efficientnet")
_ENCODER_DECODER = ("t5", "bart", "mt5", "mbart", "marian", "pegasus")
_ABOUT = ("architectures", "auto_map", "transformers_version", "torch_dtype", "dtype", "_name_or_path", "model_type")


def from_huggingface(config: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The task of a `config.json`: random weights; B sequences of L tokens, or B pictures of S by S pixels.

    Raises ManifestError when it is no such configuration or names an architecture that we know no inputs for.
    """
    family = config.get("model_type")
    architectures = config.get("architectures") or ()
    if not isinstance(family, str):
        raise ManifestError(
            f"{path}: wanted a manifest (with 'apiVersion') or a configuration of transformers (with 'model_type')"
        )
    target = architectures[0] if isinstance(architectures, list) and architectures else _CLASSES.get(family)
    if not isinstance(target, str):
        known = ", ".join(_CLASSES)
        raise ManifestError(
            f"{path}: model_type {family!r} is not known and 'architectures' is missing. Known: {known}"
        )
    dims: dict[str, int] = {"B": 1}
    limits: dict[str, int] = {}
    if family in _IMAGE:
        size = config.get("image_size")
        dims["S"] = size if isinstance(size, int) else 224
        channels = config.get("num_channels", 3)
        inputs = [{"name": "pixel_values", "dtype": "float32", "shape": ["B", channels, "S", "S"]}]
    elif isinstance(config.get("vocab_size"), int):
        longest = next(
            (config[k] for k in ("max_position_embeddings", "n_positions") if isinstance(config.get(k), int)), None
        )
        dims["L"] = min(128, longest) if longest else 128
        limits = {"L": longest} if longest else {}
        names = ["input_ids", "decoder_input_ids"] if family in _ENCODER_DECODER else ["input_ids"]
        inputs = [{"name": n, "dtype": "int64", "shape": ["B", "L"], "high": config["vocab_size"]} for n in names]
    else:
        raise ManifestError(
            f"{path}: the inputs of model_type {family!r} are not known (no vocab_size, no known picture model). "
            "Write a manifest that states spec.model.inputs"
        )
    return _task(
        _name(path.stem),
        f"{target} as configured in {path.name}; random weights.",
        dims,
        {
            "source": "huggingface",
            "target": target,
            "arguments": {k: v for k, v in config.items() if k not in _ABOUT and v is not None},
            "inputs": inputs,
            "max_dims": limits,
        },
    )


def from_callable(target: str, folder: Path) -> dict[str, Any]:
    """The task of a bare `module:callable`; its inputs come from `examples(dims, seed)` in the same module.

    The sizes are those of a constant `DIMS` of that module, read without running it. Raises ManifestError when the
    module has no `examples`.
    """
    module, _, name = target.partition(":")
    source = source_of(module, folder)
    if source is not None and "examples" not in (top_level_names(source) or {"examples"}):
        raise ManifestError(
            f"{target}: {source} has no function examples(dims, seed) -> {{input name: tensor}}, so nothing to call "
            "the model with. Add one, or write a manifest that states spec.model.inputs"
        )
    return _task(
        _name(f"{module.rsplit('.', 1)[-1]}-{name}"),
        f"What {target} returns, on its own examples.",
        _constant(source, "DIMS") if source is not None else {"B": 1},
        {"source": "python", "target": target, "inputs": []},
        {"examples": f"{module}:examples"},
    )


def _task(
    name: str, about: str, dims: Mapping[str, int], model: Mapping[str, Any], dataset: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    spec = {"dims": dims, "model": model, **({"dataset": dataset} if dataset else {})}
    metadata = {"name": name, "version": "0", "description": about}
    return {"apiVersion": API_VERSION, "kind": "Task", "metadata": metadata, "spec": spec}


def _name(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:64].rstrip("-") or "task"


def _constant(source: Path, name: str) -> Any:
    """A literal bound to `name` at a module's top level; {'B': 1} when there is none."""
    if source.suffix == ".py":
        for statement in ast.parse(source.read_bytes()).body:
            if isinstance(statement, ast.Assign) and [t.id for t in statement.targets if isinstance(t, ast.Name)] == [
                name
            ]:
                try:
                    return ast.literal_eval(statement.value)
                except ValueError:
                    break
    return {"B": 1}
