"""The image of guardfs by itself: what is in it, what is not, what it says of its container."""

from __future__ import annotations

import json
import os
import subprocess

import pytest
import yaml

from guardfs import __version__
from tests.gateway.figures import figure
from tests.image import compose
from tests.image.engine import Container, Engine

pytestmark = pytest.mark.image

SERVICE = compose.load()["services"]["openclaw-gateway"]
RIGHTS = compose.options({key: SERVICE[key] for key in ("devices", "cap_add", "security_opt")}, {}, {})
"""What compose.yaml gives a container that guards."""

MOST_MEGABYTES = 100
"""Upon the base image: python3 is 35 of them, guardfs and what it imports 30."""


def test_it_is_guardfs_and_says_so_on_its_label(engine: Engine) -> None:
    assert engine.once("guardfs", "--version").stdout == f"guardfs {__version__}\n"
    labels = engine.inspect("guardfs")["Config"]["Labels"]
    assert labels["org.opencontainers.image.title"] == "guardfs"
    assert labels["org.opencontainers.image.version"] == __version__
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"


def test_every_command_starts(engine: Engine) -> None:
    """Nothing that a command imports was left in the stage that builds."""
    from guardfs.cli.main import COMMANDS

    loop = 'for name in "$@"; do guardfs "$name" --help >/dev/null || echo "$name"; done'
    done = engine.once("guardfs", "-c", loop, "sh", *COMMANDS, options=["--entrypoint=sh"])
    assert (done.returncode, done.stdout) == (0, "")


def test_no_compiler_no_pip_and_nothing_of_the_tests_is_in_it(engine: Engine) -> None:
    look = "for name in gcc cc ld pip pip3 pkg-config uv; do command -v $name; done; "
    look += "cat /etc/pip.conf; ls /build /src /wheels"
    assert engine.once("guardfs", "-c", look, options=["--entrypoint=sh"]).stdout == ""
    listed = "import importlib.metadata as m; print(*sorted(d.name.lower() for d in m.distributions()))"
    names = engine.once(
        "guardfs", "-c", listed, options=["--entrypoint=/opt/guardfs/bin/python"]
    ).stdout.split()
    assert "pyfuse3" in names and "guardfs" in names
    assert not {"pip", "setuptools", "cython", "hatchling", "pytest", "mypy"} & set(names)


def test_no_layer_tells_where_the_packages_came_from(engine: Engine) -> None:
    history = json.dumps(engine.inspect("guardfs")["History"])
    assert "apt-get" in history
    assert "pip" not in history and "/run/site" not in history


def test_compose_reads_the_example_as_the_tests_do() -> None:
    """Without an engine it can do no more than read."""
    variables = {"OPENCLAW_CONFIG_DIR": "/srv/openclaw", "GUARDFS_MODE": "enforce"}
    done = subprocess.run(
        ["docker-compose", "--file", str(compose.FILE), "--profile", "cli", "config"],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    theirs, ours = yaml.safe_load(done.stdout)["services"], compose.load(**variables)["services"]
    assert theirs.keys() == ours.keys()
    same = "image entrypoint command devices cap_add security_opt pid network_mode user environment stop_grace_period"
    for name, service in ours.items():
        for key in same.split():
            assert theirs[name].get(key) == service.get(key), (name, key)
        assert [each for each in theirs[name]["volumes"] if isinstance(each, dict)] == [
            each for each in service["volumes"] if isinstance(each, dict)
        ]


def test_it_is_small(engine: Engine) -> None:
    sizes = {name: engine.size(name) / 1e6 for name in ("base", "guardfs", "openclaw", "openclaw-guarded")}
    figure(
        f"images built in {engine.build_seconds:.0f} s; MB: "
        + ", ".join(f"{name} {size:.0f}" for name, size in sizes.items())
    )
    assert sizes["guardfs"] - sizes["base"] < MOST_MEGABYTES
    assert sizes["openclaw-guarded"] - sizes["openclaw"] < 2 * MOST_MEGABYTES


def test_doctor_finds_that_the_example_gives_it_what_it_needs(engine: Engine) -> None:
    done = engine.once("guardfs", "doctor", options=RIGHTS)
    assert done.returncode == 0, done.stdout
    without = engine.once("guardfs", "doctor")
    assert without.returncode == 1
    assert "/dev/fuse" in without.stdout and "CAP_SYS_ADMIN" in without.stdout


def test_the_health_check_tells_a_guard_from_none(engine: Engine) -> None:
    none = engine.once("guardfs", "status", "--check")
    assert none.returncode == 1 and "nothing is guarded" in none.stderr
    container = Container(
        engine, "health", "guardfs", RIGHTS, ["run", "--sessions", "/mnt", "--", "sleep", "infinity"]
    ).start()
    try:
        container.wait_said("guarding /mnt")
        assert container.exec("guardfs", "status", "--check").returncode == 0
        assert engine.run("healthcheck", "run", "health", check=False).returncode == 0
        container.exec("guardfs", "mode", "off", "/mnt")
        failed = engine.run("healthcheck", "run", "health", check=False)
        assert failed.returncode == 1
        told = container.exec("guardfs", "status", "--check", "--json", check=False)
        assert (told.returncode, json.loads(told.stdout)["healthy"]) == (1, False)
        container.kill("TERM")
        assert container.wait() == 128 + 15
    finally:
        container.remove()
