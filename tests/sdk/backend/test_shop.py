"""The shop's backend: a user's own family, with models that `rivulet codegen` wrote."""

import os
import subprocess
import sys
import unittest
from datetime import UTC, datetime

from world import ROOT, Router, User, binary

from rivulet_client.nats import Publisher, connect

SHOP = ROOT / "examples/shop"
sys.path.insert(0, str(SHOP))
import shop  # noqa: E402


class Shop(unittest.IsolatedAsyncioTestCase):
    router: Router

    @classmethod
    def setUpClass(cls) -> None:
        cls.router = cls.enterClassContext(Router(RIVULET_FAMILIES=str(ROOT / "examples/families")))
        environment = {
            "RIVULET_DATA_DIR": str(cls.router.data_dir),
            "PYTHONPATH": str(ROOT / "sdk-python/src"),
        }
        backend = subprocess.Popen(
            [sys.executable, SHOP / "backend.py"], env=os.environ | environment, stdout=subprocess.PIPE
        )
        cls.addClassCleanup(backend.wait)
        cls.addClassCleanup(backend.terminate)
        assert backend.stdout
        cls.addClassCleanup(backend.stdout.close)
        assert backend.stdout.readline() == b"ready\n", "no backend"

    def test_the_models_are_those_of_the_family(self) -> None:
        families = ROOT / "examples/families"
        check = [binary(), "codegen", "--check", "--lang", "python", "--families", families]
        subprocess.run([*check, "--out", SHOP / "shop.py"], check=True)

    async def test_stock_is_put_aside_for_who_asks_and_all_see_what_is_left(self) -> None:
        async with User.of(self.router, "ada") as ada, User.of(self.router, "grace") as grace:
            await ada.send("reserve_stock", {"sku": "tea", "count": 2}, "c1")
            frames = {(frame := await ada.next())["type"]: frame["data"] for _ in range(3)}
            self.assertEqual(frames["stock.level"], {"left": {"tea": 10, "coffee": 3}})
            self.assertEqual(frames["stock.reserved"], frames["reply"] | {"sku": "tea", "count": 2})
            self.assertEqual((await grace.next("stock.level"))["data"], frames["stock.level"])
            await grace.nothing()
            # Asked again with its id: the same answer, and nothing is put aside.
            self.assertEqual(
                (await ada.ask("reserve_stock", {"sku": "tea", "count": 2}, "c1"))["data"], frames["reply"]
            )
            await grace.nothing()

    async def test_what_is_not_left_is_refused(self) -> None:
        async with User.of(self.router, "ada") as ada:
            answer = await ada.ask("reserve_stock", {"sku": "coffee", "count": 4}, "c2")
            self.assertEqual((answer["type"], answer["data"]["code"]), ("error", "OUT_OF_STOCK"))
            self.assertEqual(answer["data"]["left"], 3)
            await ada.nothing()

    async def test_every_event_of_the_family_passes_the_edge(self) -> None:
        order = shop.OrderPlaced(
            order_id="o1",
            lines=[shop.Line(sku="tea", count=2, cents=450)],
            pay_by=shop.Card(kind="card", last4="1234"),
            placed_at=datetime(2026, 1, 31, 12, tzinfo=UTC),
        )
        address = shop.OrderShippedAddress(street="s", city="c")
        shipped = shop.OrderShipped(order_id="o1", carrier="bike", tracking=None, address=address)
        async with await connect(data_dir=self.router.data_dir) as nats, User.of(self.router, "ada") as ada:
            publisher = Publisher(nats, families=[shop.family])
            await publisher.publish(order, user="ada")
            data = (await ada.next("order.placed"))["data"]
            self.assertEqual(data["pay_by"], {"kind": "card", "last4": "1234"})
            self.assertEqual((data["placed_at"], "note" in data), ("2026-01-31T12:00:00Z", False))
            await publisher.publish(shipped, user="ada")
            # A field that must be there, and may be null, is null.
            self.assertIsNone((await ada.next("order.shipped"))["data"]["tracking"])


if __name__ == "__main__":
    unittest.main()
