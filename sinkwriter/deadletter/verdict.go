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

// What is to be thought of an event with a dead letter.
const (
	// VerdictPoison: refused, and not handled, by every cluster that was heard of
	// within the last hour and is not on standby.
	VerdictPoison = "poison"

	// VerdictSickCluster: refused by some cluster, yet handled by one.
	VerdictSickCluster = "sick cluster"

	// VerdictUndecided: neither, as while other clusters have not come to it.
	VerdictUndecided = "undecided"
)

// Event is an event and function with dead letters, one a cluster.
type Event struct {
	Function string    `json:"function"`
	Source   string    `json:"source"`
	ID       string    `json:"id"`
	Type     string    `json:"type"`
	Clusters []string  `json:"clusters"` // that refused it
	Verdict  string    `json:"verdict"`
	Code     int       `json:"code"`     // the last cluster's
	Reason   string    `json:"reason"`   // the last cluster's
	Attempts int64     `json:"attempts"` // of all clusters; 0 if not known
	Times    int64     `json:"times"`    // how often it was handed in
	FirstAt  time.Time `json:"first_at"` // by the server's clock
	LastAt   time.Time `json:"last_at"`
}

// Filter picks dead events. A field left at zero picks all.
type Filter struct {
	Function, Source, ID, Type, Cluster string

	// Verdict is one of the constants.
	Verdict string

	// Code is the status that was answered last.
	Code int

	// Reason is part of it, in any case.
	Reason string

	// Since and Until bound when the event was handed in last.
	Since, Until time.Time
}

// ClusterLetter is one cluster's dead letter of an event.
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

// Verdicts looks into the dead letters of all clusters, says what to think of them,
// and takes them out. Its role must be the one that migrates. It may be shared.
type Verdicts struct{ pool *pgxpool.Pool }

// NewVerdicts gives those of the database behind pool.
func NewVerdicts(pool *pgxpool.Pool) *Verdicts { return &Verdicts{pool: pool} }

// List gives at most limit dead events, those first that were handed in first.
// After, if not nil, is one of them: what comes behind it is given.
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

// ErrNotFound says that an event has no dead letter, or none any more.
var ErrNotFound = errors.New("it has no dead letter")

// Read gives the dead letters of an event, the last one first, or
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

// Drop takes dead letters of an event out, as they were read; one that was handed
// in again since then stays. It gives how many went.
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
