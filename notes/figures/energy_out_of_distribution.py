"""Whom an energy finds strange: generated, spoilt and foreign pictures, noise, and a black page.

Run:     python -m notes.figures.energy_out_of_distribution
         python -m notes.figures.energy_out_of_distribution --seed 1
Writes:  energy_out_of_distribution.png, energy_out_of_distribution_auroc.png

The deep energy, and the free energy of the RBM with its labels summed out, both at default
settings, trained first if energy_gallery has not done so. The RBM sees pictures drawn black and
white. Fashion-MNIST is among the strangers if it lies in --data-root. Less than a minute on two
CPU cores, if both models are there; else 6.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from code_examples import energy, utils

from .energy_gallery import load
from .seeds import runs_folder

HERE = Path(__file__).parent
MODELS = {"rbm": "free energy of the RBM", "conv": "deep energy"}
NEAR = ("generated", "a bit of noise", "halves of two", "upside down")
FAR = ("shapes", "blurred", "black", "pixels mixed", "noise")
REACH = -6.0, 12.0  # standard deviations of test digits; what lies beyond is drawn at the edge


@dataclass(frozen=True)
class Config(energy.Config):
    """Compare energies of pictures of several kinds by two trained models."""

    count: int = 1000
    """Pictures of each kind."""
    figures: Path = HERE
    """Where the pictures go."""


def kinds(data: utils.ImageData, config: Config) -> dict[str, Tensor]:
    """Pictures that are not of the data: spoilt test pictures, shapes, others, noise, nothing."""
    x = data.test[: config.count]
    width = x.shape[3]
    mixed = x.flatten(1)[:, torch.randperm(x[0].numel())].view_as(x)
    found = {
        "a bit of noise": (x + 0.1 * torch.randn_like(x)).clamp(0, 1),
        "upside down": x.flip(2),
        "halves of two": torch.cat([x[..., : width // 2], x.roll(1, 0)[..., width // 2 :]], dim=3),
        "blurred": F.avg_pool2d(x, 3, stride=1, padding=1),
        "inverted": 1 - x,
        "pixels mixed": mixed,
        "black": torch.zeros_like(x),
        "noise": torch.rand_like(x),
    }
    others = {"shapes": "shapes"}
    if (config.data_root / "FashionMNIST").exists():
        others["fashion"] = "fashion-mnist"
    for name, source in others.items():
        foreign = utils.load_images(source, config.data_root, quick=config.quick)
        if foreign.image_shape == data.image_shape:
            found[name] = foreign.test[: config.count]
    return found


def energies(model: nn.Module, x: Tensor) -> Tensor:
    """E(x), or an RBM's -log sum_y exp(-F(v, y)) for v drawn by the grey of x, (N,) nats."""
    if not isinstance(model, energy.RBM):
        return utils.in_parts(model, model, x)[0]
    free = utils.in_parts(
        model, lambda v: energy.free_energies(model, v), energy.flip(x).flatten(1)
    )
    return -torch.logsumexp(-free[0], dim=1)


def measure(config: Config, name: str) -> dict[str, Tensor]:
    """The energies of test digits and of all other kinds by one of the models, (N,) each."""
    model, data, _ = load(config, name, seed=config.seed)
    torch.manual_seed(config.seed)
    samples = np.load(runs_folder(config) / f"energy-{name}-{config.seed}" / "samples.npy")
    x = {"test": data.test[: config.count], "train": data.train[: config.count]}
    x |= {"generated": torch.from_numpy(samples)[: config.count]} | kinds(data, config)
    return {kind: energies(model, pictures) for kind, pictures in x.items()}


def histograms(values: dict[str, Tensor], names: tuple[str, ...]) -> dict[str, tuple]:
    """How often which energy occurs, highest 1; 0 is the mean of test digits, 1 their deviation."""
    edges, series = torch.linspace(*REACH, 37), {}
    for kind in ("test", *names):
        z = ((values[kind] - values["test"].mean()) / values["test"].std()).clamp(*REACH)
        counts = torch.histogram(z.float(), edges).hist
        there = counts.nonzero()
        bins = slice(max(0, there.min() - 1), there.max() + 2)
        series[kind] = ((edges[1:] + edges[:-1]) / 2)[bins], (counts / counts.max())[bins]
    return series


def main(config: Config) -> None:
    """Print the tables; draw the distributions, and how well each energy tells."""
    panels, aurocs = {}, {}
    for name, title in MODELS.items():
        values = measure(config, name)
        test = values["test"]
        print(f"\n{title}, seed {config.seed}: test digits {test.mean():.3f}, std {test.std():.3f}")
        print("| pictures | mean energy minus that of test digits | std | AUROC |")
        for kind, e in values.items():
            told = utils.auroc(test, e)
            print(f"| {kind} | {e.mean() - test.mean():+.3f} | {e.std():.3f} | {told:.3f} |")
            if kind not in ("test", "train", "noise"):  # noise is found by both
                aurocs.setdefault(kind, {})[title] = told
        for names in (NEAR, FAR):
            how = "near" if names is NEAR else "far"
            panels[f"{'RBM' if name == 'rbm' else 'deep'}, {how}"] = histograms(values, names)
    path = utils.curve_panels(
        panels,
        config.figures / "energy_out_of_distribution.png",
        xlabel="energy above the mean of test digits, in their standard deviations",
        title="Who has low energy? Distributions, the highest point of each at 1",
    )
    print(path)
    path = utils.bars(
        aurocs,
        config.figures / "energy_out_of_distribution_auroc.png",
        ylabel="AUROC against test digits",
        title="How well two energies tell them from test digits",
        baseline={"chance": 0.5},
    )
    print(path)


if __name__ == "__main__":
    utils.cli(main, Config)
