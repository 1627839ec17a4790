"""One blob cannot become two: the filament between them, and what helps.

Run:     python -m notes.figures.flow_topology
Writes:  flow_topology.png, flow_topology_mass.png

The data are two round Gaussians far apart. The layers are those of the chapter, the training loop
is short and its own, because two of the cures change the base or the dimensions.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from code_examples import flows, utils

HERE = Path(__file__).parent
BOUNDS = (-3.2, 3.2, -1.6, 1.6)
DEEPEST = 14  # nats below 1 at which the picture of the log density is black


@dataclass(frozen=True)
class Config(utils.Config):
    """Fit two blobs with the standard base and with each cure; measure what lies between them."""

    steps: int = 3000
    """Optimiser steps of each fit."""
    batch_size: int = 512
    lr: float = 2e-3
    layers: int = 4
    """Couplings of each flow but the deep one, which has four times as many."""
    width: int = 64
    """Hidden units."""
    distance: float = 2.0
    """From each blob's centre to the middle between them."""
    std: float = 0.25
    """Of each blob, along each axis."""
    extra: int = 2
    """Dimensions that augmentation adds, an even number."""
    draws: int = 128
    """Of those dimensions, in the estimate of the density of the point."""
    samples: int = 200_000
    """Points drawn of each model, for the mass between the blobs."""
    figures: Path = HERE
    """Where the pictures go."""


def blobs(config: Config) -> MixtureSameFamily:
    """The true distribution of the points."""
    centres = torch.tensor([[-config.distance, 0.0], [config.distance, 0.0]])
    each = Independent(Normal(centres, config.std), 1)
    return MixtureSameFamily(Categorical(torch.ones(2)), each)


class Base(nn.Module):
    """What a flow's z is compared with: a mixture of `pieces` Gaussians, all learned; notes/05
    eq. (5.67). With one piece it is N(0, I), and nothing is learned.
    """

    def __init__(self, dims: int, pieces: int) -> None:
        super().__init__()
        learned = pieces > 1
        places = torch.linspace(-3, 3, pieces) if learned else torch.zeros(1)
        self.weights = nn.Parameter(torch.zeros(pieces), requires_grad=learned)
        self.means = nn.Parameter(places[:, None] * torch.eye(dims)[0], requires_grad=learned)
        self.log_stds = nn.Parameter(torch.zeros(pieces, dims), requires_grad=learned)

    def distribution(self) -> MixtureSameFamily:
        each = Independent(Normal(self.means, self.log_stds.exp()), 1)
        return MixtureSameFamily(Categorical(logits=self.weights), each)


class Model(nn.Module):
    """A flow, its base, and `extra` dimensions of noise beside the two of the points."""

    def __init__(self, config: Config, model: str, layers: int, pieces: int, extra: int) -> None:
        super().__init__()
        chapter = flows.Config(model=model, dataset="moons", layers=layers, width=config.width)
        self.flow = flows.plane_flow(chapter, 2 + extra)
        self.base, self.extra, self.draws = Base(2 + extra, pieces), extra, config.draws

    def joint(self, x: Tensor) -> Tensor:
        """log p of points with their extra dimensions, (B, 2 + extra) to (B,) nats."""
        z, log_det = self.flow(x)
        return self.base.distribution().log_prob(z) + log_det

    def bound(self, x: Tensor, noises: Tensor | None = None) -> Tensor:
        """log p(x) of points (B, 2); with extra dimensions a bound, notes/05 eq. (5.68).

        `noises` (K, extra) makes it tighter, all of them for each point; else there is one at
        random for each.
        """
        if not self.extra:
            return self.joint(x)
        log_w = []
        for e in [torch.randn(len(x), self.extra)] if noises is None else noises:
            e = e.expand(len(x), -1)
            log_w.append(self.joint(torch.cat([x, e], dim=1)) - flows.log_normal(e))
        return torch.logsumexp(torch.stack(log_w), dim=0) - math.log(len(log_w))

    @torch.no_grad()
    def log_prob(self, x: Tensor) -> Tensor:
        """The same by noises that are spread evenly under N(0, I)."""
        even = torch.quasirandom.SobolEngine(max(1, self.extra), scramble=True, seed=0)
        return self.bound(x, torch.special.ndtri(even.draw(self.draws).clamp(1e-6, 1 - 1e-6)))

    @torch.no_grad()
    def sample(self, n: int) -> Tensor:
        """Points with their extra dimensions, (n, 2 + extra)."""
        z = self.base.distribution().sample((n,))
        return utils.in_parts(self, lambda z: self.flow.inverse(z)[0], z, rows=10_000)[0]

    def steepest(self, x: Tensor) -> float:
        """The largest factor by which the way from z to x stretches a short step, at points x."""
        x = x.requires_grad_()
        z, _ = self.flow(x)
        rows = [torch.autograd.grad(c.sum(), x, retain_graph=True)[0] for c in z.unbind(1)]
        return 1 / torch.linalg.svdvals(torch.stack(rows, dim=1)).min().item()


def fit(model: Model, truth: MixtureSameFamily, config: Config) -> None:
    """Maximise the likelihood, or its bound, of fresh points."""
    learned = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(learned, lr=config.lr, betas=(0.9, 0.99), fused=True)
    for step in range(config.steps):
        progress = step / config.steps
        optimizer.param_groups[0]["lr"] = config.lr * min(
            1, 50 * progress + 0.01, (1 - progress) * 3
        )
        loss = -model.bound(truth.sample((config.batch_size,))).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
    model.eval()


def above_floor(log_prob: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The log of (log p + 14), so that its exponential, which is drawn, grows with log p."""
    return (log_prob(x) + DEEPEST).clamp(min=1e-3).log()


def lipschitz(share: float, config: Config) -> float:
    """The least steepness with which so little mass can lie between; notes/05 eq. (5.65)."""
    gap, blob = 2 * config.distance - 10 * config.std, torch.tensor((1 - share) / 2)
    return gap / (-2 * torch.special.ndtri(blob).item() + 1e-12)


def main(config: Config) -> None:
    """Fit everything, print the table, draw the planes and the line between the blobs."""
    truth, deep = blobs(config), 4 * config.layers
    models = {  # name: which layers, how many, pieces of the base, extra dimensions
        f"{config.layers} layers": ("realnvp", config.layers, 1, 0),
        f"{deep} layers": ("realnvp", deep, 1, 0),
        f"{config.layers} layers of splines": ("spline", config.layers, 1, 0),
        "base with two pieces": ("realnvp", config.layers, 2, 0),
        f"{config.extra} extra dimensions": ("realnvp", config.layers, 1, config.extra),
    }
    torch.manual_seed(config.seed)
    test = truth.sample((10_000,))
    centre, edges = torch.tensor([config.distance, 0.0]), torch.linspace(*BOUNDS[:2], 65)
    panels, densities = {"the data": truth.log_prob}, {}
    print("| model | KL | mass between | steepest | at least |")
    for name, settings in models.items():
        torch.manual_seed(config.seed)
        model = Model(config, *settings)
        fit(model, truth, config)
        kl = flows.mean_and_error(truth.log_prob(test) - model.log_prob(test), "kl")
        samples = model.sample(config.samples)
        far = (samples[:, :2].abs() - centre).norm(dim=1) > 5 * config.std
        inner = samples[samples[:, 0].abs().argsort()[:5000]]
        share, steepest = far.double().mean().item(), model.steepest(inner)
        least = f"{lipschitz(share, config):.3g}" if settings[2] == 1 else "-"
        counts = torch.histogram(samples[:, 0], edges, density=True).hist
        densities[name] = ((edges[1:] + edges[:-1]) / 2, counts.clamp(min=1e-9))
        panels[name] = model.log_prob
        print(
            f"| {name} | {kl['kl']:.4f} +- {kl['kl_standard_error']:.4f} | {100 * share:.3f}% "
            f"| {steepest:.3g} | {least} |",
            flush=True,
        )
    plain = next(iter(models))
    shown = {f"{name}: density": panels[name] for name in ("the data", plain)}
    shown |= {f"{k}: log density": partial(above_floor, f) for k, f in panels.items()}
    path = config.figures / "flow_topology.png"
    how = {"one_scale": False, "columns": 2, "title": "Two blobs, and what flows make of them"}
    print(utils.density_2d(shown, path, bounds=BOUNDS, **how))
    each = Normal(torch.tensor([-config.distance, config.distance]), config.std)
    x = torch.linspace(*BOUNDS[:2], 401)
    exact = each.log_prob(x[:, None]).exp().mean(dim=1)
    path = utils.curves(
        {"the data": (x, exact)} | densities,
        config.figures / "flow_topology_mass.png",
        xlabel="$x_1$",
        ylabel="density of $x_1$ alone",
        title=f"What lies between, of {config.samples:,} samples",
        ylim=(1e-5, 1),
        logy=True,
    )
    print(path)


if __name__ == "__main__":
    utils.cli(main, Config)
