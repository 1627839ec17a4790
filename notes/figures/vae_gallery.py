"""The chapter's own pictures, and what a normal run looks like: default settings, three seeds.

Run:     python -m notes.figures.vae_gallery
Writes:  vae_training.gif, vae_samples.png, vae_reconstructions.png, vae_interpolation.png,
         vae_traversals.png, vae_curves.png (mean and range of the seeds), and of other runs
         vae_latent_plane.png, vae_manifold.png, vae_conditional_classes.png
"""

import csv
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from code_examples import utils, vae

HERE = Path(__file__).parent
TABLE = (
    "training_seconds",
    "test_neg_elbo_nats",
    "test_reconstruction_nats",
    "test_kl_nats",
    "test_nll_nats_importance_100",
    "active_units",
    "frechet_distance",
    "precision",
    "recall",
)
PICTURES = {  # run: pictures to keep of it
    "vae-conv-0": (
        "training.gif",
        "samples.png",
        "reconstructions.png",
        "interpolation.png",
    ),
    "vae-plane": ("latent_plane.png",),
    "vae-conditional": ("classes.png",),
}
TERMS = {"neg_elbo": "-ELBO", "reconstruction": "reconstruction", "kl": "KL"}


@dataclass(frozen=True)
class Config(vae.Config):
    """Run the chapter once for each seed and variant, all else at default settings."""

    seeds: int = 3
    """Runs of the default model."""
    figures: Path = HERE
    """Where the pictures go."""


def run(config: Config, name: str, **flags: str | int) -> Path:
    """Run the chapter with these flags; return the run's folder."""
    folder = (config.out or utils.ROOT / "outputs" / "figures") / name
    same = {"quick": config.quick, "dataset": config.dataset, "epochs": config.epochs}
    vae.main(vae.Config(out=folder, **same, **flags))
    return folder


def curves(folders: list[Path], path: Path) -> None:
    """The terms of the bound over the epochs: mean and range of several runs."""
    series, band = {}, {}
    for key, name in TERMS.items():
        runs = []
        for folder in folders:
            rows = list(csv.DictReader((folder / "history.csv").read_text().splitlines()))
            epochs = [float(r["epoch"]) for r in rows]
            runs.append([float(r[key]) for r in rows])
        values = list(zip(*runs, strict=True))
        series[name] = (epochs, [sum(v) / len(v) for v in values])
        band[name] = ([min(v) for v in values], [max(v) for v in values])
    utils.curves(
        series,
        path,
        band=band,
        xlabel="epoch",
        ylabel="nats per image, training",
        title=f"A normal run: mean and range of {len(folders)} seeds",
        ylim=(0, 250),
    )


def finished(folder: Path, shape: tuple[int, int, int]) -> vae.VAE:
    """The model of a finished run."""
    flags = json.loads((folder / "config.json").read_text())
    model = vae.build(vae.Config(latent_dim=flags["latent_dim"]), shape, 10)
    checkpoint = torch.load(folder / "checkpoint.pt", weights_only=True)
    model.load_state_dict(checkpoint["objects"]["model"])
    return model


def manifold(folder: Path, path: Path) -> None:
    """What each place of the latent plane decodes to, at equal shares of the prior."""
    model = finished(folder, (1, 28, 28))
    ticks = torch.special.ndtri((torch.arange(15) + 0.5) / 15)
    z = torch.cartesian_prod(ticks.flip(0), ticks).flip(1)  # rows: z_2 from top; columns: z_1
    pictures = vae.decode(model, z, torch.zeros(len(z), dtype=torch.long))
    utils.image_grid(pictures, path, columns=15, title="The latent plane, decoded")


def traversals(folder: Path, path: Path) -> None:
    """What each of the six dimensions that carry most does."""
    data = utils.load_images("mnist5k")
    model = finished(folder, data.image_shape)
    x, y = vae.binarize(data.test, "threshold"), data.test_labels
    mu, logvar = vae.encode(model, x, y)
    nats = vae.kl_per_dimension(mu, logvar).mean(dim=0)
    values, rows = torch.linspace(-3, 3, 9), {}
    for dim in nats.argsort(descending=True)[:6].tolist():
        z = mu[:1].repeat(len(values), 1)
        z[:, dim] = values
        rows[f"z[{dim}], {nats[dim]:.1f} nats"] = vae.decode(model, z, y[:1].expand(len(z)))
    utils.strips(
        rows,
        path,
        title="One latent dimension changed, all others as for the first test image",
        xlabel="its value",
        ticks=values.tolist(),
    )


def main(config: Config) -> None:
    """Train everything, copy the pictures, and print the table of the default model."""
    folders = [run(config, f"vae-conv-{seed}", seed=seed) for seed in range(config.seeds)]
    plane = run(config, "vae-plane", latent_dim=2)
    run(config, "vae-conditional", model="conditional")
    config.figures.mkdir(parents=True, exist_ok=True)
    for name, pictures in PICTURES.items():
        prefix = "vae_conditional" if name == "vae-conditional" else "vae"
        for picture in pictures:
            target = config.figures / f"{prefix}_{picture}"
            shutil.copy(folders[0].parent / name / picture, target)
    manifold(plane, config.figures / "vae_manifold.png")
    traversals(folders[0], config.figures / "vae_traversals.png")
    curves(folders, config.figures / "vae_curves.png")
    metrics = [json.loads((folder / "metrics.json").read_text()) for folder in folders]
    print(f"\nDefault run, {config.seeds} seeds: mean (lowest to highest)")
    for key in TABLE:
        values = [m[key] for m in metrics]
        mean, low, high = sum(values) / len(values), min(values), max(values)
        print(f"{key:<34} {mean:.4g} ({low:.4g} to {high:.4g})")


if __name__ == "__main__":
    utils.cli(main, Config)
