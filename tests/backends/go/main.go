// Publishes blob.created as a Go backend would: a struct with time.Time and nil pointers, marshalled by
// encoding/json, with nats.go.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/nats-io/nats.go"
)

type blobCreated struct {
	UserID      string    `json:"user_id"`
	BlobID      string    `json:"blob_id"`
	ProcessorID string    `json:"processor_id"`
	SchemaID    string    `json:"schema_id"`
	Preview     string    `json:"preview"`
	BookID      *string   `json:"book_id"`
	CreatedAt   time.Time `json:"created_at"`
	Big         uint64    `json:"big"`
	Ratio       float64   `json:"ratio"`
}

func main() {
	login := nats.UserInfo(os.Getenv("NATS_USER"), os.Getenv("NATS_PASSWORD"))
	connection, err := nats.Connect(os.Getenv("NATS_URL"), login)
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	jetstream, err := connection.JetStream()
	if err != nil {
		log.Fatal(err)
	}
	payload, err := json.Marshal(blobCreated{
		UserID: os.Args[1], BlobID: "from-go", ProcessorID: "p1", SchemaID: "s1", Preview: "<café> & 😀",
		CreatedAt: time.Date(2026, 1, 1, 12, 30, 0, 123456789, time.FixedZone("", 5400)),
		Big:       18446744073709551615, Ratio: 1e-7,
	})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := jetstream.Publish("blob.created", payload); err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(payload))
}
