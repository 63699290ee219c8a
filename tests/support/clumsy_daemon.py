"""A daemon that dies at once while the file $GUARDFS_TEST_CLUMSY is there: the one who comes after a dead one, for
instance."""

from __future__ import annotations

import os
import sys

from guardfs.mount import daemon

CLUMSY = "GUARDFS_TEST_CLUMSY"

if __name__ == "__main__":
    if os.path.exists(os.environ[CLUMSY]):
        os._exit(7)
    status = daemon.main()
    sys.stderr.flush()
    os._exit(status)
