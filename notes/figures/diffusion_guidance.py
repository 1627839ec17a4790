"""What guidance buys and costs: one model with labels, sampled with more and more of it.

Run:     python -m notes.figures.diffusion_guidance
Writes:  diffusion_guidance.png, diffusion_guidance_trade.png

The model is the chapter's --model conditional, trained first if diffusion_gallery has not done so.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from code_examples import diffusion, utils
from code_examples.utils.metrics import digit_features

from .diffusion_gallery import load, runs_folder

HERE = Path(__file__).parent
QUALITY = ("frechet_distance", "precision", "recall")


@dataclass(frozen=True)
class Config(diffusion.Config):
    """Draw the same noises at each guidance, and measure quality and variety."""

    model: Literal["conditional"] = "conditional"
    """Only a model with labels can be guided."""
    weights: tuple[float, ...] = (0, 0.5, 1, 1.5, 2, 3, 4, 6, 8)
    """Guidance that is measured."""
    shown: tuple[float, ...] = (0, 1, 2, 4, 8)
    """Guidance of which there are pictures."""
    figures: Path = HERE
    """Where the pictures go."""


def main(config: Config) -> None:
    """Print the table and draw both pictures."""
    folder = runs_folder(config) / "diffusion-conditional"
    model, data = load(folder, config)
    run = utils.start(replace(config, out=folder), __file__)
    model.to(run.device)
    noise = torch.randn(config.num_samples, *data.image_shape)
    y, classes = torch.arange(config.num_samples) % len(data.class_names), len(data.class_names)

    def draw(weight: float, n: int) -> Tensor:
        torch.manual_seed(config.seed)  # the same noise in every step, too
        chapter = replace(config, guidance=weight)
        return diffusion.pixels(diffusion.sample(model, noise[:n], y[:n], chapter))

    table = {}
    print("| guidance | Frechet | precision | recall | classified as told |")
    with run.autocast():
        rows = {f"guidance {w:g}": draw(w, classes) for w in config.shown}
        for weight in config.weights:
            samples = draw(weight, len(y))
            quality = utils.sample_quality(samples, data)
            _, probs = digit_features(samples)
            right = (probs.argmax(dim=1) == y).double().mean().item()
            table[weight] = (*(quality[name] for name in QUALITY), right)
            print(f"| {weight:g} | " + " | ".join(f"{v:.3f}" for v in table[weight]) + " |")
    title = "The same noises, one for each class, with more and more guidance"
    print(utils.image_rows(rows, config.figures / "diffusion_guidance.png", title=title))
    frechet, precision, recall, right = zip(*table.values(), strict=True)
    shares = {"precision": precision, "recall": recall, "as told": right}
    path = utils.curve_panels(
        {
            "Frechet distance": {"": (config.weights, frechet)},
            "share": {name: (config.weights, values) for name, values in shares.items()},
        },
        config.figures / "diffusion_guidance_trade.png",
        xlabel="guidance",
        title=f"What guidance buys and costs, {config.num_samples:,} samples",
    )
    print(path)


if __name__ == "__main__":
    utils.cli(main, Config)
