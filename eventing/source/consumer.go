package source

import (
	"cmp"
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
	"github.com/tandem-fn/tandem/eventing/source/internal/inflight"
	"github.com/tandem-fn/tandem/functions/cloudevent"
)

// consumer reads one stream of a [Source]: it keeps the stream open and pulls from it.
type consumer struct {
	source    *Source
	stream    eventing.Stream
	partition *inflight.Partition
	failures  *failurelog.Log
	stop      context.CancelFunc
	ended     chan struct{} // is closed after run has returned

	mu       sync.Mutex
	reader   eventing.Reader // nil while the stream is not open
	epoch    string          // of the latest open reader
	place    string          // the name of the origin stream
	err      error           // why the stream is not open
	attempts *attemptsOf     // of the same epoch
	horizon  uint64          // messages below it are acknowledged without a delivery
	settled  uint64          // messages below it may be acknowledged already, though they are delivered
	below    bool            // a message below the horizon arrived, and was logged
	reopen   context.CancelFunc

	floor          uint64    // of the latest position
	head, unread   uint64    // messages received after the latest position are not in unread
	gone, goneFrom uint64    // messages that vanished and are not logged yet, and the first of them
	goneLogged     time.Time // when the latest vanished messages were logged

	truncated bool // Pull returned ErrTruncated, and the stream is not rewound yet

	stall stall // of the goroutine that saves the checkpoint

	checkpoint checkpoint // not under mu
}

// owner is the receiver of an entry: a consumer, [storedEvents], or [deferrals].
type owner interface {
	fetch(ctx context.Context, m eventing.Message) (eventing.Message, error)
	fetchFailed(ctx context.Context, err error)
	name() string
	recordFailure(e *inflight.Entry)
	forgetAttempts(e *inflight.Entry)
	vanished(ctx context.Context, from, messages uint64)
	origin(e *inflight.Entry) origin
}

// origin is the position from which an entry was read: the origin stream, its epoch, and
// the sequence there.
type origin struct {
	stream, epoch string // the epoch is empty if unknown
	sequence      uint64
}

// ownerOf returns the receiver of e.
func ownerOf(e *inflight.Entry) owner {
	o, _ := e.Partition().Owner.(owner)
	return o
}

func (c *consumer) name() string { return c.stream.Name() }

// origin returns the position from which an entry was read.
func (c *consumer) origin(e *inflight.Entry) origin {
	c.mu.Lock()
	defer c.mu.Unlock()
	return origin{c.place, c.epoch, e.Sequence()}
}

func (c *consumer) fetchFailed(ctx context.Context, err error) { c.failures.Failed(ctx, err) }

// The wait before an unreadable stream is opened again grows from retryBase to
// retryLimit.
const (
	retryBase  = 200 * time.Millisecond
	retryLimit = 2 * time.Second
)

// run pulls messages until ctx ends.
func (c *consumer) run(ctx context.Context) {
	wait := backoff.Backoff{Base: retryBase, Limit: retryLimit}
	for {
		flowed, err := c.follow(ctx)
		if ctx.Err() != nil {
			return // still open, for the last acknowledgements
		}
		if errors.Is(err, errReopen) || errors.Is(err, eventing.ErrMissed) {
			continue
		}
		c.closed(err)
		if errors.Is(err, eventing.ErrTruncated) {
			c.setTruncated(true)
		} else {
			c.failures.Failed(ctx, err)
		}
		if flowed {
			wait.Reset()
		}
		if !backoff.Sleep(ctx, &wait) {
			return
		}
	}
}

// follow opens the stream and pulls from it until pulling fails or ctx ends. It reports
// whether pulling succeeded at least once.
func (c *consumer) follow(ctx context.Context) (flowed bool, err error) {
	var attempts *attemptsOf
	open := c.source.openConfig()
	open.Begin, open.Known, open.LooksUp = c.beginAt, c.partition.Knows, c.source.cfg.Ledger != nil
	open.Vanished = func(from, messages uint64) {
		c.vanished(ctx, from, messages)
		if attempts != nil { // so that no message is counted twice
			attempts.forget(func(sequence uint64) bool { return sequence >= from && sequence-from < messages })
		}
	}
	reader, err := c.stream.Open(ctx, open)
	if err != nil {
		return false, err
	}
	horizon, err := c.loadHorizon(ctx, reader)
	if err != nil {
		return false, err
	}
	if attempts, err = c.loadAttempts(ctx, reader); err != nil {
		return false, err
	}
	truncated := c.isTruncated()
	late, err := c.findCheckpoint(ctx, reader, horizon)
	if err != nil {
		return false, err
	}
	if truncated { // the known attempts belong to the lost messages
		floor := c.savedFloor()
		horizon = min(horizon, floor)
		attempts.forget(func(sequence uint64) bool { return sequence >= floor })
	}
	pulling, reopen := context.WithCancel(ctx)
	defer reopen()
	c.opened(ctx, reader, horizon, attempts, reopen)
	below, _ := redelivers(reader)
	if late = max(late, below); late > 0 && c.source.cfg.Ledger != nil {
		c.setRedelivers(late)
		c.partition.LookUpBelow(late)
	}
	pulled := true // something was pulled, or no pull has been made yet
	for {
		if !c.source.awaitActive(pulling.Done()) {
			return flowed, cmp.Or(ctx.Err(), errReopen)
		}
		if !c.source.deferrals.awaitRoom(pulling.Done()) {
			return flowed, cmp.Or(ctx.Err(), errReopen)
		}
		n, bytes := c.partition.Room(pulling)
		if ctx.Err() != nil {
			return flowed, ctx.Err()
		}
		if pulling.Err() != nil {
			return flowed, errReopen
		}
		if c.partition.Incomplete() {
			missing, err := c.missingMessages(ctx, reader)
			if err != nil {
				return flowed, err
			}
			if missing > 0 && !pulled {
				c.source.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "messages were lost; opening the stream again, which redelivers them",
					slog.String("stream", c.stream.Name()), slog.Int("messages", missing))
				return flowed, errReopen
			}
			if missing == 0 { // there is room for what follows, or not
				continue
			}
			n = min(n, missing)
		}
		pulled = false
		err := c.source.pull(pulling, reader, n, bytes, func(m eventing.Message) {
			pulled = true
			if !flowed {
				flowed = true
				c.failures.Succeeded(ctx)
			}
			c.receive(ctx, m)
		})
		if err != nil {
			return flowed, err
		}
		if !flowed {
			flowed = true
			c.failures.Succeeded(ctx)
		}
		if pulling.Err() != nil && ctx.Err() == nil {
			return flowed, errReopen
		}
	}
}

// pull pulls messages while this process is active.
func (s *Source) pull(ctx context.Context, reader eventing.Reader, n, bytes int, receive func(eventing.Message)) error {
	if s.cfg.ActiveUntil != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.cfg.ActiveUntil().Sub(s.cfg.Now()))
		defer cancel()
	}
	return reader.Pull(ctx, n, bytes, receive)
}

// loadHorizon loads the horizon. Without any answer nothing is delivered, because
// events that the ledger has forgotten would be applied again. A process that has
// loaded it once goes on with that horizon: this cluster has acknowledged everything
// that was forgotten since.
func (c *consumer) loadHorizon(ctx context.Context, reader eventing.Reader) (uint64, error) {
	asking, cancel := context.WithTimeout(ctx, saveTimeout)
	defer cancel()
	horizon, err := c.source.checkpoints.Horizon(asking, c.source.cfg.Function, reader.Origin(), reader.Epoch())
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil && c.epoch == reader.Epoch() {
		return c.horizon, nil
	}
	return horizon, err
}

// receive adds a message to the in-flight table, unless it needs no delivery. A message that
// looks like a CloudEvent and cannot be read has no type that could be filtered: it becomes a
// dead letter. A redelivered message that is finished, because its acknowledgement was lost, is
// acknowledged again.
func (c *consumer) receive(ctx context.Context, m eventing.Message) {
	c.noteReceived(m.Sequence())
	if c.forgotten(ctx, m) {
		c.currentAttempts().forgetOne(m.Sequence())
		return
	}
	e := m.Event()
	d := &delivery.Delivery{Event: e}
	if e.Type() == eventing.MessageType {
		d.Unreadable = unreadable(m)
		d.Alone = d.Unreadable != nil
	}
	if d.Unreadable == nil && !c.source.pass(e.Type()) {
		c.source.cfg.Metrics.filteredOne(ctx)
		c.currentAttempts().forgetOne(m.Sequence())
		c.source.ackAtOnce(ctx, m)
		return
	}
	c.restoreAttempts(m.Sequence(), d)
	if c.partition.Receive(m, d, inflight.EventID{Source: cloudevent.Source(e), ID: e.ID()}, e.Subject()) == inflight.Copy {
		c.source.ackAtOnce(ctx, m)
	}
}

// unreadable returns why a message that looks like a CloudEvent cannot be read as one; nil
// for other messages.
func unreadable(m eventing.Message) error {
	if u, ok := m.(interface{ Unreadable() error }); ok {
		return u.Unreadable()
	}
	return nil
}

// forgotten reports whether a message is below the horizon, which happens after a
// consumer is recreated or a cluster is added. All clusters have processed it, so it is
// acknowledged.
func (c *consumer) forgotten(ctx context.Context, m eventing.Message) bool {
	c.mu.Lock()
	horizon, logged := c.horizon, c.below
	forgotten := m.Sequence() < horizon
	c.below = logged || forgotten
	c.mu.Unlock()
	if !forgotten {
		return false
	}
	if !logged {
		c.source.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "messages below the retention horizon are acknowledged without a delivery, because all clusters have processed them; nothing to do, unless you wanted them applied again",
			slog.String("stream", c.stream.Name()), slog.Uint64("sequence", m.Sequence()), slog.Uint64("horizon", horizon))
	}
	c.source.cfg.Metrics.forgottenOne(ctx)
	c.source.ackAtOnce(ctx, m)
	return true
}

// vanishedInterval is the minimum time between two log lines about vanished messages.
const vanishedInterval = time.Minute

// vanished counts messages that the stream deleted before they were finished. Each log
// line covers the messages since the previous line.
func (c *consumer) vanished(ctx context.Context, from, messages uint64) {
	c.source.cfg.Metrics.vanishedSome(ctx, messages)
	now := c.source.cfg.Now()
	c.mu.Lock()
	if c.gone == 0 {
		c.goneFrom = from
	}
	c.gone += messages
	from, messages = c.goneFrom, c.gone
	due := c.goneLogged.IsZero() || now.Sub(c.goneLogged) >= vanishedInterval
	if due {
		c.gone, c.goneLogged = 0, now
	}
	c.mu.Unlock()
	if due {
		c.source.cfg.Logger.LogAttrs(ctx, slog.LevelError, "stream deleted messages before they were delivered, because of a limit or by hand; they are lost for this cluster: raise the limit, and publish them again",
			slog.String("stream", c.stream.Name()), slog.Uint64("from", from), slog.Uint64("messages", messages))
	}
}

// redeliverer is a reader that redelivers by itself.
type redeliverer interface {
	Redelivers() (below uint64, all bool)
	Reread(ctx context.Context, to uint64) (head uint64, ok bool, err error)
}

// redelivers returns the sequence below which messages that a reader passes may be
// acknowledged, or 0 if it passes none of these, and whether these include every message
// that was delivered before and is unacknowledged.
func redelivers(reader eventing.Reader) (below uint64, all bool) {
	if r, ok := reader.(redeliverer); ok {
		return r.Redelivers()
	}
	return 0, false
}

// setRedelivers records that messages below a sequence may be acknowledged, though they are
// delivered.
func (c *consumer) setRedelivers(below uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settled = below
}

func (c *consumer) redeliversBelow() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.settled
}

// risk returns the settings of a reader's stream that can lose events; nil if none can.
func risk(reader eventing.Reader) error {
	if r, ok := reader.(interface{ Risk() error }); ok {
		return r.Risk()
	}
	return nil
}

// reportRisk logs that settings of the stream can lose events, once until they change.
func (c *consumer) reportRisk(ctx context.Context, reader eventing.Reader) {
	text := ""
	if err := risk(reader); err != nil {
		text = err.Error()
	}
	if text != "" && text != c.checkpoint.risk {
		c.source.cfg.Logger.LogAttrs(ctx, slog.LevelError, "a setting of the stream can lose events; the source keeps reading, but is not ready: change the setting",
			slog.String("stream", c.stream.Name()), slog.String("err", text))
	}
	c.checkpoint.risk = text
}

// fetch reads a message with its payload from the stream.
func (c *consumer) fetch(ctx context.Context, m eventing.Message) (eventing.Message, error) {
	reader := c.currentReader()
	if reader == nil {
		return nil, fmt.Errorf("fetch message %d: %w", m.Sequence(), c.ready())
	}
	ctx, cancel := context.WithTimeout(ctx, saveTimeout)
	defer cancel()
	return reader.Fetch(ctx, m)
}

// opened sets the consumer's reader.
func (c *consumer) opened(ctx context.Context, reader eventing.Reader, horizon uint64, attempts *attemptsOf, reopen context.CancelFunc) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.epoch != "" && c.epoch != reader.Epoch() {
		lost := c.lostWithStream()
		c.source.cfg.Metrics.vanishedSome(ctx, lost)
		c.source.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "stream was deleted and recreated; reading it from its beginning; unfinished messages of the old stream are lost for this cluster: publish them again",
			slog.String("stream", c.stream.Name()), slog.Uint64("messages", lost), slog.String("epoch", reader.Epoch()), slog.String("epoch_before", c.epoch))
		c.partition.Abandon()
		c.floor, c.unread, c.settled = 0, 0, 0
	}
	c.partition.Opened()
	c.reader, c.epoch, c.place, c.err, c.reopen = reader, reader.Epoch(), reader.Origin(), nil, reopen
	c.horizon, c.below, c.attempts = horizon, false, attempts
}

// lostWithStream returns the known number of unfinished messages of a deleted stream: in
// flight, failing, and not received. It is called with the lock held.
func (c *consumer) lostWithStream() uint64 {
	_, inFlight := c.partition.Has(0)
	failing := c.attempts.sequences(func(sequence uint64) bool {
		has, _ := c.partition.Has(sequence)
		return !has
	})
	return uint64(inFlight+len(failing)) + c.unread
}

// noteReceived records that a message was received.
func (c *consumer) noteReceived(sequence uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if sequence >= c.head && c.unread > 0 {
		c.unread--
	}
}

// notePosition records the consumer's position in the stream.
func (c *consumer) notePosition(p eventing.Position) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.floor, c.head, c.unread = p.Floor, p.Head, p.Pending
}

// latestFloor returns the floor of the latest position.
func (c *consumer) latestFloor() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.floor
}

// reopenStream closes the reader, so that the stream is opened again.
func (c *consumer) reopenStream() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reopen != nil {
		c.reopen()
	}
}

// setTruncated records whether the stream diverges from the messages that were
// delivered.
func (c *consumer) setTruncated(truncated bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.truncated = truncated
}

func (c *consumer) isTruncated() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.truncated
}

func (c *consumer) closed(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reader, c.err = nil, err
}

// currentReader returns the open reader; nil if there is none.
func (c *consumer) currentReader() eventing.Reader {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reader
}

// ready returns why the stream cannot be read; nil if it can.
func (c *consumer) ready() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.reader != nil:
		return risk(c.reader)
	case c.err != nil:
		return fmt.Errorf("read stream %s: %w", c.stream.Name(), c.err)
	default:
		return fmt.Errorf("read stream %s: not open yet", c.stream.Name())
	}
}
