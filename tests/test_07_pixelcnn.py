"""The autoregressive chapter against enumerated pictures, reachability by hand, closed forms."""

import itertools
import json
import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.stats import logistic
from torch import nn
from torch.distributions import Categorical

from code_examples import energy, pixelcnn, utils

Config, MADE, Head, Block = pixelcnn.Config, pixelcnn.MADE, pixelcnn.Head, pixelcnn.Block
PixelCNN, MaskedPixelCNN = pixelcnn.PixelCNN, pixelcnn.MaskedPixelCNN
Transformer, WaveNet = pixelcnn.Transformer, pixelcnn.WaveNet
CausalConv2d, Softmax, Logistics = pixelcnn.CausalConv2d, pixelcnn.Softmax, pixelcnn.Logistics
K = 3  # labels, notes
ROOM = 6  # standard errors
TINY = {
    "pixelcnn": lambda shape, P: PixelCNN(shape, P, 4, [1, 2]),
    "conditional": lambda shape, P: PixelCNN(shape, P, 4, [1, 2], K),
    "pixelcnn-masked": lambda shape, P: MaskedPixelCNN(shape, P, 4, 2),
    "made": lambda shape, P: MADE(shape, P, 60),
    "transformer": lambda shape, P: Transformer(shape, P, 8, 2, heads=2),
    "wavenet": lambda shape, P: WaveNet(shape, P, 4, [1, 2, 4], K),
}
LABELLED = ("conditional", "wavenet")
close = torch.testing.assert_close
every_model = pytest.mark.parametrize("name", TINY)
of_pictures = pytest.mark.parametrize("name", [name for name in TINY if name != "wavenet"])


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
    net = net.double().eval()
    with torch.no_grad():
        for p in net.parameters():
            p.add_(size * torch.randn(p.shape, generator=generator, dtype=torch.float64))
    return net


def tiny(name, shape=(1, 3, 3), outputs=2, size=0.5, seed=0):
    """A small network of each kind; sound is one row."""
    return shaken(TINY[name](shape, outputs), size, seed)


def small_shape(name, picture=(1, 3, 3), tone=(1, 1, 8)):
    return tone if name == "wavenet" else picture


def labels(name, n, label=None):
    """For models that want some: all of them in turns, or one."""
    if name not in LABELLED:
        return None
    return torch.arange(n) % K if label is None else torch.full((n,), label)


def zeroed(net):
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()
    return net


def watch(monkeypatch, name, note, module=pixelcnn):
    """Call `note` with the arguments of each call of a function."""
    original = getattr(module, name)

    def watched(*args, **kwargs):
        note(*args, **kwargs)
        return original(*args, **kwargs)

    monkeypatch.setattr(module, name, watched)


# --- Tiny pictures, of which all are known


def sites_of(shape):
    """(channel, row, column), in the order of x.flatten()."""
    return list(itertools.product(*map(range, shape)))


def all_pictures(shape, levels=2):
    """(L^D, C, H, W) on the grid."""
    grid = [k / (levels - 1) for k in range(levels)]
    every = [*itertools.product(grid, repeat=math.prod(shape))]
    return torch.tensor(every, dtype=torch.float64).view(-1, *shape)


def some_pictures(n, shape, levels, seed=0):
    generator = torch.Generator().manual_seed(seed)
    k = torch.randint(levels, (n, *shape), generator=generator)
    return k.double() / (levels - 1)


@torch.no_grad()
def log_prob(model, x, likelihood, y=None, **how):
    return -pixelcnn.nll(model(x, *(() if y is None else (y,)), **how), x, likelihood).double()


@torch.no_grad()
def probabilities(name, model, shape, levels=2, label=None):
    """Of all pictures, (S,)."""
    x = all_pictures(shape, levels)
    return log_prob(model, x, Softmax(levels), labels(name, len(x), label)).exp()


def check_counts(drawn, states, p):
    """Rows drawn (N, ...) are states (S, ...) with probabilities p (S,)."""
    base = float(len(states)) ** (1 / states[0].numel())  # levels
    code = base ** torch.arange(states[0].numel(), dtype=torch.float64)
    number = lambda x: ((x.flatten(1).double() * (base - 1)).round() @ code).round().long()
    place = torch.full((len(states),), -1)
    place[number(states)] = torch.arange(len(states))
    counts = torch.bincount(place[number(drawn)], minlength=len(states)).double()
    error = (len(drawn) * p * (1 - p)).sqrt()
    assert p.sum().item() == pytest.approx(1, abs=1e-5)
    assert ((counts - len(drawn) * p).abs() <= ROOM * error + 3).all()


# --- What can see what, worked out with sets of places


def compose(seen, offsets, height, wide):
    """What a convolution with these offsets sees of an input whose places have seen so much."""
    return {
        (i, j): set().union(
            *(
                seen[i + di, j + dj]
                for di, dj in offsets
                if 0 <= i + di < height and 0 <= j + dj < wide
            )
        )
        for i, j in seen
    }


def itself(height, wide):
    return {place: {place} for place in itertools.product(range(height), range(wide))}


def union(*parts):
    return {place: set().union(*(part[place] for part in parts)) for place in parts[0]}


def seen_by_masked(height, wide, layers):
    """A 7 x 7 mask A, then 3 x 3 masks B beside a residual connection."""
    above = [*itertools.product((-3, -2, -1), range(-3, 4))]
    seen = compose(itself(height, wide), [*above, (0, -3), (0, -2), (0, -1)], height, wide)
    for _ in range(layers):
        window = [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 0)]
        seen = compose(seen, window, height, wide)
    return seen


def seen_by_gated(height, wide, dilations):
    """Three rows above, five wide; three to the left; then 2 x 3 and 1 x 2 in turns."""
    pixels = itself(height, wide)
    v = compose(pixels, [*itertools.product((-3, -2, -1), range(-2, 3))], height, wide)
    h = compose(pixels, [(0, -3), (0, -2), (0, -1)], height, wide)
    for d in dilations:
        v = compose(v, [*itertools.product((-d, 0), (-d, 0, d))], height, wide)
        h = union(compose(h, [(0, -d), (0, 0)], height, wide), v)
    return h


def seen_by_wavenet(steps, dilations):
    """The last two, then these as well from each dilation earlier."""
    back = {1, 2}
    for d in dilations:
        back |= {b + d for b in back}
    return {(0, t): {(0, t - b) for b in back if b <= t} for t in range(steps)}


def seen_by_all(height, wide):
    """Every earlier place in the order of reading."""
    places = [*itertools.product(range(height), range(wide))]
    return {place: set(places[:i]) for i, place in enumerate(places)}


def as_matrix(seen, shape):
    """Whether outputs i see number j, (D, D); of its own place a channel sees earlier ones."""
    sees = lambda b, q, c, p: q in seen[p] or (q == p and b < c)
    sites = [(channel, (row, column)) for channel, row, column in sites_of(shape)]
    return torch.tensor([[sees(*j, *i) for i in sites] for j in sites])


def before(sites, shape):
    """Whether number j comes before number i in an order of sites, (D, D)."""
    place = torch.tensor([sites.index(site) for site in sites_of(shape)])
    return place[:, None] < place


@torch.no_grad()
def influence(model, shape, y=None, n=12, **how):
    """How far outputs i move at most when number j of some pictures is changed, (D, D)."""
    dims = math.prod(shape)
    spread = torch.linspace(0.5, 6, n, dtype=torch.float64).view(-1, 1, 1, 1)  # so that no unit is
    x = spread * normal(n, *shape, seed=1)  # asleep, and none saturated, in all of them
    step = spread * (0.3 + normal(dims, n, *shape).abs())
    changed = x + step * torch.eye(dims).view(dims, 1, *shape)
    label = () if y is None else (y[:n],)
    labels = () if y is None else (y[:n].repeat(dims),)
    moved = model(changed.flatten(0, 1), *labels, **how).unflatten(0, (dims, n))
    return (moved - model(x, *label, **how)).abs().amax(dim=(1, 2)).flatten(1)


def check_influence(model, shape, expected, y=None, **how):
    moved = influence(model, shape, y, **how)
    assert moved[~expected].max() <= 1e-13
    assert moved[expected].min() > 1e-9


# --- Causal: nothing sees itself or what comes later


SHAPES = [(1, 3, 4), (3, 2, 3), (1, 4, 3), (4, 1, 2), (2, 3, 1)]


@every_model
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_no_output_moves_when_its_own_number_or_a_later_one_does(name, shape):
    """And every one when an earlier one does, where the window is as large as the picture."""
    if name == "wavenet":
        shape = (1, 1, math.prod(shape[:2]))  # at most 9 back: all of them
    model = tiny(name, shape)
    order = before(model.sites, shape)
    reading = [(c, i, j) for i, j, c in sites_of((*shape[1:], shape[0]))]
    assert sorted(model.sites) == sorted(reading)
    assert model.sites == reading or name == "made"
    check_influence(model, shape, order, labels(name, 12))
    assert order.sum() == math.comb(math.prod(shape), 2)


@pytest.mark.parametrize("shape", [(1, 3, 3), (3, 2, 2), (4, 2, 1)], ids=str)
@pytest.mark.parametrize("hidden", [1, 2, 5, 11, 40])
def test_made_sees_before_each_number_in_every_ordering(shape, hidden):
    """With D - 1 hidden units everything there; with fewer, what the degrees let through."""
    dims = math.prod(shape)
    model = shaken(MADE(shape, 3, hidden, orderings=4))
    with torch.no_grad():
        model.hidden.bias.mul_(0.01)  # no relu sleeps
    degrees = {m * (dims - 1) // hidden for m in range(hidden)}
    for ordering in range(4):
        sites = model.order(ordering)
        assert sorted(sites) == sorted(sites_of(shape))
        place = {site: i for i, site in enumerate(sites)}
        seen = [
            [any(place[j] <= m < place[i] for m in degrees) for i in sites_of(shape)]
            for j in sites_of(shape)
        ]
        expected = torch.tensor(seen)
        check_influence(model, shape, expected, n=24, ordering=ordering)
        assert not (expected & ~before(sites, shape)).any()
        assert (expected == before(sites, shape)).all() == (hidden >= dims - 1)
        sees, read = model.masks(ordering)
        paths = read.double() @ sees.double()  # from x to the outputs
        assert torch.equal(paths > 0, expected.T)
    orders = {tuple(model.order(i)) for i in range(4)}
    assert len(orders) == 4
    assert model.sites == model.order(0)


def test_degrees_are_spread_evenly():
    for hidden in (8, 16, 100):
        counts = MADE((1, 3, 3), 2, hidden).degrees.bincount()
        assert len(counts) == 8
        assert counts.max() - counts.min() <= 1


def test_made_takes_the_first_ordering_unless_it_trains():
    """In training a random one for each batch, of which every one occurs."""
    model, x = shaken(MADE((1, 2, 3), 2, 12, orderings=3)), some_pictures(4, (1, 2, 3), 2)
    each = [model(x, ordering=i) for i in range(3)]
    assert all((a - b).abs().max() > 1e-3 for a, b in itertools.combinations(each, 2))
    assert torch.equal(model(x), each[0])
    model.train()
    drawn = [
        next(i for i in range(3) if torch.equal(outputs, each[i]))
        for outputs in (model(x) for _ in range(60))
    ]
    assert set(drawn) == {0, 1, 2}
    assert torch.equal(model(x, ordering=1), each[1])


@pytest.mark.parametrize("dilations", [[1], [2], [1, 2], [3, 1]], ids=str)
@pytest.mark.parametrize("shape", [(1, 9, 10), (2, 5, 7)], ids=str)
def test_a_shallow_pixelcnn_sees_what_its_layers_reach(dilations, shape):
    model = shaken(PixelCNN(shape, 2, 3, dilations))
    expected = as_matrix(seen_by_gated(*shape[1:], dilations), shape)
    check_influence(model, shape, expected)
    assert shape[0] > 1 or not torch.equal(expected, before(model.sites, shape))


def test_a_deep_pixelcnn_has_no_blind_spot_and_the_masked_one_always_has():
    shape = 1, 6, 8
    model = shaken(PixelCNN(shape, 2, 4, [1, 2, 1, 2]), 0.3)
    everything = before(model.sites, shape)
    assert torch.equal(as_matrix(seen_by_all(*shape[1:]), shape), everything)
    check_influence(model, shape, everything)
    for layers in (1, 3, 9):
        model = shaken(MaskedPixelCNN(shape, 2, 6, layers), 0.2)
        seen = seen_by_masked(*shape[1:], layers)
        expected = as_matrix(seen, shape)
        check_influence(model, shape, expected)
        blind = everything & ~expected
        assert blind.sum() == sum(len(seen_by_all(6, 8)[p] - seen[p]) for p in seen)
        number = {site: n for n, site in enumerate(sites_of(shape))}
        assert blind[number[0, 2, 7], number[0, 3, 1]]
        assert blind[number[0, 3, 6], number[0, 5, 0]]
        assert not blind[number[0, 2, 4], number[0, 3, 1]]
    assert all(j % 8 > i % 8 for j, i in blind.nonzero().tolist())  # to the right, above


def test_the_masked_pixelcnn_with_colours_and_other_sizes():
    for shape in ((3, 4, 6), (1, 9, 9), (2, 7, 2)):
        for layers in (1, 2):
            model = shaken(MaskedPixelCNN(shape, 2, 4, layers))
            check_influence(model, shape, as_matrix(seen_by_masked(*shape[1:], layers), shape))


@pytest.mark.parametrize("dilations", [[1], [1, 2, 4], [2, 1], [3], [4, 1], [1, 2, 1, 2]], ids=str)
def test_wavenet_sees_two_and_the_sum_of_its_dilations(dilations):
    steps = 16
    shape, model = (1, 1, steps), shaken(WaveNet((1, 1, steps), 3, 4, dilations, K))
    expected = as_matrix(seen_by_wavenet(steps, dilations), shape)
    check_influence(model, shape, expected, torch.arange(12) % K)
    reach = 2 + sum(dilations)
    back = [steps - 1 - j for j in expected[:, -1].nonzero()[:, 0].tolist()]
    assert max(back) == min(reach, steps - 1)
    assert min(back) == 1
    if dilations[0] <= 2:  # doubling from there on leaves no hole
        assert sorted(back) == list(range(1, reach + 1))


@every_model
def test_the_receptive_field_is_zero_exactly_where_nothing_is_seen(name):
    shape = small_shape(name, (2, 5, 6), (1, 1, 14))
    model, y = tiny(name, shape, outputs=3), labels(name, 16)
    seen = {
        "pixelcnn": lambda h, w: seen_by_gated(h, w, [1, 2]),
        "conditional": lambda h, w: seen_by_gated(h, w, [1, 2]),
        "pixelcnn-masked": lambda h, w: seen_by_masked(h, w, 2),
        "wavenet": lambda h, w: seen_by_wavenet(w, [1, 2, 4]),
    }.get(name, seen_by_all)
    model = shaken(MADE(shape, 3, 118)) if name == "made" else model
    expected = as_matrix(seen(*shape[1:]), shape)
    expected = before(model.sites, shape) if name == "made" else expected
    x, sites = some_pictures(16, shape, 256), sites_of(shape)
    for site in (sites[0], sites[len(sites) // 2], sites[-1], sites[len(sites) // 3]):
        field = pixelcnn.receptive_field(model, x, site, y)
        assert field.shape == shape
        assert torch.equal(field.flatten() > 0, expected[:, sites.index(site)])
        assert not x.requires_grad


def test_the_receptive_field_is_the_mean_size_of_a_gradient():
    class Linear(nn.Module):
        def forward(self, x, y=None):
            return torch.stack([3 * x.flip(2), x.flip(2)], dim=1)

    x = normal(5, 1, 3, 1)
    field = pixelcnn.receptive_field(Linear(), x, (0, 0, 0))
    close(
        field[0, :, 0], torch.stack([0 * x.mean(), 0 * x.mean(), 20 * x[:, 0, 2, 0].abs().mean()])
    )


# --- Probabilities


@every_model
def test_all_binary_pictures_have_probability_one(name):
    """2^9 of 3 x 3 pixels, 2^8 sounds; for every label."""
    shape = small_shape(name)
    model = tiny(name, shape)
    every = [probabilities(name, model, shape, label=k) for k in range(K)]
    for p in every:
        assert len(p) == 2 ** math.prod(shape)
        assert p.sum().item() == pytest.approx(1, abs=1e-5)
        assert p.max() > 1.2 / len(p)  # and not all the same
    assert ((every[0] - every[1]).abs().sum() > 0.1) == (name in LABELLED)


@every_model
@pytest.mark.parametrize(
    ("shape", "levels"), [((1, 2, 3), 3), ((3, 1, 3), 2), ((3, 1, 2), 3), ((2, 2, 1), 5)], ids=str
)
def test_all_pictures_of_more_levels_and_colours_have_probability_one(name, shape, levels):
    if name == "wavenet":
        shape = (1, 1, math.prod(shape))
    for likelihood in (Softmax(levels), Logistics(levels, 2)):
        model, x = tiny(name, shape, likelihood.outputs), all_pictures(shape, levels)
        p = log_prob(model, x, likelihood, labels(name, len(x), 1)).exp()
        assert p.sum().item() == pytest.approx(1, abs=1e-4)
        assert p.max() > 1.2 / len(p)


@of_pictures
def test_all_pictures_cut_into_patches_have_probability_one(name):
    whole = all_pictures((1, 4, 2))
    x = F.pixel_unshuffle(whole, 2)
    assert x.shape == (256, 4, 2, 1)
    p = log_prob(tiny(name, (4, 2, 1)), x, Softmax(2), labels(name, 256, 2)).exp()
    assert p.sum().item() == pytest.approx(1, abs=1e-5)


def test_an_ensemble_averages_probabilities_not_logits():
    """The mean of distributions is one; from the mean of logits of other orders comes none."""
    shape, x = (1, 3, 3), all_pictures((1, 3, 3))
    model = shaken(MADE(shape, 2, 30, orderings=4), 1.0)
    each = torch.stack([log_prob(model, x, Softmax(2), ordering=i) for i in range(4)])
    close(each.exp().sum(dim=1), torch.ones(4, dtype=torch.float64), atol=1e-5, rtol=0)
    together = pixelcnn.ensemble_log_prob(each)
    close(together.exp(), each.exp().mean(dim=0), atol=1e-9, rtol=1e-6)
    assert together.exp().sum().item() == pytest.approx(1, abs=1e-5)
    assert (together >= each.mean(dim=0) - 1e-12).all()  # Jensen
    assert (together - each.mean(dim=0)).mean() > 0.1
    logits = torch.stack([model(x, ordering=i) for i in range(4)]).mean(dim=0)
    wrong = (-pixelcnn.nll(logits, x, Softmax(2)).detach()).exp().sum().item()
    assert abs(wrong - 1) > 0.05
    log_mean = each.mean(dim=0).exp().sum().item()  # nor from the mean of logarithms
    assert log_mean < 0.95


def test_an_ensemble_by_hand():
    log_probs = float64([0.5, 0.1, 1e-300], [0.1, 0.3, 1e-300]).log()
    close(pixelcnn.ensemble_log_prob(log_probs), float64(0.3, 0.2, 1e-300).log())
    close(pixelcnn.ensemble_log_prob(log_probs[:1]), log_probs[0])
    tiny_ones = torch.full((3, 2), -5000.0)  # whose exponentials are zero
    close(pixelcnn.ensemble_log_prob(tiny_ones), tiny_ones[0])


@every_model
@pytest.mark.parametrize("levels", [2, 3, 256])
def test_a_network_of_zeros_needs_log2_of_the_levels_in_bits(name, levels):
    shape = small_shape(name, (2, 3, 4))
    model, x = zeroed(TINY[name](shape, levels)), some_pictures(5, shape, levels).float()
    nats = pixelcnn.nll(model(x, labels(name, 5)), x, Softmax(levels))
    assert nats.shape == (5,)
    bits = utils.bits_per_dim(nats, math.prod(shape))
    close(bits, torch.full((5,), math.log2(levels)))


# --- Likelihoods of a number


@pytest.mark.parametrize("levels", [2, 3, 16, 256])
def test_the_softmax_is_that_of_torch(levels):
    outputs, x = normal(3, levels, 2, 4, 5), some_pictures(3, (2, 4, 5), levels)
    likelihood = Softmax(levels)
    assert (likelihood.levels, likelihood.outputs) == (levels, levels)
    categorical = Categorical(logits=outputs.movedim(1, -1))
    expected = categorical.log_prob((x * (levels - 1)).round())
    got = likelihood.log_prob(outputs, x)
    close(got, expected.float(), atol=1e-5, rtol=1e-5)
    close(pixelcnn.nll(outputs, x, likelihood), -expected.sum(dim=(1, 2, 3)).float())
    close(likelihood.table(outputs[..., 0, 1, 2]), categorical.logits[:, 0, 1, 2].float())


def mixture(levels, outputs, components):
    """Masses (B, L) of a mixture in float64, from the distribution function of scipy."""
    logits, mean, log_scale = outputs.double().unflatten(1, (3, components)).unbind(dim=1)
    weights = logits.softmax(dim=1).numpy()
    edges = np.linspace(-1, 1, levels)
    edges = np.concatenate([[-np.inf], (edges[1:] + edges[:-1]) / 2, [np.inf]])
    loc, scale = mean.numpy()[..., None], log_scale.exp().numpy()[..., None]
    below, above = logistic.cdf(edges, loc, scale), logistic.sf(edges, loc, scale)
    low = below[..., :-1] + below[..., 1:] < 1  # the side on which digits are not lost
    mass = np.where(low, np.diff(below), -np.diff(above))
    return torch.from_numpy((weights[..., None] * mass).sum(axis=1))


@pytest.mark.parametrize("levels", [2, 3, 16, 256])
@pytest.mark.parametrize("components", [1, 4])
def test_logistics_have_the_mass_around_each_level(levels, components):
    """And the two at the ends have the tails."""
    likelihood = Logistics(levels, components)
    assert likelihood.outputs == 3 * components
    outputs = normal(40, 3 * components)
    outputs[:, 2 * components :] -= 2  # narrow ones, too
    expected = mixture(levels, outputs, components)
    close(expected.sum(dim=1), torch.ones(40, dtype=torch.float64))
    table = likelihood.table(outputs)
    assert table.shape == (40, levels)
    close(table.double(), expected.log(), atol=1e-3, rtol=1e-4)
    close(table.double().exp().sum(dim=1), torch.ones(40, dtype=torch.float64), atol=1e-4, rtol=0)
    x = torch.linspace(0, 1, levels, dtype=torch.float64)[None].expand(40, -1)
    each = likelihood.log_prob(outputs[..., None].expand(-1, -1, levels), x)
    close(each.float(), table, atol=1e-4, rtol=1e-5)
    pictures = some_pictures(40, (2, 3, 1), levels)
    got = likelihood.log_prob(outputs[..., None, None, None].expand(-1, -1, 2, 3, 1), pictures)
    k = (pictures * (levels - 1)).round().long().flatten(1)
    close(got.flatten(1).double(), expected.log().gather(1, k), atol=1e-3, rtol=1e-4)


def test_a_narrow_logistic_far_from_a_level_has_the_mass_of_its_tail():
    """Where a difference of two sigmoids in float32 is zero, and its logarithm is not finite."""
    outputs = torch.tensor([[0.0, 0.9, -5.0]])
    table = Logistics(256, 1).table(outputs)
    loc, scale = 0.9, math.exp(-5)
    k = np.arange(1, 200)
    low, high = (2 * k - 1) / 255 - 1, (2 * k + 1) / 255 - 1
    upper, lower = logistic.logcdf(high, loc, scale), logistic.logcdf(low, loc, scale)
    expected = upper + np.log(-np.expm1(lower - upper))
    assert expected.min() < -250
    close(table[0, 1:200].double(), torch.from_numpy(expected), atol=1e-2, rtol=1e-4)


EXTREMES = [
    *itertools.product((0.0, 1.0, -3.0, 100.0, -1e3), (-1e3, -20.0, -7.0, 0.0, 7.0, 20.0, 1e3))
]


@pytest.mark.parametrize("levels", [2, 3, 16, 256])
def test_logistics_are_finite_and_so_are_their_gradients(levels):
    for mean, log_scale in EXTREMES:
        outputs = torch.tensor([[0.3, 0.0, mean, 0.1, log_scale, -1.0]], requires_grad=True)
        table = Logistics(levels, 2).table(outputs)
        (gradient,) = torch.autograd.grad(table.sum(), outputs)
        assert table.isfinite().all(), (mean, log_scale)
        assert gradient.isfinite().all(), (mean, log_scale)
        assert table.exp().sum().item() == pytest.approx(1, abs=1e-4)
        alone = torch.tensor([[0.0, mean, log_scale]], requires_grad=True)
        table = Logistics(levels, 1).table(alone)
        (gradient,) = torch.autograd.grad(table.sum(), alone)
        assert table.isfinite().all(), (mean, log_scale)
        assert gradient.isfinite().all(), (mean, log_scale)


@pytest.mark.parametrize(("mean", "log_scale"), [(1e7, 0.0), (-1e7, -7.0), (0.0, 100.0)])
def test_logistics_far_away_are_finite_too(mean, log_scale):
    """One such component must not spoil the gradient of the others."""
    outputs = torch.tensor([[0.3, 0.0, mean, 0.1, log_scale, -1.0]], requires_grad=True)
    table = Logistics(256, 2).table(outputs)
    (gradient,) = torch.autograd.grad(table.sum(), outputs)
    assert table.isfinite().all()
    assert gradient.isfinite().all()


def test_the_gradient_of_logistics_is_that_of_finite_differences():
    levels, components = 5, 2
    outputs, step = normal(6, 3 * components), 1e-5
    x = some_pictures(6, (1,), levels)[:, 0]
    k = (x * (levels - 1)).round().long()
    of = lambda o: mixture(levels, o, components).log().gather(1, k[:, None])[:, 0]
    for i in range(3 * components):
        shift = step * torch.eye(3 * components, dtype=torch.float64)[i]
        expected = (of(outputs + shift) - of(outputs - shift)) / (2 * step)
        leaf = outputs.clone().requires_grad_()
        total = Logistics(levels, components).log_prob(leaf, x).sum()
        (gradient,) = torch.autograd.grad(total, leaf)
        close(gradient[:, i], expected, atol=1e-4, rtol=1e-3)


# --- Levels


@pytest.mark.parametrize("levels", [2, 3, 4, 5, 16, 100, 255, 256])
def test_bytes_are_spread_over_the_levels(levels):
    v = torch.arange(256)
    x = pixelcnn.quantize(v / 255, levels)
    k = v * levels // 256
    close(x, k / (levels - 1))
    assert (x.diff() >= 0).all()
    assert torch.equal(pixelcnn.classes(x, levels), k)
    counts = k.bincount()
    assert len(counts) == levels  # all are reached
    assert counts.max() - counts.min() <= 1
    assert (x[0], x[-1]) == (0, 1)
    if 256 % levels == 0 or levels <= 5:
        close(pixelcnn.quantize(x, levels), x)


def test_256_levels_are_the_bytes_and_two_are_black_and_white():
    v = torch.arange(256) / 255
    assert torch.equal(pixelcnn.quantize(v, 256), v)
    assert torch.equal(pixelcnn.quantize(v, 2), (v >= 0.5).float())
    assert pixelcnn.quantize(torch.tensor([0.5, 127 / 255]), 2).tolist() == [1, 0]
    off = v + 0.3 * (torch.rand(256) - 0.5) / 255  # not quite a byte
    assert torch.equal(pixelcnn.quantize(off, 256), v)


def test_classes_are_the_numbers_of_the_levels():
    for levels in range(2, 257):
        for dtype in (torch.float32, torch.float64):
            k = torch.arange(levels)
            assert torch.equal(pixelcnn.classes((k / (levels - 1)).to(dtype), levels), k)


def test_protocols_of_black_and_white():
    grey = torch.tensor([0.0, 0.2, 0.5, 0.9, 1.0]).expand(40_000, 5)
    once, again = (pixelcnn.binarize(grey, "dynamic") for _ in range(2))
    assert not torch.equal(once, again)
    for x in (once, again):
        assert x.unique().tolist() == [0, 1]
        error = (grey[0] * (1 - grey[0]) / 40_000).sqrt()
        assert ((x.mean(dim=0) - grey[0]).abs() <= ROOM * error).all()
    assert pixelcnn.binarize(grey[:1], "threshold").tolist() == [[0, 0, 1, 1, 1]]
    assert torch.equal(pixelcnn.binarize(once, "static"), once)
    assert torch.equal(pixelcnn.binarize(once, "dynamic"), once)  # black and white stay
    assert pixelcnn.binarize(grey.double(), "dynamic").dtype == torch.float64


@pytest.mark.parametrize("levels", [2, 3])
@every_model
def test_a_model_may_start_with_independent_numbers(name, levels):
    """All its outputs' weights being zero, its bits are those of the histogram."""
    shape = small_shape(name, (3, 2, 4), (1, 1, 9))
    model = tiny(name, shape, levels)
    power = torch.linspace(1.5, 4, math.prod(shape), dtype=torch.float64).view(shape)
    k = (levels * torch.rand(50, *shape, dtype=torch.float64) ** power).long()
    x = k.double() / (levels - 1)  # dark, and each place and channel in another way
    pixelcnn.start_at_histogram(model, x, levels)
    last = model.out if name == "made" else model.head.outputs
    with torch.no_grad():
        assert last.weight.abs().max() > 0
        last.weight.zero_()
    counts = F.one_hot(k, levels).sum(dim=0).double()  # (C, H, W, L)
    if name != "made":  # of all places together
        counts = counts.sum(dim=(1, 2), keepdim=True).expand(counts.shape)
    log_p = ((counts + 0.5) / (counts + 0.5).sum(dim=-1, keepdim=True)).log()
    expected = -log_p.expand(50, *log_p.shape).gather(-1, k[..., None]).flatten(1).sum(dim=1)
    nats = -log_prob(model, x, Softmax(levels), labels(name, 50))
    close(nats, expected, atol=1e-4, rtol=1e-5)
    assert expected.mean() < 0.97 * math.prod(shape) * math.log(levels)


# --- Sampling


@every_model
@pytest.mark.parametrize("shape", [(1, 4, 5), (3, 3, 2), (4, 2, 2), (1, 1, 6), (2, 5, 1)], ids=str)
def test_a_site_by_itself_is_that_of_the_whole_pass(name, shape):
    """While x is filled in, and whatever stood there before."""
    if name == "wavenet":
        shape = (1, 1, math.prod(shape))
    model, n, sites = tiny(name, shape, 3), 4, None
    truth, y = some_pictures(n, shape, 3), labels(name, n)
    orderings = [{}]
    if name == "made":
        model, orderings = (
            shaken(MADE(shape, 3, 24, orderings=3)),
            [{"ordering": i} for i in (0, 2)],
        )
    for how in orderings:
        x = 7 + normal(n, *shape)
        outputs, outputs_at = model(truth, y, **how), model.stepper(x, y, **how)
        sites = model.order(**how) if how else model.sites
        for site in sites:
            close(outputs_at(site), outputs[(..., *site)], atol=1e-10, rtol=1e-9)
            x[(slice(None), *site)] = truth[(slice(None), *site)]


@every_model
@pytest.mark.parametrize("likelihood", [Softmax(3), Logistics(5, 2)], ids=["softmax", "logistics"])
def test_samples_are_the_same_with_and_without_what_is_kept(name, likelihood):
    shape = small_shape(name, (2, 3, 4), (1, 1, 20))
    model, y = tiny(name, shape, likelihood.outputs), labels(name, 6)
    start = some_pictures(6, shape, likelihood.levels)
    known = torch.rand(shape) < 0.3
    for how in ({}, {"known": known}, {"temperature": 0.6}, {"temperature": 0.0}):
        drawn = []
        for cached in (True, False):
            torch.manual_seed(1)
            x = start.clone()
            drawn.append(pixelcnn.sample(model, likelihood, x, y, cached=cached, **how))
            assert torch.equal(x, start)  # left alone
        assert torch.equal(*drawn)
        assert not drawn[0].requires_grad
        assert drawn[0].shape == start.shape
        k = drawn[0] * (likelihood.levels - 1)
        close(k, k.round(), atol=1e-5, rtol=0)  # on the grid
        assert drawn[0].min() >= 0
        assert drawn[0].max() <= 1


@of_pictures
@pytest.mark.parametrize("shape", [(1, 2, 3), (3, 1, 2), (2, 3, 1)], ids=str)
def test_samples_follow_the_model(name, shape):
    model, n = tiny(name, shape, size=0.3), 8000
    states, p = all_pictures(shape), probabilities(name, model, shape, label=1)
    x = torch.full((n, *shape), 0.7, dtype=torch.float64)
    drawn = pixelcnn.sample(model, Softmax(2), x, labels(name, n, 1))
    check_counts(drawn, states, p)


def test_sounds_follow_their_model():
    shape, n = (1, 1, 7), 8000
    model, states = tiny("wavenet", shape), all_pictures(shape)
    for note in range(2):
        p = probabilities("wavenet", model, shape, label=note)
        x = torch.zeros(n, *shape, dtype=torch.float64)
        drawn = pixelcnn.sample(model, Softmax(2), x, torch.full((n,), note))
        check_counts(drawn, states, p)


@pytest.mark.parametrize("likelihood", [Softmax(3), Logistics(3, 2)], ids=["softmax", "logistics"])
def test_samples_of_three_levels_follow_the_model(likelihood):
    shape, n = (1, 2, 2), 8000
    model, states = tiny("pixelcnn", shape, likelihood.outputs), all_pictures(shape, 3)
    p = log_prob(model, states, likelihood).exp()
    drawn = pixelcnn.sample(model, likelihood, torch.zeros(n, *shape, dtype=torch.float64))
    check_counts(drawn, states, p)


def conditional_of(name, model, shape, known, given, temperature=1.0, label=1):
    """What is drawn: the product of the conditionals of what is not known, given all before it."""
    states = all_pictures(shape)
    logits = model(states, labels(name, len(states), label)).detach()
    log_p = (logits / temperature).log_softmax(dim=1)
    log_p = log_p.gather(1, (states[:, None]).long())[:, 0]
    q = log_p.masked_fill(known, 0).flatten(1).sum(dim=1).exp()
    agree = (states == given)[:, known].all(dim=1)
    return states, torch.where(agree, q, 0)


def six_numbers(name, seed):
    """A model of six binary numbers, and six of them."""
    shape = small_shape(name, (1, 2, 3), (1, 1, 6))
    return tiny(name, shape, seed=seed, size=0.3), shape, float64(1, 0, 1, 1, 0, 1).view(shape)


@every_model
def test_a_prefix_is_completed_from_the_exact_conditional(name):
    """p(rest | given)."""
    (model, shape, given), n = six_numbers(name, 3), 8000
    states, p = all_pictures(shape), probabilities(name, model, shape, label=1)
    for length in (1, 3, 4):
        known = torch.zeros(shape, dtype=torch.bool)
        for site in model.sites[:length]:
            known[site] = True
        agree = (states == given)[:, known].all(dim=1)
        assert agree.sum() == 2 ** (6 - length)
        expected = torch.where(agree, p, 0) / p[agree].sum()
        x = torch.where(known, given, 0.5).expand(n, *shape)
        drawn = pixelcnn.sample(model, Softmax(2), x, labels(name, n, 1), known)
        assert (drawn == given)[:, known].all()
        check_counts(drawn, states, expected)
        _, q = conditional_of(name, model, shape, known, given)
        close(q, expected, atol=1e-6, rtol=1e-5)


@every_model
def test_what_is_known_later_is_not_foreseen(name):
    """Where the known part is no prefix of the order, what is drawn is not p(rest | given)."""
    (model, shape, given), n = six_numbers(name, 4), 8000
    known = torch.tensor([False, True, False, False, True, True]).view(shape)
    states, q = conditional_of(name, model, shape, known, given)
    drawn = pixelcnn.sample(model, Softmax(2), given.expand(n, *shape), labels(name, n, 1), known)
    assert (drawn == given)[:, known].all()
    check_counts(drawn, states, q)
    p = probabilities(name, model, shape, label=1)
    agree = (states == given)[:, known].all(dim=1)
    exact = torch.where(agree, p, 0) / p[agree].sum()
    assert (exact - q).abs().sum() > 0.001  # the two are not the same


@every_model
def test_all_or_nothing_may_be_known(name):
    model, shape, given = six_numbers(name, 5)
    x, y, none = given.expand(4, *shape), labels(name, 4), torch.zeros(shape, dtype=torch.bool)
    assert torch.equal(pixelcnn.sample(model, Softmax(2), x, y, ~none), x)
    drawn = []
    for known in (none, None):
        torch.manual_seed(2)
        drawn.append(pixelcnn.sample(model, Softmax(2), x, y, known))
    assert torch.equal(*drawn)
    assert not torch.equal(drawn[0], x)


@every_model
def test_a_temperature_sharpens_or_flattens_each_conditional(name):
    (model, shape, given), n = six_numbers(name, 2), 8000
    x, y, none = given.expand(n, *shape), labels(name, n, 1), torch.zeros(shape, dtype=torch.bool)
    for temperature in (0.4, 2.5):
        states, q = conditional_of(name, model, shape, none, given, temperature)
        drawn = pixelcnn.sample(model, Softmax(2), x, y, temperature=temperature)
        check_counts(drawn, states, q)
    coldest = pixelcnn.sample(model, Softmax(2), x[:50], labels(name, 50, 1), temperature=0)
    assert (coldest == coldest[0]).all()
    likeliest = model(coldest[:1], labels(name, 1, 1)).argmax(dim=1)
    assert torch.equal(coldest[:1], likeliest.double())


class TwoPixels(nn.Module):
    """The first is white with probability 1/2; then the second with 0.9, otherwise with 1/2."""

    sites = pixelcnn.raster((1, 1, 2))

    def forward(self, x, y=None):
        first = torch.full((len(x),), 0.5)
        p = torch.stack([first, torch.where(x[:, 0, 0, 0] > 0.5, 0.9, 0.5)], dim=1)
        return torch.stack([1 - p, p], dim=1).log()[:, :, None, None]


def test_a_temperature_of_each_conditional_is_not_one_of_the_whole():
    """p^2, made to sum to one, begins with white more often: there is more to be sure of."""
    model, x = TwoPixels(), torch.zeros(20_000, 1, 1, 2)
    states = all_pictures((1, 1, 2))  # black black, black white, white black, white white
    p = log_prob(model, states, Softmax(2)).exp()
    close(p, float64(0.25, 0.25, 0.05, 0.45), atol=1e-6, rtol=0)
    drawn = pixelcnn.sample(model, Softmax(2), x, temperature=0.5, cached=False)
    check_counts(drawn, states, float64(0.25, 0.25, 0.5 * 0.01 / 0.82, 0.5 * 0.81 / 0.82))
    whole = p.square() / p.square().sum()
    assert whole[2:].sum() > 0.6
    greedy = pixelcnn.sample(model, Softmax(2), 1 + x[:1], temperature=0, cached=False)
    assert greedy.sum() == 0  # the first is a tie; and 1/4 is not the mode, which has 0.45


def test_draws_have_the_probabilities_of_a_softmax():
    logits = torch.tensor([[0.0, 1.0, -2.0, -math.inf], [800.0, 801.0, 0.0, 799.0]])
    drawn = pixelcnn.draw(logits.repeat(50_000, 1)).view(-1, 2)
    for row, p in zip(drawn.T, logits.double().softmax(dim=1), strict=True):
        counts = row.bincount(minlength=4) / 50_000
        assert ((counts - p).abs() <= ROOM * (p * (1 - p) / 50_000).sqrt() + 1e-9).all()
    independent = (drawn[:, 0] == 1).float() * (drawn[:, 1] == 1).float()
    expected = logits.double().softmax(dim=1)[:, 1].prod().item()
    assert independent.mean().item() == pytest.approx(expected, abs=ROOM * 0.5 / 50_000**0.5)


# --- Labels


@pytest.mark.parametrize("name", LABELLED)
def test_the_label_of_each_example_is_used(name):
    shape = small_shape(name, (2, 4, 4), (1, 1, 12))
    model, x = tiny(name, shape, 3), some_pictures(6, shape, 3)
    same = x[:1].expand(6, *shape)
    y = torch.tensor([0, 1, 2, 2, 1, 0])
    outputs = model(same, y)
    close(outputs[[0, 1, 2]], outputs[[5, 4, 3]])
    for a, b in itertools.combinations(range(3), 2):
        assert ((outputs[a] - outputs[b]).abs().amax(dim=0) > 1e-6).all()  # at every site
    each = [model(x[i : i + 1], y[i : i + 1])[0] for i in range(6)]
    close(model(x, y), torch.stack(each))


@pytest.mark.parametrize("name", LABELLED)
@pytest.mark.parametrize("part", range(4))
def test_the_label_opens_the_gates_of_every_layer(name, part):
    """Of either stack, contents and opennesses: each part of its embedding alone has a say."""
    shape = small_shape(name, (1, 4, 4), (1, 1, 12))
    model, x = tiny(name, shape, 3), some_pictures(4, shape, 3)
    tables = [layer.label for layer in model.layers] if name == "conditional" else model.notes
    for layer, table in enumerate(tables):
        columns = torch.arange(table.weight.shape[1]).chunk(4)[part]
        zero, one = torch.zeros(4, dtype=torch.long), torch.ones(4, dtype=torch.long)
        old, other = model(x, zero), model(x, one)
        with torch.no_grad():
            table.weight[0, columns] += 0.5
        idle = name == "conditional" and part < 2 and layer == len(model.layers) - 1
        assert ((model(x, zero) - old).abs().max() > 1e-6) != idle  # nobody reads the last v
        assert torch.equal(model(x, one), other)


def test_without_labels_none_are_looked_at():
    model, x = tiny("pixelcnn"), some_pictures(3, (1, 3, 3), 2)
    assert torch.equal(model(x), model(x, torch.arange(3)))
    assert model.num_classes == 0
    assert tiny("conditional").num_classes == K


class Known(PixelCNN):
    """Of two pixels the first is white with probability 0.9, 0.5 or 0.2, by the label."""

    def __init__(self):
        super().__init__((1, 1, 2), 2, 2, [1], num_classes=3)

    def forward(self, x, y):
        first = torch.tensor([0.9, 0.5, 0.2])[y]
        second = torch.where(x[:, 0, 0, 0] > 0.5, torch.tensor([0.6, 0.7, 0.1])[y], 0.5)
        p = torch.stack([first, second], dim=1)
        return torch.stack([1 - p, p], dim=1).log()[:, :, None, None]


def test_labels_are_told_apart_by_the_rule_of_bayes():
    """White, white: 0.54, 0.35, 0.02; white, black: 0.36, 0.15, 0.18; black: 0.05, 0.25, 0.4."""
    x = float64([1, 1], [1, 0], [0, 1], [0, 0]).view(4, 1, 1, 2).float()
    best = torch.tensor([0, 0, 2, 2])
    for y, right in ((best, 1.0), (torch.tensor([0, 1, 2, 0]), 0.5), (torch.ones(4).long(), 0.0)):
        metrics = pixelcnn.likelihoods(Known(), Softmax(2), x, y, x, y)
        assert metrics["test_accuracy_by_bayes_rule"] == right
    y = torch.zeros(4, dtype=torch.long)
    metrics = pixelcnn.likelihoods(Known(), Softmax(2), x, y, x[:2], y)
    of = -np.log([0.54, 0.36, 0.05, 0.05])
    assert metrics["test_nll_nats"] == pytest.approx(of.mean(), abs=1e-5)
    assert metrics["train_nll_nats"] == pytest.approx(of[:2].mean(), abs=1e-5)
    assert metrics["test_bits_per_dim"] == pytest.approx(of.mean() / (2 * math.log(2)), abs=1e-5)
    assert metrics["train_bits_per_dim"] == pytest.approx(of[:2].mean() / math.log(4), abs=1e-5)
    error = of.std(ddof=1) / 2
    assert metrics["test_nll_nats_standard_error"] == pytest.approx(error, abs=1e-5)


def test_the_label_is_guessed_of_every_picture_by_a_network():
    model, shape = tiny("conditional", (1, 2, 3)).float(), (1, 2, 3)
    x, y = some_pictures(300, shape, 2).float(), torch.arange(300) % K
    metrics = pixelcnn.likelihoods(model, Softmax(2), x, y, x, y)
    given = torch.stack([log_prob(model, x, Softmax(2), torch.full((300,), k)) for k in range(K)])
    right = (given.argmax(dim=0) == y).double().mean().item()
    assert metrics["test_accuracy_by_bayes_rule"] == pytest.approx(right, abs=1e-6)
    own = given.gather(0, y[None])[0]
    assert metrics["test_nll_nats"] == pytest.approx(-own.mean().item(), abs=1e-4)


def test_several_orderings_are_measured_each_and_together():
    shape = (1, 2, 3)
    model, x = shaken(MADE(shape, 2, 20, orderings=3)).float(), some_pictures(250, shape, 2).float()
    y = torch.zeros(250, dtype=torch.long)
    metrics = pixelcnn.likelihoods(model, Softmax(2), x, y, x[:100], y)
    each = torch.stack([log_prob(model, x, Softmax(2), ordering=i) for i in range(3)])
    assert metrics["test_nll_nats"] == pytest.approx(-each[0].mean().item(), abs=1e-4)
    mean = metrics["test_nll_nats_mean_of_orderings"]
    assert mean == pytest.approx(-each.mean().item(), abs=1e-4)
    together = each.exp().mean(dim=0).log()
    ensemble = metrics["test_nll_nats_ensemble"]
    assert ensemble == pytest.approx(-together.mean().item(), abs=1e-4)
    assert ensemble < mean - 1e-2
    assert metrics["train_nll_nats"] == pytest.approx(-each[0, :100].mean().item(), abs=1e-4)
    one = shaken(MADE(shape, 2, 20)).float()
    assert "test_nll_nats_ensemble" not in pixelcnn.likelihoods(one, Softmax(2), x, y, x, y)


# --- The parts of the networks


CONVOLUTIONS = [
    ((1, 2), None, 1),
    ((1, 3), None, 2),
    ((1, 2), None, 4),
    ((2, 3), None, 1),
    ((2, 3), None, 2),
    ((3, 5), None, 1),
    ((2, 3), "A", 1),
    ((2, 3), "B", 1),
    ((4, 7), "A", 1),
    ((3, 5), "B", 2),
    ((1, 3), "A", 1),
]
convolutions = pytest.mark.parametrize("how", CONVOLUTIONS, ids=str)


def convolution(kernel, mask, dilation, size_in=2, size_out=3):
    return shaken(CausalConv2d(size_in, size_out, kernel, mask=mask, dilation=dilation))


@convolutions
def test_a_causal_convolution_is_a_dense_one_with_zeros(how):
    """A square kernel, of which the rows below and the masked points were set to zero."""
    kernel, mask, dilation = how
    (rows, columns), conv = kernel, convolution(kernel, mask, dilation)
    sides = columns // 2 if rows > 1 or mask else columns - 1
    dense = nn.Conv2d(
        2, 3, (2 * rows - 1, 2 * sides + 1), padding="same", dilation=dilation
    ).double()
    with torch.no_grad():
        dense.weight.zero_()
        dense.weight[:, :, :rows, :columns] = conv.weight
        if mask:
            dense.weight[:, :, rows - 1, sides + (mask == "B") :] = 0
        dense.bias.copy_(conv.bias)
    x = normal(2, 2, 7, 9)
    close(conv(x), dense(x))
    kept = conv.masked_weight()[0, 0] != 0
    expected = torch.ones(rows, columns, dtype=torch.bool)
    if mask:
        expected[-1, columns // 2 + (mask == "B") :] = False
    assert torch.equal(kept, expected)
    assert conv.masked == (mask is not None)


@convolutions
def test_a_row_or_a_place_of_a_convolution_from_what_is_kept(how):
    """Rows of the input are told one by one, or places: what comes later is not needed."""
    kernel, mask, dilation = how
    conv, x = convolution(kernel, mask, dilation), normal(2, 2, 5, 7)
    expected = conv(x)
    by_row, by_place = conv.memory(2, 5, 7), conv.memory(2, 5, 7)
    assert by_row.abs().max() == 0
    assert by_row.dtype == torch.float64
    for row in range(5):
        conv.remember(by_row, row, 0, x[:, :, row : row + 1])
        close(conv.at(by_row, row), expected[:, :, row : row + 1])
        for column in range(7):
            here = x[:, :, row : row + 1, column : column + 1]
            conv.remember(by_place, row, column, here)
            memory = by_place if mask or kernel[0] == 1 else by_row  # which needs the right, too
            got = conv.at(memory, row, column)
            close(got, expected[:, :, row : row + 1, column : column + 1])


def test_rows_and_columns_are_shifted_by_one():
    x = normal(2, 3, 4, 5)
    down, right = pixelcnn.shift_down(x), pixelcnn.shift_right(x)
    assert torch.equal(down[:, :, 1:], x[:, :, :-1])
    assert torch.equal(right[..., 1:], x[..., :-1])
    assert down[:, :, 0].abs().max() == right[..., 0].abs().max() == 0
    assert down.shape == right.shape == x.shape


def test_sites_are_read_by_row_and_column_and_channel():
    assert pixelcnn.raster((2, 1, 2)) == [(0, 0, 0), (1, 0, 0), (0, 0, 1), (1, 0, 1)]
    assert pixelcnn.raster((1, 2, 2)) == [(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1)]


def test_a_gate_lets_through_a_part():
    x = normal(2, 6, 3, 1)
    got = pixelcnn.gate(x)
    close(got, x[:, :3].tanh() / (1 + (-x[:, 3:]).exp()))
    assert got.shape == (2, 3, 3, 1)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_head_is_a_small_network_for_each_channel(channels):
    """Of the features and of the channels before."""
    features, outputs, width, n = 4, 5, 6, 2
    head = shaken(Head(features, channels, outputs, width))
    f, x = normal(n, features, 3, 2), normal(n, channels, 3, 2, seed=1)
    got = head(f, x)
    assert got.shape == (n, outputs, channels, 3, 2)
    for c in range(channels):
        rows = slice(c * width, (c + 1) * width)
        h = torch.einsum("kf,nfij->nkij", head.features.weight[rows, :, 0, 0], f.clamp(min=0))
        h = h + head.features.bias[rows][:, None, None]
        for b in range(c):
            h = h + head.earlier.weight[rows, b, 0, 0][:, None, None] * x[:, b : b + 1]
        rows = slice(c * outputs, (c + 1) * outputs)
        out = torch.einsum("pk,nkij->npij", head.outputs.weight[rows, :, 0, 0], h.clamp(min=0))
        close(got[:, :, c], out + head.outputs.bias[rows][:, None, None])


def test_the_features_of_a_place_are_computed_once():
    head, x, asked = shaken(Head(4, 3, 2)), normal(2, 3, 2, 2), []

    def features_at(row, column):
        asked.append((row, column))
        return normal(2, 4, 1, 1, seed=2 * row + column)

    outputs_at = pixelcnn.by_place(head, x, features_at)
    whole = torch.cat(
        [torch.cat([normal(2, 4, 1, 1, seed=2 * i + j) for j in (0, 1)], dim=3) for i in (0, 1)],
        dim=2,
    )
    expected = head(whole, x)
    for site in pixelcnn.raster((3, 2, 2)):
        close(outputs_at(site), expected[(..., *site)])
    assert asked == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_a_gated_layer_written_out():
    """Fig. 2 of the paper: h hears of v before v's gate, and v never of h."""
    layer = shaken(pixelcnn.GatedLayer(3, 2, K))
    v, h, y = normal(K, 3, 5, 6), normal(K, 3, 5, 6, seed=1), torch.arange(K)
    new_v, new_h = layer(v, h, y)
    to_v, to_h = layer.label.weight[:, :, None, None].tensor_split(2, dim=1)
    above = layer.vertical(v)
    content, openness = (above + to_v).tensor_split(2, dim=1)
    close(new_v, content.tanh() * openness.sigmoid())
    link = torch.einsum("oi,nihw->nohw", layer.link.weight[..., 0, 0], above)
    link = link + layer.link.bias[:, None, None]
    content, openness = (layer.horizontal(h) + link + to_h).tensor_split(2, dim=1)
    change = torch.einsum(
        "oi,nihw->nohw", layer.out.weight[..., 0, 0], content.tanh() * openness.sigmoid()
    )
    close(new_h, h + change + layer.out.bias[:, None, None])
    again, _ = layer(v, 0 * h, y)
    assert torch.equal(again, new_v)
    assert layer.vertical.kernel_size == (2, 3)
    plain = shaken(pixelcnn.GatedLayer(3, 1, 0))
    assert plain.label is None
    close(plain(v, h, None)[0], pixelcnn.gate(plain.vertical(v)))


def test_the_masked_network_written_out():
    shape = (2, 4, 5)
    model, x = shaken(MaskedPixelCNN(shape, 3, 4, 2)), normal(2, *shape)

    def convolve(conv, h, sides, own):
        """A window of the rows above and, of its own row, what is at the left, or itself, too."""
        weight = conv.weight.clone()
        weight[:, :, -1, sides + own :] = 0
        padding = (sides, sides, weight.shape[2] - 1, 0)
        return F.conv2d(F.pad(h, padding), weight, conv.bias)

    h = convolve(model.first, x, 3, 0) + model.place
    for layer, out in zip(model.layers, model.out, strict=True):
        h = h + out(convolve(layer, h, 1, 1).clamp(min=0))
    close(model(x), model.head(h, x))
    assert model.place.abs().min() > 0


def test_made_written_out():
    shape, hidden, P = (1, 2, 2), 7, 3
    model, x = shaken(MADE(shape, P, hidden, orderings=2)), normal(3, *shape)
    for ordering in (0, 1):
        got = model(x, ordering=ordering)
        place = model.places[ordering].tolist()
        degrees = [m * 3 // hidden for m in range(hidden)]
        for i, (c, row, column) in enumerate(sites_of(shape)):
            out = model.out.bias.view(P, 4)[:, i].repeat(3, 1)
            for m in range(hidden):
                if degrees[m] >= place[i]:
                    continue
                h = model.hidden.bias[m] + sum(
                    model.hidden.weight[m, j] * x.flatten(1)[:, j]
                    for j in range(4)
                    if place[j] <= degrees[m]
                )
                weight = model.out.weight.view(P, 4, hidden)[:, i, m]
                out = out + h.clamp(min=0)[:, None] * weight
            close(got[:, :, c, row, column], out)


@pytest.mark.parametrize(("queries", "keys"), [(5, 5), (1, 5), (3, 7), (1, 1)])
def test_attention_is_that_of_torch(queries, keys):
    """The queries are the last ones: each sees itself and what is before it."""
    q, k, v = normal(2, 3, queries, 4), normal(2, 3, keys, 4, seed=1), normal(2, 3, keys, 6, seed=2)
    got = pixelcnn.attention(3 * q, k, v)
    place = torch.arange(keys)
    sees = place <= place[keys - queries :, None]
    close(got, F.scaled_dot_product_attention(3 * q, k, v, attn_mask=sees))
    if queries == keys:
        close(got, F.scaled_dot_product_attention(3 * q, k, v, is_causal=True))
        close(got[..., 0, :], v[..., 0, :])
    k, v = k.clone(), v.clone()
    if keys > 1:
        first = got[..., :-1, :]
        k[..., -1, :], v[..., -1, :] = 100, 100
        close(pixelcnn.attention(3 * q, k, v)[..., :-1, :], first)


def test_a_block_is_the_layer_of_torch():
    width, heads = 12, 3
    block = shaken(Block(width, heads))
    theirs = nn.TransformerEncoderLayer(
        width, heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True
    ).double()
    pairs = [
        (theirs.self_attn.in_proj_weight, block.qkv.weight),
        (theirs.self_attn.in_proj_bias, block.qkv.bias),
        *zip(theirs.self_attn.out_proj.parameters(), block.out.parameters(), strict=True),
        *zip(theirs.linear1.parameters(), block.mlp[0].parameters(), strict=True),
        *zip(theirs.linear2.parameters(), block.mlp[2].parameters(), strict=True),
        *zip(theirs.norm1.parameters(), block.norms[0].parameters(), strict=True),
        *zip(theirs.norm2.parameters(), block.norms[1].parameters(), strict=True),
    ]
    with torch.no_grad():
        for to, given in pairs:
            to.copy_(given)
    h = normal(2, 7, width)
    mask = nn.Transformer.generate_square_subsequent_mask(7, dtype=torch.float64)
    close(block(h), theirs(h, src_mask=mask, is_causal=True))


def test_the_transformer_reads_the_site_before():
    """The first one nothing but its place."""
    shape = (2, 2, 3)
    model, x = shaken(Transformer(shape, 3, 8, 2, heads=2)), normal(4, *shape)
    sequence = torch.stack([x[:, :, t // 3, t % 3] for t in range(6)], dim=1)
    h = torch.cat([0 * sequence[:, :1], sequence[:, :-1]], dim=1)
    h = h @ model.embed.weight.T + model.embed.bias + model.place
    for block in model.blocks:
        h = block(h)
    expected = model.head(h.transpose(1, 2).reshape(4, 8, 2, 3), x)
    close(model(x), expected)


def test_wavenet_written_out():
    dilations, x, y = [1, 3], some_pictures(K, (1, 1, 9), 16), torch.arange(K)
    model = shaken(WaveNet((1, 1, 9), 5, 4, dilations, K))
    loud = F.pad(2 * x - 1, (1, 0))[..., :-1]  # silence is 0, and before the beginning it is silent

    def convolve(conv, h, d):
        earlier = F.pad(h, (d, 0))[..., : h.shape[-1]]
        of = lambda i, h: torch.einsum("oi,nihw->nohw", conv.weight[:, :, 0, i], h)
        return of(0, earlier) + of(1, h) + conv.bias[:, None, None]

    h, skips = convolve(model.first, loud, 1), 0
    for i, d in enumerate(dilations):
        seen = convolve(model.layers[i], h, d) + model.notes[i].weight[y][:, :, None, None]
        both = model.out[i](seen[:, :4].tanh() * seen[:, 4:].sigmoid())
        h, skips = h + both[:, :4], skips + both[:, 4:]
    close(model(x, y), model.head(skips, x))


@every_model
def test_no_weight_is_idle(name):
    """But those that a mask takes away, and relus that are asleep."""
    shape = small_shape(name, (2, 5, 5), (1, 1, 14))
    model, x = tiny(name, shape, 3), some_pictures(30, shape, 256)
    model(x, labels(name, 30)).square().sum().backward()
    for which, p in model.named_parameters():
        if which != "head.earlier.weight" or shape[0] > 1:
            assert (p.grad != 0).double().mean() > 0.1, which


# --- Training


def train(folder, model, x, *, y=None, likelihood=None, prepare=None, look=None, **flags):
    """The chapter's loop on x; returns the averaged model and the run."""
    flags = {"precision": "fp32", "out": folder, "dataset": "digits", "levels": 2} | flags
    run = utils.start(Config(**flags), "toy.py")
    if look is None:
        run.time_to_look = lambda: False
    y = torch.zeros(len(x), dtype=torch.long) if y is None else y
    likelihood = likelihood or Softmax(run.config.levels)
    return pixelcnn.train(model, likelihood, (x, y), prepare or (lambda x: x), look, run), run


def stripes(n, shape):
    """Pictures that are all white or all black: one bit."""
    return (torch.arange(n) % 2).float().view(-1, 1, 1, 1).expand(n, *shape).clone()


@every_model
def test_every_model_learns_that_numbers_depend_on_each_other(name, tmp_path):
    """Alone each has a bit, all together have one; and a label tells it beforehand."""
    shape = small_shape(name, (1, 2, 3), (1, 1, 6))
    x, y = stripes(256, shape), torch.arange(256) % 2
    flags = {"epochs": 10, "batch_size": 32, "lr": 0.01, "ema": 0.9, "width": 16, "layers": 2}
    flags |= {"lr": 0.05} if name == "made" else {}
    config = Config(model=name, hidden=30, **flags)
    model = pixelcnn.build(config, shape, 2, K if name in LABELLED else 0)
    pixelcnn.start_at_histogram(model, x, 2)
    averaged, run = train(tmp_path, model, x, y=y, **flags)
    bits = run.series("bits_per_dim")[1]
    entropy = 0 if name in LABELLED else math.log(2)
    nats = -log_prob(averaged, x, Softmax(2), y if name in LABELLED else None).mean().item()
    assert nats == pytest.approx(entropy, abs=0.12)
    assert not averaged.training
    assert bits[0] > bits[-1]
    assert bits[-1] == pytest.approx(entropy / (6 * math.log(2)), abs=0.05)


def test_bits_of_training_are_those_of_the_loss(tmp_path):
    """A network of zeros that hardly moves: log2 L."""
    for levels in (2, 16):
        model = zeroed(TINY["pixelcnn"]((1, 2, 2), levels))
        x = some_pictures(80, (1, 2, 2), levels).float()
        flags = {"epochs": 2, "batch_size": 8, "lr": 1e-9, "levels": levels}
        _, run = train(tmp_path, model, x, **flags)
        assert run.series("bits_per_dim")[1] == pytest.approx([math.log2(levels)] * 2, rel=1e-5)


def test_the_loop_follows_its_plan(tmp_path, monkeypatch):
    """Rate, pull, longest gradient and average; data is prepared anew for each step."""
    rates, lengths, longest, decays, prepared, looked = [], [], [], [], [], []

    def note(optimizer, *_):
        rates.append([(g["lr"], g["weight_decay"]) for g in optimizer.param_groups])
        weights = [p for group in optimizer.param_groups for p in group["params"]]
        lengths.append(torch.cat([p.grad.flatten() for p in weights]).norm().item())

    watch(monkeypatch, "step", note, torch.optim.AdamW)
    watch(monkeypatch, "clip_grad_norm_", lambda _, most: longest.append(most), nn.utils)
    watch(monkeypatch, "update_ema", lambda *args: decays.append(args[2]), utils)
    model, x = TINY["made"]((1, 2, 2), 2), some_pictures(80, (1, 2, 2), 2).float()

    def prepare(x):
        prepared.append(x)
        return x

    def look(model):
        looked.append(model)
        return torch.zeros(1, 1, 4, 4)

    flags = {"epochs": 10, "batch_size": 8, "lr": 0.1, "weight_decay": 0.03, "clip": 0.7}
    averaged, run = train(tmp_path, model, x, prepare=prepare, look=look, ema=0.8, **flags)
    assert len(rates) == len(longest) == len(decays) == len(prepared) == 100
    assert {decay for step in rates for _, decay in step} == {0.03}
    rates = [step[0][0] for step in rates]
    assert rates[0] < max(rates) == pytest.approx(0.1)
    assert rates[-1] < 0.02
    assert rates[40:60] == pytest.approx([0.1] * 20)
    assert set(longest) == {0.7}
    assert max(lengths) == pytest.approx(0.7, rel=1e-4)
    assert decays[0] == 0  # the first weights of all are forgotten
    assert decays == sorted(decays)
    assert decays[-1] == 0.8
    assert all(m is averaged for m in looked)
    assert len(looked) == len(run.frames) > 10
    differ = [
        (a - b).abs().max() for a, b in zip(averaged.parameters(), model.parameters(), strict=True)
    ]
    assert all(0 < d < 0.1 for d in differ)


@pytest.mark.parametrize("name", ["pixelcnn", "made", "wavenet"])
def test_a_resumed_run_ends_with_the_same_bits(name, tmp_path, monkeypatch):
    """Weights, their average, the optimiser and the orderings are in the checkpoint."""
    shape = small_shape(name, (1, 2, 3))
    grey, y = torch.rand(96, *shape), torch.arange(96) % K
    build = TINY[name] if name != "made" else lambda s, P: MADE(s, P, 9, orderings=3)

    def go(folder, **flags):
        torch.manual_seed(4)
        how = {"prepare": lambda x: pixelcnn.binarize(x, "dynamic"), "epochs": 4, "batch_size": 32}
        train(tmp_path / folder, build(shape, 2).train(), grey, y=y, **how, **flags)

    go("whole")
    monkeypatch.setattr(sys.modules["code_examples.utils.run"], "SAVE_SECONDS", 0)
    calls = []

    def killed(*_, **__):
        calls.append(0)
        if len(calls) == 7:
            raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        watch(patch, "nll", killed)
        with pytest.raises(RuntimeError, match="killed"):
            go("cut")
    go("cut", resume=True)
    whole, cut = (
        torch.load(tmp_path / folder / "checkpoint.pt", weights_only=True)["objects"]
        for folder in ("whole", "cut")
    )
    assert whole.keys() == {"model", "optimizer", "ema"}
    for part in ("model", "ema"):
        for which, weight in whole[part].items():
            assert torch.equal(weight, cut[part][which]), (part, which)


# --- Sound


@pytest.mark.parametrize("levels", [2, 16, 255, 256])
def test_mu_law_and_back(levels):
    """The way there is the formula of the standard; the way back loses half a step at most."""
    mu, s = levels - 1, torch.linspace(-1, 1, 60_001, dtype=torch.float64)
    x = pixelcnn.mu_law(s, levels)
    y = np.sign(s.numpy()) * np.log(1 + mu * np.abs(s.numpy())) / np.log(1 + mu)
    assert (x - (torch.from_numpy(y) + 1) / 2).abs().max() <= 0.5 / mu + 1e-12
    k = x * mu
    close(k, k.round())
    assert (x.diff() >= 0).all()
    assert (x[0], x[-1]) == (0, 1)
    assert len(x.unique()) == levels
    back = pixelcnn.mu_law_inverse(x, levels)
    # an error of 1 / mu in log(1 + mu |s|) / log(1 + mu)
    most = (1 + mu * s.abs()) * math.expm1(math.log(levels) / mu) / mu
    assert ((back - s).abs() <= most + 1e-12).all()
    close(pixelcnn.mu_law(-s, levels)[s != 0][::7], (1 - x)[s != 0][::7], atol=1.01 / mu, rtol=0)
    grid = torch.arange(levels, dtype=torch.float64) / mu
    inverse = pixelcnn.mu_law_inverse(grid, levels)
    close(pixelcnn.mu_law(inverse, levels), grid)
    close(inverse, -inverse.flip(0))
    expected = (2 * grid - 1).sign() * ((1 + mu) ** (2 * grid - 1).abs() - 1) / mu
    close(inverse, expected)
    assert (inverse[0], inverse[-1]) == pytest.approx((-1, 1))


def test_mu_law_is_finer_where_it_is_quiet():
    for levels in (16, 256):
        gaps = pixelcnn.mu_law_inverse(torch.arange(levels).double() / (levels - 1), levels).diff()
        assert (gaps[levels // 2 :].diff() > 0).all()
        assert gaps[-1] > levels / 5 * gaps[levels // 2]


def test_notes_are_semitones_above_the_lowest():
    low, every = pixelcnn.LOWEST, pixelcnn.frequency(torch.arange(pixelcnn.NOTES))
    f = pixelcnn.frequency(torch.tensor([0, 12, 24, 1]))
    close(f, torch.tensor([low, 2 * low, 4 * low, low * 2 ** (1 / 12)]))
    steps = torch.full((pixelcnn.NOTES - 1,), 100.0)
    close(pixelcnn.cents(every[1:], every[:-1]), steps, atol=1e-2, rtol=0)


def test_an_octave_has_1200_cents():
    a, b = float64(220, 110, 100, 105), float64(110, 220, 100, 100)
    got = pixelcnn.cents(a, b)
    close(got, float64(1200, -1200, 0, 12 * 100 * math.log2(1.05)))


FINGER = 7  # samples by which the finger's softness makes the noise longer


@pytest.mark.parametrize("hertz", [110.0, 146.83, 207.65, 330.0, 440.0])
def test_a_plucked_string_is_a_loop(hertz):
    """Once the noise is in, each sample is a mean of neighbours one period before."""
    loss, steps = 0.01, 1500
    (y,) = pixelcnn.pluck(torch.tensor([hertz]), steps, loss).double()
    period = pixelcnn.RATE / hertz
    whole = math.floor(period - 0.5)
    part = period - 0.5 - whole
    t = torch.arange(whole + 3 + FINGER, steps)
    delayed = lambda t: (1 - part) * y[t - whole] + part * y[t - whole - 1]
    close(y[t], (1 - loss) * (delayed(t) + delayed(t - 1)) / 2, atol=1e-5, rtol=0)
    assert y.abs().max().item() == pytest.approx(0.95)
    assert (y[:whole] != 0).all()


def test_the_burst_is_one_period_long():
    """White noise, of which the finger takes means of eight; what comes later is the loop's."""
    hertz = torch.tensor([200.0, 400.0])  # 40 and 20 samples
    torch.manual_seed(3)
    y = pixelcnn.pluck(hertz, 100, 0.0)
    torch.manual_seed(3)
    noise = (2 * torch.rand(2, 100) - 1).tolist()
    for row, (whole, part) in enumerate([(39, 0.5), (19, 0.5)]):
        own, raw = [0.0] * 100, [n if t <= whole else 0.0 for t, n in enumerate(noise[row])]
        at = lambda t, own=own: own[t] if t >= 0 else 0.0
        for t in range(100):
            ago = [at(t - whole - i) for i in range(3)]
            loop = 0.5 * ((1 - part) * ago[0] + ago[1] + part * ago[2])
            own[t] = loop + sum(raw[max(0, t - FINGER) : t + 1]) / (FINGER + 1)
        own = 0.95 * torch.tensor(own) / max(map(abs, own))
        close(y[row], own, atol=1e-5, rtol=0)


def test_plucked_strings_sound_as_asked_and_fade():
    asked = 110 * 2 ** (torch.arange(25) / 12)
    torch.manual_seed(0)
    y = pixelcnn.pluck(asked, 4000)
    torch.manual_seed(0)
    assert torch.equal(y, pixelcnn.pluck(asked, 4000))
    assert not torch.equal(y, pixelcnn.pluck(asked, 4000))  # another string of the same pitch
    assert y.shape == (25, 4000)
    error = pixelcnn.cents(pixelcnn.pitch_of(y), asked)
    assert error.abs().max() < 5
    assert error.abs().median() < 1
    for row, hertz in zip(y, asked.tolist(), strict=True):  # by another road: harmonics add up
        spectrum = torch.fft.rfft(row * torch.hann_window(4000), n=2**16).abs()
        of = lambda f, s=spectrum: sum(s[round(k * f * 2**16 / 8000)] for k in range(1, 5)).item()
        near = [of(hertz * 2 ** (c / 1200)) for c in (-100, -50, 0, 50, 100)]
        assert max(near) == near[2]
    loud = y.unfold(1, 1000, 1000).square().mean(dim=2)
    assert (loud.diff(dim=1) < 0).all()
    quiet = pixelcnn.pluck(asked, 4000, 0.05).unfold(1, 1000, 1000).square().mean(dim=2)
    assert (quiet[:, -1] / quiet[:, 0] < 0.5 * loud[:, -1] / loud[:, 0]).all()


def test_high_harmonics_of_a_string_fade_first():
    y = pixelcnn.pluck(torch.full((20,), 200.0), 4000)
    window = torch.hann_window(1000)
    early, late = (
        torch.fft.rfft(window * part).abs().square() for part in (y[:, :1000], y[:, 3000:])
    )
    fade = [(late[:, 25 * k].mean() / early[:, 25 * k].mean()).item() for k in (1, 2, 3)]
    assert fade == sorted(fade, reverse=True)
    # a lap of the loop takes the mean of two, and here, half way between samples, once more
    laps = 3000 / 40
    for k in (1, 2, 3):
        expected = (0.996 * math.cos(math.pi * 200 * k / 8000) ** 2) ** (2 * laps)
        assert fade[k - 1] == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("hertz", [82.0, 110.0, 123.4, 220.0, 311.1, 440.0, 587.0])
def test_the_pitch_of_known_tones(hertz):
    t = torch.arange(4000) / pixelcnn.RATE
    sine = (2 * math.pi * hertz * t + 1).sin()
    saw = sum((2 * math.pi * hertz * k * t).sin() / k for k in range(1, int(4000 / hertz)))
    low = sum((2 * math.pi * hertz * k * t).sin() for k in (2, 3, 4))  # without its fundamental
    tones = torch.stack([sine, saw, low, 0.01 * sine + 0.3])
    error = pixelcnn.cents(pixelcnn.pitch_of(tones), torch.tensor(hertz))
    assert error.shape == (4,)
    assert error[[0, 3]].abs().max() < 0.6
    assert error[1].abs() < 6  # of sharp peaks a parabola is not the shape
    assert error[2].abs() < 6


def test_no_octave_is_mistaken():
    """Twice the period fits as well, half of it nearly; the first of the high peaks is meant."""
    t = torch.arange(4000) / pixelcnn.RATE
    for weak in (0.3, 1.0, 2.0):
        tone = (2 * math.pi * 150 * t).sin() + weak * (2 * math.pi * 300 * t).sin()
        assert pixelcnn.cents(pixelcnn.pitch_of(tone[None]), torch.tensor(150.0)).abs() < 2
    fading = (2 * math.pi * 500 * t).sin() * (-3 * t).exp()
    assert pixelcnn.cents(pixelcnn.pitch_of(fading[None]), torch.tensor(500.0)).abs() < 2
    outside = torch.stack([(2 * math.pi * 300 * t).sin()])
    assert pixelcnn.pitch_of(outside, low=80, high=200).item() == pytest.approx(150, rel=1e-3)


def test_a_tone_without_a_pitch_is_not_in_tune():
    """Silence, or one that stays where it is."""
    silent = torch.tensor([[0.0], [0.5]]).expand(2, 400)
    error = pixelcnn.cents(pixelcnn.pitch_of(silent), torch.tensor([110.0, 440.0]))
    assert pixelcnn.pitch_metrics(error, "")["pitch_within_50_cents_share"] == 0


def test_noise_has_some_pitch_in_the_range():
    """Of a walk at random no peak is high; the parabola must not lead out of the range."""
    walks = torch.cat([torch.randn(20, 400).cumsum(dim=1), torch.linspace(-1, 1, 400)[None]])
    hertz = pixelcnn.pitch_of(walks)
    assert hertz.isfinite().all()
    assert hertz.min() > 40
    assert hertz.max() < 2000


def test_errors_of_pitch_are_summed_up():
    metrics = pixelcnn.pitch_metrics(torch.tensor([-60.0, 3.0, -1.0, 200.0, 49.0]), "_x")
    assert metrics == pytest.approx(
        {"pitch_error_cents_median_x": 49.0, "pitch_within_50_cents_share_x": 0.6}
    )


# --- Experiment


def test_copies_of_other_chapters_are_the_same():
    values = torch.tensor([1.0, 2.0, 3.0, 6.0])
    got = pixelcnn.mean_and_error(values, "loss")
    assert got == energy.mean_and_error(values, "loss")
    assert got["loss_standard_error"] == pytest.approx(np.std([1, 2, 3, 6], ddof=1) / 2)


def ticking(monkeypatch):
    """A clock of the chapter that goes on by one second whenever it is read."""
    seconds = iter(range(1000))
    monkeypatch.setattr(pixelcnn, "time", SimpleNamespace(perf_counter=lambda: next(seconds)))


@pytest.mark.parametrize(("name", "steps"), [("pixelcnn", 9), ("made", 18)])
def test_sampling_without_keeping_takes_a_pass_for_each_place(name, steps, monkeypatch):
    """Of MADE, whose order is random, for each number; the first pass is not timed."""
    ticking(monkeypatch)
    shape, passes = (2, 3, 3), []
    model, x = tiny(name, shape).float(), torch.zeros(7, *shape)
    model.register_forward_hook(lambda *_: passes.append(0))
    metrics = pixelcnn.speed(model, Softmax(2), x, torch.zeros(7, dtype=torch.long))
    naive = pytest.approx(steps / (len(passes) - 1))
    assert metrics == {
        "seconds_per_7_samples": 1,
        "seconds_per_7_samples_naive_estimated": naive,
        "speedup_by_caching": naive,
    }


@pytest.mark.parametrize("name", TINY)
def test_each_name_builds_its_network(name):
    config = Config(model=name, width=8, layers=5, hidden=11, orderings=2)
    shape = small_shape(name)
    model = pixelcnn.build(config, shape, 7, K if name in LABELLED else 0)
    kinds = {"conditional": PixelCNN, "pixelcnn": PixelCNN, "pixelcnn-masked": MaskedPixelCNN}
    kinds |= {"made": MADE, "transformer": Transformer, "wavenet": WaveNet}
    assert type(model) is kinds[name]
    x = torch.zeros(2, *shape)
    assert model(x, labels(name, 2)).shape == (2, 7, *shape)
    if name == "made":
        assert (len(model.degrees), len(model.places)) == (11, 2)
        return
    assert len(model.blocks if name == "transformer" else model.layers) == 5
    assert model.head.features.in_channels == 8
    if name in LABELLED:  # told apart from the first
        assert not torch.equal(*(model(x, torch.full((2,), k)) for k in range(2)))
    if name == "wavenet":
        assert [layer.dilation[1] for layer in model.layers] == [1, 2, 4, 8, 16]


PICTURES = {"animation", "image_grid", "image_rows"}
CHARTS = {"curves", "spectrograms"}
FILES = {"config.json", "history.csv", "metrics.json", "samples.npy", "checkpoint.pt"}
FILES |= {"learning_curve.png"}
OF_PICTURES = {"samples.png", "training.gif", "drawing.gif", "completions.png", "temperature.png"}
OF_PICTURES |= {"receptive_field.png", "surprise.png"}
OF_SOUND = {"wavenet.wav", "plucked_strings.wav", "spectrogram.png", "pitch.png"}
QUALITY = {"frechet_distance", "kernel_distance", "precision", "recall", "inception_score"}
ALWAYS = {"test_nll_nats", "test_nll_nats_standard_error", "test_bits_per_dim", "train_nll_nats"}
ALWAYS |= {"train_bits_per_dim", "seconds_per_1000_samples", "speedup_by_caching"}
SMALL = {"quick": True, "epochs": 1, "precision": "fp32", "width": 4, "layers": 2, "hidden": 30}
SMALL |= {"num_samples": 12}


@pytest.fixture
def drawn(monkeypatch):
    """What was drawn, by the name of the file; only touched, as other tests draw."""
    shown = {}
    monkeypatch.setattr(sys.modules["code_examples.utils.run"], "LOOKS", 2)

    def recorder(what, path, **how):
        shown[path.name] = what
        path.touch()
        return path

    for name in PICTURES | CHARTS:
        monkeypatch.setattr(utils, name, recorder)
    return shown


def finished(folder):
    """Metrics, all finite, and what the checkpoint holds."""
    metrics = json.loads((folder / "metrics.json").read_text())
    assert all(math.isfinite(v) for v in metrics.values() if not isinstance(v, str))
    return metrics, torch.load(folder / "checkpoint.pt", weights_only=True)["objects"]


MAINS = [
    {"model": "pixelcnn", "levels": 16},
    {"model": "pixelcnn", "output": "logistics", "patch": 2},
    {"model": "pixelcnn-masked", "levels": 2, "binarize": "static"},
    {"model": "made", "orderings": 3},
    {"model": "conditional", "levels": 2, "binarize": "threshold", "temperature": 0.7},
    {"model": "transformer", "levels": 4},
]


@pytest.mark.parametrize("flags", MAINS, ids=str)
def test_main_writes_a_whole_run_of_pictures(flags, tmp_path, monkeypatch, drawn):
    measured, asked, grids, starts = [], [], [], []
    watch(monkeypatch, "likelihoods", lambda *args: measured.append(args[2:]))
    original = pixelcnn.sample

    def sample(model, likelihood, x, y, **how):
        asked.append((y, how, original(model, likelihood, x, y, **how)))
        return asked[-1][-1]

    monkeypatch.setattr(pixelcnn, "sample", sample)
    watch(monkeypatch, "train", lambda *args: grids.append(args[3](args[2][0])))
    watch(monkeypatch, "start_at_histogram", lambda *args: starts.append(args[1:]))
    config = Config(dataset="digits", out=tmp_path, **SMALL | flags)
    pixelcnn.main(config)
    written = {p.name for p in tmp_path.iterdir()}
    assert written >= FILES | OF_PICTURES
    assert ("classes.png" in written) == (config.model == "conditional")
    metrics, state = finished(tmp_path)
    assert metrics.keys() >= ALWAYS | QUALITY
    patch, levels = config.patch, config.levels
    grid = (patch**2, 8 // patch, 8 // patch)
    likelihood = {"softmax": Softmax, "logistics": Logistics}[config.output](levels)
    # all again from the checkpoint
    ((test, y_test, train_x, y_train),) = measured
    assert test.shape == (200, *grid)
    assert train_x.shape == (200, *grid)
    model = pixelcnn.build(
        config, grid, likelihood.outputs, 10 if config.model == "conditional" else 0
    )
    model.load_state_dict(state["ema"])
    model.eval()
    y = y_test if config.model == "conditional" else None
    nats = -log_prob(model, test, likelihood, y)
    assert metrics["test_nll_nats"] == pytest.approx(nats.mean().item(), rel=1e-4)
    error = nats.std().item() / 200**0.5
    assert metrics["test_nll_nats_standard_error"] == pytest.approx(error, rel=1e-3)
    bits = nats.mean().item() / (64 * math.log(2))
    assert metrics["test_bits_per_dim"] == pytest.approx(bits, rel=1e-4)
    assert bits < 1.2 * math.log2(levels) + 0.1
    y = y_train[:200] if config.model == "conditional" else None
    nats = -log_prob(model, train_x, likelihood, y).mean().item()
    assert metrics["train_nll_nats"] == pytest.approx(nats, rel=1e-4)
    assert ("test_accuracy_by_bayes_rule" in metrics) == (config.model == "conditional")
    assert ("test_nll_nats_ensemble" in metrics) == (config.orderings > 1)
    assert metrics["binarization"] == (config.binarize if levels == 2 else "none")
    # the data, on the grid
    data = utils.load_images("digits", quick=True)
    assert torch.equal(y_test, data.test_labels)
    assert torch.equal(y_train[:200], data.train_labels[:200])
    pictures = F.pixel_shuffle(test, patch)
    assert [levels for _, levels in starts] == [levels] * (config.output == "softmax")
    grids += [x for x, _ in starts]
    for x in (test, train_x, *grids):
        close(x * (levels - 1), (x * (levels - 1)).round())
    if levels == 2 and config.binarize != "threshold":
        assert not torch.equal(pictures, (data.test >= 0.5).float())
        mean = data.test.mean().item()
        assert pictures.mean().item() == pytest.approx(mean, abs=0.02)
        assert (pictures[data.test == 0] == 0).all()
        assert (pictures[data.test == 1] == 1).all()
    elif levels == 2:
        assert torch.equal(pictures, (data.test >= 0.5).float())
    else:
        assert torch.equal(pictures, pixelcnn.quantize(data.test, levels))
    # samples
    samples = torch.from_numpy(np.load(tmp_path / "samples.npy"))
    assert samples.shape == (12, 1, 8, 8)
    assert samples.dtype == torch.float32
    close(samples * (levels - 1), (samples * (levels - 1)).round(), atol=1e-4, rtol=0)
    assert 0 <= samples.min() < samples.max() <= 1
    ((y, how, result),) = (call for call in asked if len(call[-1]) == 12)
    assert how == {"temperature": config.temperature}
    assert torch.equal(F.pixel_shuffle(result, patch), samples)
    assert y.tolist() == ([*range(10), 0, 1] if config.model == "conditional" else [0] * 12)
    given = [how for _, how, _ in asked if "known" in how]
    assert len(given) == 6
    top, left = given[0]["known"], given[-1]["known"]
    half = 4 // patch
    assert top[:, :half].all()
    assert not top[:, half:].any()
    assert left[..., :half].all()
    assert not left[..., half:].any()
    tens = [how["temperature"] for _, how, x in asked if len(x) == 10 and "known" not in how]
    assert len({*tens}) == len(drawn["temperature.png"]) == 4
    # pictures
    test_images, top_given, *tops, left_given = [*drawn["completions.png"].values()][:6]
    assert torch.equal(test_images, pictures[:10]) or config.binarize == "dynamic"
    for row in tops:
        close(row[:, :, :4], test_images[:, :, :4])
        assert not torch.equal(row[:, :, 4:], test_images[:, :, 4:])
    assert (top_given[:, :, 4:] == 0.5).all()
    assert (left_given[..., 4:] == 0.5).all()
    close(left_given[..., :4], test_images[..., :4])
    film = drawn["drawing.gif"]
    assert (film[0] == 0.5).all()
    close(film[-1], samples[:16])
    for frame in film[:: len(film) // 4]:  # grey, which is no level, is what comes later
        grey = (F.pixel_unshuffle(frame, patch) == 0.5).all(dim=0)
        later = model.sites[grid[0] * grid[1] * grid[2] - int(grey.sum()) :]
        assert all(grey[site] for site in later)
    seen = drawn["receptive_field.png"][-1]
    assert 0 in seen
    assert {*seen.unique().tolist()} <= {0, 1}
    assert all(rows.shape[0] == 10 for rows in drawn["temperature.png"].values())
    _, surprise = drawn["surprise.png"].values()
    y = y_test[:10] if config.model == "conditional" else None
    with torch.no_grad():
        outputs = model(test[:10], y)
    share = -likelihood.log_prob(outputs, test[:10]) / math.log(levels)  # of that of a uniform one
    close(surprise, F.pixel_shuffle(share, patch).clamp(0, 1), atol=1e-4, rtol=0)


def test_a_run_of_sound(tmp_path, monkeypatch, drawn):
    from scipy.io import wavfile

    measured, asked, starts, notes = [], [], [], pixelcnn.NOTES
    watch(monkeypatch, "likelihoods", lambda *args: measured.append(args[2:]))
    watch(monkeypatch, "sample", lambda *args, **how: asked.append((args[3], how)))
    watch(monkeypatch, "start_at_histogram", lambda *args: starts.append(args[2]))
    flags = SMALL | {"num_samples": 2 * notes, "seconds": 0.05, "batch_size": 16, "epochs": 2}
    config = Config(model="wavenet", out=tmp_path, temperature=0.9, **flags)
    pixelcnn.main(config)
    assert {p.name for p in tmp_path.iterdir()} >= FILES | OF_SOUND
    metrics, state = finished(tmp_path)
    assert metrics.keys() >= ALWAYS | {"pitch_error_cents_median", "pitch_within_50_cents_share"}
    assert metrics["pitch_error_cents_median_data"] < 2
    assert metrics["pitch_within_50_cents_share_data"] == 1
    ((test, y_test, train_x, _),) = measured
    assert len(test) >= notes
    assert test.shape[1:] == (1, 1, 400)
    assert y_test.tolist() == (torch.arange(len(test)) % notes).tolist()
    assert starts == [256]
    assert not torch.equal(test, train_x)
    model = pixelcnn.build(config, (1, 1, 400), 256, notes)
    model.load_state_dict(state["ema"])
    nats = -log_prob(model, test, Softmax(256), y_test)
    assert metrics["test_nll_nats"] == pytest.approx(nats.mean().item(), rel=1e-4)
    bits = nats.mean().item() / (400 * math.log(2))
    assert metrics["test_bits_per_dim"] == pytest.approx(bits, rel=1e-4)
    assert 3 < bits < 8.2
    samples = np.load(tmp_path / "samples.npy")
    assert samples.shape == (2 * notes, 1, 1, 400)
    note, how = asked[0]
    assert note.tolist() == 2 * [*range(notes)]
    assert how == {"temperature": 0.9}
    sound = pixelcnn.mu_law_inverse(torch.from_numpy(samples[:, 0, 0]), 256)
    error = pixelcnn.cents(pixelcnn.pitch_of(sound), pixelcnn.frequency(note)).abs()
    assert metrics["pitch_error_cents_median"] == pytest.approx(error.median().item(), rel=1e-3)
    share = (error < 50).float().mean().item()
    assert metrics["pitch_within_50_cents_share"] == pytest.approx(share, abs=1e-5)
    rate, wave = wavfile.read(tmp_path / "wavenet.wav")
    assert rate == pixelcnn.RATE
    assert wave.dtype == np.int16
    np.testing.assert_allclose(wave / 32767, sound[:notes].flatten(), atol=1e-4)
    rate, wave = wavfile.read(tmp_path / "plucked_strings.wav")
    plucked = pixelcnn.mu_law_inverse(test[:notes, 0, 0], 256).flatten()
    np.testing.assert_allclose(wave / 32767, plucked, atol=1e-4)
    assert drawn["spectrogram.png"].keys() == {"plucked strings", "wavenet"}


def test_a_run_that_is_resumed_after_its_end_gives_the_same(tmp_path, drawn):
    """Nothing is trained again, and what is drawn is the same."""
    flags = SMALL | {"model": "made", "orderings": 2, "dataset": "digits", "out": tmp_path}
    pixelcnn.main(Config(**flags))
    first, samples = finished(tmp_path)[0], (tmp_path / "samples.npy").read_bytes()
    pixelcnn.main(Config(resume=True, **flags))
    again = finished(tmp_path)[0]
    assert (tmp_path / "samples.npy").read_bytes() == samples
    for name, value in first.items():
        if "second" not in name and "speedup" not in name:
            assert again[name] == value, name
    assert first["training_seconds"] == again["training_seconds"]


@pytest.mark.parametrize(
    "flags",
    [
        {"model": "pixelcnn", "levels": 2},
        {
            "model": "wavenet",
            "seconds": 0.05,
            "num_samples": 26,
            "output": "logistics",
            "levels": 16,
        },
    ],
    ids=str,
)
def test_every_picture_can_really_be_drawn(flags, tmp_path, monkeypatch):
    """And in bfloat16."""
    monkeypatch.setattr(sys.modules["code_examples.utils.run"], "LOOKS", 2)
    sound = flags["model"] == "wavenet"
    flags = SMALL | {"precision": "bf16", "dataset": None if sound else "digits"} | flags
    pixelcnn.main(Config(out=tmp_path, **flags))
    written = {p.name for p in tmp_path.iterdir() if p.stat().st_size > 0}
    assert written >= FILES | (OF_SOUND if sound else OF_PICTURES)
    finished(tmp_path)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_few_sounds_are_one_of_each_note(temperature, tmp_path, drawn):
    """Also where a network that has learned little is asked for the likeliest: a constant."""
    flags = SMALL | {"num_samples": 10, "seconds": 0.05}
    pixelcnn.main(Config(model="wavenet", out=tmp_path, temperature=temperature, **flags))
    finished(tmp_path)
    assert len(np.load(tmp_path / "samples.npy")) == pixelcnn.NOTES
    for x, y in drawn["pitch.png"].values():
        assert len(x) == len(y)


def test_a_picture_may_be_one_patch(tmp_path, drawn):
    """Whose first number sees nothing."""
    pixelcnn.main(Config(dataset="digits", patch=8, levels=2, out=tmp_path, **SMALL))
    finished(tmp_path)
    assert drawn["receptive_field.png"].isfinite().all()


def folder_of_pictures(folder, classes=1):
    rng = np.random.default_rng(0)
    for i in range(40):
        path = folder / f"class {i % classes}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (9, 12, 3), dtype=np.uint8)).save(path)
    return folder


@pytest.mark.parametrize(
    ("size", "flags"),
    [
        (5, {"model": "pixelcnn", "levels": 256}),
        (7, {"model": "conditional", "levels": 3, "output": "logistics"}),
        (4, {"model": "transformer", "levels": 8}),
        (5, {"model": "pixelcnn-masked", "levels": 4}),
        (5, {"model": "made", "levels": 5}),
    ],
    ids=str,
)
def test_colour_pictures_of_odd_sizes(size, flags, tmp_path, drawn):
    folder = folder_of_pictures(tmp_path / "pictures", 2)
    config = Config(dataset=f"folder:{folder}@{size}", out=tmp_path / "run", **SMALL | flags)
    pixelcnn.main(config)
    metrics, _ = finished(tmp_path / "run")
    samples = np.load(tmp_path / "run" / "samples.npy")
    assert samples.shape == (12, 3, size, size)
    assert 0.3 * math.log2(config.levels) < metrics["test_bits_per_dim"] < 1.5 * config.levels
    assert len(drawn["temperature.png"]) > 1


def test_black_and_white_once_for_ever(tmp_path, monkeypatch, drawn):
    """Static pictures are the same whatever the run's seed; dynamic ones are new at every step."""
    seen = []

    def note(model, likelihood, data, prepare, look, run):
        seen.append((data[0], prepare(data[0]), prepare(data[0])))
        raise InterruptedError

    watch(monkeypatch, "train", note)
    for binarize, seed in (("static", 0), ("static", 1), ("dynamic", 0), ("threshold", 0)):
        flags = SMALL | {"levels": 2, "binarize": binarize, "seed": seed, "dataset": "digits"}
        with pytest.raises(InterruptedError):
            pixelcnn.main(Config(out=tmp_path, **flags))
    one, other, dynamic, cut = seen
    assert torch.equal(one[0], other[0])
    assert one[0].unique().tolist() == [0, 1]
    assert torch.equal(one[1], one[2])
    assert len(dynamic[0].unique()) > 2
    assert not torch.equal(dynamic[1], dynamic[2])
    assert torch.equal(cut[1], (cut[0] >= 0.5).float())


def test_pictures_that_do_not_fit_are_refused_before_anything_is_written(tmp_path):
    folder = folder_of_pictures(tmp_path / "pictures")
    out = tmp_path / "run"
    with pytest.raises(
        utils.UserError, match=r"--patch: expected a divisor of the picture's 8 x 8 pixels, got 3"
    ):
        pixelcnn.main(Config(dataset="digits", patch=3, out=out, **SMALL))
    with pytest.raises(
        utils.UserError,
        match=r"--model conditional: expected pictures with labels, got folder:.*use --model pixel",
    ):
        pixelcnn.main(Config(model="conditional", dataset=f"folder:{folder}@8", out=out, **SMALL))
    assert not out.exists()


# --- Flags


def test_flags_that_are_not_given_depend_on_the_model():
    names = ["dataset", "epochs", "batch_size", "lr", "levels", "patch", "width", "layers"]
    names += ["weight_decay", "ema"]
    for model in TINY:
        config = Config(model=model)
        assert all(getattr(config, name) is not None for name in names)
        assert (config.dataset == "plucks") == (model == "wavenet")
    assert Config().model == "pixelcnn"
    assert Config().levels == 256
    assert Config(model="made").levels == 2
    given = {"epochs": 3, "batch_size": 7, "lr": 0.3, "levels": 9, "patch": 4, "width": 12}
    given |= {"layers": 3, "weight_decay": 0.2, "ema": 0.3}
    for model in TINY:
        config = Config(model=model, **given)
        assert {name: getattr(config, name) for name in given} == given
    assert Config(model="made", dataset="digits").dataset == "digits"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"model": "rnn"}, "--model: expected one of pixelcnn, pixelcnn-masked, made, conditional"),
        ({"binarize": "never"}, "--binarize: expected one of dynamic, static, threshold"),
        ({"output": "gauss"}, "--output: expected one of softmax, logistics"),
        ({"levels": 1}, "--levels: expected a finite number of at least 2 and below 257, got 1"),
        (
            {"levels": 257},
            "--levels: expected a finite number of at least 2 and below 257, got 257",
        ),
        ({"patch": 0}, "--patch: expected a finite number of at least 1, got 0"),
        ({"width": 0}, "--width: expected a finite number of at least 1"),
        ({"layers": 0}, "--layers: expected a finite number of at least 1"),
        ({"model": "made", "hidden": 0}, "--hidden: expected a finite number of at least 1"),
        ({"model": "made", "orderings": 0}, "--orderings: expected a finite number of at least 1"),
        ({"weight_decay": -0.1}, "--weight-decay: expected a finite number of at least 0"),
        ({"clip": 0.0}, "--clip: expected a finite number above 0"),
        ({"ema": 1.0}, "--ema: expected a finite number of at least 0 and below 1"),
        ({"temperature": -1.0}, "--temperature: expected a finite number of at least 0, got -1"),
        ({"temperature": math.inf}, "--temperature: expected a finite number of at least 0"),
        ({"model": "wavenet", "seconds": 0.01}, "--seconds: expected a finite number of at least"),
        ({"lr": 0.0}, "--lr: expected a finite number above 0"),
        ({"epochs": 0}, "--epochs: expected a finite number of at least 1"),
        (
            {"model": "wavenet", "dataset": "mnist5k"},
            "--model wavenet: expected plucks, got --dataset mnist5k",
        ),
        (
            {"dataset": "plucks"},
            "--model pixelcnn: expected pictures, got --dataset plucks: plucks is the sound of",
        ),
        (
            {"model": "made", "dataset": "plucks"},
            "--model made: expected pictures, got --dataset plucks",
        ),
        (
            {"model": "transformer", "width": 30},
            "--width: expected a multiple of the transformer's 4 heads, got 30",
        ),
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
        {"levels": 2, "patch": 1, "width": 1, "layers": 1, "ema": 0.0, "temperature": 0.0},
        {"levels": 256, "hidden": 1, "orderings": 1, "weight_decay": 0.0},
        {"model": "wavenet", "seconds": 0.05, "width": 30, "output": "logistics"},
        {"model": "transformer", "width": 4, "layers": 1},
    ],
    ids=str,
)
def test_the_smallest_possible_values_are_taken(flags):
    config = Config(**flags)
    for name, value in flags.items():
        assert getattr(config, name) == value


def test_quick_runs_are_short():
    for model in TINY:
        config = Config(model=model, quick=True)
        assert config.num_samples <= 64
        assert config.epochs <= 10
        assert config.seconds <= 0.1
    assert Config(model="wavenet", quick=True, seconds=0.06).seconds == 0.06
    assert Config(quick=True, num_samples=10).num_samples == 10


# --- Quality, minutes each: make test-slow


@pytest.mark.slow
def test_two_minutes_of_pictures(tmp_path):
    pixelcnn.main(Config(out=tmp_path))
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["test_bits_per_dim"] < 1.2
    assert metrics["seconds_per_100_samples"] < 60
    assert metrics["speedup_by_caching"] > 2


@pytest.mark.slow
def test_two_minutes_of_sound(tmp_path):
    pixelcnn.main(Config(model="wavenet", out=tmp_path))
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["pitch_error_cents_median"] < 50
    assert metrics["pitch_within_50_cents_share"] > 0.5
