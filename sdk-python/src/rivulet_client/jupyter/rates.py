"""How many events came a second, and a picture of it."""

import html
from collections import Counter, deque

WINDOW = 60
"""How many seconds are kept and shown."""
MOST_LINES = 6
"""How many types have a line of their own; the rest is summed up as one more."""

_COLOURS = ("#0b7a75", "#d1495b", "#edae49", "#30638e", "#6a4c93", "#66a182", "#888888")
_WIDTH, _HEIGHT, _LEFT, _BELOW = 640, 200, 40, 20


class Rates:
    """Events by type and second, of the last minute."""

    def __init__(self) -> None:
        """Nothing came yet."""
        # Seconds with what came in them; seconds without anything are absent.
        self._seconds: deque[tuple[int, Counter[str]]] = deque()

    def count(self, event_type: str, now: float) -> None:
        """Counts one event; `now` is in seconds, of a clock that never goes back."""
        second = int(now)
        if not self._seconds or self._seconds[-1][0] != second:
            self._seconds.append((second, Counter()))
            self._forget(second)
        self._seconds[-1][1][event_type] += 1

    def lines(self, now: float) -> dict[str, list[int]]:
        """By type the counts of the last `WINDOW` whole and begun seconds, the busiest type first."""
        last = int(now)
        self._forget(last)
        totals: Counter[str] = Counter()
        for _, counts in self._seconds:
            totals.update(counts)
        named = [event_type for event_type, _ in totals.most_common(MOST_LINES)]
        lines = {name: [0] * WINDOW for name in [*named, *(["others"] if len(totals) > MOST_LINES else [])]}
        for second, counts in self._seconds:
            for event_type, count in counts.items():
                lines[event_type if event_type in named else "others"][second - last + WINDOW - 1] += count
        return lines

    def svg(self, now: float) -> str:
        """A line for each type: events a second over the last minute."""
        lines = self.lines(now)
        top = max((count for counts in lines.values() for count in counts), default=0) or 1
        across, up = (_WIDTH - _LEFT - 10) / (WINDOW - 1), (_HEIGHT - _BELOW - 10) / top
        floor = _HEIGHT - _BELOW
        parts = [
            f'<line x1="{_LEFT}" y1="{floor}" x2="{_WIDTH - 10}" y2="{floor}" stroke="#999"/>',
            f'<text x="{_LEFT - 6}" y="16" text-anchor="end">{top}</text>',
            f'<text x="{_LEFT - 6}" y="{floor}" text-anchor="end">0</text>',
            f'<text x="{_LEFT}" y="{_HEIGHT - 5}">{WINDOW} s ago</text>',
            f'<text x="{_WIDTH - 10}" y="{_HEIGHT - 5}" text-anchor="end">now, events a second</text>',
        ]
        for index, (name, counts) in enumerate(lines.items()):
            colour = _COLOURS[index]
            points = " ".join(
                f"{_LEFT + place * across:.1f},{floor - count * up:.1f}" for place, count in enumerate(counts)
            )
            label = f"{html.escape(name)} ({sum(counts)})"
            parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
            parts.append(f'<text x="{_LEFT + 10}" y="{22 + 15 * index}" fill="{colour}">{label}</text>')
        if not lines:
            parts.append(f'<text x="{_LEFT + 10}" y="22">nothing in the last minute</text>')
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}"'
            f' font-family="sans-serif" font-size="12">{"".join(parts)}</svg>'
        )

    def _forget(self, last: int) -> None:
        while self._seconds and self._seconds[0][0] <= last - WINDOW:
            self._seconds.popleft()
