package delivery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/bits"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/tandem-fn/tandem/eventing/internal/backoff"
	"github.com/tandem-fn/tandem/eventing/internal/failurelog"
	"github.com/tandem-fn/tandem/eventing/outcome"
	"github.com/tandem-fn/tandem/eventing/sink"
)

// A sink with several addresses has an instance at each. A request is sent to the instance with
// the lowest cost: its requests under way, times their duration. An instance that breaks or
// refuses a connection, shuts down, answers that it is unavailable, or hangs is set aside. It
// is probed, then receives one request at a time, and all again after it has answered one.
//
// An instance hangs if it answers neither the requests under way nor a probe, which is a
// request without an event. A function that is slow, or waits for its database, answers probes.
// The requests of an instance that hangs are sent to another one, once: one of their events may
// be the cause, and would make all instances hang. Requests with a suspect are not, and fail
// after a while. Requests that were not sent, or were answered by an instance that is
// unavailable, are sent to another one, too. If no instance is available, requests stay where
// they are, and new ones are spread over all instances.

const (
	// silentAfter is the time without an answer after which an instance is probed. An
	// instance that answers the probes is probed less and less often, down to once
	// every silentLimit.
	silentAfter = 200 * time.Millisecond
	silentLimit = time.Second

	// A probe without an answer for the patience with its instance shows that the instance
	// hangs. The patience grows up to maxPatience when the answer arrives later.
	minPatience  = 250 * time.Millisecond
	maxPatience  = time.Second
	probeTimeout = 2 * time.Second

	// A request that may be the reason why its instance hangs is abandoned after
	// stayFor.
	stayFor = 5 * time.Second

	// An instance that is set aside is probed at intervals from asideBase to asideLimit.
	asideBase  = 100 * time.Millisecond
	asideLimit = 2 * time.Second

	// Costs differ by the power of two of the duration of requests, in tookUnits. The
	// known duration of an instance is halved after each tookHalves without a request.
	tookUnit   = 4 * time.Millisecond
	tookShare  = 4
	tookHalves = 5 * time.Second
)

// errHangs is the reason why a request is abandoned.
var errHangs = errors.New("the instance answers neither requests nor probes")

// instance is one address of a sink.
type instance struct {
	url      *url.URL // for probes
	failures *failurelog.Log

	watched map[*watch]struct{} // the requests under way
	heard   time.Time           // the latest answer, or the time of the first of them
	took    time.Duration       // the duration of requests
	tookAt  time.Time           // the time of the latest answer

	aside   bool // receives no requests
	hangs   bool // likewise, and its requests are abandoned
	trial   bool // receives one request at a time
	probing bool
	probeAt time.Time // the next probe while the instance is aside
	wait    backoff.Backoff

	patience time.Duration
}

// takes returns the duration of requests to the instance, as far as known.
func (in *instance) takes(now time.Time) time.Duration {
	return in.took >> min(now.Sub(in.tookAt)/tookHalves, bits.UintSize-2)
}

// cost returns the cost of another request to the instance.
func (in *instance) cost(now time.Time) int {
	takes := in.takes(now)
	if len(in.watched) > 0 {
		takes = max(takes, now.Sub(in.heard))
	}
	return (len(in.watched) + 1) << bits.Len(uint(takes/tookUnit)) //nolint:gosec // it is not negative
}

// The ranks of instances, the best first.
const (
	rankWell = iota
	rankTrial
	rankAside
	rankHangs
)

func (in *instance) rank() int {
	switch {
	case in.aside && in.hangs:
		return rankHangs
	case in.aside:
		return rankAside
	case in.trial && len(in.watched) > 0:
		return rankTrial
	default:
		return rankWell
	}
}

// member is an instance as an address of a target: events and dead letters are sent to
// different paths of one instance.
type member struct {
	*instance

	url *url.URL
}

// balancer chooses an instance for each request. It is safe for concurrent use.
type balancer struct {
	cfg   *Config
	probe func(context.Context, *instance) error

	mu        sync.Mutex
	instances map[string]*instance // by scheme and host
	turn      int
}

// instanceAt returns the instance at a URL; public is the URL without the password.
func (b *balancer) instanceAt(u *url.URL, public string) *instance {
	origin := sink.Origin(u)
	if b.instances[origin] == nil {
		b.instances[origin] = &instance{
			url: u, patience: minPatience, watched: map[*watch]struct{}{},
			failures: failurelog.New(b.cfg.Logger, b.cfg.Now, "delivering to an instance; the others receive its requests", slog.String("url", public)),
		}
	}
	return b.instances[origin]
}

// pick returns the instance for a request that was sent to some instances before; nil if
// all others are aside.
func (b *balancer) pick(t *target, sent []*instance) *member {
	if len(t.members) == 1 {
		if len(sent) > 0 {
			return nil
		}
		return &t.members[0]
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.cfg.Now()
	b.turn++
	var best *member
	rank, cost := rankHangs, 0
	for i := range t.members {
		m := &t.members[(b.turn+i)%len(t.members)]
		if m.aside && !now.Before(m.probeAt) {
			b.startProbe(m.instance)
		}
		r, c := m.rank(), m.cost(now)
		if slices.Contains(sent, m.instance) || r >= rankAside && len(sent) > 0 {
			continue
		}
		if best == nil || r < rank || r == rank && c < cost {
			best, rank, cost = m, r, c
		}
	}
	return best
}

// watch is a request to one of several instances.
type watch struct {
	balancer *balancer
	target   *target
	at       *instance
	stays    bool // it is not sent to another instance
	begun    time.Time

	timer     *time.Timer
	wait      time.Duration
	cancel    context.CancelFunc
	abandoned bool
}

// watch records that a request is sent to one of several instances. It returns the context of
// the request, which is canceled when the instance hangs, or later if the request stays
// there.
func (b *balancer) watch(ctx context.Context, t *target, in *instance, stays bool) (context.Context, *watch) {
	ctx, cancel := context.WithCancel(ctx)
	now := b.cfg.Now()
	w := &watch{balancer: b, target: t, at: in, stays: stays, begun: now, wait: silentAfter, cancel: cancel}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(in.watched) == 0 {
		in.heard = now
	}
	in.watched[w] = struct{}{}
	w.timer = time.AfterFunc(w.wait, w.look)
	return ctx, w
}

// look finds out whether the instance of an unanswered request hangs.
func (w *watch) look() {
	b := w.balancer
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, under := w.at.watched[w]; !under {
		return
	}
	now := b.cfg.Now()
	if w.at.hangs && w.target.otherWell(w.at) && (!w.stays || now.Sub(w.begun) >= stayFor) {
		w.abandoned = true
		w.cancel()
		return
	}
	silent := now.Sub(w.at.heard)
	if silent < silentAfter {
		w.timer.Reset(silentAfter - silent)
		return
	}
	b.startProbe(w.at)
	w.wait = min(2*w.wait, silentLimit)
	w.timer.Reset(w.wait)
}

// otherWell reports whether another instance of the target is available.
func (t *target) otherWell(in *instance) bool {
	return slices.ContainsFunc(t.members, func(m member) bool { return m.instance != in && m.rank() == rankWell })
}

// end records the result of a request.
func (w *watch) end(ctx context.Context, a *answer, sample bool) {
	w.timer.Stop()
	w.cancel()
	b, in := w.balancer, w.at
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(in.watched, w)
	now := b.cfg.Now()
	switch {
	case w.abandoned && a.status == 0:
		a.err, a.brokenBy, a.elsewhere = errHangs, "", !w.stays
	case a.status == 0 && context.Cause(ctx) != nil: // the attempt timed out, or the source ends
	case a.unsent:
		a.elsewhere = true
		b.setAside(ctx, in, a.err)
	case a.status == 0 || a.brokenBy != "":
		b.setAside(ctx, in, a.err)
	case a.draining || a.unavailable():
		a.elsewhere = !a.answered
		b.setAside(ctx, in, a.unavailableErr())
	default:
		in.heard = now
		if sample {
			took := in.takes(now)
			in.took, in.tookAt = took+(now.Sub(w.begun)-took)/tookShare, now
		}
		in.aside, in.hangs, in.trial, in.wait = false, false, false, backoff.Backoff{}
		in.failures.Succeeded(ctx)
	}
}

// unavailable reports whether an answer shows that its instance is unavailable for every
// event.
func (a *answer) unavailable() bool {
	if a.outcomes == nil {
		return a.outcome.Kind == outcome.Unavailable
	}
	return !slices.ContainsFunc(a.outcomes, func(o outcome.Outcome) bool { return o.Kind != outcome.Unavailable })
}

func (a *answer) unavailableErr() error {
	if a.draining {
		return errors.New("the instance is shutting down")
	}
	return &sink.StatusError{Code: a.status}
}

// setAside stops requests to an instance until it passes a probe. It is called with the lock
// held.
func (b *balancer) setAside(ctx context.Context, in *instance, err error) {
	in.failures.Failed(ctx, err)
	if !in.aside {
		in.aside, in.trial = true, false
		b.postpone(in)
	}
}

// postpone sets the time of the next probe of an instance. It is called with the lock
// held.
func (b *balancer) postpone(in *instance) {
	in.probeAt = b.cfg.Now().Add(in.wait.Delay(asideBase, asideLimit, 0))
}

// startProbe probes an instance, unless a probe is under way. It is called with the lock
// held.
func (b *balancer) startProbe(in *instance) {
	if in.probing {
		return
	}
	in.probing = true
	begun, patience := b.cfg.Now(), in.patience
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
		defer cancel()
		late := time.AfterFunc(patience, func() { b.hang(ctx, in) })
		err := b.probe(ctx, in)
		late.Stop()
		b.probed(ctx, in, b.cfg.Now().Sub(begun), err)
	}()
}

// hang records that an instance does not answer a probe.
func (b *balancer) hang(ctx context.Context, in *instance) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if in.probing {
		b.setAside(ctx, in, errHangs)
		b.abandon(in)
	}
}

// abandon abandons the requests to an instance that hangs. It is called with the lock held.
func (b *balancer) abandon(in *instance) {
	in.hangs = true
	for w := range in.watched {
		w.timer.Reset(0)
	}
}

// probed records the result of a probe.
func (b *balancer) probed(ctx context.Context, in *instance, took time.Duration, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	in.probing = false
	if err != nil {
		b.setAside(ctx, in, err)
		b.postpone(in)
		if !errors.As(err, new(*sink.StatusError)) {
			b.abandon(in)
		}
		return
	}
	in.heard = b.cfg.Now()
	in.trial = in.trial || in.aside
	in.aside, in.hangs = false, false
	switch {
	case took > in.patience/2:
		in.patience = min(2*took, maxPatience)
	case took < in.patience/8:
		in.patience = max(in.patience/2, minPatience)
	}
}

// ask sends a request without an event to an instance. An error means that the instance is
// unavailable.
func (d *Sender) ask(ctx context.Context, in *instance) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodOptions, in.url.String(), http.NoBody)
	if err != nil {
		return fmt.Errorf("probe an instance: %w", err)
	}
	res, err := d.client.Do(req)
	if err != nil {
		return fmt.Errorf("probe an instance: %w", sink.Cause(err))
	}
	defer func() { _ = res.Body.Close() }() // the body is not needed
	if res.StatusCode >= http.StatusInternalServerError || res.Header.Get(outcome.DrainingHeader) != "" {
		return fmt.Errorf("probe an instance: %w", &sink.StatusError{Code: res.StatusCode})
	}
	return nil
}
