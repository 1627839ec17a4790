"""How many steps each sampler needs: sample quality against evaluations of the network.

Run:     python -m notes.figures.diffusion_steps
Writes:  diffusion_steps.png, diffusion_few_steps.png

The model is the chapter's default, trained first if diffusion_gallery has not done so.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from code_examples import diffusion, utils

from .diffusion_gallery import load, runs_folder

HERE = Path(__file__).parent
SAMPLERS = ("ddpm", "ddim", "heun", "dpm++")


@dataclass(frozen=True)
class Config(diffusion.Config):
    """Draw the same noises to their end by each sampler, in few and many steps."""

    steps: tuple[int, ...] = (5, 10, 20, 50, 100, 250)
    """Steps of each sampler; heun, which evaluates the network twice a step, takes half of them."""
    shown: tuple[int, ...] = (5, 10, 20, 50)
    """Of which there are pictures."""
    figures: Path = HERE
    """Where the pictures go."""


def draw(
    model: diffusion.Diffusion, noise: Tensor, sampler: str, steps: int, config: Config
) -> tuple[Tensor, int]:
    """Samples in [0, 1] from noise (N, C, H, W), and how often the network was evaluated."""
    steps = max(2, steps // 2) if sampler == "heun" else steps
    chapter = replace(config, sampler=sampler, sampling_steps=steps)
    taken = len(diffusion.stops(model.schedule, chapter)) - 1  # fewer where two stops are the same
    torch.manual_seed(config.seed)  # ddpm draws anew at each step: the same for all its rows
    labels = torch.zeros(len(noise), dtype=torch.long)
    samples = diffusion.pixels(diffusion.sample(model, noise, labels, chapter))
    return samples, 2 * taken - 1 if sampler == "heun" else taken  # heun's last step has one


def main(config: Config) -> None:
    """Print and draw the Frechet distances, and draw what few steps look like."""
    folder = runs_folder(config) / "diffusion-ddpm-0"
    model, data = load(folder, config)
    run = utils.start(replace(config, out=folder), __file__)
    model.to(run.device)
    noise = torch.randn(config.num_samples, *data.image_shape)
    series, rows = {name: ([], []) for name in SAMPLERS}, {}
    print("| sampler | evaluations | Frechet distance | and over that of ddpm at most steps |")
    best = None
    with run.autocast():
        for name in SAMPLERS:
            for steps in sorted(config.steps, reverse=True):
                samples, evaluations = draw(model, noise, name, steps, config)
                distance = utils.quick_frechet_distance(samples, data)
                best = best or distance
                print(f"| {name} | {evaluations} | {distance:.2f} | {distance / best:.2f} |")
                series[name][0].append(evaluations)
                series[name][1].append(distance)
            for steps in config.shown:
                samples, evaluations = draw(model, noise[:12], name, steps, config)
                rows[f"{name}, {evaluations}"] = samples
    real = data.train[torch.randperm(len(data.train))[: config.num_samples]]
    floor = utils.quick_frechet_distance(real, data)
    print(f"| training images | | {floor:.2f} | {floor / best:.2f} |")
    path = utils.curves(
        {name: (x[::-1], y[::-1]) for name, (x, y) in series.items()},  # named at their right end
        config.figures / "diffusion_steps.png",
        xlabel="evaluations of the network for each sample",
        ylabel=f"Frechet distance, {config.num_samples:,} samples",
        title="How many steps each sampler needs",
        hlines={"training images": floor},
        logx=True,
        logy=True,
        markers=True,
    )
    print(path)
    title = "The same noises, by each sampler in so many evaluations of the network"
    print(utils.image_rows(rows, config.figures / "diffusion_few_steps.png", title=title))


if __name__ == "__main__":
    utils.cli(main, Config)
