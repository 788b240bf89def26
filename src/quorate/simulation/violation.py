"""What every check of a simulation raises or reports."""

from __future__ import annotations


class Violation(Exception):
    """A promise was broken.  `check` is a short stable name, such as "election safety"; `text` says what was seen.

    `place` is where it showed, as places are called in traces; empty where it showed nowhere in particular.
    """

    def __init__(self, check: str, text: str, place: str = "") -> None:
        super().__init__(f"{check}: {text}")
        self.check = check
        self.text = text
        self.place = place
