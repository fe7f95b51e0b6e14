package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/eventing/serve"
	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/functions/cloudevent"
	"github.com/tandem-fn/tandem/sinkwriter"
	"github.com/tandem-fn/tandem/sinkwriter/deadletter"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

// planted serves the functions with a fault.
//
//   - early-ack answers before COMMIT, and tries to commit for a moment.
//   - loose-claim commits the claim in a transaction of its own.
//   - random-ids publishes outputs under a different identity each time.
type planted struct {
	plant     string
	functions []functions.Function
	handler   atomic.Pointer[serve.Handler]
}

// Start implements func-go's Starter.
func (p *planted) Start(ctx context.Context, env map[string]string) error {
	settings, err := pgxpool.ParseConfig(env["DATABASE_URL"])
	if err != nil {
		return errors.New("DATABASE_URL: want postgres://USER:PASSWORD@HOST:5432/NAME")
	}
	settings.MaxConns = 4
	pool, err := pgxpool.NewWithConfig(context.WithoutCancel(ctx), settings)
	if err != nil {
		return err
	}
	cluster := env["TANDEM_CLUSTER"]
	conn, err := jetstream.Connect(context.WithoutCancel(ctx), env["NATS_URL"], jetstream.Config{Name: "planted-" + cluster})
	if err != nil {
		return err
	}
	publisher, err := jetstream.NewPublisher(conn, jetstream.StreamConfig{Name: "OUTPUTS"})
	if err != nil {
		return err
	}
	config := sinkwriter.Config{Cluster: cluster, Publisher: publisher}
	if p.plant == "random-ids" {
		config.Publisher = randomIDs{publisher}
	}
	writer, err := sinkwriter.New(pool, config)
	if err != nil {
		return err
	}
	var committer serve.Committer
	switch p.plant {
	case "early-ack":
		committer = each{earlyAck{writer}}
	case "loose-claim":
		committer = each{looseClaim{pool: pool, cluster: cluster}}
	case "random-ids":
		committer = writer
	default:
		return fmt.Errorf("TANDEM_CHAOS_PLANT %q: want early-ack, loose-claim or random-ids", p.plant)
	}
	h, err := serve.New(p.functions, committer, serve.Config{DeadLetters: deadletter.NewStore(pool, cluster)})
	if err != nil {
		return err
	}
	p.handler.Store(h)
	return nil
}

// Handle serves a request.
func (p *planted) Handle(w http.ResponseWriter, r *http.Request) {
	if h := p.handler.Load(); h != nil {
		h.ServeHTTP(w, r)
		return
	}
	http.Error(w, "not started yet", http.StatusServiceUnavailable)
}

// one commits one event.
type one interface {
	Commit(ctx context.Context, o sinkwriter.Offer) (sinkwriter.Receipt, error)
}

// each commits a batch event by event.
type each struct{ one }

func (c each) CommitAll(ctx context.Context, offers []sinkwriter.Offer) []sinkwriter.Outcome {
	outcomes := make([]sinkwriter.Outcome, len(offers))
	for i, o := range offers {
		outcomes[i].Receipt, outcomes[i].Err = c.Commit(ctx, o)
	}
	return outcomes
}

type earlyAck struct{ writer *sinkwriter.Writer }

func (c earlyAck) Commit(ctx context.Context, o sinkwriter.Offer) (sinkwriter.Receipt, error) {
	go func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 200*time.Millisecond)
		defer cancel()
		_, _ = c.writer.Commit(ctx, o)
	}()
	return sinkwriter.Receipt{Won: true}, nil
}

// randomIDs publishes under random identities.
type randomIDs struct{ publisher *jetstream.Publisher }

func (p randomIDs) Publish(ctx context.Context, events []event.Event) error {
	others := make([]event.Event, len(events))
	for i, e := range events {
		others[i] = e.Clone()
		others[i].SetID(rand.Text())
	}
	return p.publisher.Publish(ctx, others)
}

// looseClaim is the common inbox table, with the claim outside of the
// transaction.
type looseClaim struct {
	pool    *pgxpool.Pool
	cluster string
}

func (c looseClaim) Commit(ctx context.Context, o sinkwriter.Offer) (sinkwriter.Receipt, error) {
	e, fx := o.Event, o.Effects
	form, encoded, err := fx.AppendCanonical(nil)
	if err != nil {
		return sinkwriter.Receipt{}, err
	}
	sum := sha256.Sum256(form)
	key := ledger.NewKey(o.Function, e.Source(), e.ID())
	if _, err := c.pool.Exec(ctx, `insert into tandem.writer (writer, cluster, function, version)
select hashtext($1 || $2 || $3), $1, $2, $3 on conflict do nothing`, c.cluster, o.Function, o.Version); err != nil {
		return sinkwriter.Receipt{}, err
	}
	tag, err := c.pool.Exec(ctx, `insert into tandem.ledger (key, digest, writer)
select $1, $2, hashtext($3::text || $4::text || $5::text) on conflict do nothing`, [16]byte(key), sum[:16], c.cluster, o.Function, o.Version)
	if err != nil || tag.RowsAffected() == 0 {
		return sinkwriter.Receipt{Key: key}, err
	}
	// The pause stands for a call of a service between claim and commit.
	time.Sleep(20 * time.Millisecond)
	err = pgx.BeginFunc(ctx, c.pool, func(tx pgx.Tx) error {
		writes := slices.Clone(fx.Writes)
		slices.SortStableFunc(writes, func(a, b functions.Write) int {
			return strings.Compare(fmt.Sprint(a.Table, a.Key), fmt.Sprint(b.Table, b.Key))
		})
		for _, w := range writes {
			if err := apply(ctx, tx, w); err != nil {
				return err
			}
		}
		var events []event.Event
		for i := range encoded {
			out, err := encoded[i].Event(o.Function, e, i)
			if err != nil {
				return err
			}
			events = append(events, out)
		}
		if len(events) == 0 {
			return nil
		}
		text, err := cloudevent.AppendBatch(nil, events)
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `insert into tandem.outbox (events) values ($1)`, string(text))
		return err
	})
	return sinkwriter.Receipt{Won: true, Key: key}, err
}

// apply executes the two operations that flights and bank use.
func apply(ctx context.Context, tx pgx.Tx, w functions.Write) error {
	var names, places, sets []string
	var values []any
	column := func(name string, value any) {
		names = append(names, name)
		places = append(places, fmt.Sprintf("$%d", len(places)+1))
		values = append(values, value)
	}
	for name, value := range w.Key {
		column(name, value)
	}
	for name, value := range w.Row {
		column(name, value)
		sets = append(sets, fmt.Sprintf("%s = %s.%s + excluded.%s", name, w.Table, name, name))
	}
	conflict := "on conflict do nothing"
	if w.Op == functions.OpAdd {
		var keys []string
		for name := range w.Key {
			keys = append(keys, name)
		}
		conflict = "on conflict (" + strings.Join(keys, ", ") + ") do update set " + strings.Join(sets, ", ")
	}
	_, err := tx.Exec(ctx, fmt.Sprintf("insert into %s (%s) values (%s) %s", w.Table, strings.Join(names, ", "), strings.Join(places, ", "), conflict), values...)
	return err
}
