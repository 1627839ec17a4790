"""Normalizing flow: an invertible network from data to Gaussian noise, with an exact likelihood.

    z = f(x)       log p(x) = log N(z; 0, I) + log |det df/dx|       exact for continuous x
    x = f^-1(z)    to sample, draw z ~ N(0, I) and go back

    f is a chain of layers that are easily undone and whose determinant is cheap; log-dets add up.
    Of 8-bit pictures it gives a bound, by dequantisation.

Models:  realnvp, nice, spline and glow are chains of Coupling with the curves affine, additive and
         rational_quadratic_spline; glow also mixes channels, InvertibleLinear. maf and iaf are
         Autoregressive, planar is Planar, cnf is ContinuousStep. For a first reading: affine,
         Flow, Coupling, log_prob, train, sample.

Shapes:  B examples a batch, C x H x W pixels (or D coordinates), K bins of a spline.
         Every layer maps x to (z, log_det) with log_det = log |det dz/dx|, (B,) nats, and its
         `inverse` maps z to (x, log_det) with that of the way back, log |det dx/dz|.
Paper:   Dinh et al. (2017), Density estimation using Real NVP, arXiv:1605.08803. Other papers
         stand beside their code.
Run:     python code_examples/05_normalizing_flows.py
         python code_examples/05_normalizing_flows.py --model spline
         python code_examples/05_normalizing_flows.py --model spline --dataset checkerboard
Expect:  after two minutes on two CPU cores with bfloat16, 1.45 bits per dimension on test digits
         (three seeds: 1.44 to 1.46), a bound by dequantisation, where one Gaussian has 2.11, and a
         Frechet distance of 12.9 (11.5 to 15.2) for 2,000 samples; with --model spline 1.14 bits
         and 9.3. In the plane, --model spline: within 0.005 nats of the true density of moons.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if __package__:  # imported: from code_examples import flows
    from . import utils
else:  # run: python code_examples/05_normalizing_flows.py
    import utils

Images, Metrics, Shape = utils.ImageData, dict[str, float | int | str], tuple[int, ...]
# x (B, ...) and parameters (B, ..., P) to y and log |dy/dx|, both (B, ...); or the way back.
Transform = Callable[..., tuple[Tensor, Tensor]]  # (x, params, inverse=False)
LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)

# --- Model --------------------------------------------------------------------------


def additive(x: Tensor, params: Tensor, inverse: bool = False) -> tuple[Tensor, Tensor]:
    """y = x + shift, params (B, ..., 1). Dinh et al. (2015), NICE, arXiv:1410.8516."""
    shift = params[..., 0]
    return (x - shift if inverse else x + shift), torch.zeros_like(x)


def affine(x: Tensor, params: Tensor, inverse: bool = False) -> tuple[Tensor, Tensor]:
    """y = exp(log_scale) x + shift, params (B, ..., 2); notes/05 eq. (5.29).

    log_scale stays within (-3, 3), so that no step of training makes it explode.
    """
    shift, raw = params.unbind(-1)
    log_scale = 3 * torch.tanh(raw / 3)
    if inverse:
        return (x - shift) * torch.exp(-log_scale), -log_scale
    return x * torch.exp(log_scale) + shift, log_scale


def rational_quadratic_spline(
    x: Tensor, params: Tensor, inverse: bool = False, bound: float = 5.0
) -> tuple[Tensor, Tensor]:
    """A rising curve through K + 1 knots in [-bound, bound]^2, straight lines outside.

    Between two knots it is a quotient of two parabolas, which can be inverted by hand. Durkan et
    al. (2019), Neural spline flows, arXiv:1906.04032, section 3.1; here the slopes at both ends are
    free, too. notes/05 eqs. (5.42) to (5.48).

    Args:
        x: (B, ...).
        params: (B, ..., 3 K + 1): widths and heights of the bins before a softmax, and the slopes
            at the knots before a softplus. All 0 gives the identity.
        inverse: From y to x instead.
        bound: Half the width of the interval.

    Returns:
        y and log dy/dx, or x and log dx/dy.
    """
    bins = (params.shape[-1] - 1) // 3
    width, height, slope = params.split([bins, bins, bins + 1], dim=-1)
    x_knots, y_knots = (knots(p.softmax(dim=-1), bound) for p in (width, height))
    slope = 1e-3 + F.softplus(slope + math.log(math.expm1(1 - 1e-3)))
    searched, inside = (y_knots if inverse else x_knots), x.clamp(-bound, bound)
    k = (inside[..., None] >= searched[..., 1:-1]).sum(dim=-1, keepdim=True)  # which bin

    def ends(table: Tensor) -> tuple[Tensor, Tensor]:
        """What the table (B, ..., K + 1) of the knots says at both ends of the bin."""
        return table.gather(-1, k).squeeze(-1), table.gather(-1, k + 1).squeeze(-1)

    (left, right), (below, above), (d_0, d_1) = ends(x_knots), ends(y_knots), ends(slope)
    w, h = right - left, above - below
    sigma = h / w  # mean slope of the bin
    kappa = d_0 + d_1 - 2 * sigma
    if inverse:  # a xi^2 + b xi + c = 0, by that form of the root that subtracts nothing
        eta = inside - below
        a, b, c = h * (sigma - d_0) + eta * kappa, h * d_0 - eta * kappa, -sigma * eta
        root = (b.square() - 4 * a * c).clamp(min=0).sqrt()  # eqs. (5.47), (5.48)
        xi = torch.where(b > 0, -2 * c, root - b) / torch.where(b > 0, b + root, 2 * a)
    else:
        xi = (inside - left) / w  # place within the bin
    xi = torch.where(x.abs() < bound, xi.clamp(0, 1), (x > 0).to(xi))  # outside: at its end
    mixed = xi * (1 - xi)
    denominator = sigma + kappa * mixed
    numerator = d_1 * xi.square() + 2 * sigma * mixed + d_0 * (1 - xi).square()
    log_slope = 2 * (sigma / denominator).log() + numerator.log()  # eq. (5.46)
    if inverse:
        y, log_slope = left + w * xi, -log_slope
    else:
        y = below + h * (sigma * xi.square() + d_0 * mixed) / denominator  # eq. (5.44)
    return y + (x - inside) * log_slope.exp(), log_slope  # outside: on along the tangent


def knots(shares: Tensor, bound: float) -> Tensor:
    """Places (B, ..., K + 1) from -bound to bound of the ends of bins with these shares."""
    shares = 1e-3 + (1 - 1e-3 * shares.shape[-1]) * shares  # no bin is narrower than a thousandth
    places = F.pad(2 * bound * shares.cumsum(dim=-1), (1, 0)) - bound
    places[..., -1] = bound  # exactly, for from here the straight line goes on
    return places


# Layers: each is undone by its `inverse`, and both return a log-determinant.


class Flow(nn.Module):
    """A chain of layers; notes/05 eq. (5.7)."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        log_det = x.new_zeros(len(x))
        for layer in self.layers:
            x, change = layer(x)
            log_det = log_det + change
        return x, log_det

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        log_det = z.new_zeros(len(z))
        for layer in reversed(self.layers):
            z, change = layer.inverse(z)
            log_det = log_det + change
        return z, log_det


class Inverse(nn.Module):
    """A layer the other way round."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.layer.inverse(x)

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self.layer(z)


def summed(log_slopes: Tensor) -> Tensor:
    """The log-determinant (B,) of a map of each number by itself, from (B, ...) log slopes."""
    return log_slopes.flatten(1).sum(dim=1)


class Logit(nn.Module):
    """log(v / (1 - v)), v = alpha + (1 - 2 alpha) u, of u in (0, 1); notes/05 eq. (5.56).

    Nearly the whole line: within -+13.8 for alpha = 1e-6.
    """

    def __init__(self, alpha: float = 1e-6) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, u: Tensor) -> tuple[Tensor, Tensor]:
        v = self.alpha + (1 - 2 * self.alpha) * u
        log_v, log_rest = v.log(), torch.log1p(-v)
        return log_v - log_rest, summed(math.log(1 - 2 * self.alpha) - log_v - log_rest)

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        log_slope = F.logsigmoid(x) + F.logsigmoid(-x) - math.log(1 - 2 * self.alpha)
        return (x.sigmoid() - self.alpha) / (1 - 2 * self.alpha), summed(log_slope)


class Reshape(nn.Module):
    """The same numbers in another shape, such as a picture as a vector; log_det is 0."""

    def __init__(self, before: Shape, after: Shape) -> None:
        super().__init__()
        self.before, self.after = before, after

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.reshape(-1, *self.after), x.new_zeros(len(x))

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return z.reshape(-1, *self.before), z.new_zeros(len(z))


class Squeeze(nn.Module):
    """(B, C, H, W) to (B, 4 C, H/2, W/2); the first half of the channels has the black squares.

    Of each 2 x 2 pixels first the two on the diagonal, then the other two: halves of the channels
    are the two colours of a checkerboard.
    """

    places = ((0, 0), (1, 1), (0, 1), (1, 0))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        quarters = [x[..., i::2, j::2] for i, j in self.places]
        return torch.cat(quarters, dim=1), x.new_zeros(len(x))

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        b, c, h, w = z.shape
        x = z.new_empty(b, c // 4, 2 * h, 2 * w)
        for (i, j), quarter in zip(self.places, z.chunk(4, dim=1), strict=True):
            x[..., i::2, j::2] = quarter
        return x, z.new_zeros(b)


class ActNorm(nn.Module):
    """z = exp(log_scale) x + shift for each channel; the first batch comes out standardised.

    Kingma & Dhariwal (2018), Glow, arXiv:1807.03039, section 3.1; notes/05 eqs. (5.24), (5.25).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.log_scale, self.shift = (nn.Parameter(torch.zeros(channels)) for _ in range(2))
        self.register_buffer("initialized", torch.tensor(False))  # part of a checkpoint

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.training and not self.initialized:
            self.initialize(x)
        log_scale, shift = self.for_each(x)
        return x * log_scale.exp() + shift, summed(log_scale.expand_as(x))

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        log_scale, shift = self.for_each(z)
        return (z - shift) * torch.exp(-log_scale), -summed(log_scale.expand_as(z))

    def for_each(self, x: Tensor) -> tuple[Tensor, Tensor]:
        shape = [1, -1] + [1] * (x.ndim - 2)
        return self.log_scale.view(shape), self.shift.view(shape)

    @torch.no_grad()
    def initialize(self, x: Tensor) -> None:
        channels = x.transpose(0, 1).flatten(1)
        std = channels.std(dim=1) + 1e-6
        self.log_scale.copy_(-std.log())
        self.shift.copy_(-channels.mean(dim=1) / std)
        self.initialized.fill_(True)


class InvertibleLinear(nn.Module):
    """z = W x over the channels, on pictures a 1 x 1 convolution; W = P L (U + diag(s)).

    A triangular determinant is a product: log |det W| = sum log |s|, once for each pixel. Kingma &
    Dhariwal (2018), eq. (10); notes/05 eqs. (5.14), (5.15).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        start = torch.linalg.qr(torch.randn(channels, channels))[0]  # a random rotation
        p, lower, upper = torch.linalg.lu(start)
        self.lower, self.upper = nn.Parameter(lower.tril(-1)), nn.Parameter(upper.triu(1))
        self.log_s = nn.Parameter(upper.diagonal().abs().log())
        self.register_buffer("p", p)
        self.register_buffer("sign", upper.diagonal().sign())

    def weight(self) -> Tensor:
        lower = self.lower.tril(-1) + torch.eye(len(self.p)).to(self.p)
        upper = self.upper.triu(1) + torch.diag(self.sign * self.log_s.exp())
        return self.p @ lower @ upper

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.multiply(x, inverse=False), self.log_det(x)

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self.multiply(z, inverse=True), -self.log_det(z)

    def multiply(self, x: Tensor, inverse: bool) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):  # nothing of x may be rounded away
            weight = torch.linalg.inv(self.weight()) if inverse else self.weight()
            return torch.einsum("ij,bj...->bi...", weight, x)

    def log_det(self, x: Tensor) -> Tensor:
        return (self.log_s.sum() * x[0, 0].numel()).expand(len(x))


class Coupling(nn.Module):
    """One half of the channels is changed, by curves that a network chooses from the other half.

    The network itself is never inverted: what it saw is still there on the way back. Dinh et al.
    (2017), eqs. (7), (8); notes/05 eq. (5.26).

    Args:
        net: From the half that stays, (B, C/2, ...), to the parameters, (B, P * C/2, ...).
        transform: How each number of the other half changes.
        swap: Change the first half instead of the second.

    forward and inverse also take cond, (B, ...): what the network sees besides.
    """

    def __init__(self, net: nn.Module, transform: Transform, swap: bool = False) -> None:
        super().__init__()
        self.net, self.transform, self.swap = net, transform, swap

    def forward(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.change(x, cond, inverse=False)

    def inverse(self, z: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.change(z, cond, inverse=True)

    def change(self, x: Tensor, cond: Tensor | None, inverse: bool) -> tuple[Tensor, Tensor]:
        first, second = x.chunk(2, dim=1)
        stays, changes = (second, first) if self.swap else (first, second)
        seen = stays if cond is None else torch.cat([stays, cond], dim=1)
        params = unrounded(self.net(seen)).unflatten(1, (changes.shape[1], -1)).movedim(2, -1)
        changed, log_slopes = self.transform(changes, params, inverse=inverse)
        halves = (changed, stays) if self.swap else (stays, changed)
        return torch.cat(halves, dim=1), summed(log_slopes)


def unrounded(h: Tensor) -> Tensor:
    """h in float32 if it comes in bfloat16: what is added to x must not be rounded."""
    return h.to(torch.promote_types(h.dtype, torch.float32))


class FactorOut(nn.Module):
    """Half of the channels is finished, and only the other half goes on through `inner`.

    Dinh et al. (2017), section 3.6: early layers are for detail, later ones for the whole.
    notes/05 eq. (5.62).
    """

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        goes_on, finished = x.chunk(2, dim=1)
        z, log_det = self.inner(goes_on)
        return torch.cat([z, finished], dim=1), log_det

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        went_on, finished = z.chunk(2, dim=1)
        x, log_det = self.inner.inverse(went_on)
        return torch.cat([x, finished], dim=1), log_det


class Planar(nn.Module):
    """z = x + u tanh(w x + b): a push along one direction, for points (B, D).

    Rezende & Mohamed (2015), arXiv:1505.05770, eqs. (10) to (12); notes/05 eq. (5.17). There it
    makes samples and is never inverted; here it goes from data to noise, and back by bisection,
    which has no gradient: to train the other direction, use Inverse(Planar(D)).
    """

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.w, self.u = (nn.Parameter(torch.randn(dims) / math.sqrt(dims)) for _ in range(2))
        self.b = nn.Parameter(torch.randn(()))

    def push(self) -> Tensor:
        """u with w u > -1, so that the layer can be inverted; their appendix A.1."""
        wu = self.w @ self.u
        return self.u + (F.softplus(wu) - 1 - wu) * self.w / self.w.square().sum()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        u = self.push()
        h = torch.tanh(x @ self.w + self.b)
        return x + h[:, None] * u, torch.log1p((1 - h.square()) * (self.w @ u))

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Along w, a + (w u) tanh(a + b) = w z has one root a, between w z -+ |w u|."""
        u = self.push()
        wu, wz = self.w @ u, z @ self.w
        low, high = wz - wu.abs(), wz + wu.abs()
        for _ in range(60):  # each time half as wide
            middle = (low + high) / 2
            above = middle + wu * torch.tanh(middle + self.b) > wz
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        x = z - torch.tanh((low + high) / 2 + self.b)[:, None] * u
        return x, -self(x)[1]


class MADE(nn.Module):
    """A network whose outputs for x_i depend only on those x_j that come before it in an order.

    Each unit gets a number, its degree, and sees only units of a lower (at the last layer) or no
    higher degree (before it). Germain et al. (2015), arXiv:1502.03509; notes/05 eq. (5.36).

    Args:
        order: (D,) where each x_i stands in the order, 0...D-1.
        outputs: Numbers for each x_i, P; returned as (B, D, P).
        hidden: Units of each of two hidden layers; with fewer than D - 1 of them some x_i do not
            see their predecessor.
    """

    def __init__(self, order: Tensor, outputs: int, hidden: int) -> None:
        super().__init__()
        dims = len(order)
        between = torch.arange(hidden) * (dims - 1) // hidden  # degrees 0...D-2, evenly
        self.layers = nn.ModuleList(
            [nn.Linear(dims, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, dims * outputs)]
        )
        last = order.repeat_interleave(outputs)
        self.register_buffer("mask0", (between[:, None] >= order).float())
        self.register_buffer("mask1", (between[:, None] >= between).float())
        self.register_buffer("mask2", (last[:, None] > between).float())
        nn.init.zeros_(self.layers[2].weight)
        nn.init.zeros_(self.layers[2].bias)
        self.outputs = outputs

    def forward(self, x: Tensor) -> Tensor:
        for i, layer in enumerate(self.layers):
            weight = self.get_buffer(f"mask{i}") * layer.weight
            x = F.linear(x if i == 0 else F.relu(x), weight, layer.bias)
        return x.unflatten(1, (-1, self.outputs))


class Autoregressive(nn.Module):
    """Each number is changed by a curve that those before it choose: one layer of a MAF.

    All parameters come from one pass, since x is known; back, x_i is needed before x_i+1, so it
    takes D passes. Papamakarios et al. (2017), arXiv:1705.07057, eqs. (3), (4); notes/05
    eqs. (5.33), (5.35). `Inverse` of it is a layer of an IAF, fast the other way: Kingma et al.
    (2016), arXiv:1606.04934; notes/05 eq. (5.39).
    """

    def __init__(self, net: MADE, transform: Transform) -> None:
        super().__init__()
        self.net, self.transform = net, transform

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z, log_slopes = self.transform(x, unrounded(self.net(x)))
        return z, summed(log_slopes)

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.zeros_like(z)
        for _ in range(z.shape[1]):  # each pass makes one more of them right, in the order
            x, log_slopes = self.transform(z, unrounded(self.net(x)), inverse=True)
        return x, summed(log_slopes)


class ContinuousStep(nn.Module):
    """A step of dx/dt = v(x, t) from t = start to end, and log_det = integral of tr dv/dx.

    Chen et al. (2018), Neural ODEs, arXiv:1806.07366, eq. (8); notes/05 eqs. (5.73), (5.76). By the
    fourth-order Runge-Kutta method; the way back is a step with the times exchanged.

    Args:
        net: Velocity (B, D) of points and time (B, D + 1).
        start, end: Data are at t = 0, noise is at t = 1.
        trace: How tr dv/dx is computed: exact (always in evaluation), by one derivative for each
            dimension; or hutchinson, by one for a random direction, which is right on average:
            Grathwohl et al. (2019), FFJORD, arXiv:1810.01367; notes/05 eq. (5.75).
    """

    def __init__(self, net: nn.Module, start: float, end: float, trace: str = "exact") -> None:
        super().__init__()
        self.net, self.start, self.end, self.trace = net, start, end, trace

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.step(x, self.start, self.end)

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self.step(z, self.end, self.start)

    def step(self, x: Tensor, t: float, s: float) -> tuple[Tensor, Tensor]:
        eps = torch.randint_like(x, 2) * 2 - 1  # -1 or 1: the direction for hutchinson
        h, middle = s - t, (t + s) / 2
        v1, d1 = self.slopes(x, t, eps)
        v2, d2 = self.slopes(x + h / 2 * v1, middle, eps)
        v3, d3 = self.slopes(x + h / 2 * v2, middle, eps)
        v4, d4 = self.slopes(x + h * v3, s, eps)
        return x + h / 6 * (v1 + 2 * v2 + 2 * v3 + v4), h / 6 * (d1 + 2 * d2 + 2 * d3 + d4)

    def slopes(self, x: Tensor, t: float, eps: Tensor) -> tuple[Tensor, Tensor]:
        """v (B, D) and tr dv/dx (B,), or an estimate eps dv/dx eps of it."""
        wanted = torch.is_grad_enabled()
        with torch.enable_grad():
            x = x if x.requires_grad else x.detach().requires_grad_()
            v = self.net(torch.cat([x, torch.full_like(x[:, :1], t)], dim=1))
            how = {"retain_graph": True, "create_graph": wanted}
            if self.trace == "hutchinson" and self.training:
                trace = (torch.autograd.grad(v, x, eps, **how)[0] * eps).sum(dim=1)
            else:
                rows = [torch.autograd.grad(c.sum(), x, **how)[0] for c in v.unbind(1)]
                trace = sum(row[:, i] for i, row in enumerate(rows))
        return (v, trace) if wanted else (v.detach(), trace.detach())


# Networks that choose the curves, and whole flows.


def mlp(size_in: int, size_out: int, width: int) -> nn.Module:
    """Points (B, size_in) to (B, size_out), all 0 at first: then a new layer changes nothing."""
    out = nn.Linear(width, size_out)
    nn.init.zeros_(out.weight)
    nn.init.zeros_(out.bias)
    hidden = (nn.Linear(width, width), nn.SiLU())
    return nn.Sequential(nn.Linear(size_in, width), nn.SiLU(), *hidden, out)


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of each place of (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ResBlock(nn.Module):
    """x plus two convolutions of x."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.silu(self.conv1(F.silu(self.norm(x)))))


class ConvNet(nn.Module):
    """Pictures (B, size_in, H, W) to (B, size_out, H, W), all 0 at first.

    A second path goes through half the resolution, from where a place sees far.
    """

    def __init__(self, size_in: int, size_out: int, width: int) -> None:
        super().__init__()
        self.inlet = nn.Conv2d(size_in, width, 3, padding=1)
        self.down = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.inner, self.outer = ResBlock(2 * width), ResBlock(width)
        self.up = nn.Conv2d(2 * width, 4 * width, 1)
        self.norm, self.outlet = ChannelNorm(width), nn.Conv2d(width, size_out, 3, padding=1)
        nn.init.zeros_(self.outlet.weight)
        nn.init.zeros_(self.outlet.bias)

    def forward(self, x: Tensor) -> Tensor:
        h = self.inlet(x)
        low = F.pixel_shuffle(self.up(self.inner(self.down(h))), 2)
        h = self.outer(h + low[..., : h.shape[2], : h.shape[3]])  # of odd sizes one too many
        return self.outlet(F.silu(self.norm(h)))


def alternating(
    n: int, channels: int, net: Callable[[int, int], nn.Module], config: "Config"
) -> list[nn.Module]:
    """n couplings that change the halves in turn, the second half last, and what stands between."""
    transform, outputs = curve(config)
    layers: list[nn.Module] = []
    for i in range(n):
        layers.append(ActNorm(channels))
        if config.model == "glow":
            layers.append(InvertibleLinear(channels))
        conditioner = net(channels // 2, outputs * (channels // 2))
        layers.append(Coupling(conditioner, transform, swap=(n - i) % 2 == 0))
    return layers


def curve(config: "Config") -> tuple[Transform, int]:
    """The transform of one number that the model is built of, and how many parameters it takes."""
    if config.model == "nice":
        return additive, 1
    if config.model == "spline":
        return rational_quadratic_spline, 3 * config.bins + 1
    return affine, 2


def plane_flow(config: "Config", dims: int = 2) -> Flow:
    """The flow of points (B, dims) that `config.model` names."""
    n, width = config.layers, config.width
    if config.model == "planar":
        return Flow(ActNorm(dims), *(Planar(dims) for _ in range(n)))
    if config.model == "cnf":
        net, times = mlp(dims + 1, dims, width), torch.linspace(0, 1, n + 1).tolist()
        steps = [ContinuousStep(net, *pair, trace=config.trace) for pair in pairwise(times)]
        return Flow(ActNorm(dims), *steps)
    if config.model in ("maf", "iaf"):
        return Flow(*autoregressive(n, dims, width, inverse=config.model == "iaf"))
    layers = alternating(n, dims, partial(mlp, width=width), config)
    return Flow(*layers, ActNorm(dims))


def autoregressive(n: int, dims: int, width: int, inverse: bool = False) -> list[nn.Module]:
    """n layers of a MAF, or of an IAF, the order turned round after each."""
    layers, order = [], torch.arange(dims)
    for _ in range(n):
        layer = Autoregressive(MADE(order, 2, width), affine)
        layers += [ActNorm(dims), Inverse(layer) if inverse else layer]
        order = order.flip(0)
    return layers


def picture_flow(config: "Config", shape: Shape) -> Flow:
    """The flow of pictures u (B, C, H, W) in (0, 1) that `config.model` names.

    Raises:
        UserError: height or width is odd, so that 2 x 2 pixels do not fill the picture.
    """
    if shape[1] % 2 or shape[2] % 2:
        raise utils.UserError(
            f"expected pictures of even height and width, got {shape[1]} x {shape[2]}: "
            "give another size, as in folder:PATH@28"
        )
    if config.model == "maf":
        flat = (math.prod(shape),)
        chain = autoregressive(config.layers, *flat, config.width)
        return Flow(Logit(config.alpha), Reshape(shape, flat), *chain, Reshape(flat, shape))
    return Flow(Logit(config.alpha), scale(config, *shape))


def scale(config: "Config", channels: int, height: int, wide: int) -> Flow:
    """Couplings at one resolution; then a quarter of the pixels goes on at half of it.

    The others are factored out, first one colour of the checkerboard, then half of the other
    colour: each was last changed with all that goes on in sight, so it is modelled given that.
    """
    squeeze, n, net = Squeeze(), config.layers, partial(ConvNet, width=config.width)
    outer = alternating(n, 4 * channels, net, config)
    if height % 4 == wide % 4 == 0 and min(height, wide) >= 14:  # else too little is left to see
        inner = alternating(1, 2 * channels, net, config)
        inner.append(FactorOut(scale(config, channels, height // 2, wide // 2)))
    else:
        inner = alternating(n + 1, 2 * channels, net, config)
    return Flow(squeeze, *outer, FactorOut(Flow(*inner)), Inverse(squeeze))


# --- Objective ----------------------------------------------------------------------


def log_normal(z: Tensor) -> Tensor:
    """log N(z; 0, I), (B,) nats, of z (B, ...)."""
    return summed(-0.5 * z.square() - LOG_SQRT_2PI)


def log_prob(flow: nn.Module, x: Tensor) -> Tensor:
    """log p(x), (B,) nats: base density plus volume; exact, for a cnf up to its solver.

    notes/05 eq. (5.9).
    """
    z, log_det = flow(x)
    return log_normal(z) + log_det


def dequantize(x: Tensor, noise: Tensor) -> Tensor:
    """u = (k + noise) / 256 in (0, 1) of 8-bit pixels k = 255 x and noise in (0, 1)."""
    return ((255 * x).round() + noise) / 256


class Uniform(nn.Module):
    """The noise of dequantisation, uniform: all of a pixel's bin, 1/256 wide, is equally likely.

    Returns u, like x, and log q(u|x) = D log 256, (B,) nats. notes/05 eq. (5.52) counts in grey
    levels, where log q is 0, and log p lower by as much.
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        log_q = x[0].numel() * math.log(256)
        return dequantize(x, torch.rand_like(x)), x.new_full((len(x),), log_q)


class Dequantizer(nn.Module):
    """Learned noise instead of uniform noise: a small flow of its own, given the picture.

    Ho et al. (2019), Flow++, arXiv:1902.00275, section 3.1; notes/05 eq. (5.54).
    """

    def __init__(self, channels: int, width: int, layers: int = 2) -> None:
        super().__init__()
        sizes = 6 * channels, 4 * channels  # half of the noise and the whole picture, squeezed
        self.squeeze = Squeeze()
        self.layers = nn.ModuleList(
            Coupling(ConvNet(*sizes, width), affine, swap=i % 2 == 0) for i in range(layers)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        cond, _ = self.squeeze(2 * x - 1)
        h, _ = self.squeeze(torch.randn_like(x))
        log_q = log_normal(h)
        for layer in self.layers:
            h, log_det = layer(h, cond)
            log_q = log_q - log_det
        h, _ = self.squeeze.inverse(h)
        log_q = log_q - summed(F.logsigmoid(h) + F.logsigmoid(-h))
        return dequantize(x, h.sigmoid()), log_q + x[0].numel() * math.log(256)


def dequantization_bound(flow: nn.Module, x: Tensor, noise: nn.Module, k: int = 1) -> Tensor:
    """An estimate of log P(x), 8-bit pictures x in [0, 1], that is too low on average; (B,) nats.

    log of the mean of p(u) / q(u|x) over k draws u ~ q: the more draws, the tighter the bound.
    notes/05 eq. (5.55).
    """
    log_w = []
    for _ in range(k):
        u, log_q = noise(x)
        log_w.append(log_prob(flow, u) - log_q)
    return torch.logsumexp(torch.stack(log_w), dim=0) - math.log(k)


# --- Training and sampling ----------------------------------------------------------


def train(
    flow: Flow,
    noise: nn.Module | None,
    x: Tensor,
    look: Callable[[], Tensor] | None,
    run: utils.Run,
) -> None:
    """Maximise log p of points (N, 2), or its bound for pictures (N, C, H, W), with Adam."""
    learned = nn.Module() if noise is None else noise
    parameters = [*flow.parameters(), *learned.parameters()]
    # beta_2 = 0.99: the usual 0.999 would remember a thousand of a run's few thousand steps
    optimizer = torch.optim.Adam(parameters, lr=run.config.lr, betas=(0.9, 0.99), fused=True)
    with torch.no_grad():
        first = x[:256].to(run.device)
        flow(first if noise is None else noise(first)[0])  # ActNorm looks at it
    run.keep(flow=flow, noise=learned, optimizer=optimizer)
    net = run.data_parallel(flow)
    if noise is not None and list(noise.parameters()):
        noise = run.data_parallel(noise)
    for batch, _ in run.batches(x):
        optimizer.param_groups[0]["lr"] = run.trapezoid(run.config.lr)
        if noise is None:  # in full precision: two numbers are quickly worked out
            nll = -log_prob(net, batch)
        else:
            with run.autocast():
                nll = -dequantization_bound(net, batch, noise)
        loss = nll.mean() / batch[0].numel()
        optimizer.zero_grad()
        loss.backward()
        grad_norm = nn.utils.clip_grad_norm_(parameters, 1.0)  # one far point must not throw it
        optimizer.step()
        bits = utils.bits_per_dim(loss, 1)  # the loss is one dimension's share already
        run.log(nll=nll.mean(), bits_per_dim=bits, grad_norm=grad_norm)
        if look and run.time_to_look():
            run.show(look())
    flow.eval()


def sample(flow: Flow, z: Tensor, temperature: float = 1.0) -> Tensor:
    """What the flow makes of noise z (N, ...), made smaller if the temperature is below 1.

    notes/05 eq. (5.84) says what the temperature does, and what not.
    """
    return utils.in_parts(flow, lambda z: flow.inverse(temperature * z)[0], z)[0]


def to_pixels(u: Tensor) -> Tensor:
    """The 8-bit pixel, in [0, 1], in whose bin u lies: dequantisation undone."""
    return (256 * u).floor().clamp(0, 255) / 255


def exact_log_prob(flow: nn.Module, x: Tensor) -> Tensor:
    """log p(x) of many points (N, D), (N,) nats."""
    return utils.in_parts(flow, lambda x: log_prob(flow, x), x, rows=5000)[0]


def encode(flow: Flow, x: Tensor) -> Tensor:
    """z of points or dequantised pictures (N, ...)."""
    return utils.in_parts(flow, flow, x)[0]


def interpolate(flow: Flow, start: Tensor, end: Tensor, steps: int = 9) -> Tensor:
    """From pictures (N, C, H, W) to others along arcs between their z, (N, steps, C, H, W).

    A straight line would pass through z of a length that noise never has; notes/05 section 10.3.
    """
    z_0, z_1 = (encode(flow, dequantize(x, torch.full_like(x, 0.5))) for x in (start, end))
    angle = torch.linspace(0, math.pi / 2, steps).view(-1, 1, 1, 1)
    arcs = angle.cos() * z_0[:, None] + angle.sin() * z_1[:, None]
    return to_pixels(sample(flow, arcs.flatten(0, 1))).view_as(arcs)


# --- Experiment ---------------------------------------------------------------------


PLANE = {"dataset": "moons", "epochs": 30, "batch_size": 512, "lr": 2e-3, "bins": 32}
PLANE |= {"layers": 8, "width": 128, "num_samples": 2000}
PICTURES = {"dataset": "mnist5k", "epochs": 20, "batch_size": 32, "lr": 2e-3, "bins": 16}
PICTURES |= {"layers": 2, "width": 32, "num_samples": 2000}
IN_PLANE = {"planar": {"layers": 32}, "spline": {"layers": 4, "epochs": 25}, "maf": {"layers": 5}}
IN_PLANE |= {"iaf": {"layers": 5}, "cnf": {"epochs": 5}}
ON_PICTURES = {"maf": {"layers": 5, "width": 800, "batch_size": 128, "num_samples": 200}}
ON_PICTURES |= {"spline": {"epochs": 12}, "glow": {"epochs": 16}}
ONLY_PLANE = {
    "planar": "a layer bends along one direction, and 784 dimensions would need very many",
    "iaf": "its likelihood takes a pass for each dimension",
    "cnf": "each of its steps takes a derivative for each dimension",
}


@dataclass(frozen=True)
class Config(utils.Config):
    """Train a normalizing flow on pictures or on points in the plane; measure its likelihood."""

    model: Literal["realnvp", "nice", "planar", "maf", "iaf", "glow", "spline", "cnf"] = "realnvp"
    """Which layers. planar, iaf and cnf are for points in the plane only."""
    dataset: str | None = None
    """Pictures as in every chapter, mnist5k unless given, or a density in the plane: moons (for
    planar, iaf and cnf unless given), ring, checkerboard, ..."""
    epochs: int | None = None
    """Passes over the training set; 20 unless given (spline 12, glow 16), in the plane 30 (spline
    25, cnf 5)."""
    batch_size: int | None = None
    """Examples a step; 32 unless given (maf 128), 512 in the plane."""
    lr: float | None = None
    """Peak rate, 2e-3 unless given: warm-up, flat, a line to 0 over the last 30%."""
    layers: int | None = None
    """Couplings, MAF layers, planar layers or steps of the cnf: 8 unless given (spline 4, maf and
    iaf 5, planar 32). On pictures 2 (maf 5), couplings of all pixels at each resolution."""
    width: int | None = None
    """Hidden units, 128 unless given; on pictures channels of the convolutions, 32 (maf: hidden
    units, 800)."""
    bins: int | None = None
    """spline: bins of each curve; 16 unless given, 32 in the plane."""
    num_samples: int | None = None
    """Samples drawn at the end, for samples.npy and the metrics; 2,000 unless given, 200 pictures
    of a maf, which takes a pass for each pixel."""
    alpha: float = 1e-6
    """Pictures: how near to 0 and 1 the logit sees pixels; 1e-6 as in the MAF paper."""
    dequantize: Literal["uniform", "variational"] = "uniform"
    """Pictures: the noise that is added to 8-bit pixels, plain or learned."""
    importance_samples: int = 8
    """Pictures: draws of that noise in the tighter of the two bounds."""
    temperature: float = 1.0
    """Factor of the noise that samples are made of; below 1 they are more ordinary."""
    trace: Literal["exact", "hutchinson"] = "exact"
    """cnf: how the trace of the Jacobian is computed in training; evaluation is exact."""

    def __post_init__(self) -> None:
        in_plane = self.dataset in utils.DENSITIES
        in_plane |= self.dataset is None and self.model in ONLY_PLANE
        self.fill((IN_PLANE if in_plane else ON_PICTURES).get(self.model, {}))
        self.fill(PLANE if in_plane else PICTURES)
        super().__post_init__()
        for name in ("layers", "importance_samples"):
            utils.check_number(name, getattr(self, name), at_least=1)
        utils.check_number("bins", self.bins, at_least=2, below=500)
        utils.check_number("width", self.width, at_least=4)
        utils.check_number("alpha", self.alpha, above=0, below=0.1)
        utils.check_number("temperature", self.temperature, at_least=0)
        if self.trace == "hutchinson" and self.model != "cnf":
            raise utils.UserError(
                f"--trace: expected exact for {self.model}, which has no trace, got hutchinson: "
                "use --model cnf"
            )
        if self.dequantize == "variational" and in_plane:
            raise utils.UserError(
                f"--dequantize: expected uniform for {self.dataset}, whose points are continuous "
                "already, got variational: use a data set of pictures"
            )
        if self.model in ONLY_PLANE and not in_plane:
            raise utils.UserError(
                f"--model {self.model}: expected points in the plane, got {self.dataset}: "
                f"{ONLY_PLANE[self.model]}; use one of {', '.join(utils.DENSITIES)}"
            )


def mean_and_error(values: Tensor, name: str) -> Metrics:
    """Mean of values (N,), and its standard error."""
    error = values.std().item() / math.sqrt(len(values))
    return {name: values.mean().item(), f"{name}_standard_error": error}


def gaussian_log_prob(train: Tensor, test: Tensor) -> Tensor:
    """log density of rows `test` (M, D) under one Gaussian fitted to `train` (N, D), (M,) nats.

    All D^2 covariances, shrunk towards a round Gaussian the less, the more rows N there are: the
    plain covariance of 784 pixels in 4,000 pictures is nearly singular. Ledoit & Wolf (2004).
    """
    from sklearn.covariance import LedoitWolf

    fit = LedoitWolf().fit(train.double().numpy())
    mean, cov = torch.from_numpy(fit.location_), torch.from_numpy(fit.covariance_)
    return torch.distributions.MultivariateNormal(mean, cov).log_prob(test.double())


def likelihood(flow: Flow, noise: nn.Module, data: Images, config: Config) -> Metrics:
    """Bounds on bits per dimension, and the density in logit space beside a Gaussian's."""
    dims, k = data.train[0].numel(), config.importance_samples

    def bits(x: Tensor, k: int) -> Tensor:
        bound = utils.in_parts(flow, lambda x: dequantization_bound(flow, x, noise, k), x)[0]
        return utils.bits_per_dim(-bound, dims)

    logit, u = Logit(config.alpha), Uniform()(data.test)[0]
    (train, _), (test, volume) = logit(Uniform()(data.train)[0]), logit(u)
    exact = utils.in_parts(flow, partial(log_prob, flow), u)[0] - volume
    gaussian = gaussian_log_prob(train.flatten(1), test.flatten(1))
    to_bits = utils.bits_per_dim(-gaussian - volume, dims) + 8
    return (
        mean_and_error(bits(data.test, 1), "test_bound_bits_per_dim")
        | mean_and_error(bits(data.test[:1000], k), f"test_bound_bits_per_dim_importance_{k}")
        | {"train_bound_bits_per_dim": bits(data.train[:1000], 1).mean().item()}
        | mean_and_error(exact, "test_log_prob_logit_space_nats")
        | {"gaussian_log_prob_logit_space_nats": gaussian.mean().item()}
        | {"gaussian_bound_bits_per_dim": to_bits.mean().item()}
    )


def show_latents(flow: Flow, data: Images, run: utils.Run) -> Metrics:
    """Are the z of test pictures Gaussian noise? As pictures, as a histogram, as numbers."""
    from scipy.stats import kstest, kurtosis

    x = data.test[:1000]
    z = encode(flow, Uniform()(x)[0])
    rows = {"test images": x[:10], "their z": (z[:10] / 6 + 0.5).clamp(0, 1)}
    rows["N(0, I)"] = (torch.randn_like(z[:10]) / 6 + 0.5).clamp(0, 1)
    utils.image_rows(rows, run.path("latents.png"), title="z = f(x), from -3 to 3")
    edges = torch.linspace(-4, 4, 81)
    middles = (edges[1:] + edges[:-1]) / 2
    seen = torch.histogram(z.flatten(), edges, density=True).hist * ((z.abs() < 4).float().mean())
    normal = (-0.5 * middles.square() - LOG_SQRT_2PI).exp()
    series = {"z of test images": (middles, seen), "N(0, 1)": (middles, normal)}
    how = {"xlabel": "value", "ylabel": "density", "title": "All values of z = f(x)"}
    utils.curves(series, run.path("latents_histogram.png"), **how)
    values = z.flatten().numpy()
    return {
        "latent_variance": z.var().item(),
        "latent_excess_kurtosis": float(kurtosis(values)),
        "latent_kolmogorov_smirnov": float(kstest(values, "norm").statistic),
    }


def pictures(config: Config, run: utils.Run) -> None:
    """Train on pictures, then measure, draw, walk and vary the temperature."""
    data = utils.load_images(config.dataset, config.data_root, quick=config.quick)
    shape = data.image_shape
    flow = picture_flow(config, shape).to(run.device, memory_format=torch.channels_last)
    noise: nn.Module = Uniform()
    if config.dequantize == "variational":
        noise = Dequantizer(shape[0], config.width).to(run.device)
    probe = torch.randn(64, *shape)

    def look() -> Tensor:
        return to_pixels(sample(flow, probe, config.temperature))

    slow = config.model == "maf"  # a film would take longer than the training
    train(flow, noise, data.train, None if slow else look, run)
    if run.rank:
        return  # under torchrun only the first process evaluates and writes
    z, begin = torch.randn(config.num_samples, *shape), time.perf_counter()
    samples = to_pixels(sample(flow, z, config.temperature))
    seconds = time.perf_counter() - begin
    run.save_samples(
        samples, title=f"Samples of {config.model}, temperature {config.temperature:g}"
    )
    temperatures = torch.tensor([0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 1])
    cooled = to_pixels(sample(flow, (z[:4, None] * temperatures.view(8, 1, 1, 1)).flatten(0, 1)))
    rows = {f"sample {i}": row for i, row in enumerate(cooled.split(8), 1)}
    how = {"title": "The same noise, made smaller", "xlabel": "temperature"}
    ticks = [f"{t:g}" for t in temperatures.tolist()]
    utils.strips(rows, run.path("temperature.png"), ticks=ticks, **how)
    walks = {f"pair {i}": w for i, w in enumerate(interpolate(flow, *data.test[:6].split(3)), 1)}
    utils.strips(walks, run.path("interpolation.png"), title="Between two test images, through z")
    bits = {"ylabel": "bits per dimension, training", "title": f"Training: {config.model}"}
    run.draw_history("bits_per_dim", **bits)
    metrics = likelihood(flow, noise, data, config) | show_latents(flow, data, run)
    seconds_each = {"seconds_per_1000_samples": 1000 * seconds / len(samples)}
    run.finish(**metrics, **utils.sample_quality(samples, data), **seconds_each)


def plane(config: Config, run: utils.Run) -> None:
    """Train on points in the plane; compare the density with the true one, and show the way."""
    density = utils.density(config.dataset)
    points, test = density.sample(2_000 if config.quick else 100_000), density.sample(20_000)
    flow = plane_flow(config).to(run.device)
    noise = torch.randn(config.num_samples, 2)

    def look() -> Tensor:
        return utils.cloud(sample(flow, noise), density.bounds)

    train(flow, None, points, look, run)
    if run.rank:
        return
    begin = time.perf_counter()
    samples = sample(flow, noise, config.temperature)
    seconds = time.perf_counter() - begin

    run.save_points(samples)
    floor = {f"entropy {density.entropy:.3f}": density.entropy}
    how = {"ylabel": "-log p(x), nats a point", "hlines": floor}
    run.draw_history("nll", **how, title=f"Training: {config.model}")
    clouds = {"data": test[: len(samples)], config.model: samples}
    utils.scatter_2d(clouds, run.path("samples.png"), bounds=density.bounds)
    panels = {"true density": density.log_prob, config.model: partial(exact_log_prob, flow)}
    utils.density_2d(panels, run.path("density.png"), bounds=density.bounds)
    clouds = {"z = f(x) of test points": encode(flow, test[:5000]), "N(0, I)": torch.randn(5000, 2)}
    utils.scatter_2d(clouds, run.path("latents.png"), bounds=(-4, 4, -4, 4), letter="z")
    show_grid(flow, density.bounds, run)
    nll = -exact_log_prob(flow, test)
    run.finish(
        **mean_and_error(nll, "test_nll_nats"),
        entropy_nats=density.entropy,
        **mean_and_error(nll + density.log_prob(test), "kl_from_data_nats"),
        seconds_per_1000_samples=1000 * seconds / len(samples),
    )


def show_grid(flow: Flow, bounds: tuple[float, ...], run: utils.Run) -> None:
    """A grid in the space of the noise, carried layer by layer to the data."""
    grid, layers = utils.grid_2d((-3, 3, -3, 3), dots=1000), list(flow.layers)
    x_low, x_high, y_low, y_high = bounds  # of the data; the window holds the noise as well
    bounds = min(x_low, -3.2), max(x_high, 3.2), min(y_low, -3.2), max(y_high, 3.2)
    stages = [grid.flatten(0, 1)]
    for layer in reversed(layers):
        back = utils.in_parts(flow, layer.inverse, stages[-1], rows=10_000)
        stages.append(back[0])
    places = torch.linspace(0, len(stages) - 1, 40).tolist()
    frames = [stages[int(p)].lerp(stages[math.ceil(p)], p % 1) for p in places]
    labels = [f"after {int(p)} of {len(layers)} layers" for p in places]
    films = [utils.cloud(frame, bounds, side=224) for frame in frames]
    utils.animation(films, run.path("grid.gif"), labels=labels)
    panels, lines = {}, {}
    for k in torch.linspace(0, len(layers), 4).round().long().tolist():
        name = f"after {k} of {len(layers)} layers" if k else "noise"
        panels[name] = partial(exact_log_prob, Flow(*layers[len(layers) - k :]))
        lines[name] = stages[k].view_as(grid)
    utils.density_2d(panels, run.path("grid.png"), bounds=bounds, lines=lines, one_scale=False)


def main(config: Config) -> None:
    """Train on pictures or in the plane, then measure and draw."""
    run = utils.start(config, __file__)
    (plane if config.dataset in utils.DENSITIES else pictures)(config, run)


if __name__ == "__main__":
    utils.cli(main, Config)
