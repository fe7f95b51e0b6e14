// Package expected reads the result of the flights of package [feed] from the
// tables and from the stream of outputs, and compares it with the truth.
package expected

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/hack/feed"
)

// OutputStream is the stream of outputs.
const OutputStream = "OUTPUTS"

// Outcome is the result of the flights, by airport.
type Outcome struct {
	Rows     map[string]feed.Totals // counted in table flights, including Delayed
	Airports map[string]feed.Totals // from table airports; Delayed is not in it
	Outputs  map[string]int64       // distinct events of the output stream

	// Own are the totals of flights that are not the feed's: a user has sent
	// events meanwhile.
	Own map[string]feed.Totals
}

// Differences compares with the truth and returns the differences, one line
// each; none if everything is exact.
func (o Outcome) Differences(truth map[string]feed.Totals) []string {
	names := make(map[string]bool)
	for _, m := range []map[string]feed.Totals{truth, o.Own, o.Rows, o.Airports} {
		for name := range m {
			names[name] = true
		}
	}
	for name := range o.Outputs {
		names[name] = true
	}
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(names)) {
		want := truth[name].Plus(o.Own[name])
		rows, totals := o.Rows[name], o.Airports[name]
		for _, d := range []struct {
			what      string
			got, want int64
		}{
			{"rows in flights", rows.Flights, want.Flights},
			{"minutes of delay in flights", rows.DelayMinutes, want.DelayMinutes},
			{"airports.flights", totals.Flights, want.Flights},
			{"airports.delay_minutes", totals.DelayMinutes, want.DelayMinutes},
			{"different " + feed.DelayedType + " events", o.Outputs[name], want.Delayed},
		} {
			if d.got != d.want {
				lines = append(lines, fmt.Sprintf("difference: %s: %s: %s, should be %s", name, d.what, strconv.FormatInt(d.got, 10), strconv.FormatInt(d.want, 10)))
			}
		}
	}
	return lines
}

// Total returns the sum of all airports.
func Total(m map[string]feed.Totals) feed.Totals {
	var sum feed.Totals
	for _, t := range m {
		sum = sum.Plus(t)
	}
	return sum
}

// Read reads the tables and then the stream of outputs.
func Read(ctx context.Context, pool *pgxpool.Pool, nc *nats.Conn) (Outcome, error) {
	o, err := ReadTables(ctx, pool)
	if err != nil {
		return Outcome{}, err
	}
	o.Outputs, err = ReadOutputs(ctx, nc)
	return o, err
}

// ReadTables reads the tables, in one snapshot.
func ReadTables(ctx context.Context, pool *pgxpool.Pool) (Outcome, error) {
	var o Outcome
	err := pgx.BeginTxFunc(ctx, pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		var err error
		if o.Rows, err = readTotals(ctx, tx, flightTotals+" group by origin"); err != nil {
			return err
		}
		if o.Own, err = readTotals(ctx, tx, flightTotals+" where source <> '"+feed.FlightSource+"' group by origin"); err != nil {
			return err
		}
		o.Airports, err = readTotals(ctx, tx, "select airport, flights, delay_minutes, 0::bigint from airports")
		return err
	})
	if err != nil {
		return Outcome{}, fmt.Errorf("read the tables: %w", err)
	}
	return o, nil
}

const flightTotals = "select origin, count(*), coalesce(sum(delay), 0)::bigint, count(*) filter (where delay >= 60) from flights"

func readTotals(ctx context.Context, tx pgx.Tx, sql string) (map[string]feed.Totals, error) {
	rows, err := tx.Query(ctx, sql)
	if err != nil {
		return nil, err
	}
	totals := make(map[string]feed.Totals)
	var name string
	var t feed.Totals
	_, err = pgx.ForEachRow(rows, []any{&name, &t.Flights, &t.DelayMinutes, &t.Delayed}, func() error {
		totals[name] = t
		return nil
	})
	return totals, err
}

// ReadOutputs counts, by subject, the distinct delay events of the output
// stream.
func ReadOutputs(ctx context.Context, nc *nats.Conn) (map[string]int64, error) {
	js, err := natsjs.New(nc)
	if err != nil {
		return nil, fmt.Errorf("read stream %s: %w", OutputStream, err)
	}
	stream, err := jetstream.Ask(ctx, func(ctx context.Context) (natsjs.Stream, error) { return js.Stream(ctx, OutputStream) })
	if err != nil {
		return nil, fmt.Errorf("read stream %s: %w", OutputStream, err)
	}
	return ReadOutputsOf(ctx, stream)
}

// ReadOutputsOf does the same for the outputs of several streams together.
func ReadOutputsOf(ctx context.Context, streams ...natsjs.Stream) (map[string]int64, error) {
	bySubject := make(map[string]int64)
	seen := make(map[[2]string]bool)
	for _, stream := range streams {
		err := eachOutput(ctx, stream, func(header nats.Header) error {
			e, err := jetstream.Decode(header, nil)
			if err != nil {
				return err
			}
			identity := [2]string{e.Source(), e.ID()}
			if e.Type() == feed.DelayedType && !seen[identity] {
				seen[identity] = true
				bySubject[e.Subject()]++
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("read stream %s: %w", stream.CachedInfo().Config.Name, err)
		}
	}
	return bySubject, nil
}

func eachOutput(ctx context.Context, stream natsjs.Stream, do func(nats.Header) error) error {
	info, err := jetstream.Ask(ctx, func(ctx context.Context) (*natsjs.StreamInfo, error) { return stream.Info(ctx) })
	if err != nil {
		return err
	}
	if info.State.Msgs == 0 {
		return nil
	}
	consumer, err := jetstream.Ask(ctx, func(ctx context.Context) (natsjs.Consumer, error) {
		return stream.OrderedConsumer(ctx, natsjs.OrderedConsumerConfig{HeadersOnly: true})
	})
	if err != nil {
		return err
	}
	messages, err := consumer.Messages()
	if err != nil {
		return err
	}
	defer messages.Stop()
	for {
		msg, err := messages.Next(natsjs.NextContext(ctx))
		if err != nil {
			return err
		}
		meta, err := msg.Metadata()
		if err != nil {
			return err
		}
		if err := do(msg.Headers()); err != nil {
			return fmt.Errorf("message %d: %w", meta.Sequence.Stream, err)
		}
		if meta.Sequence.Stream >= info.State.LastSeq {
			return nil
		}
	}
}
