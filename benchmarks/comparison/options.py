"""What the user of compare.py asked for."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from . import peers


@dataclass(frozen=True)
class Options:
    """rows: pattern searched in row names. peers: names (or "all"); empty: those with a bar on the row.
    rounds: how often each contender is timed."""

    rows: str = ""
    rounds: int = 5
    peers: tuple[str, ...] = ()
    absent: dict[str, str] = field(default_factory=dict)

    def wants(self, row: str) -> bool:
        return re.search(self.rows, row) is not None

    def wants_peer(self, name: str, *, has_bar: bool) -> bool:
        """Whether to run a peer; an absent one is noted with the reason, and left out."""
        chosen = has_bar if not self.peers else "all" in self.peers or any(p in name for p in self.peers)
        reason = peers.absent(name) if chosen else None
        if reason:
            self.absent[name] = reason
        return chosen and reason is None
