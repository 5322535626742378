"""The one PartiQL statement that the ledger uses: INSERT of a whole item."""

import re
from collections.abc import Iterable

from doubles.dynamodb.expressions import Item, Value

_INSERT = re.compile(r"\s*INSERT\s+INTO\s+\"([^\"]+)\"\s+VALUE\s+\{(.*)\}\s*", re.IGNORECASE | re.DOTALL)
_MEMBER = re.compile(r"\s*'([^']+)'\s*:\s*(?:\?|'([^']*)'|(-?\d+))\s*(,|$)")


def parse_insert(statement: str, parameters: Iterable[Value]) -> tuple[str, Item]:
    """Return the table and the item of `INSERT INTO "table" VALUE {'name': value, …}`.

    Args:
        statement: a value is `?`, a string in single quotes, or an integer.
        parameters: wire values for the question marks, in order.

    Raises:
        NotImplementedError: it is another statement.
        ValueError: the statement is malformed, or has more or fewer question marks than parameters.
    """
    insert = _INSERT.fullmatch(statement)
    if insert is None:
        raise NotImplementedError(f"the DynamoDB double does not know {statement}")
    table, members = insert[1], insert[2].strip()
    given = iter(parameters)
    item: Item = {}
    position = 0
    while position < len(members):
        member = _MEMBER.match(members, position)
        if member is None:
            raise ValueError("Statement wasn't well formed, can't be processed")
        name, text, digits, _ = member.groups()
        value = (
            {"S": text} if text is not None else {"N": digits} if digits is not None else next(given, None)
        )
        if value is None:
            raise ValueError("Number of parameters in request and statement don't match.")
        item[name] = value
        position = member.end()
    if next(given, None) is not None:
        raise ValueError("Number of parameters in request and statement don't match.")
    return table, item
