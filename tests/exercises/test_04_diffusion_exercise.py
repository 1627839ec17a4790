"""What is true of every right answer to exercise 4.

Each check takes the answer, a function or the class. Shapes are uneven on purpose: colour, height
unlike width, a batch of one, points, and a batch as large as the images are wide. Where chance
plays, there are 6 standard errors of room.
"""

import copy
import math

import pytest
import torch
from torch import nn

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

TASKS = kit.exercise(4).tasks


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_your_answer(task):
    grading.settle(grading.grade(task, grading.read(kit.exercise(4))))


STEPS = 6  # T of `schedule`
ROOTS = torch.tensor([0.81, 0.64, 0.36])  # an alpha_bar with roots 0.9, 0.8, 0.6
PICTURES = (4, 4, 3, 4)  # as many images as channels and as columns: nothing has to fail


def schedule(steps=STEPS):
    """An alpha_bar from nearly 1 to nearly 0, in float64."""
    return torch.cumprod(1 - torch.linspace(0.05, 0.6, steps).double(), dim=0)


def levels(t, ndim, alpha_bar=None):
    """alpha_bar at t, which may be -1, shaped to meet the batch of a tensor of that many dims."""
    alpha_bar = schedule() if alpha_bar is None else alpha_bar
    padded = torch.cat([alpha_bar.new_ones(1), alpha_bar])
    return padded[t + 1].reshape(-1, *[1] * (ndim - 1))


def posterior(x_0, x_t, t, alpha_bar=None):
    """Mean and variance of x_{t-1}, (B, 1, ..., 1), by adding the precisions of two Gaussians."""
    now, prev = (levels(i, x_t.ndim, alpha_bar) for i in (t, t - 1))
    alpha = now / prev
    var = 1 / (alpha / (1 - alpha) + 1 / (1 - prev))  # 0 where prev is 1
    mean = var * (alpha.sqrt() * x_t / (1 - alpha) + prev.sqrt() * x_0 / (1 - prev))
    return torch.where(prev == 1, x_0, mean), var


def noise(*shape):
    """Random numbers in float64."""
    return torch.randn(*shape).double()


def data(*shape):
    """Random data in [-1, 1], in float64."""
    return torch.rand(*shape).double() * 2 - 1


def at(step, batch):
    """The same t for each image."""
    return torch.full((batch,), step)


def some_t(batch=4):
    """A t for each image, all different, 0 and T-1 among them."""
    return torch.tensor([0, STEPS - 1, 3, 1, 2, 4])[:batch]


def expect_kept(arguments, before, names):
    """Go on if no argument was written to.

    Raises:
        Failure: if one was.
    """
    for name, now, old in zip(names.split(), arguments, before, strict=True):
        expect_equal(now, old, f"{name} after the call", because="as before")


def expect_normal(z, what):
    """Go on if the numbers have the moments of N(0, 1), within 6 standard errors.

    Raises:
        Failure: if not.
    """
    z, n = z.detach().double(), z.numel()
    moments = z.mean(), z.square().mean(), z.pow(4).mean()
    names = ("mean", "mean square", "mean fourth power")
    for name, seen, expected, var in zip(names, moments, (0, 1, 3), (1, 2, 96), strict=True):
        said = f"over {n} numbers the {name} of {what} is {show(seen)}"
        room = 6 * math.sqrt(var / n)
        expect(abs(seen.item() - expected) <= room, said, f"{expected}, as for N(0, 1)", output=z)


def expect_independent(z, what):
    """Go on if no two images, and no two places of an image, have the same numbers.

    Raises:
        Failure: if they do.
    """
    for rows, name in ((z.flatten(1), "images"), (z.flatten(1).T, "places of an image")):
        gap = (rows[0] - rows[1]).abs().max().item()
        expect(gap > 1e-6, f"{what} is the same in two {name}", "independent draws", output=z)


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


class Witness(nn.Module):
    """A model that keeps each x_t and t it is asked about, and in which mode that happened.

    Args:
        says: From x_t and t to eps_hat; None for a multiple of x_t with a trainable factor.
    """

    def __init__(self, says=None):
        super().__init__()
        self.says, self.factor = says, nn.Parameter(torch.tensor(0.3, dtype=torch.float64))
        self.part = nn.Dropout(0.5)
        self.x, self.t, self.modes, self.with_graph = [], [], [], []

    def forward(self, x_t, t, *rest):
        expect(not rest, f"the model got {2 + len(rest)} arguments", "x_t and t")
        if type(x_t) is not torch.Tensor or type(t) is not torch.Tensor:
            raise Failure(f"the model got {show(x_t)} and {show(t)}", "two tensors: x_t and t")
        whole = t.dtype == torch.int64
        expect(whole, f"the model got a t of type {t.dtype}", "int64")
        seen = f"the model got x_t {tuple(x_t.shape)} and t {tuple(t.shape)}"
        fits = x_t.ndim > 0 and tuple(t.shape) == (len(x_t),)
        expect(fits, seen, "t of shape (B,): one for each image", output=t)
        inside = t.min().item() >= 0 and t.max().item() < 1000
        expect(inside, f"the model got t = {show(t)}", "t from 0 to T-1")
        self.x.append(x_t.detach().clone())
        self.t.append(t.clone())
        self.modes += [self.training, self.part.training]
        self.with_graph.append(torch.is_grad_enabled())
        return self.factor * x_t if self.says is None else self.says(x_t, t)

    def seen(self, shape):
        """All x_t and t that came, row by row.

        Raises:
            Failure: if these were not x_t of this shape in all.
        """
        expect(len(self.x) > 0, "the model was not asked", "model(x_t, t)")
        same = all(x.shape[1:] == self.x[0].shape[1:] for x in self.x)
        expect(same, "the model got images of several shapes", "one shape")
        x_t = as_tensor(torch.cat(self.x), tuple(shape), "x_t, as the model got it,")
        return x_t, torch.cat(self.t)


def knows(x_0, alpha_bar=None):
    """What to say for a model that knows x_0: the true noise in x_t."""

    def says(x_t, t):
        a = levels(t, x_t.ndim, alpha_bar)
        return (x_t - a.sqrt() * x_0) / (1 - a).sqrt()

    return says


# --- 4.1 alpha_bar_from_beta


@check("4.1")
def after_the_first_step_1_minus_beta_is_left(alpha_bar_from_beta):
    """alpha_bar[0] already contains the step t = 0: it is 1 - beta[0], not 1 and not beta[0]."""
    value = as_tensor(alpha_bar_from_beta(torch.tensor([0.1, 0.2, 0.5])), (3,), "alpha_bar")
    what = "alpha_bar[0] for beta = 0.1, 0.2, 0.5"
    expect_close(value[0], torch.tensor(0.9), what, because="1 - 0.1")


@check("4.1")
def the_shares_of_all_steps_multiply(alpha_bar_from_beta):
    """0.9, then 0.9 * 0.8, then 0.9 * 0.8 * 0.5: the product of 1 - beta over all steps so far."""
    value = alpha_bar_from_beta(torch.tensor([0.1, 0.2, 0.5]))
    expected = torch.tensor([0.9, 0.72, 0.36])
    expect_close(value, expected, "alpha_bar for beta = 0.1, 0.2, 0.5")
    expect_close(alpha_bar_from_beta(torch.tensor([0.3])), torch.tensor([0.7]), "that for T = 1")


@check("4.1")
def a_thousand_steps_are_exact(alpha_bar_from_beta):
    """Nothing is clamped, and exp(-sum of beta) is no more than near: compare the logarithms."""
    beta = torch.linspace(1e-4, 0.02, 1000).double()
    value = as_tensor(alpha_bar_from_beta(beta.clone()), (1000,), "alpha_bar")
    expected = torch.log1p(-beta).cumsum(dim=0)
    what = "log alpha_bar for beta from 0.0001 to 0.02 in 1000 steps"
    expect_close(value.log(), expected, what, tol=1e-4)


@check("4.1")
def beta_stays_as_it_was(alpha_bar_from_beta):
    """Functions that end in _ and `beta *= ...` write into the caller's tensor."""
    beta = torch.rand(5) * 0.5
    before = beta.clone()
    alpha_bar_from_beta(beta)
    expect_equal(beta, before, "beta after the call", because="as before")


@check("4.1")
def the_dtype_is_that_of_beta(alpha_bar_from_beta):
    """float64 came in and something else went out: products of 1000 factors want its precision."""
    value = alpha_bar_from_beta(torch.rand(5).double() * 0.5)
    expect(value.dtype == torch.float64, f"{value.dtype} for a float64 beta", "torch.float64")


# --- 4.2 q_sample


@check("4.2")
def without_noise_the_root_of_alpha_bar_is_left(q_sample):
    """Where alpha_bar is 0.36, x_0 = 1 becomes 0.6: the root of alpha_bar[t], which is not alpha_t,
    the factor of a single step."""
    x_0 = torch.ones(PICTURES)
    x_t = q_sample(x_0, at(2, 4), 0 * x_0, ROOTS.clone())
    what = "x_t for x_0 = 1, eps = 0, alpha_bar = 0.81, 0.64, 0.36 and t = 2"
    expect_close(x_t, torch.full(PICTURES, 0.6), what, because="the root of 0.36")


@check("4.2")
def the_noise_has_the_rest_of_the_variance(q_sample):
    """Where alpha_bar is 0.36 the noise has variance 0.64: the given eps is multiplied by 0.8, the
    root of 1 - alpha_bar."""
    eps = torch.ones(PICTURES)
    x_t = q_sample(0 * eps, at(2, 4), eps, ROOTS.clone())
    what = "x_t for x_0 = 0, eps = 1, alpha_bar = 0.81, 0.64, 0.36 and t = 2"
    expect_close(x_t, torch.full(PICTURES, 0.8), what, because="the root of 1 - 0.36")


@check("4.2")
def every_image_has_the_noise_of_its_own_t(q_sample):
    """alpha_bar[t] of shape (B,) meets the width of the images, the last dimension, and goes
    unnoticed if that is B as well: it must be (B, 1, 1, 1). Nothing is clamped."""
    x_0, eps, t = data(*PICTURES), noise(*PICTURES), some_t()
    a = levels(t, 4)
    x_t = q_sample(x_0.clone(), t.clone(), eps.clone(), schedule())
    expect_close(x_t, a.sqrt() * x_0 + (1 - a).sqrt() * eps, "x_t for t = 0, 5, 3, 1")


@check("4.2")
def it_works_for_points_and_a_batch_of_one(q_sample):
    """x_0 may be (B, D), so four dimensions must not be written down: as many ones as x_0 has
    dimensions, less one."""
    for shape in ((5, 2), (2, 2), (1, 3), (1, 3, 2, 5)):
        x_0, eps, t = data(*shape), noise(*shape), some_t(shape[0])
        a = levels(t, len(shape))
        x_t = q_sample(x_0.clone(), t.clone(), eps.clone(), schedule())
        expect_close(x_t, a.sqrt() * x_0 + (1 - a).sqrt() * eps, f"x_t for x_0 {shape}")


@check("4.2")
def x_0_and_eps_stay_as_they_were(q_sample):
    """`*=`, `mul_` and their like write into the caller's tensors: eps is still needed as the
    target."""
    given = data(*PICTURES), some_t(), noise(*PICTURES), schedule()
    before = [v.clone() for v in given]
    q_sample(*given)
    expect_kept(given, before, "x_0 t eps alpha_bar")


# --- 4.3 diffusion_loss


@check("4.3")
def there_is_one_loss_for_each_image(diffusion_loss):
    """The mean is over the numbers of an image, not over the batch; also for B = 1 and points."""
    for shape in (PICTURES, (1, 3, 2, 5), (5, 2)):
        loss = diffusion_loss(Witness(), data(*shape), schedule())
        as_tensor(loss, (shape[0],), f"the loss for x_0 {shape}")


@check("4.3")
def every_t_is_drawn_equally_often(diffusion_loss):
    """Every image draws its own t from 0 ... T-1, both ends included: torch.randint leaves its
    upper end out, and t = 0 is a step like the others."""
    model = Witness(says=lambda x_t, t: 0 * x_t)
    diffusion_loss(model, torch.zeros(5000, 1).double(), schedule())
    t = model.seen((5000, 1))[1]
    expect(int(t.max()) < STEPS, f"t = {int(t.max())} was drawn", f"t from 0 to {STEPS - 1}")
    counts = torch.bincount(t, minlength=STEPS)
    room = 6 * math.sqrt(5000 / STEPS * (1 - 1 / STEPS))
    far = (counts - 5000 / STEPS).abs().max().item()
    seen = f"of 5000 images, {', '.join(map(str, counts.tolist()))} got t = 0 ... {STEPS - 1}"
    expect(far <= room, seen, f"about {5000 // STEPS} each", output=counts)


@check("4.3")
def a_model_that_knows_the_noise_costs_nothing(diffusion_loss):
    """The target is the very eps that x_t was made of, at the t that the model is told: a model
    that answers with it has a loss of 0."""
    x_0 = data(1, 2, 3, 4)
    model = Witness(says=knows(x_0))
    loss = diffusion_loss(model, x_0.repeat(8, 1, 1, 1), schedule())
    expect_close(loss, torch.zeros(8), "the loss of a model that tells the noise in x_t")


@check("4.3")
def the_noise_is_standard_normal(diffusion_loss):
    """eps is drawn by `torch.randn_like(x_0)`: N(0, 1), and independent for all numbers of all
    images."""
    model, x_0 = Witness(), data(1, 2, 3, 4)
    diffusion_loss(model, x_0.repeat(400, 1, 1, 1), schedule())
    eps = knows(x_0)(*model.seen((400, 2, 3, 4)))
    expect_independent(eps, "the noise")
    expect_normal(eps, "eps")


@check("4.3")
def it_is_the_mean_squared_miss_of_an_image(diffusion_loss):
    """Squared, and averaged over the numbers of an image: no sum, no root, no absolute value, no
    weight that depends on t."""
    x_0 = data(1, 2, 3, 4)
    model = Witness(says=lambda x_t, t: 0 * x_t)
    loss = diffusion_loss(model, x_0.repeat(6, 1, 1, 1), schedule())
    eps = knows(x_0)(*model.seen((6, 2, 3, 4)))
    what = "the loss of a model that answers 0"
    expect_close(loss, eps.square().flatten(1).mean(1), what, because="the mean of eps^2")


@check("4.3")
def gradients_flow_to_the_model(diffusion_loss):
    """`.detach()`, `.item()` or `torch.no_grad()` cut the graph: the model would learn nothing."""
    model, x_0 = Witness(), data(1, 5)
    loss = as_tensor(diffusion_loss(model, x_0.repeat(6, 1), schedule()), (6,), "the loss")
    x_t, t = model.seen((6, 5))
    expected = (2 * (0.3 * x_t - knows(x_0)(x_t, t)) * x_t).mean(dim=1).sum()
    expect_close(slope(loss, model.factor, "the loss", "the model"), expected, "its slope")


@check("4.3")
def draws_are_new_and_x_0_and_mode_stay(diffusion_loss):
    """A seed that is set inside makes every call the same; x_0 and the mode are the caller's."""
    for mode in (True, False):
        model, x_0 = Witness().train(mode), data(*PICTURES)
        before = x_0.clone()
        diffusion_loss(model, x_0, schedule())
        expect_equal(x_0, before, "x_0 after the call", because="as before")
        kept = model.training is mode and set(model.modes) == {mode}
        expect(kept, f"the model was in {'eval' if mode else 'training'} mode", "the mode it had")
        diffusion_loss(model, x_0, schedule())
        x_t = model.seen((8, *PICTURES[1:]))[0]
        same = torch.equal(x_t[:4], x_t[4:])
        expect(not same, "two calls gave the model the same x_t", "new draws")


# --- 4.4 predict_x0


@check("4.4")
def without_noise_x_t_is_only_scaled_back(predict_x0):
    """Where alpha_bar is 0.36, x_0 = 1 had become 0.6: divide by its root."""
    x_t = torch.full(PICTURES, 0.6)
    x_0 = predict_x0(x_t, at(2, 4), 0 * x_t, ROOTS.clone())
    what = "x_0 for x_t = 0.6, eps_hat = 0, alpha_bar = 0.81, 0.64, 0.36 and t = 2"
    expect_close(x_0, torch.ones(PICTURES), what, because="0.6 / 0.6")


@check("4.4")
def all_of_the_noise_is_taken_out(predict_x0):
    """Where alpha_bar is 0.36 the noise counts 0.8 times: x_t = 0.8 with eps_hat = 1 is nothing but
    noise."""
    x_t = torch.full(PICTURES, 0.8)
    x_0 = predict_x0(x_t, at(2, 4), torch.ones(PICTURES), ROOTS.clone())
    what = "x_0 for x_t = 0.8, eps_hat = 1, alpha_bar = 0.81, 0.64, 0.36 and t = 2"
    expect_close(x_0, torch.zeros(PICTURES), what, because="0.8 is all noise")


@check("4.4")
def it_undoes_q_sample_for_each_image(predict_x0):
    """Each image has its own t: alpha_bar[t] must be (B, 1, 1, 1), or (B, 1) for points."""
    for shape in (PICTURES, (5, 2), (2, 2), (1, 3, 2, 5)):
        x_0, eps, t = data(*shape), noise(*shape), some_t(shape[0])
        a = levels(t, x_0.ndim)
        x_t = a.sqrt() * x_0 + (1 - a).sqrt() * eps
        expect_close(predict_x0(x_t, t, eps, schedule()), x_0, f"x_0 out of x_t {shape}")


@check("4.4")
def nothing_is_clamped(predict_x0):
    """The contract leaves clamping to the caller: 3 comes back as 3."""
    x_0, t = torch.full((4, 2), 3.0).double(), some_t()
    x_t = levels(t, 2).sqrt() * x_0
    expect_close(predict_x0(x_t, t, 0 * x_t, schedule()), x_0, "the estimate of x_0 = 3")


@check("4.4")
def gradients_flow_to_eps_hat(predict_x0):
    """The graph is cut: losses on x_0 and guidance need the slope to eps_hat."""
    x_t, eps, t = noise(4, 2), noise(4, 2).requires_grad_(), some_t()
    x_0 = as_tensor(predict_x0(x_t, t, eps, schedule()), (4, 2), "the estimate")
    a = levels(t, 2)
    expected = -((1 - a) / a).sqrt().expand(4, 2)
    expect_close(slope(x_0, eps, "x_0", "eps_hat"), expected, "d x_0 / d eps_hat")


@check("4.4")
def x_t_and_eps_hat_stay_as_they_were(predict_x0):
    """`-=`, `div_` and their like write into the caller's tensors."""
    given = noise(*PICTURES), some_t(), noise(*PICTURES), schedule()
    before = [v.clone() for v in given]
    predict_x0(*given)
    expect_kept(given, before, "x_t t eps_hat alpha_bar")


# --- 4.5 posterior_mean_variance


def moments(posterior_mean_variance, x_0, x_t, t, alpha_bar=None):
    """The answer's mean and variance, as tensors of the right shapes.

    Raises:
        Failure: if they are not.
    """
    alpha_bar = schedule() if alpha_bar is None else alpha_bar
    pair = posterior_mean_variance(x_0.clone(), x_t.clone(), t.clone(), alpha_bar.clone())
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise Failure(f"the result is {show(pair)}", "a tuple: mean, variance", output=pair)
    mean = as_tensor(pair[0], tuple(x_t.shape), f"the mean for x_t {tuple(x_t.shape)}")
    var = as_tensor(pair[1], (len(x_t),), f"the variance for x_t {tuple(x_t.shape)}")
    return mean, var


TWO = torch.tensor([0.8, 0.4])  # an alpha_bar with alpha = 0.5 and beta = 0.5 at t = 1


@check("4.5")
def at_t_0_it_is_x_0_for_certain(posterior_mean_variance):
    """One step before t = 0 is the clean data, with alpha_bar = 1. `alpha_bar[t - 1]` is something
    else there: index -1 is the last number."""
    x_0, x_t = data(*PICTURES), noise(*PICTURES)
    mean, var = moments(posterior_mean_variance, x_0, x_t, at(0, 4))
    expect_close(mean, x_0, "the mean at t = 0", because="x_0")
    expect_equal(var, torch.zeros_like(var), "the variance at t = 0", because="exactly")


@check("4.5")
def its_variance_is_smaller_than_beta(posterior_mean_variance):
    """beta (1 - alpha_bar_{t-1}) / (1 - alpha_bar_t): x_0 is known, so less is open than beta. It
    is the variance, not its root and not its logarithm."""
    x = noise(*PICTURES).float()
    var = moments(posterior_mean_variance, x, x, at(1, 4), TWO)[1]
    what = "the variance for alpha_bar = 0.8, 0.4 and t = 1"
    expect_close(var, torch.full((4,), 1 / 6), what, because="0.5 * 0.2 / 0.6")


@check("4.5")
def x_0_has_its_share_of_the_mean(posterior_mean_variance):
    """sqrt(alpha_bar_{t-1}) beta_t / (1 - alpha_bar_t) is what x_0 is multiplied by. Where x_{t-1}
    has little noise, x_0 counts more than x_t."""
    ones = torch.ones(PICTURES)
    mean = moments(posterior_mean_variance, ones, 0 * ones, at(1, 4), TWO)[0]
    expected = torch.full(PICTURES, math.sqrt(0.8) * 0.5 / 0.6)
    what = "the mean for x_0 = 1, x_t = 0, alpha_bar = 0.8, 0.4 and t = 1"
    expect_close(mean, expected, what, because="sqrt(0.8) * 0.5 / 0.6")


@check("4.5")
def x_t_has_its_share_of_the_mean(posterior_mean_variance):
    """sqrt(alpha_t) (1 - alpha_bar_{t-1}) / (1 - alpha_bar_t) is what x_t is multiplied by."""
    ones = torch.ones(PICTURES)
    mean = moments(posterior_mean_variance, 0 * ones, ones, at(1, 4), TWO)[0]
    expected = torch.full(PICTURES, math.sqrt(0.5) * 0.2 / 0.6)
    what = "the mean for x_0 = 0, x_t = 1, alpha_bar = 0.8, 0.4 and t = 1"
    expect_close(mean, expected, what, because="sqrt(0.5) * 0.2 / 0.6")


@check("4.5")
def it_is_bayes_rule_for_each_image(posterior_mean_variance):
    """q(x_{t-1} | x_0) times q(x_t | x_{t-1}), made a density: for each image with its own t, of
    shape (B, 1, 1, 1) against images and (B, 1) against points."""
    for shape in (PICTURES, (5, 2), (2, 2), (1, 3, 2, 5)):
        x_0, x_t, t = 3 * data(*shape), noise(*shape), some_t(shape[0])
        mean, var = moments(posterior_mean_variance, x_0, x_t, t)
        expected = posterior(x_0, x_t, t)
        expect_close(mean, expected[0], f"the mean for {shape} and t = {t.tolist()}")
        expect_close(var, expected[1].flatten(), f"the variance for t = {t.tolist()}")


@check("4.5")
def what_is_given_stays_as_it_was(posterior_mean_variance):
    """`*=`, `alpha_bar[-1] = 1` and their like write into the caller's tensors."""
    given = data(*PICTURES), noise(*PICTURES), some_t(), schedule()
    before = [v.clone() for v in given]
    posterior_mean_variance(*given)
    expect_kept(given, before, "x_0 x_t t alpha_bar")


# --- 4.6 p_sample


def believes(x_t, t, alpha_bar=None):
    """The clamped x_0 of a model that answers with 0.3 x_t."""
    a = levels(t, x_t.ndim, alpha_bar)
    return ((x_t - (1 - a).sqrt() * 0.3 * x_t) / a.sqrt()).clamp(-1, 1)


@check("4.6")
def the_model_sees_x_t_and_t_as_they_are(p_sample):
    """model(x_t, t) with the t that belongs to x_t, (B,) int64; the result has the shape of x_t."""
    for shape in (PICTURES, (1, 3, 2, 5), (2, 2)):
        model, x_t, t = Witness(), noise(*shape), some_t(shape[0])
        x = p_sample(model, x_t.clone(), t.clone(), schedule())
        as_tensor(x, shape, f"the result for x_t {shape}")
        seen = model.seen(shape)
        expect_equal(seen[0], x_t, "x_t, as the model got it,", because="as it was given")
        expect_equal(seen[1], t, "t, as the model got it,", because="as it was given")


@check("4.6")
def at_t_0_no_noise_is_added(p_sample):
    """The last step gives the estimate of x_0 itself: noise at t = 0 is grain in every picture."""
    x_0, a = data(1, 4, 3, 4).repeat(4, 1, 1, 1), levels(at(0, 4), 4)
    x_t = a.sqrt() * x_0 + (1 - a).sqrt() * noise(*PICTURES)
    x = p_sample(Witness(says=knows(x_0[:1])), x_t, at(0, 4), schedule())
    expect_close(x, x_0, "the result at t = 0, of a model that knows x_0,", because="x_0")


@check("4.6")
def the_estimate_of_x_0_is_clamped(p_sample):
    """No data lies outside [-1, 1], so no estimate of it should."""
    x_0 = 3 * data(1, 4, 3, 4).sign().expand(PICTURES)
    x = p_sample(Witness(says=knows(x_0[:1])), noise(*PICTURES), at(0, 4), schedule())
    expect_close(x, x_0 / 3, "the result at t = 0, of a model that believes in x_0 = 3 or -3,")


@check("4.6")
def images_are_told_apart_by_their_t(p_sample):
    """In a batch of several t, just the images with t = 0 get no noise: a mask or a standard
    deviation of shape (B,) meets columns, and `if t[0] == 0` decides for all."""
    shape, t = (4, 2, 5, 4), torch.tensor([3, 0, 1, 0])
    model, x_t = Witness(says=knows(torch.full((1, 2, 5, 4), 0.4).double())), noise(*shape)
    a, b = (as_tensor(p_sample(model, x_t.clone(), t, schedule()), shape, "x") for _ in range(2))
    for i, step in enumerate(t.tolist()):
        share = (a[i] != b[i]).double().mean().item()
        seen = f"with t = 3, 0, 1, 0 in a batch, two calls differ in {share:.0%} of image {i}"
        expect(share == (step > 0), seen, f"{'100%' if step else '0%'}, as t = {step}", output=a)


@check("4.6")
def every_number_has_its_own_noise(p_sample):
    """One noise is shared by the batch, or by the places of an image: `torch.randn_like(x_t)`."""
    x_t, model = noise(1, 4, 3, 4).repeat(4, 1, 1, 1), Witness()
    x = as_tensor(p_sample(model, x_t.clone(), at(2, 4), schedule()), PICTURES, "the result")
    mean, var = posterior(believes(x_t, at(2, 4)), x_t, at(2, 4))
    expect_independent((x - mean) / var.sqrt(), "the noise")


@check("4.6")
def it_is_a_draw_of_the_posterior(p_sample):
    """mean + sqrt(variance) * noise, both from `posterior_mean_variance` at the clamped x_0: is the
    root there, is the variance that of 4.5, and is the noise normal?"""
    x_t, t = 1.5 * noise(80, 10, 15), torch.arange(80) % (STEPS - 1) + 1
    x = as_tensor(p_sample(Witness(), x_t.clone(), t, schedule()), (80, 10, 15), "the result")
    mean, var = posterior(believes(x_t, t), x_t, t)
    expect_normal((x - mean) / var.sqrt(), "(x_{t-1} - mean) / standard deviation")


@check("4.6")
def draws_are_new_and_x_t_stays(p_sample):
    """A seed that is set inside makes every call the same; `x_t += ...` writes into the caller's
    tensor."""
    given, model = (noise(*PICTURES), at(2, 4), schedule()), Witness()
    before = [v.clone() for v in given]
    first, second = p_sample(model, *given), p_sample(model, *given)
    expect_kept(given, before, "x_t t alpha_bar")
    expect(not torch.equal(first, second), "two calls gave the same", "new noise")


# --- 4.7 sample


@check("4.7")
def t_falls_from_the_last_to_0(sample):
    """All T steps, from the noisiest down, and t = 0 is one of them: range(T - 1, 0, -1) ends at
    1."""
    for shape in ((3, 2, 5, 4), (1, 2)):
        model = Witness(says=lambda x_t, t: 0.3 * x_t)
        as_tensor(sample(model, shape, schedule()), shape, f"the result for {shape}")
    steps = [sorted(set(t.tolist())) for t in model.t]
    flat = [s[0] if len(s) == 1 else s for s in steps]
    expected = list(range(STEPS - 1, -1, -1))
    expect(flat == expected, f"the model is asked about t = {str(flat)[1:-1]:.80}", str(expected))


@check("4.7")
def it_starts_from_standard_normal_noise(sample):
    """The first x is N(0, I), independent for all numbers of all images: `torch.randn(shape)`."""
    model = Witness(says=lambda x_t, t: 0.3 * x_t)
    sample(model, (500, 2, 3, 4), schedule(2))
    start = as_tensor(model.x[0], (500, 2, 3, 4), "the first x")
    expect_independent(start, "the first x")
    expect_normal(start, "the first x")


@check("4.7")
def each_step_goes_on_from_the_last(sample):
    """x_{t-1} is a draw of `p_sample` from the x_t before it, all the way: is x replaced in every
    step, and its noise added just once?"""
    model = Witness(says=lambda x_t, t: 0.3 * x_t)
    sample(model, (300, 4, 2), schedule(4))
    expect(len(model.x) == 4, f"the model is asked {len(model.x)} times for T = 4", "4 times")
    parts = []
    for step, x_t, x in zip((3, 2, 1), model.x, model.x[1:], strict=False):
        x_0, t = believes(x_t, at(step, 300), schedule(4)), at(step, 300)
        mean, var = posterior(x_0, x_t, t, schedule(4))
        parts.append((x - mean) / var.sqrt())
    expect_normal(torch.stack(parts), "(x_{t-1} - mean) / standard deviation")


@check("4.7")
def a_model_that_knows_x_0_gets_it_back(sample):
    """The last step's result is returned as it is: nothing is added, rescaled or left out after
    t = 0."""
    x_0 = data(1, 4, 3, 4)
    x = sample(Witness(says=knows(x_0)), PICTURES, schedule())
    expected = x_0.expand(PICTURES)
    what = "the result for a model that knows x_0"
    expect_close(as_tensor(x, PICTURES, what), expected, what, because="x_0")


@check("4.7")
def it_runs_in_eval_mode_and_gives_the_mode_back(sample):
    """model.eval() before, because of dropout and batch norm, and model.train(was) after."""
    for mode in (True, False):
        model = Witness(says=lambda x_t, t: 0.3 * x_t).train(mode)
        sample(model, (2, 3), schedule(2))
        expect(not any(model.modes), "the model runs in training mode", "eval mode")
        after = model.training
        seen = f"model.training was {mode} and is {after} after the call"
        expect(after is mode and model.part.training is mode, seen, f"{mode}")


@check("4.7")
def no_graph_is_built_and_draws_are_new(sample):
    """Without torch.no_grad() the activations of all T steps are kept; a seed that is set inside
    gives the same pictures every time."""
    model = Witness()
    first, second = (sample(model, (2, 3), schedule(2)) for _ in range(2))
    expect(not any(model.with_graph), "gradients are recorded meanwhile", "torch.no_grad()")
    expect(not first.requires_grad, "the result has a gradient graph", "none")
    expect(torch.is_grad_enabled(), "gradients are switched off after the call", "on, as before")
    expect(not torch.equal(first, second), "two calls gave the same", "new draws")


# --- 4.8 ddim_step


@check("4.8")
def from_0_6_and_0_8_to_0_8_and_0_6(ddim_step):
    """x_0 and eps are mixed anew: both with the factors of s, sqrt(alpha_bar_s) and sqrt(1 -
    alpha_bar_s), where x_t had those of t."""
    eps = torch.zeros(PICTURES)
    eps[..., :2] = 1  # two columns of nothing but noise, two of nothing but data
    x_s = ddim_step(0.6 + 0.2 * eps, at(2, 4), at(1, 4), eps.clone(), ROOTS.clone())
    x_s = as_tensor(x_s, PICTURES, "x_s")
    what = "with alpha_bar from 0.36 to 0.64, what was"
    expect_close(x_s[0, 0, 0, 3], torch.tensor(0.8), f"{what} 0.6 x_0 becomes")
    expect_close(x_s[0, 0, 0, 0], torch.tensor(0.6), f"{what} 0.8 eps becomes")


@check("4.8")
def s_minus_1_is_the_clean_estimate(ddim_step):
    """At s = -1 alpha_bar is 1, and x_s the estimate of x_0. `alpha_bar[s]` is something else:
    index -1 is the last number."""
    x_0, eps, a = data(*PICTURES), noise(*PICTURES), levels(at(3, 4), 4)
    x_t = a.sqrt() * x_0 + (1 - a).sqrt() * eps
    x_s = ddim_step(x_t, at(3, 4), at(-1, 4), eps, schedule())
    expect_close(x_s, x_0, "x_s for s = -1", because="the estimate of x_0")


@check("4.8")
def the_true_noise_leads_to_the_true_x_s(ddim_step):
    """If eps_hat is the noise, then x_s = sqrt(alpha_bar_s) x_0 + sqrt(1 - alpha_bar_s) eps for the
    same x_0, at any two levels, for each image with its own t and s; nothing is drawn."""
    for shape in (PICTURES, (5, 2), (2, 2), (1, 3, 2, 5)):
        x_0, eps, t = data(*shape), noise(*shape), some_t(shape[0])
        s = torch.tensor([4, 1, -1, 2, 0])[: shape[0]]
        a, b = levels(t, x_0.ndim), levels(s, x_0.ndim)
        x_t = a.sqrt() * x_0 + (1 - a).sqrt() * eps
        x_s = ddim_step(x_t, t.clone(), s.clone(), eps.clone(), schedule())
        expected = b.sqrt() * x_0 + (1 - b).sqrt() * eps
        expect_close(x_s, expected, f"x_s for {shape}, t = {t.tolist()}, s = {s.tolist()}")


@check("4.8")
def a_large_x_0_stays_large(ddim_step):
    """Nothing is clamped: a clamped x_0 and eps_hat do not make up x_t, and the step could not be
    undone."""
    x_0, t, s = torch.full((4, 2), 3.0).double(), some_t(), some_t().flip(0)
    x_s = ddim_step(levels(t, 2).sqrt() * x_0, t.clone(), s.clone(), 0 * x_0, schedule())
    expect_close(x_s, levels(s, 2).sqrt() * x_0, "x_s for x_0 = 3, eps_hat = 0")


@check("4.8")
def what_came_in_stays_as_it_was(ddim_step):
    """`-=`, `alpha_bar[-1] = 1` and their like write into the caller's tensors."""
    given = noise(*PICTURES), some_t(), some_t() - 1, noise(*PICTURES), schedule()
    before = [v.clone() for v in given]
    ddim_step(*given)
    expect_kept(given, before, "x_t t s eps_hat alpha_bar")


# --- 4.9 classifier_free_guidance

NULL = 2  # of five labels, in the middle: neither 0 nor -1


class Labelled(nn.Module):
    """A model with a label, whose answer depends on all it is given, number by number.

    Args:
        blind: Whether it ignores x_t and t.
    """

    def __init__(self, ndim=4, blind=False):
        super().__init__()
        self.ones, self.blind = [1] * (ndim - 1), blind
        self.of_label = nn.Parameter(3 * noise(5))

    def forward(self, x_t, t, y):
        for name, value in (("t", t), ("y", y)):
            shape = tuple(value.shape) if isinstance(value, torch.Tensor) else show(value)
            fits = shape == (len(x_t),)
            expect(fits, f"the model got x_t {tuple(x_t.shape)} and {name} {shape}", "(B,)")
        expect(y.dtype == torch.int64, f"the model got a y of type {y.dtype}", "int64")
        seen = f"the model got the labels {show(y)}"
        expect(bool((y >= 0).all() and (y < 5).all()), seen, "those of y, and null")
        pull = self.of_label[y].view(-1, *self.ones)
        if self.blind:
            return pull.expand_as(x_t)
        return pull * (x_t + 0.1 * t.view(-1, *self.ones)) + x_t.square()


def guided(classifier_free_guidance, w, shape=PICTURES, blind=False):
    """The answer's result, and both predictions of the model."""
    model, x_t = Labelled(len(shape), blind), noise(*shape)
    t, y = some_t(shape[0]), torch.tensor([1, 4, 0, 3, 4])[: shape[0]]
    cond, uncond = model(x_t, t, y), model(x_t, t, torch.full_like(y, NULL))
    value = classifier_free_guidance(model, x_t.clone(), t.clone(), y.clone(), NULL, w)
    value = as_tensor(value, shape, f"the result for x_t {shape}")
    return value, cond, uncond, model


@check("4.9")
def w_1_is_the_label_alone(classifier_free_guidance):
    """w = 1 ends at the conditional prediction: eps_uncond + 1 (eps_cond - eps_uncond). Papers that
    write (1 + w) cond - w uncond count from another start."""
    for shape in (PICTURES, (1, 3, 2, 5), (5, 2)):
        value, cond, *_ = guided(classifier_free_guidance, 1.0, shape)
        expect_close(value, cond, "eps_hat for w = 1", because="the model's answer for y")


@check("4.9")
def w_0_is_without_a_label(classifier_free_guidance):
    """w = 0 starts at the unconditional prediction, for which every image has the label `null`."""
    value, _, uncond, _ = guided(classifier_free_guidance, 0.0)
    expect_close(value, uncond, "eps_hat for w = 0", because="the model's answer for `null`")


@check("4.9")
def other_w_lie_on_the_same_line(classifier_free_guidance):
    """From without to with a label, w times as far: 3 goes beyond, 0.5 stays between, -1 goes the
    other way. No clamping, no rescaling."""
    for w in (3.0, 0.5, -1.0):
        value, cond, uncond, _ = guided(classifier_free_guidance, w)
        expected = uncond + w * (cond - uncond)
        expect_close(value, expected, f"eps_hat for w = {w:g}", because="on the line of both")


@check("4.9")
def gradients_flow_through_both(classifier_free_guidance):
    """One of the predictions, or both, are cut from the graph: distillation needs their slopes."""
    value, *_, model = guided(classifier_free_guidance, 3.0, (5, 2), blind=True)
    found = slope(value, model.of_label, "eps_hat", "the model")
    expected = torch.tensor(
        [6.0, 6.0, -20.0, 6.0, 12.0]
    )  # 2 numbers an image, w = 3 and 1 - w = -2
    expect_close(found, expected, "the slope to the pull of each label")


@check("4.9")
def labels_and_x_t_stay_as_they_were(classifier_free_guidance):
    """`y[:] = null`, `y.fill_(null)` and their like write into the caller's tensor: `full_like`
    makes a new one."""
    given = noise(*PICTURES), some_t(), torch.tensor([1, 4, 0, 3])
    before = [v.clone() for v in given]
    classifier_free_guidance(Labelled(), *given, NULL, 2.0)
    expect_kept(given, before, "x_t t y")


# --- 4.10 ema_update


def pair():
    """An average and a model with other weights, other buffers and a frozen layer, in training."""
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    model[2].weight.requires_grad_(False)
    ema = copy.deepcopy(model).eval()
    with torch.no_grad():
        for p in (*model.parameters(), *ema.parameters()):
            p.normal_()
    model[1].running_mean.normal_()
    model[1].running_var.uniform_(0.5, 2)
    model[1].num_batches_tracked.fill_(7)
    for p in model.parameters():
        p.grad = torch.randn_like(p) if p.requires_grad else None
    return ema, model


def copies(module):
    """Name -> a copy of each parameter and buffer."""
    return {name: value.clone() for name, value in module.state_dict().items()}


@check("4.10")
def the_average_moves_a_tenth_of_the_way_at_0_9(ema_update):
    """ema = 0.9 ema + 0.1 model: the decay stays with the average, in whose own tensors the result
    must be."""
    ema, model = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    nn.init.constant_(ema.weight, 1.0)
    nn.init.constant_(model.weight, 2.0)
    ema_update(ema, model, 0.9)
    what = "the average after 1, for a model of 2 and decay 0.9"
    expect_close(ema.weight[0, 0], torch.tensor(1.1), what, because="0.9 * 1 + 0.1 * 2")


@check("4.10")
def the_model_stays_as_it_was(ema_update):
    """The average follows the model and not the other way round: training must not notice it."""
    ema, model = pair()
    before = copies(model)
    ema_update(ema, model, 0.7)
    for name, value in model.state_dict().items():
        expect_equal(value, before[name], f"the model's {name} after the call", because="as before")


@check("4.10")
def every_parameter_moves(ema_update):
    """All of them, biases and frozen ones too, and each with its own partner."""
    ema, model = pair()
    before = {name: p.detach().clone() for name, p in ema.named_parameters()}
    ema_update(ema, model, 0.7)
    now = dict(model.named_parameters())
    for name, p in ema.named_parameters():
        expected = 0.7 * before[name] + 0.3 * now[name]
        expect_close(p, expected, f"the average of {name} at decay 0.7", because="0.7 old, 0.3 new")


@check("4.10")
def buffers_are_copied(ema_update):
    """The statistics of batch norm are averages already, and its counter is a whole number: copy
    them. `parameters()` leaves them out."""
    ema, model = pair()
    ema_update(ema, model, 0.7)
    for name, value in ema.named_buffers():
        there = model.get_buffer(name)
        expect(value.dtype == there.dtype, f"{name} is {value.dtype}", f"{there.dtype}")
        expect_close(value.double(), there.double(), f"{name} of the average", because="a copy")


@check("4.10")
def the_average_has_its_own_memory(ema_update):
    """`p.data = q.data` makes both names for one tensor: the next step of training moves the
    average as well."""
    ema, model = pair()
    for _ in range(2):
        ema_update(ema, model, 0.0)
    before = copies(ema)
    with torch.no_grad():
        for value in (*model.parameters(), *model.buffers()):
            value.add_(1)
    for name, value in ema.state_dict().items():
        expect_equal(value, before[name], f"{name} of the average, after a step", because="apart")


@check("4.10")
def no_graph_is_kept(ema_update):
    """Without torch.no_grad() the average drags a graph of all steps along, or PyTorch refuses."""
    ema, model = pair()
    wanted = [p.requires_grad for p in ema.parameters()]
    ema_update(ema, model, 0.7)
    for p, before in zip(ema.parameters(), wanted, strict=True):
        expect(p.is_leaf and p.grad_fn is None, "the average has a gradient graph", "none")
        same = p.requires_grad is before
        expect(same, f"requires_grad was {before} and is {p.requires_grad}", "as before")
    expect(torch.is_grad_enabled(), "gradients are switched off after the call", "on, as before")


@check("4.10")
def modes_and_gradients_stay(ema_update):
    """Train or eval mode, and the gradients that the optimiser is about to use, are not touched."""
    ema, model = pair()
    grads = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    ema_update(ema, model, 0.7)
    modes = [[m.training for m in module.modules()] for module in (ema, model)]
    seen = f"ema.training is {ema.training}, model.training is {model.training}"
    expect(modes == [[False] * 4, [True] * 4], seen, "False and True, as before")
    for p, grad in zip(model.parameters(), grads, strict=True):
        if grad is not None:
            expect(p.grad is not None, "a gradient of the model is gone", "as before")
            expect_equal(p.grad, grad, "a gradient of the model", because="as before")


# --- 4.11 TimeConditionedNet


def shaken(TimeConditionedNet, data_dim=3):
    """A network in eval mode with large random weights: layers that begin at 0 count as well."""
    model = TimeConditionedNet(data_dim, 16, 32).eval()
    for p in model.parameters():
        nn.init.normal_(p, std=0.3)
    return model


def waves(TimeConditionedNet):
    """The embedding of t = 0 ... 999, with E = 32."""
    value = TimeConditionedNet(2).embed(torch.arange(1000))
    return as_tensor(value, (1000, 32), "the embedding of 1000 times").detach().double()


@check("4.11")
def eps_hat_and_embedding_have_their_shapes(TimeConditionedNet):
    """eps_hat is (B, D) like x_t, the embedding (B, E), one row for each t; also for B = 1."""
    for batch, dim, size in ((4, 3, 32), (1, 2, 10)):
        model, t = TimeConditionedNet(dim, size).eval(), some_t(batch)
        what = f"the embedding for B = {batch}, E = {size}"
        as_tensor(model.embed(t), (batch, size), what)
        as_tensor(model(torch.randn(batch, dim), t), (batch, dim), f"eps_hat for ({batch}, {dim})")


@check("4.11")
def no_two_times_look_alike(TimeConditionedNet):
    """Some t have the same embedding: are frequencies or times rounded to whole numbers, divided by
    //, or all frequencies the same?"""
    found = waves(TimeConditionedNet)
    rows = found.float()
    gaps = torch.cdist(rows[:290], rows).fill_diagonal_(10.0)  # up to 999 apart, 710 too
    place = int(gaps.argmin())
    least = gaps.min().item()
    seen = f"the embeddings of t = {place // 1000} and {place % 1000} are {least:.2g} apart"
    expect(least > 0.05, seen, "0.05 or more between any two of 0 ... 999", output=found)


@check("4.11")
def the_fastest_wave_has_frequency_1(TimeConditionedNet):
    """sin(t) changes its sign 318 times in t = 0 ... 999, which is 1000 / pi: t is not divided by
    T, and the exponent is negative, so that all other waves are slower."""
    found = waves(TimeConditionedNet)
    turns = int((found[1:].sign() != found[:-1].sign()).sum(dim=0).max())
    seen = f"the fastest wave changes its sign {turns} times in t = 0 ... 999"
    expect(300 <= turns <= 340, seen, "318 times, frequency 1", output=found)


@check("4.11")
def every_sine_has_its_cosine(TimeConditionedNet):
    """With both, the product of two embeddings depends on the distance of their times alone: the
    hands of a clock turn. The sine alone, or two different frequencies, do not."""
    found = waves(TimeConditionedNet)
    for k in (0, 7, 300):
        products = (found[: 1000 - k] * found[k:]).sum(dim=1)
        low, high = products.min().item(), products.max().item()
        seen = f"the product of embeddings {k} apart lies between {low:.4g} and {high:.4g}"
        expect(high - low < 0.05, seen, "one number, wherever the pair is", output=found)
    expect_close(
        found[0] @ found[0], found.new_tensor(16.0), "the squared length, E = 32", tol=0.01
    )


@check("4.11")
def frequencies_have_equal_ratios(TimeConditionedNet):
    """From 1 to about 1/10000, each frequency is the same part of the one before: equal differences
    leave hardly any slow wave, another range none, or too many."""
    found = waves(TimeConditionedNet)
    for k in (1, 30, 999):  # the last i / (E/2), or i / (E/2 - 1), in the exponent
        sums = [10000.0 ** (-torch.arange(16).double() / n) for n in (15, 16)]
        low, high = sorted(torch.cos(k * f).sum().item() for f in sums)
        product = (found[0] @ found[k]).item()
        seen = f"the embeddings of t = 0 and {k} have the product {product:.3g}"
        near = low - 0.7 <= product <= high + 0.7
        expect(near, seen, f"about {(low + high) / 2:.3g}, for equal ratios", output=found)


@check("4.11")
def the_answer_depends_on_t(TimeConditionedNet):
    """eps_hat is the same for every t: the embedding is computed and not used, or always that of
    the same t."""
    model, x_t = shaken(TimeConditionedNet), torch.randn(1, 3).repeat(50, 1)
    out = as_tensor(model(x_t, torch.arange(50)), (50, 3), "eps_hat").detach()
    gaps = (out[1:] - out[:-1]).abs().amax(dim=1)
    seen = f"for t = 0 ... 49 and one x_t, neighbours differ by {show(gaps.min().item())} or more"
    expect(gaps.min().item() > 1e-4, seen, "a difference for every t", output=out)


@check("4.11")
def every_row_has_its_own_t(TimeConditionedNet):
    """Rows of a batch are mixed, or all get the t of the first one: each row must give what it
    gives alone."""
    model, x_t, t = shaken(TimeConditionedNet), torch.randn(4, 3), torch.tensor([7, 0, 950, 31])
    together = as_tensor(model(x_t, t), (4, 3), "eps_hat")
    alone = torch.cat([model(x_t[i : i + 1], t[i : i + 1]) for i in range(4)])
    what = "eps_hat of a batch with t = 7, 0, 950, 31"
    expect_close(together, alone, what, tol=1e-3, because="as one by one")


@check("4.11")
def t_changes_how_x_t_is_treated(TimeConditionedNet):
    """If t only adds something to the answer, two x_t have the same difference at every t: let the
    embedding and x_t meet before a nonlinearity."""
    model, x_t = shaken(TimeConditionedNet), torch.randn(16, 3)
    early, late = (as_tensor(model(x_t, at(t, 16)), (16, 3), "eps_hat") for t in (3, 400))
    change = (late - early).detach()
    gap = (change[1:] - change[0]).abs().max().item()
    seen = f"from t = 3 to t = 400, eps_hat changes by the same for all x_t, but for {gap:.2g}"
    expect(gap > 1e-3, seen, "a change that depends on x_t", output=change)


@check("4.11")
def straight_lines_of_x_t_are_bent(TimeConditionedNet):
    """Without a hidden layer and its nonlinearity eps_hat is linear in x_t."""
    model, t = shaken(TimeConditionedNet), at(20, 16)
    a, b = 3 * torch.randn(16, 3), 3 * torch.randn(16, 3)
    ends = (model(a, t) + model(b, t)) / 2
    bend = as_tensor(model((a + b) / 2, t), (16, 3), "eps_hat") - ends
    gap = bend.abs().max().item()
    seen = "eps_hat at the middle of two x_t is the mean of its values at both, 16 times"
    expect(gap > 1e-3, seen, "a nonlinearity, which bends straight lines")


@check("4.11")
def eps_hat_is_any_real_number(TimeConditionedNet):
    """An activation after the last layer limits eps_hat: noise has both signs, and often exceeds
    1."""
    model, x_t, t = shaken(TimeConditionedNet), 10 * torch.randn(8, 3), some_t().repeat(2)
    parts = []
    for _ in range(16):
        for p in model.parameters():
            nn.init.normal_(p, std=0.3)
        parts.append(as_tensor(model(x_t, t), (8, 3), "eps_hat").detach())
    out = torch.cat(parts)
    low, high = out.min().item(), out.max().item()
    seen = f"for 16 random networks and 8 large x_t, eps_hat is between {low:.3g} and {high:.3g}"
    expect(low < 0 < high and max(-low, high) > 1.05, seen, "both signs, beyond 1", output=out)


@check("4.11")
def all_layers_learn(TimeConditionedNet):
    """Layers in a plain list or dict are invisible to the optimiser, and a detached or new tensor
    cuts the graph: use attributes or nn.Sequential."""
    model = shaken(TimeConditionedNet)
    out = as_tensor(model(torch.randn(8, 3), some_t(4).repeat(2)), (8, 3), "eps_hat")
    if out.requires_grad:
        out.square().sum().backward()
    learning = [p for p in model.parameters() if p.grad is not None and p.grad.any()]
    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    idle = [n for n, p in trained if p.grad is None or not p.grad.any()]
    seen = f"{len(learning)} of the parameters get a gradient"
    expect(len(learning) >= 2, seen, "all that the network uses: two matrices at least")
    expect(not idle, f"no gradient reaches {', '.join(idle):.60}", "every parameter is used")
