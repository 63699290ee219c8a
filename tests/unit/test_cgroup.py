"""Container ids in the cgroup paths that container managers really make."""

from __future__ import annotations

import pytest

from guardfs.lanes.cgroup import container_of, parse_cgroup

ID = "3fa1d7d2b5c0a4f6e8b7c9d0123456789abcdef0123456789abcdef012345678"
POD = "pod0d206349_0faf_445c_8c3f_2d2153784f15"
UID = "pod0d206349-0faf-445c-8c3f-2d2153784f15"

PATHS = [
    # Docker: cgroupfs driver, systemd driver, rootless, a parent of one's own, inside itself
    (f"/docker/{ID}", ID, "docker"),
    (f"/system.slice/docker-{ID}.scope", ID, "docker"),
    (f"/user.slice/user-1000.slice/user@1000.service/user.slice/docker-{ID}.scope", ID, "docker"),
    (f"/docker/{'a' * 64}/docker/{ID}", ID, "docker"),
    (f"/docker/{ID}/init.scope", ID, "docker"),
    (f"/actions_job/{ID}", ID, "docker"),
    (f"/../../system.slice/docker-{ID}.scope", ID, "docker"),
    # Kubernetes: systemd driver, cgroupfs driver, kind (a node that is a Docker container)
    (
        f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-{POD}.slice/cri-containerd-{ID}.scope",
        ID,
        "containerd",
    ),
    (f"/kubepods.slice/kubepods-{POD}.slice/crio-{ID}.scope", ID, "cri-o"),
    (f"/kubepods.slice/kubepods-{POD}.slice/docker-{ID}.scope", ID, "docker"),
    (f"/kubepods/besteffort/{UID}/{ID}", ID, "kubernetes"),
    (f"/kubepods/{UID}/crio-{ID}", ID, "cri-o"),
    (
        f"/system.slice/containerd.service/kubepods-burstable-{POD}.slice:cri-containerd:{ID}",
        ID,
        "containerd",
    ),
    (
        f"/docker/{'a' * 64}/kubelet/kubepods/burstable/{UID}/{ID}",
        ID,
        "kubernetes",
    ),
    (
        f"/system.slice/docker-{'a' * 64}.scope/kubelet.slice/kubelet-kubepods.slice/"
        f"kubelet-kubepods-{POD}.slice/cri-containerd-{ID}.scope",
        ID,
        "containerd",
    ),
    # containerd by itself, nerdctl
    (f"/default/{ID}", ID, "containerd"),
    (f"/k8s.io/{ID}", ID, "containerd"),
    (f"/system.slice/nerdctl-{ID}.scope", ID, "containerd"),
    # Podman: root, rootless with the payload's own group, cgroupfs driver
    (f"/machine.slice/libpod-{ID}.scope", ID, "podman"),
    (f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope/container", ID, "podman"),
    (f"/libpod_parent/libpod-{ID}", ID, "podman"),
    # LXC, LXD, systemd-nspawn
    ("/lxc.payload.web/system.slice/cron.service", "web", "lxc"),
    ("/lxc.payload/web/init.scope", "web", "lxc"),
    ("/lxc/web", "web", "lxc"),
    (f"/lxc.payload.web/docker/{ID}", ID, "docker"),
    (r"/machine.slice/systemd-nspawn@my\x2dbox.service/payload", "my-box", "systemd-nspawn"),
    (r"/machine.slice/machine-my\x2dbox.scope", "my-box", "systemd-nspawn"),
    # none at all
    ("/", None, None),
    ("/user.slice/user-1000.slice/session-2.scope", None, None),
    ("/system.slice/docker.service", None, None),
    ("/system.slice/containerd.service", None, None),
    (f"/srv/{ID}", None, None),
    ("/docker/short", None, None),
    ("/kubepods.slice/kubepods-burstable.slice", None, None),
    (f"/machine.slice/libpod-conmon-{ID}.scope", None, None),
]


@pytest.mark.parametrize(("path", "container", "runtime"), PATHS)
def test_container_of(path: str, container: str | None, runtime: str | None) -> None:
    assert container_of(path) == (container, runtime)


def test_the_unified_hierarchy() -> None:
    assert parse_cgroup(f"0::/system.slice/docker-{ID}.scope\n") == (
        f"/system.slice/docker-{ID}.scope",
        ID,
        "docker",
    )


def test_v1_takes_the_longest_path() -> None:
    text = (
        f"12:pids:/docker/{ID}\n11:cpu,cpuacct:/\n2:name=with:colon:/docker/{ID}/deeper\n1:name=systemd:/\n"
    )
    assert parse_cgroup(text) == (f"/docker/{ID}", ID, "docker")
    assert parse_cgroup("3:memory:/a/b/c\n1:name=systemd:/a\n").path == "/a/b/c"


def test_the_hybrid_layout_has_an_empty_unified_path() -> None:
    text = "9:name=systemd:/\n4:memory:/jobs/6676a305\n0::/\n"
    assert parse_cgroup(text) == ("/jobs/6676a305", None, None)


def test_the_unified_path_wins_where_it_says_something() -> None:
    text = f"4:memory:/docker/{ID}\n0::/system.slice/docker.service\n"
    assert parse_cgroup(text) == ("/system.slice/docker.service", ID, "docker")


def test_a_cgroup_that_was_removed() -> None:
    assert parse_cgroup("0::/user.slice/gone (deleted)\n").path == "/user.slice/gone"


@pytest.mark.parametrize("text", ["", "\n", "nonsense", "1:2", "0::relative"])
def test_what_is_no_cgroup_file_says_nothing(text: str) -> None:
    assert parse_cgroup(text) == (None, None, None)
