package schema_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tandem-fn/tandem/eventing/devcluster/pgtest"
	"github.com/tandem-fn/tandem/eventing/devcluster/sinktest"
	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/sinkwriter"
	"github.com/tandem-fn/tandem/sinkwriter/contract"
	"github.com/tandem-fn/tandem/sinkwriter/deadletter"
	"github.com/tandem-fn/tandem/sinkwriter/internal/mark"
	"github.com/tandem-fn/tandem/sinkwriter/lease"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
	"github.com/tandem-fn/tandem/sinkwriter/schema"
)

// rooms creates the tables of a function that has all kinds of effects.
var rooms = schema.MigrationSet{Name: "rooms", Files: fstest.MapFS{
	"0001_rooms.sql": {Data: []byte(`
create table rooms (id text primary key, seats bigint not null, kind text not null default 'hall');
create table members (room text references rooms, name text, since bigint, deleted boolean, primary key (room, name));
create table notes (n bigint generated always as identity, m serial, room text, primary key (room, m));
create schema audit;
create table audit.changes (n bigserial primary key, room text);
create view audit.latest as select max(n) as n from audit.changes;
create function audit_change() returns trigger language plpgsql as 'begin insert into audit.changes (room) values (new.id); return null; end';
create trigger audit after insert on rooms for each row execute function audit_change();`)},
}}

func roleOf(t *testing.T, databaseURL string) string {
	t.Helper()
	u, err := url.Parse(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	return u.User.Username()
}

// twoRoles migrates a database as a role that is neither superuser nor owner of
// the database, grants to another role, and returns the URLs of owner, migrator
// and writer.
func twoRoles(t *testing.T, sets ...schema.MigrationSet) (owner, migrator, writer string) {
	t.Helper()
	owner = pgtest.URL(t)
	migrator, writer = pgtest.Role(t, owner), pgtest.Role(t, owner)
	admin := sinktest.NewPool(t, owner)
	for _, sql := range []string{"grant create on database %s to %s", "grant create on schema public to %[2]s"} {
		if _, err := admin.Exec(t.Context(), fmt.Sprintf(sql, sinktest.Query[string](t, admin, "select current_database()"), roleOf(t, migrator))); err != nil {
			t.Fatal(err)
		}
	}
	if err := schema.Migrate(t.Context(), migrator, sets...); err != nil {
		t.Fatal(err)
	}
	granted, err := schema.Grant(t.Context(), migrator, roleOf(t, writer))
	if err != nil || len(granted.Statements) == 0 || len(granted.Warnings) > 0 {
		t.Fatalf("granted %+v, %v", granted, err)
	}
	return owner, migrator, writer
}

// everything returns an event with all kinds of effects.
func everything(id string) sinkwriter.Offer {
	var fx functions.Effects
	fx.Insert("rooms", functions.Row{"id": id, "seats": 2})
	fx.Upsert("members", functions.Row{"room": id, "name": "a", "since": 1}, functions.NewestWins("since"))
	fx.Upsert("members", functions.Row{"room": id, "name": "b", "since": 1}, functions.Replace())
	fx.Upsert("members", functions.Row{"room": id, "name": "c"}, functions.FirstWins())
	fx.Add("rooms", functions.Row{"id": "all"}, functions.Row{"seats": 2})
	fx.Delete("members", functions.Row{"room": id, "name": "b"})
	fx.Delete("members", functions.Row{"room": id, "name": "a"}, functions.Version{Column: "since", Value: 2})
	fx.Exec(functions.Statement{Name: "note", SQL: `insert into notes (room) select room from members where room = $1 and deleted is not true`}, id)
	fx.Exec(functions.Statement{Name: "latest", SQL: `update rooms set kind = (select n::text from audit.latest) where id = $1`}, id)
	fx.Emit(functions.Output{Type: "com.example.room.opened", Subject: id})
	return sinkwriter.Offer{Function: "rooms", Version: "1", Event: sinktest.NewEvent(id), Effects: fx}
}

func TestAGrantedRoleCanDoAllThatWritingTakes(t *testing.T) {
	t.Parallel()
	_, migrator, url := twoRoles(t, rooms)
	pool := sinktest.NewPool(t, url)
	if err := schema.Check(t.Context(), pool, rooms); err != nil {
		t.Fatal(err)
	}

	// All effects, a lost offer, one that differs, one of another version.
	east := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east"})
	west := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "west"})
	other, newer := everything("r-1"), everything("r-1")
	other.Effects.Writes, newer.Effects.Writes, newer.Version = other.Effects.Writes[:1], newer.Effects.Writes[:1], "2"
	for i, offered := range []struct {
		writer *sinkwriter.Writer
		offer  sinkwriter.Offer
		want   sinkwriter.Receipt
	}{
		{east, everything("r-1"), sinkwriter.Receipt{Won: true}},
		{west, everything("r-1"), sinkwriter.Receipt{}},
		{west, other, sinkwriter.Receipt{Diverged: true}},
		{west, newer, sinkwriter.Receipt{}},
		{west, everything("r-2"), sinkwriter.Receipt{Won: true}},
	} {
		got, err := offered.writer.Commit(t.Context(), offered.offer)
		offered.want.Key = ledger.NewKey("rooms", "/test", offered.offer.Event.ID())
		offered.want.Digest = [16]byte(sinktest.Query[[]byte](t, pool, "select digest from tandem.ledger where key = '"+offered.want.Key.String()+"'"))
		if diff := cmp.Diff(offered.want, got); err != nil || diff != "" {
			t.Errorf("offer %d: %v\n%s", i, err, diff)
		}
	}
	once := func(tx pgx.Tx) error {
		_, err := tx.Exec(t.Context(), "delete from rooms where id = 'all'")
		return err
	}
	won, err := sinktest.UntilDecided(func() (bool, error) { return east.Once(t.Context(), ledger.NewKey("sweep", "/test", "1"), once) })
	if !won || err != nil {
		t.Errorf("once: won %t, %v", won, err)
	}

	// A session that hangs between claim and commit is ended by another one.
	hanging, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer hanging.Close(context.WithoutCancel(t.Context())) //nolint:errcheck // it is ended by then
	key := ledger.NewKey("rooms", "/test", "r-3").String()
	for _, sql := range []string{"begin", mark.SQL, "insert into tandem.ledger (key, digest, writer) values ('" + key + "', '', 0)"} {
		if _, err := hanging.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	if r, err := west.Commit(t.Context(), everything("r-3")); !r.Won || err != nil {
		t.Errorf("after one that hangs: %+v, %v", r, err)
	}

	// The statements of a source.
	due := sinktest.NewPool(t, migrator)
	if _, err := due.Exec(t.Context(), "update tandem.outbox set due = now() - interval '1 second'"); err != nil {
		t.Fatal(err)
	}
	outbox := sinkwriter.NewOutbox(pool)
	if n, err := outbox.Backlog(t.Context()); n != 3 || err != nil {
		t.Errorf("backlog %d, %v", n, err)
	}
	if n, _, err := outbox.Relay(t.Context(), func(context.Context, []event.Event) error { return nil }); n != 3 || err != nil {
		t.Errorf("relay %d, %v", n, err)
	}
	for range 2 { // the first is stored, the second rejected, the third fails
		if _, err := due.Exec(t.Context(), `insert into tandem.outbox (due, events) values (now() - interval '1 second', '[
			{"specversion":"1.0","id":"1","source":"/s","type":"t"}, {"specversion":"1.0","id":"2","source":"/s","type":"t"}, {"specversion":"1.0","id":"3","source":"/s","type":"t"}]')`); err != nil {
			t.Fatal(err)
		}
		if n, rejected, err := outbox.Relay(t.Context(), func(context.Context, []event.Event) error {
			return contract.Published([]error{nil, &contract.Rejection{Code: 400, Err: io.EOF}, io.ErrUnexpectedEOF})
		}); n != 1 || rejected != 1 || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("relay %d, rejected %d, %v", n, rejected, err)
		}
	}
	letters := deadletter.NewStore(pool, "east")
	for range 2 {
		if err := letters.Save(t.Context(), deadletter.Letter{Function: "rooms", Event: sinktest.NewEvent("r-9"), Code: 422, Reason: "because"}); err != nil {
			t.Error(err)
		}
	}
	progress := ledger.NewCheckpoints(pool, "east")
	saved := ledger.Checkpoint{}
	for i := range uint64(3) {
		var ok bool
		row := ledger.CheckpointUpdate{Epoch: "e1", Floor: i + 1, Head: i + 1, Hedge: "0", Adopt: i == 2}
		if saved, ok, err = progress.Save(t.Context(), "rooms", "EVENTS", row, saved); err != nil || !ok {
			t.Errorf("save progress: %t, %v", ok, err)
		}
	}
	standby := ledger.NewCheckpoints(pool, "west")
	if granted, err := standby.StandBy(t.Context(), "rooms"); err != nil || !granted {
		t.Errorf("stand by: %t, %v", granted, err)
	}
	if err := standby.EndStandBy(t.Context(), "rooms"); err != nil {
		t.Error(err)
	}
	if err := ledger.NewCheckpoints(due, "").SetHedge(t.Context(), "rooms", "", "300ms"); err != nil {
		t.Error(err)
	}
	if hedge, err := progress.Hedge(t.Context(), "rooms"); err != nil || hedge != "300ms" {
		t.Errorf("hedge %q, %v", hedge, err)
	}
	tries := ledger.NewAttempts(pool, "east")
	for range 2 {
		if err := tries.Save(t.Context(), "rooms", "EVENTS", "e1", []ledger.EventAttempts{{Sequence: 5, Attempts: 1}}, []uint64{4}); err != nil {
			t.Error(err)
		}
	}
	leases := lease.New(pool, "east")
	for range 2 {
		held, _, err := leases.Acquire(t.Context(), "rooms", lease.Holder{Site: "here", Replica: "first"}, true)
		if err = errors.Join(err, leases.Renew(t.Context(), "rooms", held)); err != nil {
			t.Error(err)
		}
		row := ledger.CheckpointUpdate{Epoch: "e1", Floor: 3, Head: 3, Hedge: "0"}
		if _, ok, err := progress.With(held).Save(t.Context(), "rooms", "EVENTS", row, saved); err != nil || !ok {
			t.Errorf("save progress with a lease: %t, %v", ok, err)
		}
	}
	if _, timeline, err := progress.Load(t.Context(), "rooms", "EVENTS"); err != nil || timeline == "" {
		t.Errorf("timeline %q, %v", timeline, err)
	}
	if _, err := progress.Horizon(t.Context(), "rooms", "EVENTS", "e1"); err != nil {
		t.Error(err)
	}
	if _, err := due.Exec(t.Context(), `update tandem.ledger set committed_at = now() - interval '1 hour';
		insert into tandem.floor_sample (function, stream, epoch, taken_at, head) values ('rooms', 'EVENTS', 'e1', now() - interval '5 minutes', 2)`); err != nil {
		t.Fatal(err)
	}
	retention, err := ledger.NewRetention(pool, ledger.RetentionConfig{Cluster: "east", Function: "rooms", Keep: time.Minute, Pause: -1})
	if err != nil {
		t.Fatal(err)
	}
	if n, err := retention.Sweep(t.Context()); n != 3 || err != nil { // not the row of Once, whose function has no source
		t.Errorf("forgot %d, %v", n, err)
	}
}

func TestAGrantedRoleCanDoNothingElse(t *testing.T) {
	t.Parallel()
	owner, _, url := twoRoles(t, rooms)
	if _, err := sinktest.NewPool(t, owner).Exec(t.Context(), `create table payroll (id int primary key); create table tandem_like (id int)`); err != nil {
		t.Fatal(err)
	}
	pool := sinktest.NewPool(t, url)
	for _, sql := range []string{
		"create table mine (id int)",
		"create table tandem.mine (id int)",
		"create table audit.mine (id int)",
		"create schema mine",
		"create function tandem.mine() returns int language sql as 'select 1'",
		"alter table rooms add column more int",
		"alter table tandem.ledger add column more int",
		"create index on rooms (seats)",
		"create trigger mine after insert on rooms for each row execute function audit_change()",
		"drop table rooms",
		"drop table tandem.ledger",
		"truncate rooms",
		"truncate tandem.ledger",
		"update tandem.ledger set committed_at = now()",
		"update tandem.rejected_output set source = ''",
		"delete from tandem.rejected_output",
		"update tandem.dead_letter set source = ''",
		"delete from tandem.dead_letter",
		"delete from tandem.progress",
		"delete from tandem.horizon",
		"insert into tandem.hedge (function, cluster, value) values ('rooms', '', 'standby')",
		"update tandem.hedge set value = 'standby'",
		"delete from tandem.hedge",
		"update tandem.writer set cluster = 'west'",
		"delete from tandem.divergence",
		"insert into tandem.migration (set, name, sha256) values ('tandem', 'x', 'y')",
		"update tandem.migration set sha256 = ''",
		"delete from tandem.migration",
		"insert into tandem.writing_role (role) values ('x')",
		"select setval('notes_m_seq', 1)",
		"select * from payroll",
		"insert into payroll values (1)",
		"update payroll set id = 2",
		"delete from payroll",
		"insert into tandem_like values (1)",
	} {
		var answer *pgconn.PgError
		if _, err := pool.Exec(t.Context(), sql); !errors.As(err, &answer) || answer.Code != "42501" {
			t.Errorf("%s: %v", sql, err)
		}
	}
	var fx functions.Effects
	fx.Insert("payroll", functions.Row{"id": 1})
	w := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east"})
	_, err := w.Commit(t.Context(), sinkwriter.Offer{Function: "rooms", Version: "1", Event: sinktest.NewEvent("p"), Effects: fx})
	var refused *sinkwriter.Error
	if !errors.As(err, &refused) || refused.Fault != sinkwriter.FaultDeployment || refused.Fingerprint() != "42501 payroll" {
		t.Errorf("write to another's table: %v", err)
	}
}

func TestGrantsAreRepeatedForWhatIsNew(t *testing.T) {
	t.Parallel()
	_, migrator, url := twoRoles(t, rooms)
	again, err := schema.Grant(t.Context(), migrator, roleOf(t, url))
	if err != nil || len(again.Statements) > 0 || len(again.Warnings) > 0 {
		t.Errorf("again: %+v, %v", again, err)
	}
	files := fstest.MapFS{"0002_more.sql": {Data: []byte(`create table more (id int primary key); alter table members rename to guests; alter table rooms add column more int`)}}
	files["0001_rooms.sql"] = rooms.Files.(fstest.MapFS)["0001_rooms.sql"]
	set := schema.MigrationSet{Name: "rooms", Files: files}
	if err := schema.Migrate(t.Context(), migrator, set); err != nil { // which does not list it again
		t.Fatal(err)
	}
	pool := sinktest.NewPool(t, url)
	if err := schema.Check(t.Context(), pool, set); err != nil {
		t.Error(err)
	}
	if _, err := pool.Exec(t.Context(), "insert into more values (1)"); err != nil {
		t.Error(err)
	}
	if got := sinktest.Query[string](t, pool, `select array_to_string(made, ' ') from tandem.migration where name = '0002_more'`); got != "public.guests public.more" {
		t.Errorf("the migration has made %s", got)
	}
	// A role that was dropped is no obstacle.
	if _, err := sinktest.NewPool(t, migrator).Exec(t.Context(), "insert into tandem.writing_role (role) values ('who-was')"); err != nil {
		t.Fatal(err)
	}
	if err := schema.Migrate(t.Context(), migrator, set); err != nil {
		t.Error(err)
	}
}

func TestARoleMayHaveAnyName(t *testing.T) {
	t.Parallel()
	owner := pgtest.URL(t)
	if err := schema.Migrate(t.Context(), owner, rooms); err != nil {
		t.Fatal(err)
	}
	role := `a "Role"; drop table rooms; -- ` + roleOf(t, owner)[:20]
	quoted := pgx.Identifier{role}.Sanitize()
	admin := superuser(t, owner)
	if _, err := admin.Exec(t.Context(), "create role "+quoted); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := superuser(t, owner).Exec(context.WithoutCancel(t.Context()), "drop role "+quoted); err != nil {
			t.Error(err)
		}
	})
	granted, err := schema.Grant(t.Context(), owner, role)
	if err != nil || len(granted.Statements) == 0 || len(granted.Warnings) != 0 {
		t.Errorf("granted %+v, %v", granted, err)
	}
	if !sinktest.Query[bool](t, admin, `select has_table_privilege($1::name, 'public.rooms', 'insert')`, role) {
		t.Error("it may not insert")
	}

	// After Revoke the role has no privilege left that would prevent dropping it.
	revoked, err := schema.Revoke(t.Context(), owner, role)
	if err != nil || len(revoked) != len(granted.Statements) {
		t.Errorf("revoked %q, %v, but granted %q", revoked, err, granted.Statements)
	}
	if revoked, err := schema.Revoke(t.Context(), owner, role); err != nil || len(revoked) > 0 {
		t.Errorf("revoked again %q, %v", revoked, err)
	}
	if err := schema.Migrate(t.Context(), owner, rooms); err != nil {
		t.Fatal(err)
	}
	if sinktest.Query[bool](t, admin, `select has_schema_privilege($1::name, 'tandem', 'usage')`, role) {
		t.Error("a later migration has given it something")
	}
}

func TestTwoMigratorsGrantAtOnce(t *testing.T) {
	t.Parallel()
	owner := pgtest.URL(t)
	writer := pgtest.Role(t, owner)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if err := schema.Migrate(t.Context(), owner, rooms); err != nil {
				t.Error(err)
			}
			if _, err := schema.Grant(t.Context(), owner, roleOf(t, writer)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if err := schema.Check(t.Context(), sinktest.NewPool(t, writer), rooms); err != nil {
		t.Error(err)
	}
}

func TestGrantSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	owner := pgtest.URL(t)
	writer := pgtest.Role(t, owner)
	grant := func(url, role, want string) {
		t.Helper()
		if _, err := schema.Grant(t.Context(), url, role); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("grant to %s: %v, want %q in it", role, err, want)
		}
	}
	grant(owner, roleOf(t, writer), "the database lacks migrations")
	if err := schema.Migrate(t.Context(), owner, rooms); err != nil {
		t.Fatal(err)
	}
	grant(owner, `no"body`, `role "no""body" does not exist: create it first, as a role that may create roles: create role "no""body" login`)
	grant(owner, roleOf(t, owner), "has all privileges already")
	grant(owner, "postgres", "has all privileges already")
	grant(writer, roleOf(t, writer), "has not migrated this database")
	grant("postgres://user:secret@host:x/y", "x", "want postgres://")

	// A program whose role lacks privileges reports them at its start.
	pool := sinktest.NewPool(t, writer)
	err := schema.Check(t.Context(), pool, rooms)
	if !errors.Is(err, schema.ErrGrants) || !strings.Contains(err.Error(), "may not use schema tandem") {
		t.Errorf("check: %v", err)
	}
	if _, err := schema.Grant(t.Context(), owner, roleOf(t, writer)); err != nil {
		t.Fatal(err)
	}
	admin := sinktest.NewPool(t, owner)
	for _, sql := range []string{
		"revoke update, delete on tandem.outbox from " + roleOf(t, writer),
		"revoke insert on rooms from " + roleOf(t, writer),
		"grant create on schema public to public",
		"update tandem.migration set made = null where set = 'rooms' and name = '0001_rooms'",
	} {
		if _, err := admin.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	err = schema.Check(t.Context(), pool, rooms)
	if want := "grant delete, update (due, events) on tandem.outbox to " + roleOf(t, writer); !errors.Is(err, schema.ErrGrants) || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("check: %v, want %s", err, want)
	}
	granted, err := schema.Grant(t.Context(), owner, roleOf(t, writer))
	if want := []string{"grant delete, update (due, events) on tandem.outbox to " + roleOf(t, writer)}; err != nil || cmp.Diff(want, granted.Statements) != "" {
		t.Errorf("granted %v, %v", granted.Statements, err)
	}
	warned := strings.Join(granted.Warnings, "\n")
	for _, want := range []string{"revoke create on schema public from public", "migrations of rooms ran before"} {
		if !strings.Contains(warned, want) {
			t.Errorf("warned %s, want %q in it", warned, want)
		}
	}
}

func TestAMigratorNeedsNoMoreThanASchema(t *testing.T) {
	t.Parallel()
	owner := pgtest.URL(t)
	migrator, writer := pgtest.Role(t, owner), pgtest.Role(t, owner)
	set := schema.MigrationSet{Name: "f", Files: fstest.MapFS{"0001.sql": {Data: []byte("create table app.things (id int primary key)")}}}
	err := schema.Migrate(t.Context(), migrator, set)
	if err == nil || !strings.Contains(err.Error(), "grant create on database") {
		t.Errorf("without any permission: %v", err)
	}
	// Created for the role, in a database in which the role may create none.
	admin := superuser(t, owner)
	for _, sql := range []string{
		"create schema tandem authorization " + roleOf(t, migrator), "create schema app authorization " + roleOf(t, migrator),
		"revoke connect on database " + sinktest.Query[string](t, admin, "select current_database()") + " from public",
		"grant connect on database " + sinktest.Query[string](t, admin, "select current_database()") + " to " + roleOf(t, migrator),
	} {
		if _, err := admin.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	if err := schema.Migrate(t.Context(), migrator, set); err != nil {
		t.Fatal(err)
	}
	// The migrator cannot grant access to the database, and reports which role has to.
	granted, err := schema.Grant(t.Context(), migrator, roleOf(t, writer))
	if want := "let the owner run: grant connect on database"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("granted %v, %v, want %q", granted, err, want)
	}
	if _, err := admin.Exec(t.Context(), "grant connect on database "+sinktest.Query[string](t, admin, "select current_database()")+" to "+roleOf(t, writer)); err != nil {
		t.Fatal(err)
	}
	if granted, err := schema.Grant(t.Context(), migrator, roleOf(t, writer)); err != nil || len(granted.Statements) > 0 {
		t.Errorf("granted %v, %v", granted, err)
	}
	if err := schema.Check(t.Context(), sinktest.NewPool(t, writer), set); err != nil {
		t.Error(err)
	}
}

// superuser returns a pool of the superuser in a test's database.
func superuser(t *testing.T, databaseURL string) *pgxpool.Pool {
	t.Helper()
	return sinktest.NewPool(t, pgtest.SuperuserURL(t, databaseURL))
}

// A session of one function's role is ended by that of another only if the owner of
// tandem.end_session may end it.
func TestGrantWarnsOfRolesWhoseSessionsAreNotEnded(t *testing.T) {
	t.Parallel()
	super, owner, writer := twoRoles(t, rooms)
	one := roleOf(t, writer)
	grant := func(role string) []string {
		t.Helper()
		granted, err := schema.Grant(t.Context(), owner, role)
		if err != nil {
			t.Fatal(err)
		}
		return granted.Warnings
	}
	if warnings := grant(one); len(warnings) > 0 {
		t.Errorf("the only role: %q", warnings)
	}
	two := roleOf(t, pgtest.Role(t, super))
	warnings := grant(two)
	if len(warnings) != 2 {
		t.Errorf("two roles: %q", warnings)
	}
	for i, role := range slices.Sorted(slices.Values([]string{one, two})) {
		if i < len(warnings) && !strings.Contains(warnings[i], "grant "+pgx.Identifier{role}.Sanitize()+" to "+pgx.Identifier{roleOf(t, owner)}.Sanitize()) {
			t.Errorf("warning %q, want the grant of %s", warnings[i], role)
		}
	}
	admin := superuser(t, super)
	for _, role := range []string{one, two} {
		if _, err := admin.Exec(t.Context(), "grant "+pgx.Identifier{role}.Sanitize()+" to "+pgx.Identifier{roleOf(t, owner)}.Sanitize()); err != nil {
			t.Fatal(err)
		}
	}
	if warnings := grant(two); len(warnings) > 0 {
		t.Errorf("the owner is a member of both: %q", warnings)
	}
}
