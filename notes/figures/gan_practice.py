"""What each choice of the default run is worth: one changed at a time.

Run:     python -m notes.figures.gan_practice
Writes:  gan_practice.png
"""

import json
from dataclasses import dataclass
from pathlib import Path

from code_examples import gans, utils

HERE = Path(__file__).parent
RUNS = {
    "default": {},
    "no average of weights": {"ema": 0.0},
    "equal learning rates": {"two_time_scales": 1.0},
    "momentum 0.9": {"beta1": 0.9},
    "label smoothing 0.1": {"smoothing": 0.1},
    "spectral norm for batch norm": {"spectral_norm": True},
    "R1, no batch norm in D": {"r1": 0.1},
    "minibatch std": {"minibatch_std": True},
    "packing 2": {"packing": 2},
    "saturating loss": {"model": "minimax"},
    "least squares": {"model": "lsgan"},
}


@dataclass(frozen=True)
class Config(gans.Config):
    """Train the default and its variations for the same time."""

    minutes: float | None = 0.5
    """Training time of each run; --epochs counts passes instead, if --minutes is None."""
    rows: int = len(RUNS)
    """How many of the runs, for a shorter look."""
    figures: Path = HERE
    """Where the picture goes."""


def main(config: Config) -> None:
    """Run everything and draw the Frechet distances."""
    folder, table = config.out or utils.ROOT / "outputs" / "figures", {}
    minutes = None if config.quick else config.minutes
    for name, flags in list(RUNS.items())[: config.rows]:
        out = folder / f"gan-practice-{name.replace(' ', '-').replace(',', '')}"
        same = {"minutes": minutes, "quick": config.quick, "dataset": config.dataset}
        same |= {"epochs": config.epochs} if config.quick else {}
        gans.main(gans.Config(out=out, seed=config.seed, **same, **flags))
        m = json.loads((out / "metrics.json").read_text())
        table[name] = m["frechet_distance"]
        print(
            f"TABLE | {name} | {m['frechet_distance']:.1f} | {m['precision']:.2f} | "
            f"{m['recall']:.2f} | {m['epochs']:.0f}"
        )
    print(
        utils.bars(
            table,
            config.figures / "gan_practice.png",
            ylabel="Frechet distance, 2,000 samples",
            title="One choice of the default run changed at a time, equal training time",
            fmt="{:.1f}",
        )
    )


if __name__ == "__main__":
    utils.cli(main, Config)
