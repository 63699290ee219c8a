"""Where a process runs: cgroup path and container id, read out of the text of /proc/PID/cgroup. Pure.

Sources: cgroups(7); the names that Docker, containerd (CRI), CRI-O, Podman, LXC and systemd-nspawn give their
control groups with the cgroupfs and the systemd drivers. A process in the guard's own cgroup namespace shows
as ``/``: then no container can be told from the path, and none is claimed.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class Cgroup(NamedTuple):
    """path: as the kernel shows it, or None; container: id or machine name; runtime: ``docker``,
    ``containerd``, ...

    runtime is ``kubernetes`` where the path names a pod's container but not who runs it (the cgroupfs
    driver).
    """

    path: str | None
    container: str | None
    runtime: str | None


_ID = r"(?P<id>[0-9a-f]{64})"
# ids cut to 12 by older tools are only believed behind a prefix that nothing but a container runtime uses
_PREFIXED = r"(?P<id>[0-9a-f]{12,64})"

# One path component each, tried innermost component first; the pattern sees "parent/component".
_COMPONENTS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), runtime)
    for pattern, runtime in (
        (rf"/docker-{_PREFIXED}\.scope$", "docker"),
        (rf"/cri-containerd-{_PREFIXED}\.scope$", "containerd"),
        (rf"/nerdctl-{_PREFIXED}\.scope$", "containerd"),
        (rf"/crio-{_PREFIXED}(?:\.scope)?$", "cri-o"),
        (rf"/libpod-{_PREFIXED}(?:\.scope)?$", "podman"),
        (r"/lxc\.payload[./](?P<id>[^/]+)$", "lxc"),
        (r"/lxc/(?P<id>[^/]+)$", "lxc"),
        (r"/systemd-nspawn@(?P<id>[^/]+)\.service$", "systemd-nspawn"),
        (r"/machine-(?P<id>[^/]+)\.scope$", "systemd-nspawn"),
        # "slice:prefix:id" is how the CRI names a systemd cgroup; the cgroupfs driver makes a directory of it
        (rf"[/:]cri-containerd:{_PREFIXED}$", "containerd"),
        (rf"/docker/{_ID}$", "docker"),
        (rf"/actions_job/{_ID}$", "docker"),
        (rf"/libpod_parent/libpod-{_ID}$", "podman"),
        (rf"/(?:kubepods|pod)[^/]*/{_ID}$", "kubernetes"),
        (rf"/(?:default|k8s\.io|moby|buildkit)/{_ID}$", "containerd"),
    )
)


def parse_cgroup(text: str) -> Cgroup:
    """Cgroup and container out of the lines ``hierarchy:controllers:path``.

    path is that of the unified hierarchy (``0::``) unless it is the root while a v1 hierarchy says more, as
    in the hybrid layout; then it is the longest of the v1 paths. The innermost container counts (Docker in
    Kubernetes in LXC).
    """
    unified: str | None = None
    others: list[str] = []
    for line in text.splitlines():
        hierarchy, _, rest = line.partition(":")
        controllers, separator, path = rest.partition(":")
        if not separator or not path.startswith("/"):
            continue
        path = path.removesuffix(" (deleted)") if path != "/ (deleted)" else "/"
        if hierarchy == "0" and not controllers:
            unified = path
        elif controllers != "name=systemd":
            others.append(path)
        else:
            others.insert(0, path)  # the most telling of the v1 hierarchies: every service manager fills it
    longest = max(others, key=len, default=None)
    path_shown = unified if unified not in (None, "/") or longest is None else longest
    candidates = ([unified] if unified else []) + sorted(others, key=len, reverse=True)
    for candidate in candidates:
        container, runtime = container_of(candidate)
        if container is not None:
            return Cgroup(path_shown, container, runtime)
    return Cgroup(path_shown, None, None)


def container_of(path: str) -> tuple[str | None, str | None]:
    """(id, runtime) of the innermost container that a cgroup path names, or (None, None)."""
    end = len(path)
    while end > 0:
        for pattern, runtime in _COMPONENTS:
            match = pattern.search(path, 0, end)
            if match is not None:
                identity = match["id"]
                if runtime == "systemd-nspawn":
                    identity = _unescape_unit(identity)
                return identity, runtime
        end = path.rfind("/", 0, end)
    return None, None


def _unescape_unit(name: str) -> str:
    r"""Undo systemd's ``\xNN`` in a unit name (systemd.unit(5)): ``my\x2dbox`` is the machine ``my-box``."""
    return re.sub(r"\\x([0-9a-f]{2})", lambda match: chr(int(match[1], 16)), name)
