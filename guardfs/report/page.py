"""The page: one HTML file that needs nothing else, and lets nothing else in. Pure but for the package's own files."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from html import escape
from importlib.resources import files
from typing import NamedTuple

import msgspec

from guardfs import drawing
from guardfs.report import sections
from guardfs.report.collect import Collector
from guardfs.report.markup import Markup, join, tag
from guardfs.report.model import model

MARK = (
    b'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta name="generator" content="guardfs '
)
"""The first bytes of every report: by them one is recognised again."""


class Origin(NamedTuple):
    """Where the page comes from. files: names of the logs. made: when, UTC, for people. asked: the span and session
    that were asked for, in words. skipped: lines that are no events."""

    files: list[str]
    version: str
    made: str
    asked: str = ""
    skipped: int = 0


def page(found: Collector, origin: Origin) -> bytes:
    """The whole page, UTF-8."""
    drawn = model(found.pictures)
    script = f"{drawing.script()}\n{_file('page.js')}"
    style = f"{drawing.style()}\n{_file('page.css')}"
    allowed = ("default-src 'none'", "base-uri 'none'", "form-action 'none'")
    policy = "; ".join((*allowed, f"script-src {_hash(script)}", f"style-src {_hash(style)}"))
    sessions = drawn["sessions"]
    head = join(
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", sections.title(found)),
        tag("style", Markup(style)),
    )
    body = join(
        tag("a", "Skip to the pictures", class_="skip", href="#pictures"),
        sections.header(found, origin),
        tag(
            "main",
            sections.pictures(found, drawn),
            sections.incidents(found, sessions),
            sections.counts(found.counts),
            sections.about(found, origin, drawn),
        ),
        tag("script", Markup(_data(drawn)), type="application/json", id="model"),
        tag("script", Markup(script)),
    )
    start = MARK.decode() + f'{escape(origin.version)}">'
    return f"{start}{head}</head>\n<body>{body}</body></html>\n".encode()


def _data(drawn: dict[str, object]) -> str:
    """JSON that a script element can hold: nothing in it ends the element or begins a comment."""
    text = msgspec.json.encode(drawn).decode()
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


@cache
def _file(name: str) -> str:
    return files(__package__).joinpath(name).read_text("utf-8")
