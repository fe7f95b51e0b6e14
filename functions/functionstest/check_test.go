package functionstest_test

import (
	"context"
	crand "crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/functions/functionstest"
)

const file = "testdata/events.json"

type ordered struct {
	Lines map[string]int `json:"lines"`
}

// orders returns a function whose effects handle computes.
func orders(handle func(e event.Event, data ordered, fx *functions.Effects) error) functions.Function {
	return functions.Function{
		Name: "orders", Version: "v1", Types: []string{"com.example.ordered"},
		Handle: functions.JSON(func(_ context.Context, e event.Event, data ordered) (functions.Effects, error) {
			var fx functions.Effects
			err := handle(e, data, &fx)
			return fx, err
		}),
	}
}

// sound uses everything that a function may use.
func sound(e event.Event, data ordered, fx *functions.Effects) error {
	at := functions.Time(e)
	order := functions.ID(e, "order")
	fx.Insert("orders", functions.Row{
		"id": order, "number": functions.Int64(e, "order"), "at": at.In(time.FixedZone("here", 7200)), "day": at.Format(time.DateOnly),
		"raw": json.RawMessage(`{"a" : 1}`), "bytes": []byte{0, 1}, "tags": []string{"a", "b"}, "ratio": 0.1, "none": nil, "flag": true,
		"times": []time.Time{at}, "map": map[string]any{"x": 1, "y": []int{2}},
	})
	for i, name := range slices.Sorted(maps.Keys(data.Lines)) {
		fx.Insert("lines", functions.Row{"id": functions.ID(e, "line", i), "order": order, "name": name})
		fx.Add("stock", functions.Row{"name": name}, functions.Row{"count": -data.Lines[name]})
	}
	fx.Upsert("customers", functions.Row{"id": 1, "at": at}, functions.NewestWins("at"))
	fx.Upsert("customers", functions.Row{"id": 1, "at": at}, functions.OldestWins("at"))
	fx.Upsert("customers", functions.Row{"id": 1, "at": at}, functions.Replace())
	fx.Upsert("prices", functions.Row{"id": 1, "high": 450}, functions.Max())
	fx.Upsert("prices", functions.Row{"id": 1, "low": 450}, functions.Min())
	fx.Delete("carts", functions.Row{"id": 1})
	fx.Delete("carts", functions.Row{"id": 1}, functions.Version{Column: "at", Value: at})
	fx.Exec(functions.Statement{Name: "count", SQL: "update counts\n  set n = $1"}, functions.Rand(e, "n").IntN(1000))
	fx.Emit(functions.Output{Type: "com.example.order.stored", Subject: order, Data: data, Extensions: map[string]string{"region": "eu"}})
	fx.Emit(functions.Output{Type: "com.example.order.seen", Data: []byte{0xff}, DataContentType: "application/octet-stream"})
	return nil
}

// recorder records the messages with which a test would fail.
type recorder struct {
	*testing.T
	mu       sync.Mutex
	reported []string
	logged   []string
}

func (r *recorder) Real() *testing.T { return r.T }

func (r *recorder) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reported = append(r.reported, fmt.Sprintf(format, args...))
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}

func (r *recorder) Logf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.logged = append(r.logged, fmt.Sprintf(format, args...))
}

// check returns the report of Check. A Fatalf ends it.
func check(t *testing.T, f functions.Function, events []event.Event) *recorder {
	t.Helper()
	r := &recorder{T: t}
	functionstest.CheckOn(r, f, events)
	return r
}

func TestFunctionThatIsFitPasses(t *testing.T) {
	t.Parallel()
	functionstest.Check(t, orders(sound), functionstest.Events(t, file))
}

func TestCheckMayBeCalledMoreThanOnce(t *testing.T) {
	t.Parallel()
	events := functionstest.Events(t, file)
	for range 2 {
		functionstest.Check(t, orders(sound), events)
	}
	t.Run(`in a subtest, with a "name" (of its own)/and more`, func(t *testing.T) {
		t.Parallel()
		functionstest.Check(t, orders(sound), events)
	})
}

// The planted faults. Package variables, as in real code.
var (
	counter    atomic.Int64
	previous   atomic.Value
	first      sync.Once
	firstID    string
	underWay   atomic.Int64
	startedAt  = time.Now()
	atStart    = os.Getenv("CLUSTER_NAME")
	hostBefore = hostName()
)

func hostName() string {
	name, err := os.Hostname()
	if err != nil {
		return err.Error()
	}
	return name
}

// emit emits a value in the data of an event.
func emit(fx *functions.Effects, value any) {
	fx.Emit(functions.Output{Type: "t", Data: map[string]any{"list": []any{map[string]any{"at": value}}}})
}

func TestEachFaultIsFoundWithItsCause(t *testing.T) {
	t.Parallel()

	tests := []struct {
		name   string
		handle func(e event.Event, data ordered, fx *functions.Effects) error
		cause  string // the beginning of the likely cause
		where  string
	}{
		{"clock", func(_ event.Event, _ ordered, fx *functions.Effects) error {
			emit(fx, time.Now())
			return nil
		}, "the clock", "write or output 0 (emit t), data.list[0].at"},
		{"clock that is only looked at for the date", func(_ event.Event, _ ordered, fx *functions.Effects) error {
			fx.Insert("days", functions.Row{"day": time.Now().UTC().Format(time.DateOnly), "count": 1})
			return nil
		}, "the clock", "write or output 0 (insert into days, first wins), day"},
		{"clock that is only looked at for the year", func(_ event.Event, _ ordered, fx *functions.Effects) error {
			fx.Insert("years", functions.Row{"year": time.Now().UTC().Year()})
			return nil
		}, "the clock", "year"},
		{"clock that decides what is old", func(e event.Event, _ ordered, fx *functions.Effects) error {
			if time.Since(e.Time()) > 50*365*24*time.Hour {
				fx.Delete("x", functions.Row{"n": 1})
			}
			return nil
		}, "the clock", "write or output 0"},
		{"clock that decides from when on", func(_ event.Event, _ ordered, fx *functions.Effects) error {
			if time.Now().Year() >= 2050 {
				fx.Delete("x", functions.Row{"n": 1})
			}
			return nil
		}, "the clock", "write or output 0"},
		{"time since the start", func(_ event.Event, _ ordered, fx *functions.Effects) error {
			fx.Insert("x", functions.Row{"age": time.Since(startedAt)})
			return nil
		}, "the clock", "age"},
		{"random number", func(_ event.Event, _ ordered, fx *functions.Effects) error {
			fx.Insert("x", functions.Row{"n": rand.Int64()})
			return nil
		}, "random", "n"},
		{"coin", func(_ event.Event, _ ordered, fx *functions.Effects) error {
			if rand.IntN(2) == 0 {
				fx.Delete("x", functions.Row{"n": 1})
			}
			return nil
		}, "random", "write or output 0"},
		{"secret number", func(_ event.Event, _ ordered, fx *functions.Effects) error {
			emit(fx, crand.Text())
			return nil
		}, "random", "data.list[0].at"},
		{"order of a map, in writes", func(_ event.Event, data ordered, fx *functions.Effects) error {
			for name, count := range data.Lines {
				fx.Add("stock", functions.Row{"name": name}, functions.Row{"count": count})
			}
			return nil
		}, "the order of a map", "key name"},
		{"order of a map, in outputs", func(_ event.Event, data ordered, fx *functions.Effects) error {
			for name := range data.Lines {
				fx.Emit(functions.Output{Type: "t", Subject: name})
			}
			return nil
		}, "the order of a map", "subject"},
		{"order of a map, in a text", func(_ event.Event, data ordered, fx *functions.Effects) error {
			fx.Insert("x", functions.Row{"names": strings.Join(slices.Collect(maps.Keys(data.Lines)), ",")})
			return nil
		}, "the order of a map", "names"},
		{"order of a map, in a rejection", func(_ event.Event, data ordered, _ *functions.Effects) error {
			return functions.Reject(fmt.Errorf("lines %v", slices.Collect(maps.Keys(data.Lines))))
		}, "the order of a map", "rejection"},
		{"first key of a map", func(_ event.Event, data ordered, fx *functions.Effects) error {
			for name := range data.Lines {
				fx.Insert("x", functions.Row{"name": name})
				break
			}
			return nil
		}, "random numbers, or the first key of a map", "name"},
		{"goroutines that race", func(_ event.Event, data ordered, fx *functions.Effects) error {
			var mu sync.Mutex
			var all sync.WaitGroup
			for _, name := range slices.Sorted(maps.Keys(data.Lines)) {
				all.Go(func() {
					for range rand.IntN(50) { // work with varying duration
						runtime.Gosched()
					}
					mu.Lock()
					defer mu.Unlock()
					fx.Emit(functions.Output{Type: "t", Subject: name})
				})
			}
			all.Wait()
			return nil
		}, "goroutines", "subject"},
		{"environment", func(_ event.Event, _ ordered, fx *functions.Effects) error {
			fx.Insert("x", functions.Row{"tariff": os.Getenv("TARIFF_OF_THE_YEAR")})
			return nil
		}, "the environment, of which it reads TARIFF_OF_THE_YEAR", "tariff"},
		{"environment as a switch", func(_ event.Event, _ ordered, fx *functions.Effects) error {
			if _, ok := os.LookupEnv("WITH_EXTRAS"); ok {
				fx.Insert("x", functions.Row{"n": 1})
			}
			return nil
		}, "the environment, of which it reads WITH_EXTRAS", "write or output 0"},
		{"environment that names the cluster", func(_ event.Event, _ ordered, fx *functions.Effects) error {
			if os.Getenv("TANDEM_CLUSTER") == "east" {
				fx.Insert("x", functions.Row{"n": 1})
			}
			return nil
		}, "the environment, of which it reads TANDEM_CLUSTER", "write or output 0"},
		{"environment as a whole", func(_ event.Event, _ ordered, fx *functions.Effects) error {
			var foreign []string
			for _, setting := range os.Environ() {
				if !strings.HasPrefix(setting, "TANDEM_FUNCTIONSTEST_") {
					foreign = append(foreign, setting)
				}
			}
			slices.Sort(foreign)
			fx.Insert("x", functions.Row{"all": strings.Join(foreign, " ")})
			return nil
		}, "the environment", "all"},
		{"environment, read before main", func(_ event.Event, _ ordered, fx *functions.Effects) error {
			fx.Insert("x", functions.Row{"cluster": atStart})
			return nil
		}, "the environment", "cluster"},
		{"locale", func(_ event.Event, _ ordered, fx *functions.Effects) error {
			fx.Insert("x", functions.Row{"language": os.Getenv("LANG")})
			return nil
		}, "the locale", "language"},
		{"local time", func(e event.Event, _ ordered, fx *functions.Effects) error {
			fx.Insert("x", functions.Row{"at": functions.Time(e).Local().Format(time.DateTime)})
			return nil
		}, "the time zone", "at"},
		{"local time, of which only the date is taken", func(e event.Event, _ ordered, fx *functions.Effects) error {
			fx.Insert("x", functions.Row{"day": functions.Time(e).Local().Format(time.DateOnly)})
			return nil
		}, "the time zone", "day"},
		{"time that is parsed as local", func(_ event.Event, _ ordered, fx *functions.Effects) error {
			at, err := time.ParseInLocation(time.DateTime, "2026-07-01 12:00:00", time.Local)
			fx.Insert("x", functions.Row{"at": at})
			return err
		}, "the time zone", "at"},
		{"number of calls", func(_ event.Event, _ ordered, fx *functions.Effects) error {
			fx.Insert("x", functions.Row{"n": counter.Add(1)})
			return nil
		}, "state that is kept", "n"},
		{"event before", func(e event.Event, _ ordered, fx *functions.Effects) error {
			if before, ok := previous.Swap(e.ID()).(string); ok && before != e.ID() {
				fx.Insert("x", functions.Row{"before": before})
			}
			return nil
		}, "state that is kept", "write or output 0"},
		{"first event of all", func(e event.Event, _ ordered, fx *functions.Effects) error {
			first.Do(func() { firstID = e.ID() })
			fx.Insert("x", functions.Row{"first": firstID})
			return nil
		}, "state that is kept", "first"},
		{"state that only concurrent calls see", func(_ event.Event, _ ordered, fx *functions.Effects) error {
			alone := underWay.Add(1) == 1
			defer underWay.Add(-1)
			for range 100 {
				runtime.Gosched()
			}
			fx.Insert("x", functions.Row{"alone": alone})
			return nil
		}, "a variable that concurrent calls share", "alone"},
		{"process id", func(_ event.Event, _ ordered, fx *functions.Effects) error {
			fx.Insert("x", functions.Row{"pid": os.Getpid()})
			return nil
		}, "something that differs between processes", "pid"},
		{"seed of the process", func(_ event.Event, _ ordered, fx *functions.Effects) error {
			fx.Insert("x", functions.Row{"n": processSeed})
			return nil
		}, "something that differs between processes", "n"},
		{"text of an error", func(_ event.Event, _ ordered, _ *functions.Effects) error {
			return functions.Reject(fmt.Errorf("at %s", time.Now()))
		}, "the clock", "rejection"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			events := functionstest.Events(t, file)[:2]
			got := check(t, orders(tt.handle), events)
			if len(got.reported) == 0 {
				t.Fatal("it passes")
			}
			text := got.reported[0]
			if !strings.Contains(text, "likely cause: "+tt.cause) {
				t.Errorf("want the likely cause to begin with %q", tt.cause)
			}
			_, where, _ := strings.Cut(text, "where:")
			if where, _, _ = strings.Cut(where, "\n"); !strings.HasSuffix(where, tt.where) && !strings.HasSuffix(tt.where, strings.TrimSpace(where)) {
				t.Errorf("want the place to end with %q", tt.where)
			}
			if !strings.Contains(text, `event 1 of 2 (source "/orders", id "1", type "com.example.ordered")`) && !strings.Contains(text, "event 2 of 2") {
				t.Error("no event is named")
			}
			if t.Failed() {
				t.Log(text)
			}
		})
	}
}

var processSeed = rand.Int64()

func TestHostNameIsFoundOrSaidNotToBeTried(t *testing.T) {
	t.Parallel()

	for name, handle := range map[string]func(fx *functions.Effects){
		"asked each time": func(fx *functions.Effects) { fx.Insert("x", functions.Row{"host": hostName()}) },
		"asked once":      func(fx *functions.Effects) { fx.Insert("x", functions.Row{"host": hostBefore}) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			got := check(t, orders(func(_ event.Event, _ ordered, fx *functions.Effects) error {
				handle(fx)
				return nil
			}), functionstest.Events(t, file)[:2])
			binary, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			switch text := strings.Join(got.reported, "\n"); {
			case functionstest.OwnHostPossible(t.Context(), binary) != nil:
				if log := strings.Join(got.logged, "\n"); !strings.Contains(log, "another host name was not tried") {
					t.Errorf("the log does not say that it was not tried: %s", log)
				}
			case !strings.Contains(text, "likely cause: the host name") || !strings.Contains(text, `then:         "tandem-functionstest"`):
				t.Errorf("it reports %q", text)
			}
		})
	}
}

func TestCheckReportsAFunctionThatBreaks(t *testing.T) {
	t.Parallel()

	tests := []struct {
		name   string
		handle func(e event.Event, data ordered, fx *functions.Effects) error
		says   string
	}{
		{"panic", func(event.Event, ordered, *functions.Effects) error {
			panic("out of ideas")
		}, "it panicked: out of ideas\ngoroutine "},
		{"error", func(event.Event, ordered, *functions.Effects) error {
			return errors.New("no idea")
		}, "it returned an error that is not a rejection: no idea"},
		{"output without a type", func(_ event.Event, _ ordered, fx *functions.Effects) error {
			fx.Emit(functions.Output{})
			return nil
		}, "create output 0 of function orders, type \"\": type: missing"},
		{"value that is none", func(_ event.Event, _ ordered, fx *functions.Effects) error {
			fx.Insert("x", functions.Row{"f": func() {}})
			return nil
		}, "write 0, table x: column f: value of type func() has no plain form"},
		{"argument that is none", func(_ event.Event, _ ordered, fx *functions.Effects) error {
			fx.Exec(functions.Statement{Name: "s", SQL: "select 1"}, []any{make(chan int)})
			return nil
		}, "value of type chan int has no plain form"},
		{"rule that is none", func(_ event.Event, _ ordered, fx *functions.Effects) error {
			fx.Upsert("x", functions.Row{"a": 1}, functions.Rule{})
			return nil
		}, "there is no operation 0"},
		{"data that it changes", func(e event.Event, _ ordered, _ *functions.Effects) error {
			e.DataEncoded[0] = ' '
			return nil
		}, "it changed the data of its event"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			got := check(t, orders(tt.handle), functionstest.Events(t, file)[:1])
			if len(got.reported) != 1 || !strings.Contains(got.reported[0], "function orders fails on event 1 of 1") || !strings.Contains(got.reported[0], tt.says) {
				t.Errorf("it reports %q\nwant %q", got.reported, tt.says)
			}
		})
	}
}

func TestCheckRefusesWhatProvesNothing(t *testing.T) {
	t.Parallel()

	events := functionstest.Events(t, file)
	other := events[0].Clone()
	other.SetType("com.example.other")
	nameless := orders(sound)
	nameless.Name = ""
	for name, tt := range map[string]struct {
		f      functions.Function
		events []event.Event
		says   string
	}{
		"no events":           {orders(sound), nil, "check function orders: there are no events"},
		"another type":        {orders(sound), []event.Event{events[0], other}, "event 2 of 2"},
		"function of no name": {nameless, events, "check declare function"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			got := check(t, tt.f, tt.events)
			if len(got.reported) != 1 || !strings.Contains(got.reported[0], tt.says) {
				t.Errorf("it reports %q, want %q", got.reported, tt.says)
			}
		})
	}
}

func TestOnlyTheFirstEventsAreReported(t *testing.T) {
	t.Parallel()

	var events []event.Event
	for i := range 10 {
		e := functionstest.Events(t, file)[0].Clone()
		e.SetID(fmt.Sprint(i))
		events = append(events, e)
	}
	got := check(t, orders(func(_ event.Event, _ ordered, fx *functions.Effects) error {
		emit(fx, strings.Repeat("long", 100)+time.Now().String())
		return nil
	}), events)
	if len(got.reported) != 4 || !strings.Contains(got.reported[3], "the same applies to 7 more of 10 events") {
		t.Errorf("it reports %q", got.reported)
	}
	if len(got.reported[0]) > 1000 {
		t.Errorf("the report has %d bytes: %s", len(got.reported[0]), got.reported[0])
	}
}

func TestTestThatDoesNotComeToCheckAgainIsTold(t *testing.T) {
	t.Parallel()

	if os.Getenv("TANDEM_FUNCTIONSTEST_NAME") != "" {
		t.Skip("this way the second time")
	}
	done := make(chan *recorder)
	go func() {
		r := &recorder{T: t}
		defer func() { done <- r }()
		functionstest.CheckOn(r, orders(sound), functionstest.Events(t, file))
	}()
	got := <-done
	if len(got.reported) != 1 || !strings.Contains(got.reported[0], "did not reach this call of Check") {
		t.Errorf("it reports %q", got.reported)
	}
}
