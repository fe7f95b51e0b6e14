package source

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/delivery"
	"github.com/tandem-fn/tandem/eventing/internal/backoff"
	"github.com/tandem-fn/tandem/eventing/internal/failurelog"
)

// consumer is one stream of a [Source]: it keeps it open and pulls from it.
type consumer struct {
	source   *Source
	stream   eventing.Stream
	failures *failurelog.Log

	mu       sync.Mutex
	reader   eventing.Reader // nil while it is not open
	epoch    string          // of the reader that was open last
	table    *inFlight       // of that epoch
	err      error           // why it is not open
	returned map[uint64]*delivery.Delivery
	attempts *attemptsOf // of the same epoch
	horizon  uint64      // messages below it are not delivered
	below    bool        // one of those came, and that was said
	lateTo   uint64      // messages before it were waiting when the cluster stopped standing by
	lost     stallDetector
	reopen   context.CancelFunc // has the stream opened again

	checkpoint checkpoint // not under mu
}

// run pulls messages until ctx ends.
func (in *consumer) run(ctx context.Context) {
	wait := backoff.Backoff{Base: 200 * time.Millisecond, Limit: 2 * time.Second}
	for {
		flowed, err := in.follow(ctx)
		if ctx.Err() != nil {
			return // still open, for the last acknowledgements
		}
		if errors.Is(err, errReopen) || errors.Is(err, eventing.ErrMissed) {
			continue
		}
		in.closed(err)
		in.failures.Failed(ctx, err)
		if flowed {
			wait.Reset()
		}
		if !backoff.Sleep(ctx, &wait) {
			return
		}
	}
}

// follow opens the stream and pulls from it until that fails or ctx ends. It
// reports whether anything went well before.
func (in *consumer) follow(ctx context.Context) (flowed bool, err error) {
	open := in.source.openConfig()
	open.Begin = in.beginAt
	reader, err := in.stream.Open(ctx, open)
	if err != nil {
		return false, err
	}
	horizon, err := in.loadHorizon(ctx, reader)
	if err != nil {
		return false, err
	}
	tries, err := in.loadAttempts(ctx, reader)
	if err != nil {
		return false, err
	}
	late, err := in.findCheckpoint(ctx, reader, horizon)
	if err != nil {
		return false, err
	}
	pulling, reopen := context.WithCancel(ctx)
	defer reopen()
	window := in.opened(ctx, reader, horizon, tries, reopen)
	if late > 0 && in.source.cfg.Ledger != nil {
		in.lateBefore(late)
	}
	in.source.scheduler.openWindow(window)
	hurry := func() {
		in.source.scheduler.hurry()
		in.source.makeRoom(ctx, window)
	}
	pulled := true // something, or nothing was asked for yet
	for {
		n, bytes := window.room(pulling, in.source.windowLimit, hurry)
		if ctx.Err() != nil {
			return flowed, ctx.Err()
		}
		if pulling.Err() != nil {
			return flowed, errReopen
		}
		if in.source.scheduler.missing(window) {
			missing, err := in.missingMessages(ctx, reader, window)
			if err != nil {
				return flowed, err
			}
			if missing > 0 && !pulled {
				in.source.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "messages were lost; opening the stream again, which redelivers them",
					slog.String("stream", in.stream.Name()), slog.Int("messages", missing))
				return flowed, errReopen
			}
			if missing > 0 {
				n = min(n, missing)
			}
		}
		pulled = false
		err := reader.Pull(pulling, n, bytes, func(m eventing.Message) {
			pulled = true
			if !flowed {
				flowed = true
				in.failures.Succeeded(ctx)
			}
			in.receive(ctx, window, m)
		})
		if err != nil {
			return flowed, err
		}
		if !flowed {
			flowed = true
			in.failures.Succeeded(ctx)
		}
		if pulling.Err() != nil && ctx.Err() == nil {
			return flowed, errReopen
		}
	}
}

// loadHorizon asks for the horizon. Without any answer nothing is delivered, as what
// the ledger has forgotten would be done again; who was told once goes on with that,
// since what has been forgotten meanwhile this cluster has acknowledged.
func (in *consumer) loadHorizon(ctx context.Context, reader eventing.Reader) (uint64, error) {
	asking, cancel := context.WithTimeout(ctx, saveTimeout)
	defer cancel()
	horizon, err := in.source.checkpoints.Horizon(asking, in.source.cfg.Function, reader.Origin(), reader.Epoch())
	in.mu.Lock()
	defer in.mu.Unlock()
	if err != nil && in.table != nil && in.epoch == reader.Epoch() {
		return in.horizon, nil
	}
	return horizon, err
}

// forgotten reports whether a message is below the horizon, as those of a consumer
// that was made anew or of a cluster that was added. Every cluster has done with it,
// so it is acknowledged and that is all.
func (in *consumer) forgotten(ctx context.Context, m eventing.Message) bool {
	in.mu.Lock()
	horizon, said := in.horizon, in.below
	forgotten := m.Sequence() < horizon
	in.below = said || forgotten
	in.mu.Unlock()
	if !forgotten {
		return false
	}
	if !said {
		in.source.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "messages below the retention horizon are acknowledged without a delivery: all clusters have processed them",
			slog.String("stream", in.stream.Name()), slog.Uint64("sequence", m.Sequence()), slog.Uint64("horizon", horizon))
	}
	in.source.cfg.Metrics.forgottenOne(ctx)
	if err := m.Ack(); err != nil {
		in.source.cfg.Logger.LogAttrs(ctx, slog.LevelDebug, "could not notify the stream; the message will be redelivered",
			slog.Uint64("sequence", m.Sequence()), slog.Any("err", err))
	}
	return true
}

// receive takes a message in, unless it is at work already. A copy of an acknowledged
// message, whose acknowledgement was lost, must not come before those of its subject
// that are at work by now: it is acknowledged again.
func (in *consumer) receive(ctx context.Context, window *inFlight, m eventing.Message) {
	if in.forgotten(ctx, m) || in.filtered(ctx, m) {
		return
	}
	now := in.source.cfg.Now()
	j := &message{consumer: in, table: window, msg: m, size: m.Size() + messageOverhead, received: now, heartbeatAt: now, index: -1}
	taken, copied := window.add(j)
	if copied {
		in.source.notify(ctx, j, m.Ack, "acknowledge")
	}
	if !taken {
		return
	}
	j.delivery = in.deliveryOf(m)
	in.mu.Lock()
	j.attempts = in.attempts
	late := m.Sequence() < in.lateTo
	in.mu.Unlock()
	in.source.scheduler.admit(j, late, in.source.cfg.lagging(m))
}

// deliveryOf gives the delivery of a message: a new one, or, if it was handed back,
// the one that was begun.
func (in *consumer) deliveryOf(m eventing.Message) *delivery.Delivery {
	in.mu.Lock()
	defer in.mu.Unlock()
	e := in.returned[m.Sequence()]
	if e == nil {
		e = &delivery.Delivery{}
		in.attempts.restore(m.Sequence(), e)
	}
	delete(in.returned, m.Sequence())
	e.Event = m.Event()
	return e
}

// handBack keeps what is known of a delivery for when its message comes again.
func (in *consumer) handBack(j *message) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.table != j.table {
		return
	}
	j.delivery.Forget()
	if j.delivery.Fresh() {
		in.returned[j.msg.Sequence()] = nil // costs less
		return
	}
	in.returned[j.msg.Sequence()] = j.delivery
}

// opened makes reader the consumer's and gives the window for its messages.
func (in *consumer) opened(ctx context.Context, reader eventing.Reader, horizon uint64, tries *attemptsOf, reopen context.CancelFunc) *inFlight {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.epoch != "" && in.epoch != reader.Epoch() {
		in.source.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "stream was deleted and created again; reading it from its beginning",
			slog.String("stream", in.stream.Name()), slog.String("epoch", reader.Epoch()), slog.String("epoch_before", in.epoch))
		if in.table != nil {
			in.table.abandon()
		}
		in.table = nil
	}
	if in.table == nil {
		in.table = newInFlight(in.source.cfg.MaxBytes/len(in.source.consumers), in.source.cfg.Ordered)
		in.lateTo = 0
	}
	if in.returned == nil || in.epoch != reader.Epoch() {
		in.returned = map[uint64]*delivery.Delivery{}
	}
	in.reader, in.epoch, in.err, in.reopen = reader, reader.Epoch(), nil, reopen
	in.horizon, in.below, in.attempts = horizon, false, tries
	return in.table
}

// lateBefore has the ledger asked about all messages before a sequence, whatever the
// hedge.
func (in *consumer) lateBefore(sequence uint64) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.lateTo = sequence
}

func (in *consumer) closed(err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.reader, in.err = nil, err
}

// currentReader is the open reader and its window; nil while there is none.
func (in *consumer) currentReader() (eventing.Reader, *inFlight) {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.reader, in.table
}

// ready reports why the stream cannot be read.
func (in *consumer) ready() error {
	in.mu.Lock()
	defer in.mu.Unlock()
	switch {
	case in.reader != nil:
		return nil
	case in.err != nil:
		return fmt.Errorf("read stream %s: %w", in.stream.Name(), in.err)
	default:
		return fmt.Errorf("read stream %s: not open yet", in.stream.Name())
	}
}
