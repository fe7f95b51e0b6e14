package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5" //nolint:depguard // leaves behind what a dead winner would

	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
	"github.com/tandem-fn/tandem/eventing/devcluster/pgtest"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
	"github.com/tandem-fn/tandem/sinkwriter/schema"
)

func TestWithoutAStreamTheProgramIsARelay(t *testing.T) {
	t.Parallel()

	t.Run("to a sink, without NATS", func(t *testing.T) {
		t.Parallel()

		var broken atomic.Bool
		broken.Store(true)
		var published sync.Map
		sink := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if broken.Load() {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			published.Store(r.Header.Get("Ce-Id"), true)
		}))
		t.Cleanup(sink.Close)
		url, left := abandoned(t)
		p := start(t, "", sink.URL, "TANDEM_STREAMS=none", "TANDEM_FUNCTION=", "DATABASE_URL="+url)
		eventtest.Eventually(t, "it is not ready", func() bool {
			_, err := get(t, p.metrics+"/health")
			return err != nil && strings.Contains(err.Error(), "503")
		})
		broken.Store(false)
		for _, id := range []string{"a", "b"} {
			eventtest.Eventually(t, id+" is published", func() bool { _, ok := published.Load(id); return ok })
		}
		eventtest.Eventually(t, "the outbox is empty", func() bool { return left() == 0 })
		eventtest.Eventually(t, "it is ready", func() bool { _, err := get(t, p.metrics+"/health"); return err == nil })
		if p.end(t, syscall.SIGTERM); p.Cmd.ProcessState.ExitCode() != 0 {
			t.Errorf("SIGTERM: %s\n%s", p.Cmd.ProcessState, p.Log)
		}
	})
	t.Run("to a stream", func(t *testing.T) {
		t.Parallel()

		server := natstest.Start(t)
		url, left := abandoned(t)
		start(t, server.URL(), "", "TANDEM_STREAMS=none", "K_SINK=", "DATABASE_URL="+url)
		eventtest.Eventually(t, "the outbox is empty", func() bool { return left() == 0 })
		js := natstest.JetStream(t, server.URL())
		stream, err := js.Stream(t.Context(), "OUTPUTS")
		if err != nil {
			t.Fatal(err)
		}
		if n := stream.CachedInfo().State.Msgs; n != 2 {
			t.Errorf("%d outputs are in the stream, want 2", n)
		}
	})
}

// abandoned returns a database with two overdue outputs.
func abandoned(t *testing.T) (url string, left func() int) {
	t.Helper()

	url = pgtest.URL(t)
	if err := schema.Migrate(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	for _, id := range []string{"a", "b"} {
		if _, err := conn.Exec(t.Context(), `insert into tandem.outbox (due, events) values (now() - interval '1 second', $1)`,
			`[{"specversion":"1.0","id":"`+id+`","source":"/s","type":"t"}]`); err != nil {
			t.Fatal(err)
		}
	}
	return url, func() (n int) {
		if err := conn.QueryRow(t.Context(), "select count(*) from tandem.outbox").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
}
