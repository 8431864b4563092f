"""Small models, tasks and recipes that the tests of this room use. Recipes are registered by name, like a plugin's."""

from dataclasses import replace

import torch
from torch import nn

from gnomon.core.errors import NotRunnable
from gnomon.sharpen.recipe import recipes
from gnomon.spec.task import Model, Protocol, Quality, Task, Tensor
from gnomon.workload.program import Program, TrainingStep, optimizer

PLUGINS = (
    "test-explodes",
    "test-unable",
    "test-nan",
    "test-drifts",
    "test-reshapes",
    "test-doubles",
    "test-draws",
    "test-watches",
)


def task(width=16, batch=4, **changes):
    """A linear layer of torch.nn: builds at once and anywhere."""
    x = Tensor("input", "float32", ("B", width))
    model = Model("linear", "1", "python", "torch.nn:Linear", {"in_features": width, "out_features": width}, (x,))
    plain = Task(
        name="tiny", version="1", description="", digest="sha256:0", lock={}, mode="inference", dims={"B": batch},
        dtype="float32", device="cpu", threads=1, seed=0, model=model, dataset=None, training=None, quality=Quality(),
        protocol=Protocol(sessions=2, calls=3, warmup_s=1.0, timeout_s=120.0),
    )  # fmt: skip
    return replace(plain, **changes)


class Mlp(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.up, self.norm, self.down = nn.Linear(width, 4 * width), nn.LayerNorm(4 * width), nn.Linear(4 * width, 8)

    def forward(self, input):
        return self.down(nn.functional.gelu(self.norm(self.up(input))))


def program(model=None, **changes):
    """A model as a Program without the way through a manifest."""
    own = task(**changes)
    model = (model or Mlp(own.model.arguments["in_features"])).eval()
    batch = {"input": torch.randn(own.dims["B"], own.model.arguments["in_features"])}

    def predict(inputs):
        with torch.inference_mode():
            return (model(inputs["input"]),)

    if own.mode == "inference":
        return Program(own, batch, predict, lambda: predict(batch), model)
    step = TrainingStep(
        model.train(),
        lambda inputs: model(inputs["input"]),
        batch,
        optimizer(own.training, model.parameters()),
        lambda outputs, inputs: outputs[0].square().mean(),
    )
    return Program(own, batch, predict, step, model, step.optimizer)


class Plugin:
    title, description, options, beside = "a recipe of a plugin", "For tests.", {"amount": 0.0}, {}

    def __init__(self, name, change):
        self.name, self._change = name, change

    def why_not(self, task, program):
        return None

    def prepare(self, program, options, artifacts):
        return self._change(program, options)


def _with_outputs(function):
    def change(program, options):
        def predict(inputs):
            return tuple(function(out, options) for out in program.predict(inputs))

        return replace(program, predict=predict, step=lambda: predict(program.inputs))

    return change


def _explode(program, options):
    raise ZeroDivisionError("inside a recipe")


def _unable(program, options):
    raise NotRunnable("it takes a machine that nobody has")


def _draw(program, options):
    torch.rand(1)  # as a compiler does that draws random numbers in another order
    return program


def _watch(program, options):
    def predict(inputs):
        SEEN.append(inputs["input"])
        return program.predict(inputs)

    return replace(program, predict=predict)


explodes = Plugin("test-explodes", _explode)
unable = Plugin("test-unable", _unable)
nan = Plugin("test-nan", _with_outputs(lambda out, options: out * float("nan")))
drifts = Plugin("test-drifts", _with_outputs(lambda out, options: out + options["amount"]))
reshapes = Plugin("test-reshapes", _with_outputs(lambda out, options: out[:, :-1]))
doubles = Plugin("test-doubles", _with_outputs(lambda out, options: out * 2))
draws = Plugin("test-draws", _draw)
watches = Plugin("test-watches", _watch)
SEEN: list[torch.Tensor] = []

for _name in PLUGINS:
    recipes().add(_name, f"tests.sharpen.tiny:{_name.removeprefix('test-')}")


def size_of_outputs(predict, dims):
    """A quality measure, named by tasks as 'tests.sharpen.tiny:size_of_outputs'."""
    (out,) = predict({"input": torch.ones(dims["B"], 16)})
    return {"size": float(out.abs().mean())}
