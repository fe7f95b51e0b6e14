package source

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/tandem-fn/tandem/eventing/internal/failurelog"
	"github.com/tandem-fn/tandem/sinkwriter/lease"
)

const (
	// tryLease is the time between attempts of a standby replica to take the lease.
	tryLease = 200 * time.Millisecond

	// renewInterval is the time between renewals by the active replica, and renewTimeout
	// bounds one attempt.
	renewInterval = time.Second
	renewTimeout  = 2 * time.Second

	// leaseMargin is how much earlier a lease ends here than in the database.
	leaseMargin = 500 * time.Millisecond

	// finishWait is how long a replica that ends keeps the lease for its requests under
	// way. The next replica looks up the events of the others.
	finishWait = 300 * time.Millisecond
)

// Leases decides which replica is active. [lease.Leases] is the one on PostgreSQL. It must be
// safe for concurrent use.
type Leases interface {
	// Acquire takes the lease of function if it is free, or, if restarted, held under the
	// same name. If the lease is not free, held has epoch 0. It also returns the previous
	// holder.
	Acquire(ctx context.Context, function string, as lease.Holder, restarted bool) (held lease.Lease, before lease.Holder, err error)

	// Renew extends a lease. The error is [lease.ErrLost] if another replica has it.
	Renew(ctx context.Context, function string, held lease.Lease) error

	// Release ends a lease.
	Release(ctx context.Context, function string, held lease.Lease) error
}

// ReplicaConfig is the configuration of a [Replica].
type ReplicaConfig struct {
	// Cluster and Function are the names of which the lease is taken. Required.
	Cluster, Function string

	// Holder names this replica. Required.
	Holder lease.Holder

	// Metrics, Logger and Now are those of [Config], with the same defaults.
	Metrics *Metrics
	Logger  *slog.Logger
	Now     func() time.Time
}

// Replica is one of several processes that are the source of one cluster and function. One of
// them is active: it has the lease, and runs a [Source]. Create it with [NewReplica].
//
// # Design
//
// A replica is active until its lease expires by its own clock, counted from the time at which
// it requested the lease; no other replica can have the lease until then. After that it does not
// deliver, acknowledge, pull or save until the lease is renewed. If no other replica has taken
// the lease, for example while the database is unreachable, it continues with the messages in
// flight. Otherwise its Source ends.
//
// The order of a subject does not depend on the lease. A replica knows every unacknowledged
// message when it starts, and detects those that are delivered elsewhere. It delivers an event
// after the previous one is in the ledger, whatever another replica has under way.
type Replica struct {
	cfg     ReplicaConfig
	leases  Leases
	source  func(held lease.Lease, until func() time.Time) (*Source, error)
	probe   func(context.Context) error
	trying  *failurelog.Log
	renewal *failurelog.Log

	mu      sync.Mutex
	active  *Source
	until   time.Time // by this process's clock
	problem error     // why a standby replica could not take over
	holder  lease.Holder
}

// NewReplica returns a Replica. When it has the lease it runs the result of source, which is
// called with the lease and with the function for [Config.ActiveUntil]. While it stands by,
// it calls probe until that succeeds once, so that it can take over immediately.
func NewReplica(leases Leases, source func(held lease.Lease, until func() time.Time) (*Source, error), probe func(context.Context) error, cfg ReplicaConfig) *Replica {
	cfg.Logger = cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler))
	if cfg.Now == nil {
		cfg.Now = time.Now //nolint:forbidigo // the default of ReplicaConfig.Now
	}
	r := &Replica{
		cfg: cfg, leases: leases, source: source, probe: probe, problem: errNotAsked,
		trying:  failurelog.New(cfg.Logger, cfg.Now, "acquiring the lease of this source; it does not deliver"),
		renewal: failurelog.New(cfg.Logger, cfg.Now, "renewing the lease of this source; it pauses after the lease expires"),
	}
	cfg.Metrics.standBy()
	cfg.Metrics.watchActive(r.Active)
	return r
}

var (
	errNotAsked = errors.New("the lease of this source is not acquired yet")
	errPaused   = errors.New("the lease of this source could not be renewed; it pauses")
)

// Run stands by until this replica has the lease, runs a source until the lease is lost, and
// repeats both until ctx ends. It returns after the source has ended and the lease is
// released. The error is that of the source's configuration.
func (r *Replica) Run(ctx context.Context) error {
	var probing sync.WaitGroup
	defer probing.Wait()
	if r.probe != nil {
		probing.Go(func() { probeUntilItPasses(ctx, r.probe) })
	}
	restarted := true
	for ctx.Err() == nil {
		held, ok := r.standBy(ctx, restarted)
		if !ok {
			return nil
		}
		restarted = false
		if err := r.serve(ctx, held); err != nil {
			return err
		}
	}
	return nil
}

// standBy waits until this replica has the lease; ok is false if ctx ended first.
func (r *Replica) standBy(ctx context.Context, restarted bool) (held lease.Lease, ok bool) {
	ticker := time.NewTicker(tryLease)
	defer ticker.Stop()
	for {
		asked := r.cfg.Now()
		held, before, err := r.acquire(ctx, restarted)
		switch {
		case ctx.Err() != nil:
			if err == nil && held.Epoch > 0 {
				r.release(ctx, held)
			}
			return lease.Lease{}, false
		case err != nil:
			r.trying.Failed(ctx, err)
			r.setProblem(err)
		case held.Epoch > 0:
			r.trying.Succeeded(ctx)
			r.extend(asked)
			r.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "this replica of the source is active",
				slog.String("replica", held.Replica), slog.String("site", held.Site), slog.Int64("epoch", held.Epoch), slog.String("replica_before", before.Replica))
			return held, true
		default:
			restarted = false
			r.trying.Succeeded(ctx)
			r.stand(ctx, before)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return lease.Lease{}, false
		}
	}
}

func (r *Replica) acquire(ctx context.Context, restarted bool) (lease.Lease, lease.Holder, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), renewTimeout)
	defer cancel()
	return r.leases.Acquire(ctx, r.cfg.Function, r.cfg.Holder, restarted)
}

// stand records which replica is active, and logs it once.
func (r *Replica) stand(ctx context.Context, holder lease.Holder) {
	r.mu.Lock()
	news := r.holder != holder
	r.holder, r.problem = holder, nil
	if holder.Site != r.cfg.Holder.Site {
		r.problem = fmt.Errorf("cluster name %s is in use at site %s, by replica %s, and this is site %s: give each cluster a name of its own; if the cluster has moved, end the source there and wait %s",
			r.cfg.Cluster, holder.Site, holder.Replica, r.cfg.Holder.Site, lease.SiteExpires)
	}
	problem := r.problem
	r.mu.Unlock()
	switch {
	case !news:
	case problem != nil:
		r.cfg.Logger.LogAttrs(ctx, slog.LevelError, "this source does not start, because another site uses its cluster name", slog.Any("err", problem))
	default:
		r.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "this replica of the source stands by", slog.String("replica", r.cfg.Holder.Replica), slog.String("active", holder.Replica))
	}
}

func (r *Replica) setProblem(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.problem = err
}

// extend records that a request sent at asked acquired or renewed the lease.
func (r *Replica) extend(asked time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.until = asked.Add(lease.Expires - leaseMargin)
}

// activeUntil returns when the lease ends, by this process's clock.
func (r *Replica) activeUntil() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.until
}

// serve runs a source until ctx ends or the lease is lost, and releases the lease.
func (r *Replica) serve(ctx context.Context, held lease.Lease) error {
	s, err := r.source(held, r.activeUntil)
	if err != nil {
		r.release(ctx, held)
		return err
	}
	r.setActive(s)
	defer r.setActive(nil)
	running, end := context.WithCancel(ctx)
	defer end()
	renewing, stop := context.WithCancel(context.WithoutCancel(ctx))
	var renewals sync.WaitGroup
	renewals.Go(func() {
		r.renew(renewing, held)
		end()
	})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.Run(running)
	}()
	<-running.Done()
	timer := time.NewTimer(finishWait)
	defer timer.Stop()
	select {
	case <-ended:
	case <-timer.C:
	}
	stop()
	renewals.Wait()
	r.end()
	r.release(ctx, held)
	<-ended
	return nil
}

func (r *Replica) setActive(s *Source) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.active, r.holder = s, lease.Holder{}
	if s == nil {
		r.problem = errNotAsked
		r.cfg.Metrics.standBy()
	}
}

// end makes the lease expire here.
func (r *Replica) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.until = time.Time{}
}

// renew renews the lease until ctx ends or another replica has it.
func (r *Replica) renew(ctx context.Context, held lease.Lease) {
	ticker := time.NewTicker(renewInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		asked := r.cfg.Now()
		asking, cancel := context.WithTimeout(ctx, renewTimeout)
		err := r.leases.Renew(asking, r.cfg.Function, held)
		cancel()
		switch {
		case err == nil:
			r.renewal.Succeeded(ctx)
			r.extend(asked)
		case errors.Is(err, lease.ErrLost):
			r.end()
			r.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "another replica has taken the lease of this source; this one stands by: nothing to do",
				slog.String("replica", held.Replica), slog.Int64("epoch", held.Epoch))
			return
		case ctx.Err() == nil:
			r.renewal.Failed(ctx, err)
		}
	}
}

// release lets another replica take the lease at once. If it fails, the lease expires.
func (r *Replica) release(ctx context.Context, held lease.Lease) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastSaveTimeout)
	defer cancel()
	if err := r.leases.Release(ctx, r.cfg.Function, held); err != nil && !errors.Is(err, lease.ErrLost) {
		r.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "could not release the lease of this source; another replica takes over when it expires", slog.Any("err", err))
	}
}

// Active reports whether this replica has the lease.
func (r *Replica) Active() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.active != nil && r.cfg.Now().Before(r.until)
}

// Ready returns why the active replica cannot deliver events, or why this one could not take
// over; nil if no reason is known.
func (r *Replica) Ready() error {
	r.mu.Lock()
	active, problem := r.active, r.problem
	paused := !r.cfg.Now().Before(r.until)
	r.mu.Unlock()
	switch {
	case active == nil:
		return problem
	case paused:
		return errors.Join(errPaused, active.Ready())
	default:
		return active.Ready()
	}
}

// Status returns for an operator whether this replica is active.
func (r *Replica) Status() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.active != nil:
		return fmt.Sprintf("active: replica %s", r.cfg.Holder.Replica)
	case r.holder != lease.Holder{}:
		return fmt.Sprintf("standing by: the active replica is %s, this one is %s", r.holder.Replica, r.cfg.Holder.Replica)
	default:
		return "standing by"
	}
}
