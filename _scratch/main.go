package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/sinkwriter"
)

func main() {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, os.Args[1])
	if err != nil {
		panic(err)
	}
	for _, cluster := range []string{"east", "west"} {
		w, err := sinkwriter.New(pool, sinkwriter.Config{Cluster: cluster, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))})
		if err != nil {
			panic(err)
		}
		for _, id := range os.Args[2:] {
			e := event.New()
			e.SetSource("/till")
			e.SetID(id)
			e.SetType("t")
			var fx functions.Effects
			fx.Add("airports", functions.Row{"airport": "DTW"}, functions.Row{"flights": 1})
			c, cancel := context.WithTimeout(ctx, 20*time.Second)
			start := time.Now()
			r, err := w.Commit(c, sinkwriter.Offer{Function: "orders", Version: "7", Event: e, Effects: fx})
			cancel()
			fmt.Println(cluster, id, r.Won, err, time.Since(start).Round(time.Millisecond))
		}
		w.Close(ctx)
	}
}
