"""A model server that speaks the OpenAI chat completions protocol and says what the message tells it to.

Markers in the user's message steer the reply (the last of a kind counts):

    [seconds=S]          stream for S seconds (default 0.3)
    [chunks=N]           in N pieces (default 8)
    [hold=N]             after N pieces, wait until the test calls `ModelServer.release` (programs: for ever)
    [say=WORD]           answer exactly ``reply:WORD``
    [tool=NAME {json}]   call tool NAME first; several are called one after the other, then the text follows
    [http=STATUS]        fail with this HTTP status

    python -m tests.gateway.model [--port P] [--log FILE]      prints the port; one JSON line a request start
    and end
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TextIO

MODEL = "fake-1"


@dataclass
class Plan:
    """What one request shall be answered: read from the messages' markers."""

    message: str
    seconds: float = 0.3
    chunks: int = 8
    text: str = ""
    hold: int | None = None
    status: int | None = None
    call: tuple[str, Any] | None = None

    @classmethod
    def of(cls, messages: list[dict[str, Any]]) -> Plan:
        """Markers count in every user message since the last plain answer: the gateway may add one of its own
        after the user's. Tools already called since then are not called again."""

        def said(message: dict[str, Any], by: str) -> bool:
            return bool(message.get("role") == by)

        plain = [n for n, m in enumerate(messages) if said(m, "assistant") and not m.get("tool_calls")]
        since = messages[plain[-1] + 1 if plain else 0 :]
        message = "\n".join(_text(m.get("content")) for m in since if said(m, "user"))
        plan = cls(message)

        def marker(name: str, cast: Callable[[str], Any], default: Any) -> Any:
            found = re.findall(rf"\[{name}=([^\]\s]+)\]", message)
            return cast(found[-1]) if found else default

        plan.seconds = marker("seconds", float, plan.seconds)
        plan.chunks = max(1, marker("chunks", int, plan.chunks))
        plan.hold = marker("hold", int, None)
        plan.status = marker("http", int, None)
        word = marker("say", str, None)
        plan.text = f"reply:{word}" if word else " ".join(f"word{n}" for n in range(plan.chunks))
        calls = [
            (found[1], json.JSONDecoder().raw_decode(message, found.end())[0])
            for found in re.finditer(r"\[tool=(\w+) ", message)
        ]
        called = sum(1 for m in since if said(m, "assistant") and m.get("tool_calls"))
        plan.call = calls[called] if called < len(calls) else None
        return plan


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "\n".join(part.get("text", "") for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


@dataclass
class Request:
    """One request: when its reply began and ended (``time.monotonic()``), and whether the gateway hung up.
    held: the reply has come to where it waits for `ModelServer.release`."""

    message: str
    began: float = field(default_factory=time.monotonic)
    ended: float | None = None
    aborted: bool = False
    held: bool = False


class ModelServer:
    """The server, on 127.0.0.1, in threads of this process. A context manager; *port* 0: any free one."""

    def __init__(self, port: int = 0, log: TextIO | None = None) -> None:
        self.requests: list[Request] = []
        self._changed = threading.Condition()
        self._released: set[str] = set()
        self._log = log
        self._http = _Http(("127.0.0.1", port), type("Handler", (_Handler,), {"owner": self}))
        serve = self._http.serve_forever
        self._thread = threading.Thread(target=serve, args=(0.05,), name="model", daemon=True)

    @property
    def port(self) -> int:
        return int(self._http.server_address[1])

    def __enter__(self) -> ModelServer:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.release("")
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def wait_streaming(self, word: str, deadline: float = 60.0) -> Request:
        """Return as soon as a reply to a message that contains *word* has its first bytes under way.

        Raises TimeoutError after *deadline* seconds.
        """
        return self._wait(word, lambda request: True, deadline)

    def wait_held(self, word: str, deadline: float = 60.0) -> Request:
        """The same, once the reply has come to its ``[hold=N]``."""
        return self._wait(word, lambda request: request.held, deadline)

    def release(self, word: str) -> None:
        """Replies to messages that contain *word* are not held any more, now and later."""
        with self._changed:
            self._released.add(word)
            self._changed.notify_all()

    def hold(self, request: Request) -> None:
        """Return when *request* is released; called by the handlers."""

        def released() -> bool:
            return any(word in request.message for word in self._released)

        with self._changed:
            request.held = True
            self._changed.notify_all()
            self._changed.wait_for(released)

    def _wait(self, word: str, wanted: Callable[[Request], bool], deadline: float) -> Request:
        found: list[Request] = []

        def look() -> bool:
            found[:] = [request for request in self.requests if word in request.message and wanted(request)]
            return bool(found)

        with self._changed:
            if not self._changed.wait_for(look, deadline):
                raise TimeoutError(f"no request for {word!r} reached the model server in {deadline:g} s")
        return found[-1]

    def note(self, request: Request) -> None:
        """A request began or ended; called by the handlers."""
        with self._changed:
            if request.ended is None:
                self.requests.append(request)
            if self._log:
                event = "end" if request.ended is not None else "start"
                line = {"event": event, "message": request.message[-400:], "aborted": request.aborted}
                self._log.write(json.dumps(line) + "\n")
                self._log.flush()
            self._changed.notify_all()


class _Http(ThreadingHTTPServer):
    daemon_threads = True

    # A gateway that was ended leaves its connections reset: no reason to print a traceback.
    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: ModelServer

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._json(200, {"object": "list", "data": [{"id": MODEL, "object": "model"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))) or b"{}")
        plan = Plan.of(body.get("messages", []))
        request = Request(plan.message)
        try:
            if plan.status:
                self.owner.note(request)
                error = {"message": "the message asked for it", "type": "server_error"}
                self._json(plan.status, {"error": error})
            elif body.get("stream"):
                self._stream(plan, request)
            else:
                self.owner.note(request)
                time.sleep(plan.seconds)
                choice = {"index": 0, "message": _whole(plan), "finish_reason": _reason(plan)}
                self._json(200, {**_envelope("chat.completion"), "choices": [choice], "usage": _usage(plan)})
        except (BrokenPipeError, ConnectionResetError):
            request.aborted = True
            self.close_connection = True
        finally:
            request.ended = time.monotonic()
            self.owner.note(request)

    def _stream(self, plan: Plan, request: Request) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        self._delta({"role": "assistant", "content": ""})
        self.owner.note(request)  # only now: "the reply is streaming" must be true when a test hears of it
        if plan.call:
            self._delta({"tool_calls": [_call(plan.call)]})
        else:
            pieces = _pieces(plan.text, plan.chunks)
            for number, piece in enumerate(pieces):
                if plan.hold == number:
                    self.owner.hold(request)
                time.sleep(plan.seconds / len(pieces))  # the duration that the message asked for
                self._delta({"content": piece})
        self._delta({}, _reason(plan))
        self._event(json.dumps({**_envelope(), "choices": [], "usage": _usage(plan)}))
        self._event("[DONE]")
        self.wfile.write(b"0\r\n\r\n")

    def _delta(self, delta: dict[str, Any], reason: str | None = None) -> None:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        self._event(json.dumps({**_envelope(), "choices": [choice]}))

    def _event(self, text: str) -> None:
        data = f"data: {text}\n\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def _json(self, status: int, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _pieces(text: str, number: int) -> list[str]:
    """*text* cut in *number* pieces; in fewer only where it is too short."""
    number = min(number, len(text))
    return [text[len(text) * n // number : len(text) * (n + 1) // number] for n in range(number)]


def _envelope(kind: str = "chat.completion.chunk") -> dict[str, Any]:
    return {"id": "chatcmpl-fake", "object": kind, "created": int(time.time()), "model": MODEL}


def _call(call: tuple[str, Any]) -> dict[str, Any]:
    name, arguments = call
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {"index": 0, "id": f"call_{time.monotonic_ns():x}", "type": "function", "function": function}


def _whole(plan: Plan) -> dict[str, Any]:
    if plan.call:
        return {"role": "assistant", "content": None, "tool_calls": [_call(plan.call)]}
    return {"role": "assistant", "content": plan.text}


def _reason(plan: Plan) -> str:
    return "tool_calls" if plan.call else "stop"


def _usage(plan: Plan) -> dict[str, int]:
    prompt = len(plan.message) // 4 + 1
    return {"prompt_tokens": prompt, "completion_tokens": plan.chunks, "total_tokens": prompt + plan.chunks}


def main() -> None:
    """Serve until interrupted; the first line of the output is the port."""
    parser = argparse.ArgumentParser(description="fake model server on 127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--log", type=argparse.FileType("a"))
    args = parser.parse_args()
    with ModelServer(args.port, args.log) as server:
        print(server.port, flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            pass


if __name__ == "__main__":
    main()
