package telemetry_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/sethvargo/go-envconfig"

	"github.com/tandem-fn/tandem/eventing/telemetry"
)

// A program serves its metrics and its health at one address.
func ExampleListen() {
	ctx := context.Background()
	server, err := telemetry.Listen(ctx, telemetry.Config{
		Address: "127.0.0.1:9095",
		Ready:   func(context.Context) error { return nil },
	})
	if err != nil {
		log.Fatal(err)
	}
	counter, err := server.Meters().Meter("example").Int64Counter("example_requests_total")
	if err != nil {
		log.Fatal(err)
	}
	counter.Add(ctx, 1)
	if err := server.Serve(); err != nil {
		log.Fatal(err)
	}
}

// A program reads its environment once, into a struct.
func ExampleReadEnvironment() {
	var config struct {
		Cluster string        `env:"TANDEM_CLUSTER, required"`
		Streams []string      `env:"TANDEM_STREAMS, default=EVENTS"`
		TryFor  time.Duration `env:"TANDEM_TRY_FOR, default=15m"`
	}
	variables := envconfig.MapLookuper(map[string]string{"TANDEM_CLUSTER": "east", "TANDEM_STREAMS": "EAST, WEST"})
	err := telemetry.ReadEnvironment(context.Background(), variables, &config)
	fmt.Println(config.Cluster, config.Streams, config.TryFor, err)

	variables = envconfig.MapLookuper(map[string]string{"TANDEM_TRY_FOR": "soon"})
	err = telemetry.ReadEnvironment(context.Background(), variables, &config)
	fmt.Println(err)
	// Output:
	// east [EAST WEST] 15m0s <nil>
	// read environment: TANDEM_CLUSTER: missing
	// TANDEM_TRY_FOR "soon": want a duration like 300ms or 15m
}
