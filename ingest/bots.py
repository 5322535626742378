"""Which programs are known to be no person's browser, by the public list crawler-user-agents."""

import re
from functools import lru_cache

from crawleruseragents import CRAWLER_USER_AGENTS_DATA

_MAX_CHARACTERS = 512  # of a User-Agent are looked at: nobody can make the search long
_SPECIAL = re.compile(r"(?<!\\)[.^$*+?\[\](){}|]|\\\w")
_ESCAPED = re.compile(r"\\(\W)")
_PATTERNS = [entry["pattern"] for entry in CRAWLER_USER_AGENTS_DATA]
# Nearly all patterns are plain text, which is found many times faster than by an expression of all of them.
_TEXTS = [_ESCAPED.sub(r"\1", pattern) for pattern in _PATTERNS if not _SPECIAL.search(pattern)]
_OTHERS = re.compile("|".join(pattern for pattern in _PATTERNS if _SPECIAL.search(pattern)))


def name(user_agent: str) -> str:
    """Return what tells a bot in a User-Agent (`Googlebot/`), empty where it may be a person's."""
    return _name(user_agent[:_MAX_CHARACTERS])


@lru_cache(maxsize=4096)
def _name(user_agent: str) -> str:
    for text in _TEXTS:
        if text in user_agent:
            return text
    found = _OTHERS.search(user_agent)
    return found[0] if found else ""
