"""Three schedules: how fast the data drown, and what a digit looks like on the way.

Run:     python -m notes.figures.diffusion_schedules
Writes:  diffusion_schedules.png, diffusion_noised.png

A schedule is the list of noise levels that training and sampling visit (notes/04 section 2.3). The
linear one spends its last third on pictures that are practically noise.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from code_examples import diffusion, utils

HERE = Path(__file__).parent
SCHEDULES = ("linear", "cosine", "sigmoid")


@dataclass(frozen=True)
class Config(utils.Config):
    """Draw alpha_bar and the logarithm of the signal-to-noise ratio, and a digit under noise."""

    timesteps: int = 1000
    """T, noise levels."""
    figures: Path = HERE
    """Where the pictures go."""


def main(config: Config) -> None:
    """Print where each schedule crosses two marks; draw the curves and the strips."""
    schedules = {
        name: diffusion.Schedule(diffusion.make_schedule(name, config.timesteps))
        for name in SCHEDULES
    }
    t = torch.arange(config.timesteps)
    share, log_snr = {}, {}
    for name, schedule in schedules.items():
        alpha_bar = schedule.alpha_bar
        share[name], log_snr[name] = (t, alpha_bar), (t, torch.logit(alpha_bar))
        half, hundredth = (int((alpha_bar < mark).nonzero()[0]) for mark in (0.5, 0.01))
        print(f"{name:<8} alpha_bar below 0.5 from t = {half}, below 0.01 from t = {hundredth}")
    path = utils.curve_panels(
        {"alpha_bar": share, "log(signal-to-noise ratio)": log_snr},
        config.figures / "diffusion_schedules.png",
        xlabel="t",
        title="How fast three schedules drown the data",
    )
    print(path)

    torch.manual_seed(config.seed)
    x_0 = 2 * utils.load_images(config.dataset, config.data_root).test[:1] - 1
    eps = torch.randn_like(x_0)
    shown = [round(share * (config.timesteps - 1)) for share in torch.linspace(0, 1, 11).tolist()]
    strips = {
        name: torch.cat([diffusion.q_sample(schedule, x_0, step, eps) for step in shown])
        for name, schedule in schedules.items()
    }
    path = utils.strips(
        {name: (0.5 * x_t + 0.5).clamp(0, 1) for name, x_t in strips.items()},
        config.figures / "diffusion_noised.png",
        ticks=[str(step) for step in shown],
        xlabel="t",
        title="One digit and one noise, mixed by three schedules",
    )
    print(path)


if __name__ == "__main__":
    utils.cli(main, Config)
