"""Answers to exercise 4 that people give: wrong ones, with what they are told, and right ones."""

import math
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Normal

from exercises.checks import right, wrong
from exercises.grading import reference

solution = reference(4)


def per_image(values, x):
    """Values (B,) in a shape that meets the batch of x."""
    return values.reshape(-1, *[1] * (x.ndim - 1))


def at(alpha_bar, t, x):
    """alpha_bar of each image's t, where -1 stands for clean data."""
    return per_image(torch.cat([alpha_bar.new_ones(1), alpha_bar])[t + 1], x)


# --- 4.1 alpha_bar_from_beta


@wrong("4.1", "after_the_first_step_1_minus_beta_is_left")
def with_the_clean_step(beta):
    """There is a 1 in front, for the clean data: alpha_bar has T numbers, and the first is
    1 - beta[0]."""
    return torch.cat([beta.new_ones(1), torch.cumprod(1 - beta, dim=0)])


@wrong("4.1", "after_the_first_step_1_minus_beta_is_left")
def only_the_last(beta):
    """This is the product over all steps, one number: each t needs the product up to itself,
    `torch.cumprod`."""
    return torch.prod(1 - beta)


@wrong("4.1", "after_the_first_step_1_minus_beta_is_left")
def exclusive(beta):
    """The step t itself is left out: alpha_bar[0] is 1, as if nothing had happened yet. Everything
    is off by one."""
    return torch.cat([beta.new_ones(1), torch.cumprod(1 - beta, dim=0)[:-1]])


@wrong("4.1", "after_the_first_step_1_minus_beta_is_left")
def product_of_betas(beta):
    """The betas are multiplied: it is the shares that remain, 1 - beta, that multiply."""
    return torch.cumprod(beta, dim=0)


@wrong("4.1", "after_the_first_step_1_minus_beta_is_left")
def share_of_the_noise(beta):
    """This is 1 - alpha_bar, the variance of the noise: alpha_bar is what is left of the data."""
    return 1 - torch.cumprod(1 - beta, dim=0)


@wrong("4.1", "after_the_first_step_1_minus_beta_is_left")
def rooted(beta):
    """This is the factor of x_0, sqrt(alpha_bar): alpha_bar itself is its square."""
    return torch.cumprod((1 - beta).sqrt(), dim=0)


@wrong("4.1", "the_shares_of_all_steps_multiply")
def only_alpha(beta):
    """This is alpha, the share that one step keeps: alpha_bar is its product over all steps so
    far."""
    return 1 - beta


@wrong("4.1", "the_shares_of_all_steps_multiply")
def sum_of_betas(beta):
    """1 minus the sum of the betas is right for small t only, and negative in the end: the shares
    multiply."""
    return 1 - torch.cumsum(beta, dim=0)


@wrong("4.1", "a_thousand_steps_are_exact")
def clamped_from_below(beta):
    """alpha_bar is clamped from below: the last steps would all have the same level."""
    return torch.cumprod(1 - beta, dim=0).clamp(min=1e-3)


@wrong("4.1", "beta_stays_as_it_was")
def in_beta_itself(beta):
    """The result is written into beta: the schedule is lost, and a second call gives something
    else."""
    return beta.neg_().add_(1).cumprod_(dim=0)


@wrong("4.1", "the_dtype_is_that_of_beta")
def always_float32(beta):
    """The result is float32 whatever beta is."""
    return torch.cumprod(1 - beta.float(), dim=0)


@right("4.1")
def by_logarithms(beta):
    return torch.log1p(-beta).cumsum(0).exp()


@right("4.1")
def in_a_loop(beta):
    kept = torch.ones((), dtype=beta.dtype)
    result = torch.empty_like(beta)
    for t, b in enumerate(beta):
        kept = kept * (1 - b)
        result[t] = kept
    return result


@right("4.1")
def accumulated(beta):
    return torch.stack(list(accumulate((1 - beta).unbind(), lambda a, b: a * b)))


# --- 4.2 q_sample


@wrong("4.2", "every_image_has_the_noise_of_its_own_t")
def channel_shape(x_0, t, eps, alpha_bar):
    """alpha_bar[t] has the shape (B, 1, 1), which meets the channels: it must be (B, 1, 1, 1)."""
    a = alpha_bar[t][:, None, None]
    return a.sqrt() * x_0 + (1 - a).sqrt() * eps


@wrong("4.2", "without_noise_the_root_of_alpha_bar_is_left")
def alpha_for_alpha_bar(x_0, t, eps, alpha_bar):
    """This is alpha_t, one step of noise: x_t has had t + 1 of them, which is alpha_bar_t."""
    a = at(alpha_bar, t, x_0) / at(alpha_bar, t - 1, x_0)
    return a.sqrt() * x_0 + (1 - a).sqrt() * eps


@wrong("4.2", "without_noise_the_root_of_alpha_bar_is_left")
def no_roots(x_0, t, eps, alpha_bar):
    """The roots are missing: alpha_bar and 1 - alpha_bar are variances."""
    a = at(alpha_bar, t, x_0)
    return a * x_0 + (1 - a) * eps


@wrong("4.2", "without_noise_the_root_of_alpha_bar_is_left")
def swapped_factors(x_0, t, eps, alpha_bar):
    """The factors are swapped: alpha_bar is the share of the data, 1 - alpha_bar that of the
    noise."""
    a = at(alpha_bar, t, x_0)
    return (1 - a).sqrt() * x_0 + a.sqrt() * eps


@wrong("4.2", "without_noise_the_root_of_alpha_bar_is_left")
def the_step_before(x_0, t, eps, alpha_bar):
    """This is the level of t - 1: alpha_bar[t] contains the step t."""
    a = at(alpha_bar, t - 1, x_0)
    return a.sqrt() * x_0 + (1 - a).sqrt() * eps


@wrong("4.2", "the_noise_has_the_rest_of_the_variance")
def variance_as_deviation(x_0, t, eps, alpha_bar):
    """eps is multiplied by the variance 1 - alpha_bar: the standard deviation is its root."""
    a = at(alpha_bar, t, x_0)
    return a.sqrt() * x_0 + (1 - a) * eps


@wrong("4.2", "the_noise_has_the_rest_of_the_variance")
def rest_of_the_root(x_0, t, eps, alpha_bar):
    """eps is multiplied by 1 - sqrt(alpha_bar): it is the variances that add up to 1, so take
    sqrt(1 - alpha_bar)."""
    a = at(alpha_bar, t, x_0)
    return a.sqrt() * x_0 + (1 - a.sqrt()) * eps


@wrong("4.2", "the_noise_has_the_rest_of_the_variance")
def noise_not_scaled(x_0, t, eps, alpha_bar):
    """eps is not scaled: every t would have the same noise."""
    return at(alpha_bar, t, x_0).sqrt() * x_0 + eps


@wrong("4.2", "without_noise_the_root_of_alpha_bar_is_left")
def noise_of_its_own(x_0, t, eps, alpha_bar):
    """The given eps is not used, new noise is drawn: the loss could not know it."""
    a = at(alpha_bar, t, x_0)
    return a.sqrt() * x_0 + (1 - a).sqrt() * torch.randn_like(eps)


@wrong("4.2", "every_image_has_the_noise_of_its_own_t")
def along_the_width(x_0, t, eps, alpha_bar):
    """alpha_bar[t] has the shape (B,) and meets the columns of the images, which goes unnoticed
    where B is the width: it must be (B, 1, 1, 1)."""
    a = alpha_bar[t]
    return a.sqrt() * x_0 + (1 - a).sqrt() * eps


@wrong("4.2", "every_image_has_the_noise_of_its_own_t")
def one_level_for_all(x_0, t, eps, alpha_bar):
    """All images get the level of the first one: each has its own t."""
    a = alpha_bar[t[0]]
    return a.sqrt() * x_0 + (1 - a).sqrt() * eps


@wrong("4.2", "every_image_has_the_noise_of_its_own_t")
def clamps_x_t(x_0, t, eps, alpha_bar):
    """x_t is clamped to [-1, 1]: it is noisy, and rightly leaves the range of the data."""
    return solution.q_sample(x_0, t, eps, alpha_bar).clamp(-1, 1)


@wrong("4.2", "it_works_for_points_and_a_batch_of_one")
def four_dimensions(x_0, t, eps, alpha_bar):
    """view(-1, 1, 1, 1) is for images only: points have two dimensions, and would become four."""
    a = alpha_bar[t].view(-1, 1, 1, 1)
    return a.sqrt() * x_0 + (1 - a).sqrt() * eps


@wrong("4.2", "x_0_and_eps_stay_as_they_were")
def in_place(x_0, t, eps, alpha_bar):
    """`mul_` or `*=` writes into the caller's x_0 or eps, which is the target of the loss."""
    a = at(alpha_bar, t, x_0)
    return a.sqrt() * x_0 + eps.mul_((1 - a).sqrt())


@right("4.2")
def image_by_image(x_0, t, eps, alpha_bar):
    rows = []
    for x, step, e in zip(x_0, t.tolist(), eps, strict=True):
        a = alpha_bar[step].item()
        rows.append(math.sqrt(a) * x + math.sqrt(1 - a) * e)
    return torch.stack(rows)


@right("4.2")
def by_einsum(x_0, t, eps, alpha_bar):
    signal, noise = alpha_bar.sqrt()[t], (1 - alpha_bar).sqrt()[t]
    signal, noise = signal.to(x_0.dtype), noise.to(x_0.dtype)
    return torch.einsum("b,b...->b...", signal, x_0) + torch.einsum("b,b...->b...", noise, eps)


@right("4.2")
def batch_last(x_0, t, eps, alpha_bar):
    a = alpha_bar.gather(0, t)
    moved = a**0.5 * x_0.movedim(0, -1) + (1 - a) ** 0.5 * eps.movedim(0, -1)
    return moved.movedim(-1, 0)


# --- 4.3 diffusion_loss


def misses(model, x_0, alpha_bar, *, t=None, eps=None, target=None, told=None):
    """eps_hat - target and t, with what is given in place of what the solution does."""
    t = torch.randint(len(alpha_bar), (len(x_0),)) if t is None else t
    eps = torch.randn_like(x_0) if eps is None else eps
    x_t = solution.q_sample(x_0, t, eps, alpha_bar)
    eps_hat = model(x_t, t if told is None else told(t))
    return eps_hat - (eps if target is None else target(x_t, t, eps))


def mean_square(miss):
    return miss.square().flatten(1).mean(dim=1)


@wrong("4.3", "there_is_one_loss_for_each_image")
def averages_the_batch(model, x_0, alpha_bar):
    """You average over the batch too: one loss for each image is asked for, as `F.mse_loss` with
    reduction="none" and a mean over the rest."""
    return misses(model, x_0, alpha_bar).square().mean()


@wrong("4.3", "there_is_one_loss_for_each_image")
def keeps_the_pixels(model, x_0, alpha_bar):
    """The numbers of an image are still apart: average over all dimensions but the first."""
    return misses(model, x_0, alpha_bar).square()


@wrong("4.3", "there_is_one_loss_for_each_image")
def one_number_as_t(model, x_0, alpha_bar):
    """One t is drawn for the whole batch, and not even of the shape (B,): each image needs its
    own."""
    t = torch.randint(len(alpha_bar), (1,))
    x_t = solution.q_sample(x_0, t.expand(len(x_0)), eps := torch.randn_like(x_0), alpha_bar)
    return mean_square(model(x_t, t[0]) - eps)


@wrong("4.3", "there_is_one_loss_for_each_image")
def time_in_0_to_1(model, x_0, alpha_bar):
    """The model is told t / T, a float: it takes t itself, int64."""
    return mean_square(misses(model, x_0, alpha_bar, told=lambda t: t / len(alpha_bar)))


@wrong("4.3", "every_t_is_drawn_equally_often")
def never_the_first(model, x_0, alpha_bar):
    """randint(1, T) never draws t = 0, so that the step with the least noise is not trained."""
    t = torch.randint(1, len(alpha_bar), (len(x_0),))
    return mean_square(misses(model, x_0, alpha_bar, t=t))


@wrong("4.3", "every_t_is_drawn_equally_often")
def never_the_last(model, x_0, alpha_bar):
    """randint(0, T - 1) never draws T-1, where sampling begins: the upper end is left out
    already."""
    t = torch.randint(0, len(alpha_bar) - 1, (len(x_0),))
    return mean_square(misses(model, x_0, alpha_bar, t=t))


@wrong("4.3", "every_t_is_drawn_equally_often")
def one_t_for_the_batch(model, x_0, alpha_bar):
    """All images share one t: draw (B,) of them, and the gradient is an average over many."""
    t = torch.randint(len(alpha_bar), (1,)).expand(len(x_0))
    return mean_square(misses(model, x_0, alpha_bar, t=t))


@wrong("4.3", "every_t_is_drawn_equally_often")
def not_uniform(model, x_0, alpha_bar):
    """t is not drawn uniformly, some are rarer than others. Rounding does that at the ends, too."""
    t = (torch.rand(len(x_0)) * (len(alpha_bar) - 1)).round().long()
    return mean_square(misses(model, x_0, alpha_bar, t=t))


@wrong("4.3", "every_t_is_drawn_equally_often")
def counted_from_1(model, x_0, alpha_bar):
    """The model is told t + 1, as papers count: here t is 0 ... T-1 everywhere."""
    return mean_square(misses(model, x_0, alpha_bar, told=lambda t: t + 1))


@wrong("4.3", "a_model_that_knows_the_noise_costs_nothing")
def fresh_noise(model, x_0, alpha_bar):
    """The target is new noise, not the eps in x_t: nobody could predict it, and the loss stays
    near 1."""
    return mean_square(
        misses(model, x_0, alpha_bar, target=lambda x_t, t, eps: torch.randn_like(eps))
    )


@wrong("4.3", "a_model_that_knows_the_noise_costs_nothing")
def x_0_as_target(model, x_0, alpha_bar):
    """The target is x_0: here the model predicts the noise."""
    return mean_square(misses(model, x_0, alpha_bar, target=lambda *_: x_0))


@wrong("4.3", "a_model_that_knows_the_noise_costs_nothing")
def scaled_noise_as_target(model, x_0, alpha_bar):
    """The target is sqrt(1 - alpha_bar) eps, the noise as it is in x_t: eps itself, of variance 1,
    is asked for."""
    return mean_square(
        misses(
            model,
            x_0,
            alpha_bar,
            target=lambda x_t, t, eps: (1 - at(alpha_bar, t, eps)).sqrt() * eps,
        )
    )


@wrong("4.3", "a_model_that_knows_the_noise_costs_nothing")
def clean_input(model, x_0, alpha_bar):
    """The model is given x_0, which has no noise in it: it needs x_t."""
    t, eps = torch.randint(len(alpha_bar), (len(x_0),)), torch.randn_like(x_0)
    return mean_square(model(x_0.clone(), t) - eps)


@wrong("4.3", "the_noise_is_standard_normal")
def uniform_noise(model, x_0, alpha_bar):
    """`rand_like` is uniform on [0, 1]; the normal distribution is `randn_like`, with an n."""
    return mean_square(misses(model, x_0, alpha_bar, eps=torch.rand_like(x_0)))


@wrong("4.3", "the_noise_is_standard_normal")
def one_noise_for_the_batch(model, x_0, alpha_bar):
    """All images share one eps: draw for the whole shape of x_0."""
    eps = torch.randn_like(x_0[:1]).expand_as(x_0)
    return mean_square(misses(model, x_0, alpha_bar, eps=eps))


@wrong("4.3", "it_is_the_mean_squared_miss_of_an_image")
def sums_the_pixels(model, x_0, alpha_bar):
    """You sum over the numbers of an image: the contract asks for their mean, about 1 for a model
    that says nothing."""
    return misses(model, x_0, alpha_bar).square().flatten(1).sum(dim=1)


@wrong("4.3", "it_is_the_mean_squared_miss_of_an_image")
def absolute_miss(model, x_0, alpha_bar):
    """The miss is not squared: that is the L1 loss, whose best answer is a median."""
    return misses(model, x_0, alpha_bar).abs().flatten(1).mean(dim=1)


@wrong("4.3", "it_is_the_mean_squared_miss_of_an_image")
def weighted_by_t(model, x_0, alpha_bar):
    """The loss is multiplied by the signal-to-noise ratio, a weight that depends on t: the simple
    loss has none."""
    t = torch.randint(len(alpha_bar), (len(x_0),))
    return mean_square(misses(model, x_0, alpha_bar, t=t)) * (alpha_bar / (1 - alpha_bar))[t]


@wrong("4.3", "gradients_flow_to_the_model")
def without_a_graph(model, x_0, alpha_bar):
    """The model runs under `torch.no_grad()`, or the loss is detached: nothing can be learned."""
    with torch.no_grad():
        return mean_square(misses(model, x_0, alpha_bar))


@wrong("4.3", "draws_are_new_and_x_0_and_mode_stay")
def seeded(model, x_0, alpha_bar):
    """The seed is set inside: every batch gets the same t and the same noise."""
    torch.manual_seed(0)
    return mean_square(misses(model, x_0, alpha_bar))


@wrong("4.3", "draws_are_new_and_x_0_and_mode_stay")
def switches_to_training(model, x_0, alpha_bar):
    """`model.train()` or `model.eval()` inside changes the mode that the caller chose."""
    return mean_square(misses(model.train(), x_0, alpha_bar))


@wrong("4.3", "draws_are_new_and_x_0_and_mode_stay")
def noise_into_x_0(model, x_0, alpha_bar):
    """The noise is added to the caller's x_0: build a new tensor."""
    t, eps = torch.randint(len(alpha_bar), (len(x_0),)), torch.randn_like(x_0)
    a = at(alpha_bar, t, x_0)
    x_t = x_0.mul_(a.sqrt()).add_((1 - a).sqrt() * eps)
    return mean_square(model(x_t, t) - eps)


@right("4.3")
def written_out(model, x_0, alpha_bar):
    batch, *rest = x_0.shape
    t = (torch.rand(batch) * alpha_bar.shape[0]).long().clamp(max=len(alpha_bar) - 1)
    eps = torch.normal(torch.zeros(batch, *rest), 1.0)
    a = alpha_bar.index_select(0, t).reshape([batch] + [1] * len(rest))
    guess = model(torch.sqrt(a) * x_0 + torch.sqrt(1 - a) * eps, t)
    return ((eps - guess) ** 2).mean(dim=tuple(range(1, x_0.ndim)))


@right("4.3")
def by_mse_loss(model, x_0, alpha_bar):
    t = torch.randint(0, alpha_bar.numel(), (x_0.size(0),), dtype=torch.long)
    eps = Normal(0.0, 1.0).sample(x_0.shape).to(x_0.dtype)
    eps_hat = model(solution.q_sample(x_0, t, eps, alpha_bar), t)
    return F.mse_loss(eps_hat, eps, reduction="none").reshape(len(x_0), -1).mean(-1)


@right("4.3")
def in_two_parts(model, x_0, alpha_bar):
    losses = []
    for part in x_0.split(max(1, len(x_0) // 2)):
        t = torch.multinomial(torch.ones_like(alpha_bar), len(part), replacement=True)
        losses.append(mean_square(misses(model, part, alpha_bar, t=t)))
    return torch.cat(losses)


# --- 4.4 predict_x0


@wrong("4.4", "without_noise_x_t_is_only_scaled_back")
def not_scaled_back(x_t, t, eps_hat, alpha_bar):
    """The division is missing: what remains is sqrt(alpha_bar) x_0, too pale."""
    return x_t - (1 - at(alpha_bar, t, x_t)).sqrt() * eps_hat


@wrong("4.4", "without_noise_x_t_is_only_scaled_back")
def divides_by_alpha_bar(x_t, t, eps_hat, alpha_bar):
    """You divide by alpha_bar: x_0 was multiplied by its root."""
    a = at(alpha_bar, t, x_t)
    return (x_t - (1 - a).sqrt() * eps_hat) / a


@wrong("4.4", "without_noise_x_t_is_only_scaled_back")
def one_step_back(x_t, t, eps_hat, alpha_bar):
    """This is the mean of x_{t-1}, one step back, with alpha_t and beta_t: x_0 is all the way
    back."""
    a = at(alpha_bar, t, x_t)
    alpha = a / at(alpha_bar, t - 1, x_t)
    return (x_t - (1 - alpha) / (1 - a).sqrt() * eps_hat) / alpha.sqrt()


@wrong("4.4", "all_of_the_noise_is_taken_out")
def adds_the_noise(x_t, t, eps_hat, alpha_bar):
    """The noise is added once more: it was added on the way to x_t, so subtract it."""
    a = at(alpha_bar, t, x_t)
    return (x_t + (1 - a).sqrt() * eps_hat) / a.sqrt()


@wrong("4.4", "all_of_the_noise_is_taken_out")
def noise_without_a_root(x_t, t, eps_hat, alpha_bar):
    """eps_hat is multiplied by the variance 1 - alpha_bar: the noise in x_t has its root as a
    factor."""
    a = at(alpha_bar, t, x_t)
    return (x_t - (1 - a) * eps_hat) / a.sqrt()


@wrong("4.4", "all_of_the_noise_is_taken_out")
def divides_x_t_alone(x_t, t, eps_hat, alpha_bar):
    """Only x_t is divided: brackets belong around the whole difference."""
    a = at(alpha_bar, t, x_t)
    return x_t / a.sqrt() - (1 - a).sqrt() * eps_hat


@wrong("4.4", "it_undoes_q_sample_for_each_image")
def along_the_columns(x_t, t, eps_hat, alpha_bar):
    """alpha_bar[t] has the shape (B,) and meets the columns of the images, which goes unnoticed
    where B is the width: it must be (B, 1, 1, 1)."""
    a = alpha_bar[t]
    return (x_t - (1 - a).sqrt() * eps_hat) / a.sqrt()


@wrong("4.4", "it_undoes_q_sample_for_each_image")
def level_of_the_first(x_t, t, eps_hat, alpha_bar):
    """All images get the level of the first one: each has its own t."""
    return solution.predict_x0(x_t, t[:1].expand(len(t)), eps_hat, alpha_bar)


@wrong("4.4", "it_undoes_q_sample_for_each_image")
def only_pictures(x_t, t, eps_hat, alpha_bar):
    """view(-1, 1, 1, 1) is for images only: points have two dimensions."""
    a = alpha_bar[t].view(-1, 1, 1, 1)
    return (x_t - (1 - a).sqrt() * eps_hat) / a.sqrt()


@wrong("4.4", "nothing_is_clamped")
def clamps(x_t, t, eps_hat, alpha_bar):
    """The estimate is clamped to [-1, 1]: a sampler may do that, this function must not."""
    return solution.predict_x0(x_t, t, eps_hat, alpha_bar).clamp(-1, 1)


@wrong("4.4", "gradients_flow_to_eps_hat")
def detached(x_t, t, eps_hat, alpha_bar):
    """`.detach()` or `torch.no_grad()` cuts the graph."""
    return solution.predict_x0(x_t, t, eps_hat.detach(), alpha_bar)


@wrong("4.4", "x_t_and_eps_hat_stay_as_they_were")
def into_x_t(x_t, t, eps_hat, alpha_bar):
    """`sub_`, `-=` or `div_` writes into the caller's x_t, which the sampler still needs."""
    a = at(alpha_bar, t, x_t)
    return x_t.sub_((1 - a).sqrt() * eps_hat).div_(a.sqrt())


@right("4.4")
def two_factors(x_t, t, eps_hat, alpha_bar):
    a = per_image(alpha_bar[t], x_t)
    return a.rsqrt() * x_t - (1 / a - 1).sqrt() * eps_hat


@right("4.4")
def row_after_row(x_t, t, eps_hat, alpha_bar):
    rows = []
    for i in range(x_t.shape[0]):
        a = float(alpha_bar[t[i]])
        rows.append((x_t[i] - math.sqrt(1 - a) * eps_hat[i]) / math.sqrt(a))
    return torch.stack(rows, dim=0)


@right("4.4")
def flat_and_back(x_t, t, eps_hat, alpha_bar):
    a = alpha_bar.index_select(0, t).unsqueeze(1)
    flat = torch.addcmul(x_t.flatten(1), (1 - a) ** 0.5, eps_hat.flatten(1), value=-1)
    return (flat / a**0.5).reshape(x_t.shape)


# --- 4.5 posterior_mean_variance


def now_and_prev(alpha_bar, t):
    return alpha_bar[t], torch.cat([alpha_bar.new_ones(1), alpha_bar])[t]


def mixed(x_0, x_t, of_x_0, of_x_t):
    return per_image(of_x_0, x_0) * x_0 + per_image(of_x_t, x_t) * x_t


def from_levels(x_0, x_t, now, prev):
    alpha = now / prev
    beta = 1 - alpha
    mean = mixed(x_0, x_t, prev.sqrt() * beta / (1 - now), alpha.sqrt() * (1 - prev) / (1 - now))
    return mean, beta * (1 - prev) / (1 - now)


@wrong("4.5", "at_t_0_it_is_x_0_for_certain")
def variance_for_each_pixel(x_0, x_t, t, alpha_bar):
    """The variance has the shape of the images, or (B, 1, 1, 1): it is (B,), one number for each
    image."""
    mean, var = solution.posterior_mean_variance(x_0, x_t, t, alpha_bar)
    return mean, per_image(var, x_t).expand_as(x_t)


@wrong("4.5", "it_is_bayes_rule_for_each_image")
def factors_of_the_batch(x_0, x_t, t, alpha_bar):
    """The factors have the shape (B,), which meets the columns of the images: they must be (B, 1,
    ..., 1) where they multiply x_0 and x_t."""
    now, prev = now_and_prev(alpha_bar, t)
    alpha = now / prev
    beta = 1 - alpha
    mean = (prev.sqrt() * beta * x_0 + alpha.sqrt() * (1 - prev) * x_t) / (1 - now)
    return mean, beta * (1 - prev) / (1 - now)


@wrong("4.5", "at_t_0_it_is_x_0_for_certain")
def wraps_around(x_0, x_t, t, alpha_bar):
    """For t = 0, `alpha_bar[t - 1]` is alpha_bar[-1], the last number: before t = 0 it is 1."""
    return from_levels(x_0, x_t, alpha_bar[t], alpha_bar[t - 1])


@wrong("4.5", "at_t_0_it_is_x_0_for_certain")
def index_clamped_at_0(x_0, x_t, t, alpha_bar):
    """The index t - 1 is clamped at 0, so that nothing happens at t = 0: alpha_bar is 1 there, and
    the last noise goes."""
    return from_levels(x_0, x_t, alpha_bar[t], alpha_bar[(t - 1).clamp(min=0)])


@wrong("4.5", "at_t_0_it_is_x_0_for_certain")
def variance_is_never_0(x_0, x_t, t, alpha_bar):
    """The variance at t = 0 is replaced by the next one, as code does that needs its logarithm:
    here it is exactly 0."""
    mean, _ = solution.posterior_mean_variance(x_0, x_t, t, alpha_bar)
    return mean, solution.posterior_mean_variance(x_0, x_t, t.clamp(min=1), alpha_bar)[1]


@wrong("4.5", "at_t_0_it_is_x_0_for_certain")
def beta_as_variance(x_0, x_t, t, alpha_bar):
    """The variance is beta, that of the step forward: if x_0 is known, less is open."""
    mean, _ = solution.posterior_mean_variance(x_0, x_t, t, alpha_bar)
    now, prev = now_and_prev(alpha_bar, t)
    return mean, 1 - now / prev


@wrong("4.5", "at_t_0_it_is_x_0_for_certain")
def shares_swapped(x_0, x_t, t, alpha_bar):
    """The factors of x_0 and x_t are swapped."""
    mean, _ = solution.posterior_mean_variance(x_t, x_0, t, alpha_bar)
    return mean, solution.posterior_mean_variance(x_0, x_t, t, alpha_bar)[1]


@wrong("4.5", "at_t_0_it_is_x_0_for_certain")
def x_0_taken_for_the_noise(x_0, x_t, t, alpha_bar):
    """This is the formula for the mean that wants eps, (x_t - beta / sqrt(1 - alpha_bar) eps) /
    sqrt(alpha): here x_0 is given."""
    now, prev = now_and_prev(alpha_bar, t)
    alpha = now / prev
    mean = mixed(x_0, x_t, -(1 - alpha) / (1 - now).sqrt() / alpha.sqrt(), alpha.rsqrt())
    return mean, (1 - alpha) * (1 - prev) / (1 - now)


@wrong("4.5", "its_variance_is_smaller_than_beta")
def standard_deviation(x_0, x_t, t, alpha_bar):
    """This is the standard deviation: the variance is its square."""
    mean, var = solution.posterior_mean_variance(x_0, x_t, t, alpha_bar)
    return mean, var.sqrt()


@wrong("4.5", "x_0_has_its_share_of_the_mean")
def level_of_t_for_x_0(x_0, x_t, t, alpha_bar):
    """x_0 gets the root of alpha_bar_t: it is the level of x_{t-1} that counts."""
    now, prev = now_and_prev(alpha_bar, t)
    alpha = now / prev
    root = torch.where(t > 0, now, 1.0).sqrt()
    mean = mixed(x_0, x_t, root * (1 - alpha) / (1 - now), alpha.sqrt() * (1 - prev) / (1 - now))
    return mean, (1 - alpha) * (1 - prev) / (1 - now)


@wrong("4.5", "x_t_has_its_share_of_the_mean")
def no_root_on_x_t(x_0, x_t, t, alpha_bar):
    """The root of alpha_t is missing in front of x_t, or is that of alpha_bar_t."""
    now, prev = now_and_prev(alpha_bar, t)
    alpha = now / prev
    mean = mixed(x_0, x_t, prev.sqrt() * (1 - alpha) / (1 - now), alpha * (1 - prev) / (1 - now))
    return mean, (1 - alpha) * (1 - prev) / (1 - now)


@wrong("4.5", "x_t_has_its_share_of_the_mean")
def alpha_bar_on_x_t(x_0, x_t, t, alpha_bar):
    """x_t is multiplied by the root of alpha_bar_t: the step from x_{t-1} to x_t has alpha_t, the
    quotient of two alpha_bar."""
    now, prev = now_and_prev(alpha_bar, t)
    beta = 1 - now / prev
    mean = mixed(x_0, x_t, prev.sqrt() * beta / (1 - now), now.sqrt() * (1 - prev) / (1 - now))
    return mean, beta * (1 - prev) / (1 - now)


@wrong("4.5", "it_is_bayes_rule_for_each_image")
def clamps_x_0(x_0, x_t, t, alpha_bar):
    """x_0 is clamped: the sampler does that before, here nothing is."""
    return solution.posterior_mean_variance(x_0.clamp(-1, 1), x_t, t, alpha_bar)


@wrong("4.5", "it_is_bayes_rule_for_each_image")
def factors_of_the_first(x_0, x_t, t, alpha_bar):
    """All images get the factors of the first one: each has its own t."""
    return solution.posterior_mean_variance(x_0, x_t, t[:1].expand(len(t)), alpha_bar)


@wrong("4.5", "what_is_given_stays_as_it_was")
def writes_a_1(x_0, x_t, t, alpha_bar):
    """The 1 before t = 0 is written into the caller's alpha_bar: its last number is lost."""
    now = alpha_bar[t]
    alpha_bar[-1] = 1.0
    return from_levels(x_0, x_t, now, alpha_bar[t - 1])


@right("4.5")
def by_precisions(x_0, x_t, t, alpha_bar):
    now, prev = now_and_prev(alpha_bar, t)
    alpha = now / prev
    var = (1 - alpha) * (1 - prev) / (alpha * (1 - prev) + (1 - alpha))
    weight = (1 - alpha) / (alpha * (1 - prev) + 1 - alpha)  # of what x_0 says
    says_x_t = x_t / per_image(alpha.sqrt(), x_t)
    return torch.lerp(says_x_t, per_image(prev.sqrt(), x_0) * x_0, per_image(weight, x_0)), var


@right("4.5")
def through_eps(x_0, x_t, t, alpha_bar):
    now = per_image(alpha_bar[t], x_t)
    prev = torch.where(per_image(t, x_t) > 0, per_image(alpha_bar[t - 1], x_t), 1.0)
    eps = (x_t - now.sqrt() * x_0) / (1 - now).sqrt()
    var = (1 - prev) / (1 - now) * (1 - now / prev)
    return prev.sqrt() * x_0 + (1 - prev - var).clamp(min=0).sqrt() * eps, var.flatten()


@right("4.5")
def step_by_step(x_0, x_t, t, alpha_bar):
    means, variances = [], []
    levels = [1.0, *alpha_bar.tolist()]
    for clean, noisy, step in zip(x_0, x_t, t.tolist(), strict=True):
        prev, now = levels[step], levels[step + 1]
        beta = 1 - now / prev
        a, b = prev**0.5 * beta / (1 - now), (now / prev) ** 0.5 * (1 - prev) / (1 - now)
        means.append(a * clean + b * noisy)
        variances.append(beta * (1 - prev) / (1 - now))
    return torch.stack(means), torch.tensor(variances, dtype=alpha_bar.dtype)


# --- 4.6 p_sample


def stepped(model, x_t, t, alpha_bar, *, noise=None, clamp=True, std=None, told=None):
    """The solution with other noise, or another standard deviation from (now, prev, var)."""
    x_0 = solution.predict_x0(x_t, t, model(x_t, t if told is None else told(t)), alpha_bar)
    x_0 = x_0.clamp(-1, 1) if clamp else x_0
    mean, var = solution.posterior_mean_variance(x_0, x_t, t, alpha_bar)
    scale = var.sqrt() if std is None else std(*now_and_prev(alpha_bar, t), var)
    noise = torch.randn_like(x_t) if noise is None else noise
    return mean + per_image(scale, x_t) * noise


@wrong("4.6", "the_model_sees_x_t_and_t_as_they_are")
def told_the_next_t(model, x_t, t, alpha_bar):
    """The model is told t - 1, where x is going: it must know the noise that x_t has."""
    return stepped(model, x_t, t, alpha_bar, told=lambda t: (t - 1).clamp(min=0))


@wrong("4.6", "images_are_told_apart_by_their_t")
def variance_meets_the_width(model, x_t, t, alpha_bar):
    """The standard deviation has the shape (B,), which meets the columns of the images: it must be
    (B, 1, ..., 1)."""
    x_0 = solution.predict_x0(x_t, t, model(x_t, t), alpha_bar).clamp(-1, 1)
    mean, var = solution.posterior_mean_variance(x_0, x_t, t, alpha_bar)
    return mean + var.sqrt() * torch.randn_like(x_t)


@wrong("4.6", "at_t_0_no_noise_is_added")
def noise_at_the_end(model, x_t, t, alpha_bar):
    """Noise is added at t = 0 as well, as with beta for the variance and no switch: grain in every
    picture."""
    return stepped(model, x_t, t, alpha_bar, std=lambda now, prev, _: (1 - now / prev).sqrt())


@wrong("4.6", "at_t_0_no_noise_is_added")
def eps_for_x_0(model, x_t, t, alpha_bar):
    """The model's eps_hat is given to the posterior as x_0: `predict_x0` makes one from the
    other."""
    mean, var = solution.posterior_mean_variance(model(x_t, t).clamp(-1, 1), x_t, t, alpha_bar)
    return mean + per_image(var.sqrt(), x_t) * torch.randn_like(x_t)


@wrong("4.6", "at_t_0_no_noise_is_added")
def arguments_swapped(model, x_t, t, alpha_bar):
    """x_0 and x_t are swapped in the call of the posterior: x_0 is its first argument."""
    x_0 = solution.predict_x0(x_t, t, model(x_t, t), alpha_bar).clamp(-1, 1)
    mean, var = solution.posterior_mean_variance(x_t, x_0, t, alpha_bar)
    return mean + per_image(var.sqrt(), x_t) * torch.randn_like(x_t)


@wrong("4.6", "the_estimate_of_x_0_is_clamped")
def never_clamped(model, x_t, t, alpha_bar):
    """The estimate of x_0 is not clamped: early ones lie far outside [-1, 1]."""
    return stepped(model, x_t, t, alpha_bar, clamp=False)


@wrong("4.6", "images_are_told_apart_by_their_t")
def only_if_all_are_0(model, x_t, t, alpha_bar):
    """The noise is switched off only if all t are 0: a batch may be mixed, each image decides."""
    on = float((t > 0).any())
    return stepped(model, x_t, t, alpha_bar, std=lambda now, prev, _: on * (1 - now / prev).sqrt())


@wrong("4.6", "images_are_told_apart_by_their_t")
def the_first_decides(model, x_t, t, alpha_bar):
    """`if t[0] > 0` decides for the whole batch: each image has its own t."""
    on = 1.0 if t[0] > 0 else 0.0
    return stepped(
        model, x_t, t, alpha_bar, std=lambda now, prev, var: on * (1 - now / prev).sqrt()
    )


@wrong("4.6", "images_are_told_apart_by_their_t")
def mask_along_the_width(model, x_t, t, alpha_bar):
    """The mask of t > 0 has the shape (B,) and switches columns off instead of images, which goes
    unnoticed where B is the width: it must be (B, 1, 1, 1)."""
    noise = (t > 0) * torch.randn_like(x_t)
    return stepped(
        model, x_t, t, alpha_bar, noise=noise, std=lambda now, prev, _: (1 - now / prev).sqrt()
    )


@wrong("4.6", "images_are_told_apart_by_their_t")
def off_by_one(model, x_t, t, alpha_bar):
    """The noise is switched off at t = 1 as well, where papers count their last step: here it is
    t = 0."""
    return stepped(
        model, x_t, t, alpha_bar, std=lambda now, prev, var: torch.where(t > 1, var.sqrt(), 0.0)
    )


@wrong("4.6", "images_are_told_apart_by_their_t")
def no_noise_at_all(model, x_t, t, alpha_bar):
    """Nothing is drawn, the mean comes back: the pictures would be blurred."""
    return stepped(model, x_t, t, alpha_bar, noise=torch.zeros_like(x_t))


@wrong("4.6", "every_number_has_its_own_noise")
def same_noise_for_all(model, x_t, t, alpha_bar):
    """All images share one noise: draw for the whole shape of x_t."""
    noise = torch.randn_like(x_t[:1]).expand_as(x_t)
    return stepped(model, x_t, t, alpha_bar, noise=noise)


@wrong("4.6", "it_is_a_draw_of_the_posterior")
def variance_for_the_deviation(model, x_t, t, alpha_bar):
    """The noise is multiplied by the variance: the standard deviation is its root."""
    return stepped(model, x_t, t, alpha_bar, std=lambda now, prev, var: var)


@wrong("4.6", "it_is_a_draw_of_the_posterior")
def beta_for_the_variance(model, x_t, t, alpha_bar):
    """The variance is beta_t, and switched off at t = 0. Others do so, but the contract asks for
    the posterior's, which is smaller."""

    def std(now, prev, var):
        return torch.where(t > 0, 1 - now / prev, 0.0).sqrt()

    return stepped(model, x_t, t, alpha_bar, std=std)


@wrong("4.6", "it_is_a_draw_of_the_posterior")
def uniform(model, x_t, t, alpha_bar):
    """`rand_like` is uniform on [0, 1]; the normal distribution is `randn_like`, with an n."""
    return stepped(model, x_t, t, alpha_bar, noise=torch.rand_like(x_t))


@wrong("4.6", "images_are_told_apart_by_their_t")
def clamps_the_result(model, x_t, t, alpha_bar):
    """The result is clamped: x_{t-1} is noisy and rightly leaves [-1, 1], only x_0 is clamped."""
    return stepped(model, x_t, t, alpha_bar).clamp(-1, 1)


@wrong("4.6", "it_is_a_draw_of_the_posterior")
def forgets_x_t(model, x_t, t, alpha_bar):
    """x_0 is noised anew by `q_sample` at the level of t - 1, without regard to x_t: the mean of
    the posterior lies between both."""
    x_0 = solution.predict_x0(x_t, t, model(x_t, t), alpha_bar).clamp(-1, 1)
    prev = at(alpha_bar, t - 1, x_t)
    return prev.sqrt() * x_0 + (1 - prev).sqrt() * torch.randn_like(x_t)


@wrong("4.6", "images_are_told_apart_by_their_t")
def always_the_same(model, x_t, t, alpha_bar):
    """The seed is set inside: every step adds the same noise."""
    torch.manual_seed(0)
    return stepped(model, x_t, t, alpha_bar)


@wrong("4.6", "draws_are_new_and_x_t_stays")
def steps_in_place(model, x_t, t, alpha_bar):
    """The step is written into the caller's x_t: build a new tensor."""
    return x_t.copy_(stepped(model, x_t.clone(), t, alpha_bar).detach())


@right("4.6")
def by_torch_normal(model, x_t, t, alpha_bar):
    x_0 = solution.predict_x0(x_t, t, model(x_t, t), alpha_bar)
    x_0 = torch.minimum(torch.maximum(x_0, -torch.ones_like(x_0)), torch.ones_like(x_0))
    mean, var = solution.posterior_mean_variance(x_0, x_t, t, alpha_bar)
    std = var.sqrt().reshape([len(t)] + [1] * (mean.ndim - 1)).expand(mean.shape)
    return torch.normal(mean, std)


@right("4.6")
@torch.no_grad()
def with_a_mask(model, x_t, t, alpha_bar):
    a = per_image(alpha_bar[t], x_t)
    prev = per_image(F.pad(alpha_bar, (1, 0), value=1.0)[t], x_t)
    eps_hat = model(x_t, t)
    x_0 = F.hardtanh((x_t - (1 - a).sqrt() * eps_hat) / a.sqrt())
    mean = (prev.sqrt() * (1 - a / prev) * x_0 + (a / prev).sqrt() * (1 - prev) * x_t) / (1 - a)
    std = ((1 - a / prev) * (1 - prev) / (1 - a)).sqrt()
    return torch.where(per_image(t, x_t) == 0, x_0, mean + std * torch.randn(x_t.shape))


@right("4.6")
def image_after_image(model, x_t, t, alpha_bar):
    eps_hat, rows = model(x_t, t), []
    for i in range(len(x_t)):
        one = slice(i, i + 1)
        x_0 = solution.predict_x0(x_t[one], t[one], eps_hat[one], alpha_bar).clip(-1, 1)
        mean, var = solution.posterior_mean_variance(x_0, x_t[one], t[one], alpha_bar)
        rows.append(mean if t[i] == 0 else mean + math.sqrt(var.item()) * torch.randn_like(mean))
    return torch.cat(rows)


@right("4.6")
def through_the_noise(model, x_t, t, alpha_bar):
    ones = (1,) * (x_t.ndim - 1)
    now, prev = (v.reshape(len(t), *ones) for v in now_and_prev(alpha_bar, t))
    x_0 = (x_t / now.sqrt() - (1 / now - 1).sqrt() * model(x_t, t)).clamp(min=-1, max=1)
    eps = (x_t - now.sqrt() * x_0) / (1 - now).sqrt()  # anew, since x_0 was clamped
    var = (1 - prev) / (1 - now) * (1 - now / prev)
    direction = (1 - prev - var).clamp(min=0).sqrt() * eps
    return Normal(0.0, 1.0).sample(x_t.shape) * var.sqrt() + prev.sqrt() * x_0 + direction


# --- 4.7 sample


def walked(model, shape, alpha_bar, *, x=None, steps=None, change=None, t=torch.full):
    """The solution with another start, other steps, or x changed after each of them."""
    was = model.training
    model.eval()
    x = torch.randn(shape) if x is None else x
    with torch.no_grad():
        for step in reversed(range(len(alpha_bar))) if steps is None else steps:
            new = solution.p_sample(model, x, t((shape[0],), step), alpha_bar)
            x = new if change is None else change(x, new)
    model.train(was)
    return x


@wrong("4.7", "t_falls_from_the_last_to_0")
def all_steps(model, shape, alpha_bar):
    """All x on the way come back: only the last one is asked for."""
    kept = []
    walked(model, shape, alpha_bar, change=lambda x, new: kept.append(new) or new)
    return torch.stack(kept)


@wrong("4.7", "t_falls_from_the_last_to_0")
def a_number_as_t(model, shape, alpha_bar):
    """t is one number for the batch, and no tensor (B,): torch.full((B,), step) makes one for each
    image."""
    return walked(model, shape, alpha_bar, t=lambda size, step: torch.tensor(step))


@wrong("4.7", "t_falls_from_the_last_to_0")
def counts_from_t_to_1(model, shape, alpha_bar):
    """t runs from T to 1, as papers count: here it is T-1 to 0, and alpha_bar has no number T."""
    return walked(model, shape, alpha_bar, steps=range(len(alpha_bar), 0, -1))


@wrong("4.7", "t_falls_from_the_last_to_0")
def stops_at_1(model, shape, alpha_bar):
    """range(T - 1, 0, -1) ends at t = 1: the last step is missing, and its noise stays in the
    picture."""
    return walked(model, shape, alpha_bar, steps=range(len(alpha_bar) - 1, 0, -1))


@wrong("4.7", "t_falls_from_the_last_to_0")
def counts_up(model, shape, alpha_bar):
    """t runs from 0 upwards: x is pure noise in the beginning, so the first t is T-1."""
    return walked(model, shape, alpha_bar, steps=range(len(alpha_bar)))


@wrong("4.7", "t_falls_from_the_last_to_0")
def begins_one_late(model, shape, alpha_bar):
    """The first t is T-2: range(T - 1, -1, -1) begins at T-1."""
    return walked(model, shape, alpha_bar, steps=range(len(alpha_bar) - 2, -1, -1))


@wrong("4.7", "it_starts_from_standard_normal_noise")
def starts_uniform(model, shape, alpha_bar):
    """`torch.rand` is uniform on [0, 1]; the normal distribution is `torch.randn`, with an n."""
    return walked(model, shape, alpha_bar, x=torch.rand(shape))


@wrong("4.7", "it_starts_from_standard_normal_noise")
def starts_at_0(model, shape, alpha_bar):
    """The start is 0, not noise: it is as untypical of x_{T-1} as a picture."""
    return walked(model, shape, alpha_bar, x=torch.zeros(shape))


@wrong("4.7", "it_starts_from_standard_normal_noise")
def one_start_for_all(model, shape, alpha_bar):
    """All images start from the same noise: draw for the whole shape."""
    return walked(
        model,
        shape,
        alpha_bar,
        x=torch.randn(1, *shape[1:]).repeat(shape[0], 1, 1, 1)
        if len(shape) == 4
        else torch.randn(1, *shape[1:]).repeat(shape[0], 1),
    )


@wrong("4.7", "each_step_goes_on_from_the_last")
def x_is_not_replaced(model, shape, alpha_bar):
    """x stays the first noise: the result of each step has to replace it."""
    was = model.training
    model.eval()
    x, new = torch.randn(shape), None
    with torch.no_grad():
        for step in reversed(range(len(alpha_bar))):
            new = solution.p_sample(model, x, torch.full((shape[0],), step), alpha_bar)
    model.train(was)
    return new


@wrong("4.7", "each_step_goes_on_from_the_last")
def noise_is_added_again(model, shape, alpha_bar):
    """Noise is added after each step: `p_sample` has added it already."""
    return walked(model, shape, alpha_bar, change=lambda x, new: new + 0.5 * torch.randn_like(new))


@wrong("4.7", "each_step_goes_on_from_the_last")
def clamps_every_step(model, shape, alpha_bar):
    """x is clamped to [-1, 1] after each step: it is noisy, and rightly leaves the range."""
    return walked(model, shape, alpha_bar, change=lambda x, new: new.clamp(-1, 1))


@wrong("4.7", "a_model_that_knows_x_0_gets_it_back")
def rescaled(model, shape, alpha_bar):
    """The result is mapped to [0, 1]: x_0 is in [-1, 1], as the contract says."""
    return (walked(model, shape, alpha_bar) + 1) / 2


@wrong("4.7", "it_runs_in_eval_mode_and_gives_the_mode_back")
def in_training_mode(model, shape, alpha_bar):
    """The model is not switched to eval mode: dropout and batch norm disturb every step."""
    x = torch.randn(shape)
    with torch.no_grad():
        for step in reversed(range(len(alpha_bar))):
            x = solution.p_sample(model, x, torch.full((shape[0],), step), alpha_bar)
    return x


@wrong("4.7", "it_runs_in_eval_mode_and_gives_the_mode_back")
def left_in_eval_mode(model, shape, alpha_bar):
    """The model is left in eval mode: training would go on without dropout."""
    return walked(model.eval(), shape, alpha_bar)


@wrong("4.7", "it_runs_in_eval_mode_and_gives_the_mode_back")
def back_to_training(model, shape, alpha_bar):
    """The model is put into training mode afterwards, whatever it was in before."""
    x = walked(model, shape, alpha_bar)
    model.train()
    return x


@wrong("4.7", "no_graph_is_built_and_draws_are_new")
def keeps_the_graph(model, shape, alpha_bar):
    """A gradient graph of all T steps is built: loop inside `with torch.no_grad()`."""
    was = model.training
    model.eval()
    x = torch.randn(shape)
    for step in reversed(range(len(alpha_bar))):
        x = solution.p_sample(model, x, torch.full((shape[0],), step), alpha_bar)
    model.train(was)
    return x.detach()


@wrong("4.7", "no_graph_is_built_and_draws_are_new")
def seeds_itself(model, shape, alpha_bar):
    """The seed is set inside: every call gives the same pictures. The caller decides on seeds."""
    torch.manual_seed(0)
    return walked(model, shape, alpha_bar)


@wrong("4.7", "no_graph_is_built_and_draws_are_new")
def gradients_off_for_good(model, shape, alpha_bar):
    """Gradients are switched off and stay off: use `with torch.no_grad()`."""
    torch.set_grad_enabled(False)
    return walked(model, shape, alpha_bar)


@right("4.7")
@torch.no_grad()
def while_loop(model, shape, alpha_bar):
    mode, model = model.training, model.train(False)
    x, step = Normal(0.0, 1.0).sample(shape), len(alpha_bar) - 1
    while step >= 0:
        x = solution.p_sample(model, x, torch.tensor([step] * shape[0]), alpha_bar)
        step -= 1
    model.train(mode)
    return x


@right("4.7")
def in_inference_mode(model, shape, alpha_bar):
    was = model.training
    try:
        model.eval()
        with torch.inference_mode():
            x = torch.empty(*shape).normal_()
            for step in torch.arange(len(alpha_bar)).flip(0):
                x = solution.p_sample(model, x, step.repeat(shape[0]), alpha_bar)
    finally:
        if was:
            model.train()
    return x


@right("4.7")
@torch.no_grad()
def without_p_sample(model, shape, alpha_bar):
    was = model.training
    model.eval()
    x, prevs = torch.randn(*shape), [1.0, *alpha_bar[:-1].tolist()]
    for step, (now, prev) in reversed(list(enumerate(zip(alpha_bar.tolist(), prevs, strict=True)))):
        eps_hat = model(x, torch.zeros(len(x), dtype=torch.int64) + step)
        x_0 = ((x - (1 - now) ** 0.5 * eps_hat) / now**0.5).clamp(-1, 1)
        beta = 1 - now / prev
        mean = (prev**0.5 * beta * x_0 + (now / prev) ** 0.5 * (1 - prev) * x) / (1 - now)
        x = mean + (beta * (1 - prev) / (1 - now)) ** 0.5 * torch.randn_like(x) * (step > 0)
    model.train(was)
    return x


# --- 4.8 ddim_step


def moved(x_t, t, s, eps_hat, alpha_bar, change=None):
    """The solution with the estimate of x_0 changed."""
    x_0 = solution.predict_x0(x_t, t, eps_hat, alpha_bar)
    a = at(alpha_bar, s, x_t)
    return a.sqrt() * (x_0 if change is None else change(x_0)) + (1 - a).sqrt() * eps_hat


@wrong("4.8", "the_true_noise_leads_to_the_true_x_s")
def level_of_the_channels(x_t, t, s, eps_hat, alpha_bar):
    """alpha_bar of s has the shape (B, 1, 1), which meets the channels: it must be (B, 1, 1, 1)."""
    a = F.pad(alpha_bar, (1, 0), value=1.0)[s + 1][:, None, None]
    x_0 = solution.predict_x0(x_t, t, eps_hat, alpha_bar)
    return a.sqrt() * x_0 + (1 - a).sqrt() * eps_hat


@wrong("4.8", "from_0_6_and_0_8_to_0_8_and_0_6")
def old_noise_level(x_t, t, s, eps_hat, alpha_bar):
    """The direction is scaled by the noise level of t: x_s has that of s, sqrt(1 - alpha_bar_s)."""
    x_0 = solution.predict_x0(x_t, t, eps_hat, alpha_bar)
    a, b = at(alpha_bar, t, x_t), at(alpha_bar, s, x_t)
    return b.sqrt() * x_0 + (1 - a).sqrt() * eps_hat


@wrong("4.8", "from_0_6_and_0_8_to_0_8_and_0_6")
def old_signal_level(x_t, t, s, eps_hat, alpha_bar):
    """x_0 is scaled by the level of t: x_s has that of s, sqrt(alpha_bar_s)."""
    x_0 = solution.predict_x0(x_t, t, eps_hat, alpha_bar)
    a, b = at(alpha_bar, t, x_t), at(alpha_bar, s, x_t)
    return a.sqrt() * x_0 + (1 - b).sqrt() * eps_hat


@wrong("4.8", "from_0_6_and_0_8_to_0_8_and_0_6")
def without_direction(x_t, t, s, eps_hat, alpha_bar):
    """The noise is left out: x_s would be too clean for its s, and the model is not used to it."""
    x_0 = solution.predict_x0(x_t, t, eps_hat, alpha_bar)
    return at(alpha_bar, s, x_t).sqrt() * x_0


@wrong("4.8", "from_0_6_and_0_8_to_0_8_and_0_6")
def x_t_for_x_0(x_t, t, s, eps_hat, alpha_bar):
    """x_t stands where the estimate of x_0 belongs: `predict_x0` first."""
    a = at(alpha_bar, s, x_t)
    return a.sqrt() * x_t + (1 - a).sqrt() * eps_hat


@wrong("4.8", "from_0_6_and_0_8_to_0_8_and_0_6")
def fresh_noise_for_s(x_t, t, s, eps_hat, alpha_bar):
    """New noise is drawn: DDIM mixes in the same noise again, eps_hat."""
    x_0 = solution.predict_x0(x_t, t, eps_hat, alpha_bar)
    a = at(alpha_bar, s, x_t)
    return a.sqrt() * x_0 + (1 - a).sqrt() * torch.randn_like(x_t)


@wrong("4.8", "from_0_6_and_0_8_to_0_8_and_0_6")
def ancestral(x_t, t, s, eps_hat, alpha_bar):
    """This is a draw of the posterior, with noise: a DDIM step is without chance."""
    x_0 = solution.predict_x0(x_t, t, eps_hat, alpha_bar)
    mean, var = solution.posterior_mean_variance(x_0, x_t, t, alpha_bar)
    return mean + per_image(var.sqrt(), x_t) * torch.randn_like(x_t)


@wrong("4.8", "s_minus_1_is_the_clean_estimate")
def index_minus_1(x_t, t, s, eps_hat, alpha_bar):
    """For s = -1, `alpha_bar[s]` is the last number, full of noise: clean data has alpha_bar 1."""
    a = per_image(alpha_bar[s], x_t)
    x_0 = solution.predict_x0(x_t, t, eps_hat, alpha_bar)
    return a.sqrt() * x_0 + (1 - a).sqrt() * eps_hat


@wrong("4.8", "s_minus_1_is_the_clean_estimate")
def index_clamped(x_t, t, s, eps_hat, alpha_bar):
    """s = -1 is clamped to 0: the noise of t = 0 stays in the picture."""
    return moved(x_t, t, s.clamp(min=0), eps_hat, alpha_bar)


@wrong("4.8", "s_minus_1_is_the_clean_estimate")
def always_one_step(x_t, t, s, eps_hat, alpha_bar):
    """The step goes to t - 1, whatever s is: s may be far from t."""
    return moved(x_t, t, t - 1, eps_hat, alpha_bar)


@wrong("4.8", "the_true_noise_leads_to_the_true_x_s")
def meets_the_columns(x_t, t, s, eps_hat, alpha_bar):
    """alpha_bar of s has the shape (B,) and meets the columns of the images, which goes unnoticed
    where B is the width: it must be (B, 1, 1, 1)."""
    a = at(alpha_bar, s, x_t).flatten()
    x_0 = solution.predict_x0(x_t, t, eps_hat, alpha_bar)
    return a.sqrt() * x_0 + (1 - a).sqrt() * eps_hat


@wrong("4.8", "the_true_noise_leads_to_the_true_x_s")
def one_s_for_all(x_t, t, s, eps_hat, alpha_bar):
    """All images get the s of the first one: each has its own."""
    return moved(x_t, t, s[:1].expand(len(s)), eps_hat, alpha_bar)


@wrong("4.8", "a_large_x_0_stays_large")
def clamped_with_stale_eps(x_t, t, s, eps_hat, alpha_bar):
    """x_0 is clamped and eps_hat is not: the two no longer make up x_t. Here nothing is clamped;
    who does it must compute eps anew."""
    return moved(x_t, t, s, eps_hat, alpha_bar, lambda x_0: x_0.clamp(-1, 1))


@wrong("4.8", "a_large_x_0_stays_large")
def clamped_with_new_eps(x_t, t, s, eps_hat, alpha_bar):
    """x_0 is clamped, and eps computed anew from it: a sampler may want that, but the contract says
    that nothing is clamped."""
    x_0 = solution.predict_x0(x_t, t, eps_hat, alpha_bar).clamp(-1, 1)
    a, b = at(alpha_bar, t, x_t), at(alpha_bar, s, x_t)
    return b.sqrt() * x_0 + (1 - b).sqrt() * (x_t - a.sqrt() * x_0) / (1 - a).sqrt()


@wrong("4.8", "what_came_in_stays_as_it_was")
def writes_into_x_t(x_t, t, s, eps_hat, alpha_bar):
    """x_t is written to: the caller may need it once more, as Heun's step does."""
    return x_t.copy_(moved(x_t.clone(), t, s, eps_hat, alpha_bar))


@wrong("4.8", "what_came_in_stays_as_it_was")
def writes_into_s(x_t, t, s, eps_hat, alpha_bar):
    """`s += 1` writes into the caller's s: `s + 1` makes a new tensor."""
    s += 1
    return moved(x_t, t, s - 1, eps_hat, alpha_bar)


@right("4.8")
def as_an_ode(x_t, t, s, eps_hat, alpha_bar):
    a, b = at(alpha_bar, t, x_t), at(alpha_bar, s, x_t)
    sigma = [((1 - level) / level).sqrt() for level in (a, b)]
    return b.sqrt() * (x_t / a.sqrt() + (sigma[1] - sigma[0]) * eps_hat)


@right("4.8")
def with_where(x_t, t, s, eps_hat, alpha_bar):
    a = alpha_bar[t].view(len(t), *(1 for _ in x_t.shape[1:]))
    b = torch.where(s < 0, torch.ones_like(alpha_bar[s]), alpha_bar[s]).view(a.shape)
    ratio = torch.sqrt(b / a)
    return ratio * x_t + (torch.sqrt(1 - b) - ratio * torch.sqrt(1 - a)) * eps_hat


@right("4.8")
def one_after_the_other(x_t, t, s, eps_hat, alpha_bar):
    levels, rows = [*alpha_bar.tolist(), 1.0], []  # so that index -1 is the clean data
    x_0 = solution.predict_x0(x_t, t, eps_hat, alpha_bar)
    for x, e, step in zip(x_0, eps_hat, s.tolist(), strict=True):
        rows.append(math.sqrt(levels[step]) * x + math.sqrt(1 - levels[step]) * e)
    return torch.stack(rows)


# --- 4.9 classifier_free_guidance


def both(model, x_t, t, y, null):
    """The predictions with the label and without."""
    return model(x_t, t, y), model(x_t, t, torch.full_like(y, null))


@wrong("4.9", "w_1_is_the_label_alone")
def returns_both(model, x_t, t, y, null, w):
    """Both predictions come back: they are to be combined into one."""
    return both(model, x_t, t, y, null)


@wrong("4.9", "w_1_is_the_label_alone")
def double_batch(model, x_t, t, y, null, w):
    """The batch is doubled and stays so: split the result into its halves and combine them."""
    labels = torch.cat([y, torch.full_like(y, null)])
    return model(x_t.repeat(2, *[1] * (x_t.ndim - 1)), t.repeat(2), labels)


@wrong("4.9", "w_1_is_the_label_alone")
def null_as_a_number(model, x_t, t, y, null, w):
    """The model is given the number `null`: it wants one label for each image, (B,)."""
    cond, uncond = model(x_t, t, y), model(x_t, t, null)
    return uncond + w * (cond - uncond)


@wrong("4.9", "w_1_is_the_label_alone")
def swapped(model, x_t, t, y, null, w):
    """With and without label are swapped, perhaps as halves of one batch: w would push away from
    the label."""
    cond, uncond = both(model, x_t, t, y, null)
    return cond + w * (uncond - cond)


@wrong("4.9", "w_1_is_the_label_alone")
def one_plus_w(model, x_t, t, y, null, w):
    """This is the other convention, (1 + w) cond - w uncond, where w = 0 is no guidance: here that
    is w = 1."""
    cond, uncond = both(model, x_t, t, y, null)
    return (1 + w) * cond - w * uncond


@wrong("4.9", "w_0_is_without_a_label")
def zero_for_null(model, x_t, t, y, null, w):
    """The label 0 is taken for "no label": it is a class like others, `null` says which it is."""
    cond, uncond = both(model, x_t, t, y, 0)
    return uncond + w * (cond - uncond)


@wrong("4.9", "w_0_is_without_a_label")
def label_in_both(model, x_t, t, y, null, w):
    """Both predictions have the same label, so that their difference is 0: one needs `null`."""
    cond, uncond = model(x_t, t, y), model(x_t, t, y)
    return uncond + w * (cond - uncond)


@wrong("4.9", "w_1_is_the_label_alone")
def adds_the_prediction(model, x_t, t, y, null, w):
    """w times the conditional prediction is added: it is w times the difference of both."""
    cond, uncond = both(model, x_t, t, y, null)
    return uncond + w * cond


@wrong("4.9", "w_1_is_the_label_alone")
def ignores_the_label(model, x_t, t, y, null, w):
    """Both predictions are without a label, as after `y[:] = null`: one needs y."""
    _, uncond = both(model, x_t, t, y, null)
    return uncond + w * (uncond - uncond)


@wrong("4.9", "w_1_is_the_label_alone")
def label_of_the_first(model, x_t, t, y, null, w):
    """All images get the label of the first one: each has its own."""
    cond, uncond = both(model, x_t, t, y[:1].expand(len(y)), null)
    return uncond + w * (cond - uncond)


@wrong("4.9", "other_w_lie_on_the_same_line")
def limited_to_1(model, x_t, t, y, null, w):
    """w is clamped to [0, 1]: guidance is what happens beyond 1."""
    cond, uncond = both(model, x_t, t, y, null)
    return uncond + min(max(w, 0.0), 1.0) * (cond - uncond)


@wrong("4.9", "other_w_lie_on_the_same_line")
def rescaled_to_the_label(model, x_t, t, y, null, w):
    """The result is scaled to the size of the conditional prediction: some do that against pale
    colours, the contract does not."""
    cond, uncond = both(model, x_t, t, y, null)
    value = uncond + w * (cond - uncond)
    return value if w in (0, 1) else value * cond.std() / value.std()


@wrong("4.9", "gradients_flow_through_both")
def without_gradients(model, x_t, t, y, null, w):
    """The model runs under `torch.no_grad()`, or its answers are detached: that is the caller's
    decision."""
    with torch.no_grad():
        cond, uncond = both(model, x_t, t, y, null)
    return uncond + w * (cond - uncond)


@wrong("4.9", "labels_and_x_t_stay_as_they_were")
def overwrites_the_labels(model, x_t, t, y, null, w):
    """y is overwritten by `null`, as by `y[:] = null` or `y.fill_(null)`: from the next step on
    there is no label any more."""
    cond = model(x_t, t, y.clone())
    return torch.lerp(model(x_t, t, y.fill_(null)), cond, w)


@right("4.9")
def two_weights(model, x_t, t, y, null, w):
    with_label = model(x_t, t, y)
    without = model(x_t, t, 0 * y + null)
    return w * with_label + (1 - w) * without


@right("4.9")
def one_call(model, x_t, t, y, null, w):
    labels = torch.stack([torch.full_like(y, null), y]).flatten()
    uncond, cond = model(torch.cat([x_t, x_t]), t.repeat(2), labels).chunk(2)
    return torch.lerp(uncond, cond, w)


@right("4.9")
def for_each_image(model, x_t, t, y, null, w):
    rows = []
    for i in range(len(y)):
        x, step = x_t[i : i + 1], t[i : i + 1]
        uncond = model(x, step, torch.tensor([null]))
        rows.append(uncond + w * (model(x, step, y[i : i + 1]) - uncond))
    return torch.cat(rows)


# --- 4.10 ema_update


def move(ema, model, decay, buffers=True):
    """The solution, with or without the buffers."""
    with torch.no_grad():
        for mean, now in zip(ema.parameters(), model.parameters(), strict=True):
            mean.mul_(decay).add_(now, alpha=1 - decay)
        for mean, now in zip(ema.buffers(), model.buffers(), strict=True):
            if buffers:
                mean.copy_(now)


@wrong("4.10", "the_average_moves_a_tenth_of_the_way_at_0_9")
def decay_on_the_model(ema, model, decay):
    """The decay multiplies the model: the average would be nine tenths new at each step. It belongs
    to the old average."""
    move(ema, model, 1 - decay)


@wrong("4.10", "the_average_moves_a_tenth_of_the_way_at_0_9")
def new_names_only(ema, model, decay):
    """The result goes to a new tensor, and the average keeps its old one: write in place, by
    `copy_` or `lerp_`."""
    with torch.no_grad():
        for mean, now in zip(ema.parameters(), model.parameters(), strict=True):
            mean = decay * mean + (1 - decay) * now


@wrong("4.10", "the_average_moves_a_tenth_of_the_way_at_0_9")
def into_a_dict(ema, model, decay):
    """The result goes into the dict that `state_dict()` has made, not into the module: use
    `load_state_dict`, or write into the tensors."""
    state = ema.state_dict()
    for name, now in model.state_dict().items():
        state[name] = decay * state[name] + (1 - decay) * now


@wrong("4.10", "the_average_moves_a_tenth_of_the_way_at_0_9")
def plain_copy(ema, model, decay):
    """The model is copied and nothing averaged: decay is not used."""
    ema.load_state_dict(model.state_dict())


@wrong("4.10", "the_average_moves_a_tenth_of_the_way_at_0_9")
def refused(ema, model, decay):
    """`torch.no_grad()` is missing: PyTorch refuses to write into weights that want a gradient."""
    for mean, now in zip(ema.parameters(), model.parameters(), strict=True):
        mean.mul_(decay).add_(now, alpha=1 - decay)


@wrong("4.10", "the_model_stays_as_it_was")
def both_ways(ema, model, decay):
    """The model is given the average: its training would be slowed down. Only the average moves."""
    move(ema, model, decay)
    model.load_state_dict(ema.state_dict())


@wrong("4.10", "the_model_stays_as_it_was")
def scales_the_model(ema, model, decay):
    """`mul_` is applied to the model's weights: multiply a copy, or use `add_` with alpha."""
    with torch.no_grad():
        for mean, now in zip(ema.parameters(), model.parameters(), strict=True):
            mean.mul_(decay).add_(now.mul_(1 - decay))
        for mean, now in zip(ema.buffers(), model.buffers(), strict=True):
            mean.copy_(now)


@wrong("4.10", "every_parameter_moves")
def only_trainable_ones(ema, model, decay):
    """Frozen weights are left out: an average copied before they were set keeps the old ones."""
    with torch.no_grad():
        for mean, now in zip(ema.parameters(), model.parameters(), strict=True):
            if now.requires_grad:
                mean.lerp_(now, 1 - decay)
        for mean, now in zip(ema.buffers(), model.buffers(), strict=True):
            mean.copy_(now)


@wrong("4.10", "buffers_are_copied")
def without_buffers(ema, model, decay):
    """Buffers are left out: batch norm would use the statistics of untrained weights."""
    move(ema, model, decay, buffers=False)


@wrong("4.10", "buffers_are_copied")
def averages_the_buffers(ema, model, decay):
    """The buffers are averaged like the weights: copy them."""
    move(ema, model, decay, buffers=False)
    for mean, now in zip(ema.buffers(), model.buffers(), strict=True):
        mean.copy_(decay * mean + (1 - decay) * now)


@wrong("4.10", "the_average_has_its_own_memory")
def shares_memory(ema, model, decay):
    """The buffers, or the weights, are assigned and not copied: average and model share one tensor,
    and the next step of training moves both."""
    move(ema, model, decay)
    for mean, now in zip(ema.buffers(), model.buffers(), strict=True):
        mean.data = now.data


@wrong("4.10", "no_graph_is_kept")
def freezes_the_average(ema, model, decay):
    """`requires_grad_(False)` changes what the caller has set: `torch.no_grad()` is enough."""
    ema.requires_grad_(False)
    move(ema, model, decay)


@wrong("4.10", "no_graph_is_kept")
def off_for_good(ema, model, decay):
    """Gradients are switched off and stay off: use `with torch.no_grad()`."""
    torch.set_grad_enabled(False)
    move(ema, model, decay)


@wrong("4.10", "modes_and_gradients_stay")
def clears_gradients(ema, model, decay):
    """The model's gradients are deleted: that is the training loop's business."""
    move(ema, model, decay)
    model.zero_grad()


@wrong("4.10", "modes_and_gradients_stay")
def switches_modes(ema, model, decay):
    """`model.eval()` or `ema.train()` inside changes the modes that the caller chose."""
    move(ema, model.eval(), decay)


@right("4.10")
def by_state_dict(ema, model, decay):
    names = {name for name, _ in model.named_parameters()}
    old, new = ema.state_dict(), model.state_dict()
    ema.load_state_dict(
        {k: decay * old[k] + (1 - decay) * v if k in names else v for k, v in new.items()}
    )


@right("4.10")
@torch.no_grad()
def by_name(ema, model, decay):
    weights = dict(model.named_parameters())
    for name, mean in ema.named_parameters():
        mean.copy_(mean + (1 - decay) * (weights[name] - mean))
    for name, value in model.named_buffers():
        ema.get_buffer(name).copy_(value)


@right("4.10")
def by_data(ema, model, decay):
    for mean, now in zip(ema.parameters(), model.parameters(), strict=True):
        mean.data = decay * mean.data + (1 - decay) * now.data
    for mean, now in zip(ema.buffers(), model.buffers(), strict=True):
        mean.data = now.data.clone()


@right("4.10")
@torch.no_grad()
def all_at_once(ema, model, decay):
    torch._foreach_lerp_(list(ema.parameters()), list(model.parameters()), 1 - decay)
    for mean, now in zip(ema.buffers(), model.buffers(), strict=True):
        mean.zero_().add_(now)


# --- 4.11 TimeConditionedNet


class Base(solution.TimeConditionedNet):
    """The solution, for the variants below to spoil in one place."""


def half_waves(self, t, frequencies):
    angles = t[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


@wrong("4.11", "eps_hat_and_embedding_have_their_shapes")
class HiddenSize(Base):
    """The output has the hidden size: the last layer has to give D numbers, like x_t."""

    def __init__(self, data_dim, embed_dim=32, hidden_dim=64):
        super().__init__(data_dim, embed_dim, hidden_dim)
        self.rest[-1] = nn.Linear(hidden_dim, hidden_dim)


@wrong("4.11", "no_two_times_look_alike")
class DividedToZero(Base):
    """t // T, or another division that rounds, makes 0 of every t."""

    def embed(self, t):
        return super().embed(t // 1000)


@wrong("4.11", "no_two_times_look_alike")
class Constant(Base):
    """The embedding is a constant: t does not enter."""

    def embed(self, t):
        return super().embed(torch.zeros_like(t))


@wrong("4.11", "no_two_times_look_alike")
class IntegerExponent(Base):
    """The exponent is divided by // and rounds to 0: all frequencies are the same, and times that
    are 710 apart, 226 pi, look alike."""

    def embed(self, t):
        half = self.embed_dim // 2
        return half_waves(self, t, 10000.0 ** -(torch.arange(half) // half))


@wrong("4.11", "no_two_times_look_alike")
class DividedByT(Base):
    """t is divided by T before: all waves are slow, and neighbours look alike."""

    def embed(self, t):
        return super().embed(t / 1000)


@wrong("4.11", "every_sine_has_its_cosine")
class SineOnly(Base):
    """There are only sines, of E frequencies: the sine alone does not say whether an angle is in
    its first or second quarter."""

    def embed(self, t):
        frequencies = 10000.0 ** (-torch.arange(self.embed_dim) / (self.embed_dim - 1))
        return (t[:, None] * frequencies).sin()


@wrong("4.11", "every_sine_has_its_cosine")
class SineTwice(Base):
    """The sine is there twice, and the cosine not at all."""

    def embed(self, t):
        sine = super().embed(t)[:, : self.embed_dim // 2]
        return torch.cat([sine, sine], dim=1)


@wrong("4.11", "every_sine_has_its_cosine")
class OtherFrequencies(Base):
    """Sines and cosines have different frequencies: each frequency needs both."""

    def embed(self, t):
        frequencies = 10000.0 ** (-torch.arange(self.embed_dim) / (self.embed_dim - 1))
        angles = t[:, None] * frequencies
        return torch.cat([angles[:, ::2].sin(), angles[:, 1::2].cos()], dim=1)


@wrong("4.11", "every_sine_has_its_cosine")
class RawTime(Base):
    """The raw t is among the waves: it reaches 999, and drowns x_t."""

    def embed(self, t):
        return torch.cat([t[:, None].float(), super().embed(t)[:, 1:]], dim=1)


@wrong("4.11", "the_fastest_wave_has_frequency_1")
class PositiveExponent(Base):
    """The exponent has the wrong sign: frequencies up to 10000 turn so fast that neighbours have
    nothing in common."""

    def embed(self, t):
        half = self.embed_dim // 2
        return half_waves(self, t, 10000.0 ** (torch.arange(half) / (half - 1)))


@wrong("4.11", "frequencies_have_equal_ratios")
class EqualDifferences(Base):
    """The frequencies have equal differences, not equal ratios: hardly any wave is slow."""

    def embed(self, t):
        return half_waves(self, t, torch.linspace(1, 1e-4, self.embed_dim // 2))


@wrong("4.11", "frequencies_have_equal_ratios")
class SmallBase(Base):
    """The slowest frequency is 1/10, or another far from 1/10000: no wave tells early from late."""

    def embed(self, t):
        half = self.embed_dim // 2
        return half_waves(self, t, 10.0 ** (-torch.arange(half) / (half - 1)))


@wrong("4.11", "the_answer_depends_on_t")
class EmbeddedInVain(Base):
    """The embedding is computed and not used: the network is the same at every t."""

    def forward(self, x_t, t):
        self.from_t(self.embed(t))
        return self.rest(self.from_x(x_t))


@wrong("4.11", "the_answer_depends_on_t")
class RoundsTime(Base):
    """t is divided by // in forward: several neighbours share an answer."""

    def forward(self, x_t, t):
        return super().forward(x_t, t // 10)


@wrong("4.11", "every_row_has_its_own_t")
class MeanEmbedding(Base):
    """The embeddings of the batch are averaged: each row has its own t."""

    def forward(self, x_t, t):
        emb = self.embed(t).mean(dim=0) + 1e-2 * self.embed(t)
        return self.rest(self.from_x(x_t) + self.from_t(emb))


@wrong("4.11", "every_row_has_its_own_t")
class CentresTheBatch(Base):
    """The mean over the batch is subtracted: what one row becomes depends on its neighbours."""

    def forward(self, x_t, t):
        x_t = x_t - x_t.mean(dim=0) if len(x_t) > 1 else x_t
        return super().forward(x_t, t)


@wrong("4.11", "t_changes_how_x_t_is_treated")
class AddsAtTheEnd(Base):
    """t only adds something to the output, a bias: bring it in before a nonlinearity that x_t
    passes as well."""

    def __init__(self, data_dim, embed_dim=32, hidden_dim=64):
        super().__init__(data_dim, embed_dim, hidden_dim)
        self.from_t = nn.Linear(embed_dim, data_dim)

    def forward(self, x_t, t):
        return self.rest(self.from_x(x_t)) + self.from_t(self.embed(t))


@wrong("4.11", "straight_lines_of_x_t_are_bent")
class ScalesALinearLayer(Base):
    """x_t passes a linear layer only, which t scales: a hidden layer with a nonlinearity is
    missing."""

    def __init__(self, data_dim, embed_dim=32, hidden_dim=64):
        super().__init__(data_dim, embed_dim, hidden_dim)
        self.out = nn.Linear(hidden_dim, data_dim)

    def forward(self, x_t, t):
        return self.out(self.from_x(x_t) * self.from_t(self.embed(t)))


@wrong("4.11", "eps_hat_is_any_real_number")
class Tanh(Base):
    """A tanh after the last layer keeps eps_hat in (-1, 1): a third of all noise lies outside."""

    def forward(self, x_t, t):
        return super().forward(x_t, t).tanh()


@wrong("4.11", "all_layers_learn")
class DetachedTime(Base):
    """The path of t is cut off by `.detach()` or `torch.no_grad()`: its layer would never learn."""

    def forward(self, x_t, t):
        with torch.no_grad():
            emb = self.from_t(self.embed(t))
        return self.rest(self.from_x(x_t) + emb)


@wrong("4.11", "all_layers_learn")
class HiddenLayers(Base):
    """Layers sit in a plain list, where PyTorch does not see them: `nn.Sequential(*layers)` or
    `nn.ModuleList`."""

    def __init__(self, data_dim, embed_dim=32, hidden_dim=64):
        super().__init__(data_dim, embed_dim, hidden_dim)
        self.layers = [self.from_x, self.from_t, *self.rest]
        for layer in self.layers:
            for p in layer.parameters():
                nn.init.normal_(p, std=0.3)
        del self.from_x, self.from_t, self.rest

    def forward(self, x_t, t):
        h = self.layers[0](x_t) + self.layers[1](self.embed(t))
        for layer in self.layers[2:]:
            h = layer(h)
        return h


@right("4.11")
class Concatenated(nn.Module):
    def __init__(self, data_dim, embed_dim=32, hidden_dim=64):
        super().__init__()
        i = torch.arange(embed_dim // 2)
        self.register_buffer("frequencies", 1 / 10000 ** (2 * i / embed_dim))
        self.net = nn.Sequential(
            nn.Linear(data_dim + embed_dim, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, data_dim)
        )

    def embed(self, t):
        angles = t.unsqueeze(-1) * self.frequencies
        return torch.stack([angles.cos(), angles.sin()], dim=-1).flatten(1)  # interleaved

    def forward(self, x_t, t):
        return self.net(torch.cat([x_t, self.embed(t)], dim=-1))


@right("4.11")
class ScaleAndShift(nn.Module):
    def __init__(self, data_dim, embed_dim=32, hidden_dim=64):
        super().__init__()
        self.half = embed_dim // 2
        self.time = nn.Sequential(
            nn.Linear(embed_dim, hidden_dim), nn.GELU(), nn.Linear(hidden_dim, 2 * hidden_dim)
        )
        self.first = nn.Linear(data_dim, hidden_dim)
        self.norm = nn.LayerNorm(hidden_dim)
        self.last = nn.Linear(hidden_dim, data_dim)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def embed(self, t):
        frequencies = torch.logspace(0, -4, self.half)
        angles = torch.outer(t.float(), frequencies)
        return torch.cat((torch.cos(angles), torch.sin(angles)), dim=-1)

    def forward(self, x_t, t):
        scale, shift = self.time(self.embed(t)).chunk(2, dim=-1)
        h = self.norm(F.gelu(self.first(x_t))) * (1 + scale) + shift
        return self.last(F.gelu(h))


@right("4.11")
class Residual(nn.Module):
    def __init__(self, data_dim, embed_dim=32, hidden_dim=64):
        super().__init__()
        self.frequencies = [10000 ** (-k / (embed_dim / 2)) for k in range(embed_dim // 2)]
        self.enter = nn.Linear(data_dim, hidden_dim)
        self.blocks = nn.ModuleList([nn.Linear(hidden_dim, hidden_dim) for _ in range(2)])
        self.times = nn.ModuleList([nn.Linear(embed_dim, hidden_dim) for _ in range(2)])
        self.leave = nn.Linear(hidden_dim, data_dim)

    def embed(self, t):
        waves = [wave(f * t.double()) for f in self.frequencies for wave in (torch.sin, torch.cos)]
        return torch.stack(waves, dim=1).float()

    def forward(self, x_t, t):
        h, emb = self.enter(x_t), self.embed(t)
        for block, time in zip(self.blocks, self.times, strict=True):
            h = h + torch.tanh(block(h) + time(emb))
        return self.leave(h)


@right("4.11")
class Gated(nn.Module):
    def __init__(self, data_dim, embed_dim=32, hidden_dim=64):
        super().__init__()
        self.waves = embed_dim // 2
        self.gate = nn.Linear(embed_dim, hidden_dim)
        self.first = nn.Linear(data_dim, hidden_dim)
        self.second = nn.Linear(hidden_dim, hidden_dim)
        self.last = nn.Linear(hidden_dim, data_dim)

    def embed(self, t):
        angle = torch.einsum("b,f->bf", t.float(), 1e4 ** -torch.linspace(0, 1, self.waves))
        return torch.view_as_real(torch.polar(torch.ones_like(angle), angle)).flatten(1)

    def forward(self, x_t, t):
        h = torch.sigmoid(self.first(x_t)) * torch.sigmoid(self.gate(self.embed(t)))
        return self.last(torch.sigmoid(self.second(h)))
