"""Pictures drawn from known factors, to ask whether a latent space has found them."""

import math

import numpy as np
import torch
from torch import Tensor

SHAPES = ("square", "ellipse", "triangle")
SIDE = 28  # pixels
# A shape is the same after a turn by its period, so rotations stay below it and are unique.
PERIODS = (math.pi / 2, math.pi, 2 * math.pi / 3)
# The farthest point of a shape lies `size` from its centre: 9.5 - 8 leaves 1.5 pixels of border.
CENTRE_RANGE, SIZE_RANGE = (9.5, 18.5), (4.5, 8.0)


def draw_shapes(n: int, *, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Draw n white shapes on black with random factors.

    Args:
        n: Number of pictures.
        seed: Of the factors, which are uniform and independent.

    Returns:
        Pictures (n, 1, 28, 28) float32 in [0, 1]; labels (n,) int64, an index into `SHAPES`; and
        factors (n, 4) float32: centre x to the right and y down, size (centre to farthest point),
        all in pixels, and rotation in radians, clockwise as seen, in [0, pi/2) for a square,
        [0, pi) for an ellipse, [0, 2 pi/3) for a triangle.
    """
    rng = np.random.RandomState(seed)  # a stream that stays the same in every NumPy
    labels = rng.randint(len(SHAPES), size=n, dtype=np.int64)
    factors = np.empty((n, 4))
    factors[:, :2] = rng.uniform(*CENTRE_RANGE, size=(n, 2))
    factors[:, 2] = rng.uniform(*SIZE_RANGE, size=n)
    factors[:, 3] = rng.uniform(size=n) * np.array(PERIODS)[labels]
    y, kept = torch.from_numpy(labels), torch.from_numpy(factors).float()
    return render_shapes(y, kept), y, kept


def render_shapes(labels: Tensor, factors: Tensor) -> Tensor:
    """Draw a shape for each label (N,) and row of factors (N, 4), (N, 1, 28, 28) in [0, 1].

    A pixel is as white as its covered part, which is 1/2 minus the distance (in pixels, negative
    inside) from its centre to the edge, within [0, 1]: exact for an edge along the pixel grid.
    """
    ticks = torch.arange(SIDE) + 0.5  # the pixels' centres
    dx = ticks[None, None, :] - factors[:, 0, None, None]
    dy = ticks[None, :, None] - factors[:, 1, None, None]
    angle, size = factors[:, 3, None, None], factors[:, 2, None, None]
    u = dx * angle.cos() + dy * angle.sin()  # (N, 28, 28), in the frame of the shape
    v = dy * angle.cos() - dx * angle.sin()
    distance = torch.empty_like(u)
    for label, signed_distance in enumerate((_square, _ellipse, _triangle)):
        chosen = labels == label
        distance[chosen] = signed_distance(u[chosen], v[chosen], size[chosen])
    return (0.5 - distance).clamp(0, 1)[:, None]


def _square(u: Tensor, v: Tensor, size: Tensor) -> Tensor:
    """Distance to the nearest side of a square whose half diagonal is size."""
    return torch.maximum(u.abs(), v.abs()) - size / math.sqrt(2)


def _ellipse(u: Tensor, v: Tensor, size: Tensor) -> Tensor:
    """Distance to an ellipse with half axes size and size / 2, to first order at its edge."""
    radius = torch.hypot(u / size, 2 * v / size)  # 1 on the edge
    slope = torch.hypot(u / size.square(), 4 * v / size.square()) / radius.clamp(min=1e-6)
    return (radius - 1) / slope.clamp(min=1e-6)


def _triangle(u: Tensor, v: Tensor, size: Tensor) -> Tensor:
    """Distance to the nearest side of an equilateral triangle with a corner at (0, -size)."""
    sides = [
        math.cos(a) * u + math.sin(a) * v for a in (math.pi / 2, -math.pi / 6, -5 * math.pi / 6)
    ]
    return torch.stack(sides).amax(0) - size / 2
