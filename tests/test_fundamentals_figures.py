"""The laws behind the figures of notes/01: each against an answer that the scripts do not know."""

import math
from statistics import mean

import pytest
import torch
from torch.distributions import MultivariateNormal, kl_divergence

from code_examples import utils
from notes.figures import fundamentals_change_of_variables as change
from notes.figures import fundamentals_denoising_score as denoising
from notes.figures import fundamentals_densities as densities
from notes.figures import fundamentals_kl_directions as directions
from notes.figures import fundamentals_maximum_likelihood as likelihood


def normal(*size, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*size, generator=g, dtype=torch.float64)


def moments(p):
    """Mean and covariance of a mixture of equal dots, in closed form."""
    centred = p.centres - p.centres.mean(0)
    cov = centred.T @ centred / len(centred) + p.std**2 * torch.eye(2, dtype=torch.float64)
    return p.centres.mean(0), cov


# --- The eight densities


@pytest.mark.parametrize("name", utils.DENSITIES)
def test_the_window_shows_nearly_all_of_each_density(name):
    x = utils.density(name).sample(20_000, torch.Generator().manual_seed(0))
    low, high = torch.tensor(densities.WINDOW).view(2, 2).T
    assert ((x > low) & (x < high)).all(dim=1).float().mean() > 0.999


# --- Maximum likelihood


def test_one_gaussian_has_the_likelihoods_that_its_covariance_gives():
    p = utils.density("moons")
    training, fresh = likelihood.fit(p, size=5000, parts=1, fresh=50_000, seed=0)
    x = p.sample(5000, torch.Generator().manual_seed(0)).double()
    learnt = x.T.cov(correction=0)
    assert training == pytest.approx(
        0.5 * (2 * math.pi * math.e * learnt).logdet().item(), abs=1e-4
    )
    best = 0.5 * (2 * math.pi * math.e * moments(p)[1]).logdet().item()  # H(p) + least KL(p || q)
    assert fresh == pytest.approx(best, abs=0.02)


@pytest.mark.parametrize(("size", "parts"), [(200, 4), (200, 16), (5000, 16)])
def test_only_the_loss_on_training_samples_falls_below_the_entropy(size, parts):
    p = utils.density("moons")
    runs = [likelihood.fit(p, size, parts, fresh=20_000, seed=seed) for seed in range(3)]
    training, fresh = (mean(values) for values in zip(*runs, strict=True))
    error = 0.9 / math.sqrt(3 * 20_000)  # of the mean of -log p, whose deviation is below 0.9
    assert fresh > p.entropy - 4 * error
    assert training < fresh
    assert (training < p.entropy - 0.2) == ((size, parts) == (200, 16)), "learnt by heart"


# --- Two directions of the KL divergence


def test_the_divergence_on_the_grid_is_that_of_two_gaussians_in_closed_form():
    p = MultivariateNormal(normal(2), torch.tensor([[1.0, 0.3], [0.3, 0.5]]).double())
    q = MultivariateNormal(normal(2, seed=1), torch.tensor([[0.4, -0.1], [-0.1, 2.0]]).double())
    grid = directions.GRID
    for a, b in ((p, q), (q, p)):
        by_sum = directions.kl(a.log_prob(grid), b.log_prob(grid))
        assert by_sum == pytest.approx(kl_divergence(a, b).item(), abs=1e-6)


@pytest.mark.parametrize("name", ["moons", "ring"])
def test_forward_fit_has_the_moments_of_the_density(name):
    p = utils.density(name)
    q = directions.fit_forward(p.log_prob(directions.GRID))
    mu, cov = moments(p)
    torch.testing.assert_close(q.mean, mu, atol=1e-8, rtol=0)
    torch.testing.assert_close(q.covariance_matrix, cov, atol=1e-8, rtol=0)


@pytest.mark.parametrize(("name", "steps"), [("moons", 25), ("ring", 200)])
def test_each_fit_wins_its_own_direction(name, steps):
    p, grid = utils.density(name), directions.GRID
    log_p = p.log_prob(grid)
    forward = directions.fit_forward(log_p)
    reverse, ends = directions.fit_reverse(p, directions.Config(steps=steps, starts=2))
    log_f, log_r = forward.log_prob(grid), reverse.log_prob(grid)
    assert directions.kl(log_p, log_f) < directions.kl(log_p, log_r)
    assert directions.kl(log_r, log_p) < directions.kl(log_f, log_p)
    assert min(ends.tolist()) == pytest.approx(directions.kl(log_r, log_p), abs=1e-3)
    if name == "ring":  # one mode of eight: q = 8 p there
        assert min(ends.tolist()) == pytest.approx(math.log(8), abs=1e-3)


def test_ellipses_lie_one_and_two_deviations_from_the_mean():
    q = MultivariateNormal(normal(2), torch.tensor([[1.0, 0.3], [0.3, 0.5]]).double())
    off = directions.ellipses(q) - q.mean
    distance = (off @ q.precision_matrix * off).sum(-1).sqrt()
    torch.testing.assert_close(distance, torch.tensor([[1.0], [2.0]]).double().expand(2, 100))


# --- The change of variables


def test_log_det_is_that_of_the_jacobian_and_the_inverse_inverts():
    z = 2 * normal(50, 2)
    x, log_det = change.forward(z)
    for point, value in zip(z, log_det, strict=True):
        jacobian = torch.autograd.functional.jacobian(
            lambda u: change.forward(u[None])[0][0], point
        )
        assert value.item() == pytest.approx(jacobian.det().abs().log().item(), abs=1e-12)
    torch.testing.assert_close(change.autograd_log_det(z), log_det)
    torch.testing.assert_close(change.inverse(x), z)
    back = torch.autograd.functional.jacobian(lambda u: change.inverse(u[None])[0], x[0])
    assert back.slogdet().logabsdet.item() == pytest.approx(-log_det[0].item())


def test_pushed_density_integrates_to_one_and_keeps_conditionals_of_the_normal():
    assert change.integral(0.05) == pytest.approx(1, abs=1e-6)
    x = normal(20, 2)
    s, t = x[:, 0] / 2, x[:, 0].square() / 2 - 1  # x_2 given x_1 is N(t, exp(s)^2)
    given = torch.distributions.Normal(t, s.exp()).log_prob(x[:, 1])
    marginal = torch.distributions.Normal(0.0, 1.0).log_prob(x[:, 0])
    torch.testing.assert_close(change.log_prob(x), marginal + given)


def test_counts_of_samples_are_those_that_the_density_predicts():
    x, bins = change.forward(normal(200_000, 2))[0], 20
    low, high = torch.tensor(change.BOUNDS).view(2, 2).T
    x = x[((x > low) & (x < high)).all(dim=1)]
    counts = torch.bincount(change.bin_of(x, bins), minlength=bins**2)
    by_hand = ((x[:, 0] < low[0] + (high - low)[0] / bins * 7) & (x[:, 1] >= low[1])).sum()
    assert counts[: 7 * bins].sum() == by_hand, "bins go row by row along x_1"
    cell = ((high - low).prod() / bins**2).item()
    expected = 200_000 * cell * change.expected_density(bins)
    full = expected > 10
    off = (counts - expected)[full].square() / expected[full]
    room = 4 * math.sqrt(2 / len(off))  # the mean square of that many normal deviations is near 1
    assert off.mean().item() == pytest.approx(1, abs=room)


# --- Denoising and the score


@pytest.fixture(scope="module")
def noised():
    return denoising.noised(utils.density("moons"), 0.5)


def test_noised_density_is_the_convolution_and_its_score_follows_tweedie(noised):
    sigma, step = 0.5, 0.1
    moons = utils.density("moons")
    clean = torch.cartesian_prod(*[torch.arange(-5, 5, step, dtype=torch.float64)] * 2)
    noisy = noised.sample(40, torch.Generator().manual_seed(0)).double()
    # brute force: p(x | x_tilde) is proportional to p(x) N(x_tilde; x, sigma^2 I)
    log_noise = -torch.cdist(noisy, clean).square() / (2 * sigma**2)
    joint = (log_noise + moons.log_prob(clean)).exp() / (2 * math.pi * sigma**2) * step**2
    torch.testing.assert_close(noised.log_prob(noisy), joint.sum(1).log(), atol=1e-5, rtol=0)
    posterior_mean = joint @ clean / joint.sum(1, keepdim=True)
    score = denoising.exact_score(noised, noisy)
    torch.testing.assert_close(noisy + sigma**2 * score, posterior_mean, atol=1e-5, rtol=0)


def test_exact_score_is_the_gradient_of_the_log_density(noised):
    x = 2 * normal(30, 2)
    (gradient,) = torch.autograd.grad(noised.log_prob(x.requires_grad_()).sum(), x)
    torch.testing.assert_close(denoising.exact_score(noised, x.detach()), gradient)


def test_a_perfect_denoiser_has_the_exact_score(noised):
    def perfect(x):
        return x + 0.5**2 * denoising.exact_score(noised, x)

    x = normal(30, 2)
    learned = denoising.learned_score(perfect, x, 0.5)
    torch.testing.assert_close(learned, denoising.exact_score(noised, x))


def test_mass_on_the_grid_is_one_and_the_loss_of_any_denoiser_is_floor_plus_error(noised):
    sigma, n = 0.5, 200_000
    grid, mass = denoising.grid_with_mass(noised, step=noised.std / 4)
    assert mass.sum().item() == pytest.approx(1, abs=1e-6)
    torch.manual_seed(0)
    model = denoising.denoiser().double()  # at random weights
    score = denoising.exact_score(noised, grid)
    off = denoising.learned_score(model, grid, sigma) - score
    floor = 2 * sigma**2 - sigma**4 * (mass @ score.square().sum(1)).item()
    predicted = floor + sigma**4 * (mass @ off.square().sum(1)).item()
    x = utils.density("moons").sample(n, torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        losses = (model(x + sigma * normal(n, 2, seed=1)) - x).square().sum(1)
    room = 4 * losses.std().item() / math.sqrt(n)
    assert losses.mean().item() == pytest.approx(predicted, abs=room)


def test_a_short_training_already_explains_most_of_the_score(noised):
    config = denoising.Config(steps=250, batch_size=256)
    grid, mass = denoising.grid_with_mass(noised, step=noised.std / 2)
    model = denoising.train(utils.density("moons"), config, seed=0).double()
    score = denoising.exact_score(noised, grid)
    off = denoising.learned_score(model, grid, config.sigma) - score
    assert mass @ off.square().sum(1) < 0.25 * (mass @ score.square().sum(1))
