package sinkwriter

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tandem-fn/tandem/functions/cloudevent"
	"github.com/tandem-fn/tandem/sinkwriter/internal/pgjson"
)

const (
	// maxRowBytes and maxRowEvents bound a row of the outbox, unless a single event is
	// larger. A relay reads whole rows, and rewrites a row whose events are stored in
	// part.
	maxRowBytes  = 1 << 20
	maxRowEvents = 1024

	outboxInsertSQL = `insert into tandem.outbox (id, events) overriding system value values ($1, $2)`
	outboxReadSQL   = `select id, events from tandem.outbox where id = any($1::bigint[])`
	outboxDeleteSQL = `delete from tandem.outbox where id = any($1::bigint[])`

	// Reduces a row to the events that are not stored yet, for relays now or later.
	outboxReduceSQL = `update tandem.outbox set events = $2, due = pg_catalog.clock_timestamp() + case when $3 then interval '0' else interval '30 seconds' end where id = $1`

	// Keeps rows from relays while their winner publishes them.
	outboxRenewSQL = `update tandem.outbox set due = pg_catalog.clock_timestamp() + interval '30 seconds' where id = any($1::bigint[])`

	rejectSQL = `insert into tandem.rejected_output as r (source, id, type, code, reason, event) values ($1, $2, $3, $4, $5, $6)
on conflict (source, id) do update set code = excluded.code, reason = excluded.reason, event = excluded.event,
  times = r.times + 1, last_at = pg_catalog.clock_timestamp()`

	// encodedAttributes is the approximate size of an event's attributes in a row, in
	// bytes.
	encodedAttributes = 320

	// maxReason bounds the reason of a rejected output, in bytes.
	maxReason = 4096
)

// newRow returns the id of a row of the outbox: 62 random bits with the top one set,
// above every id that the column's sequence will return. After a failover to a standby
// that lags, a sequence would return the ids of lost rows again, and their winners
// would delete rows of others.
func newRow() int64 { return int64(rand.Uint64()&(1<<62-1) | 1<<62) }

// outboxRow is a row of the outbox, with the events that are not known to be stored.
type outboxRow struct {
	id     int64
	events []event.Event
	text   []byte // of the events, as in the row; nil once some were removed
}

// newRows distributes events among rows, whose text is allocated in memory.
func newRows(events []event.Event, memory *scratch) ([]outboxRow, error) {
	size := 0
	for i := range events {
		size += encodedAttributes + len(events[i].DataEncoded)
	}
	var rows []outboxRow
	for len(events) > 0 {
		text := append(memory.take(min(size, maxRowBytes)), '[')
		n := 0
		for n < min(len(events), maxRowEvents) {
			longer, err := cloudevent.AppendJSON(text, pgjson.Readable(events[n]))
			if err != nil {
				return nil, fmt.Errorf("encode outputs: %w", err)
			}
			if n > 0 && len(longer) > maxRowBytes {
				break
			}
			text = append(longer, ',', '\n')
			n++
		}
		rows = append(rows, outboxRow{id: newRow(), events: events[:n:n], text: append(text[:len(text)-2], ']')})
		events = events[n:]
	}
	return rows, nil
}

// readOutbox returns the rows of the outbox with these ids. The errors of rows that cannot be
// decoded are in unreadable, next to the others.
func readOutbox(ctx context.Context, pool *pgxpool.Pool, ids []int64) (found []outboxRow, unreadable, err error) {
	rows, err := pool.Query(ctx, outboxReadSQL, ids)
	if err != nil {
		return nil, nil, fmt.Errorf("read the outbox: %w", err)
	}
	found, unreadable, err = collectRows(rows)
	if err != nil {
		return nil, nil, fmt.Errorf("read the outbox: %w", err)
	}
	return found, unreadable, nil
}

// collectRows reads the ids and the texts of rows, and closes rows. The errors of rows that
// cannot be decoded are in unreadable, next to the others.
func collectRows(rows pgx.Rows) (found []outboxRow, unreadable, err error) {
	var id int64
	var text []byte
	_, err = pgx.ForEachRow(rows, []any{&id, &text}, func() error {
		events, err := readEvents(text)
		if err != nil {
			unreadable = errors.Join(unreadable, fmt.Errorf("read row %d of the outbox: %w", id, err))
			return nil
		}
		found = append(found, outboxRow{id: id, events: events})
		return nil
	})
	return found, unreadable, err
}

// readEvents decodes the text of a row.
func readEvents(text []byte) ([]event.Event, error) {
	batch, err := cloudevent.ReadBatch(text, cloudevent.Rules{})
	if err != nil {
		return nil, err
	}
	events := make([]event.Event, len(batch))
	for i, m := range batch {
		if m.Err != nil {
			return nil, fmt.Errorf("event %d: %w", i, m.Err)
		}
		events[i] = m.Event
	}
	return events, nil
}

// rejectedOutput is an output that its stream or sink rejected for good.
type rejectedOutput struct {
	event  event.Event
	code   int
	reason string
}

// arguments returns the parameters of rejectSQL.
func (r *rejectedOutput) arguments() ([]any, error) {
	text, err := cloudevent.AppendJSON(nil, pgjson.Readable(r.event))
	if err != nil {
		return nil, fmt.Errorf("encode rejected output: %w", err)
	}
	reason := r.reason[:min(len(r.reason), maxReason)]
	reason = strings.ReplaceAll(strings.ToValidUTF8(reason, "\uFFFD"), "\x00", "\uFFFD")
	return []any{r.event.Source(), r.event.ID(), r.event.Type(), int32(r.code), reason, text}, nil
}

// saveSteps returns the statements that save the state of a row in one transaction: the
// rejected outputs, and the events that are left, which are due now if overdue is true.
func saveSteps(id int64, left []event.Event, rejected []rejectedOutput, overdue bool) ([]statement, error) {
	var steps []statement
	for i := range rejected {
		arguments, err := rejected[i].arguments()
		if err != nil {
			return nil, err
		}
		steps = append(steps, statement{rejectSQL, arguments})
	}
	if len(left) == 0 {
		return append(steps, statement{outboxDeleteSQL, []any{[]int64{id}}}), nil
	}
	readable := make([]event.Event, len(left))
	for i, e := range left {
		readable[i] = pgjson.Readable(e)
	}
	text, err := cloudevent.AppendBatch(nil, readable)
	if err != nil {
		return nil, fmt.Errorf("encode outputs: %w", err)
	}
	return append(steps, statement{outboxReduceSQL, []any{id, string(text), overdue}}), nil
}

// statement is one statement with its arguments.
type statement struct {
	sql       string
	arguments []any
}

func insertStep(row outboxRow) step {
	return step{
		sql: outboxInsertSQL, oids: []uint32{pgtype.Int8OID, pgtype.TextOID}, params: [][]byte{int8Param(row.id), row.text}, table: "tandem.outbox",
	}
}

func deleteStep(rows []int64) step {
	return step{sql: outboxDeleteSQL, oids: []uint32{pgtype.Int8ArrayOID}, params: [][]byte{int8Array(rows)}, table: "tandem.outbox"}
}
