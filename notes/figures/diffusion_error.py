"""Where the error of a trained model lies: over the noise levels, in three ways to count it.

Run:     python -m notes.figures.diffusion_error
Writes:  diffusion_error.png

The model is the chapter's default, trained first if diffusion_gallery has not done so. On test
images, in float32 as all likelihoods here.
"""

from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from code_examples import diffusion, utils

from .diffusion_gallery import load, runs_folder

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Config(diffusion.Config):
    """Measure squared errors and terms of the bound in ranges of t."""

    bins: int = 20
    """Ranges of t from 1 to T - 1; t = 0 is the bound's last term."""
    draws: int = 5
    """Random t and noises in each range, for each of 1,000 test images."""
    figures: Path = HERE
    """Where the picture goes."""


def measure(model: diffusion.Diffusion, x_0: Tensor, low: int, high: int) -> Tensor:
    """At t in low...high - 1: squared error in x_0, eps and v, and nats of one term, (B, 4)."""
    schedule = model.schedule
    t = torch.randint(low, high, (len(x_0),), device=x_0.device)
    eps = torch.randn_like(x_0)
    x_t, frame = diffusion.q_sample(schedule, x_0, t, eps), schedule.at(t, x_0)
    guess, eps_hat = diffusion.x0_and_eps(model, model(x_t, t), x_t, t)
    v, v_hat = diffusion.v_from(x_0, eps, *frame), diffusion.v_from(guess, eps_hat, *frame)
    errors = [
        (a - b).square().flatten(1).mean(dim=1)
        for a, b in ((x_0, guess), (eps, eps_hat), (v, v_hat))
    ]
    nats = diffusion.bound_terms(schedule, x_0, guess.clamp(-1, 1), t)
    return torch.stack([*errors, nats], dim=1)


def main(config: Config) -> None:
    """Print the table and draw errors and bits over t."""
    folder = runs_folder(config) / "diffusion-ddpm-0"
    model, data = load(folder, config)
    run = utils.start(replace(config, out=folder), __file__)
    model.to(run.device)
    x = (2 * data.test[:1000] - 1).repeat(config.draws, 1, 1, 1)
    size = x[0].numel()

    def mean(low: int, high: int) -> list[float]:
        parts = utils.in_parts(model, lambda part: measure(model, part, low, high), x)
        return parts[0].mean(dim=0).tolist()

    edges = torch.linspace(1, len(model.schedule), config.bins + 1).round().long().tolist()
    middle, table = [], []
    print("| t | error of x_0 | of eps | of v | bits per dimension |")
    for low, high in pairwise(edges):
        *errors, nats = mean(low, high)
        table.append((*errors, utils.bits_per_dim(nats * (high - low), size)))
        middle.append((low + high - 1) / 2)
        print(f"| {low} to {high - 1} | " + " | ".join(f"{v:.5f}" for v in table[-1]) + " |")
    pixels = utils.bits_per_dim(mean(0, 1)[-1], size)
    nats = utils.in_parts(model, lambda part: diffusion.prior_term(model.schedule, part), x)[0]
    prior, steps = utils.bits_per_dim(nats.mean().item(), size), sum(row[-1] for row in table)
    print(f"bits per dimension: steps {steps:.4f}, pixels {pixels:.4f}, prior {prior:.6f}")
    x0, eps, v, bits = ((middle, column) for column in zip(*table, strict=True))
    share = f"bits per dimension, 1/{len(table)} of t"
    path = utils.curve_panels(
        {"squared error": {"$x_0$": x0, "$\\epsilon$": eps, "$v$": v}, share: {"": bits}},
        config.figures / "diffusion_error.png",
        xlabel="t",
        title=f"Test images: all t > 0 have {steps:.2f} bits per dimension, t = 0 {pixels:.2f}",
        logy=("squared error", share),
    )
    print(path)


if __name__ == "__main__":
    utils.cli(main, Config)
