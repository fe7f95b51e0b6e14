package main

import (
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool" //nolint:depguard // the test reads the tables

	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
	"github.com/tandem-fn/tandem/eventing/devcluster/pgtest"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
	"github.com/tandem-fn/tandem/sinkwriter/schema"
)

// An event that breaks the function is dead after TANDEM_TRY_FOR, although no process
// runs for that long. Failures that are not the event's fault do not count, over any
// number of processes. The test does not depend on how long a process runs: on a slow
// machine that may be longer than TANDEM_TRY_FOR.
func TestTriesSurviveARestart(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	publish(t, server, 20)
	ids := make([]string, 20)
	for i := range ids {
		ids[i] = fmt.Sprintf("test-%06d", i)
	}
	// Statuses that are retried without end; 0 means no answer.
	innocent := map[string]int{ids[2]: 503, ids[3]: 404, ids[4]: 401, ids[5]: 403, ids[6]: 415, ids[7]: 0, ids[8]: 502, ids[9]: 429}
	poison := ids[11]

	var mu sync.Mutex
	tried, letters, done := map[string]int{}, map[string]string{}, map[string]bool{}
	var open atomic.Int64 // connections
	sink := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/nothing" {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		id := r.Header.Get("Ce-Id")
		status, bad := innocent[id]
		switch {
		case id == "": // a batch, which does not count
			w.WriteHeader(http.StatusInternalServerError)
			return
		case r.URL.Path == "/dead-letters":
			letters[id] = r.Header.Get("Ce-Tandemattempts")
			w.WriteHeader(http.StatusNoContent)
			return
		case id == poison:
			status, bad = http.StatusInternalServerError, true
		}
		tried[id]++
		if bad && status == 0 {
			panic(http.ErrAbortHandler)
		}
		if !bad {
			done[id] = true
			status = http.StatusNoContent
		}
		w.Header().Set("Tandem-Receipt", "lost")
		w.WriteHeader(status)
	}))
	sink.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			open.Add(1)
		case http.StateClosed, http.StateHijacked:
			open.Add(-1)
		case http.StateActive, http.StateIdle:
		}
	}
	sink.Start()
	t.Cleanup(sink.Close)
	// ended waits until the sink has received all requests of a process that has ended: its
	// connections are closed, and were accepted before another one.
	ended := func() {
		t.Helper()
		_, _ = get(t, sink.URL+"/nothing")
		http.DefaultClient.CloseIdleConnections()
		eventtest.Eventually(t, "no connection is left", func() bool { return open.Load() == 0 })
	}
	url := pgtest.URL(t)
	if err := schema.Migrate(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	pool, err := pgxpool.New(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	row := func() (sequences []int, tries, ms int) {
		rows, err := pool.Query(t.Context(), `select sequence::integer, tries, tried_ms::integer from tandem.tries`)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		for rows.Next() {
			var sequence int
			if err := rows.Scan(&sequence, &tries, &ms); err != nil {
				t.Fatal(err)
			}
			sequences = append(sequences, sequence)
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
		if len(sequences) > 1 || len(sequences) == 1 && sequences[0] != 12 {
			t.Fatalf("tries of %v are kept, want only those of the one that breaks the function", sequences)
		}
		return sequences, tries, ms
	}
	triedNow := func() map[string]int {
		mu.Lock()
		defer mu.Unlock()
		return maps.Clone(tried)
	}

	// Several processes in a row attempt it, and the others too. The time in which only others
	// are answered, and not by the function itself, is an outage, which does not count.
	tries, ms := 0, 0
	for life, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL, syscall.SIGTERM} {
		before := triedNow()
		p := start(t, server.URL(), sink.URL, "DATABASE_URL="+url, "TANDEM_TRY_FOR=1h", "TANDEM_BATCH="+strconv.Itoa(1+life%2*9))
		enough, until := tries+2, ms+1
		eventtest.Eventually(t, "tries are kept", func() bool {
			kept, triesNow, msNow := row()
			if life > 0 && len(kept) == 0 || triesNow < tries || msNow < ms {
				t.Fatalf("%d tries in %d ms are kept in life %d, after %d in %d ms", triesNow, msNow, life, tries, ms)
			}
			tries, ms = triesNow, msNow
			now := triedNow()
			for id := range innocent {
				if now[id] == before[id] {
					return false
				}
			}
			return tries >= enough && ms >= until
		})
		p.end(t, signal)
		ended()
	}
	_, tries, ms = row() // the last process may have saved more

	// The event was attempted for longer than the new limit: one more attempt is enough.
	before := triedNow()
	p := start(t, server.URL(), sink.URL, "DATABASE_URL="+url, "TANDEM_TRY_FOR="+strconv.Itoa(ms)+"ms")
	eventtest.Eventually(t, "it is dead", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return letters[poison] != ""
	})
	p.end(t, syscall.SIGKILL)
	ended()
	if now := triedNow()[poison]; now != before[poison]+1 {
		t.Errorf("tried %d times in the last life, want once", now-before[poison])
	}
	mu.Lock()
	if want := strconv.Itoa(tries + 1); letters[poison] != want {
		t.Errorf("dead after %s tries, want %s", letters[poison], want)
	}
	mu.Unlock()

	// Rows that a kill kept from being deleted are deleted when everything below is
	// acknowledged.
	mu.Lock()
	clear(innocent)
	mu.Unlock()
	p = start(t, server.URL(), sink.URL, "DATABASE_URL="+url, "TANDEM_TRY_FOR="+strconv.Itoa(ms)+"ms")
	eventtest.Eventually(t, "tries are forgotten, and the rest is done", func() bool {
		kept, _, _ := row()
		mu.Lock()
		defer mu.Unlock()
		return len(kept) == 0 && len(done) == 20-1
	})
	p.end(t, syscall.SIGTERM)
	mu.Lock()
	defer mu.Unlock()
	if len(letters) != 1 {
		t.Errorf("dead letters %v, want one", letters)
	}
}
