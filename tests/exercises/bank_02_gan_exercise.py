"""Answers to exercise 2 that people give: wrong ones, with what they are told, and right ones."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import MultivariateNormal, Normal, Uniform
from torch.nn.utils.parametrizations import spectral_norm

from exercises.checks import right, wrong
from exercises.grading import reference

solution = reference(2)


# --- 2.1 sample_latent


@wrong("2.1", "there_are_n_rows_of_latent_dim_numbers")
def transposed(n, latent_dim):
    """Rows and columns are swapped: one row for each image, latent_dim columns."""
    return torch.randn(latent_dim, n)


@wrong("2.1", "there_are_n_rows_of_latent_dim_numbers")
def as_tiny_images(n, latent_dim):
    """Two dimensions of size 1 are added, as some convolutional generators want them: the contract
    is (n, latent_dim), and a generator can unflatten it."""
    return torch.randn(n, latent_dim, 1, 1)


@wrong("2.1", "there_are_n_rows_of_latent_dim_numbers")
def all_in_a_row(n, latent_dim):
    """All numbers are in one row: the shape is (n, latent_dim)."""
    return torch.randn(n * latent_dim)


@wrong("2.1", "there_are_n_rows_of_latent_dim_numbers")
def in_float64(n, latent_dim):
    """z is float64, as NumPy's numbers are: the generator's weights are float32."""
    return torch.randn(n, latent_dim, dtype=torch.float64)


@wrong("2.1", "all_numbers_are_drawn_separately")
def one_row_for_all(n, latent_dim):
    """One vector is drawn and repeated: the generator would make n times the same image."""
    return torch.randn(latent_dim).expand(n, -1)


@wrong("2.1", "all_numbers_are_drawn_separately")
def one_number_for_a_row(n, latent_dim):
    """One number is drawn for each row and repeated: z would lie on a line."""
    return torch.randn(n, 1).expand(-1, latent_dim)


@wrong("2.1", "each_call_draws_anew")
def seeded(n, latent_dim):
    """The seed is set inside: every batch of the training would be the same."""
    torch.manual_seed(0)
    return torch.randn(n, latent_dim)


@wrong("2.1", "the_callers_seed_decides_z")
def by_numpy(n, latent_dim):
    """The numbers are NumPy's, which torch.manual_seed does not seed: no run could be repeated."""
    return torch.from_numpy(np.random.randn(n, latent_dim)).float()


@wrong("2.1", "the_mean_is_0")
def uniform(n, latent_dim):
    """`torch.rand` is uniform on [0, 1]; the normal distribution is `torch.randn`, with an n."""
    return torch.rand(n, latent_dim)


@wrong("2.1", "the_variance_is_1")
def uniform_on_both_sides(n, latent_dim):
    """Uniform on [-1, 1]: a GAN can use that, but this one's z is normal, of variance 1."""
    return 2 * torch.rand(n, latent_dim) - 1


@wrong("2.1", "the_variance_is_1")
def small_noise(n, latent_dim):
    """The numbers are made small: N(0, I) has a standard deviation of 1."""
    return 0.1 * torch.randn(n, latent_dim)


@wrong("2.1", "the_variance_is_1")
def truncated(n, latent_dim):
    """Large numbers are cut off. Some do so when they show samples, for prettier and less varied
    images; N(0, I) has its tails."""
    return nn.init.trunc_normal_(torch.empty(n, latent_dim), a=-1, b=1)


@wrong("2.1", "the_variance_is_1")
def of_length_1(n, latent_dim):
    """Each row is divided by its length: N(0, I) is not normalised."""
    return F.normalize(torch.randn(n, latent_dim), dim=1)


@wrong("2.1", "z_is_normal")
def uniform_of_variance_1(n, latent_dim):
    """Uniform numbers of variance 1 are not normal."""
    return math.sqrt(12) * (torch.rand(n, latent_dim) - 0.5)


@wrong("2.1", "z_is_normal")
def on_a_sphere(n, latent_dim):
    """Each row has the length sqrt(latent_dim): the length of a normal vector varies."""
    return math.sqrt(latent_dim) * F.normalize(torch.randn(n, latent_dim), dim=1)


@wrong("2.1", "z_is_a_plain_tensor")
def trained_latents(n, latent_dim):
    """z is a parameter, as if it were to be trained: it is drawn anew for each batch."""
    return nn.Parameter(torch.randn(n, latent_dim))


@right("2.1")
def by_normal(n, latent_dim):
    return Normal(0.0, 1.0).sample((n, latent_dim))


@right("2.1")
def by_multivariate_normal(n, latent_dim):
    return MultivariateNormal(torch.zeros(latent_dim), torch.eye(latent_dim)).sample((n,))


@right("2.1")
def row_by_row(n, latent_dim):
    parts = torch.arange(n).split(max(1, n // 8))  # where there are many, some at once
    return torch.cat([torch.empty(len(part), latent_dim).normal_() for part in parts])


# --- 2.2 discriminator_loss


def bce(logits, label, reduction="mean"):
    """Binary cross-entropy with the same label for all."""
    targets = torch.full_like(logits, label)
    return F.binary_cross_entropy_with_logits(logits, targets, reduction=reduction)


@wrong("2.2", "it_is_one_number")
def keeps_the_batch(real_logits, fake_logits):
    """There is still one number for each image: take the mean of each batch."""
    return torch.cat([F.softplus(-real_logits), F.softplus(fake_logits)])


@wrong("2.2", "it_is_one_number")
def pairs_the_batches(real_logits, fake_logits):
    """Real and fake images are added one by one, which needs as many of both: take each mean
    first."""
    return (F.softplus(-real_logits) + F.softplus(fake_logits)).mean()


@wrong("2.2", "it_is_one_number")
def bce_of_logits(real_logits, fake_logits):
    """`F.binary_cross_entropy` wants probabilities and gets logits: the one for logits ends in
    `_with_logits`."""
    real = F.binary_cross_entropy(real_logits, torch.ones_like(real_logits))
    return real + F.binary_cross_entropy(fake_logits, torch.zeros_like(fake_logits))


@wrong("2.2", "it_is_one_number")
def a_plain_number(real_logits, fake_logits):
    """`.item()` makes a plain number of the loss, which has no gradient: return the tensor."""
    return (bce(real_logits, 1.0) + bce(fake_logits, 0.0)).item()


@wrong("2.2", "who_is_sure_and_right_pays_nothing")
def labels_swapped(real_logits, fake_logits):
    """The labels are swapped: real images have the label 1, fake ones 0."""
    return bce(real_logits, 0.0) + bce(fake_logits, 1.0)


@wrong("2.2", "who_is_sure_and_right_pays_nothing")
def both_are_real(real_logits, fake_logits):
    """The fake images have the label 1 too, which is what the generator wants: theirs is 0."""
    return bce(real_logits, 1.0) + bce(fake_logits, 1.0)


@wrong("2.2", "who_is_sure_and_right_pays_nothing")
def both_are_fake(real_logits, fake_logits):
    """The real images have the label 0 too: theirs is 1."""
    return bce(real_logits, 0.0) + bce(fake_logits, 0.0)


@wrong("2.2", "who_is_sure_and_right_pays_nothing")
def sigmoid_twice(real_logits, fake_logits):
    """The sigmoid is applied twice: `..._with_logits` has it inside already."""
    return bce(real_logits.sigmoid(), 1.0) + bce(fake_logits.sigmoid(), 0.0)


@wrong("2.2", "who_is_sure_and_right_pays_nothing")
def least_squares(real_logits, fake_logits):
    """This is the least-squares GAN's loss: here it is the cross-entropy."""
    return (real_logits - 1).square().mean() + fake_logits.square().mean()


@wrong("2.2", "who_is_sure_and_right_pays_nothing")
def as_a_critic(real_logits, fake_logits):
    """This is a Wasserstein critic's loss, of task 2.8: here the logits are those of
    probabilities."""
    return fake_logits.mean() - real_logits.mean()


@wrong("2.2", "each_kind_of_error_costs_its_own")
def halved(real_logits, fake_logits):
    """The sum of both means is halved, as by a mean of the two: the contract does not halve it."""
    return (bce(real_logits, 1.0) + bce(fake_logits, 0.0)) / 2


@wrong("2.2", "each_kind_of_error_costs_its_own")
def only_the_real_half(real_logits, fake_logits):
    """The fake images are forgotten: calling everything real would cost nothing."""
    return bce(real_logits, 1.0)


@wrong("2.2", "each_kind_of_error_costs_its_own")
def only_the_fake_half(real_logits, fake_logits):
    """The real images are forgotten: calling everything fake would cost nothing."""
    return bce(fake_logits, 0.0)


@wrong("2.2", "each_kind_of_error_costs_its_own")
def sums_the_batch(real_logits, fake_logits):
    """You sum over each batch: the mean is asked for, so that its size does not matter."""
    return bce(real_logits, 1.0, "sum") + bce(fake_logits, 0.0, "sum")


@wrong("2.2", "each_kind_of_error_costs_its_own")
def to_be_maximised(real_logits, fake_logits):
    """The sign: this is the value of the game, which the discriminator maximises. An optimiser
    minimises, and a cross-entropy is never negative."""
    return -bce(real_logits, 1.0) - bce(fake_logits, 0.0)


@wrong("2.2", "each_kind_of_error_costs_its_own")
def subtracts_the_fakes(real_logits, fake_logits):
    """The fake half is subtracted: both are costs, and are added."""
    return bce(real_logits, 1.0) - bce(fake_logits, 0.0)


@wrong("2.2", "each_kind_of_error_costs_its_own")
def in_bits(real_logits, fake_logits):
    """You count in bits (log base 2); nats use the natural logarithm."""
    return (bce(real_logits, 1.0) + bce(fake_logits, 0.0)) / math.log(2)


@wrong("2.2", "each_kind_of_error_costs_its_own")
def hinge(real_logits, fake_logits):
    """This is the hinge loss: here it is the cross-entropy."""
    return F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean()


@wrong("2.2", "each_kind_of_error_costs_its_own")
def perceptron(real_logits, fake_logits):
    """Only errors cost something, in proportion to the logit: -log sigmoid costs something
    everywhere, log 2 at a logit of 0."""
    return F.relu(-real_logits).mean() + F.relu(fake_logits).mean()


@wrong("2.2", "each_batch_has_a_mean_of_its_own")
def pooled(real_logits, fake_logits):
    """All images are thrown together before the mean: the larger batch counts more. Take two
    means."""
    costs = torch.cat([F.softplus(-real_logits), F.softplus(fake_logits)])
    return 2 * costs.mean()


@wrong("2.2", "it_is_the_cross_entropy")
def log_of_the_mean(real_logits, fake_logits):
    """The mean is taken of the probabilities, before the logarithm: each image has a logarithm of
    its own."""
    real = torch.logsumexp(F.logsigmoid(real_logits), 0) - math.log(len(real_logits))
    fake = torch.logsumexp(F.logsigmoid(-fake_logits), 0) - math.log(len(fake_logits))
    return -real - fake


@wrong("2.2", "a_logit_of_1000_costs_1000_or_nothing")
def through_the_probability(real_logits, fake_logits):
    """The sigmoid is taken first: at large logits it is rounded to 0 or 1, and its logarithm is
    infinite. `F.softplus` and `..._with_logits` keep what the logit knows."""
    return -real_logits.sigmoid().log().mean() - (1 - fake_logits.sigmoid()).log().mean()


@wrong("2.2", "a_logit_of_1000_costs_1000_or_nothing")
def guarded(real_logits, fake_logits):
    """A small number inside the logarithm hides the infinity and falsifies the cost: nothing could
    cost more than 18. Compute from the logits."""
    real, fake = real_logits.sigmoid(), fake_logits.sigmoid()
    return -(real + 1e-8).log().mean() - (1 - fake + 1e-8).log().mean()


@wrong("2.2", "a_logit_of_1000_costs_1000_or_nothing")
def bce_of_probabilities(real_logits, fake_logits):
    """`F.binary_cross_entropy` of a sigmoid cuts the logarithm at -100, where the gradient is lost:
    use the one for logits."""
    real, fake = real_logits.sigmoid(), fake_logits.sigmoid()
    loss = F.binary_cross_entropy(real, torch.ones_like(real))
    return loss + F.binary_cross_entropy(fake, torch.zeros_like(fake))


@wrong("2.2", "a_logit_of_1000_costs_1000_or_nothing")
def clamps_the_logits(real_logits, fake_logits):
    """The logits are clamped: what is sure and wrong would cost too little, and not be mended,
    since its gradient is 0."""
    return bce(real_logits.clamp(-30, 30), 1.0) + bce(fake_logits.clamp(-30, 30), 0.0)


@wrong("2.2", "both_logits_stay_as_they_were")
def negates_in_place(real_logits, fake_logits):
    """`neg_` changes the caller's logits: `-real_logits` makes a new tensor."""
    return F.softplus(real_logits.neg_()).mean() + F.softplus(fake_logits).mean()


@wrong("2.2", "its_slopes_are_probability_minus_label")
def detached(real_logits, fake_logits):
    """`.detach()` or `torch.no_grad()` cuts the graph: the discriminator would not learn."""
    return (bce(real_logits, 1.0) + bce(fake_logits, 0.0)).detach()


@wrong("2.2", "its_slopes_are_probability_minus_label")
def detached_fakes(real_logits, fake_logits):
    """The fake logits are detached: it is the fake images that are, before the discriminator sees
    them; from these logits it has to learn."""
    return bce(real_logits, 1.0) + bce(fake_logits.detach(), 0.0)


@right("2.2")
def by_bce_module(real_logits, fake_logits):
    loss = nn.BCEWithLogitsLoss()
    real = loss(real_logits, torch.ones_like(real_logits))
    return real + loss(fake_logits, torch.zeros_like(fake_logits))


@right("2.2")
def by_logsigmoid(real_logits, fake_logits):
    return -(torch.mean(F.logsigmoid(real_logits)) + torch.mean(F.logsigmoid(-fake_logits)))


@right("2.2")
def as_two_classes(real_logits, fake_logits):
    total = 0.0
    for logits, label in ((real_logits, 1), (fake_logits, 0)):
        both = torch.stack([torch.zeros_like(logits), logits], dim=1)
        labels = torch.full((len(logits),), label)
        total = total + F.cross_entropy(both, labels)
    return total


# --- 2.3 smoothed_discriminator_loss


@wrong("2.3", "the_smoothed_loss_is_one_number")
def smoothed_by_image(real_logits, fake_logits, smoothing):
    """There is still one number for each image: take the mean of each batch."""
    real = bce(real_logits, 1 - smoothing, "none")
    return torch.cat([real, F.softplus(fake_logits)])


@wrong("2.3", "the_smoothed_loss_is_one_number")
def targets_for_pairs(real_logits, fake_logits, smoothing):
    """The targets of one batch are used for the other one, which has another size."""
    targets = torch.full_like(real_logits, 1 - smoothing)
    real = F.binary_cross_entropy_with_logits(real_logits, targets)
    zeros = torch.zeros_like(real_logits)
    return real + F.binary_cross_entropy_with_logits(fake_logits, zeros)


@wrong("2.3", "without_smoothing_it_is_the_plain_loss")
def target_is_smoothing(real_logits, fake_logits, smoothing):
    """The target of real images is `smoothing` itself: it is 1 - smoothing, which is near 1."""
    return bce(real_logits, smoothing) + bce(fake_logits, 0.0)


@wrong("2.3", "without_smoothing_it_is_the_plain_loss")
def always_09(real_logits, fake_logits, smoothing):
    """The target is 0.9 whatever `smoothing` is."""
    return bce(real_logits, 0.9) + bce(fake_logits, 0.0)


@wrong("2.3", "without_smoothing_it_is_the_plain_loss")
def smoothed_sums(real_logits, fake_logits, smoothing):
    """You sum over each batch: means are asked for."""
    return bce(real_logits, 1 - smoothing, "sum") + bce(fake_logits, 0.0, "sum")


@wrong("2.3", "without_smoothing_it_is_the_plain_loss")
def smoothed_and_halved(real_logits, fake_logits, smoothing):
    """The sum of both means is halved: the contract does not halve it."""
    return (bce(real_logits, 1 - smoothing) + bce(fake_logits, 0.0)) / 2


@wrong("2.3", "without_smoothing_it_is_the_plain_loss")
def smoothed_and_pooled(real_logits, fake_logits, smoothing):
    """All images are thrown together before the mean: the larger batch counts more."""
    real, fake = bce(real_logits, 1 - smoothing, "none"), bce(fake_logits, 0.0, "none")
    return 2 * torch.cat([real, fake]).mean()


@wrong("2.3", "without_smoothing_it_is_the_plain_loss")
def smoothed_sigmoid_twice(real_logits, fake_logits, smoothing):
    """The sigmoid is applied twice: `..._with_logits` has it inside already."""
    return bce(real_logits.sigmoid(), 1 - smoothing) + bce(fake_logits.sigmoid(), 0.0)


@wrong("2.3", "without_smoothing_it_is_the_plain_loss")
def smoothed_labels_swapped(real_logits, fake_logits, smoothing):
    """The batches are swapped: it is the fake images that have the target 0."""
    return bce(fake_logits, 1 - smoothing) + bce(real_logits, 0.0)


@wrong("2.3", "fakes_keep_their_target_0")
def both_sides(real_logits, fake_logits, smoothing):
    """Both sides are smoothed: the target of fake images has to stay 0, or the generator is
    rewarded for staying where it is."""
    return bce(real_logits, 1 - smoothing) + bce(fake_logits, smoothing)


@wrong("2.3", "fakes_keep_their_target_0")
def fakes_only(real_logits, fake_logits, smoothing):
    """The wrong side is smoothed: real images have the target 1 - smoothing, fake ones 0."""
    return bce(real_logits, 1.0) + bce(fake_logits, smoothing)


@wrong("2.3", "fakes_keep_their_target_0")
def fakes_below_0(real_logits, fake_logits, smoothing):
    """Fake images have the target -smoothing: a target is a probability, and theirs stays 0."""
    return bce(real_logits, 1 - smoothing) + bce(fake_logits, -smoothing)


@wrong("2.3", "fakes_keep_their_target_0")
def everything_weighted(real_logits, fake_logits, smoothing):
    """The whole loss is multiplied by 1 - smoothing: that changes the step size, not the target."""
    return (1 - smoothing) * (bce(real_logits, 1.0) + bce(fake_logits, 0.0))


@wrong("2.3", "real_images_have_the_target_1_minus_smoothing")
def a_factor(real_logits, fake_logits, smoothing):
    """The second logarithm is missing: with target t the cost is -t log s - (1 - t) log(1 - s).
    What is left is a weight, and a sure logit is not drawn back."""
    return (1 - smoothing) * F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()


@wrong("2.3", "real_images_have_the_target_1_minus_smoothing")
def over_two_classes(real_logits, fake_logits, smoothing):
    """The target is 1 - smoothing / 2, as if the smoothing were spread over both classes."""
    return bce(real_logits, 1 - smoothing / 2) + bce(fake_logits, 0.0)


@wrong("2.3", "real_images_have_the_target_1_minus_smoothing")
def target_above_1(real_logits, fake_logits, smoothing):
    """The target is 1 + smoothing: it has to be below 1."""
    return bce(real_logits, 1 + smoothing) + bce(fake_logits, 0.0)


@wrong("2.3", "real_images_have_the_target_1_minus_smoothing")
def ignores_smoothing(real_logits, fake_logits, smoothing):
    """`smoothing` is not used: this is `discriminator_loss`."""
    return bce(real_logits, 1.0) + bce(fake_logits, 0.0)


@wrong("2.3", "real_images_have_the_target_1_minus_smoothing")
def random_targets(real_logits, fake_logits, smoothing):
    """The targets are random, between 1 - smoothing and 1: here all are 1 - smoothing."""
    targets = 1 - smoothing * torch.rand_like(real_logits)
    real = F.binary_cross_entropy_with_logits(real_logits, targets)
    return real + F.softplus(fake_logits).mean()


@wrong("2.3", "real_images_have_the_target_1_minus_smoothing")
def flipped_labels(real_logits, fake_logits, smoothing):
    """Some labels are flipped at random: that is label noise, which has this loss only on
    average."""
    targets = (torch.rand_like(real_logits) >= smoothing).float()
    real = F.binary_cross_entropy_with_logits(real_logits, targets)
    return real + F.softplus(fake_logits).mean()


@wrong("2.3", "a_sure_real_logit_costs_its_size_times_smoothing")
def smoothed_through_the_probability(real_logits, fake_logits, smoothing):
    """`F.binary_cross_entropy` of a sigmoid cuts the logarithm at -100: use the one for logits."""
    s, f = real_logits.sigmoid(), fake_logits.sigmoid()
    real = F.binary_cross_entropy(s, torch.full_like(s, 1 - smoothing))
    return real + F.binary_cross_entropy(f, torch.zeros_like(f))


@wrong("2.3", "a_sure_real_logit_costs_its_size_times_smoothing")
def smoothed_by_logarithms(real_logits, fake_logits, smoothing):
    """The sigmoid is taken first, and rounded to 0 or 1 at large logits: its logarithm is infinite,
    or 0 times infinity, which is NaN."""
    s, f = real_logits.sigmoid(), fake_logits.sigmoid()
    real = -((1 - smoothing) * s.log() + smoothing * (1 - s).log()).mean()
    return real - (1 - f).log().mean()


@wrong("2.3", "the_logits_are_not_written_to")
def smooths_in_place(real_logits, fake_logits, smoothing):
    """`neg_` changes the caller's logits: a minus sign makes a new tensor."""
    real = F.softplus(-real_logits).mean() + smoothing * real_logits.mean()
    return real - F.logsigmoid(fake_logits.neg_()).mean()


@wrong("2.3", "the_best_real_logit_has_probability_1_minus_smoothing")
def smoothed_without_a_graph(real_logits, fake_logits, smoothing):
    """`.detach()` or `torch.no_grad()` cuts the graph: the discriminator would not learn."""
    return (bce(real_logits, 1 - smoothing) + bce(fake_logits, 0.0)).detach()


@right("2.3")
def with_both_logarithms(real_logits, fake_logits, smoothing):
    real = (1 - smoothing) * F.logsigmoid(real_logits) + smoothing * F.logsigmoid(-real_logits)
    return -real.mean() - F.logsigmoid(-fake_logits).mean()


@right("2.3")
def plain_loss_and_a_pull(real_logits, fake_logits, smoothing):
    return solution.discriminator_loss(real_logits, fake_logits) + smoothing * real_logits.mean()


@right("2.3")
def by_class_probabilities(real_logits, fake_logits, smoothing):
    total = 0.0
    for logits, p in ((real_logits, 1 - smoothing), (fake_logits, 0.0)):
        both = torch.stack([logits, torch.zeros_like(logits)], dim=1)
        total = total + F.cross_entropy(both, torch.tensor([[p, 1 - p]]).expand(len(logits), 2))
    return total


# --- 2.4 generator_loss


@wrong("2.4", "the_generators_loss_is_one_number")
def by_image(fake_logits):
    """There is still one number for each image: take the mean."""
    return F.softplus(-fake_logits)


@wrong("2.4", "the_generators_loss_is_one_number")
def generators_bce_of_logits(fake_logits):
    """`F.binary_cross_entropy` wants probabilities and gets logits: the one for logits ends in
    `_with_logits`."""
    return F.binary_cross_entropy(fake_logits, torch.ones_like(fake_logits))


@wrong("2.4", "the_generators_loss_is_one_number")
def generators_plain_number(fake_logits):
    """`.item()` makes a plain number of the loss, which has no gradient: return the tensor."""
    return F.softplus(-fake_logits).mean().item()


@wrong("2.4", "a_bad_generator_gets_a_full_gradient")
def saturating(fake_logits):
    """This is the game's own loss, log(1 - D): it saturates where the generator is bad. Minimise
    -log D instead."""
    return -F.softplus(fake_logits).mean()


@wrong("2.4", "a_bad_generator_gets_a_full_gradient")
def label_0(fake_logits):
    """The label is 0: so the generator would help the discriminator. It wants its images to be
    called real, label 1."""
    return bce(fake_logits, 0.0)


@wrong("2.4", "a_bad_generator_gets_a_full_gradient")
def generators_sigmoid_twice(fake_logits):
    """The sigmoid is applied twice: `..._with_logits` and `softplus` take logits."""
    return bce(fake_logits.sigmoid(), 1.0)


@wrong("2.4", "a_bad_generator_gets_a_full_gradient")
def without_the_logarithm(fake_logits):
    """The logarithm is missing: the probability of being fake itself has no slope where it is
    near 1."""
    return (1 - fake_logits.sigmoid()).mean()


@wrong("2.4", "a_bad_generator_gets_a_full_gradient")
def generator_without_a_graph(fake_logits):
    """`.detach()` or `torch.no_grad()` cuts the graph: the generator would not learn."""
    return F.softplus(-fake_logits).mean().detach()


@wrong("2.4", "who_fools_the_discriminator_pays_nothing")
def generators_least_squares(fake_logits):
    """This is the least-squares GAN's loss: here it is -log sigmoid."""
    return (fake_logits - 1).square().mean()


@wrong("2.4", "who_fools_the_discriminator_pays_nothing")
def generator_of_a_critic(fake_logits):
    """This is what the generator minimises beside a Wasserstein critic or with a hinge loss: here
    the logits are those of probabilities."""
    return -fake_logits.mean()


@wrong("2.4", "an_undecided_discriminator_costs_log_2")
def generators_sum(fake_logits):
    """You sum over the batch: the mean is asked for."""
    return F.softplus(-fake_logits).sum()


@wrong("2.4", "an_undecided_discriminator_costs_log_2")
def generators_half(fake_logits):
    """The loss is halved: it is the plain mean."""
    return 0.5 * F.softplus(-fake_logits).mean()


@wrong("2.4", "an_undecided_discriminator_costs_log_2")
def generators_bits(fake_logits):
    """You count in bits (log base 2); nats use the natural logarithm."""
    return F.softplus(-fake_logits).mean() / math.log(2)


@wrong("2.4", "an_undecided_discriminator_costs_log_2")
def generator_without_the_one(fake_logits):
    """This is -log(D / (1 - D)), cut off at 0, without the 1 in log(1 + exp(-logit)): at a logit of
    0 it is 0."""
    return F.relu(-fake_logits).mean()


@wrong("2.4", "it_is_the_mean_of_minus_log_sigmoid")
def generators_log_of_the_mean(fake_logits):
    """The mean is taken of the probabilities, before the logarithm: each image has a logarithm of
    its own, or the few best ones hide all others."""
    return math.log(len(fake_logits)) - torch.logsumexp(F.logsigmoid(fake_logits), 0)


@wrong("2.4", "it_is_the_mean_of_minus_log_sigmoid")
def generators_worst(fake_logits):
    """Only the worst image counts: the mean over all is asked for."""
    return F.softplus(-fake_logits).max()


@wrong("2.4", "a_logit_of_minus_1000_costs_1000")
def generators_logarithm(fake_logits):
    """The sigmoid is taken first: at -1000 it is rounded to 0, and its logarithm is infinite.
    `F.softplus(-logit)` is the same without rounding."""
    return -fake_logits.sigmoid().log().mean()


@wrong("2.4", "a_logit_of_minus_1000_costs_1000")
def overflows(fake_logits):
    """exp(1000) is infinite: log(1 + exp(-logit)) is `F.softplus(-logit)`, which is not."""
    return (1 + (-fake_logits).exp()).log().mean()


@wrong("2.4", "a_logit_of_minus_1000_costs_1000")
def generator_guarded(fake_logits):
    """A small number inside the logarithm hides the infinity: nothing could cost more than 18, and
    the gradient vanishes below."""
    return -(fake_logits.sigmoid() + 1e-8).log().mean()


@wrong("2.4", "a_logit_of_minus_1000_costs_1000")
def generators_bce_of_probabilities(fake_logits):
    """`F.binary_cross_entropy` of a sigmoid cuts the logarithm at -100, where the gradient is lost:
    use the one for logits."""
    s = fake_logits.sigmoid()
    return F.binary_cross_entropy(s, torch.ones_like(s))


@wrong("2.4", "a_logit_of_minus_1000_costs_1000")
def generators_clamp(fake_logits):
    """The logits are clamped: below, the generator gets no gradient, just where it is worst."""
    return F.softplus(-fake_logits.clamp(-20, 20)).mean()


@wrong("2.4", "the_fake_logits_stay_as_they_were")
def generator_in_place(fake_logits):
    """`neg_` changes the caller's logits: `-fake_logits` makes a new tensor."""
    if fake_logits.requires_grad:  # PyTorch itself would refuse
        fake_logits = fake_logits.clone()
    return F.softplus(fake_logits.neg_()).mean()


@wrong("2.4", "its_slope_is_sigmoid_minus_1")
def detached_where_large(fake_logits):
    """The value is right, but where the logit is very negative it is detached, or the slope is cut:
    the slope is -1 / N there."""
    large = -fake_logits.detach()
    return torch.where(fake_logits < -30, large, F.softplus(-fake_logits)).mean()


@right("2.4")
def generator_by_bce(fake_logits):
    return F.binary_cross_entropy_with_logits(fake_logits, torch.ones_like(fake_logits))


@right("2.4")
def generator_by_logaddexp(fake_logits):
    return torch.logaddexp(torch.zeros(()), -fake_logits).sum() / fake_logits.numel()


@right("2.4")
def generator_by_logsigmoid(fake_logits):
    return -F.logsigmoid(fake_logits).mean()


# --- 2.5 down_block


def conv(channels_in, channels_out, kernel_size=4, stride=2, padding=1):
    return nn.Conv2d(channels_in, channels_out, kernel_size, stride=stride, padding=padding)


@wrong("2.5", "it_is_a_module")
def list_of_layers(channels_in, channels_out):
    """This is a list of layers: `nn.Sequential(*layers)` makes a module of it."""
    layers = [conv(channels_in, channels_out), nn.BatchNorm2d(channels_out), nn.LeakyReLU(0.2)]
    return layers


@wrong("2.5", "height_and_width_are_halved")
def no_padding(channels_in, channels_out):
    """Without padding a kernel of 3 makes (H - 3) // 2 + 1 rows, one too few: padding=1."""
    layers = conv(channels_in, channels_out, 3, 2, 0), nn.BatchNorm2d(channels_out)
    return nn.Sequential(*layers, nn.LeakyReLU(0.2))


@wrong("2.5", "height_and_width_are_halved")
def no_stride(channels_in, channels_out):
    """The stride is 1, PyTorch's default, so that the size stays: stride=2."""
    layers = conv(channels_in, channels_out, 3, 1), nn.BatchNorm2d(channels_out)
    return nn.Sequential(*layers, nn.LeakyReLU(0.2))


@wrong("2.5", "height_and_width_are_halved")
def stride_and_padding_swapped(channels_in, channels_out):
    """Stride and padding are swapped: after kernel_size comes stride. Name the arguments."""
    layers = nn.Conv2d(channels_in, channels_out, 4, 1, 2), nn.BatchNorm2d(channels_out)
    return nn.Sequential(*layers, nn.LeakyReLU(0.2))


@wrong("2.5", "height_and_width_are_halved")
def halved_twice(channels_in, channels_out):
    """The size is halved twice, by the stride and by a pooling layer."""
    layers = conv(channels_in, channels_out), nn.BatchNorm2d(channels_out), nn.LeakyReLU(0.2)
    return nn.Sequential(*layers, nn.AvgPool2d(2))


@wrong("2.5", "height_and_width_are_halved")
def upwards(channels_in, channels_out):
    """A transposed convolution of stride 2 doubles the size, as in a generator: `nn.Conv2d`."""
    up = nn.ConvTranspose2d(channels_in, channels_out, 4, stride=2, padding=1)
    return nn.Sequential(up, nn.BatchNorm2d(channels_out), nn.LeakyReLU(0.2))


@wrong("2.5", "height_and_width_are_halved")
def norm_of_the_wrong_channels(channels_in, channels_out):
    """The normalisation has channels_in channels, but stands behind the convolution, which makes
    channels_out."""
    layers = conv(channels_in, channels_out), nn.BatchNorm2d(channels_in)
    return nn.Sequential(*layers, nn.LeakyReLU(0.2))


@wrong("2.5", "height_and_width_are_halved")
def norm_of_vectors(channels_in, channels_out):
    """`nn.BatchNorm1d` is for vectors: feature maps (B, C, H, W) have `nn.BatchNorm2d`."""
    layers = conv(channels_in, channels_out), nn.BatchNorm1d(channels_out)
    return nn.Sequential(*layers, nn.LeakyReLU(0.2))


@wrong("2.5", "height_and_width_are_halved")
def channels_swapped(channels_in, channels_out):
    """The convolution's channels are swapped: first those that come in, then those that go out."""
    layers = conv(channels_out, channels_in), nn.BatchNorm2d(channels_in)
    return nn.Sequential(*layers, nn.LeakyReLU(0.2))


@wrong("2.5", "a_convolution_of_stride_2_does_it")
def max_pooled(channels_in, channels_out):
    """The size is halved by max pooling: the contract asks for a convolution of stride 2."""
    layers = conv(channels_in, channels_out, 3, 1), nn.BatchNorm2d(channels_out)
    return nn.Sequential(*layers, nn.LeakyReLU(0.2), nn.MaxPool2d(2))


@wrong("2.5", "a_convolution_of_stride_2_does_it")
def mean_pooled(channels_in, channels_out):
    """The size is halved by mean pooling: the contract asks for a convolution of stride 2."""
    layers = nn.AvgPool2d(2), conv(channels_in, channels_out, 3, 1), nn.BatchNorm2d(channels_out)
    return nn.Sequential(*layers, nn.LeakyReLU(0.2))


@wrong("2.5", "a_convolution_of_stride_2_does_it")
def two_convolutions(channels_in, channels_out):
    """There are two convolutions: the block is made of one, a normalisation and a leaky ReLU."""
    layers = conv(channels_in, channels_out, 3, 1), conv(channels_out, channels_out)
    return nn.Sequential(*layers, nn.BatchNorm2d(channels_out), nn.LeakyReLU(0.2))


class Hidden(nn.Module):
    def __init__(self, *layers):
        super().__init__()
        self.layers = list(layers)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


@wrong("2.5", "a_convolution_of_stride_2_does_it")
def layers_in_a_list(channels_in, channels_out):
    """The layers are in a plain list, which nn.Module does not search: parameters() would be empty.
    Use nn.Sequential, nn.ModuleList or attributes."""
    layers = conv(channels_in, channels_out), nn.BatchNorm2d(channels_out), nn.LeakyReLU(0.2)
    return Hidden(*layers)


@wrong("2.5", "x_stays_as_it_was")
def activation_first_in_place(channels_in, channels_out):
    """A leaky ReLU with inplace=True comes first, and writes into the caller's x."""
    layers = nn.LeakyReLU(0.2, inplace=True), conv(channels_in, channels_out)
    return nn.Sequential(*layers, nn.BatchNorm2d(channels_out))


@wrong("2.5", "nothing_in_the_block_is_random")
def with_dropout(channels_in, channels_out):
    """There is dropout inside: some discriminators have it, this block does not."""
    layers = conv(channels_in, channels_out), nn.BatchNorm2d(channels_out), nn.LeakyReLU(0.2)
    return nn.Sequential(*layers, nn.Dropout2d(0.25))


@wrong("2.5", "nothing_in_the_block_is_random")
def random_slope(channels_in, channels_out):
    """`nn.RReLU` draws its slope at random in training: `nn.LeakyReLU` has a fixed one."""
    return nn.Sequential(conv(channels_in, channels_out), nn.BatchNorm2d(channels_out), nn.RReLU())


@wrong("2.5", "every_pixel_has_an_influence")
def kernel_of_1(channels_in, channels_out):
    """A kernel of 1 with stride 2 looks at one pixel in four and never at the others."""
    layers = conv(channels_in, channels_out, 1, 2, 0), nn.InstanceNorm2d(channels_out)
    return nn.Sequential(*layers, nn.LeakyReLU(0.2))


@wrong("2.5", "large_features_are_normalised")
def without_normalisation(channels_in, channels_out):
    """There is no normalisation layer."""
    return nn.Sequential(conv(channels_in, channels_out), nn.LeakyReLU(0.2))


@wrong("2.5", "large_features_are_normalised")
def spectral(channels_in, channels_out):
    """Spectral normalisation divides the weights by their largest singular value: features are not
    normalised by it. The contract asks for batch, instance or group norm."""
    return nn.Sequential(spectral_norm(conv(channels_in, channels_out)), nn.LeakyReLU(0.2))


@wrong("2.5", "large_features_are_normalised")
def local_response(channels_in, channels_out):
    """`nn.LocalResponseNorm` divides by a power of what neighbouring channels say, and is no batch,
    instance or group norm."""
    layers = conv(channels_in, channels_out), nn.LocalResponseNorm(5, alpha=1.0)
    return nn.Sequential(*layers, nn.LeakyReLU(0.2))


@wrong("2.5", "small_features_are_normalised_too")
def second_argument(channels_in, channels_out):
    """`nn.BatchNorm2d(c, 0.8)` sets eps to 0.8, which is added to the variance, and leaves momentum
    alone. Leave it away, or name the argument."""
    layers = conv(channels_in, channels_out), nn.BatchNorm2d(channels_out, 0.8)
    return nn.Sequential(*layers, nn.LeakyReLU(0.2))


@wrong("2.5", "small_features_are_normalised_too")
def second_argument_of_instance_norm(channels_in, channels_out):
    """`nn.InstanceNorm2d(c, 0.9)` sets eps to 0.9: the second argument is no momentum."""
    layers = conv(channels_in, channels_out), nn.InstanceNorm2d(channels_out, 0.9)
    return nn.Sequential(*layers, nn.LeakyReLU(0.2))


@wrong("2.5", "small_features_are_normalised_too")
def third_argument_of_group_norm(channels_in, channels_out):
    """`nn.GroupNorm(groups, c, 0.5)` sets eps to 0.5."""
    layers = conv(channels_in, channels_out), nn.GroupNorm(4, channels_out, 0.5)
    return nn.Sequential(*layers, nn.LeakyReLU(0.2))


@wrong("2.5", "small_features_are_normalised_too")
def decay_as_eps(channels_in, channels_out):
    """eps is 0.01, perhaps meant as a momentum: it only has to prevent a division by 0."""
    layers = conv(channels_in, channels_out), nn.BatchNorm2d(channels_out, 0.01)
    return nn.Sequential(*layers, nn.LeakyReLU(0.2))


@wrong("2.5", "negative_values_have_a_smaller_slope")
def not_leaky(channels_in, channels_out):
    """A ReLU has no slope where it is off: the generator's gradient stops there."""
    return nn.Sequential(conv(channels_in, channels_out), nn.BatchNorm2d(channels_out), nn.ReLU())


@wrong("2.5", "negative_values_have_a_smaller_slope")
def leak_of_0(channels_in, channels_out):
    """`nn.LeakyReLU(0)` is a ReLU: give it a slope such as 0.2."""
    layers = conv(channels_in, channels_out), nn.BatchNorm2d(channels_out)
    return nn.Sequential(*layers, nn.LeakyReLU(0))


@wrong("2.5", "negative_values_have_a_smaller_slope")
def without_activation(channels_in, channels_out):
    """There is no activation: several such blocks would be one linear map."""
    return nn.Sequential(conv(channels_in, channels_out), nn.BatchNorm2d(channels_out))


@wrong("2.5", "negative_values_have_a_smaller_slope")
def squashing(channels_in, channels_out):
    """A tanh saturates, and its gradient vanishes: the contract asks for a leaky ReLU."""
    return nn.Sequential(conv(channels_in, channels_out), nn.BatchNorm2d(channels_out), nn.Tanh())


@wrong("2.5", "negative_values_have_a_smaller_slope")
def exponential(channels_in, channels_out):
    """An ELU flattens for negative values: a leaky ReLU has the same slope for all of them."""
    return nn.Sequential(conv(channels_in, channels_out), nn.BatchNorm2d(channels_out), nn.ELU())


@wrong("2.5", "negative_values_have_a_smaller_slope")
def swish(channels_in, channels_out):
    """A SiLU is no leaky ReLU: it has hardly any slope for very negative values."""
    return nn.Sequential(conv(channels_in, channels_out), nn.BatchNorm2d(channels_out), nn.SiLU())


@wrong("2.5", "negative_values_have_a_smaller_slope")
def slope_of_2(channels_in, channels_out):
    """The slope for negative values is 2, larger than for positive ones: 0.2 is usual."""
    layers = conv(channels_in, channels_out), nn.BatchNorm2d(channels_out)
    return nn.Sequential(*layers, nn.LeakyReLU(2))


@wrong("2.5", "negative_values_have_a_smaller_slope")
def slope_below_0(channels_in, channels_out):
    """The slope for negative values is itself negative: they would become positive."""
    layers = conv(channels_in, channels_out), nn.BatchNorm2d(channels_out)
    return nn.Sequential(*layers, nn.LeakyReLU(-0.2))


BUILT = {}


@wrong("2.5", "every_call_makes_new_layers")
def built_once(channels_in, channels_out):
    """The block is kept and returned again: two places of a network would share its weights."""
    size = channels_in, channels_out
    if size not in BUILT:
        BUILT[size] = solution.down_block(*size)
    return BUILT[size]


@right("2.5")
def kernel_of_3(channels_in, channels_out):
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, stride=2, padding=1),
        nn.BatchNorm2d(channels_out, momentum=0.2),
        nn.LeakyReLU(0.1, inplace=True),
    )


@right("2.5")
def by_instance_norm(channels_in, channels_out):
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel_size=2, stride=(2, 2)),
        nn.InstanceNorm2d(channels_out, affine=True),
        nn.LeakyReLU(negative_slope=0.3),
    )


@right("2.5")
def activation_before_norm(channels_in, channels_out):
    block = nn.Sequential()
    block.add_module("conv", conv(channels_in, channels_out))
    block.add_module("act", nn.LeakyReLU(0.2))
    block.add_module("norm", nn.BatchNorm2d(channels_out, eps=1e-3))
    return block


@right("2.5")
def norm_first(channels_in, channels_out):
    return nn.Sequential(
        nn.GroupNorm(1, channels_in), nn.LeakyReLU(0.2), conv(channels_in, channels_out)
    )


@right("2.5")
class DownBlock(nn.Module):
    def __init__(self, channels_in, channels_out):
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, 5, 2, 2, padding_mode="reflect")
        self.norm = nn.GroupNorm(8, channels_out, eps=1e-6)
        self.leak = nn.Parameter(torch.tensor(0.25))

    def forward(self, x):
        h = self.norm(self.conv(x))
        return torch.where(h > 0, h, self.leak * h)


@right("2.5")
def lazily(channels_in, channels_out):
    norm = nn.LazyBatchNorm2d()
    return nn.Sequential(conv(channels_in, channels_out), norm, nn.PReLU(channels_out))


# --- 2.6 discriminator_step


def d_loss(discriminator, real, fake):
    return solution.discriminator_loss(discriminator(real), discriminator(fake))


def descend(optimizer, loss):
    """One step; the loss before it."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


@wrong("2.6", "the_discriminator_moves_down_its_gradient")
def d_labels_swapped(generator, discriminator, optimizer, real, z):
    """Real and fake images are swapped: first the logits of the real ones."""
    return descend(optimizer, d_loss(discriminator, generator(z).detach(), real))


@wrong("2.6", "the_discriminator_moves_down_its_gradient")
def d_climbs(generator, discriminator, optimizer, real, z):
    """The sign: the loss is a cost, and optimisers minimise."""
    return -descend(optimizer, -d_loss(discriminator, real, generator(z).detach()))


@wrong("2.6", "the_discriminator_moves_down_its_gradient")
def d_from_real_only(generator, discriminator, optimizer, real, z):
    """Only the real images count: a discriminator that calls everything real would be perfect."""
    return descend(optimizer, F.softplus(-discriminator(real)).mean())


@wrong("2.6", "the_discriminator_moves_down_its_gradient")
def d_detaches_the_logits(generator, discriminator, optimizer, real, z):
    """You detach the logits of the fakes: detach the fake images, before the discriminator sees
    them. So it does not learn from them."""
    fake_logits = discriminator(generator(z)).detach()
    return descend(optimizer, solution.discriminator_loss(discriminator(real), fake_logits))


@wrong("2.6", "the_discriminator_moves_down_its_gradient")
def d_from_fake_only(generator, discriminator, optimizer, real, z):
    """Only the fake images count: a discriminator that calls everything fake would be perfect."""
    return descend(optimizer, F.softplus(discriminator(generator(z).detach())).mean())


@wrong("2.6", "the_discriminator_moves_down_its_gradient")
def d_forgets_the_real_half(generator, discriminator, optimizer, real, z):
    """zero_grad stands between the two backward passes, and wipes out what the first one found."""
    optimizer.zero_grad()
    F.softplus(-discriminator(real)).mean().backward()
    return descend(optimizer, F.softplus(discriminator(generator(z).detach())).mean())


@wrong("2.6", "the_discriminator_moves_down_its_gradient")
def d_with_other_noise(generator, discriminator, optimizer, real, z):
    """New latents are drawn inside: the caller's z are to be used."""
    return descend(optimizer, d_loss(discriminator, real, generator(torch.randn_like(z)).detach()))


@wrong("2.6", "the_discriminator_moves_down_its_gradient")
def d_sees_noise(generator, discriminator, optimizer, real, z):
    """The fakes are random pixels and not the generator's images."""
    fake = torch.rand(len(z), *real.shape[1:])
    return descend(optimizer, d_loss(discriminator, real, fake))


@wrong("2.6", "the_discriminator_moves_down_its_gradient")
def d_zeroes_too_late(generator, discriminator, optimizer, real, z):
    """zero_grad stands between backward and step: it wipes out the gradient that step is to use."""
    loss = d_loss(discriminator, real, generator(z).detach())
    loss.backward()
    optimizer.zero_grad()
    optimizer.step()
    return loss.item()


@wrong("2.6", "the_discriminator_moves_down_its_gradient")
def d_steps_too_early(generator, discriminator, optimizer, real, z):
    """step() comes before backward(): the gradient is not there yet."""
    loss = d_loss(discriminator, real, generator(z).detach())
    optimizer.zero_grad()
    optimizer.step()
    loss.backward()
    return loss.item()


@wrong("2.6", "the_discriminator_moves_down_its_gradient")
def d_steps_twice(generator, discriminator, optimizer, real, z):
    """Two steps are made in one call: how often the discriminator is trained is for the caller to
    say."""
    fake = generator(z).detach()
    loss = descend(optimizer, d_loss(discriminator, real, fake))
    descend(optimizer, d_loss(discriminator, real, fake))
    return loss


@wrong("2.6", "the_discriminator_moves_down_its_gradient")
def d_halves(generator, discriminator, optimizer, real, z):
    """The loss is halved, and the step with it: `discriminator_loss` is the sum of two means."""
    return 2 * descend(optimizer, 0.5 * d_loss(discriminator, real, generator(z).detach()))


@wrong("2.6", "the_discriminator_moves_down_its_gradient")
def d_sums(generator, discriminator, optimizer, real, z):
    """You sum over each batch: `discriminator_loss` takes means."""
    fake = generator(z).detach()
    loss = F.softplus(-discriminator(real)).sum() + F.softplus(discriminator(fake)).sum()
    return descend(optimizer, loss)


@wrong("2.6", "the_discriminator_moves_down_its_gradient")
def d_least_squares(generator, discriminator, optimizer, real, z):
    """This is the least-squares GAN's loss: `discriminator_loss` is asked for."""
    fake = generator(z).detach()
    loss = (discriminator(real) - 1).square().mean() + discriminator(fake).square().mean()
    return descend(optimizer, loss)


@wrong("2.6", "the_discriminator_moves_down_its_gradient")
def d_clips_weights(generator, discriminator, optimizer, real, z):
    """The weights are clipped after the step, as in the first WGAN: this discriminator is free."""
    loss = descend(optimizer, d_loss(discriminator, real, generator(z).detach()))
    with torch.no_grad():
        for p in discriminator.parameters():
            p.clamp_(-0.01, 0.01)
    return loss


@wrong("2.6", "the_discriminator_moves_down_its_gradient")
def d_clips_gradients(generator, discriminator, optimizer, real, z):
    """The gradient is shortened before the step: a plain step is asked for."""
    loss = d_loss(discriminator, real, generator(z).detach())
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(discriminator.parameters(), 0.01)
    optimizer.step()
    return loss.item()


@wrong("2.6", "the_discriminator_moves_down_its_gradient")
def d_in_inference_mode(generator, discriminator, optimizer, real, z):
    """Tensors that were made in inference_mode can take no part in a backward pass: torch.no_grad()
    or .detach() makes constants that can."""
    with torch.inference_mode():
        fake = generator(z)
    return descend(optimizer, d_loss(discriminator, real, fake))


@wrong("2.6", "the_generators_weights_stay")
def d_trains_both(generator, discriminator, optimizer, real, z):
    """The generator makes a step too, towards fakes that are easier to recognise."""
    rate = optimizer.param_groups[0]["lr"]
    both = torch.optim.SGD([*generator.parameters(), *discriminator.parameters()], lr=rate)
    return descend(both, d_loss(discriminator, real, generator(z)))


@wrong("2.6", "the_generators_gradients_stay")
def d_without_detach(generator, discriminator, optimizer, real, z):
    """The fakes are not detached: backward() goes on into the generator, and adds gradients there
    that pull it the wrong way."""
    return descend(optimizer, d_loss(discriminator, real, generator(z)))


@wrong("2.6", "the_generators_gradients_stay")
def d_wipes_the_generator(generator, discriminator, optimizer, real, z):
    """The generator's gradients are emptied, perhaps to remove what backward() left there: detach
    the fakes, and none get there."""
    loss = descend(optimizer, d_loss(discriminator, real, generator(z)))
    generator.zero_grad()
    return loss


@wrong("2.6", "old_gradients_do_not_matter")
def d_without_zero_grad(generator, discriminator, optimizer, real, z):
    """zero_grad is missing: the gradients that the generator's step left in the discriminator count
    as well."""
    loss = d_loss(discriminator, real, generator(z).detach())
    loss.backward()
    optimizer.step()
    return loss.item()


@wrong("2.6", "old_gradients_do_not_matter")
def d_zeroes_afterwards(generator, discriminator, optimizer, real, z):
    """zero_grad is called after the step only: that helps this function's own next call, but what
    others left in `.grad` counts."""
    loss = d_loss(discriminator, real, generator(z).detach())
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


@wrong("2.6", "the_loss_before_the_step_comes_back")
def d_loss_after(generator, discriminator, optimizer, real, z):
    """The loss is computed again after the step: return the one before."""
    fake = generator(z).detach()
    descend(optimizer, d_loss(discriminator, real, fake))
    return d_loss(discriminator, real, fake).item()


@wrong("2.6", "the_loss_before_the_step_comes_back")
def d_loss_with_graph(generator, discriminator, optimizer, real, z):
    """The loss comes back with its graph, which keeps every activation alive: `.item()`."""
    loss = d_loss(discriminator, real, generator(z).detach())
    descend(optimizer, loss)
    return loss


@wrong("2.6", "the_loss_before_the_step_comes_back")
def d_returns_nothing(generator, discriminator, optimizer, real, z):
    """Nothing comes back: `return loss.item()`."""
    descend(optimizer, d_loss(discriminator, real, generator(z).detach()))


@wrong("2.6", "the_loss_before_the_step_comes_back")
def d_returns_half(generator, discriminator, optimizer, real, z):
    """Half of the loss is returned: the sum of both means is asked for."""
    return descend(optimizer, d_loss(discriminator, real, generator(z).detach())) / 2


@wrong("2.6", "the_loss_before_the_step_comes_back")
def d_returns_accuracy(generator, discriminator, optimizer, real, z):
    """This is how many images were told right, not the loss."""
    fake = generator(z).detach()
    right = torch.cat([discriminator(real) > 0, discriminator(fake) < 0])
    descend(optimizer, d_loss(discriminator, real, fake))
    return right.float().mean().item()


@wrong("2.6", "two_calls_are_two_steps")
def d_new_optimizer(generator, discriminator, optimizer, real, z):
    """A new optimiser is made at each call, which knows nothing of earlier steps: momentum, and
    Adam's moments, are lost. Use the one that is given."""
    own = torch.optim.SGD(discriminator.parameters(), lr=optimizer.param_groups[0]["lr"])
    return descend(own, d_loss(discriminator, real, generator(z).detach()))


@wrong("2.6", "both_networks_keep_their_modes")
def d_generator_in_eval(generator, discriminator, optimizer, real, z):
    """The generator is put in eval mode and left there."""
    generator.eval()
    return descend(optimizer, d_loss(discriminator, real, generator(z).detach()))


@wrong("2.6", "both_networks_keep_their_modes")
def d_generator_eval_and_train(generator, discriminator, optimizer, real, z):
    """The generator runs in eval mode here, though it is in train mode: batch norm would use its
    running statistics, and make other images than in the generator's own step."""
    was = generator.training
    generator.eval()
    fake = generator(z).detach()
    generator.train(was)
    return descend(optimizer, d_loss(discriminator, real, fake))


@wrong("2.6", "both_networks_keep_their_modes")
def d_switches_to_train(generator, discriminator, optimizer, real, z):
    """The discriminator is put in train mode: modes are the caller's business."""
    discriminator.train()
    return descend(optimizer, d_loss(discriminator, real, generator(z).detach()))


@wrong("2.6", "every_parameter_keeps_its_requires_grad")
def d_freezes_the_generator(generator, discriminator, optimizer, real, z):
    """The generator is frozen and not thawed: its next step would find nothing to learn."""
    generator.requires_grad_(False)
    return descend(optimizer, d_loss(discriminator, real, generator(z)))


@wrong("2.6", "every_parameter_keeps_its_requires_grad")
def d_thaws_everything(generator, discriminator, optimizer, real, z):
    """requires_grad_(True) afterwards thaws all parameters, also those that the caller had frozen:
    detach the fakes, and nothing need be switched."""
    generator.requires_grad_(False)
    loss = descend(optimizer, d_loss(discriminator, real, generator(z)))
    generator.requires_grad_(True)
    return loss


@wrong("2.6", "real_images_and_z_stay_as_they_were")
def d_draws_the_next_z(generator, discriminator, optimizer, real, z):
    """New noise is written into the caller's z, as by `normal_`."""
    loss = descend(optimizer, d_loss(discriminator, real, generator(z).detach()))
    z.normal_()
    return loss


@wrong("2.6", "real_images_and_z_stay_as_they_were")
def d_marks_the_images(generator, discriminator, optimizer, real, z):
    """`requires_grad_()` marks the caller's real images, as a gradient penalty would: here only
    parameters need gradients."""
    return descend(optimizer, d_loss(discriminator, real.requires_grad_(), generator(z).detach()))


@right("2.6")
def d_in_two_backward_passes(generator, discriminator, optimizer, real, z):
    discriminator.zero_grad()
    with torch.no_grad():
        fake = generator(z)
    on_real = F.binary_cross_entropy_with_logits(discriminator(real), torch.ones(len(real)))
    on_real.backward()
    on_fake = F.binary_cross_entropy_with_logits(discriminator(fake), torch.zeros(len(fake)))
    on_fake.backward()
    optimizer.step()
    return (on_real + on_fake).item()


@right("2.6")
def d_as_one_batch(generator, discriminator, optimizer, real, z):
    logits = discriminator(torch.cat([real, generator(z).detach()]))
    loss = solution.discriminator_loss(logits[: len(real)], logits[len(real) :])
    optimizer.zero_grad(set_to_none=False)
    loss.backward()
    optimizer.step()
    return loss.detach()


@right("2.6")
def d_by_autograd(generator, discriminator, optimizer, real, z):
    loss = d_loss(discriminator, real, generator(z))
    learning = [p for p in discriminator.parameters() if p.requires_grad]
    for p, grad in zip(learning, torch.autograd.grad(loss, learning), strict=True):
        p.grad = grad
    optimizer.step()
    return float(loss)


@right("2.6")
def d_by_closure(generator, discriminator, optimizer, real, z):
    fake = generator(z).data

    def closure():
        optimizer.zero_grad()
        loss = d_loss(discriminator, real, fake)
        loss.backward()
        return loss

    return optimizer.step(closure).item()


# --- 2.7 generator_step


def g_loss(generator, discriminator, z):
    return solution.generator_loss(discriminator(generator(z)))


@wrong("2.7", "the_generator_moves_down_its_gradient")
def g_saturating(generator, discriminator, optimizer, z):
    """This is the saturating loss, log(1 - D): `generator_loss` is -log D."""
    return descend(optimizer, -F.softplus(discriminator(generator(z))).mean())


@wrong("2.7", "the_generator_moves_down_its_gradient")
def g_label_0(generator, discriminator, optimizer, z):
    """The generator learns to be recognised: it wants the label 1 for its images."""
    return descend(optimizer, bce(discriminator(generator(z)), 0.0))


@wrong("2.7", "the_generator_moves_down_its_gradient")
def g_climbs(generator, discriminator, optimizer, z):
    """The sign: `generator_loss` is a cost, and optimisers minimise."""
    return -descend(optimizer, -g_loss(generator, discriminator, z))


@wrong("2.7", "the_generator_moves_down_its_gradient")
def g_detached_fakes(generator, discriminator, optimizer, z):
    """The fakes are detached, as in the discriminator's step: here the gradient must flow back into
    the generator."""
    return descend(optimizer, solution.generator_loss(discriminator(generator(z).detach())))


@wrong("2.7", "the_generator_moves_down_its_gradient")
def g_steps_with_the_discriminators_optimizer(generator, discriminator, optimizer, z):
    """It is the discriminator's optimiser that steps: the discriminator learns to be fooled, and
    the generator stays where it is."""
    loss = g_loss(generator, discriminator, z)
    wrong_one = torch.optim.SGD(discriminator.parameters(), lr=optimizer.param_groups[0]["lr"])
    return descend(wrong_one, loss)


@wrong("2.7", "the_generator_moves_down_its_gradient")
def g_discriminator_without_graph(generator, discriminator, optimizer, z):
    """The discriminator runs under torch.no_grad(): its weights need no gradient, but the images
    do, and their gradient comes through it."""
    fake = generator(z)
    with torch.no_grad():
        logits = discriminator(fake)
    return descend(optimizer, solution.generator_loss(logits))


@wrong("2.7", "the_generator_moves_down_its_gradient")
def g_with_other_noise(generator, discriminator, optimizer, z):
    """New latents are drawn inside: the caller's z are to be used."""
    return descend(optimizer, g_loss(generator, discriminator, torch.randn_like(z)))


@wrong("2.7", "the_generator_moves_down_its_gradient")
def g_sums(generator, discriminator, optimizer, z):
    """You sum over the batch: `generator_loss` takes the mean."""
    return descend(optimizer, len(z) * g_loss(generator, discriminator, z))


@wrong("2.7", "the_generator_moves_down_its_gradient")
def g_halves(generator, discriminator, optimizer, z):
    """The loss is halved, and the step with it."""
    return 2 * descend(optimizer, 0.5 * g_loss(generator, discriminator, z))


@wrong("2.7", "the_generator_moves_down_its_gradient")
def g_steps_twice(generator, discriminator, optimizer, z):
    """Two steps are made in one call: how often the generator is trained is for the caller to
    say."""
    loss = descend(optimizer, g_loss(generator, discriminator, z))
    descend(optimizer, g_loss(generator, discriminator, z))
    return loss


@wrong("2.7", "the_generator_moves_down_its_gradient")
def g_of_a_critic(generator, discriminator, optimizer, z):
    """This raises a critic's score, as in a WGAN: `generator_loss` is asked for."""
    return descend(optimizer, -discriminator(generator(z)).mean())


@wrong("2.7", "the_discriminators_weights_stay")
def g_trains_both(generator, discriminator, optimizer, z):
    """An optimiser with the parameters of both networks steps: the discriminator learns to be
    fooled."""
    rate = optimizer.param_groups[0]["lr"]
    both = torch.optim.SGD([*generator.parameters(), *discriminator.parameters()], lr=rate)
    return descend(both, g_loss(generator, discriminator, z))


@wrong("2.7", "the_discriminators_weights_stay")
def g_clips_the_discriminator(generator, discriminator, optimizer, z):
    """The discriminator's weights are clipped here: in this step it stays as it is."""
    loss = descend(optimizer, g_loss(generator, discriminator, z))
    for p in discriminator.parameters():
        p.data.clamp_(-0.01, 0.01)
    return loss


@wrong("2.7", "gradients_left_over_do_not_matter")
def g_without_zero_grad(generator, discriminator, optimizer, z):
    """zero_grad is missing: gradients of earlier steps, and those that a discriminator step without
    detach left in the generator, count as well."""
    loss = g_loss(generator, discriminator, z)
    loss.backward()
    optimizer.step()
    return loss.item()


@wrong("2.7", "gradients_left_over_do_not_matter")
def g_zeroes_the_discriminator(generator, discriminator, optimizer, z):
    """It is the discriminator's gradients that are emptied: those of the generator must be."""
    discriminator.zero_grad()
    loss = g_loss(generator, discriminator, z)
    loss.backward()
    optimizer.step()
    return loss.item()


@wrong("2.7", "it_returns_the_loss_before_the_step")
def g_loss_after(generator, discriminator, optimizer, z):
    """The loss is computed again after the step: return the one before."""
    descend(optimizer, g_loss(generator, discriminator, z))
    return g_loss(generator, discriminator, z).item()


@wrong("2.7", "it_returns_the_loss_before_the_step")
def g_loss_with_graph(generator, discriminator, optimizer, z):
    """The loss comes back with its graph, which keeps every activation alive: `.item()`."""
    loss = g_loss(generator, discriminator, z)
    descend(optimizer, loss)
    return loss


@wrong("2.7", "it_returns_the_loss_before_the_step")
def g_returns_the_images(generator, discriminator, optimizer, z):
    """The fake images are returned: the loss is asked for."""
    descend(optimizer, g_loss(generator, discriminator, z))
    return generator(z).detach()


@wrong("2.7", "each_call_is_one_step")
def g_new_optimizer(generator, discriminator, optimizer, z):
    """A new optimiser is made at each call, which knows nothing of earlier steps: momentum, and
    Adam's moments, are lost. Use the one that is given."""
    own = torch.optim.SGD(generator.parameters(), lr=optimizer.param_groups[0]["lr"])
    return descend(own, g_loss(generator, discriminator, z))


@wrong("2.7", "neither_network_changes_its_mode")
def g_discriminator_in_eval(generator, discriminator, optimizer, z):
    """The discriminator is put in eval mode and left there."""
    discriminator.eval()
    return descend(optimizer, g_loss(generator, discriminator, z))


@wrong("2.7", "neither_network_changes_its_mode")
def g_discriminator_eval_and_train(generator, discriminator, optimizer, z):
    """The discriminator is in eval mode for this step: with dropout or batch norm the generator
    would learn from another discriminator than the one that is trained."""
    was = discriminator.training
    discriminator.eval()
    loss = g_loss(generator, discriminator, z)
    discriminator.train(was)
    return descend(optimizer, loss)


@wrong("2.7", "neither_network_changes_its_mode")
def g_switches_to_train(generator, discriminator, optimizer, z):
    """The generator is put in train mode: modes are the caller's business."""
    generator.train()
    return descend(optimizer, g_loss(generator, discriminator, z))


@wrong("2.7", "no_parameter_changes_its_requires_grad")
def g_freezes_the_discriminator(generator, discriminator, optimizer, z):
    """The discriminator is frozen and not thawed: its next step would fail or change nothing."""
    discriminator.requires_grad_(False)
    return descend(optimizer, g_loss(generator, discriminator, z))


@wrong("2.7", "no_parameter_changes_its_requires_grad")
def g_thaws_everything(generator, discriminator, optimizer, z):
    """requires_grad_(True) afterwards thaws all parameters, also those that the caller had frozen:
    nothing need be switched, the optimiser holds only the generator."""
    discriminator.requires_grad_(False)
    loss = descend(optimizer, g_loss(generator, discriminator, z))
    discriminator.requires_grad_(True)
    return loss


@wrong("2.7", "the_next_discriminator_step_is_undisturbed")
def g_leaves_hooks(generator, discriminator, optimizer, z):
    """Hooks that zero the discriminator's gradients are left on it: it never learns again."""
    for p in discriminator.parameters():
        if p.requires_grad:
            p.register_hook(torch.zeros_like)
    return descend(optimizer, g_loss(generator, discriminator, z))


@wrong("2.7", "z_is_not_written_to")
def g_draws_the_next_z(generator, discriminator, optimizer, z):
    """New noise is written into the caller's z, as by `normal_`."""
    loss = descend(optimizer, g_loss(generator, discriminator, z))
    z.normal_()
    return loss


@wrong("2.7", "z_is_not_written_to")
def g_marks_z(generator, discriminator, optimizer, z):
    """`requires_grad_()` marks the caller's z: the parameters are what learns."""
    return descend(optimizer, g_loss(generator, discriminator, z.requires_grad_()))


@right("2.7")
def g_by_bce(generator, discriminator, optimizer, z):
    generator.zero_grad()
    discriminator.zero_grad()
    logits = discriminator(generator(z))
    loss = F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))
    loss.backward()
    discriminator.zero_grad()
    optimizer.step()
    return loss.detach()


@right("2.7")
def g_with_frozen_discriminator(generator, discriminator, optimizer, z):
    learning = [p for p in discriminator.parameters() if p.requires_grad]
    for p in learning:
        p.requires_grad_(False)
    loss = descend(optimizer, g_loss(generator, discriminator, z))
    for p in learning:
        p.requires_grad_(True)
    return loss


@right("2.7")
def g_by_autograd(generator, discriminator, optimizer, z):
    loss = g_loss(generator, discriminator, z)
    learning = [p for p in generator.parameters() if p.requires_grad]
    for p, grad in zip(learning, torch.autograd.grad(loss, learning), strict=True):
        p.grad = grad
    optimizer.step()
    return loss.item()


@right("2.7")
def g_image_by_image(generator, discriminator, optimizer, z):
    optimizer.zero_grad()
    total = 0.0
    for row in z:
        loss = g_loss(generator, discriminator, row[None]) / len(z)
        loss.backward()
        total += loss.item()
    optimizer.step()
    return total


# --- 2.8 critic_loss


@wrong("2.8", "the_critics_loss_is_one_number")
def critic_by_image(real_scores, fake_scores):
    """There is still one number for each image: take the mean of each batch."""
    return torch.cat([-real_scores, fake_scores])


@wrong("2.8", "the_critics_loss_is_one_number")
def critic_by_pairs(real_scores, fake_scores):
    """Real and fake scores are subtracted one by one, which needs as many of both: take each mean
    first."""
    return (fake_scores - real_scores).mean()


@wrong("2.8", "the_critics_loss_is_one_number")
def critics_plain_number(real_scores, fake_scores):
    """`.item()` makes a plain number of the loss, which has no gradient: return the tensor."""
    return (fake_scores.mean() - real_scores.mean()).item()


@wrong("2.8", "real_images_are_to_score_higher")
def critic_reversed(real_scores, fake_scores):
    """The sign: this is the estimate of the distance, which the critic maximises. What it minimises
    is mean(fake) - mean(real)."""
    return real_scores.mean() - fake_scores.mean()


@wrong("2.8", "real_images_are_to_score_higher")
def critics_absolute_difference(real_scores, fake_scores):
    """An absolute value: minimising it would make the scores equal."""
    return (fake_scores.mean() - real_scores.mean()).abs()


@wrong("2.8", "real_images_are_to_score_higher")
def critics_square(real_scores, fake_scores):
    """The difference is squared: minimising it would make the scores equal."""
    return (fake_scores.mean() - real_scores.mean()).square()


@wrong("2.8", "real_images_are_to_score_higher")
def critic_adds(real_scores, fake_scores):
    """The means are added: both scores would fall for ever."""
    return fake_scores.mean() + real_scores.mean()


@wrong("2.8", "real_images_are_to_score_higher")
def critics_sums(real_scores, fake_scores):
    """You sum over each batch: means are asked for."""
    return fake_scores.sum() - real_scores.sum()


@wrong("2.8", "real_images_are_to_score_higher")
def critics_common_size(real_scores, fake_scores):
    """Both sums are divided by the number of real images: each batch has its own size."""
    return (fake_scores.sum() - real_scores.sum()) / len(real_scores)


@wrong("2.8", "real_images_are_to_score_higher")
def critics_half(real_scores, fake_scores):
    """The difference is halved."""
    return (fake_scores.mean() - real_scores.mean()) / 2


@wrong("2.8", "real_images_are_to_score_higher")
def critic_of_fakes_only(real_scores, fake_scores):
    """The real images are forgotten: the critic could lower all scores."""
    return fake_scores.mean()


@wrong("2.8", "real_images_are_to_score_higher")
def critic_of_reals_only(real_scores, fake_scores):
    """The fake images are forgotten: the critic could raise all scores."""
    return -real_scores.mean()


@wrong("2.8", "real_images_are_to_score_higher")
def critic_with_sigmoid(real_scores, fake_scores):
    """A sigmoid is applied: scores are no logits, any real number counts as it is."""
    return fake_scores.sigmoid().mean() - real_scores.sigmoid().mean()


@wrong("2.8", "real_images_are_to_score_higher")
def critic_as_classifier(real_scores, fake_scores):
    """This is the cross-entropy of a classifier, of task 2.2: a critic's loss has no logarithm."""
    return bce(real_scores, 1.0) + bce(fake_scores, 0.0)


@wrong("2.8", "real_images_are_to_score_higher")
def critic_with_hinge(real_scores, fake_scores):
    """This is the hinge loss: a critic's scores are not limited."""
    return F.relu(1 - real_scores).mean() + F.relu(1 + fake_scores).mean()


@wrong("2.8", "real_images_are_to_score_higher")
def critic_never_below_0(real_scores, fake_scores):
    """Negative values are cut off: then a critic that is ahead has no gradient."""
    return F.relu(fake_scores.mean() - real_scores.mean())


@wrong("2.8", "real_images_are_to_score_higher")
def critic_with_clamped_scores(real_scores, fake_scores):
    """The scores are clamped to [-1, 1]: in the first WGAN it is the weights that are clipped."""
    return fake_scores.clamp(-1, 1).mean() - real_scores.clamp(-1, 1).mean()


@wrong("2.8", "it_may_have_either_sign")
def critic_never_above_0(real_scores, fake_scores):
    """Positive values are cut off, since a distance is not negative: but the estimate may be."""
    return (fake_scores.mean() - real_scores.mean()).clamp(max=0)


@wrong("2.8", "it_may_have_either_sign")
def minus_the_distance(real_scores, fake_scores):
    """Minus an absolute value: scoring fakes higher would be as good as scoring them lower."""
    return -(fake_scores.mean() - real_scores.mean()).abs()


@wrong("2.8", "it_is_a_difference_of_means")
def critics_extremes(real_scores, fake_scores):
    """The best fake and the worst real image are compared: means are asked for."""
    return fake_scores.max() - real_scores.min()


@wrong("2.8", "the_scores_stay_as_they_were")
def critic_in_place(real_scores, fake_scores):
    """`neg_` changes the caller's scores: a minus sign makes a new tensor."""
    return fake_scores.mean() + real_scores.neg_().mean()


@wrong("2.8", "its_slopes_are_constant")
def critic_without_a_graph(real_scores, fake_scores):
    """`.detach()` or `torch.no_grad()` cuts the graph: the critic would not learn."""
    return (fake_scores.mean() - real_scores.mean()).detach()


@wrong("2.8", "its_slopes_are_constant")
def critic_with_detached_fakes(real_scores, fake_scores):
    """The fake scores are detached: it is the fake images that are, before the critic sees them;
    from these scores it has to learn."""
    return fake_scores.detach().mean() - real_scores.mean()


@right("2.8")
def critic_minus_the_distance(real_scores, fake_scores):
    distance = torch.mean(real_scores) - torch.mean(fake_scores)
    return -distance


@right("2.8")
def critic_by_labels(real_scores, fake_scores):
    weights = torch.cat(
        [
            torch.full_like(real_scores, -1 / len(real_scores)),
            torch.full_like(fake_scores, 1 / len(fake_scores)),
        ]
    )
    return weights @ torch.cat([real_scores, fake_scores])


@right("2.8")
def critic_over_all_pairs(real_scores, fake_scores):
    return (fake_scores[:, None] - real_scores[None, :]).mean()


# --- 2.9 gradient_penalty


def one_each(x, draw=torch.rand):
    """One number for each sample, to be multiplied with it."""
    return draw(len(x), *[1] * (x.ndim - 1))


def mixed(real, fake, alpha=None):
    alpha = one_each(real) if alpha is None else alpha
    return (alpha * real + (1 - alpha) * fake).requires_grad_()


def slope_at(critic, x_hat, create_graph=True):
    """The gradient of each sample's score, of the shape of x_hat."""
    return torch.autograd.grad(critic(x_hat).sum(), x_hat, create_graph=create_graph)[0]


def norms(critic, real, fake, alpha=None):
    return slope_at(critic, mixed(real, fake, alpha)).flatten(1).norm(dim=1)


def penalty(critic, real, fake, alpha=None):
    return (norms(critic, real, fake, alpha) - 1).square().mean()


@wrong("2.9", "the_penalty_is_one_number")
def penalty_by_sample(critic, real, fake):
    """There is still one penalty for each sample: take the mean."""
    return (norms(critic, real, fake) - 1).square()


@wrong("2.9", "the_penalty_is_one_number")
def alpha_for_images_only(critic, real, fake):
    """alpha has the shape (B, 1, 1, 1), which fits images only: points have two dimensions. Make as
    many as real has."""
    return penalty(critic, real, fake, torch.rand(len(real), 1, 1, 1))


@wrong("2.9", "the_penalty_is_one_number")
def alpha_without_dimensions(critic, real, fake):
    """alpha has the shape (B,), which is matched with the last dimension of real: it needs
    dimensions of size 1 after the first."""
    return penalty(critic, real, fake, torch.rand(len(real)))


@wrong("2.9", "the_penalty_is_one_number")
def scores_not_added(critic, real, fake):
    """torch.autograd.grad wants one number, or grad_outputs: the scores of the batch are added
    up."""
    x_hat = mixed(real, fake)
    (gradient,) = torch.autograd.grad(critic(x_hat), x_hat, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


@wrong("2.9", "the_penalty_is_one_number")
def not_marked(critic, real, fake):
    """The mixture does not require a gradient, so that nothing can be differentiated with respect
    to it: requires_grad_()."""
    alpha = one_each(real)
    x_hat = alpha * real + (1 - alpha) * fake
    return (slope_at(critic, x_hat).flatten(1).norm(dim=1) - 1).square().mean()


@wrong("2.9", "a_slope_of_3_costs_4_and_one_of_a_half_a_quarter")
def with_lambda(critic, real, fake):
    """The penalty is multiplied by lambda = 10 already: that is left to the caller."""
    return 10 * penalty(critic, real, fake)


@wrong("2.9", "a_slope_of_3_costs_4_and_one_of_a_half_a_quarter")
def sums_samples(critic, real, fake):
    """You sum over the batch: the mean is asked for."""
    return len(real) * penalty(critic, real, fake)


@wrong("2.9", "a_slope_of_3_costs_4_and_one_of_a_half_a_quarter")
def not_squared(critic, real, fake):
    """The difference to 1 is not squared: slopes below 1 would be rewarded."""
    return (norms(critic, real, fake) - 1).mean()


@wrong("2.9", "a_slope_of_3_costs_4_and_one_of_a_half_a_quarter")
def absolute_difference(critic, real, fake):
    """The difference to 1 is made positive by an absolute value: it is squared."""
    return (norms(critic, real, fake) - 1).abs().mean()


@wrong("2.9", "a_slope_of_3_costs_4_and_one_of_a_half_a_quarter")
def squared_norm(critic, real, fake):
    """The squared norm is compared with 1: the root is missing, so a slope of 3 costs 64."""
    return (norms(critic, real, fake).square() - 1).square().mean()


@wrong("2.9", "a_slope_of_3_costs_4_and_one_of_a_half_a_quarter")
def norm_squared_minus_1(critic, real, fake):
    """This is the squared norm minus 1: subtract 1 first, then square."""
    return (norms(critic, real, fake).square() - 1).mean()


@wrong("2.9", "a_slope_of_3_costs_4_and_one_of_a_half_a_quarter")
def towards_0(critic, real, fake):
    """This pulls the slope to 0, as the penalty R1 at real images does: here it is pulled to 1."""
    return norms(critic, real, fake).square().mean()


@wrong("2.9", "a_slope_of_3_costs_4_and_one_of_a_half_a_quarter")
def one_sided(critic, real, fake):
    """Slopes below 1 cost nothing: here both sides are penalised."""
    return F.relu(norms(critic, real, fake) - 1).square().mean()


@wrong("2.9", "a_slope_of_3_costs_4_and_one_of_a_half_a_quarter")
def mean_of_scores(critic, real, fake):
    """The mean of the scores is differentiated: every slope is B times too small. Use their sum."""
    x_hat = mixed(real, fake)
    (gradient,) = torch.autograd.grad(critic(x_hat).mean(), x_hat, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


@wrong("2.9", "a_slope_of_3_costs_4_and_one_of_a_half_a_quarter")
def first_score_only(critic, real, fake):
    """Only the first score is differentiated: the slopes of all other samples are 0."""
    x_hat = mixed(real, fake)
    (gradient,) = torch.autograd.grad(critic(x_hat)[0], x_hat, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


@wrong("2.9", "a_slope_of_3_costs_4_and_one_of_a_half_a_quarter")
def norm_of_rows(critic, real, fake):
    """The norm is taken over the last dimension only, each row of pixels by itself: flatten(1)
    first."""
    return (slope_at(critic, mixed(real, fake)).norm(dim=-1) - 1).square().mean()


@wrong("2.9", "a_slope_of_3_costs_4_and_one_of_a_half_a_quarter")
def norm_of_channels(critic, real, fake):
    """The norm is taken over the channels of each pixel: flatten(1) first, so that dim 1 holds all
    numbers of a sample."""
    return (slope_at(critic, mixed(real, fake)).norm(dim=1) - 1).square().mean()


@wrong("2.9", "a_slope_of_3_costs_4_and_one_of_a_half_a_quarter")
def norm_over_the_batch(critic, real, fake):
    """The norm is taken over the batch, dim 0: it belongs to each sample, dim 1."""
    gradient = slope_at(critic, mixed(real, fake)).flatten(1)
    return (gradient.norm(dim=0) - 1).square().mean()


@wrong("2.9", "a_slope_of_3_costs_4_and_one_of_a_half_a_quarter")
def one_norm_for_all(critic, real, fake):
    """One norm is taken of the gradients of all samples together."""
    return (slope_at(critic, mixed(real, fake)).norm() - 1).square()


@wrong("2.9", "a_slope_of_3_costs_4_and_one_of_a_half_a_quarter")
def root_mean_square(critic, real, fake):
    """The squares are averaged over the pixels: the norm is the root of their sum."""
    gradient = slope_at(critic, mixed(real, fake)).flatten(1)
    return (gradient.square().mean(dim=1).sqrt() - 1).square().mean()


@wrong("2.9", "a_slope_of_3_costs_4_and_one_of_a_half_a_quarter")
def pixel_by_pixel(critic, real, fake):
    """Each pixel's slope is compared with 1: it is the norm of the whole gradient."""
    return (slope_at(critic, mixed(real, fake)) - 1).square().mean()


@wrong("2.9", "a_slope_of_3_costs_4_and_one_of_a_half_a_quarter")
def sum_norm(critic, real, fake):
    """This is the norm of absolute values, ord=1: the Euclidean one is asked for."""
    gradient = slope_at(critic, mixed(real, fake)).flatten(1)
    return (gradient.norm(p=1, dim=1) - 1).square().mean()


@wrong("2.9", "a_slope_of_3_costs_4_and_one_of_a_half_a_quarter")
def with_a_sigmoid(critic, real, fake):
    """A sigmoid is put on the scores: the critic's own slope is asked for."""
    x_hat = mixed(real, fake)
    (gradient,) = torch.autograd.grad(critic(x_hat).sigmoid().sum(), x_hat, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


@wrong("2.9", "a_slope_of_3_costs_4_and_one_of_a_half_a_quarter")
def between_two_points(critic, real, fake):
    """This is how much the score rises from fake to real, divided by their distance: the gradient
    can be steeper than that."""
    rise = critic(real) - critic(fake)
    return (rise.abs() / (real - fake).flatten(1).norm(dim=1) - 1).square().mean()


@wrong("2.9", "a_slope_of_3_costs_4_and_one_of_a_half_a_quarter")
def slope_along_real(critic, real, fake):
    """The gradient is taken with respect to real, and is alpha times too small: take it with
    respect to the mixture."""
    real, alpha = real.clone().requires_grad_(), one_each(real)
    scores = critic(alpha * real + (1 - alpha) * fake)
    (gradient,) = torch.autograd.grad(scores.sum(), real, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


@wrong("2.9", "each_sample_has_a_norm_of_its_own")
def mean_norm(critic, real, fake):
    """The norms are averaged before 1 is subtracted: half the samples too steep and half too flat
    would cost nothing."""
    return (norms(critic, real, fake).mean() - 1).square()


@wrong("2.9", "points_lie_on_the_line")
def alpha_for_each_pixel(critic, real, fake):
    """Each pixel has an alpha of its own, as from `rand_like`: the points fill the box between real
    and fake, not the line."""
    return penalty(critic, real, fake, torch.rand_like(real))


@wrong("2.9", "points_lie_on_the_line")
def alpha_for_each_channel(critic, real, fake):
    """Each channel has an alpha of its own: one for a whole sample is asked for."""
    alpha = torch.rand(*real.shape[:2], *[1] * (real.ndim - 2))
    return penalty(critic, real, fake, alpha)


@wrong("2.9", "points_lie_on_the_line")
def alpha_of_two_dimensions(critic, real, fake):
    """alpha has the shape (B, 1), which for images is matched with their height, silently if it is
    as large as B: (B, 1, 1, 1) for images."""
    return penalty(critic, real, fake, torch.rand(len(real), 1))


@wrong("2.9", "points_lie_on_the_line")
def around_real(critic, real, fake):
    """Noise is added to the real samples, as DRAGAN does: WGAN-GP goes from real to fake."""
    return penalty(critic, real, real + 0.5 * torch.randn_like(real))


@wrong("2.9", "points_lie_on_the_line")
def at_both_ends(critic, real, fake):
    """Real and fake samples themselves are used, 2 B of them: B points between them are asked
    for."""
    x = torch.cat([real, fake]).requires_grad_()
    return (slope_at(critic, x).flatten(1).norm(dim=1) - 1).square().mean()


@wrong("2.9", "points_lie_on_the_line")
def signs_confused(critic, real, fake):
    """alpha * real + alpha * fake is not on the line: the shares are alpha and 1 - alpha."""
    x_hat = (one_each(real) * (real + fake)).requires_grad_()
    return (slope_at(critic, x_hat).flatten(1).norm(dim=1) - 1).square().mean()


@wrong("2.9", "each_sample_has_its_own_alpha")
def one_alpha_for_the_batch(critic, real, fake):
    """One alpha is drawn for the whole batch: draw one for each sample."""
    return penalty(critic, real, fake, torch.rand(()))


@wrong("2.9", "each_sample_has_its_own_alpha")
def at_real(critic, real, fake):
    """The slope is taken at the real samples only: it must be held on the way to the fakes too."""
    return penalty(critic, real, fake, 1.0)


@wrong("2.9", "each_sample_has_its_own_alpha")
def at_fake(critic, real, fake):
    """The slope is taken at the fake samples only: it must be held on the way to the real ones
    too."""
    return penalty(critic, real, fake, 0.0)


@wrong("2.9", "each_sample_has_its_own_alpha")
def half_way(critic, real, fake):
    """The slope is taken half way, always: alpha is drawn at random."""
    return penalty(critic, real, fake, 0.5)


@wrong("2.9", "alpha_is_uniform_on_0_to_1")
def normal_alpha(critic, real, fake):
    """alpha is normal, and leaves the line between real and fake at both ends: `torch.rand`."""
    return penalty(critic, real, fake, one_each(real, torch.randn))


@wrong("2.9", "alpha_is_uniform_on_0_to_1")
def beyond_the_ends(critic, real, fake):
    """alpha lies in [-1, 1]: half of the points are beyond the fake samples."""
    return penalty(critic, real, fake, 2 * one_each(real) - 1)


@wrong("2.9", "alpha_is_uniform_on_0_to_1")
def nearer_to_fake(critic, real, fake):
    """alpha is not uniform: most points lie near the fake samples."""
    return penalty(critic, real, fake, one_each(real).square())


@wrong("2.9", "alpha_is_uniform_on_0_to_1")
def around_the_middle(critic, real, fake):
    """alpha is not uniform: the points avoid both ends."""
    return penalty(critic, real, fake, 0.25 + 0.5 * one_each(real))


@wrong("2.9", "alpha_is_new_at_each_call")
def seeded_alpha(critic, real, fake):
    """The seed is set inside: the same places on the lines are asked about for ever."""
    torch.manual_seed(0)
    return penalty(critic, real, fake)


@wrong("2.9", "real_and_fake_stay_as_they_were")
def mixes_in_place(critic, real, fake):
    """`mul_` and `add_` write the mixture into the caller's real samples."""
    alpha = one_each(real)
    x_hat = real.mul_(alpha).add_((1 - alpha) * fake).detach().clone().requires_grad_()
    return (slope_at(critic, x_hat).flatten(1).norm(dim=1) - 1).square().mean()


@wrong("2.9", "real_and_fake_stay_as_they_were")
def marks_the_samples(critic, real, fake):
    """`requires_grad_()` marks the caller's samples: mix them first, and mark the mixture."""
    return penalty(critic, real.requires_grad_(), fake.requires_grad_())


@wrong("2.9", "the_critic_stays_as_it_was")
def by_backward(critic, real, fake):
    """`backward()` also fills the `.grad` of the critic's parameters: torch.autograd.grad gives the
    gradient of x_hat and leaves nothing behind."""
    x_hat = mixed(real, fake).detach().requires_grad_()
    critic(x_hat).sum().backward(create_graph=True)
    return (x_hat.grad.flatten(1).norm(dim=1) - 1).square().mean()


@wrong("2.9", "the_critic_stays_as_it_was")
def freezes_the_critic(critic, real, fake):
    """The critic's parameters are frozen: they are what the penalty trains."""
    critic.requires_grad_(False)
    return penalty(critic, real, fake)


@wrong("2.9", "the_critic_stays_as_it_was")
def critic_in_eval(critic, real, fake):
    """The critic is put in eval mode and left there."""
    critic.eval()
    return penalty(critic, real, fake)


@wrong("2.9", "it_trains_the_critics_slope")
def without_create_graph(critic, real, fake):
    """create_graph=True is missing: the gradient has no graph of its own, and the penalty is a
    constant that trains nothing."""
    gradient = slope_at(critic, mixed(real, fake), create_graph=False)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


@wrong("2.9", "it_trains_the_critics_slope")
def detached_norm(critic, real, fake):
    """The gradient, or its norm, is detached: the penalty is a constant that trains nothing."""
    return (norms(critic, real, fake).detach() - 1).square().mean()


@wrong("2.9", "it_trains_the_critics_slope")
def half_detached(critic, real, fake):
    """One of the two factors of the square is detached: the slope of the penalty is half of what it
    should be."""
    norm = norms(critic, real, fake)
    return ((norm - 1) * (norm.detach() - 1)).mean()


@wrong("2.9", "a_slope_of_0_gives_no_nan")
def root_of_the_sum(critic, real, fake):
    """`sqrt` has an infinite slope at 0: where the critic is flat, times 0 that is NaN, and NaN
    spreads to all weights. Use `.norm()`, or add 1e-12 inside the root."""
    gradient = slope_at(critic, mixed(real, fake)).flatten(1)
    return (gradient.square().sum(dim=1).sqrt() - 1).square().mean()


@right("2.9")
def alpha_of_the_fakes(critic, real, fake):
    alpha = torch.rand(len(real)).view(-1, *[1] * (real.ndim - 1)).expand_as(real)
    x_hat = torch.lerp(real, fake, alpha).requires_grad_(True)
    scores = critic(x_hat)
    (gradient,) = torch.autograd.grad(
        outputs=scores,
        inputs=x_hat,
        grad_outputs=torch.ones_like(scores),
        create_graph=True,
        retain_graph=True,
        only_inputs=True,
    )
    norm = torch.linalg.vector_norm(gradient.reshape(len(real), -1), ord=2, dim=1)
    return torch.mean((norm - 1) ** 2)


@right("2.9")
def sample_by_sample(critic, real, fake):
    total, size = 0.0, max(1, len(real) // 8)  # where there are many, some at once
    for r, f in zip(real.split(size), fake.split(size), strict=True):
        x_hat = f + torch.rand(len(r), *[1] * (r.ndim - 1)) * (r - f)
        x_hat = x_hat.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(critic(x_hat).sum(), x_hat, create_graph=True)
        total = total + (gradient.flatten(1).norm(dim=1) - 1).pow(2).sum() / len(real)
    return total


@right("2.9")
def root_with_a_small_number(critic, real, fake):
    alpha = Uniform(0.0, 1.0).sample((len(real), *[1] * (real.ndim - 1)))
    gradient = slope_at(critic, mixed(real, fake, alpha))
    dims = tuple(range(1, real.ndim))
    return F.mse_loss((gradient.square().sum(dim=dims) + 1e-12).sqrt(), torch.ones(len(real)))


@right("2.9")
def by_torch_func(critic, real, fake):
    x_hat = mixed(real, fake).detach()
    gradient = torch.func.grad(lambda x: critic(x).sum())(x_hat)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


@right("2.9")
def square_written_out(critic, real, fake):
    norm = norms(critic, real.detach(), fake.detach(), 1 - one_each(real))
    return (norm**2 - 2 * norm + 1).sum() / norm.numel()


# --- 2.10 count_modes


def nearest_of(samples, centers):
    """Distance to the nearest center, and which it is, of each sample."""
    return (samples[:, None] - centers).norm(dim=2).min(dim=1)


def counts(nearest, good):
    return len(nearest[good].unique()), good.float().mean().item()


@wrong("2.10", "two_numbers_come_back")
def modes_only(samples, centers, std):
    """Only the number of modes comes back: the share of good samples is asked for as well."""
    return solution.count_modes(samples, centers, std)[0]


@wrong("2.10", "two_numbers_come_back")
def samples_of_each_mode(samples, centers, std):
    """How many samples each mode has comes back: the number of modes that have any is asked for."""
    distance, nearest = nearest_of(samples, centers)
    good = distance <= 3 * std
    return nearest[good].bincount(minlength=len(centers)), good.float().mean().item()


@wrong("2.10", "two_numbers_come_back")
def pairs_samples_and_centers(samples, centers, std):
    """Samples and centers are subtracted row by row: every sample meets every center, so
    samples[:, None] - centers."""
    good = (samples - centers).norm(dim=1) <= 3 * std
    return int(good.sum()), good.float().mean().item()


@wrong("2.10", "a_perfect_generator_meets_all_modes")
def swapped(samples, centers, std):
    """The two numbers are swapped: first modes, then share."""
    modes, share = solution.count_modes(samples, centers, std)
    return share, modes


@wrong("2.10", "a_perfect_generator_meets_all_modes")
def in_percent(samples, centers, std):
    """The share is in percent: a fraction in [0, 1] is asked for."""
    modes, share = solution.count_modes(samples, centers, std)
    return modes, 100 * share


@wrong("2.10", "a_perfect_generator_meets_all_modes")
def number_of_good_samples(samples, centers, std):
    """The number of good samples comes back: divide by N."""
    modes, share = solution.count_modes(samples, centers, std)
    return modes, share * len(samples)


@wrong("2.10", "a_perfect_generator_meets_all_modes")
def samples_for_modes(samples, centers, std):
    """Good samples are counted in the place of modes: several samples of a mode count once."""
    distance, _ = nearest_of(samples, centers)
    good = distance <= 3 * std
    return int(good.sum()), good.float().mean().item()


@wrong("2.10", "a_perfect_generator_meets_all_modes")
def missing_modes(samples, centers, std):
    """The modes that are missing are counted: those that are met are asked for."""
    modes, share = solution.count_modes(samples, centers, std)
    return len(centers) - modes, share


@wrong("2.10", "a_perfect_generator_meets_all_modes")
def share_of_garbage(samples, centers, std):
    """This is the share of bad samples."""
    modes, share = solution.count_modes(samples, centers, std)
    return modes, 1 - share


@wrong("2.10", "a_perfect_generator_meets_all_modes")
def share_for_each_mode(samples, centers, std):
    """The number of good samples is divided by the number of modes: it is a share of the N
    samples."""
    modes, share = solution.count_modes(samples, centers, std)
    return modes, share * len(samples) / len(centers)


@wrong("2.10", "a_collapsed_generator_meets_one_mode")
def share_of_modes(samples, centers, std):
    """This is the share of modes that are met: the share of samples that are good is asked for."""
    modes, _ = solution.count_modes(samples, centers, std)
    return modes, modes / len(centers)


@wrong("2.10", "far_samples_show_no_mode")
def without_a_radius(samples, centers, std):
    """Every sample counts for its nearest center, however far away: it must be within 3 std."""
    _, nearest = nearest_of(samples, centers)
    return len(nearest.unique()), 1.0


@wrong("2.10", "far_samples_show_no_mode")
def modes_without_a_radius(samples, centers, std):
    """Bad samples count for the modes: leave them out before you count centers."""
    distance, nearest = nearest_of(samples, centers)
    return len(nearest.unique()), (distance <= 3 * std).float().mean().item()


@wrong("2.10", "far_samples_show_no_mode")
def two_are_needed(samples, centers, std):
    """A mode counts only if it has several good samples: one is enough."""
    distance, nearest = nearest_of(samples, centers)
    good = distance <= 3 * std
    many = nearest[good].bincount(minlength=len(centers)) >= 2
    return int(many.sum()), good.float().mean().item()


@wrong("2.10", "far_samples_show_no_mode")
def whole_numbers(samples, centers, std):
    """`//` cuts the share to a whole number: divide with `/`."""
    modes, share = solution.count_modes(samples, centers, std)
    return modes, round(share * len(samples)) // len(samples)


@wrong("2.10", "far_samples_show_no_mode")
def rounded(samples, centers, std):
    """The share is rounded: return it as it is."""
    modes, share = solution.count_modes(samples, centers, std)
    return modes, round(share, 1)


@wrong("2.10", "the_radius_is_3_std")
def within_1_std(samples, centers, std):
    """The radius is 1 std: it is 3 std."""
    distance, nearest = nearest_of(samples, centers)
    return counts(nearest, distance <= std)


@wrong("2.10", "the_radius_is_3_std")
def within_2_std(samples, centers, std):
    """The radius is 2 std: it is 3 std."""
    distance, nearest = nearest_of(samples, centers)
    return counts(nearest, distance <= 2 * std)


@wrong("2.10", "the_radius_is_3_std")
def fixed_radius(samples, centers, std):
    """The radius is 0.3 whatever std is: it is 3 * std."""
    distance, nearest = nearest_of(samples, centers)
    return counts(nearest, distance <= 0.3)


@wrong("2.10", "the_radius_is_3_std")
def squares_against_3_std(samples, centers, std):
    """Squared distances are compared with 3 * std: take the root, or square both."""
    distance, nearest = nearest_of(samples, centers)
    return counts(nearest, distance.square() <= 3 * std)


@wrong("2.10", "the_radius_is_3_std")
def squares_against_3_variances(samples, centers, std):
    """Squared distances are compared with 3 * std^2: squared, 3 std are 9 std^2."""
    distance, nearest = nearest_of(samples, centers)
    return counts(nearest, distance.square() <= 3 * std**2)


@wrong("2.10", "the_radius_is_3_std")
def std_for_a_variance(samples, centers, std):
    """std is taken for a variance, and its root is the radius: it is the standard deviation."""
    distance, nearest = nearest_of(samples, centers)
    return counts(nearest, distance <= 3 * math.sqrt(std))


@wrong("2.10", "the_radius_is_3_std")
def coordinate_by_coordinate(samples, centers, std):
    """Each coordinate is compared with 3 std by itself: that is a square, not a circle."""
    distance, nearest = (samples[:, None] - centers).abs().amax(dim=2).min(dim=1)
    return counts(nearest, distance <= 3 * std)


@wrong("2.10", "the_radius_is_3_std")
def city_blocks(samples, centers, std):
    """Absolute differences are added, as on a city's streets: the Euclidean distance is asked
    for."""
    distance, nearest = (samples[:, None] - centers).abs().sum(dim=2).min(dim=1)
    return counts(nearest, distance <= 3 * std)


@wrong("2.10", "the_radius_is_3_std")
def root_of_the_mean(samples, centers, std):
    """The squares of the coordinates are averaged: the distance is the root of their sum."""
    distance, nearest = (samples[:, None] - centers).square().mean(dim=2).sqrt().min(dim=1)
    return counts(nearest, distance <= 3 * std)


@wrong("2.10", "more_dimensions_make_no_difference")
def first_two_dimensions(samples, centers, std):
    """Only the first two coordinates are looked at: D may be any number."""
    distance, nearest = nearest_of(samples[:, :2], centers[:, :2])
    return counts(nearest, distance <= 3 * std)


@wrong("2.10", "a_sample_shows_its_nearest_mode_only")
def all_modes_around(samples, centers, std):
    """A sample counts for every center within 3 std: only the nearest one is its mode."""
    near = (samples[:, None] - centers).norm(dim=2) <= 3 * std
    return int(near.any(dim=0).sum()), near.any(dim=1).float().mean().item()


@wrong("2.10", "a_sample_shows_its_nearest_mode_only")
def counted_several_times(samples, centers, std):
    """A sample near several centers is counted several times: the share may exceed 1."""
    near = (samples[:, None] - centers).norm(dim=2) <= 3 * std
    return solution.count_modes(samples, centers, std)[0], near.float().sum().item() / len(samples)


@wrong("2.10", "nan_is_garbage")
def leaves_nan_out(samples, centers, std):
    """Samples with NaN are left out before the share is taken: they count among the N."""
    kept = samples[~samples.isnan().any(dim=1)]
    if not len(kept):
        return 0, 0.0
    return solution.count_modes(kept, centers, std)


@wrong("2.10", "nan_is_garbage")
def nan_as_0(samples, centers, std):
    """NaN is replaced by 0, where a center may be: such a sample is bad."""
    return solution.count_modes(samples.nan_to_num(), centers, std)


@wrong("2.10", "nan_is_garbage")
def not_too_far(samples, centers, std):
    """`~(distance > 3 * std)` is True for NaN: ask what is near, not what is not far."""
    distance, nearest = nearest_of(samples, centers)
    return counts(nearest, ~(distance > 3 * std))


@wrong("2.10", "samples_and_centers_stay_as_they_were")
def cleans_in_place(samples, centers, std):
    """`nan_to_num_` writes into the caller's samples."""
    return solution.count_modes(samples.nan_to_num_(nan=math.inf), centers, std)


@right("2.10")
def by_cdist(samples, centers, std):
    distances = torch.cdist(samples, centers)
    nearest = distances.argmin(dim=1)
    good = distances[torch.arange(len(samples)), nearest] <= 3 * std
    return torch.unique(nearest[good]).numel(), good.sum().item() / len(samples)


@right("2.10")
def by_loop(samples, centers, std):
    met, good = set(), 0
    for sample in samples.tolist():
        distances = [math.dist(sample, center) for center in centers.tolist()]
        if min(distances) <= 3 * std and all(map(math.isfinite, sample)):
            met.add(distances.index(min(distances)))
            good += 1
    return len(met), good / len(samples)


@right("2.10")
def by_numpy_arrays(samples, centers, std):
    squares = ((samples.numpy()[:, None] - centers.numpy()) ** 2).sum(axis=-1)
    good = squares.min(axis=1) <= 9 * std**2
    return np.unique(squares.argmin(axis=1)[good]).size, float(good.mean())


@right("2.10")
def by_one_hot(samples, centers, std):
    distance, nearest = (samples.unsqueeze(1) - centers.unsqueeze(0)).pow(2).sum(2).sqrt().min(1)
    good = (distance < 3 * std) & samples.isfinite().all(dim=1)
    met = F.one_hot(nearest, len(centers)).bool() & good[:, None]
    return met.any(dim=0).sum(), good.double().mean()
