"""Which direction is fast: seconds for densities and for drawing, of MAF, IAF and couplings.

Run:     python -m notes.figures.flow_speed
Writes:  flow_speed.png

The weights are random, since the time does not depend on them. All flows have as many layers, and
networks of as many hidden units. A slow direction takes D passes: for large D it is timed once, on
`slow_rows` rows, and multiplied up to 1,000, which says a little too much, since networks are at
their best with many rows at a time. Other times are medians.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from code_examples import flows, utils

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Config(utils.Config):
    """Time both directions of untrained flows on rows of random numbers."""

    dims: tuple[int, ...] = (2, 16, 64, 196, 784)
    """Numbers in a row, D."""
    layers: int = 5
    """Layers of each flow."""
    width: int = 512
    """Hidden units of each network."""
    rows: int = 1000
    """Rows of a measurement, in parts of 500 as in the chapter."""
    slow_rows: int = 250
    """Rows where it takes a pass for each of more than 64 dimensions."""
    repeats: int = 5
    """Measurements of a fast direction."""
    figures: Path = HERE
    """Where the picture goes."""


def build(kind: str, dims: int, config: Config) -> flows.Flow:
    """An untrained flow of rows (N, D), its ActNorm already initialised."""
    if kind == "coupling":
        chapter = flows.Config(dataset="moons", layers=config.layers, width=config.width)
        flow = flows.plane_flow(chapter, dims)
    else:
        layers = flows.autoregressive(config.layers, dims, config.width, inverse=kind == "IAF")
        flow = flows.Flow(*layers)
    for layer in flow.layers:
        if isinstance(layer, flows.ActNorm):
            layer.initialize(torch.randn(100, dims))
    return flow.eval()


def seconds(flow: flows.Flow, way: Callable, x: Tensor, repeats: int) -> float:
    """Median seconds for 1,000 rows, measured on x (N, ...)."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        utils.in_parts(flow, way, x)
        times.append(time.perf_counter() - start)
    return 1000 / len(x) * sorted(times)[len(times) // 2]


def both(flow: flows.Flow, shape: tuple[int, ...], slow: str, config: Config) -> dict[str, float]:
    """Seconds for 1,000: densities and drawing."""
    ways = {"density": lambda x: flows.log_prob(flow, x), "drawing": lambda z: flow.inverse(z)[0]}
    result = {}
    for name, way in ways.items():
        large = name == slow and math.prod(shape) > 64
        rows = config.slow_rows if large else config.rows
        repeats = 1 if name == slow else config.repeats
        utils.in_parts(flow, way, torch.rand(2, *shape))  # a first call warms up
        result[name] = seconds(flow, way, torch.rand(rows, *shape), repeats)
    return result


def main(config: Config) -> None:
    """Print the table and draw it over D."""
    torch.manual_seed(config.seed)
    slow = {"MAF": "drawing", "IAF": "density", "coupling": ""}
    panels = {
        f"seconds, {way} of 1,000": {kind: ([], []) for kind in slow}
        for way in ("density", "drawing")
    }
    print(
        f"threads: {torch.get_num_threads()}\n| flow | D | density of 1,000, s | drawing 1,000, s |"
    )
    for dims in config.dims:
        for kind, slow_way in slow.items():
            took = both(build(kind, dims, config), (dims,), slow_way, config)
            print(
                f"| {kind} | {dims} | {took['density']:.3g} | {took['drawing']:.3g} |", flush=True
            )
            for panel, value in zip(panels.values(), took.values(), strict=True):
                panel[kind][0].append(dims)
                panel[kind][1].append(value)
    chapter = flows.Config()
    took = both(flows.picture_flow(chapter, (1, 28, 28)), (1, 28, 28), "", config)
    print(f"| {chapter.model} | 784 | {took['density']:.3g} | {took['drawing']:.3g} |")
    path = utils.curve_panels(
        panels,
        config.figures / "flow_speed.png",
        xlabel="D, numbers in a row",
        title=f"{config.layers} layers of {config.width} hidden units, "
        f"threads: {torch.get_num_threads()}",
        logy=tuple(panels),
    )
    print(path)


if __name__ == "__main__":
    utils.cli(main, Config)
