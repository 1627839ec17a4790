"""Samples at several temperatures, from the same random numbers, and what the judges say of them.

Run:     python -m notes.figures.autoregressive_temperature
Writes:  autoregressive_temperature.png, autoregressive_temperature_quality.png

The chapter's default network, trained first if there is no finished run. Each column begins with
the same random numbers: every clock of (8.11) rings alike, only the logits are divided by T, until
a pixel comes out differently. T = 0 always takes the likeliest level, so all its samples are one
picture. Nats are those of the samples under the model as it was trained, at T = 1. Read the shares
together with the pictures: the digit network is sure of a blank page, too.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from code_examples import pixelcnn, utils

from .autoregressive_model import Trained, load

HERE = Path(__file__).parent
SHOWN = 12


@dataclass(frozen=True)
class Config(pixelcnn.Config):
    """Draw from one network at several temperatures, and judge."""

    model: Literal["pixelcnn"] = "pixelcnn"
    """The default network."""
    temperatures: tuple[float, ...] = (0.0, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.4)
    """Which."""
    figures: Path = HERE
    """Where the pictures go."""


def draw(trained: Trained, temperature: float, n: int, seed: int) -> Tensor:
    """n samples; at temperature 0 one picture, n times."""
    torch.manual_seed(seed)
    blank = torch.zeros_like(trained.test[:1]).expand(n if temperature else 1, -1, -1, -1)
    return trained.complete(blank, temperature=temperature).expand(n, -1, -1, -1)


def judge(trained: Trained, x: Tensor) -> dict[str, float]:
    """Quality of pictures, their nats under the model, and how bright they are."""
    quality = utils.sample_quality(x, trained.data)
    names = ("frechet_distance", "precision", "recall", "confident_share")
    nats = -trained.log_prob(x).flatten(1).sum(dim=1).mean().item()
    return {name: quality[name] for name in names} | {"nats": nats, "grey": x.mean().item()}


def main(config: Config) -> None:
    """Print the table; draw the samples and the curves."""
    trained, rows, judged = load(config), {}, {}
    print("\n| T | Frechet | precision | recall | confident | nats | mean grey |")
    for temperature in (*config.temperatures, None):
        if temperature is None:
            x, name = trained.test, "test digits"
        else:
            x, name = draw(trained, temperature, config.num_samples, config.seed), temperature
            rows[f"T = {temperature:g}"] = x[:SHOWN]
        judged[name] = judge(trained, x)
        print(f"| {name} | " + " | ".join(f"{v:.4g}" for v in judged[name].values()) + " |")
    path = utils.image_rows(
        rows,
        config.figures / "autoregressive_temperature.png",
        title="One network at several temperatures; each column from the same random numbers",
    )
    print(path)
    real, places = judged.pop("test digits"), list(judged)

    def curve(name: str) -> tuple[list[float], list[float]]:
        return places, [values[name] for values in judged.values()]

    def level(name: str) -> tuple[list[float], list[float]]:
        return [places[0], places[-1]], [real[name]] * 2

    path = utils.curve_panels(
        {
            "Frechet distance": {"samples": curve("frechet_distance")},
            "share": {name: curve(name) for name in ("precision", "recall")},
            "confident share": {
                "samples": curve("confident_share"),
                "test digits": level("confident_share"),
            },
            "nats at T = 1": {"samples": curve("nats"), "test digits": level("nats")},
        },
        config.figures / "autoregressive_temperature_quality.png",
        xlabel="temperature T",
        title=f"{config.num_samples:,} samples at each temperature, judged",
        logy=("Frechet distance",),
    )
    print(path)


if __name__ == "__main__":
    utils.cli(main, Config)
