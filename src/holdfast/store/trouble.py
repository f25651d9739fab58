"""
What is said of something that does not work, and is tried again and again?

That it does not, and why; when the reason becomes another one; and that it works again. Not
each time.
"""

from __future__ import annotations

import logging

logger = logging.getLogger("holdfast.store")


class Trouble:
    """
    Something that may not work.

    Args:
        fails: What is said of it then, with `%s` for the reason.
        works: What is said of it when it works again.
    """

    def __init__(self, fails: str, works: str) -> None:
        self._fails = fails
        self._works = works
        self._reason: str | None = None

    def begins(self, error: Exception) -> None:
        """It does not work, or still does not."""
        reason = str(error).strip() or type(error).__name__
        if reason != self._reason:
            self._reason = reason
            logger.warning(self._fails, reason)

    def ends(self) -> None:
        """It works, or still works."""
        if self._reason is not None:
            self._reason = None
            logger.warning(self._works)
