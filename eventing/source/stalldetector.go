package source

import (
	"context"
	"errors"
	"log/slog"

	"github.com/tandem-fn/tandem/eventing"
)

// lostLooks is how many times in a row, once a [Config.SaveInterval], nobody
// must have the message that the stream waits for. Fewer, and messages that are on
// their way are taken for lost.
const lostLooks = 10

// errReopen ends the reader of a stream, so that lost messages are redelivered.
var errReopen = errors.New("messages were lost on the way")

// stallDetector notices messages that a stream takes for handed out while nobody has them:
// those themselves were lost, or their acknowledgements, as with the leader of the
// stream. They would come again after the stream's patience, a minute and a half.
type stallDetector struct {
	floor uint64 // that the stream waits for
	looks int    // how often it was found that nobody has it
	tried uint64 // the floor for which the stream was opened again; once is enough
}

// detect reports whether the stream is to be opened again.
func (l *stallDetector) detect(p eventing.Position, held int, has bool) bool {
	if p.Floor != l.floor || has || p.Unacknowledged <= uint64(held) {
		l.floor, l.looks = p.Floor, 0
		return false
	}
	if l.looks++; l.looks < lostLooks || l.tried == l.floor {
		return false
	}
	l.tried, l.looks = l.floor, 0
	return true
}

// detectStall looks for lost messages, and has the stream opened again if there are some.
// Until it is known what was handed out before, pulling itself looks for them.
func (in *consumer) detectStall(ctx context.Context, p eventing.Position) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.table == nil || in.reader == nil {
		return
	}
	if in.source.scheduler.missing(in.table) { // a message that is not pulled yet is not lost
		in.lost.looks = 0
		return
	}
	has, held := in.table.has(p.Floor)
	_, returned := in.returned[p.Floor]
	if in.lost.detect(p, held+len(in.returned), has || returned) {
		in.source.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "messages or acknowledgements were lost; the stream redelivers them",
			slog.String("stream", in.stream.Name()), slog.Uint64("sequence", p.Floor))
		in.reopen()
	}
}
