"""Energies in the plane, where Z is a sum over a grid: four ways to train them, exactly compared.

Run:     python -m notes.figures.energy_plane
         python -m notes.figures.energy_plane --parts sigma --reuse      # or methods, blind
Writes:  methods: energy_plane_moons.png, energy_plane_ring.png, energy_plane_checkerboard.png;
         sigma: energy_sigma.png;
         blind: energy_blind.png

Every run of the first two parts trains for the same time, --seconds: 16 runs of 40 seconds, and
some more to measure each. The third part is a loop of its own, minutes in all.
"""

import json
import math
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from code_examples import energy, utils
from code_examples.utils.densities import Dots

from .seeds import is_finished, runs_folder

HERE = Path(__file__).parent
PARTS = ("methods", "sigma", "blind")
WEIGHT = 0.8  # of the left one of two groups


@dataclass(frozen=True)
class Config(energy.Config):
    """Train energies of points by several methods for the same time; measure the exact KL."""

    model: Literal["score"] = "score"
    """In the plane only."""
    parts: tuple[str, ...] = PARTS
    """Which: the methods side by side, the noise of dsm, the weights of separated groups."""
    seconds: float = 40.0
    """Training time of each run of the first two parts; --quick counts epochs instead."""
    densities: tuple[str, ...] = ("moons", "ring", "checkerboard")
    """methods: the data."""
    methods: tuple[str, ...] = ("dsm", "ssm", "nce", "pcd")
    """methods: the values of --training."""
    sigmas: tuple[float, ...] = (0.02, 0.05, 0.1, 0.2, 0.4)
    """sigma: noise on the data, moons."""
    distances: tuple[float, ...] = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0)
    """blind: from the centre of each of two groups of width 1 to the middle between them."""
    blind_sigma: float = 0.2
    """blind: noise on the data for dsm."""
    blind_steps: int = 2000
    """blind: optimiser steps of each fit."""
    seeds: int = 3
    """blind: fits for each method and distance."""
    reuse: bool = False
    """Take finished runs that are there already."""
    figures: Path = HERE
    """Where the pictures go."""


def chapter(config: Config, **flags: str | float) -> energy.Config:
    """The chapter's flags out of this script's, with these in the place of some."""
    names = {field.name for field in fields(energy.Config)} - {"resume"}
    return energy.Config(**({name: getattr(config, name) for name in names} | flags))


# --- The same time for each method


class Fitted:
    """A finished run in the plane: its density, and its metrics.

    Args:
        flags: dataset, training, and what else is not as the chapter has it.
    """

    def __init__(self, config: Config, name: str, **flags: str | float) -> None:
        folder = runs_folder(config) / f"energy-plane-{name}"
        minutes = None if config.quick else config.seconds / 60
        own = chapter(config, out=folder, minutes=minutes, **flags)
        if not (config.reuse and is_finished(folder, quick=config.quick)):
            energy.main(own)
        self.metrics = json.loads((folder / "metrics.json").read_text())
        state = torch.load(folder / "checkpoint.pt", map_location="cpu", weights_only=True)
        self.truth = utils.density(own.dataset)
        x_low, x_high, y_low, y_high = self.truth.bounds
        reach = max(x_high - x_low, y_high - y_low) / 2  # as in the chapter
        self.window = x_low - reach, x_high + reach, y_low - reach, y_high + reach
        self.model = energy.PlaneEnergy(own.width, radius=reach)
        weights = state["objects"].get("ema", state["objects"]["model"])  # pcd measures its average
        self.model.load_state_dict(weights, strict=False)  # nce: with its log Z
        self.model.requires_grad_(False)

    @property
    def kl(self) -> float:
        """KL(truth || model), nats."""
        kl = self.metrics["kl_from_data_nats"]
        return math.inf if kl is None else kl

    def log_prob(self, x: Tensor) -> Tensor:
        """Normalised by the sum over the grid, (B,) nats."""
        log_z = self.metrics["log_partition_nats"]
        return -utils.in_parts(self.model, self.model, x, rows=10_000)[0] - log_z


def compare_methods(config: Config) -> None:
    """Every method on every density: the table, and a picture of each density."""
    rows = []
    for dataset in config.densities:
        panels = {"truth": utils.density(dataset).log_prob}
        for method in config.methods:
            fitted = Fitted(config, f"{dataset}-{method}", dataset=dataset, training=method)
            panels[f"{method}: KL {fitted.kl:.3f}"] = fitted.log_prob
            m = fitted.metrics
            learned = m.get("log_partition_learned_nats", math.nan)
            rows.append(
                f"| {dataset} | {method} | {m['images_seen'] / 1000:,.0f} | {fitted.kl:.4f} | "
                f"{m['test_nll_nats']:.4f} | {m['entropy_nats']:.4f} | "
                f"{m['log_partition_nats']:.3f} | {learned:.3f} |"
            )
        path = config.figures / f"energy_plane_{dataset}.png"
        bounds = utils.density(dataset).bounds
        title = f"Energies of {dataset}, all trained for the same time"
        print(utils.density_2d(panels, path, bounds=bounds, columns=3, title=title))
    print(
        "\n| data | training | points, thousands | KL | test -log p | entropy | log Z | learned |"
    )
    print("\n".join(rows))


# --- How much noise


class Blurred(nn.Module):
    """The energy -log(p * N(0, sigma^2)) of equal dots, with log Z = 0: what dsm aims at.

    notes/07 eq. (7.75).
    """

    def __init__(self, dots: Dots, sigma: float) -> None:
        super().__init__()
        std = math.hypot(dots.std, sigma)
        self.dots = Dots(dots.name, dots.centres, std=std)

    def forward(self, x: Tensor) -> Tensor:
        return -self.dots.log_prob(x)


def sweep_sigma(config: Config) -> None:
    """Distance of dsm from the data, and from its aim, over sigma."""
    smeared, missed, whole = [], [], []
    print("\n| sigma | KL(p, model) | KL(p, blurred p) | KL(blurred p, model) |")
    for sigma in config.sigmas:
        name = "moons-dsm" if sigma == config.sigma else f"moons-dsm-{sigma:g}"
        fitted = Fitted(config, name, dataset="moons", training="dsm", sigma=sigma)
        blurred = Blurred(fitted.truth, sigma)
        smeared.append(energy.compare_on_grid(blurred, fitted.truth.log_prob, fitted.window)[1])
        aim = blurred.dots.log_prob
        missed.append(energy.compare_on_grid(fitted.model, aim, fitted.window)[1])
        whole.append(fitted.kl)
        print(f"| {sigma:g} | {whole[-1]:.5f} | {smeared[-1]:.5f} | {missed[-1]:.5f} |")
    series = {"from the data": whole, "smeared: its aim": smeared, "noisy: off its aim": missed}
    path = utils.curves(
        {name: (config.sigmas, values) for name, values in series.items()},
        config.figures / "energy_sigma.png",
        xlabel="sigma, noise on the data",
        ylabel="KL, nats",
        title="Two moons by denoising: too little noise, and too much",
        logx=True,
        logy=True,
        markers=True,
    )
    print(path)


# --- Blind to weights


def two_groups(distance: float) -> MixtureSameFamily:
    """0.8 N((-distance, 0), I) + 0.2 N((distance, 0), I)."""
    centres = torch.tensor([[-distance, 0.0], [distance, 0.0]])
    weights = Categorical(torch.tensor([WEIGHT, 1 - WEIGHT]))
    return MixtureSameFamily(weights, Independent(Normal(centres, 1.0), 1))


def mass_on_the_left(energy_of: energy.Energy, distance: float) -> float:
    """Share of exp(-E) where x_1 < 0, by a sum over a grid."""
    side = 400
    window = (-distance - 6, distance + 6, -6, 6)
    mass, total = energy.grid_log_masses(lambda x: -energy_of(x), window, side)
    left = mass.view(side, side)[: side // 2].flatten()  # x_1 first
    return (torch.logsumexp(left, dim=0) - total).exp().item()


def fit(config: Config, truth: MixtureSameFamily, distance: float) -> energy.PlaneEnergy:
    """An energy trained by `config.training` on fresh points of the truth."""
    model = energy.PlaneEnergy(config.width, radius=distance + 3)
    loss_of = energy.matching_loss(model, truth.sample((10_000,)), config)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.lr, betas=(0.9, 0.99))
    for step in range(config.blind_steps):
        progress = step / config.blind_steps
        optimizer.param_groups[0]["lr"] = config.lr * min(
            1, 50 * progress + 0.01, (1 - progress) / 0.3
        )
        loss = loss_of(model, truth.sample((config.batch_size,))).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.requires_grad_(False)


def blindness(config: Config) -> None:
    """The weight of one of two groups by dsm and by nce, the farther they are apart."""
    series, band = {"truth": []}, {}
    print("\n| distance | truth | dsm: mean | lowest | highest | nce: mean | lowest | highest |")
    for distance in config.distances:
        truth, row = two_groups(distance), []
        series["truth"].append(mass_on_the_left(lambda x, p=truth: -p.log_prob(x), distance))
        for method in ("dsm", "nce"):
            flags = replace(config, training=method, sigma=config.blind_sigma)
            shares = []
            for seed in range(config.seeds):
                torch.manual_seed(config.seed + seed)
                shares.append(mass_on_the_left(fit(flags, truth, distance), distance))
            shown = sum(shares) / len(shares), min(shares), max(shares)
            series.setdefault(method, []).append(shown[0])
            for values, value in zip(band.setdefault(method, ([], [])), shown[1:], strict=True):
                values.append(value)
            row += shown
        row = (series["truth"][-1], *row)
        print(f"| {distance:g} | " + " | ".join(f"{x:.4f}" for x in row) + " |", flush=True)
    path = utils.curves(
        {name: (config.distances, values) for name, values in series.items()},
        config.figures / "energy_blind.png",
        band=band,
        xlabel="from each centre to the middle, in widths",
        ylabel="mass on the left",
        title=f"Two groups, {WEIGHT:.0%} of the data on the left: what is learned",
        ylim=(0, 1.02),
        markers=True,
    )
    print(path)


def main(config: Config) -> None:
    """Run the parts that were asked for."""
    if unknown := set(config.parts) - set(PARTS):
        raise utils.UserError(f"--parts: expected some of {', '.join(PARTS)}; got {unknown}")
    parts = {"methods": compare_methods, "sigma": sweep_sigma, "blind": blindness}
    for name in config.parts:
        parts[name](config)


if __name__ == "__main__":
    utils.cli(main, Config)
