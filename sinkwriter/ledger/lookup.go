package ledger

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"
)

// doneSQL forces one index lookup per key, whatever the planner estimates.
const doneSQL = `select tandem.timeline(), array(select u.k from unnest($1::uuid[]) as u(k)
cross join lateral (select from tandem.ledger where key = u.k offset 0) as l)`

// Ledger looks up which events are committed. It claims nothing. It is safe for concurrent
// use.
type Ledger struct {
	pool *pgxpool.Pool
}

// New returns the ledger of the database behind pool, which must be the primary.
func New(pool *pgxpool.Pool) *Ledger { return &Ledger{pool: pool} }

// Committed returns the subset of keys that are in the ledger, and the timeline of the
// server that answered. It does not wait for transactions in progress, so a key that is
// missing may be committed a moment later. Pass at most a few thousand keys.
//
// A former primary may still answer, on its own timeline; see [Earlier].
func (l *Ledger) Committed(ctx context.Context, keys []Key) (done map[Key]bool, timeline string, err error) {
	ask := make([][16]byte, len(keys))
	for i, k := range keys {
		ask[i] = k
	}
	var found [][16]byte
	if err := l.pool.QueryRow(ctx, doneSQL, ask).Scan(&timeline, &found); err != nil {
		return nil, "", fmt.Errorf("look up %d keys in the ledger: %w", len(keys), err)
	}
	done = make(map[Key]bool, len(found))
	for _, key := range found {
		done[key] = true
	}
	return done, timeline, nil
}

// Earlier reports whether a failover of one server led from timeline to other. It is false
// for timelines of two servers, and where timelines are hidden.
func Earlier(timeline, other string) bool {
	server, number, _ := strings.Cut(timeline, "/")
	otherServer, otherNumber, _ := strings.Cut(other, "/")
	return server == otherServer && server != startedPrefix && number < otherNumber
}

// startedPrefix is the part before the slash if tandem.timeline() returns the start
// time of the server.
const startedPrefix = "started"
