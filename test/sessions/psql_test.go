package sessions_test

import (
	"bufio"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tandem-fn/tandem/eventing/devcluster"
)

const patience = 2 * time.Minute // a busy machine takes some

// psql is one session.
type psql struct {
	name  string
	in    io.WriteCloser
	lines chan string
	asked int
	owes  bool // an answer
}

func startPsql(t *testing.T, server *devcluster.Postgres, name, url string) *psql {
	t.Helper()
	program := filepath.Join(server.BinDir(), "psql")
	if _, err := exec.LookPath(program); err != nil {
		program = "psql"
	}
	cmd := exec.CommandContext(t.Context(), program, "-X", "-q", "-P", "pager=off", url)
	cmd.Env = append(cmd.Environ(), "PGAPPNAME="+name)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, outWriter := io.Pipe()
	cmd.Stdout, cmd.Stderr = outWriter, outWriter
	if err := cmd.Start(); err != nil {
		t.Fatalf("start psql: %v: install PostgreSQL's client programs (Debian: postgresql-client)", err)
	}
	p := &psql{name: name, in: in, lines: make(chan string, 1000)}
	go func() {
		for scanner := bufio.NewScanner(out); scanner.Scan(); {
			p.lines <- scanner.Text()
		}
	}()
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
		_ = outWriter.Close()
	})
	p.ask(t, `\set QUIET off`)
	p.answer(t)
	p.ask(t, `\set VERBOSITY terse`)
	p.answer(t)
	return p
}

func (p *psql) ask(t *testing.T, sql string) {
	t.Helper()
	if p.owes {
		t.Fatalf("%s is asked for %s and still waits", p.name, sql)
	}
	p.asked++
	p.owes = true
	if _, err := fmt.Fprintf(p.in, "%s\n\\echo %s\n", sql, p.mark()); err != nil {
		t.Fatal(err)
	}
}

func (p *psql) mark() string { return fmt.Sprintf("answer %d ends", p.asked) }

// answer returns the lines of an answer that are not empty.
func (p *psql) answer(t *testing.T) []string {
	t.Helper()
	p.owes = false
	var lines []string
	timeout := time.After(patience)
	for {
		select {
		case line := <-p.lines:
			if line == p.mark() {
				return lines
			}
			if line = strings.TrimRight(line, " "); line != "" {
				lines = append(lines, line)
			}
		case <-timeout:
			t.Fatalf("%s has no answer after %s, but %q", p.name, patience, lines)
		}
	}
}

// awaitLock waits until the session waits for a lock.
func (p *psql) awaitLock(t *testing.T, admin *pgx.Conn) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		var waits bool
		if err := admin.QueryRow(t.Context(), `select coalesce(bool_or(wait_event_type = 'Lock'), false) from pg_stat_activity where application_name = $1`, p.name).Scan(&waits); err != nil {
			t.Fatal(err)
		}
		if waits {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not wait for a lock", p.name)
		}
	}
}
