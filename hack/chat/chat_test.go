package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/tandem-fn/tandem/eventing/devcluster"
	"github.com/tandem-fn/tandem/eventing/devcluster/pgtest"
	"github.com/tandem-fn/tandem/eventing/devcluster/supervisor"
	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/functions/chat"
)

// A wait fails after patience and this many attempts: on a busy machine each attempt takes
// longer, too.
const (
	patience = 2 * time.Minute
	tries    = 1000
)

// TestMain lets the test binary be the program that serves a page.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "push" {
		main()
		return
	}
	os.Exit(m.Run())
}

// startRun starts everything except PostgreSQL, which the tests provide.
func startRun(t *testing.T) *run {
	t.Helper()
	r, err := newRun(options{dir: pgtest.Dir(t), ports: freePorts(t), databaseURL: pgtest.URL(t)}, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			logs, _ := filepath.Glob(filepath.Join(r.o.dir, "log", "*"))
			for _, log := range logs {
				text, _ := os.ReadFile(log)
				t.Logf("%s: %s", filepath.Base(log), text[max(0, len(text)-2000):])
			}
		}
		r.Stop(t.Context())
	})
	if err := r.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.introduce()
	return r
}

// freePorts returns the first of the free ports that a run needs.
func freePorts(t *testing.T) int {
	t.Helper()
	first, err := devcluster.FreePorts(3 * devcluster.PortStep)
	if err != nil {
		t.Fatal(err)
	}
	return first
}

// user is a person with a browser. Like the page, it reconnects when necessary,
// and sends again the events that were not answered.
type user struct {
	name, url string

	mu     sync.Mutex
	conn   *websocket.Conn
	unsent map[string]string // by id
	seen   map[string]int    // how often an event was received on this connection
	again  []string          // events that were received more than once on one connection
	events map[string]pushed // by source and id
	failed []string
}

type pushed struct {
	Specversion, Source, ID, Type string
	Stored, Failed, Reason        string
	Data                          struct {
		Room, Message, Author, Text, Name, Member string
		In                                        bool
	}
}

// goTo sets the side to which the user connects next.
func (u *user) goTo(pageURL string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.url = "ws" + strings.TrimPrefix(pageURL, "http") + "/ws?room=ops&member=" + u.name
}

// newUser opens the page of a side.
func newUser(t *testing.T, pageURL, name string) *user {
	t.Helper()
	u := &user{name: name, unsent: map[string]string{}, events: map[string]pushed{}}
	u.goTo(pageURL)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			u.connect(ctx, pageURL)
			time.Sleep(20 * time.Millisecond)
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return u
}

// connect reads the pushed events until the connection ends.
func (u *user) connect(ctx context.Context, origin string) {
	u.mu.Lock()
	to := u.url
	u.mu.Unlock()
	conn, resp, err := websocket.Dial(ctx, to, &websocket.DialOptions{HTTPHeader: http.Header{"Origin": {origin}}})
	if err != nil {
		if resp != nil && resp.Body != nil {
			_ = resp.Body.Close()
		}
		return
	}
	defer conn.CloseNow() //nolint:errcheck // it has ended
	conn.SetReadLimit(1 << 20)
	u.mu.Lock()
	u.conn, u.seen = conn, map[string]int{}
	for _, text := range u.unsent {
		_ = conn.Write(ctx, websocket.MessageText, []byte(text))
	}
	u.mu.Unlock()
	for {
		_, text, err := conn.Read(ctx)
		if err != nil {
			return
		}
		u.take(text)
	}
}

func (u *user) take(text []byte) {
	u.mu.Lock()
	defer u.mu.Unlock()
	var p pushed
	if err := json.Unmarshal(text, &p); err != nil {
		u.failed = append(u.failed, err.Error())
		return
	}
	switch {
	case p.Specversion != "":
		key := p.Source + " " + p.ID
		if u.seen[key]++; u.seen[key] == 2 {
			u.again = append(u.again, key)
		}
		u.events[key] = p
	case p.Stored != "":
		delete(u.unsent, p.Stored)
	case p.Failed != "":
		// The event was not stored in time: the user presses the button again.
		if slices.ContainsFunc([]string{"answers 5", `Post "`, "deadline exceeded", "not stored yet"}, func(part string) bool { return strings.Contains(p.Reason, part) }) {
			_ = u.conn.Write(context.Background(), websocket.MessageText, []byte(u.unsent[p.Failed]))
			return
		}
		u.failed = append(u.failed, p.Reason)
		delete(u.unsent, p.Failed)
	}
}

func (u *user) send(t *testing.T, eventType string, data map[string]any) {
	t.Helper()
	e := event.New()
	e.SetSource("/tests")
	e.SetID(fmt.Sprint(rand.Int64()))
	e.SetTime(time.Now())
	id := functions.ID(e, "request")
	text, err := json.Marshal(map[string]any{"id": id, "type": eventType, "data": data})
	if err != nil {
		t.Fatal(err)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.unsent[id] = string(text)
	if u.conn != nil {
		_ = u.conn.Write(t.Context(), websocket.MessageText, text) // otherwise when it reconnects
	}
}

// history returns the messages in the room as the user sees them, oldest first.
func (u *user) history() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	var messages []pushed
	for _, p := range u.events {
		if p.Type == chat.PushMessage {
			messages = append(messages, p)
		}
	}
	slices.SortFunc(messages, func(a, b pushed) int { return strings.Compare(a.Data.Message, b.Data.Message) })
	texts := make([]string, len(messages))
	for i, m := range messages {
		texts[i] = m.Data.Author + ": " + m.Data.Text
	}
	return texts
}

// names returns the names of the room, and the members who joined.
func (u *user) names() (rooms, members []string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, p := range u.events {
		switch {
		case p.Type == chat.PushName:
			rooms = append(rooms, p.Data.Name)
		case p.Type == chat.PushMember && p.Data.In:
			members = append(members, p.Data.Member)
		}
	}
	slices.Sort(rooms)
	slices.Sort(members)
	return rooms, members
}

// answered reports whether all its requests were answered.
func (u *user) answered() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.unsent) == 0
}

func (u *user) lastMessage() (id string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, p := range u.events {
		id = max(id, p.Data.Message)
	}
	return id
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	begin := time.Now()
	for n := 1; !ok(); n++ {
		if n > tries && time.Since(begin) > patience {
			t.Fatalf("%s: not within %s, in %d tries", what, time.Since(begin).Round(time.Second), n)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func kill(t *testing.T, p *supervisor.Process) {
	t.Helper()
	await(t, p.Name()+" runs", func() bool { return p.Pid() != 0 })
	if err := p.Kill(syscall.SIGKILL); err != nil {
		t.Logf("%s had ended already: %v", p.Name(), err)
	}
}

func TestTwoBrowsersChatWhileProcessesAreKilled(t *testing.T) {
	t.Parallel()

	r := startRun(t)
	ann, bob := newUser(t, r.sides[0].URL, "Ann"), newUser(t, r.sides[1].URL, "Bob")
	both := []*user{ann, bob}
	for _, u := range both {
		u.send(t, chat.Joined, nil)
	}
	await(t, "both see that both are in", func() bool {
		_, a := ann.names()
		_, b := bob.names()
		return len(a) == 2 && len(b) == 2
	})

	const sent = 40
	var want []string
	for i := range sent {
		u := both[i%2]
		u.send(t, chat.Posted, map[string]any{"text": fmt.Sprint("message ", i)})
		want = append(want, fmt.Sprintf("%s: message %d", u.name, i))
		switch i {
		case 8:
			kill(t, r.Clusters()[0].Function)
		case 16:
			kill(t, r.pages[1])
		case 24:
			kill(t, r.Clusters()[1].Source)
		case 32:
			r.Clusters()[0].Vanish() // except the page, which stays
			ann.goTo(r.sides[1].URL)
			kill(t, r.pages[0]) // so that Ann switches to the west
		}
		// One after the other, so that both clocks, and so the order, are known.
		await(t, "both see message "+fmt.Sprint(i), func() bool {
			return len(ann.history()) == len(want) && len(bob.history()) == len(want)
		})
	}
	for _, u := range both {
		if diff := cmp.Diff(want, u.history()); diff != "" {
			t.Errorf("%s sees (-want +got):\n%s", u.name, diff)
		}
	}

	// Both rename it at once.
	ann.send(t, chat.Named, map[string]any{"name": "Pager duty", "version": 1})
	bob.send(t, chat.Named, map[string]any{"name": "On call", "version": 1})
	ann.send(t, chat.Read, map[string]any{"message": ann.lastMessage()})
	await(t, "both see both names", func() bool {
		a, _ := ann.names()
		b, _ := bob.names()
		return len(a) == 2 && len(b) == 2
	})
	await(t, "all events are stored", func() bool {
		return query(t, r.o.databaseURL, "select name from chat_names") == "Pager duty" &&
			query(t, r.o.databaseURL, "select string_agg(member || ' ' || unread, ', ' order by member) from chat_members") == fmt.Sprintf("Ann 0, Bob %d", sent/2)
	})
	await(t, "all that was sent is answered", func() bool { return ann.answered() && bob.answered() })
	if got := query(t, r.o.databaseURL, "select format('%s messages, %s dead letters, %s divergences', (select count(*) from chat_messages), (select count(*) from tandem.dead_letter), (select count(*) from tandem.divergence))"); got != "40 messages, 0 dead letters, 0 divergences" {
		t.Errorf("there are %s", got)
	}
	for _, u := range both {
		if len(u.again)+len(u.failed) != 0 {
			t.Errorf("%s: twice on a connection %q, refused %q", u.name, u.again, u.failed)
		}
	}
}

func query(t *testing.T, databaseURL, sql string) (text string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())                                                               //nolint:errcheck // only read from
	if err := conn.QueryRow(t.Context(), sql).Scan(&text); err != nil && err != pgx.ErrNoRows { //nolint:errorlint // as it comes from Scan
		t.Fatal(err)
	}
	return text
}

func TestFlagsAreReadOrExplained(t *testing.T) {
	t.Parallel()

	var out bytes.Buffer
	getenv := func(name string) string { return map[string]string{"NATS_URL": "nats://x"}[name] }
	o, err := parseOptions([]string{"--dir", "x", "--ports", "9000"}, getenv, &out)
	if err != nil || o != (options{dir: "x", ports: 9000, natsURL: "nats://x"}) {
		t.Errorf("the options are %+v, error %v", o, err)
	}
	if _, err := parseOptions([]string{"--help"}, getenv, &out); err == nil || !strings.Contains(out.String(), "make chat") {
		t.Errorf("help is %q, error %v", out.String(), err)
	}
	for says, args := range map[string][]string{
		"--help lists the flags":    {"--colour"},
		`unexpected argument "now"`: {"now"},
		"--dir: want a folder":      {"--dir", ""},
		"--ports 65530: want the":   {"--ports", "65530"},
		"--ports 0: want the first": {"--ports", "0"},
	} {
		if _, err := parseOptions(args, getenv, &out); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: error is %v, want it to say %q", args, err, says)
		}
	}
}
