"""Make this site's pip configuration usable inside a build, and print the options that hand it to `buildah bud`.

    python scripts/image_site.py DIR      writes DIR/pip.conf, DIR/ca.crt; prints one option a line

A build sees neither the machine's files nor its environment. What pip is told here about its index (pip.conf, PIP_...)
goes in as a secret, the certificates and the directories of packages that it names as volumes; no layer keeps them.
"""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
from ast import literal_eval
from pathlib import Path

KEPT = (
    "index-url",
    "extra-index-url",
    "find-links",
    "trusted-host",
    "proxy",
    "timeout",
    "default-timeout",
    "retries",
)
"""What says how to reach an index. `cert` as well, whose file is copied; anything else is no business of a build."""

INSIDE = "/run/site"
"""Where the build finds DIR."""


def configured(listing: str) -> dict[str, str]:
    """The settings in the output of `pip config list`, by their names. Variables count more than files, as in pip."""
    found: dict[str, str] = {}
    for line in sorted(listing.splitlines(), key=lambda line: line.startswith(":env:")):
        scope, _, rest = line.partition(".")
        name, _, value = rest.partition("=")
        if scope in ("global", ":env:", "install", "wheel"):
            found[name] = str(literal_eval(value))
    return found


def inside(value: str, volumes: dict[str, str]) -> str:
    """*value* with each directory that it names replaced by where the build finds it, which goes to *volumes*."""

    def place(match: re.Match[str]) -> str:
        directory = match["top"]
        volumes.setdefault(directory, f"{INSIDE}-{len(volumes)}")
        return f"{match['scheme'] or ''}{volumes[directory]}{match['rest']}"

    return re.sub(r"(?<!\S)(?P<scheme>file://)?(?P<top>/[^/\s]+/[^/\s]+)(?P<rest>\S*)", place, value)


def main() -> int:
    """Write the files, print the options."""
    directory = Path(sys.argv[1]).resolve()
    directory.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "config", "list"]
    settings = configured(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    volumes: dict[str, str] = {}
    kept = {name: inside(settings[name], volumes) for name in KEPT if settings.get(name)}
    if settings.get("cert"):
        shutil.copy(settings["cert"], directory / "ca.crt")
        kept["cert"] = f"{INSIDE}/ca.crt"
    parser = configparser.RawConfigParser()
    parser["global"] = kept
    with (directory / "pip.conf").open("w") as file:
        parser.write(file)
    (directory / "pip.conf").chmod(0o600)
    print(f"--secret=id=pip.conf,src={directory}/pip.conf")
    print(f"--volume={directory}:{INSIDE}:ro")
    for outside, where in volumes.items():
        print(f"--volume={outside}:{where}:ro")
    return 0


if __name__ == "__main__":
    sys.exit(main())
