"""Two estimates of one gradient: reparameterisation against the score function, many draws of both.

Run:     python -m notes.figures.vae_gradient_variance
Writes:  vae_gradient_variance.png

The gradient of E_q[log p(x|z)] with respect to mu and logvar of one image, in a trained model. Both
estimates are right on average; their variances differ by orders of magnitude (notes/03 section 3).
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from code_examples import utils, vae

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Config(vae.Config):
    """Train a small VAE, then compare the two estimates of its encoder's gradient."""

    model: str = "mlp"
    epochs: int | None = 40
    """Passes over the training set."""
    latent_dim: int | None = 8
    """Latent dimensions."""
    draws: int = 2000
    """Draws of z for each estimate."""
    figures: Path = HERE
    """Where the picture goes."""


def gradients(model: vae.VAE, x: Tensor, draws: int) -> dict[str, Tensor]:
    """Single-draw estimates of d E_q[log p(x|z)] / d (mu, logvar), (draws, 2 L), for one image.

    Args:
        x: One image (1, C, H, W).
    """
    with torch.no_grad():
        mu, logvar = (m.expand(draws, -1).clone() for m in model.encode(x))
    images = x.expand(draws, -1, -1, -1)
    mu.requires_grad_()
    logvar.requires_grad_()

    # reparameterised: z is a function of mu and logvar, and the gradient goes through the decoder
    z = vae.reparameterize(mu, logvar)
    log_p = -vae.reconstruction_nll(model, model.decode(z), images)
    pathwise = torch.cat(torch.autograd.grad(log_p.sum(), (mu, logvar)), dim=1)

    # score function: log p(x|z) is only a number, which weighs the gradient of log q(z)
    z, log_p = z.detach(), log_p.detach()
    log_q = -0.5 * ((z - mu).square() / logvar.exp() + logvar).sum(dim=1)
    score = torch.cat(torch.autograd.grad(log_q.sum(), (mu, logvar)), dim=1)
    centred = score * (log_p - log_p.mean())[:, None]  # a baseline: less variance, same mean
    return {
        "reparameterised": pathwise,
        "score function, with baseline": centred * draws / (draws - 1),
        "score function": score * log_p[:, None],
    }


def main(config: Config) -> None:
    """Train, measure the variance of the three estimates, and draw how their error falls."""
    run = utils.start(config, __file__)
    data = utils.load_images(config.dataset, config.data_root, quick=config.quick)
    model = vae.build(config, data.image_shape, len(data.class_names)).to(run.device)
    vae.train(model, data, config, run)
    x = vae.binarize(data.test[:20], config.binarize).to(run.device)
    found = [gradients(model, image[None], config.draws) for image in x]
    truth = [one["reparameterised"].mean(dim=0) for one in found]  # the best estimate of all
    spread = {
        name: torch.stack([one[name].var(dim=0).sum() for one in found]).mean().item()
        for name in found[0]
    }
    size = torch.stack([g.square().sum() for g in truth]).mean().item()
    print(f"mean squared length of the true gradient: {size:.4g}")
    for name, variance in spread.items():
        ratio = variance / spread["reparameterised"]
        print(f"{name:<30} variance {variance:10.4g}  ({ratio:.3g} of reparameterised)")
    draws = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]
    errors = {name: (draws, [(v / n / size) ** 0.5 for n in draws]) for name, v in spread.items()}
    path = utils.curves(
        errors,
        config.figures / "vae_gradient_variance.png",
        xlabel="draws of z averaged",
        ylabel="standard error / length of the gradient",
        title="How many draws a gradient needs",
        logx=True,
        logy=True,
        hlines={"as large as the gradient": 1.0},
    )
    print(path)


if __name__ == "__main__":
    utils.cli(main, Config)
