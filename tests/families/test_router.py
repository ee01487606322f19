"""What a router does by users' own families: on the wire, on its pages, at its start."""

import json
import tempfile
import unittest
from pathlib import Path

from rig import INVOICE, LIMIT, ORDER, SHIPPED, SHOP, TICKET, OnARouter, next_of, rivulet


class OnTheWire(OnARouter):
    def test_events_of_each_family_arrive(self) -> None:
        async def test() -> None:
            async with self.client("ada", events="*") as ada:
                await next_of(ada, "connected")
                for event_type, data in [
                    ("order.placed", ORDER),
                    ("ticket.opened", TICKET),
                    ("invoice.sent", INVOICE),
                    # Of no family: old routers carry new events.
                    ("order.archived", {"any": "thing"}),
                ]:
                    seq = await self.publish(event_type, data)
                    event = await next_of(ada, event_type)
                    self.assertEqual((event["seq"], event["data"]), (seq, data))

        self.run_async(test())

    def test_a_broken_event_is_rejected_with_its_place(self) -> None:
        async def test() -> None:
            bus = await self.bus()
            rejected = await bus.subscribe("rivulet.rejected.>")
            await bus.flush()
            async with self.client("ada", events="*") as ada:
                await next_of(ada, "connected")
                for subject, broken, pointer in [
                    (
                        "order.placed",
                        ORDER | {"lines": [{"sku": "tea", "count": 0, "cents": 1}]},
                        "/lines/0/count",
                    ),
                    ("ticket.opened", TICKET | {"by": {}}, "/by/name"),
                    ("invoice.sent", INVOICE | {"place": [1]}, "/place"),
                ]:
                    await self.publish(subject, broken)
                    message = await rejected.next_msg(timeout=LIMIT)
                    self.assertEqual(message.subject, f"rivulet.rejected.{subject}")
                    self.assertEqual(message.headers["Rivulet-Rejected-Pointer"], pointer)
                # What comes next is the first that is whole.
                await self.publish("order.shipped", SHIPPED)
                await next_of(ada, "order.shipped")
            await bus.close()

        self.run_async(test())

    def test_the_go_backend_answers_the_command_and_tells_all_screens_of_its_user(self) -> None:
        async def test() -> None:
            async with (
                self.client("ada%20l", events="stock.*") as ada,
                self.client("ada%20l", events="stock.*") as phone,
                self.client("bob", events="stock.*") as bob,
            ):
                for client in (ada, phone, bob):
                    await next_of(client, "connected")
                ask = {"type": "reserve_stock", "id": "1", "data": {"sku": "tea", "count": 2}}
                await ada.send(json.dumps(ask))
                # The event and the answer come on different ways.
                frames = {(frame := json.loads(await ada.recv()))["type"]: frame for _ in range(2)}
                reservation = frames["reply"]["data"]["reservation_id"]
                self.assertEqual(frames["reply"]["id"], "1")
                expected = {"reservation_id": reservation, "sku": "tea", "count": 2}
                self.assertEqual(frames["stock.reserved"]["data"], expected)
                self.assertEqual((await next_of(phone, "stock.reserved"))["data"], expected)

                for data, code, more in [
                    ({"sku": "tea", "count": 0}, "INVALID_MESSAGE", {"field": "data.count"}),
                    ({"sku": "tea"}, "INVALID_MESSAGE", {"field": "data.count"}),
                    ({"sku": "tea", "count": 100}, "OUT_OF_STOCK", {"left": 10}),
                ]:
                    await ada.send(json.dumps({"type": "reserve_stock", "data": data}))
                    error = (await next_of(ada, "error"))["data"]
                    self.assertEqual(error["code"], code)
                    self.assertLessEqual(more.items(), error.items())

                await self.publish("stock.level", {"left": {}}, "bob")
                await next_of(bob, "stock.level")

        self.run_async(test())

    def test_an_ephemeral_event_is_live_only(self) -> None:
        async def test() -> None:
            async with self.client("eve", events="stock.*,order.*") as eve:
                connected = (await next_of(eve, "connected"))["data"]
                await self.publish("stock.level", {"left": {"tea": 1}}, "eve")
                await next_of(eve, "stock.level")
                await self.publish("order.shipped", SHIPPED, "eve")
                await next_of(eve, "order.shipped")
            cursor = {"stream": connected["stream"], "seq": connected["seq"]}
            async with self.client("eve", events="stock.*,order.*", **cursor) as eve:
                await next_of(eve, "connected")
                await next_of(eve, "order.shipped")

        self.run_async(test())

    def test_publish_goes_by_the_families(self) -> None:
        broken = json.dumps(ORDER | {"lines": []})
        event = ["publish", "order.placed", "--user", "ada", "--families", self.families]
        event += ["--data-dir", self.directory / "data"]
        done = rivulet(*event, "--data", broken)
        self.assertEqual(done.returncode, 1)
        self.assertIn("at /lines", done.stderr)
        done = rivulet(*event, "--data", json.dumps(ORDER))
        self.assertEqual(done.returncode, 0, done.stderr)


class Pages(OnARouter):
    def test_the_families_are_served_merged(self) -> None:
        tags = [branch["properties"]["type"]["const"] for branch in self.page("schemas/events.json")["oneOf"]]
        for tag in ["blob.created", "order.placed", "ticket.opened", "invoice.sent"]:
            self.assertIn(tag, tags)
        messages = self.page("asyncapi.json")["components"]["messages"]
        for name in [
            "create_blob",
            "reserve_stock",
            "reserve_stock.reply",
            "assign_ticket",
            "stock.reserved",
        ]:
            self.assertIn(name, messages)

    def test_each_family_is_served_as_its_file(self) -> None:
        served = self.page("schemas/families.json")
        self.assertEqual(list(served), ["invoice", "shop", "ticket"])
        for name, family in served.items():
            self.assertEqual(family, json.loads((self.families / f"{name}.json").read_text()))


class Refused(unittest.TestCase):
    def test_a_family_that_is_refused_is_named_with_file_and_place(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            families = Path(directory)
            shop = json.loads(SHOP.read_text())
            shop["$defs"]["Line"]["properties"]["sku"] = {"not": {"type": "string"}}
            (families / "shop.json").write_text(json.dumps(shop))
            (families / "torn.json").write_text('{"oneOf": [')
            problems = [
                "shop.json: at /$defs/Line/properties/sku/not: the keyword `not` is not supported",
                "torn.json: EOF while parsing a list at line 1 column 11",
            ]
            for command, code in [
                (("serve", "--dev", "--families", families), 2),
                (("check", "--dev", "--families", families), 1),
                (("codegen", "--lang", "ts", "--families", families, "--out", families / "a.ts"), 1),
                (("publish", "order.placed", "--families", families, "--data", "{}"), 2),
            ]:
                done = rivulet(*command)
                self.assertEqual(done.returncode, code, command)
                for problem in problems:
                    self.assertIn(problem, done.stderr, command)


if __name__ == "__main__":
    unittest.main()
