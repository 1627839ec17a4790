"""Where the optimum is known: D* = p / (p + q), and the Wasserstein distance of two Gaussians.

Run:     python -m notes.figures.gan_one_dimension
Writes:  gan_optimal_discriminator.png, gan_wasserstein.png

Both distributions are fixed; only the discriminator, or the critic, learns.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, MixtureSameFamily, Normal
from torch.optim import Adam

from code_examples import gans, utils

HERE = Path(__file__).parent
DATA = MixtureSameFamily(Categorical(torch.ones(2)), Normal(torch.tensor([-1.5, 1.5]), 0.5))
FAKE = Normal(0.5, 1.0)


@dataclass(frozen=True)
class Config(utils.Config):
    """Learn a discriminator of two known densities, and critics of two Gaussians."""

    steps: int = 2000
    """Steps of each."""
    shifts: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)
    """Distances of the two Gaussians, of width 1; the exact W1 is the same number."""
    weight: float = 100.0
    """Of the gradient penalty; a small one makes estimates too large, notes/02 eq. (2.14)."""
    figures: Path = HERE
    """Where the pictures go."""


def network() -> gans.Discriminator:
    """The chapter's discriminator of points, on the line."""
    layers = [nn.Linear(1, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU()]
    return gans.Discriminator(nn.Sequential(*layers), 64)


def learned(config: Config, loss_of, p, q, batch: int = 1024) -> gans.Discriminator:
    """A discriminator or critic after all steps; the rate falls along half a cosine."""
    net = network()
    optimizer = Adam(net.parameters(), lr=3e-3, betas=(0.5, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps)
    for step in range(config.steps):
        share = (step + 1) / config.steps
        loss = loss_of(net, p.sample((batch, 1)), q.sample((batch, 1)), share)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return net.requires_grad_(False)


def logistic(net: nn.Module, real: Tensor, fake: Tensor, share: float) -> Tensor:
    """The discriminator's loss of the chapter."""
    return gans.discriminator_loss(net(real), net(fake))


def wasserstein(config: Config, net: nn.Module, real: Tensor, fake: Tensor, share: float) -> Tensor:
    """The critic's loss of WGAN-GP; the weight of the penalty grows with the share of the steps.

    With the full weight from the start a critic that happens to begin with slope -1 stays there.
    """
    penalty = gans.gradient_penalty(net, real, fake)
    return gans.critic_loss(net(real), net(fake)) + share * config.weight * penalty


def exact_distance(p: Normal, q: Normal) -> float:
    """W1 of two Gaussians on the line, by their quantiles; notes/02 eq. (2.12)."""
    u = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    return (p.icdf(u) - q.icdf(u)).abs().mean().item()


def main(config: Config) -> None:
    """Learn everything, compare with the exact answers, and draw."""
    torch.manual_seed(config.seed)
    net = learned(config, logistic, DATA, FAKE)
    x = torch.linspace(-4, 4, 401)
    p, q = DATA.log_prob(x).exp(), FAKE.log_prob(x).exp()
    best = p / (p + q)
    error = (net(x[:, None]).sigmoid() - best)[p + q > 0.05].abs().max()
    print(f"largest error of D where p + q > 0.05: {error:.3f}")
    utils.curves(
        {
            "p, data": (x, p),
            "q, fakes": (x, q),
            "p / (p + q)": (x, best),
            "learned D": (x, net(x[:, None]).sigmoid()),
        },
        config.figures / "gan_optimal_discriminator.png",
        xlabel="x",
        ylabel="density, probability",
        title="The optimal discriminator of two known densities, and the learned one",
    )
    exact, estimate = [], []
    for shift in config.shifts:
        p, q = Normal(0.0, 1.0), Normal(shift, 1.0)
        critic = learned(config, partial(wasserstein, config), p, q)
        draws = [d.sample((100_000, 1)) for d in (p, q)]
        estimate.append(-gans.critic_loss(*map(critic, draws)).item())
        exact.append(exact_distance(*(Normal(d.mean.double(), d.stddev.double()) for d in (p, q))))
        print(f"shift {shift}: exact {exact[-1]:.4f}, critic {estimate[-1]:.4f}")
    error = max(abs(a / b - 1) for a, b in zip(estimate, exact, strict=True))
    print(f"largest relative error {100 * error:.1f}%")
    utils.curves(
        {"exact": (config.shifts, exact), "critic": (config.shifts, estimate)},
        config.figures / "gan_wasserstein.png",
        xlabel="distance of the means, N(0, 1) and N(m, 1)",
        ylabel="Wasserstein-1 distance",
        title="The critic's estimate, and the exact distance",
        markers=True,
    )


if __name__ == "__main__":
    utils.cli(main, Config)
