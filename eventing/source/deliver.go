package source

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/delivery"
	"github.com/tandem-fn/tandem/eventing/outcome"
	"github.com/tandem-fn/tandem/eventing/source/internal/inflight"
)

// idleWait is the longest wait of the dispatcher before it checks for work.
const idleWait = time.Minute

// dispatch opens requests as the table decides, until the table is closed, and returns
// when all requests have ended.
func (s *Source) dispatch(ctx context.Context, closed <-chan struct{}) {
	var requests sync.WaitGroup
	defer requests.Wait()
	timer := time.NewTimer(idleWait)
	defer timer.Stop()
	for {
		if !s.awaitActive(closed) {
			return
		}
		entries, wait := s.table.NextRequest(idleWait)
		if entries != nil {
			requests.Go(func() { s.deliver(ctx, entries) })
			continue
		}
		timer.Reset(wait)
		select {
		case <-s.table.Wake():
		case <-timer.C:
		case <-closed:
			return
		}
	}
}

// deliver sends entries in one request and processes the result.
func (s *Source) deliver(ctx context.Context, entries []*inflight.Entry) {
	request := inflight.Request{
		Entries: entries, Next: make([]inflight.Next, len(entries)), After: make([]time.Duration, len(entries)),
		Together: entries[0].GoesTogether(), Answered: true,
	}
	begun := s.cfg.Now()
	ds, sent := s.prepare(ctx, &request)
	var steps []delivery.Step
	if !s.active() { // fetching a payload, or a pause of the process, took too long
		for _, i := range sent {
			request.Next[i], request.After[i] = inflight.Unsent, fetchRetry
		}
		ds, sent = nil, nil
	}
	if len(ds) > 0 {
		steps, request.Answered = s.sender.Deliver(ctx, ds)
	}
	request.Took = s.cfg.Now().Sub(begun)
	for k, i := range sent {
		request.Next[i], request.After[i] = s.next(ctx, entries[i], steps[k])
		request.Draining = request.Draining || steps[k].Draining
		request.Answered = request.Answered || steps[k].Outcome.Fingerprint != "" // only the function itself sends a fingerprint
		request.Committed = request.Committed || steps[k].Outcome.Kind == outcome.Committed && !entries[i].Delivery.DeadLetter
	}
	s.cfg.Metrics.settled(ctx, entries, sent, steps, s.cfg.Now())
	s.deferrals.noteWon(entries, sent, steps)
	if request.Committed {
		for k, i := range sent {
			if steps[k].Outcome.Kind == outcome.Committed && !entries[i].Delivery.DeadLetter {
				s.noteWitness(entries[i], steps[k])
				break
			}
		}
	}
	if request.Next[0] == inflight.Broken {
		s.findDeadElsewhere(ctx, entries)
	}
	s.noteStrikes(ctx, s.table.Complete(request))
	var returned []*inflight.Entry
	for i, e := range entries {
		switch request.Next[i] {
		case inflight.Finish:
			s.acknowledge(ctx, e)
		case inflight.Drop:
			if ctx.Err() != nil {
				s.handBack(ctx, e)
				returned = append(returned, e)
			}
		case inflight.Retry, inflight.Unavailable, inflight.Broken, inflight.Unsent, inflight.Again, inflight.Pending, inflight.Defer:
		}
	}
	s.countLost(ctx, returned)
}

// prepare returns the deliveries of the entries that can be sent, and their indexes.
func (s *Source) prepare(ctx context.Context, r *inflight.Request) (ds []*delivery.Delivery, sent []int) {
	var fetching sync.WaitGroup
	free := make(chan struct{}, fetches)
	for i, e := range r.Entries {
		switch {
		case ctx.Err() != nil || e.Abandoned():
			r.Next[i] = inflight.Drop
		case e.Evicted:
			free <- struct{}{}
			fetching.Go(func() {
				r.Next[i], r.After[i] = s.fetch(ctx, e)
				<-free
			})
		}
	}
	fetching.Wait()
	ds, sent = make([]*delivery.Delivery, 0, len(r.Entries)), make([]int, 0, len(r.Entries))
	for i, e := range r.Entries {
		if r.Next[i] != inflight.Drop && !e.Evicted && !e.Delivery.DeadLetter && e.Delivery.Unreadable == nil && s.isOthers(e.Delivery.Event.Type()) {
			s.cfg.Metrics.filteredOne(ctx)
			ownerOf(e).forgetAttempts(e)
			r.Next[i] = inflight.Finish
			continue
		}
		if r.Next[i] != inflight.Drop && !e.Evicted {
			ds, sent = append(ds, e.Delivery), append(sent, i)
		}
	}
	return ds, sent
}

// next decides what happens to an entry after a request.
func (s *Source) next(ctx context.Context, e *inflight.Entry, step delivery.Step) (inflight.Next, time.Duration) {
	owner := ownerOf(e)
	switch {
	case step.Err != nil:
		// The stream that stored this event is broken. Later events of its subject wait.
		s.cfg.Logger.LogAttrs(ctx, slog.LevelError, "message cannot be encoded as a CloudEvent; it is retried, and later events of its subject wait: look at the message in the stream",
			slog.Uint64("sequence", e.Sequence()), slog.Any("err", step.Err), slog.String("retry_in", encodeRetry.String()))
		return inflight.Unsent, encodeRetry
	case step.Settled:
		if step.Rejected && s.cfg.Ordered && e.Subject != "" {
			s.block(ctx, e)
		}
		if m, ok := e.Message.(*deferredMessage); ok {
			m.dead = step.Rejected
		}
		owner.forgetAttempts(e)
		return inflight.Finish, 0
	case ctx.Err() != nil:
		return inflight.Drop, 0
	case s.isRejectedAsOthers(e, step):
		s.cfg.Metrics.filteredOne(ctx)
		owner.forgetAttempts(e)
		return inflight.Finish, 0
	case step.Outcome.Kind == outcome.Pending && !e.Delivery.DeadLetter:
		return inflight.Pending, 0
	case step.Broken:
		return inflight.Broken, 0
	case step.RetryIn == 0:
		return inflight.Again, 0 // alone, or as a dead letter
	case step.Outcome.Kind == outcome.Deployment && owner == s.deferrals && !e.Delivery.DeadLetter:
		return s.deferrals.nextRun(ctx, e), 0
	case step.Outcome.Kind == outcome.Deployment && !e.Delivery.DeadLetter:
		return s.deferrals.next(e, step)
	case step.Outcome.Kind == outcome.Failed && !e.Delivery.DeadLetter:
		owner.recordFailure(e)
		return inflight.Retry, step.RetryIn
	default:
		return inflight.Unavailable, step.RetryIn
	}
}

// fetch reads the payload of an entry from its stream. If that fails, it returns what
// happens to the entry.
func (s *Source) fetch(ctx context.Context, e *inflight.Entry) (inflight.Next, time.Duration) {
	owner := ownerOf(e)
	message, err := owner.fetch(ctx, e.Message)
	switch {
	case err == nil:
		e.Delivery.Event = message.Event()
		e.Fetched(message)
		return 0, 0
	case errors.Is(err, eventing.ErrGone):
		s.gone(ctx, e)
		return inflight.Finish, 0
	default:
		owner.fetchFailed(ctx, err)
		return inflight.Unsent, fetchRetry
	}
}

// gone counts an entry whose message its stream has deleted.
func (s *Source) gone(ctx context.Context, e *inflight.Entry) {
	owner := ownerOf(e)
	s.cfg.Logger.LogAttrs(ctx, slog.LevelDebug, "stream has deleted a message",
		slog.String("stream", owner.name()), slog.Uint64("sequence", e.Sequence()),
		slog.String("event_source", e.ID.Source), slog.String("event_id", e.ID.ID))
	owner.vanished(ctx, e.Sequence(), 1)
	owner.forgetAttempts(e)
}

// fetches is the number of payloads of a request that are fetched concurrently.
const fetches = 16

// encodeRetry is the wait before an event is retried that cannot be encoded.
const encodeRetry = time.Minute

// fetchRetry is the wait before an event is retried whose payload could not be fetched.
const fetchRetry = 200 * time.Millisecond
