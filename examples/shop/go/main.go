// A backend of the shop: answers `reserve_stock`, and tells every screen of the asking user what was put aside.
package main

import (
	"encoding/json"
	"log"
	"os"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"
)

type object = map[string]any

func main() {
	login := nats.UserInfo(os.Getenv("NATS_USER"), os.Getenv("NATS_PASSWORD"))
	connection := must(nats.Connect(os.Getenv("NATS_URL"), login))
	stream := must(connection.JetStream())
	left := map[string]int{"tea": 12, "coffee": 3}
	must(connection.QueueSubscribe("command.reserve_stock", "shop", func(command *nats.Msg) {
		// The router has checked it by the family's schema.
		var wanted struct {
			Sku   string
			Count int
		}
		json.Unmarshal(command.Data, &wanted)
		if left[wanted.Sku] < wanted.Count {
			answer(command, object{"error": object{"code": "OUT_OF_STOCK", "message": "so many are not left", "left": left[wanted.Sku]}})
			return
		}
		event := nats.NewMsg("stock.reserved")
		reservation := nuid.Next()
		event.Header.Set("Rivulet-User", command.Header.Get("Rivulet-User"))
		event.Header.Set(nats.MsgIdHdr, reservation)
		event.Data = must(json.Marshal(object{"reservation_id": reservation, "sku": wanted.Sku, "count": wanted.Count}))
		if _, err := stream.PublishMsg(event); err != nil {
			answer(command, object{"error": object{"code": "UNAVAILABLE", "message": err.Error(), "retry_after": 1}})
			return
		}
		left[wanted.Sku] -= wanted.Count
		answer(command, object{"data": object{"reservation_id": reservation}})
	}))
	must(0, connection.Flush())
	log.Println("ready")
	select {}
}

func answer(command *nats.Msg, with object) { command.Respond(must(json.Marshal(with))) }

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}
