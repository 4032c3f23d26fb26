"""A server clock's rules, and what was seen of it, in words that a person reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

_SUMMER: Final = {"none": "no summer time", "eu": "summer time by Europe's dates", "us": "summer time by America's dates"}


def offset_in_words(minutes: int) -> str:
    """Return an offset from UTC as people write it."""
    hours, rest = divmod(abs(minutes), 60)
    return f"UTC{'-' if minutes < 0 else '+'}{hours}" + (f":{rest:02}" if rest else "")


def rules_in_words(rules: Sequence[Mapping[str, Any]]) -> str:
    """Return the rules of a clock, as its history keeps them: oldest first."""
    parts = []
    for rule in rules:
        since = f"from {rule['since']}: " if "since" in rule else ""
        parts.append(f"{since}{offset_in_words(rule['offset_minutes'])}, {_SUMMER[rule['dst']]}")
    return "; ".join(parts)


def evidence_in_words(evidence: Mapping[str, Any]) -> str:
    """Return what a line of a clock's history was based on, and what it withholds."""
    if "message" in evidence:
        return str(evidence["message"])
    parts = [f"of {evidence['of']}"] if evidence.get("of") else []
    parts += [f"{count:,} {'weeks by ' if word == 'correlation' else ''}{word}{'s' if word != 'correlation' and count != 1 else ''}"
              for word, count in evidence.get("weeks_by", {}).items() if count]
    if evidence.get("reference"):
        parts.append(f"beside {evidence['reference']}")
    parts += [f"{count:,} half days by {name}" for name, count in evidence.get("half_days", {}).items()]
    if evidence.get("wrong"):
        parts.append(f"{len(evidence['wrong'])} weeks or more contradicted the rules before")
    parts += [f"withheld {part['from']} to {part['to']}: it showed {offset_in_words(part['shown_minutes'])}"
              for part in evidence.get("withheld", ())]
    return "; ".join(parts) or str(evidence.get("by", ""))
