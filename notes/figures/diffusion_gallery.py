"""The chapter's own pictures, and what a normal run looks like: default settings, three seeds.

Run:     python -m notes.figures.diffusion_gallery
         python -m notes.figures.diffusion_gallery --reuse    # runs that are there are not repeated
Writes:  diffusion_training.gif, diffusion_samples.png, diffusion_forward.png,
         diffusion_reverse.gif, diffusion_reverse.png, diffusion_neighbours.png,
         diffusion_curves.png (mean and range of the seeds), and of other runs
         diffusion_classes.png, diffusion_score_samples.png, diffusion_moons_samples.png,
         diffusion_moons_density.png, diffusion_moons_score.png, diffusion_checkerboard_samples.png,
         diffusion_checkerboard_density.png
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from code_examples import diffusion, utils

from . import seeds
from .seeds import is_finished, runs_folder

HERE = Path(__file__).parent
RUNS = {  # besides the seeds of the default model: flags, and the pictures to keep
    "conditional": ({"model": "conditional"}, ("classes.png",)),
    "score": ({"model": "score"}, ("samples.png",)),
    "moons": ({"dataset": "moons"}, ("samples.png", "density.png", "score.png")),
    "checkerboard": ({"dataset": "checkerboard"}, ("samples.png", "density.png")),
}
PICTURES = ("training.gif", "samples.png", "forward.png", "reverse.gif", "reverse.png")
PICTURES += ("neighbours.png",)
TABLE = ("training_seconds", "images_seen", "seconds_per_1000_samples", "frechet_distance")
TABLE += ("kernel_distance", "precision", "recall", "inception_score", "confident_share")
TABLE += tuple(f"test_bound_{part}bits_per_dim" for part in ("", "prior_", "steps_", "pixels_"))


@dataclass(frozen=True)
class Config(diffusion.Config):
    """Run the chapter once for each seed and variant, all else at default settings."""

    seeds: int = 3
    """Runs of the default model."""
    runs: tuple[str, ...] = tuple(RUNS)
    """Runs besides those: conditional, score, moons, checkerboard; the plane takes minutes."""
    reuse: bool = False
    """Take finished runs that are there already."""
    figures: Path = HERE
    """Where the pictures go."""


def run(config: diffusion.Config, folder: Path, *, reuse: bool, **flags: str | float) -> None:
    """Run the chapter with these flags into the folder, unless there is a run to reuse."""
    if reuse and is_finished(folder, quick=config.quick):
        return
    same = {"dataset": config.dataset, "epochs": config.epochs, "data_root": config.data_root}
    if flags.get("dataset") in utils.DENSITIES and not config.quick:
        same.pop("epochs")  # points in the plane have a default of their own
    own = {"device": config.device, "precision": config.precision, "quick": config.quick}
    own |= {"sampling_steps": 10, "bound_times": 1} if config.quick else {}
    diffusion.main(diffusion.Config(**(own | same | flags), out=folder))


def load(folder: Path, config: diffusion.Config) -> tuple[diffusion.Diffusion, utils.ImageData]:
    """The model of averaged weights of a run on pictures, on the CPU, and its data.

    Trains config.model at default settings first if no finished run lies in the folder.
    """
    run(config, folder, reuse=True, model=config.model)
    state = torch.load(folder / "checkpoint.pt", map_location="cpu", weights_only=True)
    flags = state["flags"]
    data = utils.load_images(flags["dataset"], config.data_root, quick=flags["quick"])
    classes = len(data.class_names) * (flags["model"] == "conditional")
    net = diffusion.UNet(data.image_shape, flags["width"], flags["timesteps"], classes)
    schedule = diffusion.Schedule(diffusion.make_schedule(flags["schedule"], flags["timesteps"]))
    model = diffusion.Diffusion(net, schedule, flags["predict"])
    model.load_state_dict(state["objects"]["ema"])
    model.to(memory_format=torch.channels_last)
    return model.eval().requires_grad_(False), data


def main(config: Config) -> None:
    """Train everything, copy the pictures, and print the metrics."""
    if unknown := set(config.runs) - set(RUNS):
        raise utils.UserError(f"--runs: expected some of {', '.join(RUNS)}; got {unknown}")
    folders = [runs_folder(config) / f"diffusion-ddpm-{seed}" for seed in range(config.seeds)]
    for seed, folder in enumerate(folders):
        run(config, folder, reuse=config.reuse, seed=seed)
    config.figures.mkdir(parents=True, exist_ok=True)
    for picture in PICTURES:
        shutil.copy(folders[0] / picture, config.figures / f"diffusion_{picture}")
    for name in config.runs:
        flags, pictures = RUNS[name]
        folder = runs_folder(config) / f"diffusion-{name}"
        run(config, folder, reuse=config.reuse, **flags)
        for picture in pictures:
            kept = (
                "diffusion_classes.png" if name == "conditional" else f"diffusion_{name}_{picture}"
            )
            shutil.copy(folder / picture, config.figures / kept)
        print(f"\n{name}: {(folder / 'metrics.json').read_text()}")
    seeds.curves(
        folders,
        {"loss": "loss"},
        config.figures / "diffusion_curves.png",
        ylabel="squared error of x_0, training",
        logy=True,
    )
    seeds.table(folders, TABLE)


if __name__ == "__main__":
    utils.cli(main, Config)
