"""Columns for people: aligned, cut or wrapped to the terminal, never painted where there are no colours."""

from __future__ import annotations

import io

import pytest

from guardfs.cli.table import HELD, Column, Part, Table, columns_of, painted

COLUMNS = (Column("A"), Column("N", right=True), Column("REST", second=True))


def printed(
    rows: list[tuple[str, str, str]], *, colour: bool = False, width: int | None = None, cut: bool = False
) -> str:
    out = io.StringIO()
    table = Table(COLUMNS, colour=colour, width=width, cut=cut, out=out)
    for row in rows:
        table.row([Part(row[0], "31"), Part(row[1]), [Part(row[2]), Part("!", "2")]])
    table.flush()
    return out.getvalue()


ROWS = [("a", "1", "short"), ("longer", "100", "long " * 6)]


def test_columns_are_aligned_and_no_blank_stands_at_the_end() -> None:
    assert printed(ROWS) == (
        "A         N  REST\n"
        "a         1  short!\n"
        "longer  100  long long long long long long !\n"
    )  # fmt: skip


def test_where_the_terminal_is_too_narrow_the_last_columns_go_to_a_second_line() -> None:
    assert printed(ROWS, width=40).splitlines() == [
        "A         N", "    REST", "a         1", "    short!", "longer  100", "    long long long long long long !",
    ]  # fmt: skip


def test_a_second_line_without_anything_is_left_out() -> None:
    out = io.StringIO()
    table = Table((Column("A"), Column("", second=True)), colour=False, width=10, out=out)
    for note in ("a note", ""):
        table.row([Part("x" * 9), [Part(note)] if note else []])
    table.flush()
    assert out.getvalue().splitlines() == ["A", "xxxxxxxxx", "    a note", "xxxxxxxxx"]


def test_lines_that_are_too_long_all_the_same_can_be_cut() -> None:
    assert printed(ROWS, width=10, cut=True).splitlines() == [
        "A        …",
        "    REST",
        "a        …",
        "    short!",
        "longer  1…",
        "    long …",
    ]


def test_colours_count_for_no_width() -> None:
    line = printed(ROWS[:1], colour=True, width=12, cut=True).splitlines()[1]
    assert line == "\x1b[31ma\x1b[0m  1  short\x1b[2m!\x1b[0m"


def test_nothing_is_printed_without_a_row() -> None:
    assert printed([]) == ""


def test_rows_are_held_back_until_the_widths_are_known_and_no_longer() -> None:
    out = io.StringIO()
    table = Table((Column("A"), Column("B")), colour=False, width=None, out=out)
    for number in range(HELD):
        assert out.getvalue() == ""
        table.row([Part("x" * (number % 7)), Part("y")])
    assert len(out.getvalue().splitlines()) == HELD + 1
    table.row([Part("x" * 20), Part("y")])
    assert out.getvalue().splitlines()[-1] == "x" * 20 + "  y"


@pytest.mark.parametrize(("text", "width"), [("abc", 3), ("äöü", 3), ("漢字", 4), ("e\u0301", 1), ("", 0)])
def test_widths(text: str, width: int) -> None:
    assert columns_of(text) == width


def test_wide_characters_are_never_cut_in_half() -> None:
    assert painted([Part("漢字漢字")], False, 5) == "漢字…"
    assert painted([Part("漢字漢字")], False, 4) == "漢…"
    assert painted([Part("漢字")], False, 4) == "漢字"
