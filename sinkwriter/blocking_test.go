package sinkwriter_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tandem-fn/tandem/eventing/devcluster/pgtest"
	"github.com/tandem-fn/tandem/eventing/devcluster/sinktest"
	"github.com/tandem-fn/tandem/sinkwriter"
	"github.com/tandem-fn/tandem/sinkwriter/contract"
	"github.com/tandem-fn/tandem/sinkwriter/internal/mark"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
	"github.com/tandem-fn/tandem/sinkwriter/schema"
)

// logLines is a log that a test can search.
type logLines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logLines) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(line)
}

func (l *logLines) logger(t *testing.T) *slog.Logger {
	t.Helper()
	return slog.New(slog.NewJSONHandler(io.MultiWriter(l, t.Output()), &slog.HandlerOptions{Level: slog.LevelInfo}))
}

// find returns the entries whose message contains text.
func (l *logLines) find(t *testing.T, text string) (found []map[string]any) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range bytes.Split(bytes.TrimSpace(l.text.Bytes()), []byte("\n")) {
		var entry map[string]any
		if len(line) > 0 {
			if err := json.Unmarshal(line, &entry); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
		}
		if message, _ := entry["msg"].(string); strings.Contains(message, text) {
			found = append(found, entry)
		}
	}
	return found
}

// psql starts a session of a person or of another application.
func psql(t *testing.T, databaseURL, application string, statements ...string) *pgx.Conn {
	t.Helper()
	config, err := pgx.ParseConfig(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	config.RuntimeParams["application_name"] = application
	conn, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	for _, sql := range statements {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	return conn
}

func backend(t *testing.T, conn *pgx.Conn) int {
	t.Helper()
	var pid int
	if err := conn.QueryRow(t.Context(), `select pg_backend_pid()`).Scan(&pid); err != nil {
		t.Fatal(err)
	}
	return pid
}

// copying starts a \copy that waits for its input.
func copying(t *testing.T, databaseURL, table string) (finish func() error) {
	t.Helper()
	conn := psql(t, databaseURL, "psql")
	pid := backend(t, conn)
	in, input := io.Pipe()
	t.Cleanup(func() { _ = input.Close() })
	done := make(chan error, 1)
	go func() {
		_, err := conn.PgConn().CopyFrom(context.WithoutCancel(t.Context()), in, "copy "+table+" from stdin")
		done <- err
	}()
	if _, err := io.WriteString(input, "1\n"); err != nil {
		t.Fatal(err)
	}
	pool := sinktest.NewPool(t, databaseURL)
	sinktest.Eventually(t, "COPY waits for its input", func() bool {
		return sinktest.Query[bool](t, pool, `select exists (select from pg_stat_activity where pid = $1 and wait_event = 'ClientRead' and query ilike 'copy%')`, pid)
	})
	return func() error {
		_ = input.Close()
		select {
		case err := <-done:
			return err
		case <-time.After(heldUp):
			return context.DeadlineExceeded
		}
	}
}

// blockedFor waits until a writer has been blocked for that many claim timeouts.
func blockedFor(t *testing.T, w *sinkwriter.Writer, timeouts int64) {
	t.Helper()
	before := w.Stats().Retries
	sinktest.Eventually(t, "the writer waits for the lock again and again", func() bool { return w.Stats().Retries >= before+timeouts })
}

// Sessions of people and of other applications may hold locks for any time, even under
// the writer's role.
func TestSessionsThatAreNotTandemsAreNeverEnded(t *testing.T) {
	t.Parallel()
	pool := sinktest.NewDatabase(t)
	db := pool.Config().ConnString()
	sinktest.Execute(t, pool, `create table notes (n int); insert into totals values ('north', 0, 0), ('south', 0, 0)`)
	idle := psql(t, db, "psql", "begin", "insert into notes values (1)")
	finishCopy := copying(t, db, "notes")
	operator := psql(t, db, "an operator's psql", "begin", "update totals set orders = orders where region = 'north'")
	holder := backend(t, operator)
	var log logLines
	w := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east", Logger: log.logger(t)})

	ctx, cancel := context.WithTimeout(t.Context(), heldUp)
	defer cancel()
	done := commitBeside(ctx, w, sinktest.Order("north", 1))
	blockedFor(t, w, 4)
	south := sinktest.Order("south", 1)
	south.Effects.Writes[1].Key["region"] = "south"
	if r, err := w.Commit(ctx, south); err != nil || !r.Won {
		t.Errorf("an event that needs another row: %+v, %v", r, err)
	}
	sinktest.Eventually(t, "the session that is waited for is logged", func() bool { return len(log.find(t, "waiting for a lock")) > 0 })
	entries := log.find(t, "waiting for a lock")
	if pid, _ := entries[0]["pid"].(float64); int(pid) != holder || entries[0]["application_name"] != "an operator's psql" || len(entries) > 1 {
		t.Errorf("logged %v, want pid %d once", entries, holder)
	}
	if ended := log.find(t, "ended a session"); len(ended) > 0 {
		t.Errorf("logged %v", ended)
	}
	for name, conn := range map[string]*pgx.Conn{"an idle transaction that blocks nobody": idle, "the operator's": operator} {
		if _, err := conn.Exec(t.Context(), "commit"); err != nil {
			t.Errorf("%s was ended: %v", name, err)
		}
	}
	if err := finishCopy(); err != nil {
		t.Errorf("COPY was ended: %v", err)
	}
	if err := <-done; err != nil {
		t.Errorf("once the row is free: %v", err)
	}
}

// twoWriters returns pools of two roles that may write to the same tables, and the role that
// migrates, which is not a superuser.
func twoWriters(t *testing.T) (owner string, one, two *pgxpool.Pool) {
	t.Helper()
	owner = pgtest.URL(t)
	set := schema.MigrationSet{Name: "orders", Files: fstest.MapFS{"0001_orders.sql": {Data: []byte(sinktest.TablesSQL)}}}
	if err := schema.Migrate(t.Context(), owner, set); err != nil {
		t.Fatal(err)
	}
	var pools []*pgxpool.Pool
	for range 2 {
		role := pgtest.Role(t, owner)
		if _, err := schema.Grant(t.Context(), owner, roleOf(t, role)); err != nil {
			t.Fatal(err)
		}
		pools = append(pools, sinktest.NewPool(t, role))
	}
	return owner, pools[0], pools[1]
}

func roleOf(t *testing.T, databaseURL string) string {
	t.Helper()
	u, err := url.Parse(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	return u.User.Username()
}

// hang claims the event of an order and then pauses until ended is called. ended reports
// whether the session was ended meanwhile. The server itself would end it after a minute.
func hang(t *testing.T, pool *pgxpool.Pool, id string) (ended func() bool) {
	t.Helper()
	w := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "hanging", ClaimTimeout: 10 * time.Second})
	hangs, goOn, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		_, err := w.Once(context.WithoutCancel(t.Context()), ledger.NewKey("orders", "/test", id), func(pgx.Tx) error {
			close(hangs)
			<-goOn
			return nil
		})
		done <- err
	}()
	release := sync.OnceFunc(func() { close(goOn) })
	t.Cleanup(release)
	select {
	case <-hangs:
	case <-time.After(heldUp):
		t.Fatal("it did not claim")
	}
	return func() bool {
		release()
		return <-done != nil
	}
}

// commitBeside commits an offer in the background, and returns the channel of its error.
func commitBeside(ctx context.Context, w *sinkwriter.Writer, o sinkwriter.Offer) <-chan error {
	done := make(chan error, 1)
	go func() {
		_, err := w.Commit(ctx, o)
		done <- err
	}()
	return done
}

// Two functions with different roles write to one table. The migration role may end sessions
// of both, because it is a member of both.
func TestAHangingSessionOfAnotherFunctionsRoleIsEnded(t *testing.T) {
	t.Parallel()
	owner, one, two := twoWriters(t)
	super := sinktest.NewPool(t, pgtest.SuperuserURL(t, owner))
	sinktest.Execute(t, super, `grant `+one.Config().ConnConfig.User+` to `+roleOf(t, owner))
	ended := hang(t, one, "o")
	idle := psql(t, one.Config().ConnString(), "psql", "begin", "insert into totals values ('north', 0, 0)")
	var log logLines
	w := sinktest.NewWriter(t, two, sinkwriter.Config{Cluster: "west", Logger: log.logger(t)})
	ctx, cancel := context.WithTimeout(t.Context(), heldUp)
	defer cancel()
	done := commitBeside(ctx, w, sinktest.Order("o", 1))
	sinktest.Eventually(t, "the hanging session is ended", func() bool { return len(log.find(t, "ended a session")) > 0 })
	if role := log.find(t, "ended a session")[0]["role"]; role != one.Config().ConnConfig.User {
		t.Errorf("ended was one of role %v", role)
	}
	if !ended() {
		t.Error("the one that hung could still commit")
	}
	// The writer waits for psql, which has the same role as the session that was ended.
	sinktest.Eventually(t, "it waits for the row", func() bool { return len(log.find(t, "waiting for a lock")) > 0 })
	if _, err := idle.Exec(t.Context(), "rollback"); err != nil {
		t.Errorf("a session without the mark was ended: %v", err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestARoleThatMayNotEndAHangingSessionLogsThat(t *testing.T) {
	t.Parallel()
	_, one, two := twoWriters(t)
	ended := hang(t, one, "o")
	var log logLines
	w := sinktest.NewWriter(t, two, sinkwriter.Config{Cluster: "west", Logger: log.logger(t)})
	ctx, cancel := context.WithTimeout(t.Context(), heldUp)
	defer cancel()
	done := commitBeside(ctx, w, sinktest.Order("o", 1))
	sinktest.Eventually(t, "it is logged", func() bool { return len(log.find(t, "may not end it")) > 0 })
	if entry := log.find(t, "may not end it")[0]; entry["role"] != one.Config().ConnConfig.User || entry["level"] != "ERROR" {
		t.Errorf("logged %v", entry)
	}
	ended() // by none, or by the server
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// The function that ends sessions of other roles ends only those that block its caller.
func TestARoleCannotEndOtherSessions(t *testing.T) {
	t.Parallel()
	owner, one, two := twoWriters(t)
	super := sinktest.NewPool(t, pgtest.SuperuserURL(t, owner))
	sinktest.Execute(t, super, `grant `+one.Config().ConnConfig.User+`, `+two.Config().ConnConfig.User+` to `+roleOf(t, owner))
	const marked = `select pg_advisory_xact_lock_shared(1413566020, `
	plain := psql(t, one.Config().ConnString(), "psql", "begin", "insert into totals values ('north', 0, 0)")
	own := psql(t, one.Config().ConnString(), "marked", "begin", marked+"7)", "insert into totals values ('south', 0, 0)")
	waiting := func(number, region string) (finish func()) {
		conn := psql(t, two.Config().ConnString(), "waiting", "begin", marked+number+")")
		pid := backend(t, conn)
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = conn.Exec(context.WithoutCancel(t.Context()), `insert into totals values ('`+region+`', 0, 0) on conflict do nothing`)
		}()
		sinktest.Eventually(t, "it waits", func() bool {
			return sinktest.Query[bool](t, super, `select cardinality(pg_blocking_pids($1)) > 0`, pid)
		})
		return func() { <-done }
	}
	north := waiting("1", "north")
	south := waiting("2", "south")
	call := func(pool *pgxpool.Pool, conn *pgx.Conn, number int64) *int64 {
		return sinktest.Query[*int64](t, pool, `select tandem.end_session($1, $2, 10)`, pidOf(conn), number)
	}
	for name, got := range map[string]*int64{
		"no mark":                          call(two, plain, 1),
		"blocks another transaction":       call(two, own, 1),
		"blocks no such transaction":       call(two, own, 3),
		"the transaction of another role":  call(one, own, 2),
		"its own transaction":              call(one, own, 7),
		"a transaction that is not marked": call(two, own, 0),
	} {
		if got != nil {
			t.Errorf("%s: %d", name, *got)
		}
	}
	if _, err := plain.Exec(t.Context(), "rollback"); err != nil {
		t.Error(err)
	}
	north()
	sinktest.Eventually(t, "one that the caller waits for is ended", func() bool {
		left := call(two, own, 2)
		return left != nil && *left == 0
	})
	south()
	if _, err := own.Exec(t.Context(), "rollback"); err == nil {
		t.Error("it was not ended")
	}
}

func pidOf(conn *pgx.Conn) int { return int(conn.PgConn().PID()) }

// Every transaction of Tandem that waits for a lock, and may hold others, carries
// the mark.
func TestTransactionsOfRelayAndRetentionCarryTheMark(t *testing.T) {
	t.Parallel()
	pool := sinktest.NewDatabase(t)
	db := pool.Config().ConnString()
	w := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east"})
	if _, err := w.Commit(t.Context(), sinktest.Order("o", 1)); err != nil {
		t.Fatal(err)
	}
	sinktest.Execute(t, pool, `update tandem.ledger set committed_at = now() - interval '1 day'; `)
	config := pool.Config()
	config.MaxConns = 1 // with statements that are prepared already: preparing waits for the table, too, but holds no lock
	one, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(one.Close)
	box := sinkwriter.NewOutbox(one)
	retention, err := ledger.NewRetention(pool, ledger.RetentionConfig{Keep: time.Hour, Pause: -1})
	if err != nil {
		t.Fatal(err)
	}
	// wantMark runs fn while a table is locked, and checks that fn's transaction
	// carries the mark.
	wantMark := func(what, table string, fn func() error) {
		t.Helper()
		holder := psql(t, db, "operator", "begin", "lock table "+table+" in exclusive mode")
		done := make(chan error, 1)
		go func() { done <- fn() }()
		waitUntilBlocked(t, pool)
		if n := sinktest.Query[int](t, pool, `select count(*) from pg_stat_activity a where datname = current_database() and wait_event_type = 'Lock'
			and not exists (select from pg_locks l where l.pid = a.pid and l.locktype = 'advisory' and l.classid = $1::bigint::oid and l.objsubid = 2 and l.granted)`, mark.Class); n > 0 {
			t.Errorf("%s: %d sessions wait that do not carry the mark", what, n)
		}
		if _, err := holder.Exec(t.Context(), "commit"); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	relay := func(publishing, locked chan struct{}) error {
		_, _, err := box.Relay(context.WithoutCancel(t.Context()), func(_ context.Context, events []event.Event) error {
			if publishing != nil {
				close(publishing)
				<-locked
			}
			reasons := make([]error, len(events))
			reasons[0] = errors.New("not now")
			return contract.Published(reasons)
		})
		if err != nil && !strings.Contains(err.Error(), "not now") {
			return err
		}
		return nil
	}
	overdueRows(t, pool, 2, 2)
	if err := relay(nil, nil); err != nil {
		t.Fatal(err)
	}
	sinktest.Execute(t, pool, `delete from tandem.outbox`)
	overdueRows(t, pool, 2, 2)
	wantMark("a takeover", "tandem.outbox", func() error { return relay(nil, nil) })
	sinktest.Execute(t, pool, `delete from tandem.outbox`)
	overdueRows(t, pool, 2, 2)
	publishing, locked, relayed := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() { relayed <- relay(publishing, locked) }()
	<-publishing
	wantMark("the saving of what is published", "tandem.outbox", func() error {
		close(locked)
		return <-relayed
	})
	wantMark("retention", "tandem.ledger", func() error {
		n, err := retention.Sweep(context.WithoutCancel(t.Context()))
		if n != 1 && err == nil {
			t.Errorf("forgot %d", n)
		}
		return err
	})
	wantMark("a batch", "tandem.ledger", func() error {
		_, err := w.Commit(context.WithoutCancel(t.Context()), sinktest.Order("p", 1))
		return err
	})
}

// Behind PgBouncer in transaction mode, a server connection serves one client for a
// transaction, and another one afterwards.
func TestTheMarkHoldsBehindPgbouncer(t *testing.T) {
	t.Parallel()
	pool := sinktest.NewDatabase(t)
	sinktest.Execute(t, pool, `insert into totals values ('north', 0, 0)`)
	through := startPgbouncer(t, pool.Config().ConnString(), 12)
	var log logLines
	w := sinktest.NewWriter(t, sinktest.NewPool(t, through), sinkwriter.Config{Cluster: "west", Logger: log.logger(t)})
	for _, id := range []string{"a", "b", "c"} { // its connections have carried the mark before
		if _, err := w.Commit(t.Context(), sinktest.Order(id, 1)); err != nil {
			t.Fatal(err)
		}
	}
	var people []*pgx.Conn
	for range 4 {
		people = append(people, psql(t, through, "psql", "begin", "select 1"))
	}
	people[0].Exec(t.Context(), "update totals set orders = orders") //nolint:errcheck // committed below
	ended := hang(t, sinktest.NewPool(t, through), "o")
	ctx, cancel := context.WithTimeout(t.Context(), heldUp)
	defer cancel()
	done := commitBeside(ctx, w, sinktest.Order("o", 1))
	sinktest.Eventually(t, "the hanging session is ended", func() bool { return len(log.find(t, "ended a session")) > 0 })
	sinktest.Eventually(t, "it waits for the row", func() bool { return len(log.find(t, "waiting for a lock")) > 0 })
	if !ended() {
		t.Error("the one that hung could still commit")
	}
	for _, conn := range people {
		if _, err := conn.Exec(t.Context(), "commit"); err != nil {
			t.Errorf("a session of another application was ended: %v", err)
		}
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := len(log.find(t, "ended a session")); n != 1 {
		t.Errorf("%d sessions were ended", n)
	}
}
