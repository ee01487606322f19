"""Tables and the plot, without a kernel."""

import unittest
from xml.etree import ElementTree

from rivulet_client import decode
from rivulet_client.jupyter.rates import MOST_LINES, WINDOW, Rates
from rivulet_client.jupyter.show import MOST_CHARACTERS, Table


class Tables(unittest.TestCase):
    def test_whatever_came_is_escaped_and_cut(self) -> None:
        evil = '<img src=x onerror=alert(1)>&\\"'
        long = "x" * 1_000
        events = [
            *decode('{"type":"acme.made","data":{"a":"<script>"}}'),
            *decode(f'{{"type":"acme.made","seq":3,"time":"2026-01-31T12:00:00Z","data":{{"a":"{long}"}}}}'),
        ]
        for table in (Table.of_events(events), Table((evil, evil), [(evil, evil)])):
            ElementTree.fromstring(table._repr_html_())
            self.assertNotIn("<script", table._repr_html_())
            self.assertNotIn("<img", table._repr_html_())
        row = Table.of_events(events).rows[1]
        self.assertEqual(row[:3], ["3", "2026-01-31 12:00:00.000+00:00", "acme.made"])
        self.assertEqual(len(row[3]), MOST_CHARACTERS)

    def test_as_text(self) -> None:
        self.assertEqual(repr(Table(("a", "b"), [("long", 1), ("x", "")])), "a     b\nlong  1\nx")
        self.assertEqual(repr(Table.of_events([])), "seq  time  type  data")


class Rate(unittest.TestCase):
    def test_counts_by_type_and_second(self) -> None:
        rates = Rates()
        for now in (100.0, 100.9, 101.0):
            rates.count("blob.created", now)
        rates.count("book.created", 101.5)
        lines = rates.lines(102.2)
        self.assertEqual({name: counts[-4:] for name, counts in lines.items()}, {
            "blob.created": [0, 2, 1, 0],
            "book.created": [0, 0, 1, 0],
        })  # fmt: skip
        self.assertEqual(rates.lines(100.0 + WINDOW)["blob.created"][0], 1)
        self.assertEqual(rates.lines(101.0 + WINDOW), {})

    def test_the_busiest_have_a_line_of_their_own(self) -> None:
        rates = Rates()
        for number in range(20):
            for _ in range(number + 1):
                rates.count(f"t.{number}", 5.0)
        lines = rates.lines(5.0)
        self.assertEqual(list(lines), [f"t.{19 - place}" for place in range(MOST_LINES)] + ["others"])
        self.assertEqual(lines["others"][-1], sum(range(1, 21 - MOST_LINES)))

    def test_what_is_kept_is_bounded(self) -> None:
        rates = Rates()
        for second in range(1_000):
            rates.count("a.b", float(second))
        self.assertLessEqual(len(rates._seconds), WINDOW)

    def test_the_plot_is_whole_and_escaped(self) -> None:
        rates = Rates()
        ElementTree.fromstring(rates.svg(0.0))
        rates.count("<script>&", 1.0)
        plot = rates.svg(1.0)
        self.assertNotIn("<script", plot)
        lines = ElementTree.fromstring(plot).findall("{http://www.w3.org/2000/svg}polyline")
        self.assertEqual(len(lines), 1)
        points = [tuple(map(float, point.split(","))) for point in lines[0].get("points", "").split()]
        self.assertEqual(len(points), WINDOW)
        # The last second stands highest: y counts from the top.
        self.assertEqual(min(points, key=lambda point: point[1]), points[-1])


if __name__ == "__main__":
    unittest.main()
