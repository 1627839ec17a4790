"""Energy-based models: a network says how unlikely x is; nobody makes it integrate to one.

    p(x) = exp(-E(x)) / Z        Z = sum or integral of exp(-E(x)) over all x: out of reach

    -grad log p(x) = grad E(x) - E_{x' ~ p}[ grad E(x') ]        data minus what the model draws

    RBM: E(v, h) = -v W h - b v - c h, and summed over h the free energy
         F(v) = -b v - sum_j softplus(c_j + (v W)_j)

Shapes:  B examples a batch, C x H x W pixels an image, V visible and H hidden units of an RBM.
Paper:   Hinton (2002), Training products of experts by minimizing contrastive divergence, Neural
         Computation 14(8). The others stand beside their code.
Run:     python code_examples/06_energy_based_models.py
         python code_examples/06_energy_based_models.py --model conv
         python code_examples/06_energy_based_models.py --model score --dataset moons
Expect:  after two minutes on two CPU cores with bfloat16, a test log-likelihood of -93.7 nats a
         digit (three seeds: -94.1 to -93.5), log Z known to 0.7 nats, 94.1% of the labels right by
         free energy, and a Frechet distance of 4.6 (4.3 to 5.2) for 2,000 samples of Gibbs chains;
         conv: 4.0 (3.7 to 4.5) for samples of Langevin chains, after a minute and a half.
"""

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if __package__:  # imported: from code_examples import energy
    from . import utils
else:  # run: python code_examples/06_energy_based_models.py
    import utils

Images, Shape, Metrics = utils.ImageData, tuple[int, int, int], dict[str, float | int | str]
Energy = LogProb = Callable[[Tensor], Tensor]  # x (B, ...) to E(x) or log p(x), (B,) nats

# --- Model --------------------------------------------------------------------------


class RBM(nn.Module):
    """Restricted Boltzmann machine: each visible unit is tied to each hidden one, to no other.

    v (B, V) in {0, 1}: the pixels, and with num_classes also a label, a group of units of which
    exactly one is on. h (B, H) in {0, 1}. Called, it returns the free energy.
    """

    def __init__(
        self, weight: Tensor, visible_bias: Tensor, hidden_bias: Tensor, num_classes: int = 0
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)  # (V, H)
        self.visible_bias = nn.Parameter(visible_bias)  # (V,)
        self.hidden_bias = nn.Parameter(hidden_bias)  # (H,)
        self.num_classes, self.pixels = num_classes, len(visible_bias) - num_classes

    def energy(self, v: Tensor, h: Tensor) -> Tensor:
        """E(v, h) of both layers, (B,) nats; notes/07 eq. (7.20)."""
        return -((v @ self.weight) * h).sum(dim=1) - v @ self.visible_bias - h @ self.hidden_bias

    def forward(self, v: Tensor) -> Tensor:
        """F(v) = -log sum_h exp(-E(v, h)), (B,) nats: the energy of v; notes/07 eq. (7.25)."""
        return -(v * self.visible_bias).sum(dim=1) - F.softplus(self.hidden_logits(v)).sum(dim=1)

    def hidden_logits(self, v: Tensor) -> Tensor:
        """Logits (B, H) of p(h_j = 1 | v): h_j are independent given v; notes/07 eq. (7.22)."""
        return self.hidden_bias + v @ self.weight

    def visible_logits(self, h: Tensor) -> Tensor:
        """Logits (B, V) of p(v_i = 1 | h), a softmax for labels; notes/07 eq. (7.23), (7.30)."""
        return self.visible_bias + h @ self.weight.T

    def visible_mean(self, h: Tensor) -> Tensor:
        """p(v_i = 1 | h), (B, V)."""
        pixels, label = self.visible_logits(h).tensor_split((self.pixels,), dim=1)
        return torch.cat([pixels.sigmoid(), label.softmax(dim=1)], dim=1)

    def visible_log_partition(self, logits: Tensor) -> Tensor:
        """log sum_v exp(v . logits) over all v (B,): each pixel 0 or 1, one label."""
        pixels, label = logits.tensor_split((self.pixels,), dim=1)
        total = F.softplus(pixels).sum(dim=1)
        return total + torch.logsumexp(label, dim=1) if self.num_classes else total

    def draw_hidden(self, v: Tensor) -> Tensor:
        """h ~ p(h | v), (B, H)."""
        return flip(self.hidden_logits(v).sigmoid())

    def draw_visible(self, h: Tensor) -> Tensor:
        """v ~ p(v | h), (B, V)."""
        pixels, label = self.visible_mean(h).tensor_split((self.pixels,), dim=1)
        pixels = flip(pixels)
        if not self.num_classes:
            return pixels
        ring = torch.empty_like(label).exponential_() / label  # whose clock rings first
        return torch.cat([pixels, F.one_hot(ring.argmin(dim=1), self.num_classes)], dim=1)


def flip(p: Tensor) -> Tensor:
    """1 with probability p, else 0, like p: what torch.bernoulli does, but faster on a CPU."""
    return (torch.rand_like(p) < p).to(p.dtype)


class ConvEnergy(nn.Module):
    """The energy of a picture: convolutions down to one number, (B, C, H, W) to (B,).

    No batch norm: the energy of one picture would depend on the others in its batch.
    No bias at the end: a constant cancels in exp(-E) / Z. SiLU is smooth, as its gradient in x is
    what samples follow.
    """

    def __init__(self, shape: Shape, width: int) -> None:
        super().__init__()
        channels, height, wide = shape
        h, w = (math.ceil(size / 8) for size in (height, wide))
        self.net = nn.Sequential(
            *conv(channels, width, size=5),  # (B, width, H/2, W/2)
            *conv(width, 2 * width),  # (B, 2 width, H/4, W/4)
            *conv(2 * width, 4 * width),  # (B, 4 width, H/8, W/8)
            nn.Flatten(),
            nn.Linear(4 * width * h * w, 4 * width),
            nn.SiLU(),
            nn.Linear(4 * width, 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(2 * x - 1)[:, 0].float()


def conv(size_in: int, size_out: int, size: int = 3) -> tuple[nn.Module, nn.Module]:
    """A convolution that halves the picture, and its nonlinearity."""
    return nn.Conv2d(size_in, size_out, size, stride=2, padding=size // 2), nn.SiLU()


class PlaneEnergy(nn.Module):
    """The energy of points (B, 2), (B,): a network, and a bowl |x|^2 / (2 radius^2) that it dents.

    Far out the bowl wins over a network that grows linearly, so Z is finite.
    """

    def __init__(self, width: int, radius: float) -> None:
        super().__init__()
        self.radius = radius
        self.net = nn.Sequential(
            nn.Linear(2, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)[:, 0] + x.square().sum(dim=1) / (2 * self.radius**2)


# --- Objective ----------------------------------------------------------------------


def contrastive_loss(real: Tensor, fake: Tensor, penalty: float = 0.0) -> Tensor:
    """Energies of data (B,) are to fall, of samples of the model to rise, (); notes/07 eq. (7.18).

    Its gradient is that of the mean -log p, if the samples are the model's; its value, near 0, is
    no likelihood. The penalty on squares holds energies near 0: without it they, and their
    slopes, outgrow the step size.
    """
    return real.mean() - fake.mean() + penalty * (real.square() + fake.square()).mean()


def score(energy: Energy, x: Tensor, create_graph: bool = False) -> Tensor:
    """The score grad log p(x) = -grad E(x), like x: log Z does not depend on x and is gone.

    notes/07 eq. (7.71).
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(energy(x).sum(), x, create_graph=create_graph)
    return -gradient


def denoising_score_matching(energy: Energy, x: Tensor, sigma: float) -> Tensor:
    """The score at a noisy point should lead back to the clean one, (B,); notes/07 eq. (7.74).

    0.5 |sigma score(x + sigma eps) + eps|^2 at +eps and -eps, whose common noise cancels, eq.
    (7.76); learns p with noise, eq. (7.75). Vincent (2011), Neural Computation 23(7).
    """
    eps = torch.randn_like(x)
    eps = torch.cat([eps, -eps])
    noisy = x.repeat(2, 1) + sigma * eps
    loss = 0.5 * (sigma * score(energy, noisy, create_graph=True) + eps).square().sum(dim=1)
    return loss.view(2, -1).mean(dim=0)


def sliced_score_matching(energy: Energy, x: Tensor) -> Tensor:
    """trace(grad score(x)) + 0.5 |score(x)|^2, (B,), the trace along one random direction of +-1.

    Integration by parts has removed the unknown score of the data; notes/07 eq. (7.73), (7.77).
    Hyvarinen (2005), JMLR 6; sliced by Song et al. (2019), arXiv:1905.07088.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(energy(x).sum(), x, create_graph=True)
        direction = torch.randint_like(x, 2) * 2 - 1
        (turned,) = torch.autograd.grad((gradient * direction).sum(), x, create_graph=True)
    return -(turned * direction).sum(dim=1) + 0.5 * gradient.square().sum(dim=1)


def noise_contrastive(
    energy: Energy, log_partition: Tensor, x: Tensor, noise: torch.distributions.Distribution
) -> Tensor:
    """Tell data from noise by the log-odds log p(x) - log q(x), (B,); notes/07 eq. (7.82).

    log Z is learned as one more weight, eq. (7.83); as many points of either kind. Gutmann &
    Hyvarinen (2010), Noise-contrastive estimation, AISTATS.
    """
    points = torch.cat([x, noise.sample((len(x),))])
    log_odds = -energy(points) - log_partition - noise.log_prob(points)
    real, fake = log_odds.chunk(2)
    return -F.logsigmoid(real) - F.logsigmoid(-fake)


# --- Training and sampling ----------------------------------------------------------


@torch.no_grad()
def gibbs(rbm: RBM, v: Tensor, steps: int = 1, known: Tensor | None = None) -> Tensor:
    """h ~ p(h|v), then v ~ p(v|h), `steps` times; notes/07 eq. (7.34). What is known (V,) stays."""
    for _ in range(steps):
        drawn = rbm.draw_visible(rbm.draw_hidden(v))
        v = drawn if known is None else torch.where(known, v, drawn)
    return v


@torch.no_grad()
def langevin(
    energy: Energy,
    x: Tensor,
    steps: int,
    step_size: float,
    temperature: float = 1.0,
    box: tuple[float, float] | None = None,
) -> Tensor:
    """Downhill with noise: x - step_size / 2 grad E(x) + sqrt(step_size temperature) eps.

    Small steps at temperature 1 end in samples of p, at another one in those of p^(1/temperature);
    notes/07 eq. (7.63), (7.66). A box holds the states in [low, high], and is one more bias.
    """
    for _ in range(steps):
        noise = math.sqrt(step_size * temperature) * torch.randn_like(x)
        x = x + 0.5 * step_size * score(energy, x) + noise
        x = x if box is None else x.clamp(*box)
    return x


# log Z


@torch.no_grad()
def log_partition_exact(rbm: RBM, rows: int = 4096) -> Tensor:
    """log Z of an RBM, () nats, as a sum over all 2^H hidden states; notes/07 eq. (7.29).

    Given h the sum over v is a product, so only one layer has to be enumerated:
    seconds for H = 20.
    """
    hidden = len(rbm.hidden_bias)
    bits = 2 ** torch.arange(hidden, device=rbm.weight.device)
    total = []
    for states in torch.arange(2**hidden, device=bits.device).split(rows):
        h = (states[:, None] & bits).ne(0).to(rbm.weight.dtype)  # (rows, H)
        terms = h @ rbm.hidden_bias + rbm.visible_log_partition(rbm.visible_logits(h))
        total.append(torch.logsumexp(terms.cpu().double(), dim=0))
    return torch.logsumexp(torch.stack(total), dim=0)


def bias_of_frequencies(v: Tensor, num_classes: int) -> Tensor:
    """Biases (V,) with which units that have no weights are on as often as in v (N, V)."""
    on = v.mean(dim=0).clamp(1e-3, 1 - 1e-3)  # what never was on, pixel or label, might be some day
    pixels, label = on.tensor_split((v.shape[1] - num_classes,))
    return torch.cat([pixels.logit(), label.log()])


def base_model(v: Tensor, rbm: RBM) -> tuple[RBM, float]:
    """An RBM like `rbm` without weights, whose units are on as often as in v, and its log Z.

    Its pixels are independent, so its log Z is known and its samples cost nothing.
    notes/07 eq. (7.55).
    """
    bias = bias_of_frequencies(v, rbm.num_classes).to(rbm.weight)
    base = RBM(
        torch.zeros_like(rbm.weight), bias, torch.zeros_like(rbm.hidden_bias), rbm.num_classes
    )
    hidden = len(rbm.hidden_bias) * math.log(2)
    bias = base.visible_bias.detach().cpu().double()  # Apple's GPUs have no float64
    return base, base.visible_log_partition(bias[None]).item() + hidden


def tempered(base: RBM, rbm: RBM, beta: float) -> RBM:
    """The RBM of energy (1 - beta) E_base + beta E, of (v, h); notes/07 eq. (7.54)."""
    pairs = zip(base.parameters(), rbm.parameters(), strict=True)
    return RBM(*(start.lerp(end, beta) for start, end in pairs), rbm.num_classes)


@torch.no_grad()
def annealed_importance_sampling(path: Iterator[RBM], v: Tensor) -> tuple[Tensor, Tensor]:
    """Lead samples v of the first RBM of a path to its last: log weights (N,) nats, and v there.

    The mean of the weights is an unbiased estimate of Z_last / Z_first, however short the path.
    notes/07 eq. (7.46), (7.47). Neal (2001), arXiv:physics/9803008; for RBMs Salakhutdinov &
    Murray (2008), On the quantitative analysis of deep belief networks, ICML.
    """
    now = next(path)
    log_weights = torch.zeros(len(v), dtype=torch.float64)
    for after in path:
        log_weights += (now(v) - after(v)).cpu()  # log of exp(-F_after) / exp(-F_now)
        v = gibbs(after, v)
        now = after
    return log_weights, v


def log_mean_with_error(log_w: Tensor) -> tuple[float, float]:
    """log of the mean of weights w (N,), and its standard error, nats; notes/07 eq. (7.56)."""
    relative = (log_w - log_w.max()).exp()
    error = relative.std() / relative.mean() / math.sqrt(len(log_w))
    return (log_w.max() + relative.mean().log()).item(), error.item()


@torch.no_grad()
def grid_log_masses(
    log_prob: LogProb, bounds: tuple[float, ...], side: int = 500
) -> tuple[Tensor, float]:
    """Log of the mass of each cell of a grid over the window, (side^2,), and of all, nats."""
    x_low, x_high, y_low, y_high = bounds
    share = (torch.arange(side) + 0.5) / side
    x = torch.cartesian_prod(x_low + (x_high - x_low) * share, y_low + (y_high - y_low) * share)
    area = (x_high - x_low) * (y_high - y_low) / side**2
    mass = log_prob(x).double() + math.log(area)
    return mass, torch.logsumexp(mass, dim=0).item()


# training


class ReplayBuffer(nn.Module):
    """The states of many chains, which go on where they ended when they were last drawn.

    A share of those drawn starts anew at `fresh(n)`, so that ways from noise stay known; notes/07
    eq. (7.69). Tieleman (2008), Training restricted Boltzmann machines using approximations to the
    likelihood gradient, ICML; with a share of new ones Du & Mordatch (2019), arXiv:1903.08689.

    A module, so that a checkpoint holds the states. Under torchrun each process has a buffer of its
    own; after --resume all start from the first one's.
    """

    states: Tensor

    def __init__(self, fresh: Callable[[int], Tensor], size: int, share: float) -> None:
        super().__init__()
        self.fresh, self.share = fresh, share
        self.register_buffer("states", fresh(size))

    def draw(self, n: int) -> tuple[Tensor, Tensor]:
        """Which chains were drawn, (n,), and their states (n, ...)."""
        index = torch.randperm(len(self.states), device=self.states.device)[:n]
        x = self.states[index]
        anew = torch.rand(n, device=x.device) < self.share
        x[anew] = self.fresh(int(anew.sum())).to(x)
        return index, x

    def put_back(self, index: Tensor, x: Tensor) -> None:
        """Keep where the chains ended."""
        self.states[index] = x


def train_with_samples(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    data: tuple[Tensor, ...],
    *,
    prepare: Callable[[Tensor, Tensor], Tensor],
    fresh: Callable[[int], Tensor],
    walk: Callable[[nn.Module, Tensor], Tensor],
    picture: Callable[[Tensor], Tensor],
    run: utils.Run,
) -> nn.Module:
    """Minimise -log p by its gradient, data minus model, the model's part from short chains.

    They start at the data (cd), where they last ended (pcd) or at noise (short-run); notes/07 eq.
    (7.16), (7.37).

    Args:
        data: Examples, and their labels if they have any.
        prepare: From a batch (x, y) to what the energy takes.
        fresh: n states at which new chains start, far from the data.
        walk: From the model and the states of chains to those a few steps later.
        picture: Of states, for the film of the training.

    Returns:
        The model with the moving average of its weights: in each step they flee from where the
        chains are just now, and the average does not.
    """
    config, averaged = run.config, copy.deepcopy(model)
    size = config.chains if config.training == "pcd" else 0
    chains = ReplayBuffer(fresh, size, config.restart).to(run.device)
    run.keep(model=model, optimizer=optimizer, chains=chains, ema=averaged)
    net = run.data_parallel(model)
    for x, y in run.batches(*data):
        for group in optimizer.param_groups:
            group["lr"] = run.trapezoid(config.lr)
        x = prepare(x, y)
        if config.training == "pcd":
            index, start = chains.draw(len(x))
        else:
            start = x if config.training == "cd" else fresh(len(x)).to(x)
        with run.autocast():
            x_model = walk(model, start)
        with run.autocast():
            real, fake = net(torch.cat([x, x_model])).chunk(2)
        if config.training == "pcd":
            chains.put_back(index, x_model)
        loss = contrastive_loss(real, fake, config.energy_penalty)
        optimizer.zero_grad()
        loss.backward()
        grad_norm = nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        optimizer.step()
        decay = min(config.ema, run.step / (run.step + 10))  # a young average forgets its start
        utils.update_ema(averaged, model, decay)
        run.log(energy_data=real.mean(), energy_model=fake.mean(), grad_norm=grad_norm)
        if run.time_to_look():
            run.show(picture(x_model))
    return averaged


def train_without_samples(
    model: nn.Module,
    loss_of: Callable[[nn.Module, Tensor], Tensor],
    points: Tensor,
    look: Callable[[], Tensor],
    run: utils.Run,
) -> None:
    """Minimise a loss that needs neither Z nor samples of the model: score matching or NCE.

    Always in float32: of second derivatives bfloat16 leaves mostly noise.
    """
    optimizer = torch.optim.Adam(model.parameters(), lr=run.config.lr, betas=(0.9, 0.99))
    run.keep(model=model, optimizer=optimizer)
    net = run.data_parallel(model)
    for x, _ in run.batches(points):
        optimizer.param_groups[0]["lr"] = run.trapezoid(run.config.lr)
        loss = loss_of(net, x).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        run.log(**{run.config.training: loss})
        if run.time_to_look():
            run.show(look())


# --- Experiment ---------------------------------------------------------------------


DEFAULTS = {
    "rbm": {"dataset": "mnist5k", "training": "pcd", "epochs": 350, "batch_size": 64, "lr": 0.05}
    | {"sampling_steps": 500, "restart": 0.0, "energy_penalty": 0.0, "clip": 100.0}
    | {"ema": 0.999},
    "conv": {"dataset": "mnist5k", "training": "pcd", "epochs": 36, "batch_size": 64, "lr": 1e-3}
    | {"sampling_steps": 200, "chains": 4096, "restart": 0.05, "energy_penalty": 0.1, "clip": 0.1}
    | {"width": 32, "langevin_steps": 10, "step_size": 20.0, "temperature": 1e-6, "sigma": 0.01}
    | {"ema": 0.99},
    "score": {"dataset": "moons", "training": "dsm", "epochs": 30, "batch_size": 512, "lr": 2e-3}
    | {"sampling_steps": 1000, "chains": 4096, "restart": 0.01, "energy_penalty": 0.0, "clip": 1.0}
    | {"width": 128, "langevin_steps": 20, "step_size": 5e-3, "temperature": 1.0, "sigma": 0.05}
    | {"ema": 0.99},
}
WALKS = ("pcd", "cd", "short-run")
TRAININGS = {"rbm": WALKS, "conv": WALKS, "score": ("dsm", "ssm", "nce", *WALKS)}


@dataclass(frozen=True)
class Config(utils.Config):
    """Train an energy-based model of pictures or of points in the plane; measure and draw."""

    model: Literal["rbm", "conv", "score"] = "rbm"
    """A restricted Boltzmann machine, a convolutional energy, or an energy in the plane."""
    training: Literal["pcd", "cd", "short-run", "dsm", "ssm", "nce"] | None = None
    """With samples of the model, from chains that start where they last ended (pcd, unless given),
    at the data (cd) or at noise (short-run). score also without: denoising (dsm, unless given) or
    sliced score matching (ssm), noise-contrastive estimation (nce)."""
    dataset: str | None = None
    """Pictures as in every chapter, mnist5k unless given; score: a density in the plane, moons."""
    epochs: int | None = None
    """Passes over the training set; 350 unless given (conv 36, score 30)."""
    batch_size: int | None = None
    """Examples a step, and chains; 64 unless given, 512 in the plane."""
    lr: float | None = None
    """Peak rate: rbm 0.05 (plain descent), conv 1e-3, score 2e-3 (Adam) unless given; warm-up,
    flat, a line to 0 over the last 30%."""
    hidden: int = 500
    """rbm: hidden units. Up to 20, log Z is exact."""
    labels: bool = True
    """rbm: whether the label is a part of v, so that it can be asked for and predicted."""
    gibbs_steps: int = 5
    """rbm: k, steps of the chains between two updates."""
    weight_decay: float = 3e-3
    """rbm: pull of its weights towards 0: with smaller ones chains move more freely, and log Z can
    be estimated."""
    width: int | None = None
    """Channels of conv's first layer, 32 unless given; units of score's layers, 128."""
    langevin_steps: int | None = None
    """conv and score with pcd, cd, short-run: steps of the chains between two updates; 10 unless
    given, 20 in the plane."""
    step_size: float | None = None
    """conv and score: step size of Langevin dynamics; 20 unless given, 0.005 in the plane."""
    temperature: float | None = None
    """conv and score: variance of its noise relative to the step; 1 is p itself, and conv's 1e-6
    looks for low energy rather than for samples of p."""
    sigma: float | None = None
    """Noise on the data of conv, 0.01 unless given, and of dsm, 0.05; the others have none."""
    energy_penalty: float | None = None
    """pcd, cd, short-run: weight of the squared energies; conv 0.1 unless given, others 0."""
    clip: float | None = None
    """pcd, cd, short-run: longest gradient of all weights together; rbm 100, conv 0.1, score 1
    unless given."""
    chains: int | None = None
    """pcd: chains that are kept, at least --batch-size; as many unless given, conv and score
    4,096."""
    restart: float | None = None
    """pcd: share of the chains that start anew each time; 0 unless given, conv 0.05, score 0.01."""
    ema: float | None = None
    """pcd, cd, short-run: decay of the average of the weights, which is what is measured and drawn
    from; 0.99 unless given, rbm 0.999."""
    sampling_steps: int | None = None
    """Steps from noise to samples; rbm 500, conv 200, score 1,000 unless given."""
    ais_chains: int = 100
    """rbm: chains of annealed importance sampling."""
    ais_temperatures: int = 5000
    """rbm: its models between independent pixels and the RBM."""

    def __post_init__(self) -> None:
        self.fill(DEFAULTS.get(self.model, {}))
        super().__post_init__()
        self.fill({"chains": self.batch_size})  # rbm: every chain walks at every step
        if self.training == "pcd":
            utils.check_number("chains", self.chains, at_least=self.batch_size)
        at_least = {"hidden": 1, "gibbs_steps": 1, "sampling_steps": 1}
        at_least |= {"ais_chains": 2, "ais_temperatures": 1, "energy_penalty": 0, "weight_decay": 0}
        if self.model != "rbm":
            at_least |= {"width": 1, "langevin_steps": 1, "temperature": 0, "sigma": 0}
            utils.check_number("step_size", self.step_size, above=0)
        for name, least in at_least.items():
            utils.check_number(name, getattr(self, name), at_least=least)
        utils.check_number("restart", self.restart, at_least=0, below=1)
        utils.check_number("ema", self.ema, at_least=0, below=1)
        utils.check_number("clip", self.clip, above=0)
        if self.training not in TRAININGS[self.model]:
            raise utils.UserError(
                f"--training: expected one of {', '.join(TRAININGS[self.model])} for --model "
                f"{self.model}, got {self.training}: score matching and NCE are for --model score"
            )
        if self.training == "dsm":
            utils.check_number("sigma", self.sigma, above=0)  # without noise nothing is learned
        if (self.model == "score") != (self.dataset in utils.DENSITIES):
            kind = "a density in the plane" if self.model == "score" else "pictures"
            raise utils.UserError(
                f"--model {self.model}: expected {kind}, got --dataset {self.dataset}; the "
                f"densities are {', '.join(utils.DENSITIES)}, for --model score"
            )
        if self.quick:
            for name, most in (("sampling_steps", 50), ("langevin_steps", 5), ("epochs", 5)):
                value = getattr(self, name)
                object.__setattr__(self, name, value if value is None else min(value, most))
            object.__setattr__(self, "ais_temperatures", min(self.ais_temperatures, 100))


def mean_and_error(values: Tensor, name: str) -> Metrics:
    """Mean of values (N,), and its standard error."""
    error = values.std().item() / math.sqrt(len(values))
    return {name: values.mean().item(), f"{name}_standard_error": error}


def along(x: Tensor, walk: Callable[[Tensor, int], Tensor], steps: int) -> dict[int, Tensor]:
    """States of chains that start at x, at some 30 times up to `steps`, closer at the start."""
    times = sorted({round(steps * (i / 30) ** 2) for i in range(31)})
    states = {0: x}
    for before, now in pairwise(times):
        states[now] = walk(states[before], now - before)
    return states


def show_chains(states: dict[int, Tensor], run: utils.Run) -> None:
    """Chains from noise, pictures (N, C, H, W) by step: as a film, and some of them as strips."""
    labels = [f"step {step}" for step in states]
    utils.animation(list(states.values()), run.path("chains.gif"), labels=labels)
    some = torch.linspace(0, len(states) - 1, min(len(states), 11)).long().tolist()
    ticks = [list(states)[i] for i in some]
    shown = torch.stack([states[step][:6] for step in ticks], dim=1)  # (6, T, C, H, W)
    rows = {f"chain {i}" if len(shown) > 1 else "": row for i, row in enumerate(shown, 1)}
    how = {"xlabel": "step", "title": "From noise, step by step", "ticks": ticks}
    utils.strips(rows, run.path("chains.png"), **how)


# the RBM


def build_rbm(v: Tensor, hidden: int, num_classes: int) -> RBM:
    """An RBM that knows how often each unit is on, v (N, V), and has weights near 0."""
    weight = 0.01 * torch.randn(v.shape[1], hidden)
    return RBM(weight, bias_of_frequencies(v, num_classes), torch.zeros(hidden), num_classes)


def free_energies(rbm: RBM, x: Tensor) -> Tensor:
    """F(x, y) of binary pixels x (B, D) with every label, (B, K) nats; notes/07 eq. (7.31).

    (B, 1) without labels.
    """
    labels = torch.eye(rbm.num_classes).to(x) if rbm.num_classes else x.new_zeros(1, 0)
    v = [torch.cat([x, label.expand(len(x), -1)], dim=1) for label in labels]
    return torch.stack([rbm(part) for part in v], dim=1)


def log_partition(rbm: RBM, v: Tensor, samples: Tensor, config: Config) -> Metrics:
    """log Z by annealing from independent pixels to the RBM, with its 95% interval; and back.

    Back from samples of the RBM the estimate is too high on average, where the way there is too
    low, as far as those samples are the RBM's; notes/07 eq. (7.58). Up to 20 hidden units the exact
    value stands beside.
    """
    base, base_log_z = base_model(v, rbm)
    betas = torch.linspace(0, 1, config.ais_temperatures + 1, dtype=torch.float64)

    def path(betas: Tensor) -> Iterator[RBM]:
        return (tempered(base, rbm, beta) for beta in betas.tolist())

    start, end = draw_base(base, config.ais_chains), samples[: config.ais_chains].to(rbm.weight)
    there, error = log_mean_with_error(annealed_importance_sampling(path(betas), start)[0])
    back, _ = log_mean_with_error(annealed_importance_sampling(path(betas.flip(0)), end)[0])
    log_z = base_log_z + there  # there: log Z / Z_base; back: log Z_base / Z
    exact = {}
    if config.hidden <= 20:
        exact = {"log_partition_nats_exact": log_partition_exact(rbm).item()}
    return exact | {
        "log_partition_nats": log_z,
        "log_partition_nats_low": log_z - 1.96 * error,
        "log_partition_nats_high": log_z + 1.96 * error,
        "log_partition_nats_reverse": base_log_z - back,
    }


def likelihood(rbm: RBM, test: Tensor, train: Tensor, labels: Tensor, log_z: Metrics) -> Metrics:
    """-log p(x) of binary pixels (N, D) of test and training; are the test labels predicted?"""
    best = log_z.get("log_partition_nats_exact", log_z["log_partition_nats"])

    def of(x: Tensor) -> Tensor:  # F(x, y), (N, K)
        return utils.in_parts(rbm, partial(free_energies, rbm), x)[0]

    test, train = of(test), of(train)
    metrics = mean_and_error(best - torch.logsumexp(-test, dim=1), "test_nll_nats")
    metrics["train_nll_nats"] = (best - torch.logsumexp(-train, dim=1)).mean().item()
    if rbm.num_classes:
        correct = (test.argmin(dim=1) == labels).float().mean().item()
        metrics["test_accuracy_by_free_energy"] = correct
    for end in ("low", "high"):  # what the interval of log Z leaves open
        value = log_z.get("log_partition_nats_exact", log_z[f"log_partition_nats_{end}"])
        metrics[f"test_nll_nats_{end}"] = metrics["test_nll_nats"] + value - best
    return metrics | log_z


def show_rbm(rbm: RBM, v: Tensor, fresh: Callable, picture: Callable, run: utils.Run) -> None:
    """Filters, reconstructions, and pictures of which only the left half was given."""
    strongest = rbm.weight.norm(dim=0).topk(min(64, rbm.weight.shape[1])).indices
    filters = picture(rbm.weight.detach().T[strongest].cpu())
    title = "Weights of hidden units: a white pixel turns the unit on, a black one off"
    filters = (filters / filters.abs().quantile(0.998) / 2 + 0.5).clamp(0, 1)
    utils.image_grid(filters, run.path("filters.png"), columns=8, title=title)

    def mean(v: Tensor) -> Tensor:
        return rbm.visible_mean(rbm.draw_hidden(v))

    rows = {"test images": picture(v), "one step later": picture(utils.in_parts(rbm, mean, v)[0])}
    title = "Pixel means of p(v|h) with h drawn from p(h|v)"
    utils.image_rows(rows, run.path("reconstructions.png"), title=title)
    half = torch.zeros_like(picture(v)[0], dtype=torch.bool)
    half[..., : half.shape[-1] // 2] = True
    known = torch.cat([half.flatten(), torch.zeros(rbm.num_classes, dtype=torch.bool)])
    rows = {"test images": picture(v), "given": picture(torch.where(known, v, 0.5))}
    for i in range(3):
        start = torch.where(known, v, fresh(len(v)).cpu())
        fill = partial(gibbs, rbm, steps=run.config.sampling_steps, known=known.to(run.device))
        filled = utils.in_parts(rbm, lambda v, fill=fill: mean(fill(v)), start)[0]
        rows[f"filled in {i + 1}"] = picture(torch.where(known, v, filled))
    title = "The right half drawn given the left one, each from another start"
    utils.image_rows(rows, run.path("inpainting.png"), title=title)


def draw_base(base: RBM, n: int) -> Tensor:
    """n samples (n, V) of an RBM without weights."""
    return base.draw_visible(base.hidden_bias.new_zeros(n, len(base.hidden_bias)))


def boltzmann_machine(config: Config, run: utils.Run) -> None:
    """Train an RBM on black and white pictures; measure, draw, fill in, classify."""
    data = utils.load_images(config.dataset, config.data_root, quick=config.quick)
    if data.image_shape[0] > 1:
        raise utils.UserError(
            f"--model rbm: expected grey pictures, which can be made black and white, got "
            f"{data.image_shape[0]} channels: use --model conv"
        )
    num_classes = len(data.class_names) if config.labels else 0

    def prepare(x: Tensor, y: Tensor) -> Tensor:
        v = flip(x).flatten(1)
        return torch.cat([v, F.one_hot(y, num_classes)], dim=1) if num_classes else v

    def picture(v: Tensor) -> Tensor:
        return v[:, : math.prod(data.image_shape)].cpu().view(-1, *data.image_shape)

    v_train = prepare(data.train, data.train_labels)
    rbm = build_rbm(v_train, config.hidden, num_classes).to(run.device)
    base, _ = base_model(v_train, rbm)
    fresh = partial(draw_base, base)
    decayed = {"params": [rbm.weight], "weight_decay": config.weight_decay}
    biases = {"params": [rbm.visible_bias, rbm.hidden_bias]}
    optimizer = torch.optim.SGD([decayed, biases], lr=config.lr, momentum=0.5)
    walk = partial(gibbs, steps=config.gibbs_steps)
    how = {"prepare": prepare, "fresh": fresh, "walk": walk, "run": run}
    how["picture"] = lambda v: picture(v[:64])
    rbm = train_with_samples(rbm, optimizer, (data.train, data.train_labels), **how)
    if run.rank:
        return  # under torchrun only the first process evaluates and writes
    test = flip(data.test).flatten(1)  # drawn first: the same pixels for every model of a seed
    train = flip(data.train[: len(test)]).flatten(1)
    n, steps = config.num_samples, config.sampling_steps
    start = fresh(n)
    if num_classes:  # all labels equally often at the start
        start[:, rbm.pixels :] = F.one_hot(torch.arange(n) % num_classes, num_classes)

    def go(v: Tensor, steps: int = steps, known: Tensor | None = None) -> Tensor:
        return utils.in_parts(rbm, lambda v: gibbs(rbm, v, steps, known), v)[0]

    def means(v: Tensor) -> Tensor:
        return picture(utils.in_parts(rbm, lambda v: rbm.visible_mean(rbm.draw_hidden(v)), v)[0])

    begin = time.perf_counter()
    ended = go(start)
    seconds = time.perf_counter() - begin
    samples = means(ended)
    run.save_samples(samples, title=f"After {steps} Gibbs steps from noise: pixel means")
    states = along(start[:64], go, steps)
    show_chains({t: means(v) if t else picture(v) for t, v in states.items()}, run)
    if num_classes:
        label = torch.arange(num_classes).repeat_interleave(8)
        v = fresh(len(label))
        v[:, rbm.pixels :] = F.one_hot(label, num_classes)
        known = torch.arange(v.shape[1], device=v.device) >= rbm.pixels
        title = "Each row a label, which was held fixed"
        pictures = means(go(v, steps, known))
        utils.image_grid(pictures, run.path("classes.png"), columns=8, title=title)
    show_rbm(rbm, prepare(data.test[:10], data.test_labels[:10]), fresh, picture, run)
    names = "energy_data", "energy_model"
    run.draw_history(*names, ylabel="free energy, nats", title=f"Training: {config.training}")
    log_z = log_partition(rbm, v_train, ended, config)
    run.finish(
        **likelihood(rbm, test, train, data.test_labels, log_z),
        **utils.sample_quality(samples, data),
        seconds_per_1000_samples=1000 * seconds / n,
    )


# the deep energy


def deep_energy(config: Config, run: utils.Run) -> None:
    """Train a convolutional energy on pictures; draw by Langevin dynamics, compare energies."""
    data = utils.load_images(config.dataset, config.data_root, quick=config.quick)
    model = ConvEnergy(data.image_shape, config.width)
    model = model.to(run.device, memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.lr, betas=(0.0, 0.99))  # no momentum
    how = {"step_size": config.step_size, "temperature": config.temperature, "box": (0.0, 1.0)}

    def prepare(x: Tensor, y: Tensor) -> Tensor:
        return (x + config.sigma * torch.randn_like(x)).clamp(0, 1)

    def fresh(n: int) -> Tensor:
        return torch.rand(n, *data.image_shape)

    def walk(model: nn.Module, x: Tensor, steps: int = config.langevin_steps) -> Tensor:
        with run.autocast():
            return langevin(model, x, steps, **how)

    loop = {"prepare": prepare, "fresh": fresh, "walk": walk, "run": run}
    loop["picture"] = lambda x: x[:64].cpu()
    model = train_with_samples(model, optimizer, (data.train,), **loop)
    if run.rank:
        return

    def go(x: Tensor, steps: int = config.sampling_steps) -> Tensor:
        return utils.in_parts(model, partial(walk, model, steps=steps), x)[0]

    start, begin = fresh(config.num_samples), time.perf_counter()
    samples = go(start)
    seconds = time.perf_counter() - begin
    run.save_samples(samples, title=f"After {config.sampling_steps} Langevin steps from noise")
    show_chains(along(start[:64], go, 5 * config.sampling_steps), run)
    names = "energy_data", "energy_model"
    panels = {"energy": names, "gradient of the weights": ["grad_norm"]}
    run.draw_histories(panels, title=f"Training: {config.training}")
    kinds = {"train": data.train[:1000], "test": data.test[:1000], "samples": samples[:1000]}
    run.finish(
        **{
            f"energy_{k}": utils.in_parts(model, model, x)[0].mean().item()
            for k, x in kinds.items()
        },
        **utils.sample_quality(samples, data),
        seconds_per_1000_samples=1000 * seconds / len(samples),
    )


# energies in the plane


def plane(config: Config, run: utils.Run) -> None:
    """Train an energy of points; Z is summed on a grid, so the distance to the truth is known."""
    density = utils.density(config.dataset)
    points = density.sample(2_000 if config.quick else 100_000)
    x_low, x_high, y_low, y_high = density.bounds
    reach = max(x_high - x_low, y_high - y_low) / 2
    model = PlaneEnergy(config.width, radius=reach).to(run.device)

    def fresh(n: int) -> Tensor:
        return reach / 2 * torch.randn(n, 2)

    def walk(model: nn.Module, x: Tensor, steps: int = config.langevin_steps) -> Tensor:
        return langevin(model, x, steps, config.step_size, config.temperature)

    def go(x: Tensor, steps: int = config.sampling_steps) -> Tensor:
        return utils.in_parts(model, partial(walk, model, steps=steps), x, rows=10_000)[0]

    def picture(x: Tensor) -> Tensor:
        return utils.cloud(x.cpu(), density.bounds)

    if config.training in ("dsm", "ssm", "nce"):
        loss_of = matching_loss(model, points.to(run.device), config)
        probe = fresh(2000)
        look = lambda: picture(go(probe, 100))
        train_without_samples(model, loss_of, points, look, run)
    else:
        optimizer = torch.optim.Adam(model.parameters(), lr=config.lr, betas=(0.9, 0.99))
        how = {"prepare": lambda x, y: x, "fresh": fresh, "walk": walk, "picture": picture}
        model = train_with_samples(model, optimizer, (points,), **how, run=run)
    if run.rank:
        return
    begin = time.perf_counter()
    samples = go(fresh(config.num_samples))
    seconds = time.perf_counter() - begin
    run.save_points(samples)
    states = along(fresh(2000), go, config.sampling_steps)
    show_chains({step: picture(x) for step, x in states.items()}, run)
    window = x_low - reach, x_high + reach, y_low - reach, y_high + reach
    log_z, kl = compare_on_grid(model, density.log_prob, window)
    if kl > 0.5 and config.training in ("dsm", "ssm"):
        print(
            f"the density is far off, {kl:.3g} nats: slopes do not say how much each of separate "
            "groups weighs, nor what is where no data are. Try --training nce"
        )

    def log_prob(x: Tensor) -> Tensor:
        return -utils.in_parts(model, model, x, rows=10_000)[0] - log_z

    test = density.sample(20_000)
    clouds = {"data": test[: len(samples)], config.training: samples}
    utils.scatter_2d(clouds, run.path("samples.png"), bounds=density.bounds)
    panels = {"true density": density.log_prob, config.training: log_prob}
    utils.density_2d(panels, run.path("density.png"), bounds=density.bounds)
    fields = {"score of the model": partial(score, lambda x: model(x.to(run.device)).cpu())}
    if config.dataset != "checkerboard":  # flat on its squares, infinite on their edges
        fields = {"score of the data": partial(score, lambda x: -density.log_prob(x))} | fields
    how = {"bounds": density.bounds, "log_prob": density.log_prob}
    utils.vector_field_2d(fields, run.path("score.png"), **how)
    logged = {"loss": [config.training], "energy": ["energy_data", "energy_model"]}
    run.draw_histories(logged, title=f"Training: {config.training}")
    learned = getattr(model, "log_partition", None)  # only nce has it
    run.finish(
        **({} if learned is None else {"log_partition_learned_nats": learned.item()}),
        log_partition_nats=log_z,
        kl_from_data_nats=kl,
        **mean_and_error(-log_prob(test), "test_nll_nats"),
        entropy_nats=density.entropy,
        seconds_per_1000_samples=1000 * seconds / len(samples),
    )


def matching_loss(
    model: PlaneEnergy, points: Tensor, config: Config
) -> Callable[[nn.Module, Tensor], Tensor]:
    """The loss (B,) of the energy at points (B, 2) that `config.training` names."""
    if config.training == "dsm":
        return partial(denoising_score_matching, sigma=config.sigma)
    if config.training == "ssm":
        return sliced_score_matching
    model.log_partition = nn.Parameter(torch.zeros((), device=points.device))
    noise = torch.distributions.MultivariateNormal(points.mean(dim=0), points.T.cov())
    return lambda net, x: noise_contrastive(net, model.log_partition, x, noise)


def compare_on_grid(
    model: nn.Module, log_prob: LogProb, window: tuple[float, ...]
) -> tuple[float, float]:
    """log Z of the energy, and KL(truth || model), both nats, as sums over a grid."""
    log_q, log_z = grid_log_masses(
        lambda x: -utils.in_parts(model, model, x, rows=50_000)[0], window
    )
    log_p, total = grid_log_masses(log_prob, window)
    there = log_p > -100  # elsewhere 0 log 0 = 0
    log_p, log_q = log_p[there] - total, log_q[there] - log_z
    return log_z, (log_p.exp() * (log_p - log_q)).sum().item()


def main(config: Config) -> None:
    """Train the model that was asked for, then measure and draw."""
    run = utils.start(config, __file__)
    {"rbm": boltzmann_machine, "conv": deep_energy, "score": plane}[config.model](config, run)


if __name__ == "__main__":
    utils.cli(main, Config)
