package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"unicode/utf8"
)

// screen shows the status in place on a terminal, and line by line otherwise. It
// is safe for concurrent use. After a write has failed, for example to a closed
// pipe, it writes nothing more and signals that on broken.
type screen struct {
	terminal bool
	width    func() int // of the terminal, in columns

	mu     sync.Mutex
	out    io.Writer
	drawn  int // number of status lines that are currently on the terminal
	last   []string
	failed bool
	broken chan struct{}
}

func newScreen(out io.Writer, terminal bool, width func() int) *screen {
	return &screen{out: out, terminal: terminal, width: width, broken: make(chan struct{})}
}

// say prints a permanent line, above the status.
func (s *screen) say(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.write(s.erase() + fmt.Sprintf(format, args...) + "\n")
	s.draw(s.last)
}

// show prints the status, over the previous one if possible.
func (s *screen) show(st status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.terminal {
		s.write(st.line() + "\n")
		return
	}
	s.write(s.erase())
	s.draw(st.table())
}

// leave keeps the last status on the terminal.
func (s *screen) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drawn, s.last = 0, nil
}

func (s *screen) erase() string {
	if s.drawn == 0 {
		return ""
	}
	up := fmt.Sprintf("\x1b[%dA\r\x1b[J", s.drawn)
	s.drawn = 0
	return up
}

// draw prints the status. It truncates lines that would wrap, because the next
// draw must find the start of this one.
func (s *screen) draw(lines []string) {
	if len(lines) == 0 {
		return
	}
	width := s.width()
	var b strings.Builder
	for _, line := range lines {
		if width > 0 && utf8.RuneCountInString(line) > width {
			line = string([]rune(line)[:width])
		}
		b.WriteString(line + "\n")
	}
	s.write(b.String())
	s.drawn, s.last = len(lines), lines
}

func (s *screen) write(text string) {
	if s.failed || text == "" {
		return
	}
	if _, err := io.WriteString(s.out, text); err != nil {
		s.failed = true
		close(s.broken)
	}
}
