"""The page's own files, as they are served. Read once; a digest of each is its entity tag."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from guardfs import drawing

_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}

PAGE = "index.html"


class Asset(NamedTuple):
    """One file. tag: its entity tag, quoted."""

    body: bytes
    type: str
    tag: str


@cache
def assets() -> dict[str, Asset]:
    """All files by their names below ``static/``, `PAGE` among them."""
    found = {name: ("guardfs.drawing", name) for name in (*drawing.SCRIPTS, *drawing.STYLES)}
    own = (each.name for each in files(__package__).joinpath("page").iterdir())
    places = {f"drawing/{name}": place for name, place in found.items()}
    places |= {name: (f"{__package__}", f"page/{name}") for name in own if _kind(name) in _TYPES}
    return {name: _read(package, path) for name, (package, path) in places.items()}


def _read(package: str, path: str) -> Asset:
    body = files(package).joinpath(path).read_bytes()
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    return Asset(body, f"{_TYPES[_kind(path)]}; charset=utf-8", tag)


def _kind(name: str) -> str:
    return name.rpartition(".")[2]
