"""Which pictures a flow finds likely: its own test data, another data set, and simple pictures.

Run:     python -m notes.figures.flow_out_of_distribution
         python -m notes.figures.flow_out_of_distribution --dataset fashion-mnist --other mnist
Writes:  flow_out_of_distribution.png, flow_out_of_distribution_auroc.png

The flow is the chapter's spline model, trained first if flow_gallery has not done so. The second
command repeats the example that made the failure famous; it downloads both data sets.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from code_examples import flows, utils

from .flow_gallery import load
from .seeds import runs_folder

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Config(flows.Config):
    """Score pictures of several kinds by a flow that was trained on one of them."""

    model: Literal["realnvp", "nice", "glow", "spline"] = "spline"
    """Which flow."""
    other: str = "shapes"
    """Another data set with pictures of the same size."""
    count: int = 1000
    """Pictures of each kind."""
    figures: Path = HERE
    """Where the pictures go."""


def kinds(x: Tensor) -> dict[str, Tensor]:
    """Test pictures x, and strange ones, all of 8 bits: name to (N, C, H, W) in [0, 1]."""
    grey = torch.linspace(0, 1, len(x)).view(-1, 1, 1, 1).expand_as(x)
    strange = {
        "thinned": -F.max_pool2d(F.pad(-x, (0, 1, 0, 1)), 2, stride=1),
        "blurred": F.avg_pool2d(x, 3, stride=1, padding=1),
        "flat grey": grey,
        "inverted": 1 - x,
        "noise": torch.rand_like(x),
        "black": torch.zeros_like(x),
    }
    strange = {name: (255 * s).round() / 255 for name, s in strange.items()}
    return {"test": x} | strange


def measure(flow: flows.Flow, x: Tensor) -> tuple[Tensor, Tensor]:
    """Bits per dimension by one draw of the noise, and |z|^2 / D, both (N,)."""
    dims = x[0].numel()

    def both(x: Tensor) -> tuple[Tensor, Tensor]:
        u, log_q = flows.Uniform()(x)
        z, log_det = flow(u)
        bits = utils.bits_per_dim(log_q - flows.log_normal(z) - log_det, dims)
        return bits, z.square().flatten(1).mean(dim=1)

    bits, length = utils.in_parts(flow, both, x)
    return bits, length


def main(config: Config) -> None:
    """Print the table; draw the distributions of the bits, and how well each score tells."""
    name = f"flow-{config.model}" + f"-{config.dataset}" * (config.dataset != "mnist5k")
    flow, data = load(runs_folder(config) / name, config, model=config.model)
    other = utils.load_images(config.other, config.data_root, quick=config.quick)
    if other.image_shape != data.image_shape:
        raise utils.UserError(
            f"--other: expected pictures {data.image_shape} as in {data.name}, "
            f"got {other.image_shape}: choose another data set"
        )
    torch.manual_seed(config.seed)
    x = kinds(data.test[: config.count]) | {other.name: other.test[: config.count]}
    seen = measure(flow, data.train[: config.count])
    found = {kind: measure(flow, pictures) for kind, pictures in x.items()}
    usual_bits, usual_length = (values.mean() for values in seen)
    scores = {  # the higher, the stranger
        "bits: low density": lambda bits, _: bits,
        "bits not as usual": lambda bits, _: (bits - usual_bits).abs(),
        "|z|^2 not as usual": lambda _, length: (length - usual_length).abs(),
    }
    print(f"training pictures: {usual_bits:.3f} bits, |z|^2/D {usual_length:.3f}")
    print(f"| pictures | bits per dimension | std | z^2/D | AUROC: {' | '.join(scores)} |")
    aurocs = {}
    for kind, values in found.items():
        told = {
            score: utils.auroc(*(f(*v).nan_to_num(posinf=1e9) for v in (found["test"], values)))
            for score, f in scores.items()
        }
        bits, length = values
        print(
            f"| {kind} | {bits.mean():.3f} | {bits.std():.3f} | {length.mean():.3f} | "
            + " | ".join(f"{v:.3f}" for v in told.values())
            + " |"
        )
        if kind not in ("test", "noise"):  # noise is found by every score
            aurocs[kind] = told
    del found["black"]  # one picture: no distribution to draw
    every = torch.cat([bits for bits, _ in found.values()]).clamp(min=0.01)
    low, high = every.quantile(0.002).log10().item(), every.max().log10().item()
    edges = torch.logspace(low - 0.05, high + 0.05, 61)
    series = {}
    for kind, (bits, _) in found.items():
        counts = torch.histogram(bits.clamp(min=0.01), edges).hist
        series[kind] = ((edges[1:] * edges[:-1]).sqrt(), counts / counts.max())
    path = utils.curves(
        series,
        config.figures / "flow_out_of_distribution.png",
        xlabel="bits per dimension",
        ylabel="share, highest 1",
        title=f"A {config.model} flow trained on {data.name}",
        logx=True,
    )
    print(path)
    path = utils.bars(
        aurocs,
        config.figures / "flow_out_of_distribution_auroc.png",
        ylabel="AUROC against test pictures",
        title="How well three scores tell them from test pictures",
        baseline={"chance": 0.5},
    )
    print(path)


if __name__ == "__main__":
    utils.cli(main, Config)
