"""examples/compose.yaml as `podman run` understands it: the keys that the file uses, and no others.

No Compose runs here (it wants an engine's daemon). A key that this module does not know is an error, so that a test
that starts a service has started all of what the file says.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from tests.support.guard import ROOT

FILE = ROOT / "examples/compose.yaml"

NOT_FOR_RUN = {
    "image",
    "build",
    "entrypoint",
    "command",
    "profiles",
    "depends_on",
    "restart",
    "ports",
    "network_mode",
}
"""Said elsewhere, or without meaning for one container in a network of its own."""


def load(**variables: str) -> dict[str, Any]:
    """The file with ``${NAME:-DEFAULT}`` replaced, as Compose does."""

    def value(match: re.Match[str]) -> str:
        return variables.get(match["name"]) or match["default"] or ""

    def replaced(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: replaced(each) for key, each in node.items()}
        if isinstance(node, list):
            return [replaced(each) for each in node]
        if isinstance(node, str):
            return re.sub(r"\$\{(?P<name>\w+)(?::-(?P<default>[^}]*))?\}", value, node)
        return node

    found: dict[str, Any] = replaced(yaml.safe_load(FILE.read_text()))
    return found


def entrypoint(service: dict[str, Any]) -> list[str]:
    """The whole command line of a service."""
    return [*service["entrypoint"], *service.get("command", [])]


def options(service: dict[str, Any], containers: dict[str, str], volumes: dict[str, str]) -> list[str]:
    """Options of `podman run`. containers: names by service; volumes: directories by the name of a volume."""
    found = []
    for key, value in service.items():
        match key:
            case "devices":
                found += [f"--device={each}" for each in value]
            case "cap_add":
                found += [f"--cap-add={each}" for each in value]
            case "security_opt":
                found += [f"--security-opt={each}" for each in value]
            case "environment":
                found += [f"--env={name}={each}" for name, each in value.items()]
            case "user":
                found.append(f"--user={value}")
            case "pid":
                found.append(f"--pid=container:{containers[value.removeprefix('service:')]}")
            case "stop_grace_period":
                found.append(f"--stop-timeout={value.removesuffix('s')}")
            case "healthcheck":
                assert value == {"disable": True}, value
                found.append("--no-healthcheck")
            case "stdin_open":
                found.append("--interactive")
            case "tty":
                pass  # nobody sits at a terminal in a test
            case "volumes":
                found += [_volume(each, volumes) for each in value]
            case _:
                assert key in NOT_FOR_RUN, f"{FILE.name}: {key}: what does podman call it?"
    return found


def _volume(volume: str | dict[str, Any], volumes: dict[str, str]) -> str:
    if isinstance(volume, str):
        name, _, target = volume.partition(":")
        return f"--volume={volumes[name]}:{target}"
    assert volume.keys() == {"type", "source", "target", "bind"} and volume["type"] == "bind", volume
    propagation = volume["bind"]["propagation"]
    return f"--mount=type=bind,src={volume['source']},dst={volume['target']},bind-propagation={propagation}"
