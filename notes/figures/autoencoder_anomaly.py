"""Anomalies are what a narrow autoencoder cannot draw: one digit held out, ten times.

Run:     python -m notes.figures.autoencoder_anomaly
Writes:  autoencoder_anomaly.png
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from code_examples import autoencoder, utils

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Config(autoencoder.Config):
    """Train on nine digits, score the tenth as an anomaly, for each of the ten."""

    epochs: int = 20
    """Passes over the training set, for each digit held out."""
    latent_dim: int | None = 8
    """Few values, so that what was never seen cannot be drawn."""
    figures: Path = HERE
    """Where the picture goes."""


def measure(config: Config, data: utils.ImageData, digit: int) -> dict[str, float]:
    """AUROC of the reconstruction error, test images of `digit` against the others."""
    settings = autoencoder.Config(
        model=config.model,
        epochs=config.epochs,
        latent_dim=config.latent_dim,
        seed=config.seed,
        out=(config.out or utils.ROOT / "outputs" / "figures") / f"anomaly-{digit}",
    )
    nine = utils.without_class(data, digit)
    run = utils.start(settings, __file__)
    model = autoencoder.build(settings, data.image_shape).to(
        run.device, memory_format=torch.channels_last
    )
    autoencoder.train(model, nine, settings, run)
    aurocs = {}
    for name, network in (
        ("autoencoder", model),
        ("PCA", autoencoder.pca_autoencoder(nine.train, config.latent_dim)),
    ):
        score = autoencoder.squared_error(autoencoder.reconstruct(network, data.test), data.test)
        odd = data.test_labels == digit
        aurocs[name] = utils.auroc(score[~odd], score[odd])
    print(f"digit {digit} held out:", {k: round(v, 3) for k, v in aurocs.items()})
    return aurocs


def main(config: Config) -> None:
    """Hold out each digit in turn and draw the AUROCs."""
    data = utils.load_images(config.dataset, config.data_root, quick=config.quick)
    aurocs = {str(digit): measure(config, data, digit) for digit in range(10)}
    for name in ("autoencoder", "PCA"):
        print(name, "mean AUROC", round(sum(a[name] for a in aurocs.values()) / 10, 3))
    path = utils.bars(
        aurocs,
        config.figures / "autoencoder_anomaly.png",
        ylabel="AUROC of the reconstruction error",
        title=f"Finding the digit that training never saw, with {config.latent_dim} values",
        baseline={"chance": 0.5},
    )
    print(path)


if __name__ == "__main__":
    utils.cli(main, Config)
