"""The chapter's own pictures, and what a normal run looks like: default settings, three seeds.

Run:     python -m notes.figures.gan_gallery
Writes:  gan_training.gif, gan_samples.png, gan_neighbours.png, gan_interpolation.png,
         gan_learning_curve.png, gan_curves.png (mean and range of the seeds), and of a run with
         labels gan_conditional_classes.png
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from code_examples import gans, utils

from . import seeds

HERE = Path(__file__).parent
TABLE = (
    "training_seconds",
    "frechet_distance",
    "precision",
    "recall",
    "confident_share",
    "inception_score",
    "spread_ratio",
)
PICTURES = (
    "training.gif",
    "samples.png",
    "neighbours.png",
    "interpolation.png",
    "learning_curve.png",
)


@dataclass(frozen=True)
class Config(gans.Config):
    """Run the chapter once for each seed and once with labels, all else at default settings."""

    seeds: int = 3
    """Runs of the default model."""
    figures: Path = HERE
    """Where the pictures go."""


def run(config: Config, name: str, **flags: str | int) -> Path:
    """Run the chapter with these flags; return the run's folder."""
    folder = (config.out or utils.ROOT / "outputs" / "figures") / name
    same = {"quick": config.quick, "dataset": config.dataset, "epochs": config.epochs}
    gans.main(gans.Config(out=folder, **same, **flags))
    return folder


def main(config: Config) -> None:
    """Train everything, copy the pictures, and print the table of the default model."""
    folders = [run(config, f"gan-dcgan-{seed}", seed=seed) for seed in range(config.seeds)]
    conditional = run(config, "gan-conditional", model="conditional")
    config.figures.mkdir(parents=True, exist_ok=True)
    for picture in PICTURES:
        shutil.copy(folders[0] / picture, config.figures / f"gan_{picture}")
    shutil.copy(conditional / "classes.png", config.figures / "gan_conditional_classes.png")
    seeds.curves(
        folders,
        {"frechet_distance": "500 samples"},
        config.figures / "gan_curves.png",
        ylabel="Frechet distance",
        logy=True,
    )
    seeds.table(folders, TABLE)


if __name__ == "__main__":
    utils.cli(main, Config)
