package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/eventing/drill"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
	"github.com/tandem-fn/tandem/eventing/jetstream"
)

func TestADeploymentIsWatched(t *testing.T) {
	t.Parallel()

	d := deploy(t, 10)
	conn, err := jetstream.Connect(t.Context(), d.natsURL, jetstream.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	publisher, err := jetstream.NewPublisher(conn, jetstream.StreamConfig{Name: "EVENTS"})
	if err != nil {
		t.Fatal(err)
	}
	eventtest.Eventually(t, "a connection", func() bool { return conn.Ready() == nil })

	env := map[string]string{"DATABASE_URL": d.databaseURL, "NATS_URL": d.natsURL}
	folder := t.TempDir()
	watching := make(chan struct{})
	notice := sync.OnceFunc(func() { close(watching) })
	run := func(ctx context.Context, in io.Reader, args ...string) ran {
		var out bytes.Buffer
		err := noticed{text: "watching;", notice: notice}
		tool := tool{
			in: in, out: &out, err: &err, env: func(name string) string { return env[name] },
			build: buildShared,
		}
		args = append([]string{"drill", "--function", root, "--report", folder, "-o", "json"}, args...)
		return ran{code: tool.execute(ctx, args), out: out.String(), err: err.String()}
	}

	// Events arrive while the drill watches, with a marked pause; then it is interrupted.
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	in, person := io.Pipe()
	fed := make(chan error, 1)
	go func() {
		defer interrupt()
		feed := func(n int) error {
			for _, e := range (&lettersWorld{}).flights(t, 60)[n-25 : n] {
				// A busy machine may be late for either.
				for publisher.Publish(ctx, []event.Event{e}) != nil || deliver(ctx, http.DefaultClient, d.functionURL, e) != nil {
					if ctx.Err() != nil {
						return ctx.Err()
					}
				}
			}
			return nil
		}
		select { // events that were handled before are not compared
		case <-watching:
		case <-ctx.Done():
		}
		err := feed(35)
		if err == nil {
			_, err = io.WriteString(person, "cut the power of east\n")
		}
		if err == nil {
			_, err = io.WriteString(person, "back\n")
		}
		if err == nil {
			err = feed(60)
		}
		fed <- err
	}()
	got := run(ctx, in, "lose-cluster", "--max-gap", "1m")
	interrupt() // if it has not started to watch
	if err := <-fed; err != nil {
		t.Fatal(err)
	}
	var r drill.Result
	if err := json.Unmarshal([]byte(got.out), &r); err != nil || got.code != 0 || !r.Passed || r.Audit.Handled < 50 || len(r.Phases) != 4 || len(r.Notes) < 2 {
		t.Errorf("%v, exit code %d\n%s\n%s", err, got.code, got.out, got.err)
	}
	if !strings.Contains(got.err, "PASSED. Report: "+folder) || !strings.Contains(got.err, "cut the power of east: an interruption begins") {
		t.Errorf("progress\n%s", got.err)
	}
	if reports, err := filepath.Glob(filepath.Join(folder, "*-target-lose-cluster", "report.md")); err != nil || len(reports) != 1 {
		t.Errorf("reports %v, %v", reports, err)
	}

	// An event that is acknowledged and missing fails the drill.
	d.exec(t, `delete from tandem.ledger where key = tandem.key('flights', '/tandem/flights-2001', 'flight-2001-000007')`)
	got = run(t.Context(), strings.NewReader(""), "--duration", "1s")
	if err := json.Unmarshal([]byte(got.out), &r); err != nil || got.code != 1 || r.Passed || r.RPO != 1 {
		t.Errorf("%v, exit code %d, RPO %d\n%s", err, got.code, r.RPO, got.err)
	}
}

// noticed is a buffer that calls notice when text has been written.
type noticed struct {
	bytes.Buffer

	text   string
	notice func()
}

// Write appends p.
func (n *noticed) Write(p []byte) (int, error) {
	written, err := n.Buffer.Write(p)
	if strings.Contains(n.String(), n.text) {
		n.notice()
	}
	return written, err
}

func TestAWrongDrillIsExplained(t *testing.T) {
	t.Parallel()

	for want, args := range map[string][]string{
		`unknown scenario "lose-everything": see tandem drill --help`: {"lose-everything"},
		`argument "twice": want one scenario`:                         {"link-cut", "twice"},
		"--marker-rate 0: want up to 1000":                            {"--marker-rate", "0"},
		"--marker needs one stream":                                   {"--marker", "x", "--streams", "A,B"},
		"--duration 1ms: want 1s or more":                             {"--duration", "1ms"},
		"set --database-url or DATABASE_URL":                          {"link-cut"},
	} {
		invoke(t, nil, append([]string{"drill"}, args...)...).fails(t, 2, want)
	}
}
