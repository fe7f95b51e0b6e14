package delivery_test

import (
	"log"
	"log/slog"
	"os"
	"time"

	"github.com/tandem-fn/tandem/eventing/delivery"
)

// Events go to a function, and those that it refuses to its dead letters. A source calls
// the sender.
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
