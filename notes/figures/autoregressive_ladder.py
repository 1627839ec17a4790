"""From independent pixels to PixelCNN: nats of black-and-white test digits on one protocol.

Run:     python -m notes.figures.autoregressive_ladder
         python -m notes.figures.autoregressive_ladder --dataset mnist --minutes 5
         python -m notes.figures.autoregressive_ladder --reuse    # runs that are there stay
Writes:  autoregressive_ladder.png

Every pixel is drawn black or white once and for ever, as the chapter does with `--binarize static`,
and each model trains for the same time: a mixture of Bernoullis by EM, FVSBN, MADE in one and in
eight orders, PixelCNN with its blind spot and without. MADE in eight orders gives three numbers:
the mean of its members, their ensemble, and what averaged logits pretend, which a sum over all
pictures of 3 x 3 pixels convicts. Published numbers are for fixed files, 50,000 training digits.
Five networks, `--minutes` each, and the mixture.
"""

import json
import math
import time
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from code_examples import pixelcnn, utils
from code_examples.utils.pictures import GREY, write_picture
from code_examples.utils.plotting import OKABE_ITO, STYLE

from .autoregressive_levels import ANCHORS, baselines, fit, flags
from .seeds import is_finished, runs_folder

HERE = Path(__file__).parent
ORDERS, LOGITS = "MADE 8 orders", "averaged logits: not a distribution"
# by several authors, on the fixed files; their papers stand in notes/08 section 15
PUBLISHED = {"mixture of Bernoullis": 137.6, "FVSBN": 97.5, "NADE": 88.9, "MADE 1 order": 94.5}
PUBLISHED |= {"masked PixelCNN": 81.3}


class FVSBN(nn.Module):
    """A logistic regression for each pixel on all before it; notes/08 eq. (8.21)."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        dims = math.prod(shape)
        self.weight, self.bias = (nn.Parameter(torch.zeros(s)) for s in ((dims, dims), dims))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        logit = F.linear(x.flatten(1), self.weight.tril(-1), self.bias).view_as(x)
        return torch.stack([torch.zeros_like(logit), logit], dim=1)  # of black and of white


TRAINED = {  # flags of the chapter, and the network if it is not the chapter's
    "FVSBN": ({"model": "made"}, FVSBN),
    "MADE 1 order": ({"model": "made"}, None),
    ORDERS: ({"model": "made", "orderings": 8}, None),
    "masked PixelCNN": ({"model": "pixelcnn-masked"}, None),
    "gated PixelCNN": ({"model": "pixelcnn"}, None),
}


@dataclass(frozen=True)
class Config(utils.Config):
    """Train models of black-and-white digits for the same time, and measure all alike."""

    minutes: float | None = 1.0
    """Training time of each model; --quick counts epochs instead."""
    models: tuple[str, ...] = tuple(TRAINED)
    """Which of the networks, by name."""
    components: int = 500
    """Of the mixture of Bernoullis."""
    smoothing: float = 1.0
    """Average pictures that each component has seen besides its own."""
    reuse: bool = False
    """Take finished runs that are there already; the mixture is fitted again."""
    figures: Path = HERE
    """Where the picture goes."""


def mixture(x: Tensor, test: Tensor, config: Config) -> dict[str, float]:
    """Fit a mixture of Bernoullis to x (N, D) by EM until it stands or time is over; its nats."""
    mean = (x.sum(dim=0) + 0.5) / (len(x) + 1)
    p = 0.25 + 0.5 * x[torch.randperm(len(x))[: config.components]]  # (K, D): some of them, pale
    log_weight = torch.full((len(p),), -math.log(len(p)))

    def joint(x: Tensor) -> Tensor:  # log of the probability of a picture and a component, (N, K)
        return x @ p.logit().T + torch.log1p(-p).sum(dim=1) + log_weight

    end, passes, before, now = time.perf_counter() + 60 * config.minutes, 0, -math.inf, -1e9
    while now - before > 1e-3 and time.perf_counter() < end:
        log_p, before, passes = joint(x), now, passes + 1
        now, share = log_p.logsumexp(dim=1).mean().item(), log_p.softmax(dim=1)
        mass = share.sum(dim=0)[:, None] + config.smoothing
        p = (share.T @ x + config.smoothing * mean) / mass
        log_weight = mass[:, 0].log().log_softmax(dim=0)
    nats = {"test": test, "train": x[: len(test)]}
    nats = {f"{k}_nll_nats": -joint(v).logsumexp(dim=1).mean().item() for k, v in nats.items()}
    return nats | {"epochs": passes}


def averaged(model: pixelcnn.MADE, x: Tensor) -> Tensor:
    """What averaged logits give in the place of -log p(x), (B,) nats; notes/08 eq. (8.28)."""
    outputs = [model(x, ordering=i) for i in range(len(model.places))]
    return pixelcnn.nll(torch.stack(outputs).mean(dim=0), x, pixelcnn.Softmax(2))


@torch.no_grad()
def sums(chapter: pixelcnn.Config, data: utils.ImageData) -> dict[str, float]:
    """Of all pictures of 3 x 3 pixels: the "probabilities" by a tiny MADE of the digits' middle."""
    row = slice(data.image_shape[1] // 2 - 1, data.image_shape[1] // 2 + 2)
    middle = {name: getattr(data, name)[:, :1, row, row] for name in ("train", "test")}
    tiny = replace(chapter, hidden=32, minutes=None, epochs=9, out=chapter.out / "tiny")
    with torch.enable_grad():
        model, likelihood, *_ = fit(tiny, replace(data, **middle))
    every = torch.tensor(list(product((0.0, 1.0), repeat=9)), device=model.places.device)
    every = every.view(-1, 1, 3, 3)
    each = [-pixelcnn.nll(model(every, ordering=i), every, likelihood) for i in range(8)]
    ensemble = pixelcnn.ensemble_log_prob(torch.stack(each))
    return {"ensemble": ensemble.exp().sum(), "averaged": (-averaged(model, every)).exp().sum()}


def measure(name: str, data: utils.ImageData, config: Config) -> dict[str, float]:
    """Train a network, or take the finished run; its metrics."""
    own, build = TRAINED[name]
    short = name.lower().replace(" ", "-")
    folder = runs_folder(config) / f"autoregressive-ladder-{short}-{config.dataset}"
    if not (config.reuse and is_finished(folder, quick=config.quick)):
        how = {"levels": 2, "binarize": "static", "out": folder}
        chapter = pixelcnn.Config(**flags(config), **how, **own)
        model, _, run, nats = fit(chapter, data, build)
        if name == ORDERS:
            wrong = utils.in_parts(model, partial(averaged, model), data.test)[0].mean().item()
            both = {f"sum_{k}": v.item() for k, v in sums(chapter, data).items()}
            nats |= {"test_averaged_logits": wrong} | both
        run.finish(**nats)
    return json.loads((folder / "metrics.json").read_text())


def draw(nats: dict[str, float], title: str, path: Path) -> Path:
    """Horizontal bars with their numbers, and diamonds where numbers were published."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(7.2, 0.36 * len(nats) + 1.2), layout="compressed")
        axes = figure.add_subplot(xlabel="nats of a test digit", title=title)
        colors = [GREY if name == LOGITS else OKABE_ITO[0] for name in nats]
        axes.barh(list(nats), list(nats.values()), 0.7, color=colors)
        for name, value in nats.items():
            axes.text(3, name, f"{value:.1f}" if value else "", color="white", va="center")
        marks = [(value, name) for name, value in PUBLISHED.items() if name in nats]
        axes.plot(*zip(*marks, strict=True), "D", color=OKABE_ITO[1], label="published")
        axes.legend(loc="lower right", frameon=False)
        axes.invert_yaxis()
        return write_picture(path, ".png", lambda file: figure.savefig(file, format="png"))


def main(config: Config) -> None:
    """Fit and train all, print the table and draw the ladder."""
    if unknown := set(config.models) - set(TRAINED):
        raise utils.UserError(f"--models: expected some of {', '.join(TRAINED)}; got {unknown}")
    data = utils.load_images(config.dataset, config.data_root, quick=config.quick)
    once = torch.Generator().manual_seed(0)  # as in the chapter
    x, test = (torch.bernoulli(x, generator=once) for x in (data.train, data.test))
    data, bit = replace(data, train=x, test=test), x[0].numel() * math.log(2)
    torch.manual_seed(config.seed)
    alone = {"test_nll_nats": bit * baselines(x, test, 2)[ANCHORS[-1]]}
    rows = {"independent pixels": alone, "NADE": {}}
    rows["mixture of Bernoullis"] = mixture(x.flatten(1), test.flatten(1), config)
    rows |= {name: measure(name, data, config) for name in config.models}
    if ORDERS in rows:
        m, key = rows.pop(ORDERS), "test_nll_nats"
        passes = {"epochs": m["epochs"]}
        rows[f"{ORDERS}: mean"] = passes | {key: m["test_nll_nats_mean_of_orderings"]}
        rows[f"{ORDERS}: ensemble"] = passes | {key: m["test_nll_nats_ensemble"]}
        rows[LOGITS] = passes | {key: m["test_averaged_logits"]}
        sums_to = f"{m['sum_ensemble']:.4f} (ensemble), {m['sum_averaged']:.4f} (averaged logits)"
        print(f"\nall pictures of 3 x 3 pixels, a tiny MADE in 8 orders, sum to {sums_to}")
    order = sorted(rows, key=lambda name: -rows[name].get("test_nll_nats", PUBLISHED.get(name, 0)))
    keys = "epochs", "train_nll_nats", "test_nll_nats", "test_nll_nats_standard_error"
    print(f"\n{data.name}, static\n| model | {' | '.join(keys)} | published |")
    for name in order:
        cells = [f"{rows[name][key]:.7g}" if key in rows[name] else "" for key in keys]
        print(f"| {name} | {' | '.join(cells)} | {PUBLISHED.get(name, '')} |")
    nats = {name: rows[name].get("test_nll_nats", 0.0) for name in order}
    title = f"Nats of test digits, {data.name}, drawn black and white once"
    print(draw(nats, title, config.figures / "autoregressive_ladder.png"))


if __name__ == "__main__":
    utils.cli(main, Config)
