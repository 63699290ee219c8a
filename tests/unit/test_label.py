"""What a lane is called while no policy names it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardfs.lanes.label import lane_of
from guardfs.lanes.writer import Known, Process, Writer


def writer(
    exe: str | None, *args: str, comm: str = "", known: Known = "ok", main: bool = True, facts: bool = True
) -> Writer:
    process = Process(
        tgid=2, start=1, exe=exe, args=args, parents=(), cgroup=None, container=None, runtime=None, pidns=None
    )
    return Writer(2 if main else 3, 2, main, comm, 0, 0, known, process if facts else None)


NODE, PYTHON, JAVA = "/usr/local/bin/node", "/usr/bin/python3.11", "/usr/lib/jvm/java-21/bin/java"

PROGRAMS = [
    # what is not an interpreter is itself
    ("/usr/bin/rsync", ["rsync", "-a", "x", "y"], "rsync"),
    ("/usr/bin/rsync (deleted)", ["rsync"], "rsync"),
    ("/opt/my tool/back up!", ["x"], "back-up"),
    ("/usr/bin/python-config", ["python-config"], "python-config"),
    ("/usr/bin/nodejs-helper", ["nodejs-helper"], "nodejs-helper"),
    # titles
    (NODE, ["openclaw"], "openclaw"),
    (NODE, ["openclaw-gateway"], "openclaw-gateway"),
    (NODE, ["openclaw: agent", "x"], "openclaw"),
    # node, deno, bun
    (NODE, ["node", "/srv/bot.mjs", "gateway"], "bot"),
    (NODE, ["node", "--inspect", "--require", "/x/hook.js", "/srv/sync-all.js"], "sync-all"),
    (NODE, ["/usr/local/bin/node", "/usr/lib/node_modules/openclaw/dist/index.js"], "openclaw"),
    (NODE, ["node", "-e", "code()"], "node"),
    (NODE, ["node"], "node"),
    ("/usr/bin/deno", ["deno", "run", "--allow-all", "main.ts"], "main"),
    ("/usr/bin/bun", ["bun", "/srv/tool.ts"], "tool"),
    # python
    (PYTHON, ["python3", "-u", "-X", "dev", "/opt/watchdog.py", "-m", "no"], "watchdog"),
    (PYTHON, ["python3", "-m", "http.server", "80"], "http.server"),
    (PYTHON, ["python3", "-Im", "tool.__main__"], "tool"),
    (PYTHON, ["python3", "-mtool"], "tool"),
    (PYTHON, ["python3", "-c", "import os"], "python3.11"),
    (PYTHON, ["/usr/bin/python3", "/usr/bin/guardfs", "mount"], "guardfs"),
    (PYTHON + " (deleted)", ["python3", "x.py"], "x"),
    # shells
    ("/usr/bin/bash", ["-bash"], "bash"),
    ("/usr/bin/bash", ["bash", "-eu", "/etc/cron.daily/backup.sh"], "backup"),
    ("/usr/bin/bash", ["bash", "-o", "pipefail", "job"], "job"),
    ("/usr/bin/bash", ["bash", "-lc", "echo x >> f"], "bash"),
    ("/usr/bin/dash", ["sh", "-c", "echo x >> f"], "dash"),
    ("/usr/bin/dash", ["/bin/sh", "./rotate"], "rotate"),
    ("/usr/bin/dash", ["/bin/sh", "--", "-odd"], "-odd".strip("-")),
    # the others
    ("/usr/bin/perl", ["perl", "-w", "-I", "lib", "bin/clean.pl"], "clean"),
    ("/usr/bin/ruby3.1", ["ruby", "sync.rb"], "sync"),
    (JAVA, ["java", "-Xmx1g", "-cp", "a:b", "org.example.Importer", "x"], "Importer"),
    (JAVA, ["java", "-jar", "/opt/indexer.jar"], "indexer"),
    # nothing to go by
    (NODE, [], "node"),
    (PYTHON, ["", ""], "python3.11"),
    (PYTHON, ["python3", "-"], "python3.11"),
]


@pytest.mark.parametrize(("exe", "args", "lane"), PROGRAMS)
def test_what_is_run(exe: str, args: list[str], lane: str) -> None:
    assert lane_of(writer(exe, *args)) == lane


def test_a_title_that_only_the_thread_name_shows() -> None:
    assert lane_of(writer(NODE, "node", comm="openclaw")) == "openclaw"
    assert lane_of(writer(NODE, "node", comm="MainThread")) == "node"
    assert lane_of(writer(NODE, "node", comm="libuv-worker", main=False)) == "node"


@pytest.mark.parametrize("known", ["kernel", "outside", "exited"])
def test_what_stands_for_itself(known: Known) -> None:
    assert lane_of(writer(None, comm="x", known=known, facts=False)) == known


def test_a_hidden_executable_is_called_by_its_thread() -> None:
    assert lane_of(writer(None, "secret", comm="cron job", known="hidden")) == "cron-job"
    assert lane_of(writer(None, comm="", known="hidden", facts=False)) == "hidden"


def test_a_name_without_one_good_character() -> None:
    assert lane_of(writer("/bin/☃", comm="☃")) == "unnamed"
    assert lane_of(writer("/bin/☃", comm="snow")) == "snow"


@given(st.text(), st.lists(st.text(), max_size=6), st.sampled_from([NODE, PYTHON, JAVA, "/bin/bash", ""]))
def test_a_lane_is_one_clean_word(name: str, args: list[str], exe: str) -> None:
    lane = lane_of(writer(exe + name, *args, comm=name))
    assert re.fullmatch(r"[A-Za-z0-9_.:@+-]+", lane)
    assert re.fullmatch(r"[A-Za-z0-9_.:@+-]+", lane_of(writer(exe, *args, comm=name)))
