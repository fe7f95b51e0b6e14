package jetstream_test

import (
	"context"
	"math"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/streamtest"
	"github.com/tandem-fn/tandem/sinkwriter/contract"
)

// mutantVariable is the variable with the fault of a stream in a second process.
const mutantVariable = "TANDEM_TEST_STREAM_MUTANT"

// mutants are faults of a stream, by the test of package streamtest that must find
// them.
var mutants = map[string]mutant{
	"the_floor_stays_below":                      {floor: 1},
	"a_recreated_stream_has_another_epoch":       {epoch: "always"},
	"a_message_that_is_not_a_CloudEvent":         {sameIdentity: true},
	"a_consumer_is_created_where_Begin":          {fromBeginning: true},
	"Pull_bounds_messages":                       {pullsMore: true},
	"Publish_returns_nil_only_for_stored_events": {publishesWhatItCan: true},
	"Publish_stores_all_events_but_those":        {stopsPublishing: true},
	"unacknowledged_messages_of_a_dead_reader":   {forgetsAcks: true},
	"a_message_is_redelivered_after_Nak":         {acksForNak: true},
	"published_events_are_read_in_order":         {losesExtensions: true},
	"rewound_messages_are_redelivered":           {staysWhereItIs: true},
	"an_event_that_is_published_again":           {losesSource: true},
}

func TestTheSuiteFindsFaults(t *testing.T) {
	t.Parallel()

	if fault := os.Getenv(mutantVariable); fault != "" {
		streamtest.Run(t, func(t *testing.T) streamtest.Server { //nolint:thelper // it makes the server of a test
			return mutantServer{startServer(t), mutants[fault]}
		})
		return
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name := range mutants {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, program, "-test.run=^TestTheSuiteFindsFaults$/^"+name, "-test.timeout=40s") // the suite waits for half of it
			cmd.Env = append(os.Environ(), mutantVariable+"="+name)
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), "--- FAIL: TestTheSuiteFindsFaults/"+name) {
				t.Errorf("not found: %v\n%s", err, out)
			}
		})
	}
}

// mutant is a fault of a stream.
type mutant struct {
	floor                                          uint64
	epoch                                          string
	sameIdentity, losesExtensions, losesSource     bool
	fromBeginning, pullsMore, forgetsAcks          bool
	publishesWhatItCan, acksForNak, staysWhereItIs bool
	stopsPublishing                                bool
}

type mutantServer struct {
	server
	fault mutant
}

func (s mutantServer) Connect(t *testing.T) streamtest.Process {
	t.Helper()

	return mutantProcess{s.server.Connect(t), s.fault}
}

type mutantProcess struct {
	streamtest.Process
	fault mutant
}

func (p mutantProcess) Stream(t *testing.T, cluster string) eventing.Stream {
	t.Helper()

	return mutantStream{p.Process.Stream(t, cluster), p.fault}
}

func (p mutantProcess) Publisher(t *testing.T) eventing.Publisher {
	t.Helper()

	return mutantPublisher{p.Process.Publisher(t), p.fault}
}

type mutantPublisher struct {
	eventing.Publisher
	fault mutant
}

func (p mutantPublisher) Publish(ctx context.Context, events []event.Event) error {
	if p.fault.stopsPublishing { // at the first event that is not stored
		reasons := make([]error, len(events))
		for i := range events {
			if reasons[i] = p.Publisher.Publish(ctx, events[i:i+1]); reasons[i] != nil {
				break
			}
		}
		return contract.Published(reasons)
	}
	err := p.Publisher.Publish(ctx, events)
	if p.fault.publishesWhatItCan {
		return nil
	}
	return err
}

type mutantStream struct {
	eventing.Stream
	fault mutant
}

func (s mutantStream) Open(ctx context.Context, cfg eventing.OpenConfig) (eventing.Reader, error) {
	if s.fault.fromBeginning {
		cfg.Begin = nil
	}
	r, err := s.Stream.Open(ctx, cfg)
	return mutantReader{r, s.fault}, err
}

type mutantReader struct {
	eventing.Reader
	fault mutant
}

func (r mutantReader) Epoch() string {
	if r.fault.epoch != "" {
		return r.fault.epoch
	}
	return r.Reader.Epoch()
}

func (r mutantReader) Position(ctx context.Context) (eventing.Position, error) {
	p, err := r.Reader.Position(ctx)
	p.Floor += r.fault.floor
	return p, err
}

func (r mutantReader) Pull(ctx context.Context, n, bytes int, receive func(eventing.Message)) error {
	if r.fault.pullsMore {
		n++
	}
	return r.Reader.Pull(ctx, n, bytes, func(m eventing.Message) { receive(mutantMessage{m, r.fault}) })
}

func (r mutantReader) Rewind(ctx context.Context, to uint64) (uint64, error) {
	if r.fault.staysWhereItIs {
		to = math.MaxUint64
	}
	return r.Reader.Rewind(ctx, to)
}

type mutantMessage struct {
	eventing.Message
	fault mutant
}

func (m mutantMessage) Event() event.Event {
	e := m.Message.Event()
	if m.fault.sameIdentity {
		e.SetID("1")
	}
	if m.fault.losesSource {
		e.SetSource("/test")
	}
	if m.fault.losesExtensions {
		e.SetExtension("traceparent", nil)
	}
	return e
}

func (m mutantMessage) Ack() error {
	if m.fault.forgetsAcks {
		return nil
	}
	return m.Message.Ack()
}

func (m mutantMessage) Nak() error {
	if m.fault.acksForNak {
		return m.Message.Ack()
	}
	return m.Message.Nak()
}
