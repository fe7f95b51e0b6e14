package sinkwriter

import (
	"context"
	"fmt"
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"go/types"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tandem-fn/tandem/eventing/devcluster/pgtest"
	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/sinkwriter/contract"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
	"github.com/tandem-fn/tandem/sinkwriter/schema"
)

// statements returns every SQL constant of this package, of ledger and of schema,
// by name.
func statements(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, dir := range []string{".", "ledger", "lease", "deadletter", "deferred", "retire", "schema"} {
		files := token.NewFileSet()
		names, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		var parsed []*ast.File
		for _, name := range names {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(files, name, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			parsed = append(parsed, f)
		}
		info := &types.Info{Defs: map[*ast.Ident]types.Object{}}
		config := types.Config{Error: func(error) {}} // constants need no imports
		_, _ = config.Check(dir, files, parsed, info)
		for _, object := range info.Defs {
			if c, ok := object.(*types.Const); ok && strings.HasSuffix(c.Name(), "SQL") {
				if all[c.Name()] != "" {
					t.Fatalf("%s is the name of two statements", c.Name())
				}
				all[c.Name()] = constant.StringVal(c.Val())
			}
		}
	}
	for _, name := range []string{"claimSQL", "divergedSQL", "blockingSQL", "takeoverSQL", "backlogSQL", "tableSQL"} {
		if all[name] == "" {
			t.Fatalf("%s is not among the %d constants that were found", name, len(all))
		}
	}
	return all
}

// migrated returns a connection to a new database with our schema.
func migrated(t *testing.T) *pgx.Conn {
	t.Helper()
	url := pgtest.URL(t)
	if err := schema.Migrate(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	return connect(t, url)
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	return conn
}

func execIn(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.PgConn().Exec(t.Context(), sql).ReadAll(); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func TestEveryStatementFitsTheMigratedSchema(t *testing.T) {
	t.Parallel()
	conn := migrated(t)
	all := statements(t)
	for name, sql := range all {
		if strings.Contains(sql, ";") { // several statements: they have no parameters
			tx, err := conn.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tx.Exec(t.Context(), sql); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if err := tx.Rollback(t.Context()); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if _, err := conn.Prepare(t.Context(), name, sql); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// planOf returns the plan of a prepared statement.
func planOf(t *testing.T, conn *pgx.Conn, name, args string) string {
	t.Helper()
	found, err := conn.Query(t.Context(), "explain (costs off) execute "+name+args, pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := pgx.CollectRows(found, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(lines, "\n")
}

func TestPlansDoNotDependOnWhatThePlannerBelieves(t *testing.T) { //nolint:tparallel // its parts share a database, so they come one after the other
	t.Parallel()
	const fill = `insert into tandem.ledger (key, digest, writer)
select gen_random_uuid(), '\x00112233445566778899aabbccddeeff', 1 from generate_series(1, 20000)`
	states := []struct {
		name   string
		before string // statements to execute before it is planned
		after  string
	}{
		{"an empty ledger", "", ""},
		{"a ledger that was empty when it was planned", "", fill},
		{"the same, analysed", "", fill + "; analyze tandem.ledger"},
		{"a full ledger", fill + "; analyze tandem.ledger", ""},
		{"a ledger that was emptied", fill + "; analyze tandem.ledger; delete from tandem.ledger; analyze tandem.ledger", ""},
	}
	url := pgtest.URL(t)
	if err := schema.Migrate(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	admin := connect(t, url)
	for _, s := range states {
		execIn(t, admin, "truncate tandem.ledger; analyze tandem.ledger")
		execIn(t, admin, "select 1; "+s.before)
		conns := map[string]*pgx.Conn{}
		for _, mode := range []string{"auto", "force_generic_plan", "force_custom_plan"} {
			conns[mode] = connect(t, url)
			execIn(t, conns[mode], "set plan_cache_mode = "+mode)
			settle(t, conns[mode])
		}
		execIn(t, admin, "select 1; "+s.after)
		for mode, conn := range conns {
			t.Run(mode+" with "+s.name, func(t *testing.T) { comparePlans(t, conn) })
		}
	}
}

// planKeys returns parameters of the claim, and the writers that only the claim
// needs.
func planKeys() (keys, writers string) {
	var ids, sums, ones []string
	for i := range 512 {
		k := ledger.NewKey("f", "/plans", fmt.Sprint("e-", i))
		ids, sums, ones = append(ids, k.String()), append(sums, `"\\x00"`), append(ones, "1")
	}
	return "'{" + strings.Join(ids, ",") + "}', '{" + strings.Join(sums, ",") + "}'", ", '{" + strings.Join(ones, ",") + "}'"
}

// settle executes the claim until the server keeps one plan.
func settle(t *testing.T, conn *pgx.Conn) {
	t.Helper()
	keys, writers := planKeys()
	execIn(t, conn, "prepare claim (uuid[], bytea[], bigint[]) as "+claimSQL)
	execIn(t, conn, "prepare rest (uuid[], bytea[], bigint[]) as "+strings.TrimSuffix(claimSQL, "on conflict (key) do nothing")) // in tandem.claim
	execIn(t, conn, "prepare diverged (uuid[], bytea[]) as "+divergedSQL)
	execIn(t, conn, "prepare claimed (uuid[], bytea[]) as "+claimedSQL)
	for range 8 {
		execIn(t, conn, "begin; execute rest("+keys+writers+"); rollback; begin; execute claim("+keys+writers+"); execute diverged("+keys+"); execute claimed("+keys+"); rollback")
	}
}

func comparePlans(t *testing.T, conn *pgx.Conn) {
	t.Helper()
	keys, writers := planKeys()
	for _, name := range []string{"claim", "rest"} {
		claim := planOf(t, conn, name, "("+keys+writers+")")
		for _, node := range []string{"Sort", "Join", "Loop", "Hash", "Gather"} {
			if strings.Contains(claim, node) {
				t.Errorf("the plan of %s has a %s: keys lose their order\n%s", name, node, claim)
			}
		}
		if !strings.Contains(claim, "ProjectSet") {
			t.Errorf("the plan of %s does not take the keys as they come\n%s", name, claim)
		}
	}
	for _, name := range []string{"diverged", "claimed"} {
		plan := planOf(t, conn, name, "("+keys+")")
		if !strings.Contains(plan, "Index Scan using ledger_pkey") || strings.Contains(plan, "Seq Scan") {
			t.Errorf("the lookup of %s keys does not use the index\n%s", name, plan)
		}
	}
}

func TestEveryShapeKeepsTheOrderOfItsRows(t *testing.T) {
	t.Parallel()
	conn := migrated(t)
	execIn(t, conn, `create table things (id int, part text, version bigint, n bigint, deleted boolean, primary key (part, id));
insert into things select i, 'p', 1, 1, false from generate_series(1, 10000) i; analyze things`)
	things, err := loadTable(t.Context(), conn, "things")
	if err != nil {
		t.Fatal(err)
	}
	key := functions.Row{"id": 1, "part": "p"}
	row := functions.Row{"id": 1, "part": "p", "version": 1, "n": 1}
	var fx functions.Effects
	fx.Insert("things", row)
	fx.Upsert("things", row, functions.Replace())
	fx.Upsert("things", row, functions.NewestWins("version"))
	fx.Add("things", key, functions.Row{"n": 1})
	fx.Delete("things", key)
	fx.Delete("things", key, functions.Version{Column: "version", Value: 1})
	for i := range fx.Writes {
		s, err := things.shapeOf(&fx.Writes[i])
		if err != nil {
			t.Fatal(err)
		}
		for _, sql := range []string{s.lockSQL, s.sql} {
			if sql == "" {
				continue
			}
			name := fmt.Sprintf("s%d_%t", i, sql == s.sql)
			d, err := conn.PgConn().Prepare(t.Context(), name, sql, s.oids)
			if err != nil {
				t.Fatalf("%s: %v", sql, err)
			}
			args := "(" + strings.Repeat("null, ", len(d.ParamOIDs)-1) + "null)"
			execIn(t, conn, "set plan_cache_mode = force_generic_plan")
			plan := planOf(t, conn, name, args)
			switch {
			case sql == s.lockSQL: // the order of its rows is the server's business
				if lock, join := strings.Index(plan, "LockRows"), strings.Index(plan, "Function Scan"); lock < 0 || join < lock {
					t.Errorf("rows are not locked last\n%s\n%s", sql, plan)
				}
			case fx.Writes[i].Op == functions.OpDelete: // of rows that are locked
			case strings.Contains(plan, "Sort"), strings.Contains(plan, "Join"), strings.Contains(plan, "Loop"), !strings.Contains(plan, "ProjectSet"):
				t.Errorf("rows may lose their order\n%s\n%s", sql, plan)
			}
		}
	}
}

// Invariant I7.
func TestABatchThatLostHasNoTransactionIDAndWritesNoWAL(t *testing.T) {
	t.Parallel()
	server := pgtest.Server(t)
	admin := connect(t, server.AdminURL("postgres"))
	// Nothing else may write: no vacuum, no checkpoint, no snapshots for
	// standbys.
	for _, setting := range []string{"autovacuum = off", "checkpoint_timeout = '1h'", "wal_level = minimal", "max_wal_senders = 0"} {
		execIn(t, admin, "alter system set "+setting)
	}
	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := schema.Migrate(t.Context(), server.URL()); err != nil {
		t.Fatal(err)
	}
	conn := connect(t, server.URL())
	execIn(t, conn, "create table things (id text primary key, n bigint)")

	commit := func(cluster string, from, to int) {
		t.Helper()
		pool, err := pgxpool.New(t.Context(), server.URL())
		if err != nil {
			t.Fatal(err)
		}
		defer pool.Close()
		w, err := New(pool, Config{Cluster: cluster, Connections: 1})
		if err != nil {
			t.Fatal(err)
		}
		outcomes := make(chan error)
		for i := from; i < to; i++ {
			go func() {
				e := event.New()
				e.SetSource("/wal")
				e.SetID(fmt.Sprintf("e-%d", i))
				e.SetType("com.example.wal")
				var fx functions.Effects
				fx.Insert("things", functions.Row{"id": e.ID(), "n": i})
				fx.Emit(functions.Output{Type: "com.example.out"})
				r, err := w.Commit(t.Context(), Offer{Function: "f", Version: "1", Event: e, Effects: fx})
				if err == nil && r.Won != (cluster == "east") {
					err = fmt.Errorf("event %d in %s: won %t", i, cluster, r.Won)
				}
				outcomes <- err
			}()
		}
		for range to - from {
			if err := <-outcomes; err != nil {
				t.Error(err)
			}
		}
		if err := w.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	position := func() string {
		t.Helper()
		var at string
		if err := conn.QueryRow(t.Context(), `select format('next transaction %s, WAL at %s', pg_snapshot_xmax(pg_current_snapshot()), pg_current_wal_insert_lsn())`).Scan(&at); err != nil {
			t.Fatal(err)
		}
		return at
	}

	commit("east", 0, 300)
	// Even the first batch of a cluster that is not registered yet writes nothing.
	before := position()
	commit("west", 0, 200)
	if after := position(); after != before {
		t.Errorf("after a batch that lost: %s, before: %s", after, before)
	}
	commit("west", 200, 300)
	if after := position(); after != before {
		t.Errorf("after two batches that lost: %s, before: %s", after, before)
	}
}

func TestGoAndSQLAgreeOnTheTakeover(t *testing.T) {
	t.Parallel()
	conn := migrated(t)
	var byDefault float64
	const sql = `select extract(epoch from due - now()) from tandem.outbox where id = $1`
	if _, err := conn.Exec(t.Context(), `insert into tandem.outbox (id, events) overriding system value values (1, '[]'), (2, '[]')`); err != nil {
		t.Fatal(err)
	}
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(t.Context()) }()
	var column string
	if err := tx.QueryRow(t.Context(), `select column_default from information_schema.columns where table_schema = 'tandem' and table_name = 'outbox' and column_name = 'due'`).Scan(&column); err != nil {
		t.Fatal(err)
	}
	if err := tx.QueryRow(t.Context(), `select extract(epoch from (`+column+`) - now())`).Scan(&byDefault); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `update tandem.outbox set due = now() - interval '1 second'`); err != nil {
		t.Fatal(err)
	}
	want := contract.RelayTakeover.Seconds()
	if byDefault != want {
		t.Errorf("the winner has %v s by the table's default, want %v", byDefault, want)
	}
	for name, run := range map[string]func() error{
		"takeoverSQL": func() error {
			if _, err := tx.Exec(t.Context(), `update tandem.outbox set due = now() - interval '1 second'`); err != nil {
				return err
			}
			_, err := tx.Exec(t.Context(), takeoverSQL, 10, relayBytes, allOverdue, time.Duration(0))
			return err
		},
		"outboxRenewSQL":  func() error { _, err := tx.Exec(t.Context(), outboxRenewSQL, []int64{1}); return err },
		"outboxReduceSQL": func() error { _, err := tx.Exec(t.Context(), outboxReduceSQL, 1, "[]", false); return err },
	} {
		if _, err := tx.Exec(t.Context(), outboxReturnSQL, []int64{1}); err != nil {
			t.Fatal(err)
		}
		if err := run(); err != nil {
			t.Fatal(err)
		}
		var due float64
		if err := tx.QueryRow(t.Context(), sql, 1).Scan(&due); err != nil {
			t.Fatal(err)
		}
		if due < want || due > want+60 { // due counts from the clock, not from the start of the transaction
			t.Errorf("the winner has %v s by %s, want %v", due, name, want)
		}
	}
}
