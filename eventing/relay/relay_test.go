package relay_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
	"github.com/tandem-fn/tandem/eventing/relay"
)

// overdue is an Outbox of one event a pass. The real one is sinkwriter's.
type overdue struct {
	passes chan func() (int, error)
}

func (o overdue) Relay(ctx context.Context, publish func(context.Context, []event.Event) error) (int, int, error) {
	select {
	case pass := <-o.passes:
		n, err := pass()
		if n > 0 {
			if err := publish(ctx, []event.Event{eventtest.NewEvent("output")}); err != nil {
				return 0, 0, err
			}
		}
		return n, 0, err
	case <-ctx.Done():
		return 0, 0, ctx.Err()
	}
}

type published struct{ n chan int }

func (p published) Publish(_ context.Context, events []event.Event) error {
	p.n <- len(events)
	return nil
}

func TestTheRelayPublishesAgainAndAgain(t *testing.T) {
	t.Parallel()

	outbox := overdue{passes: make(chan func() (int, error))}
	publisher := published{n: make(chan int, 10)}
	logger, lines := eventtest.Logger()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		relay.Run(ctx, outbox, publisher, relay.Config{Interval: 10 * time.Millisecond, Logger: logger})
	}()
	for _, pass := range []func() (int, error){
		func() (int, error) { return 1, nil },
		func() (int, error) { return 1, nil },
		func() (int, error) { return 0, nil },
		func() (int, error) { return 0, errors.New("the database is unavailable") },
		func() (int, error) { return 1, nil },
		func() (int, error) { return 0, nil },
	} {
		outbox.passes <- pass
	}
	cancel()
	<-ended
	if got := len(publisher.n); got != 3 {
		t.Errorf("published %d times, want 3", got)
	}
	if text := strings.Join(lines(), ""); strings.Count(text, "published outputs") != 3 {
		t.Errorf("log:\n%s", text)
	}
}

func TestTheRelayGoesOnAtOnceWhileThereIsSomething(t *testing.T) {
	t.Parallel()

	outbox := overdue{passes: make(chan func() (int, error))}
	publisher := published{n: make(chan int, 100)}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go relay.Run(ctx, outbox, publisher, relay.Config{Interval: time.Hour})
	for n := range 50 {
		var err error
		if n%2 == 1 {
			err = errors.New("another output fails")
		}
		select {
		case outbox.passes <- func() (int, error) { return 1, err }:
		case <-time.After(30 * time.Second):
			t.Fatal("it waits though there is more")
		}
	}
}
