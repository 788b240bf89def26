"""What every check of a simulation raises or reports."""

from __future__ import annotations


class Violation(Exception):
    """A promise was broken.  `check` is a short stable name, such as "election safety"; `text` says what was seen.

    `place` is where it showed, as places are called in traces; empty where it showed nowhere in particular.
    `at_s` is when, in true time, where that was long before it was found out.
    """

    def __init__(self, check: str, text: str, place: str = "", at_s: float | None = None) -> None:
        super().__init__(f"{check}: {text}")
        self.check = check
        self.text = text
        self.place = place
        self.at_s = at_s
