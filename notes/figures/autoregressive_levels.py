"""Bits per dimension over the number of grey levels, for a softmax and for discretised logistics.

Run:     python -m notes.figures.autoregressive_levels
         python -m notes.figures.autoregressive_levels --dataset mnist --minutes 5
         python -m notes.figures.autoregressive_levels --reuse    # runs that are there stay
Writes:  autoregressive_levels.png

The chapter's default network, trained for the same time at each number of levels with either
output, beside what needs no network: a uniform model, one histogram, a histogram for each pixel.
Two levels are a threshold, so that all rows of the table are coarser copies of the same
pictures. Ten runs of `--minutes` each.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from code_examples import pixelcnn, utils

from .seeds import is_finished, runs_folder

HERE = Path(__file__).parent
OUTPUTS = ("softmax", "logistics")
ANCHORS = ("uniform", "one histogram", "a histogram for each pixel")
COLUMNS = ("levels", *ANCHORS, *OUTPUTS)
COLUMNS += tuple(f"{output}: {what}" for output in OUTPUTS for what in ("training", "passes"))


@dataclass(frozen=True)
class Config(utils.Config):
    """Train the default network at several numbers of levels, with two kinds of output."""

    minutes: float | None = 2.0
    """Training time of each run; --quick counts epochs instead."""
    levels: tuple[int, ...] = (2, 4, 16, 64, 256)
    """Numbers of grey levels, each from 2 to 256."""
    count: int = 1000
    """Test pictures, and as many of training, of which the bits are counted."""
    reuse: bool = False
    """Take finished runs that are there already."""
    figures: Path = HERE
    """Where the picture goes."""


def flags(config: utils.Config) -> dict:
    """What every run of a figure script passes on to the chapter."""
    same = ("dataset", "data_root", "seed", "device", "precision", "quick")
    length = "epochs" if config.quick else "minutes"
    small = {"width": 8, "layers": 2} if config.quick else {}
    return small | {name: getattr(config, name) for name in (*same, length)}


def prepare(x: Tensor, chapter: pixelcnn.Config) -> Tensor:
    """Pictures on the grid, and the pixels of a patch as channels of one place."""
    two, levels = chapter.levels == 2, chapter.levels
    x = pixelcnn.binarize(x, chapter.binarize) if two else pixelcnn.quantize(x, levels)
    return nn.functional.pixel_unshuffle(x, chapter.patch)


def baselines(train: Tensor, test: Tensor, levels: int) -> dict[str, float]:
    """Bits per dimension of test pictures on the grid by histograms; notes/08 section 2.3."""
    k, new = (pixelcnn.classes(x, levels).flatten(1) for x in (train, test))
    counts = torch.stack([(k == level).sum(dim=0) for level in range(levels)]).double()  # (L, D)
    together, apart = (counts.sum(dim=1, keepdim=True) + 0.5).expand_as(counts), counts + 0.5
    bits = [-(n / n.sum(dim=0)).log2().gather(0, new).mean().item() for n in (together, apart)]
    return dict(zip(ANCHORS, (math.log2(levels), *bits), strict=True))


def fit(
    chapter: pixelcnn.Config,
    data: utils.ImageData,
    build: Callable | None = None,
    look: Callable | None = None,
) -> tuple[nn.Module, pixelcnn.Likelihood, utils.Run, pixelcnn.Metrics]:
    """Train by the chapter's functions, without its pictures; the averaged model, and its nats.

    Args:
        build: Takes (C, H, W) and returns a network; the chapter's if not given.
        look: Takes the averaged model and the run now and then; returns pictures.
    """
    run = utils.start(chapter, pixelcnn.__file__)
    likelihood = {"softmax": pixelcnn.Softmax, "logistics": pixelcnn.Logistics}[chapter.output]
    likelihood, ready = likelihood(chapter.levels), lambda x: prepare(x, chapter)
    x_train, x_test = ready(data.train[:1000]), ready(data.test)
    if build:
        model = build(x_test.shape[1:])
    else:
        model = pixelcnn.build(chapter, x_test.shape[1:], likelihood.outputs, 0)
        if chapter.output == "softmax":
            pixelcnn.start_at_histogram(model, x_train, chapter.levels)
    model = model.to(run.device, memory_format=torch.channels_last)
    see = (lambda model: look(model, run)) if look else None
    pairs = data.train, data.train_labels
    model = pixelcnn.train(model, likelihood, pairs, ready, see, run)
    some = ready(data.train[: len(x_test)])
    labels = data.test_labels, data.train_labels
    nats = pixelcnn.likelihoods(model, likelihood, x_test, labels[0], some, labels[1])
    return model, likelihood, run, nats


def measure(config: Config, data: utils.ImageData, output: str, levels: int) -> dict:
    """Train with an output at a number of levels, or take the finished run; its metrics."""
    folder = runs_folder(config) / f"autoregressive-levels-{output}-{levels}-{config.dataset}"
    if not (config.reuse and is_finished(folder, quick=config.quick)):
        how = {"levels": levels, "output": output, "binarize": "threshold", "out": folder}
        *_, run, nats = fit(pixelcnn.Config(**flags(config), **how), data)
        run.finish(**nats)
    return json.loads((folder / "metrics.json").read_text())


def main(config: Config) -> None:
    """Train all, print the table and draw the curves."""
    for levels in config.levels:
        utils.check_number("levels", levels, at_least=2, below=257)
    data = utils.load_images(config.dataset, config.data_root, quick=config.quick)
    few = {"test": data.test[: config.count], "test_labels": data.test_labels[: config.count]}
    data, rows = replace(data, **few), []
    for levels in sorted(config.levels):
        x = [pixelcnn.quantize(x, levels) for x in (data.train, data.test)]
        row = {"levels": levels} | baselines(*x, levels)
        for output in OUTPUTS:
            m = measure(config, data, output, levels)
            row |= {output: m["test_bits_per_dim"], f"{output}: training": m["train_bits_per_dim"]}
            row[f"{output}: passes"] = m["epochs"]
        rows.append(row)
    print(f"\nbits per dimension of {len(data.test):,} test pictures, {data.name}")
    print(f"| {' | '.join(COLUMNS)} |")
    for row in rows:
        print(f"| {' | '.join(f'{row[name]:.4g}' for name in COLUMNS)} |")
    x = [math.log2(levels) for levels in sorted(config.levels)]
    series = {name: (x, [row[name] for row in rows]) for name in ANCHORS + OUTPUTS}
    top = max(row[name] for row in rows for name in series if name != "uniform")
    uniform = series.pop("uniform")
    path = utils.curves(
        series | {f"uniform, up to {uniform[1][-1]:g}": uniform},
        config.figures / "autoregressive_levels.png",
        xlabel="log2 of the number of grey levels",
        ylabel="bits per dimension, test",
        title="The same pictures in more levels",
        ylim=(0, 1.1 * top),
        markers=True,
    )
    print(path)


if __name__ == "__main__":
    utils.cli(main, Config)
