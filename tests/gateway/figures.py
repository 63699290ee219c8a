"""What gateway tests counted and measured, for the end of the test run's output: no test passes or fails by it."""

from __future__ import annotations

FIGURES: list[str] = []


def figure(line: str) -> None:
    """One line."""
    FIGURES.append(line)
