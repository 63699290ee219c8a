"""What the server may do: read, as nobody.

It talks to strangers, so it is to have as little as it can work with. A log has mode 0600, is rotated, and a sessions
directory is often its agent's alone; so what is opened once does not do, and of all of root's rights one is left:
CAP_DAC_READ_SEARCH, to read any file and look into any directory. It writes nothing, signals nobody, mounts nothing.
"""

from __future__ import annotations

import os

from guardfs.mount import capabilities, libc

NOBODY = 65534
"""The user and group that own nothing (and the kernel's overflowuid)."""

_READ = capabilities.DAEMON["CAP_DAC_READ_SEARCH"]
_NEEDED = capabilities.mask([_READ, capabilities.DAEMON["CAP_SETUID"], capabilities.DAEMON["CAP_SETGID"]])
_PR_SET_KEEPCAPS = 8  # <linux/prctl.h>

_NICE = 10
_OOM_SCORE = 500
"""Half of the scale on which the kernel looks for what it kills first: this process can be begun again."""


def stand_back() -> None:
    """Whatever else runs here comes first: for the processor, and where memory is short. Never fails."""
    try:
        os.nice(_NICE)
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write(str(_OOM_SCORE))
    except OSError:
        pass


def lessen() -> None:
    """Give up what is not needed, for good. Never fails: what cannot be given up is kept. To be called before there are
    other threads. An ordinary user's guard has nothing to give up: it reads its own files."""
    _quietly(libc.PR_SET_NO_NEW_PRIVS, 1)
    if os.geteuid() != 0:
        return
    if capabilities.current("Prm") & _NEEDED == _NEEDED:
        try:
            capabilities.bound([])
            libc.prctl(_PR_SET_KEEPCAPS, 1)
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            libc.capset(capabilities.mask([_READ]), capabilities.mask([_READ]), 0)
            return
        except OSError:  # a user namespace without that id
            pass
    capabilities.keep([_READ])


def _quietly(option: int, value: int) -> None:
    try:
        libc.prctl(option, value)
    except OSError:
        pass
