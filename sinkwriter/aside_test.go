package sinkwriter_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tandem-fn/tandem/eventing/devcluster/sinktest"
	"github.com/tandem-fn/tandem/sinkwriter"
)

// harmSQL creates a trigger whose action depends on the id of an order.
const harmSQL = `create function harm() returns trigger language plpgsql as $$
begin
  case split_part(new.id, ' ', 1)
  when 'raise' then raise exception 'harm' using errcode = split_part(new.id, ' ', 2);
  when 'internal' then perform int4_avg_accum(array[1, 2, 3]::bigint[], 1);
  when 'sleep' then perform pg_sleep(60);
  when 'disconnect' then perform pg_terminate_backend(pg_backend_pid());
  when 'notice' then
    for i in 1..2000 loop raise notice '%', repeat('x', 1000); end loop;
  when 'recurse' then insert into orders (id, amount) values (new.id || 'x', 1);
  when 'late' then null;
  else null;
  end case;
  return new;
end $$;
create trigger harm before insert on orders for each row execute function harm();
create function harm_later() returns trigger language plpgsql as $$
begin
  if new.id like 'late %' then perform pg_sleep(60); end if;
  return null;
end $$;
create constraint trigger harm_later after insert on orders deferrable initially deferred for each row execute function harm_later();`

const (
	// requestDeadline is the deadline of a request for a harmful event, healthyDeadline
	// that for a healthy one. On a busy machine everything is slower, but no healthy event
	// may be held up for as long as a harmful one.
	requestDeadline = 8 * time.Second
	healthyDeadline = time.Minute
)

// deliver offers an order as a source does, with the deadline of a request, until it is
// committed or refused with a fault that is not transient. It returns the fault, or "" if
// the order is committed.
func deliver(ctx context.Context, w *sinkwriter.Writer, id string, deadline time.Duration, attempts int) string {
	for {
		request, cancel := context.WithTimeout(ctx, deadline)
		_, err := w.Commit(request, sinktest.Order(id, 1))
		cancel()
		var refused *sinkwriter.Error
		transient := errors.Is(err, context.DeadlineExceeded)
		if errors.As(err, &refused) {
			transient = refused.Fault == sinkwriter.FaultTransient
		}
		attempts--
		switch {
		case err == nil:
			return ""
		case transient && attempts > 0 && ctx.Err() == nil:
			time.Sleep(50 * time.Millisecond)
		case transient:
			return "transient"
		case refused != nil:
			return refused.Fault.String()
		default:
			return err.Error()
		}
	}
}

// commitHealthy offers n healthy orders, one every interval, and returns the longest latency.
// Each must be committed at its first offer.
func commitHealthy(ctx context.Context, t *testing.T, w *sinkwriter.Writer, n int, interval time.Duration) (slowest time.Duration) {
	t.Helper()
	var healthy sync.WaitGroup
	var mu sync.Mutex
	for i := range n {
		healthy.Go(func() {
			time.Sleep(time.Duration(i) * interval)
			from := time.Now()
			if got := deliver(ctx, w, fmt.Sprintf("good %d", i), healthyDeadline, 1); got != "" {
				t.Errorf("a healthy event beside harmful ones: fault is %q", got)
			}
			mu.Lock()
			defer mu.Unlock()
			slowest = max(slowest, time.Since(from))
		})
	}
	healthy.Wait()
	return slowest
}

// An event can only harm itself, whatever its statements do.
func TestStatementsThatFailForOneEventHarmNoOthers(t *testing.T) {
	t.Parallel()

	const bad, good = 10, 200
	for name, faults := range map[string]map[string]string{ // by the kind of harm
		"raise": {
			"raise XX000": "function", "raise 38000": "function", "raise 55000": "function", "raise 57014": "function",
			"raise 08P01": "function", "raise 40001": "function", "raise 40P01": "function", "raise 53100": "function",
			"raise 55P03": "function", "raise 57P01": "function", "raise 42501": "function", "raise 42P01": "function", "raise 0A000": "function", "raise 25006": "function", "raise 58030": "function",
			"raise ZZ001": "event", "raise P0001": "event",
		},
		"fail":       {"internal": "function", "recurse": "event", "notice": ""},
		"sleep":      {"sleep": "function"},
		"late":       {"late": "function"},
		"disconnect": {"disconnect": "transient"}, // like an outage
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			pool := sinktest.NewDatabase(t)
			sinktest.Execute(t, pool, harmSQL)
			ctx := t.Context()
			each, attempts := max(2, bad/len(faults)), 20
			slow := name == "sleep" || name == "late"
			commitTimeout := 5 * time.Second
			switch {
			case slow:
				each, commitTimeout = 3, time.Second // each attempt takes that long
			case name == "disconnect":
				attempts = 1
			}
			w := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east", CommitTimeout: commitTimeout})
			var all sync.WaitGroup
			for harm, want := range faults {
				for i := range each {
					all.Go(func() {
						if got := deliver(ctx, w, fmt.Sprintf("%s %d", harm, i), requestDeadline, attempts); !slow && got != want {
							t.Errorf("%s: fault is %q, want %q", harm, got, want)
						}
					})
				}
			}
			begin := time.Now()
			slowest := commitHealthy(ctx, t, w, good, 5*time.Millisecond)
			t.Logf("%d healthy events after %s, the slowest %s", good, time.Since(begin).Round(time.Millisecond), slowest.Round(time.Millisecond))
			// A failure counts only if other events are committed.
			keepCommitting(ctx, t, w)
			all.Wait()
			if n := sinktest.Query[int](t, pool, `select count(*) from orders where id like 'good %'`); n != good {
				t.Errorf("%d healthy events are committed, want %d", n, good)
			}
			if !slow {
				return
			}
			if got := deliver(ctx, w, name+" once more", requestDeadline, attempts); got != faults[name] {
				t.Errorf("%s: fault is %q, want %q", name, got, faults[name])
			}
		})
	}
}

// Once a type is known to be slow, its events no longer enter a batch.
func TestAFloodOfSlowEventsHarmsNoOtherType(t *testing.T) {
	t.Parallel()

	pool := sinktest.NewDatabase(t)
	sinktest.Execute(t, pool, harmSQL)
	w := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east", CommitTimeout: 5 * time.Second})
	ctx := t.Context()
	flood, end := context.WithCancel(ctx)
	defer end()
	var all sync.WaitGroup
	const bad, good = 200, 400
	for i := range bad {
		all.Go(func() {
			time.Sleep(time.Duration(i) * 20 * time.Millisecond)
			slow := sinktest.Order(fmt.Sprintf("sleep %d", i), 1)
			slow.Event.SetType("com.example.order.slow")
			if _, err := w.Commit(flood, slow); err == nil {
				t.Error("a statement of a minute is committed")
			}
		})
	}
	slowest := commitHealthy(ctx, t, w, good, 10*time.Millisecond)
	t.Logf("the slowest healthy event took %s", slowest.Round(time.Millisecond))
	end()
	all.Wait()
}

// An event that is tried alone does not delay the answers to the other offers of its call,
// and the outcome of its attempts is kept for its next offer.
func TestAnEventThatIsTriedAloneDelaysNoOthersOfItsCall(t *testing.T) {
	t.Parallel()

	for _, harm := range []string{"sleep", "disconnect"} {
		t.Run(harm, func(t *testing.T) {
			t.Parallel()

			pool := sinktest.NewDatabase(t)
			sinktest.Execute(t, pool, harmSQL)
			w := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east", CommitTimeout: 20 * time.Second})
			ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second) // less than the event may take alone
			defer cancel()
			offers := []sinkwriter.Offer{sinktest.Order("first", 1), sinktest.Order(harm+" it", 1), sinktest.Order("last", 1)}
			for i, o := range w.CommitAll(ctx, offers) {
				var refused *sinkwriter.Error
				if i == 1 && (!errors.As(o.Err, &refused) || refused.Fault != sinkwriter.FaultTransient) || i != 1 && o.Err != nil {
					t.Errorf("offer %d: %v", i, o.Err)
				}
			}
		})
	}

	t.Run("verdict", func(t *testing.T) {
		t.Parallel()

		pool := sinktest.NewDatabase(t)
		sinktest.Execute(t, pool, harmSQL)
		w := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east", CommitTimeout: time.Second})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for i := 0; ; i++ {
			o := w.CommitAll(ctx, []sinkwriter.Offer{sinktest.Order("sleep it", 1), sinktest.Order(fmt.Sprintf("good %d", i), 1)})
			if o[1].Err != nil {
				t.Fatalf("the other event: %v", o[1].Err)
			}
			var refused *sinkwriter.Error
			if errors.As(o[0].Err, &refused) && refused.Fault == sinkwriter.FaultFunction {
				break
			}
			if ctx.Err() != nil || o[0].Err == nil {
				t.Fatalf("a statement that takes a minute: %v", o[0].Err)
			}
			time.Sleep(20 * time.Millisecond)
		}
	})
}

// keepCommitting commits healthy events until the test ends.
func keepCommitting(ctx context.Context, t *testing.T, w *sinkwriter.Writer) {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ctx.Err() == nil; i++ {
			_, _ = w.Commit(ctx, sinktest.Order(fmt.Sprintf("beside %d", i), 1))
			select {
			case <-ctx.Done():
			case <-time.After(10 * time.Millisecond):
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
}

// An outage never results in a dead letter: if the statements of every event fail, no
// event is at fault.
func TestStatementsThatFailForEveryEventAreNoEventsFault(t *testing.T) {
	t.Parallel()

	pool := sinktest.NewDatabase(t)
	sinktest.Execute(t, pool, `create function harm() returns trigger language plpgsql as $$
begin
  perform int4_avg_accum(array[1, 2, 3]::bigint[], 1);
  return new;
end $$;
create trigger harm before insert on orders for each row execute function harm();`)
	w := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east"})
	const events = 60
	deliverAll := func(until time.Duration) []error {
		ctx, cancel := context.WithTimeout(t.Context(), until)
		defer cancel()
		errs := make([]error, events)
		var all sync.WaitGroup
		for i := range events {
			all.Go(func() { _, errs[i] = w.Commit(ctx, sinktest.Order(fmt.Sprint("o-", i), 1)) })
		}
		all.Wait()
		return errs
	}
	for range 2 {
		for i, err := range deliverAll(1500 * time.Millisecond) {
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("event %d while the statements of all fail: %v, want its deadline", i, err)
			}
		}
	}
	sinktest.Execute(t, pool, `drop trigger harm on orders`)
	for i, err := range deliverAll(heldUp) {
		if err != nil {
			t.Errorf("event %d after the outage: %v", i, err)
		}
	}
}

// If events are rare, a failure counts only after the next event is committed.
func TestAFailureCountsOnceAnotherEventIsCommitted(t *testing.T) {
	t.Parallel()

	pool := sinktest.NewDatabase(t)
	sinktest.Execute(t, pool, harmSQL)
	failed := make(chan struct{}, 1000)
	w := sinktest.NewWriter(t, pool, sinkwriter.Config{
		Cluster: "east", Logger: slog.New(slog.NewTextHandler(lineWriter(func(line string) {
			if strings.Contains(line, "retrying an event alone") {
				failed <- struct{}{}
			}
		}), &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	// offer offers an event until it has failed alone failures times, or until its error is
	// final.
	offer := func(id string, failures int) error {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		offered := make(chan error, 1)
		go func() {
			_, err := w.Commit(ctx, sinktest.Order(id, 1))
			offered <- err
		}()
		for range failures {
			select {
			case <-failed:
			case err := <-offered:
				return err
			}
		}
		cancel()
		return <-offered
	}
	for range 2 {
		if err := offer("internal", 2); !errors.Is(err, context.Canceled) {
			t.Errorf("no other event is committed: %v, want no verdict", err)
		}
	}
	if _, err := w.Commit(t.Context(), sinktest.Order("good", 1)); err != nil {
		t.Fatal(err)
	}
	var refused *sinkwriter.Error
	if err := offer("internal", 20); !errors.As(err, &refused) || refused.Fault != sinkwriter.FaultFunction {
		t.Errorf("another event is committed: %v, want the function's fault", err)
	}
	if err := offer("internal", 2); !errors.Is(err, context.Canceled) {
		t.Errorf("no other event is committed since: %v, want no verdict", err)
	}
}
