package delivery_test

import (
	"log"
	"log/slog"
	"os"
	"time"

	"github.com/tandem-fn/tandem/eventing/delivery"
)

// The sender delivers events to a function, and rejected ones to a dead letter sink. A
// source calls it.
func ExampleNew() {
	sender, err := delivery.New("http://orders.default", "http://orders.default/dead-letters", delivery.Config{
		Function: "orders",
		TryFor:   time.Hour,
		Logger:   slog.New(slog.NewJSONHandler(os.Stderr, nil)),
	})
	if err != nil {
		log.Fatal(err)
	}
	_ = sender // for source.New
}
