"""The exception whose message is meant for the user."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Says what came, what was expected and what to do. Commands print it without a traceback and exit with 2."""


def unknown(what: str, came: object, choices: Iterable[str]) -> UserError:
    """The error for a name that is not one of a few choices; it suggests the most similar one."""
    names = list(choices)
    near = difflib.get_close_matches(str(came), names, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return UserError(f"Unknown {what} '{came}'.{hint} Choose one of: {', '.join(names)}.")
