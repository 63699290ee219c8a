"""Options that `mount` and `run` share, and what they become."""

from __future__ import annotations

import itertools
import math
import os
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import click

from guardfs.errors import GuardError
from guardfs.mount.config import PolicyOptions
from guardfs.policy.effective import Overrides
from guardfs.serve.plan import Plan, others_read, plan_of
from guardfs.state.directory import RESERVED, default_state_dir
from guardfs.supervise import places
from guardfs.supervise.finding import Finder, is_pattern
from guardfs.supervise.guard import Settings
from guardfs.supervise.say import say
from guardfs.supervise.takeover import MAX_DEATHS, MIN_WATCHDOG, WATCHDOG, Care

F = TypeVar("F", bound=Callable[..., Any])

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


class Size(click.ParamType):  # type: ignore[type-arg]
    """A number of bytes: 64M, 1G, 500000."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number of bytes."""
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"(\d+)\s*([kmg]?)(i?b)?", value.strip().lower())
        if not match or not 0 < int(match[1]) * _UNITS[match[2]] <= 1 << 50:
            self.fail(f"{value!r} is no size; write it like 64M")
        return int(match[1]) * _UNITS[match[2]]


def guard_options(function: F) -> F:
    """Add the options of a guard to a command."""
    for option in reversed(
        [
            click.option(
                "--state",
                metavar="DIR",
                help="What must survive a restart. Default: below /var/lib/guardfs. With several directories: "
                "one in it for each.",
            ),
            click.option(
                "--audit",
                metavar="FILE",
                help="The audit log. Default: audit.jsonl in the state directory. With several directories: "
                "one beside it for each.",
            ),
            click.option(
                "--policy",
                metavar="NAME|FILE",
                default="record",
                show_default=True,
                help="Who is who. A shipped policy by its name (`guardfs policy list`), or a file, which is followed.",
            ),
            click.option(
                "--mode",
                type=click.Choice(["record", "enforce"]),
                help="Record only, or enforce. Default: the policy's.",
            ),
            click.option(
                "--audit-level",
                type=click.Choice(["changes", "transcripts", "all"]),
                help="changes: what changes files. transcripts: also opens of and looks at transcripts and locks. "
                "Default: the policy's.",
            ),
            click.option(
                "--audit-required/--no-audit-required",
                default=None,
                help="Changes fail with EIO while the log cannot be written. Default: the policy's.",
            ),
            click.option(
                "--audit-hash-ids/--no-audit-hash-ids",
                default=None,
                help="Replace session keys and user ids in the log by keyed hashes. Default: the policy's.",
            ),
            click.option(
                "--audit-size",
                type=Size(),
                help="Rotate the log at this size. Default: the policy's.",
            ),
            click.option(
                "--audit-keep",
                type=click.IntRange(0, 1000),
                help="Rotated logs to keep. Default: the policy's.",
            ),
            click.option(
                "--timeout",
                type=click.FloatRange(0, 86400),
                default=10.0,
                show_default=True,
                help="Seconds to wait for a moment without lock files, before mounting and unmounting.",
            ),
            click.option(
                "--force", is_flag=True, help="Mount and unmount at once; a turn in flight may fail."
            ),
            click.option(
                "--watchdog",
                type=click.FloatRange(0, 3600),
                default=WATCHDOG,
                show_default=True,
                metavar="SECONDS",
                help="A daemon that does not answer for so long is replaced. 0: never.",
            ),
            click.option(
                "--on-failure",
                type=click.Choice(["open", "closed"]),
                default="open",
                show_default=True,
                help="When daemons keep dying. open: leave the plain directory, unguarded. closed: let nobody at it, "
                "and stop the command.",
            ),
            click.option(
                "--max-deaths",
                type=click.IntRange(1, 100_000),
                default=MAX_DEATHS,
                show_default=True,
                metavar="N",
                help="So many deaths of the daemon within a minute are that.",
            ),
            click.option(
                "--metrics",
                metavar="HOST:PORT",
                help="Serve metrics for Prometheus there, as 127.0.0.1:9464; also /healthz and /readyz.",
            ),
            click.option("--web", metavar="HOST:PORT", help="Serve the live page there, as 127.0.0.1:8470."),
            click.option(
                "--web-token-file",
                metavar="FILE",
                help="Every request to --web and --metrics needs the token in FILE. Without one, only loopback "
                "addresses are served.",
            ),
            click.option("--verbose", "-v", is_flag=True, help="Say more on standard error."),
        ]
    ):
        function = option(function)
    return function


def wanted_plan(options: dict[str, Any]) -> Plan | None:
    """What is to be served beside the guard; None for nothing. GuardError with one line where it cannot be."""
    token_file = options["web_token_file"]
    plan = plan_of(options["metrics"], options["web"], token_file)
    if not plan.addresses():
        if token_file is not None:
            raise GuardError(
                f"--web-token-file {token_file}: for what?", "name an address with --web or --metrics"
            )
        return None
    if token_file is not None and others_read(token_file):
        say(f"{token_file}: every user may read the token; chmod go-rwx {token_file}")
    return plan


class Wanted(NamedTuple):
    """What is to be guarded now, and what finds more of it later."""

    settings: list[Settings]
    finder: Finder | None


def wanted(named: Sequence[str], options: dict[str, Any]) -> Wanted:
    """Check what was asked for; GuardError with one line where it cannot be. named: directories and patterns."""
    if not math.isfinite(options["timeout"]):
        raise GuardError(f"--timeout {options['timeout']}: not a time", "name a number of seconds")
    policy = _policy(options)
    patterns = [each for each in named if is_pattern(each)]
    several = len(named) > 1 or bool(patterns)

    def settings_of(path: str) -> Settings:
        return _settings(path, options, policy, several)

    finder = Finder(patterns, settings_of) if patterns else None
    paths = [each for each in named if each not in patterns] + (finder.now() if finder is not None else [])
    found = list({each.sessions: each for each in map(settings_of, paths)}.values())
    for outer, inner in itertools.permutations((each.sessions for each in found), 2):
        if inner.startswith(outer + "/"):
            raise GuardError(f"{inner}: lies in {outer}", "one guard is enough: name the outer one")
    if finder is not None and not found:
        say(f"{', '.join(patterns)}: no such directory yet")
    return Wanted(found, finder)


def _settings(sessions: str, options: dict[str, Any], policy: PolicyOptions, several: bool) -> Settings:
    """For one directory. several: it is one of some, which share the options; each has a part of its own of them."""
    if places.clear_dead_mount(sessions):
        say(f"{sessions}: a dead mount was cleared away")
    real = places.sessions_directory(sessions)
    own = os.path.basename(default_state_dir(real))
    state = options["state"]
    if state is None:
        state = default_state_dir(real)
    elif several:
        state = os.path.join(state, own)
    state = places.outside(state, real, "the state directory would lie", "--state")
    if os.path.exists(state) and not os.path.isdir(state):
        raise GuardError(f"{state}: not a directory", "name a directory with --state")
    audit = options["audit"]
    if audit is None:
        audit = os.path.join(state, "audit.jsonl")
    else:
        if several:
            stem, suffix = os.path.splitext(audit)
            audit = f"{stem}-{own}{suffix}"
        audit = places.outside(audit, real, "the audit log would lie", "--audit")
        if audit in [os.path.join(state, name) for name in RESERVED]:
            raise GuardError(
                f"{audit}: the guard keeps something else there", "name another file with --audit"
            )
        places.audit_log(audit)
    if policy.path is not None:
        places.outside(policy.path, real, "the policy would lie", "--policy")
    return Settings(
        sessions=real,
        state=state,
        audit=audit,
        policy=policy,
        timeout=options["timeout"],
        force=options["force"],
        verbose=options["verbose"],
        care=_care(options),
    )


def _care(options: dict[str, Any]) -> Care:
    watchdog = options["watchdog"]
    if not math.isfinite(watchdog) or 0 < watchdog < MIN_WATCHDOG:
        raise GuardError(
            f"--watchdog {watchdog}: too short", f"name at least {MIN_WATCHDOG:g} seconds, or 0 for none"
        )
    return Care(watchdog, options["on_failure"], options["max_deaths"])


def _policy(options: dict[str, Any]) -> PolicyOptions:
    """Load the policy; what it says oddly is said, what it says wrongly is an error."""
    from guardfs.policy.load import load

    loaded = load(options["policy"])
    path = loaded.path if loaded.path is None or loaded.shipped else os.path.abspath(loaded.path)
    for problem in loaded.warnings:
        say(problem.text(loaded.source))
    over = Overrides(
        mode=options["mode"],
        level=options["audit_level"],
        required=options["audit_required"],
        hash_ids=options["audit_hash_ids"],
        max_bytes=options["audit_size"],
        keep=options["audit_keep"],
    )
    return PolicyOptions(loaded.policy, loaded.source, None if loaded.shipped else path, loaded.digest, over)
