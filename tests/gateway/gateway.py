"""One real OpenClaw gateway: prepares its state directory, starts it, talks to it, ends it.

    with ModelServer() as model, Gateway(install(), Path("state/.openclaw"), model) as gateway:
        print(gateway.turn("agent:main:demo", "hello [say=hi]").text)        # reply:hi

Its transcripts are in ``gateway.sessions``; a guard is mounted there before the gateway starts. A *prefix*
such as ``["guardfs", "run", "--sessions", DIR, "--"]`` starts the gateway under another command.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.gateway.install import Install
from tests.gateway.model import MODEL, ModelServer

TOKEN = "harness"  # guards nothing: the server listens on 127.0.0.1 for the length of a test
READY_SECONDS = 120.0
TURN_SECONDS = 180.0
STOP_SECONDS = 30.0
RELEASED_LOOKS = 8
HELD_LOOKS = 40


BROKEN = re.compile(
    "session file changed while embedded prompt lock was released|file lock stale for|session file locked"
)
"""What the gateway logs when a turn dies of its transcript or of its lock file."""

QUIET = {
    "OPENCLAW_SKIP_CHANNELS": "1",
    "OPENCLAW_NO_RESPAWN": "1",  # one process, whose id is the one that was started
    "OPENCLAW_DISABLE_BONJOUR": "1",
    "OPENCLAW_SKIP_GMAIL_WATCHER": "1",
    "OPENCLAW_SKIP_BROWSER_CONTROL_SERVER": "1",
    "NO_COLOR": "1",
    "CI": "1",
}
"""Variables for a gateway that has no channels and looks for nothing outside."""

_PROXIES = {"http_proxy", "https_proxy", "all_proxy"}


@dataclass(frozen=True)
class Turn:
    """What a turn came to. status: HTTP, 0 for no answer; text: of the reply or the error; seconds: it took."""

    status: int
    text: str
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether the model's own words came back; some deaths of a turn are answered with 200 and an apology."""
        return self.status == 200 and self.text.startswith(("reply:", "word0"))


class GatewayError(RuntimeError):
    """The gateway did not start or stop; carries the end of its log."""


class Gateway:
    """See the module. *state* is OpenClaw's state directory; its parent becomes the process's home."""

    def __init__(
        self,
        install: Install,
        state: Path,
        model: ModelServer,
        *,
        prefix: Sequence[str] = (),
        port: int | None = None,
    ) -> None:
        self.install = install
        self.state = state.resolve()
        self.model = model
        self.prefix = list(prefix)
        self.port = port or free_port()
        self.log = self.state / "gateway.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._pool = ThreadPoolExecutor(max_workers=16, thread_name_prefix="turn")
        self.sessions.mkdir(parents=True, exist_ok=True)
        (self.state / "workspace").mkdir(exist_ok=True)

    @property
    def sessions(self) -> Path:
        """The sessions directory of agent ``main``."""
        return self.state / "agents/main/sessions"

    def environment(self) -> dict[str, str]:
        """The gateway's environment; also right for ``openclaw`` commands beside it."""
        kept = {k: v for k, v in os.environ.items() if k.lower() not in _PROXIES}
        own = {
            "PATH": f"{self.install.node.parent}:{kept.get('PATH', os.defpath)}",
            "HOME": str(self.state.parent),
            "OPENCLAW_STATE_DIR": str(self.state),
            "OPENCLAW_CONFIG_PATH": str(self.state / "openclaw.json"),
            "OPENCLAW_GATEWAY_TOKEN": TOKEN,
        }
        return kept | QUIET | own

    def start(self) -> None:
        """Start and return when it is ready. Raises `GatewayError` if it ends, or is not ready in
        READY_SECONDS."""
        (self.state / "openclaw.json").write_text(json.dumps(self._config(), indent=2))
        self._index_plugins()
        run = self.install.command("gateway", "run", "--port", str(self.port), "--verbose")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*self.prefix, *run],
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that it can be ended with what its prefix started
            )
        try:
            wait_until(self._ready, READY_SECONDS, "the gateway was not ready")
        except (TimeoutError, GatewayError) as error:
            self.stop()
            raise GatewayError(f"{error}; its log ends with:\n{self.log_tail()}") from error

    def _index_plugins(self) -> None:
        """As every set-up does. Without the index the gateway looks for its plugins anew, several times in each turn:
        half of the turn's time."""
        words = self.install.command("plugins", "registry", "--refresh")
        done = subprocess.run(
            words, env=self.environment(), capture_output=True, text=True, timeout=READY_SECONDS
        )
        if done.returncode:
            raise GatewayError(f"openclaw plugins registry --refresh: {done.stdout}{done.stderr}")

    def stop(self) -> int | None:
        """End it with SIGTERM, with SIGKILL if that does not help; the exit status of what was started."""
        process, self.process = self.process, None
        if process is None:
            return None
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            status = process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            status = process.wait()
        self._pool.shutdown(wait=False, cancel_futures=True)
        return status

    def __enter__(self) -> Gateway:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def turn(self, key: str, message: str) -> Turn:
        """One turn of session *key* (``agent:main:NAME``) over the OpenAI-compatible endpoint; never raises."""
        begin = time.monotonic()
        body = {"model": "openclaw/main", "messages": [{"role": "user", "content": message}]}
        headers = {
            "authorization": f"Bearer {TOKEN}",
            "content-type": "application/json",
            "x-openclaw-session-key": key,
        }
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TURN_SECONDS)
        try:
            connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
            response = connection.getresponse()
            status, text = response.status, response.read().decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            return Turn(0, repr(error), time.monotonic() - begin)
        finally:
            connection.close()
        return Turn(status, _reply(text), time.monotonic() - begin)

    def turn_async(self, key: str, message: str) -> Future[Turn]:
        """The same in a thread; `ModelServer.wait_streaming` tells when its reply is under way."""
        return self._pool.submit(self.turn, key, message)

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """One request over its WebSocket, as its own clients make them: ``ask("chat.inject", sessionKey=KEY, ...)``.

        ``chat.send`` returns when the run has ended. Its payload; `GatewayError` if it was refused or failed.
        """
        client = Path(__file__).with_name("socket.mjs")
        done = subprocess.run(
            [str(self.install.node), str(client), str(self.port), method, json.dumps(params)],
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=TURN_SECONDS,
        )
        answer = json.loads(done.stdout or "null") or {"ok": False, "error": done.stderr}
        if not answer["ok"]:
            raise GatewayError(f"{method}: {answer['error']}")
        payload: dict[str, Any] = answer["payload"]
        return payload

    def session_file(self, key: str) -> Path | None:
        """The transcript of *key* as the registry ``sessions.json`` names it; it may not exist yet."""
        try:
            entry = json.loads((self.sessions / "sessions.json").read_bytes())[key.lower()]
        except (FileNotFoundError, KeyError):
            return None
        return Path(entry.get("sessionFile") or self.sessions / f"{entry['sessionId']}.jsonl")

    def errors(self) -> list[str]:
        """The lines of its log that tell of a turn lost to its transcript or lock file."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return [line for line in text.splitlines() if BROKEN.search(line)]

    def log_tail(self, lines: int = 20) -> str:
        """The end of its log."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def wait_quiet(self, deadline: float = 30.0) -> None:
        """Wait until no lock file is left: a turn goes on writing a little after its reply was delivered."""
        wait_until(lambda: not any(self.sessions.glob("*.lock")), deadline, "lock files remain")

    def wait_released(self, key: str, deadline: float = 60.0) -> bool:
        """Wait until the gateway has done with what it was told so far about *key*: it went round its event loop some
        times, and the transcript's lock file was away each time. It makes one for each piece of a reply.

        False where it is a release that keeps the lock file while the model answers, and did so.
        """
        looks = 0
        last = held = ""

        def settled() -> bool:
            nonlocal looks, last, held
            transcript = self.session_file(key)
            now = "" if transcript is None else _lock_of(transcript)
            if now != held:
                looks, held = 0, now
            if transcript is None:
                last = "the registry does not name its transcript"
            elif now and not self.install.holds_lock:
                last = f"{transcript.name}.lock is there"
            elif not self._answers():
                last = "the gateway does not answer"
            else:
                looks += 1
                return looks >= (HELD_LOOKS if now else RELEASED_LOOKS)
            looks = 0
            return False

        try:
            wait_until(settled, deadline, f"the lock file of {key} comes and goes")
        except TimeoutError as error:
            about = [line for line in self.log.read_text(errors="replace").splitlines() if key in line]
            raise TimeoutError(f"{error}: {last}\n" + "\n".join([*about[-5:], *self.errors()[-5:]])) from None
        return not held

    def _ready(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise GatewayError(f"the gateway ended with status {self.process.returncode}")
        if "[gateway] ready" not in self.log.read_text(errors="replace"):
            return False
        return self._answers()

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", "/healthz")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def _config(self) -> dict[str, Any]:
        free = {"input": 0, "output": 0, "cacheRead": 0, "cacheWrite": 0}
        model = {"id": MODEL, "name": "Fake", "reasoning": False, "input": ["text"], "cost": free}
        provider = {
            "baseUrl": f"http://127.0.0.1:{self.model.port}/v1",
            "apiKey": "none",
            "api": "openai-completions",
            "models": [{**model, "contextWindow": 200000, "maxTokens": 4096}],
        }
        return {
            "gateway": {
                "mode": "local",
                "bind": "loopback",
                "port": self.port,
                "auth": {"mode": "token", "token": TOKEN},
                "reload": {"mode": "off"},
                "http": {"endpoints": {"chatCompletions": {"enabled": True}}},
            },
            "models": {"mode": "replace", "providers": {"fake": provider}},
            "agents": {
                "defaults": {
                    "model": {"primary": f"fake/{MODEL}"},
                    "workspace": str(self.state / "workspace"),
                    "skipBootstrap": True,
                    "heartbeat": {"every": "0m"},
                }
            },
            "update": {"checkOnStart": False},
            "cron": {"enabled": False},
        }


def _lock_of(transcript: Path) -> str:
    """Which lock file *transcript* has, "" for none."""
    try:
        info = os.stat(f"{transcript}.lock")
    except FileNotFoundError:
        return ""
    return f"{info.st_ino} {info.st_mtime_ns}"


def _reply(body: str) -> str:
    try:
        value = json.loads(body)
        if "choices" not in value:
            return str(value.get("error", value))
        return str(value["choices"][0]["message"]["content"])
    except (ValueError, LookupError, TypeError, AttributeError):
        return body[:300]


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], bool], deadline: float, otherwise: str) -> None:
    """Return once *condition* holds; TimeoutError("*otherwise* in ... s") after *deadline* seconds."""
    end = time.monotonic() + deadline
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{otherwise} in {deadline:g} s")
        time.sleep(0.02)
