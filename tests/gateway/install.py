"""Puts Node 24 and one release of OpenClaw from the npm registry into a cache directory, once.

Layout: ``CACHE/node-24/node_modules/node/bin/node`` and
``CACHE/openclaw-VERSION/node_modules/openclaw/openclaw.mjs``; about 720 MB together.
CACHE is ``$GUARDFS_CACHE``, or ``guardfs`` below ``$XDG_CACHE_HOME`` (``~/.cache``).

    python -m tests.gateway.install [VERSION]
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from guardfs.errors import GuardError

MEASURED = "2026.5.20"
"""The release that the guard's field facts were measured on."""

VERSION = os.environ.get("GUARDFS_OPENCLAW") or MEASURED
"""The release under test."""

HOLDS_LOCK_SINCE = (2026, 7)
"""Releases from here on keep the lock file of a transcript while the model answers (seen with 2026.7.35)."""

NODE = "24"
"""Major version of Node: what OpenClaw 2026.5 was measured with; its package refuses anything below 22."""

NPM_SECONDS = 900
"""How long one `npm install` may take. A minute is usual; a slow link is not an error."""

PING = "see whether the npm registry answers: npm ping"


@dataclass(frozen=True)
class Install:
    """An installed OpenClaw. node: the interpreter; entry: the script to give it; version: of OpenClaw."""

    node: Path
    entry: Path
    version: str

    @property
    def holds_lock(self) -> bool:
        """Whether a run keeps its transcript's lock file while the model answers."""
        return tuple(int(part) for part in self.version.split(".")[:2]) >= HOLDS_LOCK_SINCE

    def command(self, *args: str) -> list[str]:
        """The argument list that runs ``openclaw ARGS``."""
        return [str(self.node), str(self.entry), *args]


def cache_directory() -> Path:
    """Where installations are kept; not created."""
    chosen = os.environ.get("GUARDFS_CACHE")
    if chosen:
        return Path(chosen).resolve()
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "guardfs"


def install(
    version: str = VERSION, cache: Path | None = None, say: Callable[[str], None] | None = None
) -> Install:
    """Install what is not installed yet and return where it is. *say* gets one line before each download.

    Safe to call from several processes at once: one installs, the others wait for its lock.

    Raises `GuardError` where npm is missing, the cache cannot be written or the registry does not answer.
    """
    cache = cache or cache_directory()
    say = say or _to_stderr
    node_dir, claw_dir = cache / f"node-{NODE}", cache / f"openclaw-{version}"
    node = node_dir / "node_modules/node/bin/node"
    entry = claw_dir / "node_modules/openclaw/openclaw.mjs"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with _lock(cache / "install.lock"):
            _npm_install(f"node@{NODE}", node_dir, node, None, say)
            _npm_install(f"openclaw@{version}", claw_dir, entry, node.parent, say)
    except OSError as error:
        what = f"{error.filename or cache}: {error.strerror}"
        raise GuardError(what, "set GUARDFS_CACHE to a directory that can be written") from error
    return Install(node, entry, version)


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def _npm_install(
    package: str, target: Path, proof: Path, first_in_path: Path | None, say: Callable[[str], None]
) -> None:
    """Install *package* so that *target* either holds all of it (and *proof* exists) or does not exist."""
    if proof.exists():
        return
    npm = shutil.which("npm")
    if npm is None:
        raise GuardError("npm: not found", "install it (Debian, Ubuntu: apt-get install npm)")
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(target, ignore_errors=True)
    partial.mkdir(parents=True)
    say(f"installing {package} from the npm registry into {target}")
    environment = dict(os.environ)
    if first_in_path:  # install scripts of OpenClaw's dependencies must see the Node that will run them
        environment["PATH"] = f"{first_in_path}:{environment.get('PATH', os.defpath)}"
    command = [npm, "install", "--no-audit", "--no-fund", "--loglevel=error"]
    command += ["--prefix", str(partial), package]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=NPM_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise GuardError(f"npm install {package}: not done after {NPM_SECONDS} s", PING) from error
    if done.returncode:
        raise GuardError(f"npm install {package}: {_reason(done.stderr)}", PING)
    if not (partial / proof.relative_to(target)).exists():
        raise GuardError(f"npm install {package}: no {proof.name} in the package", "choose another version")
    partial.rename(target)


def _reason(stderr: str) -> str:
    """The first line in which npm says why, without its decoration."""
    bare = [line.removeprefix("npm error").strip().removeprefix("notarget ") for line in stderr.splitlines()]
    noise = ("code ", "errno ", "syscall ", "npm warn", "A complete log")
    said = [line[:200] for line in bare if line and not line.startswith(noise)]
    return said[0] if said else "failed without saying why"


def main() -> int:
    """Install, print where it is."""
    try:
        found = install(sys.argv[1] if len(sys.argv) > 1 else VERSION)
    except GuardError as error:
        print(f"install: {error}", file=sys.stderr)
        return error.exit_status
    print(f"openclaw {found.version}: {found.node} {found.entry}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
