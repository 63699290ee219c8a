"""HTML from trees of elements: every text and attribute is escaped, whatever it holds. Pure."""

from __future__ import annotations

from html import escape

from guardfs.audit.show import safe

_VOID = frozenset(("meta", "br", "hr", "input"))


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


Child = str | Markup | None


def tag(name: str, /, *children: Child, **attributes: str | int | bool | None) -> Markup:
    """One element. children: texts are escaped, `Markup` is not, None is left out. attributes: None and False are left
    out, True has no value; ``class_`` is ``class``, and ``_`` within a name is ``-``."""
    shown = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in _VOID:
        return Markup(f"<{name}{shown}>")
    return Markup(f"<{name}{shown}>{join(*children)}</{name}>")


def join(*children: Child) -> Markup:
    """Children without an element around them."""
    return Markup("".join(map(_child, children)))


def _child(child: Child) -> str:
    if child is None:
        return ""
    return child if isinstance(child, Markup) else escape(safe(child))


def _attribute(key: str, value: str | int | bool | None) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escape(safe(str(value)))}"'
