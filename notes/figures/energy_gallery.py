"""The chapter's own pictures, and what a normal run looks like: default settings, three seeds.

Run:     python -m notes.figures.energy_gallery
         python -m notes.figures.energy_gallery --parts rbm      # or cd, conv, short-run, plane
         python -m notes.figures.energy_gallery --reuse    # runs that are there are not repeated
Writes:  rbm: energy_training.gif, energy_samples.png, energy_chains.gif, energy_filters.png,
         energy_classes.png, energy_reconstructions.png, energy_inpainting.png, energy_curves.png;
         cd: energy_cd_samples.png, energy_cd_filters.png;
         conv: energy_conv_samples.png, energy_conv_chains.png, energy_conv_chains.gif,
         energy_conv_curves.png;
         short-run: energy_short_run_chains.png;
         plane: energy_moons_density.png, energy_moons_score.png, energy_ring_density.png,
         energy_checkerboard_density.png

A run of the chapter takes minutes, and there are 17 of them: measure one part at a time. Pictures
are those of seed 0; tables and curves are of all seeds.
"""

import json
import math
import shutil
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch

from code_examples import energy, utils

from . import seeds
from .seeds import is_finished, runs_folder

HERE = Path(__file__).parent
RBM_PICTURES = ("training.gif", "samples.png", "chains.gif", "filters.png", "classes.png")
RBM_PICTURES += ("reconstructions.png", "inpainting.png")
RUNS = {  # flags of the chapter, and the pictures to keep
    "rbm": ({}, RBM_PICTURES),
    "cd": ({"training": "cd"}, ("samples.png", "filters.png")),
    "conv": ({"model": "conv"}, ("samples.png", "chains.png", "chains.gif")),
    "short-run": ({"model": "conv", "training": "short-run"}, ("chains.png",)),
    "moons": ({"model": "score", "dataset": "moons"}, ("density.png", "score.png")),
    "ring": ({"model": "score", "dataset": "ring", "training": "nce"}, ("density.png",)),
    "checkerboard": (
        {"model": "score", "dataset": "checkerboard", "training": "nce"},
        ("density.png",),
    ),
}
PARTS = {name: (name,) for name in ("rbm", "cd", "conv", "short-run")}
PARTS["plane"] = ("moons", "ring", "checkerboard")
TABLE = ("training_seconds", "images_seen", "parameters", "seconds_per_1000_samples")
TABLE += ("test_nll_nats", "test_nll_nats_standard_error", "train_nll_nats", "entropy_nats")
TABLE += ("log_partition_nats", "log_partition_nats_low", "log_partition_nats_high")
TABLE += ("log_partition_nats_reverse", "test_accuracy_by_free_energy", "kl_from_data_nats")
TABLE += ("energy_train", "energy_test", "energy_samples", "frechet_distance", "kernel_distance")
TABLE += ("precision", "recall", "inception_score", "confident_share")


@dataclass(frozen=True)
class Config(energy.Config):
    """Run the chapter once for each seed and variant, all else at default settings."""

    seeds: int = 3
    """Runs of each variant; ring and checkerboard have one."""
    parts: tuple[str, ...] = tuple(PARTS)
    """Which: the default model (rbm), the same by CD, the deep energy (conv), the same by chains
    that always start at noise (short-run), and energies in the plane."""
    reuse: bool = False
    """Take finished runs that are there already."""
    figures: Path = HERE
    """Where the pictures go."""


def run(config: energy.Config, name: str, *, reuse: bool, seed: int = 0) -> Path:
    """Train a variant, unless there is a run to reuse; return the run's folder."""
    folder = runs_folder(config) / f"energy-{name}-{seed}"
    if reuse and is_finished(folder, quick=config.quick):
        return folder
    names = ("dataset", "data_root", "minutes", "device", "precision", "quick")
    names += ("num_samples", "ais_temperatures")
    own = {name: getattr(config, name) for name in names}
    if config.epochs != energy.Config(quick=config.quick).epochs:
        own["epochs"] = config.epochs  # given by hand; else each model has a default of its own
    small = {"hidden": 16, "width": 4, "num_samples": 64, "ais_chains": 4}
    own |= small if config.quick else {}
    energy.main(energy.Config(**(own | RUNS[name][0]), seed=seed, out=folder))
    return folder


def load(
    config: energy.Config, name: str, *, seed: int = 0
) -> tuple[energy.RBM | energy.ConvEnergy, utils.ImageData, energy.Config]:
    """The energy of a run on pictures, on the CPU, its data and its flags.

    Trains it first if no finished run lies in its folder.
    """
    folder = run(config, name, reuse=True, seed=seed)
    state = torch.load(folder / "checkpoint.pt", map_location="cpu", weights_only=True)
    names = {field.name for field in fields(energy.Config)} - {"out", "data_root", "resume"}
    chapter = energy.Config(**{name: state["flags"][name] for name in names})
    data = utils.load_images(chapter.dataset, config.data_root, quick=chapter.quick)
    weights = state["objects"]["ema"]  # what the chapter draws from and measures
    if chapter.model == "rbm":
        num_classes = len(weights["visible_bias"]) - data.train[0].numel()
        parameters = (weights[name] for name in ("weight", "visible_bias", "hidden_bias"))
        model = energy.RBM(*parameters, num_classes)
    else:
        model = energy.ConvEnergy(data.image_shape, chapter.width)
        model = model.to(memory_format=torch.channels_last)
        model.load_state_dict(weights)
    return model.eval().requires_grad_(False), data, chapter


def draw_curves(folders: list[Path], path: Path) -> None:
    """Draw how energies and their gap, the loss (7.18), go, each seed a curve; print the gaps."""
    panels = {"energy of data, nats": {}, "energy of chains, nats": {}}
    panels |= {"data minus chains, nats": {}, "gradient of the weights": {}}
    print("| seed | gap: furthest in the first tenth | then mean | lowest | 5% | 95% | highest |")
    for seed, folder in enumerate(folders):
        names = ("energy_data", "energy_model", "grad_norm")
        (epochs, data), (_, chains), (_, norms) = (seeds.history(folder, name) for name in names)
        gap = np.array(data) - np.array(chains)
        for panel, values in zip(panels.values(), (data, chains, gap, norms), strict=True):
            panel[f"seed {seed}"] = epochs, values
        start = max(1, len(gap) // 10)
        early, late = gap[:start], gap[min(start, len(gap) - 1) :]
        shown = (early[np.abs(early).argmax()], late.mean(), late.min())
        shown += (*np.quantile(late, (0.05, 0.95)), late.max())
        print(f"| {seed} | " + " | ".join(f"{x:.3g}" for x in shown) + " |")
    title = f"A normal run, seen {len(folders)} times" if len(folders) > 1 else "A normal run"
    utils.curve_panels(panels, path, xlabel="epoch", title=title)


def print_step_lengths(config: Config, seed: int) -> None:
    """How far one Langevin step of the deep energy moves a pixel, root mean square."""
    model, data, chapter = load(config, "conv", seed=seed)
    samples = np.load(runs_folder(config) / f"energy-conv-{seed}" / "samples.npy")
    x = {"samples": torch.from_numpy(samples), "test": data.test, "noise": data.test}
    for name, pictures in x.items():
        pictures = torch.rand_like(pictures[:500]) if name == "noise" else pictures[:500]
        step = chapter.step_size / 2 * energy.score(model, pictures).square().mean().sqrt()
        eps = math.sqrt(chapter.step_size * chapter.temperature)
        print(f"seed {seed}, a step from {name}: {step:.4f} downhill, {eps:.4f} of noise")


def main(config: Config) -> None:
    """Train everything, copy the pictures, and print the metrics."""
    if unknown := set(config.parts) - set(PARTS):
        raise utils.UserError(f"--parts: expected some of {', '.join(PARTS)}; got {unknown}")
    config.figures.mkdir(parents=True, exist_ok=True)
    for name in (name for part in config.parts for name in PARTS[part]):
        count = 1 if name in ("ring", "checkerboard") else config.seeds
        folders = [run(config, name, reuse=config.reuse, seed=seed) for seed in range(count)]
        kept = "energy_" + ("" if name == "rbm" else name.replace("-", "_") + "_")
        for picture in RUNS[name][1]:
            shutil.copy(folders[0] / picture, config.figures / f"{kept}{picture}")
        measured = json.loads((folders[0] / "metrics.json").read_text())
        print(f"\n--- {name}")
        seeds.table(folders, tuple(key for key in TABLE if key in measured))
        if name in ("rbm", "conv"):
            draw_curves(folders, config.figures / f"{kept}curves.png")
        if name == "conv":
            for seed in range(count):
                print_step_lengths(config, seed)


if __name__ == "__main__":
    utils.cli(main, Config)
