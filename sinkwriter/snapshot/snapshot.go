// Package snapshot reads the state of the database at one moment: the ledger, the
// progress, the dead letters, the outbox, and the tables of functions. It changes
// nothing.
package snapshot

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

const (
	floorsSQL    = `select function, stream, epoch, max(floor)::text from tandem.progress group by 1, 2, 3`
	horizonsSQL  = `select function, stream, epoch, floor::text from tandem.horizon`
	blockedSQL   = `select distinct function, source, id from tandem.blocked_event`
	deferredSQL  = `select distinct function, source, id from tandem.deferred_event`
	lettersSQL   = `select function, source, id, bool_or(reason = '') from tandem.dead_letter group by 1, 2, 3`
	committedSQL = `select l.key, l.digest, coalesce(w.version, '') from tandem.ledger l
left join tandem.writer w using (writer) where l.key = any($1::uuid[])`
	ledgerSQL = `select l.key, w.function, l.committed_at::text from tandem.ledger l join tandem.writer w using (writer)
where w.function = any($1::text[])`
	outboxSQL = `select event_source, event_id, false from tandem.outbox_event
union all select source, id, true from tandem.rejected_output`
	columnsSQL = `select a.attname, format_type(a.atttypid, null),
    coalesce(a.attnum = any(k.conkey), false), c.oid::regclass::text
from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
left join pg_constraint k on k.conrelid = c.oid and k.contype = 'p'
where c.oid = $1::text::regclass order by a.attnum`
)

// Snapshot is the state of the database at the first call of one of its methods. It
// is not safe for concurrent use.
type Snapshot struct{ tx pgx.Tx }

// Read calls do with a snapshot, which is valid until do returns.
func Read(ctx context.Context, pool *pgxpool.Pool, do func(*Snapshot) error) error {
	return pgx.BeginTxFunc(ctx, pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		return do(&Snapshot{tx})
	})
}

// Stream is a function's view of a stream.
type Stream struct{ Function, Stream, Epoch string }

// Floors returns for each function and stream the sequence number below which the
// foremost cluster has acknowledged every message.
func (s *Snapshot) Floors(ctx context.Context) (map[Stream]uint64, error) {
	return s.positions(ctx, floorsSQL)
}

// Horizons returns for each function and stream the sequence number below which the
// ledger may have forgotten events.
func (s *Snapshot) Horizons(ctx context.Context) (map[Stream]uint64, error) {
	return s.positions(ctx, horizonsSQL)
}

func (s *Snapshot) positions(ctx context.Context, sql string) (map[Stream]uint64, error) {
	rows, err := s.tx.Query(ctx, sql)
	if err != nil {
		return nil, err
	}
	positions := map[Stream]uint64{}
	var at Stream
	var text string
	_, err = pgx.ForEachRow(rows, []any{&at.Function, &at.Stream, &at.Epoch, &text}, func() error {
		n, err := strconv.ParseUint(text, 10, 64)
		positions[at] = n
		return err
	})
	return positions, err
}

// DeadLetter is an event that has dead letters of a function, in any clusters.
type DeadLetter struct {
	Function, Source, ID string

	// WithoutReason reports whether one of them has no reason.
	WithoutReason bool
}

// DeadLetters returns the events with dead letters.
func (s *Snapshot) DeadLetters(ctx context.Context) ([]DeadLetter, error) {
	rows, err := s.tx.Query(ctx, lettersSQL)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[DeadLetter])
}

// BlockedEvent is an event that is stored behind a dead letter of its subject, in
// any clusters.
type BlockedEvent struct{ Function, Source, ID string }

// BlockedEvents returns the events that are stored behind dead letters.
func (s *Snapshot) BlockedEvents(ctx context.Context) ([]BlockedEvent, error) {
	rows, err := s.tx.Query(ctx, blockedSQL)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[BlockedEvent])
}

// DeferredEvent is an event that is deferred, in any clusters.
type DeferredEvent struct{ Function, Source, ID string }

// DeferredEvents returns the events that are deferred.
func (s *Snapshot) DeferredEvents(ctx context.Context) ([]DeferredEvent, error) {
	rows, err := s.tx.Query(ctx, deferredSQL)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[DeferredEvent])
}

// Committed is the ledger's entry of an event.
type Committed struct {
	Digest  []byte // empty if divergence detection was off
	Version string // of the function
}

// Committed returns the ledger's entries of the keys; a key that is missing is not in
// the ledger.
func (s *Snapshot) Committed(ctx context.Context, keys []ledger.Key) (map[ledger.Key]Committed, error) {
	plain := make([][16]byte, len(keys))
	for i, key := range keys {
		plain[i] = key
	}
	rows, err := s.tx.Query(ctx, committedSQL, plain)
	if err != nil {
		return nil, err
	}
	found := make(map[ledger.Key]Committed, len(keys))
	var key [16]byte
	var row Committed
	_, err = pgx.ForEachRow(rows, []any{&key, &row.Digest, &row.Version}, func() error {
		found[key] = Committed{Digest: slices.Clone(row.Digest), Version: row.Version}
		return nil
	})
	return found, err
}

// EachCommitted calls do for every entry of the functions in the ledger.
func (s *Snapshot) EachCommitted(ctx context.Context, functions []string, do func(key ledger.Key, function, committedAt string)) error {
	rows, err := s.tx.Query(ctx, ledgerSQL, functions)
	if err != nil {
		return err
	}
	var key [16]byte
	var function, at string
	_, err = pgx.ForEachRow(rows, []any{&key, &function, &at}, func() error {
		do(key, function, at)
		return nil
	})
	return err
}

// EachUnpublished calls do for every output that waits to be published, and for every
// rejected one.
func (s *Snapshot) EachUnpublished(ctx context.Context, do func(source, id string, rejected bool)) error {
	rows, err := s.tx.Query(ctx, outboxSQL)
	if err != nil {
		return err
	}
	var source, id string
	var rejected bool
	_, err = pgx.ForEachRow(rows, []any{&source, &id, &rejected}, func() error {
		do(source, id, rejected)
		return nil
	})
	return err
}

// Table is a table that functions write to.
type Table struct {
	Name  string            // quoted, and with its schema if necessary
	Key   []string          // columns of the primary key
	Types map[string]string // of all columns
}

// Table returns a table with a primary key.
func (s *Snapshot) Table(ctx context.Context, name string) (*Table, error) {
	rows, err := s.tx.Query(ctx, columnsSQL, pgx.Identifier(strings.Split(name, ".")).Sanitize())
	if err != nil {
		return nil, err
	}
	t := &Table{Types: map[string]string{}}
	var column, kind string
	var isKey bool
	if _, err := pgx.ForEachRow(rows, []any{&column, &kind, &isKey, &t.Name}, func() error {
		t.Types[column] = kind
		if isKey {
			t.Key = append(t.Key, column)
		}
		return nil
	}); err != nil {
		return nil, err
	}
	if len(t.Key) == 0 {
		return nil, fmt.Errorf("table %s has no primary key", name)
	}
	return t, nil
}

// Comparison is the result for one expected row.
type Comparison struct {
	N       int      // the number of the row, from 1
	Found   bool     // whether there is a row with its key
	Differ  []string // columns with another value
	Key, Is []byte   // the key as a JSON array, and the actual row
}

// Compare compares columns of expected rows, which are JSON objects with the key and
// the columns, and calls do with the result for each. The server compares, because
// only it knows which value a text represents in a column's type.
func (s *Snapshot) Compare(ctx context.Context, t *Table, columns []string, expected []json.RawMessage, do func(Comparison)) error {
	document, err := json.Marshal(expected)
	if err != nil {
		return err
	}
	rows, err := s.tx.Query(ctx, t.compareSQL(columns), document)
	if err != nil {
		return err
	}
	var c Comparison
	_, err = pgx.ForEachRow(rows, []any{&c.N, &c.Found, &c.Differ, &c.Key, &c.Is}, func() error {
		one := c
		one.Differ, one.Key, one.Is = slices.Clone(c.Differ), slices.Clone(c.Key), slices.Clone(c.Is)
		do(one)
		return nil
	})
	return err
}

func (t *Table) compareSQL(columns []string) string {
	var on, differ, keys []string
	for _, name := range t.Key {
		q := quote(name)
		on = append(on, fmt.Sprintf("t.%s = (u.w).%s", q, q))
		keys = append(keys, "(u.w)."+q)
	}
	for _, name := range columns {
		q := quote(name)
		differ = append(differ, fmt.Sprintf("case when to_jsonb(t.%s) is distinct from to_jsonb((u.w).%s) then %s end", q, q, literal(name)))
	}
	return fmt.Sprintf(`select u.n::int, t.ctid is not null, array_remove(array[%s]::text[], null), jsonb_build_array(%s), coalesce(to_jsonb(t), 'null')
from (select n, jsonb_populate_record(null::%s, doc) as w from jsonb_array_elements($1::jsonb) with ordinality as e(doc, n) offset 0) as u
left join %s as t on %s order by u.n`,
		strings.Join(differ, ", "), strings.Join(keys, ", "), t.Name, t.Name, strings.Join(on, " and "))
}

// EachRow calls do with the key, as a JSON array, and the row, as a JSON object, of all
// rows of a table.
func (s *Snapshot) EachRow(ctx context.Context, t *Table, do func(key, row []byte)) error {
	var keys []string
	for _, name := range t.Key {
		keys = append(keys, "t."+quote(name))
	}
	rows, err := s.tx.Query(ctx, fmt.Sprintf("select jsonb_build_array(%s), to_jsonb(t) from %s as t", strings.Join(keys, ", "), t.Name))
	if err != nil {
		return err
	}
	var key, row []byte
	_, err = pgx.ForEachRow(rows, []any{&key, &row}, func() error {
		do(slices.Clone(key), slices.Clone(row))
		return nil
	})
	return err
}

func quote(name string) string { return pgx.Identifier{name}.Sanitize() }

func literal(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
