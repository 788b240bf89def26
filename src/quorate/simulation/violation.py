"""What every check of a simulation raises or reports."""

from __future__ import annotations


class Violation(Exception):
    """A promise was broken.  `check` is a short stable name, such as "election safety"; `text` says what was seen."""

    def __init__(self, check: str, text: str) -> None:
        super().__init__(f"{check}: {text}")
        self.check = check
        self.text = text
