"""Browser and operating system, as a User-Agent calls them.

Only what visitors commonly use is told apart; the rest is unknown rather than guessed.
"""

import re
from typing import NamedTuple

_VERSION = r"([0-9]{1,5}(?:\.[0-9]{1,7}){0,3})"
_BROWSERS = [
    (name, re.compile(pattern + _VERSION))
    for name, pattern in (
        # The first that is found counts: most of them call themselves Chrome and Safari too.
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
_MAX_CHARACTERS = 512


class Browser(NamedTuple):
    """What a User-Agent says; None where it does not."""

    name: str | None
    version: str | None
    system: str | None
    system_version: str | None


def read(user_agent: str) -> Browser:
    """Return browser and operating system with their versions."""
    text = user_agent[:_MAX_CHARACTERS]
    return Browser(*_first(_BROWSERS, text), *_first(_SYSTEMS, text))


def _first(rules: list[tuple[str, re.Pattern[str]]], text: str) -> tuple[str | None, str | None]:
    for name, pattern in rules:
        if found := pattern.search(text):
            return name, (found[1] or "").replace("_", ".") or None
    return None, None
