package delivery

import (
	"cmp"
	"context"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/tandem-fn/tandem/eventing/internal/backoff"
	"github.com/tandem-fn/tandem/eventing/outcome"
	"github.com/tandem-fn/tandem/eventing/sink"
	"github.com/tandem-fn/tandem/functions/cloudevent"
)

// deliverBatch sends several events. Events that must be sent alone are not sent.
func (d *Sender) deliverBatch(ctx context.Context, ds []*Delivery) (steps []Step, answered bool) {
	steps = make([]Step, len(ds))
	body := append(make([]byte, 0, 512*len(ds)), '[')
	members := make([]int, 0, len(ds))
	for i, e := range ds {
		longer, ok := cloudevent.AppendMember(body, d.cfg.Sink.Apply(e.Event))
		if !ok {
			e.Alone = true
			continue
		}
		body = append(longer, ',')
		members = append(members, i)
	}
	if len(members) == 0 {
		return steps, true
	}
	body[len(body)-1] = ']'
	a := d.send(ctx, d.function, sink.EncodeBatch(body).Once().Accepting(outcome.OutcomesType), len(members), true, false)
	refused := a.outcomes == nil && (a.outcome.Kind != outcome.Unavailable || a.status > 0 && a.status < 500 || a.status == http.StatusNotImplemented)
	d.batch.answered(d.cfg.Now(), a.outcomes != nil, refused)
	for k, i := range members {
		o := a.outcome
		switch {
		case a.outcomes != nil:
			o = a.outcomes[k]
		case refused:
			// An answer to the whole batch applies to none of its events: each is sent
			// alone.
			o = outcome.Outcome{Kind: outcome.Pending}
		}
		if a.outcomes == nil {
			ds[i].Alone = true // one of them may be the cause
		}
		steps[i] = d.step(ctx, ds[i], a, o)
	}
	return steps, a.answered
}

const (
	// batchBytes bounds the events of a batch, in bytes: well below the limit of a
	// function for a request.
	batchBytes = 512 << 10

	// If a function that states that it accepts batches rejects one, or a gateway
	// before it does, it receives single events for a while.
	distrustBase  = time.Second
	distrustLimit = time.Minute
)

// batchLimit is the limit of a function for one request.
type batchLimit struct {
	mu            sync.Mutex
	events, bytes int // 0 until the function has answered
	until         time.Time
	wait          backoff.Backoff
}

// MaxBatch returns how many events, and how many bytes of them, the function accepts in
// one request. Until it has answered for the first time, events is 0, which means one; it
// is 1 if the function does not state that it accepts more.
func (d *Sender) MaxBatch() (events, bytes int) {
	d.batch.mu.Lock()
	defer d.batch.mu.Unlock()
	return d.batch.events, cmp.Or(d.batch.bytes, batchBytes)
}

// read reads the limit that a function states. The error of a gateway states none.
func (l *batchLimit) read(now time.Time, res *http.Response) {
	events, err := strconv.Atoi(res.Header.Get(outcome.MaxBatchHeader))
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case now.Before(l.until):
		return
	case err != nil && res.StatusCode >= 300:
		return
	case err != nil || events < 2:
		l.events = 1
		return
	}
	bytes, err := strconv.Atoi(res.Header.Get(outcome.MaxBatchBytesHeader))
	if err != nil || bytes <= 0 {
		bytes = 2 * batchBytes
	}
	l.events, l.bytes = events, min(batchBytes, bytes/2)
}

// answered records the result of a batch.
func (l *batchLimit) answered(now time.Time, outcomes, refused bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case outcomes:
		l.wait = backoff.Backoff{}
	case refused && !now.Before(l.until):
		l.events, l.until = 1, now.Add(l.wait.Delay(distrustBase, distrustLimit, 0))
	}
}
