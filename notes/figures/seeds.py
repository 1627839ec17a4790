"""Several seeds of one run: where they lie, their curves and their metrics, as mean and range."""

import csv
import json
from pathlib import Path

from code_examples import utils


def runs_folder(config: utils.Config) -> Path:
    """Where the runs of all figure scripts lie, so that they can share them."""
    return config.out or utils.ROOT / "outputs" / "figures"


def is_finished(folder: Path, *, quick: bool) -> bool:
    """Whether a run lies there that came to its end, and is no quick one taken for a long one."""
    if not (folder / "metrics.json").exists():
        return False
    return json.loads((folder / "config.json").read_text())["quick"] == quick


def history(folder: Path, column: str) -> tuple[list[float], list[float]]:
    """A column of a run's history.csv: (epochs, values)."""
    rows = csv.DictReader((folder / "history.csv").read_text().splitlines())
    pairs = [(float(r["epoch"]), float(r[column])) for r in rows if r[column]]
    return [epoch for epoch, _ in pairs], [value for _, value in pairs]


def curves(folders: list[Path], names: dict[str, str], path: Path, **style) -> Path:
    """Draw quantities of history.csv over the epochs, the mean of the runs and a band around it.

    Args:
        folders: Finished runs.
        names: Column of history.csv to the name in the picture.
        path: Where the picture goes.
        style: ylabel and what else `utils.curves` takes.
    """
    series, band = {}, {}
    for column, name in names.items():
        runs = [history(folder, column) for folder in folders]
        epochs = runs[0][0]
        values = list(zip(*[y for _, y in runs], strict=True))
        series[name] = (epochs, [sum(v) / len(v) for v in values])
        band[name] = ([min(v) for v in values], [max(v) for v in values])
    title = f"A normal run: mean and range of {len(folders)} seeds"
    return utils.curves(series, path, band=band, xlabel="epoch", title=title, **style)


def table(folders: list[Path], names: tuple[str, ...]) -> None:
    """Print metrics of several runs: mean, lowest and highest."""
    metrics = [json.loads((folder / "metrics.json").read_text()) for folder in folders]
    print(f"\n{len(folders)} seeds: mean (lowest to highest)")
    for name in names:
        values = [m[name] for m in metrics]
        mean = sum(values) / len(values)
        print(f"{name:<34} {mean:.4g} ({min(values):.4g} to {max(values):.4g})")
