"""Recipes: named ways to make a task faster, and the one function that applies them in a fresh process.

A recipe promises nothing about speed or accuracy; `verify` and a comparison find out, `judge` decides.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from gnomon.core.errors import NotRunnable, UsageError, did_you_mean
from gnomon.core.registry import Registry
from gnomon.spec.task import Task

if TYPE_CHECKING:
    from gnomon.workload.program import Program

PREPARE = "gnomon.sharpen.recipe:prepare"  # what a measuring process calls
BASELINE = "eager"

_SHIPPED = {
    "attend.detect": "gnomon.sharpen.passes.attend_detect:recipe",
    "attend.pack": "gnomon.sharpen.passes.attend_pack:recipe",
    "attend.window": "gnomon.sharpen.passes.attend_window:recipe",
    "bf16": "gnomon.sharpen.passes.bf16:recipe",
    "compile": "gnomon.sharpen.passes.compile:recipe",
    "int8-dynamic": "gnomon.sharpen.passes.int8_dynamic:recipe",
    "onnx-fp32": "gnomon.sharpen.passes.onnx_fp32:recipe",
    "onnx-int8": "gnomon.sharpen.passes.onnx_int8:recipe",
}


class Recipe(Protocol):
    """What an entry of the registry, ours or a plugin's, has to offer.

    options: every option with its default; their types are those of JSON. beside: defaults that another recipe's
    presence in a combination changes, {other recipe: {option: default}}.
    """

    @property
    def name(self) -> str: ...

    @property
    def title(self) -> str: ...

    @property
    def description(self) -> str: ...

    @property
    def options(self) -> Mapping[str, Any]: ...

    @property
    def beside(self) -> Mapping[str, Mapping[str, Any]]: ...

    def why_not(self, task: Task, program: "Program | None") -> str | None:
        """Why the recipe cannot be applied, as the end of the sentence 'It does not apply: ...'; None when it can.

        program None: only what task and machine tell is asked for, and nothing is built.
        """

    def prepare(self, program: "Program", options: Mapping[str, Any], artifacts: Path) -> "Program":
        """The faster program. May change program.model in place; the program that was given is not used again.

        options: all of them, checked. artifacts: a folder of this task's own, kept between processes; what is made
        there once is found there later. Raises NotRunnable for what only the attempt shows to be impossible.
        """


@dataclass(frozen=True, slots=True)
class Variant:
    """A way to run a task. prepare: 'module:function', called as prepare(program, options) -> Program; None: as is."""

    name: str
    prepare: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@functools.cache
def recipes() -> Registry:
    """The shipped recipes and those of installed packages (entry-point group 'gnomon.recipes')."""
    return Registry("recipe", _SHIPPED, group="gnomon.recipes")


def get(name: str) -> Recipe:
    """The recipe of that name. 'a+b' applies a, then b; its options are called 'a.option' and 'b.option'.

    Raises UnknownName with the nearest name, UsageError for a combination that names a recipe twice.
    """
    parts = name.split("+")
    if len(parts) == 1:
        recipe: Recipe = recipes().get(name)
        return recipe
    if len(set(parts)) < len(parts):
        raise UsageError(f"a combination applies each recipe once; got {name!r}")
    return Combination(tuple(get(part) for part in parts))


def check_name(name: str) -> None:
    """Raises as `get` does, without importing the recipe."""
    for part in name.split("+"):
        if part not in recipes():
            known = ", ".join(recipes().names())
            raise UsageError(f"no recipe is called {part!r}.{did_you_mean(part, recipes())} Known: {known}")
    if len(set(name.split("+"))) < len(name.split("+")):
        raise UsageError(f"a combination applies each recipe once; got {name!r}")


def effective_options(recipe: Recipe, given: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe's defaults, overridden by `given`. Raises UsageError for an option that it does not have."""
    for key in given:
        if key not in recipe.options:
            known = ", ".join(recipe.options) or "none"
            near = did_you_mean(key, recipe.options)
            raise UsageError(f"recipe {recipe.name!r} has no option {key!r}.{near} Options: {known}")
    return {**recipe.options, **given}


def variant(name: str, artifacts: Path, options: Mapping[str, Any] | None = None) -> Variant:
    """What a comparison needs to run the recipe in its own processes. artifacts: a folder of the task's own."""
    check_name(name)
    return Variant(name, PREPARE, {"recipe": name, "artifacts": str(artifacts), **(options or {})})


def prepare(program: "Program", options: Mapping[str, Any]) -> "Program":
    """Apply a recipe. options: 'recipe' (its name), 'artifacts' (a folder), and the recipe's own.

    Raises NotRunnable with the reason when the recipe does not apply, and what the recipe raises.
    """
    own = dict(options)
    recipe, artifacts = get(own.pop("recipe")), Path(own.pop("artifacts"))
    reason = recipe.why_not(program.task, program)
    if reason is not None:
        raise NotRunnable(f"recipe {recipe.name!r} does not apply to {program.task.name}: {reason}")
    artifacts.mkdir(parents=True, exist_ok=True)
    return recipe.prepare(program, effective_options(recipe, own), artifacts)


class Combination:
    """Several recipes, applied from left to right."""

    beside: Mapping[str, Mapping[str, Any]] = {}

    def __init__(self, parts: tuple[Recipe, ...]) -> None:
        self.parts = parts
        self.name = "+".join(part.name for part in parts)
        self.title = ", then ".join(part.title for part in parts)
        self.description = " ".join(part.description for part in parts)
        self.options = {f"{part.name}.{key}": value for part in parts for key, value in self._defaults(part).items()}

    def why_not(self, task: Task, program: "Program | None") -> str | None:
        reasons = ((part, part.why_not(task, program)) for part in self.parts)
        return next((f"{part.name}: {reason}" for part, reason in reasons if reason is not None), None)

    def prepare(self, program: "Program", options: Mapping[str, Any], artifacts: Path) -> "Program":
        for part in self.parts:
            reason = part.why_not(program.task, program)  # an earlier part may have taken the torch model away
            if reason is not None:
                raise NotRunnable(f"{self.name}: {part.name} cannot follow what comes before it: {reason}")
            program = part.prepare(program, {key: options[f"{part.name}.{key}"] for key in part.options}, artifacts)
        return program

    def _defaults(self, part: Recipe) -> Mapping[str, Any]:
        changed = [part.beside[other.name] for other in self.parts if other.name in part.beside]
        return functools.reduce(lambda a, b: {**a, **b}, changed, dict(part.options))
