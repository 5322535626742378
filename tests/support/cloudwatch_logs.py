"""A double of CloudWatch Logs."""

from typing import Any, Self

from shared.clock import Clock


class FunctionLog:
    """The log of one function. A line has when it was written, from when on it can be found, and its text. The next searches raise the `errors`."""

    def __init__(
        self, function: str, clock: Clock, *, lines_per_page: int, seconds_per_page: float = 0.0
    ) -> None:
        self.lines: list[tuple[float, float, str]] = []
        self.errors: list[Exception] = []
        self.starts: list[float] = []
        self.pages = 0
        self._function = function
        self._clock = clock
        self._size = lines_per_page
        self._seconds = seconds_per_page

    def client(self, *_: Any, **__: Any) -> Self:
        """Stand in for a boto3 session."""
        return self

    def get_function_configuration(self, *, FunctionName: str) -> dict[str, Any]:  # noqa: N803 -- boto3's name
        """Return the log group."""
        assert FunctionName == self._function
        return {"LoggingConfig": {"LogGroup": f"group of {FunctionName}"}}

    def filter_log_events(self, **request: Any) -> dict[str, Any]:
        """Return a page of the lines between two times, the oldest first."""
        assert request["logGroupName"] == f"group of {self._function}"
        if self.errors:
            raise self.errors.pop(0)
        first, begin, end = (request.get(name) for name in ("nextToken", "startTime", "endTime"))
        if first is None:
            self.starts.append(request["startTime"] / 1000)
        self.pages += 1
        self._clock.sleep(self._seconds)
        shown = [
            {"eventId": text, "timestamp": int(at * 1000), "message": text}
            for at, visible_at, text in sorted(self.lines)
            if begin <= at * 1000 <= (end or at * 1000) and visible_at <= self._clock.now()
        ]
        index = int(first or 0)
        more = {"nextToken": f"{index + self._size}"} if index + self._size < len(shown) else {}
        return {"events": shown[index : index + self._size]} | more
