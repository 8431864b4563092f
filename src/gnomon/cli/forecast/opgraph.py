"""`gnomon forecast opgraph`: whole models from the operator graphs of a pack, on one device."""

from pathlib import Path

import click


@click.command()
@click.option("--opgraphs", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Parquet file of operator graphs.")  # fmt: skip
@click.option("--devices", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Table of devices (devices.csv).")  # fmt: skip
@click.option("--device", "name", required=True, metavar="NAME", help="A device of that table.")
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="CSV file to write.")
@click.option("--models", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Model configurations with layer counts. Default: models.json beside the graphs.")  # fmt: skip
@click.option("--predictor", "predictor_name", metavar="NAME|DIR",
              help="Another predictor than ours, or the folder that `forecast fit --out` wrote.")  # fmt: skip
def command(
    opgraphs: Path, devices: Path, name: str, out: Path, models: Path | None, predictor_name: str | None
) -> None:
    """Forecast every graph of a file: forward, backward and whole step in milliseconds, with a 90 % interval."""
    from gnomon.forecast.evaluate import predictions, write_predictions
    from gnomon.forecast.pack.devices import find_device
    from gnomon.forecast.setting import predictor

    rows = predictions(opgraphs, find_device(devices, name), predictor(predictor_name), models)
    write_predictions(rows, out)
    click.echo(f"{len(rows)} graphs on {name} in {out}")
