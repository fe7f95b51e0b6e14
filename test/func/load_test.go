package func_test

import (
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
)

// events are the events of a function, and the queries that show which of them it
// has processed.
type events struct {
	eventType string
	data      string // of each event

	ids   string // SQL: the ids in its table
	total string // SQL: how many events its totals have counted
}

const (
	senders = 16

	// enough acknowledgements for continuous load
	enough = 500
)

// stopUnderLoad stops program with SIGTERM while it receives events, and checks
// that every acknowledged event is committed. Then it restarts the program and
// sends all of them again.
func (e events) stopUnderLoad(t *testing.T, program, databaseURL string, more ...string) {
	t.Helper()

	p := serve(t, program, databaseURL, more...)
	acknowledged := make([]map[string]bool, senders)
	var next, acks atomic.Int64
	running := make(chan struct{})
	var load sync.WaitGroup
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: senders}, Timeout: patience}
	defer client.CloseIdleConnections()
	for s := range senders {
		acknowledged[s] = make(map[string]bool)
		load.Go(func() {
			for {
				select {
				case <-p.done:
					return
				default:
				}
				id := fmt.Sprintf("event-%d", next.Add(1))
				status, body, err := post(t.Context(), client, p.url, e.eventType, "/load", id, e.data)
				switch {
				case err != nil: // stopped: the outcome of this one is unknown
					return
				case status == http.StatusServiceUnavailable: // stopping
				case status != http.StatusNoContent:
					t.Errorf("%s is answered %d %s", id, status, body)
					return
				default:
					acknowledged[s][id] = true
					if acks.Add(1) == enough {
						close(running)
					}
				}
			}
		})
	}
	select {
	case <-running:
	case <-p.done:
		t.Fatalf("it ended by itself: %v\n%s", p.err, p.said.String())
	}
	p.terminate(t)
	load.Wait()

	there := e.there(t, databaseURL)
	for _, ids := range acknowledged {
		for id := range ids {
			if !there[id] {
				t.Errorf("%s was acknowledged and is not in the database", id)
			}
		}
	}
	t.Logf("of %d events %d were acknowledged before it stopped, and %d are there", next.Load(), acks.Load(), len(there))

	again := serve(t, program, databaseURL, more...)
	sent := next.Load()
	next.Store(0)
	for range senders {
		load.Go(func() {
			for n := next.Add(1); n <= sent; n = next.Add(1) {
				status, body, err := post(t.Context(), client, again.url, e.eventType, "/load", fmt.Sprintf("event-%d", n), e.data)
				for err == nil && status == http.StatusServiceUnavailable { // a busy machine: retry
					status, body, err = post(t.Context(), client, again.url, e.eventType, "/load", fmt.Sprintf("event-%d", n), e.data)
				}
				if err != nil || status != http.StatusNoContent {
					t.Errorf("sent again, event-%d is answered %d %s, error %v", n, status, body, err)
					return
				}
			}
		})
	}
	load.Wait()
	again.terminate(t)
	if got := int64(len(e.there(t, databaseURL))); got != sent {
		t.Errorf("%d rows are there for %d events", got, sent)
	}
	if got := query[int64](t, databaseURL, e.total); got != sent {
		t.Errorf("the totals have counted %d of %d events", got, sent)
	}
}

// there returns the ids in the database.
func (e events) there(t *testing.T, databaseURL string) map[string]bool {
	t.Helper()

	ids := make(map[string]bool)
	for _, id := range query[[]string](t, databaseURL, "select coalesce(array_agg(id), '{}') from ("+e.ids+") i(id)") {
		ids[id] = true
	}
	return ids
}

func query[T any](t *testing.T, databaseURL, sql string) (value T) {
	t.Helper()

	conn, err := pgx.Connect(t.Context(), databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context()) //nolint:errcheck // nothing is open on it
	if err := conn.QueryRow(t.Context(), sql).Scan(&value); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return value
}
