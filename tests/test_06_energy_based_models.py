"""The energy chapter against enumerated states, transition matrices, closed forms, quadrature."""

import itertools
import json
import math
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from torch import nn
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal, Normal

from code_examples import energy, utils

Config, RBM, ReplayBuffer = energy.Config, energy.RBM, energy.ReplayBuffer
MODELS = ("rbm", "conv", "score")
KINDS = [(4, 3, 0), (2, 5, 0), (1, 1, 0), (3, 3, 3), (2, 2, 2), (1, 4, 5)]  # pixels, hidden, labels
ROOM = 6  # standard errors
close = torch.testing.assert_close
kinds = pytest.mark.parametrize("kind", KINDS, ids=str)
both = pytest.mark.parametrize("kind", [(4, 3, 0), (3, 3, 3)], ids=["pixels", "labels"])


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def float64(*values):
    return torch.tensor(values, dtype=torch.float64)


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def shaken(net, size=0.5, seed=0):
    """Random non-zero weights in float64."""
    generator = torch.Generator().manual_seed(seed)
    net = net.double()
    with torch.no_grad():
        for p in net.parameters():
            p.add_(size * torch.randn(p.shape, generator=generator, dtype=torch.float64))
    return net


def watch(monkeypatch, name, note, module=energy):
    """Call `note` with the arguments of each call of a function."""
    original = getattr(module, name)

    def watched(*args, **kwargs):
        note(*args, **kwargs)
        return original(*args, **kwargs)

    monkeypatch.setattr(module, name, watched)


def check_mean(draws, expected, room=ROOM):
    """Means of independent draws (N, ...) are the expected ones, within standard errors."""
    error = draws.std(dim=0) / math.sqrt(len(draws))
    assert (error > 0).any()
    close(draws.mean(dim=0), expected.to(draws), rtol=0, atol=math.inf)  # the same shape
    assert ((draws.mean(dim=0) - expected).abs() <= room * error + 1e-12).all()


# --- A tiny RBM, of which everything is known by summing over all states


def machine(pixels=4, hidden=3, classes=0, size=1.0, seed=0):
    """An RBM with random weights."""
    weight, v, h = (pixels + classes, hidden), pixels + classes, hidden
    parts = (size * normal(*shape, seed=seed + i) for i, shape in enumerate([weight, (v,), (h,)]))
    return RBM(*parts, classes)


def mixing_slowly(kind):
    """Weights so large that a chain remembers for some steps."""
    return machine(*kind, size=2.5, seed=0 if kind[2] else 6)


def bits(n):
    return torch.tensor([*itertools.product((0.0, 1.0), repeat=n)], dtype=torch.float64)


def visible_states(rbm):
    """All that v can be, (S, V): any pixels, one label."""
    labels = torch.eye(rbm.num_classes, dtype=torch.float64)
    if not rbm.num_classes:
        return bits(rbm.pixels)
    pairs = itertools.product(bits(rbm.pixels), labels)
    return torch.stack([torch.cat(pair) for pair in pairs])


def log_joint(rbm):
    """-E(v, h) of all pairs of states (S, 2^H), from the definition, with gradients."""
    v, h = visible_states(rbm), bits(len(rbm.hidden_bias))
    tied = torch.einsum("si,ij,tj->st", v, rbm.weight, h)
    alone = (v * rbm.visible_bias).sum(dim=1)[:, None] + (h * rbm.hidden_bias).sum(dim=1)
    return tied + alone


def log_z(rbm):
    return log_joint(rbm).flatten().logsumexp(dim=0)


def joint(rbm):
    return log_joint(rbm).detach().flatten().softmax(dim=0).view(log_joint(rbm).shape)


def marginal(rbm):
    """p(v) of all visible states, (S,)."""
    return joint(rbm).sum(dim=1)


def transitions(rbm):
    """Probability (S, S) of the next v, in a column, after v, in a row: h given v, v given h."""
    p = joint(rbm)
    return (p / p.sum(dim=1, keepdim=True)) @ (p / p.sum(dim=0)).T


def which(v, states):
    """The number of the state that each row is."""
    code = torch.arange(1, v.shape[1] + 1, dtype=torch.float64).exp2()
    order = (states @ code).argsort()
    place = torch.searchsorted((states @ code)[order], v.double() @ code)
    index = order[place.clamp(max=len(states) - 1)]
    assert torch.equal(states[index], v.double())  # nothing that cannot be
    return index


def check_counts(v, states, p):
    """Rows v (N, V) are states with probabilities p (S,)."""
    counts = torch.bincount(which(v, states), minlength=len(states)).double()
    error = (len(v) * p * (1 - p)).sqrt()
    assert ((counts - len(v) * p).abs() <= ROOM * error + 3).all()
    assert (counts[p == 0] == 0).all()


def draw(rbm, n):
    """n exact samples of p(v)."""
    return visible_states(rbm)[marginal(rbm).multinomial(n, replacement=True)]


def gradient(value, rbm):
    """Of all parameters, in a row."""
    return torch.cat(
        [g.flatten() for g in torch.autograd.grad(value, [*rbm.parameters()], retain_graph=True)]
    )


def expected_gradient(rbm, data, model):
    """Of F under the distribution `data` minus that under `model`, both (S,)."""
    free_energy = -log_joint(rbm).logsumexp(dim=1)
    return gradient(((data - model) * free_energy).sum(), rbm)


def per_state_gradients(rbm):
    """Of F of each visible state, (S, parameters)."""
    free_energy = -log_joint(rbm).logsumexp(dim=1)
    rows = (torch.autograd.grad(f, [*rbm.parameters()], retain_graph=True) for f in free_energy)
    return torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])


# --- The RBM


@kinds
def test_the_energy_is_its_formula(kind):
    rbm = machine(*kind)
    v, h = visible_states(rbm), bits(kind[1])
    pairs = v.repeat_interleave(len(h), dim=0), h.repeat(len(v), 1)
    close(rbm.energy(*pairs), -log_joint(rbm).flatten())
    one = float64(*[1] * v.shape[1])[None], float64(*[1] * kind[1])[None]
    everything = rbm.weight.sum() + rbm.visible_bias.sum() + rbm.hidden_bias.sum()
    close(rbm.energy(*one), -everything[None])


@kinds
def test_the_free_energy_sums_over_the_hidden_states(kind):
    rbm = machine(*kind)
    close(rbm(visible_states(rbm)), -log_joint(rbm).logsumexp(dim=1))
    assert rbm.pixels == kind[0]


@kinds
def test_probabilities_sum_to_one(kind):
    rbm = machine(*kind, size=2)
    for rows in (1, 3, 4096):
        z = energy.log_partition_exact(rbm, rows)
        close(z, log_z(rbm).detach(), rtol=1e-12, atol=1e-12)
        total = (-rbm(visible_states(rbm)) - z).exp().sum().item()
        assert total == pytest.approx(1, abs=1e-12)
    assert not z.requires_grad


def test_log_z_of_independent_units_has_a_closed_form():
    """And no overflow: e^800 is infinite in float64, and so is e^100 in float32."""
    big = RBM(torch.zeros(3, 20), float64(800, -800, 0), 100 * torch.ones(20))
    assert energy.log_partition_exact(big).item() == pytest.approx(800 + math.log(2) + 2000)
    rbm = machine(5, 20)
    with torch.no_grad():
        rbm.weight.zero_()
    expected = rbm.visible_bias.exp().log1p().sum() + rbm.hidden_bias.exp().log1p().sum()
    close(energy.log_partition_exact(rbm), expected.detach())


@kinds
def test_conditionals_are_those_of_the_joint(kind):
    """Also that units of a layer are independent given the other: products, not only margins."""
    rbm = machine(*kind)
    v, h, p = visible_states(rbm), bits(kind[1]), joint(rbm)
    given_v, given_h = p / p.sum(dim=1, keepdim=True), (p / p.sum(dim=0)).T
    on = rbm.hidden_logits(v).sigmoid()
    close(on, given_v @ h)
    close(torch.where(h.bool(), on[:, None], 1 - on[:, None]).prod(dim=2), given_v)
    mean = rbm.visible_mean(h)
    close(mean, given_h @ v)
    pixels, label = mean.tensor_split((kind[0],), dim=1)
    each = torch.where(v[:, : kind[0]].bool(), pixels[:, None], 1 - pixels[:, None]).prod(dim=2)
    if kind[2]:
        each = each * (label[:, None] * v[:, kind[0] :]).sum(dim=2)
        close(label.sum(dim=1), torch.ones(len(h), dtype=torch.float64))
    close(each, given_h)


@kinds
def test_the_sum_over_the_visible_states_given_logits(kind):
    rbm = machine(*kind)
    v, h = visible_states(rbm), bits(kind[1])
    logits = rbm.visible_logits(h)
    close(rbm.visible_log_partition(logits), (logits @ v.T).logsumexp(dim=1))
    close(logits, h @ rbm.weight.T + rbm.visible_bias)


@torch.no_grad()
@both
def test_draws_follow_the_conditionals(kind):
    rbm, n = machine(*kind), 20_000
    v, h, p = visible_states(rbm), bits(kind[1]), joint(rbm)
    for i in (0, 5):
        drawn = rbm.draw_hidden(v[i].expand(n, -1))
        check_counts(drawn, h, p[i] / p[i].sum())
        assert drawn.dtype == torch.float64
        drawn = rbm.draw_visible(h[i].expand(n, -1))
        check_counts(drawn, v, p[:, i] / p[:, i].sum())
        assert drawn.dtype == torch.float64


def test_coins_are_flipped_with_their_probabilities():
    p = torch.tensor([0.0, 1e-3, 0.3, 0.9, 1.0])
    drawn = energy.flip(p.expand(100_000, 5))
    assert drawn.unique().tolist() == [0, 1]
    assert drawn.dtype == p.dtype
    check_mean(drawn.double(), p)
    assert energy.flip(p.double()).dtype == torch.float64


@torch.no_grad()
def test_rare_pixels_stay_rare_under_autocast():
    """bfloat16 knows 256 steps between 0 and 1: too few for a pixel that is on once in 2,000."""
    rbm = RBM(torch.zeros(4, 3), torch.full((4,), 5e-4).logit(), torch.full((3,), 5e-4).logit())
    v, h = torch.zeros(100_000, 4), torch.zeros(100_000, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for drawn in (rbm.draw_visible(h), rbm.draw_hidden(v), energy.gibbs(rbm, v)):
            check_mean(drawn.double(), torch.full((drawn.shape[1],), 5e-4))


@torch.no_grad()
@both
def test_a_gibbs_step_is_the_transition_that_leaves_p_alone(kind):
    rbm, n = mixing_slowly(kind), 4000
    v, p, step = visible_states(rbm), marginal(rbm), transitions(rbm)
    close(p @ step, p)  # stationary
    close(p[:, None] * step, (p[:, None] * step).T)  # in detailed balance
    for steps in (1, 3):
        after = energy.gibbs(rbm, v.repeat_interleave(n, dim=0), steps).view(len(v), n, -1)
        rows = torch.linalg.matrix_power(step, steps)
        assert (rows - p).abs().max() > 0.04  # not yet mixed
        for i in range(len(v)):
            check_counts(after[i], v, rows[i])
    assert torch.equal(energy.gibbs(rbm, v, 0), v)
    check_counts(energy.gibbs(rbm, draw(rbm, 50_000), 2), v, p)


@torch.no_grad()
@pytest.mark.parametrize(
    ("kind", "known"),
    [
        ((4, 3, 0), [0, 3]),
        ((3, 3, 3), [3, 4, 5]),  # the label: draws of a class
        ((3, 3, 3), [0, 1, 2]),  # the pixels: draws of the label
        ((3, 3, 3), [1]),
        ((3, 3, 3), [0, 3, 4, 5]),
    ],
    ids=str,
)
def test_clamped_chains_draw_from_the_conditional(kind, known):
    rbm, n = machine(*kind, size=0.8), 20_000
    v, p = visible_states(rbm), marginal(rbm)
    mask = torch.zeros(v.shape[1], dtype=torch.bool)
    mask[known] = True
    for given in (v[1], v[-2]):
        agree = (v[:, mask] == given[mask]).all(dim=1)
        conditional = torch.where(agree, p, 0) / p[agree].sum()
        assert 1 < agree.sum() < len(v)
        start = given.expand(n, -1)
        after = energy.gibbs(rbm, start, 25, mask)
        assert torch.equal(after[:, mask], start[:, mask])
        check_counts(after, v, conditional)
        exact = v[conditional.multinomial(n, replacement=True)]
        check_counts(energy.gibbs(rbm, exact, 1, known=mask), v, conditional)
        if len(known) == 1:  # free chains would not end there
            free = energy.gibbs(rbm, start, 3)
            assert not (free[:, mask] == given[mask]).all()


@pytest.mark.parametrize("kind", [(3, 3, 3), (2, 2, 2)], ids=str)
def test_labels_are_predicted_by_the_posterior(kind):
    rbm = machine(*kind, size=2, seed=7)
    x, (_, _, classes) = bits(kind[0]), kind
    p = marginal(rbm).view(len(x), classes)  # of every picture with every label
    free = energy.free_energies(rbm, x)
    assert free.shape == p.shape
    close((-free).softmax(dim=1), p / p.sum(dim=1, keepdim=True))
    close((-free).logsumexp(dim=1) - log_z(rbm), p.sum(dim=1).log())
    assert torch.equal(free.argmin(dim=1), p.argmax(dim=1))
    assert len(set(free.argmin(dim=1).tolist())) > 1


def test_without_labels_there_is_one_free_energy():
    rbm, x = machine(4, 3), bits(4)
    close(energy.free_energies(rbm, x), rbm(x)[:, None])


@kinds
def test_low_energy_is_high_probability(kind):
    rbm = machine(*kind, size=2)
    p, free = marginal(rbm), rbm(visible_states(rbm)).detach()
    assert torch.equal(free.argsort(), p.argsort(descending=True))
    close(free[:, None] - free, -(p.log()[:, None] - p.log()))  # differences need no Z


def test_a_new_rbm_knows_the_margins_and_nothing_else():
    v = (torch.rand(500, 7) < torch.linspace(0, 1, 7)).float()
    v[:, 4:] = torch.eye(3)[torch.arange(500) % 3]
    v[:, 0], v[:, 1] = 0, 1
    rbm = energy.build_rbm(v, 50, 3)
    assert rbm.weight.shape == (7, 50)
    assert 0 < rbm.weight.std() < 0.05
    assert rbm.hidden_bias.abs().max() == 0
    with torch.no_grad():
        rbm.weight.zero_()
        mean = rbm.visible_mean(torch.zeros(1, 50))[0]
    close(mean, v.mean(dim=0), atol=2e-3, rtol=0)
    assert 0 < mean[0] < mean[1] < 1  # a pixel that never was on may yet be


# --- The gradient, data minus model, and contrastive divergence


def test_the_contrastive_loss_by_hand():
    real, fake = float64(1, 3), float64(-2, 5)
    assert energy.contrastive_loss(real, fake).item() == pytest.approx(2 - 1.5)
    squares = (1 + 9) / 2 + (4 + 25) / 2
    loss = energy.contrastive_loss(real, fake, 0.1)
    assert loss.item() == pytest.approx(0.5 + 0.1 * squares)
    assert loss.shape == ()


def some_data(rbm):
    """A distribution that the model does not have, (S,)."""
    return (2 * normal(len(visible_states(rbm)), seed=9)).softmax(dim=0)


@both
def test_the_contrastive_gradient_is_that_of_the_likelihood(kind):
    """With every state in the batch as often as it is likely: as weights of its energy."""
    rbm = machine(*kind)
    v, p, data = visible_states(rbm), marginal(rbm), some_data(rbm)
    nll = (data * (rbm(v) + log_z(rbm))).sum()
    loss = energy.contrastive_loss(len(v) * data * rbm(v), len(v) * p * rbm(v))
    close(gradient(loss, rbm), gradient(nll, rbm))
    close(gradient(nll, rbm), expected_gradient(rbm, data, p))
    assert gradient(nll, rbm).abs().max() > 0.05
    balanced = energy.contrastive_loss(len(v) * p * rbm(v), len(v) * p * rbm(v))
    close(gradient(balanced, rbm), torch.zeros_like(gradient(nll, rbm)))


def test_the_contrastive_gradient_of_samples():
    rbm, n = machine(3, 3, 3), 100_000
    data, model = some_data(rbm), marginal(rbm)
    x = visible_states(rbm)[data.multinomial(n, replacement=True)]
    got = gradient(energy.contrastive_loss(rbm(x), rbm(draw(rbm, n))), rbm)
    check_gradient(got, rbm, data, model, n, n)


def check_gradient(got, rbm, data, model, n_data, n_model):
    """As expected under two distributions (S,), of which so many independent draws were made."""
    each = per_state_gradients(rbm)
    variance = sum(
        (p @ each.square() - (p @ each).square()) / n for p, n in ((data, n_data), (model, n_model))
    )
    error = variance.clamp(min=0).sqrt()
    assert ((got - expected_gradient(rbm, data, model)).abs() <= ROOM * error + 1e-9).all()
    return error


@both
def test_contrastive_divergence_is_biased_and_less_so_with_more_steps(kind):
    """All expectations are exact: the bias is one of the method, not of a sample."""
    rbm, n = mixing_slowly(kind), 200_000
    v, p, data, step = visible_states(rbm), marginal(rbm), some_data(rbm), transitions(rbm)
    exact = expected_gradient(rbm, data, p)
    bias = {}
    for k in (1, 2, 5, 10, 25, 100):
        after = data @ torch.linalg.matrix_power(step, k)
        bias[k] = (expected_gradient(rbm, data, after) - exact).norm() / exact.norm()
    assert bias[1] > 0.2
    assert all(more < less for less, more in itertools.pairwise(bias.values()))
    assert bias[100] < 0.01
    x = v[data.multinomial(n, replacement=True)]
    for k in (1, 5):  # what the chapter computes
        got = gradient(energy.contrastive_loss(rbm(x), rbm(energy.gibbs(rbm, x, k))), rbm)
        after = data @ torch.linalg.matrix_power(step, k)
        error = check_gradient(got, rbm, data, after, n, n)
        assert ((got - exact).abs() / error.clamp(min=1e-9)).max() > 5 * ROOM


class Still(torch.optim.SGD):
    """An optimiser that writes gradients down and moves nothing."""

    def __init__(self, model):
        first, *others = model.parameters()
        super().__init__([{"params": [first]}, {"params": others}], lr=1.0)
        self.seen, self.rates = [], []

    def step(self):
        rate, other = (group["lr"] for group in self.param_groups)
        assert rate == other
        self.rates.append(rate)
        weights = [p for group in self.param_groups for p in group["params"]]
        self.seen.append(torch.cat([p.grad.flatten() for p in weights]).clone())


def train(
    folder, model, optimizer, x, /, *, fresh, walk, y=None, prepare=None, look=False, **flags
):
    """The chapter's loop on x; returns the averaged model and the run."""
    flags = {"precision": "fp32", "out": folder, "dataset": "digits"} | flags
    run = utils.start(Config(**flags), "toy.py")
    if not look:
        run.time_to_look = lambda: False
    how = {"prepare": prepare or (lambda x, y: x), "fresh": fresh, "walk": walk, "run": run}
    picture = lambda v: torch.zeros(len(v), 1, 2, 2)
    data = (x,) if y is None else (x, y)
    return energy.train_with_samples(model, optimizer, data, picture=picture, **how), run


@pytest.mark.parametrize(
    ("training", "restart", "k"),
    [("pcd", 0.0, 1), ("pcd", 0.3, 2), ("cd", 0.0, 1), ("cd", 0.0, 3), ("short-run", 0.0, 2)],
)
def test_mean_gradients_of_each_training(training, restart, k, tmp_path):
    """While the weights stand still: pcd's in the long run is exact, that of the others is not.

    Of PCD with a share r of new chains the stationary state is known as well, from
    q = (r q_new + (1 - r) q) K^k. Correlation between steps is bounded by the second eigenvalue.
    """
    rbm, n, epochs = machine(3, 3, 3, size=2), 1024, 120
    v, p = visible_states(rbm), marginal(rbm)
    step = torch.linalg.matrix_power(transitions(rbm), k)
    base = energy.base_model(v, rbm)[0]
    with torch.no_grad():
        base.visible_bias += 0.7 * normal(6, seed=5)
    fresh, new = partial(energy.draw_base, base), marginal(base)
    numbers = some_data(rbm).multinomial(n, replacement=True)
    data = torch.bincount(numbers, minlength=len(v)).double() / n
    optimizer = Still(rbm)
    flags = {"training": training, "restart": restart, "gibbs_steps": k, "epochs": epochs}
    flags |= {"batch_size": n, "chains": 2 * n if restart else n}
    walk = partial(energy.gibbs, steps=k)
    train(tmp_path, rbm, optimizer, v[numbers], fresh=fresh, walk=walk, **flags)
    assert len(optimizer.seen) == epochs
    slow = torch.linalg.eigvals(step).abs().sort().values[-2].item()
    if training == "pcd":
        keep = torch.eye(len(v)) - (1 - restart) * step
        model = p if not restart else restart * new @ step @ torch.linalg.inv(keep)
        seen, memory = optimizer.seen[50:], (1 + slow) / (1 - slow) * (2 if restart else 1)
    else:
        model = (data if training == "cd" else new) @ step
        seen, memory = optimizer.seen, 1
    assert model.sum().item() == pytest.approx(1)
    got = torch.stack(seen).mean(dim=0)
    error = check_gradient(got, rbm, data, model, math.inf, n * len(seen) / memory)
    exact = expected_gradient(rbm, data, p)
    if (training, restart) == ("pcd", 0):
        assert (got - exact).norm() < 0.1 * exact.norm()
    else:
        assert ((got - exact).abs() / error.clamp(min=1e-9)).max() > 2 * ROOM


def test_the_loop_in_detail(tmp_path):
    """Where chains start and where they end, what is prepared, the rate, the clipped gradient."""
    rbm = machine(4, 3)
    x, y = torch.rand(40, 4, dtype=torch.float64), torch.arange(40)
    starts, prepared = [], []

    def prepare(x, y):
        prepared.append((x, y))
        return x.round()

    def walk(model, start):
        assert model is rbm
        starts.append(start.clone())
        return 1 - start

    for training in ("pcd", "cd", "short-run"):
        starts.clear()
        prepared.clear()
        optimizer = Still(rbm)
        fresh = lambda n: torch.full((n, 4), 0.25, dtype=torch.float64)
        flags = {"epochs": 10, "batch_size": 8, "chains": 8, "lr": 0.3, "clip": 1e-3}
        flags |= {"training": training, "restart": 0.0}
        how = {"fresh": fresh, "walk": walk, "prepare": prepare, "look": training == "cd"}
        _, run = train(tmp_path / training, rbm, optimizer, x, y=y, **how, **flags)
        assert len(starts) == 50
        assert all(torch.equal(x[y], rows) for rows, y in prepared)
        for i, (start, (rows, _)) in enumerate(zip(starts, prepared, strict=True)):
            if training == "cd":
                assert torch.equal(start, rows.round())
            else:
                turned = training == "pcd" and i % 2
                assert (start == (0.75 if turned else 0.25)).all()
        norms = torch.stack(optimizer.seen).norm(dim=1)
        assert norms.max() <= 1e-3 * (1 + 1e-9)
        assert min(run.series("grad_norm")[1]) > 1e-2  # as it was
        assert optimizer.rates[0] < 0.3 * optimizer.rates[10] > 0
        assert max(optimizer.rates) == pytest.approx(0.3)
        assert optimizer.rates[-1] < 0.1
        mean = rbm(x.round()).mean().item()
        data = run.series("energy_data")[1]
        assert sum(data) / len(data) == pytest.approx(mean, rel=1e-4)
        assert len(run.frames) == (0 if training != "cd" else run.looks)
    assert run.series("energy_model")[1] == pytest.approx(
        [rbm(0.75 * torch.ones(1, 4).double()).item()] * 5
    )


def test_training_finds_a_distribution_that_it_can_represent(tmp_path):
    """-log p of the data, exact by enumeration, ends near the entropy: stripes, equally likely."""
    stripes = float64([1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 1, 0], [0, 1, 0, 1])
    x = torch.cat([stripes, torch.eye(4)], dim=1).repeat(16, 1).float()  # and each has its label
    rbm = energy.build_rbm(x, 8, 4)
    base = energy.base_model(x, rbm)[0]
    optimizer = torch.optim.SGD(rbm.parameters(), lr=1.0, momentum=0.5)
    how = {"fresh": partial(energy.draw_base, base), "walk": partial(energy.gibbs, steps=2)}
    flags = {"epochs": 250, "batch_size": 64, "lr": 0.2, "restart": 0.0}

    def nll(rbm):
        return (rbm(x).mean() + energy.log_partition_exact(rbm)).item()

    before = nll(rbm)
    averaged, _ = train(tmp_path, rbm, optimizer, x, **how, **flags)
    assert before > math.log(16) + math.log(4) - 0.1
    for model in (rbm, averaged):
        assert math.log(4) - 1e-5 < nll(model) < math.log(4) + 0.8


@pytest.mark.parametrize("ema", [0.0, 0.8, 0.99])
def test_the_average_of_the_weights(ema, tmp_path):
    """Of weights that are 1 after the first step, 2 after the second, ...; none of their start."""

    class Counting(Still):
        def step(self):
            super().step()
            with torch.no_grad():
                for group in self.param_groups:
                    for p in group["params"]:
                        p.fill_(len(self.seen))

    model = machine(4, 3)
    how = {"fresh": lambda n: torch.zeros(n, 4).double(), "walk": lambda model, x: x}
    flags = {"epochs": 5, "batch_size": 8, "chains": 8, "ema": ema, "training": "pcd"}
    x = torch.zeros(64, 4, dtype=torch.float64)
    averaged, _ = train(tmp_path, model, Counting(model), x, **how, **flags)
    assert averaged is not model
    weights = torch.cat([p.flatten() for p in averaged.parameters()])
    assert (weights == weights[0]).all()
    assert all((p == 40).all() for p in model.parameters())
    expected = 0.0
    for step in range(40):
        decay = min(ema, step / (step + 10))
        expected = decay * expected + (1 - decay) * (step + 1)
    assert weights[0].item() == pytest.approx(expected, rel=1e-6)
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["objects"]["ema"]
    assert (saved["weight"] == weights[0]).all()


# --- The replay buffer


def buffer(size=100, share=0.0):
    """States that say which chain they are, and new ones that are below 0."""
    chains = ReplayBuffer(lambda n: -torch.rand(n, 2, 1) - 1e-6, size, share)
    assert (chains.states < 0).all()
    assert chains.states.shape == (size, 2, 1)
    chains.states = torch.arange(float(size))[:, None, None].repeat(1, 2, 1)
    return chains


def test_chains_are_drawn_without_replacement_and_all_of_them_alike():
    chains, seen = buffer(), torch.zeros(100)
    for _ in range(2000):
        index, x = chains.draw(30)
        assert index.shape == (30,)
        assert len(index.unique()) == 30
        assert torch.equal(x, index[:, None, None].float().repeat(1, 2, 1))
        seen[index] += 1
    assert ((seen - 600).abs() < ROOM * math.sqrt(2000 * 0.3 * 0.7)).all()
    assert sorted(chains.draw(100)[0].tolist()) == list(range(100))


def test_chains_go_on_where_they_ended():
    chains = buffer()
    index, x = chains.draw(30)
    before = chains.states.clone()
    chains.put_back(index, x + 1000)
    moved = torch.zeros(100, dtype=torch.bool)
    moved[index] = True
    assert torch.equal(chains.states[moved], before[moved] + 1000)
    assert torch.equal(chains.states[~moved], before[~moved])
    again, x = chains.draw(100)
    assert torch.equal(x, chains.states[again])


@pytest.mark.parametrize("share", [0.0, 0.05, 0.4])
def test_a_share_starts_anew(share):
    chains, anew, n = buffer(share=share), 0, 1000
    places = torch.zeros(50)
    for _ in range(n):
        before = chains.states.clone()
        index, x = chains.draw(50)
        assert torch.equal(chains.states, before)  # drawing alone changes nothing
        new = (x < 0).flatten(1).all(dim=1)
        assert torch.equal(x[~new], chains.states[index[~new]])
        anew, places = anew + new.sum().item(), places + new
    assert abs(anew - share * 50 * n) <= ROOM * math.sqrt(50 * n * share * (1 - share))
    assert ((places - share * n).abs() <= ROOM * math.sqrt(n * share * (1 - share))).all()


def test_a_buffer_survives_a_checkpoint():
    chains, other = buffer(), buffer()
    chains.put_back(*chains.draw(50)[:1], torch.full((50, 2, 1), 7.0))
    assert not torch.equal(chains.states, other.states)
    other.load_state_dict(chains.state_dict())
    assert torch.equal(chains.states, other.states)
    assert not [*chains.parameters()]


# --- log Z by annealing


def path_between(base, rbm, steps):
    return (energy.tempered(base, rbm, b) for b in torch.linspace(0, 1, steps + 1).tolist())


def annealed(rbm, n, steps, seed=0):
    """Log weights of n chains, the states they end in, and the exact log Z of both ends."""
    torch.manual_seed(seed)
    with torch.no_grad():
        base, base_log_z = energy.base_model(visible_states(rbm), rbm)  # each unit on half the time
    path = path_between(base, rbm, steps)
    log_w, v = energy.annealed_importance_sampling(path, energy.draw_base(base, n))
    assert log_w.shape == (n,)
    assert log_w.dtype == torch.float64
    return log_w, v, base_log_z, log_z(rbm).item()


@kinds
def test_the_base_has_independent_units_as_often_on_as_in_the_data(kind):
    rbm = machine(*kind)
    v = draw(rbm, 300)
    v[:, 0] = 1  # always on, which no model may be sure of
    base, base_log_z = energy.base_model(v, rbm)
    assert (base.pixels, base.num_classes) == (kind[0], kind[2])
    assert base_log_z == pytest.approx(log_z(base).item(), abs=1e-9)
    assert energy.log_partition_exact(base).item() == pytest.approx(base_log_z, abs=1e-9)
    p, states = marginal(base), visible_states(base)
    on = v.mean(dim=0).clamp(1e-3, 1 - 1e-3)
    if kind[2]:
        on[kind[0] :] /= on[kind[0] :].sum()
    close(p @ states, on)
    pixels, label = on.tensor_split((kind[0],))
    each = torch.where(states[:, : kind[0]].bool(), pixels, 1 - pixels).prod(dim=1)
    if kind[2]:
        each = each * (states[:, kind[0] :] * label).sum(dim=1)
    close(p, each)
    check_counts(energy.draw_base(base, 50_000).detach(), states, p)


@both
def test_tempered_models_lead_from_one_to_the_other(kind):
    base, rbm = machine(*kind, seed=5), machine(*kind)
    v = visible_states(rbm)
    for beta, end in ((0.0, base), (1.0, rbm)):
        for name, p in energy.tempered(base, rbm, beta).named_parameters():
            assert torch.equal(p, end.get_parameter(name))
    between = energy.tempered(base, rbm, 0.3)
    assert (between.pixels, between.num_classes) == (rbm.pixels, rbm.num_classes)
    close(log_joint(between), 0.7 * log_joint(base) + 0.3 * log_joint(rbm))
    close(between(v), -(0.7 * log_joint(base) + 0.3 * log_joint(rbm)).logsumexp(dim=1))


@both
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_the_mean_weight_is_unbiased_however_short_the_path(kind, steps):
    """And weighted ends are samples of the last model: both follow from the extended space."""
    rbm = mixing_slowly(kind)
    log_w, v, base_log_z, exact = annealed(rbm, 200_000, steps)
    ratio = (log_w - (exact - base_log_z)).exp()
    check_mean(ratio[:, None], float64(1))
    assert ratio.std() > 0.3  # far from exact, each of them
    states = visible_states(rbm)
    on = torch.nn.functional.one_hot(which(v, states), len(states))
    likely = marginal(rbm) > 2e-3
    assert likely.sum() > 5
    check_mean((ratio[:, None] * on)[:, likely], marginal(rbm)[likely])
    if steps == 1:  # importance sampling, but the weight belongs to the state that was left
        alone = on.double().mean(dim=0)
        assert (alone - marginal(rbm)).abs().max() > 0.02


@both
def test_the_expected_weight_of_each_state_that_it_starts_from(kind):
    """Matrix products instead of chains: E[w | v_0] of a path of three models, by enumeration."""
    rbm, n = mixing_slowly(kind), 20_000
    base = energy.base_model(visible_states(rbm), rbm)[0]
    models = [energy.tempered(base, rbm, b) for b in (0.0, 0.6, 1.0)]
    free = [-log_joint(m).logsumexp(dim=1).detach() for m in models]
    first, second = (free[0] - free[1]).exp(), (free[1] - free[2]).exp()
    expected = first * (transitions(models[1]) @ second)
    start = visible_states(rbm)
    many = start.repeat(n, 1)
    log_w, _ = energy.annealed_importance_sampling(iter(models), many)
    check_mean(log_w.exp().view(n, -1), expected)
    close(
        energy.annealed_importance_sampling(iter(models[:1]), start)[0], torch.zeros_like(free[0])
    )
    two, _ = energy.annealed_importance_sampling(iter(models[:2]), start)
    close(two, first.log())  # of two models there is no chance in it


@torch.no_grad()
def test_there_and_back_bracket_log_z_on_average():
    """Five chains on a short path: too low on the way there, from the model too high (Jensen)."""
    rbm, runs, chains = mixing_slowly((3, 3, 3)), 2000, 5
    base, base_log_z = energy.base_model(visible_states(rbm), rbm)
    exact = log_z(rbm).item()
    betas = [0.0, 0.5, 1.0]
    forth = (energy.tempered(base, rbm, b) for b in betas)
    back = (energy.tempered(base, rbm, b) for b in betas[::-1])
    there, _ = energy.annealed_importance_sampling(forth, energy.draw_base(base, chains * runs))
    again, ends = energy.annealed_importance_sampling(back, draw(rbm, chains * runs))
    low = base_log_z + there.view(runs, chains).logsumexp(dim=1) - math.log(chains)
    high = base_log_z - again.view(runs, chains).logsumexp(dim=1) + math.log(chains)
    for gap in (exact - low, high - exact):
        assert gap.mean() > ROOM * gap.std() / math.sqrt(runs)
        assert gap.min() < 0  # on average, not each of them
    ratio = (again - (base_log_z - exact)).exp()
    check_mean(ratio[:, None], float64(1))
    assert ends.shape == (chains * runs, 6)


@torch.no_grad()
def test_intervals_cover_as_often_as_they_say():
    """300 runs of 50 chains on a long path, where weights are nearly alike: near 95%."""
    rbm, runs, chains = machine(4, 3, size=1.2), 300, 50
    log_w, _, base_log_z, exact = annealed(rbm, runs * chains, 60)
    results = [energy.log_mean_with_error(row) for row in log_w.view(runs, chains)]
    estimate, error = torch.tensor(results, dtype=torch.float64).T
    covered = ((base_log_z + estimate - exact).abs() < 1.96 * error).double().mean().item()
    assert covered == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / runs))
    assert (base_log_z + estimate - exact).std().item() == pytest.approx(
        error.mean().item(), rel=0.2
    )


@pytest.mark.parametrize("shift", [0.0, 2000.0, -2000.0])
def test_the_log_of_a_mean_and_its_error(shift):
    """Of lognormal weights both are known, and a bootstrap says the same without a formula."""
    n, s = 40_000, 0.7
    log_w = shift + 1.5 + s * normal(n)
    estimate, error = energy.log_mean_with_error(log_w)
    assert error == pytest.approx(math.sqrt((math.exp(s**2) - 1) / n), rel=0.05)
    assert estimate == pytest.approx(shift + 1.5 + s**2 / 2, abs=4 * error)
    assert estimate == pytest.approx(logsumexp(log_w.numpy()) - math.log(n), abs=1e-9)
    few = log_w[:400] - shift
    again = few[torch.randint(400, (2000, 400))].logsumexp(dim=1) - math.log(400)
    assert energy.log_mean_with_error(few)[1] == pytest.approx(again.std().item(), rel=0.12)
    estimate, error = energy.log_mean_with_error(torch.full((10,), shift, dtype=torch.float64))
    assert (estimate, error) == pytest.approx((shift, 0.0), abs=1e-9)


def small_config(**flags):
    return Config(**({"ais_chains": 200, "ais_temperatures": 40, "hidden": 3} | flags))


@both
def test_log_z_is_reported_with_its_interval(kind):
    rbm = machine(*kind)
    v = draw(rbm, 500)
    got = energy.log_partition(rbm, v, draw(rbm, 300), small_config())
    exact, log = log_z(rbm).item(), got["log_partition_nats"]
    assert got["log_partition_nats_exact"] == pytest.approx(exact, abs=1e-9)
    error = (got["log_partition_nats_high"] - got["log_partition_nats_low"]) / (2 * 1.96)
    assert 1e-4 < error < 0.05
    assert got["log_partition_nats_high"] - log == pytest.approx(1.96 * error)
    assert abs(log - exact) < 4 * error
    assert abs(got["log_partition_nats_reverse"] - exact) < 8 * error
    assert abs(energy.base_model(v, rbm)[1] - exact) > 20 * error
    many = energy.log_partition(rbm, v, v, small_config(hidden=21))
    assert "log_partition_nats_exact" not in many


def test_the_sides_of_a_short_path():
    """The estimate from samples of the model is from above, the other from below, in the report."""
    rbm = mixing_slowly((3, 3, 3))
    v, exact, low, high = visible_states(rbm), log_z(rbm).item(), [], []
    for _ in range(400):
        got = energy.log_partition(
            rbm, v, draw(rbm, 3), small_config(ais_chains=3, ais_temperatures=1)
        )
        low.append(got["log_partition_nats"] - exact)
        high.append(got["log_partition_nats_reverse"] - exact)
    for values, sign in ((low, -1), (high, 1)):
        values = sign * torch.tensor(values)
        assert values.mean() > 4 * values.std() / math.sqrt(400)


@pytest.fixture(scope="module")
def digits_rbm():
    """20 hidden units, trained for a second on digits of 8 x 8 pixels and their labels."""
    torch.manual_seed(0)
    data = utils.load_images("digits")
    v = torch.bernoulli(data.train).flatten(1)
    v = torch.cat([v, torch.nn.functional.one_hot(data.train_labels)], dim=1)
    rbm = energy.build_rbm(v, 20, 10)
    optimizer = torch.optim.SGD(rbm.parameters(), lr=0.05, momentum=0.5)
    chains = energy.draw_base(energy.base_model(v, rbm)[0], 64).detach()
    for _ in range(800):
        x = v[torch.randint(len(v), (64,))]
        chains = energy.gibbs(rbm, chains)
        loss = energy.contrastive_loss(rbm(x), rbm(chains))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return rbm.requires_grad_(False), v


def test_annealing_agrees_with_enumeration_for_20_hidden_units(digits_rbm):
    """Ten seeds: 95% intervals miss more than two times in ten with a chance of 1.2% only.

    100 chains and 600 temperatures each, all seeds side by side; 2^20 terms for the exact sum.
    """
    rbm, v = digits_rbm
    exact = energy.log_partition_exact(rbm, rows=1 << 14).item()
    base, base_log_z = energy.base_model(v, rbm)
    assert abs(exact - base_log_z) > 3  # it has learned
    assert rbm(v).mean().item() + exact < base(v).mean().item() + base_log_z - 3
    starts = []
    for seed in range(10):
        torch.manual_seed(seed)
        starts.append(energy.draw_base(base, 100))
    log_w, _ = energy.annealed_importance_sampling(path_between(base, rbm, 600), torch.cat(starts))
    results = [energy.log_mean_with_error(row) for row in log_w.view(10, 100)]
    off = [abs(base_log_z + estimate - exact) / error for estimate, error in results]
    assert sum(o < 1.96 for o in off) >= 8, off
    assert max(off) < 4
    assert max(error for _, error in results) < 0.15


# --- Langevin dynamics


class Gaussian(nn.Module):
    """The energy of N(mean, cov), without its log Z, which is known."""

    def __init__(self, mean, cov):
        super().__init__()
        self.mean, self.precision = mean, torch.linalg.inv(cov)
        self.log_z = 0.5 * torch.logdet(2 * math.pi * cov).item()

    def forward(self, x):
        centred = x - self.mean.to(x)
        return 0.5 * ((centred @ self.precision.to(x)) * centred).sum(dim=1)


MEAN, COV = float64(1.0, -2.0), float64([1.0, 0.6], [0.6, 0.5])


def along_axes(x):
    """Of points (N, 2), what they are along the axes of COV, and its variances there."""
    variances, axes = torch.linalg.eigh(COV)
    return (x - MEAN) @ axes, variances


def check_variances(along, expected):
    check_mean(along, torch.zeros(2))
    check_mean(along.square(), expected)
    check_mean(along.prod(dim=1, keepdim=True), torch.zeros(1))


def test_small_steps_reach_the_gaussian():
    x = energy.langevin(Gaussian(MEAN, COV), normal(8000, 2), 400, 0.04)
    along, variances = along_axes(x)
    check_variances(along, variances / (1 - 0.04 / (4 * variances)))
    close(x.T.cov(), COV, atol=0.08, rtol=0)
    close(x.mean(dim=0), MEAN, atol=0.06, rtol=0)


@pytest.mark.parametrize("temperature", [1.0, 0.25])
@pytest.mark.parametrize("step", [0.08, 0.2])
def test_larger_steps_are_biased_as_the_formula_says(step, temperature):
    """Variance T s^2 / (1 - step / (4 s^2)) along each axis; notes/07 section 8."""
    x = energy.langevin(Gaussian(MEAN, COV), normal(20_000, 2), 200, step, temperature)
    along, variances = along_axes(x)
    assert variances[0] < 0.1 < variances[1]
    expected = temperature * variances / (1 - step / (4 * variances))
    check_variances(along, expected)
    assert expected[0] > 1.2 * temperature * variances[0]  # not a small effect


def test_one_step_is_half_a_gradient_and_noise():
    gaussian, x = Gaussian(MEAN, COV), float64(3, 1).repeat(50_000, 1)
    for temperature in (1.0, 0.3):
        after = energy.langevin(gaussian, x, 1, 0.1, temperature)
        check_mean(after, x[0] - 0.05 * torch.linalg.inv(COV) @ (x[0] - MEAN))
        noise = after - after.mean(dim=0)
        check_mean(noise.square(), torch.full((2,), 0.1 * temperature))
        check_mean(noise.prod(dim=1, keepdim=True), torch.zeros(1))


def test_without_temperature_it_is_gradient_descent():
    along, variances = along_axes(normal(5, 2))
    x = energy.langevin(Gaussian(MEAN, COV), normal(5, 2), 7, 0.05, 0.0)
    close(along_axes(x)[0], (1 - 0.025 / variances) ** 7 * along)
    assert torch.equal(energy.langevin(Gaussian(MEAN, COV), normal(5, 2), 0, 0.05), normal(5, 2))


def test_chains_explode_beyond_four_variances():
    smallest = torch.linalg.eigvalsh(COV)[0].item()
    for share, explodes in ((0.9, False), (1.1, True)):
        x = energy.langevin(Gaussian(MEAN, COV), normal(500, 2), 300, share * 4 * smallest)
        assert (x.abs().max() > 100) == explodes


def test_a_box_holds_the_chains_at_every_step():
    flat = lambda x: 0 * x.sum(dim=(1, 2))
    x = energy.langevin(flat, torch.full((2000, 1, 2), 0.5), 200, 0.05, box=(0.0, 1.0))
    assert x.min() == 0
    assert x.max() == 1
    slope = lambda x: 10 * x.sum(dim=1) - 100 * x.clamp(max=-0.1).sum(dim=1)
    x = energy.langevin(slope, torch.tensor([[0.3]]), 3, 0.1, 0.0, box=(0.0, 1.0))
    assert x.item() == 0  # had it left the box after one step, the next would lead it up
    assert x.grad_fn is None


def test_dynamics_leave_no_trace():
    net = shaken(energy.PlaneEnergy(8, 2.0))
    x = normal(5, 2).requires_grad_()
    out = energy.langevin(net, x, 3, 0.1)
    assert not out.requires_grad
    assert all(p.grad is None for p in net.parameters())
    assert x.grad is None
    assert torch.equal(x, normal(5, 2))


# --- Scores


def mixture():
    weights = Categorical(probs=float64(0.2, 0.5, 0.3))
    parts = MultivariateNormal(normal(3, 2, seed=3), COV.expand(3, 2, 2) / 4)
    return MixtureSameFamily(weights, parts)


def test_the_score_is_the_gradient_of_log_prob():
    """Whatever constant the energy leaves out, and without a gradient around it too."""
    for truth in (MultivariateNormal(MEAN, COV), mixture()):
        x = normal(6, 2).requires_grad_()
        (expected,) = torch.autograd.grad(truth.log_prob(x).sum(), x)
        for constant in (0, 7):
            got = energy.score(lambda x, t=truth, c=constant: c - t.log_prob(x), x)
            close(got, expected)
            assert not got.requires_grad
        with torch.no_grad():
            close(energy.score(lambda x, t=truth: -t.log_prob(x), x), expected)
    x = normal(6, 2)
    close(energy.score(Gaussian(MEAN, COV), x), -(x - MEAN) @ torch.linalg.inv(COV))
    assert not x.requires_grad


def test_scores_can_be_learned_from():
    """d/d lambda of |score|^2 where the score is -lambda x."""
    scale = float64(0.7).requires_grad_()
    x = normal(4, 2)
    s = energy.score(lambda x: 0.5 * scale * x.square().sum(dim=1), x, create_graph=True)
    close(torch.autograd.grad(s.square().sum(), scale)[0][0], 2 * 0.7 * x.square().sum())


class Round(nn.Module):
    """E(x) = precision |x - mean|^2 / 2, both of which can be learned."""

    def __init__(self, mean=(0.0, 0.0), precision=1.0):
        super().__init__()
        self.mean = nn.Parameter(float64(*mean))
        self.precision = nn.Parameter(float64(precision)[0])

    def forward(self, x):
        return 0.5 * self.precision * (x - self.mean).square().sum(dim=1)


def gradients_in_parts(loss_of, model, parts):
    """Gradients (parts, parameters) of the mean of losses on independent parts."""
    rows = (torch.autograd.grad(loss_of().mean(), [*model.parameters()]) for _ in range(parts))
    return torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])


def test_denoising_finds_the_gaussian_of_the_noisy_data():
    """p * N(0, sigma^2) has variance s^2 + sigma^2: there the gradient is 0, and the loss least."""
    mean, s, sigma, n = float64(1.0, -0.5), 0.8, 0.6, 100_000
    x = mean + s * normal(n, 2)
    best = 1 / (s**2 + sigma**2)

    def expected(precision, off):  # the mean of 0.5 |sigma score + eps|^2, two coordinates
        there = precision**2 * (s**2 + sigma**2 + off**2)
        return sigma**2 * there - 2 * precision * sigma**2 + 1

    losses = {}
    for precision in (0.5 * best, best, 1.3 * best, 1 / s**2):
        for off in (0.0, 0.4):
            model = Round((mean + off).tolist(), precision)
            loss = energy.denoising_score_matching(model, x, sigma)
            assert loss.shape == (n,)
            check_mean(loss[:, None], float64(expected(precision, off)))
            losses[precision, off] = loss.mean().item()
    assert min(losses, key=losses.get) == (best, 0.0)
    model = Round(mean.tolist(), best)
    loss_of = lambda: energy.denoising_score_matching(model, mean + s * torch.randn_like(x), sigma)
    check_mean(gradients_in_parts(loss_of, model, 20), torch.zeros(3))
    wrong = Round(mean.tolist(), 1 / s**2)  # the density of the clean data is not the minimum
    (slope,) = torch.autograd.grad(
        energy.denoising_score_matching(wrong, x, sigma).mean(), wrong.precision
    )
    assert slope.item() == pytest.approx(2 * sigma**2 * (sigma**2 / s**2), rel=0.05)


def test_noise_comes_in_pairs_of_either_sign():
    """What is odd in eps cancels: for a Gaussian only a multiple of |eps|^2 is left to chance."""
    model, sigma, n = Round((0.3, -0.2), 0.9), 0.7, 50_000
    x = normal(1, 2).repeat(n, 1)
    loss = energy.denoising_score_matching(model, x, sigma).detach()
    fixed = 0.5 * (sigma * 0.9 * (x[0] - model.mean.detach())).square().sum()
    chance = (loss - fixed) / (0.5 * (1 - 0.9 * sigma**2) ** 2)
    assert chance.min() >= -1e-9  # it would be negative at times, were there a cross term
    check_mean(chance[:, None], float64(2))
    check_mean((chance[:, None] - 2).square(), float64(4))  # chi^2 with two degrees of freedom


def small_net(dims, seed=0):
    """A curved energy with a bowl, at random weights."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = shaken(
                nn.Sequential(nn.Linear(dims, 6), nn.Tanh(), nn.Linear(6, 1)), 0.8, seed
            )

        def forward(self, x):
            return self.net(x)[:, 0] + 0.4 * x.square().sum(dim=1)

    return Net()


def test_denoising_matches_the_score_of_the_smoothed_data():
    """Vincent's theorem at random weights: the gradient is that of the squared distance of scores.

    The smoothed density of three points is a mixture of Gaussians, its integral a sum on a grid.
    """
    points, sigma, model = float64(-1.0, 0.2, 1.5)[:, None], 0.5, small_net(1)
    truth = MixtureSameFamily(Categorical(probs=torch.ones(3)), Normal(points[:, 0], sigma))
    t = torch.linspace(-6, 6, 4001, dtype=torch.float64)[:, None].requires_grad_()
    log_p = truth.log_prob(t[:, 0])
    (true_score,) = torch.autograd.grad(log_p.sum(), t)
    distance = (energy.score(model, t, create_graph=True) - true_score).square().sum(dim=1)
    explicit = 0.5 * sigma**2 * (log_p.detach().exp() * distance).sum() * (12 / 4000)
    weights = [p for name, p in model.named_parameters() if name != "net.2.bias"]
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(explicit, weights)])
    model.net[2].bias.requires_grad_(False)  # a constant in the energy has no part in its score
    model.parameters = lambda: iter(weights)
    x = points.repeat(3000, 1)
    loss_of = lambda: energy.denoising_score_matching(model, x, sigma)
    got = gradients_in_parts(loss_of, model, 40)
    check_mean(got, expected)
    assert (expected.abs() > 10 * got.std(dim=0) / math.sqrt(40)).sum() > 6


def hyvarinen(model, x):
    """trace(grad score) + 0.5 |score|^2 with the whole Hessian."""
    score, losses = energy.score(model, x, create_graph=True), []
    for row, s in zip(x, score, strict=True):
        H = torch.autograd.functional.hessian(
            lambda v: model(v[None])[0], row.detach(), create_graph=True
        )
        losses.append(-H.trace() + 0.5 * s.square().sum())
    return torch.stack(losses)


def test_sliced_score_matching_is_hyvarinens_objective_on_average():
    """Values and gradients, at random weights in three dimensions."""
    model, x, n = small_net(3), normal(4, 3), 20_000
    exact = hyvarinen(model, x)
    loss = energy.sliced_score_matching(model, x.repeat(n, 1)).view(n, 4)
    check_mean(loss.detach(), exact.detach())
    weights = [p for name, p in model.named_parameters() if name != "net.2.bias"]
    model.parameters = lambda: iter(weights)
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(exact.mean(), weights)])
    loss_of = lambda: energy.sliced_score_matching(model, x.repeat(500, 1))
    got = gradients_in_parts(loss_of, model, 40)
    check_mean(got, expected)
    assert (expected.abs() > 10 * got.std(dim=0) / math.sqrt(40)).sum() > 6


def test_sliced_score_matching_is_exact_where_coordinates_do_not_mix():
    """With directions of +-1 the diagonal of the Hessian counts once whatever the draw."""
    model, x = Round((0.3, -0.2), 0.9), normal(50, 2)
    loss = energy.sliced_score_matching(model, x)
    close(loss, -2 * 0.9 + 0.5 * (0.9 * (x - model.mean)).square().sum(dim=1))


def test_sliced_score_matching_finds_the_gaussian_of_the_data():
    mean, s, n = float64(1.0, -0.5), 0.8, 200_000
    x = mean + s * normal(n, 2)
    losses = {}
    for precision in (0.6 / s**2, 1 / s**2, 1.5 / s**2):
        for off in (0.0, 0.4):
            model = Round((mean + off).tolist(), precision)
            loss = energy.sliced_score_matching(model, x)
            losses[precision, off] = loss.mean().item()
            expected = precision**2 * (s**2 + off**2) - 2 * precision
            check_mean(loss.detach()[:, None], float64(expected))
    assert min(losses, key=losses.get) == (1 / s**2, 0.0)
    model = Round(mean.tolist(), 1 / s**2)
    loss_of = lambda: energy.sliced_score_matching(model, mean + s * torch.randn(5000, 2).double())
    check_mean(gradients_in_parts(loss_of, model, 40), torch.zeros(3))


# --- Noise-contrastive estimation


def test_the_noise_contrastive_loss_is_logistic_regression():
    """Per example: the log-odds that it is data, and that a fresh piece of noise is not."""
    truth, noise = MultivariateNormal(MEAN, COV), MultivariateNormal(MEAN + 1, 2 * COV)
    model, x = Gaussian(MEAN, COV), truth.sample((500,))
    drawn = noise.sample((500,))

    class Drawn:
        log_prob = noise.log_prob

        @staticmethod
        def sample(shape):
            assert tuple(shape) == (500,)
            return drawn

    loss = energy.noise_contrastive(model, torch.tensor(model.log_z), x, Drawn())
    p, q = (lambda x, d=d: d.log_prob(x).exp() for d in (truth, noise))
    expected = -(p(x) / (p(x) + q(x))).log() - (q(drawn) / (p(drawn) + q(drawn))).log()
    close(loss, expected)


def test_if_the_noise_is_the_data_nothing_can_be_told():
    model, noise = Gaussian(MEAN, COV), MultivariateNormal(MEAN, COV)
    loss = energy.noise_contrastive(model, torch.tensor(model.log_z), normal(50, 2), noise)
    close(loss, torch.full((50,), 2 * math.log(2), dtype=torch.float64))


def test_noise_contrastive_estimation_finds_energy_and_log_z():
    """At E = -log p + c and log Z = c the gradient is 0 and the loss least; known by quadrature."""
    truth, noise = MultivariateNormal(MEAN, COV), MultivariateNormal(MEAN, 3 * COV)
    precision = torch.linalg.inv(COV)

    class Learned(nn.Module):
        def __init__(self):
            super().__init__()
            self.mean, self.precision = nn.Parameter(MEAN.clone()), nn.Parameter(precision.clone())
            self.log_z = nn.Parameter(float64(Gaussian(MEAN, COV).log_z)[0])

        def forward(self, x):
            return Gaussian.forward(self, x)

    model = Learned()
    loss_of = lambda: energy.noise_contrastive(model, model.log_z, truth.sample((4000,)), noise)
    got = gradients_in_parts(loss_of, model, 30)
    check_mean(got, torch.zeros(7))
    assert got.std(dim=0).max() / math.sqrt(30) < 0.02
    # the least loss is 2 log 2 - 2 JS(p, q), an integral
    t = (torch.arange(400, dtype=torch.float64) + 0.5) / 400 * 24 - 12
    grid = torch.cartesian_prod(t, t)
    p, q = (d.log_prob(grid) for d in (truth, noise))
    either = torch.logaddexp(p, q)
    least = -(p.exp() * (p - either) + q.exp() * (q - either)).sum().item() * (24 / 400) ** 2
    torch.manual_seed(1)
    loss = energy.noise_contrastive(model, model.log_z, truth.sample((100_000,)), noise)
    check_mean(loss.detach()[:, None], float64(least))
    x, losses = truth.sample((100_000,)), []
    for off in (-0.2, -0.1, 0.0, 0.1, 0.2):
        torch.manual_seed(2)
        losses.append(energy.noise_contrastive(model, model.log_z + off, x, noise).mean().item())
    assert losses.index(min(losses)) == 2


def test_each_training_in_the_plane_has_its_loss():
    points = (3 + 2 * normal(4000, 2)).float()
    model = energy.PlaneEnergy(8, 3.0)
    own = {
        "dsm": lambda net, x: energy.denoising_score_matching(net, x, 0.3),
        "ssm": energy.sliced_score_matching,
    }
    for training, loss in own.items():
        config = Config(model="score", training=training, sigma=0.3)
        got = energy.matching_loss(model, points, config)
        results = []
        for f in (got, loss):
            torch.manual_seed(0)
            results.append(f(model, points[:50]))
        assert torch.equal(*results)
        assert not hasattr(model, "log_partition")
    loss = energy.matching_loss(model, points, Config(model="score", training="nce"))
    assert model.log_partition.item() == 0
    assert "log_partition" in dict(model.named_parameters())
    noise = MultivariateNormal(points.mean(dim=0), points.T.cov())
    torch.manual_seed(0)
    expected = energy.noise_contrastive(model, model.log_partition, points[:50], noise)
    torch.manual_seed(0)
    close(loss(model, points[:50]), expected)
    loss(model, points).mean().backward()
    assert model.log_partition.grad.abs() > 1e-3


# --- Energies in the plane, with log Z on a grid


WINDOW = (-6.0, 8.0, -9.0, 3.0)  # off the centre, and no square


def test_log_z_of_a_gaussian_on_a_grid():
    gaussian = Gaussian(MEAN, COV)
    mass, log = energy.grid_log_masses(lambda x: -gaussian(x.double()), WINDOW, 200)
    assert mass.shape == (200 * 200,)
    assert log == pytest.approx(gaussian.log_z, abs=1e-5)
    truth = MultivariateNormal(MEAN, COV)
    mass, log = energy.grid_log_masses(lambda x: truth.log_prob(x.double()), WINDOW, 200)
    assert log == pytest.approx(0, abs=1e-5)
    assert mass.exp().sum().item() == pytest.approx(1, abs=1e-5)
    _, half = energy.grid_log_masses(
        lambda x: truth.log_prob(x.double()), (1.0, 8.0, -9.0, 3.0), 300
    )
    assert half == pytest.approx(math.log(0.5), abs=0.02)  # cut at its mean along x
    _, part = energy.grid_log_masses(lambda x: -0 * x[:, 0], (0.0, 2.0, 1.0, 4.0), 50)
    assert part == pytest.approx(math.log(6))


def test_the_distance_to_the_truth_on_a_grid():
    """0 for the truth whatever constant the energy has, and the closed form for two Gaussians."""
    truth = MultivariateNormal(MEAN, COV)
    log_prob = lambda x: truth.log_prob(x.double())
    log, kl = energy.compare_on_grid(Gaussian(MEAN, COV), log_prob, WINDOW)
    assert log == pytest.approx(Gaussian(MEAN, COV).log_z, abs=1e-4)
    assert kl == pytest.approx(0, abs=1e-6)

    class Lifted(Gaussian):
        def forward(self, x):
            return super().forward(x) + 100

    log, kl = energy.compare_on_grid(Lifted(MEAN, COV), log_prob, WINDOW)
    assert log == pytest.approx(Gaussian(MEAN, COV).log_z - 100, abs=1e-3)
    assert kl == pytest.approx(0, abs=1e-4)
    mean, cov = MEAN + float64(0.5, -0.3), float64([1.5, -0.2], [-0.2, 0.8])
    _, kl = energy.compare_on_grid(Gaussian(mean, cov), log_prob, WINDOW)
    other = MultivariateNormal(mean, cov)
    assert kl == pytest.approx(torch.distributions.kl_divergence(truth, other).item(), abs=2e-3)
    backward = torch.distributions.kl_divergence(other, truth).item()
    assert abs(kl - backward) > 0.5  # which way round matters here


def test_a_truth_that_is_zero_somewhere_is_at_a_finite_distance():
    """From one half of the plane to a Gaussian around it: log 2."""
    half = lambda x: (
        MultivariateNormal(MEAN, COV).log_prob(x.double()).masked_fill(x[:, 0] < MEAN[0], -math.inf)
    )
    _, kl = energy.compare_on_grid(Gaussian(MEAN, COV), half, WINDOW)
    assert kl == pytest.approx(math.log(2), abs=0.02)


def test_far_out_the_bowl_wins():
    model = shaken(energy.PlaneEnergy(16, 2.5), 0.3)
    x = normal(20, 2)
    close(model(x), model.net(x)[:, 0] + x.square().sum(dim=1) / (2 * 2.5**2))
    far = 1e4 * x / x.norm(dim=1, keepdim=True)
    assert (model(far) / (1e8 / (2 * 2.5**2)) - 1).abs().max() < 0.05
    zero = energy.PlaneEnergy(16, 2.5).double()
    with torch.no_grad():
        for p in zero.parameters():
            p.zero_()
    _, log = energy.grid_log_masses(lambda x: -zero(x.double()), (-20.0, 20.0, -20.0, 20.0), 300)
    assert log == pytest.approx(math.log(2 * math.pi * 2.5**2), abs=1e-3)  # that of N(0, radius^2)


@pytest.mark.parametrize("training", ["dsm", "ssm", "nce", "pcd"])
def test_every_training_in_the_plane_finds_two_bumps(training, tmp_path):
    """The KL that is left, exact on a grid, to the truth, or to the noisy one that dsm learns."""

    def truth(variance):
        means = float64([-1.2, 0.5], [1.0, -0.5])
        bumps = MultivariateNormal(means, variance * torch.eye(2, dtype=torch.float64))
        return MixtureSameFamily(Categorical(probs=float64(0.3, 0.7)), bumps)

    def compare(model):
        goal = truth(0.3 + (0.2**2 if training == "dsm" else 0))
        window = (-6.0, 6.0, -6.0, 5.0)
        return energy.compare_on_grid(model, lambda x: goal.log_prob(x.double()), window)

    x, model = truth(0.3).sample((2048,)).float(), energy.PlaneEnergy(16, 3.0)
    _, before = compare(model)
    flags = {"model": "score", "dataset": "moons", "training": training, "epochs": 20, "lr": 1e-2}
    flags |= {"batch_size": 256, "sigma": 0.2, "restart": 0.05, "chains": 512}
    if training == "pcd":
        optimizer = torch.optim.Adam(model.parameters(), betas=(0.9, 0.99))
        how = {"fresh": lambda n: 1.5 * torch.randn(n, 2)}
        how |= {"walk": lambda model, x: energy.langevin(model, x, 5, 0.05)}
        model, run = train(tmp_path, model, optimizer, x, **how, **flags)
    else:
        config = Config(out=tmp_path, precision="fp32", **flags)
        run = utils.start(config, "toy.py")
        run.time_to_look = lambda: False
        loss_of = energy.matching_loss(model, x, config)
        energy.train_without_samples(model, loss_of, x, lambda: None, run)
        logged = run.series(training)[1]
        assert len(logged) == 16
        assert logged[-1] < logged[0]
    log, after = compare(model)
    assert before > 1.5
    assert after < (0.35 if training == "pcd" else 0.1)
    if training == "nce":
        assert model.log_partition.item() == pytest.approx(log, abs=0.1)


# --- The deep energy


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 7, 13), (1, 8, 8), (2, 1, 9)])
def test_pictures_of_any_size_and_colour_have_an_energy(shape):
    model = energy.ConvEnergy(shape, 4)
    x = torch.rand(3, *shape)
    assert model(x).shape == (3,)
    model = shaken(model, 0.1)
    s = energy.score(model, x.double())
    assert s.shape == x.shape
    assert (s.abs() > 0).all()  # every pixel has a say


def test_the_energy_of_a_picture_is_its_own():
    model = shaken(energy.ConvEnergy((1, 8, 8), 4), 0.1)
    x = torch.rand(6, 1, 8, 8, dtype=torch.float64)
    order = torch.tensor([3, 1, 4, 0, 2, 5])
    for training in (True, False):
        model.train(training)
        close(model(x)[order], model(x[order]))
        close(model(x)[:1], model(x[:1]))
    assert model(x).std() > 1e-3
    moved = x.clone()
    moved[1:] = 0
    close(model(moved)[0], model(x)[0])


def test_a_grey_picture_is_zero_to_the_network():
    """Pixels of [0, 1] are spread over [-1, 1]: nothing but biases is left of 0.5."""
    model = energy.ConvEnergy((1, 8, 8), 4)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "bias" in name:
                p.zero_()
    assert model(torch.full((1, 1, 8, 8), 0.5)).item() == 0
    assert model.net[-1].bias is None


def test_energies_are_float32_under_autocast():
    model = energy.ConvEnergy((1, 8, 8), 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(torch.rand(2, 1, 8, 8)).dtype == torch.float32


# --- Resumed


@pytest.mark.parametrize("training", ["pcd", "short-run", "langevin", "dsm", "nce"])
def test_a_resumed_run_ends_with_the_same_bits(training, tmp_path, monkeypatch):
    """Weights, momentum and chains are in the checkpoint."""
    units = training in ("pcd", "short-run")
    x = (torch.rand(160, 6) < 0.3).float() if units else torch.randn(160, 2)

    def go(name, **flags):
        torch.manual_seed(3)
        flags = {"out": tmp_path / name, "epochs": 4, "batch_size": 32, "restart": 0.1} | flags
        flags |= {"precision": "fp32", "chains": 48, "lr": 0.05}
        if units:
            model = energy.build_rbm(x, 5, 0)
            optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.5)
            fresh, walk = partial(energy.draw_base, energy.base_model(x, model)[0]), energy.gibbs
            flags |= {"training": training}
        else:
            model = energy.PlaneEnergy(8, 2.0)
            optimizer = torch.optim.Adam(model.parameters())
            fresh, walk = lambda n: torch.randn(n, 2), lambda m, x: energy.langevin(m, x, 2, 0.05)
            own = "pcd" if training == "langevin" else training
            flags |= {"model": "score", "dataset": "moons", "training": own}
        if training not in ("dsm", "nce"):
            train(flags.pop("out"), model, optimizer, x, fresh=fresh, walk=walk, **flags)
            return
        config = Config(**flags)
        run = utils.start(config, "toy.py")
        run.time_to_look = lambda: False
        loss_of = energy.matching_loss(model, x, config)
        energy.train_without_samples(model, loss_of, x, None, run)

    go("whole")
    monkeypatch.setattr(sys.modules["code_examples.utils.run"], "SAVE_SECONDS", 0)
    calls = []

    def killed(*_):
        calls.append(0)
        if len(calls) == 12:
            raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        for kind in (torch.optim.SGD, torch.optim.Adam):
            watch(patch, "step", killed, kind)
        with pytest.raises(RuntimeError, match="killed"):
            go("cut")
    go("cut", resume=True)
    whole, cut = (
        torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)["objects"]
        for name in ("whole", "cut")
    )
    sampled = training not in ("dsm", "nce")
    assert whole.keys() == {"model", "optimizer"} | ({"chains", "ema"} if sampled else set())
    for part in whole.keys() - {"optimizer"}:
        for name, value in whole[part].items():
            assert torch.equal(value, cut[part][name]), (part, name)
    if sampled:
        kept = 0 if training == "short-run" else 48
        assert whole["chains"]["states"].shape == (kept, x.shape[1])


# --- Experiment


def test_a_mean_comes_with_its_standard_error():
    got = energy.mean_and_error(torch.tensor([1.0, 2.0, 3.0, 6.0]), "loss")
    error = np.std([1, 2, 3, 6], ddof=1) / 2
    assert got == pytest.approx({"loss": 3.0, "loss_standard_error": error})


@pytest.mark.parametrize("steps", [1, 7, 30, 500])
def test_states_along_a_chain(steps):
    """Each is the one before, so many steps later; closer together at the start."""
    states = energy.along(torch.zeros(2), lambda x, n: x + n, steps)
    times = list(states)
    assert (times[0], times[-1]) == (0, steps)
    assert len(times) <= 31
    assert all((x == t).all() for t, x in states.items())
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert min(gaps) >= 1
    assert gaps[0] <= gaps[-1]


PICTURES = {"animation", "strips", "image_grid", "image_rows"}
PLANE = {"scatter_2d", "density_2d", "vector_field_2d"}
FILES = {"config.json", "history.csv", "metrics.json", "samples.npy", "samples.png"}
FILES |= {"checkpoint.pt", "learning_curve.png", "training.gif", "chains.gif", "chains.png"}
OF_RBM = {"filters.png", "reconstructions.png", "inpainting.png"}
OF_PLANE = {"density.png", "score.png"}
QUALITY = {"frechet_distance", "kernel_distance", "precision", "recall", "inception_score"}
SMALL = {"quick": True, "epochs": 2, "precision": "fp32"}


@pytest.fixture
def drawn(monkeypatch):
    """What was drawn, by the name of the file; only touched, as other tests draw."""
    shown = {}
    monkeypatch.setattr(sys.modules["code_examples.utils.run"], "LOOKS", 3)

    def recorder(what, path, **how):
        shown[path.name] = what
        path.touch()
        return path

    for name in PICTURES | PLANE:
        monkeypatch.setattr(utils, name, recorder)
    return shown


def finished(folder):
    """Metrics, all finite, and what the checkpoint holds."""
    metrics = json.loads((folder / "metrics.json").read_text())
    assert all(math.isfinite(v) for v in metrics.values() if isinstance(v, float))
    return metrics, torch.load(folder / "checkpoint.pt", weights_only=True)["objects"]


def black_and_white(monkeypatch):
    """Digits of 8 x 8 pixels that are 0 or 1, so that a Bernoulli draw leaves them as they are."""
    data = utils.load_images("digits", quick=True)
    data = replace(data, train=data.train.round(), test=data.test.round())
    monkeypatch.setattr(utils, "load_images", lambda *_, **__: data)
    return data


@pytest.mark.parametrize("labels", [True, False])
def test_main_writes_a_whole_run_of_an_rbm(labels, tmp_path, monkeypatch, drawn):
    data, clamped, walked, loop = black_and_white(monkeypatch), [], [], {}
    watch(monkeypatch, "train_with_samples", lambda *_, **how: loop.update(how))
    watch(
        monkeypatch,
        "gibbs",
        lambda rbm, v, steps=1, known=None: (
            walked.append(steps) if known is None else clamped.append((v.clone(), known))
        ),
    )
    flags = {"labels": labels, "hidden": 6, "num_samples": 40, "dataset": "digits"} | SMALL
    flags |= {"gibbs_steps": 3, "training": "pcd" if labels else "cd", "lr": 0.1}
    energy.main(Config(out=tmp_path, weight_decay=0.002, **flags))
    written = {p.name for p in tmp_path.iterdir()}
    assert written >= FILES | OF_RBM | ({"classes.png"} if labels else set())
    metrics, state = finished(tmp_path)
    assert metrics.keys() >= QUALITY | {"training_seconds", "seconds_per_1000_samples"}
    # all again from the checkpoint
    K = 10 if labels else 0
    rbm = RBM(torch.zeros(64 + K, 6), torch.zeros(64 + K), torch.zeros(6), K)
    rbm.load_state_dict(state["ema"])
    assert not torch.equal(rbm.weight, state["model"]["weight"])
    rbm = rbm.double()
    test = data.test.flatten(1).double()
    free = energy.free_energies(rbm, test).detach()
    z = energy.log_partition_exact(rbm).item()
    nll = z - (-free).logsumexp(dim=1)
    assert metrics["log_partition_nats_exact"] == pytest.approx(z, abs=1e-3)
    assert metrics["test_nll_nats"] == pytest.approx(nll.mean().item(), abs=2e-3)
    error = nll.std().item() / math.sqrt(len(nll))
    assert metrics["test_nll_nats_standard_error"] == pytest.approx(error, rel=1e-3)
    train = energy.free_energies(rbm, data.train[:200].flatten(1).double())
    train = (z - (-train).logsumexp(dim=1)).mean().item()
    assert metrics["train_nll_nats"] == pytest.approx(train, abs=2e-3)
    assert metrics["log_partition_nats"] == pytest.approx(z, abs=0.2)
    assert metrics["log_partition_nats_reverse"] == pytest.approx(z, abs=0.2)
    if labels:
        right = (free.argmin(dim=1) == data.test_labels).double().mean().item()
        assert metrics["test_accuracy_by_free_energy"] == pytest.approx(right, abs=0.006)
    assert ("test_accuracy_by_free_energy" in metrics) == labels
    pulled, free = state["optimizer"]["param_groups"]
    assert (pulled["weight_decay"], free["weight_decay"]) == (0.002, 0)  # the weights, no bias
    assert (len(pulled["params"]), len(free["params"])) == (1, 2)
    assert state["optimizer"]["state"][0]["momentum_buffer"].shape == rbm.weight.shape
    # chains
    assert walked.count(3) >= 32  # in training, between any two updates
    states = state["chains"]["states"]
    assert states.shape == (32 if labels else 0, 64 + K)  # only pcd keeps any
    assert ((states == 0) | (states == 1)).all()
    samples = np.load(tmp_path / "samples.npy")
    assert samples.shape == (40, 1, 8, 8)
    assert samples.dtype == np.float32
    assert samples.min() >= 0
    assert samples.max() <= 1
    assert len(np.unique(samples)) > 100  # means, not draws
    v = loop["prepare"](data.test, data.test_labels)
    assert torch.equal(v[:, :64], data.test.flatten(1))
    assert v.shape == (200, 64 + K)
    if labels:
        assert torch.equal(v[:, 64:].argmax(dim=1), data.test_labels)
        assert (v[:, 64:].sum(dim=1) == 1).all()
    new = loop["fresh"](2000)  # independent units with the margins of the data
    margins = loop["prepare"](data.train, data.train_labels).mean(dim=0)
    close(new.mean(dim=0), margins, atol=ROOM * 0.5 / math.sqrt(2000), rtol=0)
    # pictures
    assert drawn["filters.png"].shape == (6, 1, 8, 8)
    order = rbm.weight.norm(dim=0).argsort(descending=True)
    first = rbm.weight[:64, order[0]].view(8, 8)
    assert np.corrcoef(drawn["filters.png"][0].flatten(), first.detach().flatten())[0, 1] > 0.9
    rows = drawn["inpainting.png"]
    test, given, *filled = (r.clone() for r in rows.values())
    assert torch.equal(test, data.test[:10])
    assert torch.equal(given[..., :4], test[..., :4])
    assert (given[..., 4:] == 0.5).all()
    assert len(filled) == 3
    for row in filled:
        assert torch.equal(row[..., :4], test[..., :4])
        assert not torch.equal(row[..., 4:], test[..., 4:])
    assert not torch.equal(filled[0], filled[1])
    test, once = drawn["reconstructions.png"].values()
    assert torch.equal(test, data.test[:10])
    assert 0 < (once - test).abs().mean() < 0.5
    half = torch.zeros(8, 8, dtype=torch.bool)
    half[:, :4] = True
    left = torch.cat([half.flatten(), torch.zeros(K, dtype=torch.bool)])
    inpainted = [v for v, known in clamped if torch.equal(known.cpu(), left)]
    assert len(inpainted) == 3
    assert all(torch.equal(v[:, left], data.test[:10].flatten(1)[:, left[:64]]) for v in inpainted)
    if labels:
        (v, known), *_ = clamped
        assert torch.equal(known.cpu(), torch.arange(74) >= 64)
        assert torch.equal(v[:, 64:].argmax(dim=1), torch.arange(10).repeat_interleave(8))
        assert (v[:, 64:].sum(dim=1) == 1).all()
        assert drawn["classes.png"].shape == (80, 1, 8, 8)


def test_main_writes_a_whole_run_of_a_deep_energy(tmp_path, monkeypatch, drawn):
    calls, energies, loop = [], [], {}
    watch(monkeypatch, "train_with_samples", lambda *_, **how: loop.update(how))
    watch(
        monkeypatch,
        "langevin",
        lambda energy, x, steps, step_size, temperature, box: calls.append(
            (x.clone(), steps, step_size, temperature, box)
        ),
    )
    watch(monkeypatch, "contrastive_loss", lambda *args: energies.append(args))
    flags = {"model": "conv", "dataset": "digits", "width": 4, "num_samples": 40} | SMALL
    flags |= {"langevin_steps": 4, "step_size": 3.0, "temperature": 0.01, "sigma": 0.05}
    config = Config(out=tmp_path, sampling_steps=9, energy_penalty=0.3, **flags)
    energy.main(config)
    assert {p.name for p in tmp_path.iterdir()} >= FILES
    metrics, state = finished(tmp_path)
    assert metrics.keys() >= QUALITY | {"training_seconds", "seconds_per_1000_samples"}
    assert {c[2:] for c in calls} == {(3.0, 0.01, (0.0, 1.0))}
    assert [c[1] for c in calls[:32]] == [4] * 32
    assert all(c[0].min() >= 0 and c[0].max() <= 1 for c in calls)
    assert all(penalty == 0.3 for *_, penalty in energies)
    assert state["chains"]["states"].shape == (4096, 1, 8, 8)
    data = utils.load_images("digits", quick=True)
    model = energy.ConvEnergy((1, 8, 8), 4)
    model.load_state_dict(state["ema"])
    samples = torch.from_numpy(np.load(tmp_path / "samples.npy"))
    assert samples.shape == (40, 1, 8, 8)
    assert 0 <= samples.min() < samples.max() <= 1
    with torch.no_grad():
        for name, x in {"train": data.train, "test": data.test, "samples": samples}.items():
            mean = model(x[:1000]).mean().item()
            assert metrics[f"energy_{name}"] == pytest.approx(mean, abs=1e-5)
    assert (40, 9) in {(len(c[0]), c[1]) for c in calls}  # the samples
    grey = torch.full((500, 1, 8, 8), 0.5)
    noisy, new = loop["prepare"](grey, None), loop["fresh"](500)
    assert (noisy - grey).std().item() == pytest.approx(0.05, rel=0.05)
    assert 0 == loop["prepare"](0 * grey, None).min() < loop["prepare"](0 * grey, None).max()
    assert loop["prepare"](2 * grey, None).max() == 1
    assert new.shape == grey.shape
    assert (new.min() >= 0) & (new.max() <= 1)
    assert new.var().item() == pytest.approx(1 / 12, rel=0.05)


@pytest.mark.parametrize("training", ["dsm", "nce", "pcd"])
def test_main_writes_a_whole_run_of_points(training, tmp_path, monkeypatch, drawn):
    calls, loop = [], {}
    watch(monkeypatch, "train_with_samples", lambda *_, **how: loop.update(how))
    watch(monkeypatch, "langevin", lambda _, x, *how: calls.append((len(x), *how)))
    flags = {"model": "score", "dataset": "ring", "training": training, "width": 8} | SMALL
    flags |= {"step_size": 0.02, "temperature": 0.7, "langevin_steps": 3}
    energy.main(Config(out=tmp_path, num_samples=300, sampling_steps=30, **flags))
    assert {p.name for p in tmp_path.iterdir()} >= FILES | OF_PLANE
    metrics, state = finished(tmp_path)
    density = utils.density("ring")
    gap = metrics["test_nll_nats"] - metrics["entropy_nats"]
    assert metrics["entropy_nats"] == pytest.approx(density.entropy, rel=1e-5)
    room = ROOM * metrics["test_nll_nats_standard_error"] + 0.01
    assert metrics["kl_from_data_nats"] == pytest.approx(gap, abs=room)
    assert metrics["kl_from_data_nats"] > 0
    assert ("log_partition_learned_nats" in metrics) == (training == "nce")
    assert np.load(tmp_path / "samples.npy").shape == (256, 2)
    assert ("chains" in state) == (training == "pcd")
    assert {c[2:] for c in calls} == {(0.02, 0.7)}
    assert (256, 30, 0.02, 0.7) in calls  # the samples
    if training == "pcd":
        assert calls[0] == (32, 3, 0.02, 0.7)
        assert torch.equal(loop["prepare"](torch.ones(5, 2), None), torch.ones(5, 2))
        x_low, x_high, _, _ = density.bounds
        new = loop["fresh"](5000)
        assert new.std().item() == pytest.approx((x_high - x_low) / 4, rel=0.1)
    # the density that was drawn integrates to one, and is that of the checkpoint
    log_p = drawn["density.png"][training]
    reach = 30.0
    _, total = energy.grid_log_masses(log_p, (-reach, reach, -reach, reach), 400)
    assert -0.01 < total < 0.4  # a model that has learned little has mass outside of the window
    weights = {k: v for k, v in state.get("ema", state["model"]).items() if k != "log_partition"}
    x_low, x_high, y_low, y_high = density.bounds
    model = energy.PlaneEnergy(8, max(x_high - x_low, y_high - y_low) / 2)
    model.load_state_dict(weights)
    x = density.sample(50)
    with torch.no_grad():
        close(log_p(x), -model(x) - metrics["log_partition_nats"], atol=1e-4, rtol=0)
    fields = drawn["score.png"]
    close(fields["score of the model"](x), energy.score(model, x), atol=1e-5, rtol=0)
    close(fields["score of the data"](x), energy.score(lambda x: -density.log_prob(x), x))


@pytest.mark.parametrize(
    "flags",
    [{"model": "rbm", "hidden": 5, "dataset": "digits"}, {"model": "score", "dataset": "ring"}],
    ids=str,
)
def test_every_picture_can_really_be_drawn(flags, tmp_path, monkeypatch):
    """And in bfloat16."""
    monkeypatch.setattr(sys.modules["code_examples.utils.run"], "LOOKS", 3)
    seen = []
    watch(monkeypatch, "free_energies", lambda rbm, x: seen.append(x))
    watch(monkeypatch, "base_model", lambda v, rbm: seen.append(v))
    flags = SMALL | {"precision": "bf16", "num_samples": 20, "width": 8} | flags
    energy.main(Config(out=tmp_path, **flags))
    written = {p.name for p in tmp_path.iterdir() if p.stat().st_size > 0}
    assert written >= FILES | (OF_RBM | {"classes.png"} if flags["model"] == "rbm" else OF_PLANE)
    finished(tmp_path)
    assert len(seen) == (4 if flags["model"] == "rbm" else 0)
    for x in seen:  # an RBM only ever sees black and white
        assert x.unique().tolist() == [0, 1]


def test_coloured_pictures_are_for_the_deep_energy(tmp_path, monkeypatch):
    data = black_and_white(monkeypatch)
    colour = replace(data, train=data.train.repeat(1, 3, 1, 1), test=data.test.repeat(1, 3, 1, 1))
    monkeypatch.setattr(utils, "load_images", lambda *_, **__: colour)
    with pytest.raises(
        utils.UserError, match=r"--model rbm: expected grey .* got 3 .* use --model conv"
    ):
        energy.main(Config(dataset="digits", out=tmp_path / "run", **SMALL))
    assert not (tmp_path / "run").exists()


# --- Flags


def test_flags_that_are_not_given_depend_on_the_model():
    defaults = {m: Config(model=m) for m in MODELS}
    assert [c.training for c in defaults.values()] == ["pcd", "pcd", "dsm"]
    assert [c.dataset for c in defaults.values()] == ["mnist5k", "mnist5k", "moons"]
    assert Config() == defaults["rbm"]
    shared = ["epochs", "batch_size", "lr", "chains", "restart", "clip", "energy_penalty"]
    shared += ["sampling_steps", "ema"]
    walking = ["width", "langevin_steps", "step_size", "temperature", "sigma"]
    for model, config in defaults.items():
        for name in shared + (walking if model != "rbm" else []):
            assert getattr(config, name) is not None, (model, name)
        assert config.training == energy.TRAININGS[model][0]
    given = {"epochs": 3, "batch_size": 7, "lr": 0.3, "chains": 9, "restart": 0.2, "clip": 3.0}
    given |= {"energy_penalty": 0.4, "sampling_steps": 8, "width": 5, "langevin_steps": 2}
    given |= {"step_size": 0.7, "temperature": 0.6, "sigma": 0.9, "training": "cd", "ema": 0.3}
    for model in MODELS:
        config = Config(model=model, **given)
        assert {name: getattr(config, name) for name in given} == given
    assert Config(dataset="digits").dataset == "digits"
    assert Config(batch_size=100).chains == Config(batch_size=100, training="cd").chains == 100
    assert Config(quick=True).chains == Config(quick=True).batch_size


def test_every_combination_of_model_and_training():
    every = {t for of in energy.TRAININGS.values() for t in of}
    for model in MODELS:
        for training in every:
            if training in energy.TRAININGS[model]:
                assert Config(model=model, training=training).training == training
                continue
            with pytest.raises(utils.UserError) as refused:
                Config(model=model, training=training)
            said = str(refused.value)
            assert said.startswith(f"--training: expected one of {energy.TRAININGS[model][0]}, ")
            assert f"got {training}: " in said
            assert "--model score" in said.split("got ")[1]
            assert "\n" not in said
    assert every == {"pcd", "cd", "short-run", "dsm", "ssm", "nce"}
    assert (
        set(energy.TRAININGS["rbm"]) == set(energy.TRAININGS["conv"]) == {"pcd", "cd", "short-run"}
    )


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"model": "ebm"}, "--model: expected one of rbm, conv, score"),
        ({"training": "sgd"}, "--training: expected one of pcd, cd, short-run"),
        (
            {"model": "score", "dataset": "mnist5k"},
            "--model score: expected a density in the plane",
        ),
        ({"model": "score", "dataset": "digits"}, "got --dataset digits; the densities are moons"),
        ({"dataset": "moons"}, "--model rbm: expected pictures, got --dataset moons"),
        (
            {"model": "conv", "dataset": "ring"},
            "--model conv: expected pictures, got --dataset ring",
        ),
        ({"hidden": 0}, "--hidden: expected a finite number of at least 1, got 0"),
        ({"gibbs_steps": 0}, "--gibbs-steps: expected a finite number of at least 1"),
        ({"sampling_steps": 0}, "--sampling-steps: expected a finite number of at least 1"),
        ({"chains": 63}, "--chains: expected a finite number of at least 64, got 63"),
        ({"ais_chains": 1}, "--ais-chains: expected a finite number of at least 2"),
        ({"ais_temperatures": 0}, "--ais-temperatures: expected a finite number of at least 1"),
        ({"energy_penalty": -0.1}, "--energy-penalty: expected a finite number of at least 0"),
        ({"weight_decay": -0.1}, "--weight-decay: expected a finite number of at least 0"),
        ({"ema": 1.0}, "--ema: expected a finite number of at least 0 and below 1"),
        ({"restart": 1.0}, "--restart: expected a finite number of at least 0 and below 1"),
        ({"restart": -0.1}, "--restart: expected a finite number of at least 0 and below 1"),
        ({"clip": 0.0}, "--clip: expected a finite number above 0"),
        ({"lr": 0.0}, "--lr: expected a finite number above 0"),
        ({"epochs": 0}, "--epochs: expected a finite number of at least 1"),
        ({"model": "conv", "width": 0}, "--width: expected a finite number of at least 1"),
        ({"model": "conv", "langevin_steps": 0}, "--langevin-steps: expected a finite number of"),
        ({"model": "conv", "step_size": 0.0}, "--step-size: expected a finite number above 0"),
        ({"model": "score", "temperature": -1.0}, "--temperature: expected a finite number of at"),
        ({"model": "score", "sigma": -1.0, "training": "nce"}, "--sigma: expected a finite number"),
        ({"model": "score", "sigma": 0.0}, "--sigma: expected a finite number above 0, got 0"),
    ],
    ids=str,
)
def test_impossible_values_are_refused(flags, said):
    with pytest.raises(utils.UserError) as refused:
        Config(**flags)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "flags",
    [
        {"hidden": 1, "gibbs_steps": 1, "sampling_steps": 1, "chains": 64, "restart": 0.0},
        {"ais_chains": 2, "ais_temperatures": 1, "ema": 0.0, "weight_decay": 0.0},
        {"model": "conv", "sigma": 0.0, "temperature": 0.0, "energy_penalty": 0.0, "width": 1},
        {"model": "score", "training": "ssm", "sigma": 0.0, "langevin_steps": 1},
    ],
    ids=str,
)
def test_the_smallest_possible_values_are_taken(flags):
    config = Config(**flags)
    for name, value in flags.items():
        assert getattr(config, name) == value


def test_quick_runs_are_short():
    for model in MODELS:
        config = Config(model=model, quick=True)
        assert config.sampling_steps <= 50
        assert config.epochs <= 5
        assert config.batch_size <= 32
        assert config.ais_temperatures <= 100
        assert config.langevin_steps is None or config.langevin_steps <= 5
    assert Config(quick=True, sampling_steps=3, epochs=2, ais_temperatures=9).sampling_steps == 3


# --- Quality, minutes each: make test-slow


@pytest.mark.slow
@pytest.mark.parametrize(("model", "distance"), [("rbm", 30), ("conv", 10)])
def test_two_minutes_of_pictures(model, distance, tmp_path):
    energy.main(Config(model=model, out=tmp_path))
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["frechet_distance"] < distance
    if model == "rbm":
        assert metrics["test_nll_nats"] < 100
