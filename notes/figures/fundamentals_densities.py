"""Eight distributions whose density is known exactly: what a perfect generative model would be.

A model has learnt one of them when its samples fall where these do and its mean negative
log-likelihood on fresh samples comes down to the entropy H = -E[log p(x)], in nats; none can come
lower. All panels show the same window, so that a wide one and a large entropy go together: exp(H)
is the area over which a uniform density would have the same entropy.

Run:     python -m notes.figures.fundamentals_densities
Writes:  fundamentals_densities.png
"""

import math
from dataclasses import dataclass
from pathlib import Path

import torch

from code_examples import utils

HERE = Path(__file__).parent
WINDOW = (-4.6, 4.6, -4.6, 4.6)  # holds 99.9% of each


@dataclass(frozen=True)
class Config(utils.Config):
    """Draw samples of every 2-D density over the density itself, and print the entropies."""

    num_samples: int = 200
    """Points drawn in each panel."""
    fresh: int = 100_000
    """Points for the entropy's second estimate, the mean of -log p over samples."""
    figures: Path = HERE
    """Where the picture goes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.quick:
            object.__setattr__(self, "fresh", min(self.fresh, 1000))


def main(config: Config) -> None:
    """Print entropy, area and Monte Carlo check of each density; draw all."""
    g = torch.Generator().manual_seed(config.seed)
    densities = {name: utils.density(name) for name in utils.DENSITIES}
    print(f"{'':<13}entropy (nats)  area exp(H)  mean of -log p over {config.fresh:,} samples")
    panels, points = {}, {}
    for name, p in densities.items():
        x = p.sample(config.fresh, g)
        surprise = -p.log_prob(x)  # (N,) nats; its mean estimates H
        error = surprise.std().item() / math.sqrt(len(x))  # one standard error of that mean
        print(
            f"{name:<13}{p.entropy:>14.4f}  {math.exp(p.entropy):>11.3f}"
            f"  {surprise.mean().item():.4f} ± {error:.4f}"
        )
        title = f"{name}: {p.entropy:.2f} nats"
        panels[title], points[title] = p.log_prob, x[: config.num_samples]
    path = utils.density_2d(
        panels,
        config.figures / "fundamentals_densities.png",
        bounds=WINDOW,
        points=points,
        one_scale=False,
        title="Eight densities (bright), samples of them (dots), and their entropies",
    )
    print(path)


if __name__ == "__main__":
    utils.cli(main, Config)
