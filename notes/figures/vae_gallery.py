"""The chapter's own pictures, and what a normal run looks like: default settings, three seeds.

Run:     python -m notes.figures.vae_gallery
Writes:  vae_training.gif, vae_samples.png, vae_reconstructions.png, vae_interpolation.png,
         vae_samples_two_priors.png, vae_traversals.png, vae_curves.png (mean and range of the
         seeds), and of other runs vae_latent_plane.png, vae_manifold.png,
         vae_conditional_classes.png
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from code_examples import utils, vae

from . import seeds

HERE = Path(__file__).parent
TABLE = (
    "training_seconds",
    "test_neg_elbo_nats",
    "test_reconstruction_nats",
    "test_kl_nats",
    "test_kl_to_fitted_prior_nats",
    "test_nll_nats_importance_100",
    "active_units",
    "frechet_distance",
    "precision",
    "recall",
    "frechet_distance_standard_normal",
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
    same |= {"nll_images": config.nll_images}
    vae.main(vae.Config(out=folder, **same, **flags))
    return folder


def finished(folder: Path, shape: tuple[int, int, int]) -> vae.VAE:
    """The model of a finished run."""
    flags = json.loads((folder / "config.json").read_text())
    model = vae.build(vae.Config(latent_dim=flags["latent_dim"]), shape, 10)
    checkpoint = torch.load(folder / "checkpoint.pt", weights_only=True)
    model.load_state_dict(checkpoint["objects"]["model"])
    return model


def priors(folder: Path, path: Path) -> None:
    """Draws from the prior of training, and from one that was fitted to the codes."""
    data = utils.load_images("mnist5k")
    model = finished(folder, data.image_shape)
    torch.manual_seed(0)
    x, rows = vae.binarize(data.train, "dynamic"), {"test images": data.test[:10]}
    for name, components in {"z ~ N(0, I)": 0, "z ~ fitted prior": 20}.items():
        prior = vae.fit_prior(model, x, data.train_labels, components, seed=0)
        rows[name] = vae.sample(model, 10, prior)
    utils.image_rows(rows, path, title="Pixel means of p(x|z) for draws from two priors")


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
    priors(folders[0], config.figures / "vae_samples_two_priors.png")
    seeds.curves(
        folders,
        TERMS,
        config.figures / "vae_curves.png",
        ylabel="nats per image, training",
        ylim=(0, 250),
    )
    seeds.table(folders, TABLE)


if __name__ == "__main__":
    utils.cli(main, Config)
