package e2e

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/tandem-fn/tandem/eventing/devcluster/supervisor"
	"github.com/tandem-fn/tandem/test/bench/harness"
)

// mostHeld is how many messages a source holds in flight by default. fewPending, slightly
// more, is the number of pending messages in the reference measurement.
const (
	mostHeld   = 131_072
	fewPending = 150_000
)

// pendingAtMost is the memory limit of a source, in MiB, however many messages are
// pending: by default 64 for payloads and 128 for the state of messages whose payload is
// evicted, and as much again for the collector.
const pendingAtMost = 384

// PendingReport is the memory of a source whose function answers every request with
// 503.
type PendingReport struct {
	Row     string  `json:"row"`
	Pending int     `json:"pending"`
	Seconds float64 `json:"seconds"` // duration of the measurement
	Tries   int64   `json:"tries"`   // requests that the function has answered

	Few  float64 `json:"few_pending_mib"` // highest resident memory with 150,000 messages
	Many float64 `json:"many_pending_mib"`
}

// Pending measures the memory of a real source with few messages pending, and then with
// o.Pending small ones.
func Pending(ctx context.Context, o Options) (PendingReport, error) {
	report := PendingReport{Row: RowPending, Pending: o.Pending, Seconds: o.Duration.Seconds()}
	var err error
	if report.Few, _, err = o.measurePending(ctx, fewPending); err != nil {
		return report, fmt.Errorf("row %s: %w", RowPending, err)
	}
	if report.Many, report.Tries, err = o.measurePending(ctx, o.Pending); err != nil {
		return report, fmt.Errorf("row %s: %w", RowPending, err)
	}
	return report, nil
}

func (o *Options) measurePending(ctx context.Context, pending int) (mib float64, tries int64, err error) {
	d, err := o.deploy(ctx)
	if err != nil {
		return 0, 0, err
	}
	defer d.close(ctx)
	if err := d.fillSmall(ctx, pending); err != nil {
		return 0, 0, err
	}
	sink, err := refuse(ctx)
	if err != nil {
		return 0, 0, err
	}
	defer sink.server.Close() //nolint:errcheck // nothing is lost with it
	if err := d.start("source", east, o.Programs.Source, supervisor.StageSources, nil, append(sourceEnv(east, sink.url), o.Env...)...); err != nil {
		return 0, 0, err
	}
	if err := d.await(ctx, "the source to hold as much as it can", func(ctx context.Context) error {
		consumers, err := d.consumers(ctx)
		if err != nil {
			return err
		}
		held := 0
		for _, info := range consumers {
			held += info.NumAckPending
		}
		if tries := sink.tries.Load(); tries == 0 || held < min(mostHeld, pending) {
			return fmt.Errorf("%d messages are held after %d requests", held, tries)
		}
		return nil
	}); err != nil {
		return 0, 0, err
	}
	if !sleep(ctx, o.Duration) {
		return 0, 0, context.Cause(ctx)
	}
	if err := d.deaths(); err != nil {
		return 0, 0, err
	}
	_, bytes, _ := harness.Resident(d.processes[0].Pid()) // 0 if the system does not count it
	highest := float64(bytes) / (1 << 20)
	o.Progress("%d messages pending, %d requests: the source uses %.1f MiB", pending, sink.tries.Load(), highest)
	return highest, sink.tries.Load(), nil
}

// fillSmall stores many messages of a few bytes.
func (d *deployment) fillSmall(ctx context.Context, n int) error {
	const together = 10_000
	for i := range n {
		if err := d.NC.Publish("events.small", fmt.Appendf(nil, "%d", i)); err != nil {
			return fmt.Errorf("fill the stream: %w", err)
		}
		if (i+1)%together != 0 && i+1 < n {
			continue
		}
		// The server drops nothing as long as its queue for the stream is short.
		if err := d.await(ctx, "the stream to store messages", func(ctx context.Context) error {
			state, err := d.state(ctx, inputs)
			if err == nil && state.Msgs+together < uint64(i+1) || i+1 == n && state.Msgs != uint64(n) {
				err = fmt.Errorf("it has %d, want %d", state.Msgs, i+1)
			}
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

// refusing is a function that answers every request with 503.
type refusing struct {
	server *http.Server
	url    string
	tries  atomic.Int64
}

func refuse(ctx context.Context) (*refusing, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	r := &refusing{url: "http://" + listener.Addr().String()}
	r.server = &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		r.tries.Add(1)
		w.WriteHeader(http.StatusServiceUnavailable)
	})}
	go r.server.Serve(listener) //nolint:errcheck // it ends when it is closed
	return r, nil
}

// FormatPending formats the report for people.
func FormatPending(r PendingReport) string {
	word := "reached"
	if r.Many > pendingAtMost {
		word = "NOT REACHED"
	}
	return fmt.Sprintf("%s: a source whose function answers 503 for %.0f s (%d requests): peak resident memory %.1f MiB with %d messages pending, %.1f MiB with %d\n%-52s %7.2f, at most %d: %s\n",
		r.Row, r.Seconds, r.Tries, r.Few, fewPending, r.Many, r.Pending, "memory of a source, MiB", r.Many, pendingAtMost, word)
}
