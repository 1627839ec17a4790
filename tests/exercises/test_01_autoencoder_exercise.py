"""What is true of every right answer to exercise 1.

Each check takes the answer, a function or the class. Shapes are uneven on purpose: colour, height
unlike width, a batch of one. Where chance plays, there are 6 standard errors of room.
"""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from exercises import grading, kit
from exercises.checks import (
    as_number,
    as_tensor,
    check,
    expect,
    expect_close,
    expect_equal,
    show,
)

TASKS = kit.exercise(1).tasks


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_your_answer(task):
    grading.settle(grading.grade(task, grading.read(kit.exercise(1))))


def images(batch=4, shape=(2, 5, 3)):
    """Random images in [0, 1]."""
    return torch.rand(batch, *shape)


class Constant(nn.Module):
    """A model as in 1.2 whose logits are its one parameter; it keeps what it saw."""

    def __init__(self, logits):
        super().__init__()
        self.logits, self.seen, self.codes, self.decoded = nn.Parameter(logits), [], [], []

    def encode(self, x):
        self.seen.append(x.detach().clone())
        self.codes.append(x.flatten(1).detach().clone())
        return x.flatten(1)

    def decode(self, z):
        self.decoded.append(z.detach().clone())
        return self.logits.expand(len(z), *self.logits.shape[1:])

    def forward(self, x):
        return self.decode(self.encode(x)).sigmoid()


class Copy(nn.Module):
    """A model as in 1.2 that draws what it sees, as well as logits can: linearly, by weight and
    bias."""

    def __init__(self, weight=4.0):
        super().__init__()
        self.weight, self.bias = (
            nn.Parameter(torch.tensor(weight)),
            nn.Parameter(torch.tensor(-2.0)),
        )
        self.modes = []

    def encode(self, x):
        self.shape = x.shape[1:]
        self.modes.append(self.training)
        return self.weight * x.flatten(1)

    def decode(self, z):
        return (z + self.bias).unflatten(1, self.shape)

    def forward(self, x):
        return self.decode(self.encode(x)).sigmoid()


# --- 1.1 count_parameters


@check("1.1")
def a_linear_layer_has_a_matrix_and_a_bias(count_parameters):
    """A layer from 3 to 2 values has 3 * 2 weights and 2 biases. Count elements, not tensors."""
    expect_close(count_parameters(nn.Linear(3, 2)), 8.0, "the count for nn.Linear(3, 2)")


@check("1.1")
def modules_inside_modules_count(count_parameters):
    """`model.parameters()` walks through everything inside, however deep; do not walk by hand."""
    model = nn.Sequential(nn.Linear(3, 2), nn.Sequential(nn.Sequential(nn.Conv2d(1, 2, 3))))
    expect_close(count_parameters(model), 28.0, "the count for 8 and, two levels deeper, 20")


@check("1.1")
def a_single_number_counts_one(count_parameters):
    """A parameter of shape () has one element: `numel()` knows that, a product over a list may
    not."""
    model = nn.Module()
    model.scale = nn.Parameter(torch.tensor(1.0))
    expect_close(count_parameters(model), 1.0, "the count for a parameter of shape ()")


@check("1.1")
def buffers_do_not_count(count_parameters):
    """`state_dict()` has buffers too: running means and variances, which are not trained."""
    expect_close(count_parameters(nn.BatchNorm1d(5)), 10.0, "the count for nn.BatchNorm1d(5)")


@check("1.1")
def frozen_parameters_do_not_count(count_parameters):
    """A parameter whose `requires_grad` is False is not changed by training: leave it out."""
    model = nn.Sequential(nn.Linear(3, 2).requires_grad_(False), nn.Linear(2, 4))
    expect_close(count_parameters(model), 12.0, "the count for a frozen 3-2 and a 2-4 layer")


@check("1.1")
def a_shared_parameter_counts_once(count_parameters):
    """The same matrix in two layers is one set of numbers; `parameters()` gives it once."""
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    count = count_parameters(nn.Sequential(first, second))
    expect_close(count, 15.0, "the count for two 3-3 layers with one matrix")


# --- 1.2 Autoencoder


def shaken(Autoencoder, shape=(2, 4, 4), latent_dim=3, std=0.3):
    """An autoencoder in eval mode and float64 with random weights: laws must hold there too."""
    model = Autoencoder(shape, latent_dim).double().eval()
    for p in model.parameters():
        nn.init.normal_(p, std=std)
    return model


@check("1.2")
def codes_and_images_have_their_shapes(Autoencoder):
    """Follow the shape layer by layer; only the batch dimension stays, and B may be 1."""
    for shape, latent_dim, batch in (((1, 8, 8), 5, 3), ((3, 6, 4), 2, 1)):
        model, x = Autoencoder(shape, latent_dim).eval(), images(batch, shape)
        z, what = model.encode(x), f"encode(x) for L = {latent_dim}"
        as_tensor(z, (batch, latent_dim), what, shape_is_said=False)
        for name, result in (("decode(z)", model.decode(z)), ("model(x)", model(x))):
            what = f"{name} for images {shape}"
            as_tensor(result, (batch, *shape), what, shape_is_said=False)


def leaves(output):
    """The tensors that a gradient of `output` would reach."""
    todo, seen, found = [output.grad_fn], set(), []
    while todo:
        step = todo.pop()
        if step is None or step in seen:
            continue
        seen.add(step)
        found += [step.variable] if hasattr(step, "variable") else []
        todo += [before for before, _ in step.next_functions]
    return found


@check("1.2")
def every_layer_is_registered(Autoencoder):
    """Layers in a plain list or dict, or made while encoding, are invisible to the optimiser: use
    nn.Sequential or attributes."""
    model, x = Autoencoder((1, 6, 6), 4).eval(), images(8, (1, 6, 6))
    known = {id(p) for p in model.parameters()}
    z = model.encode(x)
    for name, output in (("encode", z), ("decode", model.decode(z.detach()))):
        reached = leaves(output)
        seen = f"gradients of {name} reach {len(reached)} tensors"
        expect(len(reached) >= 2, seen, "two matrices at least")
        lost = [tuple(p.shape) for p in reached if id(p) not in known]
        seen = f"{name} uses weights of the shapes {lost}, which model.parameters() does not have"
        expect(not lost, seen, "only parameters of the model")
    through = {id(p) for p in leaves(model(x))}
    both = {id(p) for p in leaves(model.decode(z))}
    seen = f"gradients of forward reach {len(through)} of the {len(both)} parameters"
    expect(through >= both, seen, "all: no detach and no torch.no_grad() on the way")


@check("1.2")
def decode_returns_logits(Autoencoder):
    """An activation at the end of decode: leave it away, the sigmoid belongs in forward."""
    models = [shaken(Autoencoder, std=1.0) for _ in range(8)]
    logits = torch.cat([model.decode(torch.randn(8, 3).double()) for model in models])
    low, high = logits.min().item(), logits.max().item()
    seen = f"with large random weights, decode(z) stays between {low:.3g} and {high:.3g}"
    expect(low < -1 and high > 2, seen, "any real number, negative and above 1", output=logits)


@check("1.2")
def forward_is_the_sigmoid_of_the_logits(Autoencoder):
    """forward(x) must be sigmoid(decode(encode(x))), one sigmoid, and nothing that goes round z."""
    model, x = shaken(Autoencoder), images(5, (2, 4, 4)).double()
    z = as_tensor(model.encode(x), (5, 3), "encode(x)")
    logits = as_tensor(model.decode(z), (5, 2, 4, 4), "decode(z)")
    expect_close(model(x), logits.sigmoid(), "model(x)", because="sigmoid(decode(encode(x)))")


@check("1.2")
def nothing_goes_round_the_bottleneck(Autoencoder):
    """Some of x reaches the output without passing through z, such as by `... + x`."""
    model, x = shaken(Autoencoder), images(1, (2, 4, 4)).double()
    jacobian = torch.autograd.functional.jacobian(lambda v: model(v).flatten(), x).view(32, 32)
    rank = int(torch.linalg.matrix_rank(jacobian, rtol=1e-8))
    seen = f"x_hat changes in {rank} independent directions when x does"
    expect(rank <= 3, seen, "at most 3, the number of values in the code")


@check("1.2")
def codes_take_both_signs(Autoencoder):
    """An activation such as ReLU or sigmoid after the encoder's last layer limits the code."""
    models = [shaken(Autoencoder, std=1.0) for _ in range(8)]
    z = torch.cat([model.encode(images(8, (2, 4, 4)).double()) for model in models])
    low, high = z.min().item(), z.max().item()
    seen = f"with large random weights the codes stay between {low:.3g} and {high:.3g}"
    expect(low < -1 and high > 1, seen, "any real number", output=z)


@check("1.2")
def both_halves_are_nonlinear(Autoencoder):
    """Without an activation between them, two linear layers are one, and the best would be PCA."""
    bend = {"encode": 0.0, "decode": 0.0}
    for _ in range(8):  # a ReLU may be on or off for all inputs of one draw
        model = shaken(Autoencoder, latent_dim=6)
        inputs = {
            "encode": torch.rand(2, 16, 2, 4, 4).double(),
            "decode": torch.randn(2, 16, 6).double(),
        }
        for name, (a, b) in inputs.items():
            half = getattr(model, name)
            gap = (half(a) + half(b)) / 2 - half((a + b) / 2)
            bend[name] = max(bend[name], gap.abs().max().item())
    for name, size in bend.items():
        seen = f"{name} at the middle of two inputs is the mean of its values at both, 128 times"
        expect(size > 1e-6, seen, "a nonlinearity, which bends straight lines")


@check("1.2")
def each_image_is_treated_by_itself(Autoencoder):
    """Images of a batch are mixed, as by a flatten or a softmax over the batch dimension."""
    model, x = shaken(Autoencoder), images(4, (2, 4, 4)).double()
    alone = torch.cat([as_tensor(model(v[None]), (1, 2, 4, 4), "model(x)") for v in x])
    expect_close(model(x), alone, "model(x) of a batch", because="what each image gives alone")


# --- 1.3 reconstruction_loss


@check("1.3")
def a_fair_coin_costs_log_2_a_pixel(reconstruction_loss):
    """At logits 0 every pixel costs log 2 = 0.693: the sum over 30 pixels is 20.79, for any
    batch."""
    loss = reconstruction_loss(torch.zeros(4, 2, 5, 3), images())
    expect_close(loss, torch.tensor(30 * math.log(2)), "the loss at logits 0", because="30 log 2")


@check("1.3")
def it_is_the_cross_entropy_of_sigmoid_and_image(reconstruction_loss):
    """Some other quantity than -[x log s + (1 - x) log(1 - s)], or its arguments are swapped."""
    logits, x = 2 * torch.randn(4, 2, 5, 3), images()
    s = logits.sigmoid()
    expected = -(x * s.log() + (1 - x) * (1 - s).log()).flatten(1).sum(1).mean()
    expect_close(reconstruction_loss(logits, x), expected, "the loss for random logits", tol=1e-4)


@check("1.3")
def a_confident_mistake_costs_its_logit(reconstruction_loss):
    """sigmoid(1000) is rounded to 1, and log(1 - 1) is lost. Compute from the logits directly."""
    for logit, pixel in ((1000.0, 0.0), (-1000.0, 1.0)):
        loss = reconstruction_loss(torch.full((2, 1, 1, 2), logit), torch.full((2, 1, 1, 2), pixel))
        what = f"the loss of 2 pixels with logit {logit:.0f} where x is {pixel:.0f}"
        expect_close(loss, torch.tensor(2000.0), what)


@check("1.3")
def the_batch_is_averaged(reconstruction_loss):
    """A sum over the batch: the same images twice must cost the same, whatever the batch size."""
    logits, x = torch.randn(3, 2, 5, 3), images(3)
    once = as_tensor(reconstruction_loss(logits, x), (), "the loss")
    twice = reconstruction_loss(torch.cat([logits, logits]), torch.cat([x, x]))
    expect_close(twice, once, "the loss of the batch taken twice")


@check("1.3")
def pixels_are_summed(reconstruction_loss):
    """A mean over pixels: twice the pixels must cost twice."""
    logits, x = torch.randn(3, 2, 5, 3), images(3)
    once = as_tensor(reconstruction_loss(logits, x), (), "the loss")
    wide = reconstruction_loss(torch.cat([logits, logits], dim=3), torch.cat([x, x], dim=3))
    expect_close(wide, 2 * once, "the loss with every pixel twice")


@check("1.3")
def its_gradient_is_prediction_minus_image(reconstruction_loss):
    """The slope along a logit is (sigmoid - x) / B; a detached or rounded value has another."""
    logits, x = torch.randn(4, 2, 5, 3, requires_grad=True), images()
    loss = as_tensor(reconstruction_loss(logits, x), (), "the loss")
    expect(loss.requires_grad, "the loss has no gradient graph", "one that leads to the logits")
    (slope,) = torch.autograd.grad(loss, logits)
    expect_close(slope, (logits.sigmoid() - x) / 4, "d loss / d logits", because="(s - x) / B")
    far, x = (
        torch.tensor([-1000.0, 1000.0]).view(1, 1, 1, 2).requires_grad_(),
        torch.tensor([1.0, 0.0]),
    )
    (slope,) = torch.autograd.grad(reconstruction_loss(far, x.view(1, 1, 1, 2)), far)
    expect_close(
        slope.flatten(), torch.tensor([-1.0, 1.0]), "the slope at logits of -1000 and 1000"
    )


@check("1.3")
def any_layout_will_do(reconstruction_loss):
    """`view` needs contiguous memory: `flatten` and `reshape` copy where they must."""
    logits, x = torch.randn(4, 3, 5, 2).transpose(1, 3), images(4, (2, 5, 3))
    expected = F.binary_cross_entropy_with_logits(logits, x, reduction="sum") / 4
    expect_close(reconstruction_loss(logits, x), expected, "the loss of transposed logits")


# --- 1.4 add_noise


@check("1.4")
def the_input_stays_as_it_was(add_noise):
    """`x += ...` or `x.add_(...)` writes into the caller's tensor, the clean picture: build a new
    one."""
    x = images()
    before = x.clone()
    noisy = as_tensor(add_noise(x, 0.5), (4, 2, 5, 3), "add_noise(x, 0.5)")
    expect_equal(x, before, "x after the call", because="the clean picture, untouched")
    expect(noisy.data_ptr() != x.data_ptr(), "the result is x itself", "a new tensor")


@check("1.4")
def no_noise_changes_nothing(add_noise):
    """With sigma 0 the result is x itself; a scaled or a clipped x is not."""
    x = 2 * torch.randn(4, 2, 5, 3)  # not only in [0, 1]
    expect_close(add_noise(x, 0.0), x, "add_noise(x, 0)", because="x")


@check("1.4")
def every_pixel_has_a_draw_of_its_own(add_noise):
    """One draw shared over images, channels or rows: draw as many numbers as there are pixels."""
    x = images(3, (2, 4, 4))
    eps = as_tensor(add_noise(x, 1.0), (3, 2, 4, 4), "add_noise(x, 1)") - x
    for dim, name in enumerate(("images", "channels", "rows", "columns")):
        gap = (eps.select(dim, 0) - eps.select(dim, 1)).abs().max().item()
        expect(gap > 1e-3, f"the noise is the same in two {name}", "independent noise", output=eps)


@check("1.4")
def the_noise_has_mean_0(add_noise):
    """`torch.rand` is uniform on [0, 1], with mean 1/2; the normal is `torch.randn`."""
    eps = noise_of(add_noise, sigma=0.5)
    mean, room = eps.mean().item(), 6 * 0.5 / math.sqrt(eps.numel())
    seen = f"the mean of {eps.numel()} noise values is {show(mean)}"
    expect(abs(mean) <= room, seen, "0", output=eps)


@check("1.4")
def the_noise_has_standard_deviation_sigma(add_noise):
    """sigma is a standard deviation: multiply by sigma, not by its square or root; do not clip."""
    for sigma in (0.5, 2.0):
        eps = noise_of(add_noise, sigma)
        std, room = eps.std().item(), 6 * sigma / math.sqrt(2 * eps.numel())
        seen = f"for sigma = {sigma} the noise has the standard deviation {show(std)}"
        expect(abs(std - sigma) <= room, seen, f"{sigma}", output=eps)


@check("1.4")
def the_noise_is_gaussian(add_noise):
    """The noise has the right size but another shape, such as uniform or +-sigma."""
    eps = noise_of(add_noise, sigma=0.5)
    kurtosis = (eps.double() / 0.5).pow(4).mean().item()
    room = 6 * math.sqrt(96 / eps.numel())  # the variance of eps^4 is 105 - 9
    seen = f"the fourth moment of the noise is {show(kurtosis)} sigma^4"
    expect(abs(kurtosis - 3) <= room, seen, "3 sigma^4, as for a normal", output=eps)


@check("1.4")
def neighbours_are_independent(add_noise):
    """Noise of neighbouring pixels or images goes together."""
    eps = noise_of(add_noise, sigma=0.5) / 0.5
    for dim, shift in ((0, 1), (0, 100), (2, 1), (3, 1)):
        product = (eps * eps.roll(shift, dim)).mean().item()
        expect(abs(product) <= 6 / math.sqrt(eps.numel() / 2), f"{product}", "0", output=eps)


@check("1.4")
def each_call_draws_anew(add_noise):
    """A seed that is set inside makes every call's noise the same."""
    x = images()
    first, second = add_noise(x, 1.0), add_noise(x, 1.0)
    expect(not torch.equal(first, second), "two calls gave the same noise", "new noise each time")


@check("1.4")
def the_dtype_stays(add_noise):
    """float64 came in and something else went out: `randn_like(x)` follows x's dtype."""
    noisy = add_noise(images().double(), 0.5)
    expect(noisy.dtype == torch.float64, f"{noisy.dtype} for a float64 x", "torch.float64")


def noise_of(add_noise, sigma):
    """What was added to 20,000 pixels."""
    x = 3 * images(200, (1, 10, 10))
    return (as_tensor(add_noise(x, sigma), tuple(x.shape), "add_noise(x, sigma)") - x).detach()


# --- 1.5 denoising_loss


@check("1.5")
def the_encoder_sees_noise_of_the_asked_size(denoising_loss):
    """The encoder must get `add_noise(x, sigma)`, not the clean x; noise on the code is another
    thing."""
    x, model = images(50, (2, 10, 10)), Constant(torch.zeros(1, 2, 10, 10))
    calls = []
    for _ in range(2):
        model.seen, model.codes, model.decoded = [], [], []
        denoising_loss(model, x.clone(), 0.5)
        expect(len(model.seen) > 0, "encode was not called", "encode, then decode, then the loss")
        given = torch.cat(model.seen)
        seen = f"encode got {len(given)} images for a batch of 50"
        expect(len(given) == 50, seen, "50, the noisy ones")
        eps = as_tensor(given, (50, 2, 10, 10), "what encode got") - x
        std = eps.std().item()
        seen = f"what encode gets differs from x with a standard deviation of {show(std)}"
        expect(abs(std - 0.5) < 0.025, seen, "sigma = 0.5", output=eps)
        seen = "all images get the same noise"
        expect((eps[0] - eps[1]).abs().max().item() > 1e-3, seen, "noise of their own", output=eps)
        kurtosis = (eps.double() / 0.5).pow(4).mean().item()
        expect(
            abs(kurtosis - 3) < 6 * math.sqrt(96 / eps.numel()), f"fourth moment {kurtosis}", "3"
        )
        seen = "decode does not get what encode returned"
        expect(torch.equal(torch.cat(model.decoded), torch.cat(model.codes)), seen, "the codes")
        calls.append(eps)
    seen = "two calls added the same noise"
    expect(not torch.equal(*calls), seen, "new noise at each call")


@check("1.5")
def without_noise_it_is_the_reconstruction_loss(denoising_loss):
    """With sigma = 0 there is nothing to remove: sum over pixels, mean over the batch, as in
    1.3."""
    x, model = images(), Copy()
    logits = model.decode(model.encode(x))
    expected = F.binary_cross_entropy_with_logits(logits, x, reduction="sum") / 4
    expect_close(denoising_loss(model, x, 0.0), expected, "the loss at sigma = 0", tol=1e-4)


@check("1.5")
def the_target_is_clean(denoising_loss):
    """Graded against the noisy picture, the best answer would be to copy the noise."""
    x, logits = images(), torch.randn(1, 2, 5, 3)
    loss = denoising_loss(Constant(logits), x.clone(), 0.7)
    logits = logits.expand(4, -1, -1, -1)
    expected = F.binary_cross_entropy_with_logits(logits, x, reduction="sum") / 4
    expect_close(loss, expected, "the loss of a model that always answers the same", tol=1e-4)


@check("1.5")
def an_oracle_costs_nothing(denoising_loss):
    """A model that knows the clean pictures has loss 0. Is `model(x)`, a probability, taken for
    logits?"""
    x = images().round()
    model = Constant(200 * (x - 0.5))
    loss = denoising_loss(model, x, 0.5)
    expect_close(loss, torch.tensor(0.0), "the loss of a model that knows x")


@check("1.5")
def copying_noise_costs(denoising_loss):
    """What is decoded must come from the noisy picture; a clean one on the way makes it too
    easy."""
    x, model = images(200, (1, 6, 6)), Copy()
    loss = as_tensor(denoising_loss(model, x.clone(), 2.0), (), "the loss").item()
    logits = model.decode(model.encode(x))
    clean = F.binary_cross_entropy_with_logits(logits, x, reduction="sum").item() / 200
    seen = f"a model that copies costs {show(loss)} with noise and {show(clean)} without"
    expect(loss > 1.5 * clean, seen, "much more with noise than without")


@check("1.5")
def clean_images_stay_as_they_were(denoising_loss):
    """The caller's x was written to."""
    x = images()
    before = x.clone()
    denoising_loss(Copy(), x, 0.5)
    expect_equal(x, before, "x after the call", because="the clean picture, untouched")


@check("1.5")
def gradients_reach_the_model(denoising_loss):
    """The result is a number without a graph: no `.item()`, no `.detach()`, no
    `torch.no_grad()`."""
    model = Copy()
    loss = as_tensor(denoising_loss(model, images(), 0.5), (), "the loss")
    expect(loss.requires_grad, "the loss has no gradient graph", "one that leads to the model")
    slopes = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    expect(all(s is not None for s in slopes), "no gradient", "gradients for all")
    expect(all(s.item() != 0 for s in slopes), "a gradient of 0", "gradients for all parameters")
    expect(all(p.grad is None for p in model.parameters()), "p.grad was written", "untouched")
    for mode in (True, False):
        model = Copy().train(mode)
        denoising_loss(model, images(), 0.5)
        seen = f"training is {model.training} after, and was {model.modes[0]} meanwhile"
        expect({model.training, *model.modes} == {mode}, seen, f"{mode}, as before")


# --- 1.6 train_step


def plain_step(lr=0.01):
    """A model, its optimiser, images, their loss, and the parameters after one right step."""
    model, x = Copy(-4.0), images()
    loss = F.binary_cross_entropy_with_logits(model.decode(model.encode(x)), x, reduction="sum") / 4
    slopes = torch.autograd.grad(loss, list(model.parameters()))
    after = [(p - lr * s).detach() for p, s in zip(model.parameters(), slopes, strict=True)]
    return (
        model,
        torch.optim.SGD(model.parameters(), lr=lr, momentum=0.5),
        x,
        loss.item(),
        torch.stack(after),
    )


@check("1.6")
def the_parameters_move_down_the_gradient(train_step):
    """One optimizer.step(), after loss.backward(), and nothing that empties the gradient in
    between."""
    model, optimizer, x, _, after = plain_step()
    before = torch.stack([p.detach().clone() for p in model.parameters()])
    train_step(model, optimizer, x)
    now = torch.stack([p.detach() for p in model.parameters()])
    moved, expected = now - before, after - before
    expect_close(moved, expected, "the step of two parameters", because="-lr * gradient", tol=1e-5)


@check("1.6")
def old_gradients_do_not_matter(train_step):
    """`backward()` adds to `.grad`: without zero_grad before it, all earlier gradients count
    again."""
    model, optimizer, x, _, after = plain_step()
    before = torch.stack([p.detach().clone() for p in model.parameters()])
    for p in model.parameters():
        p.grad = torch.full_like(p, 100.0)
    train_step(model, optimizer, x)
    moved = torch.stack([p.detach() for p in model.parameters()]) - before
    what = "the step, with gradients of 100 left over from before,"
    expect_close(moved, after - before, what, because="as without them")


@check("1.6")
def the_loss_before_the_step_comes_back(train_step):
    """Return the loss that was differentiated, not one computed again after the step."""
    model, optimizer, x, loss, _ = plain_step(lr=0.1)
    expect_close(train_step(model, optimizer, x), loss, "what train_step returns", tol=1e-4)


@check("1.6")
def two_calls_are_two_steps(train_step):
    """Something is left over from the first call, or the optimiser steps more than once a call."""
    model, optimizer, x, *_ = plain_step()
    twin, optimizer_2, *_ = plain_step()
    twin.load_state_dict(model.state_dict())
    for _ in range(2):
        train_step(model, optimizer, x)
        optimizer_2.zero_grad()
        logits = twin.decode(twin.encode(x))
        (F.binary_cross_entropy_with_logits(logits, x, reduction="sum") / 4).backward()
        optimizer_2.step()
    now, expected = (torch.stack([p.detach() for p in m.parameters()]) for m in (model, twin))
    expect_close(now, expected, "the parameters after two calls")


@check("1.6")
def the_mode_stays(train_step):
    """Training or eval mode is the caller's business."""
    for mode in (True, False):
        model, optimizer, x, *_ = plain_step()
        train_step(model.train(mode), optimizer, x)
        expect(model.training is mode, f"training is {model.training} after", f"{mode}, as before")
        seen = f"training was {model.modes[-1]} while the loss was computed"
        expect(model.modes[-1] is mode, seen, f"{mode}, as before")


# --- 1.7 mean_error


class Watched(nn.Module):
    """Calling it scales images; dropout and batch norm tell in which mode that happened."""

    def __init__(self, scale=0.8):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))
        self.norm, self.drop = nn.BatchNorm2d(2), nn.Dropout(0.5)
        self.with_graph = []

    def forward(self, x):
        self.with_graph.append(torch.is_grad_enabled())
        return self.drop(self.norm(self.scale * x))

    def expected(self, x):
        """The outputs in eval mode, of a batch norm that has learned nothing yet."""
        return (self.scale * x / math.sqrt(1 + self.norm.eps)).detach()


@check("1.7")
def it_is_the_mean_over_all_pixels(mean_error):
    """(model(x) - x)^2, summed, divided by the number of pixels, C * H * W * B; no root, no abs."""
    model, x = Watched().eval(), images(6)
    expected = (model.expected(x) - x).square().mean().item()
    expect_close(mean_error(model, [x]), expected, "the error of one batch")


@check("1.7")
def every_image_counts_the_same(mean_error):
    """A mean of the batches' means gives the images of a small batch too much weight."""
    model = Watched().eval()
    batches = [images(5), images(3) * 0.1, images(1) * 3]
    x = torch.cat(batches)
    expected = (model.expected(x) - x).square().mean().item()
    expect_close(mean_error(model, batches), expected, "the error of batches of 5, 3 and 1")


@check("1.7")
def batches_can_be_walked_once(mean_error):
    """A generator or a loader has no len() and no second round: collect everything in one loop."""
    model, batches = Watched().eval(), [images(5), images(2)]
    x = torch.cat(batches)
    expected = (model.expected(x) - x).square().mean().item()
    expect_close(mean_error(model, (b for b in batches)), expected, "the error from a generator")


@check("1.7")
def the_model_is_measured_in_eval_mode(mean_error):
    """In training mode dropout deletes values, and batch norm uses this batch's statistics."""
    model, x = Watched().train(), images(6)
    expected = (model.expected(x) - x).square().mean().item()
    error = mean_error(model, x.clone().split(4))
    expect_close(error, expected, "the error of a model in training mode")


@check("1.7")
def the_model_learns_nothing_from_it(mean_error):
    """Batch norm's running mean moved: the test set leaked into the model."""
    model = Watched().train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    x = images(6)
    kept = x.clone()
    mean_error(model, [x])
    expect_equal(x, kept, "a batch after the call", because="as before")
    seen = "a parameter is frozen or has lost its gradient after"
    expect(all(p.requires_grad for p in model.parameters()), seen, "as before")
    for name, value in model.state_dict().items():
        expect_equal(value, before[name], f"{name} after the call", because="as before")


@check("1.7")
def the_mode_is_restored(mean_error):
    """Remember `model.training` before, and give it back after: `model.train(was)`."""
    for mode in (True, False):
        model = Watched().train(mode)
        mean_error(model, [images(2)])
        seen = f"model.training was {mode} and is {model.training} after"
        expect(all(m.training is mode for m in model.modules()), seen, f"{mode}")


@check("1.7")
def no_graph_is_built(mean_error):
    """Without torch.no_grad() every activation is kept for a backward pass that never comes."""
    model = Watched()
    error = mean_error(model, [images(2)])
    expect(not any(model.with_graph), "gradients are recorded while the model runs", "no_grad()")
    expect(torch.is_grad_enabled(), "gradients are switched off after the call", "on, as before")
    as_number(error, "the error")


# --- 1.8 anomaly_scores


@check("1.8")
def one_score_an_image(anomaly_scores):
    """Sum over channels, rows and columns, not over the batch, and keep the batch also when B is
    1."""
    for batch in (4, 1):
        scores = anomaly_scores(Watched().eval(), images(batch))
        as_tensor(scores, (batch,), f"scores for B = {batch}", shape_is_said=False)


@check("1.8")
def the_score_is_the_squared_error(anomaly_scores):
    """Squared, then summed over the pixels of the image: no root, no mean, no maximum, no minus."""
    model, x = Watched().eval(), 3 * images()
    expected = (model.expected(x) - x).square().flatten(1).sum(dim=1)
    expect_close(anomaly_scores(model, x), expected, "the scores of four images")


@check("1.8")
def stranger_is_higher(anomaly_scores):
    """The image that is drawn worst must have the highest score."""
    x = torch.tensor([1.0, 3.0, 2.0]).view(3, 1, 1, 1).expand(3, 2, 5, 3)
    scores = as_tensor(anomaly_scores(Watched().eval(), x), (3,), "the scores")
    seen = f"errors of 1, 3 and 2 units get the scores {show(scores)}"
    expect(bool(scores[1] > scores[2] > scores[0]), seen, "the second highest, the first lowest")


@check("1.8")
def neighbours_do_not_matter(anomaly_scores):
    """In training mode batch norm mixes the images of a batch: switch to eval mode."""
    model, x = Watched().train(), images()
    together = as_tensor(anomaly_scores(model, x), (4,), "the scores")
    alone = torch.cat([as_tensor(anomaly_scores(model, v[None]), (1,), "a score") for v in x])
    expect_close(together, alone, "the scores of four images together", because="as one by one")


@check("1.8")
def the_model_is_left_as_it_was(anomaly_scores):
    """Restore the mode; batch norm must learn nothing; x must not be written to."""
    for mode in (True, False):
        model, x = Watched().train(mode), images()
        before, state = x.clone(), {k: v.clone() for k, v in model.state_dict().items()}
        anomaly_scores(model, x)
        seen = f"model.training was {mode} and is {model.training} after"
        expect(all(m.training is mode for m in model.modules()), seen, f"{mode}")
        expect(all(p.requires_grad for p in model.parameters()), "frozen", "as before")
        expect(torch.is_grad_enabled(), "gradients are off after the call", "on, as before")
        for name, value in model.state_dict().items():
            expect_equal(value, state[name], f"{name} after the call", because="as before")
        expect_equal(x, before, "x after the call", because="as before")


@check("1.8")
def the_scores_have_no_graph(anomaly_scores):
    """Scores are for looking at, not for training: torch.no_grad() saves the memory of the
    graph."""
    scores = as_tensor(anomaly_scores(Watched(), images()), (4,), "the scores")
    expect(not scores.requires_grad, "the scores have a gradient graph", "none")


# --- 1.9 pca


def points(n=12, dim=5):
    """Points in float64 with different spread along tilted axes, far from the origin."""
    spread = torch.linspace(1, 4, dim).double() * torch.randn(n, dim).double()
    tilt = torch.linalg.qr(torch.randn(dim, dim).double())[0]
    return spread @ tilt + 10 * torch.randn(dim).double()


@check("1.9")
def it_returns_mean_and_rows(pca):
    """The mean has D values, one a coordinate; each of the L directions is a row of D values."""
    for n, dim, latent_dim in ((12, 5, 2), (6, 20, 3)):
        what = f"for N = {n}, D = {dim}, L = {latent_dim}"
        result = pca(points(n, dim), latent_dim)
        said = f"a tuple of {len(result)}" if isinstance(result, tuple) else show(result)
        expect(said == "a tuple of 2", f"pca returns {said}", "a tuple of 2: mean, components")
        as_tensor(result[0], (dim,), f"the mean {what}", shape_is_said=False)
        as_tensor(result[1], (latent_dim, dim), f"components {what}", shape_is_said=False)


@check("1.9")
def the_mean_is_that_of_the_points(pca):
    """Average over the points (dim 0), not over the coordinates of each."""
    x = points()
    expect_close(pca(x.clone(), 2)[0], x.mean(dim=0), "the mean")


@check("1.9")
def the_rows_are_orthonormal(pca):
    """Directions have length 1 and are at right angles; singular values scale them, columns mix
    them."""
    components = as_tensor(pca(points(), 3)[1], (3, 5), "components")
    gram = components @ components.T
    expect_close(gram, torch.eye(3).double(), "components @ components.T", because="identity")


@check("1.9")
def no_directions_lose_less(pca):
    """The plane is not the best one: were the points centred first? Are the directions rows of
    Vh?"""
    for n, dim, latent_dim in ((12, 5, 2), (5, 5, 2), (6, 20, 3), (3000, 4, 2)):
        x = points(n, dim)
        _, components = pca(x.clone(), latent_dim)
        components = as_tensor(components, (latent_dim, dim), "components").to(x.dtype)
        centred = x - x.mean(dim=0)
        left = centred - centred @ components.T @ components
        least = torch.linalg.svdvals(centred)[latent_dim:].square().sum().item()
        what = f"the squared distance of {n} points in {dim} dimensions to their plane"
        expect_close(left.square().sum().item(), least, what, because="the least possible")


@check("1.9")
def the_first_direction_spreads_most(pca):
    """`eigh` sorts upwards, `svd` downwards: the direction of the largest variance comes first."""
    for _ in range(5):
        x = points()
        components = as_tensor(pca(x.clone(), 4)[1], (4, 5), "components").to(x.dtype)
        variances = ((x - x.mean(dim=0)) @ components.T).var(dim=0)
        expected = torch.linalg.svdvals(x - x.mean(dim=0))[:4].square() / 11
        expect_close(variances, expected, "the variances along the directions")


@check("1.9")
def the_points_stay_as_they_were(pca):
    """`x -= mean` writes into the caller's points."""
    x = points()
    before = x.clone()
    pca(x, 2)
    expect_equal(x, before, "x after the call", because="the points, untouched")


# --- 1.10 pca_reconstruct


def plane(dim=6, latent_dim=2):
    """A mean and orthonormal components in float64."""
    basis = torch.linalg.qr(torch.randn(dim, dim).double())[0]
    return 3 * torch.randn(dim).double(), basis[:latent_dim]


@check("1.10")
def points_come_back_as_points(pca_reconstruct):
    """Down to L values and up again: the result has as many coordinates as x. A code is half the
    way."""
    mean, components = plane()
    x = torch.randn(7, 6).double()
    as_tensor(pca_reconstruct(x, mean, components), (7, 6), "the result for 7 points")


@check("1.10")
def the_mean_stays_where_it_is(pca_reconstruct):
    """Subtract the mean before going down and add it after coming up: both, once each."""
    mean, components = plane()
    result = pca_reconstruct(mean.repeat(3, 1), mean, components)
    expect_close(result, mean.expand(3, 6), "the mean, reconstructed,", because="the mean")


@check("1.10")
def points_of_the_plane_stay(pca_reconstruct):
    """A point that the components can say exactly must come back exactly."""
    mean, components = plane()
    x = mean + torch.randn(7, 2).double() @ components
    expect_close(pca_reconstruct(x.clone(), mean, components), x, "points of the plane")


@check("1.10")
def the_rest_is_at_right_angles(pca_reconstruct):
    """The nearest point of a plane: what is lost has no part along the components."""
    mean, components = plane()
    x = 5 * torch.randn(7, 6).double()
    result = as_tensor(pca_reconstruct(x.clone(), mean, components), (7, 6), "the result")
    along = (x - result).to(x.dtype) @ components.T
    expect_close(along, torch.zeros(7, 2).double(), "what is lost, along the components")
    shift = result.to(mean.dtype) - mean
    off = shift - shift @ components.T @ components
    expect_close(off, torch.zeros(7, 6).double(), "the way from the result to the plane")


@check("1.10")
def all_directions_lose_nothing(pca_reconstruct):
    """With L = D every point comes back; clipping, scaling or a transposed matrix shows here."""
    mean, components = plane(latent_dim=6)
    x = 5 * torch.randn(7, 6).double()
    expect_close(pca_reconstruct(x.clone(), mean, components), x, "points, with L = D,")


@check("1.10")
def the_arguments_stay_as_they_were(pca_reconstruct):
    """`x -= mean` writes into the caller's points."""
    mean, components = plane()
    arguments = {"x": torch.randn(7, 6).double(), "mean": mean, "components": components}
    before = {name: value.clone() for name, value in arguments.items()}
    pca_reconstruct(**arguments)
    for name, value in arguments.items():
        expect_equal(value, before[name], f"{name} after the call", because="untouched")
