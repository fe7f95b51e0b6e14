package deadletter

import (
	"context"
	"fmt"
	"strings"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tandem-fn/tandem/functions/cloudevent"
	"github.com/tandem-fn/tandem/sinkwriter/internal/pgjson"
)

const saveDeadLetterSQL = `insert into tandem.dead_letter as d (function, source, id, cluster, type, code, reason, attempts, event)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
on conflict (function, source, id, cluster) do update
set code = excluded.code, reason = excluded.reason, event = excluded.event, times = d.times + 1, last_at = now(),
    attempts = greatest(d.attempts, excluded.attempts)`

// maxReason bounds the stored reason of a dead letter, in bytes.
const maxReason = 4096

// Letter is an event that a function refused, or that failed too often.
type Letter struct {
	// Function is the function's name.
	Function string

	// Event is the event, whole.
	Event event.Event

	// Code is the HTTP status of the function's last answer; 0 if unknown.
	Code int

	// Reason is the body of that answer; its first 4,096 bytes are stored.
	Reason string

	// Attempts is how often the event was delivered to the function; 0 if unknown.
	Attempts int
}

// Store stores dead letters. They bypass the ledger: one row per event, function and
// cluster. It is safe for concurrent use.
type Store struct {
	pool    *pgxpool.Pool
	cluster string
}

// NewStore returns the dead letters of one cluster in the database behind pool.
func NewStore(pool *pgxpool.Pool, cluster string) *Store {
	return &Store{pool: pool, cluster: cluster}
}

// Save stores a dead letter. If the event already has one in this cluster, Save
// replaces code and reason, and increments the counter.
func (d *Store) Save(ctx context.Context, letter Letter) error {
	e := letter.Event
	text, err := cloudevent.AppendJSON(nil, pgjson.Readable(e))
	if err != nil {
		return fmt.Errorf("save dead letter of function %s: %w", letter.Function, err)
	}
	if _, err := d.pool.Exec(ctx, saveDeadLetterSQL, letter.Function, e.Source(), e.ID(), d.cluster, e.Type(),
		letter.Code, storable(letter.Reason), int32(min(max(letter.Attempts, 0), 1<<30)), text); err != nil {
		return fmt.Errorf("save dead letter of function %s: %w", letter.Function, err)
	}
	return nil
}

// storable converts any bytes to a text that PostgreSQL can store, of at most
// maxReason bytes.
func storable(text string) string {
	if len(text) > maxReason {
		text = text[:maxReason]
	}
	return strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
}
