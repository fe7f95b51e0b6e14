package serve

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"

	"github.com/tandem-fn/tandem/sinkwriter"
)

// handle computes and commits the events of g, sets their results, and logs. If early is
// set, it returns when most events are decided; the result of the others is errPending.
func (h *Handler) handle(g *group, early bool) {
	begin := h.config.Now()
	h.running.join(g, h.refusal(len(g.list)))
	h.commitEnded(g, g.compute(begin, early))
	g.awaitShared(begin, early)
	if g.own+g.preset < len(g.list) {
		h.running.receive(g, g.ctx.Err() != nil)
	}
	late := false
	for i := range g.list {
		switch c := &g.list[i]; {
		case c.late:
			late = true
		case c.function != nil && c.shared == nil && !c.kept: // the others are logged by the group that computes them
			h.log.logResult(g.ctx, c)
		}
	}
	if late {
		g.release()
	}
}

// stuckLimit is the multiple of Config.MaxStuck stuck calls at which an instance that is
// not restarted rejects all events, to bound its memory.
const stuckLimit = 16

// refusal returns why no more can be computed for a request with so many events; nil if
// it can.
func (h *Handler) refusal(events int) error {
	if stuck := h.stuck.Load(); stuck >= stuckLimit*int64(h.config.MaxStuck) {
		return fmt.Errorf("%d calls of functions ignored their deadline and still run: no more may", stuck)
	}
	// A request with a single event is never answered early.
	if late := h.lateCalls.Load(); events > 1 && late >= int64(h.config.MaxPending) {
		return fmt.Errorf("busy: %d events of batches that are answered are still being computed", late)
	}
	return nil
}

// commitEnded commits the effects of the ended calls of a group, and sets and publishes
// their results.
func (h *Handler) commitEnded(g *group, ended []*call) {
	if len(ended) == 0 {
		return
	}
	defer func() { h.running.finish(g.ctx.Err() == nil, ended...) }()
	if len(g.list) == 1 {
		if c := ended[0]; c.err == nil {
			c.setResult(h.commitOne(g.ctx, c, &g.commit))
		}
		return
	}
	offers := make([]sinkwriter.Offer, 0, len(ended))
	offered := make([]*call, 0, len(ended))
	for _, c := range ended {
		if c.err == nil {
			offers = append(offers, c.offer())
			offered = append(offered, c)
		}
	}
	if len(offers) == 0 {
		return
	}
	outcomes, err := h.commitAll(g, offers)
	for i, c := range offered {
		if err != nil {
			c.err = err
		} else {
			c.setResult(outcomes[i].Receipt, outcomes[i].Err)
		}
	}
}

// finishLate commits the effects of a call whose request was answered before it ended.
func (h *Handler) finishLate(c *call) {
	defer h.late.Done()
	defer h.lateCalls.Add(-1)
	ctx := context.WithoutCancel(c.group.ctx)
	if c.err == nil {
		c.setResult(h.commitOne(ctx, c, &deadline{}))
	}
	h.log.logResult(ctx, c)
	h.running.finish(false, c)
	c.release()
}

// addLate counts calls that will call finishLate. It is called by a request, so that
// Drain cannot miss them.
func (h *Handler) addLate(calls int) {
	h.late.Add(calls)
	h.lateCalls.Add(int64(calls))
}

// commitOne commits the effects of one call, within d.
func (h *Handler) commitOne(ctx context.Context, c *call, d *deadline) (receipt sinkwriter.Receipt, err error) {
	defer func() {
		if value := recover(); value != nil {
			// The panic counts against the event, because the event may cause it.
			err = withStatus(http.StatusInternalServerError, &panicError{value: value, stack: debug.Stack()})
		}
	}()
	h.commits.begin(ctx, d)
	defer h.commits.end(d)
	return h.committer.Commit(d, c.offer())
}

// commitAll returns the committer's outcomes for several calls of a group. The error
// applies to all of them: the committer panicked.
func (h *Handler) commitAll(g *group, offers []sinkwriter.Offer) (outcomes []sinkwriter.Outcome, err error) {
	defer func() {
		if value := recover(); value != nil {
			// The panic counts against all of these events, because one of them may
			// cause it.
			err = withStatus(http.StatusInternalServerError, &panicError{value: value, stack: debug.Stack()})
		}
	}()
	h.commits.begin(g.ctx, &g.commit)
	defer h.commits.end(&g.commit)
	outcomes = h.committer.CommitAll(&g.commit, offers)
	if len(outcomes) != len(offers) {
		return nil, errors.New("commit a batch: the committer did not return an outcome for each event")
	}
	return outcomes, nil
}
