package serve_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/eventing/serve"
	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/sinkwriter/deadletter"
)

// pipes is a listener without a network, for tests in synctest.
type pipes struct {
	conns chan net.Conn
	once  sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	if conn, ok := <-p.conns; ok {
		return conn, nil
	}
	return nil, errors.New("closed")
}
func (p *pipes) Close() error   { p.once.Do(func() { close(p.conns) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

func TestBodyThatComesSlowlyTakesNothingFromTheTimeForTheAnswer(t *testing.T) {
	t.Parallel()

	for _, path := range []string{"/", "/dead-letters"} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()

			synctest.Test(t, func(t *testing.T) {
				h, err := serve.New([]functions.Function{function("slow", func(ctx context.Context, _ event.Event) (functions.Effects, error) {
					return functions.Effects{}, pause(ctx, 15*time.Second)
				})}, &memory{}, serve.Config{DeadLetters: slowShelf{}, CommitTimeout: 8 * time.Second})
				if err != nil {
					t.Fatal(err)
				}
				// The limits of func's server.
				server := &http.Server{Handler: h, ReadTimeout: 30 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: 30 * time.Second}
				listener := &pipes{conns: make(chan net.Conn)}
				go server.Serve(listener) //nolint:errcheck // the error reports that it was closed
				defer server.Close()      //nolint:errcheck // nothing is to be saved
				conn, other := net.Pipe()
				listener.conns <- other
				defer conn.Close() //nolint:errcheck // nothing is to be saved

				say := func(text string) {
					if _, err := conn.Write([]byte(text)); err != nil {
						t.Fatal(err)
					}
				}
				say("POST " + path + " HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n")
				for _, h := range binary("slow", "1") {
					say(h + "\r\n")
				}
				say("\r\n{")
				time.Sleep(25 * time.Second)
				say("}")
				resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close() //nolint:errcheck // only read from
				if resp.StatusCode != 204 {
					t.Errorf("answer is %s, want 204", resp.Status)
				}
			})
		})
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return fmt.Errorf("interrupted: %w", context.Cause(ctx))
	}
}

// slowShelf takes seven seconds to save a dead letter.
type slowShelf struct{}

func (slowShelf) Save(ctx context.Context, _ deadletter.Letter) error {
	return pause(ctx, 7*time.Second)
}
