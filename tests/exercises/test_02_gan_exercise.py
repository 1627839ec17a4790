"""What is true of every right answer to exercise 2.

Each check takes the answer. Real and fake batches differ in size where the contract allows it, so
that nothing can be paired by accident. Where chance plays, there are 6 standard errors of room.
"""

import copy
import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.utils import parameters_to_vector

from exercises import grading, kit
from exercises.checks import (
    Failure,
    as_number,
    as_tensor,
    check,
    expect,
    expect_close,
    expect_equal,
    show,
)

TASKS = kit.exercise(2).tasks


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_your_answer(task):
    grading.settle(grading.grade(task, grading.read(kit.exercise(2))))


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


def expect_mean(values, expected, spread, what, of=""):
    """Go on if the mean of many values is `expected`, within 6 standard errors.

    Args:
        spread: The standard deviation of one value of a right answer.
        of: What is said of the expected mean, such as "as for a normal".

    Raises:
        Failure: if not.
    """
    values = values.flatten().double()
    mean, n = values.mean().item(), values.numel()
    seen = f"{what} is {show(mean)}, over {n} numbers"
    near = abs(mean - expected) <= 6 * spread / math.sqrt(n)
    expect(near, seen, f"{show(expected)}{of}", output=values)


# --- 2.1 sample_latent


def many(sample_latent):
    """8000 vectors of two numbers."""
    return as_tensor(sample_latent(8000, 2), (8000, 2), "z")


@check("2.1")
def there_are_n_rows_of_latent_dim_numbers(sample_latent):
    """One row for each image: (n, latent_dim), also if n is 1."""
    for n, latent_dim in ((5, 3), (1, 7)):
        what = f"z for n = {n}, latent_dim = {latent_dim}"
        z = as_tensor(sample_latent(n, latent_dim), (n, latent_dim), what, shape_is_said=False)
        expect(z.dtype == torch.float32, f"{what} is {z.dtype}", "torch.float32")


@check("2.1")
def all_numbers_are_drawn_separately(sample_latent):
    """One draw is used for several rows or columns: draw all n * latent_dim numbers."""
    z = as_tensor(sample_latent(4, 5), (4, 5), "z")
    for dim, name in enumerate(("rows", "columns")):
        gap = (z.select(dim, 0) - z.select(dim, 1)).abs().max().item()
        expect(gap > 1e-6, f"two {name} of z are the same", "independent draws", output=z)


@check("2.1")
def each_call_draws_anew(sample_latent):
    """A seed is set inside, so that every call gives the same z: the caller alone sets seeds."""
    first, second = sample_latent(4, 3), sample_latent(4, 3)
    expect(not torch.equal(first, second), "two calls gave the same z", "new numbers", output=first)


@check("2.1")
def the_callers_seed_decides_z(sample_latent):
    """The numbers come from elsewhere, such as NumPy or a generator of their own: after
    torch.manual_seed a run must be repeatable."""
    pair = []
    for _ in range(2):
        torch.manual_seed(5)
        pair.append(as_tensor(sample_latent(4, 3), (4, 3), "z"))
    same = torch.equal(*pair)
    expect(same, "after the same torch.manual_seed two calls gave different z", "the same z")


@check("2.1")
def the_mean_is_0(sample_latent):
    """`torch.rand` is uniform on [0, 1], with mean 1/2; the normal is `torch.randn`."""
    expect_mean(many(sample_latent), 0.0, 1.0, "the mean of z")


@check("2.1")
def the_variance_is_1(sample_latent):
    """N(0, I) has variance 1 in every dimension: nothing is scaled, cut off or normalised."""
    expect_mean(many(sample_latent).square(), 1.0, math.sqrt(2), "the mean of z^2")


@check("2.1")
def z_is_normal(sample_latent):
    """The numbers have variance 1, but another shape, such as uniform, +-1, or points on a
    sphere."""
    fourth, spread = many(sample_latent).double().pow(4), math.sqrt(96)  # 105 - 9
    expect_mean(fourth, 3.0, spread, "the mean of z^4", ", as for a normal")


@check("2.1")
def z_is_a_plain_tensor(sample_latent):
    """z is an input, nothing that is trained: no nn.Parameter, and no requires_grad."""
    z = as_tensor(sample_latent(4, 3), (4, 3), "z")
    expect(not z.requires_grad, "z requires a gradient", "a tensor without a graph", output=z)


# --- 2.2 discriminator_loss


def two_logits(real=4, fake=3, spread=2.0):
    """Random logits of real and fake images."""
    return spread * torch.randn(real), spread * torch.randn(fake)


def exact_loss(real, fake, target=1.0):
    """The discriminator's loss through probabilities, in float64."""
    s, f = real.detach().double().sigmoid(), fake.detach().double().sigmoid()
    of_real = -(target * s.log() + (1 - target) * (1 - s).log()).mean()
    return (of_real - (1 - f).log().mean()).float()


def filled(real, fake, *sizes):
    """Logits that are all `real`, and logits that are all `fake`."""
    sizes = sizes or (4, 3)
    return torch.full((sizes[0],), real), torch.full((sizes[1],), fake)


@check("2.2")
def it_is_one_number(discriminator_loss):
    """A tensor of shape (): a mean over each batch. Batches of different sizes, or of one image,
    must work."""
    for sizes in ((4, 3), (1, 1), (2, 5)):
        value = discriminator_loss(*two_logits(*sizes))
        what = f"the loss for {sizes[0]} real and {sizes[1]} fake logits"
        as_tensor(value, (), what, shape_is_said=False)


@check("2.2")
def who_is_sure_and_right_pays_nothing(discriminator_loss):
    """Real is 1 and fake is 0: with +30 on real and -30 on fake images nothing is left to learn.
    Are the labels swapped, or is a sigmoid applied that is inside already?"""
    value = discriminator_loss(*filled(30.0, -30.0))
    expect_close(value, torch.tensor(0.0), "the loss for logits +30 on real, -30 on fake images")


@check("2.2")
def each_kind_of_error_costs_its_own(discriminator_loss):
    """Real images taken for fake cost -log s, fakes taken for real -log(1 - s): both halves count,
    they are added and not halved, and neither is a sum over the batch."""
    for real, fake in ((-5.0, -30.0), (30.0, 5.0)):
        value = discriminator_loss(*filled(real, fake, 3, 3))
        expected = torch.tensor(math.log1p(math.exp(5.0)))
        what = f"the loss for logits {real:.0f} on real, {fake:.0f} on fake images"
        expect_close(value, expected, what, because="log(1 + exp(5))")


@check("2.2")
def who_is_undecided_pays_2_log_2(discriminator_loss):
    """Each half costs log 2 at logits 0, and they are added: 1.386; nats are natural
    logarithms."""
    value = discriminator_loss(*filled(0.0, 0.0, 3, 3))
    expect_close(value, torch.tensor(2 * math.log(2)), "the loss at logits 0", because="2 log 2")


@check("2.2")
def each_batch_has_a_mean_of_its_own(discriminator_loss):
    """All logits are thrown together before the mean: with more fakes than real images, the fakes
    would then count more."""
    value = discriminator_loss(*filled(0.0, 2.0, 2, 6))
    expected = torch.tensor(math.log(2) + math.log1p(math.exp(2.0)))
    expect_close(value, expected, "the loss for 2 real logits of 0 and 6 fake logits of 2")


@check("2.2")
def it_is_the_cross_entropy(discriminator_loss):
    """Some other quantity than the mean of -log s over real and of -log(1 - s) over fake images."""
    real, fake = two_logits()
    value = discriminator_loss(real.clone(), fake.clone())
    expect_close(value, exact_loss(real, fake), "the loss of random logits", tol=1e-4)


@check("2.2")
def a_logit_of_1000_costs_1000_or_nothing(discriminator_loss):
    """sigmoid(1000) is rounded to 1, and log(1 - 1) is lost. Compute from the logits directly."""
    for real, fake in ((-1000.0, -1000.0), (1000.0, 1000.0), (1000.0, -1000.0)):
        value = discriminator_loss(*filled(real, fake))
        expected = torch.tensor(1000.0 if real == fake else 0.0)
        what = f"the loss for logits {real:.0f} on real, {fake:.0f} on fake images"
        expect_close(value, expected, what)


@check("2.2")
def both_logits_stay_as_they_were(discriminator_loss):
    """Functions that end in _ write into the caller's tensor."""
    real, fake = two_logits()
    before = real.clone(), fake.clone()
    discriminator_loss(real, fake)
    expect_equal(real, before[0], "the real logits after the call", because="as before")
    expect_equal(fake, before[1], "the fake logits after the call", because="as before")


@check("2.2")
def its_slopes_are_probability_minus_label(discriminator_loss):
    """(sigmoid - 1) / B along a real logit and sigmoid / N along a fake one: is the graph cut?"""
    real, fake = (v.requires_grad_() for v in two_logits())
    value = as_tensor(discriminator_loss(real, fake), (), "the loss")
    found = slope(value, real, "the loss", "the real logits")
    expect_close(found, (real.sigmoid() - 1) / 4, "d loss / d real logits")
    found = slope(value, fake, "the loss", "the fake logits")
    expect_close(found, fake.sigmoid() / 3, "d loss / d fake logits")


# --- 2.3 smoothed_discriminator_loss


@check("2.3")
def the_smoothed_loss_is_one_number(smoothed):
    """A tensor of shape (): a mean over each batch. Batches of different sizes must work."""
    for sizes in ((4, 3), (1, 1), (2, 5)):
        value = smoothed(*two_logits(*sizes), 0.1)
        what = f"the loss for {sizes[0]} real and {sizes[1]} fake logits"
        as_tensor(value, (), what, shape_is_said=False)


@check("2.3")
def without_smoothing_it_is_the_plain_loss(smoothed):
    """With smoothing 0 the targets are 1 and 0, as in `discriminator_loss`: the sum of two
    means."""
    real, fake = two_logits()
    value = smoothed(real.clone(), fake.clone(), 0.0)
    what = "the loss of random logits with smoothing 0"
    expect_close(value, exact_loss(real, fake), what, tol=1e-4, because="`discriminator_loss`")


@check("2.3")
def fakes_keep_their_target_0(smoothed):
    """Smoothing is one-sided: a fake image has the target 0 as before, so that a surer logit always
    costs less."""
    at_0 = as_tensor(smoothed(*filled(0.0, 0.0), 0.2), (), "the loss")
    for fake in (-20.0, 5.0):
        value = as_tensor(smoothed(*filled(0.0, fake), 0.2), (), "the loss")
        more = torch.tensor(math.log1p(math.exp(fake)) - math.log(2))
        what = f"with smoothing 0.2, what fake logits of {fake:.0f} cost more than those of 0"
        try:
            expect_close((value - at_0).detach(), more, what, because="as without smoothing")
        except Failure as failure:  # which mistake it is shows at other real logits
            failure.output = smoothed(*filled(3.0, fake), 0.2)
            raise


@check("2.3")
def real_images_have_the_target_1_minus_smoothing(smoothed):
    """-(1 - smoothing) log s - smoothing log(1 - s): the target is changed, and both logarithms
    count; it is no factor before the loss."""
    real = two_logits()[0]
    for smoothing in (0.1, 0.4):
        value = smoothed(real.clone(), torch.full((3,), -1000.0), smoothing)
        expected = exact_loss(real, torch.full((3,), -1000.0), 1 - smoothing)
        what = f"the loss of random real logits with smoothing {smoothing}, fakes being sure,"
        expect_close(value, expected, what, tol=1e-4)


@check("2.3")
def the_logits_are_not_written_to(smoothed):
    """Functions that end in _ write into the caller's tensor."""
    real, fake = two_logits()
    before = real.clone(), fake.clone()
    smoothed(real, fake, 0.1)
    expect_equal(real, before[0], "the real logits after the call", because="as before")
    expect_equal(fake, before[1], "the fake logits after the call", because="as before")


@check("2.3")
def the_best_real_logit_has_probability_1_minus_smoothing(smoothed):
    """At sigmoid = 1 - smoothing the slope along a real logit is 0, beyond it positive: the
    discriminator is drawn back. Does the gradient reach both logits?"""
    real, fake = two_logits()
    real[0] = math.log(0.75 / 0.25)
    real, fake = real.requires_grad_(), fake.requires_grad_()
    value = as_tensor(smoothed(real, fake, 0.25), (), "the loss")
    found = slope(value, real, "the loss", "the real logits")
    what = "d loss / d real logits, the first with probability 0.75, smoothing 0.25,"
    expect_close(found, (real.sigmoid() - 0.75) / 4, what)
    found = slope(value, fake, "the loss", "the fake logits")
    expect_close(found, fake.sigmoid() / 3, "d loss / d fake logits")


@check("2.3")
def a_sure_real_logit_costs_its_size_times_smoothing(smoothed):
    """At a real logit of 1000, 0.1 * 1000 = 100: log(1 - sigmoid(1000)) must not be computed
    through the probability."""
    for logit, cost in ((1000.0, 100.0), (-1000.0, 900.0)):
        value = smoothed(*filled(logit, -1000.0), 0.1)
        what = f"the loss for real logits {logit:.0f} with smoothing 0.1, fakes being sure,"
        expect_close(value, torch.tensor(cost), what)


# --- 2.4 generator_loss


@check("2.4")
def the_generators_loss_is_one_number(generator_loss):
    """A tensor of shape (), the mean over the batch, also for a batch of one."""
    for n in (4, 1):
        value = generator_loss(2 * torch.randn(n))
        as_tensor(value, (), f"the loss for {n} logits", shape_is_said=False)


@check("2.4")
def a_bad_generator_gets_a_full_gradient(generator_loss):
    """The loss saturates: where the discriminator is sure that the images are fake, its slope is
    nearly 0, and the generator cannot learn. -log sigmoid has slope -1 there."""
    logits = torch.full((4,), -10.0, requires_grad=True)
    value = as_tensor(generator_loss(logits), (), "the loss")
    found = slope(value, logits, "the loss", "the logits").sum().item()
    expect(found < -0.2, f"at logits -10 the slope is {show(found)}", "about -1", output=value)


@check("2.4")
def who_fools_the_discriminator_pays_nothing(generator_loss):
    """At logits of +30 the discriminator takes every fake for real: -log sigmoid(30) is 0."""
    value = generator_loss(torch.full((4,), 30.0))
    expect_close(value, torch.tensor(0.0), "the loss at logits 30")


@check("2.4")
def an_undecided_discriminator_costs_log_2(generator_loss):
    """-log sigmoid(0) = log 2 = 0.693, in the mean over the batch, in nats."""
    value = generator_loss(torch.zeros(4))
    expect_close(value, torch.tensor(math.log(2)), "the loss at logits 0", because="log 2")


@check("2.4")
def it_is_the_mean_of_minus_log_sigmoid(generator_loss):
    """Some other quantity: the logarithm is taken of each image's probability, then the mean."""
    logits = 2 * torch.randn(5)
    expected = -logits.double().sigmoid().log().mean().float()
    expect_close(generator_loss(logits.clone()), expected, "the loss of random logits", tol=1e-4)


@check("2.4")
def a_logit_of_minus_1000_costs_1000(generator_loss):
    """sigmoid(-1000) is rounded to 0, and its logarithm is lost. Compute from the logit
    directly."""
    for logit, cost in ((-1000.0, 1000.0), (1000.0, 0.0)):
        value = generator_loss(torch.full((3,), logit))
        expect_close(value, torch.tensor(cost), f"the loss at logits {logit:.0f}")


@check("2.4")
def the_fake_logits_stay_as_they_were(generator_loss):
    """Functions that end in _ write into the caller's tensor."""
    logits = torch.randn(4)
    before = logits.clone()
    generator_loss(logits)
    expect_equal(logits, before, "the logits after the call", because="as before")


@check("2.4")
def its_slope_is_sigmoid_minus_1(generator_loss):
    """(sigmoid - 1) / N along each logit: something is cut off or clamped."""
    logits = torch.tensor([-40.0, -3.0, 0.5, 4.0], requires_grad=True)
    value = as_tensor(generator_loss(logits), (), "the loss")
    found = slope(value, logits, "the loss", "the logits")
    expect_close(found, (logits.sigmoid() - 1) / 4, "d loss / d logits")


# --- 2.5 down_block

NORMS = (_NormBase, nn.GroupNorm)  # batch and instance norm, group norm


def block_of(down_block, channels_in=2, channels_out=16):
    """A block in train mode that has run once, and maps 2 channels to 16 unless told otherwise."""
    block = down_block(channels_in, channels_out).train()
    block(torch.randn(2, channels_in, 8, 8))
    return block


def without_norm(block):
    """A copy with nothing in the place of normalisation layers, and no bias in convolutions."""
    block = copy.deepcopy(block).eval()
    for parent in list(block.modules()):
        for name, child in parent.named_children():
            if isinstance(child, NORMS):
                setattr(parent, name, nn.Identity())
    return without_bias(block)


def without_bias(block):
    for layer in block.modules():
        if isinstance(layer, nn.Conv2d) and layer.bias is not None:
            nn.init.zeros_(layer.bias)
    return block


@check("2.5")
def it_is_a_module(down_block):
    """A list of layers is no module: `nn.Sequential(*layers)` makes one of them."""
    block = down_block(2, 16)
    expect(isinstance(block, nn.Module), f"the block is {show(block)}", "an nn.Module")


@check("2.5")
def height_and_width_are_halved(down_block):
    """(H + 2 * padding - kernel) // 2 + 1 must be H / 2 for every even H: kernel 4 or 3 with
    padding 1, for example. The argument after kernel_size is stride."""
    for channels_in, channels_out, height, width in ((3, 8, 8, 6), (1, 16, 4, 10)):
        block = down_block(channels_in, channels_out).train()
        x = torch.randn(2, channels_in, height, width)
        what = f"block(x) for x of shape {tuple(x.shape)}"
        expected = (2, channels_out, height // 2, width // 2)
        as_tensor(block(x), expected, what, shape_is_said=False)


@check("2.5")
def a_convolution_of_stride_2_does_it(down_block):
    """A pooling layer, or layers in a plain list, which nn.Module does not see: the block must hold
    one nn.Conv2d, with stride=2."""
    convs = [m for m in block_of(down_block).modules() if isinstance(m, nn.Conv2d)]
    said = ", ".join(f"stride {m.stride[0]}" for m in convs) or "none"
    one = len(convs) == 1 and tuple(convs[0].stride) == (2, 2)
    expect(one, f"convolutions among block.modules(): {said}", "one, of stride 2")


@check("2.5")
def x_stays_as_it_was(down_block):
    """`inplace=True` in the first layer writes into the caller's x."""
    block, x = block_of(down_block), torch.randn(4, 2, 8, 8)
    before = x.clone()
    block(x)
    expect_equal(x, before, "x after block(x)", because="as before")


@check("2.5")
def nothing_in_the_block_is_random(down_block):
    """Dropout or noise is inside: the contract has three layers, none of which draws anything."""
    block, x = block_of(down_block), torch.randn(4, 2, 8, 8)
    gap = (block(x) - block(x)).abs().max().item()
    expect(gap < 0.01, f"two calls with the same x differ by {show(gap)}", "no difference")


@check("2.5")
def every_pixel_has_an_influence(down_block):
    """A kernel smaller than the stride steps over pixels: kernel_size=1 with stride 2 looks at one
    in four."""
    block = block_of(down_block)
    x = torch.randn(3, 2, 8, 6, requires_grad=True)
    out = as_tensor(block(x), (3, 16, 4, 3), "block(x)")
    found = slope(out * torch.randn(3, 16, 4, 3), x, "block(x)", "x")
    blind = (found == 0).all(dim=1).float().mean().item()
    seen = f"{100 * blind:.0f} % of the pixels have no influence on the result"
    expect(blind == 0, seen, "all have some", output=found)


@check("2.5")
def large_features_are_normalised(down_block):
    """In train mode a normalisation layer divides by the spread of the features, so that x twice as
    large changes nothing. There is none, or it normalises something else."""
    block, x = block_of(down_block), torch.randn(4, 2, 16, 12)
    once, twice = (block(factor * x).detach() for factor in (1000.0, 2000.0))
    gap = ((twice - once).abs().sum() / once.abs().sum()).item()
    seen = f"twice as large an x changes block(x) by {100 * gap:.0f} %"
    expect(gap < 0.02, seen, "by less than 2 %", output=once)


@check("2.5")
def small_features_are_normalised_too(down_block):
    """eps is too large: the second argument of nn.BatchNorm2d is eps, not momentum. With eps = 0.8,
    features of variance below 0.8 are hardly normalised."""
    block, x = without_bias(block_of(down_block)), torch.randn(4, 2, 16, 12)
    once, more = (block(factor * x).detach() for factor in (1.0, 10.0))
    gap = ((more - once).abs().sum() / more.abs().sum()).item()
    seen = f"10 times as large an x changes block(x) by {100 * gap:.0f} %"
    expect(gap < 0.04, seen, "by less than 4 %, with an eps of at most 1e-3", output=once)
    eps = max((m.eps for m in block.modules() if isinstance(m, NORMS)), default=0.0)
    expect(eps <= 1e-3, f"the normalisation has an eps of {show(eps)}", "at most 1e-3", output=eps)


@check("2.5")
def negative_values_have_a_smaller_slope(down_block):
    """A leaky ReLU keeps a slope between 0 and 1 for negative values. ReLU has none there, and the
    generator gets no gradient through a unit that is off; another function is no leaky ReLU."""
    block, x = without_norm(block_of(down_block)).double(), 0.1 + torch.rand(4, 2, 8, 8)
    with torch.no_grad():
        up, down = block(x.double()), block(-x.double())
    slopes = -torch.where(up.abs() > down.abs(), down / up, up / down)
    low, high = slopes.min().item(), slopes.max().item()
    said = show(low) if high - low < 1e-3 else f"something between {show(low)} and {show(high)}"
    seen = f"without the normalisation, the slope for negative values is {said}"
    fits = low > 0 and high < 1 and high - low < 1e-3
    expect(fits, seen, "one number between 0 and 1, such as 0.2", output=slopes)
    values = [m.negative_slope for m in block.modules() if isinstance(m, nn.LeakyReLU)]
    fits = all(0 < value < 1 for value in values)
    expect(fits, f"the slope of nn.LeakyReLU is {values}", "between 0 and 1", output=slopes)


@check("2.5")
def every_call_makes_new_layers(down_block):
    """One block is built once and returned twice: two places of a network would share weights."""
    first, second = down_block(8, 8), down_block(8, 8)
    shared = sum(p is q for p in first.parameters() for q in second.parameters())
    expect(shared == 0, f"two calls share {shared} parameters", "none", output=shared)


# --- 2.6 discriminator_step


class Watched(nn.Module):
    """A network that remembers in which mode it ran."""

    def __init__(self, *layers):
        super().__init__()
        self.layers, self.modes = nn.Sequential(*layers), []

    def forward(self, x):
        self.modes.append(self.training)
        return self.layers(x)


def game(lr=0.1):
    """Two small networks with their optimisers, five real images, and three latents.

    The learning rate is the optimisers' own: SGD with momentum, whose first step is the plain one.
    """
    generator = Watched(nn.Linear(2, 6), nn.Tanh(), nn.Unflatten(1, (1, 2, 3)))
    discriminator = Watched(
        nn.Flatten(), nn.Linear(6, 4), nn.LeakyReLU(0.2), nn.Linear(4, 1), nn.Flatten(0)
    )
    return SimpleNamespace(
        generator=generator,
        discriminator=discriminator,
        of_g=torch.optim.SGD(generator.parameters(), lr=lr, momentum=0.5),
        of_d=torch.optim.SGD(discriminator.parameters(), lr=lr, momentum=0.5),
        real=1 + torch.rand(5, 1, 2, 3),
        z=torch.randn(3, 2),
        lr=lr,
    )


def weights(network):
    """All parameters in one vector, of its own."""
    return parameters_to_vector(network.parameters()).detach().clone()


def right_d_step(g):
    """The loss before a right discriminator step, and how that step moves the parameters."""
    fake = g.generator.layers(g.z).detach()
    real_logits, fake_logits = (g.discriminator.layers(x) for x in (g.real, fake))
    loss = F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()
    slopes = torch.autograd.grad(loss, list(g.discriminator.parameters()))
    return loss.item(), -g.lr * parameters_to_vector(slopes)


def d_step(discriminator_step, g):
    """Run the answer on the game; what it returns, and how the discriminator has moved."""
    before = weights(g.discriminator)
    loss = discriminator_step(g.generator, g.discriminator, g.of_d, g.real.clone(), g.z.clone())
    return loss, weights(g.discriminator) - before


@check("2.6")
def the_discriminator_moves_down_its_gradient(discriminator_step):
    """One optimizer.step() after loss.backward(), on `discriminator_loss` of the given real images
    and of generator(z) for the given z."""
    g = game()
    _, expected = right_d_step(g)
    _, moved = d_step(discriminator_step, g)
    expect_close(moved, expected, "the step of the discriminator", because="-lr * gradient")


@check("2.6")
def the_generators_weights_stay(discriminator_step):
    """This step is the discriminator's: the generator's parameters must not move."""
    g = game()
    before = weights(g.generator)
    d_step(discriminator_step, g)
    what = "the generator's parameters after the step"
    expect_equal(weights(g.generator), before, what, because="as before")


@check("2.6")
def the_generators_gradients_stay(discriminator_step):
    """The fake images are not detached, so that backward() goes on into the generator; or its
    gradients are wiped."""
    for left in (7.0, None):
        g = game()
        for p in g.generator.parameters():
            p.grad = None if left is None else torch.full_like(p, left)
        d_step(discriminator_step, g)
        now = [p.grad for p in g.generator.parameters()]
        none = any(v is None for v in now)
        said = "None" if none else show(parameters_to_vector(now))
        same = all(v is None for v in now) if left is None else not none
        same = same and (left is None or all(bool((v == left).all()) for v in now))
        seen = f"the generator's .grad was {left} everywhere, and is {said} after"
        output = None if none else parameters_to_vector(now)
        expect(same, seen, f"{left}, as before", output=output)


@check("2.6")
def old_gradients_do_not_matter(discriminator_step):
    """`backward()` adds to `.grad`: without zero_grad before it, what earlier steps left in the
    discriminator, the generator's step for example, counts again."""
    g = game()
    _, expected = right_d_step(g)
    for p in g.discriminator.parameters():
        p.grad = torch.full_like(p, 100.0)
    _, moved = d_step(discriminator_step, g)
    what = "the step, with gradients of 100 left over from before,"
    expect_close(moved, expected, what, because="as without them")


@check("2.6")
def the_loss_before_the_step_comes_back(discriminator_step):
    """Return the loss that was differentiated, as a number: not one computed again after the
    step, nor a tensor with its graph."""
    g = game(lr=1.0)
    expected, _ = right_d_step(g)
    loss, _ = d_step(discriminator_step, g)
    expect_close(loss, expected, "what discriminator_step returns", tol=1e-4)


@check("2.6")
def two_calls_are_two_steps(discriminator_step):
    """Something is left over from the first call, or it is not the given optimiser that steps: its
    momentum would be lost."""
    g = game()
    start, velocity, at = weights(g.discriminator), 0.0, copy.deepcopy(g.discriminator)
    for _ in range(2):
        _, move = right_d_step(SimpleNamespace(**{**vars(g), "discriminator": at}))
        velocity = 0.5 * velocity + move
        nn.utils.vector_to_parameters(weights(at) + velocity, at.parameters())
    for _ in range(2):
        d_step(discriminator_step, g)
    moved = weights(g.discriminator) - start
    expect_close(moved, weights(at) - start, "the way of the discriminator in two calls")


def expect_modes_kept(step):
    """Go on if both networks run and stay in the mode they are in; `step` plays one game.

    Raises:
        Failure: if not.
    """
    for mode in (True, False):
        g = game()
        g.generator.train(mode)
        g.discriminator.train(not mode)
        step(g)
        both = (("generator", mode), ("discriminator", not mode))
        for name, was in both:
            network = getattr(g, name)
            others = sum(m.training is not was for m in network.modules())
            seen = f"{name}.training was {was} and is {not was} after, in {others} modules"
            expect(others == 0, seen, f"{was}, as before", output=others)
            seen = f"{name}.training was {was} before, and {not was} while it ran"
            expect(
                all(m is was for m in network.modes), seen, f"{was}, as before", output=len(name)
            )


def expect_flags_kept(step):
    """Go on if every parameter keeps its requires_grad; `step` plays one game.

    Raises:
        Failure: if not.
    """
    g = game()
    networks = {"generator": g.generator, "discriminator": g.discriminator}
    for network in networks.values():
        next(network.parameters()).requires_grad_(False)  # the caller has frozen a matrix
    before = {name: [p.requires_grad for p in n.parameters()] for name, n in networks.items()}
    step(g)
    for name, network in networks.items():
        now = [p.requires_grad for p in network.parameters()]
        seen = f"requires_grad of the {name}'s parameters was {before[name]} and is {now} after"
        expect(now == before[name], seen, "as before", output=sum(now))
    expect(torch.is_grad_enabled(), "gradients are switched off after the call", "on, as before")


@check("2.6")
def both_networks_keep_their_modes(discriminator_step):
    """Train or eval mode is the caller's business, that of the generator too."""
    expect_modes_kept(lambda g: d_step(discriminator_step, g))


@check("2.6")
def every_parameter_keeps_its_requires_grad(discriminator_step):
    """The generator is frozen and not thawed, or what the caller froze is thawed: `.detach()` needs
    no switching."""
    expect_flags_kept(lambda g: d_step(discriminator_step, g))


@check("2.6")
def real_images_and_z_stay_as_they_were(discriminator_step):
    """Functions that end in _ write into the caller's tensor."""
    g = game()
    before = g.real.clone(), g.z.clone()
    discriminator_step(g.generator, g.discriminator, g.of_d, g.real, g.z)
    expect_equal(g.real, before[0], "the real images after the call", because="as before")
    expect_equal(g.z, before[1], "z after the call", because="as before")
    seen = "the real images or z require a gradient after the call"
    expect(not g.real.requires_grad and not g.z.requires_grad, seen, "no, as before")


# --- 2.7 generator_step


def right_g_step(g):
    """The loss before a right generator step, and how that step moves the parameters."""
    loss = F.softplus(-g.discriminator.layers(g.generator.layers(g.z))).mean()
    slopes = torch.autograd.grad(loss, list(g.generator.parameters()))
    return loss.item(), -g.lr * parameters_to_vector(slopes)


def g_step(generator_step, g):
    """Run the answer on the game; what it returns, and how the generator has moved."""
    before = weights(g.generator)
    loss = generator_step(g.generator, g.discriminator, g.of_g, g.z.clone())
    return loss, weights(g.generator) - before


@check("2.7")
def the_generator_moves_down_its_gradient(generator_step):
    """One optimizer.step() after loss.backward(), on `generator_loss` of what the discriminator
    says of generator(z) for the given z. Is the way through the discriminator cut?"""
    g = game()
    before = weights(g.discriminator)
    _, expected = right_g_step(g)
    _, moved = g_step(generator_step, g)
    try:
        expect_close(moved, expected, "the step of the generator", because="-lr * gradient")
    except Failure as failure:  # which mistake it is shows in the other network, too
        failure.output = torch.cat([moved, weights(g.discriminator) - before])
        raise


@check("2.7")
def the_discriminators_weights_stay(generator_step):
    """This step is the generator's: gradients pass through the discriminator, but it must not move.
    Which parameters does the optimiser that steps hold?"""
    g = game()
    before = weights(g.discriminator)
    g_step(generator_step, g)
    what = "the discriminator's parameters after the step"
    expect_equal(weights(g.discriminator), before, what, because="as before")


@check("2.7")
def gradients_left_over_do_not_matter(generator_step):
    """`backward()` adds to `.grad`: without zero_grad of the generator's gradients before it, those
    of earlier steps count again."""
    g = game()
    _, expected = right_g_step(g)
    for p in (*g.generator.parameters(), *g.discriminator.parameters()):
        p.grad = torch.full_like(p, 100.0)
    _, moved = g_step(generator_step, g)
    what = "the step, with gradients of 100 left over in both networks,"
    expect_close(moved, expected, what, because="as without them")


@check("2.7")
def it_returns_the_loss_before_the_step(generator_step):
    """Return the loss that was differentiated, as a number: not one computed again after the
    step, nor a tensor with its graph."""
    g = game(lr=1.0)
    expected, _ = right_g_step(g)
    loss, _ = g_step(generator_step, g)
    expect_close(loss, expected, "what generator_step returns", tol=1e-4)


@check("2.7")
def each_call_is_one_step(generator_step):
    """Something is left over from the first call, or it is not the given optimiser that steps: its
    momentum would be lost."""
    g = game()
    start, velocity, at = weights(g.generator), 0.0, copy.deepcopy(g.generator)
    for _ in range(2):
        _, move = right_g_step(SimpleNamespace(**{**vars(g), "generator": at}))
        velocity = 0.5 * velocity + move
        nn.utils.vector_to_parameters(weights(at) + velocity, at.parameters())
    for _ in range(2):
        g_step(generator_step, g)
    moved = weights(g.generator) - start
    expect_close(moved, weights(at) - start, "the way of the generator in two calls")


@check("2.7")
def neither_network_changes_its_mode(generator_step):
    """Train or eval mode is the caller's business, that of the discriminator too."""
    expect_modes_kept(lambda g: g_step(generator_step, g))


@check("2.7")
def no_parameter_changes_its_requires_grad(generator_step):
    """The discriminator is frozen for this step and not thawed, or what the caller froze is
    thawed: the optimiser decides who learns, and no switching is needed."""
    expect_flags_kept(lambda g: g_step(generator_step, g))


@check("2.7")
def the_next_discriminator_step_is_undisturbed(generator_step):
    """A discriminator step after it must be the same as if the discriminator had not been used:
    something of it was changed and not put back."""
    g = game()
    unused = copy.deepcopy(g.discriminator)
    g_step(generator_step, g)
    _, expected = right_d_step(SimpleNamespace(**{**vars(g), "discriminator": unused}))
    before = weights(g.discriminator)
    grading.reference(2).discriminator_step(g.generator, g.discriminator, g.of_d, g.real, g.z)
    moved = weights(g.discriminator) - before
    expect_close(moved, expected, "the discriminator's next step", because="-lr * gradient")


@check("2.7")
def z_is_not_written_to(generator_step):
    """Functions that end in _ write into the caller's tensor; z is given, not trained."""
    g = game()
    before = g.z.clone()
    generator_step(g.generator, g.discriminator, g.of_g, g.z)
    expect_equal(g.z, before, "z after the call", because="as before")
    expect(not g.z.requires_grad, "z requires a gradient after the call", "no, as before")


# --- 2.8 critic_loss


@check("2.8")
def the_critics_loss_is_one_number(critic_loss):
    """A tensor of shape (): a mean over each batch. Batches of different sizes must work: images
    are not paired."""
    for sizes in ((4, 3), (1, 1), (2, 5)):
        value = critic_loss(*two_logits(*sizes))
        what = f"the loss for {sizes[0]} real and {sizes[1]} fake scores"
        as_tensor(value, (), what, shape_is_said=False)


@check("2.8")
def real_images_are_to_score_higher(critic_loss):
    """Scores of 3.5 on real and 1 on fake images are good, and a loss is the lower the better:
    1 - 3.5 = -2.5. Scores are no logits: no sigmoid, no logarithm, no absolute value."""
    value = critic_loss(*filled(3.5, 1.0))
    what = "the loss for scores of 3.5 on real, 1 on fake images"
    expect_close(value, torch.tensor(-2.5), what)


@check("2.8")
def it_may_have_either_sign(critic_loss):
    """Nothing keeps it above or below 0, and nothing is clamped or squared: scores of -5 on real
    and of 2 on fake images cost 7."""
    value = critic_loss(*filled(-5.0, 2.0))
    expect_close(value, torch.tensor(7.0), "the loss for scores of -5 on real, 2 on fake images")


@check("2.8")
def it_is_a_difference_of_means(critic_loss):
    """Each batch has a mean of its own, whatever its size; a sum or a common mean depends on how
    many images there are."""
    real, fake = two_logits(6, 2)
    expected = fake.mean() - real.mean()
    value = critic_loss(real.clone(), fake.clone())
    expect_close(value, expected, "the loss of 6 real and 2 fake scores")


@check("2.8")
def the_scores_stay_as_they_were(critic_loss):
    """Functions that end in _, and `-=`, write into the caller's tensor."""
    real, fake = two_logits()
    before = real.clone(), fake.clone()
    critic_loss(real, fake)
    expect_equal(real, before[0], "the real scores after the call", because="as before")
    expect_equal(fake, before[1], "the fake scores after the call", because="as before")


@check("2.8")
def its_slopes_are_constant(critic_loss):
    """-1 / B along a real score, 1 / N along a fake one: is the graph cut?"""
    real, fake = (v.requires_grad_() for v in two_logits())
    value = as_tensor(critic_loss(real, fake), (), "the loss")
    found = slope(value, real, "the loss", "the real scores")
    expect_close(found, torch.full((4,), -1 / 4), "d loss / d real scores")
    found = slope(value, fake, "the loss", "the fake scores")
    expect_close(found, torch.full((3,), 1 / 3), "d loss / d fake scores")


# --- 2.9 gradient_penalty


class Critic(nn.Module):
    """A critic that remembers the points it was asked about, and in which mode.

    Args:
        score: A function of x, flattened to (B, D), and of the parameters; gives (B,).
    """

    def __init__(self, score, **parameters):
        super().__init__()
        self.score, self.points, self.modes = score, [], []
        for name, value in parameters.items():
            setattr(self, name, nn.Parameter(value))

    def forward(self, x):
        self.points.append(x.detach().clone())
        self.modes.append(self.training)
        return self.score(self, x.flatten(1))

    def asked(self, shape):
        """All points it was asked about, of this shape together.

        Raises:
            Failure: if they are not.
        """
        fits = all(p.shape[1:] == shape[1:] for p in self.points)
        said = ", ".join(str(tuple(p.shape)) for p in self.points[:3]) or "nothing"
        expect(fits, f"the critic was asked about {said}", f"points of shape {shape}")
        rows = torch.cat(self.points)
        seen = f"the critic was asked about {len(rows)} points in all"
        expect(len(rows) == shape[0], seen, f"{shape[0]}, one for each sample", output=rows)
        return rows


def plane(steepness, dimensions):
    """A critic whose gradient has this norm everywhere: steepness * (direction . x)."""
    direction = F.normalize(torch.randn(dimensions), dim=0)
    return Critic(lambda c, x: c.s * (x @ direction), s=torch.tensor(steepness))


def bowl():
    """A critic whose gradient at x is x itself."""
    return Critic(lambda c, x: 0.5 * x.square().sum(dim=1))


SHAPES = ((5, 7), (4, 3, 4, 4), (1, 2, 5, 3))


def batches(shape=(4, 3, 4, 4)):
    """Random real and fake samples."""
    return torch.randn(shape), 2 + torch.randn(shape)


@check("2.9")
def the_penalty_is_one_number(gradient_penalty):
    """A tensor of shape (), for points as for images, and for a batch of one: alpha has as many
    dimensions as real, each but the first of size 1."""
    for shape in SHAPES:
        critic = plane(2.0, math.prod(shape[1:]))
        what = f"the penalty for samples of shape {shape}"
        as_tensor(gradient_penalty(critic, *batches(shape)), (), what, shape_is_said=False)


@check("2.9")
def a_slope_of_3_costs_4_and_one_of_a_half_a_quarter(gradient_penalty):
    """(3 - 1)^2 and (0.5 - 1)^2: the norm over all numbers of an image, minus 1, squared, in the
    mean over the batch. No lambda, both sides are penalised, and the scores are added, not
    averaged, before they are differentiated."""
    for steepness in (3.0, 0.5):
        value = gradient_penalty(plane(steepness, 48), *batches())
        expected = torch.tensor((steepness - 1) ** 2)
        what = f"the penalty of a linear critic of slope {steepness:g} for 4 images"
        expect_close(value, expected, what, tol=1e-4)


def alphas(gradient_penalty, real, fake):
    """Where on the line from fake (0) to real (1) the critic was asked, (B,).

    Raises:
        Failure: if not on the line.
    """
    critic = bowl()
    gradient_penalty(critic, real.clone(), fake.clone())
    x_hat, d = critic.asked(tuple(real.shape)) - fake, real - fake
    d, x_hat = d.flatten(1).double(), x_hat.flatten(1).double()
    alpha = (x_hat * d).sum(dim=1) / d.square().sum(dim=1)
    off = ((x_hat - alpha[:, None] * d).norm(dim=1) / d.norm(dim=1)).max().item()
    seen = f"a point lies {show(off)} times the length of the line beside it"
    expect(off < 1e-3, seen, "on the line between its real and its fake sample", output=x_hat)
    return alpha


@check("2.9")
def points_lie_on_the_line(gradient_penalty):
    """One alpha moves all numbers of a sample together. One for each pixel, channel or row fills a
    box around the line; noise leads away from it."""
    for shape in (*SHAPES[1:], SHAPES[0]):
        alphas(gradient_penalty, *batches(shape))


@check("2.9")
def each_sample_has_a_norm_of_its_own(gradient_penalty):
    """One norm for the batch, or a mean of norms before the square: each sample's norm is compared
    with 1, squared, and then comes the mean."""
    real = torch.randn(4, 6) * torch.tensor([0.1, 0.5, 1.0, 2.0])[:, None]
    expected = (real.norm(dim=1) - 1).square().mean()
    value = gradient_penalty(bowl(), real.clone(), real.clone())
    expect_close(value, expected, "the penalty for four different slopes", tol=1e-4)


@check("2.9")
def each_sample_has_its_own_alpha(gradient_penalty):
    """One alpha for the whole batch, or no chance at all, as at the real images, the fakes, or half
    way: draw B of them."""
    alpha = alphas(gradient_penalty, *batches((6, 2, 3, 3)))
    gap = alpha.sort().values.diff().min().item()
    seen = f"two of 6 samples have the same alpha: {show(alpha)}"
    expect(gap > 1e-5, seen, "6 different ones", output=alpha)


@check("2.9")
def alpha_is_uniform_on_0_to_1(gradient_penalty):
    """`torch.rand` is uniform on [0, 1]; a normal alpha, or a wider one, leaves the line between
    real and fake at its ends."""
    alpha = alphas(gradient_penalty, *batches((4000, 2)))
    low, high = alpha.min().item(), alpha.max().item()
    seen = f"alpha lies between {show(low)} and {show(high)}"
    expect(low > -1e-3 and high < 1.001, seen, "between 0 and 1", output=alpha)
    expect_mean(alpha, 0.5, math.sqrt(1 / 12), "the mean of alpha")
    what = "the mean of (alpha - 1/2)^2"
    expect_mean((alpha - 0.5).square(), 1 / 12, math.sqrt(1 / 180), what, ", as for a uniform one")


@check("2.9")
def alpha_is_new_at_each_call(gradient_penalty):
    """A seed is set inside: the same places would be asked about again and again."""
    real, fake = batches((4, 5))
    first, second = alphas(gradient_penalty, real, fake), alphas(gradient_penalty, real, fake)
    gap = (first - second).abs().max().item()
    expect(gap > 1e-6, "two calls used the same alphas", "new ones", output=first)


@check("2.9")
def real_and_fake_stay_as_they_were(gradient_penalty):
    """Functions that end in _ write into the caller's samples, and requires_grad_() marks them: mix
    them first, and mark the mixture."""
    real, fake = batches()
    before = real.clone(), fake.clone()
    gradient_penalty(plane(2.0, 48), real, fake)
    expect_equal(real, before[0], "real after the call", because="as before")
    expect_equal(fake, before[1], "fake after the call", because="as before")
    seen = "after the call, requires_grad of real and fake is "
    flags = real.requires_grad, fake.requires_grad
    expect(not any(flags), f"{seen}{flags[0]} and {flags[1]}", "False, as before", output=flags)


@check("2.9")
def the_critic_stays_as_it_was(gradient_penalty):
    """`backward()` fills the critic's .grad, which belongs to the caller's step: use
    torch.autograd.grad. And no mode or requires_grad is switched."""
    for mode in (True, False):
        first, bias = 0.3 * torch.randn(48, 2), torch.zeros(())
        critic = Critic(lambda c, x: (x @ c.W).tanh().sum(dim=1) + c.b, W=first, b=bias)
        critic.train(mode).b.requires_grad_(False)
        gradient_penalty(critic, *batches())
        grads = [p.grad for p in critic.parameters() if p.grad is not None]
        seen = f"{len(grads)} parameters of the critic have a .grad after the call"
        expect(not grads, seen, "none, as before", output=grads[0] if grads else None)
        flags = critic.W.requires_grad, critic.b.requires_grad
        seen = f"requires_grad of the critic's parameters was (True, False) and is {flags} after"
        expect(flags == (True, False), seen, "as before", output=flags)
        seen = f"critic.training was {mode} and is {critic.training} after"
        expect(critic.training is mode, seen, f"{mode}, as before", output=mode)
        seen = f"critic.training was {mode} before, and {not mode} while it ran"
        expect(set(critic.modes) == {mode}, seen, f"{mode}, as before", output=mode)


@check("2.9")
def it_trains_the_critics_slope(gradient_penalty):
    """(s - 1)^2 has the derivative 2 (s - 1) along the slope s of a linear critic. Without
    create_graph=True the gradient is a constant, and the penalty changes nothing."""
    for steepness in (3.0, 0.5):
        critic = plane(steepness, 48)
        value = as_tensor(gradient_penalty(critic, *batches()), (), "the penalty")
        found = slope(value, critic.s, "the penalty", "the critic's slope s")
        what = f"d penalty / d s at a slope of s = {steepness:g}"
        expect_close(found, torch.tensor(2 * (steepness - 1)), what, tol=1e-4, because="2 (s - 1)")


@check("2.9")
def it_trains_every_layer(gradient_penalty):
    """For v . tanh(W x) the gradient is W' (v * (1 - tanh^2)): its norm, and the slopes of the
    penalty along W and v, come out otherwise."""
    first, second = 0.5 * torch.randn(4, 18), torch.randn(4)
    critic = Critic(lambda c, x: (x @ c.W.T).tanh() @ c.v, W=first, v=second)
    value = as_tensor(gradient_penalty(critic, *batches((5, 2, 3, 3))), (), "the penalty")
    h = (critic.asked((5, 2, 3, 3)).flatten(1) @ critic.W.T).tanh()
    gradient = (critic.v * (1 - h.square())) @ critic.W
    expected = (gradient.norm(dim=1) - 1).square().mean()
    expect_close(value, expected, "the penalty of a critic of two layers", tol=1e-4)
    for name in ("W", "v"):
        found = slope(value, getattr(critic, name), "the penalty", f"the critic's {name}")
        (right,) = torch.autograd.grad(expected, getattr(critic, name), retain_graph=True)
        expect_close(found, right, f"d penalty / d {name} for v . tanh(W x)", tol=1e-3)


@check("2.9")
def a_slope_of_0_gives_no_nan(gradient_penalty):
    """The root of a sum of squares has an infinite slope at 0, which becomes NaN: `.norm()` takes 0
    there, and a small number inside the root does as well."""
    critic = Critic(lambda c, x: x @ c.w, w=torch.zeros(48))
    value = gradient_penalty(critic, *batches())
    expect_close(value, torch.tensor(1.0), "the penalty where the critic is flat", tol=1e-3)
    found = slope(value, critic.w, "the penalty", "the critic's weights")
    bad = int((~found.isfinite()).sum())
    seen = f"{bad} of 48 slopes of the penalty are NaN or infinite where the critic is flat"
    expect(bad == 0, seen, "finite ones", output=found.nan_to_num(nan=7.0))


# --- 2.10 count_modes

CENTERS = torch.tensor([[0.0, 0.0], [2.0, 0.0], [4.0, 1.0], [0.0, 3.0], [2.0, 5.0], [-3.0, -3.0]])


def counted(count_modes, samples, centers=CENTERS, std=0.1):
    """modes and share, as two floats.

    Raises:
        Failure: if they are not two numbers.
    """
    pair = count_modes(samples.clone(), centers.clone(), std)
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise Failure(f"the result is {show(pair)}", "a tuple: modes, share", output=pair)
    return as_number(pair[0], "modes"), as_number(pair[1], "share")


def expect_counts(pair, modes, share, of):
    """Go on if these are the number of modes and the share of good samples.

    Raises:
        Failure: if not.
    """
    near = pair[0] == modes and abs(pair[1] - share) < 1e-5
    seen = f"modes = {pair[0]:g}, share = {show(pair[1])} for {of}"
    expect(near, seen, f"modes = {modes}, share = {show(float(share))}", output=pair)


def around(centers, spread=0.03):
    """One sample near each of these rows, at most 1.5 * spread away."""
    return centers + spread * (2 * torch.rand_like(centers) - 1)


@check("2.10")
def two_numbers_come_back(count_modes):
    """First how many modes, an int, then the share of good samples, a float."""
    for n, m, d in ((7, 6, 2), (1, 3, 1), (4, 4, 3), (5, 1, 2)):
        counted(count_modes, torch.randn(n, d), 3 * torch.randn(m, d))


@check("2.10")
def a_perfect_generator_meets_all_modes(count_modes):
    """Two samples near each of six centers: modes = 6, and a share of 1, a fraction and not
    percent."""
    pair = counted(count_modes, around(CENTERS.repeat(2, 1)))
    expect_counts(pair, 6, 1.0, "two samples near each of 6 centers")


@check("2.10")
def a_collapsed_generator_meets_one_mode(count_modes):
    """Perfect samples of one mode: modes = 1, and still a share of 1. The share is of samples, not
    of modes."""
    pair = counted(count_modes, around(CENTERS[2:3].expand(9, 2)))
    expect_counts(pair, 1, 1.0, "nine samples near one of 6 centers")


@check("2.10")
def far_samples_show_no_mode(count_modes):
    """Every sample has a nearest center, but only those within 3 std of it count, for the modes as
    for the share; one good sample is enough for a mode."""
    near, far = around(CENTERS[[0, 0, 0, 0, 1]]), around(CENTERS[[2, 3, 4]] + 0.9)
    pair = counted(count_modes, torch.cat([far, near]))
    of = "4 samples near one center, 1 near a second, and 3 that are 13 std away from others"
    expect_counts(pair, 2, 5 / 8, of)


@check("2.10")
def the_radius_is_3_std(count_modes):
    """Euclidean distances are compared with 3 * std: not squared ones, not one coordinate at a
    time, not 1 std. The circle is round, and a larger std makes it larger."""
    angle = torch.arange(40) * (2 * math.pi / 40)
    circle = torch.stack([angle.cos(), angle.sin()], dim=1)
    for std in (0.1, 0.3):
        for radius, inside in ((0.5, 1), (1.5, 1), (2.9, 1), (5.0, 0), (4.0, 0), (3.1, 0)):
            pair = counted(count_modes, CENTERS[4] + radius * std * circle, std=std)
            of = f"40 samples at {radius} std around one center, std = {std}"
            expect_counts(pair, inside, float(inside), of)


@check("2.10")
def more_dimensions_make_no_difference(count_modes):
    """In D = 4, and in D = 1, the distance is the root of the sum of squares: not their mean."""
    for d in (4, 1):
        centers = 10 * torch.arange(3.0)[:, None].expand(3, d)
        step = F.normalize(torch.ones(d), dim=0)
        for radius, inside in ((2.9, 1), (3.1, 0)):
            pair = counted(count_modes, centers + radius * 0.5 * step, centers, std=0.5)
            of = f"samples at {radius} std from each of 3 centers in D = {d}"
            expect_counts(pair, 3 * inside, float(inside), of)


@check("2.10")
def a_sample_shows_its_nearest_mode_only(count_modes):
    """Centers may lie close together: a sample within 3 std of several belongs to the nearest, and
    counts once."""
    centers = torch.tensor([[0.0, 0.0], [0.2, 0.0], [0.0, 0.2], [5.0, 5.0]])
    pair = counted(count_modes, around(centers[:1].expand(3, 2), 0.01), centers)
    expect_counts(pair, 1, 1.0, "three samples at one of 3 centers that are 2 std apart")
    pair = counted(count_modes, around(centers[[0, 1, 1]], 0.01), centers)
    expect_counts(pair, 2, 1.0, "three samples at two of 3 centers that are 2 std apart")


@check("2.10")
def nan_is_garbage(count_modes):
    """A sample with a NaN or infinite coordinate is no good sample, near no center, and one of the
    N."""
    bad = torch.tensor([[math.nan, math.nan], [0.0, math.nan], [math.inf, 0.0]])
    samples = torch.cat([bad[:2], around(CENTERS[[1, 2, 2, 3]]), bad[2:], -bad[2:]])
    pair = counted(count_modes, samples)
    expect_counts(pair, 3, 4 / 8, "4 good samples of 3 modes, 2 with NaN and 2 with infinity")
    pair = counted(count_modes, bad[:2])
    expect_counts(pair, 0, 0.0, "samples with NaN only")


@check("2.10")
def samples_and_centers_stay_as_they_were(count_modes):
    """Functions that end in _, and `-=`, write into the caller's tensor."""
    samples, centers = torch.randn(6, 2), CENTERS.clone()
    samples[0] = math.nan
    before = samples.clone().nan_to_num(nan=77.0)
    count_modes(samples, centers, 0.1)
    now = samples.nan_to_num(nan=77.0)
    expect_equal(now, before, "the samples after the call, NaN as 77,", because="as before")
    expect_equal(centers, CENTERS, "the centers after the call", because="as before")
