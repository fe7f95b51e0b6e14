package source

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/internal/backoff"
)

const (
	// ackLooks is the number of looks at a stalled floor, one every
	// [Config.SaveInterval], after which acknowledgements are sent again; after lostLooks
	// the messages count as lost, and the stream is opened again. With lower numbers,
	// messages that are still on their way would count as lost.
	ackLooks  = 2
	lostLooks = 10
)

// errReopen ends the reader of a stream, so that lost messages are redelivered.
var errReopen = errors.New("the stream is opened again")

// stall detects that a stream waits for a message that this process does not have: the
// acknowledgement or the message itself was lost, for example with the leader of the
// stream. The stream would redeliver it only after the acknowledgement timeout.
type stall struct {
	floor    uint64 // that the stream waits for
	looks    int    // consecutive looks at which the message was missing
	reopened uint64 // the floor for which the stream was last opened again; once is enough
}

// look reports whether to send acknowledgements again, and whether to open the stream
// again.
func (l *stall) look(p eventing.Position, inFlight int, has bool) (ackAgain, reopen bool) {
	if p.Floor != l.floor || has || p.Unacknowledged <= uint64(inFlight) {
		l.floor, l.looks = p.Floor, 0
		return false, false
	}
	l.looks++
	if l.looks < lostLooks || l.reopened == l.floor {
		return l.looks >= ackLooks, false
	}
	l.reopened, l.looks = l.floor, 0
	return true, true
}

// detectStall sends lost acknowledgements again, and opens the stream again if messages
// were lost. Until all messages that were delivered before are known, pulling itself
// detects lost ones.
func (c *consumer) detectStall(ctx context.Context, p eventing.Position) {
	asked := c.source.cfg.Now().Add(-c.source.cfg.SaveInterval)
	has, inFlight := c.partition.Has(p.Floor)
	if c.partition.Incomplete() { // a message that is not pulled yet is not lost
		has = true
	}
	ackAgain, reopen := c.stall.look(p, inFlight, has)
	again := c.partition.Confirm(p.Floor, ackAgain, asked, func(m eventing.Message) { c.source.ackAtOnce(ctx, m) })
	if again > 0 {
		c.source.cfg.Logger.LogAttrs(ctx, slog.LevelDebug, "acknowledgements were lost; sending them again",
			slog.String("stream", c.stream.Name()), slog.Uint64("floor", p.Floor), slog.Int("messages", again))
	}
	if reopen {
		c.source.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "messages were lost; the stream redelivers them",
			slog.String("stream", c.stream.Name()), slog.Uint64("sequence", p.Floor))
		c.reopenStream()
	}
}

// missingMessages returns how many messages the stream has delivered that did not
// arrive; 0 if certainly none. No message may be on its way from the stream.
func (c *consumer) missingMessages(ctx context.Context, reader eventing.Reader) (int, error) {
	if below, all := redelivers(reader); all && below == 0 {
		c.partition.Complete()
		return 0, nil
	}
	const looks, pause = 3, 50 * time.Millisecond // acknowledgements may still be on their way
	for look := range looks {
		if look > 0 {
			if wait := (backoff.Backoff{Base: pause, Limit: pause}); !backoff.Sleep(ctx, &wait) {
				return 0, ctx.Err()
			}
		}
		asking, cancel := context.WithTimeout(ctx, saveTimeout)
		position, err := reader.Position(asking)
		cancel()
		if err != nil {
			return 0, err
		}
		_, known := c.partition.Has(0)
		if position.Unacknowledged <= uint64(known) {
			c.partition.Complete()
			return 0, nil
		}
		if look == looks-1 || known == 0 {
			c.source.cfg.Logger.LogAttrs(ctx, slog.LevelDebug, "waiting for messages that were delivered before, to keep their order",
				slog.String("stream", c.stream.Name()), slog.Uint64("messages", position.Unacknowledged-uint64(known)))
			return int(position.Unacknowledged - uint64(known)), nil
		}
	}
	return 0, nil
}
