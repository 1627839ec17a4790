"""Distributions on the plane whose log-density is exact, so that a model of them can be graded.

The usual toy data sets are only samplers: nobody can say how good a likelihood on them could be.
Here each is *defined* by its density. `ring` and `grid` are mixtures of Gaussians; `moons`,
`circles`, `spirals` and `swissroll` are mixtures too, of a few hundred equal dots of a soft pen
that lie along the curve closer together than they are wide; `checkerboard` is uniform on squares;
`pinwheel` is a mixture that a map of Jacobian 1 has swirled. The entropy is therefore known: it is
the least mean of -log_prob (in nats) that any model can reach on fresh samples.
"""

import difflib
import math
from functools import cache, cached_property

import torch
from torch import Tensor

from .errors import UserError

DENSITIES = (
    "moons",
    "ring",
    "grid",
    "checkerboard",
    "spirals",
    "circles",
    "swissroll",
    "pinwheel",
)
Bounds = tuple[float, float, float, float]


class Density:
    """A distribution on the plane: samples, exact log_prob and entropy, both in nats.

    Attributes:
        name: One of `DENSITIES`.
        bounds: (x_lo, x_hi, y_lo, y_hi), a window for plots with at least 99.9% of the mass.
        modes: (K, 2) float64 centres of separate modes, for `ring` and `grid`; None elsewhere.
        std: Standard deviation of one Gaussian of a mixture; None where there is none.
    """

    modes: Tensor | None = None
    std: float | None = None

    def __init__(self, name: str, bounds: Bounds) -> None:
        self.name, self.bounds = name, bounds

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n independent points, (n, 2) float32, on the generator's device (CPU without)."""
        raise NotImplementedError

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density at the points x (B, 2), (B,) nats, in x's dtype and on its device."""
        raise NotImplementedError

    @cached_property
    def entropy(self) -> float:
        """Differential entropy -E[log p(x)] in nats, notes/01 eq. (1.9); may be negative."""
        raise NotImplementedError


class Dots(Density):
    """Equal mixture of K round Gaussians.

    Args:
        name: One of `DENSITIES`.
        centres: (K, 2) float64.
        std: Standard deviation of every Gaussian, along each axis.
        separate: Whether each centre is a mode of its own (then `modes` is set).
    """

    def __init__(self, name: str, centres: Tensor, *, std: float, separate: bool = False) -> None:
        super().__init__(name, _box(centres, margin=4 * std))
        self.centres, self.std = centres, std
        self.modes = centres if separate else None

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n points: a dot chosen at random, and Gaussian noise around it; (n, 2) float32."""
        device = _device(generator)
        dot = torch.randint(len(self.centres), (n,), generator=generator, device=device)
        eps = torch.randn(n, 2, generator=generator, device=device)
        return self.centres.to(eps)[dot] + self.std * eps

    def log_prob(self, x: Tensor) -> Tensor:
        """Log of the mean of K Gaussian densities at x (B, 2), (B,) nats; notes/01 eq. (1.3)."""
        centres = self.centres.to(_checked(x))
        log_norm = math.log(len(centres) * 2 * math.pi * self.std**2)
        log_kernels = []
        rows = max(1, 2**21 // len(centres))  # all pairs (B, K) at once would fill the memory
        for part in x.split(rows):
            dx, dy = part[:, :1] - centres[:, 0], part[:, 1:] - centres[:, 1]
            exponent = -(dx.square() + dy.square()) / (2 * self.std**2)
            log_kernels.append(torch.logsumexp(exponent, dim=1))
        return torch.cat(log_kernels) - log_norm

    @cached_property
    def entropy(self) -> float:
        """Entropy in nats by quadrature; at half a std of step its error is below 1e-6."""
        return _quadrature_entropy(self, _box(self.centres, margin=8 * self.std), step=self.std / 2)


class Checkerboard(Density):
    """Uniform on the 8 unit squares of [-2, 2]^2 whose integer corner has an even sum."""

    def __init__(self) -> None:
        super().__init__("checkerboard", (-2.0, 2.0, -2.0, 2.0))

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n points: a square, then a place in it; (n, 2) float32, never on an edge."""
        device = _device(generator)
        square = torch.randint(8, (n,), generator=generator, device=device)
        row = square // 2 - 2
        column = 2 * (square % 2) - 2 + row % 2
        # Odd multiples of 2^-21: exact in float32, so rounding carries no point over an edge.
        place = torch.randint(2**20, (n, 2), generator=generator, device=device)
        return torch.stack([column, row], dim=1) + (place.float() + 0.5) / 2**20

    def log_prob(self, x: Tensor) -> Tensor:
        """-log 8 on the squares and -inf elsewhere, at x (B, 2), (B,) nats."""
        inside = (_checked(x) >= -2).all(1) & (x < 2).all(1) & (x.floor().sum(1) % 2 == 0)
        log_p = torch.full(inside.shape, -math.log(8.0), dtype=x.dtype, device=x.device)
        return log_p.masked_fill(~inside, -math.inf)

    @cached_property
    def entropy(self) -> float:
        """Log of the area, log 8 nats exactly."""
        return math.log(8.0)


class Pinwheel(Density):
    """Five Gaussian arms, each point turned by its arm's angle plus a rate times its radius.

    An arm is drawn along the x axis, mean (2, 0) and std (0.6, 0.2), then every point at radius
    rho turns by 2 pi k / 5 + rate * rho. The turn keeps rho, and in polar coordinates it is
    (rho, theta) -> (rho, theta + f(rho)), whose Jacobian [[1, 0], [f'(rho), 1]] has determinant 1.
    Areas stay as they are, so the density at x is that of the point turned back (notes/01
    eq. (1.14)).
    """

    arms, mean, radial_std, tangential_std, rate = 5, 2.0, 0.6, 0.2, 0.5

    def __init__(self) -> None:
        super().__init__("pinwheel", (-4.4, 4.4, -4.4, 4.4))

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n points: an arm, a Gaussian along it, and the turn; (n, 2) float32."""
        device = _device(generator)
        arm = torch.randint(self.arms, (n,), generator=generator, device=device)
        eps = torch.randn(n, 2, generator=generator, device=device)
        u = self.mean + self.radial_std * eps[:, 0]
        v = self.tangential_std * eps[:, 1]
        angle = 2 * math.pi / self.arms * arm + self.rate * torch.hypot(u, v)
        return torch.stack(_turn(u, v, angle), dim=1)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log of the mean over arms of the Gaussian at the point turned back, (B,) nats."""
        arm = torch.arange(self.arms, dtype=x.dtype, device=x.device)
        radius = torch.linalg.vector_norm(_checked(x), dim=1, keepdim=True)
        angle = 2 * math.pi / self.arms * arm + self.rate * radius  # (B, arms)
        u, v = _turn(x[:, :1], x[:, 1:], -angle)
        exponent = ((u - self.mean) / self.radial_std).square() + (v / self.tangential_std).square()
        log_norm = math.log(self.arms * 2 * math.pi * self.radial_std * self.tangential_std)
        return torch.logsumexp(-0.5 * exponent, dim=1) - log_norm

    @cached_property
    def entropy(self) -> float:
        """Entropy in nats by quadrature; error below 1e-6."""
        reach = self.mean + 8 * self.radial_std
        return _quadrature_entropy(self, (-reach, reach, -reach, reach), step=0.05)


@cache
def density(name: str) -> Density:
    """Return the 2-D density of that name; the same object each time, so its entropy is kept.

    Args:
        name: One of `DENSITIES`. Scales follow the toy data of FFJORD (arXiv:1810.01367), about
            [-4, 4]^2, except `ring` (8 Gaussians, radius 2, std 0.1), `grid` (25, spacing 2, std
            0.05, as in VEEGAN, arXiv:1705.07761) and `checkerboard` ([-2, 2]^2).

    Raises:
        UserError: if the name is unknown.
    """
    if name == "checkerboard":
        return Checkerboard()
    if name == "pinwheel":
        return Pinwheel()
    if name not in DENSITIES:
        raise unknown_name("a 2-D density", name, DENSITIES)
    return _MIXTURES[name]()


def unknown_name(what: str, name: str, choices: tuple[str, ...]) -> UserError:
    """Make the error that lists the choices, and names the one that was probably meant."""
    close = difflib.get_close_matches(name.lower(), choices, n=1)
    remedy = f"did you mean {close[0]!r}?" if close else "choose one of these"
    return UserError(f"expected {what} out of {', '.join(choices)}, got {name!r}: {remedy}")


def _moons() -> Density:
    t = math.pi * _midpoints(150)
    upper = torch.stack([t.cos(), t.sin()], dim=1)
    lower = torch.stack([1 - t.cos(), 0.5 - t.sin()], dim=1)
    shift = torch.tensor([-1.0, -0.2], dtype=torch.float64)
    return Dots("moons", 2 * torch.cat([upper, lower]) + shift, std=0.2)


def _ring() -> Density:
    return Dots("ring", _circle(8, radius=2.0), std=0.1, separate=True)


def _grid() -> Density:
    ticks = torch.arange(-4.0, 5.0, 2.0, dtype=torch.float64)
    return Dots("grid", torch.cartesian_prod(ticks, ticks), std=0.05, separate=True)


def _spirals() -> Density:
    t = 3 * math.pi * _midpoints(400).sqrt()  # the root: as many dots for each piece of arc
    arm = torch.stack([-t * t.cos(), t * t.sin()], dim=1) / 3
    return Dots("spirals", torch.cat([arm, -arm]), std=0.1)


def _circles() -> Density:
    rings = torch.cat([_circle(200, radius=3.0), _circle(200, radius=1.5)])
    return Dots("circles", rings, std=0.24)


def _swissroll() -> Density:
    t = 1.5 * math.pi * (1 + 2 * _midpoints(400))
    return Dots("swissroll", torch.stack([t * t.cos(), t * t.sin()], dim=1) / 5, std=0.2)


_MIXTURES = {
    "moons": _moons,
    "ring": _ring,
    "grid": _grid,
    "spirals": _spirals,
    "circles": _circles,
    "swissroll": _swissroll,
}


def _midpoints(n: int) -> Tensor:
    """Middles of n equal parts of [0, 1], (n,) float64."""
    return (torch.arange(n, dtype=torch.float64) + 0.5) / n


def _circle(n: int, *, radius: float) -> Tensor:
    """n points at equal angles from angle 0, (n, 2) float64."""
    angle = torch.arange(n, dtype=torch.float64) * (2 * math.pi / n)
    return radius * torch.stack([angle.cos(), angle.sin()], dim=1)


def _turn(u: Tensor, v: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """Rotate the points (u, v) by the angle, counter-clockwise, in radians."""
    return u * angle.cos() - v * angle.sin(), u * angle.sin() + v * angle.cos()


def _box(centres: Tensor, *, margin: float) -> Bounds:
    """Smallest (x_lo, x_hi, y_lo, y_hi) around the centres, widened by the margin."""
    (x_lo, y_lo), (x_hi, y_hi) = centres.amin(0).tolist(), centres.amax(0).tolist()
    return x_lo - margin, x_hi + margin, y_lo - margin, y_hi + margin


def _device(generator: torch.Generator | None) -> torch.device:
    return torch.device("cpu") if generator is None else generator.device


def _checked(x: Tensor) -> Tensor:
    """Return x if it is (B, 2) and of a floating type; integers would lose the centres."""
    if x.ndim != 2 or x.shape[1] != 2 or not x.is_floating_point():
        raise ValueError(
            f"expected points (B, 2) of a floating type, got {list(x.shape)} {x.dtype}"
        )
    return x


def _quadrature_entropy(density: Density, box: Bounds, *, step: float) -> float:
    """Sum -p log p over a grid in float64; the rectangle rule is this exact on smooth tails."""
    x = torch.arange(box[0], box[1] + step, step, dtype=torch.float64)
    y = torch.arange(box[2], box[3] + step, step, dtype=torch.float64)
    p = density.log_prob(torch.cartesian_prod(x, y)).exp()
    return torch.special.entr(p).sum().item() * step**2
