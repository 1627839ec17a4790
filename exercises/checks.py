"""What the checks of an exercise are written with, and the banks of answers that grade them.

A check states one property of every right answer; its name says which, and its docstring says what
probably went wrong when it fails. The checks of a task run in their order and the first that fails
is reported:

    @check("1.4")
    def the_input_stays_as_it_was(add_noise):
        "`x += ...` writes into the caller's tensor: build a new one."

Wrong answers that people really give are registered by `@wrong`, right ones that look unlike the
solution by `@right`; tests/test_exercises.py grades the checks with both.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from torch import Tensor

CHECKS: dict[str, dict[str, Callable]] = {}  # task -> name -> check
WRONG: dict[str, dict[str, "WrongAnswer"]] = {}  # task -> name -> a known mistake
RIGHT: dict[str, dict[str, Any]] = {}  # task -> name -> a right answer written differently


class Failure(Exception):
    """A property that an answer lacks.

    Attributes:
        seen, expected: In words, with the numbers.
        output: What the answer gave, to compare with known wrong answers; None if nothing.
        cause: What probably went wrong, where the check's docstring is not it.
        title: What this is about, where it is not the check's name.
        where: The learner's line, if one raised an exception.
        whole_file: Whether no task of the file can be graded.
    """

    def __init__(
        self,
        seen: str,
        expected: str,
        *,
        output: Any = None,
        cause: str = "",
        title: str = "",
        where: str = "",
        whole_file: bool = False,
    ) -> None:
        super().__init__(seen)
        self.seen, self.expected, self.output = seen, expected, output
        self.cause, self.title, self.where, self.whole_file = cause, title, where, whole_file


@dataclass(frozen=True)
class WrongAnswer:
    """A known mistake: the check that must reject it, what to call it, and the answer itself."""

    rejected_by: str
    says: str
    answer: Any


def check(task_id: str) -> Callable:
    """Register a property of this task's answer: a function that takes the answer."""

    def register(function: Callable) -> Callable:
        CHECKS.setdefault(task_id, {})[function.__name__] = function
        return function

    return register


def wrong(task_id: str, rejected_by: str) -> Callable:
    """Register a wrong answer, and its docstring as what the learner is told."""

    def register(answer: Any) -> Any:
        says, answer.__doc__ = " ".join(answer.__doc__.split()), None
        known = WrongAnswer(rejected_by, says, answer)
        WRONG.setdefault(task_id, {})[answer.__name__] = known
        return answer

    return register


def right(task_id: str) -> Callable:
    """Register a right answer that differs from the solution."""

    def register(answer: Any) -> Any:
        RIGHT.setdefault(task_id, {})[answer.__name__] = answer
        return answer

    return register


def as_tensor(
    value: Any, shape: tuple[int, ...], what: str, *, shape_is_said: bool = True
) -> Tensor:
    """`value` as a plain tensor, for a check to compute with; its gradient graph is kept.

    Args:
        shape_is_said: False in a check about shapes, whose docstring knows a wrong one's cause
            better than SHAPE does.

    Raises:
        Failure: if it is no tensor of this shape, or has a number that is not finite.
    """
    if type(value) not in (Tensor, torch.nn.Parameter):  # a subclass could compare as it likes
        raise Failure(f"{what} is {show(value)}", f"a tensor of shape {shape}", cause=_cause(value))
    if tuple(value.shape) != shape:
        seen, expected = f"{what} has shape {tuple(value.shape)}", f"shape {shape}"
        raise Failure(seen, expected, output=value, cause=SHAPE if shape_is_said else "")
    if not value.isfinite().all():
        raise Failure(f"{what} is {show(value)}", "finite numbers", output=value)
    return value


def as_number(value: Any, what: str) -> float:
    """`value` as a float, from a number or a tensor of one element without a graph.

    Raises:
        Failure: if it is something else, or not finite.
    """
    if type(value) is Tensor:
        value = as_tensor(value, (), what)
        if value.requires_grad:
            seen = f"{what} is {show(value)}, with its gradient graph"
            cause = "A tensor keeps everything alive that it was computed from: use `.item()`."
            raise Failure(seen, "a plain number", output=value, cause=cause)
        value = value.item()
    if not isinstance(value, Real) or not math.isfinite(value):
        raise Failure(f"{what} is {show(value)}", "a finite number", cause=_cause(value))
    return float(value)


SHAPE = "The shape is not the one under Returns: which dimensions are summed, and which stay?"


def expect(condition: bool, seen: str, expected: str, *, output: Any = None) -> None:
    """Go on if the condition holds.

    Raises:
        Failure: if it does not.
    """
    if condition is not True and not (type(condition) is Tensor and condition.item() is True):
        raise Failure(seen, expected, output=output)


def expect_close(
    value: Any, expected: Tensor | float, what: str, *, tol: float = 1e-5, because: str = ""
) -> None:
    """Go on if `value` has the shape of `expected` and differs by at most tol * (1 + |expected|).

    Raises:
        Failure: if not, saying both and, if given, why this is expected.
    """
    if isinstance(expected, Tensor):
        value = as_tensor(value, tuple(expected.shape), what).detach()
    else:
        value = torch.tensor(as_number(value, what), dtype=torch.float64)
        expected = torch.tensor(expected, dtype=torch.float64)
    expected = expected.detach().to(torch.float64)
    error = (value.to(torch.float64) - expected).abs() - tol * expected.abs()
    if not bool((error <= tol).all()):  # so written that NaN fails
        digits = next((d for d in range(4, 9) if show(value, d) != show(expected, d)), 9)
        said = f"{show(expected, digits)}{f': {because}' if because else ''}"
        raise Failure(f"{what}: {show(value, digits)}", said, output=value)


def expect_equal(value: Any, expected: Tensor, what: str, *, because: str) -> None:
    """Go on if `value` is the same tensor, element by element.

    Raises:
        Failure: if not, saying the first difference.
    """
    value = as_tensor(value, tuple(expected.shape), what).detach()
    if not torch.equal(value, expected):
        place = tuple((value != expected).nonzero()[0].tolist())
        seen = f"{what}: {show(value[place])} at {list(place)}"
        raise Failure(seen, f"{show(expected[place])}: {because}", output=value)


def _cause(value: Any) -> str:
    """Why a value of this type cannot be right, whatever is being checked."""
    if value is None:
        return "The function ends without a `return`."
    return (
        "" if isinstance(value, Tensor | Real) else "See Returns in the docstring: what comes back?"
    )


def show(value: Any, digits: int = 4) -> str:
    """A value in a few words: numbers with so many digits, larger tensors by shape and range."""
    if isinstance(value, Tensor):
        value = value.detach()
        if value.ndim == 0:
            return show(value.item(), digits)
        if value.numel() <= 6:
            return str([float(f"{v:.{digits}g}") for v in value.flatten().tolist()])
        low, high = (f"{v:.{digits}g}" for v in (value.min().item(), value.max().item()))
        return f"a tensor {tuple(value.shape)} with numbers from {low} to {high}"
    if isinstance(value, float):
        return f"{value:.{digits}g}"
    return f"{type(value).__name__} {value!r:.60}" if value is not None else "None"
