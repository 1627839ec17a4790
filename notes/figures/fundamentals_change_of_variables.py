"""The change of variables: a normal density pushed through an invertible map, and its new density.

    x = f(z):        x_1 = z_1,  x_2 = exp(s) z_2 + t    with s = z_1 / 2, t = z_1^2 / 2 - 1
    log p(x)         = log N(z; 0, I) - log|det J(z)|    at z = f^-1(x)
    log|det J(z)|    = s, since J = [[1, 0], [., exp(s)]]

Where the map stretches, the same mass fills more area and the density falls by that factor. The map
is an affine coupling, the layer of most normalising flows: it inverts in closed form because z_1,
which decides s and t, passes unchanged.

Run:     python -m notes.figures.fundamentals_change_of_variables
Writes:  fundamentals_change_of_variables.png
"""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from code_examples import utils

HERE = Path(__file__).parent
BOUNDS = (-3.3, 3.3, -4.8, 6.8)


@dataclass(frozen=True)
class Config(utils.Config):
    """Check the pushed density against autograd, an integral and a histogram, and draw it."""

    num_samples: int = 500_000
    """Samples of z for the histogram."""
    bins: int = 60
    """Bins of the histogram along each axis."""
    figures: Path = HERE
    """Where the picture goes."""


def forward(z: Tensor) -> tuple[Tensor, Tensor]:
    """x = f(z) and log|det J(z)|, for points z (B, 2): (B, 2) and (B,)."""
    s, t = z[:, 0] / 2, z[:, 0].square() / 2 - 1
    return torch.stack([z[:, 0], s.exp() * z[:, 1] + t], dim=1), s


def inverse(x: Tensor) -> Tensor:
    """z = f^-1(x), for points x (B, 2)."""
    s, t = x[:, 0] / 2, x[:, 0].square() / 2 - 1
    return torch.stack([x[:, 0], (x[:, 1] - t) * (-s).exp()], dim=1)


def log_normal(z: Tensor) -> Tensor:
    """log N(z; 0, I) at z (B, 2), (B,) nats."""
    return -0.5 * z.square().sum(1) - math.log(2 * math.pi)


def log_prob(x: Tensor) -> Tensor:
    """Log-density of x = f(z) at x (B, 2), (B,) nats; notes/01 eq. (1.14)."""
    z = inverse(x)
    _, log_det = forward(z)
    return log_normal(z) - log_det


def autograd_log_det(z: Tensor) -> Tensor:
    """log|det J| by autograd, which knows nothing of our formula, (B,)."""
    jacobian = torch.func.vmap(torch.func.jacrev(lambda point: forward(point[None])[0][0]))(z)
    return jacobian.slogdet().logabsdet


def integral(step: float) -> float:
    """Integral of the pushed density over a grid that holds all its mass but 1e-7; must be 1."""
    x_1 = torch.arange(-5.5, 5.5, step, dtype=torch.float64)
    x_2 = torch.arange(-20, 60, step, dtype=torch.float64)
    parts = (log_prob(torch.cartesian_prod(a, x_2)).exp().sum() for a in x_1.split(50))
    return sum(parts).item() * step**2


def bin_of(x: Tensor, bins: int) -> Tensor:
    """Number of the bin that holds each point x (B, 2) of BOUNDS, row by row along x_1, (B,)."""
    low, high = torch.tensor(BOUNDS, dtype=x.dtype).view(2, 2).T
    place = ((x - low) / (high - low) * bins).long()
    return place[:, 0] * bins + place[:, 1]


def expected_density(bins: int, inner: int = 8) -> Tensor:
    """Mean of the pushed density over each bin, from inner^2 points of it, (bins^2,)."""
    middle = (torch.arange(bins * inner, dtype=torch.float64) + 0.5) / (bins * inner)
    x_1, x_2 = (low + (high - low) * middle for low, high in (BOUNDS[:2], BOUNDS[2:]))
    p = log_prob(torch.cartesian_prod(x_1, x_2)).exp()
    return p.view(bins, inner, bins, inner).mean(dim=(1, 3)).flatten()


def main(config: Config) -> None:
    """Print the checks and draw density and grid before and after, and the histogram."""
    g = torch.Generator().manual_seed(config.seed)
    z = torch.randn(config.num_samples, 2, generator=g, dtype=torch.float64)
    x, log_det = forward(z)
    worst = (autograd_log_det(z[:1000]) - log_det[:1000]).abs().max().item()
    print(f"log|det J|, autograd against closed form: largest difference {worst:.1e}")
    print(f"f^-1(f(z)) against z: largest difference {(inverse(x) - z).abs().max().item():.1e}")
    step = 0.1 if config.quick else 0.02
    print(f"integral of the pushed density minus 1: {integral(step) - 1:.1e}")

    low, high = torch.tensor(BOUNDS, dtype=x.dtype).view(2, 2).T
    inside = ((x > low) & (x < high)).all(dim=1)
    counts = torch.bincount(bin_of(x[inside], config.bins), minlength=config.bins**2)
    samples_a_unit = len(x) * (high - low).prod() / config.bins**2  # of density, in a bin
    expected = samples_a_unit * expected_density(config.bins)
    full = expected > 10
    off = (counts - expected)[full] / expected[full].sqrt()  # in standard errors of a count
    print(
        f"histogram: mean square deviation {off.square().mean():.3f} (chance: 1), {len(off)} bins"
    )

    grid = utils.grid_2d((-2, 2, -2, 2), lines=9)
    image = forward(grid.flatten(0, 1))[0].view_as(grid)
    before, after = "z: N(z; 0, I)", "x = f(z): N(z; 0, I) / |det J|"
    path = utils.density_2d(
        {
            before: log_normal,
            after: log_prob,
            f"histogram of {len(z):,} x = f(z)": lambda x: (counts / samples_a_unit).log()[
                bin_of(x, config.bins)
            ],
        },
        config.figures / "fundamentals_change_of_variables.png",
        bounds=BOUNDS,
        lines={before: grid, after: image},
        title="Where the map stretches the grid, the density falls",
    )
    print(path)


if __name__ == "__main__":
    utils.cli(main, Config)
