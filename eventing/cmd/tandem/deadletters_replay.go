package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sethvargo/go-retry"
	"golang.org/x/sync/errgroup"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/outcome"
	"github.com/tandem-fn/tandem/eventing/sink"
	"github.com/tandem-fn/tandem/functions/cloudevent"
	"github.com/tandem-fn/tandem/sinkwriter/deadletter"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

// replayOptions are the flags of replay only.
type replayOptions struct {
	to        string
	parallel  int
	patience  time.Duration
	tokenFile string
	caCerts   string
}

// Results of a replay, and of a drop.
const (
	resultWon     = "won"     // committed now
	resultLost    = "lost"    // committed before
	resultRefused = "refused" // still dead
	resultDropped = "dropped"
)

// replayResult is the result for one event.
type replayResult struct {
	Result   string `json:"result"`
	Function string `json:"function"`
	Source   string `json:"source"`
	ID       string `json:"id"`
	Code     int    `json:"code,omitempty"`
	Reason   string `json:"reason,omitempty"`
}

// results prints results as they arrive and counts them. It is safe for concurrent use.
type results struct {
	letters *letters
	mu      sync.Mutex
	count   map[string]int
}

func (r *results) add(res replayResult) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count[res.Result]++
	if r.letters.tool.output.json {
		return r.letters.tool.printJSON(res)
	}
	text := fmt.Sprintf("%-8s %s  %s  %s", res.Result, res.Function, res.Source, res.ID)
	if res.Code != 0 {
		text += fmt.Sprintf("  %d %s", res.Code, res.Reason)
	}
	return r.letters.tool.print("%s\n", text)
}

func (d *letters) drop(ctx context.Context) error {
	printed := &results{letters: d, count: map[string]int{}}
	err := d.each(ctx, func(list []deadletter.Event) error {
		for _, e := range list {
			letters, err := d.verdicts.Read(ctx, e.Function, e.Source, e.ID)
			if err == nil {
				_, err = d.verdicts.Drop(ctx, e.Function, e.Source, e.ID, letters)
			}
			if errors.Is(err, deadletter.ErrNotFound) {
				continue
			}
			if err != nil {
				return err
			}
			if err := printed.add(replayResult{Result: resultDropped, Function: e.Function, Source: e.Source, ID: e.ID}); err != nil {
				return err
			}
		}
		return nil
	})
	if !d.tool.output.json {
		d.tool.printf("%d dropped\n", printed.count[resultDropped])
	}
	return err
}

func (d *letters) replayAll(ctx context.Context) error {
	to := d.replay.to
	if to == "" {
		return errors.New("no function URL: set --to or K_SINK")
	}
	sinks := &sinks{cfg: sink.Config{CACerts: d.replay.caCerts, TokenFile: d.replay.tokenFile}, clients: map[string]*http.Client{}}
	printed := &results{letters: d, count: map[string]int{}}
	err := d.each(ctx, func(list []deadletter.Event) error {
		group, ctx := errgroup.WithContext(ctx)
		group.SetLimit(d.replay.parallel)
		for _, e := range list {
			group.Go(func() error {
				res, err := d.replayOne(ctx, sinks, strings.ReplaceAll(to, "{function}", url.PathEscape(e.Function)), e)
				if errors.Is(err, deadletter.ErrNotFound) {
					return nil // deleted meanwhile
				}
				if err != nil {
					return fmt.Errorf("replay event %s of %s: %w", e.ID, e.Source, err)
				}
				return printed.add(res)
			})
		}
		return group.Wait()
	})
	if !d.tool.output.json {
		d.tool.printf("%d won, %d lost (committed before), %d refused\n", printed.count[resultWon], printed.count[resultLost], printed.count[resultRefused])
	}
	if n := printed.count[resultRefused]; err == nil && n > 0 {
		err = &foundError{text: fmt.Sprintf("%d events were refused again and are still dead letters", n)}
	}
	return err
}

// replayOne sends one event, and deletes its dead letters if the function answers that
// it is committed. An error means that currently no event can be replayed.
func (d *letters) replayOne(ctx context.Context, sinks *sinks, to string, e deadletter.Event) (replayResult, error) {
	res := replayResult{Function: e.Function, Source: e.Source, ID: e.ID}
	letters, err := d.verdicts.Read(ctx, e.Function, e.Source, e.ID)
	if err != nil {
		return res, err
	}
	header, body, err := encode(letters[0].Event)
	if err != nil {
		return res, err
	}
	client, err := sinks.client(to)
	if err != nil {
		return res, err
	}
	a, err := send(ctx, client, to, header, body, d.replay.patience)
	if err != nil {
		return res, err
	}
	if a.code/100 != 2 {
		res.Result, res.Code, res.Reason = resultRefused, a.code, a.reason
		return res, nil
	}
	// A server that answers everything with 2xx, such as a broker, has not committed
	// the event.
	if want := ledger.NewKey(e.Function, e.Source, e.ID).String(); a.key != want {
		return res, fmt.Errorf("%s answered %d, but not as function %s does: --to must be that function's own address", public(to), a.code, e.Function)
	}
	if _, err := d.verdicts.Drop(ctx, e.Function, e.Source, e.ID, letters); err != nil {
		return res, err
	}
	res.Result = a.receipt
	return res, nil
}

// sinks holds a client for each function's address. It is safe for concurrent use.
type sinks struct {
	cfg     sink.Config
	mu      sync.Mutex
	clients map[string]*http.Client
}

func (s *sinks) client(to string) (*http.Client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if client := s.clients[to]; client != nil {
		return client, nil
	}
	client, err := s.cfg.Client(to)
	if err != nil {
		return nil, err
	}
	s.clients[to] = client
	return client, nil
}

// encode returns an event in the form in which it is sent, without the attributes of a
// dead letter: in the binary content mode, like the source sent it, or, if it is not
// fully valid or too large for headers, as it is stored.
func encode(stored []byte) (http.Header, []byte, error) {
	e, err := cloudevent.ReadJSON(stored, cloudevent.Rules{})
	if err != nil {
		return encodeInvalid(stored)
	}
	for name := range e.Extensions() {
		if ofDeath(name) {
			e.SetExtension(name, nil)
		}
	}
	header, body, err := cloudevent.WriteBinary(e, func(attribute string) string {
		if attribute == "datacontenttype" {
			return "Content-Type"
		}
		return http.CanonicalHeaderKey("Ce-" + attribute)
	})
	if err != nil || !sink.HeaderFits(header) {
		return encodeInvalid(stored)
	}
	return header, body, nil
}

func encodeInvalid(stored []byte) (http.Header, []byte, error) {
	var attributes map[string]json.RawMessage
	if err := json.Unmarshal(stored, &attributes); err != nil {
		return nil, nil, fmt.Errorf("read the event: %w", err)
	}
	for name := range attributes {
		if ofDeath(name) {
			delete(attributes, name)
		}
	}
	text, err := json.Marshal(attributes)
	if err != nil {
		return nil, nil, fmt.Errorf("write the event: %w", err)
	}
	return http.Header{"Content-Type": {"application/cloudevents+json"}}, text, nil
}

// ofDeath reports whether an attribute was added when the event became a dead letter.
func ofDeath(attribute string) bool {
	return strings.HasPrefix(attribute, "knativeerror") || attribute == eventing.FunctionExtension || attribute == eventing.AttemptsExtension
}

// answer is the answer of a function.
type answer struct {
	code         int
	reason       string
	receipt, key string
}

// send retries until the answer is about the event, for at most patience.
func send(ctx context.Context, client *http.Client, to string, header http.Header, body []byte, patience time.Duration) (a answer, err error) {
	backoff := retry.WithMaxDuration(patience, retry.WithCappedDuration(5*time.Second, retry.NewExponential(200*time.Millisecond)))
	err = retry.Do(ctx, backoff, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, time.Minute) // enough for a cold start
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(body))
		if err != nil {
			return err
		}
		req.Header = header
		res, err := client.Do(req)
		if err != nil {
			return retry.RetryableError(withoutURL(err))
		}
		defer func() { _ = res.Body.Close() }()
		text, err := io.ReadAll(io.LimitReader(res.Body, 4096))
		if err != nil {
			return retry.RetryableError(err)
		}
		a = answer{
			code: res.StatusCode, reason: strings.Join(strings.Fields(string(text)), " "),
			receipt: res.Header.Get(outcome.ReceiptHeader), key: res.Header.Get(outcome.KeyHeader),
		}
		status := &sink.StatusError{Code: a.code}
		switch {
		case a.code == http.StatusServiceUnavailable || a.code == http.StatusTooManyRequests || a.code == http.StatusBadGateway || a.code == http.StatusGatewayTimeout:
			return retry.RetryableError(fmt.Errorf("%w: %s", status, a.reason))
		case a.code < 200 || a.code >= 300 && a.code < 400, a.code == http.StatusUnauthorized, a.code == http.StatusForbidden,
			a.code == http.StatusNotFound, a.code == http.StatusMethodNotAllowed, a.code == http.StatusUnsupportedMediaType:
			return fmt.Errorf("%s answered %d %s: want the function's own address: %s", public(to), a.code, http.StatusText(a.code), a.reason)
		}
		return nil
	})
	if err != nil {
		return answer{}, fmt.Errorf("send to %s: %w", public(to), err)
	}
	return a, nil
}

// withoutURL removes the URL, which may hold a password, from an error of net/http.
func withoutURL(err error) error {
	var at *url.Error
	if errors.As(err, &at) {
		return at.Err
	}
	return err
}

// public returns to without its password.
func public(to string) string {
	u, err := url.Parse(to)
	if err != nil {
		return strconv.Quote("?")
	}
	u.User = nil
	return u.String()
}
