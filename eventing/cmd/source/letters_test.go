package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool" //nolint:depguard // looks into the database

	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
	"github.com/tandem-fn/tandem/eventing/devcluster/pgtest"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
	"github.com/tandem-fn/tandem/sinkwriter/schema"
)

// A proxy that rejects an event for its size rejects its dead letter too.
func TestADeadLetterThatItsSinkRefusesForGoodIsSavedInTheDatabase(t *testing.T) {
	t.Parallel()

	url := pgtest.URL(t)
	if err := schema.Migrate(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	pool, err := pgxpool.New(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "too large for this proxy", http.StatusRequestEntityTooLarge)
	}))
	t.Cleanup(proxy.Close)
	server := natstest.Start(t)
	publish(t, server, 2)
	p := start(t, server.URL(), proxy.URL, "DATABASE_URL="+url)
	eventtest.Eventually(t, "both are saved", func() bool {
		var letters int
		err := pool.QueryRow(t.Context(), `select count(*) from tandem.dead_letter where function = 'flights' and cluster = 'east'
			and source = '/test' and code = 413 and reason like 'too large for this proxy%' and attempts = 1`).Scan(&letters)
		return err == nil && letters == 2
	})
	eventtest.Eventually(t, "both are counted and acknowledged", func() bool {
		text, err := get(t, p.metrics+"/metrics")
		return err == nil && strings.Contains(text, "\ntandem_source_rejected_total{cluster=\"east\",function=\"flights\"} 2\n") &&
			strings.Contains(text, "\ntandem_source_unacknowledged{cluster=\"east\",function=\"flights\"} 0\n")
	})
}
