"""What the tests noticed of a module."""

from collections import Counter
from dataclasses import dataclass, field

from tests.mutation.run import Mutant, Verdict


@dataclass(slots=True)
class Outcome:
    """What the tests noticed of `mutants` or `defences` of a module: how often there was each verdict, and which mutants survived."""

    module: str
    what: str = "mutants"
    verdicts: Counter[Verdict] = field(default_factory=Counter)
    survivors: list[Mutant] = field(default_factory=list)

    @property
    def share(self) -> float:
        """The share of mutants that the tests noticed."""
        return 1 - self.verdicts[Verdict.SURVIVED] / max(1, self.verdicts.total())

    def cells(self) -> list[str]:
        """Return the module's row of the table."""
        counts = [self.verdicts.total(), *(self.verdicts[verdict] for verdict in Verdict)]
        return [self.module, self.what, *map(str, counts), f"{self.share:.1%}"]
