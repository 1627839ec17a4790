"""Running code that may be wrong in any way, so that being right is the only way to pass."""

import builtins
import math
import operator
import os
import random
import signal
import sys
import threading
import traceback
import unittest
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from torch import Tensor

from . import checks, kit
from .checks import Failure

SECONDS = 10  # an answer that takes longer is stopped
EXCEPTIONS = {  # likely causes; the first class that fits counts
    RecursionError: "A function calls itself without end.",
    NameError: "This name is neither defined nor imported in the file.",
    TypeError: (
        "Arguments or types do not fit: compare the call with the signature, one by one. If a "
        "method is named, its () are missing."
    ),
    NotImplementedError: "A module has no forward, or a function does not exist for this type.",
    AttributeError: "The object has no such attribute. If it is None, a `return` is missing.",
    (RuntimeError, IndexError, ValueError): (
        "Often shapes that do not fit: print them just before this line. Which is not what you "
        "thought? Mind a batch of one, colour, and images that are not square."
    ),
}
TOP_LEVEL = (
    "Lines outside functions run whenever the file is loaded, before any task is graded. Put your "
    'own trials below `if __name__ == "__main__":`.'
)
UNKNOWN = "Read the exception and its line; the docstring says what may come in."


class NotAttempted(Exception):
    """The answer still raises its own NotImplementedError."""


class TooSlow(BaseException):
    """The answer took longer than SECONDS; no answer catches this by `except Exception`."""


class Ended(BaseException):
    """The answer called a function that would have ended the process."""


@contextmanager
def contained(task: kit.Task, path: Path, *, loading: bool = False) -> Iterator[None]:
    """Run a learner's code so that being right is the only way to pass.

    Whatever it raises becomes a Failure or NotAttempted; what it replaced is put back and reported;
    modes that it left switched are restored.

    Args:
        loading: The file is being run, not a task's answer: what goes wrong concerns all tasks.

    Raises:
        Failure, NotAttempted: in place of anything else, except the user's own Ctrl-C.
    """
    before = _relied_on()
    states = torch.is_grad_enabled(), torch.get_default_dtype(), random.getstate()
    device = torch.get_default_device()
    outcome: BaseException | None = None
    with warnings.catch_warnings(), _process_kept_alive():
        warnings.simplefilter("ignore")
        torch.set_grad_enabled(True)
        try:
            yield
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 (whatever it is, it is the answer's)
            outcome = _translated(error, task, path, loading)
        finally:
            torch.set_grad_enabled(states[0])
            torch.set_default_dtype(states[1])
            random.setstate(states[2])
            if torch.get_default_device() != device:
                torch.set_default_device(None)
    replaced = _put_back(before)
    if replaced:
        raise Failure(
            f"the answer replaces {', '.join(replaced)}",
            "everything outside the exercise as it was",
            title="the answer changes what the graders rely on",
            cause="A function of Python, PyTorch or the graders was assigned a new value.",
        )
    if outcome is not None:
        raise outcome from None


def _translated(error: BaseException, task: kit.Task, path: Path, loading: bool) -> Exception:
    """The Failure or NotAttempted that a learner should hear of instead of `error`."""
    if isinstance(error, Failure | NotAttempted):
        return error
    if type(error) is NotImplementedError and str(error).startswith(f"Exercise {task.id}: "):
        part = str(error).partition(": ")[2]
        return NotAttempted(f"{task}: not attempted, {part} still raises its NotImplementedError")
    if loading:
        return _while_loading(error, path)
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if Path(f.filename) == path]
    where = f", line {own[-1].lineno} of {path.name}: {own[-1].line}" if own else ""
    if isinstance(error, TooSlow):
        seen, expected = f"no result after {SECONDS} seconds", "less than 2 seconds"
        cause = "A loop that does not end, or one over single elements that PyTorch can do at once."
        title = "the answer takes too long"
        return Failure(seen, expected, title=title, cause=cause, where=where)
    outcomes = (pytest.skip.Exception, pytest.fail.Exception, pytest.exit.Exception)
    if isinstance(error, (*outcomes, unittest.SkipTest, SystemExit, Ended, GeneratorExit)):
        seen = f"{type(error).__name__}{f' ({error})' if str(error) else ''}"
        expected = "a result; only the checks decide what passes"
        cause = "The answer skips, fails or ends the test, or the process, by itself."
        title = "the answer ends the test by itself"
        return Failure(seen, expected, title=title, cause=cause, where=where)
    text = " ".join(str(error).split())[:300]
    cause = next((said for kind, said in EXCEPTIONS.items() if isinstance(error, kind)), UNKNOWN)
    if "dtype" in text or ("type" in text and "Double" in text):
        cause = "float32 meets float64: make new tensors of x's dtype, as `randn_like(x)` does."
    if "does not require grad" in text:
        cause = "The graph is cut: by `.item()`, `.detach()`, `torch.no_grad()` or a new tensor."
    if type(error).__name__ == "BdbQuit":
        cause = "A breakpoint() is left in the answer."
    if not own:
        cause = "The check could not use what the answer returned: see Returns in the docstring."
    return Failure(
        f"{type(error).__name__}: {text}",
        "a result without an exception",
        title="an exception, while checking that",
        cause=cause,
        where=where,
    )


def _while_loading(error: BaseException, path: Path) -> Failure:
    """The Failure for a file that does not run to its end, so that no task can be graded."""
    own = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename) == path]
    where = f", line {own[0].lineno} of {path.name}: {own[0].line}" if own else ""
    said = f"still running after {SECONDS} seconds" if isinstance(error, TooSlow) else ""
    return Failure(
        said or f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
        "a file that runs to its end when it is loaded",
        title="the file cannot be loaded",
        cause=EXCEPTIONS[NameError] if isinstance(error, NameError) else TOP_LEVEL,
        where=where,
        whole_file=True,
    )


_RELIED_ON = (
    builtins,
    math,
    torch,
    torch.nn,
    torch.nn.functional,
    torch.linalg,
    torch.optim,
    torch.testing,
    pytest,
    checks,
)
_CLASSES = (Tensor, torch.nn.Module, torch.optim.Optimizer, torch.optim.SGD)


@cache
def _names() -> dict[Any, tuple[str, ...]]:
    """What there is to rely on, by owner, before any answer has run."""
    # on the first step PyTorch itself replaces some of its functions
    torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))]).step()
    owners = (*_RELIED_ON, *_CLASSES)
    return {o: tuple(n for n, v in vars(o).items() if _matters(o, n, v)) for o in owners}


def _relied_on() -> dict[Any, dict[str, Any]]:
    """Everything in the modules and classes that checks rely on, as it is now."""
    return {owner: dict(vars(owner)) for owner in _names()}


def _matters(owner: Any, name: str, value: Any) -> bool:
    """Whether a check may rely on it: not private parts, nor how a tensor is printed."""
    if name.startswith("_"):
        return owner in (Tensor, checks) and name not in ("__repr__", "__str__", "__format__")
    return callable(value) or owner in _CLASSES


def _put_back(before: dict[Any, dict[str, Any]]) -> list[str]:
    """Undo what an answer replaced; return the names."""
    found = []
    for owner, then in before.items():
        now, names = vars(owner), _names()[owner]
        if now.keys() == then.keys() and all(map(operator.is_, now.values(), then.values())):
            continue  # by far the most frequent case, and thousands of names: it must be fast
        changed = {n: then.get(n) for n in names if now.get(n) is not then.get(n)}
        for name, value in changed.items():
            setattr(owner, name, value)
        inherited = {n for base in getattr(owner, "__mro__", (0,))[1:] for n in vars(base)}
        added = [n for n in set(now) - set(names) if n in inherited and _matters(owner, n, now[n])]
        for name in added:
            delattr(owner, name)
        found += [f"{owner.__name__}.{name}" for name in (*changed, *added)]
    return found


@contextmanager
def _process_kept_alive() -> Iterator[None]:
    """Make what would end this process raise Ended, and what takes too long raise TooSlow."""

    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise Ended("the process was to end")

    low_level = sys.modules.get("posix") or sys.modules.get("nt")
    names = ("_exit", "abort", "kill", "killpg", "execv", "execve")
    places = [(m, n) for m in (os, low_level) for n in names if hasattr(m, n)]
    places.append((signal, "raise_signal"))
    kept = [(m, n, getattr(m, n)) for m, n in places]
    timed = hasattr(signal, "SIGALRM") and threading.current_thread() is threading.main_thread()

    def too_slow(*_: Any) -> NoReturn:
        raise TooSlow

    if timed:
        handler = signal.signal(signal.SIGALRM, too_slow)
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        for module, name in places:
            setattr(module, name, refuse)
        yield
    finally:
        for module, name, value in kept:
            setattr(module, name, value)
        if timed:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, handler)
