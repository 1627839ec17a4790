"""Diffusion model (DDPM): drown data in noise step by step, and learn to go back.

    q(x_t | x_0) = N( sqrt(alpha_bar_t) x_0, (1 - alpha_bar_t) I ),   t = 0...T-1, nothing to learn
    loss         = E | eps - eps_hat(x_t, t) |^2,   x_t = sqrt(alpha_bar_t) x_0 + noise_t eps
    sampling     = start from pure noise; at each t guess x_0, and step to a slightly cleaner x_s

    "t = -1" is clean data: alpha_bar = 1. signal_t = sqrt(alpha_bar_t), noise_t^2 = 1 - alpha_bar_t

Shapes:  B examples a batch, C x H x W pixels in [-1, 1] (or 2 coordinates), T noise levels.
Paper:   Ho et al. (2020), Denoising diffusion probabilistic models, arXiv:2006.11239. Other papers
         stand beside their code.
Run:     python code_examples/04_diffusion_models.py
         python code_examples/04_diffusion_models.py --model conditional --guidance 2
         python code_examples/04_diffusion_models.py --dataset moons
Expect:  TODO
"""

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if __package__:  # imported: from code_examples import diffusion
    from . import utils
else:  # run: python code_examples/04_diffusion_models.py
    import utils

Metrics, Shape = dict[str, float | int | str], tuple[int, int, int]
# From x_t (B, ...) and t to guesses of x_0 and eps, both (B, ...).
Denoise = Callable[[Tensor, int], tuple[Tensor, Tensor]]
# What a sampler yields after each step: x at the new time, and the x_0 it was made with.
Path = Iterator[tuple[Tensor, Tensor]]

# --- Model --------------------------------------------------------------------------


def make_schedule(name: str, timesteps: int) -> Tensor:
    """alpha_bar (T,) float64: the share of x_t's variance that is data, falling with t.

    linear: beta from 1e-4 to 0.02 at T = 1000, Ho et al. (2020). cosine: alpha_bar falls like
    cos^2, Nichol & Dhariwal (2021), arXiv:2102.09672. sigmoid: Chen (2023), arXiv:2301.10972.
    geometric: noise of 0.01 to 50 times the data, for `score`; Song & Ermon (2019).
    notes/04 section 2.3.
    """
    u = (torch.arange(timesteps, dtype=torch.float64) + 1) / timesteps  # (0, 1]
    if name == "linear":
        beta = (1000 / timesteps) * torch.linspace(1e-4, 0.02, timesteps, dtype=torch.float64)
        alpha_bar = torch.cumprod(1 - beta.clamp(max=0.999), dim=0)
    elif name == "cosine":
        alpha_bar = torch.cos(0.5 * math.pi * (u + 0.008) / 1.008).square()
    elif name == "sigmoid":
        low, high = (torch.tensor(v, dtype=torch.float64).sigmoid() for v in (-3.0, 3.0))
        alpha_bar = (high - (6 * u - 3).sigmoid()) / (high - low)
    else:
        sigma = 0.01 * 5000 ** torch.linspace(0, 1, timesteps, dtype=torch.float64)
        return 1 / (1 + sigma.square())
    return 1e-4 + 0.9998 * alpha_bar  # neither signal nor noise is ever 0: both are divided by


class Schedule:
    """alpha_bar for t = 0...T-1, and what follows from it; t = -1 stands for clean data.

    Args:
        alpha_bar: (T,), falling, in (0, 1).
    """

    def __init__(self, alpha_bar: Tensor) -> None:
        self.alpha_bar = alpha_bar.double()
        clean_first = torch.cat([torch.ones(1, dtype=torch.float64), self.alpha_bar])
        self.signals, self.noises = clean_first.sqrt(), (1 - clean_first).sqrt()

    def __len__(self) -> int:
        return len(self.alpha_bar)

    def at(self, t: int | Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """signal_t and noise_t, each (B, 1, ...), one for each example, to multiply `like` with."""
        index = torch.as_tensor(t, device=like.device) + 1
        shape = [-1] + [1] * (like.ndim - 1)
        signal, noise = (
            table.to(like.dtype).to(like.device)[index].view(shape)
            for table in (self.signals, self.noises)
        )
        return signal, noise

    def times(self, steps: int) -> list[int]:
        """Where a sampler of so many steps stops: from T-1 evenly down to 0, and -1, clean."""
        grid = torch.linspace(len(self) - 1, -1, min(steps, len(self)) + 1, dtype=torch.float64)
        return grid.round().long().tolist()


def time_embedding(t: Tensor, size: int) -> Tensor:
    """Sines and cosines of t (B,) at size / 2 frequencies from 1 to 1/10,000, (B, size)."""
    frequency = 10_000 ** (-torch.arange(0, size, 2, device=t.device) / size)
    angle = t[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=1)


class Condition(nn.Module):
    """What the network is told besides x_t: the time, and the label if num_classes is not 0.

    Returns (B, width). Label num_classes means "not told", for classifier-free guidance.
    """

    def __init__(self, width: int, timesteps: int, num_classes: int = 0) -> None:
        super().__init__()
        self.width, self.timesteps = width, timesteps
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.labels = nn.Embedding(num_classes + 1, width) if num_classes else None

    def forward(self, t: Tensor, y: Tensor | None) -> Tensor:
        known = time_embedding(t * (1000 / self.timesteps), self.width)
        h = self.mlp(known.to(self.mlp[0].weight.dtype))
        return F.silu(h if self.labels is None else h + self.labels(y))


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of each place of (B, C, H, W).

    In the memory format channels_last they lie side by side, and nothing has to be moved.
    """

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ResBlock(nn.Module):
    """x plus two convolutions of x, scaled and shifted between them by the condition."""

    def __init__(self, channels: int, cond_size: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.film = nn.Linear(cond_size, 2 * channels)
        nn.init.zeros_(self.conv2.weight)  # a new block changes nothing: deep networks start easily

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        scale, shift = self.film(cond)[:, :, None, None].chunk(2, dim=1)
        h = self.conv1(F.silu(self.norm(x))) * (1 + scale) + shift
        return x + self.conv2(F.silu(h))


class Attention(nn.Module):
    """Each place looks at all others: x plus multi-head self-attention over its H W places."""

    def __init__(self, channels: int, heads: int = 4) -> None:
        super().__init__()
        self.heads, self.norm = heads, ChannelNorm(channels)
        self.qkv, self.out = nn.Conv2d(channels, 3 * channels, 1), nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        qkv = self.qkv(self.norm(x)).view(b, 3, self.heads, c // self.heads, h * w)
        q, k, v = qkv.unbind(1)  # each (B, heads, C / heads, H W)
        weights = (q.transpose(-1, -2) @ k * (c // self.heads) ** -0.5).softmax(dim=-1)
        mixed = v @ weights.transpose(-1, -2)  # row i of weights: where place i looks
        return x + self.out(mixed.reshape(b, c, h, w))


class UNet(nn.Module):
    """x_t (B, C, H, W), t (B,) and labels (B,) to an output of x_t's shape.

    2 x 2 pixels become channels first, and most multiplications are spent at a quarter of the
    resolution, where a CPU is fastest. The skip connection keeps the detail.
    """

    def __init__(
        self, shape: Shape, width: int, timesteps: int, num_classes: int = 0, inner_blocks: int = 3
    ) -> None:
        super().__init__()
        channels, inner, self.shape = shape[0], 2 * width, shape
        self.condition = Condition(inner, timesteps, num_classes)
        self.inlet = nn.Conv2d(4 * channels, width, 3, padding=1)
        self.before = ResBlock(width, inner)
        self.down = nn.Conv2d(width, inner, 3, stride=2, padding=1)
        self.inner = nn.ModuleList([ResBlock(inner, inner) for _ in range(inner_blocks)])
        self.attention = Attention(inner)
        self.up = nn.Conv2d(inner, 4 * width, 1)
        self.join = nn.Conv2d(2 * width, width, 1)
        self.after = ResBlock(width, inner)
        self.outlet = nn.Sequential(
            ChannelNorm(width), nn.SiLU(), nn.Conv2d(width, 4 * channels, 3, padding=1)
        )

    def forward(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        height, wide = self.shape[1:]
        cond = self.condition(t, y)
        x = F.pad(x_t, (0, -wide % 4, 0, -height % 4))
        skip = self.before(self.inlet(F.pixel_unshuffle(x, 2)), cond)  # (B, width, H/2, W/2)
        h = self.down(skip)  # (B, 2 width, H/4, W/4)
        for i, block in enumerate(self.inner):
            h = block(h, cond)
            if i == 0:
                h = self.attention(h)
        h = self.join(torch.cat([F.pixel_shuffle(self.up(h), 2), skip], dim=1))
        h = self.outlet(self.after(h, cond))
        return F.pixel_shuffle(h, 2)[..., :height, :wide]


class PlaneNet(nn.Module):
    """The same for points (B, 2): residual blocks of linear layers."""

    def __init__(self, width: int, timesteps: int, blocks: int = 3) -> None:
        super().__init__()
        self.condition = Condition(width, timesteps)
        self.inlet, self.outlet = nn.Linear(2, width), nn.Linear(width, 2)
        self.first = nn.ModuleList([nn.Linear(width, width) for _ in range(blocks)])
        self.film = nn.ModuleList([nn.Linear(width, 2 * width) for _ in range(blocks)])
        self.second = nn.ModuleList([nn.Linear(width, width) for _ in range(blocks)])

    def forward(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        h, cond = self.inlet(x_t), self.condition(t, y)
        for first, film, second in zip(self.first, self.film, self.second, strict=True):
            scale, shift = film(cond).chunk(2, dim=1)
            h = h + second(F.silu(first(F.silu(h)) * (1 + scale) + shift))
        return self.outlet(F.silu(h))


class Diffusion(nn.Module):
    """A network, its schedule, and what its output means: eps, x0 or v."""

    def __init__(self, net: nn.Module, schedule: Schedule, predict: str) -> None:
        super().__init__()
        self.net, self.schedule, self.predict = net, schedule, predict

    def forward(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """The network's output (B, ...), in float32 if it computes in bfloat16."""
        h = self.net(x_t, t, y)
        return h.to(torch.promote_types(h.dtype, torch.float32))


# --- Objective ----------------------------------------------------------------------


def q_sample(schedule: Schedule, x_0: Tensor, t: int | Tensor, eps: Tensor) -> Tensor:
    """x_t = signal_t x_0 + noise_t eps: t + 1 steps of noise at once; notes/04 eq. (4.3)."""
    signal, noise = schedule.at(t, x_0)
    return signal * x_0 + noise * eps


# x_t, x_0, eps and v = signal eps - noise x_0 are two vectors in other coordinates: any two of them
# give the others. Salimans & Ho (2022), arXiv:2202.00512, appendix D; notes/04 section 5.1.


def x0_from_eps(x_t: Tensor, eps: Tensor, signal: Tensor, noise: Tensor) -> Tensor:
    return (x_t - noise * eps) / signal


def eps_from_x0(x_t: Tensor, x_0: Tensor, signal: Tensor, noise: Tensor) -> Tensor:
    return (x_t - signal * x_0) / noise


def x0_from_v(x_t: Tensor, v: Tensor, signal: Tensor, noise: Tensor) -> Tensor:
    return signal * x_t - noise * v


def eps_from_v(x_t: Tensor, v: Tensor, signal: Tensor, noise: Tensor) -> Tensor:
    return noise * x_t + signal * v


def v_from(x_0: Tensor, eps: Tensor, signal: Tensor, noise: Tensor) -> Tensor:
    return signal * eps - noise * x_0


def target(predict: str, x_0: Tensor, eps: Tensor, signal: Tensor, noise: Tensor) -> Tensor:
    """What the network should have said, (B, ...)."""
    return {"eps": eps, "x0": x_0, "v": v_from(x_0, eps, signal, noise)}[predict]


def x0_from(predict: str, x_t: Tensor, output: Tensor, signal: Tensor, noise: Tensor) -> Tensor:
    """The x_0 that the network's output amounts to, (B, ...)."""
    if predict == "x0":
        return output
    return (x0_from_eps if predict == "eps" else x0_from_v)(x_t, output, signal, noise)


def loss_weight(snr: Tensor, predict: str, weighting: str) -> Tensor:
    """Weight of each example's squared error, in what the network predicts; snr is signal^2/noise^2.

    simple: 1. min-snr: as if x_0 were predicted, with weight min(snr, 5), so that the easy small
    noises do not take all attention; Hang et al. (2023), arXiv:2303.09556; notes/04 section 5.2.
    """
    if weighting == "simple":
        return torch.ones_like(snr)
    return snr.clamp(max=5) / {"eps": snr, "x0": torch.ones_like(snr), "v": snr + 1}[predict]


def diffusion_loss(
    model: nn.Module, x_0: Tensor, y: Tensor | None, weighting: str = "simple"
) -> tuple[Tensor, Tensor]:
    """Each example's squared error at a random time of its own; notes/04 eq. (4.14).

    Returns:
        (B,) weighted squared error, a mean over what is predicted, and t (B,).
    """
    own = utils.unwrapped(model)
    t = torch.randint(0, len(own.schedule), (len(x_0),), device=x_0.device)
    eps = torch.randn_like(x_0)
    signal, noise = own.schedule.at(t, x_0)
    output = model(q_sample(own.schedule, x_0, t, eps), t, y)
    error = (output - target(own.predict, x_0, eps, signal, noise)).square().flatten(1).mean(dim=1)
    return loss_weight((signal / noise).square().flatten(), own.predict, weighting) * error, t


def score(model: nn.Module, x: Tensor, t: Tensor) -> Tensor:
    """grad log p of data with noise sigma_t, at x = x_0 + sigma_t eps; notes/04 section 7.

    The network sees x shrunk to unit size, signal_t x, which is the x_t of a diffusion model with
    alpha_bar = 1 / (1 + sigma^2), and says eps.
    """
    signal, noise = utils.unwrapped(model).schedule.at(t, x)
    return -model(signal * x, t) / (noise / signal)


def score_matching_loss(model: nn.Module, x_0: Tensor) -> tuple[Tensor, Tensor]:
    """Denoising score matching: sigma^2 |score + eps / sigma|^2, (B,), and t; notes/04 section 7.2.

    Vincent (2011); the weight sigma^2 makes all levels equally important, Song & Ermon (2019),
    arXiv:1907.05600, eq. (6).
    """
    schedule = utils.unwrapped(model).schedule
    t = torch.randint(0, len(schedule), (len(x_0),), device=x_0.device)
    eps = torch.randn_like(x_0)
    signal, noise = schedule.at(t, x_0)
    sigma = noise / signal
    error = sigma * score(model, x_0 + sigma * eps, t) + eps
    return error.square().flatten(1).mean(dim=1), t


def posterior(
    schedule: Schedule, x_0: Tensor, x_t: Tensor, t: int | Tensor, s: int | Tensor
) -> tuple[Tensor, Tensor]:
    """Mean (B, ...) and variance (B, 1, ...) of q(x_s | x_t, x_0), s < t; notes/04 section 2.4.

    With s = t - 1 these are the paper's eqs. (6) and (7). At s = -1 the variance is 0: no noise is
    added at the last step.
    """
    (signal_t, noise_t), (signal_s, noise_s) = schedule.at(t, x_t), schedule.at(s, x_t)
    ratio = signal_t / signal_s  # sqrt(alpha) of the step from s to t
    beta = noise_t.square() - (ratio * noise_s).square()  # its variance
    mean = (signal_s * beta * x_0 + ratio * noise_s.square() * x_t) / noise_t.square()
    return mean, beta * (noise_s / noise_t).square()


def bound_term(
    schedule: Schedule, x_0: Tensor, x_0_hat: Tensor, t: Tensor, bins: int = 256
) -> Tensor:
    """Term t of the variational bound, (B,) nats, for x_0 in [-1, 1]; notes/04 section 9.1.

    t > 0: KL( q(x_s | x_t, x_0) || p(x_s | x_t) ), s = t - 1, two Gaussians of equal variance.
    t = 0: -log p(x_0 | x_t): a Gaussian around x_0_hat, as wide as the noise, summed up over the
    width of a pixel value; the lowest and the highest value reach to infinity.
    """
    (signal_t, noise_t), (signal_s, noise_s) = schedule.at(t, x_0), schedule.at(t - 1, x_0)
    snr_t, snr_s = (signal_t / noise_t).square(), (signal_s / noise_s.clamp(min=1e-6)).square()
    kl = 0.5 * (snr_s - snr_t) * (x_0 - x_0_hat).square()
    normal = torch.distributions.Normal(x_0_hat, noise_t / signal_t)
    half = 1 / (bins - 1)
    above = torch.where(x_0 > 1 - half, torch.ones_like(x_0), normal.cdf(x_0 + half))
    below = torch.where(x_0 < half - 1, torch.zeros_like(x_0), normal.cdf(x_0 - half))
    nll = -(above - below).clamp(min=1e-12).log()
    first = (t == 0).view(-1, *[1] * (x_0.ndim - 1))
    return torch.where(first, nll, kl).flatten(1).sum(dim=1)


def prior_term(schedule: Schedule, x_0: Tensor) -> Tensor:
    """KL( q(x_T | x_0) || N(0, I) ), (B,) nats: what of the data the last x_t still shows."""
    signal, noise = schedule.at(len(schedule) - 1, x_0)
    kl = 0.5 * ((signal * x_0).square() + noise.square() - 1 - 2 * noise.log())
    return kl.flatten(1).sum(dim=1)


# --- Training and sampling ----------------------------------------------------------


def train(
    model: Diffusion, x: Tensor, y: Tensor, look: Callable[[nn.Module], Tensor], run: utils.Run
) -> Diffusion:
    """Learn from data x (N, ...) with labels y; return the model of averaged weights."""
    config, unknown = run.config, int(y.max()) + 1
    optimizer = torch.optim.Adam(model.parameters(), lr=config.lr, betas=(0.9, 0.99), fused=True)
    ema = copy.deepcopy(model).eval().requires_grad_(False)
    run.keep(model=model, ema=ema, optimizer=optimizer)
    net = run.data_parallel(model)
    for x_0, label in run.batches(x, y):
        optimizer.param_groups[0]["lr"] = run.trapezoid(config.lr)
        if config.model == "conditional":  # sometimes it must do without, notes/04 section 8.2
            label = torch.where(torch.rand(len(label)).to(label.device) < 0.1, unknown, label)
        with run.autocast():
            if config.model == "score":
                loss, t = score_matching_loss(net, x_0)
            else:
                loss, t = diffusion_loss(net, x_0, label, config.weighting)
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
        utils.update_ema(ema, model, min(config.ema, run.step / (run.step + 10)))
        run.log(loss=loss.mean())
        if run.time_to_look():
            with run.autocast():
                run.show(look(ema))
    return ema


def guided(conditional: Tensor, unconditional: Tensor, guidance: float) -> Tensor:
    """Go from what is said without the label to what is said with it, and beyond; (B, ...).

    guidance 0 ignores the label, 1 is the model as it is, more exaggerates what the label changes.
    Ho & Salimans (2022), arXiv:2207.12598; notes/04 section 8.2.
    """
    return unconditional + guidance * (conditional - unconditional)


def denoiser(
    model: Diffusion, y: Tensor | None = None, guidance: float = 1.0, clip: bool = True
) -> Denoise:
    """A function from x_t (B, ...) and t to x_0 and eps, for the samplers.

    Args:
        y: Labels (B,), if the model takes them.
        guidance: See `guided`.
        clip: Keep x_0 in [-1, 1], where all pixels are.
    """

    def denoise(x_t: Tensor, t: int) -> tuple[Tensor, Tensor]:
        times = torch.full((len(x_t),), t, device=x_t.device)
        output = model(x_t, times, y)
        if y is not None and guidance != 1:
            unknown = torch.full_like(y, model.net.condition.labels.num_embeddings - 1)
            output = guided(output, model(x_t, times, unknown), guidance)
        signal, noise = model.schedule.at(t, x_t)
        x_0 = x0_from(model.predict, x_t, output, signal, noise)
        x_0 = x_0.clamp(-1, 1) if clip else x_0
        return x_0, eps_from_x0(x_t, x_0, signal, noise)

    return denoise


def p_sample(
    denoise: Denoise, schedule: Schedule, x_t: Tensor, t: int, s: int
) -> tuple[Tensor, Tensor]:
    """One reverse step: x_s ~ q(x_s | x_t, x_0 as guessed), and that x_0; Ho et al., algorithm 2."""
    x_0, _ = denoise(x_t, t)
    mean, variance = posterior(schedule, x_0, x_t, t, s)
    return mean + variance.sqrt() * torch.randn_like(x_t), x_0


# The samplers: all take the same and yield (x_s, x_0) after each step through `times`, such as
# 999, 899, ..., 99, -1. Compare them by eye.


def ddpm(denoise: Denoise, schedule: Schedule, x: Tensor, times: Sequence[int]) -> Path:
    """Ancestral sampling: a step of p(x_s | x_t) at a time; notes/04 section 6.1."""
    for t, s in pairwise(times):
        x, x_0 = p_sample(denoise, schedule, x, t, s)
        yield x, x_0


def ddim(denoise: Denoise, schedule: Schedule, x: Tensor, times: Sequence[int]) -> Path:
    """Keep the noise that was found, with its weight at s; Song et al. (2021), arXiv:2010.02502.

    Also runs from data to noise, if `times` rises. notes/04 section 6.2.
    """
    for t, s in pairwise(times):
        x_0, eps = denoise(x, t)
        signal, noise = schedule.at(s, x)
        x = signal * x_0 + noise * eps
        yield x, x_0


def heun(denoise: Denoise, schedule: Schedule, x: Tensor, times: Sequence[int]) -> Path:
    """The ODE dx / dangle = v with the mean of two slopes, where x = cos(angle) x_0 + sin(angle) eps.

    Second order, two evaluations a step. Karras et al. (2022), arXiv:2206.00364, algorithm 1, in
    another variable; notes/04 section 6.3.
    """
    for t, s in pairwise(times):
        (signal_t, noise_t), (signal_s, noise_s) = schedule.at(t, x), schedule.at(s, x)
        x_0, eps = denoise(x, t)
        slope = v_from(x_0, eps, signal_t, noise_t)
        guess = signal_s * x_0 + noise_s * eps
        if s >= 0:  # at s = -1 there is no noise left, and the guess is x_0
            slope = 0.5 * (slope + v_from(*denoise(guess, s), signal_s, noise_s))
            turn = torch.atan2(noise_s, signal_s) - torch.atan2(noise_t, signal_t)
            guess = x + turn * slope
        x = guess
        yield x, x_0


def dpm_solver(denoise: Denoise, schedule: Schedule, x: Tensor, times: Sequence[int]) -> Path:
    """DPM-Solver++ (2M): a straight line through the last two x_0, one evaluation a step.

    Lu et al. (2022), arXiv:2211.01095, algorithm 2; notes/04 section 6.4.
    """
    before = width = None
    for t, s in pairwise(times):
        (signal_t, noise_t), (signal_s, noise_s) = schedule.at(t, x), schedule.at(s, x)
        x_0, _ = denoise(x, t)
        if s < 0:
            x = x_0
        else:
            # lambda = log(signal / noise) grows by h; exp(-h) is the ratio below.
            ratio = (signal_t / noise_t) / (signal_s / noise_s)
            h, ahead = -ratio.log(), x_0
            if before is not None:
                ahead = x_0 + (h / (2 * width)) * (x_0 - before)
            x = (noise_s / noise_t) * x + signal_s * (1 - ratio) * ahead
            before, width = x_0, h
        yield x, x_0


def langevin(
    denoise: Denoise, schedule: Schedule, x: Tensor, times: Sequence[int], k: int = 5
) -> Path:
    """Annealed Langevin dynamics: at each noise level, k noisy steps along the score.

    u += step score + sqrt(2 step) z with u = x / signal, step = 0.1 sigma^2 and score =
    -eps / sigma. Song & Ermon (2019), arXiv:1907.05600, algorithm 1; notes/04 section 7.3.
    """
    for t, s in pairwise(times):
        signal, noise = schedule.at(t, x)
        sigma, u = noise / signal, x / signal
        for _ in range(k):
            _, eps = denoise(signal * u, t)
            step = 0.1 * sigma.square()
            u = u - step * eps / sigma + (2 * step).sqrt() * torch.randn_like(u)
        x_0, _ = denoise(signal * u, t)
        x = x_0 if s < 0 else schedule.at(s, x)[0] * u
        yield x, x_0


SAMPLERS = {"ddpm": ddpm, "ddim": ddim, "heun": heun, "dpm++": dpm_solver, "langevin": langevin}


def last(path: Path) -> Tensor:
    """Where a sampler ended."""
    for x, _ in path:
        pass
    return x


def sample(
    model: Diffusion, noise: Tensor, y: Tensor, config: "Config", guidance: float | None = None
) -> Tensor:
    """Turn pure noise (N, ...) into data by the configured sampler, a part at a time."""
    sampler, times = SAMPLERS[config.sampler], model.schedule.times(config.sampling_steps)
    weight, clip = config.guidance if guidance is None else guidance, noise.ndim == 4

    def draw(x: Tensor, y: Tensor) -> Tensor:
        return last(sampler(denoiser(model, y, weight, clip), model.schedule, x, times))

    return utils.in_parts(model, draw, noise, y)[0]


def inpaint(
    denoise: Denoise,
    schedule: Schedule,
    known: Tensor,
    mask: Tensor,
    times: Sequence[int],
    repeats: int = 5,
) -> Tensor:
    """Draw what is missing: known (B, C, H, W) stays where mask is True, the rest is sampled.

    After each reverse step the known part is put back, with the noise it should have. Going back
    and forth `repeats` times lets the new part take notice of it. Lugmayr et al. (2022), RePaint,
    arXiv:2201.09865, algorithm 1; notes/04 section 10.
    """
    x = torch.randn_like(known)
    for t, s in pairwise(times):
        for again in reversed(range(repeats)):
            x, _ = p_sample(denoise, schedule, x, t, s)
            x = torch.where(mask, q_sample(schedule, known, s, torch.randn_like(x)), x)
            if again and s >= 0:
                (signal_t, noise_t), (signal_s, noise_s) = schedule.at(t, x), schedule.at(s, x)
                ratio = signal_t / signal_s
                added = (noise_t.square() - (ratio * noise_s).square()).sqrt()
                x = ratio * x + added * torch.randn_like(x)  # q(x_t | x_s)
    return x


def slerp(start: Tensor, end: Tensor, share: Tensor) -> Tensor:
    """From start to end (...) along a great circle, (K, ...): half-way noise has noise's length."""
    cos = F.cosine_similarity(start.flatten(), end.flatten(), dim=0).clamp(-0.9999, 0.9999)
    angle, share = cos.acos(), share.view(-1, *[1] * start.ndim)
    return ((angle * (1 - share)).sin() * start + (angle * share).sin() * end) / angle.sin()


def interpolate(
    model: Diffusion, pair: Tensor, y: Tensor, steps: int = 100, points: int = 9
) -> Tensor:
    """Turn two images (2, C, H, W) into noise by DDIM, walk between them there, and return.

    Returns:
        (points, C, H, W): DDIM without chance is a map that can be run both ways.
    """
    down = model.schedule.times(steps)
    up = [0, *reversed(down[:-1])] if down[-2] else list(reversed(down[:-1]))
    start = model.schedule.at(0, pair)[0] * pair
    ends = last(ddim(denoiser(model, y[:2]), model.schedule, start, up))
    x = slerp(*ends, torch.linspace(0, 1, points, device=pair.device))
    return last(ddim(denoiser(model, y[:1].expand(points)), model.schedule, x, down))


def variational_bound(model: Diffusion, x_0: Tensor, y: Tensor, k: int) -> Tensor:
    """All terms of -log p(x_0) <= bound for each image, (N, 3) nats: prior, steps, pixels.

    The sum over t = 1...T-1 is estimated from k of its terms, one from each k-th of the times.
    """
    steps = len(model.schedule) - 1
    k = min(k, steps)

    def terms(x_0: Tensor, y: Tensor) -> Tensor:
        def term(t: Tensor) -> Tensor:
            x_t = q_sample(model.schedule, x_0, t, torch.randn_like(x_0))
            x_0_hat = x0_from(model.predict, x_t, model(x_t, t, y), *model.schedule.at(t, x_t))
            return bound_term(model.schedule, x_0, x_0_hat.clamp(-1, 1), t)

        zero = torch.zeros(len(x_0), dtype=torch.long, device=x_0.device)
        middle = torch.zeros(len(x_0), device=x_0.device)
        for i in range(k):
            u = (i + torch.rand(len(x_0), device=x_0.device)) / k  # in the i-th part of [0, 1)
            middle = middle + term(1 + (u * steps).long().clamp(max=steps - 1)) * steps / k
        return torch.stack([prior_term(model.schedule, x_0), middle, term(zero)], dim=1)

    return utils.in_parts(model, terms, x_0, y)[0]


def ode_log_prob(model: Diffusion, x: Tensor, steps: int = 100) -> Tensor:
    """Exact log p(x) of points (N, D), (N,) nats, by the probability-flow ODE from data to noise.

    d log p / d angle = -div v along dx / d angle = v, by Heun's method; notes/04 section 9.2.
    """
    schedule = model.schedule
    up = sorted(t for t in set(schedule.times(steps)) | {0} if t >= 0)
    denoise = denoiser(model, clip=False)

    def slope(x: Tensor, t: int) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            v = v_from(*denoise(x, t), *schedule.at(t, x))
            rows = [torch.autograd.grad(v[:, i].sum(), x, retain_graph=True)[0][:, i]
                    for i in range(x.shape[1])]
        return v.detach(), torch.stack(rows).sum(dim=0)

    signal, _ = schedule.at(0, x)
    log_prob, x = x.shape[1] * signal.log().flatten(), signal * x
    v, div = slope(x, up[0])
    for t, s in pairwise(up):
        (signal_t, noise_t), (signal_s, noise_s) = schedule.at(t, x), schedule.at(s, x)
        turn = torch.atan2(noise_s, signal_s) - torch.atan2(noise_t, signal_t)
        v_end, _ = slope(x + turn * v, s)
        x = x + turn * 0.5 * (v + v_end)
        v, div_end = slope(x, s)
        log_prob, div = log_prob + turn.flatten() * 0.5 * (div + div_end), div_end
    normal = -0.5 * (x.square() + math.log(2 * math.pi))
    return log_prob + normal.sum(dim=1)


# --- Experiment ---------------------------------------------------------------------


PLANE = {"epochs": 200, "batch_size": 512, "lr": 3e-3, "width": 128, "sampling_steps": 100}
SCORE = {"schedule": "geometric", "predict": "eps", "sampler": "langevin", "sampling_steps": 40}
DEFAULTS = {"epochs": 50, "batch_size": 32, "lr": 3e-3, "width": 32, "schedule": "sigmoid"}
DEFAULTS |= {"predict": "x0", "sampler": "dpm++", "sampling_steps": 20}


@dataclass(frozen=True)
class Config(utils.Config):
    """Train a diffusion model on pictures, or on points in the plane."""

    model: Literal["ddpm", "conditional", "score"] = "ddpm"
    """ddpm, the same with labels and classifier-free guidance, or a score network."""
    dataset: str = "mnist5k"
    """Images as in every chapter, or a density in the plane: moons, checkerboard, ring, ..."""
    epochs: int | None = None
    """Passes over the training set."""
    batch_size: int | None = None
    """Examples a step."""
    lr: float | None = None
    """Peak learning rate of Adam."""
    width: int | None = None
    """Channels at half the resolution; a quarter of it has twice as many."""
    timesteps: int = 1000
    """T, noise levels."""
    schedule: Literal["linear", "cosine", "sigmoid", "geometric"] | None = None
    """How alpha_bar falls."""
    predict: Literal["eps", "x0", "v"] | None = None
    """What the network says."""
    weighting: Literal["simple", "min-snr"] = "simple"
    """How errors at different times count."""
    ema: float = 0.998
    """Decay of the average of the weights that samples are drawn with; 0: none."""
    sampler: Literal["ddpm", "ddim", "heun", "dpm++", "langevin"] | None = None
    """How noise becomes data."""
    sampling_steps: int | None = None
    """Steps of the sampler; heun evaluates the network twice a step, langevin six times."""
    guidance: float = 1.0
    """conditional: 0 ignores the label, 1 is the model as it is, 2 to 4 exaggerate the class."""

    def __post_init__(self) -> None:
        self.fill(SCORE if self.model == "score" else {})
        self.fill(PLANE if self.dataset in utils.DENSITIES else {})
        self.fill(DEFAULTS)
        super().__post_init__()
        for name in ("timesteps", "sampling_steps"):
            utils.check_number(name, getattr(self, name), at_least=2)
        utils.check_number("ema", self.ema, at_least=0, below=1)
        utils.check_number("guidance", self.guidance, at_least=0)
        utils.check_number("width", self.width, at_least=8)
        if self.width % 8:
            raise utils.UserError(f"--width: expected a multiple of 8, got {self.width}")
        if self.model == "score" and (self.schedule, self.predict) != ("geometric", "eps"):
            raise utils.UserError(
                f"--model score: expected --schedule geometric and --predict eps, got "
                f"{self.schedule} and {self.predict}: leave them out"
            )
        if self.model == "conditional" and self.dataset in utils.DENSITIES:
            raise utils.UserError(
                f"--model conditional: expected pictures with labels, got {self.dataset}: use ddpm"
            )
        if self.model != "conditional" and self.guidance != 1:
            raise utils.UserError(
                f"--guidance: expected 1 for --model {self.model}, which knows no labels, got "
                f"{self.guidance:g}: use --model conditional"
            )


def pixels(x: Tensor) -> Tensor:
    """From [-1, 1] to [0, 1], where pictures are drawn and measured."""
    return (0.5 * x + 0.5).clamp(0, 1)


def show_process(model: Diffusion, x: Tensor, noise: Tensor, y: Tensor, run: utils.Run) -> None:
    """Noise going into test images (N, ...), and going out of pure noise, as strips and a film."""
    schedule, config = model.schedule, run.config
    shown = [round(f * (len(schedule) - 1)) for f in (0, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 1)]
    forward = {
        f"image {k}": torch.cat([q_sample(schedule, x_0[None], t, eps) for t in shown])
        for k, (x_0, eps) in enumerate(zip(x[:4], torch.randn_like(x[:4]), strict=True), 1)
    }
    utils.strips(
        {k: pixels(v) for k, v in forward.items()},
        run.path("forward.png"),
        title=f"The forward process, {config.schedule} schedule",
        xlabel="t",
        ticks=[str(t) for t in shown],
    )
    sampler, times = SAMPLERS[config.sampler], schedule.times(config.sampling_steps)
    denoise = denoiser(model, y, config.guidance)
    with torch.no_grad(), run.autocast():
        path = [(noise, denoise(noise, times[0])[0])]
        path += list(sampler(denoise, schedule, noise, times))
    frames = [pixels(x).cpu() for x, _ in path]
    utils.animation(frames, run.path("reverse.gif"), labels=[f"t = {t}" for t in times])
    columns = torch.linspace(0, len(path) - 1, 9).round().long().tolist()
    rows = {}
    for k in range(3):
        rows[f"x_t, {k + 1}"] = torch.stack([pixels(path[c][0][k]) for c in columns])
        rows[f"x_0 guessed, {k + 1}"] = torch.stack([pixels(path[c][1][k]) for c in columns])
    utils.strips(
        {k: v.cpu() for k, v in rows.items()},
        run.path("reverse.png"),
        title=f"The reverse process by {config.sampler}: x_t, and the x_0 it was guessed to be",
        xlabel="t",
        ticks=[str(times[c]) for c in columns],
    )


def edit(model: Diffusion, x: Tensor, y: Tensor, samples: Tensor, train: Tensor, run) -> None:
    """Half a digit completed, walks through noise, and the nearest training images."""
    mask = torch.zeros_like(x[:8], dtype=torch.bool)
    mask[..., : x.shape[-2] // 2, :] = True
    times = model.schedule.times(50)
    with torch.no_grad(), run.autocast():
        drawn = [
            pixels(inpaint(denoiser(model, y[:8]), model.schedule, x[:8], mask, times))
            for _ in range(4)
        ]
        walks = {f"{k + 1}": interpolate(model, x[2 * k : 2 * k + 2], y) for k in range(4)}
    rows = {"test image": pixels(x[:8]), "known": pixels(torch.where(mask, x[:8], 0.0))}
    rows |= {f"completed, {i}": d for i, d in enumerate(drawn, 1)}
    rows = {name: row.cpu() for name, row in rows.items()}
    utils.image_rows(rows, run.path("inpainting.png"), title="The upper half is given")
    walks = {k: pixels(v).cpu() for k, v in walks.items()}
    utils.strips(walks, run.path("interpolation.png"), title="Between two images, through noise")
    rows = {"samples": samples[:10], "nearest training image": utils.nearest(samples[:10], train)}
    utils.image_rows(rows, run.path("neighbours.png"), title="Is it memorising?")


def error_by_time(model: Diffusion, x: Tensor, y: Tensor, bins: int = 20) -> tuple[list, list]:
    """Mean squared error of what is predicted, on images (N, ...), in equal ranges of t."""
    def one(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return diffusion_loss(model, x, y)

    errors, t = (torch.cat(p) for p in zip(*(utils.in_parts(model, one, x, y) for _ in range(5)), strict=True))
    place = t * bins // len(model.schedule)
    middle = (torch.arange(bins) + 0.5) * len(model.schedule) / bins
    return middle.tolist(), [errors[place == b].mean().item() for b in range(bins)]


def pictures(config: Config, run: utils.Run) -> None:
    """Train on pictures; draw, complete and interpolate some, and measure."""
    data = utils.load_images(config.dataset, config.data_root, quick=config.quick)
    classes = len(data.class_names) * (config.model == "conditional")
    net = UNet(data.image_shape, config.width, config.timesteps, classes)
    schedule = Schedule(make_schedule(config.schedule, config.timesteps))
    model = Diffusion(net, schedule, config.predict)
    model.to(run.device, memory_format=torch.channels_last)
    noise, labels = torch.randn(64, *data.image_shape), torch.arange(64) % max(1, classes)

    def look(ema: Diffusion) -> Tensor:
        return pixels(sample(ema, noise, labels, config))

    ema = train(model, 2 * data.train - 1, data.train_labels, look, run)
    if run.rank:
        return  # under torchrun only the first process evaluates and writes
    begin, n = time.perf_counter(), config.num_samples
    with run.autocast():
        start, y = torch.randn(n, *data.image_shape), torch.arange(n) % max(1, classes)
        samples = pixels(sample(ema, start, y, config))
    seconds = time.perf_counter() - begin
    run.save_samples(samples, title=f"Samples of {config.model}: {config.sampler}, {config.sampling_steps} steps")
    run.draw_history("loss", ylabel="squared error", title=f"Training: {config.model}", logy=True)
    metrics = utils.sample_quality(samples, data) | {"seconds_per_1000_samples": 1000 * seconds / n}
    run.finish(**metrics)


def main(config: Config) -> None:
    """Train on pictures or in the plane, then draw and measure."""
    run = utils.start(config, __file__)
    (plane if config.dataset in utils.DENSITIES else pictures)(config, run)


if __name__ == "__main__":
    utils.cli(main, Config)
