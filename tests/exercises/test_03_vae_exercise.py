"""What is true of every right answer to exercise 3.

Each check takes the answer, a function or the class. Shapes are uneven on purpose: colour, height
unlike width, a batch of one. Where chance plays, there are 6 standard errors of room.
"""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Normal, kl_divergence

from exercises import grading, kit
from exercises.checks import (
    Failure,
    as_tensor,
    check,
    expect,
    expect_close,
    expect_equal,
    show,
)

TASKS = kit.exercise(3).tasks


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_your_answer(task):
    grading.settle(grading.grade(task, grading.read(kit.exercise(3))))


def images(batch=4, shape=(2, 5, 3)):
    """Random images in [0, 1]."""
    return torch.rand(batch, *shape)


def slope(output, variable, what, of):
    """d output.sum() / d variable, where a gradient leads there at all.

    Raises:
        Failure: if none does.
    """
    found = None
    if output.requires_grad:
        found = torch.autograd.grad(output.sum(), variable, allow_unused=True, retain_graph=True)[0]
    if found is None:
        raise Failure(f"no gradient leads from {what} to {of}", "one", output=output)
    return found


class Toy(nn.Module):
    """A VAE of random matrices that keeps every z it decodes, and in which mode that happened.

    Args:
        blind: Whether the decoder ignores z, so that each image has a reconstruction cost of its
            own, known beforehand.
        prior: Whether q(z|x) is N(0, I) for every image.
    """

    def __init__(self, shape=(2, 5, 3), latent_dim=2, blind=False, prior=False):
        super().__init__()
        pixels = math.prod(shape)
        self.shape, self.dropout = shape, nn.Dropout(0.5)
        spread = 0.0 if prior else 1 / math.sqrt(pixels)
        self.to_mu = nn.Parameter(spread * torch.randn(pixels, latent_dim))
        self.to_logvar = nn.Parameter(spread * torch.randn(pixels, latent_dim))
        self.shift = nn.Parameter(torch.full((2, latent_dim), 0.0 if prior else 0.7))
        self.from_z = nn.Parameter((0.0 if blind else 1.0) * torch.randn(latent_dim, pixels))
        self.bias = nn.Parameter(torch.randn(pixels))
        self.decoded, self.modes, self.with_graph = [], [], []

    def encode(self, x):
        h = x.flatten(1) - 0.5
        self.modes.append(self.training)
        self.with_graph.append(torch.is_grad_enabled())
        mu = self.dropout(h @ self.to_mu + self.shift[0])
        return mu, h @ self.to_logvar - self.shift[1]

    def decode(self, z):
        self.decoded.append(z.detach().clone())
        self.modes.append(self.training)
        self.with_graph.append(torch.is_grad_enabled())
        return (self.dropout(z) @ self.from_z + self.bias).unflatten(1, self.shape)

    def forward(self, *_):
        raise Failure("model(...) was called", "model.encode and model.decode, which say more")

    def z(self, count, latent_dim):
        """All that was decoded, row by row.

        Raises:
            Failure: if these were not `count` rows of `latent_dim` numbers.
        """
        expect(len(self.decoded) > 0, "decode was not called", "z, decoded")
        shapes = ", ".join(str(tuple(z.shape)) for z in self.decoded[:3])
        fits = all(z.ndim == 2 and z.shape[1] == latent_dim for z in self.decoded)
        expect(fits, f"decode got a z of shape {shapes}", f"(any number, L = {latent_dim})")
        rows = torch.cat(self.decoded)
        seen = f"{len(rows)} rows of z are decoded in all"
        expect(len(rows) == count, seen, f"{count}", output=rows)
        return as_tensor(rows, (count, latent_dim), "what decode got")

    def nll(self, x):
        """-log p(x|z) of each image for a blind decoder."""
        logits = self.bias.unflatten(0, self.shape).expand(x.shape)
        return F.binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1).sum(1)


def toy(**options):
    """A Toy in eval mode, without dropout."""
    return Toy(**options).eval()


def one_dimensional():
    """A Toy with L = 1, one black and white image of 6 pixels, and log p of it by integration."""
    model, x = toy(shape=(1, 2, 3), latent_dim=1).double(), images(1, (1, 2, 3)).round().double()
    z = torch.linspace(-12, 12, 4801).double()[:, None]
    logits = (z @ model.from_z + model.bias).detach()
    log_p = -F.binary_cross_entropy_with_logits(
        logits, x.view(1, 6).expand(4801, 6), reduction="none"
    )
    joint = log_p.sum(dim=1) - 0.5 * z[:, 0].square() - 0.5 * math.log(2 * math.pi)
    return model, x, (torch.logsumexp(joint, dim=0) + math.log(24 / 4800)).item()


def expect_moments(z, mean, std, what):
    """Go on if the columns of z have this mean and standard deviation, within 6 standard errors.

    Raises:
        Failure: if not.
    """
    n = len(z)
    seen = f"the mean of {what} is {show(z.mean(dim=0))}, over {n} draws"
    far = (z.mean(dim=0) - mean).abs() > 6 * std / math.sqrt(n)
    expect(not bool(far.any()), seen, show(mean), output=z)
    seen = f"the standard deviation of {what} is {show(z.std(dim=0))}, over {n} draws"
    far = (z.std(dim=0) - std).abs() > 6 * std / math.sqrt(2 * n)
    expect(not bool(far.any()), seen, show(std), output=z)


# --- 3.1 reparameterize


def posterior(batch=4, latent_dim=3):
    """A random mu and logvar."""
    return 2 * torch.randn(batch, latent_dim), torch.randn(batch, latent_dim)


def draws_of(reparameterize, mu, logvar):
    """20,000 draws with this mean and log-variance."""
    shape = (200, 100)
    z = reparameterize(torch.full(shape, mu), torch.full(shape, logvar))
    return as_tensor(z, shape, "z").detach()


@check("3.1")
def z_has_the_shape_of_mu(reparameterize):
    """One tensor (B, L) of draws comes back, not a distribution, a pair or the noise alone."""
    for batch, latent_dim in ((4, 3), (1, 5)):
        mu = posterior(batch, latent_dim)[0]
        z = reparameterize(mu, torch.ones_like(mu))
        as_tensor(z, (batch, latent_dim), f"z for mu of shape ({batch}, {latent_dim})")


@check("3.1")
def without_variance_z_is_mu(reparameterize):
    """At logvar = -60 the standard deviation is exp(-30), nothing: only mu is left. Is eps scaled
    at all, and is mu added?"""
    mu, _ = posterior()
    z = reparameterize(mu.clone(), torch.full((4, 3), -60.0))
    expect_close(z, mu, "z at logvar = -60", because="mu")


@check("3.1")
def every_value_has_a_draw_of_its_own(reparameterize):
    """No noise at all, or one draw shared over images or dimensions: draw for the whole shape of
    mu."""
    z = as_tensor(reparameterize(torch.zeros(3, 4), torch.zeros(3, 4)), (3, 4), "z")
    for dim, name in enumerate(("images", "latent dimensions")):
        gap = (z.select(dim, 0) - z.select(dim, 1)).abs().max().item()
        expect(gap > 1e-3, f"the noise is the same in two {name}", "independent noise", output=z)


@check("3.1")
def each_draw_is_new(reparameterize):
    """A seed that is set inside makes every call's noise the same."""
    mu, logvar = posterior()
    first, second = (reparameterize(mu.clone(), logvar.clone()) for _ in range(2))
    expect(not torch.equal(first, second), "two calls gave the same z", "new noise each time")


@check("3.1")
def the_mean_of_z_is_mu(reparameterize):
    """`torch.rand` is uniform on [0, 1], with mean 1/2; the normal is `torch.randn`."""
    z = draws_of(reparameterize, 0.5, 0.0)
    mean, room = z.mean().item(), 6 / math.sqrt(z.numel())
    seen = f"for mu = 0.5, logvar = 0 the mean of {z.numel()} draws is {show(mean)}"
    expect(abs(mean - 0.5) <= room, seen, "0.5", output=z)


@check("3.1")
def the_standard_deviation_is_exp_of_half_logvar(reparameterize):
    """exp(logvar) is the variance, and eps wants the standard deviation: its root, exp(logvar /
    2)."""
    for variance in (4.0, 0.25):
        z = draws_of(reparameterize, 0.5, math.log(variance))
        std, expected = z.std().item(), math.sqrt(variance)
        seen = f"for logvar = log {variance:g} the standard deviation of z is {show(std)}"
        room = 6 * expected / math.sqrt(2 * z.numel())
        expect(abs(std - expected) <= room, seen, f"{expected}", output=z)


@check("3.1")
def z_is_gaussian(reparameterize):
    """The noise has the right size but another shape, such as uniform or +-sigma."""
    eps = (draws_of(reparameterize, 0.5, math.log(4)) - 0.5) / 2
    kurtosis = eps.double().pow(4).mean().item()
    room = 6 * math.sqrt(96 / eps.numel())  # the variance of eps^4 is 105 - 9
    seen = f"the fourth moment of z around mu is {show(kurtosis)} sigma^4"
    expect(abs(kurtosis - 3) <= room, seen, "3 sigma^4, as for a normal", output=eps)


@check("3.1")
def mu_and_logvar_stay_as_they_were(reparameterize):
    """Functions that end in _ write into the caller's tensor, and the KL still needs it."""
    mu, logvar = posterior()
    before = mu.clone(), logvar.clone()
    reparameterize(mu, logvar)
    expect_equal(mu, before[0], "mu after the call", because="as before")
    expect_equal(logvar, before[1], "logvar after the call", because="as before")


@check("3.1")
def the_slope_to_mu_is_1(reparameterize):
    """`.sample()`, `.detach()` and `torch.no_grad()` cut the graph: the encoder would learn
    nothing."""
    mu, logvar = (v.requires_grad_() for v in posterior())
    z = as_tensor(reparameterize(mu, logvar), (4, 3), "z")
    expect_close(slope(z, mu, "z", "mu"), torch.ones(4, 3), "dz / dmu")


@check("3.1")
def the_slope_to_logvar_is_half_of_z_minus_mu(reparameterize):
    """The standard deviation must stay in the graph: dz/dlogvar = 0.5 * exp(logvar / 2) * eps."""
    mu, logvar = (v.requires_grad_() for v in posterior())
    z = as_tensor(reparameterize(mu, logvar), (4, 3), "z")
    expected = (z - mu) / 2
    expect_close(slope(z, logvar, "z", "logvar"), expected, "dz / dlogvar", tol=1e-4)


@check("3.1")
def z_has_the_dtype_of_mu(reparameterize):
    """float64 came in and something else went out: `randn_like(mu)` follows mu."""
    mu, logvar = posterior()
    z = reparameterize(mu.double(), logvar.double())
    expect(z.dtype == torch.float64, f"z is {z.dtype} for a float64 mu", "torch.float64")


# --- 3.2 kl_to_standard_normal


@check("3.2")
def there_is_one_kl_for_each_image(kl):
    """Sum over the latent dimensions, dim 1, and not over the batch; also if B is 1 or equals L."""
    for batch, latent_dim in ((4, 3), (1, 5), (5, 1)):
        what = f"the KL for B = {batch}, L = {latent_dim}"
        mu = posterior(batch, latent_dim)[0]
        as_tensor(kl(mu, torch.ones_like(mu)), (batch,), what)


@check("3.2")
def the_prior_itself_costs_nothing(kl):
    """At mu = 0, logvar = 0 both normals are the same: exp(0) - 1 - 0 = 0."""
    expect_close(
        kl(torch.zeros(4, 3), torch.zeros(4, 3)), torch.zeros(4), "the KL at mu=0, logvar=0"
    )


@check("3.2")
def a_mean_of_2_costs_2_nats(kl):
    """With variance 1 the KL is mu^2 / 2: mind the factor 0.5, the square and the sign."""
    value = kl(torch.full((4, 1), 2.0), torch.zeros(4, 1))
    expect_close(value, torch.full((4,), 2.0), "the KL at mu = 2, logvar = 0")


@check("3.2")
def a_variance_of_4_costs_more_than_one_of_a_quarter(kl):
    """0.5 (4 - 1 - log 4) and 0.5 (1/4 - 1 + log 4). exp(logvar) is the variance, no root and no
    square is needed; the other direction, KL(p || q), swaps the two."""
    for variance in (4.0, 0.25):
        expected = 0.5 * (variance - 1 - math.log(variance))
        value = kl(torch.zeros(2, 1), torch.full((2, 1), math.log(variance)))
        expect_close(value, torch.full((2,), expected), f"the KL at logvar = log {variance:g}")


@check("3.2")
def latent_dimensions_add_up(kl):
    """A mean over the latent dimensions: twice the dimensions must cost twice."""
    mu, logvar = posterior()
    once = as_tensor(kl(mu.clone(), logvar.clone()), (4,), "the KL")
    twice = kl(torch.cat([mu, mu], dim=1), torch.cat([logvar, logvar], dim=1))
    expect_close(twice, 2 * once, "the KL with every dimension twice")


@check("3.2")
def it_is_the_integral_of_q_log_q_over_p(kl):
    """The mean of log q(z) - log p(z) over q, here by summing over a fine grid of z, is something
    else."""
    mu, logvar = (v.double() for v in posterior(5, 1))
    std = (0.5 * logvar).exp()
    z = mu + std * torch.linspace(-9, 9, 2001).double()
    log_q, log_p = Normal(mu, std).log_prob(z), Normal(0.0, 1.0).log_prob(z)
    integral = (log_q.exp() * (log_q - log_p)).sum(dim=1) * (18 / 2000) * std[:, 0]
    expect_close(
        kl(mu, logvar), integral, "the KL of five images with L = 1", because="the integral"
    )


@check("3.2")
def it_is_exact_for_every_variance(kl):
    """Each image and each variance, from exp(-12) to exp(12), as torch.distributions says: nothing
    is clamped, sampled or shared by the batch."""
    logvar = torch.linspace(-12, 12, 12).double().view(4, 3)
    mu = posterior()[0].double()
    exact = kl_divergence(Normal(mu, (0.5 * logvar).exp()), Normal(0.0, 1.0)).sum(dim=1)
    expect_close(kl(mu.clone(), logvar.clone()), exact, "the KL for logvar from -12 to 12")


@check("3.2")
def the_posterior_stays_as_it_was(kl):
    """Functions that end in _ write into the caller's tensor."""
    mu, logvar = posterior()
    before = mu.clone(), logvar.clone()
    kl(mu, logvar)
    expect_equal(mu, before[0], "mu after the call", because="as before")
    expect_equal(logvar, before[1], "logvar after the call", because="as before")


@check("3.2")
def it_pulls_towards_the_prior(kl):
    """The slopes are mu and (exp(logvar) - 1) / 2; where the graph is cut there is none."""
    mu, logvar = (v.requires_grad_() for v in posterior())
    value = as_tensor(kl(mu, logvar), (4,), "the KL")
    expect_close(slope(value, mu, "the KL", "mu"), mu, "dKL / dmu", because="mu")
    expected = (logvar.exp() - 1) / 2
    expect_close(slope(value, logvar, "the KL", "logvar"), expected, "dKL / dlogvar")


# --- 3.3 bernoulli_nll


@check("3.3")
def there_is_one_nll_for_each_image(bernoulli_nll):
    """Sum over channels, rows and columns, and keep the batch, also when B is 1."""
    for batch in (4, 1):
        value = bernoulli_nll(torch.randn(batch, 2, 5, 3), images(batch))
        as_tensor(value, (batch,), f"the result for B = {batch}")


@check("3.3")
def a_fair_coin_costs_log_2_a_pixel(bernoulli_nll):
    """At logits 0 every pixel costs log 2 = 0.693, whatever x: 20.79 for the 30 pixels of an
    image."""
    value = bernoulli_nll(torch.zeros(4, 2, 5, 3), images())
    expected = torch.full((4,), 30 * math.log(2))
    expect_close(value, expected, "the cost at logits 0", because="30 log 2")


@check("3.3")
def it_is_minus_log_p_of_the_image(bernoulli_nll):
    """Some other quantity than -[x log s + (1 - x) log(1 - s)], s = sigmoid(logits), for each
    image."""
    logits, x = 2 * torch.randn(4, 2, 5, 3), images()
    s = logits.sigmoid()
    expected = -(x * s.log() + (1 - x) * (1 - s).log()).flatten(1).sum(1)
    expect_close(bernoulli_nll(logits.clone(), x.clone()), expected, "the cost", tol=1e-4)


@check("3.3")
def logits_of_1000_cost_1000_or_nothing(bernoulli_nll):
    """sigmoid(1000) is rounded to 1, and log(1 - 1) is lost. Compute from the logits directly."""
    for logit, pixel in ((1000.0, 0.0), (-1000.0, 1.0), (1000.0, 1.0), (-1000.0, 0.0)):
        value = bernoulli_nll(torch.full((2, 1, 1, 2), logit), torch.full((2, 1, 1, 2), pixel))
        expected = 0.0 if (logit > 0) == (pixel > 0) else 2000.0
        what = f"the cost of 2 pixels with logit {logit:.0f} where x is {pixel:.0f}"
        expect_close(value, torch.full((2,), expected), what)


@check("3.3")
def twice_the_pixels_cost_twice(bernoulli_nll):
    """A mean over pixels: they are independent given z, so their costs add up."""
    logits, x = torch.randn(3, 2, 5, 3), images(3)
    once = as_tensor(bernoulli_nll(logits.clone(), x.clone()), (3,), "the cost")
    wide = bernoulli_nll(torch.cat([logits, logits], dim=3), torch.cat([x, x], dim=3))
    expect_close(wide, 2 * once, "the cost with every pixel twice")


@check("3.3")
def its_slope_is_probability_minus_pixel(bernoulli_nll):
    """The slope along a logit is sigmoid - x; a detached or rounded value has another."""
    logits, x = torch.randn(4, 2, 5, 3, requires_grad=True), images()
    value = as_tensor(bernoulli_nll(logits, x), (4,), "the cost")
    found = slope(value, logits, "the cost", "the logits")
    expect_close(found, logits.sigmoid() - x, "d cost / d logits", because="sigmoid - x")


@check("3.3")
def the_memory_layout_does_not_matter(bernoulli_nll):
    """`view` needs contiguous memory: `flatten` and `reshape` copy where they must."""
    logits, x = torch.randn(4, 3, 5, 2).transpose(1, 3), images()
    expected = F.binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1).sum(1)
    expect_close(bernoulli_nll(logits, x), expected, "the cost of transposed logits")


# --- 3.4 gaussian_nll

HALF_LOG_2_PI = 0.5 * math.log(2 * math.pi)


def guesses(batch=4):
    """Random means and images in float64."""
    return torch.randn(batch, 2, 5, 3).double(), images(batch).double()


def number(value):
    """A tensor of shape () in float64."""
    return torch.tensor(value, dtype=torch.float64)


@check("3.4")
def there_is_one_cost_for_each_image(gaussian_nll):
    """Sum over channels, rows and columns, and keep the batch, also when B is 1."""
    for batch in (4, 1):
        mean, x = guesses(batch)
        as_tensor(gaussian_nll(mean, number(0.3), x), (batch,), f"the result for B = {batch}")


@check("3.4")
def a_perfect_guess_costs_half_log_2_pi_a_pixel(gaussian_nll):
    """With mean = x and sigma = 1 only the constant is left: 0.919 for each of the 30 pixels."""
    x = guesses()[1]
    value = gaussian_nll(x.clone(), number(0.0), x)
    expected = torch.full((4,), 30 * HALF_LOG_2_PI)
    expect_close(value, expected, "the cost of mean = x, sigma = 1", because="30 * 0.919")


@check("3.4")
def a_miss_of_1_sigma_costs_half_a_nat_more(gaussian_nll):
    """Half the squared miss in units of sigma: mind the factor 0.5 and the square."""
    x = guesses()[1]
    value = gaussian_nll(x + 1, number(0.0), x)
    expected = torch.full((4,), 30 * (0.5 + HALF_LOG_2_PI))
    expect_close(value, expected, "the cost of misses of 1, sigma = 1", because="30 (0.5 + 0.919)")


@check("3.4")
def every_pixel_pays_log_sigma(gaussian_nll):
    """The density of each pixel is divided by its sigma: log_sigma counts 30 times, not once an
    image, and it is no log-variance."""
    x = guesses()[1]
    for sigma in (2.0, 0.5):
        value = gaussian_nll(x + sigma, number(math.log(sigma)), x)
        expected = torch.full((4,), 30 * (0.5 + HALF_LOG_2_PI + math.log(sigma)))
        expect_close(value, expected.double(), f"the cost of misses of 1 sigma, sigma = {sigma},")


@check("3.4")
def the_density_integrates_to_1(gaussian_nll):
    """exp(-nll) of an image of one pixel is a density: over a fine grid of x it must add up to
    1."""
    for sigma in (0.3, 2.0):
        x = torch.linspace(-8 * sigma, 8 * sigma, 1001).double().view(-1, 1, 1, 1)
        nll = gaussian_nll(torch.zeros_like(x), number(math.log(sigma)), x)
        total = (-as_tensor(nll, (1001,), "the cost")).exp().sum().item() * 16 * sigma / 1000
        expect_close(total, 1.0, f"the integral of exp(-nll) over x for sigma = {sigma}")


@check("3.4")
def it_is_exact_for_small_sigma(gaussian_nll):
    """A sigma of exp(-9) has a variance of 1.5e-8: adding 1e-6 to it, or clamping it there, gives
    another density."""
    mean, _ = guesses()
    x = mean + math.exp(-9) * torch.randn(4, 2, 5, 3).double()
    exact = -Normal(mean, math.exp(-9)).log_prob(x).flatten(1).sum(dim=1)
    expect_close(gaussian_nll(mean, number(-9.0), x), exact, "the cost for log_sigma = -9")


@check("3.4")
def twice_the_pixels_are_twice_the_nats(gaussian_nll):
    """A mean over pixels: they are independent given z, so their costs add up."""
    mean, x = guesses()
    once = as_tensor(gaussian_nll(mean.clone(), number(0.4), x.clone()), (4,), "the cost")
    wide = gaussian_nll(torch.cat([mean, mean], 3), number(0.4), torch.cat([x, x], 3))
    expect_close(wide, 2 * once, "the cost with every pixel twice")


@check("3.4")
def its_slope_to_the_mean_is_the_miss_over_sigma_squared(gaussian_nll):
    """Gradients must flow to the decoder's output."""
    mean, x = guesses()
    value = as_tensor(gaussian_nll(mean.requires_grad_(), number(0.4), x), (4,), "the cost")
    expected = (mean - x) / math.exp(0.8)
    expect_close(slope(value, mean, "the cost", "mean"), expected, "d cost / d mean")


@check("3.4")
def the_best_sigma_is_the_root_mean_square_error(gaussian_nll):
    """Gradients must flow to log_sigma, through both the misses and log sigma: where sigma^2 is the
    mean squared error they are in balance."""
    mean, x = guesses()
    best = (x - mean).square().mean().sqrt().log().item()
    for step in (0.5, 0.0):
        log_sigma = number(best + step).requires_grad_()
        value = as_tensor(gaussian_nll(mean, log_sigma, x), (4,), "the cost")
        found = slope(value, log_sigma, "the cost", "log_sigma")
        expected = number(120 * (1 - math.exp(-2 * step)))  # of 4 x 30 pixels
        where = f"{step} above it" if step else "at the root mean square error"
        expect_close(found, expected, f"d cost / d log_sigma {where}", tol=1e-8)


# --- 3.5 Encoder


def shaken(Encoder, shape=(2, 4, 4), latent_dim=16):
    """An encoder in eval mode and float64 with large random weights."""
    model = Encoder(shape, latent_dim).double().eval()
    for p in model.parameters():
        nn.init.normal_(p, std=0.3)
    return model


def both(model, x, latent_dim, what="encoder(x)"):
    """mu and logvar, as tensors of the right shape.

    Raises:
        Failure: if they are not.
    """
    pair = model(x)
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise Failure(f"{what} returns {show(pair)}", "a tuple: mu, logvar", output=pair)
    shape = (len(x), latent_dim)
    return tuple(as_tensor(v, shape, n) for v, n in zip(pair, ("mu", "logvar"), strict=True))


@check("3.5")
def mu_and_logvar_have_their_shapes(Encoder):
    """Two tensors (B, L): the last layer gives 2 L numbers an image, split along dim 1."""
    for shape, latent_dim, batch in (((1, 8, 8), 5, 3), ((3, 6, 4), 2, 1)):
        both(Encoder(shape, latent_dim).eval(), images(batch, shape), latent_dim)


def both_signs(value, name):
    low, high = value.min().item(), value.max().item()
    seen = f"for 64 images {name} lies between {low:.3g} and {high:.3g}"
    wide = low < 0 < high and max(-low, high) > 1
    expect(wide, seen, "any real number, of both signs", output=value)


@check("3.5")
def logvar_takes_both_signs(Encoder):
    """An activation after the last layer limits logvar: softplus, ReLU, sigmoid and exp leave one
    sign only. But a variance below 1 has a negative logarithm, one above 1 a positive one."""
    both_signs(both(shaken(Encoder), images(64, (2, 4, 4)).double(), 16)[1], "logvar")


@check("3.5")
def mu_takes_both_signs(Encoder):
    """An activation after the last layer, such as ReLU or sigmoid, limits mu: the prior is centred
    at 0, and codes lie on both sides."""
    both_signs(both(shaken(Encoder), images(64, (2, 4, 4)).double(), 16)[0], "mu")


@check("3.5")
def mu_and_logvar_are_different_functions(Encoder):
    """The same numbers are returned for both: where an image lies and how surely are two
    questions."""
    mu, logvar = both(shaken(Encoder), images(8, (2, 4, 4)).double(), 16)
    gap = (mu - logvar).abs().max().item()
    expect(gap > 1e-6, "mu and logvar are the same numbers", "two outputs", output=mu)


@check("3.5")
def both_depend_on_the_image(Encoder):
    """One logvar for all images cannot say that one is clear and another is not."""
    pair = both(shaken(Encoder), images(8, (2, 4, 4)).double(), 16)
    for name, value in zip(("mu", "logvar"), pair, strict=True):
        gap = (value[1:] - value[:1]).abs().max().item()
        expect(gap > 1e-6, f"{name} is the same for all images", "a function of x", output=value)


@check("3.5")
def the_encoder_is_nonlinear(Encoder):
    """Without an activation between them, two linear layers are one."""
    model, (a, b) = shaken(Encoder), torch.rand(2, 16, 2, 4, 4).double()
    ends, middle = (both(model, a, 16), both(model, b, 16)), both(model, (a + b) / 2, 16)
    for i, name in enumerate(("mu", "logvar")):
        bend = ((ends[0][i] + ends[1][i]) / 2 - middle[i]).abs().max().item()
        seen = f"{name} at the middle of two images is the mean of its values at both, 16 times"
        expect(bend > 1e-6, seen, "a nonlinearity, which bends straight lines")


@check("3.5")
def nothing_is_drawn(Encoder):
    """The encoder gives the parameters of q(z|x); a draw from it is made by `reparameterize`,
    outside."""
    model, x = shaken(Encoder), images(4, (2, 4, 4)).double()
    first, second = both(model, x, 16), both(model, x, 16)
    for name, a, b in zip(("mu", "logvar"), first, second, strict=True):
        gap = (a - b).abs().max().item()
        expect(gap < 1e-9, f"two calls give another {name} for the same images", "the same")


@check("3.5")
def images_do_not_mix(Encoder):
    """Images of a batch are mixed, as by a flatten, a mean or a softmax over the batch
    dimension."""
    model, x = shaken(Encoder), images(4, (2, 4, 4)).double()
    together, alone = both(model, x, 16), [both(model, one[None], 16) for one in x]
    for i, name in enumerate(("mu", "logvar")):
        expected = torch.cat([pair[i] for pair in alone])
        expect_close(together[i], expected, f"{name} of a batch", because="as one by one")


@check("3.5")
def all_layers_are_registered(Encoder):
    """Layers in a plain list or dict are invisible to the optimiser: use nn.Sequential or
    attributes."""
    model = Encoder((1, 6, 6), 4).train()
    x = images(8, (1, 6, 6))
    for i, name in enumerate(("mu", "logvar")):
        model.zero_grad()
        both(model, x, 4)[i].square().sum().backward()
        learning = [p for p in model.parameters() if p.grad is not None and p.grad.any()]
        seen = f"{len(learning)} of the model's parameters get a gradient from {name}"
        expect(len(learning) >= 2, seen, "all that it uses: two matrices at least")


# --- 3.6 negative_elbo


@check("3.6")
def there_is_one_value_for_each_image(negative_elbo):
    """Reconstruction and KL are (B,) each, and so is their sum, also when B is 1."""
    for batch in (4, 1):
        as_tensor(negative_elbo(toy(), images(batch)), (batch,), f"the result for B = {batch}")


@check("3.6")
def without_kl_it_is_the_reconstruction(negative_elbo):
    """At beta = 0 what is left is `bernoulli_nll(logits, x)`: once from logits, summed over pixels,
    not multiplied by anything."""
    model, x = toy(blind=True), images()
    expected = model.nll(x)
    what = "the value at beta = 0, for a decoder that ignores z,"
    expect_close(negative_elbo(model, x.clone(), 0.0), expected, what, tol=1e-4)


@check("3.6")
def the_kl_is_added_beta_times(negative_elbo):
    """Reconstruction + beta * KL: beta weights the KL, which is added, as a sum over the latent
    dimensions."""
    model, x = toy(blind=True), images()
    mu, logvar = model.encode(x)
    q = Normal(mu, (0.5 * logvar).exp())
    kl = kl_divergence(q, Normal(0.0, 1.0)).sum(dim=1)
    for beta in (1.0, 4.0):
        value = as_tensor(negative_elbo(model, x.clone(), beta), (4,), "the result")
        what = f"at beta = {beta:g}, what comes on top of the reconstruction"
        expect_close(value - model.nll(x), beta * kl, what, tol=1e-3, because=f"{beta:g} * KL")


@check("3.6")
def beta_is_1_unless_given(negative_elbo):
    """The ELBO has beta = 1; the caller who gives no beta wants that."""
    model, x = toy(blind=True), images()
    once = as_tensor(negative_elbo(model, x.clone(), 1.0), (4,), "the result")
    expect_close(
        negative_elbo(model, x.clone()), once, "the value without beta", because="as for beta = 1"
    )


@check("3.6")
def one_z_for_each_image_is_drawn_from_q(negative_elbo):
    """The decoder must get `reparameterize(mu, logvar)`: not mu, not a draw of the prior, not one
    shared by the batch."""
    model, x = toy(), images(1).expand(2000, -1, -1, -1)
    mu, logvar = model.encode(x[:1])
    negative_elbo(model, x.clone())
    z = model.z(2000, 2)
    same = bool((z == z[0]).all())
    seen = f"2000 copies of an image have the same z, {show(z[0])}"
    expect(not same, seen, "a draw for each", output=z)
    std = (0.5 * logvar[0]).exp().detach()
    expect_moments(z, mu[0].detach(), std, "z")


@check("3.6")
def it_is_no_less_than_minus_log_p(negative_elbo):
    """Its mean is an upper bound of -log p(x), and log p(x) of this small model is known by an
    integral over z."""
    model, x, log_p = one_dimensional()
    values = as_tensor(
        negative_elbo(model, x.expand(2000, -1, -1, -1).clone()), (2000,), "the result"
    )
    mean, room = values.mean().item(), 6 * values.std().item() / math.sqrt(2000)
    seen = f"the mean of 2000 values is {show(mean)}, and -log p(x) is {show(-log_p)}"
    expect(mean + room >= -log_p, seen, "no less", output=values)


@check("3.6")
def gradients_reach_the_encoder_through_z(negative_elbo):
    """At beta = 0 the only way to the encoder is z: is it detached, or drawn by `.sample()`?"""
    model = toy()
    value = as_tensor(negative_elbo(model, images(), 0.0), (4,), "the result")
    for name in ("from_z", "bias", "to_mu", "to_logvar"):
        half = "the decoder's" if name in ("from_z", "bias") else "the encoder's"
        found = slope(value, getattr(model, name), "the value at beta = 0", f"{half} {name}")
        expect(bool(found.any()), f"the gradient of {half} {name} is 0", "another", output=found)


@check("3.6")
def gradients_reach_the_encoder_through_the_kl(negative_elbo):
    """The KL is detached: nothing would hold q(z|x) near the prior."""
    model, x = toy(blind=True), images()
    value = as_tensor(negative_elbo(model, x.clone(), 2.0), (4,), "the result")
    mu, _ = model.encode(x)
    expected = 2 * (x.flatten(1) - 0.5).T @ mu
    found = slope(value, model.to_mu, "the value", "the encoder's to_mu")
    expect_close(found, expected, "the KL's slope to a matrix of the encoder", tol=1e-4)


@check("3.6")
def the_model_keeps_its_mode_and_x_its_values(negative_elbo):
    """Training or eval mode is the caller's business, and so is x."""
    for mode in (True, False):
        model, x = Toy().train(mode), images()
        before = x.clone()
        negative_elbo(model, x)
        seen = f"training was {mode} before and is {model.training} after"
        expect(model.training is mode, seen, f"{mode}, as before")
        expect(set(model.modes) == {mode}, f"in between training is {not mode}", f"{mode}")
        expect_equal(x, before, "x after the call", because="as before")


# --- 3.7 sample_prior


class Decoder(Toy):
    """A Toy whose encoder must not be needed."""

    def encode(self, x):
        raise Failure("model.encode was called", "decode alone: no image is needed for a sample")


@check("3.7")
def there_are_n_pictures(sample_prior):
    """z is (n, L), one row a picture; n may be 1."""
    for n, latent_dim in ((5, 2), (1, 7)):
        model = Decoder(latent_dim=latent_dim).eval()
        what = f"the result for n = {n}, L = {latent_dim}"
        x = sample_prior(model, n, latent_dim)
        model.z(n, latent_dim)
        as_tensor(x, (n, 2, 5, 3), what)


@check("3.7")
def pixels_are_the_means(sample_prior):
    """decode gives logits: one sigmoid makes means of them. Nothing is clamped, rounded or
    tossed."""
    model = Decoder(blind=True).eval()
    expected = model.bias.unflatten(0, (2, 5, 3)).expand(3, -1, -1, -1).sigmoid()
    x = sample_prior(model, 3, 2)
    expect_close(
        x, expected, "the pictures, of a decoder that ignores z,", because="sigmoid(logits)"
    )


@check("3.7")
def every_picture_has_its_own_z(sample_prior):
    """One z is repeated for all pictures, or one number for all dimensions of z."""
    model = Decoder(latent_dim=4).eval()
    sample_prior(model, 3, 4)
    z = model.z(3, 4)
    for dim, name in enumerate(("pictures", "dimensions of z")):
        gap = (z.select(dim, 0) - z.select(dim, 1)).abs().max().item()
        expect(gap > 1e-6, f"two {name} have the same numbers", "independent draws", output=z)


@check("3.7")
def every_call_is_new(sample_prior):
    """A seed that is set inside makes every call's pictures the same."""
    model = Decoder().eval()
    first, second = sample_prior(model, 3, 2), sample_prior(model, 3, 2)
    expect(not torch.equal(first, second), "two calls gave the same pictures", "new ones")


@check("3.7")
def z_is_a_draw_of_the_standard_normal(sample_prior):
    """The prior is N(0, I): `torch.randn`, not `torch.rand`, and not scaled."""
    model = Decoder().eval()
    sample_prior(model, 8000, 2)
    z = model.z(8000, 2)
    expect_moments(z, torch.zeros(2), torch.ones(2), "z")
    fourth = z.double().pow(4).mean().item()
    seen = f"the fourth moment of z is {show(fourth)}"
    expect(abs(fourth - 3) <= 6 * math.sqrt(96 / 16000), seen, "3, as for a normal", output=z)


@check("3.7")
def sampling_happens_in_eval_mode(sample_prior):
    """In training mode dropout deletes values and batch norm mixes the pictures: model.eval()
    first."""
    model = Decoder().train()
    sample_prior(model, 3, 2)
    expect(model.modes == [False] * len(model.modes), "decode runs in training mode", "eval mode")


@check("3.7")
def the_mode_is_restored(sample_prior):
    """Remember `model.training` before, and give it back after: `model.train(was)`."""
    for mode in (True, False):
        model = Decoder().train(mode)
        sample_prior(model, 2, 2)
        seen = f"model.training was {mode} and is {model.training} after"
        expect(all(m.training is mode for m in model.modules()), seen, f"{mode}")


@check("3.7")
def no_graph_is_built(sample_prior):
    """Without torch.no_grad() every activation is kept for a backward pass that never comes."""
    model = Decoder()
    x = as_tensor(sample_prior(model, 2, 2), (2, 2, 5, 3), "the result")
    expect(not any(model.with_graph), "gradients are recorded while decoding", "torch.no_grad()")
    expect(not x.requires_grad, "the result has a gradient graph", "none")
    expect(torch.is_grad_enabled(), "gradients are switched off after the call", "on, as before")


# --- 3.8 interpolate


def two_images():
    return torch.rand(2, 5, 3), torch.rand(2, 5, 3)


def expect_drawn(model, x, z, names):
    """Go on if the pictures x are the pixel means of a Toy in eval mode for these z.

    Raises:
        Failure: if not, naming the first that is not.
    """
    expected = (z @ model.from_z + model.bias).unflatten(1, model.shape).sigmoid().detach()
    x = as_tensor(x, tuple(expected.shape), "the result")
    for name, one, other in zip(names, x, expected, strict=True):
        gap = (one - other).abs().max().item()
        seen = f"the {name} picture differs by up to {show(gap)} from sigmoid(decode(z)) of its z"
        expect(gap <= 1e-4, seen, "no difference", output=x)


@check("3.8")
def there_are_as_many_pictures_as_steps(interpolate):
    """steps counts the pictures, with both ends; the result is (steps, C, H, W)."""
    for steps in (5, 2):
        x = interpolate(toy(), *two_images(), steps)
        as_tensor(x, (steps, 2, 5, 3), f"the result for steps = {steps}")


@check("3.8")
def the_ends_are_the_reconstructions(interpolate):
    """First the picture decoded from the mu of x_start, last that of x_end: sigmoid(decode(mu)), of
    mu and not of a draw, and both ends included."""
    model, pair = toy(), two_images()
    mu = model.encode(torch.stack(pair))[0]
    x = as_tensor(interpolate(model, *pair, 4), (4, 2, 5, 3), "the result")
    expect_drawn(model, x[[0, 3]], mu, ("first", "last"))


@check("3.8")
def z_goes_straight_and_in_equal_steps(interpolate):
    """Between the ends z = (1 - t) mu_start + t mu_end with t = 1/4, 2/4, 3/4; mix z, not pictures,
    and do not leave the straight line."""
    model, pair = toy(), two_images()
    start, end = model.encode(torch.stack(pair))[0].detach()
    share = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0])[:, None]
    x = interpolate(model, *pair, 5)
    expect_drawn(model, x, start + share * (end - start), ("1st", "2nd", "3rd", "4th", "5th"))


@check("3.8")
def the_pictures_are_made_in_eval_mode(interpolate):
    """In training mode dropout deletes values at random: model.eval() first."""
    model = Toy().train()
    interpolate(model, *two_images(), 3)
    expect(not any(model.modes), "the model runs in training mode", "eval mode")


@check("3.8")
def the_mode_comes_back(interpolate):
    """Remember `model.training` before, and give it back after: `model.train(was)`."""
    for mode in (True, False):
        model = Toy().train(mode)
        interpolate(model, *two_images(), 3)
        seen = f"model.training was {mode} and is {model.training} after"
        expect(all(m.training is mode for m in model.modules()), seen, f"{mode}")


@check("3.8")
def nothing_is_recorded(interpolate):
    """Without torch.no_grad() every activation is kept for a backward pass that never comes."""
    model = toy()
    x = as_tensor(interpolate(model, *two_images(), 3), (3, 2, 5, 3), "the result")
    expect(not any(model.with_graph), "gradients are recorded meanwhile", "torch.no_grad()")
    expect(not x.requires_grad, "the result has a gradient graph", "none")
    expect(torch.is_grad_enabled(), "gradients are switched off after the call", "on, as before")


@check("3.8")
def both_images_stay_as_they_were(interpolate):
    """`+=`, `lerp_` and their like write into the caller's images."""
    pair = two_images()
    before = [x.clone() for x in pair]
    interpolate(toy(), *pair, 3)
    for name, x, old in zip(("x_start", "x_end"), pair, before, strict=True):
        expect_equal(x, old, f"{name} after the call", because="as before")


# --- 3.9 iwae_bound


@check("3.9")
def there_is_one_bound_for_each_image(iwae_bound):
    """The k draws are dim 0 and go; the B images are dim 1 and stay, also when k or B is 1."""
    for k, batch in ((5, 3), (1, 4), (6, 1)):
        as_tensor(iwae_bound(torch.randn(k, batch)), (batch,), f"the result for ({k}, {batch})")


@check("3.9")
def equal_weights_are_their_own_mean(iwae_bound):
    """If all k weights are p(x), their mean is p(x): has the sum been divided by k? Is there a
    minus?"""
    log_p = torch.tensor([-3.0, 2.0])
    value = iwae_bound(log_p.expand(6, 2).clone())
    expect_close(value, log_p, "the bound for 6 equal log-weights", because="that log-weight")


@check("3.9")
def with_one_draw_it_is_the_log_weight(iwae_bound):
    """k = 1 is the ELBO's estimate, log w itself."""
    log_w = torch.randn(1, 4)
    expect_close(iwae_bound(log_w.clone()), log_w[0], "the bound for k = 1", because="log_w")


@check("3.9")
def weights_of_1_and_3_have_the_mean_2(iwae_bound):
    """The mean is taken of the weights and then the logarithm, along dim 0: not the mean of the
    logarithms, not the largest one."""
    log_w = torch.tensor([[1.0, 8.0], [3.0, 2.0]]).log()
    expected = torch.tensor([2.0, 5.0]).log()
    what = "the bound for the weights 1, 3 of one image and 8, 2 of another"
    expect_close(iwae_bound(log_w.clone()), expected, what, because="log 2 and log 5")


@check("3.9")
def log_weights_of_1000_are_no_problem(iwae_bound):
    """exp(-1000) is 0 and exp(1000) infinite: take the maximum out first, as logsumexp does."""
    for shift in (-1000.0, 1000.0):
        log_w = torch.tensor([[1.0, 8.0], [3.0, 2.0]]).log() + shift
        expected = torch.tensor([2.0, 5.0]).log() + shift
        expect_close(
            iwae_bound(log_w), expected, f"the bound for log-weights near {shift:.0f}", tol=1e-6
        )


@check("3.9")
def each_image_has_a_maximum_of_its_own(iwae_bound):
    """One maximum for the whole batch: the weights of all other images become 0."""
    log_w = torch.tensor([[-1000.0, 0.0], [-1000.0, 0.0]])
    what = "the bound for log-weights of -1000 for one image and 0 for another"
    expect_close(iwae_bound(log_w.clone()), log_w[0], what)


@check("3.9")
def more_draws_make_it_tighter(iwae_bound):
    """On average the bound grows with k and stays below log p(x), here 0; the mean of log-weights
    does not grow."""
    log_w = torch.randn(16, 4000) - 0.5  # the mean of exp(log_w) is 1
    means = []
    for k in (1, 4, 16):
        means.append(as_tensor(iwae_bound(log_w[:k].clone()), (4000,), "the result").mean().item())
    seen = f"for k = 1, 4, 16 the mean bound on log p(x) = 0 is {', '.join(map(show, means))}"
    rises = means[0] + 0.1 < means[1] and means[1] + 0.02 < means[2] < 0.03
    expect(rises, seen, "about -0.5, then closer and closer to 0 from below")


@check("3.9")
def the_log_weights_stay_as_they_were(iwae_bound):
    """`log_w -= ...` writes into the caller's tensor."""
    log_w = torch.randn(5, 3)
    before = log_w.clone()
    iwae_bound(log_w)
    expect_equal(log_w, before, "log_w after the call", because="as before")


@check("3.9")
def large_weights_get_most_of_the_gradient(iwae_bound):
    """The slope along each log-weight is its share of the sum, w / (w_1 + ... + w_k)."""
    log_w = torch.randn(5, 3, requires_grad=True)
    value = as_tensor(iwae_bound(log_w), (3,), "the bound")
    found = slope(value, log_w, "the bound", "log_w")
    expect_close(found, log_w.softmax(dim=0), "d bound / d log_w", because="normalised weights")


# --- 3.10 log_importance_weights


@check("3.10")
def weights_are_k_by_b(log_importance_weights):
    """One row a draw, one column an image, also when k or B is 1."""
    for k, batch in ((5, 3), (1, 4), (6, 1)):
        value = log_importance_weights(toy(), images(batch), k)
        as_tensor(value, (k, batch), f"the result for k = {k}, B = {batch}")


@check("3.10")
def each_column_belongs_to_its_image(log_importance_weights):
    """For a decoder that ignores z, and q equal to the prior, log w is log p(x) of the column's
    image. Were images and draws flattened in one order and unflattened in the other?"""
    model, x = toy(blind=True, prior=True), images(3)
    expected = -model.nll(x).expand(4, 3)
    value = log_importance_weights(model, x.clone(), 4)
    expect_close(value, expected, "log w for k = 4", tol=1e-4, because="log p(x), four times")


@check("3.10")
def the_draws_come_from_q(log_importance_weights):
    """z is drawn by `reparameterize(mu, logvar)`: not mu itself, not a draw of the prior, whose
    weights would be p(x|z) alone."""
    model, x = toy(), images(1)
    mu, logvar = model.encode(x)
    log_importance_weights(model, x.clone(), 1500)
    z = model.z(1500, 2)
    expect_moments(z, mu[0].detach(), (0.5 * logvar[0]).exp().detach(), "z")


@check("3.10")
def all_draws_are_independent(log_importance_weights):
    """The same draw is used for several k or several images: draw k * B times L numbers."""
    model, x = toy(), images(1).expand(3, -1, -1, -1)
    log_importance_weights(model, x.clone(), 5)
    z = model.z(15, 2)
    for column in range(2):
        different = len(z[:, column].unique())
        seen = f"for k = 5 and 3 copies of an image, {different} different z are decoded"
        expect(different == 15, seen, "15", output=z)


@check("3.10")
def it_is_log_likelihood_plus_log_prior_minus_log_q(log_importance_weights):
    """log p(x|z) + log p(z) - log q(z|x) at the z that was decoded, each density a sum over L. The
    closed-form KL is the mean of the last two, not their value at z."""
    model, x = toy(blind=True), images(1)
    value = as_tensor(log_importance_weights(model, x.clone(), 6), (6, 1), "the result")
    z, (mu, logvar) = model.z(6, 2), model.encode(x)
    log_p = Normal(0.0, 1.0).log_prob(z).sum(dim=1)
    log_q = Normal(mu, (0.5 * logvar).exp()).log_prob(z).sum(dim=1)
    expected = (log_p - log_q - model.nll(x)).sort().values
    what = "log w of six draws, from the smallest to the largest,"
    expect_close(value[:, 0].sort().values, expected, what, tol=1e-4)


@check("3.10")
def the_mean_weight_is_p_of_x(log_importance_weights):
    """Over many draws the mean of w must be p(x), known here by an integral over z."""
    model, x, log_p = one_dimensional()
    with torch.no_grad():  # a q that is wide enough for the weights to have a small variance
        model.shift[1] = -0.3
        model.to_logvar.zero_()
        model.to_mu.mul_(0.3)
        model.shift[0] = 0.2
    log_w = as_tensor(log_importance_weights(model, x.clone(), 2000), (2000, 1), "the result")
    ratio = (log_w - log_p).exp()
    mean, room = ratio.mean().item(), 6 * ratio.std().item() / math.sqrt(2000)
    seen = f"the mean of 2000 weights is {show(mean)} times p(x)"
    expect(abs(mean - 1) <= room + 1e-3, seen, "1", output=ratio)


@check("3.10")
def gradients_flow_through_z_and_through_q(log_importance_weights):
    """With the noise held fixed, log q(z|x) does not depend on mu, and log p(z) does: the slope to
    mu is -z. Is z or q detached?"""
    model, x = toy(blind=True), images(1)
    value = as_tensor(log_importance_weights(model, x.clone(), 7), (7, 1), "the result")
    expected = -(x.flatten(1) - 0.5).T @ model.z(7, 2).sum(dim=0, keepdim=True)
    found = slope(value, model.to_mu, "log w", "the encoder's to_mu")
    expect_close(found, expected, "the slope of log w to a matrix of the encoder", tol=1e-4)
    found = slope(value, model.bias, "log w", "the decoder's bias")
    expect(bool(found.any()), "the gradient of the decoder is 0", "another")
