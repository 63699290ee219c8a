"""Errors that an operator sees: one line with what, where, why and the mend."""

from __future__ import annotations


class GuardError(Exception):
    """The guard cannot do what it was asked; the message is one line for an operator, the exit status is 2.

    *what* names the thing and the reason ("/srv/sessions: not a directory"), *mend* says what to do about it.
    """

    exit_status = 2

    def __init__(self, what: str, mend: str = "") -> None:
        self.what = what.replace("\n", " ")
        self.mend = mend.replace("\n", " ")
        super().__init__(f"{self.what}; {self.mend}" if self.mend else self.what)
