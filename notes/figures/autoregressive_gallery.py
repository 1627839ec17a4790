"""The chapter's own pictures, and what a normal run looks like: default settings, three seeds.

Run:     python -m notes.figures.autoregressive_gallery
         python -m notes.figures.autoregressive_gallery --parts pixelcnn    # or what else RUNS has
         python -m notes.figures.autoregressive_gallery --minutes 5
         python -m notes.figures.autoregressive_gallery --reuse    # runs that are there stay
Writes:  pixelcnn: autoregressive_training.gif, autoregressive_samples.png,
         autoregressive_drawing.gif, autoregressive_drawing.png, autoregressive_halves.png,
         autoregressive_surprise.png, autoregressive_receptive_field.png, autoregressive_curves.png;
         pixelcnn-masked: autoregressive_masked_receptive_field.png,
         autoregressive_masked_samples.png; made: autoregressive_made_samples.png,
         autoregressive_made_drawing.png; conditional: autoregressive_classes.png;
         transformer: autoregressive_transformer_samples.png;
         wavenet: autoregressive_wavenet_spectrogram.png, autoregressive_wavenet_pitch.png

A run of the chapter takes minutes, and there are 18 of them: measure one part at a time. Pictures
are those of seed 0; tables and curves are of all seeds.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from code_examples import pixelcnn, utils

from . import seeds
from .autoregressive_levels import ANCHORS, baselines
from .seeds import is_finished, runs_folder

HERE = Path(__file__).parent
RUNS = {  # the pictures of a model to keep, and how they are called here after autoregressive_
    "pixelcnn": {
        name: name
        for name in ("training.gif", "samples.png", "drawing.gif", "drawing.png", "surprise.png")
    }
    | {"receptive_field.png": "receptive_field.png", "completions.png": "halves.png"},
    "pixelcnn-masked": {
        "receptive_field.png": "masked_receptive_field.png",
        "samples.png": "masked_samples.png",
    },
    "made": {"samples.png": "made_samples.png", "drawing.png": "made_drawing.png"},
    "conditional": {},
    "transformer": {"samples.png": "transformer_samples.png"},
    "wavenet": {"spectrogram.png": "wavenet_spectrogram.png", "pitch.png": "wavenet_pitch.png"},
}
TABLE = ("training_seconds", "epochs", "images_seen", "parameters", "test_bits_per_dim")
TABLE += ("train_bits_per_dim", "test_nll_nats", "test_nll_nats_standard_error", "train_nll_nats")
TABLE += ("test_nll_nats_labels_exchanged", "test_nll_nats_label_summed_out")
TABLE += ("test_accuracy_by_bayes_rule", "frechet_distance", "kernel_distance", "precision")
TABLE += ("recall", "inception_score", "confident_share", "seconds_per_1000_samples")
TABLE += ("seconds_per_100_samples", "seconds_per_100_samples_naive_estimated")
TABLE += ("seconds_per_13_samples", "seconds_per_13_samples_naive_estimated", "speedup_by_caching")
TABLE += ("pitch_error_cents_median", "pitch_within_50_cents_share")
TABLE += ("pitch_error_cents_median_data", "pitch_within_50_cents_share_data")


@dataclass(frozen=True)
class Config(utils.Config):
    """Run the chapter once for each seed and model, all else at default settings."""

    seeds: int = 3
    """Runs of each model."""
    parts: tuple[str, ...] = tuple(RUNS)
    """Which: pixelcnn, pixelcnn-masked, made, conditional, transformer, wavenet."""
    reuse: bool = False
    """Take finished runs that are there already."""
    figures: Path = HERE
    """Where the pictures go."""


def run(config: Config, model: str, seed: int) -> Path:
    """Train a model, unless there is a run to reuse; return the run's folder."""
    named = f"-{config.dataset}" * (config.dataset != "mnist5k" and model != "wavenet")
    folder = runs_folder(config) / f"autoregressive-{model}{named}-{seed}"
    if config.reuse and is_finished(folder, quick=config.quick):
        return folder
    names = ("data_root", "minutes", "device", "precision", "quick", "num_samples")
    own = {name: getattr(config, name) for name in names}
    if config.epochs != Config(quick=config.quick).epochs:
        own["epochs"] = config.epochs  # given by hand; else each model has a default of its own
    own |= {} if model == "wavenet" else {"dataset": config.dataset}
    own |= {"width": 8, "layers": 2, "num_samples": 30} if config.quick else {}
    pixelcnn.main(pixelcnn.Config(model=model, **own, seed=seed, out=folder))
    return folder


def draw_curves(folders: list[Path], config: Config) -> Path:
    """Bits of training over the epochs, mean and range, beside histograms and test."""
    data = utils.load_images(config.dataset, config.data_root, quick=config.quick)
    levels = json.loads((folders[0] / "config.json").read_text())["levels"]
    x = [pixelcnn.quantize(x, levels) for x in (data.train, data.test)]
    metrics = [json.loads((folder / "metrics.json").read_text()) for folder in folders]
    lines = {"test": sum(m["test_bits_per_dim"] for m in metrics) / len(metrics)}
    lines |= {name: value for name, value in baselines(*x, levels).items() if name in ANCHORS[1:]}
    histories = [seeds.history(folder, "bits_per_dim") for folder in folders]
    parts = min(100, *(len(epochs) for epochs, _ in histories))  # means of parts: less noise
    means = [
        [[part.mean() for part in np.array_split(values, parts)] for values in history]
        for history in histories
    ]
    epochs, bits = np.array(means).transpose(1, 0, 2)  # (seeds, parts) each
    return utils.curves(
        {"training": (epochs.mean(axis=0), bits.mean(axis=0))},
        config.figures / "autoregressive_curves.png",
        xlabel="epoch",
        ylabel="bits per dimension",
        title=f"A normal run: mean and range of {len(folders)} seeds",
        band={"training": (bits.min(axis=0), bits.max(axis=0))},
        hlines={f"{name}, {value:.3f}": value for name, value in lines.items()},
        ylim=(0.9 * min(bits.min(), lines["test"]), 1.05 * lines[ANCHORS[1]]),
    )


def draw_classes(folder: Path, config: Config) -> Path:
    """Samples of the conditional model, a row for each label."""
    data = utils.load_images(config.dataset, config.data_root, quick=config.quick)
    samples = torch.from_numpy(np.load(folder / "samples.npy"))
    count = len(data.class_names)  # labels came in turns
    each = min(12, len(samples) // count)
    rows = {name: samples[k::count][:each] for k, name in enumerate(data.class_names)}
    path = config.figures / "autoregressive_classes.png"
    return utils.image_rows(rows, path, title="Drawn given the label at the left")


def main(config: Config) -> None:
    """Train everything, copy the pictures, and print the metrics."""
    if unknown := set(config.parts) - set(RUNS):
        raise utils.UserError(f"--parts: expected some of {', '.join(RUNS)}; got {unknown}")
    config.figures.mkdir(parents=True, exist_ok=True)
    for model in config.parts:
        folders = [run(config, model, seed) for seed in range(config.seeds)]
        for picture, name in RUNS[model].items():
            shutil.copy(folders[0] / picture, config.figures / f"autoregressive_{name}")
        if model == "pixelcnn":
            print(draw_curves(folders, config))
        if model == "conditional":
            print(draw_classes(folders[0], config))
        measured = json.loads((folders[0] / "metrics.json").read_text())
        print(f"\n--- {model}")
        seeds.table(folders, tuple(key for key in TABLE if key in measured))


if __name__ == "__main__":
    utils.cli(main, Config)
