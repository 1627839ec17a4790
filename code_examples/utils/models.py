"""What is done to any model: call it on long inputs, unwrap it, average its weights."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


@torch.no_grad()
def in_parts(
    model: nn.Module, function: Callable[..., Tensor | tuple], *inputs: Tensor, rows: int = 500
) -> list[Tensor]:
    """What a function of the model returns for long inputs, `rows` at a time; on the CPU.

    Args:
        model: Its first parameter, if it has any, says on which device the inputs are needed.
        function: Takes as many tensors as there are inputs, returns a tensor or a tuple of them.
        inputs: All of the same length N.

    Returns:
        The tensors that it returned, each (N, ...), without a graph.
    """
    device = next(model.parameters(), inputs[0]).device
    parts = zip(*(t.to(device).split(rows) for t in inputs), strict=True)
    results = (function(*part) for part in parts)
    outputs = zip(*((r,) if isinstance(r, Tensor) else r for r in results), strict=True)
    return [torch.cat(output).cpu() for output in outputs]


def unwrapped(model: nn.Module) -> nn.Module:
    """The model itself, also where the wrapper of `Run.data_parallel` stands in its place."""
    return getattr(model, "module", model)


def grad_norm(model: nn.Module) -> Tensor:
    """Length of the gradient of all weights together, ()."""
    return torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()


@torch.no_grad()
def update_ema(ema: nn.Module, model: nn.Module, decay: float) -> None:
    """Move an exponential moving average of the weights by 1 - decay of the way towards them.

    Buffers are copied: those of batch norm are averages already. Yazici et al. (2019), The unusual
    effectiveness of averaging in GAN training, arXiv:1806.04498.
    """
    for mean, now in zip(ema.parameters(), model.parameters(), strict=True):
        mean.lerp_(now, 1 - decay)
    for mean, now in zip(ema.buffers(), model.buffers(), strict=True):
        mean.copy_(now)


def nearest(x: Tensor, data: Tensor) -> Tensor:
    """The member of data (N, ...) nearest to each x (M, ...), by the distance of the pixels."""
    return data[torch.cdist(x.flatten(1), data.flatten(1)).argmin(dim=1)]
