"""One Gaussian for a density of several modes: which one is best depends on the KL's direction.

    forward   KL(p || q) = E_p[log p(x) - log q(x)]   least where q has p's mean and covariance
    reverse   KL(q || p) = E_q[log q(x) - log p(x)]   least where q keeps to one piece of p

Forward KL is what maximum likelihood minimises: q must have mass wherever p has some. Reverse KL is
what variational inference minimises: q must have no mass where p has none. On the ring, one mode of
eight equal ones costs the reverse divergence only log 8 = 2.08 nats.

Run:     python -m notes.figures.fundamentals_kl_directions
Writes:  fundamentals_kl_directions.png
"""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from code_examples import utils
from code_examples.utils.densities import Density

HERE = Path(__file__).parent


def square_grid(reach: float, step: float) -> Tensor:
    """Points of a grid over [-reach, reach]^2, (N, 2) float64; each stands for step^2 of area."""
    ticks = torch.arange(-reach, reach + step / 2, step, dtype=torch.float64)
    return torch.cartesian_prod(ticks, ticks)


STEP = 0.05  # half the narrowest standard deviation: sums over this grid are exact to 6 digits
GRID = square_grid(12.0, STEP)


@dataclass(frozen=True)
class Config(utils.Config):
    """Fit a Gaussian to a 2-D density in both directions of the KL divergence."""

    densities: tuple[str, ...] = ("moons", "ring")
    """The densities p."""
    lr: float = 0.1
    """Peak learning rate of the reverse fit."""
    steps: int = 400
    """Gradient steps of the reverse fit."""
    starts: int = 6
    """Starts of the reverse fit, at samples of p; the best is kept."""
    figures: Path = HERE
    """Where the picture goes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.quick:
            object.__setattr__(self, "steps", min(self.steps, 10))
            object.__setattr__(self, "starts", min(self.starts, 2))


def kl(log_p: Tensor, log_q: Tensor) -> float:
    """KL(p || q) in nats, from both log densities on the points of GRID."""
    return (log_p.exp() * (log_p - log_q)).sum().item() * STEP**2


def fit_forward(log_p: Tensor) -> MultivariateNormal:
    """argmin_q KL(p || q): the mean and the covariance of p; notes/01 eq. (1.12)."""
    weight = log_p.exp() * STEP**2  # (N,), sums to 1
    mu = weight @ GRID
    cov = (GRID - mu).T @ (weight[:, None] * (GRID - mu))
    return MultivariateNormal(mu, cov)


def fit_reverse(p: Density, config: Config) -> tuple[MultivariateNormal, Tensor]:
    """argmin_q KL(q || p) by gradient descent from several starts, and where each start ended."""
    g = torch.Generator().manual_seed(config.seed)
    mu = p.sample(config.starts, g).double().requires_grad_()  # (S, 2)
    raw = torch.diag_embed(torch.full_like(mu, math.log(0.5))).requires_grad_()  # std 0.5
    eps = square_grid(5.0, 0.25)  # E over eps ~ N(0, I) as a sum over a grid, not over draws
    weight = (-0.5 * eps.square().sum(1)).softmax(0)  # (N,)
    optimizer = torch.optim.Adam([mu, raw], lr=config.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps)
    for _ in range(config.steps):
        log_diagonal = raw.diagonal(dim1=1, dim2=2)
        scale = raw.tril(-1) + log_diagonal.exp().diag_embed()  # q = N(mu, scale scale^T)
        x = mu[:, None] + eps @ scale.mT  # (S, N, 2): x = mu + scale eps is a sample of q
        log_p = p.log_prob(x.flatten(0, 1)).view(config.starts, -1)
        neg_entropy = -(1 + math.log(2 * math.pi)) - log_diagonal.sum(1)  # E_q[log q(x)]
        kl_q_p = neg_entropy - log_p @ weight  # (S,)
        optimizer.zero_grad()
        kl_q_p.sum().backward()
        optimizer.step()
        schedule.step()
    best = kl_q_p.argmin()
    return MultivariateNormal(mu[best].detach(), scale_tril=scale[best].detach()), kl_q_p.detach()


def ellipses(q: MultivariateNormal) -> Tensor:
    """Points at 1 and 2 standard deviations from q's mean, (2, 100, 2)."""
    angle = torch.linspace(0, 2 * math.pi, 100, dtype=torch.float64)
    circle = torch.stack([angle.cos(), angle.sin()], dim=1)
    return torch.stack([q.mean + k * circle @ q.scale_tril.T for k in (1, 2)])


def main(config: Config) -> None:
    """Fit both ways, print each 2 x 2 table of divergences, and draw the fits over p."""
    panels, lines = {}, {}
    for density in config.densities:
        p = utils.density(density)
        reverse, ends = fit_reverse(p, config)
        print(f"{density}: KL(q || p) where the starts ended", end=" ")
        print(", ".join(f"{v:.4f}" for v in sorted(ends.tolist())))
        log_p = p.log_prob(GRID)
        for way, q in (("forward", fit_forward(log_p)), ("reverse", reverse)):
            log_q = q.log_prob(GRID)
            p_q, q_p = kl(log_p, log_q), kl(log_q, log_p)
            print(f"{density}, {way} fit: KL(p || q) = {p_q:.3f}, KL(q || p) = {q_p:.3f} nats")
            for name, value in (("mean", q.mean), ("covariance", q.covariance_matrix)):
                print(f"    {name} {[round(v, 4) + 0.0 for v in value.flatten().tolist()]}")
            title = f"{density}, {way}: KL(p‖q) = {p_q:.2f}, KL(q‖p) = {q_p:.2f}"
            panels[title], lines[title] = p.log_prob, ellipses(q)
    path = utils.density_2d(
        panels,
        config.figures / "fundamentals_kl_directions.png",
        bounds=(-3.9, 3.9, -2.9, 2.9),
        lines=lines,
        one_scale=False,
        columns=2,
        title="Forward KL covers p, reverse KL picks a piece (ellipses: q at 1 and 2 std)",
    )
    print(path)


if __name__ == "__main__":
    utils.cli(main, Config)
