package devcluster_test

import (
	"context"
	"fmt"
	"log"
	"os/signal"
	"syscall"

	"github.com/tandem-fn/tandem/eventing/devcluster"
	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/functions/flights"
	"github.com/tandem-fn/tandem/sinkwriter/schema"
)

// Two clusters share a database and the streams until Ctrl-C.
func ExampleNew() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT)
	defer stop()

	f := flights.Function()
	d, err := devcluster.New(devcluster.Config{
		Dir:      ".tandem",
		Postgres: &devcluster.PostgresConfig{},
		Prepare: func(ctx context.Context, databaseURL string) error {
			return schema.Migrate(ctx, databaseURL, schema.MigrationSet{Name: f.Name, Files: f.Migrations})
		},
		NATS:     &devcluster.NATSConfig{},
		Streams:  []jetstream.StreamConfig{{Name: "EVENTS"}, {Name: "OUTPUTS"}},
		Clusters: []devcluster.ClusterConfig{{Name: "east"}, {Name: "west", Env: []string{"TANDEM_HEDGE=100ms"}}},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer d.Stop(ctx)
	if err := d.Start(ctx); err != nil {
		log.Print(err)
		return
	}
	for _, c := range d.Clusters() {
		fmt.Println(c.Name(), "accepts CloudEvents at", c.IngestURL())
	}
	<-ctx.Done()
}
