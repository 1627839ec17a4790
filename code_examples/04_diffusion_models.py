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
Expect:  after two minutes on two CPU cores with bfloat16, a Frechet distance of 2.1 (three seeds:
         2.0 to 2.2) for 2,000 samples, recall 0.83; with labels 0.8. On moons the density lies
         0.004 nats from the true one (two seeds: 0.003 and 0.005), on checkerboard 0.08.
"""

import copy
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
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
Trajectory = Iterator[tuple[Tensor, Tensor]]

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

    def angle(self, t: int | Tensor, like: Tensor) -> Tensor:
        """The angle of which signal_t is the cosine and noise_t the sine, (B, 1, ...)."""
        signal, noise = self.at(t, like)
        return torch.atan2(noise, signal)

    def times(self, steps: int, rho: float = 0.0) -> list[int]:
        """Where a sampler of so many steps stops: from T-1 evenly down, and -1, clean data.

        Args:
            steps: At most T, and fewer where two of them would be the same.
            rho: If not 0, evenly in sigma^(1 / rho) instead, sigma = noise / signal: more stops
                where the noise is strong and little time passes. Karras et al. (2022), eq. (5).
        """
        if rho:
            root = (self.noises / self.signals)[1:] ** (1 / rho)
            wanted = torch.linspace(root[-1], root[0], steps, dtype=torch.float64)
            nearest = (root - wanted[:, None]).abs().argmin(dim=1).tolist()
            return [*dict.fromkeys(nearest), -1]
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
        self.unknown = num_classes

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


class WholeBlock(nn.Module):
    """x plus what a fully connected network says, which sees the whole picture as one vector."""

    def __init__(self, channels: int, height: int, wide: int, width: int, cond_size: int) -> None:
        super().__init__()
        self.norm, self.film = ChannelNorm(channels), nn.Linear(cond_size, 2 * width)
        self.down = nn.Linear(channels * height * wide, width)
        self.up = nn.Linear(width, channels * height * wide)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        scale, shift = self.film(cond).chunk(2, dim=1)
        h = self.down(self.norm(x).flatten(1)) * (1 + scale) + shift
        return x + self.up(F.silu(h)).view_as(x)


class UNet(nn.Module):
    """x_t (B, C, H, W), t (B,) and labels (B,) to an output of x_t's shape.

    2 x 2 pixels become channels first, and most multiplications are spent at a quarter of the
    resolution, where a CPU is fastest. The skip connection keeps the detail.
    """

    def __init__(self, shape: Shape, width: int, timesteps: int, num_classes: int = 0) -> None:
        super().__init__()
        channels, height, wide = self.shape = shape
        inner = 2 * width
        self.condition = Condition(inner, timesteps, num_classes)
        self.inlet = nn.Conv2d(4 * channels, width, 3, padding=1)
        self.before, self.after = ResBlock(width, inner), ResBlock(width, inner)
        self.down = nn.Conv2d(width, inner, 3, stride=2, padding=1)
        self.inner = nn.ModuleList([ResBlock(inner, inner) for _ in range(3)])
        self.attention = Attention(inner)
        self.whole = WholeBlock(inner, ceil(height / 4), ceil(wide / 4), 8 * width, inner)
        self.up, self.join = nn.Conv2d(inner, 4 * width, 1), nn.Conv2d(2 * width, width, 1)
        self.norm, self.outlet = ChannelNorm(width), nn.Conv2d(width, 4 * channels, 3, padding=1)

    def forward(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        height, wide = self.shape[1:]
        cond = self.condition(t, y)
        x = F.pad(x_t, (0, -wide % 4, 0, -height % 4))
        skip = self.before(self.inlet(F.pixel_unshuffle(x, 2)), cond)  # (B, width, H/2, W/2)
        h = self.inner[0](self.down(skip), cond)  # (B, 2 width, H/4, W/4)
        h = self.whole(self.attention(h), cond)
        h = self.inner[2](self.inner[1](h, cond), cond)
        h = self.join(torch.cat([F.pixel_shuffle(self.up(h), 2), skip], dim=1))
        h = self.outlet(F.silu(self.norm(self.after(h, cond))))
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


# x_0 and eps, or x_t and v = signal eps - noise x_0, are the same pair of vectors in two frames,
# turned by the angle of which signal is the cosine. Salimans & Ho (2022), arXiv:2202.00512,
# appendix D; notes/04 eqs. (4.31), (4.32).


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


def x0_and_eps(model: "Diffusion", output: Tensor, x_t: Tensor, t: int | Tensor) -> tuple:
    """What the network's output (B, ...) says of both, whichever of eps, x0 and v it predicts."""
    frame = model.schedule.at(t, x_t)
    if model.predict == "eps":
        return x0_from_eps(x_t, output, *frame), output
    if model.predict == "x0":
        return output, eps_from_x0(x_t, output, *frame)
    return x0_from_v(x_t, output, *frame), eps_from_v(x_t, output, *frame)


def loss_weight(snr: Tensor, predict: str, weighting: str) -> Tensor:
    """Weight of each squared error, (B,), in what the network predicts; snr = signal^2 / noise^2.

    simple: 1. min-snr: as if x_0 were predicted, with weight min(snr, 5), so that tiny noises do
    not get all attention; Hang et al. (2023), arXiv:2303.09556; notes/04 eq. (4.35).
    """
    if weighting == "simple":
        return torch.ones_like(snr)
    return snr.clamp(max=5) / {"eps": snr, "x0": torch.ones_like(snr), "v": snr + 1}[predict]


def diffusion_loss(
    model: nn.Module, x_0: Tensor, y: Tensor | None = None, weighting: str = "simple"
) -> tuple[Tensor, Tensor]:
    """Squared error at a random time for each example, its mean; notes/04 eq. (4.26).

    Returns:
        The weighted error (B,), and t (B,), each of 0...T-1 equally often.
    """
    own = utils.unwrapped(model)
    t = torch.randint(0, len(own.schedule), (len(x_0),), device=x_0.device)
    eps = torch.randn_like(x_0)
    signal, noise = own.schedule.at(t, x_0)
    output = model(q_sample(own.schedule, x_0, t, eps), t, y)
    target = {"eps": eps, "x0": x_0, "v": v_from(x_0, eps, signal, noise)}[own.predict]
    error = (output - target).square().flatten(1).mean(dim=1)
    return loss_weight((signal / noise).square().flatten(), own.predict, weighting) * error, t


def score(model: nn.Module, x: Tensor, t: int | Tensor) -> Tensor:
    """grad log p of data with noise, at x = x_0 + sigma_t eps (B, ...); notes/04 eq. (4.49).

    The network sees x shrunk to unit size, signal_t x, which is the x_t of the chapter with
    alpha_bar = 1 / (1 + sigma^2).
    """
    own = utils.unwrapped(model)
    t = torch.as_tensor(t, device=x.device).expand(len(x))
    signal, noise = own.schedule.at(t, x)
    _, eps = x0_and_eps(own, model(signal * x, t), signal * x, t)
    return -eps / (noise / signal)


def score_matching_loss(model: nn.Module, x_0: Tensor) -> tuple[Tensor, Tensor]:
    """Denoising score matching, sigma^2 |score + eps / sigma|^2, (B,), and t; notes/04 eq. (4.50).

    Vincent (2011). The weight sigma^2 makes all noise levels equally important: Song & Ermon
    (2019), arXiv:1907.05600, eq. (6).
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
    """Mean (B, ...) and variance (B, 1, ...) of q(x_s | x_t, x_0), s < t; notes/04 eq. (4.13).

    At s = -1 the mean is x_0 and the variance 0: the last step of sampling adds no noise.
    """
    (signal_t, noise_t), (signal_s, noise_s) = schedule.at(t, x_t), schedule.at(s, x_t)
    ratio = signal_t / signal_s  # sqrt(alpha) of the step from s to t
    beta = noise_t.square() - (ratio * noise_s).square()
    mean = (signal_s * beta * x_0 + ratio * noise_s.square() * x_t) / noise_t.square()
    return mean, beta * (noise_s / noise_t).square()


def bound_terms(schedule: Schedule, x_0: Tensor, guess: Tensor, t: Tensor) -> Tensor:
    """Term t (B,) of the variational bound for pixels x_0 in [-1, 1], (B,) nats.

    t > 0: KL( q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t) ), two Gaussians that differ in x_0 only,
    notes/04 eq. (4.22). t = 0: -log p(x_0 | x_t): a Gaussian around the guess, as wide as the
    noise, is summed up over each of 256 pixel values, notes/04 eq. (4.69).
    """
    (signal_t, noise_t), (signal_s, noise_s) = schedule.at(t, x_0), schedule.at(t - 1, x_0)
    snr_t, snr_s = (signal_t / noise_t).square(), (signal_s / noise_s.clamp(min=1e-6)).square()
    kl = 0.5 * (snr_s - snr_t) * (x_0 - guess).square()
    low = torch.where(x_0 < 1 / 255 - 1, -math.inf, x_0 - guess - 1 / 255) * signal_t / noise_t
    high = torch.where(x_0 > 1 - 1 / 255, math.inf, x_0 - guess + 1 / 255) * signal_t / noise_t
    low, high = torch.where(low > 0, -high, low), torch.where(low > 0, -low, high)  # a left tail
    log_low, log_high = torch.special.log_ndtr(low), torch.special.log_ndtr(high)
    nll = -(log_high + torch.log1p(-torch.exp(log_low - log_high)))  # -log( Phi(high) - Phi(low) )
    return torch.where((t == 0).view_as(noise_t), nll, kl).flatten(1).sum(dim=1)


def prior_term(schedule: Schedule, x_0: Tensor) -> Tensor:
    """KL( q(x_{T-1} | x_0) || N(0, I) ), (B,) nats, of the last x_t; notes/04 eq. (4.20)."""
    signal, noise = schedule.at(len(schedule) - 1, x_0)
    kl = 0.5 * ((signal * x_0).square() + noise.square() - 1 - 2 * noise.log())
    return kl.flatten(1).sum(dim=1)


# --- Training and sampling ----------------------------------------------------------


def train(
    model: Diffusion, x: Tensor, y: Tensor, look: Callable[[nn.Module], Tensor], run: utils.Run
) -> Diffusion:
    """Learn from data x (N, ...) with labels y (N,); return the model of averaged weights."""
    config, unknown = run.config, model.net.condition.unknown
    optimizer = torch.optim.Adam(model.parameters(), lr=config.lr, betas=(0.9, 0.99), fused=True)
    ema = copy.deepcopy(model).eval().requires_grad_(False)
    run.keep(model=model, ema=ema, optimizer=optimizer)
    net = run.data_parallel(model)
    for x_0, label in run.batches(x, y):
        optimizer.param_groups[0]["lr"] = run.trapezoid(config.lr)
        if config.model == "conditional":  # sometimes it must do without; notes/04 section 8.2
            label = torch.where(torch.rand(len(label), device=label.device) < 0.1, unknown, label)
        with run.autocast():
            if config.model == "score":
                loss, _ = score_matching_loss(net, x_0)
            else:
                loss, _ = diffusion_loss(net, x_0, label, config.weighting)
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
    """From what is said without the label to what is said with it, and beyond; (B, ...).

    0 ignores the label, 1 is the model as it is, more exaggerates what the label changes. Ho &
    Salimans (2022), arXiv:2207.12598; notes/04 eq. (4.65).
    """
    return unconditional + guidance * (conditional - unconditional)


def denoiser(
    model: Diffusion, y: Tensor | None = None, guidance: float = 1.0, clip: bool = True
) -> Denoise:
    """The function that samplers call: from x_t (B, ...) and t to guesses of x_0 and eps.

    Args:
        model: Trained.
        y: Labels (B,), if it takes them.
        guidance: See `guided`.
        clip: Keep x_0 in [-1, 1], where all pixels are; eps then follows from it.
    """

    def denoise(x_t: Tensor, t: int) -> tuple[Tensor, Tensor]:
        times = torch.full((len(x_t),), t, device=x_t.device)
        output = model(x_t, times, y)
        if y is not None and guidance != 1:
            unknown = torch.full_like(y, model.net.condition.unknown)
            output = guided(output, model(x_t, times, unknown), guidance)
        x_0, eps = x0_and_eps(model, output, x_t, t)
        if not clip:
            return x_0, eps
        return x_0.clamp(-1, 1), eps_from_x0(x_t, x_0.clamp(-1, 1), *model.schedule.at(t, x_t))

    return denoise


def p_sample(denoise: Denoise, schedule: Schedule, x_t: Tensor, t: int, s: int) -> tuple:
    """One reverse step: x_s ~ q(x_s | x_t, x_0 as guessed), and the guess; notes/04 eq. (4.37)."""
    x_0, _ = denoise(x_t, t)
    mean, variance = posterior(schedule, x_0, x_t, t, s)
    return mean + variance.sqrt() * torch.randn_like(x_t), x_0


# The samplers. All go through `times`, such as 999, 899, ..., 99, -1, and yield after each step
# x_s and the guess of x_0 that led there. Compare them by eye.


def ddpm(denoise: Denoise, schedule: Schedule, x: Tensor, times: Sequence[int]) -> Trajectory:
    """Ancestral sampling: guess x_0, and draw x_s around it; Ho et al., algorithm 2."""
    for t, s in pairwise(times):
        x, x_0 = p_sample(denoise, schedule, x, t, s)
        yield x, x_0


def ddim(denoise: Denoise, schedule: Schedule, x: Tensor, times: Sequence[int]) -> Trajectory:
    """Guess x_0 and eps, and mix them anew as s wants it: nothing is drawn; notes/04 eq. (4.39).

    Also leads from data to noise, if `times` rises. Song et al. (2021), arXiv:2010.02502.
    """
    for t, s in pairwise(times):
        x_0, eps = denoise(x, t)
        x = q_sample(schedule, x_0, s, eps)
        yield x, x_0


def heun(denoise: Denoise, schedule: Schedule, x: Tensor, times: Sequence[int]) -> Trajectory:
    """The ODE dx / d angle = v, by the mean of the slopes at both ends; notes/04 eq. (4.43).

    Second order, two evaluations a step; Karras et al. (2022), arXiv:2206.00364, algorithm 1, with
    the angle for sigma: x_t = cos(angle) x_0 + sin(angle) eps, so the slopes stay bounded.
    """
    for t, s in pairwise(times):
        x_0, eps = denoise(x, t)
        slope = v_from(x_0, eps, *schedule.at(t, x))
        end = q_sample(schedule, x_0, s, eps)
        if s >= 0:  # at s = -1 there is no noise left to find: the end is x_0
            slope = (slope + v_from(*denoise(end, s), *schedule.at(s, x))) / 2
            end = x + (schedule.angle(s, x) - schedule.angle(t, x)) * slope
        x = end
        yield x, x_0


def dpm_solver(denoise: Denoise, schedule: Schedule, x: Tensor, times: Sequence[int]) -> Trajectory:
    """DPM-Solver++ (2M): a line through the last two guesses of x_0; notes/04 eq. (4.47).

    Second order, one evaluation a step; Lu et al. (2022), arXiv:2211.01095, algorithm 2. h is the
    growth of log(signal / noise) in a step.
    """
    before, h_before = None, None
    for t, s in pairwise(times):
        x_0, _ = denoise(x, t)
        (signal_t, noise_t), (signal_s, noise_s) = schedule.at(t, x), schedule.at(s, x)
        if s < 0:
            x = x_0  # h is infinite
        else:
            h = (signal_s / noise_s).log() - (signal_t / noise_t).log()
            ahead = x_0 if before is None else x_0 + h / (2 * h_before) * (x_0 - before)
            x = noise_s / noise_t * x - signal_s * torch.expm1(-h) * ahead
            before, h_before = x_0, h
        yield x, x_0


def langevin(denoise: Denoise, schedule: Schedule, x: Tensor, times: Sequence[int]) -> Trajectory:
    """Annealed Langevin dynamics: 5 noisy steps along the score at each level; notes/04 eq. (4.54).

    u += step score + sqrt(2 step) z, with u = x_t / signal_t, score = -eps / sigma and step = 0.2
    sigma^2. Song & Ermon (2019), arXiv:1907.05600, algorithm 1.
    """
    for t, s in pairwise(times):
        signal, noise = schedule.at(t, x)
        sigma, u = noise / signal, x / signal
        for _ in range(5):
            _, eps = denoise(signal * u, t)
            step = 0.2 * sigma.square()
            u = u - step * eps / sigma + (2 * step).sqrt() * torch.randn_like(u)
        x_0, _ = denoise(signal * u, t)
        x = x_0 if s < 0 else schedule.at(s, x)[0] * u
        yield x, x_0


SAMPLERS = {"ddpm": ddpm, "ddim": ddim, "heun": heun, "dpm++": dpm_solver, "langevin": langevin}


def last(trajectory: Trajectory) -> Tensor:
    """Where a sampler ended."""
    return deque(trajectory, maxlen=1)[0][0]


def stops(schedule: Schedule, config: "Config") -> list[int]:
    """The times of the sampler of the flags: dpm++ wants them dense where the noise is strong."""
    return schedule.times(config.sampling_steps, rho=7 if config.sampler == "dpm++" else 0)


def sample(model: Diffusion, noise: Tensor, y: Tensor, config: "Config") -> Tensor:
    """Turn pure noise (N, ...) and labels (N,) into data by the sampler of the flags, in parts."""
    times, clip = stops(model.schedule, config), noise.ndim == 4

    def draw(x: Tensor, y: Tensor) -> Tensor:
        denoise = denoiser(model, y, config.guidance, clip)
        return last(SAMPLERS[config.sampler](denoise, model.schedule, x, times))

    return utils.in_parts(model, draw, noise, y)[0]


def variational_bound(model: Diffusion, x_0: Tensor, y: Tensor, k: int) -> Tensor:
    """The bound on -log p(x_0) of each image, (N, 3) nats: prior, steps t > 0, pixels at t = 0.

    Of the T - 1 steps k are evaluated, one drawn from each k-th of them: no bias, little variance.
    """
    schedule, steps = model.schedule, len(model.schedule) - 1

    def term(x_0: Tensor, y: Tensor, t: Tensor) -> Tensor:
        x_t = q_sample(schedule, x_0, t, torch.randn_like(x_0))
        guess, _ = x0_and_eps(model, model(x_t, t, y), x_t, t)
        return bound_terms(schedule, x_0, guess.clamp(-1, 1), t)

    def all_terms(x_0: Tensor, y: Tensor) -> Tensor:
        none, middle = torch.zeros_like(y), torch.zeros(len(y), device=y.device)
        for i in range(k):
            u = (i + torch.rand(len(y), device=y.device)) / k
            t = 1 + (u * steps).long().clamp(max=steps - 1)
            middle += term(x_0, y, t) * steps / k
        return torch.stack([prior_term(schedule, x_0), middle, term(x_0, y, none)], dim=1)

    return utils.in_parts(model, all_terms, x_0, y)[0]


def ode_log_prob(model: Diffusion, x: Tensor, steps: int = 100) -> Tensor:
    """log p(x) of points (N, D), (N,) nats, along the ODE from data to noise; notes/04 eq. (4.71).

    d log p / d angle = -div v where dx / d angle = v, by Heun's method. It begins at t = 0, where x
    has the noise sigma_0 already: the density of data that are that little blurred.
    """
    schedule, denoise = model.schedule, denoiser(model, clip=False)

    def velocity(x: Tensor, t: int) -> Tensor:
        return v_from(*denoise(x, t), *schedule.at(t, x))

    def slope(x: Tensor, t: int) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            v = velocity(x, t)
            rows = [torch.autograd.grad(c.sum(), x, retain_graph=True)[0] for c in v.unbind(1)]
        return v.detach(), sum(row[:, i] for i, row in enumerate(rows))

    up = [0, *(t for t in reversed(schedule.times(steps)) if t > 0)]
    shrunk, _ = schedule.at(0, x)
    x, log_prob = shrunk * x, x.shape[1] * shrunk.log().flatten()
    v, div = slope(x, 0)
    for t, s in pairwise(up):
        turn = schedule.angle(s, x) - schedule.angle(t, x)
        x = x + turn * (v + velocity(x + turn * v, s)) / 2
        v, div_end = slope(x, s)
        log_prob = log_prob + turn.flatten() * (div + div_end) / 2
        div = div_end
    return log_prob + torch.distributions.Normal(0, 1).log_prob(x).sum(dim=1)


# --- Experiment ---------------------------------------------------------------------


PLANE = {"epochs": 120, "batch_size": 512, "width": 128, "lr": 3e-3, "predict": "v"}
PLANE |= {"sampler": "heun", "schedule": "cosine"}
SCORE = {"schedule": "geometric", "predict": "eps", "sampler": "langevin"}
DEFAULTS = {"epochs": 50, "batch_size": 64, "width": 32, "lr": 4e-3, "predict": "x0"}
DEFAULTS |= {"sampler": "ddpm", "schedule": "sigmoid"}


@dataclass(frozen=True)
class Config(utils.Config):
    """Train a diffusion model on pictures, or on points in the plane."""

    model: Literal["ddpm", "conditional", "score"] = "ddpm"
    """ddpm; the same with labels and classifier-free guidance; or a score network."""
    dataset: str = "mnist5k"
    """Images as in every chapter, or a density in the plane: moons, checkerboard, ring, ..."""
    epochs: int | None = None
    """Passes over the training set; 50 unless given, 120 in the plane."""
    batch_size: int | None = None
    """Examples a step; 64 unless given, 512 in the plane."""
    lr: float | None = None
    """Peak rate; 4e-3 unless given (plane 3e-3): warm-up, flat, a line to 0 over the last 30%."""
    width: int | None = None
    """Channels at half the resolution, a quarter has twice as many; 32 unless given (plane 128)."""
    timesteps: int = 1000
    """T, the number of noise levels."""
    schedule: Literal["linear", "cosine", "sigmoid", "geometric"] | None = None
    """How alpha_bar falls; sigmoid unless given (plane cosine, score geometric)."""
    predict: Literal["eps", "x0", "v"] | None = None
    """What the network says; x0 unless given (plane v, score eps)."""
    weighting: Literal["simple", "min-snr"] = "simple"
    """How errors at different times count; see `loss_weight`."""
    ema: float = 0.997
    """Decay of the average of the weights that samples are drawn with; 0: none."""
    sampler: Literal["ddpm", "ddim", "heun", "dpm++", "langevin"] | None = None
    """How noise becomes data; ddpm unless given (plane heun, score langevin)."""
    sampling_steps: int = 50
    """Steps of the sampler; heun evaluates the network twice a step, langevin six times."""
    guidance: float = 1.0
    """conditional: 0 ignores the label, 1 is the model as it is, 2 to 4 exaggerate the class."""
    bound_times: int = 10
    """Terms of the variational bound that are evaluated for each of 1,000 test images."""

    def __post_init__(self) -> None:
        self.fill(SCORE if self.model == "score" else {})
        self.fill(PLANE if self.dataset in utils.DENSITIES else {})
        self.fill(DEFAULTS)
        super().__post_init__()
        for name in ("timesteps", "sampling_steps", "bound_times"):
            utils.check_number(name, getattr(self, name), at_least=2 - (name == "bound_times"))
        utils.check_number("ema", self.ema, at_least=0, below=1)
        utils.check_number("guidance", self.guidance, at_least=0)
        utils.check_number("width", self.width, at_least=8)
        if self.width % 4:
            raise utils.UserError(f"--width: expected a multiple of 4, got {self.width}")
        if self.model == "conditional" and self.dataset in utils.DENSITIES:
            raise utils.UserError(
                f"--model conditional: expected pictures with labels, got {self.dataset}: use ddpm"
            )
        if self.model == "score" and self.weighting != "simple":
            raise utils.UserError(
                f"--weighting: expected simple for score, whose loss has a weight of its own, got "
                f"{self.weighting}: use --model ddpm"
            )
        if self.model != "conditional" and self.guidance != 1:
            raise utils.UserError(
                f"--guidance: expected 1 for {self.model}, which knows no labels, got "
                f"{self.guidance:g}: use --model conditional"
            )


def pixels(x: Tensor) -> Tensor:
    """From [-1, 1] to [0, 1], where pictures are drawn and measured; on the CPU."""
    return (0.5 * x + 0.5).clamp(0, 1).float().cpu()


def show_forward(schedule: Schedule, x: Tensor, run: utils.Run) -> None:
    """Noise going into images x (N, C, H, W), as a strip."""
    shown = [round(share * (len(schedule) - 1)) for share in (0, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 1)]
    noisy = torch.stack([pixels(q_sample(schedule, x, t, torch.randn_like(x))) for t in shown], 1)
    rows = {f"image {k}": row for k, row in enumerate(noisy, 1)}
    how = {"title": f"The forward process, {run.config.schedule} schedule", "xlabel": "t"}
    utils.strips(rows, run.path("forward.png"), ticks=[str(t) for t in shown], **how)


def show_reverse(model: Diffusion, noise: Tensor, y: Tensor, run: utils.Run) -> None:
    """Noise (N, C, H, W) becoming data, as a film and as strips of x_t and the guesses of x_0."""
    config, times = run.config, stops(model.schedule, run.config)
    denoise = denoiser(model, y, config.guidance)
    steps = list(SAMPLERS[config.sampler](denoise, model.schedule, noise, times))
    frames = [pixels(x) for x in (noise, *(x for x, _ in steps))]
    film = torch.linspace(0, len(steps), 25).round().long().unique().tolist()
    labels = [f"t = {times[f]}" for f in film]
    utils.animation([frames[f] for f in film], run.path("reverse.gif"), labels=labels)
    columns, rows = torch.linspace(0, len(steps) - 1, 9).round().long().unique().tolist(), {}
    for k in range(3):
        rows[f"x_t, {k + 1}"] = torch.stack([frames[c][k] for c in columns])
        rows[f"guess of x_0, {k + 1}"] = torch.stack([pixels(steps[c][1][k]) for c in columns])
    how = {"title": f"The reverse process, {config.sampler}", "xlabel": "t"}
    utils.strips(rows, run.path("reverse.png"), ticks=[str(times[c]) for c in columns], **how)


def bound_metrics(model: Diffusion, data: utils.ImageData, k: int) -> Metrics:
    """The variational bound on test images, in bits a dimension, its parts and its error."""
    x, y = 2 * data.test[:1000] - 1, data.test_labels[:1000]
    bits = utils.bits_per_dim(variational_bound(model, x, y, k), x[0].numel())
    total, parts = bits.sum(dim=1), bits.mean(dim=0).tolist()
    names = (f"test_bound_{part}_bits_per_dim" for part in ("prior", "steps", "pixels"))
    return {
        "test_bound_bits_per_dim": total.mean().item(),
        "test_bound_bits_per_dim_standard_error": total.std().item() / math.sqrt(len(total)),
        **dict(zip(names, parts, strict=True)),
    }


def pictures(config: Config, run: utils.Run) -> None:
    """Train on pictures, show both processes and samples, and measure."""
    data = utils.load_images(config.dataset, config.data_root, quick=config.quick)
    classes = len(data.class_names) * (config.model == "conditional")
    net = UNet(data.image_shape, config.width, config.timesteps, classes)
    schedule = Schedule(make_schedule(config.schedule, config.timesteps))
    model = Diffusion(net, schedule, config.predict)
    model.to(run.device, memory_format=torch.channels_last)
    probe, labels = torch.randn(64, *data.image_shape), torch.arange(64) % max(1, classes)
    fast = replace(config, sampler="dpm++", sampling_steps=10)

    def look(ema: Diffusion) -> Tensor:
        return pixels(sample(ema, probe, labels, fast))

    ema = train(model, 2 * data.train - 1, data.train_labels, look, run)
    if run.rank:
        return  # under torchrun only the first process evaluates and writes
    n, begin, metrics = config.num_samples, time.perf_counter(), {}
    noise, y = torch.randn(n, *data.image_shape), torch.arange(n) % max(1, classes)
    with run.autocast(), torch.no_grad():
        samples = pixels(sample(ema, noise, y, config))
        seconds = time.perf_counter() - begin
        if config.model == "score":
            ode = pixels(sample(ema, noise, y, replace(config, sampler="heun")))
            metrics["frechet_distance_ode"] = utils.quick_frechet_distance(ode, data)
        show_reverse(ema, noise[:9].to(run.device), y[:9].to(run.device), run)
    show_forward(schedule, 2 * data.test[:4] - 1, run)
    how = f"{config.sampler}, {config.sampling_steps} steps"
    run.save_samples(samples, title=f"Samples of {config.model}: {how}")
    if classes:
        each = max(1, min(8, n // classes))
        rows = torch.cat([samples[y == k][:each] for k in range(classes)])
        title = f"Each row a class, guidance {config.guidance:g}"
        utils.image_grid(rows, run.path("classes.png"), columns=each, title=title)
    rows = {"samples": samples[:10], "nearest": utils.nearest(samples[:10], data.train)}
    utils.image_rows(rows, run.path("neighbours.png"), title="And the nearest training images")
    curve = {"ylabel": "weighted squared error", "logy": True}
    run.draw_history("loss", **curve, title=f"Training: {config.model}")
    metrics |= bound_metrics(ema, data, config.bound_times)
    seconds_each = {"seconds_per_1000_samples": 1000 * seconds / n}
    run.finish(**utils.sample_quality(samples, data), **metrics, **seconds_each)


def plane(config: Config, run: utils.Run) -> None:
    """Train on points in the plane; compare the density, by the ODE, with the true one."""
    density = utils.density(config.dataset)
    points, test = density.sample(2_000 if config.quick else 50_000), density.sample(5_000)
    centre, scale = points.mean(dim=0), points.std()  # the network sees points of unit size
    schedule = Schedule(make_schedule(config.schedule, config.timesteps))
    model = Diffusion(PlaneNet(config.width, config.timesteps), schedule, config.predict)
    model.to(run.device)
    noise = torch.randn(config.num_samples, 2)

    def draw(ema: Diffusion) -> Tensor:
        none = torch.zeros(len(noise), dtype=torch.long)  # points have no labels
        return sample(ema, noise, none, config) * scale + centre

    def look(ema: Diffusion) -> Tensor:
        return utils.cloud(draw(ema), density.bounds)

    labels = torch.zeros(len(points), dtype=torch.long)
    ema = train(model, (points - centre) / scale, labels, look, run)
    if run.rank:
        return
    begin = time.perf_counter()
    samples = draw(ema)
    seconds = time.perf_counter() - begin

    def log_prob(x: Tensor, steps: int = 100) -> Tensor:
        exact, z = partial(ode_log_prob, ema, steps=steps), (x.float() - centre) / scale
        return utils.in_parts(ema, exact, z, rows=10_000)[0] - 2 * scale.log()

    sigma = (schedule.noises / schedule.signals)[1:].float()

    def field(t: int) -> Callable[[Tensor], Tensor]:
        inner = partial(score, ema, t=t)
        return lambda x: sigma[t] * utils.in_parts(ema, inner, (x - centre) / scale)[0]

    run.save_points(samples)
    run.draw_history("loss", ylabel="weighted squared error", title=f"Training: {config.model}")
    clouds = {"data": test[: len(samples)], f"{config.model}, {config.sampler}": samples}
    utils.scatter_2d(clouds, run.path("samples.png"), bounds=density.bounds)
    panels = {"true density": density.log_prob, "by the ODE": partial(log_prob, steps=30)}
    utils.density_2d(panels, run.path("density.png"), bounds=density.bounds)
    fields = {f"sigma = {s:g}": field((sigma - s).abs().argmin().item()) for s in (0.8, 0.3, 0.1)}
    title, bounds = "sigma times the score of data with noise: where to go", density.bounds
    how = {"columns": 3, "title": title, "log_prob": density.log_prob}
    utils.vector_field_2d(fields, run.path("score.png"), bounds=bounds, **how)
    nll = -log_prob(test)
    run.finish(
        test_nll_nats_ode=nll.mean().item(),
        test_nll_nats_ode_standard_error=nll.std().item() / math.sqrt(len(nll)),
        entropy_nats=density.entropy,
        kl_from_data_nats=(nll + density.log_prob(test)).mean().item(),
        seconds_per_1000_samples=1000 * seconds / len(samples),
    )


def main(config: Config) -> None:
    """Train on pictures or in the plane, then draw and measure."""
    run = utils.start(config, __file__)
    (plane if config.dataset in utils.DENSITIES else pictures)(config, run)


if __name__ == "__main__":
    utils.cli(main, Config)
