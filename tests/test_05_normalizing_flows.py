"""The flows chapter against autograd Jacobians, integrals of 1, closed forms and exact sums."""

import json
import math
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import multivariate_normal
from torch import nn
from torch.distributions import MultivariateNormal, Normal

from code_examples import diffusion, flows, utils, vae
from code_examples.utils.run import EVALUATION, stream

Config, Flow, ContinuousStep = flows.Config, flows.Flow, flows.ContinuousStep
FULL_MNIST = Path(__file__).resolve().parents[2] / "shared" / "data"
MODELS = ("realnvp", "nice", "planar", "maf", "iaf", "glow", "spline", "cnf")
OF_PICTURES = ("realnvp", "nice", "glow", "spline", "maf")
COUPLINGS = ("realnvp", "nice", "glow", "spline")
TRANSFORMS = {
    "additive": (flows.additive, 1),
    "affine": (flows.affine, 2),
    "spline": (flows.rational_quadratic_spline, 13),
}
ROOM = 6  # standard errors
close = torch.testing.assert_close


def shaken(net, size=0.3):
    """Random non-zero weights in float64; an ActNorm takes them for those it has learned."""
    generator = torch.Generator().manual_seed(0)
    net = net.double()
    with torch.no_grad():
        for p in net.parameters():
            p.add_(size * torch.randn(p.shape, generator=generator, dtype=torch.float64))
        for layer in net.modules():
            if isinstance(layer, flows.ActNorm):
                layer.initialized.fill_(True)
    return net


def float64(*values):
    return torch.tensor(values, dtype=torch.float64)


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def unit(*shape, seed=0):
    """Numbers between 0 and 1."""
    return normal(*shape, seed=seed).sigmoid()


def plane(model, size=0.25, dims=2, **flags):
    """A flow of points at random weights."""
    torch.manual_seed(0)
    flags = {"dataset": "moons", "layers": 3, "width": 8, "bins": 4} | flags
    return shaken(flows.plane_flow(Config(model=model, **flags), dims), size)


def of_pictures(model, shape=(1, 4, 4), size=0.1, **flags):
    """A flow of pictures at random weights."""
    torch.manual_seed(0)
    flags = {"dataset": "digits", "layers": 2, "width": 4, "bins": 4, "alpha": 1e-3} | flags
    return shaken(flows.picture_flow(Config(model=model, **flags), shape), size)


def jacobian(function, x):
    """(B, D_out, D_in) of a function of a batch (B, ...), one example at a time."""

    def one(x):
        return torch.autograd.functional.jacobian(lambda v: function(v[None])[0].flatten(), x)

    return torch.stack([one(example).flatten(1) for example in x])


def check_inverse(layer, x, atol=1e-10, *cond):
    """Forth and back ends where it began, in both orders, and the log-dets cancel."""
    z, log_det = layer(x, *cond)
    back, log_back = layer.inverse(z, *cond)
    assert log_det.shape == log_back.shape == (len(x),)
    assert back.shape == x.shape
    close(back, x, atol=atol, rtol=0)
    close(log_back, -log_det, atol=atol * x[0].numel(), rtol=0)
    again, log_det = layer(back, *cond)
    close(again, z, atol=atol * 10, rtol=0)
    return z


def check_log_det(layer, x, atol=1e-10, *cond):
    """log_det is log |det| of the Jacobian that autograd makes, for each example of its own."""
    z, log_det = layer(x, *cond)
    for i in range(len(x)):
        given = [c[i : i + 1] for c in cond]
        J = jacobian(lambda v, given=given: layer(v, *given)[0], x[i : i + 1])[0]
        assert J.shape == (x[0].numel(), z[0].numel())
        close(log_det[i], torch.linalg.slogdet(J)[1], atol=atol, rtol=1e-9)


def ticks(low, high, n):
    """Middles of n cells."""
    return low + (high - low) * (torch.arange(n, dtype=torch.float64) + 0.5) / n


def grid(half=12.0, n=300):
    """Middles of n x n cells, and the area of one."""
    axis = ticks(-half, half, n)
    return torch.cartesian_prod(axis, axis), (2 * half / n) ** 2


def watch(monkeypatch, name, note, module=flows):
    """Call `note` with the arguments of each call of a function."""
    original = getattr(module, name)

    def watched(*args, **kwargs):
        note(*args, **kwargs)
        return original(*args, **kwargs)

    monkeypatch.setattr(module, name, watched)


# --- Every layer: undone by its inverse, volume by autograd


def velocity(dims, size=0.3):
    torch.manual_seed(0)
    return shaken(flows.mlp(dims + 1, dims, 8), size)


def many_steps(n, net, trace="exact"):
    times = torch.linspace(0, 1, n + 1).tolist()
    return Flow(*(ContinuousStep(net, t, s, trace=trace) for t, s in pairwise(times)))


def coupling(kind, swap=False, channels=4, cond=0, pictures=False):
    torch.manual_seed(0)
    transform, outputs = TRANSFORMS[kind]
    make = flows.ConvNet if pictures else flows.mlp
    net = make(channels // 2 + cond, outputs * (channels // 2), 8)
    return shaken(flows.Coupling(net, transform, swap=swap), 0.2 if pictures else 0.4)


def autoregressive(kind, dims=4, order=None):
    torch.manual_seed(0)
    transform, outputs = TRANSFORMS[kind]
    order = torch.tensor([2, 0, 3, 1]) if order is None else order
    return shaken(flows.Autoregressive(flows.MADE(order, outputs, 12), transform), 0.4)


def linear(channels, seed=0):
    torch.manual_seed(seed)
    return shaken(flows.InvertibleLinear(channels), 0.3)


def planar(dims, seed=0, size=0.5):
    torch.manual_seed(seed)
    return shaken(flows.Planar(dims), size)


LAYERS = {
    "logit": lambda: (flows.Logit(0.05), unit(4, 2, 3)),
    "logit nearly whole": lambda: (flows.Logit(1e-6), unit(4, 1, 2, 2)),
    "reshape": lambda: (flows.Reshape((2, 3), (6,)), normal(3, 2, 3)),
    "squeeze": lambda: (flows.Squeeze(), normal(2, 3, 2, 4)),
    "actnorm, points": lambda: (shaken(flows.ActNorm(3)), normal(4, 3)),
    "actnorm, pictures": lambda: (shaken(flows.ActNorm(3)), normal(2, 3, 2, 3)),
    "linear, points": lambda: (linear(5), normal(3, 5)),
    "linear, pictures": lambda: (linear(4), normal(2, 4, 2, 3)),
    "planar": lambda: (planar(3), normal(5, 3)),
    "factor out": lambda: (flows.FactorOut(coupling("affine")), normal(3, 8)),
    "factor out, pictures": lambda: (
        flows.FactorOut(Flow(flows.Squeeze(), linear(4), flows.Inverse(flows.Squeeze()))),
        normal(2, 2, 4, 2),
    ),
    "chain": lambda: (
        Flow(linear(4), coupling("affine"), coupling("spline", swap=True)),
        normal(3, 4),
    ),
    "chain within a chain": lambda: (Flow(linear(2), plane("realnvp")), normal(3, 2)),
    "no layer": lambda: (Flow(), normal(3, 2)),
}
for kind in TRANSFORMS:
    for swap in (False, True):
        LAYERS[f"coupling {kind} {swap}"] = lambda k=kind, s=swap: (coupling(k, s), normal(4, 4))
    LAYERS[f"coupling {kind}, pictures"] = lambda k=kind: (
        coupling(k, pictures=True),
        normal(2, 4, 2, 3),
    )
    LAYERS[f"autoregressive {kind}"] = lambda k=kind: (autoregressive(k), normal(4, 4))


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("inverse", [False, True])
def test_layers_are_invertible_and_know_their_volume(name, inverse):
    layer, x = LAYERS[name]()
    if inverse:
        x = layer(x)[0].detach()
        layer = flows.Inverse(layer)
    z = check_inverse(layer, x)
    if (name, inverse) != ("planar", True):  # bisection: autograd has nothing to follow
        check_log_det(layer, x)
    if name not in ("reshape", "squeeze", "no layer"):
        assert (z.reshape(x.shape) - x).abs().max() > 0.1  # it does something


@pytest.mark.parametrize("kind", TRANSFORMS)
@pytest.mark.parametrize("swap", [False, True])
def test_couplings_listen_to_what_they_are_given(kind, swap):
    layer, x, cond = coupling(kind, swap, cond=3), normal(4, 4), normal(4, 3, seed=1)
    z = check_inverse(layer, x, 1e-10, cond)
    check_log_det(layer, x, 1e-10, cond)
    other, _ = layer(x, cond.flip(0))
    stays = slice(2, 4) if swap else slice(0, 2)
    assert torch.equal(other[:, stays], z[:, stays])
    assert (other - z).abs().sum(1).min() > 1e-3
    J = jacobian(lambda v: layer(v, cond[:1])[0], x[:1])[0]
    changes = slice(0, 2) if swap else slice(2, 4)
    assert (J[changes, stays].abs() > 1e-6).all()  # and to the half that stays as well


@pytest.mark.parametrize("model", MODELS)
def test_whole_flows_of_points(model):
    flow, x = plane(model), normal(5, 2)
    if model == "cnf":
        flow = Flow(flow.layers[0], many_steps(60, flow.layers[1].net))
        atol = 1e-6
    else:
        atol = 1e-10
    z = check_inverse(flow, x, atol)
    check_log_det(flow, x, atol)
    close(flows.log_prob(flow, x), flows.log_normal(z) + flow(x)[1], atol=1e-7, rtol=0)
    assert (z - x).abs().min(0).values.max() > 1e-3


@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 2, 2), (1, 6, 4), (2, 2, 6)], ids=str)
@pytest.mark.parametrize("model", OF_PICTURES)
def test_whole_flows_of_small_pictures(model, shape):
    flow, u = of_pictures(model, shape), unit(2, *shape)
    z = check_inverse(flow, u)
    check_log_det(flow, u)
    assert z.shape == u.shape


@pytest.mark.parametrize("model", OF_PICTURES)
def test_whole_flows_of_8_by_8_pictures(model):
    flow, u = of_pictures(model, (1, 8, 8)), unit(1, 1, 8, 8)
    check_inverse(flow, u)
    check_log_det(flow, u)


@torch.no_grad()
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 8, 8), (3, 32, 32)], ids=str)
@pytest.mark.parametrize("model", COUPLINGS)
def test_whole_flows_of_large_pictures(model, shape):
    flow, u = of_pictures(model, shape, 0.05, layers=2 if shape[0] == 1 else 1), unit(2, *shape)
    check_inverse(flow, u, 1e-9 if shape[1] == 32 else 1e-10)


def test_the_volume_of_a_flow_with_several_scales():
    """16 x 16 is the smallest picture that is halved twice."""
    flow, u = of_pictures("realnvp", (1, 16, 16), 0.05, layers=1), unit(1, 1, 16, 16)
    check_log_det(flow, u)


def test_a_chain_goes_back_in_the_other_order():
    a, b, x = linear(3, seed=1), planar(3), normal(4, 3)
    chain = Flow(a, b)
    close(chain(x)[0], b(a(x)[0])[0])
    close(chain.inverse(x)[0], a.inverse(b.inverse(x)[0])[0])
    assert torch.equal(flows.Inverse(chain)(x)[1], chain.inverse(x)[1])
    assert torch.equal(flows.Inverse(chain).inverse(x)[1], chain(x)[1])


def test_no_example_changes_another():
    for flow, x in (
        (plane("spline"), normal(5, 2)),
        (plane("iaf"), normal(5, 2)),
        (of_pictures("glow"), unit(5, 1, 4, 4)),
    ):
        order = torch.tensor([3, 1, 4, 0, 2])
        for way in (flow, flow.inverse):
            for out, moved in zip(way(x), way(x[order]), strict=True):
                close(moved, out[order])


# --- Densities


def test_the_base_density_is_that_of_torch():
    z = 2 * normal(4, 2, 3)
    close(flows.log_normal(z), Normal(0, 1).log_prob(z).sum(dim=(1, 2)))


@torch.no_grad()
@pytest.mark.parametrize("model", MODELS)
def test_densities_integrate_to_one_and_samples_follow_them(model):
    """Counts of exact samples in large cells against the density's integral over each."""
    flow = plane(model)
    if model == "cnf":
        flow = Flow(flow.layers[0], many_steps(8, flow.layers[1].net))
    points, area = grid()
    p = torch.cat([flows.log_prob(flow, part) for part in points.split(30_000)]).exp() * area
    flat = flows.log_normal(points).exp() * area
    assert (p - flat).abs().sum() > 0.3  # it does move
    assert p.sum().item() == pytest.approx(1, abs=1e-3)
    n = 20_000
    x = flows.sample(flow, normal(n, 2, seed=1))
    cell = ((x + 12) / 24 * 20).floor().long()
    assert ((cell >= 0) & (cell < 20)).float().mean() > 0.999
    inside = cell.clamp(0, 19)
    counts = torch.bincount(20 * inside[:, 0] + inside[:, 1], minlength=400).double()
    expected = n * p.view(20, 15, 20, 15).sum(dim=(1, 3)).flatten()
    likely = expected > 20
    assert likely.sum() > 5
    deviation = (counts - expected)[likely] / expected[likely].sqrt()
    assert deviation.abs().max() < ROOM


def test_a_density_of_pictures_integrates_to_one():
    """All of the square of two pixels' values, through the logit."""
    chain = plane("spline", 0.4)
    shape = (1, 1, 2)
    flow = Flow(flows.Logit(0.02), flows.Reshape(shape, (2,)), chain, flows.Reshape((2,), shape))
    axis = ticks(0, 1, 400)
    u = torch.cartesian_prod(axis, axis).view(-1, *shape)
    with torch.no_grad():
        mass = flows.log_prob(flow, u).exp().mean().item()
        x = chain.inverse(normal(20_000, 2))[0]
    low, high = math.log(0.02 / 0.98), math.log(0.98 / 0.02)  # what the logit can reach
    reached = ((x > low) & (x < high)).all(1).double().mean().item()
    assert 0.9 < mass < 1.001
    assert mass == pytest.approx(reached, abs=0.01)


def test_a_maf_layer_is_a_product_of_conditionals():
    """x_i ~ N(mu, sigma^2) with both from those before it: the factors, one after the other."""
    layer, x = autoregressive("affine"), normal(5, 4)
    shift, raw = layer.net(x).unbind(-1)
    log_scale = 3 * torch.tanh(raw / 3)
    mu, sigma = -shift * torch.exp(-log_scale), torch.exp(-log_scale)
    close(flows.log_prob(layer, x), Normal(mu, sigma).log_prob(x).sum(1))


# --- Maps of one number


@pytest.mark.parametrize("kind", TRANSFORMS)
def test_transforms_rise_and_know_their_slope(kind):
    transform, outputs = TRANSFORMS[kind]
    x = torch.linspace(-8, 8, 401, dtype=torch.float64).expand(5, 401).clone().requires_grad_()
    params = 2 * normal(5, 1, outputs).expand(5, 401, outputs)
    for inverse in (False, True):
        y, log_slope = transform(x, params, inverse)
        assert y.shape == log_slope.shape == x.shape
        (slope,) = torch.autograd.grad(y.sum(), x)
        close(log_slope, slope.log(), atol=1e-9, rtol=0)
        assert (y.diff(dim=1) > 0).all()
        back, log_back = transform(y.detach(), params, not inverse)
        close(back, x, atol=1e-10, rtol=0)
        close(log_back, -log_slope, atol=1e-8, rtol=0)


@pytest.mark.parametrize("kind", TRANSFORMS)
def test_transforms_treat_each_number_with_its_own_parameters(kind):
    transform, outputs = TRANSFORMS[kind]
    x, params = normal(3, 2, 4), normal(3, 2, 4, outputs, seed=1)
    for inverse in (False, True):
        y, log_slope = transform(x, params, inverse)
        one = [transform(x[i, 1, 2].view(1), params[i, 1, 2][None], inverse) for i in range(3)]
        close(y[:, 1, 2], torch.cat([o[0] for o in one]))
        close(log_slope[:, 1, 2], torch.cat([o[1] for o in one]))
        flat = torch.zeros_like(params)
        close(transform(x, flat, inverse)[0], x)
        close(transform(x, flat, inverse)[1], torch.zeros_like(x))


def test_additive_and_affine_by_hand():
    x = torch.tensor([1.0, -2.0]).double()
    assert flows.additive(x, torch.tensor([[0.5], [3.0]]).double())[0].tolist() == [1.5, 1.0]
    params = torch.tensor([[0.5, 0.1], [3.0, -50.0]]).double()
    y, log_slope = flows.affine(x, params)
    scale = 3 * math.tanh(0.1 / 3)
    assert y[0].item() == pytest.approx(math.exp(scale) + 0.5)
    assert log_slope.tolist() == pytest.approx([scale, -3])


def spline_by_hand(x, params, bound):
    """Gregory and Delbourgo's formula for one number, bin by bin, with plain numbers."""
    bins = (len(params) - 1) // 3
    widths, heights, raw = params[:bins], params[bins : 2 * bins], params[2 * bins :]
    shares = [[math.exp(v) for v in part] for part in (widths, heights)]
    shares = [[s / sum(part) for s in part] for part in shares]
    w, h = ([2 * bound * (1e-3 + (1 - 1e-3 * bins) * s) for s in part] for part in shares)
    slopes = [1e-3 + math.log1p(math.exp(r + math.log(math.expm1(0.999)))) for r in raw]
    left, below = [-bound], [-bound]
    for i in range(bins):
        left.append(left[-1] + w[i])
        below.append(below[-1] + h[i])
    if x <= -bound:
        return -bound + slopes[0] * (x + bound), left, below, slopes
    if x >= bound:
        return bound + slopes[-1] * (x - bound), left, below, slopes
    i = max(i for i in range(bins) if left[i] <= x)
    s, t = h[i] / w[i], (x - left[i]) / w[i]
    top = h[i] * (s * t * t + slopes[i] * t * (1 - t))
    bottom = s + (slopes[i] + slopes[i + 1] - 2 * s) * t * (1 - t)
    return below[i] + top / bottom, left, below, slopes


@pytest.mark.parametrize("bins", [2, 5])
@pytest.mark.parametrize("bound", [5.0, 2.0])
def test_the_spline_is_the_formula_of_its_paper_and_passes_through_its_knots(bins, bound):
    params = 1.5 * normal(3 * bins + 1, seed=3)
    given = params.tolist()
    x = torch.linspace(-1.5 * bound, 1.5 * bound, 101).double()
    params = params.expand(101, -1)
    y, _ = flows.rational_quadratic_spline(x, params, bound=bound)
    expected = [spline_by_hand(v, given, bound)[0] for v in x.tolist()]
    close(y, float64(*expected), atol=1e-10, rtol=0)
    _, left, below, slopes = spline_by_hand(0.0, given, bound)
    knots = float64(*left)
    y, log_slope = flows.rational_quadratic_spline(knots, params[: bins + 1], bound=bound)
    close(y, float64(*below), atol=1e-10, rtol=0)
    close(log_slope.exp(), float64(*slopes), atol=1e-9, rtol=1e-9)
    for sign in (-1, 1):  # the slope does not jump, neither within nor at the ends
        near = flows.rational_quadratic_spline(knots + sign * 1e-9, params[: bins + 1], bound=bound)
        close(near[1].exp(), float64(*slopes), atol=1e-6, rtol=0)


def test_outside_its_interval_the_spline_is_straight():
    params = 2 * normal(1, 13).expand(50, 13)
    for sign in (-1, 1):
        x = sign * torch.linspace(5, 100, 50).double()
        for inverse in (False, True):
            y, log_slope = flows.rational_quadratic_spline(x, params, inverse)
            close(y[0].abs(), torch.tensor(5.0).double())
            close(log_slope, log_slope[:1].expand(50))
            close(y - y[0], (x - x[0]) * log_slope[0].exp())


def test_the_spline_in_float32():
    """In units of what rounding its input would do, also where slopes are steep and outside."""
    generator = torch.Generator().manual_seed(0)
    params = 2 * torch.randn(20_000, 49, generator=generator)
    x = 2.5 * torch.randn(20_000, generator=generator)
    assert (x > 5).sum() > 100
    room = 1e-5
    for inverse in (False, True):
        y, log_slope = flows.rational_quadratic_spline(x, params, inverse)
        exact, log_exact = flows.rational_quadratic_spline(x.double(), params.double(), inverse)
        assert ((y - exact).abs() / (1 + log_exact.exp())).max() < room
        assert (log_slope - log_exact).abs().max() < 0.1
        assert (log_slope - log_exact).abs().median() < 1e-5
        back, _ = flows.rational_quadratic_spline(y, params, not inverse)
        assert ((back - x).abs() / (1 + (-log_exact).exp())).max() < 2 * room


def test_gradients_pass_through_the_inverse_of_a_straight_line():
    """Its quadratic equation has a = 0: a branch that divides by it must not spoil the other."""
    params = torch.zeros(10, 13, dtype=torch.float64, requires_grad=True)
    y = torch.linspace(-6, 6, 10, dtype=torch.float64, requires_grad=True)  # none on a knot
    x, log_slope = flows.rational_quadratic_spline(y, params, inverse=True)
    (x.sum() + log_slope.sum()).backward()
    close(y.grad, torch.ones_like(y))
    assert params.grad.isfinite().all()


def test_spline_gradients_are_finite_at_the_bounds_and_for_extreme_parameters():
    generator = torch.Generator().manual_seed(0)
    special = torch.tensor([-5.0, 5.0, 0.0, -1e4, 1e4, 4.9999995, -4.9999995, 1.0])
    for size in (0.0, 1.0, 30.0, 300.0):
        params = (size * torch.randn(40, 1, 13, generator=generator)).expand(40, 8, 13).clone()
        for inverse in (False, True):
            params.requires_grad_()
            x = special.expand(40, 8).clone().requires_grad_()
            y, log_slope = flows.rational_quadratic_spline(x, params, inverse)
            assert y.isfinite().all()
            assert log_slope.isfinite().all()
            for grad in torch.autograd.grad(y.sum() + log_slope.sum(), (x, params)):
                assert grad.isfinite().all()


def test_no_bin_is_narrower_than_a_thousandth():
    shares = float64(0.0, 0.0, 1.0), float64(0.2, 0.3, 0.5)
    places = flows.knots(torch.stack(shares), 2.0)
    many = flows.knots(normal(1000, 16).float().softmax(-1), 5.0)
    assert torch.equal(many[:, [0, -1]], torch.tensor([-5.0, 5.0]).expand(1000, 2))  # exactly
    assert places[0].diff().tolist() == pytest.approx([0.004, 0.004, 3.992])
    assert places[1].diff().tolist() == pytest.approx([0.004 + 3.988 * v for v in (0.2, 0.3, 0.5)])


# --- Layers of pictures


def test_the_logit_by_hand():
    z, log_det = flows.Logit(0.1)(torch.tensor([[0.25]]).double())
    v = 0.1 + 0.8 * 0.25
    assert z.item() == pytest.approx(math.log(v / (1 - v)))
    assert log_det.item() == pytest.approx(math.log(0.8 / (v * (1 - v))))


@pytest.mark.parametrize("alpha", [1e-6, 0.05])
def test_the_logit_in_float32_at_the_ends(alpha):
    layer = flows.Logit(alpha)
    u = torch.tensor([[0.0], [1e-30], [1e-6], [1 / 512], [0.5], [1 - 1 / 512], [1 - 6e-8], [1.0]])
    z, log_det = layer(u)
    exact, log_exact = layer(u.double())
    assert z.isfinite().all()
    assert log_det.isfinite().all()
    assert (z - exact).abs().max() < 0.05
    assert (log_det - log_exact).abs().max() < 0.05
    close(z[:5].double(), exact[:5], atol=1e-5, rtol=0)  # near 0 nothing is lost
    close(log_det[:5].double(), log_exact[:5], atol=1e-5, rtol=0)
    back, log_back = layer.inverse(z)
    close(back, u, atol=1e-6, rtol=0)
    close(log_back, -log_det, atol=1e-3 if alpha > 1e-3 else 0.1, rtol=0)


def test_squeezing_puts_the_colours_of_a_checkerboard_into_halves():
    row, column = torch.meshgrid(torch.arange(4), torch.arange(6), indexing="ij")
    black = ((row + column) % 2 == 0).double().expand(2, 3, 4, 6)
    squeezed, _ = flows.Squeeze()(black)
    assert squeezed.shape == (2, 12, 2, 3)
    assert (squeezed[:, :6] == 1).all()
    assert (squeezed[:, 6:] == 0).all()
    place = (10 * row + column).double().expand(1, 1, 4, 6)
    assert (flows.Squeeze()(place)[0][0, 0] == place[0, 0, ::2, ::2]).all()  # a smaller picture
    assert flows.Squeeze()(place)[0][0, :, 1, 2].tolist() == [24, 35, 25, 34]


@pytest.mark.parametrize("shape", [(500, 3), (20, 3, 4, 5)])
def test_actnorm_standardises_the_first_batch_only(shape):
    torch.manual_seed(0)
    layer, x = flows.ActNorm(3), 2 + 5 * torch.randn(shape)
    x[:, 1] *= 0.01
    assert not layer.initialized
    z, log_det = layer(x)
    assert layer.initialized
    channels = z.transpose(0, 1).flatten(1)
    close(channels.mean(1), torch.zeros(3), atol=1e-4, rtol=0)
    close(channels.std(1), torch.ones(3), atol=1e-3, rtol=0)
    pixels = x[0, 0].numel()
    expected = -pixels * x.transpose(0, 1).flatten(1).std(1).log().sum()
    close(log_det, expected.expand(len(x)), rtol=1e-3, atol=0)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    other = 7 * torch.randn(shape) - 1
    layer(other)
    for name, value in layer.state_dict().items():
        assert torch.equal(value, before[name])
    close(layer.inverse(z)[0], x, atol=1e-4, rtol=0)


def test_actnorm_survives_a_checkpoint():
    torch.manual_seed(0)
    layer, fresh = flows.ActNorm(2), flows.ActNorm(2)
    layer(3 + torch.randn(50, 2))
    fresh.load_state_dict(layer.state_dict())
    x = 10 * torch.randn(50, 2)
    assert torch.equal(fresh(x)[0], layer(x)[0])
    for name, value in fresh.state_dict().items():
        assert torch.equal(value, layer.state_dict()[name])


def test_actnorm_can_learn_and_a_channel_without_spread_is_no_accident():
    layer, x = flows.ActNorm(2), torch.stack([torch.ones(9), torch.arange(9.0)], dim=1)
    z, log_det = layer(x)
    assert z.isfinite().all()
    (z.sum() + log_det.sum()).backward()
    assert layer.log_scale.grad.isfinite().all()
    assert layer.log_scale.grad.abs().min() > 0
    assert layer.shift.grad.tolist() == [9, 9]


# --- Linear layers


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_an_invertible_linear_layer_starts_as_a_rotation(channels, seed):
    torch.manual_seed(seed)
    layer = flows.InvertibleLinear(channels)
    weight = layer.weight().detach()
    close(weight @ weight.T, torch.eye(channels), atol=1e-5, rtol=0)
    close(layer.log_s.sum(), torch.tensor(0.0), atol=1e-5, rtol=0)
    torch.manual_seed(seed)
    close(weight, torch.linalg.qr(torch.randn(channels, channels))[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("seed", range(3))
def test_on_pictures_a_linear_layer_is_a_1_by_1_convolution(seed):
    layer, x = linear(4, seed), normal(2, 4, 3, 5)
    weight = layer.weight()
    z, log_det = layer(x)
    close(z, F.conv2d(x, weight[:, :, None, None]))
    close(log_det, (15 * torch.linalg.slogdet(weight)[1]).expand(2))
    back, log_back = layer.inverse(x)
    close(back, F.conv2d(x, weight.inverse()[:, :, None, None]))
    close(log_back, -log_det)
    points = normal(6, 4)
    close(layer(points)[0], points @ weight.T)
    close(layer(points)[1], torch.linalg.slogdet(weight)[1].expand(6))


def test_all_parts_of_a_linear_layer_learn_and_its_triangles_stay_triangles():
    layer, x = linear(4), normal(3, 4)
    with torch.no_grad():
        layer.lower += 1
        layer.upper += 1  # what lies across the diagonal is not looked at
    check_inverse(layer, x)
    check_log_det(layer, x)
    (layer(x)[0].square().sum() + layer(x)[1].sum()).backward()
    assert (layer.lower.grad.tril(-1) != 0).sum() == (layer.upper.grad.triu(1) != 0).sum() == 6
    assert (layer.lower.grad.triu() == 0).all()
    assert (layer.upper.grad.tril() == 0).all()
    assert (layer.log_s.grad != 0).all()


def test_nothing_of_x_is_rounded_in_bfloat16():
    """Networks may be coarse; what is added to x, and the log-det, may not."""
    torch.manual_seed(0)
    layer, x = flows.InvertibleLinear(4), torch.randn(5, 4, 2, 2)
    exact = layer(x)[0], layer.inverse(x)[0]
    with torch.autocast("cpu", torch.bfloat16):
        rounded = layer(x)[0], layer.inverse(x)[0]
    for a, b in zip(exact, rounded, strict=True):
        assert torch.equal(a, b)
    assert flows.unrounded(x.bfloat16()).dtype == torch.float32
    assert flows.unrounded(x.double()).dtype == torch.float64
    for model in OF_PICTURES:
        flow, u = of_pictures(model).float(), unit(3, 1, 4, 4).float()
        with torch.autocast("cpu", torch.bfloat16):
            z, log_det = flow(u)
            back, log_back = flow.inverse(z)
        assert {t.dtype for t in (z, log_det, back, log_back)} == {torch.float32}
        if model != "maf":
            close(back, u, atol=1e-3, rtol=0)
    layer = autoregressive("affine").float()
    with torch.autocast("cpu", torch.bfloat16):
        z, log_det = layer(torch.randn(3, 4))
        back, log_back = layer.inverse(z)
    assert {t.dtype for t in (z, log_det, back, log_back)} == {torch.float32}


# --- Couplings and scales


@pytest.mark.parametrize("kind", TRANSFORMS)
@pytest.mark.parametrize("pictures", [False, True])
@pytest.mark.parametrize("swap", [False, True])
def test_what_stays_is_the_same_to_the_last_bit(kind, pictures, swap):
    layer = coupling(kind, swap, pictures=pictures)
    x = normal(3, 4, 3, 5) if pictures else normal(3, 4)
    stays, changes = (slice(2, 4), slice(0, 2)) if swap else (slice(0, 2), slice(2, 4))
    for way in (layer, layer.inverse):
        z, _ = way(x)
        assert torch.equal(z[:, stays], x[:, stays])
        assert (z[:, changes] != x[:, changes]).all()
        J = jacobian(lambda v, way=way: way(v)[0], x[:1])[0].view(*x[0].shape, *x[0].shape)
        assert (J[changes][:, ..., stays, :, :] if pictures else J[changes][:, stays]).any()


def test_each_channel_is_changed_by_parameters_of_its_own():
    """Another number of the same half never matters, except through the half that stays."""
    for kind in TRANSFORMS:
        layer, x = coupling(kind), normal(3, 4)
        J = jacobian(lambda v, layer=layer: layer(v)[0], x)
        off = J[:, 2:, 2:].clone()
        off.diagonal(dim1=1, dim2=2).zero_()
        assert (off == 0).all()
        assert (J[:, 2:, :2].abs() > 1e-6).all()


@pytest.mark.parametrize("model", COUPLINGS)
def test_halves_take_turns(model):
    """The second half last; two couplings change everything, one by what the other was."""
    torch.manual_seed(0)
    config = Config(model=model, dataset="moons", layers=4, width=8, bins=4)
    layers = flows.alternating(3, 4, lambda *sizes: flows.mlp(*sizes, 8), config)
    couplings = [layer for layer in layers if isinstance(layer, flows.Coupling)]
    assert [c.swap for c in couplings] == [False, True, False]
    kinds = [type(layer).__name__ for layer in layers]
    block = ["ActNorm", *["InvertibleLinear"] * (model == "glow"), "Coupling"]
    assert kinds == 3 * block
    flow, x = shaken(Flow(*couplings[1:])), normal(3, 4)
    J = jacobian(lambda v: flow(v)[0], x)
    assert (J.abs() > 1e-8).all(0).sum() == 16 - 2  # the first two do not see one another
    transform, outputs = flows.curve(config)
    assert (
        transform
        is TRANSFORMS.get({"nice": "additive", "spline": "spline"}.get(model, "affine"))[0]
    )
    assert outputs == {"nice": 1, "spline": 13}.get(model, 2)


@pytest.mark.parametrize("model", [m for m in MODELS if m not in ("planar", "cnf")])
def test_with_all_layers_every_coordinate_bends_with_every_other(model):
    flow, x = plane(model, 0.4, layers=2), normal(6, 2)
    J = jacobian(lambda v: flow(v)[0], x)
    assert (J.abs().amax(0) > 1e-3).all()
    constant = (J - J[:1]).abs().amax(0)
    assert (constant > 1e-3).sum() >= (2 if model == "nice" else 3)


def test_nice_keeps_volumes_up_to_its_scales():
    flow, x = plane("nice"), normal(6, 2)
    scales = sum(layer.log_scale.sum() for layer in flow.layers if isinstance(layer, flows.ActNorm))
    close(flow(x)[1], scales.expand(6))


def test_what_is_factored_out_is_finished():
    inner = coupling("affine", channels=4)
    layer, x = flows.FactorOut(inner), normal(3, 8)
    z, log_det = layer(x)
    assert torch.equal(z[:, 4:], x[:, 4:])
    assert torch.equal(z[:, :4], inner(x[:, :4])[0])
    assert torch.equal(log_det, inner(x[:, :4])[1])
    assert torch.equal(layer.inverse(z)[0][:, 4:], x[:, 4:])


@pytest.mark.parametrize(
    ("shape", "scales"),
    [
        *[((1, 8, 8), 1), ((3, 12, 12), 1), ((1, 16, 16), 2), ((1, 28, 28), 2), ((3, 32, 32), 3)],
        *[((1, 16, 32), 2), ((1, 32, 16), 2), ((1, 20, 20), 2)],
        *[((1, 16, 18), 1), ((1, 18, 16), 1), ((1, 32, 12), 1), ((1, 2, 2), 1)],
    ],
    ids=str,
)
def test_large_pictures_are_halved_again(shape, scales):
    flow = of_pictures("realnvp", shape, layers=3)
    modules = [*flow.modules()]
    assert sum(isinstance(m, flows.FactorOut) for m in modules) == 2 * scales - 1
    couplings = [m for m in modules if isinstance(m, flows.Coupling)]
    halves = [c.net.inlet.in_channels for c in couplings]  # of four quarters, then of two
    assert set(halves) == {2 * shape[0], shape[0]}
    assert halves.count(2 * shape[0]) == 3 * scales
    assert halves.count(shape[0]) >= scales
    assert isinstance(flow.layers[1].layers[-2], flows.FactorOut)  # after the couplings


def test_pixels_are_finished_given_those_that_go_on():
    """With one coupling each: white pixels look at black ones, then half of those at the rest."""
    torch.manual_seed(0)
    config = Config(dataset="digits", layers=1, width=4)
    flow, x = shaken(flows.scale(config, 1, 16, 16), 0.2), normal(1, 1, 16, 16)
    J = jacobian(lambda v: flow(v)[0], x)[0]
    row, column = (t.flatten() for t in torch.meshgrid(*[torch.arange(16)] * 2, indexing="ij"))
    white = (row + column) % 2 == 1
    goes_on = (row % 2 == 0) & (column % 2 == 0)
    between = ~white & ~goes_on
    assert (J.diagonal() != 0).all()
    linked = (J != 0) & ~torch.eye(256, dtype=torch.bool)
    assert linked[white][:, ~white].any(1).all()
    assert linked[white][:, ~white].any(0).all()
    assert not linked[white][:, white].any()
    assert not linked[~white][:, white].any()
    assert linked[between][:, goes_on].any(1).all()
    assert not linked[between][:, between].any()
    assert not linked[goes_on][:, ~goes_on].any()


@pytest.mark.parametrize("model", OF_PICTURES)
def test_all_pixels_depend_on_one_another(model):
    flow, u = (
        of_pictures(model, (1, 8, 8), 0.2, width=64 if model == "maf" else 4),
        unit(1, 1, 8, 8),
    )
    J = jacobian(lambda v: flow(v)[0], u)[0]
    assert (J.diagonal() != 0).all()
    linked = (J != 0).double().mean()
    assert linked > 0.5


@torch.no_grad()
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (7, 7), (4, 6)])
def test_the_convolutional_network_keeps_every_size_and_sees_far(size):
    torch.manual_seed(0)
    net = flows.ConvNet(2, 6, 4)
    x = torch.randn(3, 2, *size)
    assert torch.equal(net(x), torch.zeros(3, 6, *size))  # at first nothing is changed
    net, x = shaken(net, 0.2), x.double()
    out = net(x)
    assert out.shape == (3, 6, *size)
    close(net(x[1:2]), out[1:2])
    moved = net(x + normal(*x.shape, seed=1))
    assert ((moved - out).abs() > 1e-8).all()


def test_no_weight_is_idle():
    for model in OF_PICTURES:
        flow = of_pictures(model, (1, 4, 4), width=16)
        (-flows.log_prob(flow, unit(3, 1, 4, 4)).mean()).backward()
        idle = [name for name, p in flow.named_parameters() if not p.grad.any()]
        assert idle == [], model
    for model in MODELS:
        flow = plane(model)
        (-flows.log_prob(flow, normal(3, 2)).mean()).backward()
        idle = [name for name, p in flow.named_parameters() if p.grad is None or not p.grad.any()]
        assert idle == [], model


def test_a_new_flow_only_standardises():
    """Its curves are straight lines at first, whatever the model, if it has curves."""
    for model in ("realnvp", "nice", "spline", "maf", "iaf", "cnf"):
        torch.manual_seed(0)
        flow = flows.plane_flow(Config(model=model, dataset="moons", layers=3, width=8))
        x = 3 + torch.randn(200, 2) * torch.tensor([2.0, 0.1])
        z, log_det = flow(x)
        close(z, (x - x.mean(0)) / x.std(0), atol=1e-3, rtol=0)
        close(log_det, -x.std(0).log().sum().expand(200), atol=1e-3, rtol=0)


def test_the_norm_is_over_the_channels_of_a_place():
    x, norm = normal(2, 6, 3, 4), shaken(flows.ChannelNorm(6))
    place = x[1, :, 2, 0]
    expected = (place - place.mean()) / (place.var(correction=0) + norm.eps).sqrt()
    close(norm(x)[1, :, 2, 0], expected * norm.weight + norm.bias)


@torch.no_grad()
def test_the_networks_written_out():
    torch.manual_seed(0)
    net, x = shaken(flows.ConvNet(2, 6, 4), 0.2), normal(2, 2, 5, 4)

    def conv(layer, x, **how):
        return F.conv2d(x, layer.weight, layer.bias, **how)

    def residual(block, x):
        inner = conv(block.conv1, F.silu(block.norm(x)), padding=1)
        return x + conv(block.conv2, F.silu(inner), padding=1)

    h = conv(net.inlet, x, padding=1)
    low = conv(net.up, residual(net.inner, conv(net.down, h, padding=1, stride=2)))
    h = residual(net.outer, h + F.pixel_shuffle(low, 2)[:, :, :5, :4])
    close(net(x), conv(net.outlet, F.silu(net.norm(h)), padding=1))
    net, x = shaken(flows.mlp(3, 5, 8)), normal(4, 3)
    first, second, last = (layer for layer in net if isinstance(layer, nn.Linear))
    close(net(x), last(F.silu(second(F.silu(first(x))))))
    assert last.out_features == 5


# --- Planar


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("size", [0.0, 1.0, 3.0, 6.0])
def test_planar_layers_can_be_inverted_whatever_their_parameters(size, seed):
    layer, x = planar(3, seed, size), 3 * normal(200, 3)
    wu, given = (layer.w @ layer.push()).item(), (layer.w @ layer.u).item()
    assert wu > -1
    assert wu == pytest.approx(math.log1p(math.exp(given)) - 1, abs=1e-8)
    across = layer.push() - layer.u  # along w only
    close(across, (across @ layer.w) / (layer.w @ layer.w) * layer.w, atol=1e-8, rtol=0)
    z, _ = layer(x)
    push = torch.tanh(x @ layer.w + layer.b)[:, None] * layer.push()
    close(z, x + push)
    back, log_back = layer.inverse(z)
    steepest = 1 / (1 + min(wu, 0))
    assert (layer(back)[0] - z).abs().max() < 1e-10
    assert ((back - x).abs() / steepest).max() < 1e-10
    close(log_back, -layer(back)[1])
    check_log_det(layer, x[:4], 1e-9)


def test_planar_layers_whose_push_points_back_are_inverted():
    """The hard case of bisection: w u just above -1, and z on all sides of the plane."""
    torch.manual_seed(0)
    layer = flows.Planar(2).double()
    with torch.no_grad():
        layer.w.copy_(torch.tensor([3.0, 1.0]))
        layer.u.copy_(torch.tensor([-2.0, 1.0]))
        layer.b.fill_(0.4)
    x = 2 * normal(500, 2)
    z, _ = layer(x)
    close(layer.inverse(z)[0], x, atol=1e-9, rtol=0)
    along = torch.linspace(-4, 4, 999).double()[:, None] * layer.w
    assert ((layer(along)[0] @ layer.w).diff() > 0).all()


def test_planar_layers_in_float32():
    torch.manual_seed(0)
    layer, x = flows.Planar(2), torch.randn(100, 2)
    back, _ = layer.inverse(layer(x)[0])
    close(back, x, atol=1e-4, rtol=0)


# --- MADE, MAF, IAF

ORDERS = ([0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 0, 4, 1, 3], [1, 3, 0, 4, 2])


@pytest.mark.parametrize("order", ORDERS, ids=str)
@pytest.mark.parametrize("outputs", [1, 3])
def test_masks_let_through_what_comes_before_and_nothing_else(order, outputs):
    """By the Jacobian: every allowed dependence is there, for each of the parameters of x_i."""
    torch.manual_seed(0)
    order = torch.tensor(order)
    net, x = shaken(flows.MADE(order, outputs, 24), 0.5), normal(20, 5)
    assert net(x).shape == (20, 5, outputs)
    J = jacobian(lambda v: net(v), x).view(20, 5, outputs, 5)
    seen = (J != 0).any(0)
    allowed = order[:, None] > order
    assert torch.equal(seen, allowed[:, None].expand(5, outputs, 5))
    for name, p in net.named_parameters():
        assert p.requires_grad, name
    net(x).square().sum().backward()
    assert all(p.grad.any() for p in net.parameters())


@pytest.mark.parametrize("hidden", [4, 5, 8, 200])
@pytest.mark.parametrize("dims", [1, 2, 3, 7])
def test_masks_never_let_through_more_however_many_units(dims, hidden):
    torch.manual_seed(0)
    order = torch.randperm(dims)
    net = shaken(flows.MADE(order, 2, hidden), 0.5)
    J = jacobian(lambda v: net(v), normal(10, dims)).view(10, dims, 2, dims)
    assert not (J != 0).any(0)[(order[:, None] <= order)[:, None].expand(dims, 2, dims)].any()
    first = (order == 0).nonzero().item()
    out = net(normal(10, dims))
    close(out[:, first], out[:1, first].expand(10, 2))
    if hidden >= 4 * dims:
        assert torch.equal((J != 0).any(0).any(1), order[:, None] > order)


def test_a_new_made_says_zero_and_has_two_hidden_layers():
    torch.manual_seed(0)
    net, x = flows.MADE(torch.arange(4), 2, 10), normal(3, 4).float()
    assert torch.equal(net(x), torch.zeros(3, 4, 2))
    net = shaken(net)
    first, second, last = net.layers
    masks = [net.get_buffer(f"mask{i}") for i in range(3)]
    degree = masks[0].sum(1) - 1  # of the units of both layers, in the order 0, 1, 2, 3
    assert set(degree.tolist()) == {0, 1, 2}
    assert torch.equal(masks[1], (degree[:, None] >= degree).double())
    h = F.relu(x.double() @ (masks[0] * first.weight).T + first.bias)
    h = F.relu(h @ (masks[1] * second.weight).T + second.bias)
    out = h @ (masks[2] * last.weight).T + last.bias
    close(net(x.double()), out.view(3, 4, 2))


@pytest.mark.parametrize("kind", TRANSFORMS)
def test_the_way_back_takes_a_pass_for_each_dimension(kind):
    order = torch.tensor([2, 0, 3, 1])
    layer, z = autoregressive(kind, order=order), normal(5, 4)
    passes = []
    layer.net.register_forward_hook(lambda *_: passes.append(0))
    x, log_det = layer.inverse(z)
    assert len(passes) == 4
    by_hand, slopes = torch.zeros_like(z), torch.zeros(5).double()
    for i in order.argsort():  # x_i from z_i and from those before it
        params = layer.net(by_hand)[:, i]
        by_hand[:, i], log_slope = layer.transform(z[:, i], params, True)
        slopes = slopes + log_slope
    close(x, by_hand)
    close(log_det, slopes)


def test_maf_and_iaf_are_each_others_inverse():
    """With the same weights: the sampler of one is the density of the other."""
    torch.manual_seed(0)
    maf, iaf = (Flow(*flows.autoregressive(3, 4, 12, inverse=i)) for i in (False, True))
    for i, layer in enumerate(iaf.layers):
        assert isinstance(layer, (flows.ActNorm, flows.Inverse)[i % 2])
        assert isinstance(maf.layers[i], (flows.ActNorm, flows.Autoregressive)[i % 2])
        (layer.layer if i % 2 else layer).load_state_dict(maf.layers[i].state_dict())
    maf, iaf, x = shaken(maf), shaken(iaf), normal(5, 4)
    for a, b in zip(maf.layers, iaf.layers, strict=True):
        if isinstance(a, flows.Autoregressive):
            assert torch.equal(a(x)[0], b.inverse(x)[0])
            assert torch.equal(a.inverse(x)[0], b(x)[0])
            assert torch.equal(a(x)[1], b.inverse(x)[1])
    check_inverse(iaf, x)
    check_log_det(iaf, x)


def test_the_order_is_turned_round_after_each_layer():
    torch.manual_seed(0)
    layers = [shaken(layer) for layer in flows.autoregressive(3, 4, 12)]
    lower = torch.ones(4, 4).tril().bool()
    for layer, seen in zip(layers[1::2], (lower, lower.T, lower), strict=True):
        J = jacobian(lambda v, layer=layer: layer(v)[0], normal(20, 4))
        assert torch.equal((J != 0).any(0), seen)


@pytest.mark.parametrize("model", ["maf", "iaf", "cnf", "planar", "glow"])
def test_gradients_of_the_likelihood_are_finite_differences(model):
    """Through D passes, through a Runge-Kutta step, through a bisection that is not in the way."""
    flow, x = plane(model, layers=2), normal(4, 2)
    parameters = [*flow.parameters()]
    grads = torch.autograd.grad(flows.log_prob(flow, x).sum(), parameters)
    generator = torch.Generator().manual_seed(1)
    for p, grad in zip(parameters, grads, strict=True):
        direction = torch.randn(p.shape, generator=generator, dtype=torch.float64)
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                p.add_(sign * 1e-5 * direction)
                values.append(flows.log_prob(flow, x).sum().item())
                p.sub_(sign * 1e-5 * direction)
        slope = (values[0] - values[1]) / 2e-5
        assert (grad * direction).sum().item() == pytest.approx(slope, abs=1e-5)


# --- Continuous flows


class Field(nn.Module):
    """A velocity from a function of x and t."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, xt):
        return self.function(xt[:, :-1], xt[:, -1:])


@pytest.mark.parametrize("trace", ["exact", "hutchinson"])
def test_a_linear_velocity_makes_the_exponential_of_a_matrix(trace):
    A, x = 0.7 * normal(3, 3), normal(5, 3, seed=1)
    A = torch.diag(A.diagonal()) if trace == "hutchinson" else A  # then it does not vary
    flow = many_steps(30, Field(lambda x, t: x @ A.T), trace)
    z, log_det = flow(x)
    close(z, x @ torch.linalg.matrix_exp(A).T, atol=1e-6, rtol=0)
    close(log_det, A.trace().expand(5), atol=1e-9, rtol=0)
    close(flow.inverse(x)[0], x @ torch.linalg.matrix_exp(-A).T, atol=1e-6, rtol=0)
    close(flow.inverse(x)[1], -A.trace().expand(5), atol=1e-9, rtol=0)


def test_one_step_is_a_taylor_polynomial_of_fourth_order():
    A, x = 0.7 * normal(3, 3), normal(5, 3, seed=1)
    z, _ = ContinuousStep(Field(lambda x, t: x @ A.T), 0.2, 0.7)(x)
    h = 0.5 * A
    series = sum(torch.linalg.matrix_power(h, k) / math.factorial(k) for k in range(5))
    close(z, x @ series.T)


def test_the_velocity_is_told_the_time():
    """dx/dt = 4 t^3 x: one step of Simpson's rule for the trace, and the exact solution of many."""
    x, field = normal(5, 2), Field(lambda x, t: 4 * t**3 * x)
    z, log_det = many_steps(20, field)(x)
    close(z, math.e * x, atol=1e-4, rtol=0)
    close(log_det, torch.full((5,), 2.0).double(), atol=1e-9, rtol=0)
    step = ContinuousStep(field, 0.5, 1.0)
    close(step(x)[1], torch.full((5,), 2 * (1 - 0.5**4)).double())
    close(step.inverse(x)[1], torch.full((5,), -2 * (1 - 0.5**4)).double())
    pushed, _ = ContinuousStep(Field(lambda x, t: 3 * t**2 + 0 * x), 1.0, 3.0)(x)
    close(pushed, x + 26)


@torch.no_grad()
def test_the_error_of_the_solver_falls_with_the_fourth_power_of_the_steps():
    """Forth and back, position and volume: half as long a step, a sixteenth of the error."""
    net, x = velocity(2, 0.6), normal(20, 2)
    exact, log_exact = many_steps(200, net)(x)
    errors = {"z": [], "log_det": [], "back": [], "sum": []}
    for n in (5, 10):
        flow = many_steps(n, net)
        z, log_det = flow(x)
        back, log_back = flow.inverse(z)
        errors["z"].append((z - exact).abs().max().item())
        errors["log_det"].append((log_det - log_exact).abs().max().item())
        errors["back"].append((back - x).abs().max().item())
        errors["sum"].append((log_det + log_back).abs().max().item())
    for name, (coarse, fine) in errors.items():
        assert 1e-10 < fine < 1e-3, name
        assert coarse / fine > 9, name  # 16 to first order, and 32 for some


def test_the_volume_of_many_steps_is_that_of_autograd():
    net, x = velocity(3, 0.5), normal(3, 3)
    check_log_det(many_steps(20, net), x, 1e-6)
    check_log_det(flows.Inverse(many_steps(20, net)), x, 1e-6)


def test_hutchinsons_trace_is_right_on_average():
    """Its directions are of signs, so what is left is the size of the off-diagonal elements."""
    torch.manual_seed(0)
    net, n = velocity(3, 0.6), 20_000
    x = normal(1, 3)
    exact = ContinuousStep(net, 0.1, 0.6)(x)[1]
    z, estimates = ContinuousStep(net, 0.1, 0.6, trace="hutchinson")(x.expand(n, 3))
    close(z[0], ContinuousStep(net, 0.1, 0.6)(x)[0][0])
    assert estimates.std() > 1e-3
    room = ROOM * estimates.std() / math.sqrt(n)
    assert (estimates.mean() - exact).abs() < room
    J = jacobian(lambda v: net(torch.cat([v, torch.zeros_like(v[:, :1])], dim=1)), x)[0]
    _, d = ContinuousStep(net, 0, 1, trace="hutchinson").slopes(
        x.expand(8, 3), 0.0, torch.cartesian_prod(*[torch.tensor([-1.0, 1.0]).double()] * 3)
    )
    close(d.mean(), J.trace())  # all eight directions of signs
    eps = normal(8, 3, seed=5)
    _, d = ContinuousStep(net, 0, 1, trace="hutchinson").slopes(x.expand(8, 3), 0.0, eps)
    close(d, torch.einsum("bi,ij,bj->b", eps, J, eps))


@pytest.mark.parametrize("trace", ["exact", "hutchinson"])
def test_continuous_steps_learn_in_training_and_keep_no_graph_in_evaluation(trace):
    net, x = velocity(2), normal(4, 2)
    step = ContinuousStep(net, 0, 0.5, trace=trace)
    torch.manual_seed(0)
    z, log_det = step(x)
    (z.sum() + log_det.sum()).backward()
    assert all(p.grad.any() for p in net.parameters() if p is not net[-1].bias)
    torch.manual_seed(0)
    with torch.no_grad():
        again, log_again = step(x)
        v, rate = step.slopes(x, 0.0, torch.ones_like(x))
    assert not v.requires_grad
    assert not rate.requires_grad
    assert not again.requires_grad
    assert not log_again.requires_grad
    close(again, z)
    close(log_again, log_det)


def test_a_continuous_flow_goes_from_0_to_1_with_one_velocity():
    flow = plane("cnf", layers=5)
    steps = flow.layers[1:]
    assert len(steps) == 5
    assert len({id(step.net) for step in steps}) == 1
    assert [step.start for step in steps] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])
    assert [step.end for step in steps] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1])
    assert {step.trace for step in steps} == {"exact"}
    assert {s.trace for s in plane("cnf", trace="hutchinson").layers[1:]} == {"hutchinson"}


def test_the_layers_are_as_many_as_asked_for():
    for model in MODELS:
        kinds = {"planar": flows.Planar, "cnf": ContinuousStep, "iaf": flows.Inverse}
        kinds["maf"] = flows.Autoregressive
        kind = kinds.get(model, flows.Coupling)
        for n in (1, 4):
            layers = plane(model, layers=n).layers
            assert sum(isinstance(layer, kind) for layer in layers) == n
            assert isinstance(layers[0], flows.ActNorm)
    for model in OF_PICTURES:
        assert of_pictures(model, alpha=0.02).layers[0].alpha == 0.02


# --- Pixels and dequantisation


def test_dequantised_pixels_stay_in_their_bins():
    x = (torch.arange(256) / 255).view(256, 1, 1, 1)
    for share in (0.0, 1e-3, 0.25, 0.5, 0.999):
        u = flows.dequantize(x, torch.full_like(x, share))
        close(u.flatten().double(), (torch.arange(256).double() + share) / 256, atol=1e-7, rtol=0)
        assert torch.equal(flows.to_pixels(u), x)
        for off in (-3e-4, 3e-4):  # no whole 8-bit value
            assert torch.equal(flows.dequantize(x + off, torch.full_like(x, share)), u)
    for noise in (flows.Uniform(), shaken(flows.Dequantizer(1, 4), 0.1).float()):
        torch.manual_seed(0)
        pictures = x[torch.randint(256, (64,))].expand(64, 1, 4, 4)
        u, log_q = noise(pictures)
        assert u.shape == pictures.shape
        assert log_q.shape == (64,)
        inside = 256 * u.double() - (255 * pictures.double()).round()
        assert ((inside > -1e-4) & (inside < 1 + 1e-4)).all()
        assert inside.flatten(1).std(1).min() > 0.01


def test_pixels_are_8_bit_and_within_0_and_1():
    u = torch.tensor([-0.5, 0.0, 1 / 256 - 1e-6, 1 / 256 + 1e-6, 0.5, 0.999, 1.0, 1.7])
    expected = [0, 0, 0, 1 / 255, 128 / 255, 1, 1, 1]
    assert flows.to_pixels(u).tolist() == pytest.approx(expected)


def test_uniform_noise_is_uniform_and_fresh():
    torch.manual_seed(0)
    x = torch.full((5000, 1, 2, 2), 100 / 255)
    noise = flows.Uniform()
    u, log_q = noise(x)
    v = 256 * u - 100
    counts = torch.histc(v, 10, 0, 1)
    assert counts.sum() == 20_000
    assert ((counts - 2000) / math.sqrt(2000)).abs().max() < ROOM
    close(log_q, torch.full((5000,), 4 * math.log(256)))
    assert not torch.equal(noise(x)[0], u)


def pixels(*values):
    """A picture with these 8-bit values."""
    return torch.tensor(values, dtype=torch.float64) / 255


def narrow(scale, *centres):
    """A Gaussian in logit space that is about as narrow as a pixel's bin, turned a little."""
    dims = len(centres)
    norm = flows.ActNorm(dims).double()
    norm.initialized.fill_(True)
    mix = linear(dims)
    centre = torch.tensor(centres).double()
    with torch.no_grad():
        norm.log_scale.fill_(math.log(scale))
        norm.shift.copy_(-scale * (0.05 + 0.9 * centre).logit())
    return norm, mix


def log_mass(flow, x, n):
    """log P(x): the density summed over n points along each pixel of the bin of one picture."""
    dims = x.numel()
    axis = ticks(0, 1, n)
    inside = torch.cartesian_prod(*[axis] * dims).view(-1, *x.shape)
    u = ((255 * x).round() + inside) / 256
    return flows.log_prob(flow, u).logsumexp(0) - dims * math.log(256 * n)


@torch.no_grad()
def test_the_bound_is_below_the_discrete_likelihood_and_rises_with_the_draws():
    """Two pixels, where the integral over a bin can be done; the weights' mean is exact."""
    torch.manual_seed(0)
    centres = 128.6 / 256, 77.3 / 256
    shape, ends = (1, 1, 2), (flows.Reshape((1, 1, 2), (2,)), flows.Reshape((2,), (1, 1, 2)))
    flow = Flow(flows.Logit(0.05), ends[0], *narrow(250.0, *centres), ends[1])
    x, n = pixels(128, 77).view(shape), 4000
    exact = log_mass(flow, x, 200)
    means = {}
    for k in (1, 4, 16):
        bound = flows.dequantization_bound(flow, x.expand(n, *shape), flows.Uniform(), k=k)
        assert bound.shape == (n,)
        means[k] = bound.mean().item()
        room = ROOM * bound.std().item() / math.sqrt(n)
        weights = (bound - exact).exp()
        assert (weights.mean() - 1).abs() < ROOM * weights.std() / math.sqrt(n)
        assert means[k] < exact + room
    assert means[1] < means[4] - 0.1
    assert means[4] < means[16] - 0.02
    assert means[16] < exact
    torch.manual_seed(1)
    u, log_q = flows.Uniform()(x.expand(50, *shape))
    torch.manual_seed(1)
    bound = flows.dequantization_bound(flow, x.expand(50, *shape), flows.Uniform())
    close(bound, flows.log_prob(flow, u) - log_q)


@torch.no_grad()
def test_a_learned_noise_makes_a_bound_too():
    """Four pixels; noise whose weights do not run away, since the density lies well inside."""
    torch.manual_seed(0)
    shape = (1, 2, 2)
    ends = flows.Reshape(shape, (4,)), flows.Reshape((4,), shape)
    centres = [(v + 0.5) / 256 for v in (128, 77, 150, 90)]
    flow = Flow(flows.Logit(0.05), ends[0], *narrow(400.0, *centres)[:1], ends[1])
    x, n = pixels(128, 77, 150, 90).view(shape), 4000
    noise = shaken(flows.Dequantizer(1, 4), 0.05)
    exact = log_mass(flow, x, 24)
    means = {}
    for k in (1, 8):
        bound = flows.dequantization_bound(flow, x.expand(n, *shape), noise, k=k)
        weights = (bound - exact).exp()
        assert (weights.mean() - 1).abs() < ROOM * weights.std() / math.sqrt(n)
        means[k] = bound.mean()
    assert means[1] < means[8] - 0.05
    assert means[8] < exact


class Steps(nn.Module):
    """A density on the unit square of two pixels that is constant within bins."""

    def __init__(self):
        super().__init__()
        self.log_p = (normal(256, 256)).flatten().log_softmax(0).view(256, 256)

    def forward(self, u):
        i, j = (256 * u).floor().long().flatten(1).unbind(1)
        z = torch.zeros_like(u)
        return z, self.log_p[i, j] + 2 * math.log(256) - flows.log_normal(z)


@pytest.mark.parametrize("k", [1, 5])
def test_the_bound_is_exact_for_a_density_that_is_constant_within_bins(k):
    torch.manual_seed(0)
    values = torch.randint(256, (100, 2))
    x, flow = (values.double() / 255).view(100, 1, 1, 2), Steps()
    bound = flows.dequantization_bound(flow, x, flows.Uniform(), k=k)
    close(bound, flow.log_p[values[:, 0], values[:, 1]])


@pytest.mark.parametrize("shape", [(1, 2, 2), (2, 2, 4)], ids=str)
def test_the_density_of_learned_noise_is_that_of_its_jacobian(shape, monkeypatch):
    torch.manual_seed(0)
    noise = shaken(flows.Dequantizer(shape[0], 4), 0.2)
    x, eps = (unit(3, *shape) * 255).round() / 255, normal(3, *shape, seed=1)
    monkeypatch.setattr(torch, "randn_like", lambda like: eps[: len(like)])
    u, log_q = noise(x)
    for i in range(3):

        def one(e, i=i):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(torch, "randn_like", lambda like: e)
                return noise(x[i : i + 1])[0]

        J = jacobian(one, eps[i : i + 1])[0]
        expected = Normal(0, 1).log_prob(eps[i]).sum() - torch.linalg.slogdet(J)[1]
        close(log_q[i], expected)
    assert torch.equal(flows.to_pixels(u), x)
    other, _ = noise((unit(3, *shape, seed=9) * 255).round() / 255)
    shares = [(256 * t) % 1 for t in (u, other)]
    assert ((shares[0] - shares[1]).abs() > 1e-5).all()  # every pixel's noise looks at the picture


def test_learned_noise_covers_its_bin_from_the_start():
    """A new one is a Gaussian through a sigmoid; its density integrates to one over the bin."""
    torch.manual_seed(0)
    x = torch.full((20_000, 1, 2, 2), 100 / 255, dtype=torch.float64)
    with torch.no_grad():
        u, log_q = flows.Dequantizer(1, 4).double()(x)
    v = 256 * u - 100
    assert (v > 0).all()
    assert (v < 1).all()
    h = v.logit()
    log_density = Normal(0, 1).log_prob(h) - v.log() - torch.log1p(-v) + math.log(256)
    close(log_q, log_density.flatten(1).sum(1))
    assert h.mean().abs() < ROOM / math.sqrt(80_000)
    assert (h.var() - 1).abs() < ROOM * math.sqrt(2 / 80_000)


def test_every_part_of_learned_noise_learns():
    torch.manual_seed(0)
    noise = shaken(flows.Dequantizer(1, 4), 0.2)
    assert len(noise.layers) == 2
    assert {layer.swap for layer in noise.layers} == {True, False}
    x = (unit(3, 1, 4, 4) * 255).round() / 255
    (-flows.dequantization_bound(of_pictures("realnvp"), x, noise)).mean().backward()
    assert [name for name, p in noise.named_parameters() if not p.grad.any()] == []


# --- Sampling


@torch.no_grad()
def test_samples_are_noise_sent_back_at_a_temperature():
    flow, z = plane("spline"), normal(1200, 2)
    x = flows.sample(flow, z)
    assert not x.requires_grad
    close(x, flow.inverse(z)[0])
    close(flows.sample(flow, z, 0.3), flow.inverse(0.3 * z)[0])
    still = flows.sample(flow, z, 0)
    close(still, flow.inverse(torch.zeros(1, 2).double())[0].expand(1200, 2))
    close(flows.encode(flow, x), z)
    close(flows.exact_log_prob(flow, x), flows.log_prob(flow, x))
    assert flows.exact_log_prob(flow, normal(11_000, 2)).shape == (11_000,)


@torch.no_grad()
def test_walks_begin_and_end_at_the_pictures_and_keep_to_the_shell():
    torch.manual_seed(0)
    flow = of_pictures("realnvp", (1, 8, 8), 0.05).float()
    start, end = (torch.randint(256, (3, 1, 8, 8)) / 255 for _ in range(2))
    path = flows.interpolate(flow, start, end, steps=5)
    assert path.shape == (3, 5, 1, 8, 8)
    assert torch.equal(path[:, 0], start)
    assert torch.equal(path[:, -1], end)
    assert flows.interpolate(flow, start, end).shape == (3, 9, 1, 8, 8)
    z_0, z_1 = (flows.encode(flow, flows.dequantize(x, torch.tensor(0.5))) for x in (start, end))
    for step in (1, 2, 3):
        angle = step * math.pi / 8
        z = math.cos(angle) * z_0 + math.sin(angle) * z_1
        between = flows.to_pixels(flow.inverse(z)[0])
        assert (path[:, step] - between).abs().max() < 2 / 255


# --- Numbers that are reported


def test_a_mean_comes_with_its_standard_error():
    values = normal(50)
    got = flows.mean_and_error(values, "kl")
    assert got["kl"] == pytest.approx(values.mean().item())
    assert got["kl_standard_error"] == pytest.approx(np.std(values.numpy(), ddof=1) / 50**0.5)
    assert got.keys() == {"kl", "kl_standard_error"}


def test_the_gaussian_baseline_is_that_of_scipy():
    """With enough rows the shrinkage is nothing; with few it is still a density."""
    mix = torch.eye(4).double() + 0.3 * normal(4, 4)
    train, test = (normal(n, 4, seed=n) @ mix + 3 for n in (50_000, 200))
    got = flows.gaussian_log_prob(train, test)
    fit = multivariate_normal(train.mean(0).numpy(), np.cov(train.numpy().T))
    close(got, torch.from_numpy(fit.logpdf(test.numpy())), atol=0.1, rtol=0)
    few = flows.gaussian_log_prob(normal(3, 20).float(), normal(7, 20).float())
    assert few.shape == (7,)
    assert few.dtype == torch.float64
    assert few.isfinite().all()
    whole = flows.gaussian_log_prob(train[:, :1], train[:, :1]).exp()
    assert whole.isfinite().all()


def test_all_numbers_of_a_picture_flow_tell_of_the_same_density():
    """Bits by the bound, by the nats of logit space with its alpha, and what the Gaussian needs."""
    torch.manual_seed(0)
    alpha, shape = 0.03, (1, 4, 4)
    flow = of_pictures("realnvp", shape, 0.05, alpha=alpha).float()
    levels = torch.arange(256) / 255
    train, test = (
        levels[torch.randint(256, (3000, *shape))],
        levels[torch.randint(256, (1500, *shape))],
    )
    data = SimpleNamespace(train=train, test=test)
    config = Config(dataset="digits", alpha=alpha, importance_samples=6)
    got = flows.likelihood(flow, flows.Uniform(), data, config)
    for k, few in ((1, test), (6, test[:1000])):
        name = "test_bound_bits_per_dim" + (f"_importance_{k}" if k > 1 else "")
        bound = utils.in_parts(
            flow,
            lambda x, k=k: flows.dequantization_bound(flow, x, flows.Uniform(), k),
            few,
        )[0]
        bits = -bound / (16 * math.log(2))
        room = ROOM * 2 * got[f"{name}_standard_error"] / math.sqrt(len(few)) * math.sqrt(len(few))
        assert got[name] == pytest.approx(bits.mean().item(), abs=room)
        error = bits.std().item() / math.sqrt(len(few))
        assert got[f"{name}_standard_error"] == pytest.approx(error, rel=0.2)
    assert got["train_bound_bits_per_dim"] == pytest.approx(got["test_bound_bits_per_dim"], abs=0.2)
    logit = flows.Logit(alpha)
    z, _ = logit(flows.Uniform()(test)[0])
    per_pixel = (F.logsigmoid(z) + F.logsigmoid(-z)).mean().item() / math.log(2)

    def bits(nats):
        """Of nats in logit space: back through the logit's slope, then over 256 grey levels."""
        return -nats / (16 * math.log(2)) - math.log2(1 - 2 * alpha) + 8 + per_pixel

    nats = got["test_log_prob_logit_space_nats"]
    assert bits(nats) == pytest.approx(got["test_bound_bits_per_dim"], abs=0.05)
    gaussian = got["gaussian_log_prob_logit_space_nats"]
    assert bits(gaussian) == pytest.approx(got["gaussian_bound_bits_per_dim"], abs=0.05)
    exact = MultivariateNormal(z.flatten(1).mean(0), z.flatten(1).T.cov())
    mean = exact.log_prob(z.flatten(1)).mean().item()
    assert gaussian == pytest.approx(mean, abs=0.6)
    assert got["test_log_prob_logit_space_nats_standard_error"] > 0


class Fixed(nn.Module):
    """Noise without luck, which says of itself what one chooses."""

    def __init__(self, share, log_q):
        super().__init__()
        self.share, self.log_q = share, log_q

    def forward(self, x):
        return flows.dequantize(x, torch.full_like(x, self.share)), x.new_full(
            (len(x),), self.log_q
        )


def test_the_bookkeeping_is_exact_when_the_noise_is_the_same(monkeypatch):
    """The two ways to bits agree to rounding; what is fitted, tested and counted as what."""
    monkeypatch.setattr(torch, "rand_like", lambda x: torch.full_like(x, 0.3))
    alpha, shape = 0.01, (1, 4, 4)
    flow = of_pictures("spline", shape, 0.05, alpha=alpha)
    train, test = ((unit(n, *shape, seed=n) * 255).round() / 255 for n in (400, 1100))
    data = SimpleNamespace(train=train, test=test)
    config = Config(dataset="digits", alpha=alpha, importance_samples=3)
    got = flows.likelihood(flow, flows.Uniform(), data, config)
    z, volume = flows.Logit(alpha)(flows.dequantize(test, torch.tensor(0.3)))
    for name, nats in (
        ("test_bound_bits_per_dim", got["test_log_prob_logit_space_nats"]),
        ("gaussian_bound_bits_per_dim", got["gaussian_log_prob_logit_space_nats"]),
    ):
        bits = -(nats + volume.mean().item()) / (16 * math.log(2)) + 8
        assert got[name] == pytest.approx(bits, abs=1e-8)
    inner = flows.log_prob(Flow(*flow.layers[1:]), z)
    assert got["test_log_prob_logit_space_nats"] == pytest.approx(inner.mean().item())
    fitted, _ = flows.Logit(alpha)(flows.dequantize(train, torch.tensor(0.3)))
    gaussian = flows.gaussian_log_prob(fitted.flatten(1), z.flatten(1)).mean().item()
    assert got["gaussian_log_prob_logit_space_nats"] == pytest.approx(gaussian)
    # by another noise: the bound is of this one, the density in logit space still of uniform noise
    same = got["test_log_prob_logit_space_nats"]
    got = flows.likelihood(flow, Fixed(0.8, 5.0), data, config)
    assert got["test_log_prob_logit_space_nats"] == pytest.approx(same)
    for name, x in (
        ("test_bound_bits_per_dim", test),
        ("test_bound_bits_per_dim_importance_3", test[:1000]),
        ("train_bound_bits_per_dim", train),
    ):
        nll = 5 - flows.log_prob(flow, flows.dequantize(x, torch.tensor(0.8)))
        assert got[name] == pytest.approx(nll.mean().item() / (16 * math.log(2)))


@pytest.mark.parametrize("spread", [1.0, 3.0])
def test_latents_are_compared_with_noise(spread, tmp_path, monkeypatch):
    """Of Gaussian z of any width the numbers are known."""
    asked, rows, curves = [], {}, {}
    z, test = spread * normal(1000, 1, 4, 4).float(), unit(1100, 1, 4, 4).float()
    monkeypatch.setattr(flows, "encode", lambda flow, u: asked.append(u) or z)
    monkeypatch.setattr(utils, "image_rows", lambda shown, path, **how: rows.update(shown))
    monkeypatch.setattr(utils, "curves", lambda series, path, **how: curves.update(series))
    run = SimpleNamespace(path=lambda name: tmp_path / name)
    got = flows.show_latents(None, SimpleNamespace(test=test), run)
    pixels = (255 * test[:1000]).round() / 255
    assert torch.equal(flows.to_pixels(asked[0]), pixels)
    assert (256 * asked[0] % 1).std() > 0.2  # dequantised
    assert got["latent_variance"] == pytest.approx(z.var().item(), rel=1e-4)
    assert got["latent_excess_kurtosis"] == pytest.approx(0, abs=ROOM * math.sqrt(24 / 16_000))
    ordered = z.flatten().sort().values.double()
    below = torch.arange(1, 16_001) / 16_000
    distance = (Normal(0, 1).cdf(ordered) - below).abs().max().item()
    assert got["latent_kolmogorov_smirnov"] == pytest.approx(distance, abs=1e-4)
    first, second, third = rows.values()
    assert torch.equal(first, test[:10])
    close(second, (z[:10] / 6 + 0.5).clamp(0, 1))
    assert third.shape == (10, 1, 4, 4)
    assert third.std().item() == pytest.approx(1 / 6, rel=0.3)
    x, seen = curves["z of test images"]
    close(seen, Normal(0, spread).log_prob(x).exp(), atol=0.04, rtol=0)
    x, p = curves["N(0, 1)"]
    close(p, Normal(0, 1).log_prob(x).exp())
    assert (x[0].item(), x[-1].item()) == pytest.approx((-3.95, 3.95))


# --- Training


def trained(folder, x, look=None, noise=None, **flags):
    """Train a flow on points or pictures; return it and the run."""
    flags = {"dataset": "moons", "width": 8, "layers": 2, "precision": "fp32", "bins": 4} | flags
    config = Config(out=folder, **flags)
    run = utils.start(config, "toy.py")
    if x.ndim == 2:
        flow = flows.plane_flow(config)
    else:
        flow, noise = flows.picture_flow(config, tuple(x.shape[1:])), noise or flows.Uniform()
    flows.train(flow, noise, x, look or (lambda: torch.zeros(1, 1, 4, 4)), run)
    return flow, run


def test_training_ends_at_the_entropy_of_a_gaussian(tmp_path):
    """The best that is possible is known; no model may seem better than that."""
    torch.manual_seed(0)
    cov = torch.tensor([[2.0, 1.2], [1.2, 1.0]])
    truth = MultivariateNormal(torch.tensor([3.0, -1.0]), cov)
    x, test = truth.sample((4096,)), truth.sample((20_000,))
    flow, run = trained(tmp_path, x, epochs=10, batch_size=256, lr=1e-2)
    nll = -flows.exact_log_prob(flow, test)
    best = -truth.log_prob(test)
    assert (nll - best).mean().item() == pytest.approx(0, abs=0.02)
    assert (nll - best).mean() > -0.001
    assert best.mean().item() == pytest.approx(truth.entropy().item(), abs=0.05)
    logged = run.series("nll")[1]
    assert logged[-1] == pytest.approx(truth.entropy().item(), abs=0.2)
    assert logged[0] > logged[-1] + 0.1
    bits = run.series("bits_per_dim")[1][-1]
    assert bits == pytest.approx(logged[-1] / (2 * math.log(2)), rel=1e-4)


@pytest.mark.parametrize("model", ["iaf", "planar", "glow", "spline", "cnf", "maf", "nice"])
def test_every_model_learns(model, tmp_path):
    torch.manual_seed(0)
    x = utils.density("moons").sample(1024)
    _, run = trained(tmp_path, x, model=model, epochs=15, batch_size=128, lr=1e-2)
    logged = run.series("nll")[1]
    assert logged[-1] < logged[0] - 0.1


@pytest.mark.parametrize("learned", [False, True])
def test_pictures_are_learned_with_either_noise(learned, tmp_path):
    torch.manual_seed(0)
    x = torch.randint(100, 110, (256, 1, 4, 4)) / 255
    noise = flows.Dequantizer(1, 4) if learned else flows.Uniform()
    before = [p.detach().clone() for p in noise.parameters()]
    flags = {"dataset": "digits", "epochs": 12, "batch_size": 64, "lr": 5e-3}
    _, run = trained(tmp_path, x, noise=noise, **flags)
    bits = run.series("bits_per_dim")[1]
    assert bits[-1] < bits[0] - 0.03
    assert math.log2(10) - 0.1 < bits[-1] < 8  # as much as there is to know of ten grey values
    assert len(before) == (0 if not learned else len([*noise.parameters()]))
    if learned:
        assert all(not torch.equal(b, p) for b, p in zip(before, noise.parameters(), strict=True))
    nll = run.series("nll")[1]
    assert bits[-1] == pytest.approx(nll[-1] / (16 * math.log(2)), rel=1e-4)


def test_actnorm_has_seen_data_before_the_first_step(tmp_path, monkeypatch):
    """And it is the first batch's scale, not that of a picture in logit space by chance."""
    states = []
    watch(
        monkeypatch,
        "log_prob",
        lambda net, x: states.append([p.detach().clone() for p in net.parameters()]),
    )
    torch.manual_seed(0)
    x = 5 + 0.1 * torch.randn(512, 2)
    flow, _ = trained(tmp_path, x, epochs=1, batch_size=64)
    first = dict(zip([name for name, _ in flow.named_parameters()], states[0], strict=True))
    scale = first["layers.0.log_scale"].exp()
    close(scale * x[:256].std(0), torch.ones(2), atol=1e-3, rtol=0)
    assert all(m.initialized for m in flow.modules() if isinstance(m, flows.ActNorm))


def test_the_rate_rises_and_falls_to_nothing_and_noise_is_fresh(tmp_path, monkeypatch):
    rates, draws = [], []
    step = torch.optim.Adam.step

    def watched(self, *args, **kwargs):
        rates.append(self.param_groups[0]["lr"])
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.Adam, "step", watched)
    watch(monkeypatch, "dequantize", lambda x, noise: draws.append(noise))
    x = torch.rand(64, 1, 4, 4)
    trained(tmp_path, x, dataset="digits", epochs=10, batch_size=16, lr=0.02)
    assert len(rates) == 40
    assert rates[0] < 0.01
    assert max(rates) == pytest.approx(0.02)
    assert 0 < rates[-1] < 0.005
    assert len(draws) == 41  # the first is for ActNorm
    assert torch.pdist(torch.stack([d[0].flatten() for d in draws])).min() > 0.1


@pytest.mark.parametrize("learned", [False, True])
def test_all_that_learns_shares_its_gradients_with_other_processes(learned, tmp_path, monkeypatch):
    """And nothing without weights, which torch would refuse."""
    shared = []
    monkeypatch.setattr(utils.Run, "data_parallel", lambda _, net: shared.append(net) or net)
    torch.manual_seed(0)
    noise = flows.Dequantizer(1, 4) if learned else flows.Uniform()
    x = (unit(32, 1, 4, 4).float() * 255).round() / 255
    flow, _ = trained(tmp_path, x, noise=noise, dataset="digits", epochs=1, batch_size=32)
    assert {id(net) for net in shared} == {id(flow), *([id(noise)] if learned else [])}


def test_looks_are_shown(tmp_path):
    looked = []

    def look():
        looked.append(0)
        return torch.full((1, 1, 4, 4), len(looked) / 255)

    torch.manual_seed(0)
    _, run = trained(tmp_path, torch.randn(64, 2), look, epochs=5, batch_size=8)
    assert len(run.frames) == len(looked) > 5
    assert (tmp_path / "training.gif").exists()
    assert [int(frame.flatten()[0]) for frame in run.frames] == [*range(1, len(looked) + 1)]


@pytest.mark.parametrize("kind", ["points", "pictures"])
def test_a_resumed_run_ends_with_the_same_weights(kind, tmp_path, monkeypatch):
    """Flow, learned noise and optimiser are in the checkpoint; ActNorm does not begin again."""
    torch.manual_seed(0)
    if kind == "points":
        x, flags = 3 * torch.randn(160, 2), {"model": "glow"}
    else:
        x, flags = (255 * torch.rand(160, 1, 4, 4)).round() / 255, {"dataset": "digits"}
    flags |= {"epochs": 3, "batch_size": 32}

    def noise():
        torch.manual_seed(5)
        return flows.Dequantizer(1, 4) if kind == "pictures" else None

    trained(tmp_path / "whole", x, noise=noise(), **flags)
    monkeypatch.setattr(sys.modules["code_examples.utils.run"], "SAVE_SECONDS", 0)
    calls = []

    def killed(*_, **__):
        calls.append(0)
        if len(calls) == 9:
            raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        watch(patch, "log_prob", killed)
        with pytest.raises(RuntimeError, match="killed"):
            trained(tmp_path / "cut", x, noise=noise(), **flags)
    trained(tmp_path / "cut", x, noise=noise(), resume=True, **flags)
    whole, cut = (
        torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)["objects"]
        for name in ("whole", "cut")
    )
    assert whole.keys() == {"flow", "noise", "optimizer"}
    assert (len(whole["noise"]) > 0) == (kind == "pictures")
    for part in ("flow", "noise"):
        for name, weight in whole[part].items():
            assert torch.equal(weight, cut[part][name]), (part, name)


# --- Experiment

SMALL = {"quick": True, "epochs": 1, "width": 8, "layers": 1, "bins": 4, "precision": "fp32"}
FILES = {"config.json", "history.csv", "metrics.json", "samples.npy", "samples.png"}
FILES |= {"checkpoint.pt", "learning_curve.png", "training.gif", "latents.png"}
OF_PICTURES_ONLY = {"temperature.png", "interpolation.png", "latents_histogram.png"}
OF_POINTS_ONLY = {"density.png", "grid.png", "grid.gif"}
QUALITY = {"frechet_distance", "kernel_distance", "precision", "recall", "inception_score"}
MAINS = [
    {"model": "glow", "dequantize": "variational", "temperature": 0.8},
    {"model": "maf"},
]


def finite_metrics(folder):
    metrics = json.loads((folder / "metrics.json").read_text())
    assert all(math.isfinite(v) for v in metrics.values() if isinstance(v, float))
    return metrics


def ticking(monkeypatch):
    """A clock of the chapter that goes on by one second whenever it is read."""
    seconds = iter(range(1000))
    monkeypatch.setattr(flows, "time", SimpleNamespace(perf_counter=lambda: next(seconds)))


@pytest.mark.parametrize("flags", MAINS, ids=str)
def test_main_writes_a_whole_run_of_pictures(flags, tmp_path, monkeypatch):
    drawn, strips, used = [], {}, []
    watch(monkeypatch, "sample", lambda flow, z, temperature=1.0: drawn.append((z, temperature)))
    watch(monkeypatch, "strips", lambda r, path, **how: strips.update({path.name: r}), utils)
    watch(monkeypatch, "train", lambda flow, noise, x, *_: used.append((noise, x)))
    watch(monkeypatch, "likelihood", lambda flow, noise, data, _: used.append((noise, data.train)))
    ticking(monkeypatch)
    config = Config(
        dataset="digits", num_samples=20, importance_samples=3, out=tmp_path, **SMALL | flags
    )
    flows.main(config)
    slow = config.model == "maf"  # too slow a sampler for a film
    written = {p.name for p in tmp_path.iterdir()}
    assert written >= (FILES | OF_PICTURES_ONLY) - ({"training.gif"} if slow else set())
    metrics = finite_metrics(tmp_path)
    assert metrics.keys() >= QUALITY | {"seconds_per_1000_samples", "training_seconds"}
    assert metrics["seconds_per_1000_samples"] == 1000 / 20
    samples = np.load(tmp_path / "samples.npy")
    assert samples.shape == (20, 1, 8, 8)
    assert samples.dtype == np.float32
    assert samples.min() >= 0
    assert samples.max() <= 1
    assert metrics["test_bound_bits_per_dim_importance_3"] < metrics["test_bound_bits_per_dim"]
    # all again from the checkpoint, without the chapter's evaluation
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["objects"]
    flow = flows.picture_flow(config, (1, 8, 8))
    flow.load_state_dict(state["flow"])
    noise = flows.Uniform()
    if config.dequantize == "variational":
        noise = flows.Dequantizer(1, 8)
        noise.load_state_dict(state["noise"])
    assert len(state["noise"]) == len(noise.state_dict())
    torch.manual_seed(stream(config.seed, EVALUATION))
    z = torch.randn(20, 1, 8, 8)
    with torch.no_grad():
        again = flows.to_pixels(flow.inverse(config.temperature * z)[0])
    close(torch.from_numpy(samples), again, atol=1.01 / 255, rtol=0)
    data = utils.load_images("digits", quick=True)
    test = data.test
    assert [type(n) for n, _ in used] == [type(noise)] * 2
    assert all(torch.equal(x, data.train) for _, x in used)
    with torch.no_grad():
        bits = -flows.dequantization_bound(flow, test, noise) / (64 * math.log(2))
    room = ROOM * metrics["test_bound_bits_per_dim_standard_error"]
    assert metrics["test_bound_bits_per_dim"] == pytest.approx(bits.mean().item(), abs=room)
    assert metrics["test_bound_bits_per_dim_standard_error"] == pytest.approx(
        bits.std().item() / math.sqrt(len(bits)), rel=0.3
    )
    # the pictures
    temperature = torch.stack([*strips["temperature.png"].values()])
    assert temperature.shape == (4, 8, 1, 8, 8)
    assert torch.equal(temperature[0, 0], temperature[1, 0])
    with torch.no_grad():
        hot = flows.to_pixels(flow.inverse(z[:4])[0])
    close(temperature[:, -1], hot, atol=1.01 / 255, rtol=0)
    walks = torch.stack([*strips["interpolation.png"].values()])
    assert walks.shape == (3, 9, 1, 8, 8)
    pixels = flows.to_pixels(flows.dequantize(test[:6], torch.tensor(0.5)))
    close(walks[:, 0], pixels[:3], atol=1.01 / 255, rtol=0)
    close(walks[:, -1], pixels[3:], atol=1.01 / 255, rtol=0)
    film = {t for z, t in drawn if len(z) == 64}
    assert film == (set() if slow else {config.temperature})


@pytest.mark.parametrize("model", MODELS)
def test_main_writes_a_whole_run_of_points(model, tmp_path, monkeypatch):
    panels, lines, films, clouds = {}, {}, {}, {}

    def density_2d(shown, path, lines=None, **how):
        panels[path.name] = shown
        if lines:
            drawn.update(lines)
        path.touch()

    drawn = lines
    watch(
        monkeypatch,
        "scatter_2d",
        lambda shown, path, **how: clouds.update({path.name: shown}),
        utils,
    )
    if model != "spline":  # drawn once is enough
        monkeypatch.setattr(utils, "density_2d", density_2d)
        monkeypatch.setattr(
            utils,
            "animation",
            lambda frames, path, **how: films.update(frames=frames, **how) or path.touch(),
        )
    ticking(monkeypatch)
    films["points"] = []
    watch(
        monkeypatch,
        "cloud",
        lambda points, bounds, side=0: films["points"].append(points) if side else None,
        utils,
    )
    flags = SMALL | {"layers": 3, "num_samples": 300, "temperature": 0.5}
    flags |= {"trace": "hutchinson"} if model == "cnf" else {}
    config = Config(model=model, dataset="moons", out=tmp_path, **flags)
    flows.main(config)
    assert {p.name for p in tmp_path.iterdir()} >= FILES | OF_POINTS_ONLY
    metrics = finite_metrics(tmp_path)
    density = utils.density("moons")
    assert metrics["entropy_nats"] == pytest.approx(density.entropy, rel=1e-5)
    gap = metrics["test_nll_nats"] - metrics["entropy_nats"]
    assert metrics["kl_from_data_nats"] == pytest.approx(gap, abs=0.05)
    assert metrics["kl_from_data_nats"] > 0
    flow = flows.plane_flow(Config(model=model, dataset="moons", **flags | {"trace": "exact"}))
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["objects"]["flow"]
    flow.load_state_dict(state)
    torch.manual_seed(1)
    x = density.sample(20_000)
    nll = -flows.exact_log_prob(flow, x)
    room = 2 * ROOM * metrics["test_nll_nats_standard_error"]
    assert metrics["test_nll_nats"] == pytest.approx(nll.mean().item(), abs=room)
    kl = nll + density.log_prob(x)
    assert metrics["kl_from_data_nats_standard_error"] == pytest.approx(
        kl.std().item() / math.sqrt(20_000), rel=0.2
    )
    samples = torch.from_numpy(np.load(tmp_path / "samples.npy"))
    assert samples.shape == (256, 2)  # --quick
    assert metrics["seconds_per_1000_samples"] == pytest.approx(1000 / 256, rel=1e-5)
    z = flows.encode(flow, samples) / 0.5
    assert z.mean(0).abs().max() < ROOM / 16
    assert (z.std(0) - 1).abs().max() < ROOM / 16
    assert torch.equal(clouds["samples.png"][model], samples)
    assert len(clouds["samples.png"]["data"]) == 256
    if model == "spline":
        return
    assert panels["density.png"]["true density"](x[:9]).tolist() == density.log_prob(x[:9]).tolist()
    close(panels["density.png"][model](x[:9]), -nll[:9], atol=1e-4, rtol=1e-4)
    check_stages(flow, panels["grid.png"], drawn, films)


def check_stages(flow, panels, lines, films):
    """Each panel a density of its own that integrates to 1; the grid is where the layers put it."""
    points, area = grid(12, 240)
    points = points.float()
    layers = len(flow.layers)
    assert [*panels] == [*lines]
    assert len(panels) == 4
    first, *_, last = panels
    assert first == "noise"
    assert last == f"after {layers} of {layers} layers"
    start = lines["noise"]
    assert torch.equal(start, utils.grid_2d((-3, 3, -3, 3), dots=start.shape[1]))
    for name, log_prob in panels.items():
        assert log_prob(points).exp().sum().item() * area == pytest.approx(1, abs=0.02), name
        k = 0 if name == "noise" else int(name.split()[1])
        way = Flow(*flow.layers[layers - k :])
        with torch.no_grad():
            there = way.inverse(start.flatten(0, 1))[0].view_as(start)
            close(lines[name], there, atol=1e-3, rtol=1e-3)
            close(log_prob(points[:500]), flows.log_prob(way, points[:500]), atol=1e-3, rtol=1e-3)
    assert len(films["frames"]) == len(films["labels"]) == 40
    assert films["labels"][0] == f"after 0 of {layers} layers"
    assert films["labels"][-1] == f"after {layers} of {layers} layers"
    start = start.flatten(0, 1)
    with torch.no_grad():
        after_one = flow.layers[-1].inverse(start)[0]
    step = layers / 39  # layers a frame
    close(films["points"][0], start)
    close(films["points"][1], start + step * (after_one - start), atol=1e-3, rtol=1e-3)


@torch.no_grad()
def test_a_trace_by_chance_in_training_is_exact_in_evaluation(tmp_path, monkeypatch):
    used = []
    slopes = ContinuousStep.slopes

    def watched(self, x, t, eps):
        chance = self.trace == "hutchinson" and self.training
        used.append((chance, torch.is_grad_enabled()))
        return slopes(self, x, t, eps)

    monkeypatch.setattr(ContinuousStep, "slopes", watched)
    monkeypatch.setattr(utils, "density_2d", lambda *_, **__: None)
    monkeypatch.setattr(utils, "animation", lambda *_, **__: None)
    with torch.enable_grad():
        flows.main(Config(model="cnf", trace="hutchinson", out=tmp_path, **SMALL))
    assert {chance for chance, learning in used if learning} == {True}
    assert not used[-1][0]


@torch.no_grad()
def test_a_flow_in_evaluation_takes_the_exact_trace():
    net, x = velocity(2), normal(4, 2)
    exact = ContinuousStep(net, 0, 0.5)
    chance = ContinuousStep(net, 0, 0.5, trace="hutchinson")
    assert (chance(x)[1] - exact(x)[1]).abs().max() > 1e-4
    close(chance.eval()(x)[1], exact(x)[1])


# --- What recurs from other chapters


def test_copies_of_other_chapters_are_the_same():
    x, norm = normal(2, 6, 3, 4), shaken(flows.ChannelNorm(6))
    theirs = diffusion.ChannelNorm(6).double()
    theirs.load_state_dict(norm.state_dict())
    assert torch.equal(norm(x), theirs(x))
    for h in (x, x.bfloat16(), x.float()):
        assert torch.equal(flows.unrounded(h), vae.unrounded(h))
        assert flows.unrounded(h).dtype == vae.unrounded(h).dtype


# --- Flags


def test_flags_that_are_not_given_depend_on_the_model_and_the_data():
    for model in MODELS:
        for dataset in (None, "moons", "mnist5k"):
            if model in flows.ONLY_PLANE and dataset == "mnist5k":
                continue
            config = Config(model=model, dataset=dataset)
            in_plane = dataset == "moons" or model in ("planar", "iaf", "cnf")
            assert config.dataset == ("moons" if in_plane else "mnist5k")
            for name in ("epochs", "batch_size", "lr", "layers", "width", "bins", "num_samples"):
                assert getattr(config, name) is not None
    given = {"epochs": 3, "batch_size": 7, "lr": 0.1, "layers": 6, "width": 6, "bins": 3}
    for flags in ({}, {"dataset": "ring"}, {"model": "planar"}, {"model": "maf"}):
        config = Config(**given, **flags)
        assert {name: getattr(config, name) for name in given} == given
    assert Config(dataset="ring").dataset == "ring"
    assert Config(model="planar").layers > Config(dataset="moons").layers > Config().layers


@pytest.mark.parametrize("model", ["planar", "iaf", "cnf"])
@pytest.mark.parametrize("dataset", ["mnist5k", "digits"])
def test_models_of_the_plane_are_refused_for_pictures(model, dataset):
    """Expected, got, and what to do."""
    with pytest.raises(utils.UserError) as refused:
        Config(model=model, dataset=dataset)
    said = str(refused.value)
    assert said.startswith(f"--model {model}: expected points in the plane, got {dataset}: ")
    assert "moons" in said.split("use one of ")[1]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"model": "gan"}, "--model: expected one of realnvp, nice, planar, maf, iaf, glow"),
        ({"layers": 0}, "--layers: expected a finite number of at least 1, got 0"),
        ({"bins": 1}, "--bins: expected a finite number of at least 2"),
        ({"bins": 1000}, "--bins: expected a finite number of at least 2 and below"),
        ({"width": 3}, "--width: expected a finite number of at least 4, got 3"),
        ({"alpha": 0.0}, "--alpha: expected a finite number above 0 and below 0.1, got 0"),
        ({"alpha": 0.1}, "--alpha: expected a finite number above 0 and below 0.1, got 0.1"),
        ({"temperature": -0.1}, "--temperature: expected a finite number of at least 0"),
        ({"importance_samples": 0}, "--importance-samples: expected a finite number of at least 1"),
        ({"dequantize": "none"}, "--dequantize: expected one of uniform, variational"),
        ({"trace": "hutchinson"}, "--trace: expected exact for realnvp"),
        (
            {"dataset": "ring", "dequantize": "variational"},
            "--dequantize: expected uniform for ring",
        ),
        ({"trace": "none"}, "--trace: expected one of exact, hutchinson"),
        ({"lr": 0.0}, "--lr: expected a finite number above 0"),
        ({"epochs": 0}, "--epochs: expected a finite number of at least 1"),
        ({"batch_size": 0}, "--batch-size: expected a finite number of at least 1"),
    ],
    ids=str,
)
def test_impossible_values_are_refused(flags, said):
    with pytest.raises(utils.UserError) as refused:
        Config(**flags)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    "flags",
    [{"layers": 1}, {"bins": 2}, {"width": 4}, {"temperature": 0}, {"importance_samples": 1}],
    ids=str,
)
def test_the_smallest_possible_values_are_taken(flags):
    config = Config(dataset="digits", **flags)
    for name, value in flags.items():
        assert getattr(config, name) == value


# --- Quality, minutes each: make test-slow


@pytest.mark.slow
@pytest.mark.skipif(not FULL_MNIST.is_dir(), reason="needs the full MNIST in ../shared/data")
def test_the_gaussian_of_the_maf_paper_on_all_of_mnist():
    """The baseline of logit-space numbers; the draw of the noise moves it by tenths of a nat."""
    torch.manual_seed(0)
    data = utils.load_images("mnist", FULL_MNIST)
    logit = flows.Logit(1e-6)
    (train, _), (test, volume) = (logit(flows.Uniform()(x)[0]) for x in (data.train, data.test))
    nats = flows.gaussian_log_prob(train.flatten(1), test.flatten(1))
    assert nats.mean().item() == pytest.approx(-1366.2, abs=1.5)
    bits = utils.bits_per_dim(-nats - volume, 784) + 8
    assert bits.mean().item() == pytest.approx(2.013, abs=0.003)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dataset", "most"), [("moons", 0.03), ("ring", 0.03), ("checkerboard", 0.08)]
)
def test_a_minute_of_splines_in_the_plane(dataset, most, tmp_path):
    flows.main(Config(model="spline", dataset=dataset, out=tmp_path))
    assert json.loads((tmp_path / "metrics.json").read_text())["kl_from_data_nats"] < most


@pytest.mark.slow
def test_two_minutes_of_pictures(tmp_path):
    """Three seeds had 1.44 to 1.46 bits, where a Gaussian has 2.11, and a distance of 12 to 15."""
    flows.main(Config(out=tmp_path))
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["test_bound_bits_per_dim"] < 1.5
    assert metrics["frechet_distance"] < 20
