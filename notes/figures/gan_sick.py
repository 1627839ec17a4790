"""What the curves of a healthy run look like, and of five sick ones.

Run:     python -m notes.figures.gan_sick
Writes:  gan_sick.png
"""

from dataclasses import dataclass
from pathlib import Path

from code_examples import gans, utils

from . import seeds

HERE = Path(__file__).parent
RUNS = {
    "healthy": {},
    "D far too fast": {"two_time_scales": 10.0},
    "D far too slow": {"two_time_scales": 0.002},
    "saturating loss": {"model": "minimax", "two_time_scales": 2.0},
    "momentum 0.99": {"beta1": 0.99},
    "learning rate x 20": {"lr": 8e-2},
}


@dataclass(frozen=True)
class Config(gans.Config):
    """Train a healthy run and five sick ones, shortly."""

    epochs: int | None = 20
    """Passes over the training set, for each run."""
    rows: int = len(RUNS)
    """How many of the runs, for a shorter look."""
    figures: Path = HERE
    """Where the picture goes."""


def main(config: Config) -> None:
    """Run everything, and draw D(real) and D(fake) of each."""
    folder = config.out or utils.ROOT / "outputs" / "figures"
    panels = {}
    for name, flags in list(RUNS.items())[: config.rows]:
        out = folder / f"gan-sick-{name.replace(' ', '-')}"
        print(f"\nRUN {name}")
        same = {"epochs": config.epochs, "quick": config.quick, "dataset": config.dataset}
        gans.main(gans.Config(out=out, seed=config.seed, **same, **flags))
        panels[name] = {
            label: seeds.history(out, column)
            for column, label in {"d_real": "D(real)", "d_fake": "D(fake)"}.items()
        }
    print(
        utils.curve_panels(
            panels,
            config.figures / "gan_sick.png",
            xlabel="epoch",
            title="Mean D(x) of real and of fake digits: a healthy run and five sick ones",
            columns=3,
        )
    )


if __name__ == "__main__":
    utils.cli(main, Config)
