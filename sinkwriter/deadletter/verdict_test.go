package deadletter_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tandem-fn/tandem/eventing/devcluster/sinktest"
	"github.com/tandem-fn/tandem/sinkwriter/deadletter"
)

func TestVerdicts(t *testing.T) {
	t.Parallel()

	type at struct{ hedge, age string }
	racing, standby := at{hedge: "0"}, at{hedge: "standby"}
	gone := at{hedge: "0", age: "61 minutes"}
	tests := []struct {
		name    string
		sources map[string]at
		refused []string
		handled bool
		want    string
	}{
		{name: "refused everywhere", sources: map[string]at{"east": racing, "west": racing}, refused: []string{"east", "west"}, want: "poison"},
		{name: "another one has not come to it", sources: map[string]at{"east": racing, "west": racing}, refused: []string{"east"}, want: "undecided"},
		{name: "another one handled it", sources: map[string]at{"east": racing, "west": racing}, refused: []string{"east"}, handled: true, want: "sick cluster"},
		{name: "refused everywhere, and handled after that", sources: map[string]at{"east": racing, "west": racing}, refused: []string{"east", "west"}, handled: true, want: "sick cluster"},
		{name: "who is on standby has no say", sources: map[string]at{"east": racing, "west": standby}, refused: []string{"east"}, want: "poison"},
		{name: "who hedges has", sources: map[string]at{"east": racing, "west": {hedge: "300ms"}}, refused: []string{"east"}, want: "undecided"},
		{name: "who is gone for an hour has none", sources: map[string]at{"east": racing, "west": gone}, refused: []string{"east"}, want: "poison"},
		{name: "who refused it and is gone is not missed", sources: map[string]at{"east": racing, "west": gone}, refused: []string{"east", "west"}, want: "poison"},
		{name: "nobody is at work", sources: map[string]at{"east": gone, "west": standby}, refused: []string{"east"}, want: "undecided"},
		{name: "nobody ever saved progress", refused: []string{"east"}, want: "undecided"},
	}
	pool := sinktest.NewDatabase(t)
	for i, tt := range tests {
		// Each with a function of its own, so that one database is enough.
		function, id := fmt.Sprintf("f%d", i), fmt.Sprintf("e-%d", i)
		for cluster, s := range tt.sources {
			if s.age == "" {
				s.age = "1 second"
			}
			sinktest.Execute(t, pool, `insert into tandem.progress (cluster, function, stream, epoch, floor, hedge, saved_at)
				values ($1, $2, 'EVENTS', 'e', 1, $3, now() - $4::text::interval)`, cluster, function, s.hedge, s.age)
		}
		for _, cluster := range tt.refused {
			saveLetter(t, pool, cluster, deadletter.Letter{Function: function, Event: sinktest.NewEvent(id)})
		}
		if tt.handled {
			sinktest.Execute(t, pool, `insert into tandem.ledger (writer, key, digest) values (1, tandem.key($1, '/test', $2), '\x00')`, function, id)
		}
		if got := sinktest.Query[string](t, pool, `select verdict from tandem.verdict where function = $1`, function); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestDeadLettersAreFoundByWhatIsKnownOfThem(t *testing.T) {
	t.Parallel()

	pool := sinktest.NewDatabase(t)
	for i := range 5 {
		saveLetter(t, pool, "east", deadletter.Letter{Function: "orders", Event: sinktest.NewEvent(fmt.Sprintf("o-%d", i)), Code: 422, Reason: fmt.Sprintf("Amount %d: negative", i), Attempts: 1})
	}
	saveLetter(t, pool, "west", deadletter.Letter{Function: "orders", Event: sinktest.NewEvent("o-3"), Code: 500, Reason: "panic", Attempts: 7})
	saveLetter(t, pool, "west", deadletter.Letter{Function: "orders", Event: sinktest.NewEvent("o-3"), Code: 500, Reason: "panic", Attempts: 9})
	saveLetter(t, pool, "west", deadletter.Letter{Function: "stock", Event: sinktest.NewEvent("o-4")})
	sinktest.Execute(t, pool, `update tandem.dead_letter set first_at = now() - interval '1 day', last_at = now() - interval '1 day' where id = 'o-0'`)
	yesterday := time.Now().Add(-12 * time.Hour)

	verdicts := deadletter.NewVerdicts(pool)
	for _, tt := range []struct {
		name   string
		filter deadletter.Filter
		want   []string
	}{
		{name: "all", want: []string{"orders o-0", "orders o-1", "orders o-2", "orders o-3", "orders o-4", "stock o-4"}},
		{name: "function", filter: deadletter.Filter{Function: "stock"}, want: []string{"stock o-4"}},
		{name: "identity", filter: deadletter.Filter{Source: "/test", ID: "o-4"}, want: []string{"orders o-4", "stock o-4"}},
		{name: "another source", filter: deadletter.Filter{Source: "/other"}},
		{name: "type", filter: deadletter.Filter{Type: "com.example.order.placed", ID: "o-1"}, want: []string{"orders o-1"}},
		{name: "cluster", filter: deadletter.Filter{Cluster: "west"}, want: []string{"orders o-3", "stock o-4"}},
		{name: "code of the last", filter: deadletter.Filter{Code: 500}, want: []string{"orders o-3"}},
		{name: "reason in any case", filter: deadletter.Filter{Reason: "amount 2"}, want: []string{"orders o-2"}},
		{name: "reason is no pattern", filter: deadletter.Filter{Reason: "amount%"}},
		{name: "verdict", filter: deadletter.Filter{Verdict: deadletter.VerdictPoison}},
		{name: "since", filter: deadletter.Filter{Function: "orders", Since: yesterday}, want: []string{"orders o-1", "orders o-2", "orders o-3", "orders o-4"}},
		{name: "until", filter: deadletter.Filter{Until: yesterday}, want: []string{"orders o-0"}},
	} {
		var got []string
		var after *deadletter.Event
		for { // two at a time
			list, err := verdicts.List(t.Context(), tt.filter, after, 2)
			if err != nil {
				t.Fatalf("%s: %v", tt.name, err)
			}
			for _, e := range list {
				got = append(got, e.Function+" "+e.ID)
				after = &e
			}
			if len(list) < 2 {
				break
			}
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}

	list, err := verdicts.List(t.Context(), deadletter.Filter{ID: "o-3"}, nil, 10)
	if err != nil || len(list) != 1 {
		t.Fatalf("%v, %v", list, err)
	}
	got := list[0]
	got.FirstAt, got.LastAt = time.Time{}, time.Time{}
	want := deadletter.Event{
		Function: "orders", Source: "/test", ID: "o-3", Type: "com.example.order.placed", Clusters: []string{"east", "west"},
		Verdict: "undecided", Code: 500, Reason: "panic", Attempts: 10, Times: 3,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("event (-want +got):\n%s", diff)
	}
}

func TestADeadLetterThatWasHandedInAgainIsNotDropped(t *testing.T) {
	t.Parallel()

	pool := sinktest.NewDatabase(t)
	verdicts := deadletter.NewVerdicts(pool)
	letter := deadletter.Letter{Function: "orders", Event: sinktest.NewEvent("o-1"), Code: 422}
	saveLetter(t, pool, "east", letter)
	read, err := verdicts.Read(t.Context(), "orders", "/test", "o-1")
	if err != nil || len(read) != 1 {
		t.Fatalf("%v, %v", read, err)
	}
	var e struct{ ID, Source, Time string }
	if err := json.Unmarshal(read[0].Event, &e); err != nil || e.ID != "o-1" || e.Source != "/test" || e.Time != "2001-01-02T03:04:05Z" {
		t.Errorf("event %s, %v", read[0].Event, err)
	}

	drop := func(want int64) {
		t.Helper()
		if n, err := verdicts.Drop(t.Context(), "orders", "/test", "o-1", read); n != want || err != nil {
			t.Errorf("dropped %d, %v, want %d", n, err, want)
		}
	}
	saveLetter(t, pool, "east", letter)
	saveLetter(t, pool, "west", letter)
	drop(0)
	if read, err = verdicts.Read(t.Context(), "orders", "/test", "o-1"); err != nil || len(read) != 2 {
		t.Fatalf("%v, %v", read, err)
	}
	drop(2)
	if _, err := verdicts.Read(t.Context(), "orders", "/test", "o-1"); !errors.Is(err, deadletter.ErrNotFound) {
		t.Errorf("error %v", err)
	}
	drop(0)
}

func saveLetter(t *testing.T, pool *pgxpool.Pool, cluster string, letter deadletter.Letter) {
	t.Helper()

	if err := deadletter.NewStore(pool, cluster).Save(t.Context(), letter); err != nil {
		t.Fatal(err)
	}
}
