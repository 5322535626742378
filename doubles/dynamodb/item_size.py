"""The size of an item by DynamoDB's documented rule, and the limit it must keep."""

from typing import Any

MAX_ITEM_BYTES = 400 * 1024


def item_size(item: dict[str, Any]) -> int:
    """Return the bytes that an item in wire form counts for: attribute names and values."""
    return sum(len(name.encode()) + _value_size(value) for name, value in item.items())


def _value_size(value: dict[str, Any]) -> int:
    ((kind, raw),) = value.items()
    match kind:
        case "S":
            return len(raw.encode())
        case "N":  # one byte for two significant digits, and one more
            digits = raw.lower().partition("e")[0].lstrip("-+").replace(".", "").strip("0")
            return (len(digits) + 1) // 2 + 1
        case "B":
            return len(raw)
        case "M":  # three bytes, and one for each member
            return 3 + item_size(raw) + len(raw)
        case "L":
            return 3 + sum(_value_size(element) + 1 for element in raw)
        case "BOOL" | "NULL":
            return 1
    raise NotImplementedError(f"the DynamoDB double does not know the type {kind}")
