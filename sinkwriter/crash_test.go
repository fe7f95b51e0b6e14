package sinkwriter_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tandem-fn/tandem/eventing/devcluster/link"
	"github.com/tandem-fn/tandem/eventing/devcluster/pgtest"
	"github.com/tandem-fn/tandem/eventing/devcluster/sinktest"
	"github.com/tandem-fn/tandem/sinkwriter"
	"github.com/tandem-fn/tandem/sinkwriter/internal/crash"
	"github.com/tandem-fn/tandem/sinkwriter/schema"
)

const (
	// heldUp bounds a Commit of the other cluster, so that the test ends. Reaching it
	// fails the test: a writer that hangs, and that the claim timeout does not end,
	// holds its locks until the Commit has returned.
	heldUp = 2 * time.Minute

	megabyte = 1 << 20
)

// helper is a process that commits in cluster east and can be paused or killed.
type helper struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	answers chan string
}

// buildHelper compiles the program. It exists until the test ends.
func buildHelper(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "writer")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "./internal/crash/writer").CombinedOutput()
	if err != nil {
		t.Fatalf("build the program that is killed: %v\n%s", err, out)
	}
	return program
}

func startHelper(t *testing.T, program, databaseURL string, claimTimeout time.Duration) *helper {
	t.Helper()
	h := &helper{cmd: exec.Command(program, "-url", databaseURL, "-claim-timeout", claimTimeout.String()), answers: make(chan string, 100)} //nolint:noctx // it is killed below
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	h.cmd.Stderr = t.Output()
	var err error
	if h.in, err = h.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := h.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := h.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			h.answers <- lines.Text()
		}
	}()
	t.Cleanup(func() {
		_ = h.cmd.Process.Kill() // even if it is paused
		<-read
		_ = h.cmd.Wait()
	})
	return h
}

func (h *helper) offer(t *testing.T, id string, size int, flood bool) {
	t.Helper()
	if _, err := fmt.Fprintln(h.in, id, size, flood); err != nil {
		t.Errorf("tell the helper: %v", err)
	}
}

func (h *helper) signal(s syscall.Signal) { _ = h.cmd.Process.Signal(s) }

// wants reads an answer and fails the test unless it is one of answers.
func (h *helper) wants(t *testing.T, answers ...string) {
	t.Helper()
	select {
	case got := <-h.answers:
		if !slices.Contains(answers, got) {
			t.Errorf("the helper answered %q, want one of %q", got, answers)
		}
	case <-time.After(heldUp):
		t.Errorf("the helper did not answer, want one of %q", answers)
		h.signal(syscall.SIGQUIT) // it prints its goroutines
		time.Sleep(time.Second)
	}
}

// place is the point in its work at which a writer is paused, killed or cut off.
type place struct {
	name string
	size int
	meet func(*message) (bytes int, met bool)

	// committed: the transaction is committed, but its writer has no answer.
	committed bool

	// claimTimeout is the helper's: how long it waits for a lock, and how long it may
	// pause between two messages. Zero means the default.
	claimTimeout time.Duration
}

const (
	claimPart  = "insert into tandem.ledger"
	entryPart  = "insert into \"entries\""
	totalPart  = "insert into \"totals\""
	outboxPart = "insert into tandem.outbox"
)

func places() []place {
	// The transactions that look up tables have a COMMIT, too.
	afterOutbox := func(m *message) bool {
		return slices.ContainsFunc(m.pending, func(sql string) bool { return strings.Contains(sql, outboxPart) })
	}
	asksFor := func(part string) func(*message) (int, bool) {
		return func(m *message) (int, bool) {
			return 0, !m.fromServer && m.kind == 'B' && strings.Contains(m.sql, part)
		}
	}
	return []place{
		{name: "before the claim is sent", size: 10, meet: asksFor(claimPart)},
		{name: "before the claim's answer", size: 10, meet: func(m *message) (int, bool) {
			return 0, m.fromServer && m.asked(claimPart)
		}},
		{name: "between claim and apply", size: 10, meet: func(m *message) (int, bool) {
			// The first message of the statement: parse or bind.
			return 0, !m.fromServer && (m.kind == 'P' || m.kind == 'B') && strings.Contains(m.sql+string(m.text), entryPart)
		}},
		{name: "in the middle of sending 1 MiB", size: megabyte, meet: func(m *message) (int, bool) {
			return len(m.text) / 2, !m.fromServer && len(m.text) > megabyte
		}},
		{name: "in the middle of apply", size: megabyte, meet: asksFor(totalPart)},
		{name: "before the outbox", size: 10, meet: asksFor(outboxPart)},
		{name: "before COMMIT is sent", size: 10, meet: func(m *message) (int, bool) {
			return 0, !m.fromServer && m.kind == 'B' && m.sql == "commit" && afterOutbox(m)
		}},
		{name: "before COMMIT's answer", size: 10, committed: true, meet: func(m *message) (int, bool) {
			return 0, m.fromServer && m.kind == 'C' && strings.HasPrefix(string(m.text[5:]), "COMMIT") && afterOutbox(m)
		}},
	}
}

// Invariants I1, I4 and I5.
func TestAWriterThatIsStoppedKilledOrCutOffHoldsUpNobody(t *testing.T) {
	t.Parallel()
	program := buildHelper(t)
	for _, fate := range []string{"stopped", "killed", "cut off"} {
		t.Run(fate, func(t *testing.T) {
			t.Parallel()
			db := newStageDatabase(t)
			for _, p := range places() {
				t.Run(p.name, func(t *testing.T) { meetFate(t, newStage(t, program, db, p, fate), p, fate) })
			}
		})
	}
}

func meetFate(t *testing.T, s *stage, p place, fate string) {
	t.Helper()
	offered := time.Now()
	s.east.offer(t, "e-1", p.size, false)
	s.waitUntilMet(t)

	took, won := s.commitInWest(t, p.size, "e-1", "e-2")
	t.Logf("%s %s: the other cluster went on after %s", fate, p.name, took.Round(time.Millisecond))
	if won && p.committed || !won && !p.committed && fate != "cut off" {
		t.Errorf("the other cluster won: %t", won)
	}
	switch {
	case fate == "killed":
	case fate == "stopped" && p.committed, fate == "cut off" && !p.committed && !won: // it continued in time
		s.goOn()
		answers := []string{"e-1 won"}
		if time.Since(offered) > crash.CommitTimeout { // it may have given up a COMMIT, and then found its own claim
			answers = append(answers, "e-1 lost")
		}
		s.east.wants(t, answers...)
	default: // after a cut, whether it won is unknown
		s.goOn()
		s.east.wants(t, "e-1 lost")
	}
	s.totals(t, 2)
}

// stage is a database, a helper that is paused, killed or cut off, and a
// writer of the other cluster with a direct connection to the database.
type stage struct {
	url  string
	pool *pgxpool.Pool
	east *helper
	west *sinkwriter.Writer

	met chan struct{} // closed when that has happened

	mu     sync.Mutex
	at     time.Time // the time at which it happened
	frozen []*link.Conn
}

// newStageDatabase returns the URL of a database for several stages, one after
// the other.
func newStageDatabase(t *testing.T) string {
	t.Helper()
	url := pgtest.URL(t)
	if err := schema.Migrate(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	sinktest.Execute(t, sinktest.NewPool(t, url), crash.Tables)
	return url
}

func newStage(t *testing.T, program, databaseURL string, p place, fate string) *stage {
	t.Helper()
	return newStageBehind(t, program, databaseURL, databaseURL, p, fate)
}

// newStageBehind returns a stage whose helper uses another URL of the database.
func newStageBehind(t *testing.T, program, databaseURL, helpersURL string, p place, fate string) *stage {
	t.Helper()
	s := &stage{url: databaseURL, met: make(chan struct{})}
	s.pool = sinktest.NewPool(t, s.url)
	sinktest.Execute(t, s.pool, `truncate entries, totals, tandem.ledger, tandem.outbox`)

	once := false
	way := newProxy(t, helpersURL, func(m *message) pass {
		if once {
			return pass{}
		}
		n, met := p.meet(m)
		if !met {
			return pass{}
		}
		once = true
		return pass{bytes: n, act: func(c *link.Conn) { s.meet(c, fate) }}
	})
	s.east = startHelper(t, program, way.url, p.claimTimeout)
	s.west = sinktest.NewWriter(t, s.pool, sinkwriter.Config{Cluster: "west"})
	// Open the connections and load the tables before anything is measured.
	if _, err := s.west.Commit(t.Context(), crash.Offer("warm", 1, false)); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *stage) meet(c *link.Conn, fate string) {
	switch fate {
	case "stopped":
		c.Freeze()
		s.east.signal(syscall.SIGSTOP)
	case "killed":
		s.east.signal(syscall.SIGKILL)
		c.Cut()
	case "cut off":
		c.Cut()
	}
	s.mu.Lock()
	s.frozen = append(s.frozen, c)
	s.mu.Unlock()
	s.begin()
	close(s.met)
}

// begin starts the clock.
func (s *stage) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at = time.Now()
}

func (s *stage) since() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Since(s.at)
}

func (s *stage) waitUntilMet(t *testing.T) {
	t.Helper()
	select {
	case <-s.met:
	case <-time.After(heldUp):
		t.Fatal("the helper never came to the place")
	}
}

// goOn resumes the helper.
func (s *stage) goOn() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.frozen {
		c.Thaw()
	}
	s.east.signal(syscall.SIGCONT)
}

// commitInWest offers the events at once. It returns how long after the
// helper's fate the last of them was committed, and whether the first of them
// was won.
func (s *stage) commitInWest(t *testing.T, size int, ids ...string) (took time.Duration, won bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), heldUp)
	defer cancel()
	var all sync.WaitGroup
	for i, id := range ids {
		all.Go(func() {
			r, err := s.west.Commit(ctx, crash.Offer(id, size, false))
			if err != nil || r.Diverged {
				t.Errorf("event %s in the other cluster: %+v, %v", id, r, err)
			}
			if i == 0 {
				won = r.Won
			}
		})
	}
	all.Wait()
	return s.since(), won
}

// totals checks that the tables contain exactly events events, in addition
// to the warm-up.
func (s *stage) totals(t *testing.T, events int) {
	t.Helper()
	got := sinktest.Query[string](t, s.pool, `select format('%s entries, total %s, %s in the ledger, %s outputs',
(select count(*) from entries), (select n from totals), (select count(*) from tandem.ledger), (select sum(json_array_length(events::json)) from tandem.outbox))`)
	n := events + 1
	if want := fmt.Sprintf("%d entries, total %d, %d in the ledger, %d outputs", n, n, n, n); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// The other cluster may have started to wait before the helper stopped. Then the session that
// blocks it is overdue only after its first wait has timed out, or a later one.
func TestAWaiterThatWasThereBeforeTheStopGoesOnToo(t *testing.T) {
	t.Parallel()
	program := buildHelper(t)
	db := newStageDatabase(t)
	pool := sinktest.NewPool(t, db)
	const claimTimeout, before = 2 * time.Second, 700 * time.Millisecond
	claimed := make(chan struct{})
	claim := sync.OnceFunc(func() {
		close(claimed)
		for n, begin := 0, time.Now(); n == 0 && time.Since(begin) < 5*time.Second; { // the server ends it after 10 s
			_ = pool.QueryRow(t.Context(), lockWaitersSQL).Scan(&n)
		}
		time.Sleep(before)
	})
	p := place{size: megabyte, claimTimeout: 10 * time.Second, meet: func(m *message) (int, bool) {
		switch {
		case m.fromServer:
		case m.kind == 'P' && bytes.Contains(m.text, []byte(entryPart)):
			claim()
		case m.kind == 'B' && strings.Contains(m.sql, entryPart):
			return len(m.text) / 2, true
		}
		return 0, false
	}}
	s := newStage(t, program, db, p, "stopped")
	var log logLines
	s.west = sinktest.NewWriter(t, sinktest.NewPool(t, db), sinkwriter.Config{Cluster: "west", ClaimTimeout: claimTimeout, Logger: log.logger(t)})
	s.east.offer(t, "e-1", p.size, false)
	select {
	case <-claimed:
	case <-time.After(heldUp):
		t.Fatal("the helper did not claim")
	}
	took, won := s.commitInWest(t, p.size, "e-1")
	if !won || len(log.find(t, "ended a session")) == 0 {
		t.Errorf("the other cluster won: %t; it ended %v", won, log.find(t, "ended a session"))
	}
	t.Logf("the other cluster went on after %s", took.Round(time.Millisecond))
	s.goOn()
	s.east.wants(t, "e-1 lost")
	s.totals(t, 1)
}

// A server that cannot send its answer waits for its client, too.
func TestAWriterThatDoesNotReadItsAnswersHoldsUpNobody(t *testing.T) {
	t.Parallel()
	program := buildHelper(t)
	seen := 0
	s := newStage(t, program, newStageDatabase(t), place{meet: func(m *message) (int, bool) {
		if m.fromServer && m.kind == 'D' && len(m.text) > 100_000 {
			seen++
		}
		return 0, seen == 3
	}}, "stopped")
	s.east.offer(t, "e-1", 10, true)
	s.waitUntilMet(t)
	sinktest.Eventually(t, "the server waits to get rid of its answer; if not, the test needs a longer one", func() bool {
		return sinktest.Query[int](t, s.pool, `select count(*) from pg_stat_activity where datname = current_database() and wait_event = 'ClientWrite'`) > 0
	})
	s.begin()
	var all sync.WaitGroup
	ctx, cancel := context.WithTimeout(t.Context(), heldUp)
	defer cancel()
	all.Go(func() {
		if r, err := s.west.Commit(ctx, crash.Offer("e-1", 10, true)); err != nil || !r.Won {
			t.Errorf("%+v, %v", r, err)
		}
	})
	all.Wait()
	t.Logf("the other cluster went on after %s", s.since().Round(time.Millisecond))
	s.goOn()
	s.east.wants(t, "e-1 lost")
	s.totals(t, 1)
}

func TestAWriterThatWaitsForARowWhenItIsStoppedOrKilledHoldsUpNobody(t *testing.T) { //nolint:tparallel // its parts share a database, so they come one after the other
	t.Parallel()
	program := buildHelper(t)
	nowhere := place{size: 10, meet: func(*message) (int, bool) { return 0, false }}
	tests := []struct {
		name string
		// sent: COMMIT is on its way, so that the server continues without the
		// client.
		fate      string
		committed bool
		place     place
	}{
		{"stopped with COMMIT sent", "stopped", true, nowhere},
		{"killed with COMMIT sent", "killed", true, nowhere},
		{"stopped before COMMIT is sent", "stopped", false, commitPlace()},
		{"killed before COMMIT is sent", "killed", false, commitPlace()},
	}
	db := newStageDatabase(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.place.claimTimeout = 10 * time.Second // it waits until the test resumes it
			s := newStage(t, program, db, tt.place, tt.fate)
			holder := holdRow(t, s.url, `update totals set n = n`)
			s.east.offer(t, "e-1", tt.place.size, false)
			waitUntilBlocked(t, s.pool)
			if tt.committed { // no message indicates it: the session waits
				s.east.signal(map[string]syscall.Signal{"stopped": syscall.SIGSTOP, "killed": syscall.SIGKILL}[tt.fate])
				s.begin()
			} else {
				s.waitUntilMet(t)
			}
			holder() // release the row
			took, _ := s.commitInWest(t, 10, "e-1")
			t.Logf("the other cluster went on after %s", took.Round(time.Millisecond))
			if tt.fate == "stopped" {
				s.goOn()
				s.east.wants(t, "e-1 lost", "e-1 won")
			}
			s.totals(t, 1)
		})
	}
}

func commitPlace() place {
	for _, p := range places() {
		if p.name == "before COMMIT is sent" {
			return p
		}
	}
	panic("there is no such place")
}

// holdRow locks the rows of a statement in a transaction that stays active,
// so that it does not look like one that hangs. It returns a function that
// ends it.
func holdRow(t *testing.T, databaseURL, lock string) func() {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	if _, err := conn.Exec(t.Context(), `begin; `+lock); err != nil {
		t.Fatal(err)
	}
	var pid int
	if err := conn.QueryRow(t.Context(), `select pg_backend_pid()`).Scan(&pid); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = conn.Exec(context.WithoutCancel(t.Context()), `select pg_sleep(3600)`) // ends with the connection
	}()
	other := sinktest.NewPool(t, databaseURL)
	release := sync.OnceFunc(func() {
		if _, err := other.Exec(context.WithoutCancel(t.Context()), `select pg_terminate_backend($1)`, pid); err != nil {
			t.Errorf("release the row: %v", err)
		}
		<-ended
	})
	t.Cleanup(release)
	return release
}

// waitUntilBlocked returns when a session waits for a row.
func waitUntilBlocked(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	sinktest.Eventually(t, "a session waits for a lock", func() bool {
		return sinktest.Query[int](t, pool, lockWaitersSQL) > 0
	})
}

const lockWaitersSQL = `select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`
