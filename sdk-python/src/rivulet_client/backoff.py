"""How long to wait before the next try."""

import random

BASE = 0.5
"""Seconds that the first wait has at most."""
MOST = 30.0
"""Seconds that any wait has at most."""


class Backoff:
    """Full jitter: anywhere from nothing up to a bound that doubles, so that clients come back spread out."""

    def __init__(self) -> None:
        """None failed so far."""
        self._failures = 0

    @property
    def bound(self) -> float:
        """Seconds that the next wait has at most."""
        return min(MOST, BASE * 2.0 ** min(self._failures, 10))

    def next(self) -> float:
        """Seconds to wait now; the next wait may be twice as long."""
        seconds = random.uniform(0, self.bound)
        self._failures += 1
        return seconds

    def lasted(self, seconds: float) -> None:
        """A session lasted so long. One that outlasted the bound of its wait begins the count anew."""
        if seconds >= self.bound / 2:
            self.reset()

    def reset(self) -> None:
        """Begins the count anew."""
        self._failures = 0


def jittered(seconds: float) -> float:
    """So many seconds, and up to a tenth and 100 ms more: all who were told one time don't come at once."""
    return seconds + random.uniform(0, 0.1 + seconds / 10)
