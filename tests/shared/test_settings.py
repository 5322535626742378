"""Settings are read from the environment, and errors name the setting."""

from typing import Any

import pytest

from shared.errors import SettingsError
from shared.settings import IngestSettings, WorkerSettings

REQUIRED = (
    *("STREAM_NAME", "OVERFLOW_QUEUE_URL", "DATA_BUCKET", "WRITE_KEY_SECRET"),
    *("OVERFLOW_NOTICES_URL", "COUNTERS_TABLE"),
)
INGEST = {name: name.lower() for name in REQUIRED}

PARSED = {"allowed_origins": ("https://a.example", "https://b.example"), "key_events_per_second": 4}


@pytest.mark.parametrize(
    ("origins", "rate", "expected"),
    [("", "", {"allowed_origins": ("*",)}), ("https://A.example, https://b.example,", "4", PARSED)],
)
def test_settings_are_parsed(origins: str, rate: str, expected: dict[str, Any]) -> None:
    """An empty variable has a default; lists are separated by commas, with or without spaces; browsers write origins in lower case."""
    given = INGEST | {"ALLOWED_ORIGINS": origins, "KEY_EVENTS_PER_SECOND": rate, "DROPPED_COLUMNS": "v"}

    made = IngestSettings(*INGEST.values(), dropped_columns=("_v",), **expected)
    assert made == IngestSettings.from_environment(given)


@pytest.mark.parametrize(
    ("given", "rate", "missing"),
    [({"STREAM_NAME": "events"}, "many", REQUIRED[1:]), (INGEST, "0", ()), (INGEST, "-1", ())],
)
def test_the_error_names_invalid_settings(given: dict[str, str], rate: str, missing: tuple[str, ...]) -> None:
    """One message names all variables that are missing or invalid. A number of events must be positive."""
    with pytest.raises(SettingsError) as caught:
        IngestSettings.from_environment(given | {"KEY_EVENTS_PER_SECOND": rate})

    named = [fault.partition(" ")[0].rstrip(":") for fault in str(caught.value).split("; ")]
    assert [*missing, "KEY_EVENTS_PER_SECOND"] == named


def test_a_choice_accepts_only_its_values() -> None:
    """A setting with a fixed set of values accepts no other."""
    with pytest.raises(SettingsError, match="UNASKABLE_DOUBT: must be one of send, keep"):
        WorkerSettings.from_environment({"UNASKABLE_DOUBT": "ask"})
