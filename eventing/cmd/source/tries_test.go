package main

import (
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool" //nolint:depguard // the test looks at what is kept

	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
	"github.com/tandem-fn/tandem/eventing/devcluster/pgtest"
	"github.com/tandem-fn/tandem/sinkwriter/schema"
)

// An event that breaks the function is dead after TANDEM_TRY_FOR, though no process
// lives as long. What is not the event's fault is not counted, in however many lives.
func TestTriesSurviveARestart(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	publish(t, server, 20)
	ids := make([]string, 20)
	for i := range ids {
		ids[i] = fmt.Sprintf("test-%06d", i)
	}
	// Statuses that are tried again for ever; 0 is no answer.
	innocent := map[string]int{ids[2]: 503, ids[3]: 404, ids[4]: 401, ids[5]: 403, ids[6]: 415, ids[7]: 0, ids[8]: 502, ids[9]: 429}
	poison := ids[11]

	var mu sync.Mutex
	tried, letters, done := map[string]int{}, map[string]string{}, map[string]bool{}
	sink := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		id := r.Header.Get("Ce-Id")
		status, bad := innocent[id]
		switch {
		case id == "": // a batch, of which nothing counts
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
	t.Cleanup(sink.Close)
	url := pgtest.URL(t)
	if err := schema.Migrate(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	pool, err := pgxpool.New(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	row := func() (sequences []int, ms int) {
		rows, err := pool.Query(t.Context(), `select sequence::integer, tried_ms::integer from tandem.tries`)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		for rows.Next() {
			var sequence int
			if err := rows.Scan(&sequence, &ms); err != nil {
				t.Fatal(err)
			}
			sequences = append(sequences, sequence)
		}
		return sequences, ms
	}
	dead := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return letters[poison] != ""
	}

	lives, before := 0, 0
	for ; !dead(); lives++ {
		p := start(t, server.URL(), sink.URL, "DATABASE_URL="+url, "TANDEM_TRY_FOR=4s", "TANDEM_BATCH="+strconv.Itoa(1+lives%2*9))
		ms := 0
		eventually(t, "tries are kept, or it is dead", func() bool {
			var sequences []int
			sequences, ms = row()
			if len(sequences) > 1 || len(sequences) == 1 && sequences[0] != 12 {
				t.Fatalf("tries of %v are kept, want only those of the one that breaks the function", sequences)
			}
			return dead() || ms >= before+700
		})
		if !dead() {
			before = ms
		}
		p.end(t, []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM}[lives%2])
	}
	if lives < 3 || lives > 10 {
		t.Errorf("it took %d lives, of which each tried for 0.7 s and more, until the event was dead after 4 s", lives)
	}

	// What a kill kept from being forgotten goes when all below it is done.
	mu.Lock()
	blameless := maps.Clone(innocent)
	clear(innocent)
	mu.Unlock()
	p := start(t, server.URL(), sink.URL, "DATABASE_URL="+url, "TANDEM_TRY_FOR=4s")
	eventually(t, "tries are forgotten, and the rest is done", func() bool {
		sequences, _ := row()
		mu.Lock()
		defer mu.Unlock()
		return len(sequences) == 0 && len(done) == 20-1
	})
	p.end(t, syscall.SIGTERM)
	mu.Lock()
	defer mu.Unlock()
	if len(letters) != 1 || letters[poison] != fmt.Sprint(tried[poison]) {
		// Killed between the function's answer and the next second, it knows of fewer.
		if n, _ := strconv.Atoi(letters[poison]); len(letters) != 1 || n > tried[poison] || n < tried[poison]/2 {
			t.Errorf("dead letters %v, want one, of %s after %d tries", letters, poison, tried[poison])
		}
	}
	for id, status := range blameless {
		if tried[id] < lives {
			t.Errorf("%s, answered %d, was tried %d times in %d lives", id, status, tried[id], lives)
		}
	}
}
