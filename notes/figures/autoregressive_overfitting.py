"""Where test pictures turn: bits of training and test digits over the passes, on few digits.

Run:     python -m notes.figures.autoregressive_overfitting
         python -m notes.figures.autoregressive_overfitting --weight-decays 0 0.1 --minutes 10
         python -m notes.figures.autoregressive_overfitting --reuse    # runs that are there stay
Writes:  autoregressive_overfitting.png

The chapter's default network on mnist5k, trained longer than by default. Now and then the averaged
weights are measured on the same training and test digits; meanwhile the clock stands still. The
rate is the chapter's: flat, and down to 0 over the last 30% of the time, which helps both curves.
With more than one weight decay each has a run of its own.
"""

import math
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from code_examples import pixelcnn, utils

from .autoregressive_levels import fit, flags, prepare
from .seeds import history, is_finished, runs_folder

HERE = Path(__file__).parent
LOOKS = "train_bits", "test_bits"


@dataclass(frozen=True)
class Config(utils.Config):
    """Train the default network for long, and look at training and test digits meanwhile."""

    minutes: float | None = 6.0
    """Training time of each run; --quick counts epochs instead."""
    weight_decays: tuple[float, ...] = (0.0,)
    """Pull of the weights towards 0, one run for each."""
    count: int = 500
    """Digits of either kind that are measured at a look."""
    reuse: bool = False
    """Take finished runs that are there already."""
    figures: Path = HERE
    """Where the picture goes."""


def train(config: Config, data: utils.ImageData, weight_decay: float) -> Path:
    """Train with a weight decay, and log bits at each look; the run's folder."""
    folder = runs_folder(config) / f"autoregressive-overfitting-{weight_decay:g}-{config.dataset}"
    if config.reuse and is_finished(folder, quick=config.quick):
        return folder
    chapter = pixelcnn.Config(**flags(config), weight_decay=weight_decay, out=folder)
    softmax, count = pixelcnn.Softmax(chapter.levels), config.count
    seen = dict(zip(LOOKS, (data.train[:count], data.test[:count]), strict=True))
    seen = {name: prepare(x, chapter) for name, x in seen.items()}

    def look(model: nn.Module, run: utils.Run) -> Tensor:
        def bits(x: Tensor) -> Tensor:
            return -softmax.log_prob(model(x), x) / math.log(2)

        for name, x in seen.items():
            surprise = utils.in_parts(model, bits, x, rows=100)[0]
            run.log(**{name: surprise.mean()})
        return surprise[:16] / math.log2(chapter.levels)  # the film: where the bits of test are

    *_, run, nats = fit(chapter, data, look=look)
    run.finish(**nats)
    return folder


def main(config: Config) -> None:
    """Train all, print where test turns, and draw the curves."""
    data = utils.load_images(config.dataset, config.data_root, quick=config.quick)
    shown = {}
    for weight_decay in config.weight_decays:
        folder = train(config, data, weight_decay)
        found = {name: history(folder, name) for name in LOOKS}
        passes, test = found["test_bits"]
        best = min(range(len(test)), key=test.__getitem__)
        print(f"\nweight decay {weight_decay:g}\n| passes | training | test | test - training |")
        for epoch, a, b in zip(passes, found["train_bits"][1], test, strict=True):
            print(f"| {epoch:.2f} | {a:.4f} | {b:.4f} | {b - a:.4f} |")
        print(f"lowest test {test[best]:.4f} after {passes[best]:.2f} passes of {passes[-1]:.2f}")
        named = f", decay {weight_decay:g}" if len(config.weight_decays) > 1 else ""
        shown |= {f"training{named}": found["train_bits"], f"test{named}": found["test_bits"]}
    after = [b for _, bits in shown.values() for b in bits[2:]] or [2.0]
    path = utils.curves(
        shown,
        config.figures / "autoregressive_overfitting.png",
        xlabel=f"passes over {len(data.train):,} training digits",
        ylabel="bits per dimension",
        title=f"Training and test digits part: {config.count} of either, averaged weights",
        ylim=(0.97 * min(after), min(1.05 * max(after), 1.5 * min(after))),
        markers=True,
    )
    print(path)


if __name__ == "__main__":
    utils.cli(main, Config)
