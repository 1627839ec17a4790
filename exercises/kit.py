"""The exercises as data: what a solution file says of its tasks, and the skeleton made from it.

A file in exercises/solutions/ is the single source of an exercise: plain Python that runs, with
comments that this module reads:

    # --- 1.4 add_noise (easy, 5 minutes) ----    begins a task; the name is what the learner writes
    # hint: ...                                   three of them, each a step further
    # why: ...                                    shown with the solution
    # read: notes/01 section 6.4                  where the theory is
        # answer  ...  # end                      around each part that the learner is to write

The skeleton beside it is the same text without hints, reasons and answers, so that signatures and
docstrings cannot drift apart.
"""

import ast
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOLUTIONS = HERE / "solutions"
BANNER = re.compile(r"# --- (\d+\.\d+) (\w+) \((easy|medium|hard), (\d+) minutes\) -+$")
NOTE = re.compile(r"# (hint|why|read): (.*)$")
REMOVED = re.compile(r"# (hint|why|source): ")
BEGIN, END = "# answer", "# end"


@dataclass(frozen=True)
class Task:
    """One function or class that a learner writes.

    Attributes:
        id: Such as "1.4": exercise and place in it.
        name: Of the function or class.
        hints: Three: the question to ask oneself, where to look, nearly the line.
        why: Why the solution is as it is, shown after it.
        read: Where the theory is, such as "notes/01 section 6.4".
        solution: The task's text in the solution file, without the comments that steer the kit.
    """

    id: str
    name: str
    difficulty: str
    minutes: int
    hints: tuple[str, ...]
    why: str
    read: str
    solution: str

    def __str__(self) -> str:
        return f"{self.id} {self.name}"


@dataclass(frozen=True)
class Exercise:
    """One file of tasks.

    Attributes:
        number: As in the file's name.
        path: The file that the learner edits.
        source: The text of the solution.
        skeleton: The text that the file has before anybody solves it.
    """

    number: int
    path: Path
    source: str
    skeleton: str
    tasks: tuple[Task, ...]

    @property
    def stem(self) -> str:
        """The name of its files, such as "01_autoencoder_exercise"."""
        return self.path.stem

    @property
    def title(self) -> str:
        """The first clause of the file's docstring, such as "Exercise 1, autoencoders"."""
        return ast.get_docstring(ast.parse(self.source)).partition(":")[0]


def make_skeleton(source: str) -> str:
    """The learner's file from a solution's text: every answer replaced by its NotImplementedError.

    Raises:
        ValueError: if an answer does not end, or stands outside a task or a function.
    """
    functions = _functions(source)
    lines, task, inside = [], None, False
    for number, line in enumerate(source.split("\n"), 1):
        word = line.strip()
        if banner := BANNER.match(line):
            task = banner[1]
        if word == BEGIN:
            name = next((n for n, first, last in functions if first <= number <= last), None)
            if inside or task is None or name is None:
                raise ValueError(f"line {number}: expected `{BEGIN}` once, in a task's function")
            inside = True
            error = f'raise NotImplementedError("Exercise {task}: {name}")'
            lines.append(line.replace(BEGIN, error))
        elif word == END:
            if not inside:
                raise ValueError(f"line {number}: `{END}` without `{BEGIN}`")
            inside = False
        elif not inside and not REMOVED.match(line) and not _continues(lines, line):
            lines.append(line)
    if inside:
        raise ValueError(f"expected `{END}` after the last `{BEGIN}`")
    return "\n".join(lines)


def split_tasks(text: str) -> dict[str, tuple[int, int]]:
    """Where each task stands in a skeleton, an answer or a solution: id -> (first, last line).

    Lines are counted from 0, the last is excluded. A task reaches from its banner to the next one.
    """
    lines = text.split("\n")
    starts = [(i, m[1]) for i, line in enumerate(lines) if (m := BANNER.match(line))]
    ends = [i for i, _ in starts[1:]] + [len(lines)]
    return {task: (start, end) for (start, task), end in zip(starts, ends, strict=False)}


def section(text: str, id: str) -> str:
    """A task's part of a skeleton, an answer or a solution; "" if its banner is not there."""
    first, last = split_tasks(text).get(id, (0, 0))
    return "\n".join(text.split("\n")[first:last])


@cache
def exercises() -> tuple[Exercise, ...]:
    """All exercises, in order."""
    return tuple(_read(path) for path in sorted(SOLUTIONS.glob("0*.py")))


def exercise(number: int) -> Exercise:
    """The exercise of that number.

    Raises:
        LookupError: if there is none, naming those that exist.
    """
    for found in exercises():
        if found.number == number:
            return found
    known = ", ".join(str(e.number) for e in exercises())
    raise LookupError(f"there is no exercise {number}: expected one of {known}")


def task(id: str) -> tuple[Exercise, Task]:
    """The task of that id, such as "1.4", and its exercise.

    Raises:
        LookupError: if there is none, naming those that exist.
    """
    number = id.partition(".")[0]
    if not re.fullmatch(r"\d+\.\d+", id):
        raise LookupError(f"expected a task such as 1.4, got {id!r}")
    home = exercise(int(number))
    for found in home.tasks:
        if found.id == id:
            return home, found
    raise LookupError(f"there is no task {id}: expected {home.tasks[0].id} to {home.tasks[-1].id}")


def _read(path: Path) -> Exercise:
    """Read a solution file."""
    source = path.read_text(encoding="utf-8")
    lines, tasks = source.split("\n"), []
    for first, last in split_tasks(source).values():
        id, name, difficulty, minutes = BANNER.match(lines[first]).groups()
        notes: dict[str, list[str]] = {"hint": [], "why": [], "read": []}
        row = first + 1
        while row < last and lines[row].startswith("# "):
            if note := NOTE.match(lines[row]):
                kind = note[1]
                notes[kind].append(note[2])
            else:
                notes[kind][-1] += lines[row][1:].replace("   ", " ", 1)
            row += 1
        code = [line for line in lines[row:last] if line.strip() not in (BEGIN, END)]
        tasks.append(
            Task(
                id=id,
                name=name,
                difficulty=difficulty,
                minutes=int(minutes),
                hints=tuple(notes["hint"]),
                why=" ".join(notes["why"]),
                read=" ".join(notes["read"]),
                solution="\n".join(code).strip("\n"),
            )
        )
    number = int(path.stem.partition("_")[0])
    return Exercise(number, HERE / path.name, source, make_skeleton(source), tuple(tasks))


def _functions(source: str) -> list[tuple[str, int, int]]:
    """Name (with its class), first and last line of each function, the innermost first."""
    found = []

    def walk(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.ClassDef):
                walk(child, f"{prefix}{child.name}.")
                if isinstance(child, ast.FunctionDef):
                    found.append((prefix + child.name, child.lineno, child.end_lineno))

    walk(ast.parse(source), "")
    return found


def _continues(lines: list[str], line: str) -> bool:
    """Whether a line goes on with a hint or a reason, which were just left out."""
    return line.startswith("#   ") and bool(lines) and BANNER.match(lines[-1]) is not None
