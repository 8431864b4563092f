"""`gnomon forecast evaluate`: how far forecasts are from what was measured."""

from pathlib import Path

import click

from gnomon.cli._common import console, print_json


@click.command()
@click.option("--pack", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="Folder with measured kernels and labelled models.")  # fmt: skip
@click.option("--leave-one-out", is_flag=True, help="Judge each GPU by the predictor without what it learnt from it.")
@click.option("--predictor", "folder", type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="Folder that `forecast fit --out` wrote. Default: the shipped predictor.")  # fmt: skip
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path, allow_dash=True),
              help="Also write everything as JSON to this file; - prints it instead of the tables.")  # fmt: skip
def command(pack: Path, leave_one_out: bool, folder: Path | None, json_path: Path | None) -> None:
    """Print the accuracy of forecasts on a pack: by class, precision and GPU, and of whole models."""
    import json

    from gnomon.core.records import to_json
    from gnomon.forecast.evaluate import evaluate
    from gnomon.forecast.model import load, shipped
    from gnomon.forecast.pack import read_pack
    from gnomon.report.accuracy import print_accuracy

    evaluation = evaluate(read_pack(pack), load(folder) if folder else shipped(), leave_one_out=leave_one_out)
    if str(json_path) == "-":
        print_json(evaluation)
        return
    if json_path is not None:
        json_path.write_text(json.dumps(to_json(evaluation), indent=1) + "\n", encoding="utf-8")
    print_accuracy(console(), evaluation)
