package devcluster

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

// tail gives the last lines of a log, oldest first; none if it cannot be read.
func tail(file string) []string {
	f, err := os.Open(file)
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

// lastLine gives a log's last line, cut to what fits into a message.
func lastLine(file string) string {
	lines := tail(file)
	if len(lines) == 0 {
		return ""
	}
	return shorten(lines[len(lines)-1])
}

func shorten(s string) string {
	if len(s) > maxLineBytes {
		return strings.ToValidUTF8(s[:maxLineBytes], "") + "…"
	}
	return s
}
