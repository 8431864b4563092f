"""`gnomon forecast fit`: the predictor, fitted anew from measured kernels."""

from pathlib import Path

import click


@click.command()
@click.option("--pack", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="Folder with devices.csv and kernels.parquet, and modern/ where it has low precisions.")  # fmt: skip
@click.option("--out", type=click.Path(file_okay=False, path_type=Path),
              help="Folder for model.npz and model.json. Default: the predictor that ships with Gnomon.")  # fmt: skip
def command(pack: Path, out: Path | None) -> None:
    """Fit the predictor to the GPUs whose role in the pack is 'train'."""
    from gnomon.core.errors import UsageError
    from gnomon.forecast.fit import fit_pack
    from gnomon.forecast.model import SHIPPED

    model = fit_pack(pack, progress=lambda text: click.echo(text, err=True))
    folder = out or SHIPPED
    try:
        model.save(folder)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written: {error.strerror}. Choose a folder with --out") from None
    count = sum(len(members) for members in model.experts.values())
    click.echo(f"{count} experts of {len(model.devices)} GPUs in {folder}")
