"""Small tasks for the tests of this room, and a tracker of the storages that really live."""

import weakref
from dataclasses import replace

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gnomon.spec.task import Model, Protocol, Quality, Task, Tensor, Training

WIDTHS = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
BERT = {**WIDTHS, "vocab_size": 64}
DECODER = {**BERT, "num_key_value_heads": 2}
IDS = Tensor("input_ids", "int64", ("B", "L"), "integers", 0, 64)
MASK = Tensor("attention_mask", "int64", ("B", "L"), "integers", 0, 2)
PIXELS = Tensor("pixel_values", "float32", ("B", 3, 32, 32))
FAMILIES = {
    "BERT": ("BertModel", BERT, (IDS, MASK)),
    "GPT-2": ("GPT2LMHeadModel", {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 64}, (IDS,)),
    "Llama": ("LlamaForCausalLM", DECODER, (IDS,)),
    "OPT": (
        "OPTForCausalLM",
        {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 64, "vocab_size": 64,
         "word_embed_proj_dim": 32},
        (IDS,),
    ),
    "T5": (
        "T5ForConditionalGeneration",
        {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "vocab_size": 64},
        (IDS, replace(IDS, name="decoder_input_ids")),
    ),
    "ViT": ("ViTModel", {**WIDTHS, "image_size": 32, "patch_size": 8}, (PIXELS,)),
    "Swin": (
        "SwinModel",
        {"image_size": 32, "patch_size": 2, "embed_dim": 8, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4},
        (PIXELS,),
    ),
    "ResNet": ("ResNetModel", {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [2, 2]}, (PIXELS,)),
    "ConvNeXt": ("ConvNextModel", {"hidden_sizes": [8, 16], "depths": [2, 2], "num_stages": 2}, (PIXELS,)),
    "Mixtral": ("MixtralForCausalLM", {**DECODER, "num_local_experts": 4}, (IDS,)),
}  # fmt: skip


def task(model, mode="inference", **changes):
    plain = Task(
        name="tiny", version="1", description="", digest="", lock={}, mode=mode, dims={"B": 2, "L": 16},
        dtype="float32", device="cpu", threads=1, seed=0, model=model, dataset=None,
        training=Training() if mode == "training" else None, quality=Quality(), protocol=Protocol(),
    )  # fmt: skip
    return replace(plain, **changes)


def family(name, mode="inference", **changes):
    target, arguments, inputs = FAMILIES[name]
    return task(Model(name, "1", "huggingface", target, arguments, inputs), mode, **changes)


def linear(mode="inference", **changes):
    arguments = {"in_features": 8, "out_features": 4}
    inputs = (Tensor("input", "float32", ("B", 8)),)
    return task(Model("linear", "1", "python", "torch.nn:Linear", arguments, inputs), mode, **changes)


class Tracker(TorchDispatchMode):
    """Real storages from allocation to finalizer, and the names of the operators that ran."""

    def __init__(self, tensors):
        super().__init__()
        self.names, self.held, self.peak, self._alive = [], 0, 0, {}
        for tensor in tensors:
            self._add(tensor)

    def _add(self, tensor):
        storage = tensor.untyped_storage()
        key, size = id(storage), storage.nbytes()
        if key in self._alive:
            return

        def gone(_):
            del self._alive[key]
            self.held -= size

        self._alive[key] = weakref.ref(storage, gone)
        self.held += size
        self.peak = max(self.peak, self.held)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func.namespace == "aten":
            self.names.append(str(func))
            for value in result if isinstance(result, tuple | list) else [result]:
                if isinstance(value, torch.Tensor):
                    self._add(value)
        return result


def everything(program):
    """All tensors that exist before a step."""
    yield from program.model.parameters()
    yield from program.model.buffers()
    yield from program.inputs.values()
    if program.optimizer is not None:
        for state in program.optimizer.state.values():
            yield from state.values()
