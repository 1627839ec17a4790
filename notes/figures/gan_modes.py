"""Mode collapse on purpose, and the same run with each remedy.

Run:     python -m notes.figures.gan_modes
Writes:  gan_modes.png

The sick run's discriminator learns ten times slower than the generator, both with Adam's usual
momentum of 0.9, so that the generator runs ahead to one mode and then from mode to mode.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from code_examples import gans, utils

HERE = Path(__file__).parent
SICK = {"beta1": 0.9, "two_time_scales": 0.1}
RUNS = {
    "sick": SICK,
    "label smoothing": SICK | {"smoothing": 0.1},
    "spectral norm": SICK | {"spectral_norm": True},
    "minibatch std": SICK | {"minibatch_std": True},
    "packing 2": SICK | {"packing": 2},
    "unrolled 5": SICK | {"unrolled": 5},
    "R1": SICK | {"r1": 0.1},
    "gradient penalty": SICK | {"gradient_penalty": 0.1},
    "momentum 0.5": SICK | {"beta1": 0.5},
    "one time-scale": SICK | {"two_time_scales": 1.0},
    "both (default)": {},
}


@dataclass(frozen=True)
class Config(gans.Config):
    """Train the collapsing run and each remedy, on the ring of eight Gaussians."""

    dataset: str = "ring"
    epochs: int | None = 12
    """Passes over the 50,000 points, for each run."""
    seeds: int = 3
    """Runs of each; the table has their mean, the picture shows the middle one."""
    rows: int = len(RUNS)
    """How many of the runs, for a shorter look."""
    figures: Path = HERE
    """Where the picture goes."""


def main(config: Config) -> None:
    """Run everything, draw the samples, and print modes and share of good samples."""
    clouds = {}
    folder = config.out or utils.ROOT / "outputs" / "figures"
    same = {"dataset": config.dataset, "epochs": config.epochs, "quick": config.quick}
    for name, flags in list(RUNS.items())[: config.rows]:
        results = []
        for seed in range(config.seeds):
            out = folder / f"gan-{config.dataset}-{name.replace(' ', '-')}-{seed}"
            gans.main(gans.Config(out=out, seed=seed, **same, **flags))
            results.append(json.loads((out / "metrics.json").read_text()))
            if seed == config.seeds // 2:
                clouds[name] = torch.from_numpy(np.load(out / "samples.npy"))
        modes = [m["modes"] for m in results]
        share = [100 * m["high_quality_share"] for m in results]
        seconds = sum(m["training_seconds"] for m in results) / len(results)
        print(
            f"TABLE | {name} | {sum(modes) / len(modes):.1f} ({min(modes)} to {max(modes)}) | "
            f"{sum(share) / len(share):.0f} ({min(share):.0f} to {max(share):.0f}) | {seconds:.0f}"
        )
    print(
        utils.scatter_2d(
            clouds,
            config.figures / "gan_modes.png",
            bounds=tuple(2 * edge for edge in utils.density(config.dataset).bounds),
            columns=4,
            title="2,500 samples of a sick run, and of the same run with one change each",
        )
    )


if __name__ == "__main__":
    utils.cli(main, Config)
