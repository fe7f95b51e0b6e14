package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/test/bench/e2e/orders"
)

const (
	slowFor    = time.Second
	largeBytes = 1200 << 10 // of an output; a stream accepts 1 MiB
)

var (
	badSQL  = functions.Statement{Name: "bad", SQL: `select pg_catalog.int4_avg_accum($1::bigint[], 1)`}
	slowSQL = functions.Statement{Name: "slow", SQL: `select pg_catalog.pg_sleep($1)`}
)

// spoil returns a function that also accepts bad events, of a type of their own; kind is
// the effect of each.
func spoil(f functions.Function, kind string) (functions.Function, error) {
	handle := f.Handle
	type handler = func(context.Context, event.Event) (functions.Effects, error)
	bad, known := map[string]handler{
		orders.Unavailable: func(_ context.Context, e event.Event) (fx functions.Effects, _ error) {
			fx.Insert("missing", functions.Row{"id": e.ID()})
			return fx, nil
		},
		orders.Failing: func(context.Context, event.Event) (functions.Effects, error) {
			return functions.Effects{}, errors.New("it always fails")
		},
		orders.Rejected: func(context.Context, event.Event) (functions.Effects, error) {
			return functions.Effects{}, functions.Reject(errors.New("it is never accepted"))
		},
		orders.Panicking: func(context.Context, event.Event) (functions.Effects, error) { panic("it always panics") },
		orders.Hanging:   func(context.Context, event.Event) (functions.Effects, error) { select {} },
		orders.Exiting: func(context.Context, event.Event) (functions.Effects, error) {
			os.Exit(3)
			return functions.Effects{}, nil
		},
		orders.SlowEvents: func(ctx context.Context, e event.Event) (functions.Effects, error) {
			time.Sleep(slowFor)
			return handle(ctx, e)
		},
		orders.LargeOutput: func(context.Context, event.Event) (fx functions.Effects, _ error) {
			fx.Emit(functions.Output{Type: orders.Accepted, Data: strings.Repeat("x", largeBytes)})
			return fx, nil
		},
		orders.Unreadable: handle, // it receives none
		orders.BadSQL: func(context.Context, event.Event) (fx functions.Effects, _ error) {
			fx.Exec(badSQL, []int64{1, 2, 3})
			return fx, nil
		},
		orders.SlowSQL: func(context.Context, event.Event) (fx functions.Effects, _ error) {
			fx.Exec(slowSQL, 60)
			return fx, nil
		},
	}[kind]
	if !known {
		return f, fmt.Errorf("TANDEM_BENCH_SPOILT: %q is not known", kind)
	}
	f.Types = append(f.Types, orders.Spoilt)
	f.Handle = func(ctx context.Context, e event.Event) (functions.Effects, error) {
		if e.Type() == orders.Spoilt {
			return bad(ctx, e)
		}
		return handle(ctx, e)
	}
	return f, nil
}
