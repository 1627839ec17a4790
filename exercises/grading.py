"""Grading an answer: run it beside reference parts, check what must be true, name the mistake."""

import importlib.abc
import importlib.util
import linecache
import sys
import textwrap
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, default_generator

from . import kit
from .checks import CHECKS, WRONG, Failure
from .contain import NotAttempted, contained

GRADERS = kit.HERE.parent / "tests" / "exercises"


class FileBroken(pytest.fail.Exception):
    """A learner's file cannot be loaded, so that no task of it can be graded."""


@dataclass(frozen=True)
class Grade:
    """What came of grading one task.

    Attributes:
        check: The name of the check that failed; "" if none did.
        message: For the learner, ready to print; "" if the answer passes.
        whole_file: Whether the file cannot even be loaded, so that every task says the same.
    """

    task: kit.Task
    state: Literal["not attempted", "failing", "passing"]
    check: str = ""
    message: str = ""
    whole_file: bool = False


@dataclass(frozen=True)
class Answers:
    """A learner's file, or one answer of a bank in the solution's place.

    Attributes:
        text: The file's text.
        path: Where it is, for messages.
        replaced: Names to put in place of what the text defines.
    """

    text: str
    path: Path
    replaced: dict[str, Any] = field(default_factory=dict)


def grade(task: kit.Task, answers: Answers, *, seed: int = 0) -> Grade:
    """Grade one task of a learner's file; all other tasks are those of the solution.

    The same seed gives the same grade. An answer that ends the process, skips a test, replaces a
    function that the checks rely on, or runs for ever does not pass.
    """
    home, _ = kit.task(task.id)
    load_graders(home.stem)
    checks = tuple(CHECKS[task.id].items())  # a copy that no answer can reach
    name, function = "", None
    try:
        with contained(task, answers.path, loading=True):
            answer = getattr(load(task, answers), task.name)
        for name, function in checks:  # noqa: B007 (the handlers below use the name)
            run_check(task, function, answer, answers.path, seed)
    except NotAttempted as unsolved:
        begun = kit.section(answers.text, task.id) != kit.section(home.skeleton, task.id)
        remedy = ": delete that line when your answer is complete" if begun else ""
        return Grade(task, "not attempted", name, f"{unsolved}{remedy}")
    except Failure as failure:
        known = known_mistake(task, function, failure, seed) if function else ""
        text = message(task, function, failure, known)
        return Grade(task, "failing", name, text, failure.whole_file)
    return Grade(task, "passing")


@cache
def load_graders(stem: str) -> None:
    """Import the checks and the bank of the exercise of that stem."""
    for name in (f"test_{stem}", f"bank_{stem}"):
        spec = importlib.util.spec_from_file_location(name, GRADERS / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)


def run_check(task: kit.Task, function: Callable, answer: Any, path: Path, seed: int) -> None:
    """Run one check on an answer.

    Raises:
        Failure, NotAttempted: what came of it.
    """
    with contained(task, path), torch.random.fork_rng(devices=[]):
        default_generator.manual_seed(seed)  # all of torch.manual_seed that a CPU needs
        function(answer)


def load(task: kit.Task, answers: Answers) -> types.ModuleType:
    """Run a learner's file and put the solution's version in place of all tasks but this one.

    Functions look names up in their module when they run, so the learner's answer meets reference
    versions of what it builds on.

    Raises:
        Failure: if the file cannot be run or does not define the task.
    """
    home, _ = kit.task(task.id)
    lines, name = [f"{line}\n" for line in answers.text.split("\n")], str(answers.path)
    linecache.cache[name] = (len(answers.text), None, lines, name)  # for messages
    try:
        module = run_text(answers.text, answers.path, f"exercise_{home.number}")
    except SyntaxError as error:
        row = error.lineno or 1
        line = lines[row - 1].strip() if row <= len(lines) else ""
        raise Failure(
            f"{error.msg}, line {row} of {answers.path.name}: {line}",
            "a file that Python can read",
            title="the file cannot be read",
            cause="Python stops at this line or just above it; no task can be graded until then.",
            whole_file=True,
        ) from None
    if not callable(module.__dict__.get(task.name)) and task.name not in answers.replaced:
        raise Failure(
            f"{answers.path.name} defines no `{task.name}`",
            "the name that the exercise gave it",
            title="the answer is missing",
            cause=f"Renamed or deleted? `python -m exercises reset {task.id}` brings it back.",
        )
    for other in home.tasks:
        if other.id != task.id:
            module.__dict__[other.name] = getattr(reference(home.number), other.name)
    module.__dict__.update(answers.replaced)
    return module


@cache
def reference(number: int) -> types.ModuleType:
    """The solution of that exercise as a module."""
    home = kit.exercise(number)
    return run_text(home.source, kit.SOLUTIONS / home.path.name, f"solution_{number}")


class _Text(importlib.abc.SourceLoader):
    """Imports a text as if it stood in the file at `path`, whatever is there now."""

    def __init__(self, text: str, path: Path) -> None:
        self.text, self.path = text, path

    def get_filename(self, fullname: str) -> str:
        return str(self.path)

    def get_data(self, path: str) -> bytes:
        return self.text.encode()

    def source_to_code(self, data: bytes, path: str) -> types.CodeType:
        return _compiled(data, path)


@lru_cache(maxsize=8)  # every task of a file, and every known mistake, runs the same text
def _compiled(data: bytes, path: str) -> types.CodeType:
    return compile(data, path, "exec", dont_inherit=True)


def run_text(text: str, path: Path, name: str) -> types.ModuleType:
    """Import a text as a module of that name, which stays out of `sys.modules`.

    Raises:
        Whatever the text raises.
    """
    spec = importlib.util.spec_from_loader(name, _Text(text, path))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their own module up while it runs
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[name]
    return module


def known_mistake(task: kit.Task, check: Callable, failure: Failure, seed: int) -> str:
    """What the known wrong answers whose first failure is just this one say; "" if none is."""
    home, _ = kit.task(task.id)
    said = []
    for known in WRONG.get(task.id, {}).values():
        if known.rejected_by != check.__name__:
            continue
        with_it = Answers(home.source, home.path, {task.name: known.answer})
        try:
            with contained(task, home.path):
                answer = getattr(load(task, with_it), task.name)
            run_check(task, check, answer, home.path, seed)
        except Failure as other:
            if other.seen == failure.seen and _same(other.output, failure.output):
                said.append(known.says)
        except NotAttempted:
            pass
    return " Or: ".join(said[:2])


def _same(a: Any, b: Any) -> bool:
    """Whether two outputs are equal to rounding."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-6, equal_nan=True)
    return a == b


def message(task: kit.Task, check: Callable | None, failure: Failure, known: str) -> str:
    """The report of a failure, five labelled lines, wrapped."""
    likely = failure.cause or (" ".join(check.__doc__.split()) if check else "")
    title = failure.title or "expected that"
    if title.endswith("that"):
        title += f" {check.__name__.replace('_', ' ')}" if check else " the file runs"
    parts = {"seen": failure.seen + failure.where, "expected": failure.expected}
    certain = failure.output is not None  # else only the symptom is the same, not the output
    parts[("mistake" if certain else "perhaps") if known else "likely"] = known or likely
    parts["read"] = f"{task.read}; or ask: python -m exercises hint {task.id}"
    lines = [f"Exercise {task}: {title}"]
    for label, text in parts.items():
        lines.append(
            textwrap.fill(text, 98, initial_indent=f"  {label:<10}", subsequent_indent=12 * " ")
        )
    return "\n".join(lines)


def grade_all(tasks: Sequence[kit.Task], answers: Answers) -> Iterator[Grade]:
    """Grade tasks of one file; if it cannot be loaded, only the first of them says so."""
    for number, task in enumerate(tasks):
        result = grade(task, answers)
        yield result
        if result.whole_file:
            reason = f"not graded until {answers.path.name} can be loaded"
            for other in tasks[number + 1 :]:
                yield Grade(other, "not attempted", message=f"{other}: {reason}", whole_file=True)
            return


def read(exercise: kit.Exercise) -> Answers:
    """The learner's file.

    Raises:
        FileBroken: if it is missing or not UTF-8.
    """
    try:
        return Answers(exercise.path.read_text(encoding="utf-8"), exercise.path)
    except OSError as error:
        remedy = f"python -m exercises reset {exercise.number} writes it anew"
        raise FileBroken(f"cannot read {exercise.path.name} ({error.strerror}): {remedy}") from None
    except UnicodeDecodeError:
        raise FileBroken(f"{exercise.path.name} is not UTF-8: save it as UTF-8") from None


def settle(result: Grade) -> None:
    """Turn a grade into pytest's outcome: a skip, a failure without a stack, or nothing."""
    if result.state == "not attempted":
        pytest.skip(result.message)
    if result.state == "failing":
        kind = FileBroken if result.whole_file else pytest.fail.Exception
        raise kind(result.message, pytrace=False)
