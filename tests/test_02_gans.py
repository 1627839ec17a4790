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


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (1, 9, 14)])
def test_every_model_returns_the_right_shapes(model, shape):
    classes = 10 * (model == "conditional")
    generator, discriminator = networks(shape, classes, model=model)
    z, y = torch.randn(2, 3), torch.arange(2)
    fake = generator(z, y)
    assert fake.shape == (2, *shape)
    assert 0 <= fake.min() <= fake.max() <= 1
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
