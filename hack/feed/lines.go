package feed

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/functions/cloudevent"
)

// maxLineBytes is well above what a stream takes as one message.
const maxLineBytes = 8 << 20

// LineError says that a line of the input is no CloudEvent. What follows it can be
// read.
type LineError struct {
	Line int // counted from one
	Err  error
}

// Error gives the line's number and what is wrong with it.
func (e *LineError) Error() string { return fmt.Sprintf("line %d: %v", e.Line, e.Err) }

// Unwrap gives what is wrong.
func (e *LineError) Unwrap() error { return e.Err }

// Lines reads CloudEvents in JSON from r, one a line; empty lines do not count. In
// place of an event that is none it yields a [*LineError] and goes on; any other
// error is the last.
func Lines(r io.Reader) iter.Seq2[event.Event, error] {
	return func(yield func(event.Event, error) bool) {
		lines := bufio.NewReaderSize(r, 64<<10)
		for number := 1; ; number++ {
			line, err := readLine(lines)
			if len(line) > 0 || errors.Is(err, bufio.ErrTooLong) {
				e, bad := decodeLine(line)
				if errors.Is(err, bufio.ErrTooLong) {
					bad, err = fmt.Errorf("longer than %d MiB", maxLineBytes>>20), nil
				}
				if bad != nil {
					bad = &LineError{Line: number, Err: bad}
				}
				if !yield(e, bad) {
					return
				}
			}
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				yield(event.Event{}, fmt.Errorf("read input, line %d: %w", number, err))
				return
			}
		}
	}
}

// readLine reads one line without white space around it. With bufio.ErrTooLong the
// line has been read over.
func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	tooLong := false
	for {
		part, err := r.ReadSlice('\n')
		if len(line)+len(part) > maxLineBytes {
			tooLong, line = true, nil
		}
		if !tooLong {
			line = append(line, part...)
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if tooLong && (err == nil || errors.Is(err, io.EOF)) {
			return nil, bufio.ErrTooLong // at the end of the file the next call says so
		}
		return bytes.TrimSpace(line), err
	}
}

func decodeLine(line []byte) (event.Event, error) {
	if len(line) == 0 {
		return event.Event{}, nil
	}
	return cloudevent.ReadJSON(line, cloudevent.Rules{})
}
