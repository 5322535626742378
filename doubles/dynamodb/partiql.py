"""The one PartiQL statement that the ledger uses: INSERT of a whole item."""

import re
from collections.abc import Sequence

from doubles.dynamodb.expressions import Item, Value

_INSERT = re.compile(r"\s*INSERT\s+INTO\s+\"([^\"]+)\"\s+VALUE\s+\{(.*)\}\s*", re.IGNORECASE | re.DOTALL)
_MEMBER = re.compile(r"\s*'([^']+)'\s*:\s*\?\s*(?:,|$)")


def parse_insert(statement: str, parameters: Sequence[Value]) -> tuple[str, Item]:
    """Return the table and the item of `INSERT INTO "table" VALUE {'name': ?, …}`, whose values are the parameters.

    Raises:
        NotImplementedError: it is another statement.
        ValueError: the statement is malformed, or has more or fewer question marks than parameters.
    """
    insert = _INSERT.fullmatch(statement)
    if insert is None:
        raise NotImplementedError(f"the DynamoDB double does not know {statement}")
    table, members = insert[1], insert[2].strip()
    if _MEMBER.sub("", members):
        raise ValueError("Statement wasn't well formed, can't be processed")
    names = _MEMBER.findall(members)
    return table, dict(zip(names, parameters, strict=True))
