package supervisor

import (
	"bytes"
	"io"
	"os"
	"strings"
)

const (
	tailBytes    = 16 << 10
	maxLineBytes = 400
)

// LogTail returns the last lines of the log, oldest first; none if it cannot be read.
func (p *Process) LogTail() []string {
	f, err := os.Open(p.log)
	if err != nil {
		return nil
	}
	defer func() { _ = f.Close() }()
	if info, err := f.Stat(); err == nil && info.Size() > tailBytes {
		if _, err := f.Seek(-tailBytes, io.SeekEnd); err != nil {
			return nil
		}
	}
	data, err := io.ReadAll(io.LimitReader(f, tailBytes))
	if err != nil {
		return nil
	}
	var lines []string
	for line := range bytes.Lines(data) {
		if s := strings.TrimSpace(string(line)); s != "" {
			lines = append(lines, s)
		}
	}
	return lines
}

// LastLine returns the last line of the log, shortened to the length of a message.
func (p *Process) LastLine() string {
	lines := p.LogTail()
	if len(lines) == 0 {
		return ""
	}
	return Shorten(lines[len(lines)-1])
}

// Shorten shortens a line to the length of a message.
func Shorten(s string) string {
	if len(s) > maxLineBytes {
		return strings.ToValidUTF8(s[:maxLineBytes], "") + "…"
	}
	return s
}
