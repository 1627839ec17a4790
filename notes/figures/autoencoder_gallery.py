"""The chapter's own pictures, and what a normal run looks like: default settings, three seeds.

Run:     python -m notes.figures.autoencoder_gallery
Writes:  autoencoder_training.gif, autoencoder_curves.png (mean and range of three seeds), and
         pictures of the variants' default runs: autoencoder_*.png
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from code_examples import autoencoder, utils

from . import seeds

HERE = Path(__file__).parent
TABLE = (
    "training_seconds",
    "test_mse_per_pixel",
    "linear_probe_accuracy",
    "nearest_neighbour_probe_accuracy",
    "frechet_distance",
    "precision",
    "recall",
    "frechet_distance_standard_normal",
)
PICTURES = {  # run: pictures to keep of it
    "conv-0": ("training.gif", "reconstructions.png", "interpolation.png", "samples_two_ways.png"),
    "plane": ("latent_plane.png",),
    "linear": ("filters.png",),
    "denoising": ("denoising.png",),
    "sparse": ("filters.png",),
    "contractive": ("filters.png",),
}


@dataclass(frozen=True)
class Config(autoencoder.Config):
    """Run the chapter once for each seed and variant, all else at default settings."""

    seeds: int = 3
    """Runs of the default model."""
    figures: Path = HERE
    """Where the pictures go."""


def run(config: Config, name: str, **flags: str | int) -> Path:
    """Run the chapter with these flags; return the run's folder."""
    folder = (config.out or utils.ROOT / "outputs" / "figures") / name
    same = {"quick": config.quick, "dataset": config.dataset}
    same |= {"epochs": config.epochs} if config.quick else {}  # each variant has its own default
    autoencoder.main(autoencoder.Config(out=folder, **(same | flags)))
    return folder


def main(config: Config) -> None:
    """Train everything, copy the pictures, and print the table of the default model."""
    folders = [
        run(config, f"conv-{seed}", seed=seed, epochs=config.epochs) for seed in range(config.seeds)
    ]
    run(config, "plane", latent_dim=2, epochs=config.epochs)
    for model in ("linear", "denoising", "sparse", "contractive"):
        run(config, model, model=model)
    config.figures.mkdir(parents=True, exist_ok=True)
    for name, pictures in PICTURES.items():
        short = name.removesuffix("-0").replace("conv", "").replace("plane", "")
        for picture in pictures:
            target = "_".join(part for part in ("autoencoder", short, picture) if part)
            shutil.copy(folders[0].parent / name / picture, config.figures / target)
    seeds.curves(
        folders,
        {"train_mse_per_pixel": "train", "test_mse_per_pixel": "test"},
        config.figures / "autoencoder_curves.png",
        ylabel="mean squared error per pixel",
        logy=True,
    )
    seeds.table(folders, TABLE)
    data = utils.load_images(config.dataset, config.data_root, quick=config.quick)
    floor = utils.sample_quality(data.train[:2000], data)
    print("The same number of real training images:")
    for key in ("frechet_distance", "precision", "recall"):
        print(f"{key:<34} {floor[key]:.4g}")


if __name__ == "__main__":
    utils.cli(main, Config)
