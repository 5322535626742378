"""Settings are read from the environment, and errors name the setting."""

import pytest

from shared.errors import SettingsError
from shared.settings import IngestSettings, WorkerSettings

REQUIRED = (
    *("STREAM_NAME", "OVERFLOW_QUEUE_URL", "WRITE_KEY_SECRET", "DATA_BUCKET"),
    *("OVERFLOW_NOTICES_URL", "COUNTERS_TABLE"),
)
INGEST = {name: name.lower() for name in REQUIRED}


def test_optional_settings_have_defaults() -> None:
    """An empty variable counts as absent."""
    expected = IngestSettings(*INGEST.values(), ("*",))

    assert expected == IngestSettings.from_environment(
        INGEST | {"ALLOWED_ORIGINS": "", "KEY_EVENTS_PER_SECOND": ""}
    )


def test_lists_and_numbers_are_parsed() -> None:
    """Lists are separated by commas, with or without spaces. Browsers write origins in lower case."""
    origins = "https://A.example, https://b.example,"
    settings = IngestSettings.from_environment(
        INGEST | {"ALLOWED_ORIGINS": origins, "KEY_EVENTS_PER_SECOND": "4"}
    )

    assert ("https://a.example", "https://b.example") == settings.allowed_origins
    assert 4 == settings.key_events_per_second


def test_the_error_names_every_invalid_setting() -> None:
    """One message names all variables that are missing or invalid."""
    with pytest.raises(SettingsError) as caught:
        IngestSettings.from_environment({"STREAM_NAME": "events", "KEY_EVENTS_PER_SECOND": "many"})

    assert [*REQUIRED[1:], "KEY_EVENTS_PER_SECOND"] == [
        fault.partition(" ")[0].rstrip(":") for fault in str(caught.value).split("; ")
    ]


@pytest.mark.parametrize("rate", ["0", "-1"])
def test_a_rate_is_at_least_one(rate: str) -> None:
    """A number of events must be positive."""
    with pytest.raises(SettingsError, match="KEY_EVENTS_PER_SECOND"):
        IngestSettings.from_environment(INGEST | {"KEY_EVENTS_PER_SECOND": rate})


def test_a_choice_accepts_only_its_values() -> None:
    """A setting with a fixed set of values accepts no other."""
    with pytest.raises(SettingsError, match="UNASKABLE_DOUBT: must be one of send, keep"):
        WorkerSettings.from_environment({"UNASKABLE_DOUBT": "ask"})
