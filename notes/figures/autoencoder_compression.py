"""How much do L values keep, and what do they know of the classes: autoencoder beside PCA.

Run:     python -m notes.figures.autoencoder_compression
Writes:  autoencoder_compression.png, autoencoder_representation.png
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from code_examples import autoencoder, utils

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Config(autoencoder.Config):
    """Train one autoencoder for each code size and seed, on the embedded digits."""

    epochs: int = 50
    """Passes over the training set, for each code size and seed."""
    sizes: tuple[int, ...] = (2, 4, 8, 16, 32, 64)
    """Code sizes."""
    seeds: int = 3
    """Runs of each size; the picture shows their mean and range."""
    figures: Path = HERE
    """Where the pictures go."""


def measure(config: Config, data: utils.ImageData, size: int, seed: int) -> dict[str, float]:
    """Train one autoencoder; return its test error and probe accuracies, and PCA's."""
    settings = autoencoder.Config(
        model=config.model,
        epochs=config.epochs,
        latent_dim=size,
        seed=seed,
        out=(config.out or utils.ROOT / "outputs" / "figures") / f"autoencoder-{size}-{seed}",
    )
    run = utils.start(settings, __file__)
    model = autoencoder.build(settings, data.image_shape).to(
        run.device, memory_format=torch.channels_last
    )
    autoencoder.train(model, data, settings, run)
    measured = {}
    for name, network in (
        ("autoencoder", model),
        ("PCA", autoencoder.pca_autoencoder(data.train, size)),
    ):
        x_hat = autoencoder.reconstruct(network, data.test)
        z, z_test = (autoencoder.encode(network, x) for x in (data.train, data.test))
        probes = utils.probe_accuracy(z, data.train_labels, z_test, data.test_labels)
        measured[f"{name} error"] = F.mse_loss(x_hat, data.test).item()
        measured[f"{name}, linear probe"] = probes["linear"]
        measured[f"{name}, nearest neighbour"] = probes["nearest_neighbour"]
    print(f"L = {size}, seed {seed}:", {k: round(v, 5) for k, v in measured.items()})
    return measured


def main(config: Config) -> None:
    """Sweep the code size and draw both figures."""
    data = utils.load_images(config.dataset, config.data_root, quick=config.quick)
    runs = {
        size: [measure(config, data, size, seed) for seed in range(config.seeds)]
        for size in config.sizes
    }

    def draw(names: list[str], path: Path, **labels: str | bool) -> None:
        values = {n: [[r[n] for r in runs[size]] for size in config.sizes] for n in names}
        utils.curves(
            {n: (config.sizes, [sum(v) / len(v) for v in values[n]]) for n in names},
            path,
            band={n: ([min(v) for v in values[n]], [max(v) for v in values[n]]) for n in names},
            xlabel="values in a code, L",
            logx=True,
            markers=True,
            **labels,
        )
        print(path)

    draw(
        ["autoencoder error", "PCA error"],
        config.figures / "autoencoder_compression.png",
        ylabel="mean squared error per pixel, test",
        title="What a code of L values loses",
        logy=True,
    )
    draw(
        [
            f"{n}, {probe}"
            for probe in ("nearest neighbour", "linear probe")
            for n in ("autoencoder", "PCA")
        ],
        config.figures / "autoencoder_representation.png",
        ylabel="share of test digits classified correctly",
        title="What a code of L values knows of the digit",
    )


if __name__ == "__main__":
    utils.cli(main, Config)
