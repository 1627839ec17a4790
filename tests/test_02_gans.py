"""The laws of the GAN chapter: losses, penalties, steps that do not disturb each other, modes."""

import contextlib
import json
import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Normal

from code_examples import gans, utils
from code_examples.utils.run import EVALUATION, stream

Config = gans.Config
MODELS = ("dcgan", "minimax", "lsgan", "wgan", "wgan-gp", "hinge", "conditional")
PICTURES = {"samples.png", "neighbours.png", "interpolation.png", "learning_curve.png"}


def made_up_run(**flags):
    """What the steps ask of a run."""
    return SimpleNamespace(config=Config(**flags), autocast=contextlib.nullcontext)


def networks(shape=(1, 8, 8), classes=0, **flags):
    torch.manual_seed(0)
    return gans.image_networks(shape, Config(width=4, latent_dim=3, **flags), classes)


def weights(model):
    return [p.detach().clone() for p in model.parameters()]


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


class Linear(nn.Module):
    """The critic f(x) = w . x, of slope |w|."""

    def __init__(self, w):
        super().__init__()
        self.w = nn.Parameter(w)

    def forward(self, x, y=None):
        return x.flatten(1) @ self.w


# --- Losses


def test_losses_at_blind_perfect_and_inverted_logits():
    blind, real, fake = torch.zeros(5), torch.full((5,), 40.0), torch.full((7,), -40.0)
    loss = gans.discriminator_loss
    assert loss(blind, blind).item() == pytest.approx(2 * math.log(2))
    assert loss(real, fake).item() == pytest.approx(0, abs=1e-6)
    assert loss(fake, real).item() == pytest.approx(80)
    assert loss(torch.tensor([-1e3]), torch.tensor([1e3])).item() == pytest.approx(2e3)
    assert gans.generator_loss(blind).item() == pytest.approx(math.log(2))
    assert gans.generator_loss(fake).item() == pytest.approx(40)
    assert gans.saturating_loss(real).item() == pytest.approx(-40)
    assert gans.least_squares_loss(torch.ones(3), torch.zeros(3)) == 0
    assert gans.least_squares_loss(torch.zeros(3), torch.ones(3)) == 1
    assert gans.least_squares_generator_loss(torch.tensor([1.0, 3.0])) == 1
    assert gans.critic_loss(torch.tensor([1.0, 3.0]), torch.tensor([5.0])) == 3
    assert gans.critic_generator_loss(torch.tensor([2.0, 4.0])) == -3
    assert gans.hinge_loss(torch.tensor([1.0, 9.0]), torch.tensor([-1.0, -9.0])) == 0
    assert gans.hinge_loss(torch.tensor([0.0]), torch.tensor([0.5])) == 2.5


def test_smoothing_is_one_sided():
    """Its best real logit is log((1 - s) / s); the fake side is unchanged."""
    a = torch.tensor(math.log(0.9 / 0.1), requires_grad=True)
    gans.discriminator_loss(a[None], torch.zeros(1), 0.1).backward()
    assert a.grad.abs() < 1e-6
    far = torch.tensor([-1000.0])
    plain, smoothed = (gans.discriminator_loss(far, far, s) for s in (0.0, 0.1))
    assert plain.item() == pytest.approx(1000)
    assert smoothed.item() == pytest.approx(900)


def test_the_saturating_loss_has_no_slope_where_fakes_are_recognised():
    for loss, slope in ((gans.saturating_loss, -4.5398e-5), (gans.generator_loss, -0.9999546)):
        a = torch.tensor([-10.0], dtype=torch.float64, requires_grad=True)
        loss(a).backward()
        assert a.grad.item() == pytest.approx(slope, rel=1e-4)


def test_every_model_has_its_own_pair_of_losses():
    """At logits 0.5 (real) and 2 (fake): the discriminator's loss, then the generator's."""

    def softplus(a):
        return math.log1p(math.exp(a))

    log = softplus(-0.5) + softplus(2)
    expected = dict.fromkeys(("dcgan", "conditional"), (log, softplus(-2)))
    expected |= {"minimax": (log, -softplus(2)), "lsgan": (0.5 * (0.5**2 + 2**2), 0.5)}
    expected |= {"wgan": (1.5, -2), "wgan-gp": (1.5, -2), "hinge": (0.5 + 3, -2)}
    assert expected.keys() == gans.LOSSES.keys()
    real, fake = torch.full((4,), 0.5), torch.full((3,), 2.0)
    for model, (d_loss, g_loss) in gans.LOSSES.items():
        got = d_loss(real, fake).item(), g_loss(fake).item()
        assert got == pytest.approx(expected[model], rel=1e-6), model


# --- Penalties


@pytest.mark.parametrize("shape", [(6, 4), (6, 1, 2, 2)])
@pytest.mark.parametrize("slope", [1.0, 3.0])
def test_the_gradient_penalty_of_a_linear_critic_is_exact(shape, slope):
    critic = Linear(torch.full((4,), slope / 2, dtype=torch.float64))
    real, fake = torch.randn(2, *shape, dtype=torch.float64)
    penalty = gans.gradient_penalty(critic, real, fake)
    assert penalty.item() == pytest.approx((slope - 1) ** 2)
    penalty.backward()  # second derivatives flow: d penalty / d |w| = 2 (|w| - 1), along w / |w|
    torch.testing.assert_close(critic.w.grad, torch.full_like(critic.w, (slope - 1)))
    r1 = gans.r1_penalty(critic, real)
    assert r1.item() == pytest.approx(slope**2 / 2)
    assert not real.requires_grad


def test_the_gradient_penalty_looks_between_pairs_with_one_alpha_each():
    seen = []

    def critic(x):
        seen.append(x.detach())
        return x.square().flatten(1).sum(1)

    real, fake = torch.zeros(64, 1, 3, 3), torch.ones(64, 1, 3, 3)
    gans.gradient_penalty(critic, real, fake)
    alpha = seen[0].flatten(1)
    assert (alpha - alpha[:, :1]).abs().max() < 1e-6
    assert 0 <= alpha.min() <= alpha.max() <= 1
    assert alpha[:, 0].std() > 0.2


def test_a_slope_is_that_of_the_examples_own_label():
    """f(x, y) = w_y . x has the slope |w_y|."""
    w = torch.tensor([[3.0, 4.0], [0.0, 1.0]], requires_grad=True)
    y, x = torch.tensor([1, 0, 1]), torch.randn(3, 2)
    got = gans.slopes(lambda x, y: (w[y] * x).sum(1), x, y)
    torch.testing.assert_close(got, torch.tensor([1.0, 5.0, 1.0]))
    penalty = gans.gradient_penalty(lambda x, y: (w[y] * x).sum(1), x, 2 * x, y)
    assert penalty.item() == pytest.approx(16 / 3)


@pytest.mark.parametrize("flag", ["gradient_penalty", "r1", "spectral_norm"])
@torch.no_grad()
def test_no_example_changes_the_logit_of_another_where_slopes_matter(flag):
    _, discriminator = networks(**{flag: True if flag == "spectral_norm" else 1.0})
    x = torch.rand(4, 1, 8, 8)
    for _ in range(50):  # the power iteration of spectral normalisation settles
        discriminator(x)
    together, alone = discriminator(x), discriminator(x[:2])
    torch.testing.assert_close(together[:2], alone, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("dataset", ["mnist5k", "ring"])
def test_training_keeps_the_spectral_norms_at_one(dataset):
    flags = {"dataset": dataset, "model": "hinge", "spectral_norm": True}
    config = Config(width=4, latent_dim=3, **flags)
    torch.manual_seed(0)
    pair = gans.plane_networks(config) if dataset == "ring" else networks(**flags)
    generator, discriminator = pair
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=1e-2)
    x = torch.rand(8, 2) if dataset == "ring" else torch.rand(8, 1, 8, 8)
    for _ in range(40):
        gans.discriminator_step(generator, discriminator, optimizer, x, None, made_up_run(**flags))
    layers = [m for m in discriminator.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) >= 3
    for layer in layers:
        top = torch.linalg.matrix_norm(layer.weight.flatten(1), ord=2).item()
        assert top == pytest.approx(1, abs=0.1)


def test_spectral_normalisation_bounds_every_layer():
    _, discriminator = networks(spectral_norm=True)
    with torch.no_grad():
        for p in discriminator.parameters():
            p.mul_(7)
    for _ in range(30):
        discriminator(torch.rand(4, 1, 8, 8))
    layers = [m for m in discriminator.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) >= 4
    for layer in layers:
        top = torch.linalg.matrix_norm(layer.weight.flatten(1), ord=2)
        assert top.item() == pytest.approx(1, abs=0.02)


# --- Steps


@pytest.mark.parametrize("model", MODELS)
def test_each_step_leaves_the_other_player_untouched(model):
    classes = 3 * (model == "conditional")
    generator, discriminator = networks(classes=classes, model=model)
    run = made_up_run(model=model)
    x, y = torch.rand(8, 1, 8, 8), torch.arange(8) % 3
    d_optimizer = torch.optim.SGD(discriminator.parameters(), lr=0.1)
    g_optimizer = torch.optim.SGD(generator.parameters(), lr=0.1)
    before = weights(generator), weights(discriminator)
    gans.discriminator_step(generator, discriminator, d_optimizer, x, y, run)
    assert same(before[0], weights(generator))
    assert all(p.grad is None for p in generator.parameters())
    assert not same(before[1], weights(discriminator))
    before = weights(generator), weights(discriminator)
    slopes = [p.grad.clone() for p in discriminator.parameters()]
    gans.generator_step(generator, discriminator, g_optimizer, x, y, run)
    assert same(before[1], weights(discriminator))
    assert same(slopes, [p.grad for p in discriminator.parameters()])
    assert not same(before[0], weights(generator))
    if run.config.clip:
        assert max(p.abs().max() for p in discriminator.parameters()) <= run.config.clip


STEPS = [
    {"model": "dcgan"},
    {"model": "dcgan", "smoothing": 0.2},
    {"model": "dcgan", "r1": 3.0},
    {"model": "wgan-gp", "gradient_penalty": 7.0},
    {"model": "lsgan", "packing": 2},
]


@pytest.mark.parametrize("flags", STEPS, ids=str)
def test_the_discriminator_descends_its_objective_with_all_its_penalties(flags):
    """The gradient and the logs of a step, from an objective written out with the same draws."""
    run = made_up_run(dataset="ring", **flags)
    torch.manual_seed(0)
    generator, discriminator = gans.plane_networks(run.config)
    x, m = 2 * torch.randn(10, 2), run.config.packing
    optimizer = torch.optim.SGD(discriminator.parameters(), lr=0.1)
    before = weights(discriminator)
    torch.manual_seed(1)
    logs = gans.discriminator_step(generator, discriminator, optimizer, x, None, run)
    got = [p.grad.clone() for p in discriminator.parameters()]
    for p, old, slope in zip(discriminator.parameters(), before, got, strict=True):
        torch.testing.assert_close(p.detach(), old - 0.1 * slope)
        p.data.copy_(old)
    torch.manual_seed(1)
    fake = generator(torch.randn(10, 2)).detach().reshape(-1, 2 * m)
    real = x.reshape(-1, 2 * m)
    a, b = discriminator(real), discriminator(fake)
    s = run.config.smoothing
    loss = {
        "dcgan": -((1 - s) * a.sigmoid().log() + s * (-a).sigmoid().log()).mean()
        - (-b).sigmoid().log().mean(),
        "wgan-gp": b.mean() - a.mean(),
        "lsgan": 0.5 * ((a - 1) ** 2).mean() + 0.5 * (b**2).mean(),
    }[run.config.model]
    total = loss

    def lengths(points):
        points = points.clone().requires_grad_()
        logits = discriminator(points).sum()
        return torch.autograd.grad(logits, points, create_graph=True)[0].norm(dim=1)

    if run.config.gradient_penalty:
        share = torch.rand(10, 1)
        total = total + 7 * ((lengths(share * real + (1 - share) * fake) - 1) ** 2).mean()
    if run.config.r1:
        total = total + 3 * (lengths(real) ** 2).mean() / 2
    expected = torch.autograd.grad(total, list(discriminator.parameters()), allow_unused=True)
    for g, e in zip(got, expected, strict=True):
        torch.testing.assert_close(g, torch.zeros_like(g) if e is None else e)
    assert logs["d_loss"].item() == pytest.approx(loss.item(), rel=1e-5)
    length = math.sqrt(sum(g.square().sum().item() for g in got))
    assert logs["d_grad_norm"].item() == pytest.approx(length, rel=1e-5)
    if run.config.model == "wgan-gp":
        assert logs["wasserstein"].item() == pytest.approx((a.mean() - b.mean()).item(), rel=1e-4)
    else:  # the least-squares discriminator says its probability without a sigmoid
        says = (lambda t: t) if run.config.model == "lsgan" else torch.sigmoid
        for name, t in (("d_real", a), ("d_fake", b)):
            assert logs[name].item() == pytest.approx(says(t).mean().item(), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("k", [0, 1, 2])
def test_the_generator_descends_through_the_unrolled_steps(k):
    """Its gradient, from k steps of the discriminator written out; without them it is another."""
    run = made_up_run(dataset="ring", unrolled=k, unrolled_lr=0.5)
    torch.manual_seed(0)
    generator, discriminator = gans.plane_networks(run.config)
    x = 2 * torch.randn(10, 2)
    optimizer = torch.optim.SGD(generator.parameters(), lr=0.0)
    torch.manual_seed(1)
    gans.generator_step(generator, discriminator, optimizer, x, None, run)
    torch.manual_seed(1)
    z = torch.randn(10, 2)

    def gradient(steps):
        fake = generator(z)
        w = dict(discriminator.named_parameters())
        for _ in range(steps):
            a, b = (torch.func.functional_call(discriminator, w, (t,)) for t in (x, fake))
            loss = gans.discriminator_loss(a, b)
            g = torch.autograd.grad(loss, list(w.values()), create_graph=True)
            w = {name: p - 0.5 * slope for (name, p), slope in zip(w.items(), g, strict=True)}
        loss = gans.generator_loss(torch.func.functional_call(discriminator, w, (fake,)))
        return torch.autograd.grad(loss, list(generator.parameters()))

    got = [p.grad for p in generator.parameters()]
    for g, e in zip(got, gradient(k), strict=True):
        torch.testing.assert_close(g, e, atol=1e-6, rtol=1e-4)
    if k:
        other = gradient(k - 1)
        assert max((g - e).abs().max() for g, e in zip(got, other, strict=True)) > 1e-4


def trained(tmp_path, look=None, **flags):
    """Train on 64 points; return the average and all that a checkpoint holds."""
    config = Config(dataset="ring", epochs=2, batch_size=8, out=tmp_path, precision="fp32", **flags)
    run = utils.start(config, "toy.py")
    generator, discriminator = gans.plane_networks(config)
    look = look or (lambda ema: (torch.zeros(1, 1, 4, 4), {}))
    x, y = utils.density("ring").sample(64), torch.zeros(64, dtype=torch.long)
    ema = gans.train(generator, discriminator, x, y, look, run)
    return ema, run._objects


def test_each_player_has_its_own_rate_and_the_average_is_as_planned(tmp_path, monkeypatch):
    rates, states, looked = {"d": [], "g": []}, [], []
    for name in ("discriminator_step", "generator_step"):
        step = getattr(gans, name)

        def watched(g, d, optimizer, *rest, step=step, name=name):
            rates[name[0]].append(optimizer.param_groups[0]["lr"])
            logs = step(g, d, optimizer, *rest)
            if name[0] == "g":
                states.append(weights(g))
            return logs

        monkeypatch.setattr(gans, name, watched)

    def look(model):
        looked.append(model)
        return torch.zeros(1, 1, 4, 4), {}

    ema, kept = trained(tmp_path, look, lr=0.01, two_time_scales=0.25, ema=0.6)
    assert len(rates["d"]) == len(rates["g"]) == 16
    assert rates["d"] == pytest.approx([0.25 * rate for rate in rates["g"]])
    assert max(rates["g"]) == pytest.approx(0.01, rel=0.02)
    assert all(o.defaults["betas"][0] == 0.5 for n, o in kept.items() if n.endswith("optimizer"))
    mean = states[0]  # decay 0 in the first step: where training began is forgotten
    for step, now in enumerate(states):
        decay = min(0.6, step / (step + 10))
        mean = [decay * m + (1 - decay) * w for m, w in zip(mean, now, strict=True)]
    for m, p in zip(mean, ema.parameters(), strict=True):
        torch.testing.assert_close(m, p.detach())
    assert kept["ema"] is ema
    assert all(model is ema for model in looked)
    assert not ema.training
    assert not any(p.requires_grad for p in ema.parameters())


def test_an_unrolled_step_is_that_many_explicit_steps():
    torch.manual_seed(0)
    critic = Linear(torch.randn(2, dtype=torch.float64))
    real, fake = torch.randn(5, 2).double(), torch.randn(5, 2).double().requires_grad_()
    config, y = Config(dataset="ring", unrolled=3, unrolled_lr=0.2), torch.zeros(5)
    after = gans.unrolled(critic, real, fake, y, config)["w"]
    copy = Linear(critic.w.detach().clone())
    optimizer = torch.optim.SGD(copy.parameters(), lr=0.2)
    for _ in range(3):
        optimizer.zero_grad()
        gans.discriminator_loss(copy(real), copy(fake.detach())).backward()
        optimizer.step()
    torch.testing.assert_close(after, copy.w)
    assert after.requires_grad

    def loss_of(fake):
        w = gans.unrolled(critic, real, fake, y, config)["w"]
        return gans.generator_loss(fake @ w)

    assert torch.autograd.gradcheck(loss_of, fake)


def test_the_average_of_the_weights():
    model, ema = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    nn.init.constant_(model.weight, 3.0)
    model.running_mean.fill_(5.0)
    utils.update_ema(ema, model, 0.75)
    torch.testing.assert_close(ema.weight, torch.full((2,), 1.5))
    torch.testing.assert_close(ema.running_mean, model.running_mean)


def test_the_nearest_training_image_is_nearest_in_pixels():
    data = torch.tensor([0.0, 1.0, 2.0, 9.0]).view(4, 1, 1, 1).expand(4, 1, 2, 2)
    x = torch.tensor([1.4, 7.0, -3.0]).view(3, 1, 1, 1).expand(3, 1, 2, 2)
    assert utils.nearest(x, data)[:, 0, 0, 0].tolist() == [1, 9, 0]


# --- Networks


def test_packing_joins_examples_along_the_channels():
    x = torch.arange(10.0).view(5, 2)
    assert gans.pack(x, 2).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    pictures = torch.rand(6, 1, 4, 4)
    packed = gans.pack(pictures, 3)
    assert packed.shape == (2, 3, 4, 4)
    torch.testing.assert_close(packed[1, 2], pictures[5, 0])
    _, discriminator = networks(packing=3)
    assert discriminator(gans.pack(torch.rand(6, 1, 8, 8), 3)).shape == (2,)


def test_minibatch_std_sees_a_lack_of_variety():
    _, discriminator = gans.plane_networks(Config(dataset="ring", minibatch_std=True))
    with torch.no_grad():
        discriminator.head.weight.zero_()
        discriminator.head.weight[0, -1] = 1  # only the added feature is looked at
        discriminator.head.bias.zero_()
        assert discriminator(torch.ones(9, 2)).abs().max() < 1e-6
        assert discriminator(torch.randn(9, 2)).min() > 1e-3


@torch.no_grad()
def test_the_conditional_model_uses_its_label():
    generator, discriminator = networks(classes=3)
    z, x = torch.randn(4, 3), torch.rand(4, 1, 8, 8)
    one, two = torch.zeros(4, dtype=torch.long), torch.ones(4, dtype=torch.long)
    generator.eval()
    discriminator.eval()
    assert (generator(z, one) - generator(z, two)).abs().max() > 1e-4
    match = (discriminator.embedding.weight[1] - discriminator.embedding.weight[0]).unsqueeze(0)
    expected = (match * discriminator.features(x)).sum(1)
    torch.testing.assert_close(discriminator(x, two) - discriminator(x, one), expected)


@torch.no_grad()
def test_samples_are_draws_from_the_normal_with_labels_in_turn():
    generator = gans.Generator(nn.Identity(), latent_dim=2, num_classes=3)
    torch.manual_seed(0)
    generator.weight = nn.Parameter(torch.zeros(1))  # says on which device it is
    drawn = gans.sample(generator, 20_000)
    assert drawn[:, 2:].argmax(1)[:7].tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert drawn[:, :2].mean(0).abs().max() < 6 / math.sqrt(20_000)
    torch.testing.assert_close(drawn[:, :2].T.cov(), torch.eye(2), atol=0.06, rtol=0)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (1, 9, 14), (1, 7, 5), (1, 3, 1)])
def test_every_model_returns_the_right_shapes(model, shape):
    classes = 10 * (model == "conditional")
    generator, discriminator = networks(shape, classes, model=model)
    z, y = torch.randn(2, 3), torch.arange(2)
    fake = generator(z, y)
    assert fake.shape == (2, *shape)
    assert 0 <= fake.min() <= fake.max() <= 1
    assert discriminator(fake, y).shape == (2,)
    generator.eval(), discriminator.eval()
    assert generator(z, y).shape == (2, *shape)
    assert discriminator(fake, y).shape == (2,)


# --- What is learned


def test_the_discriminator_learns_the_ratio_of_two_densities():
    torch.manual_seed(0)
    p, q = Normal(0.0, 1.0), Normal(1.0, 1.0)
    net = nn.Sequential(nn.Linear(1, 32), nn.SiLU(), nn.Linear(32, 1))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(600):
        loss = gans.discriminator_loss(net(p.sample((512, 1))), net(q.sample((512, 1))))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    x = torch.linspace(-1.5, 2.5, 41)[:, None]
    best = torch.sigmoid(0.5 - x)  # notes/02 section 2.1
    assert (net(x).sigmoid() - best).abs().max() < 0.07


def test_the_critic_estimates_the_wasserstein_distance():
    torch.manual_seed(0)
    p, q = Normal(0.0, 1.0), Normal(2.0, 1.0)
    net = nn.Sequential(nn.Linear(1, 32), nn.SiLU(), nn.Linear(32, 1))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(400):
        real, fake = p.sample((256, 1)), q.sample((256, 1))
        penalty = gans.gradient_penalty(net, real, fake)
        loss = gans.critic_loss(net(real), net(fake)) + 10 * penalty
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        estimate = -gans.critic_loss(net(p.sample((20_000, 1))), net(q.sample((20_000, 1))))
    assert estimate.item() == pytest.approx(2, rel=0.1)


def test_modes_are_counted():
    ring = utils.density("ring")
    torch.manual_seed(0)
    modes, share = gans.count_modes(ring.sample(20_000), ring.modes, ring.std)
    assert modes == 8
    assert share == pytest.approx(1 - math.exp(-4.5), abs=4e-3)
    collapsed = ring.modes[3] + 0.05 * torch.randn(100, 2)
    assert gans.count_modes(collapsed, ring.modes, ring.std) == (1, 1.0)
    garbage = torch.tensor([[0.0, 0.0], [float("nan"), 0.0], [9.0, 9.0]])
    assert gans.count_modes(garbage, ring.modes, ring.std) == (0, 0.0)


def test_a_mode_counts_if_a_sample_lies_within_three_widths():
    centers = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    samples = torch.tensor([[0.0, 2.9], [10.0, 3.1], [1.0, 0.0], [math.nan, 0.0]])
    for scale in (1e-3, 1.0, 1e3):  # the far one and NaN are garbage, but they are samples
        assert gans.count_modes(scale * samples, scale * centers, scale) == (1, 0.5)


def test_the_spread_is_the_distance_of_two_examples():
    x = torch.randn(40, 1, 2, 3).double() * torch.tensor([1.0, 2.0, 3.0]).double() + 5
    pairs = torch.cdist(x.flatten(1), x.flatten(1)).square().sum() / (40 * 39)
    assert gans.spread(x) == pytest.approx(pairs.sqrt().item())


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_a_generator_of_few_steps_has_not_vanished(steps):
    """With --d-steps of hundreds it has hardly a row in the history, or none."""
    rows = {"d_real": [0.7] * 6, "d_fake": [0.3] * 6, "d_grad_norm": [1.0] * 6}
    rows["g_grad_norm"] = [1.0] * steps
    run = SimpleNamespace(series=lambda n: (list(range(len(rows[n]))), rows[n]))
    assert gans.diagnose(run, torch.eye(2), torch.eye(2)) == []


def test_the_diagnosis_is_about_the_end_of_the_training():
    data = torch.randn(100, 2)
    values = {"d_real": (0.99, 0.7), "d_fake": (0.01, 0.3), "g_grad_norm": (0.0, 1.0)}
    values |= {"d_grad_norm": (1.0, 1.0)}

    def run(first, last):
        rows = {n: [v[first]] * 20 + [v[last]] * 10 for n, v in values.items()}
        return SimpleNamespace(series=lambda n: (list(range(30)), rows[n]))

    assert gans.diagnose(run(0, 1), data, data) == []
    assert len(gans.diagnose(run(1, 0), 0.2 * data, data)) == 3
    values["d_fake"] = (0.5, 0.5)  # fooled by half of the fakes: not too strong
    values["g_grad_norm"] = (1.0, 1.0)
    assert gans.diagnose(run(1, 0), 0.4 * data, data) == []


def test_the_diagnosis_names_what_is_wrong():
    def run(**series):
        return SimpleNamespace(
            series=lambda n: ([0] * 30, [series[n]] * 30) if n in series else ([], [])
        )

    data = torch.randn(100, 2)
    healthy = {"d_real": 0.7, "d_fake": 0.3, "g_grad_norm": 1.0, "d_grad_norm": 1.0}
    assert gans.diagnose(run(**healthy), data, data) == []
    sick = {"d_real": 0.99, "d_fake": 0.01}
    (said,) = gans.diagnose(run(**healthy | sick), data, data)
    assert "never wrong" in said
    (said,) = gans.diagnose(run(**healthy | {"g_grad_norm": 1e-5}), data, data)
    assert "vanished" in said
    (said,) = gans.diagnose(run(**healthy), 0.01 * data, data)
    assert "nearly identical" in said


# --- Experiment


@pytest.mark.parametrize("model", ["dcgan", "wgan-gp", "conditional"])
def test_main_writes_a_whole_run(model, tmp_path):
    gans.main(Config(model=model, epochs=1, quick=True, out=tmp_path, width=4, latent_dim=4))
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert all(math.isfinite(v) for v in metrics.values() if isinstance(v, float))
    drawn = {p.name for p in tmp_path.iterdir()}
    assert (
        PICTURES | {"training.gif"} | ({"classes.png"} if model == "conditional" else set())
        <= drawn
    )
    assert np.load(tmp_path / "samples.npy").shape == (256, 1, 28, 28)


@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"packing": 2, "minibatch_std": True},
        {"unrolled": 2},
        {"r1": 1.0, "smoothing": 0.1},
        {"spectral_norm": True, "gradient_penalty": 1.0},
        {"model": "wgan"},
        {"model": "lsgan"},
        {"model": "minimax"},
        {"model": "hinge"},
    ],
    ids=str,
)
def test_points_in_the_plane(flags, tmp_path):
    gans.main(Config(dataset="ring", epochs=1, quick=True, out=tmp_path, **flags))
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert 0 <= metrics["modes"] <= 8
    assert 0 <= metrics["high_quality_share"] <= 1
    assert np.load(tmp_path / "samples.npy").shape == (2500, 2)
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["objects"]
    assert {"generator", "discriminator", "ema"} <= set(saved)


@pytest.mark.parametrize("dataset", ["ring", "digits"])
def test_samples_are_those_of_the_average_in_the_checkpoint(dataset, tmp_path):
    """Drawn again from the file in evaluation's random stream; the metrics are theirs."""
    flags = {"dataset": dataset, "latent_dim": 4, "width": 4, "precision": "fp32"}
    config = Config(epochs=1, quick=True, out=tmp_path, **flags)
    gans.main(config)
    if dataset == "ring":
        generator, _ = gans.plane_networks(config)
    else:
        generator, _ = gans.image_networks((1, 8, 8), config)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["objects"]
    assert not all(torch.equal(v, state["ema"][k]) for k, v in state["generator"].items())
    generator.load_state_dict(state["ema"])
    samples = torch.from_numpy(np.load(tmp_path / "samples.npy"))
    torch.manual_seed(stream(config.seed, EVALUATION))
    again = gans.sample(generator.eval(), len(samples))
    torch.testing.assert_close(samples, again, atol=1e-5, rtol=0)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    if dataset == "ring":
        ring = utils.density("ring")
        found = gans.count_modes(samples, ring.modes, ring.std)
        assert (metrics["modes"], metrics["high_quality_share"]) == pytest.approx(found)
    else:
        data = utils.load_images("digits", quick=True)
        quality = utils.sample_quality(samples, data)
        for name in ("frechet_distance", "recall"):
            assert metrics[name] == pytest.approx(quality[name], rel=1e-3)
        ratio = gans.spread(samples) / gans.spread(data.train)
        assert metrics["spread_ratio"] == pytest.approx(ratio, rel=1e-4)


def test_in_a_picture_of_classes_rows_share_the_label_and_columns_the_draw(tmp_path, monkeypatch):
    seen, grid = [], utils.image_grid

    def watched(pictures, path, **style):
        if path.name == "classes.png":
            seen.append((z_and_y[-1], style["columns"]))
        return grid(pictures, path, **style)

    z_and_y, decode = [], gans.decode
    monkeypatch.setattr(gans, "decode", lambda g, z, y: z_and_y.append((z, y)) or decode(g, z, y))
    monkeypatch.setattr(utils, "image_grid", watched)
    flags = {"model": "conditional", "dataset": "digits", "latent_dim": 4, "width": 4}
    gans.main(Config(epochs=1, quick=True, out=tmp_path, **flags))
    (((z, y), columns),) = seen
    assert y.view(-1, columns).tolist() == [[k] * columns for k in range(10)]
    z = z.view(10, columns, 4)
    assert (z == z[:1]).all()
    assert not torch.equal(z[:, 0], z[:, 1])


def test_flags_that_are_not_given_depend_on_the_model_and_the_data():
    pictures, plane, critic = Config(), Config(dataset="ring"), Config(model="wgan-gp")
    assert (plane.latent_dim, plane.batch_size) == (2, 128) != (pictures.latent_dim, 64)
    assert critic.gradient_penalty == 10
    assert Config(model="wgan-gp", dataset="ring").gradient_penalty == 10
    assert Config(model="wgan-gp", dataset="ring").latent_dim == 2
    assert Config(model="wgan-gp", gradient_penalty=0.0).gradient_penalty == 0
    assert Config(model="wgan").clip == 0.01
    assert Config(model="hinge").spectral_norm
    assert not pictures.spectral_norm
    assert Config(model="hinge", spectral_norm=False).spectral_norm is False


def test_a_resumed_run_ends_with_the_same_weights(tmp_path, monkeypatch):
    """Both players, both optimisers and the average are in the checkpoint."""
    flags = {"dataset": "ring", "epochs": 1, "quick": True, "packing": 2}
    gans.main(Config(out=tmp_path / "whole", **flags))
    monkeypatch.setattr(sys.modules["code_examples.utils.run"], "SAVE_SECONDS", 0)
    step, calls = gans.generator_step, []

    def killed(*args):
        calls.append(0)
        if len(calls) == 31:
            raise RuntimeError("killed")
        return step(*args)

    monkeypatch.setattr(gans, "generator_step", killed)
    with pytest.raises(RuntimeError, match="killed"):
        gans.main(Config(out=tmp_path / "cut", **flags))
    gans.main(Config(out=tmp_path / "cut", resume=True, **flags))
    assert len(calls) == 31 + 32
    whole, cut = (
        torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)["objects"]
        for name in ("whole", "cut")
    )
    for player in ("generator", "discriminator", "ema"):
        for name, weight in whole[player].items():
            assert torch.equal(weight, cut[player][name]), (player, name)


def test_a_critic_makes_several_steps_for_each_of_the_generator(tmp_path, monkeypatch):
    made = []
    for name in ("discriminator_step", "generator_step"):
        step = getattr(gans, name)
        monkeypatch.setattr(gans, name, lambda *a, s=step, n=name: made.append(n) or s(*a))
    gans.main(Config(dataset="ring", model="wgan", epochs=1, quick=True, out=tmp_path))
    assert made.count("discriminator_step") == 62
    assert made.count("generator_step") == 62 // 5


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"model": "hinge", "smoothing": 0.1}, "--smoothing"),
        ({"model": "conditional", "dataset": "ring"}, "--model conditional"),
        ({"model": "conditional", "packing": 2}, "--model conditional"),
        ({"packing": 0}, "--packing"),
        ({"r1": -1.0}, "--r1"),
        ({"clip": -0.1}, "--clip"),
        ({"unrolled": -1}, "--unrolled"),
        ({"d_steps": 0}, "--d-steps"),
        ({"smoothing": 1.0}, "--smoothing"),
        ({"ema": 1.0}, "--ema"),
        ({"model": "gan"}, "--model"),
        ({"two_time_scales": 0.0}, "--two-time-scales"),
        ({"beta1": 1.0}, "--beta1"),
        ({"batch_size": 2, "packing": 2}, "--batch-size"),
    ],
    ids=str,
)
def test_impossible_values_are_refused(flags, said):
    with pytest.raises(utils.UserError, match=said):
        Config(**flags)


# --- Quality, minutes each: make test-slow


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_the_ring_is_found(seed, tmp_path):
    gans.main(Config(dataset="ring", seed=seed, out=tmp_path))
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["modes"] == 8
    assert metrics["high_quality_share"] >= 0.9


@pytest.mark.slow
def test_default_run_reaches_its_numbers(tmp_path):
    gans.main(Config(out=tmp_path))
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["frechet_distance"] < 8
    assert metrics["recall"] > 0.6
