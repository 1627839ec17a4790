"""How strongly each generator loss pushes a fake, against the fake's logit.

Run:     python -m notes.figures.gan_losses
Writes:  gan_losses.png
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from code_examples import gans, utils

HERE = Path(__file__).parent
LOSSES = {
    "saturating": gans.saturating_loss,
    "non-saturating": gans.generator_loss,
    "least squares": gans.least_squares_generator_loss,
    "critic, hinge": gans.critic_generator_loss,
}


@dataclass(frozen=True)
class Config(utils.Config):
    """Differentiate four losses."""

    figures: Path = HERE
    """Where the picture goes."""


def main(config: Config) -> None:
    """Draw the size of the slope of each loss, and print it at a logit of -10."""
    logits = torch.linspace(-10, 10, 401, dtype=torch.float64)
    curves = {}
    for name, loss in LOSSES.items():
        a = logits.clone().requires_grad_()
        (slope,) = torch.autograd.grad(loss(a) * len(a), a)  # the losses are means
        curves[name] = (logits, -slope)
        print(f"{name:<16} slope at -10: {slope[0]:.7f}")
    utils.curves(
        curves,
        config.figures / "gan_losses.png",
        xlabel="logit of a fake (negative: recognised)",
        ylabel="push upwards, -d loss / d logit",
        title="What the generator learns from one fake",
        ylim=(-0.6, 2.5),
    )


if __name__ == "__main__":
    utils.cli(main, Config)
