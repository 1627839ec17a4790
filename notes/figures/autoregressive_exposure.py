"""Do samples drift away from the data down the page? Nats row by row, and beginnings given.

Run:     python -m notes.figures.autoregressive_exposure
Writes:  autoregressive_exposure.png, autoregressive_exposure_given.png

The chapter's default network, trained first if there is no finished run. First (8.72): nats of each
row of own samples minus those of test pictures, with the standard error, and the slope of this
difference, for which each picture's own slope is taken, so that rows may depend on each other. Then
the first rows of test pictures are given and the rest is drawn: how good is the whole? Beside it
stands the share of a picture's nats that was given, with which a mere lack of ability would go.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from code_examples import pixelcnn, utils

from .autoregressive_model import Trained, load

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Config(pixelcnn.Config):
    """Compare own samples with test pictures, row by row and with given beginnings."""

    model: Literal["pixelcnn"] = "pixelcnn"
    """The default network."""
    count: int = 1000
    """Test pictures, and samples."""
    given: tuple[int, ...] = (4, 8, 12, 16, 20, 24)
    """Rows of the test pictures that are given; samples with none and test pictures are added."""
    figures: Path = HERE
    """Where the pictures go."""


def row_nats(trained: Trained, x: Tensor) -> Tensor:
    """-log p of each row of pictures (N, C, H, W), given what is before it: (N, H) nats."""
    return -trained.log_prob(x).double().sum(dim=(1, 3))


def difference(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """mean(a) - mean(b) over the first dimension, and its standard error."""
    error = (a.var(dim=0) / len(a) + b.var(dim=0) / len(b)).sqrt()
    return a.mean(dim=0) - b.mean(dim=0), error


def slope(nats: Tensor) -> Tensor:
    """Of the line through the rows of each picture (N, H), (N,) nats a row."""
    place = torch.arange(nats.shape[1]).double()
    place = place - place.mean()
    return nats @ place / place.square().sum()


def by_row(own: Tensor, test: Tensor, path: Path) -> None:
    """Print and draw nats of each row (N, H) of own samples and of test pictures."""
    excess, error = difference(own, test)
    print("\n| row | samples, nats | test, nats | difference | standard error |")
    for row in range(len(excess)):
        numbers = own[:, row].mean(), test[:, row].mean(), excess[row], error[row]
        print(f"| {row} | " + " | ".join(f"{v:.3f}" for v in numbers) + " |")
    middle = own.shape[1] // 2
    parts = {
        "all rows": slice(None),
        "upper half": slice(middle),
        "lower half": slice(middle, None),
    }
    for name, rows in parts.items():
        sums = own[:, rows].sum(dim=1), test[:, rows].sum(dim=1)
        value, error_of_sum = difference(*sums)
        print(
            f"{name}: {value:.2f} +- {error_of_sum:.2f} nats, {value / sums[1].mean():.1%} of test"
        )
    value, error_of_slope = difference(slope(own), slope(test))
    print(f"slope down the page: {value:.4f} +- {error_of_slope:.4f} nats a row")
    series, band = {}, {}
    for name, nats in (("own samples", own), ("test pictures", test)):
        mean, spread = nats.mean(dim=0), nats.std(dim=0) / len(nats) ** 0.5
        series[name], band[name] = (range(len(mean)), mean), (mean - spread, mean + spread)
    series["difference"] = range(len(excess)), excess
    band["difference"] = excess - error, excess + error
    labels = {"xlabel": "row, from the top", "ylabel": "nats of a row"}
    title = "Own samples against test pictures: mean and standard error"
    print(utils.curves(series, path, band=band, **labels, title=title))


def share_of_way(values: list[float]) -> Tensor:
    """How much of the way from the first of the values to the last each has gone."""
    values = torch.tensor(values).double()
    return (values - values[0]) / (values[-1] - values[0])


def main(config: Config) -> None:
    """Both measurements."""
    trained = load(config)
    x, height = trained.test[: config.count], trained.test.shape[2]
    torch.manual_seed(config.seed)
    whole, test = {0: trained.complete(torch.zeros_like(x))}, row_nats(trained, x)
    by_row(row_nats(trained, whole[0]), test, config.figures / "autoregressive_exposure.png")
    known = torch.zeros(x.shape[1:], dtype=torch.bool)
    for rows in sorted(config.given):
        known[:, :rows] = True
        whole[rows] = trained.complete(x, known=known)
    whole[height] = x
    passed = [test[:, :rows].sum() / test.sum() for rows in whole]  # of the nats, in these rows
    judged = [utils.sample_quality(pictures, trained.data) for pictures in whole.values()]
    frechet = [quality["frechet_distance"] for quality in judged]
    confident = [quality["confident_share"] for quality in judged]
    print("\n| rows given | share of nats | Frechet | share of the way | confident | share |")
    columns = whole, passed, frechet, share_of_way(frechet), confident, share_of_way(confident)
    for rows, nats, distance, way, sure, way_sure in zip(*columns, strict=True):
        print(f"| {rows} | {nats:.1%} | {distance:.2f} | {way:.1%} | {sure:.1%} | {way_sure:.1%} |")
    panels = {"Frechet distance": {"": (list(whole), frechet)}}
    panels["confident share"] = {"": (list(whole), confident)}
    path = utils.curve_panels(
        panels,
        config.figures / "autoregressive_exposure_given.png",
        xlabel="rows of a test picture that are given",
        title="Quality of the whole when the beginning is true",
    )
    print(path)


if __name__ == "__main__":
    utils.cli(main, Config)
