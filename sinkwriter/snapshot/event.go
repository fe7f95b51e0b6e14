package snapshot

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	commitsSQL = `select f.function, coalesce(w.cluster, ''), coalesce(w.version, ''), l.committed_at, l.key::text, encode(l.digest, 'hex')
from (select function from tandem.writer union select function from tandem.progress union select function from tandem.dead_letter union select function from tandem.deferred_event) as f
join tandem.ledger l on l.key = tandem.key(f.function, $1, $2)
left join tandem.writer w on w.writer = l.writer and w.function = f.function
order by l.committed_at, f.function`

	eventLettersSQL = `select d.function, d.cluster, v.verdict, d.code, d.reason, d.attempts, d.times, d.first_at, d.last_at,
    case when v.verdict = 'sick cluster' then '' else coalesce(d.event ->> 'subject', '') end
from tandem.dead_letter d join tandem.verdict v using (function, source, id)
where d.source = $1 and d.id = $2 order by d.function, d.cluster`

	storedSQL = `select function, cluster, subject, stored_at from tandem.blocked_event
where source = $1 and id = $2 order by function, cluster`

	deferredInSQL = `select function, cluster, fingerprint, version, held, attempts, first_failed_at, last_failed_at, next_run_at,
    subject, reason from tandem.deferred_event
where source = $1 and hashtextextended(id, 0) = hashtextextended($2, 0) and id = $2 order by function, cluster`

	divergencesSQL = `select function, version, lost_cluster, won_cluster, found_at from tandem.divergence
where source = $1 and id = $2 order by function, version, lost_cluster`

	waitingSQL = `select event_source, event_id, type, due, 0, '' from tandem.outbox_event where event ->> 'causationid' = $1
union all select source, id, type, last_at, code, reason from tandem.rejected_output where event ->> 'causationid' = $1`

	blockersSQL = `select d.function, d.cluster, d.source, d.id from tandem.dead_letter d
where d.event ->> 'subject' = $1 and not (d.source = $2 and d.id = $3)
and not exists (select from tandem.ledger l where l.key = tandem.key(d.function, d.source, d.id))
union
select e.function, e.cluster, e.source, e.id from tandem.deferred_event e
where e.subject = $1 and not (e.source = $2 and e.id = $3) and not exists (select from tandem.ledger l where l.key = e.key)
order by 1, 2, 3, 4`

	progressSQL = `select p.cluster, p.function, p.stream, p.epoch, p.floor::text, p.head::text, coalesce(h.floor, 0)::text, p.hedge, p.saved_at
from tandem.progress p left join tandem.horizon h using (function, stream, epoch) order by p.function, p.stream, p.cluster`
)

// Event is the state of one event in the database.
type Event struct {
	Commits     []Commit     `json:"commits"`
	Letters     []Letter     `json:"dead_letters"`
	Divergences []Divergence `json:"divergences"`
	Stored      []Stored     `json:"stored,omitempty"`
	Deferred    []Deferred   `json:"deferred,omitempty"`
}

// Commit is the ledger's row for a function.
type Commit struct {
	Function    string    `json:"function"`
	Cluster     string    `json:"cluster"` // the winner
	Version     string    `json:"version"`
	CommittedAt time.Time `json:"committed_at"` // by the server's clock
	Key         string    `json:"key"`
	Digest      string    `json:"digest"`
}

// Letter is a dead letter of one cluster.
type Letter struct {
	Function string    `json:"function"`
	Cluster  string    `json:"cluster"`
	Verdict  string    `json:"verdict"`
	Code     int       `json:"code"`
	Reason   string    `json:"reason"`
	Attempts int64     `json:"attempts"`
	Times    int64     `json:"times"`
	FirstAt  time.Time `json:"first_at"`
	LastAt   time.Time `json:"last_at"`

	// Blocks is the subject whose later events wait, with ordered delivery, until the
	// letter is replayed or dropped. Empty if there is none.
	Blocks string `json:"blocks,omitempty"`
}

// Stored is a cluster in which the event is acknowledged and stored, and waits until a
// dead letter of its subject is replayed or dropped.
type Stored struct {
	Function string    `json:"function"`
	Cluster  string    `json:"cluster"`
	Subject  string    `json:"subject"`
	StoredAt time.Time `json:"stored_at"`
}

// Deferred is a cluster in which the event is acknowledged and waits for a change of the
// deployment.
type Deferred struct {
	Function      string     `json:"function"`
	Cluster       string     `json:"cluster"`
	Fingerprint   string     `json:"fingerprint"` // the missing object
	Version       string     `json:"version"`
	Held          bool       `json:"held"` // it runs only when a person requests it
	Attempts      int64      `json:"attempts"`
	FirstFailedAt time.Time  `json:"first_failed_at"`
	LastFailedAt  time.Time  `json:"last_failed_at"`
	NextRunAt     *time.Time `json:"next_run_at,omitempty"`

	// Blocks is the subject whose later events wait, with ordered delivery.
	Blocks string `json:"blocks,omitempty"`
	Reason string `json:"reason"`
}

// Divergence is a cluster whose effects differ from the winner's.
type Divergence struct {
	Function    string    `json:"function"`
	Version     string    `json:"version"`
	LostCluster string    `json:"lost_cluster"`
	WonCluster  string    `json:"won_cluster"`
	FoundAt     time.Time `json:"found_at"`
}

// Event returns the state of an event in the database, for all functions.
func (s *Snapshot) Event(ctx context.Context, source, id string) (Event, error) {
	var e Event
	var err error
	if e.Commits, err = collect[Commit](ctx, s.tx, commitsSQL, source, id); err != nil {
		return e, fmt.Errorf("read the ledger: %w", err)
	}
	if e.Letters, err = collect[Letter](ctx, s.tx, eventLettersSQL, source, id); err != nil {
		return e, fmt.Errorf("read dead letters: %w", err)
	}
	if e.Divergences, err = collect[Divergence](ctx, s.tx, divergencesSQL, source, id); err != nil {
		return e, fmt.Errorf("read divergences: %w", err)
	}
	if e.Stored, err = collect[Stored](ctx, s.tx, storedSQL, source, id); err != nil {
		return e, fmt.Errorf("read blocked events: %w", err)
	}
	if e.Deferred, err = collect[Deferred](ctx, s.tx, deferredInSQL, source, id); err != nil {
		return e, fmt.Errorf("read deferred events: %w", err)
	}
	return e, nil
}

// Waiting is an output in the outbox, or one that was rejected.
type Waiting struct {
	Source string    `json:"source"`
	ID     string    `json:"id"`
	Type   string    `json:"type"`
	Due    time.Time `json:"due"`  // when a relay takes it over, or when it was last rejected
	Code   int       `json:"code"` // status of the rejection; 0 if it was not rejected
	Reason string    `json:"reason"`
}

// Outbox returns the outputs in the outbox, and the rejected ones, that were caused by events
// with an id, of any source.
func (s *Snapshot) Outbox(ctx context.Context, causationID string) ([]Waiting, error) {
	list, err := collect[Waiting](ctx, s.tx, waitingSQL, causationID)
	if err != nil {
		return nil, fmt.Errorf("read the outbox: %w", err)
	}
	return list, nil
}

// Blocker is a dead letter or a deferred event that blocks a subject with ordered delivery.
type Blocker struct {
	Function string `json:"function"`
	Cluster  string `json:"cluster"`
	Source   string `json:"source"`
	ID       string `json:"id"`
}

// Blockers returns the dead letters and deferred events, of other events, that block a subject.
func (s *Snapshot) Blockers(ctx context.Context, subject, source, id string) ([]Blocker, error) {
	list, err := collect[Blocker](ctx, s.tx, blockersSQL, subject, source, id)
	if err != nil {
		return nil, fmt.Errorf("read what blocks the subject: %w", err)
	}
	return list, nil
}

// Progress is the position of a cluster's source in a stream.
type Progress struct {
	Cluster, Function, Stream, Epoch string

	// Floor is the sequence number below which the source has acknowledged every
	// message, Head the one from which on it has delivered none, and Horizon the one
	// below which the ledger may have forgotten events; 0 if nothing was forgotten.
	Floor, Head, Horizon uint64

	Hedge   string
	SavedAt time.Time
}

// Progress returns the progress of all clusters.
func (s *Snapshot) Progress(ctx context.Context) ([]Progress, error) {
	rows, err := s.tx.Query(ctx, progressSQL)
	if err != nil {
		return nil, fmt.Errorf("read progress: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Progress, error) {
		var p Progress
		var numbers [3]string
		if err := row.Scan(&p.Cluster, &p.Function, &p.Stream, &p.Epoch, &numbers[0], &numbers[1], &numbers[2], &p.Hedge, &p.SavedAt); err != nil {
			return p, err
		}
		for i, into := range []*uint64{&p.Floor, &p.Head, &p.Horizon} {
			var err error
			if *into, err = strconv.ParseUint(numbers[i], 10, 64); err != nil {
				return p, err
			}
		}
		return p, nil
	})
	if err != nil {
		return nil, fmt.Errorf("read progress: %w", err)
	}
	return list, nil
}

// collect returns rows as structs, and no rows as an empty slice.
func collect[T any](ctx context.Context, tx pgx.Tx, sql string, args ...any) ([]T, error) {
	rows, err := tx.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[T])
	if list == nil {
		list = []T{}
	}
	return list, err
}
