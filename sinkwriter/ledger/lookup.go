package ledger

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"
)

// doneSQL looks each key up by itself, whatever the planner believes.
const doneSQL = `select tandem.timeline(), array(select u.k from unnest($1::uuid[]) as u(k)
cross join lateral (select from tandem.ledger where key = u.k offset 0) as l)`

// Ledger says what is done. It claims nothing. It may be shared.
type Ledger struct {
	pool *pgxpool.Pool
}

// New reads the ledger of the database behind pool, which must be the
// primary.
func New(pool *pgxpool.Pool) *Ledger { return &Ledger{pool: pool} }

// Committed gives those of the keys that are in the ledger, and the timeline on which
// they are: there their events are handled, for good. That one is not among them
// says nothing: it may be committed at this moment. Ask for some thousand at a time.
//
// A server whose place another one has taken since may still answer, on its own
// timeline; see [Earlier].
func (l *Ledger) Committed(ctx context.Context, keys []Key) (done map[Key]bool, timeline string, err error) {
	ask := make([][16]byte, len(keys))
	for i, k := range keys {
		ask[i] = k
	}
	var found [][16]byte
	if err := l.pool.QueryRow(ctx, doneSQL, ask).Scan(&timeline, &found); err != nil {
		return nil, "", fmt.Errorf("ask the ledger for %d keys: %w", len(keys), err)
	}
	done = make(map[Key]bool, len(found))
	for _, key := range found {
		done[key] = true
	}
	return done, timeline, nil
}

// Earlier reports whether a timeline is one that the server of another one left by a
// failover. Of two servers, or where timelines are hidden, that is not known.
func Earlier(timeline, other string) bool {
	server, number, _ := strings.Cut(timeline, "/")
	otherServer, otherNumber, _ := strings.Cut(other, "/")
	return server == otherServer && server != startedPrefix && number < otherNumber
}

// startedPrefix is before the slash where tandem.timeline() tells when the server was
// started.
const startedPrefix = "started"
