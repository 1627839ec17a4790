"""Where the encoder puts all test images together, beside the prior that samples come from.

Run:     python -m notes.figures.vae_aggregate_posterior
Writes:  vae_aggregate_posterior.png

In two latent dimensions. Places that the prior likes and the aggregate posterior leaves empty are
holes: the decoder was not trained there, and what it draws is no digit (notes/03 section 10).
"""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from code_examples import utils, vae

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Config(vae.Config):
    """Train a VAE with two latent dimensions and draw q(z), the mean of all q(z|x)."""

    epochs: int | None = 60
    """Passes over the training set."""
    latent_dim: int | None = 2
    """Two, to be seen whole."""
    figures: Path = HERE
    """Where the picture goes."""


def log_aggregate(z: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    """log of (1/N) sum_n N(z; mu_n, exp(logvar_n)) at points z (M, 2), (M,) nats."""
    parts = []
    for part in z.split(500):
        squared = (part[:, None] - mu).square() / logvar.exp()  # (M, N, 2)
        log_q = -0.5 * (squared + logvar + math.log(2 * math.pi)).sum(dim=2)
        parts.append(torch.logsumexp(log_q, dim=1) - math.log(len(mu)))
    return torch.cat(parts)


def log_prior(z: Tensor) -> Tensor:
    """log N(z; 0, I) in two dimensions, (M,) nats."""
    return -0.5 * z.square().sum(dim=1) - math.log(2 * math.pi)


def main(config: Config) -> None:
    """Train, draw both densities, and split the mean KL into its two parts."""
    run = utils.start(config, __file__)
    data = utils.load_images(config.dataset, config.data_root, quick=config.quick)
    model = vae.build(config, data.image_shape, len(data.class_names)).to(run.device)
    vae.train(model, data, config, run)
    x = vae.binarize(data.test, config.binarize)
    mu, logvar = vae.encode(model, x, data.test_labels)
    z = vae.reparameterize(mu, logvar)
    rate = vae.kl_to_standard_normal(mu, logvar).mean().item()
    marginal = (log_aggregate(z, mu, logvar) - log_prior(z)).mean().item()
    print(f"mean KL(q(z|x) || p(z))        {rate:.3f} nats")
    print(f"KL(q(z) || p(z))               {marginal:.3f} nats, the mismatch with the prior")
    print(
        f"mutual information of x and z  {rate - marginal:.3f} nats (at most log N = "
        f"{math.log(len(mu)):.3f})"
    )
    path = utils.density_2d(
        {
            "prior p(z)": log_prior,
            "aggregate posterior q(z)": lambda p: log_aggregate(p, mu, logvar),
        },
        config.figures / "vae_aggregate_posterior.png",
        bounds=(-4, 4, -4, 4),
        points={"prior p(z)": torch.randn(500, 2), "aggregate posterior q(z)": z[:500]},
        title="Samples come from the left, the decoder was trained on the right",
    )
    print(path)


if __name__ == "__main__":
    utils.cli(main, Config)
