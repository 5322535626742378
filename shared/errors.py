"""Every error that Sluice's functions raise, in one tree.

SluiceError
  · UnavailableError
    · LedgerUnavailableError
    · SetAsideUnavailableError
    · ShardUnreadableError
    · SecretUnavailableError
  · HeldError
  · EditRefusedError
  · SettingsError
  · InvalidError (a ValueError, too)
    · EnvelopeError
    · InvalidAccountError
    · InvalidKeyError
      · UnknownSecretError
    · InvalidJsonError
    · TooDeepError
    · InvalidReplayError
    · InvalidObjectError

Catch UnavailableError where the same attempt may succeed later, InvalidError where it never will.

Commands in `ops` and `local` derive the errors that only they raise from SluiceError. Rejecting a request or an event is
an answer and not an error: `ingest.refusal.Refused` and `shared.rows.Rejected` are outside of the tree.
"""


class SluiceError(Exception):
    """What Sluice raises on purpose; the message is for a person."""


class UnavailableError(SluiceError):
    """A service that is needed cannot be used now; the same may succeed later."""


class LedgerUnavailableError(UnavailableError):
    """The ledger cannot be reached: nothing may be sent, everything is held."""


class SetAsideUnavailableError(UnavailableError):
    """The set-aside store cannot be reached, or refuses."""


class ShardUnreadableError(UnavailableError):
    """The shard cannot be read now, or not within the time."""


class SecretUnavailableError(UnavailableError):
    """A secret cannot be read now; the message says why and what to do."""


class HeldError(SluiceError):
    """The batch must be delivered again from here; the message says why."""


class EditRefusedError(SluiceError):
    """A chunk that is set aside cannot be edited like this; the message says why."""


class SettingsError(SluiceError):
    """Settings are missing or cannot be read; the message names each one."""


class InvalidError(SluiceError, ValueError):
    """Data breaks the rules; the message says which."""


class EnvelopeError(InvalidError):
    """The bytes are not an envelope of this version."""


class InvalidAccountError(InvalidError):
    """An entry of Redis, or of accounts.yaml, is not an account."""


class InvalidKeyError(InvalidError):
    """The key was not signed by a secret that is valid now. The message never repeats the key."""


class UnknownSecretError(InvalidKeyError):
    """The secret that signed the key is not among those that are valid now."""


class InvalidJsonError(InvalidError):
    """The text is not one JSON document in UTF-8; the message says where it breaks."""


class TooDeepError(InvalidError):
    """A value is nested too deeply."""


class InvalidReplayError(InvalidError):
    """An event asks for a replay that is not possible."""


class InvalidObjectError(InvalidError):
    """An object in the bucket is not what its name says: it is not a set-aside chunk, or its bytes have changed."""
