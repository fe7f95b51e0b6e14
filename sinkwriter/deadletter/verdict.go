package deadletter

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	// From the event after ($1, $2, $3, $4) on, the oldest first.
	listDeadSQL = `select function, source, id, type, clusters, verdict, code, reason, attempts, times, first_at, last_at from tandem.verdict
where ($1::timestamptz is null or (first_at, function, source, id) > ($1, $2, $3, $4))
and ($5 = '' or function = $5) and ($6 = '' or source = $6) and ($7 = '' or id = $7) and ($8 = '' or type = $8)
and ($9 = '' or verdict = $9) and ($10 = '' or $10 = any(clusters)) and ($11 = 0 or code = $11)
and ($12 = '' or strpos(lower(reason), lower($12)) > 0)
and ($13::timestamptz is null or last_at >= $13) and ($14::timestamptz is null or last_at < $14)
order by first_at, function, source, id limit $15`

	readDeadSQL = `select cluster, code, reason, attempts, times, first_at, last_at, event from tandem.dead_letter
where function = $1 and source = $2 and id = $3 order by last_at desc, cluster`

	dropDeadSQL = `delete from tandem.dead_letter where function = $1 and source = $2 and id = $3 and cluster = any($4) and last_at <= $5`
)

// The verdicts on an event with a dead letter.
const (
	// VerdictPoison: every cluster that reported within the last hour and is not
	// on standby refused the event, and none committed it.
	VerdictPoison = "poison"

	// VerdictSickCluster: a cluster refused the event, and another one committed
	// it.
	VerdictSickCluster = "sick cluster"

	// VerdictUndecided: neither of these, for example because other clusters have
	// not reached the event.
	VerdictUndecided = "undecided"
)

// Event is an event with its dead letters for one function, one per cluster.
type Event struct {
	Function string    `json:"function"`
	Source   string    `json:"source"`
	ID       string    `json:"id"`
	Type     string    `json:"type"`
	Clusters []string  `json:"clusters"` // that refused it
	Verdict  string    `json:"verdict"`
	Code     int       `json:"code"`     // of the last cluster
	Reason   string    `json:"reason"`   // of the last cluster
	Attempts int64     `json:"attempts"` // of all clusters; 0 if unknown
	Times    int64     `json:"times"`    // how often it was stored as a dead letter
	FirstAt  time.Time `json:"first_at"` // by the server's clock
	LastAt   time.Time `json:"last_at"`
}

// Filter selects events with dead letters. The zero value of a field selects all.
type Filter struct {
	Function, Source, ID, Type, Cluster string

	// Verdict is one of the constants, such as [VerdictPoison].
	Verdict string

	// Code is the status of the last answer.
	Code int

	// Reason is a part of the reason, regardless of case.
	Reason string

	// Since and Until bound the time at which the event was last stored as a dead
	// letter.
	Since, Until time.Time
}

// ClusterLetter is the dead letter of one cluster for an event.
type ClusterLetter struct {
	Cluster  string          `json:"cluster"`
	Code     int             `json:"code"`
	Reason   string          `json:"reason"`
	Attempts int64           `json:"attempts"`
	Times    int64           `json:"times"`
	FirstAt  time.Time       `json:"first_at"`
	LastAt   time.Time       `json:"last_at"`
	Event    json.RawMessage `json:"event"` // a CloudEvent in JSON
}

// Verdicts lists and deletes the dead letters of all clusters, with a verdict on
// each event. Its role must be the one that migrates. It is safe for concurrent
// use.
type Verdicts struct{ pool *pgxpool.Pool }

// NewVerdicts returns the Verdicts of the database behind pool.
func NewVerdicts(pool *pgxpool.Pool) *Verdicts { return &Verdicts{pool: pool} }

// List returns at most limit events with dead letters, oldest first. If after
// is not nil, the list starts behind that event.
func (v *Verdicts) List(ctx context.Context, f Filter, after *Event, limit int) ([]Event, error) {
	var from Event
	if after != nil {
		from = *after
	}
	rows, err := v.pool.Query(ctx, listDeadSQL, orNull(from.FirstAt), from.Function, from.Source, from.ID,
		f.Function, f.Source, f.ID, f.Type, f.Verdict, f.Cluster, f.Code, f.Reason, orNull(f.Since), orNull(f.Until), limit)
	if err != nil {
		return nil, fmt.Errorf("list dead letters: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Event])
	if err != nil {
		return nil, fmt.Errorf("list dead letters: %w", err)
	}
	return list, nil
}

// ErrNotFound means that an event has no dead letter, or no longer has one.
var ErrNotFound = errors.New("it has no dead letter")

// Read returns the dead letters of an event, newest first, or
// [ErrNotFound].
func (v *Verdicts) Read(ctx context.Context, function, source, id string) ([]ClusterLetter, error) {
	rows, err := v.pool.Query(ctx, readDeadSQL, function, source, id)
	if err != nil {
		return nil, fmt.Errorf("read dead letters of event %s of %s: %w", id, source, err)
	}
	letters, err := pgx.CollectRows(rows, pgx.RowToStructByPos[ClusterLetter])
	if err == nil && len(letters) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("read dead letters of event %s of %s: %w", id, source, err)
	}
	return letters, nil
}

// Drop deletes the given dead letters of an event, except those that changed
// after they were read. It returns how many it deleted.
func (v *Verdicts) Drop(ctx context.Context, function, source, id string, letters []ClusterLetter) (int64, error) {
	var clusters []string
	var last time.Time
	for _, l := range letters {
		clusters = append(clusters, l.Cluster)
		if l.LastAt.After(last) {
			last = l.LastAt
		}
	}
	tag, err := v.pool.Exec(ctx, dropDeadSQL, function, source, id, clusters, last)
	if err != nil {
		return 0, fmt.Errorf("drop dead letters of event %s of %s: %w", id, source, err)
	}
	return tag.RowsAffected(), nil
}

func orNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
