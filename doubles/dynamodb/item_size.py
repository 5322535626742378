"""The size of an item by DynamoDB's documented rule, and the limit it must keep."""

from typing import Any

MAX_ITEM_BYTES = 400 * 1024

_MAP_OR_LIST_OVERHEAD = 3
_ELEMENT_OVERHEAD = 1


def item_size(item: dict[str, Any]) -> int:
    """Return the bytes that an item in wire form counts for: attribute names and values."""
    return sum(len(name.encode()) + _value_size(value) for name, value in item.items())


def _value_size(value: dict[str, Any]) -> int:
    ((kind, raw),) = value.items()
    match kind:
        case "S":
            return len(raw.encode())
        case "N":
            return _number_size(raw)
        case "B":
            return len(raw)
        case "BOOL" | "NULL":
            return 1
        case "M":
            return _MAP_OR_LIST_OVERHEAD + item_size(raw) + _ELEMENT_OVERHEAD * len(raw)
        case "L":
            return _MAP_OR_LIST_OVERHEAD + sum(_value_size(element) + _ELEMENT_OVERHEAD for element in raw)
        case "SS" | "NS" | "BS":
            return sum(_value_size({kind[0]: member}) for member in raw)
    raise ValueError(f"Supplied AttributeValue has an unknown type: {kind}")


def _number_size(text: str) -> int:
    """Return one byte for two significant digits, and one more."""
    digits = text.lower().partition("e")[0].lstrip("-+").replace(".", "").strip("0")
    return (len(digits) + 1) // 2 + 1
