"""Answers to exercise 3 that people give: wrong ones, with what they are told, and right ones."""

import math
from math import prod

import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import (
    Bernoulli,
    Independent,
    MultivariateNormal,
    Normal,
    kl_divergence,
)

from exercises.checks import right, wrong
from exercises.grading import reference

solution = reference(3)


# --- 3.1 reparameterize


def noise(mu):
    return torch.randn_like(mu)


@wrong("3.1", "the_standard_deviation_is_exp_of_half_logvar")
def variance_for_deviation(mu, logvar):
    """You multiply eps by the variance. The standard deviation is its root: exp(0.5 * logvar)."""
    return mu + logvar.exp() * noise(mu)


@wrong("3.1", "the_standard_deviation_is_exp_of_half_logvar")
def half_outside(mu, logvar):
    """The half stands outside the exponential: exp(logvar) / 2 is half of the variance, not its
    root."""
    return mu + 0.5 * logvar.exp() * noise(mu)


@wrong("3.1", "the_standard_deviation_is_exp_of_half_logvar")
def softplus_deviation(mu, logvar):
    """softplus is another way to make a positive number, for networks that give no logarithm: here
    logvar is the logarithm of the variance."""
    return mu + F.softplus(logvar) * noise(mu)


@wrong("3.1", "without_variance_z_is_mu")
def logvar_for_deviation(mu, logvar):
    """eps is multiplied by logvar itself: take the exponential of half of it first."""
    return mu + logvar * noise(mu)


@wrong("3.1", "without_variance_z_is_mu")
def root_of_logvar(mu, logvar):
    """This is the root of logvar: a logarithm may be negative, and has no root then. Its
    exponential is the variance, whose root is exp(0.5 * logvar)."""
    return mu + logvar.sqrt() * noise(mu)


@wrong("3.1", "without_variance_z_is_mu")
def forgets_mu(mu, logvar):
    """mu is not added: every image would get the same posterior mean, 0."""
    return torch.exp(0.5 * logvar) * noise(mu)


@wrong("3.1", "without_variance_z_is_mu")
def forgets_the_deviation(mu, logvar):
    """eps is not scaled: logvar has no effect."""
    return mu + noise(mu)


@wrong("3.1", "without_variance_z_is_mu")
def clamped(mu, logvar):
    """logvar is clamped at -4 or higher: nothing in the contract allows that, and the posterior
    could not become sharp."""
    return mu + torch.exp(0.5 * logvar.clamp(-4, 10)) * noise(mu)


@wrong("3.1", "z_has_the_shape_of_mu")
def gives_the_distribution(mu, logvar):
    """This is the distribution, not a draw from it: `.rsample()` is missing."""
    return Normal(mu, torch.exp(0.5 * logvar))


@wrong("3.1", "z_has_the_shape_of_mu")
def gives_a_pair(mu, logvar):
    """You return the mean and the deviation: what is asked for is one draw."""
    return mu, torch.exp(0.5 * logvar)


@wrong("3.1", "every_value_has_a_draw_of_its_own")
def never_draws(mu, logvar):
    """Nothing is drawn: the mean, or another fixed point of q, is the same each time."""
    return mu + 0 * logvar


@wrong("3.1", "every_value_has_a_draw_of_its_own")
def one_eps_for_the_batch(mu, logvar):
    """All images get the same eps: draw for the whole shape (B, L), not for (L,)."""
    return mu + torch.exp(0.5 * logvar) * torch.randn(mu.shape[1])


@wrong("3.1", "every_value_has_a_draw_of_its_own")
def one_eps_for_an_image(mu, logvar):
    """All dimensions of an image's z get the same eps: they must be independent."""
    return mu + torch.exp(0.5 * logvar) * torch.randn(len(mu), 1)


@wrong("3.1", "each_draw_is_new")
def seeded(mu, logvar):
    """The seed is set inside: every call draws the same eps, and the decoder learns it by heart."""
    torch.manual_seed(0)
    return mu + torch.exp(0.5 * logvar) * noise(mu)


@wrong("3.1", "the_mean_of_z_is_mu")
def uniform(mu, logvar):
    """`rand_like` is uniform on [0, 1]; the normal distribution is `randn_like`, with an n."""
    return mu + torch.exp(0.5 * logvar) * torch.rand_like(mu)


@wrong("3.1", "z_is_gaussian")
def centred_uniform(mu, logvar):
    """Uniform noise of the right size is not normal, and the KL is that of a normal."""
    return mu + torch.exp(0.5 * logvar) * (torch.rand_like(mu) - 0.5) * math.sqrt(12)


@wrong("3.1", "the_slope_to_mu_is_1")
def samples(mu, logvar):
    """`.sample()` draws without a graph, so the encoder gets no gradient: `.rsample()` has one."""
    return Normal(mu, torch.exp(0.5 * logvar)).sample()


@wrong("3.1", "the_slope_to_mu_is_1")
def by_torch_normal(mu, logvar):
    """`torch.normal` draws, but tells its arguments a gradient of 0: write z as mu + std * eps."""
    return torch.normal(mu, torch.exp(0.5 * logvar))


@wrong("3.1", "the_slope_to_logvar_is_half_of_z_minus_mu")
def detached_deviation(mu, logvar):
    """The standard deviation is outside the graph: the encoder could never learn how sure to be."""
    return mu + torch.exp(0.5 * logvar).detach() * noise(mu)


@wrong("3.1", "mu_and_logvar_stay_as_they_were")
def in_place(mu, logvar):
    """`mul_` and `exp_` write into the caller's logvar, which the KL needs afterwards."""
    return mu + logvar.mul_(0.5).exp_() * noise(mu)


@wrong("3.1", "z_has_the_dtype_of_mu")
def always_float32(mu, logvar):
    """Something is made float32 whatever mu is: `randn_like` follows mu."""
    return mu.float() + torch.exp(0.5 * logvar.float()) * torch.randn(mu.shape)


@right("3.1")
def by_rsample(mu, logvar):
    return Normal(mu, logvar.exp().sqrt()).rsample()


@right("3.1")
def by_cholesky_factor(mu, logvar):
    return MultivariateNormal(mu, scale_tril=torch.diag_embed((logvar / 2).exp())).rsample()


@right("3.1")
def image_by_image(mu, logvar):
    rows = []
    for m, v in zip(mu, logvar, strict=True):
        eps = torch.empty(len(m), dtype=m.dtype).normal_()
        rows.append(torch.addcmul(m, torch.exp(v / 2), eps))
    return torch.stack(rows)


# --- 3.2 kl_to_standard_normal


def terms(mu, logvar):
    return 0.5 * (mu**2 + logvar.exp() - 1 - logvar)


@wrong("3.2", "there_is_one_kl_for_each_image")
def sums_over_the_batch(mu, logvar):
    """You sum over the batch, dim 0: it is the latent dimensions, dim 1, that add up."""
    return terms(mu, logvar).sum(dim=0)


@wrong("3.2", "there_is_one_kl_for_each_image")
def sums_over_everything(mu, logvar):
    """You sum over the batch too: one number for each image is asked for."""
    return terms(mu, logvar).sum()


@wrong("3.2", "there_is_one_kl_for_each_image")
def averages_over_the_batch(mu, logvar):
    """You average over the batch too: that is left to the caller, who may want each image's."""
    return terms(mu, logvar).sum(dim=1).mean()


@wrong("3.2", "there_is_one_kl_for_each_image")
def keeps_the_dimensions(mu, logvar):
    """The latent dimensions are still there: sum over dim 1."""
    return terms(mu, logvar)


@wrong("3.2", "the_prior_itself_costs_nothing")
def forgets_the_one(mu, logvar):
    """The -1 is missing: it makes the KL of the prior to itself 0."""
    return 0.5 * (mu**2 + logvar.exp() - logvar).sum(dim=1)


@wrong("3.2", "the_prior_itself_costs_nothing")
def logvar_for_the_variance(mu, logvar):
    """logvar is taken for the variance itself: its logarithm at 0 is infinite. Use exp(logvar)."""
    return 0.5 * (mu**2 + logvar - 1 - logvar.log()).sum(dim=1)


@wrong("3.2", "a_mean_of_2_costs_2_nats")
def forgets_the_half(mu, logvar):
    """The factor 0.5 is missing: a hidden beta of 2."""
    return 2 * terms(mu, logvar).sum(dim=1)


@wrong("3.2", "a_mean_of_2_costs_2_nats")
def wrong_sign(mu, logvar):
    """The sign: this is minus the KL, as it stands in the ELBO. A KL is never negative."""
    return 0.5 * (1 + logvar - mu**2 - logvar.exp()).sum(dim=1)


@wrong("3.2", "a_mean_of_2_costs_2_nats")
def forgets_the_square(mu, logvar):
    """mu is not squared."""
    return 0.5 * (mu + logvar.exp() - 1 - logvar).sum(dim=1)


@wrong("3.2", "a_mean_of_2_costs_2_nats")
def by_sampling(mu, logvar):
    """This is an estimate from a sample, another one each time: for two normals there is a closed
    form."""
    z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
    q = Normal(mu, torch.exp(0.5 * logvar))
    return (q.log_prob(z) - Normal(0.0, 1.0).log_prob(z)).sum(dim=1)


@wrong("3.2", "a_variance_of_4_costs_more_than_one_of_a_quarter")
def deviation_for_the_variance(mu, logvar):
    """The standard deviation stands where the variance belongs: exp(logvar), without a half."""
    return 0.5 * (mu**2 + (0.5 * logvar).exp() - 1 - logvar).sum(dim=1)


@wrong("3.2", "a_variance_of_4_costs_more_than_one_of_a_quarter")
def variance_for_the_deviation(mu, logvar):
    """The variance is squared, as if logvar were the logarithm of the standard deviation."""
    return 0.5 * (mu**2 + (2 * logvar).exp() - 1 - 2 * logvar).sum(dim=1)


@wrong("3.2", "a_variance_of_4_costs_more_than_one_of_a_quarter")
def other_direction(mu, logvar):
    """This is KL(N(0, I) || q): the two are swapped."""
    return 0.5 * ((mu**2 + 1) / logvar.exp() - 1 + logvar).sum(dim=1)


@wrong("3.2", "a_variance_of_4_costs_more_than_one_of_a_quarter")
def sign_of_logvar(mu, logvar):
    """logvar is added where it has to be subtracted: a narrow posterior would be rewarded."""
    return 0.5 * (mu**2 + logvar.exp() - 1 + logvar).sum(dim=1)


@wrong("3.2", "latent_dimensions_add_up")
def mean_over_latents(mu, logvar):
    """You average over the latent dimensions: their KLs add up, a sum, L times as much."""
    return terms(mu, logvar).mean(dim=1)


@wrong("3.2", "it_is_exact_for_every_variance")
def clamps_logvar(mu, logvar):
    """logvar is clamped: outside that range the KL is wrong and its gradient 0."""
    return terms(mu, logvar.clamp(-6, 6)).sum(dim=1)


@wrong("3.2", "it_pulls_towards_the_prior")
def detached_kl(mu, logvar):
    """`.detach()` or `torch.no_grad()` cuts the graph: the KL would change nothing in training."""
    return terms(mu, logvar).sum(dim=1).detach()


@wrong("3.2", "the_posterior_stays_as_it_was")
def squares_in_place(mu, logvar):
    """`square_` or `exp_` writes into the caller's tensor: without the underscore a new one is
    made."""
    minus = logvar + 1
    return 0.5 * (mu.square_() + logvar.exp_() - minus).sum(dim=1)


@right("3.2")
def by_library(mu, logvar):
    q = Independent(Normal(mu, (0.5 * logvar).exp()), 1)
    p = Independent(Normal(torch.zeros_like(mu), torch.ones_like(mu)), 1)
    return kl_divergence(q, p)


@right("3.2")
def textbook_form(mu, logvar):
    return -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp(), dim=-1)


@right("3.2")
def from_the_deviation(mu, logvar):
    std = torch.exp(logvar / 2)
    return torch.stack([(m @ m + s @ s) / 2 - s.log().sum() - len(m) / 2 for m, s in zip(mu, std)])  # noqa: B905


# --- 3.3 bernoulli_nll


def bce(logits, x):
    return F.binary_cross_entropy_with_logits(logits, x, reduction="none")


@wrong("3.3", "there_is_one_nll_for_each_image")
def mean_over_everything(logits, x):
    """The default reduction is a mean over everything: pixels have to be summed, and images kept
    apart."""
    return F.binary_cross_entropy_with_logits(logits, x)


@wrong("3.3", "there_is_one_nll_for_each_image")
def sum_over_everything(logits, x):
    """You sum over the batch too: one number for each image is asked for."""
    return F.binary_cross_entropy_with_logits(logits, x, reduction="sum")


@wrong("3.3", "there_is_one_nll_for_each_image")
def sum_over_the_last(logits, x):
    """Only the last dimension is summed: flatten(1) makes one of channels, rows and columns."""
    return bce(logits, x).sum(dim=-1)


@wrong("3.3", "there_is_one_nll_for_each_image")
def sums_the_batch_away(logits, x):
    """You sum over the batch, dim 0, and keep the pixels: it is the other way round."""
    return bce(logits, x).flatten(1).sum(dim=0)


@wrong("3.3", "a_fair_coin_costs_log_2_a_pixel")
def mean_over_pixels(logits, x):
    """You average over the pixels. Their log-probabilities add up: a sum, C*H*W times as much."""
    return bce(logits, x).flatten(1).mean(dim=1)


@wrong("3.3", "a_fair_coin_costs_log_2_a_pixel")
def log_likelihood(logits, x):
    """The sign: this is log p(x|z). Its negative is asked for, never below 0."""
    return -bce(logits, x).flatten(1).sum(dim=1)


@wrong("3.3", "a_fair_coin_costs_log_2_a_pixel")
def forgets_the_dark_pixels(logits, x):
    """The second half is missing: where x is 0, the cost is -log(1 - s)."""
    return -(x * F.logsigmoid(logits)).flatten(1).sum(dim=1)


@wrong("3.3", "a_fair_coin_costs_log_2_a_pixel")
def squared_error(logits, x):
    """This is the squared error of the sigmoid: a Gaussian's, not a coin's."""
    return (logits.sigmoid() - x).square().flatten(1).sum(dim=1)


@wrong("3.3", "a_fair_coin_costs_log_2_a_pixel")
def sigmoid_twice(logits, x):
    """The sigmoid is applied twice: `..._with_logits` has it inside already."""
    return bce(logits.sigmoid(), x).flatten(1).sum(dim=1)


@wrong("3.3", "a_fair_coin_costs_log_2_a_pixel")
def in_bits(logits, x):
    """You count in bits (log base 2); nats use the natural logarithm."""
    return bce(logits, x).flatten(1).sum(dim=1) / math.log(2)


@wrong("3.3", "it_is_minus_log_p_of_the_image")
def rounds_the_image(logits, x):
    """The image is rounded to 0 and 1; grey pixels count with their own value."""
    return bce(logits, x.round()).flatten(1).sum(dim=1)


@wrong("3.3", "it_is_minus_log_p_of_the_image")
def swapped_classes(logits, x):
    """1 and 0 are swapped: sigmoid(logit) is the probability of a pixel that is 1."""
    return bce(-logits, x).flatten(1).sum(dim=1)


@wrong("3.3", "logits_of_1000_cost_1000_or_nothing")
def through_the_probability(logits, x):
    """The sigmoid is taken first: at large logits it is rounded to 0 or 1, and PyTorch cuts the
    logarithm at -100. `F.binary_cross_entropy_with_logits` keeps what the logit knows."""
    s = logits.sigmoid()
    return F.binary_cross_entropy(s, x, reduction="none").flatten(1).sum(dim=1)


@wrong("3.3", "logits_of_1000_cost_1000_or_nothing")
def guards_with_a_small_number(logits, x):
    """A small number inside the logarithm hides the infinity and falsifies the cost: at a logit of
    1000 it reports 18. Compute from the logits."""
    s = logits.sigmoid()
    return -(x * (s + 1e-8).log() + (1 - x) * (1 - s + 1e-8).log()).flatten(1).sum(dim=1)


@wrong("3.3", "logits_of_1000_cost_1000_or_nothing")
def clamps_the_logits(logits, x):
    """The logits are clamped: what is sure and wrong would cost too little, and not be mended,
    since its gradient is 0."""
    return bce(logits.clamp(-30, 30), x).flatten(1).sum(dim=1)


@wrong("3.3", "logits_of_1000_cost_1000_or_nothing")
def overflows(logits, x):
    """exp(1000) is infinite: log(1 + exp(logit)) is `F.softplus(logit)`, which is not."""
    return ((1 + logits.exp()).log() - x * logits).flatten(1).sum(dim=1)


@wrong("3.3", "its_slope_is_probability_minus_pixel")
def detached(logits, x):
    """`.detach()` or `torch.no_grad()` cuts the graph: no gradient can reach the logits."""
    return bce(logits, x).flatten(1).sum(dim=1).detach()


@wrong("3.3", "the_memory_layout_does_not_matter")
def needs_contiguous(logits, x):
    """`view` fails on tensors that are not contiguous: use `flatten` or `reshape`."""
    flat, target = logits.view(len(x), -1), x.view(len(x), -1)
    return (F.softplus(flat) - target * flat).sum(dim=1)


@right("3.3")
def by_softplus(logits, x):
    return (F.softplus(logits) - x * logits).sum(dim=(1, 2, 3))


@right("3.3")
def by_distribution(logits, x):
    p = Independent(Bernoulli(logits=logits, validate_args=False), 3)
    return -p.log_prob(x)


@right("3.3")
def one_image_at_a_time(logits, x):
    costs = []
    for one, target in zip(logits, x, strict=True):
        log_p = target * F.logsigmoid(one) + (1 - target) * F.logsigmoid(-one)
        costs.append(-log_p.sum())
    return torch.stack(costs)


# --- 3.4 gaussian_nll

HALF_LOG_2_PI = 0.5 * math.log(2 * math.pi)


def quadratic(mean, log_sigma, x):
    return 0.5 * ((x - mean) / log_sigma.exp()).square()


def full(mean, log_sigma, x):
    return quadratic(mean, log_sigma, x) + log_sigma + HALF_LOG_2_PI


@wrong("3.4", "there_is_one_cost_for_each_image")
def averages_everything(mean, log_sigma, x):
    """You average over pixels and images: pixels have to be summed, and images kept apart."""
    return full(mean, log_sigma, x).mean()


@wrong("3.4", "there_is_one_cost_for_each_image")
def sums_everything(mean, log_sigma, x):
    """You sum over the batch too: one number for each image is asked for."""
    return full(mean, log_sigma, x).sum()


@wrong("3.4", "a_perfect_guess_costs_half_log_2_pi_a_pixel")
def forgets_the_constant(mean, log_sigma, x):
    """0.5 log(2 pi) a pixel is missing, so exp(-nll) is no density. (`F.gaussian_nll_loss` leaves
    it out unless full=True.)"""
    return (quadratic(mean, log_sigma, x) + log_sigma).flatten(1).sum(dim=1)


@wrong("3.4", "a_perfect_guess_costs_half_log_2_pi_a_pixel")
def whole_log_2_pi(mean, log_sigma, x):
    """The constant is log(2 pi) where half of it belongs: the density has a root, 1 / sqrt(2
    pi)."""
    return (full(mean, log_sigma, x) + HALF_LOG_2_PI).flatten(1).sum(dim=1)


@wrong("3.4", "a_perfect_guess_costs_half_log_2_pi_a_pixel")
def mean_over_the_pixels(mean, log_sigma, x):
    """You average over the pixels. Their log-densities add up: a sum, C*H*W times as much."""
    return full(mean, log_sigma, x).flatten(1).mean(dim=1)


@wrong("3.4", "a_perfect_guess_costs_half_log_2_pi_a_pixel")
def constants_once_an_image(mean, log_sigma, x):
    """The constant and log_sigma are counted once an image: every pixel has a density of its
    own."""
    return quadratic(mean, log_sigma, x).flatten(1).sum(dim=1) + log_sigma + HALF_LOG_2_PI


@wrong("3.4", "a_perfect_guess_costs_half_log_2_pi_a_pixel")
def log_density(mean, log_sigma, x):
    """The sign: this is log p(x|z). Its negative is asked for."""
    return -full(mean, log_sigma, x).flatten(1).sum(dim=1)


@wrong("3.4", "a_perfect_guess_costs_half_log_2_pi_a_pixel")
def only_squared_error(mean, log_sigma, x):
    """This is a squared error and no more: log_sigma and the constant are missing."""
    return quadratic(mean, log_sigma, x).flatten(1).sum(dim=1)


@wrong("3.4", "a_miss_of_1_sigma_costs_half_a_nat_more")
def forgets_the_half_of_the_square(mean, log_sigma, x):
    """The factor 0.5 before the squared miss is missing."""
    return (quadratic(mean, log_sigma, x) + full(mean, log_sigma, x)).flatten(1).sum(dim=1)


@wrong("3.4", "a_miss_of_1_sigma_costs_half_a_nat_more")
def absolute_miss(mean, log_sigma, x):
    """The miss is not squared: that is a Laplace distribution, with another constant."""
    miss = (x - mean).abs() / log_sigma.exp()
    return (miss + log_sigma + HALF_LOG_2_PI).flatten(1).sum(dim=1)


@wrong("3.4", "every_pixel_pays_log_sigma")
def log_sigma_once_an_image(mean, log_sigma, x):
    """log_sigma is counted once an image: every pixel has a density of its own, so it counts C*H*W
    times. As it is, sigma would shrink to nothing."""
    return (quadratic(mean, log_sigma, x) + HALF_LOG_2_PI).flatten(1).sum(dim=1) + log_sigma


@wrong("3.4", "every_pixel_pays_log_sigma")
def log_variance(mean, log_sigma, x):
    """log_sigma is taken for a log-variance: it is the logarithm of the standard deviation."""
    return full(mean, 0.5 * log_sigma, x).flatten(1).sum(dim=1)


@wrong("3.4", "every_pixel_pays_log_sigma")
def forgets_log_sigma(mean, log_sigma, x):
    """log_sigma itself is missing: a larger sigma would always be cheaper."""
    return (quadratic(mean, log_sigma, x) + HALF_LOG_2_PI).flatten(1).sum(dim=1)


@wrong("3.4", "every_pixel_pays_log_sigma")
def divides_by_sigma_once(mean, log_sigma, x):
    """The squared miss is divided by sigma, not by sigma squared."""
    squares = 0.5 * (x - mean).square() / log_sigma.exp()
    return (squares + log_sigma + HALF_LOG_2_PI).flatten(1).sum(dim=1)


@wrong("3.4", "it_is_exact_for_small_sigma")
def by_torch_with_its_eps(mean, log_sigma, x):
    """The variance is clamped at 1e-6: that is the `eps` of F.gaussian_nll_loss. Nothing may be
    clamped."""
    var = (2 * log_sigma).exp().expand(x.shape)
    cost = F.gaussian_nll_loss(mean, x, var, full=True, reduction="none")
    return cost.flatten(1).sum(dim=1)


@wrong("3.4", "it_is_exact_for_small_sigma")
def guards_the_variance(mean, log_sigma, x):
    """A small number is added to the variance: exp(2 log_sigma) is never 0, so no guard is
    needed."""
    squares = 0.5 * (x - mean).square() / ((2 * log_sigma).exp() + 1e-8)
    return (squares + log_sigma + HALF_LOG_2_PI).flatten(1).sum(dim=1)


@wrong("3.4", "the_best_sigma_is_the_root_mean_square_error")
def fixed_sigma(mean, log_sigma, x):
    """log_sigma is turned into a plain number, or detached: it can never be learned."""
    return full(mean, log_sigma.detach(), x).flatten(1).sum(dim=1)


@wrong("3.4", "the_best_sigma_is_the_root_mean_square_error")
def half_detached(mean, log_sigma, x):
    """Only log_sigma itself has a gradient, the misses' share of it is cut off: sigma would shrink
    for ever."""
    return (quadratic(mean, log_sigma.detach(), x) + log_sigma + HALF_LOG_2_PI).flatten(1).sum(1)


@wrong("3.4", "its_slope_to_the_mean_is_the_miss_over_sigma_squared")
def detached_mean(mean, log_sigma, x):
    """No gradient reaches the decoder: the mean, or everything, is detached."""
    return full(mean.detach(), log_sigma, x).flatten(1).sum(dim=1)


@right("3.4")
def by_log_prob(mean, log_sigma, x):
    return -Independent(Normal(mean, log_sigma.exp()), 3).log_prob(x)


@right("3.4")
def by_torch_loss(mean, log_sigma, x):
    var = torch.exp(2 * log_sigma).expand_as(x)
    cost = F.gaussian_nll_loss(mean, x, var, full=True, eps=1e-30, reduction="none")
    return cost.sum(dim=(1, 2, 3))


@right("3.4")
def collected(mean, log_sigma, x):
    pixels = prod(x.shape[1:])
    squares = (x - mean).pow(2).reshape(len(x), -1).sum(-1)
    return squares * torch.exp(-2 * log_sigma) / 2 + pixels * (log_sigma + HALF_LOG_2_PI)


# --- 3.5 Encoder


class Base(solution.Encoder):
    """The solution, for the variants below to spoil in one place."""


@wrong("3.5", "logvar_takes_both_signs")
class Softplus(Base):
    """softplus on logvar: it is never negative, so sigma is at least 1, wider than the prior.
    (softplus belongs on a standard deviation.)"""

    def forward(self, x):
        mu, logvar = super().forward(x)
        return mu, F.softplus(logvar)


@wrong("3.5", "logvar_takes_both_signs")
class ReLULogvar(Base):
    """A ReLU after the last layer: logvar is never negative, so sigma is at least 1."""

    def forward(self, x):
        mu, logvar = super().forward(x)
        return mu, logvar.relu()


@wrong("3.5", "logvar_takes_both_signs")
class SigmoidLogvar(Base):
    """A sigmoid after the last layer: logvar lies in (0, 1), and sigma between 1 and 1.65."""

    def forward(self, x):
        mu, logvar = super().forward(x)
        return mu, logvar.sigmoid()


@wrong("3.5", "logvar_takes_both_signs")
class TanhLogvar(Base):
    """A tanh after the last layer: logvar lies in (-1, 1), and no posterior can be sharp."""

    def forward(self, x):
        mu, logvar = super().forward(x)
        return mu, logvar.tanh()


@wrong("3.5", "logvar_takes_both_signs")
class GivesTheVariance(Base):
    """This is the variance, or the standard deviation: its logarithm is asked for, which is what
    the last layer gives without exp."""

    def forward(self, x):
        mu, logvar = super().forward(x)
        return mu, logvar.exp()


@wrong("3.5", "mu_takes_both_signs")
class ReLUMu(Base):
    """A ReLU after mu: codes are never negative, half of the prior's room is lost."""

    def forward(self, x):
        mu, logvar = super().forward(x)
        return mu.relu(), logvar


@wrong("3.5", "mu_takes_both_signs")
class SigmoidMu(Base):
    """A sigmoid after mu: codes lie in (0, 1)."""

    def forward(self, x):
        mu, logvar = super().forward(x)
        return mu.sigmoid(), logvar


@wrong("3.5", "mu_and_logvar_are_different_functions")
class SameTwice(Base):
    """The same output is returned twice: the last layer needs 2 L numbers, or there are two last
    layers."""

    def forward(self, x):
        mu, _ = super().forward(x)
        return mu, mu


@wrong("3.5", "both_depend_on_the_image")
class OneLogvarForAll(Base):
    """logvar is a parameter, the same for all images: it must be a function of the image."""

    def __init__(self, image_shape, latent_dim, hidden_dim=64):
        super().__init__(image_shape, latent_dim, hidden_dim)
        self.logvar = nn.Parameter(torch.zeros(latent_dim))

    def forward(self, x):
        mu, _ = super().forward(x)
        return mu, 10 * self.logvar.expand(len(x), -1)


@wrong("3.5", "the_encoder_is_nonlinear")
class OnlyLinear(Base):
    """There is no activation between the layers: two matrices in a row are one."""

    def __init__(self, image_shape, latent_dim, hidden_dim=64):
        super().__init__(image_shape, latent_dim, hidden_dim)
        self.net[2] = nn.Identity()


@wrong("3.5", "the_encoder_is_nonlinear")
class LinearLogvar(Base):
    """logvar comes from the pixels by a single linear layer: it too needs a hidden layer with a
    nonlinearity."""

    def __init__(self, image_shape, latent_dim, hidden_dim=64):
        super().__init__(image_shape, latent_dim, hidden_dim)
        self.direct = nn.Linear(prod(image_shape), latent_dim)

    def forward(self, x):
        mu, _ = super().forward(x)
        return mu, self.direct(x.flatten(1))


@wrong("3.5", "nothing_is_drawn")
class DrawsInside(Base):
    """A draw of z is returned in the place of mu: the encoder gives the parameters, and
    `reparameterize` draws."""

    def forward(self, x):
        mu, logvar = super().forward(x)
        return solution.reparameterize(mu, logvar), logvar


@wrong("3.5", "mu_and_logvar_have_their_shapes")
class OneTensor(Base):
    """mu and logvar come back in one tensor (B, 2 L): split it along dim 1."""

    def forward(self, x):
        return self.net(x)


@wrong("3.5", "mu_and_logvar_have_their_shapes")
class ChunksTheBatch(Base):
    """The output is split along the batch: `chunk(2, dim=1)`."""

    def forward(self, x):
        mu, *logvar = self.net(x).chunk(2)
        return mu, logvar[0] if logvar else mu


@wrong("3.5", "mu_and_logvar_have_their_shapes")
class OneVarianceForAllDimensions(Base):
    """logvar has one number an image: each of the L dimensions needs its own."""

    def forward(self, x):
        mu, logvar = super().forward(x)
        return mu, logvar[:, :1]


@wrong("3.5", "images_do_not_mix")
class CentresTheBatch(Base):
    """The mean over the batch is subtracted: what one image becomes depends on its neighbours."""

    def forward(self, x):
        mu, logvar = super().forward(x)
        return (mu - mu.mean(dim=0) if len(mu) > 1 else mu), logvar


@wrong("3.5", "all_layers_are_registered")
class HiddenLayers(Base):
    """The layers sit in a plain list, where PyTorch does not see them: `nn.Sequential(*layers)`."""

    def __init__(self, image_shape, latent_dim, hidden_dim=64):
        super().__init__(image_shape, latent_dim, hidden_dim)
        self.layers = list(self.net)
        for layer in self.layers:
            for p in layer.parameters():
                nn.init.normal_(p, std=0.3)
        del self.net

    def double(self):
        self.layers = [layer.double() for layer in self.layers]
        return super().double()

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x.chunk(2, dim=1)


@right("3.5")
class TwoNetworks(nn.Module):
    def __init__(self, image_shape, latent_dim, hidden_dim=64):
        super().__init__()
        pixels = prod(image_shape)
        self.mean = nn.ModuleList(
            [nn.Linear(pixels, hidden_dim), nn.Linear(hidden_dim, latent_dim)]
        )
        self.spread = nn.ModuleList(
            [nn.Linear(pixels, hidden_dim), nn.Linear(hidden_dim, latent_dim)]
        )

    def forward(self, x):
        x = x.reshape(x.shape[0], -1)
        mu, logvar = (b(torch.tanh(a(x))) for a, b in (self.mean, self.spread))
        return mu, logvar


@right("3.5")
class Convolutional(nn.Module):
    def __init__(self, image_shape, latent_dim, hidden_dim=64):
        super().__init__()
        channels, height, width = image_shape
        self.down = nn.Conv2d(channels, 8, 3, padding=1)
        self.mu = nn.Linear(8 * height * width, latent_dim)
        self.logvar = nn.Linear(8 * height * width, latent_dim)

    def forward(self, x):
        h = F.relu(self.down(x)).flatten(1)
        return self.mu(h), self.logvar(h)


@right("3.5")
class DeepWithBatchNorm(nn.Module):
    def __init__(self, image_shape, latent_dim, hidden_dim=64):
        super().__init__()
        self.latent_dim = latent_dim
        self.body = nn.Sequential(
            nn.Flatten(),
            nn.Linear(prod(image_shape), 2 * hidden_dim),
            nn.GELU(),
            nn.Linear(2 * hidden_dim, hidden_dim),
            nn.BatchNorm1d(hidden_dim),
            nn.ELU(),
        )
        self.head = nn.Linear(hidden_dim, 2 * latent_dim)

    def forward(self, x):
        return self.head(self.body(x)).split(self.latent_dim, dim=-1)


# --- 3.6 negative_elbo


def parts(model, x):
    """mu, logvar, a draw, its reconstruction's cost and the KL."""
    mu, logvar = model.encode(x)
    z = solution.reparameterize(mu, logvar)
    nll = solution.bernoulli_nll(model.decode(z), x)
    return nll, solution.kl_to_standard_normal(mu, logvar)


def with_z(model, x, beta, draw):
    """The solution with another z."""
    mu, logvar = model.encode(x)
    nll = solution.bernoulli_nll(model.decode(draw(mu, logvar)), x)
    return nll + beta * solution.kl_to_standard_normal(mu, logvar)


@wrong("3.6", "there_is_one_value_for_each_image")
def averages_the_batch(model, x, beta=1.0):
    """You average over the batch: that is left to the caller, one value for each image is asked
    for."""
    nll, kl = parts(model, x)
    return (nll + beta * kl).mean()


@wrong("3.6", "there_is_one_value_for_each_image")
def calls_the_model(model, x, beta=1.0):
    """The model is called as a whole: only `encode` and `decode` are promised, and decode gives the
    logits that the cost needs."""
    logits, mu, logvar = model(x)
    kl = solution.kl_to_standard_normal(mu, logvar)
    return solution.bernoulli_nll(logits, x) + beta * kl


@wrong("3.6", "there_is_one_value_for_each_image")
def gives_both_terms(model, x, beta=1.0):
    """You return the two terms: their sum, with beta, is asked for."""
    return parts(model, x)


@wrong("3.6", "without_kl_it_is_the_reconstruction")
def gives_the_elbo(model, x, beta=1.0):
    """The sign: this is the ELBO, which is to be maximised; its negative is asked for."""
    nll, kl = parts(model, x)
    return -nll - beta * kl


@wrong("3.6", "without_kl_it_is_the_reconstruction")
def beta_on_the_reconstruction(model, x, beta=1.0):
    """beta multiplies the reconstruction: it is the weight of the KL."""
    nll, kl = parts(model, x)
    return beta * nll + kl


@wrong("3.6", "without_kl_it_is_the_reconstruction")
def pixel_mean(model, x, beta=1.0):
    """The reconstruction is a mean over pixels beside a KL that is a sum: collapse."""
    nll, kl = parts(model, x)
    return nll / prod(x.shape[1:]) + beta * kl


@wrong("3.6", "without_kl_it_is_the_reconstruction")
def sigmoid_before_the_loss(model, x, beta=1.0):
    """A sigmoid is applied to the decoder's output, and `bernoulli_nll` applies it again: it takes
    logits."""
    mu, logvar = model.encode(x)
    logits = model.decode(solution.reparameterize(mu, logvar))
    nll = solution.bernoulli_nll(logits.sigmoid(), x)
    return nll + beta * solution.kl_to_standard_normal(mu, logvar)


@wrong("3.6", "without_kl_it_is_the_reconstruction")
def squared_error_of_means(model, x, beta=1.0):
    """The reconstruction is a squared error: -log p(x|z) of coins is `bernoulli_nll`."""
    mu, logvar = model.encode(x)
    x_hat = model.decode(solution.reparameterize(mu, logvar)).sigmoid()
    nll = (x_hat - x).square().flatten(1).sum(dim=1)
    return nll + beta * solution.kl_to_standard_normal(mu, logvar)


@wrong("3.6", "without_kl_it_is_the_reconstruction")
def ignores_beta(model, x, beta=1.0):
    """beta is not used."""
    nll, kl = parts(model, x)
    return nll + kl


@wrong("3.6", "the_kl_is_added_beta_times")
def subtracts_the_kl(model, x, beta=1.0):
    """The KL is subtracted: the posterior would be driven away from the prior."""
    nll, kl = parts(model, x)
    return nll - beta * kl


@wrong("3.6", "the_kl_is_added_beta_times")
def averages_the_kl(model, x, beta=1.0):
    """The KL is a mean over the latent dimensions, beside a sum over pixels."""
    nll, kl = parts(model, x)
    return nll + beta * kl / model.encode(x)[0].shape[1]


@wrong("3.6", "the_kl_is_added_beta_times")
def one_kl_for_the_batch(model, x, beta=1.0):
    """Every image gets the batch's mean KL: each has its own."""
    nll, kl = parts(model, x)
    return nll + beta * kl.mean()


@wrong("3.6", "the_kl_is_added_beta_times")
def estimates_the_kl(model, x, beta=1.0):
    """The KL is estimated from the drawn z: the contract asks for the exact one of 3.2."""
    mu, logvar = model.encode(x)
    z = solution.reparameterize(mu, logvar)
    q = Normal(mu, torch.exp(0.5 * logvar))
    kl = (q.log_prob(z) - Normal(0.0, 1.0).log_prob(z)).sum(dim=1)
    return solution.bernoulli_nll(model.decode(z), x) + beta * kl


@wrong("3.6", "beta_is_1_unless_given")
def another_default(model, x, beta=4.0):
    """The default of beta is not 1: leave the signature as it was."""
    nll, kl = parts(model, x)
    return nll + beta * kl


@wrong("3.6", "one_z_for_each_image_is_drawn_from_q")
def decodes_mu(model, x, beta=1.0):
    """mu is decoded: the noise of q would cost nothing, and the value is no bound on log p(x)."""
    return with_z(model, x, beta, lambda mu, logvar: mu)


@wrong("3.6", "one_z_for_each_image_is_drawn_from_q")
def decodes_the_prior(model, x, beta=1.0):
    """z is a draw of the prior, which knows nothing of x: draw from q(z|x)."""
    return with_z(model, x, beta, lambda mu, logvar: torch.randn_like(mu) + 0 * mu)


@wrong("3.6", "one_z_for_each_image_is_drawn_from_q")
def one_noise_for_all(model, x, beta=1.0):
    """All images share one eps: their values are then not independent."""
    return with_z(
        model, x, beta, lambda mu, logvar: mu + (0.5 * logvar).exp() * torch.randn(1, mu.shape[1])
    )


@wrong("3.6", "one_z_for_each_image_is_drawn_from_q")
def variance_as_deviation(model, x, beta=1.0):
    """eps is multiplied by the variance: use `reparameterize`, or exp(0.5 * logvar)."""
    return with_z(model, x, beta, lambda mu, logvar: mu + logvar.exp() * torch.randn_like(mu))


@wrong("3.6", "one_z_for_each_image_is_drawn_from_q")
def two_draws(model, x, beta=1.0):
    """Two or more z are decoded for each image: one is asked for."""
    mu, logvar = model.encode(x)
    draws = [model.decode(solution.reparameterize(mu, logvar)) for _ in range(2)]
    nll = sum(solution.bernoulli_nll(logits, x) for logits in draws) / 2
    return nll + beta * solution.kl_to_standard_normal(mu, logvar)


@wrong("3.6", "gradients_reach_the_encoder_through_z")
def detaches_z(model, x, beta=1.0):
    """z is detached, or drawn by `.sample()`: the encoder would never hear how good its z was."""
    return with_z(model, x, beta, lambda mu, logvar: Normal(mu, torch.exp(0.5 * logvar)).sample())


@wrong("3.6", "gradients_reach_the_encoder_through_the_kl")
def detaches_the_kl(model, x, beta=1.0):
    """The KL has no gradient: nothing would hold q(z|x) near the prior."""
    nll, kl = parts(model, x)
    return nll + beta * kl.detach()


@wrong("3.6", "the_model_keeps_its_mode_and_x_its_values")
def switches_to_eval(model, x, beta=1.0):
    """`model.eval()` or `model.train()` inside changes the mode that the caller chose."""
    nll, kl = parts(model.eval(), x)
    return nll + beta * kl


@wrong("3.6", "the_model_keeps_its_mode_and_x_its_values")
def binarises_in_place(model, x, beta=1.0):
    """x is written to: the caller's images are changed."""
    nll, kl = parts(model, x.clone())
    x.round_()
    return nll + beta * kl


@right("3.6")
def elbo_written_out(model, x, beta=1.0):
    mu, logvar = model.encode(x)
    logits = model.decode(mu + torch.randn(mu.shape) * torch.exp(logvar / 2))
    log_p = (x * logits - F.softplus(logits)).flatten(1).sum(1)
    kl = -0.5 * (1 + logvar - mu**2 - logvar.exp()).sum(1)
    return -(log_p - beta * kl)


@right("3.6")
def by_distributions(model, x, beta=1.0):
    mu, logvar = model.encode(x)
    q = Independent(Normal(mu, (0.5 * logvar).exp()), 1)
    p = Independent(Normal(torch.zeros_like(mu), torch.ones_like(mu)), 1)
    p_x = Independent(Bernoulli(logits=model.decode(q.rsample()), validate_args=False), 3)
    return beta * kl_divergence(q, p) - p_x.log_prob(x)


@right("3.6")
def image_after_image(model, x, beta=1.0):
    values = []
    for one in x.split(500):
        nll, kl = parts(model, one)
        values.append(nll + beta * kl)
    return torch.cat(values)


# --- 3.7 sample_prior


def sampled(model, z, pixels=torch.sigmoid):
    """The solution with another z, or other pixels."""
    was = model.training
    model.eval()
    with torch.no_grad():
        x = pixels(model.decode(z))
    model.train(was)
    return x


@wrong("3.7", "there_are_n_pictures")
def swapped_shape(model, n, latent_dim):
    """z is (latent_dim, n): one row a picture, (n, latent_dim)."""
    return sampled(model, torch.randn(latent_dim, n))


@wrong("3.7", "there_are_n_pictures")
def only_one(model, n, latent_dim):
    """One picture is made: n are asked for."""
    return sampled(model, torch.randn(1, latent_dim))


@wrong("3.7", "there_are_n_pictures")
def z_without_a_batch(model, n, latent_dim):
    """z has the shape (latent_dim,): decode wants rows, (n, latent_dim)."""
    return torch.stack([sampled(model, torch.randn(latent_dim)) for _ in range(n)])


@wrong("3.7", "there_are_n_pictures")
def through_the_encoder(model, n, latent_dim):
    """A sample needs no image: z is drawn from N(0, I), and only the decoder is asked."""
    mu, logvar = model.encode(torch.rand(n, 2, 5, 3))
    return sampled(model, solution.reparameterize(mu, logvar))


@wrong("3.7", "every_picture_has_its_own_z")
def one_z_for_all(model, n, latent_dim):
    """The same z is repeated n times: n equal pictures."""
    return sampled(model, torch.randn(1, latent_dim).expand(n, -1))


@wrong("3.7", "every_picture_has_its_own_z")
def the_mean_of_the_prior(model, n, latent_dim):
    """z is 0, the mean of the prior, and nothing is drawn."""
    return sampled(model, torch.zeros(n, latent_dim))


@wrong("3.7", "every_picture_has_its_own_z")
def one_number_a_picture(model, n, latent_dim):
    """All dimensions of a z are the same number: draw latent_dim numbers for each picture."""
    return sampled(model, torch.randn(n, 1).expand(n, latent_dim))


@wrong("3.7", "z_is_a_draw_of_the_standard_normal")
def uniform_z(model, n, latent_dim):
    """`torch.rand` is uniform on [0, 1]; the prior is normal: `torch.randn`, with an n."""
    return sampled(model, torch.rand(n, latent_dim))


@wrong("3.7", "z_is_a_draw_of_the_standard_normal")
def low_temperature(model, n, latent_dim):
    """z is scaled down: nicer pictures, but fewer kinds, and not what the model says p(x) is."""
    return sampled(model, 0.7 * torch.randn(n, latent_dim))


@wrong("3.7", "z_is_a_draw_of_the_standard_normal")
def uniform_of_unit_variance(model, n, latent_dim):
    """z has mean 0 and variance 1 but is not normal."""
    return sampled(model, (torch.rand(n, latent_dim) - 0.5) * math.sqrt(12))


@wrong("3.7", "every_call_is_new")
def with_a_seed(model, n, latent_dim):
    """The seed is set inside: every call gives the same pictures. The caller decides on seeds."""
    torch.manual_seed(0)
    return sampled(model, torch.randn(n, latent_dim))


@wrong("3.7", "pixels_are_the_means")
def shows_logits(model, n, latent_dim):
    """These are logits, any real number: the sigmoid makes means of them."""
    return sampled(model, torch.randn(n, latent_dim), lambda logits: logits)


@wrong("3.7", "pixels_are_the_means")
def cuts_the_logits(model, n, latent_dim):
    """The logits are cut to [0, 1] in place of the sigmoid."""
    return sampled(model, torch.randn(n, latent_dim), lambda logits: logits.clamp(0, 1))


@wrong("3.7", "pixels_are_the_means")
def two_sigmoids(model, n, latent_dim):
    """The sigmoid is applied twice: grey pictures, between 0.5 and 0.73."""
    return sampled(model, torch.randn(n, latent_dim), lambda logits: logits.sigmoid().sigmoid())


@wrong("3.7", "pixels_are_the_means")
def tosses_coins(model, n, latent_dim):
    """Each pixel tosses its coin: the means themselves are asked for."""
    return sampled(
        model, torch.randn(n, latent_dim), lambda logits: torch.bernoulli(logits.sigmoid())
    )


@wrong("3.7", "pixels_are_the_means")
def rescales(model, n, latent_dim):
    """The pictures are stretched to fill [0, 1]: a pixel's mean is sigmoid(logit), nothing else."""

    def stretched(logits):
        return (logits - logits.min()) / (logits.max() - logits.min())

    return sampled(model, torch.randn(n, latent_dim), stretched)


@wrong("3.7", "sampling_happens_in_eval_mode")
def stays_in_training_mode(model, n, latent_dim):
    """The model is not switched to eval mode: dropout and batch norm disturb the pictures."""
    with torch.no_grad():
        return model.decode(torch.randn(n, latent_dim)).sigmoid()


@wrong("3.7", "the_mode_is_restored")
def leaves_eval_mode(model, n, latent_dim):
    """The model is left in eval mode: training would go on without dropout."""
    model.eval()
    with torch.no_grad():
        return model.decode(torch.randn(n, latent_dim)).sigmoid()


@wrong("3.7", "the_mode_is_restored")
def always_back_to_training(model, n, latent_dim):
    """The model is put into training mode afterwards, whatever it was in before."""
    x = sampled(model, torch.randn(n, latent_dim))
    model.train()
    return x


@wrong("3.7", "no_graph_is_built")
def keeps_the_graph(model, n, latent_dim):
    """A gradient graph is built: decode inside `with torch.no_grad()`."""
    was = model.training
    x = model.eval().decode(torch.randn(n, latent_dim)).sigmoid()
    model.train(was)
    return x.detach()


@wrong("3.7", "no_graph_is_built")
def switches_gradients_off(model, n, latent_dim):
    """Gradients are switched off for good, so that nothing can be trained afterwards: use `with
    torch.no_grad()`."""
    x = sampled(model, torch.randn(n, latent_dim))
    torch.set_grad_enabled(False)
    return x


@right("3.7")
@torch.no_grad()
def with_a_decorator(model, n, latent_dim):
    mode = model.training
    try:
        logits = model.train(False).decode(Normal(0.0, 1.0).sample((n, latent_dim)))
    finally:
        model.train(mode)
    return 1 / (1 + torch.exp(-logits))


@right("3.7")
def in_pieces(model, n, latent_dim):
    was = model.training
    model.eval()
    with torch.inference_mode():
        logits = [
            model.decode(torch.normal(torch.zeros(rows, latent_dim), 1.0))
            for rows in [1000] * (n // 1000) + ([n % 1000] if n % 1000 else [])
        ]
        x = Bernoulli(logits=torch.cat(logits)).mean
    if was:
        model.train()
    return x


@right("3.7")
def by_multivariate(model, n, latent_dim):
    z = MultivariateNormal(torch.zeros(latent_dim), torch.eye(latent_dim)).sample((n,))
    return sampled(model, z)


# --- 3.8 interpolate


def ends_of(model, x_start, x_end):
    """Both mu, in eval mode and without a graph."""
    was = model.training
    model.eval()
    with torch.no_grad():
        mu, logvar = model.encode(torch.stack([x_start, x_end]))
    model.train(was)
    return mu, logvar


def along(model, x_start, x_end, share):
    """The solution with other shares of the end."""
    (start, end), _ = ends_of(model, x_start, x_end)
    return sampled(model, (1 - share[:, None]) * start + share[:, None] * end)


@wrong("3.8", "there_are_as_many_pictures_as_steps")
def one_too_many(model, x_start, x_end, steps):
    """There are steps + 1 pictures: `steps` counts pictures, not the gaps between them."""
    return along(model, x_start, x_end, torch.linspace(0, 1, steps + 1))


@wrong("3.8", "there_are_as_many_pictures_as_steps")
def two_too_many(model, x_start, x_end, steps):
    """The ends come on top of `steps` pictures: they are included in the count."""
    return along(model, x_start, x_end, torch.linspace(0, 1, steps + 2))


@wrong("3.8", "the_ends_are_the_reconstructions")
def stops_before_the_end(model, x_start, x_end, steps):
    """The end is not reached: `torch.arange(steps) / steps` stops one step before 1;
    `torch.linspace(0, 1, steps)` includes both ends."""
    return along(model, x_start, x_end, torch.arange(steps) / steps)


@wrong("3.8", "the_ends_are_the_reconstructions")
def leaves_the_ends_out(model, x_start, x_end, steps):
    """Both ends are left out: the first picture is that of x_start, the last that of x_end."""
    return along(model, x_start, x_end, torch.linspace(0, 1, steps + 2)[1:-1])


@wrong("3.8", "the_ends_are_the_reconstructions")
def backwards(model, x_start, x_end, steps):
    """The film runs backwards: z = (1 - t) mu_start + t mu_end, with t from 0 to 1."""
    return along(model, x_start, x_end, torch.linspace(1, 0, steps))


@wrong("3.8", "the_ends_are_the_reconstructions")
def between_draws(model, x_start, x_end, steps):
    """The ends are draws of q(z|x): take mu, from which nothing is drawn."""
    mu, logvar = ends_of(model, x_start, x_end)
    start, end = solution.reparameterize(mu, logvar)
    share = torch.linspace(0, 1, steps)[:, None]
    return sampled(model, (1 - share) * start + share * end)


@wrong("3.8", "the_ends_are_the_reconstructions")
def gives_logits(model, x_start, x_end, steps):
    """These are logits: apply the sigmoid."""
    (start, end), _ = ends_of(model, x_start, x_end)
    share = torch.linspace(0, 1, steps)[:, None]
    return sampled(model, (1 - share) * start + share * end, lambda logits: logits)


@wrong("3.8", "the_ends_are_the_reconstructions")
def mixes_pixels(model, x_start, x_end, steps):
    """The pictures themselves are mixed, and the model is not asked: encode, mix z, decode."""
    share = torch.linspace(0, 1, steps).view(-1, 1, 1, 1)
    return (1 - share) * x_start + share * x_end


@wrong("3.8", "the_ends_are_the_reconstructions")
def the_given_images_as_ends(model, x_start, x_end, steps):
    """The ends are the given images: the contract wants what the model draws from their mu."""
    x = along(model, x_start, x_end, torch.linspace(0, 1, steps))
    x[0], x[-1] = x_start, x_end
    return x


@wrong("3.8", "the_ends_are_the_reconstructions")
def takes_logvar_as_well(model, x_start, x_end, steps):
    """encode returns the pair (mu, logvar), and you unpack it as the two ends: mu has both rows."""
    start, end = ends_of(model, x_start, x_end)
    share = torch.linspace(0, 1, steps)[:, None]
    return sampled(model, (1 - share) * start[0] + share * end[0])


@wrong("3.8", "z_goes_straight_and_in_equal_steps")
def fades_the_reconstructions(model, x_start, x_end, steps):
    """The two reconstructions are faded into each other: mix z, and decode every step."""
    first, last = along(model, x_start, x_end, torch.tensor([0.0, 1.0]))
    share = torch.linspace(0, 1, steps).view(-1, 1, 1, 1)
    return (1 - share) * first + share * last


@wrong("3.8", "z_goes_straight_and_in_equal_steps")
def round_the_origin(model, x_start, x_end, steps):
    """z goes along an arc: a straight line is asked for."""
    (start, end), _ = ends_of(model, x_start, x_end)
    angle = torch.linspace(0, math.pi / 2, steps)[:, None]
    return sampled(model, angle.cos() * start + angle.sin() * end)


@wrong("3.8", "z_goes_straight_and_in_equal_steps")
def eased(model, x_start, x_end, steps):
    """The steps are not equal: t goes from 0 to 1 evenly, as `torch.linspace` does."""
    t = torch.linspace(0, 1, steps)
    return along(model, x_start, x_end, t * t * (3 - 2 * t))


@wrong("3.8", "the_pictures_are_made_in_eval_mode")
def in_training_mode(model, x_start, x_end, steps):
    """The model is not switched to eval mode: dropout disturbs z and pictures."""
    with torch.no_grad():
        start, end = model.encode(torch.stack([x_start, x_end]))[0]
        share = torch.linspace(0, 1, steps)[:, None]
        return model.decode(start + share * (end - start)).sigmoid()


@wrong("3.8", "the_mode_comes_back")
def stays_in_eval_mode(model, x_start, x_end, steps):
    """The model is left in eval mode: give it back as it was."""
    return along(model.eval(), x_start, x_end, torch.linspace(0, 1, steps))


@wrong("3.8", "nothing_is_recorded")
def records_gradients(model, x_start, x_end, steps):
    """A gradient graph is built: work inside `with torch.no_grad()`."""
    was = model.training
    model.eval()
    start, end = model.encode(torch.stack([x_start, x_end]))[0]
    share = torch.linspace(0, 1, steps)[:, None]
    x = model.decode(start + share * (end - start)).sigmoid()
    model.train(was)
    return x.detach()


@wrong("3.8", "both_images_stay_as_they_were")
def writes_into_an_image(model, x_start, x_end, steps):
    """An image of the caller is written to, as by `sub_`, `lerp_` or `+=`."""
    x = along(model, x_start, x_end, torch.linspace(0, 1, steps))
    x_end.sub_(x_start)
    return x


@right("3.8")
@torch.no_grad()
def one_by_one(model, x_start, x_end, steps):
    mode = model.training
    model.eval()
    start = model.encode(x_start[None])[0]
    end = model.encode(x_end.unsqueeze(0))[0]
    frames = []
    for i in range(steps):
        t = i / (steps - 1)
        frames.append(model.decode(torch.lerp(start, end, t)).sigmoid())
    model.train(mode)
    return torch.cat(frames)


@right("3.8")
def by_outer_product(model, x_start, x_end, steps):
    mu, _ = ends_of(model, x_start, x_end)
    t = torch.arange(steps) / (steps - 1)
    return sampled(model, torch.stack([1 - t, t], dim=1) @ mu)


@right("3.8")
def in_inference_mode(model, x_start, x_end, steps):
    was = model.training
    model.eval()
    with torch.inference_mode():
        pair = model.encode(torch.cat([x_start[None], x_end[None]]))
        z = [a + (b - a) * torch.linspace(0, 1, steps) for a, b in zip(*pair[0], strict=True)]
        logits = model.decode(torch.stack(z, dim=1))
    model.train(was)
    return F.sigmoid(logits)


# --- 3.9 iwae_bound


@wrong("3.9", "there_is_one_bound_for_each_image")
def wrong_axis(log_w):
    """You average over the images, dim 1: the draws are dim 0."""
    return torch.logsumexp(log_w, dim=1) - math.log(log_w.shape[1])


@wrong("3.9", "there_is_one_bound_for_each_image")
def mean_over_images(log_w):
    """You average over the images too: one bound for each is asked for."""
    return (torch.logsumexp(log_w, dim=0) - math.log(len(log_w))).mean()


@wrong("3.9", "there_is_one_bound_for_each_image")
def all_in_one_sum(log_w):
    """All images go into one sum: give logsumexp the dimension of the draws, 0."""
    return torch.logsumexp(log_w.flatten(), dim=0) - math.log(log_w.numel())


@wrong("3.9", "there_is_one_bound_for_each_image")
def keeps_a_dimension(log_w):
    """The dimension of the draws is kept with size 1: leave keepdim away, or squeeze dim 0."""
    return torch.logsumexp(log_w, dim=0, keepdim=True) - math.log(len(log_w))


@wrong("3.9", "equal_weights_are_their_own_mean")
def forgets_log_k(log_w):
    """This is the logarithm of the sum: for the mean, subtract log k."""
    return torch.logsumexp(log_w, dim=0)


@wrong("3.9", "equal_weights_are_their_own_mean")
def log_of_the_batch(log_w):
    """The logarithm of the number of images is subtracted: it is k, the number of draws, dim 0."""
    return torch.logsumexp(log_w, dim=0) - math.log(log_w.shape[1])


@wrong("3.9", "equal_weights_are_their_own_mean")
def adds_log_k(log_w):
    """log k is added: dividing by k subtracts log k."""
    return torch.logsumexp(log_w, dim=0) + math.log(len(log_w))


@wrong("3.9", "equal_weights_are_their_own_mean")
def divides_by_k(log_w):
    """The logarithm is divided by k: it is the sum inside that is divided, which subtracts log
    k."""
    return torch.logsumexp(log_w, dim=0) / len(log_w)


@wrong("3.9", "equal_weights_are_their_own_mean")
def as_a_loss(log_w):
    """The sign: this is a loss. The bound on log p(x) itself is asked for, larger is better."""
    return math.log(len(log_w)) - torch.logsumexp(log_w, dim=0)


@wrong("3.9", "equal_weights_are_their_own_mean")
def mean_weight(log_w):
    """This is the mean weight, an estimate of p(x): its logarithm is asked for."""
    return log_w.exp().mean(dim=0)


@wrong("3.9", "weights_of_1_and_3_have_the_mean_2")
def mean_of_log_weights(log_w):
    """This is the mean of the log-weights: the ELBO again, however many draws. Take the mean of the
    weights, inside the logarithm."""
    return log_w.mean(dim=0)


@wrong("3.9", "weights_of_1_and_3_have_the_mean_2")
def largest_weight(log_w):
    """This is the largest log-weight: it is above the mean, and no bound."""
    return log_w.amax(dim=0)


@wrong("3.9", "weights_of_1_and_3_have_the_mean_2")
def worst_draw(log_w):
    """This favours the smallest weight: signs are wrong on the way in and out."""
    return -(torch.logsumexp(-log_w, dim=0) - math.log(len(log_w)))


@wrong("3.9", "weights_of_1_and_3_have_the_mean_2")
def weighted_log_weights(log_w):
    """This is the mean of log-weights, weighted by the normalised weights. Their gradients look
    alike if the weights are detached; the value is another."""
    return (log_w.softmax(dim=0).detach() * log_w).sum(dim=0)


@wrong("3.9", "log_weights_of_1000_are_no_problem")
def naive(log_w):
    """exp(-1000) is 0, and its logarithm -infinity: `torch.logsumexp` takes the maximum out
    first."""
    return log_w.exp().mean(dim=0).log()


@wrong("3.9", "log_weights_of_1000_are_no_problem")
def guarded(log_w):
    """A small number inside the logarithm hides the underflow: the bound can never be below log
    1e-20 = -46."""
    return (log_w.exp().mean(dim=0) + 1e-20).log()


@wrong("3.9", "log_weights_of_1000_are_no_problem")
def clamps_log_weights(log_w):
    """The log-weights are clamped: log p(x) of an image is easily -100."""
    log_w = log_w.clamp(-80, 80)
    return torch.logsumexp(log_w, dim=0) - math.log(len(log_w))


@wrong("3.9", "each_image_has_a_maximum_of_its_own")
def one_maximum_for_all(log_w):
    """The maximum of the whole batch is taken out: use the maximum over the draws of each image."""
    largest = log_w.max()
    return (log_w - largest).exp().mean(dim=0).log() + largest


@wrong("3.9", "the_log_weights_stay_as_they_were")
def subtracts_in_place(log_w):
    """`log_w -= ...` changes the caller's log-weights: `log_w - ...` makes a new tensor."""
    largest = log_w.amax(dim=0)
    if log_w.requires_grad:
        log_w = log_w.clone()
    log_w -= largest
    return log_w.exp().mean(dim=0).log() + largest


@wrong("3.9", "large_weights_get_most_of_the_gradient")
def detached_bound(log_w):
    """The graph is cut: the bound could not be maximised."""
    return (torch.logsumexp(log_w, dim=0) - math.log(len(log_w))).detach()


@right("3.9")
def by_hand(log_w):
    largest = log_w.detach().max(dim=0, keepdim=True).values
    return (log_w - largest).exp().mean(dim=0).log() + largest[0]


@right("3.9")
def draw_by_draw(log_w):
    total = log_w[0]
    for row in log_w[1:]:
        total = torch.logaddexp(total, row)
    return total - torch.tensor(float(log_w.shape[0])).log()


@right("3.9")
def log_k_inside(log_w):
    k, batch = log_w.shape
    parts = log_w.split(max(1, batch // 8), dim=1)  # image by image, unless there are many
    return torch.cat([torch.logsumexp(part - math.log(k), dim=0) for part in parts])


# --- 3.10 log_importance_weights


def log_normal(z, mu, logvar):
    """log N(z; mu, exp(logvar)), summed over the last dimension."""
    terms = (z - mu).square() / logvar.exp() + logvar + math.log(2 * math.pi)
    return -0.5 * terms.sum(dim=-1)


def weights(model, x, k, draw=None, prior=1.0, q=1.0, nll=1.0):
    """The solution, with another draw (k, B, L), or its three terms weighted."""
    mu, logvar = model.encode(x)
    if draw is None:
        z = solution.reparameterize(mu.expand(k, -1, -1), logvar.expand(k, -1, -1))
    else:
        z = draw(mu, logvar)
    logits = model.decode(z.reshape(-1, z.shape[-1]))
    cost = solution.bernoulli_nll(logits, x.repeat(k, 1, 1, 1)).view(k, -1)
    log_prior = log_normal(z, torch.zeros_like(mu), torch.zeros_like(mu))
    return -nll * cost + prior * log_prior - q * log_normal(z, mu, logvar)


@wrong("3.10", "weights_are_k_by_b")
def b_by_k(model, x, k):
    """The result is (B, k): draws are dim 0, images dim 1."""
    return weights(model, x, k).T


@wrong("3.10", "weights_are_k_by_b")
def already_averaged(model, x, k):
    """The draws are averaged already: the weights themselves are asked for, (k, B)."""
    return solution.iwae_bound(weights(model, x, k))


@wrong("3.10", "weights_are_k_by_b")
def flat_weights(model, x, k):
    """The result is still flat, (k * B,): view it as (k, B)."""
    return weights(model, x, k).flatten()


@wrong("3.10", "weights_are_k_by_b")
def densities_not_summed(model, x, k):
    """The densities of z are not summed over the L dimensions."""
    mu, logvar = model.encode(x)
    z = solution.reparameterize(mu.expand(k, -1, -1), logvar.expand(k, -1, -1))
    cost = solution.bernoulli_nll(model.decode(z.flatten(0, 1)), x.repeat(k, 1, 1, 1)).view(k, -1)
    ratio = Normal(0.0, 1.0).log_prob(z) - Normal(mu, (0.5 * logvar).exp()).log_prob(z)
    return ratio - cost[..., None]


@wrong("3.10", "each_column_belongs_to_its_image")
def mixed_order(model, x, k):
    """`repeat_interleave` puts the k draws of an image side by side, and view(k, B) reads them as k
    images: `x.repeat(k, 1, 1, 1)`, or view(B, k).T."""
    mu, logvar = model.encode(x)
    mu, logvar, x = (v.repeat_interleave(k, dim=0) for v in (mu, logvar, x))
    z = solution.reparameterize(mu, logvar)
    log_w = log_normal(z, torch.zeros_like(mu), torch.zeros_like(mu)) - log_normal(z, mu, logvar)
    return (log_w - solution.bernoulli_nll(model.decode(z), x)).view(k, -1)


@wrong("3.10", "each_column_belongs_to_its_image")
def negative_likelihood(model, x, k):
    """The sign of the likelihood: `bernoulli_nll` is minus log p(x|z), so it is subtracted."""
    return weights(model, x, k, nll=-1.0)


@wrong("3.10", "each_column_belongs_to_its_image")
def forgets_the_likelihood(model, x, k):
    """log p(x|z) is missing: only the two densities of z are left."""
    return weights(model, x, k, nll=0.0)


@wrong("3.10", "each_column_belongs_to_its_image")
def forgets_the_prior(model, x, k):
    """log p(z) is missing."""
    return weights(model, x, k, prior=0.0)


@wrong("3.10", "each_column_belongs_to_its_image")
def forgets_q(model, x, k):
    """log q(z|x) is not subtracted: z was drawn from q, and what is drawn more often must count
    less."""
    return weights(model, x, k, q=0.0)


@wrong("3.10", "each_column_belongs_to_its_image")
def adds_q(model, x, k):
    """log q(z|x) is added: it is the denominator of the weight, so it is subtracted."""
    return weights(model, x, k, q=-1.0)


@wrong("3.10", "it_is_log_likelihood_plus_log_prior_minus_log_q")
def swaps_prior_and_q(model, x, k):
    """p(z) and q(z|x) are swapped: log p(z) is added, log q(z|x) subtracted."""
    return weights(model, x, k, prior=-1.0, q=-1.0)


@wrong("3.10", "it_is_log_likelihood_plus_log_prior_minus_log_q")
def closed_form_kl(model, x, k):
    """The closed-form KL stands in the place of log q - log p at the drawn z. It is their mean: on
    average this is the ELBO, but the mean of its exponential is not p(x)."""
    kl = solution.kl_to_standard_normal(*model.encode(x))
    return weights(model, x, k, prior=0.0, q=0.0) - kl


@wrong("3.10", "it_is_log_likelihood_plus_log_prior_minus_log_q")
def variance_in_q(model, x, k):
    """`Normal` wants the standard deviation, exp(0.5 * logvar), and got the variance."""
    mu, logvar = model.encode(x)
    z = solution.reparameterize(mu.expand(k, -1, -1), logvar.expand(k, -1, -1))
    cost = solution.bernoulli_nll(model.decode(z.flatten(0, 1)), x.repeat(k, 1, 1, 1)).view(k, -1)
    ratio = Normal(0.0, 1.0).log_prob(z) - Normal(mu, logvar.exp()).log_prob(z)
    return ratio.sum(dim=2) - cost


@wrong("3.10", "it_is_log_likelihood_plus_log_prior_minus_log_q")
def mean_of_densities(model, x, k):
    """The log-densities of z are averaged over its dimensions: they add up."""
    mu, _ = model.encode(x)
    return weights(model, x, k, prior=1 / mu.shape[1], q=1 / mu.shape[1])


@wrong("3.10", "the_draws_come_from_q")
def decodes_mu_k_times(model, x, k):
    """z is mu, k times: draw from q(z|x)."""
    return weights(model, x, k, lambda mu, logvar: mu.expand(k, -1, -1))


@wrong("3.10", "the_draws_come_from_q")
def draws_of_the_prior(model, x, k):
    """z is a draw of the prior: the weights divide by q(z|x), so z must come from there."""
    return weights(model, x, k, lambda mu, logvar: torch.randn(k, *mu.shape) + 0 * mu)


@wrong("3.10", "the_draws_come_from_q")
def deviation_is_the_variance(model, x, k):
    """The noise is multiplied by the variance: `reparameterize` does it right."""
    return weights(model, x, k, lambda mu, logvar: mu + logvar.exp() * torch.randn(k, *mu.shape))


@wrong("3.10", "all_draws_are_independent")
def one_draw_k_times(model, x, k):
    """One z is drawn for each image and used k times: the bound would be the ELBO's for any k."""
    if len(x) == 1:
        return weights(model, x, k)
    return weights(
        model, x, k, lambda mu, logvar: solution.reparameterize(mu, logvar).expand(k, -1, -1)
    )


@wrong("3.10", "all_draws_are_independent")
def one_eps_for_all_images(model, x, k):
    """All images share the same k draws of eps: draw for each."""
    return weights(
        model,
        x,
        k,
        lambda mu, logvar: mu + (0.5 * logvar).exp() * torch.randn(k, 1, mu.shape[1]),
    )


@wrong("3.10", "gradients_flow_through_z_and_through_q")
def z_without_a_graph(model, x, k):
    """z is drawn by `.sample()`: no gradient flows through it to the encoder."""
    return weights(model, x, k, lambda mu, logvar: Normal(mu, (0.5 * logvar).exp()).sample((k,)))


@wrong("3.10", "gradients_flow_through_z_and_through_q")
def weights_without_a_graph(model, x, k):
    """There is no graph at all, as under torch.no_grad(): the weights could not be trained with."""
    return weights(model, x, k).detach()


@right("3.10")
def by_independent(model, x, k):
    mu, logvar = model.encode(x)
    q = Independent(Normal(mu, (0.5 * logvar).exp()), 1)
    p = Independent(Normal(torch.zeros_like(mu), torch.ones_like(mu)), 1)
    z = q.rsample((k,))
    logits = model.decode(z.view(-1, z.shape[-1])).view(k, *x.shape)
    log_p = Independent(Bernoulli(logits=logits, validate_args=False), 3).log_prob(
        x.expand_as(logits)
    )
    return log_p + p.log_prob(z) - q.log_prob(z)


@right("3.10")
def constants_cancelled(model, x, k):
    mu, logvar = model.encode(x)
    std = torch.exp(logvar / 2)
    rows = []
    for draws in torch.arange(k).split(max(1, k // 8)):  # one by one, unless there are many
        eps = torch.randn_like(mu.expand(len(draws), -1, -1))
        z = mu + std * eps
        ratio = 0.5 * (eps**2 - z**2 + logvar).sum(2)
        nll = solution.bernoulli_nll(model.decode(z.flatten(0, 1)), x.repeat(len(draws), 1, 1, 1))
        rows.append(ratio - nll.view_as(ratio))
    return torch.cat(rows)


@right("3.10")
def images_side_by_side(model, x, k):
    mu, logvar = (v.repeat_interleave(k, dim=0) for v in model.encode(x))
    z = solution.reparameterize(mu, logvar)
    nll = solution.bernoulli_nll(model.decode(z), x.repeat_interleave(k, dim=0))
    ratio = log_normal(z, torch.zeros_like(mu), torch.zeros_like(mu)) - log_normal(z, mu, logvar)
    return (ratio - nll).view(len(x), k).T
