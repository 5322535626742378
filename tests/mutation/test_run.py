"""A mutant counts as noticed if, and only if, a test fails with it."""

import subprocess
import sys

from tests.mutation.run import ROOT

SCRIPT = """
from tests.mutation.run import ROOT, Mutant, TestsError, judge, prepare

NAMES, TESTS = "shared/names.py", ["tests/shared/test_names.py"]

def verdict(old, new, limit=60):
    mutant = Mutant(NAMES, 1, old, new, (ROOT / NAMES).read_text().replace(old, new))
    print([verdict.name for _, verdict in judge([mutant], TESTS, limit=limit)])

def preparation(module, tests):
    try:
        prepare(module, tests)
        print("prepared")
    except TestsError as error:
        print(str(error).partition(".py: ")[2].partition(".")[0])

"""


def run(*lines: str) -> list[str]:
    """Return the lines that a script prints, in its own process: pytest may have threads, which make forking unsafe."""
    command = [sys.executable, "-c", SCRIPT + "\n".join(lines)]
    printed = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    return printed.splitlines()


def test_a_mutant_survives_only_if_all_tests_pass() -> None:
    """A failing test, a failing import or an endless run kills it."""
    actual = run(
        "verdict('{3,64}', '{3,64}')",
        "verdict('{3,64}', '{3,65}')",
        "verdict('import re', 'import er')",
        "verdict('import re', 'while True: pass', limit=2)",
    )

    assert ["['SURVIVED']", "['KILLED']", "['KILLED']", "['TIMED_OUT']"] == actual


def test_tests_that_cannot_judge_are_rejected() -> None:
    """Tests must pass with the module as it is, and fail without it."""
    actual = run(
        "preparation(NAMES, TESTS)",
        "preparation('shared/clock.py', TESTS)",
        "preparation(NAMES, ['tests/shared/no_such_test.py'])",
    )

    assert [
        "prepared",
        "its tests pass without it",
        "its tests fail without a mutation",
    ] == actual
