"""The diffusion chapter against Bayes' rule, closed forms for Gaussian data, integrals of 1."""

import json
import math
import sys
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import MixtureSameFamily, Normal, kl_divergence

from code_examples import diffusion, utils
from code_examples.utils.run import EVALUATION, stream

Config, Schedule, Diffusion = diffusion.Config, diffusion.Schedule, diffusion.Diffusion
NAMES, PREDICTS = ("linear", "cosine", "sigmoid", "geometric"), ("eps", "x0", "v")
ROOM = 6  # standard errors


def float64(*values):
    return torch.tensor(values, dtype=torch.float64)


def levels(alpha_bar, t, like):
    """signal and noise, looked up without the chapter's `at`; t is an int or (B,)."""
    picked = alpha_bar[torch.as_tensor(t)].to(like.dtype)
    picked = picked.view(-1, *[1] * (like.ndim - 1))
    return picked.sqrt(), (1 - picked).sqrt()


def perfect(alpha_bar, m=0.3, s=0.5):
    """The best denoiser for data N(m, s^2), notes/04 eq. (4.75): from x_t, t to x_0, eps."""

    def denoise(x_t, t):
        a, b = levels(alpha_bar, t, x_t)
        deviation = (x_t - a * m) / (a * a * s * s + b * b)
        return m + a * s * s * deviation, b * deviation

    return denoise


class Oracle(nn.Module):
    """A network that answers with the output of `denoise`, and remembers what it was asked."""

    def __init__(self, alpha_bar, predict, denoise):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))  # says on which device it is
        self.alpha_bar, self.predict, self.denoise, self.asked = alpha_bar, predict, denoise, []

    def forward(self, x_t, t, y=None):
        self.asked.append((x_t.detach(), t, y))
        x_0, eps = self.denoise(x_t, t)
        a, b = levels(self.alpha_bar, t, x_t)
        return {"eps": eps, "x0": x_0, "v": a * eps - b * x_0}[self.predict]


def oracle(alpha_bar, predict="x0", denoise=None, **truth):
    """A Diffusion around an Oracle, by default a perfect one for Gaussian data."""
    denoise = denoise or perfect(alpha_bar, **truth)
    return Diffusion(Oracle(alpha_bar, predict, denoise), Schedule(alpha_bar), predict)


def knows(alpha_bar, x_0):
    """A denoiser that was told the data: it knows the noise, too."""

    def denoise(x_t, t):
        a, b = levels(alpha_bar, t, x_t)
        return x_0.expand_as(x_t), (x_t - a * x_0) / b

    return denoise


def shaken(net, size=0.3):
    """Random non-zero weights in float64."""
    generator = torch.Generator().manual_seed(0)
    net = net.double()
    with torch.no_grad():
        for p in net.parameters():
            p.add_(size * torch.randn(p.shape, generator=generator, dtype=torch.float64))
    return net


def unet(shape=(1, 8, 8), timesteps=20, num_classes=3):
    torch.manual_seed(0)
    return shaken(diffusion.UNet(shape, 8, timesteps, num_classes), 0.1)


def plane_net(timesteps=20, size=0.3):
    torch.manual_seed(0)
    return shaken(diffusion.PlaneNet(8, timesteps), size)


# --- Schedules


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("timesteps", [2, 10, 1000])
def test_every_schedule_falls_from_data_to_noise(name, timesteps):
    alpha_bar = diffusion.make_schedule(name, timesteps)
    assert alpha_bar.shape == (timesteps,)
    assert alpha_bar.dtype == torch.float64
    assert 0 < alpha_bar[-1] < 0.01
    assert 1 > alpha_bar[0] > (0.99 if timesteps == 1000 or name == "geometric" else 0.3)
    assert (alpha_bar.diff() < 0).all()


def test_the_schedules_are_those_of_their_papers():
    made = {name: diffusion.make_schedule(name, 1000) for name in NAMES}
    inside = {name: (ab - 1e-4) / 0.9998 for name, ab in made.items()}  # kept off 0 and 1
    share, expected = 1.0, {"linear": [], "cosine": [], "sigmoid": []}
    for t in range(1000):
        share *= 1 - (1e-4 + (0.02 - 1e-4) * t / 999)
        u = (t + 1) / 1000
        low, high, here = (1 / (1 + math.exp(-v)) for v in (-3, 3, 6 * u - 3))
        expected["linear"].append(share)
        expected["cosine"].append(math.cos(math.pi / 2 * (u + 0.008) / 1.008) ** 2)
        expected["sigmoid"].append((high - here) / (high - low))
    for name, values in expected.items():
        torch.testing.assert_close(inside[name], float64(*values), atol=1e-12, rtol=0)
    sigma = (1 / made["geometric"] - 1).sqrt()
    assert sigma[0].item() == pytest.approx(0.01)
    assert sigma[-1].item() == pytest.approx(50)
    torch.testing.assert_close(
        sigma.log().diff(), torch.full((999,), math.log(5000) / 999).double()
    )


def test_linear_is_as_noisy_with_fewer_steps():
    """Its betas grow as T shrinks; the ends of the range are those of T = 1000."""
    many, few = (diffusion.make_schedule("linear", steps) for steps in (1000, 100))
    assert (few - many[9::10]).abs().max() < 0.01
    two = (diffusion.make_schedule("linear", 2) - 1e-4) / 0.9998
    torch.testing.assert_close(two, float64(0.95, 0.95 * 0.001))


def test_signal_and_noise_are_cosine_and_sine_of_one_angle():
    schedule = Schedule(diffusion.make_schedule("cosine", 50))
    x, t = torch.zeros(51, 1, 1, 1).double(), torch.arange(-1, 50)
    signal, noise = schedule.at(t, x)
    assert signal.shape == noise.shape == (51, 1, 1, 1)
    torch.testing.assert_close(signal**2 + noise**2, torch.ones_like(signal))
    torch.testing.assert_close(signal[1:].flatten() ** 2, schedule.alpha_bar)
    angle = schedule.angle(t, x)
    torch.testing.assert_close(angle.cos(), signal)
    torch.testing.assert_close(angle.sin(), noise)
    assert (angle.flatten().diff() > 0).all()
    assert (signal[0].item(), noise[0].item(), angle[0].item()) == (1, 0, 0)  # t = -1: clean
    one, _ = schedule.at(7, x.float())
    assert one.dtype == torch.float32
    torch.testing.assert_close(one.double(), signal[8:9], rtol=1e-6, atol=0)
    assert len(schedule) == 50


@pytest.mark.parametrize("timesteps", [2, 10, 37])
def test_samplers_stop_at_strictly_falling_times_from_the_last_to_clean(timesteps):
    schedule = Schedule(diffusion.make_schedule("cosine", timesteps))
    for steps in (*range(2, timesteps + 1), 1000):
        times = schedule.times(steps)
        assert (times[0], times[-1]) == (timesteps - 1, -1)
        assert len(times) == min(steps, timesteps) + 1
        gaps = [t - s for t, s in pairwise(times)]
        assert min(gaps) >= 1
        assert max(gaps) - min(gaps) <= 1  # evenly
        dense = schedule.times(steps, rho=7)
        assert (dense[0], dense[-2:]) == (timesteps - 1, [0, -1])
        assert all(t > s for t, s in pairwise(dense))
        assert len(dense) <= steps + 1


def test_rho_spaces_a_root_of_sigma_evenly():
    alpha_bar = 1 / (1 + torch.linspace(0.01, 50, 200_000, dtype=torch.float64) ** 2)
    times = Schedule(alpha_bar).times(20, rho=7)
    assert len(times) == 21
    root = (1 / alpha_bar[times[:-1]] - 1).sqrt() ** (1 / 7)
    torch.testing.assert_close(
        root, torch.linspace(root[0], root[-1], 20).double(), atol=1e-3, rtol=0
    )
    config = Config(sampler="dpm++", sampling_steps=20)
    schedule = Schedule(diffusion.make_schedule("sigmoid", 1000))
    dense, even = (diffusion.stops(schedule, c) for c in (config, Config(sampling_steps=20)))
    assert sum(t >= 500 for t in dense) > sum(t >= 500 for t in even) == 10
    assert dense == schedule.times(20, rho=7)


# --- The forward process and its posterior


def test_one_jump_is_that_many_steps():
    """A step multiplies the mean by sqrt(alpha) and makes alpha v + beta of the variance v."""
    beta = float64(0.1, 0.2, 0.05, 0.5)
    schedule = Schedule(torch.cumprod(1 - beta, 0))
    one, zero = torch.ones(1, 1).double(), torch.zeros(1, 1).double()
    factor, variance = 1.0, 0.0
    for t in range(4):
        factor *= math.sqrt(1 - beta[t])
        variance = (1 - beta[t]) * variance + beta[t]
        of_data = diffusion.q_sample(schedule, one, t, zero)
        of_noise = diffusion.q_sample(schedule, zero, t, one)
        assert of_data.item() == pytest.approx(factor)
        assert of_noise.item() ** 2 == pytest.approx(variance.item())
    assert diffusion.q_sample(schedule, one, -1, one) == 1


def test_the_noised_data_have_the_moments_of_the_explicit_chain():
    """Drawn step by step and drawn at once: two samples of the same distribution."""
    torch.manual_seed(0)
    beta, n = torch.tensor([0.1, 0.3, 0.2, 0.4]), 100_000
    x_0 = 2 * torch.rand(n, 1) - 0.5
    x = x_0
    for b in beta:
        x = (1 - b).sqrt() * x + b.sqrt() * torch.randn(n, 1)
    schedule = Schedule(torch.cumprod(1 - beta, 0))
    jumped = diffusion.q_sample(schedule, x_0, 3, torch.randn(n, 1))
    for moment in (lambda v: v, lambda v: v * v, lambda v: v * x_0):
        difference = moment(x) - moment(jumped)
        assert difference.mean().abs() < ROOM * difference.std() / math.sqrt(n)


@pytest.mark.parametrize("shape", [(5, 5), (5, 1, 2, 5)])
def test_each_example_has_its_own_time(shape):
    """As many examples as columns: a wrong broadcast would not be noticed by shapes."""
    torch.manual_seed(0)
    schedule = Schedule(diffusion.make_schedule("cosine", 10))
    x_0, eps = torch.randn(2, *shape, dtype=torch.float64)
    t, s = torch.tensor([3, 0, 9, 5, 7]), torch.tensor([1, -1, 0, 4, -1])
    x_t = diffusion.q_sample(schedule, x_0, t, eps)
    mean, variance = diffusion.posterior(schedule, x_0, x_t, t, s)
    terms = diffusion.bound_terms(schedule, x_0.tanh(), eps.tanh(), t)
    assert terms.shape == (5,)
    for i in range(5):
        one = slice(i, i + 1)
        torch.testing.assert_close(
            x_t[one], diffusion.q_sample(schedule, x_0[one], t[i].item(), eps[one])
        )
        alone = diffusion.posterior(schedule, x_0[one], x_t[one], t[i].item(), s[i].item())
        torch.testing.assert_close(mean[one], alone[0])
        torch.testing.assert_close(variance[one], alone[1])
        alone = diffusion.bound_terms(schedule, x_0[one].tanh(), eps[one].tanh(), t[one])
        torch.testing.assert_close(terms[one], alone)


@pytest.mark.parametrize(("t", "s"), [(6, 5), (9, 2), (1, 0), (9, 0)])
def test_the_posterior_is_bayes_rule(t, s):
    """Prior times likelihood on a grid of x_s, normalised."""
    alpha_bar = diffusion.make_schedule("sigmoid", 10)
    x_s = torch.linspace(-9, 9, 200_001, dtype=torch.float64)
    for x_0, x_t in ((0.7, -0.4), (-1.0, 2.0)):
        prior = Normal(alpha_bar[s].sqrt() * x_0, (1 - alpha_bar[s]).sqrt())
        step = alpha_bar[t] / alpha_bar[s]
        likelihood = Normal(step.sqrt() * x_s, (1 - step).sqrt()).log_prob(float64(x_t))
        p = (prior.log_prob(x_s) + likelihood).softmax(0)
        mean = (p * x_s).sum()
        got = diffusion.posterior(
            Schedule(alpha_bar),
            float64([x_0]),
            float64([x_t]),
            torch.tensor([t]),
            torch.tensor([s]),
        )
        assert got[0].item() == pytest.approx(mean.item(), abs=1e-6)
        assert got[1].item() == pytest.approx((p * (x_s - mean) ** 2).sum().item(), abs=1e-6)


def test_at_the_clean_end_the_posterior_is_the_data():
    torch.manual_seed(0)
    schedule = Schedule(diffusion.make_schedule("linear", 10))
    x_0, x_t = torch.randn(2, 4, 1, 3, 3, dtype=torch.float64)
    for t in (0, 4, 9):
        mean, variance = diffusion.posterior(schedule, x_0, x_t, t, -1)
        torch.testing.assert_close(mean, x_0)
        assert (variance == 0).all()


# --- What the network says


def test_eps_x0_and_v_say_the_same():
    torch.manual_seed(0)
    x_0, eps = torch.randn(2, 7, 3, dtype=torch.float64)
    angle = torch.linspace(0.1, 1.5, 7).double()[:, None]
    frame = a, b = angle.cos(), angle.sin()
    x_t = a * x_0 + b * eps
    v = diffusion.v_from(x_0, eps, *frame)
    torch.testing.assert_close(v, a * eps - b * x_0)
    torch.testing.assert_close(v**2 + x_t**2, x_0**2 + eps**2)  # a turn keeps lengths
    torch.testing.assert_close(diffusion.x0_from_eps(x_t, eps, *frame), x_0)
    torch.testing.assert_close(diffusion.eps_from_x0(x_t, x_0, *frame), eps)
    torch.testing.assert_close(diffusion.x0_from_v(x_t, v, *frame), x_0)
    torch.testing.assert_close(diffusion.eps_from_v(x_t, v, *frame), eps)


@pytest.mark.parametrize("predict", PREDICTS)
def test_a_guess_explains_what_was_seen(predict):
    """Whatever a network says, signal x_0 + noise eps = x_t, and turned back it is what it said."""
    torch.manual_seed(0)
    alpha_bar, t = diffusion.make_schedule("cosine", 10), torch.tensor([0, 9, 4, 7])
    model = Diffusion(nn.Identity(), Schedule(alpha_bar), predict)
    x_t, output = torch.randn(2, 4, 1, 2, 4, dtype=torch.float64)
    x_0, eps = diffusion.x0_and_eps(model, output, x_t, t)
    a, b = levels(alpha_bar, t, x_t)
    torch.testing.assert_close(a * x_0 + b * eps, x_t)
    torch.testing.assert_close({"eps": eps, "x0": x_0, "v": a * eps - b * x_0}[predict], output)


@pytest.mark.parametrize(("given", "returned"), [("bfloat16", "float32"), ("float64", "float64")])
def test_outputs_are_at_least_float32(given, returned):
    given, returned = getattr(torch, given), getattr(torch, returned)
    schedule = Schedule(diffusion.make_schedule("cosine", 10))
    model = Diffusion(SimpleNet(lambda x, t, y: x.to(given)), schedule, "eps")
    assert model(torch.zeros(2, 2), torch.zeros(2, dtype=torch.long)).dtype == returned


class SimpleNet(nn.Module):
    def __init__(self, function, unknown=0):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.function, self.condition = function, SimpleNamespace(unknown=unknown)

    def forward(self, x_t, t, y=None):
        return self.function(x_t, t, y) + 0 * self.weight


# --- Losses


@pytest.mark.parametrize("predict", PREDICTS)
@pytest.mark.parametrize("weighting", ["simple", "min-snr"])
def test_knowing_the_data_costs_nothing(predict, weighting):
    """The target is the noise that was added, and no other."""
    torch.manual_seed(0)
    alpha_bar = diffusion.make_schedule("cosine", 10)
    x_0 = torch.randn(300, 1, 2, 3, dtype=torch.float64)
    model = oracle(alpha_bar, predict, knows(alpha_bar, x_0))
    loss, t = diffusion.diffusion_loss(model, x_0, None, weighting)
    assert loss.shape == t.shape == (300,)
    assert loss.abs().max() < 1e-20
    loss, _ = diffusion.score_matching_loss(model, x_0)
    assert loss.abs().max() < 1e-20


@pytest.mark.parametrize("name", ["diffusion_loss", "score_matching_loss"])
def test_every_time_is_trained_equally_often(name):
    torch.manual_seed(0)
    alpha_bar, n = diffusion.make_schedule("cosine", 10), 5000
    model = oracle(alpha_bar, "eps")
    _, t = getattr(diffusion, name)(model, torch.randn(n, 2, dtype=torch.float64))
    counts = torch.bincount(t, minlength=10)
    assert t.unique().tolist() == list(range(10))
    assert (counts - n / 10).abs().max() < ROOM * math.sqrt(n * 0.1 * 0.9)
    (x_t, asked, _), *more = model.net.asked
    assert not more
    assert torch.equal(asked, t)
    # and the input has the noise of that time: data of variance 1 keep it
    assert x_t.std().item() == pytest.approx(1, abs=ROOM / math.sqrt(2 * 2 * n))


@pytest.mark.parametrize("predict", PREDICTS)
def test_a_network_that_says_nothing_has_the_size_of_its_target_as_loss(predict):
    """A mean over the numbers of an example, and over nothing else."""
    torch.manual_seed(0)
    alpha_bar = diffusion.make_schedule("cosine", 10)
    x_0 = torch.randn(40, 3, 2, 2, dtype=torch.float64)
    net, y = Oracle(alpha_bar, predict, lambda x_t, t: (x_t * 0, x_t * 0)), torch.arange(40)
    model = Diffusion(net, Schedule(alpha_bar), predict)
    loss, t = diffusion.diffusion_loss(model, x_0, y)
    (x_t, _, labels), *_ = net.asked
    assert torch.equal(labels, y)
    a, b = levels(alpha_bar, t, x_0)
    eps = (x_t - a * x_0) / b
    target = {"eps": eps, "x0": x_0, "v": a * eps - b * x_0}[predict]
    torch.testing.assert_close(loss, (target**2).mean(dim=(1, 2, 3)))
    weighted, t = diffusion.diffusion_loss(model, x_0, y, "min-snr")
    (x_t, *_) = net.asked[-1]
    a, b = levels(alpha_bar, t, x_0)
    eps = (x_t - a * x_0) / b
    target = {"eps": eps, "x0": x_0, "v": a * eps - b * x_0}[predict]
    weight = diffusion.loss_weight((a / b).flatten() ** 2, predict, "min-snr")
    torch.testing.assert_close(weighted, weight * (target**2).mean(dim=(1, 2, 3)))


def test_min_snr_weights_are_one_loss_on_the_data():
    """The same guess costs the same, in whichever of the three units the network speaks."""
    torch.manual_seed(0)
    angle = torch.linspace(0.02, 1.55, 50).double()
    a, b = angle.cos(), angle.sin()
    x_0, eps, guess = torch.randn(3, 50, dtype=torch.float64)
    x_t, snr = a * x_0 + b * eps, (a / b) ** 2
    eps_guess = (x_t - a * guess) / b
    expected = torch.minimum(snr, float64(5.0)) * (x_0 - guess) ** 2
    errors = {"x0": x_0 - guess, "eps": eps - eps_guess}
    errors["v"] = (a * eps - b * x_0) - (a * eps_guess - b * guess)
    for predict, error in errors.items():
        weight = diffusion.loss_weight(snr, predict, "min-snr")
        torch.testing.assert_close(weight * error**2, expected)
        assert (diffusion.loss_weight(snr, predict, "simple") == 1).all()


@pytest.mark.parametrize("name", ["diffusion_loss", "score_matching_loss"])
def test_a_perfect_network_has_the_loss_that_cannot_be_avoided(name):
    """For data N(m, s^2) at each time: the variance of eps given x_t, notes/04 eq. (4.76)."""
    torch.manual_seed(0)
    alpha_bar = float64(0.9, 0.5, 0.1)
    x_0 = 0.3 + 0.5 * torch.randn(30_000, 4, dtype=torch.float64)
    loss, t = getattr(diffusion, name)(oracle(alpha_bar, "eps"), x_0)
    for k, share in enumerate(alpha_bar):
        floor, part = share * 0.25 / (share * 0.25 + 1 - share), loss[t == k]
        assert abs(part.mean() - floor) < ROOM * part.std() / math.sqrt(len(part))


# --- The score


@pytest.mark.parametrize("predict", PREDICTS)
def test_the_score_is_the_gradient_of_the_log_density_of_noisy_data(predict):
    """Data at three points of the plane: with noise a mixture, whose score autograd knows."""
    torch.manual_seed(0)
    alpha_bar = diffusion.make_schedule("geometric", 10)
    points = float64([1.0, 0.5], [-0.7, 0.2], [0.1, -1.0])

    def denoise(x_t, t):  # notes/04 eq. (4.82)
        a, b = levels(alpha_bar, t, x_t)
        distance = (x_t[:, None] - a[..., None] * points).square().sum(2)
        x_0 = (-distance / (2 * b * b)).softmax(1) @ points
        return x_0, (x_t - a * x_0) / b

    model = oracle(alpha_bar, predict, denoise)
    for t in (2, 4, 7):
        sigma = (1 / alpha_bar[t] - 1).sqrt()
        x = (points[[0, 1, 2, 0]] + sigma * torch.randn(4, 2).double()).requires_grad_()
        parts = torch.distributions.Independent(Normal(points, sigma), 1)
        density = MixtureSameFamily(torch.distributions.Categorical(torch.ones(3).double()), parts)
        (expected,) = torch.autograd.grad(density.log_prob(x).sum(), x)
        got = diffusion.score(model, x.detach(), t)
        torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)
        _, eps = denoise(alpha_bar[t].sqrt() * x.detach(), t)
        torch.testing.assert_close(got, -eps / sigma, rtol=1e-6, atol=1e-6)


def test_scores_of_mixed_times_are_those_of_each_alone():
    torch.manual_seed(0)
    alpha_bar = diffusion.make_schedule("geometric", 10)
    model, x = oracle(alpha_bar), torch.randn(3, 3, dtype=torch.float64)
    t = torch.tensor([1, 8, 5])
    got = diffusion.score(model, x, t)
    sigma2 = (1 / alpha_bar[t] - 1)[:, None]
    torch.testing.assert_close(got, -(x - 0.3) / (0.25 + sigma2))


# --- Samplers, with a perfect denoiser of N(m, s^2)


def affine(sampler, alpha_bar, times, clean=True):
    """A deterministic sampler maps x to A + B x if the denoiser is affine; return A and B."""
    x = float64([0.0], [1.0])
    end = diffusion.last(sampler(perfect(alpha_bar), Schedule(alpha_bar), x, times)).flatten()
    return end[0].item(), (end[1] - end[0]).item()


def exact(alpha_bar, t, s, m=0.3, width=0.5):
    """A and B of the ODE from time t to s: the deviation keeps its size in standard deviations."""
    (a, b), (a_s, b_s) = (
        (1.0, 0.0) if r < 0 else (alpha_bar[r].sqrt().item(), (1 - alpha_bar[r]).sqrt().item())
        for r in (t, s)
    )
    factor = math.sqrt((a_s * a_s * width**2 + b_s * b_s) / (a * a * width**2 + b * b))
    return a_s * m - factor * a * m, factor


DETERMINISTIC = {"ddim": 0.02, "heun": 0.008, "dpm++": 0.004}


@pytest.mark.parametrize("name", DETERMINISTIC)
@pytest.mark.parametrize("schedule", ["cosine", "sigmoid"])
def test_deterministic_samplers_turn_noise_into_the_data(name, schedule):
    """Mean and width of what becomes of N(0, 1), after 100 steps; DDIM is the least exact."""
    alpha_bar = diffusion.make_schedule(schedule, 1000)
    times = Schedule(alpha_bar).times(100, rho=7 if name == "dpm++" else 0)
    mean, width = affine(diffusion.SAMPLERS[name], alpha_bar, times)
    assert mean == pytest.approx(0.3, abs=0.01)
    assert width == pytest.approx(0.5, rel=DETERMINISTIC[name])


# alternating long and short steps: what is divided by the step before must be the step before
UNEVEN = {
    n: [960 - 960 * i // n + (320 // n) * (i % 2) for i in range(n + 1)] for n in (20, 40, 80)
}


@pytest.mark.parametrize(("name", "order"), [("ddim", 1), ("heun", 2), ("dpm++", 2)])
@pytest.mark.parametrize("m", [0.3, -2.0])
def test_samplers_approach_the_exact_map_at_their_order(name, order, m):
    """Twice the steps: half the error of DDIM, a quarter of that of Heun and DPM-Solver++."""
    sigma = 0.1 * 100 ** torch.linspace(0, 1, 961).double()
    alpha_bar = 1 / (1 + sigma**2)
    errors = []
    for times in UNEVEN.values():
        assert all(t > s for t, s in pairwise(times))
        x = float64([0.0], [1.0])
        sampler = diffusion.SAMPLERS[name](perfect(alpha_bar, m), Schedule(alpha_bar), x, times)
        end = diffusion.last(sampler).flatten()
        shift, factor = exact(alpha_bar, 960, 0, m)
        errors.append([abs(end[0] - shift).item(), abs(end[1] - end[0] - factor).item()])
    for k in range(2):
        for coarse, fine in pairwise([e[k] for e in errors]):
            assert coarse / fine == pytest.approx(2**order, rel=0.25)
        assert errors[-1][k] < (0.03 if order == 1 else 0.004)


def test_ddim_is_exact_when_the_guess_is():
    """With the true x_0 and eps a step of any length lands on q(x_s)."""
    torch.manual_seed(0)
    alpha_bar = diffusion.make_schedule("cosine", 50)
    x_0, eps = torch.randn(2, 4, 1, 3, 3, dtype=torch.float64)
    a, b = levels(alpha_bar, 49, x_0)
    path = diffusion.ddim(
        knows(alpha_bar, x_0), Schedule(alpha_bar), a * x_0 + b * eps, [49, 30, 2]
    )
    for s, (x, guess) in zip((30, 2), path, strict=True):
        a, b = levels(alpha_bar, s, x_0)
        torch.testing.assert_close(x, a * x_0 + b * eps)
        torch.testing.assert_close(guess, x_0)


def test_ddim_also_leads_from_data_to_noise():
    alpha_bar = diffusion.make_schedule("cosine", 1000)
    times = list(range(0, 1000, 3))
    shift, factor = affine(diffusion.ddim, alpha_bar, times)
    up = exact(alpha_bar, 0, 999)
    assert (shift, factor) == (pytest.approx(up[0], abs=0.02), pytest.approx(up[1], rel=0.02))
    back = affine(diffusion.ddim, alpha_bar, times[::-1])
    assert factor * back[1] == pytest.approx(1, rel=0.02)


def test_dpm_solver_by_hand():
    """The example of notes/04 section 6.4: data N(0, 1), sigma from 4 by 2 to 1."""
    alpha_bar = 1 / (1 + float64(1.0, 2.0, 4.0) ** 2)
    x = float64([1.0])  # u = sqrt(17), and alpha_bar = 1 / 17
    path = diffusion.dpm_solver(perfect(alpha_bar, 0.0, 1.0), Schedule(alpha_bar), x, [2, 1, 0])
    u = [x.item() / alpha_bar[t].sqrt().item() for t, (x, _) in zip((1, 0), path, strict=True)]
    assert u == pytest.approx([2.1828, 1.3582], abs=1e-4)


def moments_of_ddpm(alpha_bar, times, m=0.3, width=0.5):
    """Mean and variance of ancestral samples, from Bayes' rule; notes/04 eq. (4.78)."""
    mean, variance = 0.0, 1.0
    for t, s in pairwise(times):
        share_t, share_s = (1.0 if r < 0 else alpha_bar[r].item() for r in (t, s))
        c = share_t * width**2 + 1 - share_t
        slope_guess = math.sqrt(share_t) * width**2 / c
        constant = m - slope_guess * math.sqrt(share_t) * m
        if s < 0:
            mean, variance = constant + slope_guess * mean, slope_guess**2 * variance
            continue
        step = share_t / share_s
        spread = 1 / (step / (1 - step) + 1 / (1 - share_s))
        on_x = spread * math.sqrt(step) / (1 - step)
        on_guess = spread * math.sqrt(share_s) / (1 - share_s)
        slope = on_x + on_guess * slope_guess
        mean, variance = slope * mean + on_guess * constant, slope**2 * variance + spread
    return mean, variance


def moments_of_langevin(alpha_bar, times, m=0.3, width=0.5):
    """In u = x / signal: (u - m) shrinks by 1 - 0.2 sigma^2 / c, and 0.4 sigma^2 is added."""
    share = alpha_bar[times[0]].item()
    mean, variance = 0.0, 1 / share
    for t in times[:-1]:
        sigma2 = 1 / alpha_bar[t].item() - 1
        keep = 1 - 0.2 * sigma2 / (width**2 + sigma2)
        for _ in range(5):
            mean, variance = m + keep * (mean - m), keep**2 * variance + 0.4 * sigma2
    guess = width**2 / (width**2 + sigma2)
    return m + guess * (mean - m), guess**2 * variance


RANDOM = {"ddpm": (moments_of_ddpm, "cosine", 0.04), "langevin": (moments_of_langevin, None, 0.06)}


@pytest.mark.parametrize("name", RANDOM)
@pytest.mark.parametrize("steps", [4, 100])
def test_random_samplers_return_the_mean_and_width_of_the_data(name, steps):
    """Many samples against the recursion of mean and variance; that, with many steps, the data."""
    torch.manual_seed(0)
    moments, schedule, bias = RANDOM[name]
    alpha_bar = diffusion.make_schedule(schedule or "geometric", 1000)
    times, n = Schedule(alpha_bar).times(steps), 40_000
    mean, variance = moments(alpha_bar, times)
    x = torch.randn(n, 1, dtype=torch.float64)
    if steps == 100:
        assert mean == pytest.approx(0.3, abs=0.01)
        assert math.sqrt(variance) == pytest.approx(0.5, rel=bias)
    path = diffusion.SAMPLERS[name](perfect(alpha_bar), Schedule(alpha_bar), x, times)
    end = diffusion.last(path)
    assert abs(end.mean() - mean) < ROOM * math.sqrt(variance / n)
    assert (end.var() / variance).item() == pytest.approx(1, abs=ROOM * math.sqrt(2 / n))


def test_a_step_of_ddpm_draws_from_the_posterior_of_the_guess():
    torch.manual_seed(0)
    alpha_bar, n = diffusion.make_schedule("cosine", 10), 100_000
    schedule, x_t = Schedule(alpha_bar), torch.full((n, 1), 0.8).double()
    x_s, guess = diffusion.p_sample(perfect(alpha_bar), schedule, x_t, 7, 3)
    expected, _ = perfect(alpha_bar)(x_t, 7)
    torch.testing.assert_close(guess, expected)
    step = alpha_bar[7] / alpha_bar[3]
    variance = 1 / (step / (1 - step) + 1 / (1 - alpha_bar[3]))
    mean = variance * (
        step.sqrt() / (1 - step) * 0.8 + alpha_bar[3].sqrt() / (1 - alpha_bar[3]) * guess[0]
    )
    assert (x_s.mean() - mean).abs() < ROOM * (variance / n).sqrt()
    assert (x_s.var() / variance).item() == pytest.approx(1, abs=ROOM * math.sqrt(2 / n))


@pytest.mark.parametrize("name", diffusion.SAMPLERS)
def test_the_last_step_lands_on_the_guess_without_noise(name):
    """And a sampler yields as many states as it makes steps, at whatever shape."""
    torch.manual_seed(0)
    alpha_bar = diffusion.make_schedule("cosine", 20)
    x, times = torch.randn(3, 1, 2, 3, dtype=torch.float64), [19, 11, 4, 0, -1]
    steps = list(diffusion.SAMPLERS[name](perfect(alpha_bar), Schedule(alpha_bar), x, times))
    assert len(steps) == 4
    assert all(x_s.shape == guess.shape == x.shape for x_s, guess in steps)
    torch.testing.assert_close(*steps[-1])
    assert not any(torch.allclose(x_s, guess) for x_s, guess in steps[:-1])
    first, _ = perfect(alpha_bar)(x, 19)
    if name != "langevin":  # which guesses after it has walked
        torch.testing.assert_close(steps[0][1], first)
    one = [diffusion.p_sample(perfect(alpha_bar), Schedule(alpha_bar), x, 5, -1) for _ in range(2)]
    assert torch.equal(one[0][0], one[1][0])
    torch.testing.assert_close(one[0][0], perfect(alpha_bar)(x, 5)[0])


EVALUATIONS = {name: [19, 4, 0] for name in ("ddpm", "ddim", "dpm++")}
EVALUATIONS |= {"heun": [19, 4, 4, 0, 0], "langevin": [19] * 6 + [4] * 6 + [0] * 6}


@pytest.mark.parametrize("name", diffusion.SAMPLERS)
def test_samplers_ask_the_network_as_often_as_they_say(name):
    """Heun at both ends of a step, but never at t = -1, which no network knows."""
    alpha_bar, asked = diffusion.make_schedule("cosine", 20), []

    def denoise(x, t):
        asked.append(t)
        return perfect(alpha_bar)(x, t)

    x = float64([0.5], [-1.0])
    diffusion.last(diffusion.SAMPLERS[name](denoise, Schedule(alpha_bar), x, [19, 4, 0, -1]))
    assert asked == EVALUATIONS[name]


# --- Guidance


def labelled(predict, seen=None):
    """A conditional model in the plane: the output moves with the label; 3 is not told."""
    table = float64([0.1, -0.2], [0.5, 0.3], [-0.4, 0.2], [0.05, 0.7])

    def output(x_t, t, y):
        if seen is not None:
            seen.append(y)
        return 0.3 * x_t + table[y]

    schedule = Schedule(diffusion.make_schedule("cosine", 10))
    return Diffusion(SimpleNet(output, unknown=3), schedule, predict)


@pytest.mark.parametrize("predict", PREDICTS)
def test_guidance_goes_straight_from_no_label_to_the_label_and_beyond(predict):
    torch.manual_seed(0)
    x_t, y = torch.randn(4, 2, dtype=torch.float64), torch.tensor([0, 2, 1, 0])
    model = labelled(predict)

    def guess(y, guidance):
        return torch.stack(diffusion.denoiser(model, y, guidance, clip=False)(x_t, 6))

    told, untold = guess(y, 1.0), guess(torch.full_like(y, 3), 1.0)
    assert (told - untold).abs().min() > 1e-3
    torch.testing.assert_close(guess(y, 0.0), untold)
    for w in (0.5, 3.0):
        torch.testing.assert_close(guess(y, w), (1 - w) * untold + w * told)
    a, b = float64(0.5), float64(0.2)
    assert diffusion.guided(a, b, 3.0).item() == pytest.approx(1.1)  # notes/04 section 8.2


def test_guidance_asks_with_the_label_and_with_the_one_that_means_not_told():
    seen, y = [], torch.tensor([0, 2, 1])
    denoise = diffusion.denoiser(labelled("x0", seen), y, 2.0)
    denoise(torch.zeros(3, 2).double(), 4)
    assert sorted(labels.tolist() for labels in seen) == [[0, 2, 1], [3, 3, 3]]
    seen.clear()
    diffusion.denoiser(labelled("x0", seen), y, 1.0)(torch.zeros(3, 2).double(), 4)
    assert [labels.tolist() for labels in seen] == [[0, 2, 1]]  # no second evaluation


@pytest.mark.parametrize("predict", PREDICTS)
def test_clipping_comes_after_guiding_and_eps_follows(predict):
    torch.manual_seed(0)
    model, y = labelled(predict), torch.tensor([0, 2, 1, 0])
    x_t = torch.randn(4, 2, dtype=torch.float64)
    free, _ = diffusion.denoiser(model, y, 9.0, clip=False)(x_t, 6)
    x_0, eps = diffusion.denoiser(model, y, 9.0)(x_t, 6)
    assert free.abs().max() > 1
    torch.testing.assert_close(x_0, free.clamp(-1, 1))
    a, b = levels(model.schedule.alpha_bar, 6, x_t)
    torch.testing.assert_close(a * x_0 + b * eps, x_t)


def test_samples_of_pictures_are_clipped_and_those_of_the_plane_are_not():
    """Labels and noise stay together when long inputs are drawn in parts."""
    torch.manual_seed(0)
    alpha_bar = diffusion.make_schedule("cosine", 10)
    schedule = Schedule(alpha_bar)
    net = SimpleNet(
        lambda x_t, t, y: torch.zeros_like(x_t) + 3.0 * y.view(-1, *[1] * (x_t.ndim - 1))
    )
    model, y = Diffusion(net, schedule, "x0"), torch.arange(700) % 2
    config = Config(sampling_steps=3, sampler="ddim")
    plane = diffusion.sample(model, torch.randn(700, 2), y, config)
    torch.testing.assert_close(plane, 3.0 * y[:, None].expand(700, 2))
    image = diffusion.sample(model, torch.randn(700, 1, 2, 2), y, config)
    torch.testing.assert_close(image, y.view(-1, 1, 1, 1).expand(700, 1, 2, 2).float())


@pytest.mark.parametrize("name", diffusion.SAMPLERS)
def test_samples_are_drawn_with_the_sampler_and_the_guidance_of_the_flags(name, monkeypatch):
    """A guess that does not depend on x_t is where every sampler ends."""
    used, table = [], torch.tensor([0.1, 0.4, -0.2])
    for other, sampler in [*diffusion.SAMPLERS.items()]:

        def watched(denoise, schedule, x, times, sampler=sampler, other=other):
            used.append((other, times))
            return sampler(denoise, schedule, x, times)

        monkeypatch.setitem(diffusion.SAMPLERS, other, watched)
    net = SimpleNet(lambda x_t, t, y: table[y][:, None].expand_as(x_t), unknown=2)
    model = Diffusion(net, Schedule(diffusion.make_schedule("cosine", 20)), "x0")
    config = Config(model="conditional", sampler=name, sampling_steps=4, guidance=3.0)
    y = torch.tensor([0, 1, 1])
    x = diffusion.sample(model, torch.randn(3, 2), y, config)
    torch.testing.assert_close(x, (-0.2 + 3 * (table[y] + 0.2))[:, None].expand(3, 2))
    assert used == [(name, diffusion.stops(model.schedule, config))]


# --- Likelihoods


def test_bound_terms_are_divergences_of_posteriors():
    torch.manual_seed(0)
    alpha_bar = diffusion.make_schedule("sigmoid", 10)
    x_0, guess, x_t = torch.rand(3, 9, 1, 2, 3, dtype=torch.float64) * 2 - 1
    t = torch.arange(1, 10)
    mean, variance = diffusion.posterior(Schedule(alpha_bar), x_0, x_t, t, t - 1)
    believed, _ = diffusion.posterior(Schedule(alpha_bar), guess, x_t, t, t - 1)
    q, p = (Normal(m, variance.sqrt().expand_as(m)) for m in (mean, believed))
    expected = kl_divergence(q, p).sum(dim=(1, 2, 3))
    got = diffusion.bound_terms(Schedule(alpha_bar), x_0, guess, t)
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_pixel_far_from_its_guess_costs_what_the_gaussian_says(dtype):
    """Half of (x_0 - guess)^2 / sigma^2, and no less: a bound that stops rising bounds nothing."""
    schedule, t = Schedule(float64(1 / 1.0004, 0.1)), torch.zeros(4, dtype=torch.long)  # sigma 0.02
    x_0 = (-1 + 2 * torch.tensor([[90.0], [110.0], [150.0], [170.0]]).double() / 255).to(dtype)
    guess = (-1 + 2 * torch.full((4, 1), 130.0).double() / 255).to(dtype)
    got = diffusion.bound_terms(schedule, x_0, guess, t).double()
    y = x_0.double() + torch.linspace(-1, 1, 2001).double() / 255  # the pixel's width
    density = Normal(guess.double(), 0.02).log_prob(y)
    expected = -(density.logsumexp(1) + math.log(2 / 255 / 2001))
    torch.testing.assert_close(got, expected, rtol=2e-3, atol=0)


@pytest.mark.parametrize("share", [0.9999, 0.99, 0.5])
def test_the_last_term_is_a_distribution_over_256_pixel_values(share):
    schedule = Schedule(float64(share, 0.1))
    values = -1 + 2 * torch.arange(256, dtype=torch.float64)[:, None] / 255
    sigma = math.sqrt(1 / share - 1)
    for guess in (-1.0, 0.3, 0.9, 1.0):
        guesses, t = torch.full_like(values, guess), torch.zeros(256, dtype=torch.long)
        p = (-diffusion.bound_terms(schedule, values, guesses, t)).exp()
        assert p.sum().item() == pytest.approx(1, abs=1e-6)
        edges = Normal(float64(guess), float64(sigma)).cdf((values[1:] + values[:-1]).flatten() / 2)
        torch.testing.assert_close(p[1:-1], edges.diff(), rtol=1e-6, atol=2e-12)
        assert p[0].item() == pytest.approx(edges[0].item(), abs=2e-12)


def test_the_prior_term_is_the_divergence_from_the_normal():
    schedule = Schedule(float64(0.9, 0.3))
    x_0 = torch.rand(5, 1, 2, 3, generator=torch.Generator().manual_seed(0)).double()
    q = Normal(math.sqrt(0.3) * x_0, torch.full_like(x_0, math.sqrt(0.7)))
    expected = kl_divergence(q, Normal(torch.zeros_like(x_0), torch.ones_like(x_0)))
    torch.testing.assert_close(diffusion.prior_term(schedule, x_0), expected.sum(dim=(1, 2, 3)))


@pytest.mark.parametrize("predict", PREDICTS)
def test_the_bound_of_gaussian_data_is_its_closed_form(predict):
    """All terms once, with the exact denoiser; notes/04 eq. (4.79) is what the steps cost."""
    torch.manual_seed(0)
    alpha_bar, n, s = diffusion.make_schedule("geometric", 30), 4000, 0.1
    x_0 = 0.2 + s * torch.randn(n, 1, 1, 2, dtype=torch.float64)
    model, y = oracle(alpha_bar, predict, m=0.2, s=s), torch.zeros(n, dtype=torch.long)
    bound = diffusion.variational_bound(model, x_0, y, k=29)
    assert bound.shape == (n, 3)
    snr = alpha_bar / (1 - alpha_bar)
    exact = 2 * 0.5 * ((snr[:-1] - snr[1:]) * s**2 / (1 + s**2 * snr[1:])).sum()
    room = ROOM * bound.std(0) / math.sqrt(n)
    assert (bound[:, 1].mean() - exact).abs() < room[1]
    # at t = 0 the guess errs by as much as is not known, and the Gaussian has width sigma_0
    error, width = s**2 / (1 + s**2 * snr[0]), 1 / snr[0].sqrt()
    cost = width.log() + 0.5 * math.log(2 * math.pi) + 0.5 * error / width**2 - math.log(2 / 255)
    assert (bound[:, 2].mean() - 2 * cost).abs() < room[2] + 0.03  # a pixel is not a point
    torch.testing.assert_close(bound[:, 0], diffusion.prior_term(Schedule(alpha_bar), x_0))


@pytest.mark.parametrize("timesteps", [2, 7])
def test_with_as_many_draws_as_terms_each_term_is_evaluated_once(timesteps):
    torch.manual_seed(0)
    model, n = oracle(diffusion.make_schedule("cosine", timesteps)), 600
    y = torch.arange(n) % 10
    diffusion.variational_bound(model, torch.zeros(n, 2).double(), y, k=timesteps - 1)
    for part in (slice(0, timesteps), slice(timesteps, None)):  # 500 rows at a time
        asked = torch.stack([t for _, t, _ in model.net.asked[part]])
        assert (asked.sort(0).values == torch.arange(timesteps)[:, None]).all()
    assert torch.equal(model.net.asked[0][2], y[:500])


@pytest.mark.parametrize("k", [1, 4])
def test_a_few_terms_are_an_unbiased_estimate_of_all(k):
    """A guess that depends on t only makes each term a number: the estimates average to the sum."""
    torch.manual_seed(0)
    alpha_bar, n = diffusion.make_schedule("cosine", 12), 20_000

    def denoise(x_t, t):
        return (t / 12).double()[:, None].expand_as(x_t), x_t

    x_0, y = torch.full((n, 1), 0.25).double(), torch.zeros(n, dtype=torch.long)
    got = diffusion.variational_bound(oracle(alpha_bar, "x0", denoise), x_0, y, k=k)[:, 1].double()
    snr, t = alpha_bar / (1 - alpha_bar), torch.arange(1, 12)
    exact = 0.5 * ((snr[:-1] - snr[1:]) * (0.25 - t / 12) ** 2).sum()
    assert (got.mean() - exact).abs() < ROOM * got.std() / math.sqrt(n)


def test_a_wild_guess_of_a_pixel_is_clipped_before_it_is_paid():
    schedule_share = diffusion.make_schedule("cosine", 2)
    x_0, y = torch.ones(3, 1).double(), torch.zeros(3, dtype=torch.long)
    for wild in (1.0, 50.0):
        model = oracle(schedule_share, "x0", lambda x_t, t, w=wild: (torch.full_like(x_t, w), x_t))
        assert diffusion.variational_bound(model, x_0, y, k=1)[:, 1].abs().max() == 0


def test_the_metrics_of_the_bound_are_bits_a_dimension_of_test_images():
    share = diffusion.make_schedule("cosine", 2)
    model = oracle(share, "x0", lambda x_t, t: (torch.full_like(x_t, 0.25), x_t))
    torch.manual_seed(0)
    test = torch.rand(1200, 1, 2, 2, dtype=torch.float64)
    data = SimpleNamespace(test=test, test_labels=torch.arange(1200) % 7)
    got = diffusion.bound_metrics(model, data, 1)
    assert torch.equal(model.net.asked[0][2], data.test_labels[:500])
    x, guess = 2 * test[:1000] - 1, torch.full((1000, 1, 2, 2), 0.25).double()
    terms = [diffusion.prior_term(model.schedule, x)]
    terms += [
        diffusion.bound_terms(model.schedule, x, guess, torch.full((1000,), t)) for t in (1, 0)
    ]
    terms = torch.stack(terms) / (4 * math.log(2))
    for name, part in zip(("prior", "steps", "pixels"), terms, strict=True):
        name = f"test_bound_{name}_bits_per_dim"
        assert got[name] == pytest.approx(part.mean().item(), rel=1e-5)
    total = terms.sum(0)
    assert got["test_bound_bits_per_dim"] == pytest.approx(total.mean().item(), rel=1e-5)
    error = got["test_bound_bits_per_dim_standard_error"]
    assert error == pytest.approx(total.std().item() / math.sqrt(1000), rel=1e-4)


@pytest.mark.parametrize("predict", PREDICTS)
def test_the_density_by_the_ode_is_that_of_gaussian_data(predict):
    """Different mean and width in each dimension; the ODE starts at the noise of t = 0."""
    torch.manual_seed(0)
    alpha_bar = diffusion.make_schedule("cosine", 1000)
    m, s = float64(0.3, -0.8), float64(0.5, 1.3)
    x = m + 1.5 * s * torch.randn(20, 2, dtype=torch.float64)
    got = diffusion.ode_log_prob(oracle(alpha_bar, predict, m=m, s=s), x)
    (a, b), (a_T, b_T) = (levels(alpha_bar, t, x) for t in (0, 999))
    factor = (((a_T * s) ** 2 + b_T**2) / ((a * s) ** 2 + b**2)).sqrt()
    z = a_T * m + factor * a * (x - m)
    expected = (Normal(0, 1).log_prob(z) + (factor * a).log()).sum(1)
    torch.testing.assert_close(got, expected, atol=3e-3, rtol=0)
    density = Normal(m, (s**2 + (b / a) ** 2).sqrt()).log_prob(x).sum(1)
    torch.testing.assert_close(got, density, atol=0.05, rtol=0)
    assert not got.requires_grad


def test_the_error_of_the_density_falls_with_the_square_of_the_steps():
    alpha_bar = torch.linspace(0.03, 1.54, 1001).double().cos() ** 2
    m, s, x = float64(0.5, -0.8), float64(0.5, 0.7), float64([0.1, -1.0], [1.0, 0.5])
    (a, b), (a_T, b_T) = (levels(alpha_bar, t, x) for t in (0, 1000))
    factor = (((a_T * s) ** 2 + b_T**2) / ((a * s) ** 2 + b**2)).sqrt()
    z = a_T * m + factor * a * (x - m)
    exact = (Normal(0, 1).log_prob(z) + (factor * a).log()).sum(1)
    model = oracle(alpha_bar, "v", m=m, s=s)
    coarse, fine = (diffusion.ode_log_prob(model, x, steps) - exact for steps in (20, 40))
    torch.testing.assert_close(coarse / fine, torch.full_like(fine, 4.0), rtol=0.3, atol=0)
    assert fine.abs().max() < 0.01


def test_the_density_by_the_ode_of_any_network_integrates_to_one():
    schedule = Schedule(diffusion.make_schedule("cosine", 50))
    model = Diffusion(plane_net(50, 0.15), schedule, "v")
    ticks = torch.linspace(-9, 9, 61, dtype=torch.float64)
    log_prob = diffusion.ode_log_prob(model, torch.cartesian_prod(ticks, ticks))
    flat = Normal(0, 1).log_prob(torch.cartesian_prod(ticks, ticks)).sum(1)
    assert (log_prob - flat).abs().max() > 1  # it does move
    assert (log_prob.exp().sum() * 0.3**2).item() == pytest.approx(1, abs=1e-3)


# --- Networks


@pytest.mark.parametrize("shape", [(1, 28, 28), (1, 30, 30), (1, 17, 23), (3, 32, 32), (2, 5, 4)])
def test_the_unet_keeps_every_shape(shape):
    net = diffusion.UNet(shape, 8, 20, 3)
    x, t, y = torch.randn(2, *shape), torch.tensor([0, 19]), torch.tensor([2, 3])
    assert net(x, t, y).shape == x.shape
    net.to(memory_format=torch.channels_last)
    assert net(x.to(memory_format=torch.channels_last), t, y).shape == x.shape


@torch.no_grad()
@pytest.mark.parametrize("name", ["unet", "plane"])
def test_networks_use_the_time_of_each_example(name):
    torch.manual_seed(1)
    net, shape = (unet(), (1, 8, 8)) if name == "unet" else (plane_net(), (2,))
    x, y = torch.randn(1, *shape).double().expand(20, *shape), torch.zeros(20, dtype=torch.long)
    out = net(x, torch.arange(20), y).flatten(1)
    assert torch.pdist(out).min() > 1e-3
    for i in (3, 11):
        torch.testing.assert_close(net(x[:1], torch.tensor([i]), y[:1]).flatten(1), out[i : i + 1])


@torch.no_grad()
@pytest.mark.parametrize("name", ["unet", "plane"])
def test_no_example_changes_the_output_of_another(name):
    torch.manual_seed(1)
    net, shape = (unet(), (1, 8, 8)) if name == "unet" else (plane_net(), (2,))
    x, t, y = torch.randn(5, *shape).double(), torch.randint(20, (5,)), torch.randint(3, (5,))
    order = torch.randperm(5)
    out = net(x, t, y)
    torch.testing.assert_close(net(x[order], t[order], y[order]), out[order])
    torch.testing.assert_close(net(x[:2], t[:2], y[:2]), out[:2])


def test_no_weight_is_idle():
    torch.manual_seed(1)
    for net, shape in ((unet(), (1, 8, 8)), (plane_net(), (2,))):
        net(
            torch.randn(2, *shape).double(), torch.tensor([3, 17]), torch.tensor([1, 3])
        ).sum().backward()
        assert [name for name, p in net.named_parameters() if not p.grad.any()] == []


CUTS = {"": True, "skip": True, "attention": True, "whole": True}
CUTS |= {"attention whole": False, "inside": False}


@pytest.mark.parametrize(("cut", "far"), CUTS.items())
def test_every_pixel_is_seen_from_afar_and_through_the_skip_connection(cut, far):
    """Attention alone sees the whole picture, and so does the block that is called after it."""
    torch.manual_seed(1)
    net, x = unet((1, 62, 62)), torch.randn(1, 1, 62, 62).double().requires_grad_()
    with torch.no_grad():
        if "attention" in cut:
            net.attention.out.weight.zero_()
        if "whole" in cut:
            net.whole.up.weight.zero_()
        if cut == "inside":
            net.up.weight.zero_()
        if cut == "skip":
            net.join.weight[:, 8:].zero_()
    out = net(x, torch.tensor([7]), torch.tensor([1]))
    corner, middle, total = (
        torch.autograd.grad(o, x, retain_graph=True)[0][0, 0] != 0
        for o in (out[0, 0, 1, 1], out[0, 0, 31, 31], out.sum())
    )
    assert corner.all() == far
    assert total.all()
    if cut == "inside":  # six convolutions of 2 x 2 pixels to each side of its own
        for dim in (0, 1):
            assert middle.any(dim).nonzero().flatten().tolist() == list(range(18, 44))


@torch.no_grad()
def test_the_unet_uses_the_label_and_the_one_that_means_not_told():
    torch.manual_seed(1)
    net, x, t = unet(), torch.randn(1, 1, 8, 8).double().expand(4, 1, 8, 8), torch.full((4,), 5)
    assert net.condition.unknown == 3
    assert torch.pdist(net(x, t, torch.arange(4)).flatten(1)).min() > 1e-3
    plain = unet(num_classes=0)
    assert torch.equal(plain(x, t, torch.arange(4)), plain(x, t, None))


def test_time_is_told_by_waves_of_many_lengths():
    e = diffusion.time_embedding(torch.tensor([0.0, 3.0, 500.0]), 8).double()
    assert e.shape == (3, 8)
    frequency = [10_000 ** (-k / 4) for k in range(4)]
    for row, t in zip(e, (0, 3, 500), strict=True):
        angle = [t * f for f in frequency]
        expected = [*map(math.sin, angle), *map(math.cos, angle)]
        assert row.tolist() == pytest.approx(expected, abs=1e-4)


def test_time_is_told_as_a_share_of_all_steps():
    few, many = (diffusion.Condition(8, steps) for steps in (10, 1000))
    many.load_state_dict(few.state_dict())
    torch.testing.assert_close(
        few(torch.tensor([0, 3, 7]), None), many(torch.tensor([0, 300, 700]), None)
    )


def test_the_norm_is_over_the_channels_of_a_place():
    torch.manual_seed(0)
    x, norm = torch.randn(2, 6, 3, 4, dtype=torch.float64), shaken(diffusion.ChannelNorm(6))
    place = x[1, :, 2, 0]
    expected = (place - place.mean()) / (place.var(correction=0) + norm.eps).sqrt()
    torch.testing.assert_close(norm(x)[1, :, 2, 0], expected * norm.weight + norm.bias)


@torch.no_grad()
def test_attention_is_that_of_torch_over_all_places():
    torch.manual_seed(0)
    x, block = torch.randn(2, 8, 3, 5, dtype=torch.float64), shaken(diffusion.Attention(8))
    torch_s = nn.MultiheadAttention(8, 4, batch_first=True).double()
    torch_s.in_proj_weight.copy_(block.qkv.weight[:, :, 0, 0])
    torch_s.in_proj_bias.copy_(block.qkv.bias)
    torch_s.out_proj.weight.copy_(block.out.weight[:, :, 0, 0])
    torch_s.out_proj.bias.copy_(block.out.bias)
    tokens = block.norm(x).flatten(2).transpose(1, 2)
    mixed, _ = torch_s(tokens, tokens, tokens)
    torch.testing.assert_close(block(x), x + mixed.transpose(1, 2).reshape(2, 8, 3, 5))


@torch.no_grad()
def test_a_new_block_changes_little_and_a_trained_one_listens_to_its_condition():
    torch.manual_seed(0)
    x, cond = torch.randn(2, 8, 4, 4), torch.randn(2, 6)
    residual, whole = diffusion.ResBlock(8, 6), diffusion.WholeBlock(8, 4, 4, 16, 6)
    for block in (residual, whole):
        spread = (block(x, cond) - x).flatten(1).std()  # a bias may move it, the input does not
        other = torch.randn(2, 8, 4, 4)
        difference = (block(x, cond) - x) - (block(other, cond) - other)
        assert spread < 0.2
        assert difference.abs().max() < 1e-5
    for block in (shaken(residual), shaken(whole)):
        a, b = block(x.double(), cond.double()), block(x.double(), -cond.double())
        assert (a - b).abs().mean() > 1e-2


@torch.no_grad()
def test_a_residual_block_scales_and_shifts_between_its_convolutions():
    torch.manual_seed(0)
    x, cond = torch.randn(2, 8, 4, 4).double(), torch.randn(2, 6).double()
    block = shaken(diffusion.ResBlock(8, 6))
    film = cond @ block.film.weight.T + block.film.bias
    h = F.conv2d(F.silu(block.norm(x)), block.conv1.weight, block.conv1.bias, padding=1)
    h = h * (1 + film[:, :8, None, None]) + film[:, 8:, None, None]
    h = F.conv2d(F.silu(h), block.conv2.weight, block.conv2.bias, padding=1)
    torch.testing.assert_close(block(x, cond), x + h)


@torch.no_grad()
def test_the_block_of_the_whole_picture_written_out():
    torch.manual_seed(0)
    x, cond = torch.randn(3, 2, 4, 5).double(), torch.randn(3, 6).double()
    block = shaken(diffusion.WholeBlock(2, 4, 5, 7, 6))
    film = cond @ block.film.weight.T + block.film.bias
    h = block.norm(x).reshape(3, 40) @ block.down.weight.T + block.down.bias
    h = F.silu(h * (1 + film[:, :7]) + film[:, 7:])
    expected = x + (h @ block.up.weight.T + block.up.bias).reshape(3, 2, 4, 5)
    torch.testing.assert_close(block(x, cond), expected)


@torch.no_grad()
def test_the_network_of_the_plane_written_out():
    torch.manual_seed(0)
    net, x, t = plane_net(), torch.randn(3, 2).double(), torch.tensor([0, 5, 19])
    h, cond = net.inlet(x), net.condition(t, None)
    assert len(net.first) == len(net.film) == len(net.second) == 3
    for first, film, second in zip(net.first, net.film, net.second, strict=True):
        inner = first(F.silu(h)) * (1 + film(cond)[:, :8]) + film(cond)[:, 8:]
        h = h + second(F.silu(inner))
    torch.testing.assert_close(net(x, t), net.outlet(F.silu(h)))


# --- Training


def trained(tmp_path, x, y=None, net=None, look=None, **flags):
    """Train a network of points on x; return the average, the model and the run."""
    flags = {"dataset": "moons", "width": 8, "timesteps": 20, "precision": "fp32"} | flags
    config = Config(out=tmp_path, **flags)
    run = utils.start(config, "toy.py")
    net = net or diffusion.PlaneNet(config.width, config.timesteps)
    schedule = Schedule(diffusion.make_schedule(config.schedule, config.timesteps))
    model = Diffusion(net, schedule, config.predict)
    y = torch.zeros(len(x), dtype=torch.long) if y is None else y
    look = look or (lambda ema: torch.zeros(1, 1, 4, 4))
    return diffusion.train(model, x, y, look, run), model, run


def watch(monkeypatch, name, note):
    """Call `note` with the arguments of each call of a function of the chapter."""
    original = getattr(diffusion, name)

    def watched(*args, **kwargs):
        note(*args)
        return original(*args, **kwargs)

    monkeypatch.setattr(diffusion, name, watched)


def test_the_average_of_the_weights_is_as_planned(tmp_path, monkeypatch):
    states, looked = [], []

    def weights(model):
        return [p.detach().clone() for p in model.parameters()]

    watch(monkeypatch, "diffusion_loss", lambda model, *_: states.append(weights(model)))
    torch.manual_seed(0)

    def look(model):
        looked.append(model)
        return torch.zeros(1, 1, 4, 4)

    flags = {"ema": 0.6, "epochs": 5, "batch_size": 8, "lr": 0.01}
    ema, model, run = trained(tmp_path, torch.randn(64, 2), look=look, **flags)
    assert len(states) == 40
    states = [*states[1:], weights(model)]  # after each step
    mean = states[0]  # decay 0 in the first step: where training began is forgotten
    for step, now in enumerate(states):
        decay = min(0.6, step / (step + 10))
        mean = [decay * m + (1 - decay) * w for m, w in zip(mean, now, strict=True)]
    for m, p in zip(mean, ema.parameters(), strict=True):
        torch.testing.assert_close(m, p.detach())
    assert looked
    assert all(looked_at is ema for looked_at in looked)
    assert not ema.training
    assert not any(p.requires_grad for p in ema.parameters())
    assert run._objects["ema"] is ema
    assert run._objects["model"] is model
    assert set(run._objects) == {"model", "ema", "optimizer"}


def test_half_of_an_average_is_younger_than_its_half_life():
    model, ema = nn.Linear(2, 2).double(), nn.Linear(2, 2).double()
    nn.init.ones_(model.weight)
    nn.init.zeros_(ema.weight)
    for _ in range(231):
        utils.update_ema(ema, model, 0.997)
    assert ema.weight.mean().item() == pytest.approx(0.5, abs=1e-3)


def test_the_rate_rises_stays_and_falls_to_nothing(tmp_path, monkeypatch):
    rates, steps = [], []
    step = torch.optim.Adam.step

    def watched(self, *args, **kwargs):
        rates.append(self.param_groups[0]["lr"])
        steps.append(self.defaults["betas"])
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.Adam, "step", watched)
    trained(tmp_path, torch.randn(64, 2), epochs=25, batch_size=16, lr=0.02)
    assert len(rates) == 100
    assert rates[0] < 0.001
    assert rates[5:69] == pytest.approx([0.02] * 64)
    assert rates[85] == pytest.approx(0.01)
    assert rates[99] == pytest.approx(0.02 * 0.01 / 0.3)
    assert set(steps) == {(0.9, 0.99)}


def test_a_tenth_of_the_labels_is_not_told(tmp_path, monkeypatch):
    """The others stay with their examples; without `conditional` nothing is hidden."""
    seen = []
    watch(monkeypatch, "diffusion_loss", lambda _, x_0, label, *rest: seen.append((x_0, label)))
    y = torch.arange(1000) % 3
    x, net = y[:, None].expand(1000, 2).float(), SimpleNet(lambda x_t, t, y: x_t, unknown=3)
    flags = {"epochs": 4, "batch_size": 50}
    image = {"dataset": "mnist5k", "predict": "x0", "schedule": "cosine"}
    trained(tmp_path / "a", x, y, net, **flags, **image, model="conditional")
    x_0, label = (torch.cat(part) for part in zip(*seen, strict=True))
    hidden = label == 3
    assert hidden.double().mean().item() == pytest.approx(0.1, abs=ROOM * math.sqrt(0.09 / 4000))
    assert torch.equal(label[~hidden], x_0[~hidden, 0].long())
    seen.clear()
    trained(tmp_path / "b", x, y, net, **flags, **image)
    assert max(label.max() for _, label in seen) == 2


def test_each_model_descends_its_own_loss(tmp_path, monkeypatch):
    seen = []
    watch(monkeypatch, "diffusion_loss", lambda m, x, y, weighting: seen.append(weighting))
    watch(monkeypatch, "score_matching_loss", lambda *_: seen.append("score"))
    flags = {"epochs": 1, "batch_size": 32}
    for model, weighting in (("ddpm", "simple"), ("ddpm", "min-snr"), ("score", "simple")):
        folder = tmp_path / f"{model}-{weighting}"
        trained(folder, torch.randn(64, 2), model=model, weighting=weighting, **flags)
    assert seen == ["simple"] * 2 + ["min-snr"] * 2 + ["score"] * 2


def test_training_can_learn_a_few_points_by_heart(tmp_path):
    """Every sample is then one of them, and each of them is drawn."""
    points = torch.tensor([[1.0, 1.0], [-1.0, 0.7], [0.3, -1.2]])
    flags = {"epochs": 400, "batch_size": 96, "width": 32, "timesteps": 100, "predict": "x0"}
    ema, _, run = trained(tmp_path, points.repeat(32, 1), **flags)
    noise, none = torch.randn(300, 2), torch.zeros(300, dtype=torch.long)
    config = Config(dataset="moons", timesteps=100, sampler="ddpm", sampling_steps=20)
    x = diffusion.sample(ema, noise, none, config)
    distance, which = torch.cdist(x, points).min(1)
    assert distance.mean() < 0.1
    assert torch.bincount(which, minlength=3).min() > 50
    loss = run.series("loss")[1]
    assert loss[-1] < 0.7 * loss[0]


def test_the_unet_can_learn_a_few_pictures_by_heart(tmp_path):
    torch.manual_seed(0)
    pictures = (torch.rand(4, 1, 8, 8) > 0.5).float() * 2 - 1
    net = diffusion.UNet((1, 8, 8), 8, 20)
    flags = {"dataset": "digits", "epochs": 150, "batch_size": 16, "lr": 5e-3, "ema": 0.9}
    ema, _, run = trained(tmp_path, pictures.repeat(4, 1, 1, 1), net=net, **flags)
    loss = run.series("loss")[1]
    assert loss[-1] < 0.3 * loss[0]
    noise, none = torch.randn(40, 1, 8, 8), torch.zeros(40, dtype=torch.long)
    x = diffusion.sample(ema, noise, none, Config(dataset="digits", timesteps=20))
    assert (x - utils.nearest(x, pictures)).abs().mean() < 0.1


def test_a_resumed_run_ends_with_the_same_weights(tmp_path, monkeypatch):
    """Model, optimiser and average are in the checkpoint."""
    torch.manual_seed(0)
    x, flags = torch.randn(320, 2), {"epochs": 4, "batch_size": 32, "ema": 0.9}
    trained(tmp_path / "whole", x, **flags)
    monkeypatch.setattr(sys.modules["code_examples.utils.run"], "SAVE_SECONDS", 0)
    calls = []

    def killed(*_):
        calls.append(0)
        if len(calls) == 25:
            raise RuntimeError("killed")

    watch(monkeypatch, "diffusion_loss", killed)
    with pytest.raises(RuntimeError, match="killed"):
        trained(tmp_path / "cut", x, **flags)
    trained(tmp_path / "cut", x, resume=True, **flags)
    assert len(calls) == 25 + 16
    whole, cut = (
        torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)["objects"]
        for name in ("whole", "cut")
    )
    for part in ("model", "ema"):
        for name, weight in whole[part].items():
            assert torch.equal(weight, cut[part][name]), (part, name)


# --- Experiment

SMALL = {"quick": True, "epochs": 1, "width": 8, "timesteps": 20, "num_samples": 16}
SMALL |= {"sampling_steps": 5, "bound_times": 2, "precision": "fp32"}
FILES = {"config.json", "history.csv", "metrics.json", "samples.npy", "checkpoint.pt"}
FILES |= {"samples.png", "learning_curve.png", "training.gif"}
PICTURES = FILES | {"forward.png", "reverse.png", "reverse.gif", "neighbours.png"}
QUALITY = {"frechet_distance", "kernel_distance", "precision", "recall", "inception_score"}
MAINS = [{"sampler": "heun"}, {"model": "conditional", "guidance": 2.0}, {"model": "score"}]


def redrawn(config):
    """The samples, drawn again from the average in the checkpoint in evaluation's stream."""
    classes = 10 * (config.model == "conditional")
    schedule = Schedule(diffusion.make_schedule(config.schedule, 20))
    model = Diffusion(diffusion.UNet((1, 8, 8), 8, 20, classes), schedule, config.predict)
    state = torch.load(config.out / "checkpoint.pt", weights_only=True)["objects"]
    assert not all(torch.equal(v, state["ema"][k]) for k, v in state["model"].items())
    model.load_state_dict(state["ema"])
    torch.manual_seed(stream(config.seed, EVALUATION))
    noise, y = torch.randn(16, 1, 8, 8), torch.arange(16) % max(1, classes)
    return (diffusion.sample(model, noise, y, config) / 2 + 0.5).clamp(0, 1)


@pytest.mark.parametrize("flags", MAINS, ids=str)
def test_main_writes_a_whole_run(flags, tmp_path, monkeypatch):
    """Pictures are scaled to [-1, 1] on their way in, and back to [0, 1] on their way out."""
    trained_on, tested_on, labels, samplers = [], [], [], []
    watch(monkeypatch, "diffusion_loss", lambda _, x, y, *rest: trained_on.append(x))
    watch(monkeypatch, "score_matching_loss", lambda _, x: trained_on.append(x))
    watch(monkeypatch, "variational_bound", lambda _, x, *rest: tested_on.append(x))
    watch(monkeypatch, "sample", lambda _, noise, y, config: labels.append(y))
    watch(monkeypatch, "sample", lambda *args: samplers.append(args[-1].sampler))
    config = Config(dataset="digits", out=tmp_path, **SMALL, **flags)
    diffusion.main(config)
    written = {p.name for p in tmp_path.iterdir()}
    assert PICTURES | ({"classes.png"} if "guidance" in flags else set()) <= written
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics.keys() >= QUALITY | {"seconds_per_1000_samples", "training_seconds"}
    assert all(math.isfinite(v) for v in metrics.values() if isinstance(v, float))
    assert ("frechet_distance_ode" in metrics) == (config.model == "score")
    assert samplers[0] == "dpm++"  # fast, for the film of the training
    assert samplers[-1] == ("heun" if config.model == "score" else config.sampler)
    parts = [metrics[f"test_bound_{p}_bits_per_dim"] for p in ("prior", "steps", "pixels")]
    assert metrics["test_bound_bits_per_dim"] == pytest.approx(sum(parts), rel=1e-4)
    samples = np.load(tmp_path / "samples.npy")
    assert samples.shape == (16, 1, 8, 8)
    assert samples.dtype == np.float32
    assert samples.min() >= 0
    assert samples.max() <= 1
    for seen in (torch.cat(trained_on), torch.cat(tested_on)):
        assert seen.min() == -1
        assert seen.max() > 0.9
    told = [*range(10), *range(6)] if config.model == "conditional" else [0] * 16
    assert told in [y.tolist() for y in labels]
    assert labels[0].tolist() == (told[:10] * 7)[:64]
    torch.testing.assert_close(torch.from_numpy(samples), redrawn(config), atol=1e-3, rtol=0)


def test_points_in_the_plane(tmp_path, monkeypatch):
    """The network lives in units of its own; what is drawn and measured is in those of the data."""
    panels, fields, trained_on, drawn, asked, inside = {}, {}, [], [], [], []
    watch(monkeypatch, "ode_log_prob", lambda _, z: inside.append(z))
    monkeypatch.setattr(utils, "density_2d", lambda shown, *_, **kw: panels.update(shown))
    monkeypatch.setattr(utils, "vector_field_2d", lambda shown, *_, **kw: fields.update(shown))
    watch(monkeypatch, "diffusion_loss", lambda _, x, *rest: trained_on.append(x))

    def score(model, z, t):
        asked.append((z, t))
        return torch.ones_like(z)

    monkeypatch.setattr(diffusion, "score", score)
    sample = diffusion.sample
    monkeypatch.setattr(diffusion, "sample", lambda *a: drawn.append(sample(*a)) or drawn[-1])
    diffusion.main(Config(dataset="moons", out=tmp_path, **SMALL))
    assert FILES - {"samples.png"} <= {p.name for p in tmp_path.iterdir()}
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert all(math.isfinite(v) for v in metrics.values() if isinstance(v, float))
    density = utils.density("moons")
    torch.manual_seed(0)
    x = density.sample(50_000)
    centre, scale = x.mean(0), x.std()
    inner = torch.cat(trained_on)
    assert inner.mean(0).abs().max() < 0.01
    assert inner.std().item() == pytest.approx(1, abs=0.01)
    samples = torch.from_numpy(np.load(tmp_path / "samples.npy"))
    assert samples.shape == (16, 2)
    torch.testing.assert_close(samples, drawn[-1] * scale + centre, atol=0.1, rtol=0)
    ticks = torch.linspace(-12, 12, 121)
    mass = panels["by the ODE"](torch.cartesian_prod(ticks, ticks)).exp().sum() * 0.2**2
    assert mass.item() == pytest.approx(1, abs=0.03)
    inside.clear()
    nll = -panels["by the ODE"](x[:5000]).mean().item()
    torch.testing.assert_close(inside[0], (x[:5000] - centre) / scale, atol=0.12, rtol=0)
    assert metrics["test_nll_nats_ode"] == pytest.approx(nll, abs=0.05)
    assert metrics["entropy_nats"] == pytest.approx(density.entropy, rel=1e-5)
    gap = metrics["test_nll_nats_ode"] - metrics["entropy_nats"]
    assert metrics["kl_from_data_nats"] == pytest.approx(gap, abs=0.05)
    assert metrics["kl_from_data_nats"] > 0
    field = fields["sigma = 0.3"]
    shown = field(x[:9])  # the score, in whatever units
    torch.testing.assert_close(shown, shown[0, 0].expand(9, 2))
    assert shown[0, 0] > 0
    ((z, t),) = asked
    torch.testing.assert_close(z, (x[:9] - centre) / scale, atol=0.12, rtol=0)
    sigma = (1 / diffusion.make_schedule("cosine", 20) - 1).sqrt()
    assert 0.2 < sigma[t] < 0.4


def test_flags_that_are_not_given_depend_on_the_model_and_the_data():
    pictures, plane, score = Config(), Config(dataset="moons"), Config(model="score")
    assert (pictures.predict, pictures.schedule, pictures.sampler) == ("x0", "sigmoid", "ddpm")
    assert (plane.predict, plane.schedule, plane.sampler) == ("v", "cosine", "heun")
    assert (score.predict, score.schedule, score.sampler) == ("eps", "geometric", "langevin")
    both = Config(model="score", dataset="moons")
    assert (both.predict, both.schedule, both.sampler) == ("eps", "geometric", "langevin")
    assert (both.width, both.batch_size) == (plane.width, plane.batch_size) != (32, 64)
    assert (score.width, score.batch_size) == (pictures.width, pictures.batch_size) == (32, 64)
    assert Config(dataset="moons", predict="x0", sampler="ddpm").predict == "x0"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"guidance": 2.0}, "--guidance: expected 1 for ddpm"),
        ({"sampler": "euler"}, "--sampler: expected one of"),
        ({"model": "score", "weighting": "min-snr"}, "--weighting: expected simple for score"),
        ({"predict": "x_0"}, "--predict: expected one of"),
        ({"schedule": "exp"}, "--schedule: expected one of"),
        ({"guidance": 0.0, "model": "score"}, "--guidance: expected 1 for score"),
        ({"guidance": -1.0, "model": "conditional"}, "--guidance: expected a finite number"),
        ({"width": 30}, "--width: expected a multiple of 4, got 30"),
        ({"width": 4}, "--width: expected a finite number of at least 8"),
        ({"model": "conditional", "dataset": "moons"}, "--model conditional: expected pictures"),
        ({"timesteps": 1}, "--timesteps: expected a finite number of at least 2"),
        ({"sampling_steps": 1}, "--sampling-steps: expected a finite number of at least 2"),
        ({"bound_times": 0}, "--bound-times: expected a finite number of at least 1"),
        ({"ema": 1.0}, "--ema: expected"),
        ({"ema": -0.1}, "--ema: expected"),
        ({"model": "vae"}, "--model: expected one of ddpm, conditional, score"),
        ({"weighting": "none"}, "--weighting: expected one of"),
    ],
    ids=str,
)
def test_impossible_values_are_refused(flags, said):
    with pytest.raises(utils.UserError, match=said):
        Config(**flags)


# --- Quality, minutes each: make test-slow


@pytest.mark.slow
def test_default_run_reaches_its_numbers(tmp_path):
    diffusion.main(Config(out=tmp_path))
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["frechet_distance"] < 3.0


@pytest.mark.slow
def test_moons_reach_their_numbers(tmp_path):
    diffusion.main(Config(dataset="moons", out=tmp_path))
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert 0 < metrics["kl_from_data_nats"] < 0.1
