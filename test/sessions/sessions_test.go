package sessions_test

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tandem-fn/tandem"
	"github.com/tandem-fn/tandem/eventing/devcluster"
	"github.com/tandem-fn/tandem/eventing/devcluster/pgtest"
	"github.com/tandem-fn/tandem/sinkwriter"
	"github.com/tandem-fn/tandem/sinkwriter/schema"
)

var (
	prompt = regexp.MustCompile(`^([a-z]+)=> (.*)$`)
	waits  = regexp.MustCompile(`^-- ([a-z]+) waits`)
	late   = regexp.MustCompile(`^([a-z]+): (.*)$`)

	// Values that differ between runs. Positions in the WAL are compared with
	// each other.
	position  = regexp.MustCompile(`\b[0-9A-F]+/[0-9A-F]+\b`)
	timestamp = regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?\+00`)
	padding   = regexp.MustCompile(`-{2,}| {2,}`)
)

// blocks returns the lines of each block marked "session", with the number of
// its first line.
func blocks(t *testing.T, file string) map[int][]string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	all := map[int][]string{}
	first := 0
	for i, line := range strings.Split(string(text), "\n") {
		switch line = strings.TrimRight(line, " "); {
		case line == "```session":
			first = i + 2
		case line == "```":
			first = 0
		case first > 0:
			all[first] = append(all[first], line)
		}
	}
	return all
}

// prepare creates the database that the page describes, and returns the URLs of
// its sessions.
func prepare(t *testing.T, server *devcluster.Postgres) (urls map[string]string, admin *pgx.Conn) {
	t.Helper()
	admin, err := pgx.Connect(t.Context(), server.AdminURL("tandem"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = admin.Close(t.Context()) })
	for _, sql := range []string{
		"alter system set autovacuum = off", "alter system set checkpoint_timeout = '1h'", // no other process writes
		"alter system set wal_level = minimal", "alter system set max_wal_senders = 0",
		"create role tandem_writer login password 'secret'",
	} {
		if _, err := admin.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if admin, err = pgx.Connect(t.Context(), server.AdminURL("tandem")); err != nil {
		t.Fatal(err)
	}
	if err := tandem.New().Migrate(t.Context(), server.URL()); err != nil {
		t.Fatal(err)
	}
	if _, err := schema.Grant(t.Context(), server.URL(), "tandem_writer"); err != nil {
		t.Fatal(err)
	}
	writer := fmt.Sprintf("postgres://tandem_writer:secret@127.0.0.1:%d/tandem?sslmode=disable", server.Port())
	commitOrder(t, writer)
	return map[string]string{"east": server.URL(), "west": server.URL(), "writer": writer}, admin
}

// commitOrder commits the event that the page describes.
func commitOrder(t *testing.T, url string) {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	w, err := sinkwriter.New(pool, sinkwriter.Config{Cluster: "east"})
	if err != nil {
		t.Fatal(err)
	}
	e := event.New()
	e.SetSource("/till")
	e.SetID("order-1001")
	e.SetType("com.example.order")
	if _, err := w.Commit(t.Context(), sinkwriter.Offer{Function: "orders", Version: "7", Event: e}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestTheSessionsOfThePageHappenAsTheyStandThere(t *testing.T) {
	t.Parallel()
	page := blocks(t, "../../docs/postgres.md")
	if len(page) < 8 {
		t.Fatalf("only %d sessions were found", len(page))
	}
	server := pgtest.Server(t)
	urls, admin := prepare(t, server)
	sessions := map[string]*psql{}
	for name, url := range urls {
		sessions[name] = startPsql(t, server, name, url)
	}
	lines := 0
	for line := range page {
		lines = max(lines, line)
	}
	for first := range lines + 1 { // in the order of the page: later blocks use the objects of earlier ones
		if page[first] == nil {
			continue
		}
		happened := play(t, page[first], sessions, admin)
		if diff := cmp.Diff(normal(page[first]), normal(happened)); diff != "" {
			t.Fatalf("docs/postgres.md:%d (-page +happened):\n%s", first, diff)
		}
	}
}

// play executes the statements of a block, and returns the block with the actual
// answers.
func play(t *testing.T, block []string, sessions map[string]*psql, admin *pgx.Conn) []string {
	t.Helper()
	var happened []string
	for i, line := range block {
		switch {
		case prompt.MatchString(line):
			parts := prompt.FindStringSubmatch(line)
			s := sessions[parts[1]]
			if s == nil {
				t.Fatalf("there is no session %s: %s", parts[1], line)
			}
			happened = append(happened, line)
			s.ask(t, parts[2])
			if i+1 < len(block) && waits.MatchString(block[i+1]) {
				s.awaitLock(t, admin)
				happened = append(happened, block[i+1])
				continue
			}
			happened = append(happened, s.answer(t)...)
		case late.MatchString(line):
			s := sessions[late.FindStringSubmatch(line)[1]]
			if s == nil || !s.owes {
				continue // it was processed with the line before
			}
			for _, answer := range s.answer(t) {
				happened = append(happened, s.name+": "+answer)
			}
		}
	}
	return happened
}

// normal replaces values that differ between runs.
func normal(block []string) string {
	text := timestamp.ReplaceAllString(strings.Join(block, "\n"), "TIMESTAMP")
	// Microseconds that end in zeros are shorter, and so is their column.
	text = padding.ReplaceAllStringFunc(text, func(p string) string { return p[:1] })
	seen := map[string]string{}
	return position.ReplaceAllStringFunc(text, func(p string) string {
		if seen[p] == "" {
			seen[p] = fmt.Sprintf("POSITION %d", len(seen)+1)
		}
		return seen[p]
	})
}
