"""Autoregressive models: one pixel after the other, each given all before it.

    log p(x) = sum_i log p(x_i | x_1, ..., x_{i-1})        the chain rule: exact, in any order

    Training    all D conditionals in one pass, for the picture is known: a network whose output i
                sees only inputs before i, by masks, shifts or causal attention.
    Sampling    one pixel after the other: D steps, of which what was computed before can be kept.

Models:  pixelcnn is PixelCNN (two stacks, gated), conditional the same with labels,
         pixelcnn-masked MaskedPixelCNN with its blind spot, made MADE, transformer Transformer;
         wavenet is WaveNet, for sound. For a first reading: CausalConv2d, GatedLayer, PixelCNN,
         Softmax, train, sample.

Shapes:  B examples a batch, C x H x W pixels (sound: 1 x 1 x T), L levels: x is 0, 1/(L-1), ..., 1.
         A network maps x to outputs (B, P, C, H, W), with --output softmax P = L logits for each
         number; the outputs at a site (c, row, column) depend on the sites before it only.
Paper:   van den Oord et al. (2016), Conditional image generation with PixelCNN decoders,
         arXiv:1606.05328. Other papers stand beside their code.
Run:     python code_examples/07_pixelcnn.py
         python code_examples/07_pixelcnn.py --model made
         python code_examples/07_pixelcnn.py --model wavenet
Expect:  after two minutes on two CPU cores with bfloat16, 1.110 bits per dimension on test digits
         (three seeds: 1.109 to 1.111), exact, where a histogram for each pixel has 1.749; 100
         digits are drawn in 1.2 seconds, and would take 106 if nothing were kept; their Frechet
         distance is 5.2 (4.8 to 5.5). made: 96.7 nats with black and white digits, in a minute.
         wavenet: tones 4.8 cents (median) from the pitch that was asked for.
"""

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if __package__:  # imported: from code_examples import pixelcnn
    from . import utils
else:  # run: python code_examples/07_pixelcnn.py
    import utils

Images, Metrics, Shape = utils.ImageData, dict[str, float | int | str], tuple[int, int, int]
Site = tuple[int, int, int]  # channel, row, column of one number of x
OutputsAt = Callable[[Site], Tensor]  # the outputs (B, P) at a site; asked for in order

# --- Model --------------------------------------------------------------------------


class CausalConv2d(nn.Conv2d):
    """A convolution that reads nothing below; with a mask or a single row nothing right, either.

    (B, C, H, W) to (B, C', H, W). Its output at a place may see that place, but for mask A.

    Args:
        kernel: (rows, columns): the last row is the place's own. With one row the columns end at
            the place, with more they reach as far to the right as to the left.
        mask: "B" removes from the last row what is right of the place, "A" the place itself, too:
            van den Oord et al. (2016), arXiv:1601.06759, fig. 2. None: the last row is allowed
            as a whole, which is right where the input was shifted down.
        dilation: The kernel's points are so far apart.
    """

    def __init__(
        self,
        size_in: int,
        size_out: int,
        kernel: tuple[int, int],
        mask: Literal["A", "B"] | None = None,
        dilation: int = 1,
    ) -> None:
        super().__init__(size_in, size_out, kernel, dilation=dilation)
        rows, columns = kernel
        side = dilation * (columns - 1)
        left, right = (side // 2, side // 2) if rows > 1 or mask else (side, 0)
        self.reach = left, right, dilation * (rows - 1), 0  # left, right, above, below
        allowed = torch.ones(kernel)
        if mask:
            allowed[-1, columns // 2 + (mask == "B") :] = 0
        self.register_buffer("allowed", allowed)
        self.masked = mask is not None

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(
            F.pad(x, self.reach), self.masked_weight(), self.bias, dilation=self.dilation
        )

    def masked_weight(self) -> Tensor:
        """The weights that are allowed, others 0; notes/08 eq. (8.29)."""
        return self.weight * self.allowed if self.masked else self.weight

    # To sample, only the row or the place that is new is computed, from what was kept of the input:

    def memory(self, n: int, height: int, width: int) -> Tensor:
        """What is known of an input (n, C, height, width), with the zeros around: nothing yet."""
        left, right, above, _ = self.reach
        return self.weight.new_zeros(n, self.in_channels, height + above, width + left + right)

    def remember(self, memory: Tensor, row: int, column: int, x: Tensor) -> None:
        """Write x (n, C, 1, W') into the input, from this place on."""
        left, _, above, _ = self.reach
        memory[:, :, above + row, left + column : left + column + x.shape[-1]] = x[:, :, 0]

    def at(self, memory: Tensor, row: int, column: int | None = None) -> Tensor:
        """Row `row` of the output, (n, C', 1, W), or of it one column, (n, C', 1, 1)."""
        left, right, above, _ = self.reach
        step = self.dilation[0]
        window, step_left = memory[:, :, row : row + above + 1 : step], step
        if column is not None:
            window, step_left = window[..., column : column + left + right + 1 : step], 1
        return F.conv2d(window, self.masked_weight(), self.bias, dilation=(1, step_left))


class Head(nn.Module):
    """From features of a site to outputs for its numbers, each given those before it there.

    The numbers of a site are a pixel's colours or a patch's pixels; with one number, two 1 x 1
    convolutions remain. features (B, F, H, W) and x (B, C, H, W) to (B, P, C, H, W); notes/08 eq.
    (8.38).
    """

    def __init__(self, features: int, channels: int, outputs: int, width: int = 64) -> None:
        super().__init__()
        self.features = nn.Conv2d(features, channels * width, 1)
        self.earlier = nn.Conv2d(channels, channels * width, 1, bias=False)
        self.outputs = nn.Conv2d(channels * width, channels * outputs, 1, groups=channels)
        own = torch.arange(channels).repeat_interleave(width)
        before = torch.arange(channels) < own[:, None]  # (C width, C): strictly earlier channels
        self.register_buffer("before", before[:, :, None, None].float())
        self.shape = channels, outputs

    def forward(self, features: Tensor, x: Tensor) -> Tensor:
        h = self.features(F.relu(features))
        h = h + F.conv2d(x, self.earlier.weight * self.before)
        return self.outputs(F.relu(h)).unflatten(1, self.shape).transpose(1, 2)


def by_place(head: Head, x: Tensor, features_at: Callable[[int, int], Tensor]) -> OutputsAt:
    """Outputs site by site: the features (B, F, 1, 1) of a place once, the head for each number."""
    features = None

    def outputs_at(site: Site) -> Tensor:
        nonlocal features
        channel, row, column = site
        if channel == 0:
            features = features_at(row, column)
        here = x[:, :, row : row + 1, column : column + 1]
        return head(features, here)[:, :, channel, 0, 0]

    return outputs_at


def gate(x: Tensor) -> Tensor:
    """tanh of one half of the channels times sigmoid of the other; notes/08 eq. (8.36)."""
    fast = {"memory_format": torch.channels_last}  # on a CPU twice as fast as on strided halves
    content, openness = (half.contiguous(**fast) for half in x.chunk(2, dim=1))
    return content.tanh() * openness.sigmoid()


class GatedLayer(nn.Module):
    """A layer of the two stacks: v has seen the rows above, h these and the left of the row.

    van den Oord et al. (2016), arXiv:1606.05328, fig. 2 and eq. (4); notes/08 eqs. (8.34), (8.39).
    """

    def __init__(self, width: int, dilation: int, num_classes: int) -> None:
        super().__init__()
        self.vertical = CausalConv2d(width, 2 * width, (2, 3), dilation=dilation)
        self.horizontal = CausalConv2d(width, 2 * width, (1, 2), dilation=dilation)
        self.link = nn.Conv2d(2 * width, 2 * width, 1)  # from v to h, never back
        self.out = nn.Conv2d(width, width, 1)
        self.label = nn.Embedding(num_classes, 4 * width) if num_classes else None

    def bias(self, y: Tensor | None) -> tuple[Tensor | float, Tensor | float]:
        """What the label y (B,) adds before the gates of v and of h."""
        if self.label is None:
            return 0.0, 0.0
        return self.label(y)[:, :, None, None].chunk(2, dim=1)

    def down(self, above: Tensor, bias: Tensor | float) -> tuple[Tensor, Tensor]:
        """The next v, and what it says to h."""
        return gate(above + bias), self.link(above)

    def along(self, h: Tensor, left: Tensor, link: Tensor, bias: Tensor | float) -> Tensor:
        """The next h: the old one and a change."""
        return h + self.out(gate(left + link + bias))

    def forward(self, v: Tensor, h: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        bias_v, bias_h = self.bias(y)
        v, link = self.down(self.vertical(v), bias_v)
        return v, self.along(h, self.horizontal(h), link, bias_h)


class PixelCNN(nn.Module):
    """The gated PixelCNN: every earlier pixel is seen, and no other; notes/08 eq. (8.33).

    Args:
        shape: (C, H, W) of x.
        outputs: P, numbers for each number of x.
        width: Channels of either stack.
        dilations: One for each layer.
        num_classes: Of labels that are given besides x; 0 for none.
    """

    def __init__(
        self, shape: Shape, outputs: int, width: int, dilations: list[int], num_classes: int = 0
    ) -> None:
        super().__init__()
        channels, height, wide = shape
        self.vertical = CausalConv2d(channels, width, (3, 5))
        self.horizontal = CausalConv2d(channels, width, (1, 3))
        self.place = nn.Parameter(torch.zeros(2, width, height, wide))  # for v, for h
        self.layers = nn.ModuleList(GatedLayer(width, d, num_classes) for d in dilations)
        self.head = Head(width, channels, outputs)
        self.sites, self.num_classes = raster(shape), num_classes

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        v = self.vertical(shift_down(x)) + self.place[0]  # from here on a place may see itself:
        h = self.horizontal(shift_right(x)) + self.place[1]  # what lies there came from before it
        for layer in self.layers:
            v, h = layer(v, h, y)
        return self.head(h, x)

    def stepper(self, x: Tensor, y: Tensor | None = None) -> OutputsAt:
        """Outputs site by site, each computed once: v a row, h a place at a time.

        x may be filled in meanwhile. Ramachandran et al. (2017), Fast generation for convolutional
        autoregressive models, arXiv:1704.06001.
        """
        n, _, height, wide = x.shape
        layers = [self, *self.layers]  # the first convolutions read x, shifted
        memory_v = [layer.vertical.memory(n, height, wide) for layer in layers]
        memory_h = [layer.horizontal.memory(n, 1, wide) for layer in layers]
        biases, links = [layer.bias(y) for layer in self.layers], []

        def new_row(row: int) -> None:
            if row:
                self.vertical.remember(memory_v[0], row, 0, x[:, :, row - 1 : row])
            v = self.vertical.at(memory_v[0], row) + self.place[0][:, row : row + 1]
            links.clear()
            for layer, memory, (bias, _) in zip(self.layers, memory_v[1:], biases, strict=True):
                layer.vertical.remember(memory, row, 0, v)
                v, link = layer.down(layer.vertical.at(memory, row), bias)
                links.append(link)

        def features_at(row: int, column: int) -> Tensor:
            if column == 0:
                new_row(row)
            else:
                before = x[:, :, row : row + 1, column - 1 : column]
                self.horizontal.remember(memory_h[0], 0, column, before)
            here = slice(column, column + 1)
            h = self.horizontal.at(memory_h[0], 0, column)
            h = h + self.place[1][:, row : row + 1, here]
            parts = zip(self.layers, memory_h[1:], links, biases, strict=True)
            for layer, memory, link, (_, bias) in parts:
                layer.horizontal.remember(memory, 0, column, h)
                left = layer.horizontal.at(memory, 0, column)
                h = layer.along(h, left, link[..., here], bias)
            return h

        return by_place(self.head, x, features_at)


def shift_down(x: Tensor) -> Tensor:
    """Each row of (B, C, H, W) where the next one was; zeros above."""
    return F.pad(x, (0, 0, 1, 0))[:, :, :-1]


def shift_right(x: Tensor) -> Tensor:
    """Each column of (B, C, H, W) where the next one was; zeros at the left."""
    return F.pad(x, (1, 0))[..., :-1]


def raster(shape: Shape) -> list[Site]:
    """Sites (channel, row, column) as one reads, the channels of a place one after the other."""
    channels, height, wide = shape
    return [(c, i, j) for i, j, c in product(range(height), range(wide), range(channels))]


class MaskedPixelCNN(nn.Module):
    """The first PixelCNN: one stack, and to the right above each pixel a blind spot.

    van den Oord et al. (2016), Pixel recurrent neural networks, arXiv:1601.06759, table 1;
    notes/08 eqs. (8.30), (8.31).
    """

    def __init__(self, shape: Shape, outputs: int, width: int, layers: int) -> None:
        super().__init__()
        channels, height, wide = shape
        self.first = CausalConv2d(channels, width, (4, 7), mask="A")
        self.place = nn.Parameter(torch.zeros(width, height, wide))
        convs = [CausalConv2d(width, 2 * width, (2, 3), mask="B") for _ in range(layers)]
        self.layers = nn.ModuleList(convs)
        self.out = nn.ModuleList(nn.Conv2d(2 * width, width, 1) for _ in range(layers))
        self.head = Head(width, channels, outputs)
        self.sites = raster(shape)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        h = self.first(x) + self.place
        for layer, out in zip(self.layers, self.out, strict=True):
            h = h + out(F.relu(layer(h)))
        return self.head(h, x)

    def stepper(self, x: Tensor, y: Tensor | None = None) -> OutputsAt:
        """Outputs site by site, each computed once; x may be filled in meanwhile."""
        n, _, height, wide = x.shape
        memory_x = self.first.memory(n, height, wide)
        memories = [layer.memory(n, height, wide) for layer in self.layers]

        def features_at(row: int, column: int) -> Tensor:
            if row or column:
                i, j = divmod(row * wide + column - 1, wide)  # the place before
                self.first.remember(memory_x, i, j, x[:, :, i : i + 1, j : j + 1])
            h = self.first.at(memory_x, row, column)
            h = h + self.place[:, row : row + 1, column : column + 1]
            for layer, out, memory in zip(self.layers, self.out, memories, strict=True):
                layer.remember(memory, row, column, h)
                h = h + out(F.relu(layer.at(memory, row, column)))
            return h

        return by_place(self.head, x, features_at)


class MADE(nn.Module):
    """One hidden layer, in which a unit of degree m sees the first m + 1 numbers of an order.

    The outputs for a number see the units of lower degree than its place in the order. Several
    orderings share the weights. Germain et al. (2015), arXiv:1502.03509; notes/08 eq. (8.24).

    Args:
        shape: (C, H, W) of x, D numbers.
        outputs: P, numbers for each number of x.
        hidden: Units; with fewer than D - 1 of them some numbers do not see their predecessor.
        orderings: How many, all random: in reading order, fewer units than numbers would hide from
            many pixels their left neighbour, the best clue.
    """

    def __init__(self, shape: Shape, outputs: int, hidden: int, orderings: int = 1) -> None:
        super().__init__()
        dims = math.prod(shape)
        self.hidden, self.out = nn.Linear(dims, hidden), nn.Linear(hidden, outputs * dims)
        places = [torch.randperm(dims) for _ in range(orderings)]
        self.register_buffer("places", torch.stack(places))  # (orderings, D): 0...D-1
        degrees = torch.arange(hidden) * (dims - 1) // hidden  # 0...D-2, evenly
        self.register_buffer("degrees", degrees)
        self.shape, self.outputs = shape, outputs

    def masks(self, ordering: int) -> tuple[Tensor, Tensor]:
        """What hidden units see of x, (hidden, D), and what outputs see of those, (D, hidden)."""
        place = self.places[ordering]
        return self.degrees[:, None] >= place, place[:, None] > self.degrees

    def forward(self, x: Tensor, y: Tensor | None = None, ordering: int | None = None) -> Tensor:
        """In training a random ordering for each batch, unless one is given; else the first."""
        if ordering is None:
            ordering = int(torch.randint(len(self.places), ())) if self.training else 0
        sees, seen = self.masks(ordering)
        h = F.relu(F.linear(x.flatten(1), self.hidden.weight * sees, self.hidden.bias))
        weight = self.out.weight.view(self.outputs, *seen.shape) * seen  # (P, D, hidden)
        outputs = F.linear(h, weight.flatten(0, 1), self.out.bias)
        return outputs.view(-1, self.outputs, *self.shape)

    def order(self, ordering: int = 0) -> list[Site]:
        """The sites of x in the order of an ordering."""
        sites = list(product(*map(range, self.shape)))
        return [sites[i] for i in self.places[ordering].argsort().tolist()]

    @property
    def sites(self) -> list[Site]:
        return self.order()

    def stepper(self, x: Tensor, y: Tensor | None = None, ordering: int = 0) -> OutputsAt:
        """Outputs site by site: the sums of the hidden units grow by one number at a time.

        So does NADE: Larochelle & Murray (2011), The neural autoregressive distribution estimator,
        AISTATS; notes/08 eq. (8.23).
        """
        sees, seen = self.masks(ordering)
        weight, weight_out = (
            self.hidden.weight * sees,
            self.out.weight.view(self.outputs, *seen.shape),
        )
        bias_out = self.out.bias.view(self.outputs, -1)
        total, before = self.hidden.bias.expand(len(x), -1), None  # (B, hidden)
        flat = {site: i for i, site in enumerate(product(*map(range, self.shape)))}

        def outputs_at(site: Site) -> Tensor:
            nonlocal total, before
            if before is not None:
                total = total + x[(slice(None), *before)][:, None] * weight[:, flat[before]]
            before, i = site, flat[site]
            return F.linear(F.relu(total), weight_out[:, i] * seen[i], bias_out[:, i])

        return outputs_at


class Block(nn.Module):
    """Causal self-attention, then a network of each site by itself; (B, T, F) to the same.

    Vaswani et al. (2017), Attention is all you need, arXiv:1706.03762, with the norms before, not
    after; notes/08 eq. (8.58).
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.heads = heads

    def queries_keys_values(self, h: Tensor) -> tuple[Tensor, ...]:
        """Three tensors (B, heads, T, F / heads)."""
        parts = self.qkv(self.norms[0](h)).chunk(3, dim=-1)
        return tuple(part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)

    def finish(self, h: Tensor, read: Tensor) -> Tensor:
        """Add to h (B, T, F) what the heads have read, and the network of each site."""
        h = h + self.out(read.transpose(1, 2).flatten(2))
        return h + self.mlp(self.norms[1](h))

    def forward(self, h: Tensor) -> Tensor:
        return self.finish(h, attention(*self.queries_keys_values(h)))


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """For each query a mean of the values, weighted by softmax(q k / sqrt(d)); notes/08 eq. (8.58).

    q (..., S, d) are the last S of the T sites of k and v (..., T, d); each sees itself and what
    is before it, never what comes later.
    """
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device)
    later = later.triu(1 + k.shape[-2] - q.shape[-2])
    return scores.masked_fill(later, -math.inf).softmax(dim=-1) @ v


class Transformer(nn.Module):
    """A causal transformer over the sites of a picture, pixels or patches, in raster order.

    Chen et al. (2020), Generative pretraining from pixels, ICML; notes/08 section 7.
    """

    def __init__(self, shape: Shape, outputs: int, width: int, layers: int, heads: int = 4) -> None:
        super().__init__()
        channels, height, wide = shape
        self.embed = nn.Linear(channels, width)
        self.place = nn.Parameter(0.02 * torch.randn(height * wide, width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.head = Head(width, channels, outputs)
        self.sites = raster(shape)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        before = F.pad(x.flatten(2).transpose(1, 2), (0, 0, 1, 0))[:, :-1]  # (B, T, C): shifted
        h = self.embed(before) + self.place
        for block in self.blocks:
            h = block(h)
        return self.head(h.transpose(1, 2).unflatten(2, x.shape[2:]), x)

    def stepper(self, x: Tensor, y: Tensor | None = None) -> OutputsAt:
        """Outputs site by site, with keys and values of earlier sites kept; notes/08 eq. (8.60)."""
        n, _, _, wide = x.shape
        size = n, self.blocks[0].heads, len(self.place), self.place.shape[1] // self.blocks[0].heads
        caches = [(x.new_zeros(size), x.new_zeros(size)) for _ in self.blocks]

        def features_at(row: int, column: int) -> Tensor:
            t = row * wide + column
            before = (
                x[..., (t - 1) // wide, (t - 1) % wide] if t else torch.zeros_like(x[..., 0, 0])
            )
            h = (self.embed(before) + self.place[t])[:, None]  # (B, 1, F)
            for block, (keys, values) in zip(self.blocks, caches, strict=True):
                q, keys[:, :, t : t + 1], values[:, :, t : t + 1] = block.queries_keys_values(h)
                h = block.finish(h, attention(q, keys[:, :, : t + 1], values[:, :, : t + 1]))
            return h.transpose(1, 2)[..., None]  # (B, F, 1, 1)

        return by_place(self.head, x, features_at)


class WaveNet(nn.Module):
    """Dilated causal convolutions along time, x (B, 1, 1, T), with a note as condition.

    Each layer adds to what goes on and, by a skip connection, to what the outputs are made from.
    van den Oord et al. (2016), WaveNet, arXiv:1609.03499, fig. 4 and eq. (2); notes/08 eqs. (8.45),
    (8.46).

    Args:
        outputs: P, numbers for each number of x.
        width: Channels.
        dilations: One for each layer; each sees that far further back.
        num_classes: Of notes.
    """

    def __init__(
        self, shape: Shape, outputs: int, width: int, dilations: list[int], num_classes: int
    ) -> None:
        super().__init__()
        self.first = CausalConv2d(1, width, (1, 2))
        self.layers = nn.ModuleList(
            CausalConv2d(width, 2 * width, (1, 2), dilation=d) for d in dilations
        )
        self.notes = nn.ModuleList(nn.Embedding(num_classes, 2 * width) for _ in dilations)
        for note in self.notes:
            nn.init.normal_(note.weight, std=0.1)  # near each other: what one learns helps others
        self.out = nn.ModuleList(nn.Conv2d(width, 2 * width, 1) for _ in dilations)
        self.head = Head(width, 1, outputs, width=2 * width)
        self.sites = raster(shape)

    def layer(self, i: int, h: Tensor, seen: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The next h, and the skip connection."""
        change, skip = self.out[i](gate(seen + self.notes[i](y)[:, :, None, None])).chunk(2, dim=1)
        return h + change, skip

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        h, skips = self.first(shift_right(2 * x - 1)), 0.0
        for i, conv in enumerate(self.layers):
            h, skip = self.layer(i, h, conv(h), y)
            skips = skips + skip
        return self.head(skips, x)

    def stepper(self, x: Tensor, y: Tensor) -> OutputsAt:
        """Outputs sample by sample, what layers have computed being kept; notes/08 eq. (8.64).

        Le Paine et al. (2016), Fast WaveNet generation algorithm, arXiv:1611.09482, with queues as
        long as the layers look back; here all is kept.
        """
        memories = [conv.memory(len(x), 1, x.shape[-1]) for conv in (self.first, *self.layers)]

        def outputs_at(site: Site) -> Tensor:
            _, _, t = site
            if t:
                self.first.remember(memories[0], 0, t, 2 * x[..., t - 1 : t] - 1)
            h, skips = self.first.at(memories[0], 0, t), 0.0
            for i, (conv, memory) in enumerate(zip(self.layers, memories[1:], strict=True)):
                conv.remember(memory, 0, t, h)
                h, skip = self.layer(i, h, conv.at(memory, 0, t), y)
                skips = skips + skip
            return self.head(skips, x[..., t : t + 1])[:, :, 0, 0, 0]

        return outputs_at


# --- Objective ----------------------------------------------------------------------


def quantize(x: Tensor, levels: int) -> Tensor:
    """8-bit pixels x in [0, 1] on the grid 0, 1/(L-1), ..., 1; notes/08 eq. (8.8)."""
    return ((255 * x).round() * levels / 256).floor() / (levels - 1)


def binarize(x: Tensor, protocol: str) -> Tensor:
    """Pixels in [0, 1] made black or white, 0 or 1.

    "dynamic" draws every pixel from Bernoulli(x), anew at each call; "threshold" is x >= 0.5;
    "static" was drawn once before and stays. Their likelihoods do not compare, notes/08 section 2.
    """
    if protocol == "dynamic":
        return (torch.rand_like(x) < x).to(x.dtype)
    return quantize(x, 2) if protocol == "threshold" else x


def classes(x: Tensor, levels: int) -> Tensor:
    """Which level each number of x on the grid is, 0...L-1."""
    return (x * (levels - 1)).round().long()


class Softmax:
    """Any distribution over L levels: a logit for each; notes/08 eq. (8.9)."""

    def __init__(self, levels: int) -> None:
        self.levels = self.outputs = levels

    def log_prob(self, outputs: Tensor, x: Tensor) -> Tensor:
        """log p of each number of x (B, ...) on the grid, from outputs (B, P, ...); nats."""
        logits = outputs.movedim(1, -1)  # (B, ..., L): rows, of which cross_entropy is faster
        k = classes(x, self.levels)
        rows = F.cross_entropy(logits.flatten(0, -2).float(), k.flatten(), reduction="none")
        return -rows.view(k.shape)

    def table(self, outputs: Tensor) -> Tensor:
        """log p of every level, (B, L), from outputs (B, P) at one site."""
        return outputs.float().log_softmax(dim=1)


class Logistics:
    """A mixture of K logistic densities, of which each level gets the mass around it.

    The lowest and the highest level get the tails. Neighbouring levels share strength, and P = 3 K
    does not grow with L. Salimans et al. (2017), PixelCNN++, arXiv:1701.05517, eq. (2); notes/08
    eqs. (8.17), (8.19).
    """

    def __init__(self, levels: int, components: int = 5) -> None:
        self.levels, self.components, self.outputs = levels, components, 3 * components

    def log_prob(self, outputs: Tensor, x: Tensor) -> Tensor:
        """As Softmax has it."""
        logits, mean, log_scale = outputs.float().unflatten(1, (3, -1)).unbind(1)  # (B, K, ...)
        k, spacing = classes(x, self.levels)[:, None], 2 / (self.levels - 1)  # of levels in [-1, 1]
        narrow = torch.exp(-log_scale.clamp(-7, 7))  # from a tenth of a level to all of them alike
        centre = (2 * x[:, None] - 1 - mean) * narrow
        below = F.logsigmoid(centre + spacing / 2 * narrow)  # log of the mass below the upper edge
        above = F.logsigmoid(spacing / 2 * narrow - centre)  # and above the lower one
        between = below + above + torch.log(-torch.expm1(-spacing * narrow))  # nothing cancels
        mass = torch.where(k == 0, below, torch.where(k == self.levels - 1, above, between))
        return torch.logsumexp(logits.log_softmax(dim=1) + mass, dim=1)

    def table(self, outputs: Tensor) -> Tensor:
        """As Softmax has it."""
        x = torch.linspace(0, 1, self.levels, device=outputs.device).expand(len(outputs), -1)
        return self.log_prob(outputs[..., None].expand(-1, -1, self.levels), x)


Likelihood = Softmax | Logistics


def nll(outputs: Tensor, x: Tensor, likelihood: Likelihood) -> Tensor:
    """-log p(x) of pictures (B, C, H, W) on the grid, (B,) nats, summed; notes/08 eq. (8.6)."""
    return -likelihood.log_prob(outputs, x).flatten(1).sum(dim=1)


def ensemble_log_prob(log_probs: Tensor) -> Tensor:
    """log of the mean probability over M models, (M, B) to (B,) nats; notes/08 eq. (8.26).

    The mean of distributions is one. The mean of their logits would not be, where they use
    different orderings.
    """
    return torch.logsumexp(log_probs, dim=0) - math.log(len(log_probs))


# --- Training and sampling ----------------------------------------------------------


@torch.no_grad()
def start_at_histogram(model: nn.Module, x: Tensor, levels: int) -> None:
    """Let the logits' biases say how often each level is in x (N, C, H, W); notes/08 eq. (8.63).

    Training then begins with independent numbers, not at log2 L bits. MADE has a bias for each
    place, the others only one for all places.
    """
    k = classes(x, levels)
    often = torch.stack(
        [(k == level).float().sum(dim=0) for level in range(levels)]
    )  # (L, C, H, W)
    if isinstance(model, MADE):
        model.out.bias.copy_((often + 0.5).log().flatten())
    else:
        model.head.outputs.bias.copy_((often.sum(dim=(2, 3)) + 0.5).log().T.flatten())


def train(
    model: nn.Module,
    likelihood: Likelihood,
    data: tuple[Tensor, Tensor],
    prepare: Callable[[Tensor], Tensor],
    look: Callable[[nn.Module], Tensor] | None,
    run: utils.Run,
) -> nn.Module:
    """Minimise the nats of x (N, ...) with labels (N,); return the model of averaged weights."""
    config, averaged = run.config, copy.deepcopy(model).eval()
    how = {"betas": (0.9, 0.99), "weight_decay": config.weight_decay, "fused": True}
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr, **how)
    run.keep(model=model, optimizer=optimizer, ema=averaged)
    net = run.data_parallel(model)
    for x, y in run.batches(*data):
        for group in optimizer.param_groups:
            group["lr"] = run.trapezoid(config.lr)
        x = prepare(x)
        with run.autocast():
            outputs = net(x, y)  # all conditionals at once: each pixel's past is the true one
        loss = nll(outputs, x, likelihood).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        optimizer.step()
        utils.update_ema(averaged, model, min(config.ema, run.step / (run.step + 10)))
        run.log(bits_per_dim=utils.bits_per_dim(loss, x[0].numel()))
        if look and run.time_to_look():
            run.show(look(averaged))
    return averaged


@torch.no_grad()
def sample(
    model: nn.Module,
    likelihood: Likelihood,
    x: Tensor,
    y: Tensor | None = None,
    known: Tensor | None = None,
    temperature: float = 1.0,
    cached: bool = True,
) -> Tensor:
    """Draw one number after the other from p(x_i | those before it); notes/08 eq. (8.5).

    Args:
        x: (B, C, H, W) on the grid: what is known, anything elsewhere.
        y: (B,) labels.
        known: (C, H, W), True where x stays as it is. Later ones of these are not foreseen.
        temperature: Every conditional is sharpened (below 1) or flattened; 0 takes the likeliest.
        cached: Keep what was computed; otherwise the whole model is called for each number.

    Returns:
        Samples, like x.
    """
    x = x.clone()
    whole = lambda site: model(x, y)[(..., *site)]
    outputs_at = model.stepper(x, y) if cached else whole
    for site in model.sites:
        outputs = outputs_at(site)  # also where x is known: later sites need what it keeps
        if known is None or not known[site]:
            log_p = likelihood.table(outputs)
            log_p = log_p - log_p.amax(dim=1, keepdim=True)  # 0 / T stays 0 for the smallest T
            k = draw(log_p / temperature) if temperature else log_p.argmax(dim=1)
            x[(slice(None), *site)] = k / (likelihood.levels - 1)
    return x


def draw(logits: Tensor) -> Tensor:
    """Indices (B,) ~ softmax of logits (B, L): whose clock rings first; notes/08 eq. (8.11)."""
    return (torch.empty_like(logits).exponential_().log() - logits).argmin(dim=1)


def receptive_field(model: nn.Module, x: Tensor, site: Site, y: Tensor | None = None) -> Tensor:
    """How strongly the outputs at a site depend on each number of x (B, C, H, W): (C, H, W) >= 0.

    The mean absolute gradient of their sum of squares; exactly 0 where nothing is seen.
    """
    x = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(x, y)[(..., *site)].square().sum(), x)
    return gradient.abs().mean(dim=0)


# --- Experiment ---------------------------------------------------------------------


DEFAULTS = {"dataset": "mnist5k", "levels": 256, "patch": 1, "epochs": 11, "batch_size": 16}
DEFAULTS |= {"lr": 6e-3, "width": 32, "layers": 4, "weight_decay": 0.0, "ema": 0.99}
VARIANTS = {
    "made": {"levels": 2, "epochs": 150, "batch_size": 64, "lr": 2e-3}
    | {"weight_decay": 0.05, "ema": 0.998},
    "pixelcnn-masked": {"layers": 6, "epochs": 20},
    "transformer": {"patch": 2, "width": 64, "lr": 5e-3, "epochs": 9},
    "wavenet": {"dataset": "plucks", "layers": 7, "epochs": 18, "batch_size": 4, "lr": 5e-3},
}


@dataclass(frozen=True)
class Config(utils.Config):
    """Train an autoregressive model of pictures or of sound; measure, draw and complete."""

    model: Literal[
        "pixelcnn", "pixelcnn-masked", "made", "conditional", "wavenet", "transformer"
    ] = "pixelcnn"
    """Gated PixelCNN without blind spot, the first one with it, MADE, the gated one given labels,
    WaveNet on plucked strings, a causal transformer over patches."""
    dataset: str | None = None
    """Pictures as in every chapter, mnist5k unless given; wavenet: plucks, made here."""
    epochs: int | None = None
    """Passes over the training set; 11 unless given (pixelcnn-masked 20, made 150,
    transformer 9, wavenet 18)."""
    batch_size: int | None = None
    """Examples a step; 16 unless given (made 64, wavenet 4)."""
    lr: float | None = None
    """Peak rate; 6e-3 unless given (made 2e-3, transformer, wavenet 5e-3); warm-up, flat, a line to
    0 over the last 30%."""
    levels: int | None = None
    """Grey levels (sound: loudness levels), 2 to 256; 256 unless given. made: 2, and its
    memory grows with them."""
    binarize: Literal["dynamic", "static", "threshold"] = "dynamic"
    """With --levels 2: draw each pixel anew whenever it is seen, once for ever, or cut at 0.5."""
    output: Literal["softmax", "logistics"] = "softmax"
    """A logit for each level, or a mixture of 5 discretised logistics."""
    patch: int | None = None
    """Pictures: p x p pixels are one place with p^2 numbers; 1 unless given, transformer 2."""
    width: int | None = None
    """All but made: channels of the layers; 32 unless given, transformer 64."""
    layers: int | None = None
    """All but made: layers; 4 unless given, pixelcnn-masked 6, wavenet 7."""
    hidden: int = 500
    """made: hidden units."""
    orderings: int = 1
    """made: orderings that share its weights; of several, the ensemble is measured, too."""
    weight_decay: float | None = None
    """Pull of the weights towards 0, as in AdamW; 0 unless given, made 0.05."""
    clip: float = 50.0
    """Longest gradient of all weights together, of a loss that is summed over the picture."""
    ema: float | None = None
    """Decay of the average of the weights, which is what is measured and drawn from; 0.99 unless
    given, made 0.998."""
    temperature: float = 1.0
    """Of samples: 1 is the model itself, below 1 it dares less."""
    seconds: float = 0.125
    """wavenet: length of a tone. It plays up to four of each note."""

    def __post_init__(self) -> None:
        self.fill(VARIANTS.get(self.model, {}))
        self.fill(DEFAULTS)
        super().__post_init__()
        utils.check_number("levels", self.levels, at_least=2, below=257)
        for name in ("patch", "width", "layers", "hidden", "orderings"):
            utils.check_number(name, getattr(self, name), at_least=1)
        utils.check_number("weight_decay", self.weight_decay, at_least=0)
        utils.check_number("clip", self.clip, above=0)
        utils.check_number("ema", self.ema, at_least=0, below=1)
        utils.check_number("temperature", self.temperature, at_least=0)
        utils.check_number("seconds", self.seconds, at_least=0.05)
        if (self.model == "wavenet") != (self.dataset == "plucks"):
            raise utils.UserError(
                f"--model {self.model}: expected "
                f"{'plucks' if self.model == 'wavenet' else 'pictures'}, got --dataset "
                f"{self.dataset}: plucks is the sound of --model wavenet, and its only one"
            )
        if self.model == "transformer" and self.width % 4:
            raise utils.UserError(
                f"--width: expected a multiple of the transformer's 4 heads, got {self.width}"
            )
        if self.quick:
            object.__setattr__(self, "seconds", min(self.seconds, 0.1))
            object.__setattr__(self, "num_samples", min(self.num_samples, 64))


def build(config: Config, shape: Shape, outputs: int, num_classes: int) -> nn.Module:
    """The network that `config.model` names."""
    width, layers = config.width, config.layers
    if config.model == "made":
        return MADE(shape, outputs, config.hidden, config.orderings)
    if config.model == "transformer":
        return Transformer(shape, outputs, width, layers)
    if config.model == "pixelcnn-masked":
        return MaskedPixelCNN(shape, outputs, width, layers)
    if config.model == "wavenet":
        dilations = [2 ** (i % 7) for i in range(layers)]  # 1 to 64, and again
        return WaveNet(shape, outputs, width, dilations, num_classes)
    dilations = [(1, 2, 4, 2)[i % 4] for i in range(layers)]  # far with few layers, without gaps
    return PixelCNN(shape, outputs, width, dilations, num_classes)


def mean_and_error(values: Tensor, name: str) -> Metrics:
    """Mean of values (N,), and its standard error."""
    error = values.std().item() / math.sqrt(len(values))
    return {name: values.mean().item(), f"{name}_standard_error": error}


def speed(model: nn.Module, likelihood: Likelihood, x: Tensor, y: Tensor) -> Metrics:
    """Seconds for samples like x (B, ...), cached; and naively, estimated from 5 of its passes.

    Naively is one pass for each place, which the numbers of a patch or a colour share.
    """

    @torch.no_grad()
    def seconds(function: Callable[[], Tensor], times: int = 1) -> float:
        begin = time.perf_counter()
        for _ in range(times):
            function().sum().item()  # waits for a GPU
        return (time.perf_counter() - begin) / times

    seconds(lambda: model(x, y))  # the first time is slower
    cached = seconds(lambda: sample(model, likelihood, x, y))
    passes = len(model.sites) / (1 if isinstance(model, MADE) else x.shape[1])
    naive = passes * seconds(lambda: model(x, y), times=5)
    return {
        f"seconds_per_{len(x)}_samples": cached,
        f"seconds_per_{len(x)}_samples_naive_estimated": naive,
        "speedup_by_caching": naive / cached,
    }


def pictures(config: Config, run: utils.Run) -> None:
    """Train on pictures; count bits, draw, complete, classify.

    Raises:
        UserError: if the pictures cannot be cut into patches, or have no labels to be told.
    """
    data = utils.load_images(config.dataset, config.data_root, quick=config.quick)
    if any(size % config.patch for size in data.image_shape[1:]):
        raise utils.UserError(
            f"--patch: expected a divisor of the picture's {data.image_shape[1]} x "
            f"{data.image_shape[2]} pixels, got {config.patch}"
        )
    if config.model == "conditional" and len(data.class_names) < 2:
        raise utils.UserError(
            f"--model conditional: expected pictures with labels, got {config.dataset}: use "
            "--model pixelcnn"
        )
    if config.levels == 2 and config.binarize == "static":
        once = torch.Generator().manual_seed(0)
        test_x, train_x = (torch.bernoulli(x, generator=once) for x in (data.test, data.train))
        data = replace(data, train=train_x, test=test_x)

    def prepare(x: Tensor) -> Tensor:  # onto the grid; a patch's pixels become channels
        x = binarize(x, config.binarize) if config.levels == 2 else quantize(x, config.levels)
        return F.pixel_unshuffle(x, config.patch)

    def picture(x: Tensor) -> Tensor:
        return F.pixel_shuffle(x.cpu(), config.patch)

    num_classes = len(data.class_names) if config.model == "conditional" else 0
    likelihood = {"softmax": Softmax, "logistics": Logistics}[config.output](config.levels)
    blank = prepare(torch.zeros(1, *data.image_shape))[0]
    model = build(config, blank.shape, likelihood.outputs, num_classes)
    model = model.to(run.device, memory_format=torch.channels_last)
    if config.output == "softmax":
        start_at_histogram(model, prepare(data.train[:1000]), config.levels)

    def beginning(n: int) -> tuple[Tensor, Tensor]:  # nothing drawn yet, and labels in turns
        return blank.expand(n, -1, -1, -1), torch.arange(n) % max(1, num_classes)

    def generate(model: nn.Module, n: int, **how) -> Tensor:
        return picture(complete(model, *beginning(n), **how))

    def complete(model: nn.Module, x: Tensor, y: Tensor, **how) -> Tensor:
        how = {"temperature": config.temperature} | how
        return utils.in_parts(model, partial(sample, model, likelihood, **how), x, y)[0]

    look = partial(generate, n=16)
    model = train(model, likelihood, (data.train, data.train_labels), prepare, look, run)
    if run.rank:
        return  # under torchrun only the first process evaluates and writes
    begin = time.perf_counter()
    samples = generate(model, config.num_samples)
    seconds = time.perf_counter() - begin
    run.save_samples(samples, title=f"{config.model}, drawn pixel by pixel")
    if num_classes:
        title, columns = "Each column a label", {"columns": num_classes}
        grid = generate(model, 8 * num_classes)
        utils.image_grid(grid, run.path("classes.png"), title=title, **columns)
    film_of_drawing(samples[:16], model.sites, config, run)
    show_completions(data, prepare, picture, partial(complete, model), run)
    rows = {f"T = {t:g}": generate(model, 10, temperature=t) for t in (0.5, 0.8, 1, 1.2)}
    title = "Temperature: what it does to each conditional"
    utils.image_rows(rows, run.path("temperature.png"), title=title)
    show_receptive_field(model, prepare(data.test[:64]), picture, run)
    run.draw_history("bits_per_dim", ylabel="bits per dimension", title="Training")
    x_test, x_train = prepare(data.test), prepare(data.train[: len(data.test)])
    show_surprise(model, likelihood, (x_test[:10], data.test_labels[:10]), picture, run)
    run.finish(
        **likelihoods(model, likelihood, x_test, data.test_labels, x_train, data.train_labels),
        binarization=config.binarize if config.levels == 2 else "none",
        **utils.sample_quality(samples, data),
        seconds_per_1000_samples=1000 * seconds / len(samples),
        **speed(model, likelihood, *(t.to(run.device) for t in beginning(100))),
    )


@torch.no_grad()
def likelihoods(
    model: nn.Module, likelihood: Likelihood, test: Tensor, y_test: Tensor, train: Tensor, y: Tensor
) -> Metrics:
    """-log p(x) of test and training pictures (N, C, H, W) on the grid, exact, in float32."""

    def nats(x: Tensor, y: Tensor, **how) -> Tensor:
        f = lambda x, y: nll(model(x, y, **how), x, likelihood)
        return utils.in_parts(model, f, x, y, rows=100)[0]

    metrics = mean_and_error(nats(test, y_test), "test_nll_nats")
    metrics["train_nll_nats"] = nats(train, y[: len(train)]).mean().item()
    for name in ("test", "train"):
        bits = utils.bits_per_dim(metrics[f"{name}_nll_nats"], test[0].numel())
        metrics[f"{name}_bits_per_dim"] = bits
    if isinstance(model, MADE) and len(model.places) > 1:
        each = torch.stack([-nats(test, y_test, ordering=i) for i in range(len(model.places))])
        metrics["test_nll_nats_mean_of_orderings"] = -each.mean().item()
        metrics["test_nll_nats_ensemble"] = -ensemble_log_prob(each).mean().item()
    if isinstance(model, PixelCNN) and model.num_classes:
        x = test[:1000]
        given = [-nats(x, torch.full((len(x),), k)) for k in range(model.num_classes)]
        given, truth = torch.stack(given), y_test[: len(x)]  # (K, N); all labels equally likely
        right = (given.argmax(dim=0) == truth).float()
        metrics["test_accuracy_by_bayes_rule"] = right.mean().item()
        metrics["test_nll_nats_label_summed_out"] = -ensemble_log_prob(given).mean().item()
        others = given.gather(0, truth.roll(1)[None])  # each picture with the label of another
        metrics["test_nll_nats_labels_exchanged"] = -others.mean().item()
    return metrics


def film_of_drawing(x: Tensor, sites: list[Site], config: Config, run: utils.Run) -> None:
    """Pictures (N, C, H, W) as they came into being; what was not drawn yet is grey."""
    order = torch.zeros(F.pixel_unshuffle(x[0], config.patch).shape)
    for i, site in enumerate(sites):
        order[site] = i
    order = F.pixel_shuffle(order, config.patch)
    times = torch.linspace(0, len(sites), 29).long().tolist()
    frames = [torch.where(order < t, x, 0.5) for t in times]
    labels = [f"{t} of {len(sites)} numbers" for t in times]
    utils.animation(frames, run.path("drawing.gif"), labels=labels)
    some = {f"{t}": torch.where(order < t, x[:10], 0.5) for t in times[7::7]}
    utils.image_rows(some, run.path("drawing.png"), title="Numbers drawn, in the model's order")


def show_completions(
    data: Images, prepare: Callable, picture: Callable, complete: Callable, run: utils.Run
) -> None:
    """Digits of which the top half is given, three times; and, for contrast, the left half.

    The top half is a prefix of the order (not of MADE's, which is random), and what follows is
    drawn from p(rest | given). The left half is not: its lower pixels are not foreseen where upper
    ones are drawn; notes/08 eq. (8.43).
    """
    x, y = prepare(data.test[:10]), data.test_labels[:10]
    rows, (_, height, wide) = {"test images": picture(x)}, x.shape[1:]
    top, left = torch.zeros(2, *x.shape[1:], dtype=torch.bool)
    top[:, : height // 2], left[..., : wide // 2] = True, True
    for name, known in (("top", top), ("left", left)):
        rows[f"{name} given"] = picture(torch.where(known, x, 0.5))
        for i in range(3):
            rows[f"{name}, {i + 1}"] = picture(complete(x, y, known=known))
    utils.image_rows(rows, run.path("completions.png"), title="Halves completed: the top, the left")


def show_receptive_field(model: nn.Module, x: Tensor, picture: Callable, run: utils.Run) -> None:
    """From which pixels the outputs at the middle get a gradient: how strongly, and whether."""
    _, height, wide = x.shape[1:]
    site = 0, height // 2, wide // 2
    y = torch.zeros(len(x), dtype=torch.long, device=run.device)
    field = picture(receptive_field(model, x.to(run.device), site, y)[None])
    strong = (field / field.amax().clamp(min=1e-30)).sqrt()  # the first of an order sees nothing
    seen = (field > 0).float()
    rows = torch.cat([strong, seen]).amax(dim=1, keepdim=True)
    labels = ["gradient, square root", "not zero"]
    at = [run.config.patch * place for place in site[1:]]
    title = f"What the outputs at row {at[0]}, column {at[1]} depend on"
    utils.image_grid(rows, run.path("receptive_field.png"), columns=2, labels=labels, title=title)


def show_surprise(
    model: nn.Module, likelihood: Likelihood, data: tuple, picture: Callable, run: utils.Run
) -> None:
    """Where the bits of test pictures x (B, C, H, W) with labels y are."""

    def bits(x: Tensor, y: Tensor) -> Tensor:
        return -likelihood.log_prob(model(x, y), x) / math.log(2)

    x, y = data
    surprise = utils.in_parts(model, bits, x, y)[0]
    most = math.log2(likelihood.levels)
    rows = {"test images": picture(x), "bits of a pixel": picture(surprise / most).clamp(0, 1)}
    title = f"How surprising each pixel was: black 0 bits, white {most:.3g} or more"
    utils.image_rows(rows, run.path("surprise.png"), title=title)


# sound

RATE, LOWEST, NOTES = 8000, 220.0, 13  # samples a second; Hz; an octave in semitones


def frequency(note: Tensor) -> Tensor:
    """Hz of a note 0...12, each a semitone above the last."""
    return LOWEST * 2 ** (note / 12)


def mu_law(sound: Tensor, levels: int) -> Tensor:
    """Sound in [-1, 1] on a grid of [0, 1] that is finer where it is quiet; notes/08 eq. (8.47)."""
    mu = levels - 1
    loud = torch.log1p(mu * sound.abs()) / math.log1p(mu)
    return ((1 + sound.sign() * loud) / 2 * mu).round() / mu


def mu_law_inverse(x: Tensor, levels: int) -> Tensor:
    """Back to [-1, 1]; notes/08 eq. (8.47)."""
    loud = 2 * x - 1
    return loud.sign() * torch.expm1(loud.abs() * math.log(levels)) / (levels - 1)


def pluck(hertz: Tensor, steps: int, loss: float = 0.004) -> Tensor:
    """Plucked strings of these pitches (B,), sound (B, steps) in [-1, 1].

    Noise runs round a loop, and each time is smoothed by a mean of neighbours: what remains repeats
    itself once a period. Karplus & Strong (1983), Computer Music Journal 7(2); notes/08 eq. (8.50).
    The delay between two samples, here the simplest, eq. (8.54), and the soft finger, noise without
    its highest tones, are after Jaffe & Smith (1983), the same issue. Each period loses `loss`.
    """
    delay = RATE / hertz - 0.5  # the mean is worth half a sample
    whole = delay.floor().long()
    part = (delay - whole)[:, None]
    burst = (2 * torch.rand(len(hertz), steps) - 1) * (torch.arange(steps) <= whole[:, None])
    burst = F.avg_pool1d(F.pad(burst, (7, 0)), 8, stride=1)  # a soft finger: a mean of 1 ms
    start = int(whole.max()) + 2  # silence, so that one may look back from the beginning
    y = torch.zeros(len(hertz), start + steps)
    weights = torch.cat([1 - part, torch.ones_like(part), part], dim=1) * (1 - loss) / 2
    for t in range(steps):
        back = start + t - whole[:, None] - torch.arange(3)  # (B, 3)
        y[:, start + t] = burst[:, t] + (y.gather(1, back) * weights).sum(dim=1)
    y = y[:, start:]
    return 0.95 * y / y.abs().amax(dim=1, keepdim=True)


def pitch_of(sound: Tensor, low: float = 80.0, high: float = 1000.0) -> Tensor:
    """Hz of tones (B, T): where a tone, shifted by a period, resembles itself.

    The first of the high peaks of its autocorrelation, and the top of the parabola through it;
    notes/08 eqs. (8.55), (8.56). What has no peak, such as silence, gets about `high`. T must
    exceed the longest period, RATE / low.
    """
    spectrum = torch.fft.rfft(sound - sound.mean(dim=1, keepdim=True), n=2 * sound.shape[1])
    auto = torch.fft.irfft(spectrum.abs().square())[:, : sound.shape[1]]
    auto = auto / torch.arange(sound.shape[1], 0, -1)  # by the number of products
    first, last = int(RATE / high), int(RATE / low)
    before, at, after = (auto[:, first + i : last + i] for i in (-1, 0, 1))
    peak = (at >= before) & (at >= after) & (at > 0.85 * at.amax(dim=1, keepdim=True))
    lag = peak.float().argmax(dim=1, keepdim=True)  # the first
    before, at, after = (values.gather(1, lag)[:, 0] for values in (before, at, after))
    curvature = (before - 2 * at + after).clamp(max=-1e-12)  # silence has none
    offset = (0.5 * (before - after) / curvature).clamp(-0.5, 0.5)
    return RATE / (first + lag[:, 0] + offset)


def cents(hertz: Tensor, asked: Tensor) -> Tensor:
    """Distance of pitches in hundredths of a semitone; notes/08 eq. (8.57)."""
    return 1200 * (hertz / asked).log2()


def sound(config: Config, run: utils.Run) -> None:
    """Train on plucked strings; count bits, let it play every note, and measure the pitch."""
    steps = int(RATE * config.seconds)

    def play(n: int) -> tuple[Tensor, Tensor]:
        note = torch.arange(n) % NOTES
        return mu_law(pluck(frequency(note), steps), config.levels)[:, None, None], note

    size = 64 if config.quick else 2000
    x, y = play(size)
    x_test, y_test = play(max(size // 10, NOTES))
    likelihood = {"softmax": Softmax, "logistics": Logistics}[config.output](config.levels)
    model = build(config, x.shape[1:], likelihood.outputs, NOTES)
    model = model.to(run.device, memory_format=torch.channels_last)
    if config.output == "softmax":
        start_at_histogram(model, x[:100], config.levels)
    model = train(model, likelihood, (x, y), lambda x: x, None, run)
    if run.rank:
        return
    note = torch.arange(NOTES * min(4, -(-config.num_samples // NOTES))) % NOTES
    how = {"temperature": config.temperature}
    blank, begin = torch.zeros(len(note), 1, 1, steps), time.perf_counter()
    samples = utils.in_parts(model, partial(sample, model, likelihood, **how), blank, note)[0]
    seconds = time.perf_counter() - begin
    run.save_points(samples)
    tones = {
        "plucked strings": mu_law_inverse(x_test[:, 0, 0], config.levels),
        "wavenet": mu_law_inverse(samples[:, 0, 0], config.levels),
    }
    errors = {
        "plucked strings": cents(pitch_of(tones["plucked strings"]), frequency(y_test)),
        "wavenet": cents(pitch_of(tones["wavenet"]), frequency(note)),
    }
    scales = {name: tone[:NOTES].flatten() for name, tone in tones.items()}
    for name, scale in scales.items():
        run.save_sound(f"{name.replace(' ', '_')}.wav", scale, RATE)
    title = "A scale of an octave, one tone after the other"
    utils.spectrograms(scales, run.path("spectrogram.png"), rate=RATE, title=title)
    shown = {name: (range(NOTES), error[:NOTES]) for name, error in errors.items()}
    labels = {"xlabel": "note asked for, semitones above 220 Hz", "ylabel": "error of pitch, cents"}
    utils.curves(shown, run.path("pitch.png"), **labels)
    run.draw_history("bits_per_dim", ylabel="bits per sample of sound", title="Training")
    run.finish(
        **likelihoods(model, likelihood, x_test, y_test, x[: len(x_test)], y),
        **pitch_metrics(errors["wavenet"], ""),
        **pitch_metrics(errors["plucked strings"], "_data"),
        seconds_per_1000_samples=1000 * seconds / len(samples),
        **speed(model, likelihood, blank[:NOTES].to(run.device), note[:NOTES].to(run.device)),
    )


def pitch_metrics(error: Tensor, suffix: str) -> Metrics:
    """Of errors (N,) in cents: the median size, and how many are within half a semitone."""
    return {
        f"pitch_error_cents_median{suffix}": error.abs().median().item(),
        f"pitch_within_50_cents_share{suffix}": (error.abs() < 50).float().mean().item(),
    }


def main(config: Config) -> None:
    """Train the model that was asked for, then measure and draw."""
    run = utils.start(config, __file__)
    (sound if config.model == "wavenet" else pictures)(config, run)


if __name__ == "__main__":
    utils.cli(main, Config)
