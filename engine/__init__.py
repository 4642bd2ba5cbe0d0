"""Video in, explained action units out: `open_engine` runs an engine here, `subscribe` listens to one elsewhere.

Both are imported on first use, so `import vlfau.engine` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .app import open_engine as open_engine
    from .subscriber import subscribe as subscribe

__all__ = ["open_engine", "subscribe"]


def __getattr__(name: str) -> Any:
    if name == "open_engine":
        from .app import open_engine

        return open_engine
    if name == "subscribe":
        from .subscriber import subscribe

        return subscribe
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
