"""The VAE's mathematics against independent answers: distributions, integrals, a posterior."""

import json
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Bernoulli, Independent, MultivariateNormal, Normal, kl_divergence

from code_examples import utils, vae

Config = vae.Config
MODELS = ("conv", "mlp", "beta", "conditional", "iwae", "gaussian")


def small(model="mlp", shape=(1, 4, 4), classes=3, **flags):
    """A small untrained model in float64, its weights twice as large as at the start."""
    torch.manual_seed(0)
    flags = {"hidden": (16,)} | flags
    net = vae.build(Config(model=model, latent_dim=2, **flags), shape, classes).double()
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(2)
            if p.ndim < 2:
                p.add_(0.3 * torch.randn_like(p))
    return net


def images(n=5, shape=(1, 4, 4)):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(n, *shape, generator=generator, dtype=torch.float64).round()


def mixed_moments(n=6, dims=3):
    generator = torch.Generator().manual_seed(1)
    mu, logvar = torch.randn(2, n, dims, generator=generator, dtype=torch.float64)
    return mu, 2 * logvar


# --- Objective: the KL


def test_the_kl_is_that_of_torch_distributions():
    mu, logvar = mixed_moments()
    q = Independent(Normal(mu, (0.5 * logvar).exp()), 1)
    p = Independent(Normal(torch.zeros_like(mu), torch.ones_like(mu)), 1)
    torch.testing.assert_close(vae.kl_to_standard_normal(mu, logvar), kl_divergence(q, p))


def test_the_kl_is_its_integral():
    """One dimension: the sum over a fine grid of q (log q - log p)."""
    z = torch.linspace(-30, 30, 200_001, dtype=torch.float64)
    for mu, logvar in ((0.7, -1.3), (-2.0, 1.1), (0.0, 0.0)):
        q = Normal(torch.tensor(mu).double(), torch.tensor(0.5 * logvar).double().exp())
        log_q, log_p = q.log_prob(z), Normal(0.0, 1.0).log_prob(z)
        integral = (log_q.exp() * (log_q - log_p)).sum() * (z[1] - z[0])
        kl = vae.kl_to_standard_normal(*torch.tensor([[[mu]], [[logvar]]]).double())
        assert kl.item() == pytest.approx(integral.item(), abs=1e-6)


def test_the_kl_per_dimension_sums_to_the_kl():
    mu, logvar = mixed_moments()
    assert vae.kl_per_dimension(mu, logvar).shape == mu.shape
    total = vae.kl_per_dimension(mu, logvar).sum(1)
    torch.testing.assert_close(total, vae.kl_to_standard_normal(mu, logvar))


# --- Objective: likelihoods


def test_bernoulli_nll_is_that_of_torch_distributions_and_exact_at_large_logits():
    x, logits = images(), 3 * torch.randn(5, 1, 4, 4, dtype=torch.float64)
    expected = -Independent(Bernoulli(logits=logits), 3).log_prob(x)
    torch.testing.assert_close(vae.bernoulli_nll(logits, x), expected)
    wrong = vae.bernoulli_nll(torch.full((2, 1, 1, 3), 1000.0), torch.zeros(2, 1, 1, 3))
    torch.testing.assert_close(wrong, torch.full((2,), 3000.0))


def test_gaussian_nll_is_that_of_torch_distributions():
    x, mean = torch.rand(2, 5, 3, 4, 4, dtype=torch.float64)
    log_sigma = torch.tensor(-1.3, dtype=torch.float64)
    expected = -Independent(Normal(mean, log_sigma.exp()), 3).log_prob(x)
    torch.testing.assert_close(vae.gaussian_nll(mean, log_sigma, x), expected)


def test_the_best_sigma_is_the_root_mean_squared_error():
    x, mean = torch.rand(2, 50, 1, 4, 4, dtype=torch.float64)
    best = (x - mean).square().mean().sqrt().log().requires_grad_()
    (slope,) = torch.autograd.grad(vae.gaussian_nll(mean, best, x).sum(), best)
    assert slope.item() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("loss", [vae.bernoulli_nll, vae.gaussian_nll])
def test_twice_the_pixels_cost_twice(loss):
    x, out = (
        torch.rand(2, 5, 1, 4, 4, dtype=torch.float64).round(),
        torch.randn(5, 1, 4, 4).double(),
    )
    sigma = [torch.tensor(0.3)] if loss is vae.gaussian_nll else []
    wide = [torch.cat([t, t], dim=3) for t in (out, x[0])]
    once = loss(out, *sigma, x[0])
    assert once.shape == (5,)
    torch.testing.assert_close(loss(wide[0], *sigma, wide[1]), 2 * once)


# --- Objective: the bound


def test_reparameterised_draws_have_the_right_moments_and_gradients():
    torch.manual_seed(0)
    mu = torch.full((200_000, 1), 2.0, requires_grad=True)
    logvar = torch.full_like(mu, math.log(9.0)).detach().requires_grad_()
    z = vae.reparameterize(mu, logvar)
    assert z.mean().item() == pytest.approx(2.0, abs=6 * 3 / math.sqrt(len(z)))
    assert z.std().item() == pytest.approx(3.0, abs=6 * 3 / math.sqrt(2 * len(z)))
    slope_mu, slope_logvar = torch.autograd.grad(z.sum(), (mu, logvar))
    assert (slope_mu == 1).all()
    torch.testing.assert_close(slope_logvar, 0.5 * (z - mu).detach())  # d/dlogvar of s * eps


def log_px_by_integration(model, x, y=None, half=7.0, steps=141):
    """log p(x) by brute force: the integral over a grid of z in two dimensions."""
    axis = torch.linspace(-half, half, steps, dtype=torch.float64)
    z = torch.cartesian_prod(axis, axis)
    log_prior = Normal(0.0, 1.0).log_prob(z).sum(1)
    log_px = []
    for i, image in enumerate(x):
        labels = None if y is None else y[i].expand(len(z))
        output = model.decode(z, labels).double()
        nll = vae.reconstruction_nll(model, output, image.expand(len(z), -1, -1, -1))
        log_px.append(torch.logsumexp(log_prior - nll, 0) + 2 * math.log(axis[1] - axis[0]))
    return torch.stack(log_px)


@pytest.mark.parametrize("name", ["mlp", "gaussian", "conditional"])
@torch.no_grad()
def test_the_elbo_is_below_the_likelihood_by_the_kl_to_the_posterior(name):
    """log p(x) - ELBO = KL(q || p(z|x)), each by integration over z; it is never negative."""
    model, x, y = small(name), images(3), torch.arange(3)
    draws = 2000
    rec, kl = vae.neg_elbo(model, x.repeat(draws, 1, 1, 1), y.repeat(draws))
    elbo = -(rec + kl.sum(1)).view(draws, 3)
    log_px = log_px_by_integration(model, x, y)
    standard_error = elbo.std(0) / math.sqrt(draws)
    mu, logvar = model.encode(x, y)
    axis = torch.linspace(-7, 7, 141, dtype=torch.float64)
    z = torch.cartesian_prod(axis, axis)
    for i in range(3):
        log_q = Normal(mu[i].double(), (0.5 * logvar[i].double()).exp()).log_prob(z).sum(1)
        output = model.decode(z, y[i].expand(len(z))).double()
        nll = vae.reconstruction_nll(model, output, x[i].expand(len(z), -1, -1, -1))
        log_posterior = Normal(0.0, 1.0).log_prob(z).sum(1) - nll - log_px[i]
        gap = (log_q.exp() * (log_q - log_posterior)).sum() * (axis[1] - axis[0]) ** 2
        assert gap > 0
        assert abs(log_px[i] - gap - elbo[:, i].mean()) < 5 * standard_error[i] + 1e-4


class LinearGaussian(nn.Module):
    """x ~ N(W z + b, sigma^2 I) with its exact posterior as encoder: every bound is tight."""

    def __init__(self, pixels=6, latent_dim=2):
        super().__init__()
        g = torch.Generator().manual_seed(2)
        self.W = torch.randn(pixels, latent_dim, generator=g, dtype=torch.float64)
        self.b = torch.randn(pixels, generator=g, dtype=torch.float64)
        self.log_sigma = torch.tensor(-0.7, dtype=torch.float64)
        # an orthogonal W makes the posterior's covariance diagonal, as q's is
        self.W = torch.linalg.qr(self.W)[0] * torch.tensor([2.0, 0.7], dtype=torch.float64)

    def marginal(self):
        cov = self.W @ self.W.T + (2 * self.log_sigma).exp() * torch.eye(len(self.b)).double()
        return MultivariateNormal(self.b, cov)

    def forward(self, x, y=None, k=1):
        variance = (2 * self.log_sigma).exp()
        precision = torch.eye(2).double() + self.W.T @ self.W / variance
        covariance = torch.linalg.inv(precision)
        mu = (x.flatten(1) - self.b) @ self.W @ covariance / variance
        logvar = covariance.diagonal().log().expand_as(mu)
        z = vae.reparameterize(mu.repeat(k, 1), logvar.repeat(k, 1))
        return mu, logvar, z, (z @ self.W.T + self.b).view(-1, 1, 1, 6)


def test_the_bounds_are_exact_when_q_is_the_posterior():
    """Then every importance weight equals p(x), for any draw and any k."""
    torch.manual_seed(0)
    model = LinearGaussian()
    x = model.marginal().sample((7,)).view(7, 1, 1, 6)
    exact = model.marginal().log_prob(x.flatten(1))
    log_w = vae.log_importance_weights(model, x, k=4)
    assert log_w.shape == (4, 7)
    torch.testing.assert_close(log_w, exact.expand(4, 7))
    torch.testing.assert_close(vae.iwae_bound(log_w), exact)
    rec, kl = vae.neg_elbo(model, x)
    draws = torch.stack(
        [sum((r, k.sum(1))) for r, k in [vae.neg_elbo(model, x) for _ in range(3000)]]
    )
    gap = (draws.mean(0) + exact).abs()
    assert (gap < 5 * draws.std(0) / math.sqrt(3000)).all()
    assert rec.shape == (7,)
    assert kl.shape == (7, 2)


@torch.no_grad()
def test_more_importance_samples_give_a_higher_bound_below_the_truth():
    torch.manual_seed(0)
    model, x = small(), images(3)
    log_px = log_px_by_integration(model, x)
    means, errors = [], []
    for k in (1, 4, 32):
        log_w = vae.log_importance_weights(model, x.repeat(2000, 1, 1, 1), k=k)
        bounds = vae.iwae_bound(log_w).view(2000, 3)
        means.append(bounds.mean(0))
        errors.append(bounds.std(0) / math.sqrt(2000))
    for low, high in ((0, 1), (1, 2)):
        assert (means[low] < means[high] + 4 * (errors[low] + errors[high])).all()
        assert means[low].mean() < means[high].mean()
    assert (means[2] < log_px + 4 * errors[2]).all()
    assert (log_px - means[2]).mean() < 0.3 * (log_px - means[0]).mean()


def test_iwae_with_one_sample_is_the_elbo():
    """The same draw gives log w; on average that is -(reconstruction + KL)."""
    model, x = small().requires_grad_(False), images(2).repeat(20_000, 1, 1, 1)
    torch.manual_seed(0)
    log_w = vae.log_importance_weights(model, x, k=1)
    torch.testing.assert_close(vae.iwae_bound(log_w), log_w[0])
    rec, kl = vae.neg_elbo(model, x)
    difference = (log_w[0] + rec + kl.sum(1)).view(-1, 2)
    assert (difference.mean(0).abs() < 5 * difference.std(0) / math.sqrt(len(difference))).all()


def test_the_iwae_bound_is_the_log_of_a_mean_and_stable():
    log_w = torch.randn(6, 4, dtype=torch.float64)
    torch.testing.assert_close(vae.iwae_bound(log_w), log_w.exp().mean(0).log())
    torch.testing.assert_close(vae.iwae_bound(log_w - 2000), log_w.exp().mean(0).log() - 2000)


def test_iwae_weights_belong_to_their_images():
    """Row j * B + i of the decoder's output is draw j of image i; mixing them up shows here."""
    model, x = small().requires_grad_(False), images(2)
    torch.manual_seed(0)
    log_w = vae.log_importance_weights(model, x, k=4000)
    for i in range(2):
        alone = vae.log_importance_weights(model, x[i : i + 1], k=4000)[:, 0]
        room = 5 * (alone.std() + log_w[:, i].std()) / math.sqrt(4000)
        assert abs(alone.mean() - log_w[:, i].mean()) < room


# --- Free bits, warm-up, binarisation, labels


def test_free_bits_are_free_below_and_paid_above():
    mu = torch.tensor([[0.1, 2.0], [0.1, 2.0]], requires_grad=True)
    kl = vae.kl_per_dimension(mu, torch.zeros(2, 2))
    cost = vae.free_bits(kl, nats=0.5)
    assert cost.item() == pytest.approx(0.5 + 2.0)  # the first has 0.005 nats, the second 2
    (slope,) = torch.autograd.grad(cost, mu)
    torch.testing.assert_close(slope, torch.tensor([[0.0, 1.0], [0.0, 1.0]]))
    torch.testing.assert_close(vae.free_bits(kl, nats=0.0), kl.mean(0).sum())


def trained(tmp_path, x, **flags):
    """Train on images alone; return the model and the history."""
    labels = torch.zeros(len(x), dtype=torch.long)
    data = utils.ImageData("toy", x, labels, x, labels, class_names=("all",))
    config = Config(out=tmp_path, precision="fp32", **flags)
    run = utils.start(config, "toy.py")
    model = vae.build(config, data.image_shape, 1)
    vae.train(model, data, config, run)
    return model, run


def test_warm_up_raises_the_weight_from_zero_to_beta(tmp_path, monkeypatch):
    """The loss that is differentiated: reconstruction + weight * KL, with the weight as planned."""
    paid = []
    original = vae.free_bits

    def watched(kl, nats):
        paid.append(original(kl, nats))
        return paid[-1]

    weights = []
    backward = torch.Tensor.backward

    def note(loss):
        weights.append((loss.item(), paid[-1].item()))
        backward(loss)

    monkeypatch.setattr(vae, "free_bits", watched)
    monkeypatch.setattr(torch.Tensor, "backward", note)
    flags = {"model": "mlp", "hidden": (8,), "latent_dim": 2, "epochs": 10, "batch_size": 8}
    _, run = trained(tmp_path, torch.rand(32, 1, 4, 4), warm_up=0.5, beta=3.0, **flags)
    assert len(weights) == 40
    first = run.rows[0]
    assert first["neg_elbo"] == pytest.approx(first["reconstruction"] + first["kl"], rel=1e-5)
    losses = [loss for loss, _ in weights[:10]]
    planned = [3.0 * min(1.0, step / 40 / 0.5) * kl for step, (_, kl) in enumerate(weights)]
    rec = sum(loss - p for loss, p in zip(losses, planned, strict=False)) / 10
    assert rec == pytest.approx(first["reconstruction"], rel=1e-5)
    rec = sum(loss - p for (loss, _), p in zip(weights[30:], planned[30:], strict=True)) / 10
    assert rec == pytest.approx(run.rows[3]["reconstruction"], rel=1e-5)


def test_binarisation_protocols():
    torch.manual_seed(0)
    x = torch.tensor([0.0, 0.2, 0.5, 0.7, 1.0]).expand(20_000, 5)
    first, second = vae.binarize(x, "dynamic"), vae.binarize(x, "dynamic")
    assert set(first.unique().tolist()) == {0.0, 1.0}
    assert not torch.equal(first, second)
    torch.testing.assert_close(first.mean(0), x[0], atol=0.02, rtol=0)
    assert (first[:, 0] == 0).all()
    assert (first[:, 4] == 1).all()
    assert vae.binarize(x, "threshold")[0].tolist() == [0, 0, 0, 1, 1]
    assert torch.equal(vae.binarize(x, "static"), x)
    assert torch.equal(vae.binarize(x, "none"), x)


def test_static_binarisation_is_one_draw_for_every_seed(tmp_path):
    data = utils.load_images("digits", quick=True)
    torch.manual_seed(1)
    first = vae.binarize_once(data)
    torch.manual_seed(2)
    second = vae.binarize_once(data)
    for part in ("train", "test"):
        assert torch.equal(getattr(first, part), getattr(second, part))
        assert set(getattr(first, part).unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(first.train.mean(), data.train.mean(), atol=0.01, rtol=0)
    flags = {"model": "mlp", "binarize": "static", "quick": True, "dataset": "digits"}
    vae.main(Config(**flags, nll_samples=5, epochs=1, out=tmp_path))
    assert json.loads((tmp_path / "metrics.json").read_text())["binarization"] == "static"


def test_the_conditional_model_uses_its_label():
    model, x = small("conditional"), images(2)
    mu = [model.encode(x, torch.full((2,), label))[0] for label in (0, 1)]
    assert (mu[0] - mu[1]).abs().min() > 1e-6
    z = torch.randn(2, 2).double()
    out = [model.decode(z, torch.full((2,), label)) for label in (0, 1)]
    assert (out[0] - out[1]).abs().amax() > 1e-3
    mixed = model.decode(z, torch.tensor([0, 1]))
    torch.testing.assert_close(mixed, torch.stack([out[0][0], out[1][1]]))
    plain = small("conv")
    torch.testing.assert_close(*[plain.encode(x, torch.full((2,), y))[0] for y in (0, 1)])


def test_active_units_are_those_whose_mean_moves():
    mu = torch.randn(1000, 3, generator=torch.Generator().manual_seed(0))
    mu = mu * torch.tensor([1.0, 0.05, 0.2])  # variances 1, 0.0025, 0.04
    assert vae.active_units(mu).tolist() == [True, False, True]


# --- Model, training and sampling


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (1, 7, 5), (3, 32, 32)])
def test_every_model_returns_the_right_shapes(name, shape):
    config = Config(model=name, latent_dim=6)
    if shape[0] == 3 and name != "gaussian":
        with pytest.raises(utils.UserError, match="use --model gaussian"):
            vae.build(config, shape, 10)
        return
    model, x, y = vae.build(config, shape, 10), torch.rand(3, *shape), torch.tensor([1, 0, 9])
    mu, logvar, z, output = model(x, y, 4)
    assert mu.shape == logvar.shape == (3, 6)
    assert z.shape == (12, 6)
    assert output.shape == (12, *shape)


def test_log_variances_take_both_signs():
    model = small("conv").double()
    _, logvar = model.encode(torch.rand(64, 1, 4, 4).double())
    assert logvar.min() < 0 < logvar.max()


@torch.no_grad()
def test_samples_are_pixel_means_of_draws_from_the_prior():
    torch.manual_seed(0)
    model = small("conv").float()
    drawn = vae.sample(model, 5000, vae.standard_normal(model))
    z = torch.randn(5000, 2)
    assert drawn.shape == (5000, 1, 4, 4)
    assert 0 <= drawn.min() < drawn.max() <= 1
    expected = model.decode(z).sigmoid()
    room = 6 * expected.std(0).max() / math.sqrt(2500)
    assert (drawn.mean(0) - expected.mean(0)).abs().max() < room
    assert (drawn.std(0) / expected.std(0) - 1).abs().max() < 0.1


def test_the_fitted_prior_is_that_of_the_codes():
    """Codes in two far clusters: its moments, its density, and a smaller KL than N(0, I) has."""
    torch.manual_seed(0)
    model = small("conv").float()
    centre = torch.tensor([[-2.0, 1.0], [2.0, -1.0]]).repeat(1000, 1)
    moments = centre + 0.3 * torch.randn(2000, 2), torch.full((2000, 2), math.log(0.01))
    model.encode = lambda x, y: tuple(m[x.flatten().long()] for m in moments)
    x, y = torch.arange(2000.0).view(-1, 1, 1, 1), torch.zeros(2000, dtype=torch.long)
    prior = vae.fit_prior(model, x, y, components=2, seed=0)
    drawn = prior.sample((20_000,))
    assert drawn.mean(0).abs().max() < 0.1
    expected = torch.tensor([[4.1, -2.0], [-2.0, 1.1]])  # between the clusters, 0.09 within, 0.01
    torch.testing.assert_close(drawn.T.cov(), expected, atol=0.1, rtol=0)
    assert vae.fit_prior(
        model, x[:150], y[:150], components=20, seed=0
    ).mixture_distribution.probs.shape == (1,)
    ticks = torch.linspace(-6, 6, 601)
    mass = prior.log_prob(torch.cartesian_prod(ticks, ticks)).exp().sum() * 0.02**2
    assert mass.item() == pytest.approx(1, abs=1e-3)
    fitted, normal = (
        vae.kl_estimate(*moments, p).mean() for p in (prior, vae.standard_normal(model))
    )
    exact = vae.kl_to_standard_normal(*moments)
    room = 4 * vae.kl_estimate(*moments, vae.standard_normal(model)).std() / math.sqrt(2000)
    assert abs(normal - exact.mean()) < room
    assert fitted < normal - 1


def test_without_components_the_prior_is_the_standard_normal():
    model = small("conv").float()
    prior = vae.fit_prior(model, images(3).float(), torch.zeros(3, dtype=torch.long), 0, seed=0)
    z = torch.randn(7, 2)
    torch.testing.assert_close(prior.log_prob(z), Normal(0, 1).log_prob(z).sum(1))


def test_interpolation_begins_and_ends_at_the_reconstructions():
    model, x = small("conv").float(), images(2).float()
    y = torch.zeros(2, dtype=torch.long)
    path = vae.interpolate(model, x[0], x[1], y, steps=5)
    mu, _ = vae.encode(model, x, y)
    torch.testing.assert_close(path[[0, -1]], vae.decode(model, mu, y))
    torch.testing.assert_close(path[2:3], vae.decode(model, mu.mean(0, keepdim=True), y[:1]))


def test_the_estimate_approaches_the_true_likelihood():
    """With q = prior the weights are bounded, so that 20,000 draws are enough."""
    model, x = small("mlp"), images(3)
    nn.init.zeros_(model.head.weight)
    nn.init.zeros_(model.head.bias)
    nll = vae.estimate_nll(model, x, torch.zeros(3, dtype=torch.long), k=20_000)
    torch.testing.assert_close(-nll, log_px_by_integration(model, x), atol=0.05, rtol=0)


def test_a_linear_gaussian_vae_reaches_the_exact_likelihood(tmp_path):
    """Probabilistic PCA: the maximum-likelihood model is known, and so is its log-likelihood."""
    truth = LinearGaussian()
    torch.manual_seed(0)
    x = truth.marginal().sample((4000,)).float().view(-1, 1, 1, 6)
    centred = (x - x.mean(0)).flatten(1).double()
    spectrum = torch.linalg.eigvalsh(centred.T @ centred / len(x)).flip(0)
    noise = spectrum[2:].mean()  # Tipping & Bishop (1999), eq. (8)
    best = 0.5 * (6 * math.log(2 * math.pi) + spectrum[:2].log().sum() + 4 * noise.log() + 6)
    model = vae.VAE(
        nn.Flatten(), 6, nn.Sequential(nn.Linear(2, 6), nn.Unflatten(1, (1, 1, 6))), 2, 0
    )
    model.log_sigma = nn.Parameter(torch.zeros(()))
    labels = torch.zeros(len(x), dtype=torch.long)
    data = utils.ImageData("toy", x, labels, x, labels, ("all",))
    flags = {"model": "gaussian", "lr": 1e-2, "epochs": 40, "precision": "fp32"}
    config = Config(**flags, out=tmp_path, latent_dim=2)
    vae.train(model, data, config, utils.start(config, "toy.py"))
    W, b = model.decoder[0].weight.double(), model.decoder[0].bias.double()
    cov = W @ W.T + (2 * model.log_sigma.double()).exp() * torch.eye(6).double()
    reached = -MultivariateNormal(b, cov).log_prob(x.flatten(1).double()).mean().item()
    assert best.item() <= reached + 1e-6
    assert reached == pytest.approx(best.item(), abs=0.05)
    rec, kl = vae.neg_elbo(model, x.repeat(5, 1, 1, 1))
    assert (rec + kl.sum(1)).mean().item() == pytest.approx(best.item(), abs=0.05)


def test_training_can_memorise_a_few_images(tmp_path):
    x = images(8, (1, 8, 8)).float()
    flags = {"epochs": 600, "batch_size": 8, "lr": 3e-3, "binarize": "threshold", "latent_dim": 8}
    model, run = trained(tmp_path, x, **flags)
    y = torch.zeros(8, dtype=torch.long)
    mu, _ = vae.encode(model, x, y)
    assert (vae.decode(model, mu, y) - x).abs().mean() < 0.05
    assert run.series("neg_elbo")[1][-1] < 0.6 * run.series("neg_elbo")[1][0]


# --- Experiment


@pytest.mark.parametrize("name", MODELS)
def test_main_writes_a_whole_run(name, tmp_path):
    vae.main(Config(model=name, epochs=1, quick=True, out=tmp_path, latent_dim=2, nll_samples=5))
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert all(math.isfinite(v) for v in metrics.values() if isinstance(v, float))
    bound = metrics["test_reconstruction_nats"] + metrics["test_kl_nats"]
    assert metrics["test_neg_elbo_nats"] == pytest.approx(bound, rel=1e-4)
    assert metrics["test_nll_nats_importance_5_standard_error"] > 0
    pictures = {"reconstructions.png", "interpolation.png", "latent_plane.png", "samples.png"}
    pictures |= {"learning_curve.png", "training.gif"}
    if name == "conditional":
        pictures.add("classes.png")
    assert pictures <= {p.name for p in tmp_path.iterdir()}


def test_metrics_are_those_of_the_saved_model(tmp_path):
    """The bound recomputed from the checkpoint, without the chapter's evaluation."""
    flags = {"model": "mlp", "latent_dim": 3, "hidden": (30, 20), "binarize": "threshold"}
    vae.main(Config(quick=True, dataset="digits", out=tmp_path, nll_samples=300, **flags))
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    data = utils.load_images("digits", quick=True)
    model = vae.build(Config(**flags), data.image_shape, 10)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    model.load_state_dict(state["objects"]["model"])
    x = (data.test > 0.5).float()
    with torch.no_grad():
        mu, logvar = model.encode(x)
        q = Independent(Normal(mu, (0.5 * logvar).exp()), 1)
        p = Independent(Normal(torch.zeros_like(mu), torch.ones_like(mu)), 1)
        kl = kl_divergence(q, p).mean().item()
        rec = [
            -Independent(Bernoulli(logits=model.decode(q.sample())), 3).log_prob(x).mean()
            for _ in range(50)
        ]
    assert metrics["test_kl_nats"] == pytest.approx(kl, rel=1e-4)
    assert metrics["test_reconstruction_nats"] == pytest.approx(np.mean(rec), rel=0.02)
    assert metrics["test_nll_nats_importance_300"] < metrics["test_neg_elbo_nats"]
    assert metrics["binarization"] == "threshold"
    samples = np.load(tmp_path / "samples.npy")
    assert samples.shape == (256, 1, 8, 8)
    assert samples.dtype == np.float32


def test_a_large_beta_collapses_and_the_run_says_so(tmp_path, capsys):
    flags = {"quick": True, "dataset": "digits", "nll_samples": 5, "epochs": 10}
    vae.main(Config(model="beta", beta=50.0, out=tmp_path / "a", **flags))
    said = capsys.readouterr().out
    metrics = json.loads((tmp_path / "a" / "metrics.json").read_text())
    assert metrics["active_units"] == 0
    assert "posterior collapse: 0 of 16" in said


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"latent_dim": 0}, "--latent-dim: expected a finite number of at least 1"),
        ({"beta": -1.0}, "--beta: expected a finite number of at least 0"),
        ({"importance_samples": 0}, "--importance-samples: expected"),
        ({"warm_up": 1.0}, "--warm-up: expected"),
        ({"free_bits": -0.1}, "--free-bits: expected"),
        ({"nll_samples": 0}, "--nll-samples: expected"),
        ({"nll_images": 1}, "--nll-images: expected"),
        ({"hidden": ()}, "--hidden: expected"),
        ({"binarize": "none"}, "--binarize: expected none for --model gaussian"),
        ({"model": "gaussian", "binarize": "dynamic"}, "--binarize: expected none"),
        ({"model": "wae"}, "--model: expected one of conv, mlp, beta"),
    ],
)
def test_impossible_values_are_refused(flags, said):
    with pytest.raises(utils.UserError, match=said):
        Config(**flags)


# --- Quality, minutes each: make test-slow


@pytest.mark.slow
def test_default_run_reaches_its_numbers(tmp_path):
    vae.main(Config(out=tmp_path))
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["test_neg_elbo_nats"] < 100
    assert metrics["test_kl_to_fitted_prior_nats"] < metrics["test_kl_nats"] - 0.5
    assert metrics["frechet_distance"] < 0.5 * metrics["frechet_distance_standard_normal"]
    assert metrics["frechet_distance"] < 2


@pytest.mark.slow
def test_free_bits_keep_units_alive_where_a_large_beta_kills_them(tmp_path):
    active = {}
    for nats in (0.0, 0.5):
        vae.main(
            Config(model="beta", beta=50.0, free_bits=nats, epochs=15, out=tmp_path / f"{nats}")
        )
        active[nats] = json.loads((tmp_path / f"{nats}/metrics.json").read_text())["active_units"]
    assert active == {0.0: 0, 0.5: 16}
