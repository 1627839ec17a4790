"""Contrastive divergence and persistent chains: the likelihood of RBMs trained by CD-k and PCD.

Run:     python -m notes.figures.energy_divergence --dataset mnist
         python -m notes.figures.energy_divergence --dataset mnist --methods PCD
         python -m notes.figures.energy_divergence --dataset mnist --reuse    # goes on
Writes:  energy_divergence.png, energy_divergence_filters.png, energy_divergence_samples.png

Four RBMs of 500 hidden units without label units are trained for the same time each by the
chapter's plain descent, pictures drawn black and white afresh each time they are seen. Their log Z
is annealed 24 times during the training, for which the clock stands still, and once at length at
the end, there and back. Weights are not averaged, so that curve and table speak of the same ones.
About 45 minutes on one CPU core.
"""

import csv
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from code_examples import energy, utils

from . import energy_annealing
from .seeds import is_finished, runs_folder

HERE = Path(__file__).parent
METHODS = {  # training and steps k; Salakhutdinov and Murray (2008): log Z, test nats
    "CD-1": ("cd", 1, 350.15, -125.5),
    "CD-3": ("cd", 3, 417.91, -105.5),
    "CD-25": ("cd", 25, 451.28, -86.3),
    "PCD": ("pcd", 1, None, None),
}


@dataclass(frozen=True)
class Config(utils.Config):
    """Train RBMs by several methods for the same time, and measure their likelihood."""

    minutes: float | None = 8.0
    """Training time of each run; --quick counts epochs instead."""
    batch_size: int = 64
    """Pictures a step, and chains."""
    methods: tuple[str, ...] = tuple(METHODS)
    """Which: CD-1, CD-3, CD-25, PCD."""
    rates: tuple[float, float, float, float] = (0.05, 0.05, 0.05, 0.05)
    """Peak learning rate of each, in this order."""
    hidden: int = 500
    """Hidden units."""
    look_chains: int = 100
    """Chains of the estimates during training."""
    look_temperatures: int = 500
    """Levels of the estimates during training."""
    ais_chains: int = 100
    """Chains of the estimates at the end."""
    ais_temperatures: int = 8000
    """Levels of the estimates at the end."""
    sampling_steps: int = 1000
    """Gibbs steps from noise to samples."""
    reuse: bool = False
    """Take finished runs that are there, and go on with one that was interrupted."""
    figures: Path = HERE
    """Where the pictures go."""


def train(config: Config, name: str, data: utils.ImageData) -> Path:
    """Train by one method, measure and save; the run's folder."""
    folder = runs_folder(config) / f"energy-divergence-{name}-{config.dataset}"
    if config.reuse and is_finished(folder, quick=config.quick):
        return folder
    training, k, *_ = METHODS[name]
    same = ("dataset", "data_root", "batch_size", "hidden", "seed", "device", "precision", "quick")
    same += ("ais_chains", "ais_temperatures", "sampling_steps")
    flags = {flag: getattr(config, flag) for flag in same}
    flags |= {"epochs": config.epochs} if config.quick else {"minutes": config.minutes}
    flags |= {"training": training, "gibbs_steps": k, "labels": False, "ema": 0.0, "out": folder}
    flags["resume"] = config.reuse and (folder / "checkpoint.pt").exists()
    flags["lr"] = config.rates[list(METHODS).index(name)]
    chapter = energy.Config(model="rbm", **flags)
    run = utils.start(chapter, energy.__file__)
    v, test = (energy.flip(x).flatten(1) for x in (data.train, data.test))
    rbm = energy.build_rbm(v, chapter.hidden, 0).to(run.device)
    base, _ = energy.base_model(v, rbm)

    def nats(log_z: float) -> dict[str, float]:
        parts = {"test_nats": test, "train_nats": v[: len(test)]}
        return {key: -utils.in_parts(rbm, rbm, x)[0].mean() - log_z for key, x in parts.items()}

    def look(x_model: Tensor) -> Tensor:
        log_w = energy_annealing.forward(rbm, v, config.look_chains, config.look_temperatures)
        run.log(**nats(energy.log_mean_with_error(log_w)[0]))
        return x_model.cpu().view(-1, *data.image_shape)

    energy.train_with_samples(
        rbm,
        torch.optim.SGD(rbm.parameters(), lr=chapter.lr, momentum=0.5),
        (data.train,),
        prepare=lambda x, y: energy.flip(x).flatten(1),
        fresh=partial(energy.draw_base, base),
        walk=partial(energy.gibbs, steps=k),
        picture=look,
        run=run,
    )
    chains = energy.draw_base(base, max(config.ais_chains, 64))
    chains = energy.gibbs(rbm, chains, chapter.sampling_steps)
    measured = energy.log_partition(rbm, v, chains, chapter)
    with torch.no_grad():
        means = rbm.visible_mean(rbm.draw_hidden(chains[:64])).view(-1, *data.image_shape)
    run.save_samples(means, title=f"{name}: after {chapter.sampling_steps} Gibbs steps from noise")
    measured |= {key: x.item() for key, x in nats(measured["log_partition_nats"]).items()}
    run.finish(updates=run.step, **measured)
    return folder


def curve(folder: Path) -> tuple[list[float], list[float]]:
    """Minutes of training, and the test log-likelihood of the looks, from history.csv."""
    rows = csv.DictReader((folder / "history.csv").read_text().splitlines())
    seen = [(float(r["seconds"]) / 60, float(r["test_nats"])) for r in rows if r["test_nats"]]
    return [time for time, _ in seen], [value for _, value in seen]


def filters(folder: Path, shape: tuple[int, int, int], count: int = 12) -> Tensor:
    """The weights of some hidden units with large ones, as pictures; grey is 0."""
    state = torch.load(folder / "checkpoint.pt", map_location="cpu", weights_only=True)
    weight = state["objects"]["model"]["weight"].T
    strongest = weight.norm(dim=1).topk(min(count * 4, len(weight))).indices[::4]
    shown = weight[strongest].view(-1, *shape)
    return (shown / shown.abs().quantile(0.995) / 2 + 0.5).clamp(0, 1)


def main(config: Config) -> None:
    """Train and measure; print the table; draw curves, filters and samples."""
    if unknown := set(config.methods) - set(METHODS):
        raise utils.UserError(f"--methods: expected some of {', '.join(METHODS)}; got {unknown}")
    data = utils.load_images(config.dataset, config.data_root, quick=config.quick)
    if data.image_shape[0] > 1:
        raise utils.UserError(f"--dataset: expected grey pictures, got {config.dataset}")
    folders = {name: train(config, name, data) for name in config.methods}
    print("| method | rate | updates | log Z (95% interval) | reverse | test, nats | train, nats |")
    for name, folder in folders.items():
        m = json.loads((folder / "metrics.json").read_text())
        rate = json.loads((folder / "config.json").read_text())["lr"]
        log_z, low, high, back = (
            m[f"log_partition_nats{end}"] for end in ("", "_low", "_high", "_reverse")
        )
        print(
            f"| {name} | {rate:g} | {m['updates']:,} | {log_z:.2f} ({low:.2f} to {high:.2f}) | "
            f"{back:.2f} | {m['test_nats']:.2f} | {m['train_nats']:.2f} |"
        )
    print("published, Salakhutdinov and Murray (2008), MNIST: log Z, test nats")
    for name, (_, _, log_z, nats) in METHODS.items():
        if nats is not None:
            print(f"| {name} | {log_z:.2f} | {nats:.1f} |")
    series = {name: curve(folder) for name, folder in folders.items()}
    best = max(max(y) for _, y in series.values())
    worst = min(min(y) for _, y in series.values())
    path = utils.curves(
        series,
        config.figures / "energy_divergence.png",
        xlabel="minutes of training",
        ylabel="log-likelihood of test pictures, nats",
        title=f"RBMs with {config.hidden} hidden units on {data.name}, by annealing with "
        f"{config.look_temperatures:,} levels",
        ylim=(max(worst, best - 150) - 5, best + 5),
    )
    print(path)
    shape, title = data.image_shape, "Weights of hidden units: white turns a unit on, black off"
    rows = {name: filters(folder, shape) for name, folder in folders.items()}
    print(utils.image_rows(rows, config.figures / "energy_divergence_filters.png", title=title))
    samples = {}
    for name, folder in folders.items():
        samples[name] = torch.from_numpy(np.load(folder / "samples.npy"))[:12]
    title = f"Pixel means after {config.sampling_steps:,} Gibbs steps from noise"
    print(utils.image_rows(samples, config.figures / "energy_divergence_samples.png", title=title))


if __name__ == "__main__":
    utils.cli(main, Config)
