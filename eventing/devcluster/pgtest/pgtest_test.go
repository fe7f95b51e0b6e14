package pgtest_test

import (
	"context"
	"os"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/tandem-fn/tandem/eventing/devcluster/pgtest"
)

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	return conn
}

func query[T any](t *testing.T, conn *pgx.Conn, sql string) T {
	t.Helper()
	var v T
	if err := conn.QueryRow(t.Context(), sql).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

func TestEachTestGetsItsOwnDatabaseAndRole(t *testing.T) {
	t.Parallel()

	one, two := connect(t, pgtest.URL(t)), connect(t, pgtest.URL(t))
	if a, b := query[string](t, one, "select current_database()"), query[string](t, two, "select current_database()"); a == b {
		t.Errorf("both are in database %s", a)
	}
	if a, b := query[string](t, one, "select current_user"), query[string](t, two, "select current_user"); a == b {
		t.Errorf("both are role %s", a)
	}
	if query[string](t, one, "select current_setting('is_superuser')") != "off" {
		t.Error("the role is a superuser: a missing grant would not show")
	}
	if _, err := one.Exec(t.Context(), "create schema tandem; create table tandem.a (b int); create table c (d int)"); err != nil {
		t.Errorf("the role does not own its database: %v", err)
	}
}

func TestDatabaseIsDroppedWithItsTest(t *testing.T) {
	t.Parallel()

	var name string
	witness := connect(t, pgtest.URL(t))
	t.Cleanup(func() { // after the database that is created below was dropped
		ctx := context.WithoutCancel(t.Context())
		var there bool
		err := witness.QueryRow(ctx, "select exists (select from pg_database where datname = $1) or exists (select from pg_roles where rolname = $1)", name).Scan(&there)
		if err != nil {
			t.Error(err)
		}
		if there {
			t.Errorf("database or role %s is still there", name)
		}
	})
	name = query[string](t, connect(t, pgtest.URL(t)), "select current_database()")
}

func TestCopiesAreBuiltOnceAndAreApart(t *testing.T) {
	t.Parallel()

	built := 0
	build := func(ctx context.Context, url string) error {
		built++
		conn, err := pgx.Connect(ctx, url)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close(ctx) }()
		_, err = conn.Exec(ctx, "create schema s; create table s.a (b int); create table p (q int); insert into p values (1)")
		return err
	}
	for range 3 {
		conn := connect(t, pgtest.Copy(t, "copies", build))
		// Only an owner may alter.
		if _, err := conn.Exec(t.Context(), "alter table s.a add column c int; alter schema s rename to z; delete from p"); err != nil {
			t.Fatalf("the copy is not the test's own: %v", err)
		}
	}
	if built != 1 {
		t.Errorf("built %d times, want 1", built)
	}
}

func TestServerOfOnesOwnSurvivesACrash(t *testing.T) {
	t.Parallel()

	server := pgtest.Server(t)
	if _, err := connect(t, server.URL()).Exec(t.Context(), "create table a (b int); insert into a values (7)"); err != nil {
		t.Fatal(err)
	}
	if err := server.Crash(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := query[int](t, connect(t, server.URL()), "select b from a"); got != 7 {
		t.Errorf("the row is %d after the crash, want 7", got)
	}
	if info, err := os.Stat(server.DataDir()); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("data folder: mode %v, err %v; want 0700", info.Mode(), err)
	}
}

func TestWhatTheStandbyHasNotGotIsLostWithThePrimary(t *testing.T) {
	t.Parallel()

	r := pgtest.Replicated(t)
	url := r.URL()
	ctx := t.Context()
	insert := func(n int) {
		t.Helper()
		if _, err := connect(t, url).Exec(ctx, "insert into a values ($1)", n); err != nil {
			t.Fatal(err)
		}
	}
	do := func(step func(context.Context) error) {
		t.Helper()
		if err := step(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := connect(t, url).Exec(ctx, "create table a (b int)"); err != nil {
		t.Fatal(err)
	}
	insert(1)
	do(r.StopReplication)
	insert(2)
	do(r.ResumeReplication)
	do(r.CatchUp)
	do(r.StopReplication)
	insert(4)
	r.LosePrimary()
	do(r.Promote)
	if got := query[int](t, connect(t, url), "select sum(b) from a"); got != 3 {
		t.Errorf("after the failover the sum is %d, want 3: what came before replication stopped", got)
	}

	insert(8)
	do(r.Rejoin)
	do(r.CatchUp)
	insert(16)
	do(r.StopReplication)
	r.LosePrimary()
	do(r.Promote)
	if r.URL() != url {
		t.Errorf("the URL is %s after the failback, and was %s", r.URL(), url)
	}
	if got := query[int](t, connect(t, url), "select sum(b) from a"); got&^16 != 11 {
		t.Errorf("after the failback the sum is %d, want 11, or 27 if the last one was sent", got)
	}
}
