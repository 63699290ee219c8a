"""Where a guard's supervisor has metrics and page served: as the kernel knows it, not as somebody wished it."""

from __future__ import annotations

from typing import Any

SERVER = "guardfs.serve.supervised"


def addresses(supervisor: Any) -> list[str]:
    """The addresses that the supervisor's server listens at; none where there is no such process, or it may not be
    looked into."""
    import psutil

    found: list[str] = []
    try:
        for child in psutil.Process(supervisor).children():
            if SERVER in child.cmdline():
                for each in child.net_connections("tcp"):
                    if each.status == psutil.CONN_LISTEN:
                        host = f"[{each.laddr.ip}]" if ":" in each.laddr.ip else each.laddr.ip
                        found.append(f"http://{host}:{each.laddr.port}")
    except (
        psutil.Error,
        OSError,
        TypeError,
        ValueError,
    ):  # gone meanwhile, another's, another pid namespace's
        return []
    return sorted(found)
