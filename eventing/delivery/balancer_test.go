package delivery_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tandem-fn/tandem/eventing/delivery"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
	"github.com/tandem-fn/tandem/eventing/outcome"
)

// instance is a function at its own address whose behavior can be changed.
type instance struct {
	url      string
	behave   atomic.Pointer[http.HandlerFunc]
	events   atomic.Int32 // requests with events
	underWay atomic.Int32
	most     atomic.Int32 // concurrent ones
}

func newInstance(t *testing.T) *instance {
	t.Helper()
	in := &instance{}
	in.set(commits)
	in.url = eventtest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			in.events.Add(1)
			in.most.Store(max(in.most.Load(), in.underWay.Add(1)))
			defer in.underWay.Add(-1)
		}
		(*in.behave.Load())(w, r)
	})
	return in
}

func (in *instance) set(behave http.HandlerFunc) { in.behave.Store(&behave) }

func commits(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }

// hangs never answers, like a process that is stopped.
func hangs(t *testing.T) http.HandlerFunc {
	t.Helper()
	return func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-t.Context().Done():
		}
	}
}

// forEvents answers probes, and leaves events to behave.
func forEvents(behave http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			behave(w, r)
		}
	}
}

func sleeps(d time.Duration) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(d)
		commits(w, r)
	}
}

func unavailable(w http.ResponseWriter, _ *http.Request) {
	w.Header().Del(outcome.ReceiptHeader)
	w.WriteHeader(http.StatusServiceUnavailable)
}

// three returns three instances and a sender to them.
func three(t *testing.T) ([]*instance, *delivery.Sender) {
	t.Helper()
	list := []*instance{newInstance(t), newInstance(t), newInstance(t)}
	return list, senderTo(t, list[0].url, list[1].url, list[2].url)
}

func senderTo(t *testing.T, urls ...string) *delivery.Sender {
	t.Helper()
	addresses := strings.Join(urls, ", ")
	sender, err := delivery.New(addresses, addresses, delivery.Config{Function: "flights"})
	if err != nil {
		t.Fatal(err)
	}
	return sender
}

// deliver sends one event once.
func deliver(t *testing.T, sender *delivery.Sender, id string) delivery.Step {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	steps, _ := sender.Deliver(ctx, []*delivery.Delivery{{Event: eventtest.NewEvent(id)}})
	return steps[0]
}

// deliverAll sends n events concurrently, each once, and returns how many were committed.
func deliverAll(t *testing.T, sender *delivery.Sender, n int) int {
	t.Helper()
	var committed atomic.Int32
	var workers sync.WaitGroup
	next := make(chan int)
	for range 8 {
		workers.Go(func() {
			for i := range next {
				if deliver(t, sender, fmt.Sprint(i)).Settled {
					committed.Add(1)
				}
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	workers.Wait()
	return int(committed.Load())
}

// comesBack sends events until an instance receives one.
func comesBack(t *testing.T, sender *delivery.Sender, in *instance) {
	t.Helper()
	before := in.events.Load()
	eventtest.Eventually(t, "the instance gets events again", func() bool {
		deliverAll(t, sender, 8)
		return in.events.Load() > before
	})
}

func TestEventsAreSpreadOverInstances(t *testing.T) {
	t.Parallel()
	list, sender := three(t)
	for _, in := range list {
		in.set(sleeps(20 * time.Millisecond))
	}
	if n := deliverAll(t, sender, 90); n != 90 {
		t.Errorf("%d of 90 events are committed", n)
	}
	for i, in := range list {
		if n := in.events.Load(); n < 10 {
			t.Errorf("instance %d got %d of 90 events", i, n)
		}
		if most := in.most.Load(); most > 5 {
			t.Errorf("instance %d got %d of 8 requests at once", i, most)
		}
	}
}

func TestEventsOfAnInstanceThatHangsGoToAnotherOne(t *testing.T) {
	t.Parallel()
	list, sender := three(t)
	deliverAll(t, sender, 30)
	list[0].set(hangs(t))
	stalls := eventtest.Stalls(t)
	begun := time.Now()
	if n := deliverAll(t, sender, 100); n != 100 {
		t.Errorf("%d of 100 events are committed", n)
	}
	if took := time.Since(begun); took > time.Second+10*stalls() {
		t.Errorf("the events took %v", took)
	}
	hung := list[0].events.Load()
	if n := deliverAll(t, sender, 100); n != 100 || list[0].events.Load() > hung {
		t.Errorf("%d of 100 events are committed, and the instance that hangs got %d", n, list[0].events.Load()-hung)
	}
	list[0].set(commits)
	comesBack(t, sender, list[0])
}

func TestAnEventThatHangsStaysWhereItIs(t *testing.T) {
	t.Parallel()
	list, sender := three(t)
	for _, in := range list {
		in.set(forEvents(sleeps(1500 * time.Millisecond)))
	}
	if step := deliver(t, sender, "slow"); !step.Settled {
		t.Errorf("step %+v, want it settled", step)
	}
	if n := list[0].events.Load() + list[1].events.Load() + list[2].events.Load(); n != 1 {
		t.Errorf("the event was sent %d times", n)
	}
}

func TestASuspectStaysAtAnInstanceThatHangs(t *testing.T) {
	t.Parallel()
	list, _ := three(t)
	urls := list[0].url + "," + list[1].url
	sender, err := delivery.New(urls, urls, delivery.Config{Function: "flights", Timeout: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	list[0].set(hangUp)
	list[1].set(hangUp)
	suspect := &delivery.Delivery{Event: eventtest.NewEvent("suspect")}
	if steps, _ := sender.Deliver(t.Context(), []*delivery.Delivery{suspect}); !steps[0].Broken {
		t.Fatalf("step %+v, want it broken", steps[0])
	}
	if n := list[0].events.Load() + list[1].events.Load(); n != 1 {
		t.Fatalf("the event that breaks connections was sent to %d instances", n)
	}
	list[0].set(hangs(t))
	list[1].set(hangs(t))
	if steps, _ := sender.Deliver(t.Context(), []*delivery.Delivery{suspect}); steps[0].Settled || steps[0].Broken {
		t.Errorf("step %+v, want it neither settled nor broken", steps[0])
	}
	if n := list[0].events.Load() + list[1].events.Load(); n != 2 {
		t.Errorf("the suspect was sent to %d instances", n-1)
	}
}

func TestAnEventThatHasInstancesHangReachesTwo(t *testing.T) {
	t.Parallel()
	list, sender := three(t)
	for _, in := range list {
		in.set(forEvents(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Ce-Id") == "bad" {
				in.set(hangs(t))
				(*in.behave.Load())(w, r)
				return
			}
			commits(w, r)
		}))
	}
	bad := make(chan delivery.Step, 1)
	go func() { bad <- deliver(t, sender, "bad") }()
	for i := range 200 {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		if step, err := sender.DeliverUntilSettled(ctx, eventtest.NewEvent(fmt.Sprint(i))); err != nil || !step.Settled {
			t.Errorf("step %+v of event %d, %v; want it settled", step, i, err)
		}
		cancel()
		time.Sleep(10 * time.Millisecond)
	}
	if step := <-bad; step.Settled || step.Broken || step.RetryIn == 0 {
		t.Errorf("step %+v of the event that has instances hang, want that it is retried", step)
	}
	if n := deliverAll(t, sender, 50); n != 50 {
		t.Errorf("%d of 50 events are committed", n)
	}
}

func TestAnInstanceThatIsNotThereIsLeftOut(t *testing.T) {
	t.Parallel()
	list, _ := three(t)
	address := eventtest.FreeAddress(t)
	sender := senderTo(t, "http://"+address, list[0].url)
	if n := deliverAll(t, sender, 50); n != 50 {
		t.Errorf("%d of 50 events are committed at the first attempt", n)
	}
	if err := sender.Ready(); err != nil {
		t.Errorf("not ready: %v", err)
	}
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Skipf("the address is taken: %v", err)
	}
	var got atomic.Int32
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			got.Add(1)
			w.Header().Set(outcome.ReceiptHeader, outcome.ReceiptWon)
			w.WriteHeader(http.StatusNoContent)
		}
	})}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	eventtest.Eventually(t, "the instance gets events", func() bool {
		deliverAll(t, sender, 8)
		return got.Load() > 0
	})
}

func TestAnInstanceThatIsUnavailableIsLeftOut(t *testing.T) {
	t.Parallel()
	for name, behave := range map[string]http.HandlerFunc{
		"answers 503": unavailable,
		"shuts down": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set(outcome.DrainingHeader, "true")
			unavailable(w, r)
		},
		"is no function": func(w http.ResponseWriter, _ *http.Request) { w.Header().Del(outcome.ReceiptHeader) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			list, sender := three(t)
			list[0].set(behave)
			begun := time.Now()
			if n := deliverAll(t, sender, 300); n != 300 {
				t.Errorf("%d of 300 events are committed at the first attempt", n)
			}
			// The first instance receives the requests of the first moment, and later one from time to time.
			if n, most := int(list[0].events.Load()), 8+int(time.Since(begun)/(75*time.Millisecond)); n > most {
				t.Errorf("the instance got %d of 300 events, want at most %d", n, most)
			}
			list[0].set(commits)
			comesBack(t, sender, list[0])
		})
	}
}

func TestAnInstanceThatEndsIsLeftOut(t *testing.T) {
	t.Parallel()
	list, sender := three(t)
	list[0].set(func(w http.ResponseWriter, r *http.Request) { hangUp(w, r) })
	broken := 0
	for i := range 100 {
		switch step := deliver(t, sender, fmt.Sprint(i)); {
		case step.Broken:
			broken++
		case !step.Settled:
			t.Errorf("step %+v, want it settled or broken", step)
		}
	}
	if broken != 1 || list[0].events.Load() != 1 {
		t.Errorf("%d events were sent to the instance, and %d are broken, want one", list[0].events.Load(), broken)
	}
	list[0].set(commits)
	comesBack(t, sender, list[0])
}

func TestASlowInstanceGetsFewEvents(t *testing.T) {
	t.Parallel()
	list, sender := three(t)
	list[0].set(sleeps(300 * time.Millisecond))
	list[1].set(sleeps(5 * time.Millisecond))
	list[2].set(sleeps(5 * time.Millisecond))
	begun := time.Now()
	if n := deliverAll(t, sender, 1000); n != 1000 {
		t.Errorf("%d of 1000 events are committed", n)
	}
	if n, took := list[0].events.Load(), time.Since(begun); n == 0 || n > 2+int32(took/(300*time.Millisecond)) {
		t.Errorf("the slow instance got %d of 1000 events within %v", n, took)
	}
}

func TestNoEventIsSentTwiceWhileNoInstanceIsWell(t *testing.T) {
	t.Parallel()
	list, sender := three(t)
	for _, in := range list {
		in.set(unavailable)
	}
	deliverAll(t, sender, 8)
	sent := func() int32 { return list[0].events.Load() + list[1].events.Load() + list[2].events.Load() }
	before := sent()
	if n := deliverAll(t, sender, 100); n != 0 || sent()-before != 100 {
		t.Errorf("%d of 100 events are committed, and they were sent %d times", n, sent()-before)
	}
	if err := sender.Ready(); err == nil {
		t.Error("the sender is ready")
	}
	for _, in := range list {
		in.set(commits)
		comesBack(t, sender, in)
	}
}

func TestWhileAllInstancesHangEventsWaitWhereTheyAre(t *testing.T) {
	t.Parallel()
	list, sender := three(t)
	hang := make(chan struct{})
	for _, in := range list {
		in.set(func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-hang:
			case <-r.Context().Done():
			case <-t.Context().Done():
			}
			commits(w, r)
		})
	}
	var committed atomic.Int32
	var events sync.WaitGroup
	for i := range 8 {
		events.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			if step, err := sender.DeliverUntilSettled(ctx, eventtest.NewEvent(fmt.Sprint(i))); err == nil && step.Settled {
				committed.Add(1)
			}
		})
	}
	time.Sleep(3 * time.Second)
	sent := list[0].events.Load() + list[1].events.Load() + list[2].events.Load()
	close(hang)
	events.Wait()
	// Until all instances are known to hang, an event is sent from one to the next, and
	// perhaps once more.
	if committed.Load() != 8 || sent > 8*4 {
		t.Errorf("%d of 8 events are committed, which were sent %d times", committed.Load(), sent)
	}
}

func TestDeadLettersGoToAnInstanceThatIsWell(t *testing.T) {
	t.Parallel()
	list, sender := three(t)
	list[0].set(hangs(t))
	var letters atomic.Int32
	for _, in := range list[1:] {
		in.set(forEvents(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Ce-Tandemattempts") != "" {
				letters.Add(1)
				commits(w, r)
				return
			}
			w.WriteHeader(http.StatusUnprocessableEntity)
		}))
	}
	for i := range 10 {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		step, err := sender.DeliverUntilSettled(ctx, eventtest.NewEvent(fmt.Sprint(i)))
		cancel()
		if err != nil || !step.Rejected {
			t.Errorf("step %+v, %v; want it rejected", step, err)
		}
	}
	if letters.Load() != 10 {
		t.Errorf("%d dead letters, want 10", letters.Load())
	}
}

func TestTypesAreThoseOfAnInstanceThatAnswers(t *testing.T) {
	t.Parallel()
	list, sender := three(t)
	list[0].set(hangs(t))
	list[1].set(unavailable)
	list[2].set(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set(outcome.TypesHeader, "com.example.test") })
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := sender.AskTypes(ctx); err != nil || !sender.Types()["com.example.test"] {
		t.Errorf("types %v, %v", sender.Types(), err)
	}
	if err := sender.Probe(ctx); err != nil {
		t.Errorf("probe: %v", err)
	}
}

func TestAnAddressMayBeNamedOnce(t *testing.T) {
	t.Parallel()
	for _, list := range []string{"http://a,http://b,http://a", "http://a,", "http://a,b"} {
		if _, err := delivery.New(list, "http://a", delivery.Config{Function: "f"}); err == nil {
			t.Errorf("%q is accepted", list)
		}
	}
}
