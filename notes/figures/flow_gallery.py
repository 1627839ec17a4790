"""The chapter's own pictures, and what a normal run looks like: default settings, three seeds.

Run:     python -m notes.figures.flow_gallery
         python -m notes.figures.flow_gallery --reuse    # runs that are there are not repeated
Writes:  flow_training.gif, flow_samples.png, flow_interpolation.png, flow_temperature.png,
         flow_latents.png, flow_latents_histogram.png, flow_curves.png (mean and range of the
         seeds), and of other runs flow_spline_samples.png, flow_moons_density.png,
         flow_moons_latents.png, flow_ring_density.png, flow_checkerboard_density.png,
         flow_grid.gif, flow_grid.png
"""

import json
import shutil
from dataclasses import dataclass, fields
from pathlib import Path

import torch

from code_examples import flows, utils

from . import seeds
from .seeds import is_finished, runs_folder

HERE = Path(__file__).parent
RUNS = {  # besides the seeds of the default model: flags, and the pictures to keep
    "spline": ({"model": "spline"}, ("samples.png",)),
    "moons": ({"model": "spline", "dataset": "moons"}, ("density.png", "latents.png")),
    "ring": ({"model": "spline", "dataset": "ring"}, ("density.png",)),
    "checkerboard": ({"model": "spline", "dataset": "checkerboard"}, ("density.png",)),
    "grid": ({"model": "realnvp", "dataset": "moons"}, ("grid.gif", "grid.png")),
}
PICTURES = ("training.gif", "samples.png", "interpolation.png", "temperature.png")
PICTURES += ("latents.png", "latents_histogram.png")
TABLE = ("training_seconds", "images_seen", "seconds_per_1000_samples", "test_bound_bits_per_dim")
TABLE += ("test_bound_bits_per_dim_importance_8", "train_bound_bits_per_dim")
TABLE += ("gaussian_bound_bits_per_dim",)
TABLE += ("test_log_prob_logit_space_nats", "gaussian_log_prob_logit_space_nats")
TABLE += ("latent_variance", "latent_excess_kurtosis", "latent_kolmogorov_smirnov")
TABLE += ("frechet_distance", "kernel_distance", "precision", "recall", "inception_score")
TABLE += ("confident_share",)


@dataclass(frozen=True)
class Config(flows.Config):
    """Run the chapter once for each seed and variant, all else at default settings."""

    seeds: int = 3
    """Runs of the default model."""
    runs: tuple[str, ...] = tuple(RUNS)
    """Runs besides those: spline, and in the plane moons, ring, checkerboard, grid."""
    reuse: bool = False
    """Take finished runs that are there already."""
    figures: Path = HERE
    """Where the pictures go."""


def run(config: flows.Config, folder: Path, *, reuse: bool, **flags: str | float) -> None:
    """Run the chapter with these flags into the folder, unless there is a run to reuse."""
    if reuse and is_finished(folder, quick=config.quick):
        return
    same = {"dataset": config.dataset, "data_root": config.data_root}
    if config.epochs != flows.Config(dataset=config.dataset).epochs:
        same["epochs"] = config.epochs  # given by hand; else each model has a default of its own
    own = {name: getattr(config, name) for name in ("minutes", "device", "precision", "quick")}
    own |= {"layers": 1, "width": 8, "num_samples": 64} if config.quick else {}
    flows.main(flows.Config(**(own | same | flags), out=folder))


def load(folder: Path, config: flows.Config, **flags: str) -> tuple[flows.Flow, utils.ImageData]:
    """The flow of a run on pictures, on the CPU, and its data.

    Trains with these flags at default settings first if no finished run lies in the folder.
    """
    run(config, folder, reuse=True, **flags)
    state = torch.load(folder / "checkpoint.pt", map_location="cpu", weights_only=True)
    names = {field.name for field in fields(flows.Config)} - {"out", "data_root", "resume"}
    chapter = flows.Config(**{name: state["flags"][name] for name in names})
    data = utils.load_images(chapter.dataset, config.data_root, quick=chapter.quick)
    flow = flows.picture_flow(chapter, data.image_shape).to(memory_format=torch.channels_last)
    flow.load_state_dict(state["objects"]["flow"])
    return flow.eval().requires_grad_(False), data


def main(config: Config) -> None:
    """Train everything, copy the pictures, and print the metrics."""
    if unknown := set(config.runs) - set(RUNS):
        raise utils.UserError(f"--runs: expected some of {', '.join(RUNS)}; got {unknown}")
    folders = [runs_folder(config) / f"flow-realnvp-{seed}" for seed in range(config.seeds)]
    for seed, folder in enumerate(folders):
        run(config, folder, reuse=config.reuse, seed=seed)
    config.figures.mkdir(parents=True, exist_ok=True)
    for picture in PICTURES:
        shutil.copy(folders[0] / picture, config.figures / f"flow_{picture}")
    for name in config.runs:
        flags, pictures = RUNS[name]
        folder = runs_folder(config) / f"flow-{name}"
        run(config, folder, reuse=config.reuse, **flags)
        for picture in pictures:
            kept = f"flow_{picture}" if name == "grid" else f"flow_{name}_{picture}"
            shutil.copy(folder / picture, config.figures / kept)
        print(f"\n{name}: {(folder / 'metrics.json').read_text()}")
    metrics = [json.loads((folder / "metrics.json").read_text()) for folder in folders]
    test, gaussian = (
        sum(m[name] for m in metrics) / len(metrics)
        for name in ("test_bound_bits_per_dim", "gaussian_bound_bits_per_dim")
    )
    seeds.curves(
        folders,
        {"bits_per_dim": "training"},
        config.figures / "flow_curves.png",
        ylabel="bits per dimension",
        ylim=(0.75 * test, 2 * test),
        hlines={f"test {test:.2f}": test, f"Gaussian {gaussian:.2f}": gaussian},
    )
    seeds.table(folders, TABLE)


if __name__ == "__main__":
    utils.cli(main, Config)
