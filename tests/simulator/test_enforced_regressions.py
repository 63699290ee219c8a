"""The shortest stories that once broke something, each named for what it shows."""

from __future__ import annotations

import pathlib

import pytest

from tests.simulator.enforced_stories import play

STORIES = {
    "a second agent goes on seeing no file while the first has one in mind, too": (
        ["turn", "local"], b"", False),
    "what comes between the look that a turn relies on and the release of its lock waits": (
        ["turn", "held open"], b"2\x12", True),
    "what comes between a turn's first read and its first record waits": (
        ["held open", "local"], b"\x17\x11", True),
    "a replacement between a turn's first read and its first record waits": (
        ["turn", "tool turn", "rename over"], b"-\x06", True),
    "a file that is made between a look that finds none and the release of the lock waits": (
        ["turn", "append"], b"\x01\x00\x00\x00\x01", False),
    "the same where the name is taken away under the turn's first read": (
        ["turn", "rename away", "rename over"], b"\x00\x01\x01\x02,\x01\x00\x01", True),
    "what a run writes past its lock is forgiven also where its file has lost its name": (
        ["short turn", "/new", "control"], b"\x00\x01\x01\x02\x00", True),
    "a fence that opens on a branch stays on that branch": (
        ["turn", "mirror", "local"], b"\x0b ", False),
    "a note by another lane of a second agent's process is none of its run's": (
        ["turn", "mirror", "local"], b"\x0b \x0b", False),
    "what is forgiven is so also where the kernel asks twice": (
        ["honest", "short turn", "control"], b"\x01\x01\x01", True),
    "a look counts though the kernel asks once, the guard having told it to forget the name": (
        ["turn", "turn", "empty", "link"], b"", True),
    "whoever is sent past a file that has lost its name comes back to it": (
        ["turn", "compact lines", "held open"], b"", True),
    "what is written to the branch of a fence that has closed is in it": (
        ["compaction", "turn", "unlink", "local"],
        b";\x12+\x0f#/\x1e\x07\x17\x1a.\x08\x0b(:\x10%\x04\x01\x01%", True),
    "a file that the kernel knows by a branch only keeps its owner when its name goes": (
        ["turn", "/new", "control", "local"], b"*##\x0b\x02\x0e'+\x06\x11)", True),
    "what was copied from a file that has lost its name is not carried on as well": (
        ["turn", "compact lines", "compact lines"], b"", True),
    "what a run writes in its lock, behind the look that it relies on, is forgiven": (
        ["short turn", "control"], b"\x00" * 12 + b"\x01\x01", True),
    "a header for a note stays where it was made, though its process's run is silent": (
        ["turn", "16 minutes", "mirror"], b"\x10\x1e\x15*\x06\x13\x1e", False),
    "what a run writes under the lock of a note that was just to be taken is forgiven": (
        ["turn", "mirror", "control"], b"\x00\x00\x00", True),
    "the same of a turn that has made its file": (
        ["turn", "mirror", "control"], b"\x00\x01\x00", False),
    "a second agent's end leaves the order of a note and of what its run wrote": (
        ["turn", "mirror", "local", "mirror"], b"\x01\x02", False),
    "whoever was told to look again has done so, though what it found was renamed meanwhile": (
        ["turn", "compact lines", "append", "rename away"], b"", True),
    "what a note has made while its process's run is silent the next note finds": (
        ["16 minutes", "mirror", "turn", "mirror"], b"\x00\x02\x02\x02\x02", False),
    "a run that has looked at one record past its lock, and not at the next, finds what it looked at": (
        ["turn", "own write outside", "control", "mirror"], b"\x00\x03\x00", False),
    "attributes that were changed by an old look at the file are kept from the owner": (
        ["turn", "/new", "chmod", "chmod"], b"\x00\x00\x00\x00\x00\x00\x02\x02\x02\x03\x03", True),
    "whoever has found a file that is written anew before it opens it comes to the new one": (
        ["turn", "append", "compaction", "empty"],
        b"\x01\x02\x02\x02\x02\x02\x02\x02\x03\x03\x03\x01\x02\x02\x02\x02\x00\x00", True),
    "a branch whose writer died before it came to it goes": (
        ["local", "control", "exit"], b"\x00", True),
    "a note by a second agent, whose file has the name that the first one's has lost, is not its run's": (
        ["turn", "mirror", "compact lines", "local"], b"\x03\x03", True),
    "whoever has found the file before it loses its name does not write to it behind its owner": (
        ["turn", "chmod", "unlink", "held open"], b"\x00\x00\x00\x00\x01\x01\x01\x03\x01\x01\x01\xf8", True),
    "nor is what it writes lost with it": (
        ["turn", "chmod", "unlink", "held open"], b"\x00\x00\x00\x01\x01\x01\x03\x01\x01\x01\xf8", True),
    "a look that the kernel makes two of, a file having taken the name, is one": (
        ["turn", "mirror", "control", "rename over"], b"\x00\x01\x00\x00\x00", False),
    "the same of one that opens the file": (
        ["compaction", "compaction", "rename over", "rename over"], b"\x01\x03\x03\x03\x03\x01\x01", True),
    "who comes to its branch when the file has been renamed, and nobody relies on it any more, writes to that file": (
        ["turn", "rename away", "append", "exit"], b"\x00\x02", True),
    "a note goes behind its header though its process's silent run relies on there being no file": (
        ["turn", "turn", "16 minutes", "mirror"], b"\x00\x00\x00\x00\x02\x02t\x9e", False),
    "a header for a note, made as its process and a second agent both begin on no file, stays the note's": (
        ["turn", "mirror", "local"], b"\x02\x1aVn\x00\x00\x00\x01", False),
    "whoever locks a transcript whose lost file a dead owner has left over sees what it writes to": (
        ["/new", "honest", "honest", "compact lines"], b"\x01\x01\x01\x01\x01\x03", True),
    "what takes the lost name of a silent run's file is none of the run's": (
        ["turn", "compact lines", "16 minutes", "compact lines"],
        b"\x03\x03\x00\x00\x00\x00\x00\x00\x00\x00\x14", True),
    "a file that is written anew by another lane of a process does not empty what its run goes on from": (
        ["turn", "16 minutes", "compact lines"], b"\x00" * 9 + b"\x01\x01", True),
    "nor does what it has copied from the run's own stand there twice": (
        ["turn", "compact lines", "local", "honest"], b"\x02" * 15 + b"\x00\x00\x00", False),
    "what a second agent writes past its lock is forgiven as the first one's is": (
        ["turn", "local", "control", "local"], b"\x03" * 9 + b"\x00\x00\x00\x00", True),
    "the same of one that has made its file": (
        ["tool turn", "control", "local"], b"\x02" * 4 + b"\x00" * 6, False),
    "the same where its file was copied under it": (
        ["tool turn", "mirror", "control", "compact lines", "local"],
        b"\x04" * 3 + b"\x03" * 8 + b"\x00" * 3, True),
    "it is so also where the first one's fence has closed since": (
        ["short turn", "compact lines", "local", "control"],
        b"\x01" * 11 + b"\x00" * 11 + b"\x01" * 8 + b"\x00", True),
    "what a run that was silent writes in its lock before it looks is forgiven": (
        ["short turn", "control", "16 minutes"], b"\x00" * 7, True),
    "the same without its lock": (
        ["turn", "16 minutes", "control"], b"\x00" * 9 + b"\x01" * 4, True),
    "a run that falls silent relies on what it has seen after its own write": (
        ["turn", "16 minutes", "own write outside"], b"\x00" * 9 + b"\x01\x02\x02\x01", True),
    "the same where it writes when it comes back": (
        ["short turn", "16 minutes", "own write outside", "compact lines"],
        b"\x00" * 9 + b"\x02\x01\x01", True),
    "the same where its file has lost its name meanwhile": (
        ["turn", "empty", "16 minutes", "own write outside", "rename away"],
        b"\x00" * 5 + b"\x04\x04\x00\x00", True),
    "whoever begins on no file while a lost one is left over by its dead owner finds none": (
        ["turn", "own write outside", "local", "unlink", "exit"],
        b"\x00\x00\x00\x03\x03\x03\x00\x00\x03\x00\x03\x00\x00\x00\x02\x02", True),
    "whoever comes when the name is gone makes a new file, though its lane has a branch on the one before": (
        ["turn", "append", "append", "/new"], b"\x00" * 16 + b"\x01" * 7, False),
    "a run that comes back from a silence relies on what it saw after a write past its lock": (
        ["16 minutes", "/new", "turn", "own write outside"], b"\x01" * 10 + b"\x00" * 4, True),
    "what it writes past its lock then stays in its order": (
        ["turn", "control", "16 minutes"], b"\x00" * 9 + b"\x02\x02\x00\x00", True),
    "a second agent that begins on a file made anew keeps it, though that loses its name": (
        ["short turn", "local", "compact lines", "compact lines", "lstat"],
        b"\x00" * 13 + b"\x03" * 5 + b"\x01" * 6, True),
    "a compaction by lines empties nothing that its process is about to rely on behind another agent": (
        ["tool turn", "local", "compact lines"], b"\x01" * 9 + b"\x00" * 9 + b"\x02" * 3, True),
    "what waits behind a file that was renamed away comes there, though the guard dies before": (
        ["rename away", "mirror", "mirror", "guard dies in 9 steps", "tool turn"], b"\x03" * 3, True),
    "whoever was led to a branch that is rebased then opens its file, though that is renamed away": (
        ["short turn", "append", "/new", "append"], b"\x00" * 5 + b"\x03" * 3 + b"\x00" * 13 + b"\x04", True),
    "whoever opens a transcript when a rewritten one takes its place comes to that": (
        ["turn", "append", "rename over", "link", "rename over"],
        b"\x00\x00\x02\x02\x02" + b"\x00" * 12 + b"\x02" * 11 + b"\x00" * 7, True),
    "the same where it was led to a branch before": (
        ["held open", "rename over", "link", "held open", "short turn"],
        b"\x00\x00" + b"\x04" * 11 + b"\x02" * 13 + b"\x00" + b"\x04" * 5 + b"\x03" * 5, True),
    "nobody is shown another file in place of the one that is gone": (
        ["turn", "mirror", "unlink", "16 minutes"], b"\x01" * 6 + b"\x02" * 3 + b"\x01" * 6, True),
    "a header for a note is made beside a file that its process does not see": (
        ["short turn", "mirror", "honest", "16 minutes"],
        b"\x00" * 4 + b"\x02" * 5 + b"\x03\x03\x02\x02\x00", False),
    "what two agents begin stands below one header, though a copy without one has come before": (
        ["turn", "local", "local", "compact lines"], b"\x00" * 4 + b"\x01" * 23 + b"\x00" * 6, False),
    "what one turn was shown for a write past its lock is not shown to the next one": (
        ["short turn", "own write outside", "link", "held open", "short turn"],
        b"\x04" * 12 + b"\x01" * 5, True),
}  # fmt: skip


@pytest.mark.parametrize("name", STORIES)
def test_once_broken(name: str, tmp_path: pathlib.Path) -> None:
    parts, order, there = STORIES[name]
    play(parts, order, tmp_path, there)
