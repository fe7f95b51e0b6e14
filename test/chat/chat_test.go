// Package chat_test runs functions/chat in two clusters at once and checks the
// database.
package chat_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tandem-fn/tandem/eventing/devcluster/pgtest"
	"github.com/tandem-fn/tandem/eventing/devcluster/sinktest"
	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/functions/chat"
	"github.com/tandem-fn/tandem/functions/functionstest"
	"github.com/tandem-fn/tandem/sinkwriter"
	"github.com/tandem-fn/tandem/sinkwriter/schema"
)

func newPool(tb testing.TB) *pgxpool.Pool {
	tb.Helper()
	url := pgtest.Copy(tb, "chat", func(ctx context.Context, url string) error {
		f := chat.Function()
		return schema.Migrate(ctx, url, schema.MigrationSet{Name: f.Name, Files: f.Migrations})
	})
	pool, err := pgxpool.New(tb.Context(), url)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(pool.Close)
	return pool
}

// cluster commits the effects that chat computes.
type cluster struct {
	writer *sinkwriter.Writer
	won    atomic.Int64
}

func newCluster(tb testing.TB, name string, pool *pgxpool.Pool) *cluster {
	tb.Helper()
	w, err := sinkwriter.New(pool, sinkwriter.Config{Cluster: name, CommitTimeout: 20 * time.Second}) // for a busy machine
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(tb.Context()), time.Minute)
		defer cancel()
		if err := w.Close(ctx); err != nil {
			tb.Error(err)
		}
	})
	return &cluster{writer: w}
}

// handle handles an event as serve does: a refused event is finished.
func (c *cluster) handle(tb testing.TB, e event.Event) {
	tb.Helper()
	f := chat.Function()
	fx, err := f.Handle(tb.Context(), e)
	var rejected *functions.RejectError
	if errors.As(err, &rejected) {
		return
	}
	if err != nil {
		tb.Errorf("event %s %s: %v", e.Source(), e.ID(), err)
		return
	}
	for n, deadline := 0, time.Now().Add(time.Minute); ; n++ {
		receipt, err := c.writer.Commit(tb.Context(), sinkwriter.Offer{Function: f.Name, Version: f.Version, Event: e, Effects: fx})
		switch {
		case err == nil && receipt.Diverged:
			tb.Errorf("event %s %s diverged", e.Source(), e.ID())
			return
		case err == nil:
			if receipt.Won {
				c.won.Add(1)
			}
			return
		case errors.As(err, &rejected) || n > 1000 && time.Now().After(deadline):
			tb.Errorf("event %s %s: %v", e.Source(), e.ID(), err)
			return
		}
	}
}

// race lets both clusters handle all events, each in an order of its own, many at
// a time.
func race(tb testing.TB, pool *pgxpool.Pool, events []event.Event, seed uint64) (east, west *cluster) {
	tb.Helper()
	east, west = newCluster(tb, "east", pool), newCluster(tb, "west", pool)
	var all sync.WaitGroup
	for i, c := range []*cluster{east, west} {
		queue := make(chan event.Event, len(events))
		mine := slices.Clone(events)
		rand.New(rand.NewPCG(seed, uint64(i))).Shuffle(len(mine), func(a, b int) { mine[a], mine[b] = mine[b], mine[a] })
		for _, e := range mine {
			queue <- e
		}
		close(queue)
		for range 24 {
			all.Go(func() {
				for e := range queue {
					c.handle(tb, e)
				}
			})
		}
	}
	all.Wait()
	return east, west
}

// state is the content of the chat, by room, and by room and member.
type state struct {
	Messages map[string][]string // author and text, in the order of the history
	Counted  map[string]int
	Names    map[string]string
	Members  map[string]bool // including the deleted ones
	Unread   map[string]int
}

func newState() *state {
	return &state{map[string][]string{}, map[string]int{}, map[string]string{}, map[string]bool{}, map[string]int{}}
}

func stored(tb testing.TB, pool *pgxpool.Pool) *state {
	tb.Helper()
	s := newState()
	read := func(sql string, into []any, each func()) {
		rows, err := pool.Query(tb.Context(), sql)
		if err != nil {
			tb.Fatal(err)
		}
		if _, err := pgx.ForEachRow(rows, into, func() error { each(); return nil }); err != nil {
			tb.Fatal(err)
		}
	}
	var room, a, b string
	var n int
	var deleted bool
	read("select room, author, text from chat_messages order by room, message", []any{&room, &a, &b}, func() {
		s.Messages[room] = append(s.Messages[room], a+": "+b)
	})
	read("select room, messages from chat_rooms", []any{&room, &n}, func() { s.Counted[room] = n })
	read("select room, name from chat_names", []any{&room, &a}, func() { s.Names[room] = a })
	read("select room, member, unread, deleted from chat_members", []any{&room, &a, &n, &deleted}, func() {
		s.Members[room+"/"+a], s.Unread[room+"/"+a] = !deleted, n
	})
	return s
}

// expected returns the expected content, computed from all events at once.
func expected(tb testing.TB, events []event.Event) *state {
	tb.Helper()
	type said struct{ id, author, text string }
	history := map[string][]said{}
	markers := map[string]string{}
	names := map[string]string{} // version and name
	changed := map[string]time.Time{}
	s := newState()
	for _, e := range events {
		var d struct {
			Room, Author, Text, Member, Message, Name string
			Version                                   int
		}
		if err := json.Unmarshal(e.Data(), &d); err != nil {
			tb.Fatal(err)
		}
		member := d.Room + "/" + d.Member
		if e.Type() != chat.Named {
			s.Counted[d.Room] += 0
		}
		switch e.Type() {
		case chat.Posted:
			history[d.Room] = append(history[d.Room], said{functions.ID(e, "message"), d.Author, d.Text})
			s.Counted[d.Room]++
		case chat.Read:
			markers[member] = max(markers[member], d.Message)
		case chat.Named:
			// If versions are equal, the greater row is kept, and so the greater
			// name.
			if v := fmt.Sprintf("%09d %s", d.Version, d.Name); v > names[d.Room] {
				names[d.Room], s.Names[d.Room] = v, d.Name
			}
		case chat.Joined, chat.Left:
			if e.Time().After(changed[member]) {
				changed[member], s.Members[member] = e.Time(), e.Type() == chat.Joined
			}
			if e.Type() == chat.Joined {
				markers[member] = max(markers[member], uuidAt(e.Time()))
			}
		}
	}
	for room, messages := range history {
		slices.SortFunc(messages, func(a, b said) int { return strings.Compare(a.id, b.id) })
		for _, m := range messages {
			s.Messages[room] = append(s.Messages[room], m.author+": "+m.text)
		}
	}
	for member, in := range s.Members {
		s.Unread[member] = 0
		room, name, _ := strings.Cut(member, "/")
		for _, m := range history[room] {
			if in && m.id > markers[member] && m.author != name {
				s.Unread[member]++
			}
		}
	}
	return s
}

func uuidAt(at time.Time) string {
	text := fmt.Sprintf("%012x", at.UnixMilli())
	return text[:8] + "-" + text[8:] + "-7000-8000-000000000000"
}

// team generates n events of a team in some rooms, no two of a member's at the
// same time.
func team(random *rand.Rand, n int) []event.Event {
	rooms := []string{"ops", "dev", "lunch"}
	members := []string{"Ann", "Bob", "Cid", "Dot", "Eve"}
	at := time.Date(2026, 3, 2, 8, 0, 0, 0, time.UTC)
	var events []event.Event
	lastMessages := map[string][]string{}
	for i := range n {
		at = at.Add(time.Duration(1+random.IntN(5000)) * time.Millisecond)
		e := event.New()
		e.SetSource("/chat/" + []string{"east", "west"}[random.IntN(2)])
		e.SetID(fmt.Sprint(i))
		e.SetTime(at)
		// Most are in one room, so that there is contention.
		room := rooms[min(random.IntN(6), 5)/2*random.IntN(2)]
		member := members[random.IntN(len(members))]
		data := map[string]any{"room": room, "member": member}
		switch k := random.IntN(20); {
		case i < len(rooms)*len(members):
			e.SetType(chat.Joined)
			data = map[string]any{"room": rooms[i%len(rooms)], "member": members[i/len(rooms)]}
		case k < 11:
			e.SetType(chat.Posted)
			data = map[string]any{"room": room, "author": member, "text": fmt.Sprint("message ", i)}
			lastMessages[room] = append(lastMessages[room], functions.ID(e, "message"))
		case k < 16 && len(lastMessages[room]) > 0:
			e.SetType(chat.Read)
			data["message"] = lastMessages[room][random.IntN(len(lastMessages[room]))]
		case k < 18:
			e.SetType(chat.Named)
			// Occasionally two with the same version: the room is renamed in both
			// regions at once.
			data = map[string]any{"room": room, "name": fmt.Sprint("Room ", i), "version": 1 + i/10}
		case k < 19:
			e.SetType(chat.Left)
		default:
			e.SetType(chat.Joined)
		}
		if err := e.SetData(event.ApplicationJSON, data); err != nil {
			panic(err)
		}
		events = append(events, e)
	}
	return events
}

func TestCountersAreExactInWhateverOrderTwoClustersGetTheEvents(t *testing.T) {
	t.Parallel()

	for range 3 {
		seed := rand.Uint64N(1_000_000)
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()

			events := team(rand.New(rand.NewPCG(seed, seed)), 600)
			pool := newPool(t)
			east, west := race(t, pool, events, seed)
			if got := east.won.Load() + west.won.Load(); got != int64(len(events)) {
				t.Errorf("%d events were won, want %d", got, len(events))
			}
			want := expected(t, events)
			if diff := cmp.Diff(want, stored(t, pool)); diff != "" {
				t.Errorf("the chat is (-want +got):\n%s", diff)
			}
			unread := slices.Sorted(maps.Values(want.Unread))
			t.Logf("east won %d, west %d; unread %v", east.won.Load(), west.won.Load(), unread)
			if unread[len(unread)-1] == 0 {
				t.Error("nobody has unread messages, so nothing was shown")
			}
			if n := one[int](t, pool, "select count(*) from tandem.divergence"); n != 0 {
				t.Errorf("%d events diverged", n)
			}
			if n := deadlocks(t, pool); n != 0 {
				t.Errorf("%d deadlocks, want none: the locks of rooms are taken in one order", n)
			}
		})
	}
}

func one[T any](tb testing.TB, pool *pgxpool.Pool, sql string) T {
	tb.Helper()
	var v T
	if err := pool.QueryRow(tb.Context(), sql).Scan(&v); err != nil {
		tb.Fatal(err)
	}
	return v
}

// deadlocks returns their number since the database was created. A connection
// reports its own when it ends.
func deadlocks(tb testing.TB, pool *pgxpool.Pool) int64 {
	tb.Helper()
	pool.Reset()
	sinktest.Eventually(tb, "connections end", func() bool {
		return one[int](tb, pool, `
		select count(*) from pg_stat_activity
		where datname = current_database() and backend_type = 'client backend' and pid <> pg_backend_pid()`) == 0
	})
	return one[int64](tb, pool, "select deadlocks from pg_stat_database where datname = current_database()")
}

func TestTestDataLeaveWhatTheySay(t *testing.T) {
	t.Parallel()

	events := functionstest.Events(t, "../../functions/chat/testdata/events.json")
	pool := newPool(t)
	race(t, pool, events, 1)
	want := newState()
	want.Messages["ops"] = []string{
		"Bob: The time is in the id.", "Ann: Who has the <pager>?", "Bob: Ich. Grüße aus dem Süden 👋",
	}
	want.Counted["ops"] = 3
	want.Names["ops"] = "Pager duty" // of two with version 2, the greater text
	want.Members["ops/Ann"], want.Members["ops/Bob"] = false, true
	want.Unread["ops/Ann"], want.Unread["ops/Bob"] = 0, 1
	if diff := cmp.Diff(want, stored(t, pool)); diff != "" {
		t.Errorf("the chat is (-want +got):\n%s", diff)
	}
}

func TestManyUnreadMessagesAreCountedToALimit(t *testing.T) {
	t.Parallel()

	at := time.Date(2026, 3, 2, 8, 0, 0, 0, time.UTC)
	var events []event.Event
	add := func(eventType string, data map[string]any) {
		e := event.New()
		e.SetSource("/chat/east")
		e.SetID(fmt.Sprint(len(events)))
		e.SetType(eventType)
		at = at.Add(time.Second)
		e.SetTime(at)
		if err := e.SetData(event.ApplicationJSON, data); err != nil {
			t.Fatal(err)
		}
		events = append(events, e)
	}
	add(chat.Joined, map[string]any{"room": "ops", "member": "Ann"})
	for range 1010 {
		add(chat.Posted, map[string]any{"room": "ops", "author": "Bob", "text": "x"})
	}
	pool := newPool(t)
	race(t, pool, events, 1)
	if got := one[int](t, pool, "select unread from chat_members"); got != 1000 {
		t.Errorf("%d are unread, want 1000, which is 1000 or more", got)
	}
}
