"""python -m exercises: what is solved, what is next, and what is wrong with an answer.

Without a word it shows your progress. With one:

    check [3 | 3.2]     grade everything, an exercise or a task
    hint 3.2            one hint more at each call: the question, where to look, nearly the line
    solution 3.2        the solution, and why it is so; asks first while the task is unsolved
    reset 3 | 3.2       back to the unsolved state; the old file is kept in exercises/backups/
    watch [3 | 3.2]     check again at every save, until Ctrl-C
    build [--check]     for authors: make the skeletons from exercises/solutions/
"""

import argparse
import contextlib
import io
import json
import os
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

from . import kit

PROGRESS = kit.HERE / ".progress.json"  # hints and solutions that were shown
BACKUPS = kit.HERE / "backups"
MARKS = {"passing": "■", "failing": "✗", "not attempted": "□"}
COLORS = {"passing": "32", "failing": "31", "not attempted": "2"}


class WrongWord(Exception):
    """One line for a person who typed something that does not exist."""


# --- Commands


def progress() -> int:
    """Print a line for each exercise, what fails, and what is next."""
    following = None
    for exercise in kit.exercises():
        with contextlib.redirect_stdout(io.StringIO()):  # whatever the answers print
            grades = grade_all(exercise, exercise.tasks)
        marks = "".join(mark(g.state) for g in grades)
        open_ = [g.task for g in grades if g.state != "passing"]
        left = f"about {sum(t.minutes for t in open_)} minutes to go" if open_ else "all solved"
        print(f"{exercise.title:<32} {marks}  {len(grades) - len(open_)} of {len(grades)}, {left}")
        for failing in (g for g in grades if g.state == "failing"):
            print(f"  failing: {failing.task}   python -m exercises check {failing.task.id}")
        if open_ and following is None:
            following = exercise, open_[0]
    if following is None:
        print(
            "You have solved every exercise. `python -m exercises solution 1.1` tells why it works."
        )
        return 0
    exercise, task = following
    marks = f'"Exercise {task.id}: ', f"def {task.name}(", f"class {task.name}("
    lines = exercise.path.read_text(encoding="utf-8").split("\n")
    rows = [i for mark in marks for i, line in enumerate(lines, 1) if mark in line]
    print(f"\nNext: {task} ({task.difficulty}, {task.minutes} minutes)")
    print(f"  write    {relative(exercise.path)}, line {rows[0] if rows else 1}")
    print(f"  read     {task.read}")
    print(f"  check    python -m exercises check {task.id}")
    print(f"  stuck?   python -m exercises hint {task.id}")
    return 0


def check(word: str | None) -> int:
    """Grade what the word names and print what is wrong; 1 if something is."""
    failed = False
    for exercise, tasks in chosen(word):
        for grade in grade_all(exercise, tasks):
            failed |= grade.state == "failing"
            report(grade)
    return int(failed)


def hint(id: str) -> int:
    """Print the hints seen so far and one more."""
    _, task = find(id)
    seen = remembered()
    shown = seen[task.id] = min(seen.get(task.id, 0) + 1, len(task.hints))
    with contextlib.suppress(OSError):  # a hint can be read all the same
        remember(seen)
    print(f"{task}: hint {shown} of {len(task.hints)}")
    for number, text in enumerate(task.hints[:shown], 1):
        print(filled(text, f"  {number}. "))
    if shown < len(task.hints):
        print(f"For the next one: python -m exercises hint {task.id}")
    else:
        print(f"That was the last. Read {task.read}, or: python -m exercises solution {task.id}")
    return 0


def solution(id: str) -> int:
    """Print the solution and its reason; while the task is unsolved, ask once."""
    exercise, task = find(id)
    seen, asked = remembered(), f"{task.id} solution"
    with contextlib.redirect_stdout(io.StringIO()):
        (grade,) = grade_all(exercise, [task])
    if grade.state != "passing" and not seen.get(asked):
        try:
            answer = input(f"{task} is {grade.state}. Show the solution all the same? [y/N] ")
        except (EOFError, RuntimeError):  # nobody is there to answer
            answer = ""
        if answer.strip().lower() not in ("y", "yes"):
            print(f"\nGood. A hint instead: python -m exercises hint {task.id}")
            return 0
        remember({**seen, asked: 1})
    print(f"\n{task.solution}\n")
    print(filled(task.why, "Why: "))
    print(f"More in {task.read}.")
    return 0


def reset(word: str) -> int:
    """Put the skeleton's text back for a task or a whole exercise, and keep the old file."""
    ((exercise, tasks),) = chosen(word)
    new = exercise.skeleton
    if "." in word:
        new = replaced(exercise.path.read_text(encoding="utf-8"), tasks[0], exercise)
    if exercise.path.exists() and exercise.path.read_bytes() == new.encode():
        print(f"{word} is unsolved already: nothing to reset")
        return 0
    kept = backup(exercise)
    write(exercise.path, new)
    seen = remembered()
    for task in tasks:
        seen.pop(task.id, None)
        seen.pop(f"{task.id} solution", None)
    remember(seen)
    print(f"reset {word}{f'; your file as it was: {relative(kept)}' if kept else ''}")
    return 0


def watch(word: str | None, *, pause: float = 0.5, rounds: int | None = None) -> int:
    """Check again whenever a file is saved, until Ctrl-C or for so many looks."""
    stamps: dict[Path, int] = {}
    looks = 0
    print("Watching; save a file to have it checked. Ctrl-C ends this.")
    while rounds is None or looks < rounds:
        for exercise, tasks in chosen(word):
            stamp = exercise.path.stat().st_mtime_ns if exercise.path.exists() else 0
            if stamps.get(exercise.path) == stamp:
                continue
            stamps[exercise.path] = stamp
            print(f"\n{datetime.now():%H:%M:%S}  {exercise.title}")
            try:
                grades = grade_all(exercise, tasks)
            except WrongWord as error:  # an editor may be in the midst of saving
                print(error)
                continue
            for grade in grades:
                if grade.state == "failing":
                    report(grade)
            print("".join(mark(g.state) for g in grades))
            open_ = [g.task for g in grades if g.state == "not attempted"]
            if open_:
                print(f"next: {open_[0]} ({open_[0].difficulty}, {open_[0].minutes} minutes)")
        looks += 1
        time.sleep(pause)
    return 0


def build(*, only_check: bool) -> int:
    """Write the skeletons of all solutions, or say which are not up to date; 1 if one is not."""
    stale = [
        e
        for e in kit.exercises()
        if not e.path.exists() or e.path.read_bytes() != e.skeleton.encode()
    ]
    for exercise in stale:
        if only_check:
            print(f"{relative(exercise.path)} is stale: python -m exercises build makes it anew")
            continue
        kept = backup(exercise)
        write(exercise.path, exercise.skeleton)
        print(f"wrote {relative(exercise.path)}{f', kept {relative(kept)}' if kept else ''}")
    if not stale:
        print("every skeleton is what its solution gives")
    return int(only_check and bool(stale))


# --- What they share


def grade_all(exercise: kit.Exercise, tasks: list[kit.Task] | tuple[kit.Task, ...]) -> list:
    """Grade these tasks of the learner's file, each alone."""
    from . import grading  # takes a second, and hints do not need it

    try:
        answers = grading.read(exercise)
    except grading.FileBroken as error:
        raise WrongWord(str(error)) from None
    return list(grading.grade_all(tasks, answers))


def report(grade) -> None:
    """Print one grade: a line, or for a failure the whole message."""
    if grade.state == "failing":
        print(color(grade.message, "failing"))
    elif grade.state == "passing":
        remark = f"right. Why it is so: python -m exercises solution {grade.task.id}"
        print(f"{mark(grade.state)} {grade.task}: {remark}")
    else:
        print(f"{mark(grade.state)} {grade.message}")


def chosen(word: str | None) -> Iterator[tuple[kit.Exercise, tuple[kit.Task, ...]]]:
    """The exercises and tasks that "3", "3.2" or nothing names.

    Raises:
        WrongWord: if there are none.
    """
    if word is None:
        yield from ((e, e.tasks) for e in kit.exercises())
    elif "." in word:
        exercise, task = find(word)
        yield exercise, (task,)
    else:
        if not word.isdecimal():
            raise WrongWord(f"expected an exercise such as 1 or a task such as 1.4, got {word!r}")
        try:
            exercise = kit.exercise(int(word))
        except LookupError as error:
            raise WrongWord(str(error)) from None
        yield exercise, exercise.tasks


def find(id: str) -> tuple[kit.Exercise, kit.Task]:
    """The task of that id.

    Raises:
        WrongWord: if there is none.
    """
    try:
        return kit.task(id)
    except LookupError as error:
        raise WrongWord(str(error)) from None


def replaced(old: str, task: kit.Task, exercise: kit.Exercise) -> str:
    """The learner's text with one task's part as in the skeleton.

    Raises:
        WrongWord: if the line that begins the task is not there any more.
    """
    if task.id not in kit.split_tasks(old):
        raise WrongWord(
            f"the line `# --- {task.id} ...` is gone from {relative(exercise.path)}: "
            f"python -m exercises reset {exercise.number} resets the whole file"
        )
    first, last = kit.split_tasks(old)[task.id]
    lines, fresh = old.split("\n"), exercise.skeleton.split("\n")
    begin, end = kit.split_tasks(exercise.skeleton)[task.id]
    return "\n".join([*lines[:first], *fresh[begin:end], *lines[last:]])


def backup(exercise: kit.Exercise) -> Path | None:
    """Copy the learner's file away, if there is one; the copy's name says when."""
    if not exercise.path.exists():
        return None
    name = f"{exercise.stem}_{datetime.now():%Y-%m-%d_%H-%M-%S-%f}.py"
    write(BACKUPS / name, exercise.path.read_bytes())
    return BACKUPS / name


def write(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all (without utils, so that a hint need not wait for torch)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".new")
    draft.write_bytes(content if isinstance(content, bytes) else content.encode())
    os.replace(draft, path)


def remembered() -> dict[str, int]:
    """Which hints and solutions were shown; nothing if the file is not there or damaged."""
    try:
        seen = json.loads(PROGRESS.read_text())
    except (OSError, ValueError):
        return {}
    return seen if isinstance(seen, dict) else {}


def remember(seen: dict[str, int]) -> None:
    """Keep which hints and solutions were shown."""
    write(PROGRESS, json.dumps(seen, indent=1))


def relative(path: Path) -> str:
    """A path as seen from the repository's root."""
    return path.relative_to(kit.HERE.parent).as_posix()


def filled(text: str, label: str) -> str:
    """A text in lines of 98 letters, hanging from its label."""
    return textwrap.fill(text, 98, initial_indent=label, subsequent_indent=" " * len(label))


def mark(state: str) -> str:
    """One coloured letter for a state; a plain one where the terminal's encoding has no squares."""
    try:
        MARKS[state].encode(sys.stdout.encoding or "ascii")
        return color(MARKS[state], state)
    except UnicodeEncodeError:
        return color({"passing": "#", "failing": "x", "not attempted": "-"}[state], state)


def color(text: str, state: str) -> str:
    """The text in the state's colour on a terminal, plain elsewhere."""
    if not sys.stdout.isatty() or "NO_COLOR" in os.environ:
        return text
    return f"\033[{COLORS[state]}m{text}\033[0m"


def main(words: list[str] | None = None) -> int:
    """Run one command; return the exit code: 0, 1 if an answer fails, 2 for a wrong word."""
    parser = argparse.ArgumentParser(
        "python -m exercises",
        description=(__doc__ or "").partition("\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s [check | hint | solution | reset | watch | build] [3 | 3.2]",
    )
    parser.add_argument(
        "command",
        nargs="?",
        choices=("check", "hint", "solution", "reset", "watch", "build"),
        help=argparse.SUPPRESS,
    )
    parser.add_argument("what", nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("--check", action="store_true", help=argparse.SUPPRESS)
    flags = parser.parse_args(words)
    if flags.command in ("hint", "solution", "reset") and flags.what is None:
        parser.error(f"{flags.command}: expected a task, such as {flags.command} 1.1")
    if flags.check and flags.command != "build":
        parser.error("--check goes with build")
    commands: dict[str | None, Callable[[], int]] = {
        None: progress,
        "check": lambda: check(flags.what),
        "hint": lambda: hint(flags.what),
        "solution": lambda: solution(flags.what),
        "reset": lambda: reset(flags.what),
        "watch": lambda: watch(flags.what),
        "build": lambda: build(only_check=flags.check),
    }
    try:
        return commands[flags.command]()
    except WrongWord as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        remedy = "in the repository, `make test` sets up .venv; then: source .venv/bin/activate"
        print(f"error: this Python has no {error.name}: {remedy}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(f"error: cannot write {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped")
        return 130


if __name__ == "__main__":
    sys.exit(main())
