"""What the weight of the KL buys: rate against distortion, and a collapse with its remedies.

Run:     python -m notes.figures.vae_rate_distortion
Writes:  vae_rate_distortion.png, vae_collapse.png
"""

import json
from dataclasses import dataclass
from pathlib import Path

from code_examples import utils, vae

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Config(vae.Config):
    """Train one VAE for each beta, and three at a beta at which the posterior collapses."""

    model: str = "beta"
    epochs: int | None = 25
    """Passes over the training set, for each run."""
    betas: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
    """Weights of the KL."""
    collapsing: float = 50.0
    """The weight at which the code is given up."""
    figures: Path = HERE
    """Where the pictures go."""


def measure(config: Config, **flags: float) -> dict:
    """Train the chapter with these flags; return its metrics."""
    name = "-".join(f"{k}-{v:g}" for k, v in flags.items())
    folder = (config.out or utils.ROOT / "outputs" / "figures") / f"vae-{name}"
    same = {"model": "beta", "quick": config.quick, "dataset": config.dataset}
    same |= {"data_root": config.data_root, "epochs": config.epochs, "seed": config.seed}
    vae.main(vae.Config(out=folder, nll_samples=10, **same, **flags))
    return json.loads((folder / "metrics.json").read_text())


def main(config: Config) -> None:
    """Sweep beta and draw the curve; collapse, and draw what helps."""
    sweep = {beta: measure(config, beta=beta) for beta in config.betas}
    rate = [m["test_kl_nats"] for m in sweep.values()]
    distortion = [m["test_reconstruction_nats"] for m in sweep.values()]
    print("beta    rate  distortion  -ELBO  active  Frechet distance")
    for beta, m in sweep.items():
        print(
            f"{beta:<6g} {m['test_kl_nats']:5.2f}  {m['test_reconstruction_nats']:10.2f}  "
            f"{m['test_neg_elbo_nats']:5.1f}  {m['active_units']:6d}  {m['frechet_distance']:.1f}"
        )
    path = utils.curves(
        {"beta " + ", ".join(f"{b:g}" for b in config.betas): (rate, distortion)},
        config.figures / "vae_rate_distortion.png",
        xlabel="rate: KL, nats per test image",
        ylabel="distortion: reconstruction, nats",
        title="Rate and distortion, beta from large (left) to small (right)",
        markers=True,
    )
    print(path)
    beta = config.collapsing
    runs = {
        f"beta {beta:g}": measure(config, beta=beta),
        "and warm-up": measure(config, beta=beta, warm_up=0.5),
        "and free bits 0.5": measure(config, beta=beta, free_bits=0.5),
        "beta 1": sweep[1.0] if 1.0 in sweep else measure(config, beta=1.0),
    }
    for name, m in runs.items():
        print(f"{name:<18} active {m['active_units']:2d}, KL {m['test_kl_nats']:.2f} nats")
    path = utils.bars(
        {
            name: {
                "active units": m["active_units"],
                "KL (nats)": m["test_kl_nats"],
            }
            for name, m in runs.items()
        },
        config.figures / "vae_collapse.png",
        ylabel="units, nats",
        title="A collapsed posterior, and what helps",
        fmt="{:.1f}",
    )
    print(path)


if __name__ == "__main__":
    utils.cli(main, Config)
