"""The views of transcripts on a running mount: their nodes, the branches behind them, and what becomes of these.

Who sees what, and when a branch is to be rebased, is decided by `guardfs.fence.staging`; how, by
`guardfs.mount.merging`. Here both meet the node table, the journal and the kernel.
"""

from guardfs.mount.views.branching import Replaced
from guardfs.mount.views.live import Fixed, Live, Staged, fingerprint
from guardfs.mount.views.views import Views

__all__ = ["Fixed", "Live", "Replaced", "Staged", "Views", "fingerprint"]
