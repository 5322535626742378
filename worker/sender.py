"""One attempt to import a chunk, with all that may have to happen before it can succeed."""

from dataclasses import dataclass

from shared.accounts import Account
from worker.accounts import Directory
from worker.chunk import Chunk, compress
from worker.deadline import LEAST_SEND_SECONDS, Deadline
from worker.treasure_data import READ_SECONDS, Answer, TreasureData, Verdict

UNSENT = Answer(Verdict.PASSING, "deadline")
"""The time was up before anything was sent."""


@dataclass(slots=True, eq=False)
class Upload:
    """A chunk on its way.

    Attributes:
        chunk: the rows.
        database: where they go.
        unique_id: under which they travel.
        oldest: UNIX seconds at which the oldest of them arrived.
        body: the request's, once it was made.
        attempts: how often it was tried.
        began: UNIX seconds of the last attempt.
        sure: no attempt can have been taken by Treasure Data.
        failing_since: UNIX seconds of the first attempt that failed.
        created: its table was missing, and was made.
    """

    chunk: Chunk
    database: str
    unique_id: str
    oldest: float
    body: bytes = b""
    attempts: int = 0
    began: float = 0.0
    sure: bool = True
    failing_since: float | None = None
    created: bool = False

    def compressed(self) -> bytes:
        """Return the request's body."""
        if not self.body:
            self.body = compress(self.chunk.payload())
        return self.body


class Sender:
    """Makes attempts; safe to be called from several threads, each with its own upload.

    Args:
        treasure_data: where to.
        directory: tells whether a missing database is the account's.
    """

    def __init__(self, treasure_data: TreasureData, directory: Directory) -> None:
        self.treasure_data = treasure_data
        self.directory = directory

    def attempt(self, upload: Upload, timeout: float, deadline: Deadline) -> Answer:
        """Send a chunk; again at once where another key, or a table made for it, may help.

        Args:
            upload: the chunk; `sure` and `created` are kept up to date.
            timeout: seconds for which an answer is waited for.
            deadline: after which nothing is sent.
        """
        answer = self._put(upload, timeout, deadline)
        if answer.verdict is Verdict.KEY_REFUSED and self.treasure_data.key_changed(answer.key):
            answer = self._put(upload, timeout, deadline)
        if answer.verdict is Verdict.MISSING and not upload.created:
            obstacle = self._create(upload, deadline)
            if obstacle is not None:
                return obstacle
            upload.created = True
            answer = self._put(upload, timeout, deadline)
        if answer.verdict is Verdict.MISSING:  # made, but not there yet
            return Answer(Verdict.PASSING, answer.reason)
        return answer

    def _put(self, upload: Upload, timeout: float, deadline: Deadline) -> Answer:
        body = upload.compressed()
        seconds = min(timeout, deadline.left())
        if seconds < LEAST_SEND_SECONDS:
            return UNSENT
        answer = self.treasure_data.send(upload.database, upload.chunk.table, upload.unique_id, body, seconds)
        upload.sure &= answer.sure
        return answer

    def _create(self, upload: Upload, deadline: Deadline) -> Answer | None:
        """Make the table, and the database if it is the account's; return what stands in the way."""
        database, table = upload.database, upload.chunk.table
        if deadline.near:
            return UNSENT
        status = self.treasure_data.create_table(database, table, READ_SECONDS)
        if status == 404:
            account = self.directory.resolve([upload.chunk.account]).get(upload.chunk.account)
            if account is None:
                return Answer(Verdict.PASSING, "account_unavailable")
            if not isinstance(account, Account) or account.database != database:
                return Answer(Verdict.REFUSED, "no_such_database")
            status = self.treasure_data.create_database(database, READ_SECONDS)
            if status in (200, 409):
                status = self.treasure_data.create_table(database, table, READ_SECONDS)
        if status in (200, 409):
            return None
        if status == 401:
            return Answer(Verdict.KEY_REFUSED, "http_401")
        if status == 403:
            return Answer(Verdict.REFUSED, "may_not_create")
        if 400 <= status < 500 and status not in (404, 408, 429):
            return Answer(Verdict.REFUSED, f"create_http_{status}")
        return Answer(Verdict.PASSING, f"create_http_{status}" if status else "create_timeout")
