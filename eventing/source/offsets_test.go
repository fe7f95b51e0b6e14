package source_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
	"github.com/tandem-fn/tandem/eventing/internal/offsetstream"
	"github.com/tandem-fn/tandem/eventing/source"
)

// member is a process that reads partitions of a cluster.
type member struct {
	running
	client *offsetstream.Client
}

// startMember starts a source that reads the partitions it is assigned; all without an
// assignment.
func startMember(t *testing.T, s *offsetstream.Server, sink string, p *progress, cfg source.Config, partitions ...int) member {
	t.Helper()

	client := s.Connect()
	if len(partitions) > 0 {
		s.Assign(client, partitions...)
	}
	cfg.Function, cfg.InFlight, cfg.SaveInterval = "flights", 32, saveInterval
	src, err := source.New(client.Streams("east"), eventtest.NewSender(t, sink, sink+"/dead-letters"), p, cfg)
	if err != nil {
		t.Fatal(err)
	}
	stop := run(t, src)
	return member{client: client, running: running{source: src, stop: stop, kill: func() {
		client.Close()
		stop()
	}}}
}

// storeSubjects stores the events with numbers in a range, each in the partition of its
// subject, in batches.
func storeSubjects(t *testing.T, s *offsetstream.Server, partitions, from, to int) {
	t.Helper()

	for n := from; n < to; n += 20 {
		batches := map[int][]event.Event{}
		for i := n; i < min(to, n+20); i++ {
			e := eventtest.NewEvent(fmt.Sprintf("test-%06d", i))
			partition := i % partitions
			if subject := subjectOf(i); subject != "" {
				e.SetSubject(subject)
				partition = int(subject[len(subject)-1]) % partitions
			}
			batches[partition] = append(batches[partition], e)
		}
		for partition, batch := range batches {
			eventtest.Eventually(t, "events are stored", func() bool { return s.Store(partition, batch...) == nil })
		}
	}
}

// caughtUp reports whether the checkpoints of all partitions are at their ends.
func caughtUp(s *offsetstream.Server, p *progress, partitions int) bool {
	for number := range partitions {
		if p.floor(fmt.Sprintf("events/%d", number)) != s.End(number) || s.Committed("east", number) != s.End(number) {
			return false
		}
	}
	return true
}

func TestPartitionsComeAndGoUnderLoad(t *testing.T) {
	t.Parallel()

	for _, ordered := range []bool{false, true} {
		t.Run(fmt.Sprintf("ordered=%t", ordered), func(t *testing.T) {
			t.Parallel()

			const partitions, total = 4, 2000
			s := offsetstream.New("events", partitions)
			j := newJournal(total)
			random := rand.New(rand.NewPCG(1, 2))
			var mu sync.Mutex
			sink := j.functionOf(t, "east", func(int) int {
				mu.Lock()
				fails := random.IntN(100) == 0
				mu.Unlock()
				if fails {
					return http.StatusServiceUnavailable
				}
				return http.StatusNoContent
			})
			p := &progress{}
			cfg := source.Config{Ordered: ordered, Blocked: verdictsOf{"east", j}, Ledger: j, MaxBytes: 1 << 20}
			var storing sync.WaitGroup
			storing.Go(func() {
				for n := 1; n < total; n += 100 {
					storeSubjects(t, s, partitions, n, min(total, n+100))
					time.Sleep(5 * time.Millisecond)
				}
			})
			done := func() int { n, _, _ := j.done(); return n }
			one := startMember(t, s, sink, p, cfg, 0, 1)
			two := startMember(t, s, sink, p, cfg, 2, 3)
			for i, moved := range [][2][]int{{{0, 1, 2, 3}, nil}, {{1}, {0, 2, 3}}, {{3, 0}, {1, 2}}, {nil, {0, 1, 2, 3}}, {{2, 1}, {0, 3}}} {
				at := done()
				s.Assign(one.client, moved[0]...)
				s.Assign(two.client, moved[1]...)
				eventtest.Eventually(t, "events are committed meanwhile", func() bool { return done() >= min(at+50, total-1) })
				if i == 2 {
					two.kill() // and another member takes its partitions
					two = startMember(t, s, sink, p, cfg, 1, 2)
				}
			}
			storing.Wait()
			eventtest.Eventually(t, "all is committed", func() bool { return done() == total-1 })
			eventtest.Eventually(t, "every partition is at its end", func() bool { return caughtUp(s, p, partitions) })
			if _, _, wrong := j.done(); ordered && len(wrong) > 0 {
				t.Errorf("%d events out of order: %s", len(wrong), strings.Join(wrong[:min(len(wrong), 5)], "\n"))
			}
			eventtest.Eventually(t, "it is ready", func() bool { return one.source.Ready() == nil })
		})
	}
}

func TestARevokedPartitionIsNotToldAnythingMore(t *testing.T) {
	t.Parallel()

	s := offsetstream.New("events", 2)
	storeSubjects(t, s, 2, 1, 41)
	f := newFunction(t)
	hold := make(chan struct{})
	var held atomic.Int64
	f.answer(func(_ http.ResponseWriter, _ *http.Request, e event.Event) int {
		if numberOf(e.ID()) > 10 {
			held.Add(1)
			<-hold
		}
		return http.StatusNoContent
	})
	p := &progress{}
	logger, lines := eventtest.Logger()
	m := startMember(t, s, f.url(), p, source.Config{Logger: logger}, 0, 1)
	f.waitFor(t, 10)
	eventtest.Eventually(t, "requests are under way", func() bool { return held.Load() > 20 })
	s.Assign(m.client, 1)
	eventtest.Eventually(t, "the partition is not read any more", func() bool {
		return strings.Contains(strings.Join(lines(), ""), `msg="a stream has left the set; reading it has ended" stream=events/0`)
	})
	committed := s.Committed("east", 0)
	if floor := p.floor("events/0"); floor != committed {
		t.Errorf("the checkpoint is %d, and %d is committed", floor, committed)
	}
	close(hold)
	eventtest.Eventually(t, "the other partition goes on", func() bool { return s.Committed("east", 1) == s.End(1) })
	if now := s.Committed("east", 0); now != committed || now == s.End(0) {
		t.Errorf("committed %d after the partition was revoked at %d", now, committed)
	}
	s.Assign(m.client, 0, 1)
	eventtest.Eventually(t, "its rest is read when it comes back", func() bool { return caughtUp(s, p, 2) })
	f.waitFor(t, 40)
}

func TestASourceOfOffsetsThatIsStoppedKilledOrCutOffLosesNothing(t *testing.T) {
	t.Parallel()

	const partitions, total = 3, 2000
	s := offsetstream.New("events", partitions)
	storeSubjects(t, s, partitions, 1, total)
	f := newFunction(t)
	p := &progress{}
	for i, n := 0, 200; n < total; i, n = i+1, n+200 {
		m := startMember(t, s, f.url(), p, source.Config{})
		f.waitFor(t, n)
		switch i % 3 {
		case 0:
			m.kill()
		case 1:
			m.stop()
		case 2:
			s.Stop()
			s.Restart()
			f.waitFor(t, n+100)
			m.stop()
		}
	}
	startMember(t, s, f.url(), p, source.Config{})
	f.waitFor(t, total-1)
	eventtest.Eventually(t, "every partition is at its end", func() bool { return caughtUp(s, p, partitions) })
}

func TestMessagesThatReplaceLostOnesAreDelivered(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name            string
		running         bool // while the stream is truncated
		busy, forgotten bool
		ordered         bool
	}{
		{name: "running", running: true},
		{name: "running with requests under way", running: true, busy: true},
		{name: "running in order", running: true, busy: true, ordered: true},
		{name: "running below the horizon", running: true, forgotten: true},
		{name: "stopped"},
		{name: "stopped in order", ordered: true},
		{name: "stopped below the horizon", forgotten: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			s := offsetstream.New("events", 1)
			storeSubjects(t, s, 1, 1, 151)
			total := 301
			j := newJournal(total)
			hold := make(chan struct{})
			var held atomic.Int64
			sink := j.functionOf(t, "east", func(n int) int {
				if tt.busy && n > 90 && n <= 150 {
					held.Add(1)
					<-hold
				}
				return http.StatusNoContent
			})
			done := func() int { n, _, _ := j.done(); return n }
			p := &progress{}
			logger, lines := eventtest.Logger()
			cfg := source.Config{Ordered: tt.ordered, Blocked: verdictsOf{"east", j}, Ledger: j, Logger: logger}
			m := startMember(t, s, sink, p, cfg)
			if tt.busy {
				eventtest.Eventually(t, "requests are under way", func() bool { return held.Load() > 2 })
			} else {
				eventtest.Eventually(t, "all is read", func() bool { return caughtUp(s, p, 1) })
			}
			if tt.forgotten {
				p.set(func(p *progress) { p.horizon = s.End(0) })
			}
			if !tt.running {
				m.stop()
			}
			end := s.Truncate(0, 50) // 101 to 150 are lost
			storeSubjects(t, s, 1, 201, 281)
			if !tt.running {
				m = startMember(t, s, sink, p, cfg)
			}
			eventtest.Eventually(t, "the loss is noticed", func() bool {
				return strings.Contains(strings.Join(lines(), ""), "the stream lost messages that were delivered")
			})
			close(hold)
			eventtest.Eventually(t, "the others are committed", func() bool { return done() >= 100+80 && caughtUp(s, p, 1) })
			storeSubjects(t, s, 1, 281, 301)
			eventtest.Eventually(t, "and later ones", func() bool { return caughtUp(s, p, 1) })
			j.mu.Lock()
			for n := 1; n < total; n++ {
				if !j.committed[n] && (n <= 100 || n > 200) {
					t.Errorf("event %d is not committed", n)
				}
			}
			j.mu.Unlock()
			log := strings.Join(lines(), "")
			if want := fmt.Sprintf("from=%d diverges=%d", end, end); !tt.busy && !strings.Contains(log, want) {
				t.Errorf("the log lacks %s:\n%s", want, log)
			}
			if strings.Count(log, "the stream lost messages") != 1 {
				t.Errorf("one loss is reported more than once:\n%s", log)
			}
		})
	}
}
