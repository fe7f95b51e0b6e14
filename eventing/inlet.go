package eventing

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// inlet is one stream of a [Source]: it keeps it open and pulls from it.
type inlet struct {
	stream Stream
	outage *outage
	limit  int

	mu     sync.Mutex
	reader Reader  // nil while it is not open
	epoch  string  // of the reader that was open last
	window *window // of that epoch
	err    error   // why it is not open
}

// delivered is a message on its way to a worker.
type delivered struct {
	message Message
	window  *window
}

// run pulls messages into queue until ctx ends.
func (in *inlet) run(ctx context.Context, queue chan<- delivered) {
	wait := patience{base: 200 * time.Millisecond, limit: 2 * time.Second}
	for {
		flowed, err := in.follow(ctx, queue)
		if ctx.Err() != nil {
			return // still open, for the last acknowledgements
		}
		in.closed(err)
		in.outage.failed(ctx, err)
		if flowed {
			wait.next = nil
		}
		if !sleep(ctx, &wait) {
			return
		}
	}
}

// follow opens the stream and pulls from it until that fails or ctx ends. It
// reports whether anything went well before.
func (in *inlet) follow(ctx context.Context, queue chan<- delivered) (flowed bool, err error) {
	reader, err := in.stream.Open(ctx)
	if err != nil {
		return false, err
	}
	window := in.opened(ctx, reader)
	for {
		// Half a window at a time: with one message at a time each would cost a
		// request. What is being delivered never fills more than half.
		room := window.room(ctx, in.limit/2)
		if ctx.Err() != nil {
			return flowed, ctx.Err()
		}
		err := reader.Pull(ctx, room, func(m Message) {
			if !flowed {
				flowed = true
				in.outage.succeeded(ctx)
			}
			if window.take(m) {
				queue <- delivered{message: m, window: window}
			}
		})
		if err != nil {
			return flowed, err
		}
		if !flowed {
			flowed = true
			in.outage.succeeded(ctx)
		}
	}
}

// opened makes reader the inlet's and gives the window for its messages.
func (in *inlet) opened(ctx context.Context, reader Reader) *window {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.window != nil && in.epoch != reader.Epoch() {
		in.outage.logger.LogAttrs(ctx, slog.LevelWarn, "stream is another one than before, reading it from its beginning",
			slog.String("stream", in.stream.Name()), slog.String("epoch", reader.Epoch()), slog.String("epoch_before", in.epoch))
		in.window.abandon()
		in.window = nil
	}
	if in.window == nil {
		in.window = newWindow(in.limit)
	}
	in.reader, in.epoch, in.err = reader, reader.Epoch(), nil
	return in.window
}

func (in *inlet) closed(err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.reader, in.err = nil, err
}

// current is the open reader and its window; nil while there is none.
func (in *inlet) current() (Reader, *window) {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.reader, in.window
}

// ready reports why the stream cannot be read.
func (in *inlet) ready() error {
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
