package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tandem-fn/tandem/eventing/devcluster/pgtest"
	"github.com/tandem-fn/tandem/eventing/drill"
	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/functions/flights"
	"github.com/tandem-fn/tandem/hack/feed"
	"github.com/tandem-fn/tandem/test/deployment"
)

// TestARealDeploymentIsWatchedWhilePlugsArePulled uses one of our deployments, but only
// knows the URLs of its database and streams.
func TestARealDeploymentIsWatchedWhilePlugsArePulled(t *testing.T) {
	t.Parallel()

	built, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	w, err := deployment.Start(ctx, deployment.Config{Dir: pgtest.Dir(t), Programs: built})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Stop)
	publisher, err := w.Publisher()
	if err != nil {
		t.Fatal(err)
	}
	feeding, stop := context.WithCancel(ctx)
	defer stop()
	go func() { _ = feed.New(publisher, feed.Config{Rate: 100}).Run(feeding, 0, feed.FlightEvents(0)) }()

	marker := filepath.Join(t.TempDir(), "marker.json")
	if err := os.WriteFile(marker, []byte(`{"specversion":"1.0","id":"x","source":"/drill","type":"com.example.flight.departed",
"data":{"date":"2001/01/01 00:47","origin":"DTW","destination":"LAS","distance":1750,"delay":5}}`), 0o644); err != nil {
		t.Fatal(err)
	}
	pool, err := pgxpool.New(ctx, w.DatabaseURL())
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	conn, err := jetstream.Connect(ctx, w.NATS[0].URL(), jetstream.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if err := conn.Wait(ctx, timeout); err != nil {
		t.Fatal(err)
	}
	in, person := io.Pipe()
	back := make(chan struct{})
	watching, end := context.WithCancel(ctx)
	defer end()
	go func() {
		defer end()
		deployment.Wait(ctx, 2*time.Second)
		w.Lose("east")
		_, _ = io.WriteString(person, "cut the power of east\n")
		deployment.Wait(ctx, 2*time.Second)
		_, _ = io.WriteString(person, "\n")
		select {
		case <-back:
			deployment.Wait(ctx, 2*time.Second)
		case <-ctx.Done():
		}
	}()
	r, err := drill.Watch(watching, drill.Config{
		Pool: pool, Conn: conn, Streams: []jetstream.StreamConfig{{Name: "EVENTS"}}, Outputs: jetstream.StreamConfig{Name: "OUTPUTS"},
		Functions: []functions.Function{flights.Function()}, Scenario: "lose-cluster", MaxGap: timeout,
		Duration: timeout, Marker: marker, MarkerRate: 20, Marks: in, Print: func(format string, args ...any) {
			line := fmt.Sprintf(format, args...)
			t.Log(line)
			if strings.HasSuffix(line, ": it ends") {
				close(back)
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range r.Checks {
		if !c.OK {
			t.Errorf("%s: %s, want %s", c.Name, c.Measured, c.Limit)
		}
	}
	text := r.Markdown()
	for _, want := range []string{"cut the power of east: an interruption begins", ": it ends", "markers acknowledged by the stream but missing", "track_commit_timestamp is off"} {
		if !strings.Contains(text, want) {
			t.Errorf("the report lacks %q:\n%s", want, text)
		}
	}
	if len(r.Phases) != 4 || r.Phases[1].Events == 0 || r.RTO == 0 || r.Audit.Handled < 50 {
		t.Errorf("hardly anything was seen: %+v", r)
	}
}
