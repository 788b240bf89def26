"""Election timeouts that follow the round trips that the leader measures, between two bounds."""

from __future__ import annotations

from typing import Final

ROUND_TRIPS: Final = 20
"""An election timeout is this many round trips, so that a few late or lost heartbeats elect nobody."""
MAX_ROUND_TRIP_MS: Final = 1 << 20
"""More than this in a message is nonsense."""


class Timing:
    """What a server knows of the group's round trip: by measuring while it leads, from its leader otherwise.

    It is kept through changes of role, since who stands is to be as patient as it was.
    """

    __slots__ = (
        "_peak_ms",
        "_smoothed_ms",
        "election_timeout_ms",
        "max_election_timeout_ms",
        "min_election_timeout_ms",
        "round_trip_ms",
    )

    def __init__(self, min_election_timeout_ms: int, max_election_timeout_ms: int) -> None:
        self.min_election_timeout_ms = min_election_timeout_ms
        self.max_election_timeout_ms = max(min_election_timeout_ms, max_election_timeout_ms)
        self.election_timeout_ms = min_election_timeout_ms
        """The one in effect."""
        self.round_trip_ms = 0
        """What is told to followers."""
        self._smoothed_ms = 0.0
        self._peak_ms = 0

    def measured(self, round_trip_ms: int) -> None:
        """A quorum answered a leader's round.

        Rounds without an answer say nothing: who lost touch must not grow patient with itself.
        """
        if round_trip_ms > self._peak_ms:
            self._peak_ms = round_trip_ms

    def heartbeat(self) -> None:
        """Once per heartbeat of a leader: go half way up to the longest round since the last, an eighth down to it.

        By time and not by rounds, of which there are thousands a second under load.  One
        round that was late counts half, and is forgotten within seconds.
        """
        difference = self._peak_ms - self._smoothed_ms
        self._adopt(self._smoothed_ms + difference / (2 if difference > 0 else 8))
        self._peak_ms = 0

    def told(self, round_trip_ms: int) -> bool:
        """The leader says what it measured; whether that changes the election timeout."""
        return round_trip_ms != self.round_trip_ms and self._adopt(float(round_trip_ms))

    def _adopt(self, round_trip_ms: float) -> bool:
        former_ms = self.election_timeout_ms
        self._smoothed_ms = round_trip_ms
        self.round_trip_ms = round(round_trip_ms)
        wanted_ms = int(ROUND_TRIPS * round_trip_ms)
        self.election_timeout_ms = min(max(wanted_ms, self.min_election_timeout_ms), self.max_election_timeout_ms)
        return self.election_timeout_ms != former_ms
