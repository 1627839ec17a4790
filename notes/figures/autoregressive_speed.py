"""What keeping buys: seconds for samples with a cache, and with the whole network at every step.

Run:     python -m notes.figures.autoregressive_speed
         python -m notes.figures.autoregressive_speed --models made pixelcnn    # without the sound
Writes:  autoregressive_speed.png

The weights are random, since the time does not depend on them; sizes are the chapter's defaults.
`pixelcnn.speed` times the cached way in full and the naive one by five of its passes, one of which
is needed for each number. More than `rows` samples go in parts, of which one is timed. The cheapest
naive way is run in full once, to see whether the extrapolation holds.
"""

import time
from dataclasses import dataclass
from math import log10
from pathlib import Path

import torch
from torch import Tensor, nn

from code_examples import pixelcnn, utils

HERE = Path(__file__).parent
MODELS = ("made", "pixelcnn-masked", "pixelcnn", "transformer", "wavenet")
SIDE = 28  # pixels of a digit, down and across


@dataclass(frozen=True)
class Config(utils.Config):
    """Time both ways to draw from untrained networks."""

    models: tuple[str, ...] = MODELS
    """Which networks."""
    batch_sizes: tuple[int, ...] = (1, 10, 100, 1000)
    """Samples that are asked for."""
    rows: int = 250
    """Samples drawn at once, at most: wavenet's memory needs 8 MB for each."""
    figures: Path = HERE
    """Where the picture goes."""


def build(name: str, *, quick: bool) -> tuple[nn.Module, pixelcnn.Softmax, Tensor]:
    """An untrained network of default size, its likelihood, and a blank picture or sound."""
    chapter = pixelcnn.Config(model=name, quick=quick)
    shape = (chapter.patch**2, SIDE // chapter.patch, SIDE // chapter.patch)
    if name == "wavenet":
        shape = (1, 1, int(pixelcnn.RATE * chapter.seconds))
    likelihood = pixelcnn.Softmax(chapter.levels)
    classes = pixelcnn.NOTES if name == "wavenet" else 0
    model = pixelcnn.build(chapter, shape, likelihood.outputs, classes)
    model = model.to(memory_format=torch.channels_last)  # as the chapter has it
    return model.eval(), likelihood, torch.zeros(1, *shape)


def measure(
    model: nn.Module, likelihood: pixelcnn.Softmax, blank: Tensor, batch_size: int, rows: int
) -> tuple[float, float]:
    """Seconds for so many samples: cached, naive."""
    n = min(batch_size, rows)
    x, y = blank.expand(n, -1, -1, -1), torch.zeros(n, dtype=torch.long)
    cached, naive, _ = pixelcnn.speed(model, likelihood, x, y).values()
    return cached * batch_size / n, naive * batch_size / n


def in_full(name: str, batch_size: int, *, quick: bool) -> float:
    """Seconds for so many samples, naive, to the end."""
    model, likelihood, blank = build(name, quick=quick)
    x, y = blank.expand(batch_size, -1, -1, -1), torch.zeros(batch_size, dtype=torch.long)
    begin = time.perf_counter()
    pixelcnn.sample(model, likelihood, x, y, cached=False)
    return time.perf_counter() - begin


def main(config: Config) -> None:
    """Print the table and draw it over the number of samples."""
    if unknown := set(config.models) - set(MODELS):
        raise utils.UserError(f"--models: expected some of {', '.join(MODELS)}; got {unknown}")
    torch.manual_seed(config.seed)
    names = "seconds, cached", "seconds, naive", "naive / cached", "seconds a sample, cached"
    panels, naives = {name: {} for name in names}, {}
    print(f"threads: {torch.get_num_threads()}")
    print("| model | numbers | samples | cached, s | naive, s, extrapolated | factor |")
    for name in config.models:
        model, likelihood, blank = build(name, quick=config.quick)
        measure(model, likelihood, blank, 1, config.rows)  # a first call warms up
        for batch_size in config.batch_sizes:
            cached, naive = measure(model, likelihood, blank, batch_size, config.rows)
            naives[naive] = name, batch_size
            print(
                f"| {name} | {blank.numel()} | {batch_size} | {cached:.3g} | {naive:.3g} | "
                f"{naive / cached:.3g} |",
                flush=True,
            )
            values = cached, naive, naive / cached, cached / batch_size
            for panel, value in zip(panels.values(), values, strict=True):
                places, heights = panel.setdefault(name, ([], []))
                places.append(log10(batch_size))
                heights.append(value)
    least = min(naives)
    name, batch_size = naives[least]
    took = in_full(name, batch_size, quick=config.quick)
    print(f"naive in full, {name}, {batch_size} samples: {took:.3g} s, expected {least:.3g} s")
    path = utils.curve_panels(
        panels,
        config.figures / "autoregressive_speed.png",
        xlabel="log10 of the number of samples",
        title=f"Drawing with and without a cache, threads: {torch.get_num_threads()}",
        logy=names,
    )
    print(path)


if __name__ == "__main__":
    utils.cli(main, Config)
