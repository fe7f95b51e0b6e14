package source

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// Describe returns the state of a source: of its streams, and of its in-flight table. A test that
// fails prints it.
func (s *Source) Describe() string {
	var b strings.Builder
	for _, c := range s.consumers.current() {
		c.mu.Lock()
		fmt.Fprintf(&b, "stream %s: open=%t err=%v truncated=%t floor=%d head=%d unread=%d settled=%d", c.stream.Name(), c.reader != nil, c.err, c.truncated, c.floor, c.head, c.unread, c.settled)
		reader := c.reader
		c.mu.Unlock()
		if c.checkpoint.mu.TryLock() {
			fmt.Fprintf(&b, " saved=%d stall=%+v", c.checkpoint.known.Floor, c.stall)
			c.checkpoint.mu.Unlock()
		} else {
			b.WriteString(" the checkpoint is locked")
		}
		if reader != nil {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			position, err := reader.Position(ctx)
			cancel()
			fmt.Fprintf(&b, " position=%+v err=%v", position, err)
		}
		b.WriteByte('\n')
	}
	b.WriteString(s.table.String())
	return b.String()
}
