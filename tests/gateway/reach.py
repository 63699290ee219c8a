"""Which records of a transcript the agent will remember: those on the path from the leaf to the root.

Run it: ``python -m tests.gateway.reach TRANSCRIPT``.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class History:
    """A transcript as it was read. records: with an id, in file order, the session header left out."""

    records: tuple[dict[str, Any], ...]
    headers: int
    unparsable: int

    @classmethod
    def of(cls, transcript: Path) -> History:
        """Read the file with nothing but a JSON parser: the guard's reader is not asked about its own work."""
        records, headers, unparsable = [], 0, 0
        for line in transcript.read_bytes().splitlines():
            try:
                entry = json.loads(line)
                if entry["type"] == "session":
                    headers += 1
                else:
                    _ = entry["id"]
                    records.append(entry)
            except (ValueError, KeyError, TypeError):
                unparsable += 1
        return cls(tuple(records), headers, unparsable)

    def reachable(self) -> list[dict[str, Any]]:
        """Records on the path from the leaf, the oldest first."""
        by_id = {entry["id"]: entry for entry in self.records}
        path: list[dict[str, Any]] = []
        at = self.records[-1]["id"] if self.records else None
        while at in by_id:
            entry = by_id.pop(at)  # popped: a cycle must end
            path.append(entry)
            at = entry.get("parentId")
        return path[::-1]

    def forgotten(self) -> list[dict[str, Any]]:
        """Records in the file that are not on the path from the leaf."""
        remembered = {id(entry) for entry in self.reachable()}
        return [entry for entry in self.records if id(entry) not in remembered]

    def duplicates(self) -> list[str]:
        """Ids that stand in the file more than once."""
        ids = [entry["id"] for entry in self.records]
        return sorted({one for one in ids if ids.count(one) > 1})

    def orphans(self) -> list[str]:
        """Ids of records whose parent does not stand before them."""
        seen: set[str | None] = {None}
        lost = []
        for entry in self.records:
            if entry.get("parentId") not in seen:
                lost.append(entry["id"])
            seen.add(entry["id"])
        return lost

    def holds(self, text: str, *, remembered: bool = True) -> int:
        """How many records (of the remembered ones) contain *text*."""
        among = self.reachable() if remembered else self.records
        return sum(text in json.dumps(entry, ensure_ascii=False) for entry in among)


def main() -> int:
    """Print the counts; 1 if anything is forgotten, doubled or orphaned."""
    history = History.of(Path(sys.argv[1]))
    forgotten, doubled, orphans = history.forgotten(), history.duplicates(), history.orphans()
    print(
        f"{len(history.records)} records, {len(history.reachable())} reachable from the leaf,"
        f" {len(doubled)} doubled, {len(orphans)} without parent, {history.unparsable} not JSON,"
        f" {history.headers} headers"
    )
    for entry in forgotten:
        print(f"forgotten: {entry['id']} {entry['type']} {entry.get('message', {}).get('role', '')}".rstrip())
    return 1 if forgotten or doubled or orphans else 0


if __name__ == "__main__":
    sys.exit(main())
