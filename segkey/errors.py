"""Errors and warnings: `SegkeyError` for expected failures, `SegkeyWarning`."""


class SegkeyError(Exception):
    """An expected failure: what is wrong (and with which file), and what to do about it.

    The command line prints both lines and exits with status 1.

    Args:
        what: one line, naming the file or value at fault.
        hint: one line that says what to do, or empty where the first line says it already.
    """

    def __init__(self, what: str, hint: str = ""):
        super().__init__(what)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what}\n{self.hint}" if self.hint else self.what

    def __reduce__(self):  # worker processes send their errors home by pickle
        return type(self), (self.what, self.hint)


class SealedKeyError(SegkeyError):
    """The key file is sealed and no passphrase was given."""


class KeyMismatchError(SegkeyError):
    """A key was given that is not the one the shards or the run were made with."""


class DivergedError(SegkeyError):
    """A training whose loss is no longer a number; others of the same experiment may do well."""


class SegkeyWarning(UserWarning):
    """Something the user should know but that stops nothing; shown as ``segkey: warning: …``."""
