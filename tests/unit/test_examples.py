"""The examples and the pages about them: every file parses, and every option is one that guardfs has."""

from __future__ import annotations

import importlib
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from guardfs import __version__
from guardfs.cli.main import COMMANDS
from tests.image import compose

PROJECT = Path(__file__).parents[2]
EXAMPLES = PROJECT / "examples"
UNIT = EXAMPLES / "guardfs@.service"
DOCKERFILES = [PROJECT / "Dockerfile", EXAMPLES / "openclaw/Dockerfile"]
PAGES = [PROJECT / "docs/containers.md", PROJECT / "docs/kubernetes.md"]
SERVICES: dict[str, Any] = compose.load()["services"]
GATEWAY = SERVICES["openclaw-gateway"]


def parse(words: list[str]) -> None:
    """Fails if guardfs would not take these words; does nothing of what they say."""
    assert words[0].rpartition("/")[2] == "guardfs", words
    if words[1:] in (["--version"], ["--help"]):
        return
    assert words[1] in COMMANDS, words
    module, _, name = COMMANDS[words[1]][0].partition(":")
    command: click.Command = getattr(importlib.import_module(module), name)
    command.make_context(f"guardfs {words[1]}", words[2:])


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """Its instructions, comments left out and continued lines joined."""
    lines = [line for line in dockerfile.read_text().splitlines() if not line.startswith("#")]
    text = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in text.splitlines() if line)]


def last(dockerfile: Path, name: str) -> list[str]:
    """The list in the last instruction *name*."""
    found = [rest for each, rest in instructions(dockerfile) if each == name][-1]
    words: list[str] = yaml.safe_load(found)
    return words


@pytest.mark.parametrize("service", SERVICES)
def test_every_key_of_a_service_is_known(service: str) -> None:
    containers = {name: name for name in SERVICES}
    volumes = dict.fromkeys(compose.load()["volumes"], "/nowhere")
    assert compose.options(SERVICES[service], containers, volumes)


@pytest.mark.parametrize("mode", ["record", "enforce"])
def test_the_gateways_command_line_is_one_of_guardfs(mode: str) -> None:
    parse(compose.entrypoint(compose.load(GUARDFS_MODE=mode)["services"]["openclaw-gateway"]))


def test_compose_starts_what_the_image_starts() -> None:
    """Like the image by itself, but for mode and metrics; and the gateway's command is OpenClaw's own."""
    mine = [word for word in GATEWAY["entrypoint"] if not word.startswith(("--mode", "--metrics"))]
    assert mine == last(DOCKERFILES[1], "ENTRYPOINT")
    assert GATEWAY["command"][:3] == last(DOCKERFILES[1], "CMD")[:3]


def test_the_two_sides_share_what_they_must() -> None:
    cli = SERVICES["openclaw-cli"]
    assert cli["pid"] == cli["network_mode"] == "service:openclaw-gateway"
    (theirs,) = cli["volumes"]
    ours = next(volume for volume in GATEWAY["volumes"] if isinstance(volume, dict))
    assert (theirs["source"], theirs["target"]) == (ours["source"], ours["target"])
    assert (ours["bind"]["propagation"], theirs["bind"]["propagation"]) == ("rshared", "rslave")
    assert "init" not in GATEWAY and "user" not in GATEWAY, "guardfs is the first process, and root"


def test_what_must_survive_is_on_a_volume() -> None:
    for dockerfile in DOCKERFILES:
        assert ("VOLUME", "/var/lib/guardfs") in instructions(dockerfile)
    assert [v for v in GATEWAY["volumes"] if isinstance(v, str)] == ["guardfs-state:/var/lib/guardfs"]


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.parent.name)
def test_the_commands_of_a_dockerfile_are_guardfs_s(dockerfile: Path) -> None:
    checks = [rest.partition("CMD ")[2] for name, rest in instructions(dockerfile) if name == "HEALTHCHECK"]
    assert checks
    parse(yaml.safe_load(checks[0]))
    parse([*last(dockerfile, "ENTRYPOINT"), *last(dockerfile, "CMD")])


def test_the_label_tells_the_version() -> None:
    assert ("ARG", f"VERSION={__version__}") in instructions(DOCKERFILES[0])


def test_what_the_dockerfile_copies_is_sent_to_the_builder() -> None:
    sent = {line[1:] for line in (PROJECT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copies = [rest.split()[:-1] for name, rest in instructions(DOCKERFILES[0]) if name == "COPY"]
    wanted = {source.split("/")[0] for sources in copies for source in sources if sources[0][:2] != "--"}
    assert wanted == sent
    assert all((PROJECT / source).exists() for source in sent)


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    text, copy = UNIT.read_text(), tmp_path / UNIT.name
    copy.write_text(text.replace("/opt/guardfs/bin/guardfs", shutil.which("true") or "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    copy.write_text(text.replace("Type=notify", "Typ=notify"))
    done = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True)
    assert "Unknown key" in done.stderr, "it would have said so"


def test_the_unit_starts_a_command_of_guardfs() -> None:
    starts = re.findall(r"^ExecStart=(.*)$", UNIT.read_text(), re.M)
    assert len(starts) == 1
    parse(shlex.split(starts[0]))


def test_the_unit_keeps_the_capabilities_that_guardfs_uses() -> None:
    from guardfs.mount.capabilities import SUPERVISOR

    kept = re.findall(r"^CapabilityBoundingSet=(.*)$", UNIT.read_text(), re.M)
    assert set(" ".join(kept).split()) == set(SUPERVISOR)


def test_the_unit_has_the_mount_namespace_of_its_host() -> None:
    own = "Private Protect ReadOnly ReadWrite Inaccessible Bind TemporaryFileSystem RootDirectory Dynamic"
    names = re.findall(r"^(\w+)=", UNIT.read_text(), re.M)
    assert [name for name in names if name.startswith(tuple(own.split()))] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_command_on_a_page_is_one_of_guardfs(page: Path) -> None:
    lines = [line for line in page.read_text().splitlines() if line.startswith("    ")]
    commands = re.findall(r"`(guardfs [^`]+)`", page.read_text())
    commands += [
        line[line.index("guardfs ") :]
        for line in lines
        if re.search(r"(?<=exec openclaw-gateway )guardfs ", line)
    ]
    assert commands
    for text in commands:
        words = shlex.split(text.replace(" ...", " x"))
        parse([*words, *(["x"] if words[-1] == "--" else [])])


def test_the_pod_on_the_page_gives_what_compose_gives() -> None:
    pod = re.findall(r"^    apiVersion.*?(?=^\S)", PAGES[1].read_text(), re.S | re.M)[0]
    (container,) = yaml.safe_load(pod)["spec"]["containers"]
    assert container["securityContext"]["capabilities"]["add"] == GATEWAY["cap_add"]
    parse(container["readinessProbe"]["exec"]["command"])
    targets = {each["mountPath"] for each in container["volumeMounts"]}
    assert targets == {"/home/node/.openclaw", "/var/lib/guardfs"}
