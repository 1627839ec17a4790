"""One monotone rational-quadratic spline: itself, its slope, its inverse and its density.

Run:     python -m notes.figures.flow_splines
Writes:  flow_splines.png
"""

import math
from dataclasses import dataclass
from pathlib import Path

import torch

from code_examples import flows, utils

HERE = Path(__file__).parent
WIDTHS = (2.6, 1.6, 1.6, 1.2, 3.0)  # of the bins from -5 to 5
HEIGHTS = (2.8, 2.0, 0.4, 2.0, 2.8)
SLOPES = (1.0, 1.1, 0.6, 0.6, 1.3, 1.0)  # at the knots


@dataclass(frozen=True)
class Config(utils.Config):
    """Draw one spline of five bins."""

    figures: Path = HERE
    """Where the picture goes."""


def main(config: Config) -> None:
    """Draw the spline beside the straight lines between its knots."""
    slopes = torch.tensor(SLOPES)
    before = (slopes - 1e-3).expm1().log() - math.log(math.expm1(1 - 1e-3))  # softplus undone
    params = torch.cat([torch.tensor(WIDTHS).log(), torch.tensor(HEIGHTS).log(), before])
    x = torch.linspace(-6, 6, 1201)
    every = params.expand(len(x), -1)
    y, log_slope = flows.rational_quadratic_spline(x, every)
    back, _ = flows.rational_quadratic_spline(x, every, inverse=True)
    knots = flows.knots(torch.tensor(WIDTHS).log().softmax(dim=0), bound=5.0)
    heights, _ = flows.rational_quadratic_spline(knots, params.expand(len(knots), -1))
    mean = (heights.diff() / knots.diff()).repeat_interleave(2)
    steps = torch.stack([knots[:-1], knots[1:]], dim=1).flatten()
    density = (flows.log_normal(y[:, None]) + log_slope).exp()
    normal = flows.log_normal(x[:, None]).exp()
    path = utils.curve_panels(
        {
            "$y = f(x)$": {"spline": (x, y), "knots, joined": (knots, heights)},
            "slope $f'(x)$": {"spline": (x, log_slope.exp()), "of the lines": (steps, mean)},
            "$x = f^{-1}(y)$": {"inverse": (x, back), "knots, joined": (heights, knots)},
            "density": {"of x, if y is normal": (x, density), "N(0, 1)": (x, normal)},
        },
        config.figures / "flow_splines.png",
        xlabel="x; for the inverse y",
        title="A spline of five bins between -5 and 5, and straight lines outside",
    )
    print(path)


if __name__ == "__main__":
    utils.cli(main, Config)
