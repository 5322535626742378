"""What a User-Agent reveals: a known bot, or the browser and operating system.

Bots are those of the public list crawler-user-agents. Only common browsers and systems are recognized; others are
reported as unknown rather than guessed.
"""

import re
from functools import lru_cache
from typing import NamedTuple

from crawleruseragents import CRAWLER_USER_AGENTS_DATA

_MAX_CHARACTERS = 512  # bounds the search, however long the header is
_SPECIAL = re.compile(r"(?<!\\)[.^$*+?\[\](){}|]|\\\w")
_ESCAPED = re.compile(r"\\(\W)")
_PATTERNS = [entry["pattern"] for entry in CRAWLER_USER_AGENTS_DATA]
# Nearly all patterns are plain text; `in` finds it many times faster than one expression of all patterns.
_BOT_TEXTS = [_ESCAPED.sub(r"\1", pattern) for pattern in _PATTERNS if not _SPECIAL.search(pattern)]
_OTHER_BOTS = re.compile("|".join(pattern for pattern in _PATTERNS if _SPECIAL.search(pattern)))

_VERSION = r"([0-9]{1,5}(?:\.[0-9]{1,7}){0,3})"
_BROWSERS = [
    (name, re.compile(pattern + _VERSION))
    for name, pattern in (
        # The first match wins: most of these also call themselves Chrome and Safari.
        ("Edge", r"(?:Edg|EdgA|EdgiOS|Edge)/"),
        ("Opera", r"(?:OPR|OPiOS)/"),
        ("Samsung Internet", r"SamsungBrowser/"),
        ("Vivaldi", r"Vivaldi/"),
        ("Firefox", r"(?:Firefox|FxiOS)/"),
        ("Chrome", r"(?:Chrome|HeadlessChrome|CriOS)/"),
        ("Internet Explorer", r"(?:MSIE |Trident/.{0,60}rv:)"),
        ("Safari", r"Version/(?=[0-9.]+ (?:Mobile/\w+ )?Safari/)"),
    )
]
_SYSTEMS = [
    (name, re.compile(pattern))
    for name, pattern in (
        ("Windows", r"Windows NT " + _VERSION),
        ("iOS", r"(?:iPhone|CPU) OS ([0-9]{1,3}(?:_[0-9]{1,3}){0,2})"),
        ("Android", r"Android(?: " + _VERSION + r")?"),
        ("ChromeOS", r"CrOS \w+ " + _VERSION),
        ("macOS", r"Mac OS X(?: ([0-9]{1,3}(?:[._][0-9]{1,3}){0,2}))?"),
        ("Linux", r"Linux()"),
    )
]


class Browser(NamedTuple):
    """Browser and operating system; None where unknown."""

    name: str | None
    version: str | None
    system: str | None
    system_version: str | None


def bot_name(user_agent: str) -> str:
    """Return the part that identifies a bot (`Googlebot/`), empty if it may be a person's browser."""
    return _bot_name(user_agent[:_MAX_CHARACTERS])


@lru_cache(maxsize=4096)
def _bot_name(user_agent: str) -> str:
    for text in _BOT_TEXTS:
        if text in user_agent:
            return text
    found = _OTHER_BOTS.search(user_agent)
    return found[0] if found else ""


def browser(user_agent: str) -> Browser:
    """Return the browser and operating system with their versions."""
    text = user_agent[:_MAX_CHARACTERS]
    return Browser(*_first(_BROWSERS, text), *_first(_SYSTEMS, text))


def _first(rules: list[tuple[str, re.Pattern[str]]], text: str) -> tuple[str | None, str | None]:
    for name, pattern in rules:
        if found := pattern.search(text):
            return name, (found[1] or "").replace("_", ".") or None
    return None, None
