"""Small tasks and variants that the tests of this room measure. Variants are imported by child processes."""

import os
import signal
import time
from dataclasses import replace

import torch
from torch.utils._python_dispatch import _get_current_dispatch_mode

from gnomon.spec.task import Model, Protocol, Quality, Task, Tensor, Training

VARIANTS = "tests.measure.tasks"
PROTOCOL = Protocol(sessions=2, calls=5, warmup_s=1.0, timeout_s=120.0)


def task(model, dims, **changes):
    """An inference task on the CPU with one thread; `changes` replace any field."""
    plain = Task(
        name="tiny", version="1", description="", digest="sha256:0", lock={}, mode="inference", dims=dims,
        dtype="float32", device="cpu", threads=1, seed=0, model=model, dataset=None, training=None, quality=Quality(),
        protocol=PROTOCOL,
    )  # fmt: skip
    return replace(plain, **changes)


def linear(width=8, **changes):
    """One matrix product: the smallest task, for children that must start fast (no transformers)."""
    x = Tensor("input", "float32", ("B", width))
    model = Model("linear", "1", "python", "torch.nn:Linear", {"in_features": width, "out_features": width}, (x,))
    return task(model, **{"dims": {"B": 4}, **changes})


def bert(layers=2, width=64, batch=4, length=16, **changes):
    """A transformer of the shape of MiniLM, reduced."""
    ids = Tensor("input_ids", "int64", ("B", "L"), "integers", 0, 100)
    mask = Tensor("attention_mask", "int64", ("B", "L"), "ones")
    config = {
        "vocab_size": 100, "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": 4,
        "intermediate_size": 4 * width, "max_position_embeddings": 64,
    }  # fmt: skip
    model = Model("bert", "1", "huggingface", "BertModel", config, (ids, mask))
    return task(model, **{"dims": {"B": batch, "L": length}, **changes})


def training(**changes):
    return linear(mode="training", training=Training("sgd", 0.01), **changes)


SEEN = []


def watched(program, options):
    """Notes in SEEN at every call whether hooks are on its modules and whether a dispatch mode is active."""

    def step():
        hooks = any(m._forward_hooks or m._forward_pre_hooks for m in program.model.modules())
        SEEN.append((hooks, _get_current_dispatch_mode() is not None))
        return program.step()

    return replace(program, step=step)


def twice(program, options):
    """Calls the step `options['times']` times over."""

    def step():
        for _ in range(options.get("times", 2) - 1):
            program.step()
        return program.step()

    return replace(program, step=step)


def expires(program, options):
    """Fails `options['seconds']` after it was prepared: after warm-up, when the others are being timed."""
    end = time.monotonic() + options["seconds"]

    def step():
        if time.monotonic() > end:
            raise ArithmeticError("out of luck")
        return program.step()

    return replace(program, step=step)


def nan(program, options):
    with torch.no_grad():
        program.model.bias[1] = float("nan")
    return program


def raises(program, options):
    raise ArithmeticError("the recipe met a shape that it does not know")


def crashes(program, options):
    signal.raise_signal(signal.SIGSEGV)


def hangs(program, options):
    time.sleep(600)


def prints(program, options):
    print('{"result": {"variants": []}}', flush=True)
    os.write(1, b'{"result": null}\n')
    return program


def other_engine(program, options):
    return replace(program, model=None)


def compiled(program, options):
    program.model.compile()
    return program
