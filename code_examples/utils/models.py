"""How models are called: on long inputs, and inside torchrun's wrapper."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


@torch.no_grad()
def in_parts(
    model: nn.Module, function: Callable[..., Tensor | tuple], *inputs: Tensor, rows: int = 500
) -> list[Tensor]:
    """What a function of the model returns for long inputs, `rows` at a time; on the CPU.

    Args:
        model: Its first parameter says on which device the inputs are needed.
        function: Takes as many tensors as there are inputs, returns a tensor or a tuple of them.
        inputs: All of the same length N.

    Returns:
        The tensors that it returned, each (N, ...), without a graph.
    """
    device = next(model.parameters()).device
    parts = zip(*(t.to(device).split(rows) for t in inputs), strict=True)
    results = (function(*part) for part in parts)
    outputs = zip(*((r,) if isinstance(r, Tensor) else r for r in results), strict=True)
    return [torch.cat(output).cpu() for output in outputs]


def unwrapped(model: nn.Module) -> nn.Module:
    """The model itself, also where the wrapper of `Run.data_parallel` stands in its place."""
    return getattr(model, "module", model)
