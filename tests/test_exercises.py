"""The exercises themselves: skeletons are unsolved, solutions pass, graders know right from wrong.

Everything here grades generated text and banks of answers. What a learner has written in
exercises/ does not matter here; tests/exercises/ grades that.
"""

import dataclasses
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from exercises import __main__ as commands
from exercises import checks, contain, grading, kit

ROOT = Path(__file__).resolve().parents[1]
TASKS = [task for exercise in kit.exercises() for task in exercise.tasks]
BANKS = {e.stem: grading.load_graders(e.stem) for e in kit.exercises()}
WRONG = [(t, name) for t in TASKS for name in checks.WRONG[t.id]]
RIGHT = [(t, name) for t in TASKS for name in checks.RIGHT[t.id]]
SEEDS = 60


def home(task):
    return kit.task(task.id)[0]


def grade(task, text=None, *, answer=None, seed=0):
    """Grade a text (the solution's if none), or an answer of a bank in the solution's place."""
    exercise = home(task)
    replaced = {} if answer is None else {task.name: answer}
    text = exercise.source if text is None else text
    return grading.grade(task, grading.Answers(text, exercise.path, replaced), seed=seed)


def task_named(id):
    return kit.task(id)[1]


def written(id, body):
    """The solution's text with this body in place of the task's answer."""
    exercise, task = kit.task(id)
    lines = exercise.source.splitlines()
    first, last = kit.split_tasks(exercise.source)[task.id]
    begin = next(i for i in range(first, last) if lines[i].strip() == kit.BEGIN)
    end = next(i for i in range(begin, last) if lines[i].strip() == kit.END)
    indent = lines[begin][: lines[begin].index("#")]
    return "\n".join([*lines[:begin], *(indent + line for line in body.splitlines()), *lines[end:]])


# --- Skeletons and solutions


@pytest.mark.parametrize("exercise", kit.exercises(), ids=lambda e: e.stem)
def test_the_skeleton_beside_the_solution_is_up_to_date(exercise):
    """A learner's work is no fault of the repository, so only CI insists."""
    same = exercise.path.read_text() == exercise.skeleton
    if not same and not os.environ.get("CI"):
        pytest.skip(f"{exercise.path.name} has been worked on (or: python -m exercises build)")
    assert same, "run python -m exercises build"


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_the_skeleton_is_unsolved(task):
    result = grade(task, home(task).skeleton)
    assert result.state == "not attempted"
    assert result.message.startswith(str(task))
    assert "delete that line" not in result.message


@pytest.mark.parametrize("exercise", kit.exercises(), ids=lambda e: e.stem)
def test_every_unfilled_function_raises_its_own_error(exercise):
    module = grading.run_text(exercise.skeleton, exercise.path, "skeleton")
    raised = []
    for task in exercise.tasks:
        thing = getattr(module, task.name)
        functions = {task.name: thing}
        if isinstance(thing, type):
            functions = {f"{task.name}.{n}": f for n, f in vars(thing).items() if callable(f)}
        for name, function in functions.items():
            arguments = [thing.__new__(thing)] if isinstance(thing, type) else []
            count = function.__code__.co_argcount - len(arguments)
            with pytest.raises(NotImplementedError) as caught:
                function(*arguments, *[None] * count)
            assert str(caught.value) == f"Exercise {task.id}: {name}"
            raised.append(name)
    assert len(raised) == exercise.skeleton.count('raise NotImplementedError("')
    assert exercise.source.count(kit.BEGIN + "\n") == len(raised)


@pytest.mark.parametrize("exercise", kit.exercises(), ids=lambda e: e.stem)
def test_signatures_and_docstrings_are_the_solutions(exercise):
    """Nothing else goes from the source but answers, hints, reasons and the note to authors."""
    kept = iter(exercise.skeleton.splitlines())
    gone, answer = [], False
    line = next(kept)
    for text in exercise.source.splitlines():
        answer |= text.strip() == kit.BEGIN
        if text == line or (answer and line and "NotImplementedError" in line):
            line = next(kept, None)
        else:
            gone.append((answer, text))
        answer &= text.strip() != kit.END
    assert line is None
    assert all(a or t.startswith(("# hint:", "# why:", "#   ", "# source:")) for a, t in gone)
    assert "# hint" not in exercise.skeleton
    assert "answer" not in [
        w for l in exercise.skeleton.splitlines() for w in l.strip("# ").split()[:1]
    ]


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_the_solution_passes_with_every_seed_and_quickly(task):
    grade(task)  # PyTorch loads parts of itself on first use
    start = time.perf_counter()
    assert grade(task).state == "passing"
    assert time.perf_counter() - start < 2
    states = {grade(task, seed=seed).state for seed in range(1, SEEDS)}
    assert states == {"passing"}


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_every_task_has_what_a_learner_needs(task):
    assert len(task.hints) == len(set(task.hints)) == 3
    assert "?" in task.hints[0], "the first hint is a question"
    assert task.minutes in range(2, 31)
    assert task.why
    assert task.read.startswith("notes/")
    assert len(checks.WRONG[task.id]) >= 4
    assert len(checks.RIGHT[task.id]) >= 2
    assert all(known.says for known in checks.WRONG[task.id].values())
    for function in checks.CHECKS[task.id].values():
        assert function.__doc__, f"{function.__name__} must say what probably went wrong"


def test_the_minutes_are_those_that_the_file_promises():
    for exercise in kit.exercises():
        assert f"about {sum(t.minutes for t in exercise.tasks)} minutes" in exercise.skeleton


# --- Graders


@pytest.mark.parametrize(("task", "name"), WRONG, ids=lambda x: str(x).split()[0])
def test_a_wrong_answer_is_rejected_by_its_check_and_named(task, name):
    known = checks.WRONG[task.id][name]
    assert known.rejected_by in checks.CHECKS[task.id]
    for seed in range(5):
        result = grade(task, answer=known.answer, seed=seed)
        assert result.state == "failing"
        assert result.check == known.rejected_by
        assert known.says in " ".join(result.message.split()), result.message


@pytest.mark.parametrize(("task", "name"), RIGHT, ids=lambda x: str(x).split()[0])
def test_a_right_answer_written_differently_passes_with_every_seed(task, name):
    answer = checks.RIGHT[task.id][name]
    for seed in range(SEEDS):
        result = grade(task, answer=answer, seed=seed)
        assert result.state == "passing", result.message


def test_every_check_rejects_something():
    """A check that rejects no known wrong answer has not been seen to work."""
    for task in TASKS:
        rejecting = {known.rejected_by for known in checks.WRONG[task.id].values()}
        idle = [name for name in checks.CHECKS[task.id] if name not in rejecting]
        for name in idle:  # it may be shadowed by an earlier check of the same mistake
            assert rejects_alone(task, name), f"{task}: {name} rejects no known wrong answer"


def rejects_alone(task, name):
    for known in checks.WRONG[task.id].values():
        answers = grading.Answers(home(task).source, home(task).path, {task.name: known.answer})
        answer = getattr(grading.load(task, answers), task.name)
        try:
            grading.run_check(task, checks.CHECKS[task.id][name], answer, home(task).path, 0)
        except checks.Failure:
            return True
    return False


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_a_task_is_graded_alone(task):
    """All others unsolved or broken: this one passes. This one broken: all others pass."""
    exercise = home(task)
    lines = exercise.skeleton.splitlines()
    first, last = kit.split_tasks(exercise.skeleton)[task.id]
    only = [*lines[:first], kit.section(exercise.source, task.id), *lines[last:]]
    assert grade(task, "\n".join(only)).state == "passing"
    broken = written(task.id, "raise RuntimeError('a bug')")
    states = {other.id: grade(other, broken).state for other in exercise.tasks}
    assert [id for id, state in states.items() if state != "passing"] == [task.id]
    assert states[task.id] == "failing"


# --- Answers that would pass without being right

CHEATS = {
    "pytest.skip": "import pytest; pytest.skip('done')",
    "pytest.exit": "import pytest; pytest.exit('done', returncode=3)",
    "pytest.xfail": "import pytest; pytest.xfail('done')",
    "unittest.SkipTest": "import unittest; raise unittest.SkipTest('done')",
    "sys.exit": "import sys; sys.exit(0)",
    "quit": "quit()",
    "os._exit": "import os; os._exit(0)",
    "os.abort": "import os; os.abort()",
    "os.kill": "import os; os.kill(os.getpid(), 9)",
    "posix._exit": "import sys; (sys.modules.get('posix') or sys.modules['nt'])._exit(0)",
    "raise_signal": "import signal; signal.raise_signal(9)",
    "generator": "raise GeneratorExit",
    "base exception": "raise BaseException('done')",
}


@pytest.mark.parametrize("name", CHEATS)
@pytest.mark.parametrize("place", ["in the answer", "in the file"])
def test_an_answer_cannot_end_or_skip_its_test(name, place):
    text = written("1.4", CHEATS[name])
    if place == "in the file":
        text = home(task_named("1.4")).source + f"\n\n{CHEATS[name]}\n"
    before = os._exit, os.kill
    result = grade(task_named("1.4"), text)
    assert result.state == "failing"
    assert (os._exit, os.kill) == before


@pytest.mark.parametrize(
    "target",
    [
        "torch.equal",
        "torch.testing.assert_close",
        "torch.Tensor.__eq__",
        "torch.Tensor.all",  # inherited, so this adds a name
        "torch.nn.Module.train",
        "torch.optim.SGD.step",
        "builtins.abs",
        "math.sqrt",
        "pytest.fail",
        "exercises.checks.expect",
    ],
)
def test_an_answer_cannot_replace_what_graders_rely_on(target):
    owner, _, name = target.rpartition(".")
    module = owner.removesuffix(".Tensor").removesuffix(".Module").removesuffix(".SGD")
    cheat = f"import {module}\n{target} = lambda *a, **k: True\nreturn x"
    result = grade(task_named("1.4"), written("1.4", cheat))
    assert result.state == "failing"
    assert "replaces" in result.message
    assert name in result.message
    assert grade(task_named("1.4")).state == "passing", "everything is back in place"
    assert torch.equal(torch.ones(2), torch.ones(2))
    assert not torch.equal(torch.ones(2), torch.zeros(2))


def test_an_answer_cannot_empty_the_checks():
    text = written("1.4", "from exercises import checks\nchecks.CHECKS['1.4'].clear()\nreturn x")
    kept = dict(checks.CHECKS["1.4"])
    try:
        assert grade(task_named("1.4"), text).state == "failing"
    finally:
        checks.CHECKS["1.4"].update(kept)


@pytest.mark.parametrize(
    "result",
    [
        "x * float('nan')",
        "None",
        "x.tolist()",
        "(x, x)",
        "True",
        "AlwaysEqual()",
        "x.as_subclass(Sly)",
    ],
)
def test_strange_results_do_not_pass(result):
    sly = "class AlwaysEqual:\n    __eq__ = __lt__ = __le__ = lambda *a: True\n"
    sly += "class Sly(torch.Tensor):\n    def __getattribute__(self, name):\n"
    sly += "        return (lambda *a, **k: True) if name in ('all', 'item') else object\n"
    for id in ("1.3", "1.4", "1.8"):
        text = written(id, result.join(["x = locals().get('x')\nreturn ", ""])) + "\n\n" + sly
        outcome = grade(task_named(id), text)
        assert outcome.state == "failing"
        assert "Traceback" not in outcome.message


def test_a_forgotten_return_is_named():
    result = grade(task_named("1.4"), written("1.4", "x + sigma * torch.randn_like(x)"))
    assert "The function ends without a `return`." in result.message


def test_an_endless_loop_is_stopped(monkeypatch):
    monkeypatch.setattr(contain, "SECONDS", 0.3)
    before = signal.getsignal(signal.SIGALRM)
    stubborn = "try:\n    while True:\n        x = x + 1\nexcept Exception:\n    return x"
    result = grade(task_named("1.4"), written("1.4", stubborn))
    assert result.state == "failing"
    assert "no result after 0.3 seconds" in result.message
    assert grade(task_named("1.4")).state == "passing"
    assert signal.getsignal(signal.SIGALRM) is before


def test_modes_that_an_answer_leaves_switched_are_restored():
    text = "torch.set_grad_enabled(False)\ntorch.set_default_dtype(torch.float64)\nreturn x"
    grade(task_named("1.4"), written("1.4", text))
    assert torch.is_grad_enabled()
    assert torch.get_default_dtype() is torch.float32
    before = torch.get_rng_state()
    grade(task_named("1.4"))
    assert torch.equal(torch.get_rng_state(), before)
    task, path, state = task_named("1.4"), home(task_named("1.4")).path, random.getstate()
    with contain.contained(task, path):
        torch.set_grad_enabled(False)
        torch.set_default_device("meta")
        random.seed(1)
    assert torch.is_grad_enabled()
    assert torch.get_default_device() == torch.device("cpu")
    assert random.getstate() == state
    with torch.no_grad(), contain.contained(task, path):
        assert torch.is_grad_enabled()


@pytest.mark.parametrize(
    "body",
    [
        "import copy\nreturn copy.copy(x) + sigma * torch.randn_like(x)",
        "import copy\nreturn copy.deepcopy(x) + sigma * torch.randn_like(x)",
        "import warnings\nwarnings.warn('old')\nreturn x + sigma * torch.randn_like(x)",
        "torch.Tensor.__repr__ = lambda t: 'a tensor'\nreturn x + sigma * torch.randn_like(x)",
        "torch.Tensor.size_ = property(len)\nreturn x + sigma * torch.randn_like(x)",
    ],
)
def test_harmless_habits_pass(body):
    kept = torch.Tensor.__repr__
    try:
        result = grade(task_named("1.4"), written("1.4", body))
    finally:
        torch.Tensor.__repr__ = kept
        vars(torch.Tensor).get("size_") and delattr(torch.Tensor, "size_")
    assert result.state == "passing", result.message


def test_the_same_seed_gives_the_same_message():
    answer = checks.WRONG["1.4"]["uniform"].answer
    first, second, other = (grade(task_named("1.4"), answer=answer, seed=s) for s in (3, 3, 4))
    assert first.message == second.message
    assert first.message != other.message


def test_only_the_same_output_is_called_a_known_mistake():
    task = task_named("1.4")
    function = checks.CHECKS["1.4"]["the_noise_has_mean_0"]
    known = checks.WRONG["1.4"]["uniform"]
    answers = grading.Answers(home(task).source, home(task).path, {task.name: known.answer})
    with pytest.raises(checks.Failure) as caught:
        grading.run_check(task, function, known.answer, answers.path, 0)
    failure = caught.value
    assert known.says in grading.known_mistake(task, function, failure, 0)
    failure.output = failure.output + 0.01
    assert grading.known_mistake(task, function, failure, 0) == ""


# --- What a failure says


def test_a_failure_has_its_five_parts():
    x = "x += sigma * torch.randn_like(x)\nreturn x"
    lines = grade(task_named("1.4"), written("1.4", x)).message.splitlines()
    assert lines[0] == "Exercise 1.4 add_noise: expected that the input stays as it was"
    labels = [line.split()[0] for line in lines if line.startswith("  ") and line[2] != " "]
    assert labels == ["seen", "expected", "mistake", "read"]
    assert all(len(line) < 100 for line in lines)
    assert "notes/01 section 6.4" in lines[-1]


def test_a_mistake_that_nobody_knows_gets_the_likely_cause():
    result = grade(task_named("1.4"), written("1.4", "return 7 * x + sigma * torch.randn_like(x)"))
    assert result.check == "no_noise_changes_nothing"
    assert "  likely    " in result.message
    assert "  mistake   " not in result.message


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return x + sigma * torch.randn_lik(x)", "AttributeError: module 'torch'"),
        ("return x + sigma * noise", "neither defined nor imported"),
        ("return x @ x", "print them just before this line"),
    ],
)
def test_an_exception_is_reported_by_the_learners_own_line(body, said):
    result = grade(task_named("1.4"), written("1.4", body))
    message = " ".join(result.message.split())
    assert said in message
    assert f"of 01_autoencoder_exercise.py: {body}" in message
    assert "site-packages" not in message
    assert "Traceback" not in message


def test_pytorchs_own_not_implemented_error_is_a_failure():
    result = grade(task_named("1.2"), written("1.2", "self.net = nn.Module()"))
    assert result.state == "failing"
    text = written("1.4", "raise NotImplementedError('Exercise 1.3: reconstruction_loss')")
    assert grade(task_named("1.4"), text).state == "failing"


def test_a_file_that_python_cannot_read_says_where():
    result = grade(task_named("1.1"), written("1.4", "return x +"))
    assert result.state == "failing"
    assert "the file cannot be read" in result.message
    assert "of 01_autoencoder_exercise.py: return x +" in " ".join(result.message.split())
    assert grade(task_named("1.1"), "x = '\0'").state == "failing"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("add_noise(None, 1.0)", 'Put your own trials below `if __name__ == "__main__":`'),
        ("import time; time.sleep(60)", "still running after 0.3 seconds"),
        ("y = nothing", "neither defined nor imported"),
        ("return x +", "the file cannot be read"),
    ],
)
def test_a_file_that_cannot_be_loaded_is_one_failure(line, said, monkeypatch):
    monkeypatch.setattr(contain, "SECONDS", 0.3)
    exercise = kit.exercise(1)
    text = exercise.skeleton + f"\n\n{line}\n"
    grades = list(grading.grade_all(exercise.tasks, grading.Answers(text, exercise.path)))
    assert [g.state for g in grades] == ["failing"] + ["not attempted"] * 9
    assert said in " ".join(grades[0].message.split())
    assert "not graded until 01_autoencoder_exercise.py can be loaded" in grades[-1].message


def test_a_renamed_answer_is_missed():
    text = home(task_named("1.4")).source.replace("def add_noise", "def my_noise")
    result = grade(task_named("1.4"), text)
    assert result.state == "failing"
    assert "defines no `add_noise`" in result.message


def test_an_answer_that_still_raises_is_told_to_delete_the_line():
    text = written("1.4", 'y = x\nraise NotImplementedError("Exercise 1.4: add_noise")')
    result = grade(task_named("1.4"), text)
    assert result.state == "not attempted"
    assert "delete that line" in result.message


# --- The command line


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A learner's desk: fresh skeletons in a folder of their own; returns the first one's path."""
    (tmp_path / "exercises").mkdir()
    moved = []
    for exercise in kit.exercises():
        path = tmp_path / "exercises" / exercise.path.name
        path.write_text(exercise.skeleton)
        moved.append(dataclasses.replace(exercise, path=path))
    monkeypatch.setattr(kit, "exercises", lambda: tuple(moved))
    monkeypatch.setattr(kit, "HERE", tmp_path / "exercises")
    monkeypatch.setattr(commands, "PROGRESS", tmp_path / "exercises" / ".progress.json")
    monkeypatch.setattr(commands, "BACKUPS", tmp_path / "exercises" / "backups")
    return moved[0].path


def solve(path, id):
    """Write the solution of one task into the learner's file."""
    source, _, text = kit.task(id)[0].source, None, path.read_text()
    old, new = kit.section(text, id), kit.section(source, id)
    path.write_text(text.replace(old, new))


def test_progress_counts_what_is_solved_and_names_what_is_next(desk, capsys):
    assert commands.main([]) == 0
    out = capsys.readouterr().out
    assert "□□□□□□□□□□  0 of 10, about 75 minutes to go" in out
    assert "Next: 1.1 count_parameters (easy, 3 minutes)" in out
    row = int(out.split("exercises/01_autoencoder_exercise.py, line ")[1].split()[0])
    assert desk.read_text().splitlines()[row - 1].strip().startswith("raise NotImplementedError")
    solve(desk, "1.1")
    desk.write_text(
        desk.read_text().replace('raise NotImplementedError("Exercise 1.4: add_noise")', "return x")
    )
    commands.main([])
    out = capsys.readouterr().out
    assert "■□□✗□□□□□□  1 of 10, about 72 minutes to go" in out
    assert "failing: 1.4 add_noise   python -m exercises check 1.4" in out
    assert "Next: 1.2 Autoencoder" in out
    for task in kit.exercise(1).tasks:
        solve(desk, task.id)
    commands.main([])
    assert "10 of 10, all solved" in capsys.readouterr().out


def test_check_exits_with_1_if_an_answer_fails(desk, capsys):
    assert commands.main(["check", "1.4"]) == 0
    assert "not attempted" in capsys.readouterr().out
    desk.write_text(
        desk.read_text().replace('raise NotImplementedError("Exercise 1.4: add_noise")', "return x")
    )
    assert commands.main(["check", "1.4"]) == 1
    assert "Exercise 1.4 add_noise: expected that" in capsys.readouterr().out
    assert commands.main(["check", "1.3"]) == 0
    assert commands.main(["check", "1"]) == commands.main(["check"]) == 1
    solve(desk, "1.3")
    capsys.readouterr()
    assert commands.main(["check", "1.3"]) == 0
    assert "1.3 reconstruction_loss: right" in capsys.readouterr().out


def test_hints_come_one_at_a_time(desk, capsys):
    hints = task_named("1.4").hints
    for number in (1, 2, 3, 3):
        assert commands.main(["hint", "1.4"]) == 0
        out = " ".join(capsys.readouterr().out.split())
        assert [h in out for h in hints] == [i < number for i in range(3)]
    commands.PROGRESS.write_text("damaged")
    commands.main(["hint", "1.4"])
    assert "hint 1 of 3" in capsys.readouterr().out


def test_a_solution_is_asked_for_once(desk, capsys, monkeypatch):
    asked = []
    monkeypatch.setattr(commands, "input", lambda text: asked.append(text) or "n", raising=False)
    assert commands.main(["solution", "1.4"]) == 0
    assert "torch.randn_like(x)\n" not in capsys.readouterr().out
    monkeypatch.setattr(commands, "input", lambda text: asked.append(text) or "y")
    commands.main(["solution", "1.4"])
    out = capsys.readouterr().out
    assert "    return x + sigma * torch.randn_like(x)\n" in out
    assert "Why: randn_like has" in out
    assert "# hint" not in out
    commands.main(["solution", "1.4"])
    assert len(asked) == 2, "who has seen it is not asked again"
    solve(desk, "1.3")
    commands.main(["solution", "1.3"])
    assert len(asked) == 2, "who has solved it is not asked"
    assert "Why: Pixels are independent" in capsys.readouterr().out

    def nobody(_):
        raise EOFError

    monkeypatch.setattr(commands, "input", nobody)
    commands.main(["solution", "1.5"])
    assert "hint instead" in capsys.readouterr().out


def test_reset_puts_one_task_back_and_keeps_the_old_file(desk, capsys):
    solve(desk, "1.3")
    solve(desk, "1.4")
    old = desk.read_text()
    commands.main(["hint", "1.4"])
    assert commands.main(["reset", "1.4"]) == 0
    text = desk.read_text()
    skeleton = kit.exercise(1).skeleton
    assert kit.section(text, "1.4") == kit.section(skeleton, "1.4")
    assert kit.section(text, "1.3") == kit.section(old, "1.3")
    (kept,) = (desk.parent / "backups").iterdir()
    assert kept.read_text() == old
    desk.write_text("broken (")
    assert commands.main(["reset", "1.4"]) == 2
    assert "resets the whole file" in capsys.readouterr().err
    assert commands.main(["reset", "1"]) == 0
    assert desk.read_text() == skeleton
    assert commands.main(["reset", "1"]) == 0
    assert "nothing to reset" in capsys.readouterr().out
    assert len(list((desk.parent / "backups").iterdir())) == 2
    desk.unlink()
    assert commands.main(["check", "1"]) == 2
    assert "reset 1 writes it anew" in capsys.readouterr().err
    assert commands.main(["reset", "1"]) == 0
    assert desk.read_text() == skeleton


def test_watch_checks_at_every_save(desk, capsys, monkeypatch):
    def save(_):
        if "return x\n" not in desk.read_text():
            text = desk.read_text()
            error = 'raise NotImplementedError("Exercise 1.4: add_noise")'
            desk.write_text(text.replace(error, "return x"))
            os.utime(desk, ns=(1, 1))  # another time for certain

    monkeypatch.setattr(time, "sleep", save)
    commands.watch("1", rounds=3)
    out = capsys.readouterr().out
    assert out.count("Exercise 1, autoencoders") == 2, "checked at the start and at the one save"
    assert "□□□□□□□□□□" in out
    assert "Exercise 1.4 add_noise: expected that" in out
    assert "□□□✗□□□□□□" in out


def test_build_writes_what_is_stale_and_check_only_says_so(desk, capsys):
    assert commands.main(["build", "--check"]) == 0
    desk.write_text("old")
    assert commands.main(["build", "--check"]) == 1
    assert desk.read_text() == "old"
    assert commands.main(["build"]) == 0
    assert desk.read_text() == kit.exercise(1).skeleton
    (kept,) = (desk.parent / "backups").iterdir()
    assert kept.read_text() == "old"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["check", "77"], "there is no exercise 77: expected one of 1"),
        (["check", "1.77"], "there is no task 1.77: expected 1.1 to 1.10"),
        (["check", "one"], "expected an exercise such as 1 or a task such as 1.4, got 'one'"),
        (["hint", "1"], "expected a task such as 1.4, got '1'"),
        (["solution", "1.x"], "expected a task such as 1.4, got '1.x'"),
        (["reset", "77"], "there is no exercise 77"),
    ],
)
def test_wrong_words_get_one_line(words, said, capsys):
    assert commands.main(words) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1


@pytest.mark.parametrize("words", [["hint"], ["chek"], ["check", "--check"], ["reset"]])
def test_unknown_commands_are_explained(words, capsys):
    with pytest.raises(SystemExit) as ended:
        commands.main(words)
    assert ended.value.code == 2
    assert "usage: python -m exercises" in capsys.readouterr().err


def test_a_solution_with_a_torn_region_is_refused():
    source = kit.exercise(1).source
    with pytest.raises(ValueError, match="expected `# end`"):
        kit.make_skeleton(source[: source.rindex(kit.END)])
    with pytest.raises(ValueError, match="without"):
        kit.make_skeleton(source.replace(kit.BEGIN + "\n", "\n", 1))
    with pytest.raises(ValueError, match="expected `# answer` once"):
        kit.make_skeleton("# answer\nx = 1\n# end\n")


# --- As a learner runs it


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A repository in which one task is solved, one half, one wrongly, with one test of its own."""
    folder = tmp_path_factory.mktemp("clone")
    for part in ("exercises", "tests/exercises"):
        left_out = shutil.ignore_patterns("__pycache__", "backups", ".progress.json")
        shutil.copytree(ROOT / part, folder / part, ignore=left_out)
    for part in ("pyproject.toml", "tests/conftest.py"):
        shutil.copy(ROOT / part, folder / part)
    (folder / "tests" / "test_own.py").write_text("def test_own():\n    pass\n")
    path = folder / "exercises" / "01_autoencoder_exercise.py"
    path.write_text(kit.exercise(1).skeleton)
    solve(path, "1.1")
    error = 'raise NotImplementedError("Exercise {}")'
    text = path.read_text().replace(error.format("1.2: Autoencoder.__init__"), "self.a = 1")
    path.write_text(text.replace(error.format("1.4: add_noise"), "return x.add_(sigma)"))
    return folder


def run_in(folder, *arguments):
    line = [sys.executable, "-W", "error", "-m", *arguments]
    return subprocess.run(
        line, cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )


def test_root_pytest_reports_the_learners_result_apart(clone):
    shown = run_in(clone, "pytest")
    assert shown.returncode == 0, shown.stdout
    assert "= your exercises =" in shown.stdout
    assert "Exercise 1.4 add_noise: expected that the input stays as it was" in shown.stdout
    left = len(TASKS) - 2
    assert f"1 solved, 1 failing, {left} not attempted" in shown.stdout
    assert f"2 passed, {left} skipped, 1 failing answers" in shown.stdout


def test_pytest_of_the_exercises_fails_if_an_answer_does(clone):
    shown = run_in(clone, "pytest", "tests/exercises")
    assert shown.returncode == 1
    assert f"1 failed, 1 passed, {len(TASKS) - 2} skipped" in shown.stdout
    assert "Exercise 1.4 add_noise: expected that the input stays as it was" in shown.stdout
    assert "grading.py" not in shown.stdout
    chosen = run_in(clone, "pytest", "tests/exercises", "-k", "autoencoder and count_parameters")
    assert chosen.returncode == 0
    assert "1 passed" in chosen.stdout


def test_python_m_exercises_runs_from_a_clone(clone):
    shown = run_in(clone, "exercises")
    assert shown.returncode == 0, shown.stderr
    assert "1 of 10" in shown.stdout
    assert "failing: 1.4 add_noise" in shown.stdout
    assert run_in(clone, "exercises", "check", "1.4").returncode == 1
