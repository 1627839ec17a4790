"""The chapter's RBM beside scikit-learn's BernoulliRBM, trained for as many seconds.

Run:     python -m notes.figures.energy_sklearn
         python -m notes.figures.energy_sklearn --dataset mnist
         python -m notes.figures.energy_sklearn --reuse    # runs that are there are not repeated
Writes:  energy_sklearn.png

Both have 500 hidden units, see pixels only, and follow persistent chains. scikit-learn's is
trained by one call of its `fit`, which takes grey pixels as probabilities: with its defaults
(batches of 10, a constant rate of 0.1), and with another rate. Its passes are counted so that they
fill the time. Its weights then become those of an `energy.RBM`, so that log Z, likelihood and
samples come from the same code for all. About 12 minutes on two CPU cores.
"""

import json
import math
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from code_examples import energy, utils

from .seeds import is_finished, runs_folder

HERE = Path(__file__).parent
TABLE = ("training_seconds", "images_seen", "log_partition_nats", "log_partition_nats_low")
TABLE += ("log_partition_nats_high", "log_partition_nats_reverse", "test_nll_nats")
TABLE += ("train_nll_nats", "frechet_distance")


@dataclass(frozen=True)
class Config(energy.Config):
    """Train our RBM and scikit-learn's for the same time, and measure both alike."""

    labels: bool = field(default=False, init=False)
    seconds: float = 120.0
    """Training time of each, about that of the chapter's default run; with --quick one pass."""
    rates: tuple[float, ...] = (0.1, 0.01)
    """Learning rates of BernoulliRBM; the first is its default."""
    reuse: bool = False
    """Take finished runs that are there already."""
    figures: Path = HERE
    """Where the picture goes."""


def chapter(config: Config, **flags) -> energy.Config:
    """The chapter's flags, for our run and for measuring."""
    same = ("dataset", "data_root", "hidden", "seed", "device", "precision", "quick")
    same += ("num_samples", "sampling_steps", "ais_chains", "ais_temperatures", "epochs")
    return energy.Config(labels=False, **{n: getattr(config, n) for n in same}, **flags)


def fit(x: np.ndarray, rate: float, config: Config) -> tuple[energy.RBM, dict[str, float]]:
    """A BernoulliRBM of pixels (N, D) in [0, 1], as ours; its seconds and pictures seen."""
    from sklearn.neural_network import BernoulliRBM

    how = {"n_components": config.hidden, "learning_rate": rate, "random_state": config.seed}
    begin = time.perf_counter()
    BernoulliRBM(n_iter=1, **how).fit(x)
    one = time.perf_counter() - begin
    passes = 1 if config.quick else max(1, round(config.seconds / one))
    begin = time.perf_counter()
    theirs = BernoulliRBM(n_iter=passes, **how).fit(x)
    took = {"training_seconds": time.perf_counter() - begin, "images_seen": passes * len(x)}
    weights = theirs.components_.T, theirs.intercept_visible_, theirs.intercept_hidden_
    return energy.RBM(*(torch.tensor(w, dtype=torch.float32) for w in weights)), took


def scikit(config: Config, rate: float, data: utils.ImageData) -> Path:
    """Train, measure and save a BernoulliRBM; the run's folder."""
    folder = runs_folder(config) / f"energy-sklearn-{rate:g}-{config.dataset}"
    if config.reuse and is_finished(folder, quick=config.quick):
        return folder
    run = utils.start(chapter(config, out=folder), __file__)
    rbm, took = fit(data.train.flatten(1).numpy(), rate, config)
    run.keep(model=rbm, ema=rbm)
    base, _ = energy.base_model(data.train.flatten(1), rbm)
    steps = run.config.sampling_steps
    start = energy.draw_base(base, run.config.num_samples)

    def draw(v: Tensor) -> tuple[Tensor, Tensor]:
        v = energy.gibbs(rbm, v, steps)
        return v, rbm.visible_mean(rbm.draw_hidden(v))

    ended, means = utils.in_parts(rbm, draw, start)
    means = means.view(-1, *data.image_shape)
    run.save_samples(means, title=f"BernoulliRBM: after {steps} Gibbs steps from noise")
    test, train = (energy.flip(x).flatten(1) for x in (data.test, data.train[: len(data.test)]))
    log_z = energy.log_partition(rbm, energy.flip(data.train).flatten(1), ended, run.config)
    measured = energy.likelihood(rbm, test, train, data.test_labels, log_z)
    run.finish(**(measured | utils.sample_quality(means, data) | took))
    return folder


def main(config: Config) -> None:
    """Train and measure all; print the table, and draw rows of samples."""
    data = utils.load_images(config.dataset, config.data_root, quick=config.quick)
    ours = runs_folder(config) / f"energy-sklearn-ours-{config.dataset}"
    if not (config.reuse and is_finished(ours, quick=config.quick)):
        minutes = None if config.quick else config.seconds / 60
        energy.main(chapter(config, minutes=minutes, out=ours))
    folders = {"chapter 6": ours}
    for rate in config.rates:
        folders[f"scikit-learn, {rate:g}"] = scikit(config, rate, data)
    rows, notes = {"test": data.test[:12]}, {}
    print(f"\n{data.name}\n| {' | '.join(('model', *TABLE))} |")
    for name, folder in folders.items():
        m = json.loads((folder / "metrics.json").read_text())
        print(f"| {name} | {' | '.join(f'{m.get(key) or math.nan:.7g}' for key in TABLE)} |")
        rows[name] = torch.from_numpy(np.load(folder / "samples.npy"))[:12]
        notes[name] = f"{-m['test_nll_nats']:.1f} nats"
    path = utils.image_rows(
        rows,
        config.figures / "energy_sklearn.png",
        title=f"{config.seconds:g} seconds of training each on {data.name}: pixel means after "
        f"{config.sampling_steps} Gibbs steps from noise; log-likelihood of test pictures",
        notes=notes,
    )
    print(path)


if __name__ == "__main__":
    utils.cli(main, Config)
