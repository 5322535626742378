"""The local gateway's log of its responses: a file with one line per response.

The gateway writes each line before it sends the response, independently of the functions, so a loss between the response and the
ledger shows.
"""

from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

ANSWERS = "answers.log"
"""The file's name, in the folder of the local stack."""


@dataclass(slots=True)
class Answers:
    """Sums over the responses: the events that they call accepted, and refused requests by code."""

    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)

    def add(self, lines: Iterable[str]) -> None:
        """Count lines of the file."""
        for line in lines:
            kind, _, rest = line.partition(" ")
            if kind == "accepted":
                self.accepted += int(rest)
            elif kind == "refused":
                self.refused[rest] += 1


def read(folder: Path) -> Answers:
    """Return the sums of the local stack in a folder."""
    answers = Answers()
    with suppress(FileNotFoundError):
        answers.add((folder / ANSWERS).read_text().splitlines())
    return answers
