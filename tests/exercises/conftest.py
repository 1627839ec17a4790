"""Shows a learner's results apart from the repository's own tests.

`pytest tests/exercises` fails when an answer does. A run that includes the repository's tests says
how they are; there, an answer that fails is listed, and does not count against the repository.
"""

from pathlib import Path

import pytest

from exercises.grading import FileBroken

HERE = Path(__file__).parent
LEARNER = pytest.StashKey[dict]()  # task id -> outcome and message
BROKEN = pytest.StashKey[set]()  # files of which that has been said already
APART = pytest.StashKey[bool]()  # whether the repository's own tests run as well
OUTCOMES = {"passed": "solved", "failed": "failing", "skipped": "not attempted"}


def pytest_collection_modifyitems(session, config, items):
    config.stash[LEARNER], config.stash[BROKEN] = {}, set()
    config.stash[APART] = any(HERE not in item.path.parents for item in items)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if item.originalname != "test_your_answer" or (call.when != "call" and not report.failed):
        return report
    task = item.callspec.params["task"]
    if report.failed and isinstance(call.excinfo.value, FileBroken):
        said, place = item.config.stash[BROKEN], (str(item.path), item.location[1])
        if item.path in said:  # once is enough
            report.outcome = "skipped"
            report.longrepr = (*place, f"{task}: not graded until the file can be loaded")
        said.add(item.path)
    item.config.stash[LEARNER][task.id] = (report.outcome, report.longrepr)
    if report.failed and item.config.stash[APART]:
        report.outcome = "skipped"
        report.longrepr = (str(item.path), item.location[1], str(call.excinfo.value))
        report.failing_answer = True
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_report_teststatus(report):
    if getattr(report, "failing_answer", False):
        return "failing answers", "a", "FAILING ANSWER"
    return None


def pytest_terminal_summary(terminalreporter, config):
    answers = config.stash.get(LEARNER, {})
    if not answers:
        return
    say = terminalreporter
    count = {kind: [t for t, (o, _) in answers.items() if o == kind] for kind in OUTCOMES}
    say.section("your exercises", sep="=")
    for id in count["failed"] if config.stash[APART] else ():
        say.line(f"{answers[id][1]}\n", red=True)
    parts = [f"{len(ids)} {OUTCOMES[kind]}" for kind, ids in count.items()]
    say.line(f"{', '.join(parts)}. What is next: python -m exercises")
