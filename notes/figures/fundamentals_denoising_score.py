"""A denoiser knows the score: a small network learns to remove noise, and so which way is denser.

    x_tilde = x + sigma eps               a clean point of `moons` and Gaussian noise
    loss    = E|D(x_tilde) - x|^2         least for the posterior mean D*(x_tilde) = E[x | x_tilde]
    Tweedie   D*(x_tilde) = x_tilde + sigma^2 grad log p_sigma(x_tilde)
    so        (D(x_tilde) - x_tilde) / sigma^2 estimates the score of the noised density p_sigma

The moons are a mixture of dots of variance std^2; noised, they are one of variance std^2 + sigma^2,
whose score is known. What a network misses, the loss says: it exceeds its least possible value
2 sigma^2 - sigma^4 E|score|^2 by sigma^4 times the mean squared error of the score.

Run:     python -m notes.figures.fundamentals_denoising_score
Writes:  fundamentals_denoising_score.png
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import torch
from torch import Tensor, nn

from code_examples import utils
from code_examples.utils.densities import Density, Dots

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Config(utils.Config):
    """Train a denoiser on 2-D points and compare its score with the exact one."""

    sigma: float = 0.5
    """Standard deviation of the noise."""
    steps: int = 8000
    """Training steps; each on fresh points, so that nothing can be learnt by heart."""
    batch_size: int = 1024
    """Points a step."""
    lr: float = 1e-2
    """Learning rate at the start; it follows half a cosine down to 0."""
    seeds: int = 3
    """Networks trained; the picture shows the first and the errors of two."""
    figures: Path = HERE
    """Where the picture goes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        utils.check_number("sigma", self.sigma, above=0)
        if self.quick:
            object.__setattr__(self, "steps", min(self.steps, 20))


def denoiser() -> nn.Sequential:
    """An MLP D from noisy points x_tilde (B, 2) to clean ones (B, 2)."""
    return nn.Sequential(
        *(nn.Linear(2, 64), nn.SiLU()),
        *(nn.Linear(64, 64), nn.SiLU()),
        *(nn.Linear(64, 64), nn.SiLU()),
        nn.Linear(64, 2),
    )


def train(p: Density, config: Config, seed: int) -> nn.Sequential:
    """Train a denoiser on samples of p."""
    torch.manual_seed(seed)
    model = denoiser()
    optimizer = torch.optim.Adam(model.parameters(), lr=config.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps)
    for _ in range(config.steps):
        x = p.sample(config.batch_size)
        x_tilde = x + config.sigma * torch.randn_like(x)
        loss = (model(x_tilde) - x).square().sum(dim=1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model


def learned_score(model: nn.Module, x: Tensor, sigma: float) -> Tensor:
    """(D(x) - x) / sigma^2 at noisy points x (B, 2), (B, 2); notes/01 eq. (1.44)."""
    with torch.no_grad():
        return (model(x) - x) / sigma**2


def noised(p: Dots, sigma: float) -> Dots:
    """The density of x + sigma eps: the same dots with a wider pen."""
    return Dots(f"{p.name} + noise", p.centres, std=(p.std**2 + sigma**2) ** 0.5)


def exact_score(p: Dots, x: Tensor) -> Tensor:
    """grad log p(x) of a mixture of K equal dots at x (B, 2), (B, 2)."""
    centres = p.centres.to(x)  # (K, 2)
    distance2 = (x[:, None] - centres).square().sum(dim=2)  # (B, K)
    share = (-distance2 / (2 * p.std**2)).softmax(dim=1)  # p(dot k | x)
    return (share @ centres - x) / p.std**2


def grid_with_mass(p: Dots, step: float) -> tuple[Tensor, Tensor]:
    """Points (N, 2) over the plane, float64, and the mass p(x) step^2 of each, (N,); sums to 1."""
    low, high = p.centres.amin(dim=0) - 6 * p.std, p.centres.amax(dim=0) + 6 * p.std
    x_1, x_2 = (torch.arange(low[i], high[i], step, dtype=torch.float64) for i in (0, 1))
    x = torch.cartesian_prod(x_1, x_2)
    return x, p.log_prob(x).exp() * step**2


def main(config: Config) -> None:
    """Train, measure the error of the learned score under p_sigma, and draw both scores."""
    p = utils.density("moons")
    p_sigma = noised(p, config.sigma)
    x, mass = grid_with_mass(p_sigma, step=p_sigma.std / 4)
    score = exact_score(p_sigma, x)
    variance = (mass @ score.square().sum(dim=1)).item()  # E|score|^2; the mean score is 0
    floor = 2 * config.sigma**2 - config.sigma**4 * variance  # notes/01 eq. (1.46)
    print(f"sigma {config.sigma}: E|score|^2 = {variance:.4f}, least denoising loss {floor:.4f}")
    models = [train(p, config, seed) for seed in range(config.seeds)]
    errors, shares = [], []
    for seed, model in enumerate(models):
        off = learned_score(model.double(), x, config.sigma) - score
        errors.append((mass @ off.square().sum(dim=1)).item())
        shares.append(1 - errors[-1] / variance)
        loss = floor + config.sigma**4 * errors[-1]
        print(f"seed {seed}: error {errors[-1]:.5f}, R^2 {shares[-1]:.5f}, loss {loss:.5f}")
    for name, v in (("mean squared error of the score", errors), ("R^2", shares)):
        print(f"{name}: {mean(v):.5f} ({min(v):.5f} to {max(v):.5f}) over {len(v)} seeds")

    networks = [model.float() for model in models]

    def error_of(model: nn.Module) -> Callable[[Tensor], Tensor]:
        return lambda x: learned_score(model, x, config.sigma) - exact_score(p_sigma, x)

    path = utils.vector_field_2d(
        {
            "exact score": lambda x: exact_score(p_sigma, x),
            f"learned score, R² = {shares[0]:.3f}": lambda x: learned_score(
                networks[0], x, config.sigma
            ),
            **{f"learned minus exact, seed {k}": error_of(m) for k, m in enumerate(networks[:2])},
        },
        config.figures / "fundamentals_denoising_score.png",
        bounds=(-4.4, 4.4, -3.0, 3.6),
        log_prob=p_sigma.log_prob,
        longest=3.0,
        columns=2,
        title="A denoiser's arrows (D(x) − x) / σ² are the score of the noised density (grey)",
    )
    print(path)


if __name__ == "__main__":
    utils.cli(main, Config)
