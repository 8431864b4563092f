"""`gnomon init`: asks what a manifest says, or takes it from options, and writes a file that validates."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gnomon.cli._common import json_option, parse_dims, print_json

if TYPE_CHECKING:
    from gnomon.spec.init import Question

_MOST_TRIES = 20  # a program that answers nonsense for ever is no person
_LISTS = {"input": "inputs", "argument": "arguments", "package": "packages"}


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--kind", help="task, model, dataset, software or hardware.")
@click.option("--name", help="Its name: small letters, digits, '-', '_' and '.'.")
@click.option("--version", help="Its version, such as 1.0.0.")
@click.option("--description", help="One line about it.")
@click.option("--source", help="Of the model: python, huggingface or onnx.")
@click.option("--target", help="package.module:callable that returns the model.")
@click.option("--argument", multiple=True, metavar="NAME=VALUE", help="Of that callable; $B is the size of B.")
@click.option("--config", help="config.json of a model of transformers.")
@click.option("--weights", help="The .onnx file, beside the manifest or below.")
@click.option("--input", multiple=True, metavar="NAME=DTYPE[AXES]", help="An input, such as 'ids=int64[B,L]<30522'.")
@click.option("--dim", multiple=True, metavar="NAME=SIZE", help="Size of a named dimension.")
@click.option("--examples", help="package.module:callable that gives real inputs.")
@click.option("--mode", help="inference or training.")
@click.option("--dtype", help="Of the weights.")
@click.option("--least-cosine", help="Quality bound: least mean cosine to the original's outputs.")
@click.option("--package", multiple=True, metavar="REQUIREMENT", help="Of a software manifest, such as 'torch>=2.9'.")
@click.option("--python", help="Range of Python versions, such as '>=3.11'.")
@click.option("--min-cores", help="Of a hardware manifest: least cores.")
@click.option("--memory-gib", help="Least memory in GiB.")
@click.option("--accelerators", help="Least number of accelerators.")
@click.option("--vendor", help="Of the accelerators: NVIDIA, AMD or Intel.")
@click.option("--accelerator-gib", help="Least memory of each in GiB.")
@click.option("--yes", is_flag=True, help="Ask nothing: take the default for all that no option gives.")
@click.option("--force", is_flag=True, help="Write over FILE.")
@json_option
def command(file: Path | None, yes: bool, force: bool, as_json: bool, dim: tuple[str, ...], **options: Any) -> None:
    """Ask a few questions and write a manifest to FILE (NAME.yaml when it is left out).

    What can be told by reading a configuration, an ONNX file or source text is offered as the answer; no code is run.
    Options answer their question beforehand. A file that exists is left as it is, unless --force is given.
    """
    from gnomon.core.errors import UsageError
    from gnomon.spec.init import document, next_question, text

    if file is not None and file.exists() and not force:
        raise UsageError(f"{file} exists; name another file, or pass --force to write over it")
    folder = file.parent if file is not None else Path()
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}; make it first")
    given = _given(options, dim)
    answers: dict[str, Any] = {}
    while (question := next_question(answers, folder)) is not None:
        answers[question.key] = _answer(question, given, yes, answers, folder)
    unused = [key for key in given if key not in answers]
    if unused:
        raise UsageError(f"a {answers['kind']} like this one has no use for --{', --'.join(map(_dashed, unused))}")
    whole = text(answers)
    target = file if file is not None else Path(f"{answers['name']}.yaml")
    try:
        with target.open("w" if force else "x", encoding="utf-8") as out:
            out.write(whole)
    except FileExistsError:
        raise UsageError(f"{target} exists; name another file, or pass --force to write over it") from None
    except OSError as error:
        raise UsageError(f"{target} cannot be written: {error.strerror}") from error
    after = f"gnomon resolve {target} --explain" if answers["kind"] == "task" else f"gnomon validate {target}"
    if as_json:
        print_json({"file": str(target), "manifest": document(answers), "next": after})
        return
    click.echo(f"wrote {target}; next: {after}")


def _given(options: Mapping[str, Any], dim: tuple[str, ...]) -> dict[str, str]:
    """The answers that options give, by the keys of their questions."""
    given = {}
    for name, value in options.items():
        if value not in (None, ()):
            given[_LISTS.get(name, name)] = " ".join(value) if isinstance(value, tuple) else value
    return given | {f"dim.{name}": str(size) for name, size in parse_dims(None, None, dim).items()}


def _answer(question: "Question", given: Mapping[str, str], yes: bool, answers: Mapping[str, Any], folder: Path) -> Any:
    from gnomon.core.errors import UsageError

    if question.key in given or (yes and question.default is not None):
        try:
            return question.read(given.get(question.key, question.default or ""))
        except ValueError as error:
            raise UsageError(f"{question.option}: {error}") from error
    if yes:
        raise UsageError(_needed(question, answers))
    for _ in range(_MOST_TRIES):
        try:
            said = click.prompt(question.text, default=question.default, show_default=bool(question.default), err=True)
        except click.Abort:
            click.echo(err=True)  # the prompt's line is still open
            raise UsageError(f"no more answers. {_needed(question, answers)}") from None
        try:
            return question.read(said)
        except ValueError as error:
            click.echo(f"  {error}", err=True)
    raise UsageError(f"{question.option}: {_MOST_TRIES} answers made no sense")


def _needed(question: "Question", answers: Mapping[str, Any]) -> str:
    """What else is wanted, as options."""
    lines = [
        f"Without a terminal give all that has no default as options; still needed: {question.option} ({question.text})"
    ]
    kind, source = answers.get("kind", "task"), answers.get("source", "python")
    all_of = {
        "task": {"python": "--target, --argument, --input, --dim", "huggingface": "--config", "onnx": "--weights"},
        "dataset": {source: "--examples"},
    }
    options = all_of.get("task" if kind == "model" else kind, {}).get(source, "none")
    lines.append(f"A {kind} may need: {options}; --yes takes the defaults of all others")
    return ". ".join(lines)


def _dashed(key: str) -> str:
    lists = {plural: single for single, plural in _LISTS.items()}
    return f"dim {key.removeprefix('dim.')}=" if key.startswith("dim.") else lists.get(key, key).replace("_", "-")
