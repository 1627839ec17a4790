"""Maximum likelihood where the truth is known: a mixture fitted to few and to many samples.

    E_p[-log q(x)] = H(p) + KL(p || q)        loss on fresh samples = entropy + what q gets wrong

So the loss on fresh samples lies above the entropy by the KL divergence, and no model comes below
(notes/01 eq. (1.9)); the loss on the training samples can, once they are learnt by heart.
The density is `moons`; the models are Gaussian mixtures of K parts, fitted by EM.

Run:     python -m notes.figures.fundamentals_maximum_likelihood
Writes:  fundamentals_maximum_likelihood.png
"""

from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import torch
from sklearn.mixture import GaussianMixture

from code_examples import utils
from code_examples.utils.densities import Density

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Config(utils.Config):
    """Fit mixtures of growing size; compare their likelihoods with the true entropy."""

    parts: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    """Numbers of Gaussians K."""
    sizes: tuple[int, ...] = (200, 5000)
    """Numbers of training samples."""
    fresh: int = 100_000
    """Fresh samples: enough for an error below 0.01 nats wherever a model is any good."""
    seeds: int = 3
    """Training and fresh sets; the picture shows mean and range."""
    figures: Path = HERE
    """Where the picture goes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.quick:
            object.__setattr__(self, "parts", self.parts[:3])
            object.__setattr__(self, "fresh", min(self.fresh, 5000))


def fit(p: Density, size: int, parts: int, fresh: int, seed: int) -> tuple[float, float]:
    """Fit K Gaussians to samples of p; mean -log q(x) in nats on those and on fresh samples."""
    g = torch.Generator().manual_seed(seed)
    x, x_fresh = (p.sample(n, g).double().numpy() for n in (size, fresh))
    # maximises the mean of log q(x) over the training samples, q(x) = sum_k pi_k N(x; mu_k, S_k)
    q = GaussianMixture(parts, covariance_type="full", max_iter=500, random_state=seed).fit(x)
    return -q.score(x), -q.score(x_fresh)  # score is the mean of log q(x)


def main(config: Config) -> None:
    """Fit every K to every number of samples, print the table and draw the curves."""
    p = utils.density("moons")
    print(f"entropy of moons: {p.entropy:.4f} nats; below: mean (lowest to highest), nats")
    series, band = {}, {}
    for size in config.sizes:
        losses = {"fresh": [], "training": []}  # of each: one tuple over the seeds for each K
        for parts in config.parts:
            runs = [fit(p, size, parts, config.fresh, seed) for seed in range(config.seeds)]
            for name, values in zip(("training", "fresh"), zip(*runs, strict=True), strict=True):
                losses[name].append(values)
            print(f"n = {size:>5,}  K = {parts:>2}", end="  ")
            for name, (*_, v) in losses.items():
                print(f"{name} {mean(v):6.3f} ({min(v):6.3f} to {max(v):6.3f})", end="  ")
            print(f"fresh - entropy {mean(losses['fresh'][-1]) - p.entropy:.3f}")
        for kind, values in losses.items():
            means = [mean(v) for v in values]
            name = f"{kind}, n = {size:,} (to {means[-1]:.2f})"
            series[name] = (config.parts, means)
            band[name] = ([min(v) for v in values], [max(v) for v in values])
    path = utils.curves(
        series,
        config.figures / "fundamentals_maximum_likelihood.png",
        band=band,
        xlabel="Gaussians in the mixture, K",
        ylabel="mean negative log-likelihood (nats)",
        title="Only the training loss falls below the entropy",
        hlines={f"entropy {p.entropy:.2f}": p.entropy},
        ylim=(1.9, 3.4),
        logx=True,
        markers=True,
    )
    print(path)


if __name__ == "__main__":
    utils.cli(main, Config)
