package deadletter

import (
	"context"
	"fmt"
	"strings"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tandem-fn/tandem/functions/cloudevent"
)

const saveDeadLetterSQL = `insert into tandem.dead_letter as d (function, source, id, cluster, type, code, reason, attempts, event)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
on conflict (function, source, id, cluster) do update
set code = excluded.code, reason = excluded.reason, event = excluded.event, times = d.times + 1, last_at = now(),
    attempts = greatest(d.attempts, excluded.attempts)`

// maxReason bounds the reason kept with a dead letter, in bytes.
const maxReason = 4096

// Letter is an event that could not be got through a function.
type Letter struct {
	// Function names the function.
	Function string

	// Event is the event, whole.
	Event event.Event

	// Code is the status that the function answered last; 0 if that is not known.
	Code int

	// Reason is what it said, of which the first 4,096 bytes count.
	Reason string

	// Attempts is how often the event was offered to the function; 0 if that is
	// not known.
	Attempts int
}

// Store keeps the events that a cluster could not get through a function.
// They bypass the ledger: one row an event, function and cluster. It may be
// shared.
type Store struct {
	pool    *pgxpool.Pool
	cluster string
}

// NewStore keeps the dead letters of one cluster in the database behind
// pool.
func NewStore(pool *pgxpool.Pool, cluster string) *Store {
	return &Store{pool: pool, cluster: cluster}
}

// Save keeps a dead letter. The same event again replaces code and reason and is
// counted.
func (d *Store) Save(ctx context.Context, letter Letter) error {
	e := letter.Event
	text, err := cloudevent.AppendJSON(nil, e)
	if err != nil {
		return fmt.Errorf("save dead letter of function %s: %w", letter.Function, err)
	}
	if _, err := d.pool.Exec(ctx, saveDeadLetterSQL, letter.Function, e.Source(), e.ID(), d.cluster, e.Type(),
		letter.Code, storable(letter.Reason), int32(min(max(letter.Attempts, 0), 1<<30)), text); err != nil {
		return fmt.Errorf("save dead letter of function %s: %w", letter.Function, err)
	}
	return nil
}

// storable makes a text that PostgreSQL can store out of any bytes, and not too
// long a one.
func storable(text string) string {
	if len(text) > maxReason {
		text = text[:maxReason]
	}
	return strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
}
