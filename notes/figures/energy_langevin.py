"""Chains that are not what they should be: too long a step, too few steps, or too many.

Run:     python -m notes.figures.energy_langevin
         python -m notes.figures.energy_langevin --parts variance bias    # seconds, no training
         python -m notes.figures.energy_langevin --parts chains --reuse   # energy_gallery's runs
Writes:  variance: energy_langevin_variance.png;
         bias: energy_cd_bias.png;
         chains: energy_chain_length.png

The last part trains the chapter's deep energy twice if that has not been done, and then follows
its chains for ten times as long as they are run for samples, which takes minutes, too.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from code_examples import energy, utils

from .energy_gallery import load, run

HERE = Path(__file__).parent
PARTS = ("variance", "bias", "chains")
RUNS = {"pcd": "conv", "short-run": "short-run"}  # training to the run's name in the gallery


@dataclass(frozen=True)
class Config(energy.Config):
    """Measure what a step size, short chains and long chains do."""

    parts: tuple[str, ...] = PARTS
    """Which: Langevin's step size, CD's bias, lengths of chains."""
    particles: int = 20_000
    """variance: chains of each step size."""
    machines: int = 50
    """bias: random RBMs of each size of the weights."""
    scales: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)
    """bias: standard deviations of the weights."""
    trainings: tuple[str, ...] = tuple(RUNS)
    """chains: pcd, short-run."""
    lengths: tuple[float, ...] = (0.05, 0.1, 0.3, 0.5, 1, 2, 3, 5, 10)
    """chains: in units of the steps for samples."""
    count: int = 1000
    """chains: how many."""
    reuse: bool = False
    """Take energy_gallery's finished runs."""
    figures: Path = HERE
    """Where the pictures go."""


# --- The step size of Langevin dynamics


def simulated_variance(step_size: float, particles: int) -> float:
    """Variance of chains on N(0, 1), from which they start, when it no longer changes."""
    memory = (1 - step_size / 2) ** 2  # of the variance, for one step
    steps = math.ceil(math.log(1e-4) / math.log(max(memory, 1e-4)))
    x = torch.randn(particles, 1)
    x = energy.langevin(lambda x: x.square().sum(dim=1) / 2, x, steps, step_size)
    return x.square().mean().item()


def step_sizes(config: Config) -> None:
    """Simulated stationary variance beside notes/07 eq. (7.64)."""
    torch.manual_seed(config.seed)
    dots = torch.cat([torch.linspace(0.1, 3.7, 19), torch.tensor([3.8, 3.85, 3.9, 3.95])]).tolist()
    simulated = [simulated_variance(a, config.particles) for a in dots]
    print("| step size | simulated | exact |")
    for a, variance in zip(dots, simulated, strict=True):
        print(f"| {a:.2f} | {variance:.4f} | {1 / (1 - a / 4):.4f} |")
    line = 4 - torch.logspace(math.log10(3.98), math.log10(0.05), 1000)
    path = utils.curves(
        {"exact (thick)": (line, 1 / (1 - line / 4)), "simulated": (dots, simulated)},
        config.figures / "energy_langevin_variance.png",
        xlabel="step size a, in units of the variance $s^2$; at 4 the chain explodes",
        ylabel="variance that stays / $s^2$",
        title="Langevin steps on a Gaussian end too wide",
        logy=True,
        markers=True,
    )
    print(path)


# --- The bias of contrastive divergence


def balanced_rbm(scale: float, visible: int = 6, hidden: int = 4) -> energy.RBM:
    """A random one, in which the opposite of each state is as likely, so that none is favoured."""
    weight = scale * torch.randn(visible, hidden, dtype=torch.float64)
    return energy.RBM(weight, -weight.sum(dim=1) / 2, -weight.sum(dim=0) / 2)


def bits(n: int) -> Tensor:
    """All states of n units, (2^n, n)."""
    return torch.cartesian_prod(*n * [torch.arange(2.0, dtype=torch.float64)])


def bias(scale: float, steps: tuple[int, ...]) -> list[float]:
    """|expected CD-k gradient - exact gradient| / |exact gradient| for each k, by enumeration.

    The data are 8 states at random. notes/07 eq. (7.38).
    """
    rbm = balanced_rbm(scale)
    v, h = bits(len(rbm.visible_bias)), bits(len(rbm.hidden_bias))
    up, down = rbm.hidden_logits(v).sigmoid(), rbm.visible_mean(h)  # means of h, and of v
    up = (h * up[:, None] + (1 - h) * (1 - up[:, None])).prod(dim=2)  # p(h|v), (2^V, 2^H)
    down = (v * down[:, None] + (1 - v) * (1 - down[:, None])).prod(dim=2)  # p(v|h)
    transition = (up @ down).detach()  # (2^V, 2^V); eq. (7.34)
    data = torch.zeros(len(v), dtype=torch.float64)
    data[torch.randperm(len(v))[:8]] = 1 / 8

    def gradient(model: Tensor) -> Tensor:
        """Of -log p, if the model draws v with these probabilities; eq. (7.16)."""
        loss = ((data - model) * rbm(v)).sum()
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, rbm.parameters())])

    exact = gradient(torch.softmax(-rbm(v).detach(), dim=0))
    after = [data @ torch.linalg.matrix_power(transition, k) for k in steps]
    return [((gradient(p) - exact).norm() / exact.norm()).item() for p in after]


def short_chains(config: Config) -> None:
    """CD's bias over k, for small and for large weights: median and quartiles over machines."""
    torch.manual_seed(config.seed)
    steps, series, band = (1, 2, 3, 5, 10, 20, 30, 50, 100), {}, {}
    print("\n| weights | " + " | ".join(f"CD-{k}" for k in steps) + " |")
    for scale in config.scales:
        errors = torch.tensor([bias(scale, steps) for _ in range(config.machines)])
        low, middle, high = errors.quantile(torch.tensor([0.25, 0.5, 0.75]), dim=0)
        series[f"weights {scale:g}"], band[f"weights {scale:g}"] = (steps, middle), (low, high)
        print(f"| {scale:g} | " + " | ".join(f"{x:.2g}" for x in middle.tolist()) + " |")
    path = utils.curves(
        series,
        config.figures / "energy_cd_bias.png",
        band=band,
        xlabel="Gibbs steps k",
        ylabel="error of CD-k / exact gradient",
        title=f"Bias of CD-k, exact: median and quartiles of {config.machines} RBMs",
        logx=True,
        logy=True,
        ylim=(1e-4, 3),
        markers=True,
    )
    print(path)


# --- The length of chains


def chain(
    model: energy.ConvEnergy, chapter: energy.Config, x: Tensor, steps: list[int], *, bf16: bool
) -> Iterator[Tensor]:
    """States of chains that start at x after so many steps, as the chapter draws samples."""
    how = {"step_size": chapter.step_size, "temperature": chapter.temperature, "box": (0.0, 1.0)}
    for before, now in zip([0, *steps], steps, strict=False):
        walk = partial(energy.langevin, model, steps=now - before, **how)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            x = utils.in_parts(model, walk, x)[0]
        yield x


def long_chains(config: Config) -> None:
    """Frechet distance and energy of chains from noise, shorter and longer than in training."""
    panels = {"Frechet distance": {}, "energy above test digits": {}}
    print("\n| training | steps | of samples | of training | Frechet | energy above test | std |")
    for training in config.trainings:
        folder = run(config, RUNS[training], reuse=config.reuse)
        bf16 = json.loads((folder / "metrics.json").read_text())["autocast"] == "bf16"
        model, data, chapter = load(config, RUNS[training])
        test = utils.in_parts(model, model, data.test[: config.count])[0].mean().item()
        steps = [max(1, round(part * chapter.sampling_steps)) for part in config.lengths]
        steps = sorted({chapter.langevin_steps, *steps})
        torch.manual_seed(config.seed)
        start, distances, heights = torch.rand(config.count, *data.image_shape), [], []
        for now, x in zip(steps, chain(model, chapter, start, steps, bf16=bf16), strict=True):
            energies = utils.in_parts(model, model, x)[0] - test
            distances.append(utils.quick_frechet_distance(x, data))
            heights.append(energies.mean().item())
            print(
                f"| {training} | {now} | {now / chapter.sampling_steps:g} | "
                f"{now / chapter.langevin_steps:g} | {distances[-1]:.2f} | {heights[-1]:.3f} | "
                f"{energies.std():.3f} |",
                flush=True,
            )
        places = [math.log10(now) for now in steps]
        panels["Frechet distance"][training] = places, distances
        panels["energy above test digits"][training] = places, heights
    path = utils.curve_panels(
        panels,
        config.figures / "energy_chain_length.png",
        xlabel=f"log10 of the steps from noise; training takes {chapter.langevin_steps}, samples "
        f"{chapter.sampling_steps}",
        title="Short chains and long ones",
        logy=("Frechet distance",),
    )
    print(path)


def main(config: Config) -> None:
    """Run the parts that were asked for."""
    if unknown := set(config.parts) - set(PARTS):
        raise utils.UserError(f"--parts: expected some of {', '.join(PARTS)}; got {unknown}")
    if unknown := set(config.trainings) - set(RUNS):
        raise utils.UserError(f"--trainings: expected some of {', '.join(RUNS)}; got {unknown}")
    parts = {"variance": step_sizes, "bias": short_chains, "chains": long_chains}
    for name in config.parts:
        parts[name](config)


if __name__ == "__main__":
    utils.cli(main, Config)
