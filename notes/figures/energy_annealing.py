"""Whether annealed importance sampling can be trusted: log Z of a small RBM, estimated and exact.

Run:     python -m notes.figures.energy_annealing
         python -m notes.figures.energy_annealing --reuse    # the RBM that is there, if it is
Writes:  energy_annealing.png

An RBM of 20 hidden units is trained for 20 seconds; log Z is summed over its 2^20 hidden states,
from which exact samples for the way back are drawn, too. Then many estimates: first ten with the
chapter's interval each, then at several numbers of levels how far they are off, how far they say
that they are off, and how many intervals of 95% hold the truth. About 10 minutes on two CPU cores.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from code_examples import energy, utils

from .seeds import is_finished, runs_folder

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Config(utils.Config):
    """Estimate the log Z of a small RBM many times, and compare with its sum."""

    minutes: float | None = 1 / 3
    """Training time; --quick counts epochs instead."""
    hidden: int = 20
    """Hidden units of the RBM, at most 20: their states are enumerated."""
    chains: int = 100
    """Chains of each estimate."""
    temperatures: int = 1000
    """Levels of the estimates in the first table."""
    repeats: int = 10
    """Estimates in the first table, and at each number of levels."""
    levels: tuple[int, ...] = (10, 30, 100, 300, 1000, 3000, 10_000)
    """Numbers of levels in the second table and in the picture."""
    coverage: int = 200
    """Estimates in the third table."""
    coverage_levels: tuple[int, ...] = (30, 100, 300)
    """Numbers of levels in the third table."""
    reuse: bool = False
    """Take the trained RBM that is there already."""
    figures: Path = HERE
    """Where the picture goes."""


def load(
    config: utils.Config, hidden: int, *, reuse: bool, name: str = "energy-small", **flags
) -> tuple[energy.RBM, Tensor]:
    """An RBM without label units, in float64 on the CPU; its training pictures (N, V), drawn once.

    Trained with these flags first, unless a finished run is there and is to be reused.
    """
    folder = runs_folder(config) / f"{name}-{hidden}-{config.dataset}"
    if not (reuse and is_finished(folder, quick=config.quick)):
        same = {name: getattr(config, name) for name in ("dataset", "data_root", "device", "quick")}
        same |= {"epochs": config.epochs} if config.quick else {}
        same |= {"labels": False, "num_samples": 200, "ais_temperatures": 1000}
        energy.main(energy.Config(hidden=hidden, seed=config.seed, out=folder, **(same | flags)))
    data = utils.load_images(config.dataset, config.data_root, quick=config.quick)
    state = torch.load(folder / "checkpoint.pt", map_location="cpu", weights_only=True)
    rbm = energy.RBM(**state["objects"]["ema"]).double().requires_grad_(False)
    return rbm, energy.flip(data.train).flatten(1).double()


def forward(rbm: energy.RBM, v: Tensor, chains: int, levels: int) -> Tensor:
    """Log weights (chains,) whose mean weight estimates Z, from independent pixels like v."""
    base, log_z = energy.base_model(v, rbm)
    betas = torch.linspace(0, 1, levels + 1, dtype=torch.float64).tolist()
    path = (energy.tempered(base, rbm, beta) for beta in betas)
    return log_z + energy.annealed_importance_sampling(path, energy.draw_base(base, chains))[0]


def reverse(rbm: energy.RBM, v: Tensor, start: Tensor, levels: int) -> Tensor:
    """Log weights (chains,) whose mean weight estimates 1 / Z, from samples of the RBM."""
    base, log_z = energy.base_model(v, rbm)
    betas = torch.linspace(1, 0, levels + 1, dtype=torch.float64).tolist()
    path = (energy.tempered(base, rbm, beta) for beta in betas)
    return energy.annealed_importance_sampling(path, start)[0] - log_z


@torch.no_grad()
def enumerate_states(rbm: energy.RBM, rows: int = 4096) -> Tensor:
    """log p(h) of all 2^H hidden states, (2^H,); the bits of the index are the units."""
    terms = []
    for index in torch.arange(2 ** len(rbm.hidden_bias)).split(rows):
        h = states(rbm, index)
        terms.append(h @ rbm.hidden_bias + rbm.visible_log_partition(rbm.visible_logits(h)))
    return torch.cat(terms).log_softmax(dim=0)


def states(rbm: energy.RBM, index: Tensor) -> Tensor:
    """The hidden states (N, H) of these numbers."""
    bits = 2 ** torch.arange(len(rbm.hidden_bias))
    return (index[:, None] & bits).ne(0).to(rbm.weight.dtype)


def exact_samples(rbm: energy.RBM, log_p: Tensor, n: int) -> Tensor:
    """n independent samples (n, V): h by its probability, then v given h."""
    return rbm.draw_visible(states(rbm, log_p.exp().multinomial(n, replacement=True)))


def judge(log_w: Tensor, exact: float) -> Tensor:
    """Of sets of log weights (S, chains): off by, stated error, and whether 1.96 of it reach."""
    found = torch.tensor([energy.log_mean_with_error(w) for w in log_w], dtype=torch.float64)
    off, error = found[:, 0] - exact, found[:, 1]
    return torch.stack([off, error, (off.abs() <= 1.96 * error).double()])


def main(config: Config) -> None:
    """Print three tables, and draw both ways over the number of levels."""
    utils.check_number("hidden", config.hidden, at_least=1, below=21)
    minutes = {} if config.quick else {"minutes": config.minutes}
    rbm, v = load(config, config.hidden, reuse=config.reuse, **minutes)
    torch.manual_seed(config.seed)
    begin = time.perf_counter()
    exact = energy.log_partition_exact(rbm).item()
    print(f"log Z {exact:.3f} nats, summed in {time.perf_counter() - begin:.1f} s")
    log_p, sets = enumerate_states(rbm), (config.repeats, config.chains)

    print(f"\n{config.chains} chains, {config.temperatures} levels")
    print("| estimate | minus exact, nats | stated error | interval of 95% holds it |")
    log_w = forward(rbm, v, config.repeats * config.chains, config.temperatures).view(sets)
    for i, (off, error, holds) in enumerate(judge(log_w, exact).T.tolist(), 1):
        print(f"| {i} | {off:+.3f} | {error:.3f} | {'yes' if holds else 'no'} |")

    print(f"\n{config.repeats} estimates each: minus exact, mean (lowest to highest), nats")
    print("| levels | forward | stated error | reverse | stated error | seconds of one, forward |")
    ways = {"forward": [], "reverse": []}
    for levels in config.levels:
        begin = time.perf_counter()
        log_w = forward(rbm, v, config.repeats * config.chains, levels).view(sets)
        seconds = (time.perf_counter() - begin) / config.repeats
        start = exact_samples(rbm, log_p, config.repeats * config.chains)
        back = judge(reverse(rbm, v, start, levels).view(sets), -exact)
        there, said = judge(log_w, exact), []
        for kind, (off, error, _) in {"forward": there, "reverse": (-back[0], *back[1:])}.items():
            ways[kind].append((off.mean(), off.min(), off.max()))
            mean, low, high = (float(value) for value in ways[kind][-1])
            said.append(f"{mean:+.3f} ({low:+.3f} to {high:+.3f}) | {error.mean():.3f}")
        print(f"| {levels} | {' | '.join(said)} | {seconds:.2f} |", flush=True)

    print(f"\n{config.coverage} estimates each, forward")
    print(
        "| levels | minus exact, mean | their spread | stated error, mean | intervals that hold |"
    )
    for levels in config.coverage_levels:
        log_w = forward(rbm, v, config.coverage * config.chains, levels)
        off, error, holds = judge(log_w.view(config.coverage, -1), exact)
        print(
            f"| {levels} | {off.mean():+.3f} | {off.std():.3f} | {error.mean():.3f} | "
            f"{int(holds.sum())} of {config.coverage} |"
        )

    series, band = {}, {}
    for kind, rows in ways.items():
        mean, low, high = (torch.stack(column) + exact for column in zip(*rows, strict=True))
        series[kind], band[kind] = (config.levels, mean), (low, high)
    path = utils.curves(
        series,
        config.figures / "energy_annealing.png",
        band=band,
        hlines={f"exact {exact:.2f}": exact},
        xlabel="levels",
        ylabel="log Z, nats",
        title=f"There and back: mean and range of {config.repeats} estimates, "
        f"{config.chains} chains each",
        logx=True,
        markers=True,
    )
    print(path)


if __name__ == "__main__":
    utils.cli(main, Config)
