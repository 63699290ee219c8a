"""The live page over a log that no guard writes, served as `guardfs serve` does it.

    python -m tests.support.page_server DIRECTORY AUDIT [PORT]

Says its address as that does, and ends with SIGTERM.
"""

from __future__ import annotations

import sys

import trio

from guardfs.serve.addresses import bound, listen, parse
from guardfs.serve.guards import Guards
from guardfs.serve.plan import Known
from guardfs.serve.server import serve_one, until_told


async def main(sessions: str, audit: str, port: str) -> None:
    listener = listen(parse(f"127.0.0.1:{port}", "PORT"))
    guards = Guards(lambda: [Known(sessions, audit=audit)])
    print(f"the page on http://{bound(listener)}/", flush=True)
    await until_told(guards, lambda stop: serve_one(guards, listener, ["web"], None, stop))


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else "0")
