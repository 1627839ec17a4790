"""Answers to exercise 1 that people give: wrong ones, with what they are told, and right ones."""

from math import prod, sqrt

import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Bernoulli

from exercises.checks import right, wrong
from exercises.grading import reference

solution = reference(1)


# --- 1.1 count_parameters


@wrong("1.1", "a_linear_layer_has_a_matrix_and_a_bias")
def counts_tensors(model):
    """You count the tensors. Each has many numbers: add up `p.numel()`."""
    return len(list(model.parameters()))


@wrong("1.1", "a_linear_layer_has_a_matrix_and_a_bias")
def counts_rows(model):
    """`len(p)` is the number of rows of a matrix, not of its elements: use `p.numel()`."""
    return sum(len(p) for p in model.parameters() if p.requires_grad and p.ndim)


@wrong("1.1", "a_linear_layer_has_a_matrix_and_a_bias")
def counts_weights_only(model):
    """You leave out the biases; they are trained as well."""
    return sum(p.numel() for name, p in model.named_parameters() if name.endswith("weight"))


@wrong("1.1", "modules_inside_modules_count")
def looks_at_the_first_level(model):
    """You look at the model's direct children only; `parameters()` goes all the way down."""
    own = list(model.parameters(recurse=False))
    for child in model.children():
        own += child.parameters(recurse=False)
    return sum(p.numel() for p in own if p.requires_grad)


@wrong("1.1", "buffers_do_not_count")
def counts_the_state(model):
    """`state_dict()` also holds buffers, such as running means, which training does not change."""
    return sum(v.numel() for v in model.state_dict().values())


@wrong("1.1", "frozen_parameters_do_not_count")
def counts_frozen(model):
    """You count frozen parameters too; ask each for `requires_grad`."""
    return sum(p.numel() for p in model.parameters())


@wrong("1.1", "a_shared_parameter_counts_once")
def counts_shared_twice(model):
    """Walking over modules meets a shared parameter twice; `model.parameters()` meets it once."""
    own = [p for m in model.modules() for p in m.parameters(recurse=False)]
    return sum(p.numel() for p in own if p.requires_grad)


@right("1.1")
def multiplies_shapes(model):
    total = 0
    for _, p in model.named_parameters():
        if p.requires_grad:
            total += prod(p.shape)
    return total


@right("1.1")
def counts_a_flat_vector(model):
    flat = [p.reshape(-1) for p in model.parameters() if p.requires_grad]
    return torch.cat(flat).shape[0] if flat else 0


# --- 1.2 Autoencoder


class Base(solution.Autoencoder):
    """The solution, for the variants below to spoil in one place."""


@wrong("1.2", "nothing_goes_round_the_bottleneck")
class SkipConnection(Base):
    """Part of x is added to the output directly: a way round the bottleneck, nothing is
    compressed."""

    def encode(self, x):
        self.shortcut = x
        return super().encode(x)

    def decode(self, z):
        logits = super().decode(z)
        way_round = getattr(self, "shortcut", None)
        return (
            logits + way_round
            if way_round is not None and way_round.shape == logits.shape
            else logits
        )


@wrong("1.2", "forward_is_the_sigmoid_of_the_logits")
class AddsTheInput(Base):
    """forward adds x to what was decoded: a way round the bottleneck, nothing is compressed."""

    def forward(self, x):
        return (super().forward(x) + x) / 2


@wrong("1.2", "decode_returns_logits")
class TwoSigmoids(Base):
    """decode already applies the sigmoid, and forward applies it again: pictures between 0.5 and
    0.73."""

    def decode(self, z):
        return super().decode(z).sigmoid()


@wrong("1.2", "decode_returns_logits")
class EndsInReLU(Base):
    """decode ends in a ReLU: a logit that cannot be negative is a pixel that cannot be dark."""

    def decode(self, z):
        return super().decode(z).relu()


@wrong("1.2", "forward_is_the_sigmoid_of_the_logits")
class NoSigmoid(Base):
    """forward returns the logits themselves, which leave [0, 1]: apply the sigmoid there."""

    def forward(self, x):
        return self.decode(self.encode(x))


@wrong("1.2", "forward_is_the_sigmoid_of_the_logits")
class Clamps(Base):
    """forward cuts the logits to [0, 1] instead of applying the sigmoid."""

    def forward(self, x):
        return self.decode(self.encode(x)).clamp(0, 1)


@wrong("1.2", "codes_take_both_signs")
class ReLUCode(Base):
    """The code goes through a ReLU: it is never negative, and half of its room is lost."""

    def encode(self, x):
        return super().encode(x).relu()


@wrong("1.2", "codes_take_both_signs")
class SigmoidCode(Base):
    """The code goes through a sigmoid and lies in (0, 1): leave the last layer of the encoder
    bare."""

    def encode(self, x):
        return super().encode(x).sigmoid()


@wrong("1.2", "both_halves_are_nonlinear")
class OnlyLinear(Base):
    """There is no activation between the layers: two matrices in a row are one, which is PCA at
    best."""

    def __init__(self, image_shape, latent_dim, hidden_dim=64):
        super().__init__(image_shape, latent_dim, hidden_dim)
        self.encoder[2], self.decoder[1] = nn.Identity(), nn.Identity()


@wrong("1.2", "every_layer_is_registered")
class HiddenLayers(Base):
    """The layers sit in a plain list, where PyTorch does not see them: `nn.Sequential(*layers)`."""

    def __init__(self, image_shape, latent_dim, hidden_dim=64):
        super().__init__(image_shape, latent_dim, hidden_dim)
        layers = list(self.decoder)
        del self.decoder
        self.layers = layers

    def decode(self, z):
        for layer in self.layers:
            z = layer(z)
        return z


@wrong("1.2", "codes_and_images_have_their_shapes")
class CodeOfTheHiddenSize(Base):
    """The code has hidden_dim values; the bottleneck must have latent_dim."""

    def encode(self, x):
        return self.encoder[:-1](x)


@wrong("1.2", "codes_and_images_have_their_shapes")
class FlatOutput(Base):
    """decode returns (B, C*H*W): the pixels must be put back into an image, as by nn.Unflatten."""

    def decode(self, z):
        return super().decode(z).flatten(1)


@wrong("1.2", "each_image_is_treated_by_itself")
class CentresTheBatch(Base):
    """The mean over the batch is subtracted: what one image becomes depends on its neighbours."""

    def encode(self, x):
        z = super().encode(x)
        return z - z.mean(dim=0, keepdim=True) if len(z) > 1 else z


@right("1.2")
class Convolutional(nn.Module):
    def __init__(self, image_shape, latent_dim, hidden_dim=64):
        super().__init__()
        channels, height, width = image_shape
        self.shape = (8, height, width)
        self.down = nn.Conv2d(channels, 8, 3, padding=1)
        self.code = nn.Linear(8 * height * width, latent_dim)
        self.back = nn.Linear(latent_dim, 8 * height * width)
        self.up = nn.Conv2d(8, channels, 3, padding=1)

    def encode(self, x):
        return self.code(F.relu(self.down(x)).flatten(1))

    def decode(self, z):
        return self.up(F.relu(self.back(z)).unflatten(1, self.shape))

    def forward(self, x):
        return torch.sigmoid(self.decode(self.encode(x)))


@right("1.2")
class DeepWithBatchNorm(nn.Module):
    def __init__(self, image_shape, latent_dim, hidden_dim=64):
        super().__init__()
        self.image_shape, pixels = image_shape, prod(image_shape)
        self.layers = nn.ModuleList(
            [
                nn.Linear(pixels, 2 * hidden_dim),
                nn.Linear(2 * hidden_dim, hidden_dim),
                nn.Linear(hidden_dim, latent_dim),
            ]
        )
        self.norm = nn.BatchNorm1d(hidden_dim)
        self.grow = nn.Sequential(
            nn.Linear(latent_dim, hidden_dim), nn.Tanh(), nn.Linear(hidden_dim, pixels)
        )

    def encode(self, x):
        h = torch.tanh(self.layers[0](x.reshape(x.shape[0], -1)))
        return self.layers[2](F.gelu(self.norm(self.layers[1](h))))

    def decode(self, z):
        return self.grow(z).reshape(-1, *self.image_shape)

    def forward(self, x):
        logits = self.decode(self.encode(x))
        return 1 / (1 + torch.exp(-logits))


# --- 1.3 reconstruction_loss


def bce(logits, x):
    return F.binary_cross_entropy_with_logits(logits, x, reduction="none")


@wrong("1.3", "a_fair_coin_costs_log_2_a_pixel")
def mean_over_pixels(logits, x):
    """You average over the pixels too. Their log-probabilities add up: a sum, C*H*W times as
    much."""
    return F.binary_cross_entropy_with_logits(logits, x)


@wrong("1.3", "a_fair_coin_costs_log_2_a_pixel")
def sum_over_everything(logits, x):
    """You sum over the batch too: the loss, and with it the step, would grow with the batch
    size."""
    return F.binary_cross_entropy_with_logits(logits, x, reduction="sum")


@wrong("1.3", "a_fair_coin_costs_log_2_a_pixel")
def one_loss_an_image(logits, x):
    """You return one loss for each image: take the mean over the batch."""
    return bce(logits, x).flatten(1).sum(1)


@wrong("1.3", "a_fair_coin_costs_log_2_a_pixel")
def forgets_the_dark_pixels(logits, x):
    """The second half is missing: where x is 0, the cost is -log(1 - s)."""
    return -(x * F.logsigmoid(logits)).flatten(1).sum(1).mean()


@wrong("1.3", "a_fair_coin_costs_log_2_a_pixel")
def gives_the_log_likelihood(logits, x):
    """The sign: this is the log-likelihood, which is to be maximised. The loss is minus that."""
    return -bce(logits, x).flatten(1).sum(1).mean()


@wrong("1.3", "a_fair_coin_costs_log_2_a_pixel")
def squared_error(logits, x):
    """This is the squared error of the sigmoid: the loss of a Gaussian, not of a Bernoulli
    pixel."""
    return (logits.sigmoid() - x).square().flatten(1).sum(1).mean()


@wrong("1.3", "a_fair_coin_costs_log_2_a_pixel")
def counts_in_bits(logits, x):
    """You count in bits (log base 2); nats use the natural logarithm."""
    return bce(logits, x).flatten(1).sum(1).mean() / torch.tensor(2.0).log()


@wrong("1.3", "a_fair_coin_costs_log_2_a_pixel")
def swaps_the_arguments(logits, x):
    """The arguments are swapped: predictions (the logits) come first, targets second."""
    return bce(x, logits).flatten(1).sum(1).mean()


@wrong("1.3", "it_is_the_cross_entropy_of_sigmoid_and_image")
def rounds_the_image(logits, x):
    """The image is rounded to 0 and 1; grey pixels count with their own value."""
    return bce(logits, x.round()).flatten(1).sum(1).mean()


@wrong("1.3", "a_confident_mistake_costs_its_logit")
def through_the_probability(logits, x):
    """The sigmoid is taken first: at large logits it is rounded to 0 or 1, and PyTorch cuts the
    logarithm at -100. `F.binary_cross_entropy_with_logits` keeps what the logit knows."""
    s = logits.sigmoid()
    return F.binary_cross_entropy(s, x, reduction="none").flatten(1).sum(1).mean()


@wrong("1.3", "a_confident_mistake_costs_its_logit")
def guards_with_a_small_number(logits, x):
    """A small number inside the logarithm hides the infinity and falsifies the loss: at a logit of
    1000 it reports 18. Compute from the logits."""
    s = logits.sigmoid()
    cost = -(x * (s + 1e-8).log() + (1 - x) * (1 - s + 1e-8).log())
    return cost.flatten(1).sum(1).mean()


@wrong("1.3", "its_gradient_is_prediction_minus_image")
def detached(logits, x):
    """`.detach()` or `.item()` cuts the graph: no gradient can reach the logits."""
    return bce(logits, x).flatten(1).sum(1).mean().detach()


@wrong("1.3", "any_layout_will_do")
def needs_contiguous(logits, x):
    """`view` fails on tensors that are not contiguous: use `flatten` or `reshape`."""
    per_pixel = (F.softplus(logits) - x * logits).view(len(x), -1)
    return per_pixel.sum(1).mean() + 0 * logits.view(len(x), -1).sum()


@right("1.3")
def by_softplus(logits, x):
    return (F.softplus(logits) - x * logits).sum(dim=(1, 2, 3)).mean(dim=0)


@right("1.3")
def by_log_sigmoid(logits, x):
    log_p = x * F.logsigmoid(logits) + (1 - x) * F.logsigmoid(-logits)
    return -log_p.sum() / len(x)


@right("1.3")
def by_distribution(logits, x):
    log_p = Bernoulli(logits=logits, validate_args=False).log_prob(x)
    return -log_p.flatten(1).sum(dim=1).mean()


@right("1.3")
def one_image_at_a_time(logits, x):
    losses = [
        F.binary_cross_entropy_with_logits(one, target, reduction="sum")
        for one, target in zip(logits, x, strict=True)
    ]
    return torch.stack(losses).mean()


# --- 1.4 add_noise


@wrong("1.4", "the_input_stays_as_it_was")
def adds_in_place(x, sigma):
    """`x +=` writes the noise into the caller's picture, the clean target is lost: `x = x + ...`"""
    x += sigma * torch.randn_like(x)
    return x


@wrong("1.4", "the_noise_has_mean_0")
def uniform(x, sigma):
    """`rand_like` is uniform on [0, 1]; the normal distribution is `randn_like`, with an n."""
    return x + sigma * torch.rand_like(x)


@wrong("1.4", "the_noise_is_gaussian")
def centred_uniform(x, sigma):
    """Uniform noise of the right size is not Gaussian; the link from denoising to the score needs
    it."""
    return x + sigma * (torch.rand_like(x) - 0.5) * sqrt(12)


@wrong("1.4", "the_noise_has_standard_deviation_sigma")
def squares_sigma(x, sigma):
    """sigma is squared: that is the variance, and you multiply by it as if it were the
    deviation."""
    return x + sigma**2 * torch.randn_like(x)


@wrong("1.4", "the_noise_has_standard_deviation_sigma")
def takes_the_root(x, sigma):
    """sigma is taken for a variance: it is the standard deviation already, no root is needed."""
    return x + sqrt(sigma) * torch.randn_like(x)


@wrong("1.4", "the_noise_has_standard_deviation_sigma")
def forgets_sigma(x, sigma):
    """The noise is not multiplied by sigma."""
    return x + torch.randn_like(x) * (sigma > 0)


@wrong("1.4", "no_noise_changes_nothing")
def clips(x, sigma):
    """The result is clipped to [0, 1]; then the noise depends on the picture. Leave it as it is."""
    return (x + sigma * torch.randn_like(x)).clamp(0, 1)


@wrong("1.4", "the_noise_has_mean_0")
def mixes(x, sigma):
    """The picture is scaled by 1 - sigma; it stays as it is and noise is added. (Diffusion scales
    it, but that is chapter 4.)"""
    return (1 - sigma) * x + sigma * torch.randn_like(x)


@wrong("1.4", "every_pixel_has_a_draw_of_its_own")
def one_draw_for_all_images(x, sigma):
    """All images of the batch get the same noise: draw for the whole shape of x."""
    return x + sigma * torch.randn_like(x[:1])


@wrong("1.4", "every_pixel_has_a_draw_of_its_own")
def one_draw_for_all_pixels(x, sigma):
    """One number is drawn and added to every pixel: that is a change of brightness, not noise."""
    return x + sigma * torch.randn(())


@wrong("1.4", "each_call_draws_anew")
def seeded(x, sigma):
    """The seed is set inside: every call adds the same noise, and the network can learn it by
    heart."""
    torch.manual_seed(0)
    return x + sigma * torch.randn_like(x)


@wrong("1.4", "the_dtype_stays")
def always_float32(x, sigma):
    """The noise or the result is made float32 whatever x is: `randn_like` follows x."""
    return x.float() + sigma * torch.randn(x.shape)


@right("1.4")
def by_torch_normal(x, sigma):
    return torch.normal(x, sigma * torch.ones_like(x)) if sigma else x.clone()


@right("1.4")
def in_place_on_a_copy(x, sigma):
    noisy = x.clone()
    noisy.add_(torch.empty_like(x).normal_(), alpha=sigma)
    return noisy


@right("1.4")
def image_by_image(x, sigma):
    return torch.stack([one + torch.randn(one.shape, dtype=x.dtype) * sigma for one in x])


# --- 1.5 denoising_loss


@wrong("1.5", "the_target_is_clean")
def noisy_target(model, x, sigma):
    """The target is the noisy picture: the network learns to copy noise. Grade against the clean
    x."""
    noisy = solution.add_noise(x, sigma)
    return solution.reconstruction_loss(model.decode(model.encode(noisy)), noisy)


@wrong("1.5", "the_encoder_sees_noise_of_the_asked_size")
def clean_input(model, x, sigma):
    """The encoder sees the clean picture: there is nothing to remove."""
    return solution.reconstruction_loss(model.decode(model.encode(x)), x)


@wrong("1.5", "the_encoder_sees_noise_of_the_asked_size")
def noise_on_the_code(model, x, sigma):
    """The noise is added to the code; it belongs on the picture, before encode."""
    z = solution.add_noise(model.encode(x), sigma)
    return solution.reconstruction_loss(model.decode(z), x)


@wrong("1.5", "without_noise_it_is_the_reconstruction_loss")
def probabilities_for_logits(model, x, sigma):
    """`model(...)` returns probabilities, and the loss applies the sigmoid to them again: use
    model.decode(model.encode(...))."""
    return solution.reconstruction_loss(model(solution.add_noise(x, sigma)), x)


@wrong("1.5", "without_noise_it_is_the_reconstruction_loss")
def learns_the_noise(model, x, sigma):
    """The target is the noise. Predicting it is chapter 4; here the clean picture is asked for."""
    noisy = solution.add_noise(x, sigma)
    return solution.reconstruction_loss(model.decode(model.encode(noisy)), noisy - x)


@wrong("1.5", "clean_images_stay_as_they_were")
def spoils_the_clean_images(model, x, sigma):
    """The noise is written into x and taken out again: not exactly, and others may hold the same
    tensor."""
    clean = x.clone()
    x += sigma * torch.randn_like(x)
    return solution.reconstruction_loss(model.decode(model.encode(x)), clean)


@wrong("1.5", "gradients_reach_the_model")
def gives_a_number(model, x, sigma):
    """The loss is detached from its graph: nothing could be learned from it."""
    logits = model.decode(model.encode(solution.add_noise(x, sigma)))
    return solution.reconstruction_loss(logits, x).detach()


@wrong("1.5", "the_encoder_sees_noise_of_the_asked_size")
def ignores_sigma(model, x, sigma):
    """sigma is not used: the noise has a fixed size."""
    noisy = solution.add_noise(x, 0.1)
    return solution.reconstruction_loss(model.decode(model.encode(noisy)), x)


@right("1.5")
def written_out(model, x, sigma):
    noisy = x + sigma * torch.randn(x.shape, dtype=x.dtype)
    logits = model.decode(model.encode(noisy))
    return (F.softplus(logits) - x * logits).flatten(1).sum(1).mean()


@right("1.5")
def with_helpers(model, x, sigma):
    z = model.encode(torch.normal(x, torch.full_like(x, sigma)) if sigma > 0 else x)
    return F.binary_cross_entropy_with_logits(model.decode(z), x, reduction="sum") / x.shape[0]


# --- 1.6 train_step


def loss_of(model, x):
    return solution.reconstruction_loss(model.decode(model.encode(x)), x)


@wrong("1.6", "old_gradients_do_not_matter")
def never_clears(model, optimizer, x):
    """No zero_grad: gradients of all earlier calls are added to this one's."""
    loss = loss_of(model, x)
    loss.backward()
    optimizer.step()
    return loss.item()


@wrong("1.6", "old_gradients_do_not_matter")
def clears_at_the_end(model, optimizer, x):
    """zero_grad comes after the step: what others left in `.grad` before the first call counts."""
    loss = loss_of(model, x)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


@wrong("1.6", "the_parameters_move_down_the_gradient")
def clears_too_late(model, optimizer, x):
    """zero_grad stands between backward and step: the step finds no gradient."""
    loss = loss_of(model, x)
    loss.backward()
    optimizer.zero_grad()
    optimizer.step()
    return loss.item()


@wrong("1.6", "the_parameters_move_down_the_gradient")
def never_steps(model, optimizer, x):
    """optimizer.step() is missing: gradients are computed, nothing moves."""
    loss = loss_of(model, x)
    optimizer.zero_grad()
    loss.backward()
    return loss.item()


@wrong("1.6", "the_parameters_move_down_the_gradient")
def climbs(model, optimizer, x):
    """The sign is wrong: this step makes the loss larger."""
    loss = loss_of(model, x)
    optimizer.zero_grad()
    (-loss).backward()
    optimizer.step()
    return loss.item()


@wrong("1.6", "the_parameters_move_down_the_gradient")
def steps_twice(model, optimizer, x):
    """optimizer.step() is called twice: with one gradient there is one step."""
    loss = loss_of(model, x)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    optimizer.step()
    return loss.item()


@wrong("1.6", "the_loss_before_the_step_comes_back")
def looks_again(model, optimizer, x):
    """This is the loss after the step: it costs another pass, and curves look a step ahead."""
    optimizer.zero_grad()
    loss_of(model, x).backward()
    optimizer.step()
    return loss_of(model, x).item()


@wrong("1.6", "the_loss_before_the_step_comes_back")
def keeps_the_graph(model, optimizer, x):
    """The loss is returned with its graph, which stays in memory as long as the list of losses."""
    loss = loss_of(model, x)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss


@wrong("1.6", "the_parameters_move_down_the_gradient")
def fits_probabilities(model, optimizer, x):
    """`model(x)` returns probabilities; reconstruction_loss takes logits."""
    loss = solution.reconstruction_loss(model(x), x)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


@wrong("1.6", "the_mode_stays")
def forces_training_mode(model, optimizer, x):
    """`model.train()` inside changes the mode that the caller chose."""
    return solution.train_step(model.train(), optimizer, x)


@right("1.6")
def clears_first(model, optimizer, x):
    optimizer.zero_grad(set_to_none=False)
    value = F.binary_cross_entropy_with_logits(model.decode(model.encode(x)), x, reduction="sum")
    value = value / x.size(0)
    value.backward()
    optimizer.step()
    return float(value.detach())


@right("1.6")
def grads_by_hand(model, optimizer, x):
    loss = loss_of(model, x)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for p, slope in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        p.grad = slope
    optimizer.step()
    return loss.detach()


# --- 1.7 mean_error


def measured(model, batches, total_of, count_of, finish=lambda total, count: total / count):
    """The solution with other sums."""
    was = model.training
    model.eval()
    total, count = 0.0, 0
    with torch.no_grad():
        for x in batches:
            total += total_of(model(x), x).item()
            count += count_of(x)
    model.train(was)
    return finish(total, count)


@wrong("1.7", "every_image_counts_the_same")
def mean_of_means(model, batches):
    """This is the mean of the batches' means: an image in a small batch weighs more than
    another."""
    return measured(model, batches, lambda a, b: (a - b).square().mean(), lambda x: 1)


@wrong("1.7", "every_image_counts_the_same")
def last_batch_only(model, batches):
    """Only the last batch counts: the sum is started again in the loop."""
    for x in batches:
        error = measured(model, [x], lambda a, b: (a - b).square().sum(), lambda x: x.numel())
    return error


@wrong("1.7", "it_is_the_mean_over_all_pixels")
def per_image(model, batches):
    """You divide by the number of images; the contract asks for the mean over pixels."""
    return measured(model, batches, lambda a, b: (a - b).square().sum(), lambda x: len(x))


@wrong("1.7", "it_is_the_mean_over_all_pixels")
def takes_a_root(model, batches):
    """This is the root of the mean squared error; leave the root away."""
    return sqrt(solution.mean_error(model, batches))


@wrong("1.7", "it_is_the_mean_over_all_pixels")
def absolute(model, batches):
    """This is the mean absolute difference; it is to be squared."""
    return measured(model, batches, lambda a, b: (a - b).abs().sum(), lambda x: x.numel())


@wrong("1.7", "it_is_the_mean_over_all_pixels")
def cancels(model, batches):
    """Differences are added before they are squared: plus and minus cancel."""
    return measured(model, batches, lambda a, b: (a - b).sum().square(), lambda x: x.numel())


@wrong("1.7", "batches_can_be_walked_once")
def walks_twice(model, batches):
    """The batches are walked, or counted by len(), more than once: a generator is used up by
    then."""
    count = sum(x.numel() for x in batches)
    return measured(
        model, batches, lambda a, b: (a - b).square().sum(), lambda x: 0, lambda t, _: t / count
    )


@wrong("1.7", "the_model_is_measured_in_eval_mode")
def stays_in_training_mode(model, batches):
    """The model is measured in training mode: dropout deletes values at random, and batch norm uses
    the batch's own mean. Call model.eval() first."""
    total, count = 0.0, 0
    with torch.no_grad():
        for x in batches:
            total += (model(x) - x).square().sum().item()
            count += x.numel()
    return total / count


@wrong("1.7", "the_mode_is_restored")
def leaves_eval_mode(model, batches):
    """The model is left in eval mode: training would go on without dropout."""
    error = solution.mean_error(model, batches)
    model.eval()
    return error


@wrong("1.7", "the_mode_is_restored")
def always_trains_after(model, batches):
    """`model.train()` at the end is wrong for a model that was in eval mode: restore what was."""
    error = solution.mean_error(model, batches)
    model.train()
    return error


@wrong("1.7", "no_graph_is_built")
def builds_graphs(model, batches):
    """There is no torch.no_grad(): every activation is kept for a backward pass that never
    comes."""
    was = model.training
    model.eval()
    total, count = 0.0, 0
    for x in batches:
        total += (model(x) - x).square().sum().item()
        count += x.numel()
    model.train(was)
    return total / count


@right("1.7")
@torch.no_grad()
def joined(model, batches):
    was = model.training
    model.train(False)
    errors = torch.cat([F.mse_loss(model(x), x, reduction="none").reshape(-1) for x in batches])
    model.train(was)
    return errors.mean().item()


@right("1.7")
def weighted_means(model, batches):
    mode, model = model.training, model.eval()
    pairs = []
    try:
        with torch.inference_mode():
            for x in batches:
                pairs.append((len(x), F.mse_loss(model(x), x).item()))
    finally:
        model.train(mode)
    return sum(n * e for n, e in pairs) / sum(n for n, _ in pairs)


# --- 1.8 anomaly_scores


def scored(model, x, score):
    """The solution with another score."""
    was = model.training
    model.eval()
    with torch.no_grad():
        result = score(model(x) - x)
    model.train(was)
    return result


@wrong("1.8", "one_score_an_image")
def one_score_for_all(model, x):
    """This is one number for the whole batch: sum over the pixels of each image only."""
    return scored(model, x, lambda d: d.square().sum())


@wrong("1.8", "one_score_an_image")
def sums_over_channels_only(model, x):
    """Only the channels are summed: an image's rows and columns have to go as well."""
    return scored(model, x, lambda d: d.square().sum(dim=1))


@wrong("1.8", "one_score_an_image")
def loses_the_batch(model, x):
    """`squeeze()` also removes the batch dimension when there is one image."""
    return scored(model, x, lambda d: d.square().flatten(1).sum(1).squeeze())


@wrong("1.8", "the_score_is_the_squared_error")
def averages(model, x):
    """You average over the pixels; the contract asks for their sum."""
    return scored(model, x, lambda d: d.square().flatten(1).mean(1))


@wrong("1.8", "the_score_is_the_squared_error")
def norm(model, x):
    """This is the length of the difference, its root; leave the root away."""
    return scored(model, x, lambda d: d.flatten(1).norm(dim=1))


@wrong("1.8", "the_score_is_the_squared_error")
def negative(model, x):
    """The sign: this is higher for what is drawn well. Stranger must be higher."""
    return scored(model, x, lambda d: -d.square().flatten(1).sum(1))


@wrong("1.8", "the_score_is_the_squared_error")
def worst_pixel(model, x):
    """This is the worst pixel; all pixels count."""
    return scored(model, x, lambda d: d.square().flatten(1).amax(1))


@wrong("1.8", "the_score_is_the_squared_error")
def sums_first(model, x):
    """Differences are summed before they are squared: plus and minus cancel."""
    return scored(model, x, lambda d: d.flatten(1).sum(1).square())


@wrong("1.8", "neighbours_do_not_matter")
def scores_in_training_mode(model, x):
    """The model is asked in training mode: dropout is random and batch norm mixes the images."""
    with torch.no_grad():
        return (model(x) - x).square().flatten(1).sum(1)


@wrong("1.8", "the_model_is_left_as_it_was")
def forgets_the_mode(model, x):
    """The model is left in eval mode: training would go on without dropout."""
    scores = solution.anomaly_scores(model, x)
    model.eval()
    return scores


@wrong("1.8", "the_scores_have_no_graph")
def keeps_a_graph(model, x):
    """The scores keep their gradient graph: use torch.no_grad()."""
    was = model.training
    model.eval()
    scores = (model(x) - x).square().flatten(1).sum(1)
    model.train(was)
    return scores


@right("1.8")
def over_three_dims(model, x):
    was, _ = model.training, model.eval()
    with torch.inference_mode():
        difference = model(x) - x
    model.train(was)
    return (difference**2).sum(dim=(1, 2, 3))


@right("1.8")
def image_after_image(model, x):
    was = model.training
    model.eval()
    scores = [(model(one[None]) - one[None]).pow(2).sum().item() for one in x]
    model.train(was)
    return torch.tensor(scores)


# --- 1.9 pca


@wrong("1.9", "no_directions_lose_less")
def not_centred(x, latent_dim):
    """The points are not centred: the first direction points at their mean, which says nothing of
    how they spread."""
    return x.mean(dim=0), torch.linalg.svd(x, full_matrices=False)[2][:latent_dim]


@wrong("1.9", "it_returns_mean_and_rows")
def columns(x, latent_dim):
    """The directions are returned as columns (D, L): the contract asks for rows, (L, D)."""
    mean = x.mean(dim=0)
    return mean, torch.linalg.svd(x - mean, full_matrices=False)[2][:latent_dim].T


@wrong("1.9", "it_returns_mean_and_rows")
def left_vectors(x, latent_dim):
    """U has one row a point: it holds the codes. The directions are in Vh."""
    mean = x.mean(dim=0)
    return mean, torch.linalg.svd(x - mean, full_matrices=False)[0][:, :latent_dim].T


@wrong("1.9", "it_returns_mean_and_rows")
def columns_of_vh(x, latent_dim):
    """You take columns of Vh. It is transposed already: the directions are its rows."""
    mean = x.mean(dim=0)
    return mean, torch.linalg.svd(x - mean, full_matrices=False)[2][:, :latent_dim]


@wrong("1.9", "no_directions_lose_less")
def rows_of_v(x, latent_dim):
    """`torch.svd` and `torch.pca_lowrank` return V, whose columns are the directions; these are
    rows of it."""
    mean = x.mean(dim=0)
    return mean, torch.linalg.svd(x - mean, full_matrices=True)[2].T[:latent_dim]


@wrong("1.9", "no_directions_lose_less")
def smallest_first(x, latent_dim):
    """`eigh` sorts upwards: these are the directions of the least variance. Take the last,
    reversed."""
    mean = x.mean(dim=0)
    return mean, torch.linalg.eigh((x - mean).T @ (x - mean))[1].T[:latent_dim]


@wrong("1.9", "the_first_direction_spreads_most")
def right_plane_wrong_order(x, latent_dim):
    """The plane is right, the order is not: `eigh` sorts upwards, so reverse."""
    mean = x.mean(dim=0)
    return mean, torch.linalg.eigh((x - mean).T @ (x - mean))[1].T[-latent_dim:]


@wrong("1.9", "the_rows_are_orthonormal")
def scaled(x, latent_dim):
    """The directions are multiplied by the singular values: they must have length 1."""
    mean = x.mean(dim=0)
    _, s, vh = torch.linalg.svd(x - mean, full_matrices=False)
    return mean, (s[:, None] * vh)[:latent_dim]


@wrong("1.9", "it_returns_mean_and_rows")
def mean_of_each_point(x, latent_dim):
    """The mean is taken over the coordinates of each point (dim 1); it is the mean over points,
    dim 0."""
    mean = x.mean(dim=1)
    return mean, torch.linalg.svd(x - mean[:, None], full_matrices=False)[2][:latent_dim]


@wrong("1.9", "the_points_stay_as_they_were")
def centres_in_place(x, latent_dim):
    """`x -= mean` moves the caller's points."""
    mean = x.mean(dim=0)
    x -= mean
    return mean, torch.linalg.svd(x, full_matrices=False)[2][:latent_dim]


@wrong("1.9", "it_returns_mean_and_rows")
def swapped_results(x, latent_dim):
    """The results are swapped: the mean comes first."""
    return solution.pca(x, latent_dim)[::-1]


@right("1.9")
def by_eigenvectors(x, latent_dim):
    mean = x.mean(dim=0)
    _, vectors = torch.linalg.eigh(torch.cov(x.T))
    return mean, vectors.flip(1)[:, :latent_dim].T


@right("1.9")
def other_signs(x, latent_dim):
    mean = x.sum(0) / len(x)
    u, _, _ = torch.linalg.svd((x - mean).T / sqrt(len(x)), full_matrices=False)
    return mean, -u.T[:latent_dim]


@right("1.9")
def one_by_one(x, latent_dim):
    mean, rows = x.mean(dim=0), []
    left = x - mean
    for _ in range(latent_dim):
        direction = torch.linalg.svd(left, full_matrices=False).Vh[0]
        rows.append(direction)
        left = left - (left @ direction)[:, None] * direction
    return mean, torch.stack(rows)


# --- 1.10 pca_reconstruct


@wrong("1.10", "the_mean_stays_where_it_is")
def no_mean_added(x, mean, components):
    """The mean was subtracted and is not added back: all points lie round the origin."""
    return (x - mean) @ components.T @ components


@wrong("1.10", "the_mean_stays_where_it_is")
def no_mean_subtracted(x, mean, components):
    """The mean is added but was not subtracted before: it counts twice along the components."""
    return mean + x @ components.T @ components


@wrong("1.10", "the_mean_stays_where_it_is")
def no_mean_at_all(x, mean, components):
    """The mean is not used: the plane goes through it, not through the origin."""
    return x @ components.T @ components


@wrong("1.10", "points_come_back_as_points")
def codes_only(x, mean, components):
    """These are the codes (N, L): half the way. `@ components` and the mean bring them back."""
    return (x - mean) @ components.T


@wrong("1.10", "points_come_back_as_points")
def multiplies_the_other_way(x, mean, components):
    """The matrices do not fit this way: components is (L, D), so `components.T` goes down first."""
    return mean + (x - mean) @ components @ components.T


@wrong("1.10", "the_mean_stays_where_it_is")
def clipped(x, mean, components):
    """The result is cut to [0, 1]; the contract says not clipped: points are not only pixels."""
    return solution.pca_reconstruct(x, mean, components).clamp(0, 1)


@wrong("1.10", "the_arguments_stay_as_they_were")
def moves_the_points(x, mean, components):
    """`x -= mean` moves the caller's points."""
    moved = solution.pca_reconstruct(x, mean, components)
    x -= mean
    return moved


@wrong("1.10", "points_of_the_plane_stay")
def first_direction_only(x, mean, components):
    """Only one component is used: all L of them span the plane."""
    return solution.pca_reconstruct(x, mean, components[:1])


@right("1.10")
def by_projection_matrix(x, mean, components):
    return (x - mean) @ (components.T @ components) + mean


@right("1.10")
def by_least_squares(x, mean, components):
    z = torch.linalg.lstsq(components.T, (x - mean).T).solution.T
    return torch.addmm(mean, z, components)


@right("1.10")
def direction_by_direction(x, mean, components):
    result = mean.repeat(len(x), 1)
    for direction in components:
        result = result + torch.outer((x - mean) @ direction, direction)
    return result
