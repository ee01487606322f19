#!/usr/bin/env python3
"""A backend of the shop: answers `reserve_stock`, tells who asked what was put aside, and all what is left.

rivulet serve --dev --families examples/families
rivulet codegen --lang python --families examples/families --out examples/shop/shop.py
python examples/shop/backend.py
"""

import asyncio
import signal
import uuid

import shop

from rivulet_client.nats import Asker, Backend, Publisher, Refused, connect


async def main() -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    left = {"tea": 12, "coffee": 3}
    async with await connect() as nats:
        publisher = Publisher(nats, families=[shop.family])
        backend = Backend(nats, queue="shop")

        @backend.command(shop.ReserveStock)
        async def reserve(request: shop.ReserveStock, asker: Asker) -> shop.ReserveStockReply:
            if left.get(request.sku, 0) < request.count:
                raise Refused("OUT_OF_STOCK", "so many are not left", left=left.get(request.sku, 0))
            # Before anything is awaited: others ask at the same time.
            left[request.sku] -= request.count
            reserved = shop.StockReserved(
                reservation_id=uuid.uuid4().hex, sku=request.sku, count=request.count
            )
            try:
                await publisher.publish(reserved, user=asker.user, message_id=reserved.reservation_id)
            except BaseException:
                left[request.sku] += request.count
                raise
            await publisher.publish(shop.StockLevel(left=left), everyone=True)
            return shop.ReserveStockReply(reservation_id=reserved.reservation_id)

        async with backend:
            print("ready", flush=True)
            await stopped.wait()


if __name__ == "__main__":
    asyncio.run(main())
