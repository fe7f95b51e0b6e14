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

// maxLineBytes is well above the maximum message size of a stream.
const maxLineBytes = 8 << 20

// LineError is the error of a line that is not a CloudEvent. The lines after it
// can be read.
type LineError struct {
	Line int // counted from one
	Err  error
}

// Error returns the line's number and the cause.
func (e *LineError) Error() string { return fmt.Sprintf("line %d: %v", e.Line, e.Err) }

// Unwrap returns the cause.
func (e *LineError) Unwrap() error { return e.Err }

// Lines reads CloudEvents in JSON from r, one per line; empty lines are ignored.
// For an invalid event it yields a [*LineError] and continues; any other error is
// the last.
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

// readLine reads one line without surrounding white space. If it returns
// bufio.ErrTooLong, the line has been skipped.
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
			return nil, bufio.ErrTooLong // the next call reports the end of the file
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
