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
	"github.com/tandem-fn/tandem/functions/cloudevent"
	"github.com/tandem-fn/tandem/sinkwriter"
)

// Results of a replay, and of a drop.
const (
	resultWon     = "won"     // done now
	resultLost    = "lost"    // was done before
	resultRefused = "refused" // still dead
	resultDropped = "dropped"
)

// result is what became of one event.
type result struct {
	Result   string `json:"result"`
	Function string `json:"function"`
	Source   string `json:"source"`
	ID       string `json:"id"`
	Code     int    `json:"code,omitempty"`
	Reason   string `json:"reason,omitempty"`
}

// results prints results as they come and counts them. For concurrent use.
type results struct {
	desk  desk
	mu    sync.Mutex
	count map[string]int
}

func (r *results) add(res result) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count[res.Result]++
	if r.desk.opts.json {
		return r.desk.printJSON(res)
	}
	text := fmt.Sprintf("%-8s %s  %s  %s", res.Result, res.Function, res.Source, res.ID)
	if res.Code != 0 {
		text += fmt.Sprintf("  %d %s", res.Code, res.Reason)
	}
	_, err := fmt.Fprintln(r.desk.out, text)
	return err
}

func (d desk) drop(ctx context.Context) error {
	printed := &results{desk: d, count: map[string]int{}}
	err := d.each(ctx, func(list []sinkwriter.DeadEvent) error {
		for _, e := range list {
			letters, err := d.verdicts.Read(ctx, e.Function, e.Source, e.ID)
			if err == nil {
				_, err = d.verdicts.Drop(ctx, e.Function, e.Source, e.ID, letters)
			}
			if errors.Is(err, sinkwriter.ErrNoDeadLetter) {
				continue
			}
			if err != nil {
				return err
			}
			if err := printed.add(result{Result: resultDropped, Function: e.Function, Source: e.Source, ID: e.ID}); err != nil {
				return err
			}
		}
		return nil
	})
	if !d.opts.json {
		_, _ = fmt.Fprintf(d.out, "%d dropped\n", printed.count[resultDropped])
	}
	return err
}

func (d desk) replay(ctx context.Context) error {
	to := d.opts.to
	if to == "" {
		to = d.env.Sink
	}
	if to == "" {
		return errors.New("where to replay to: want --to with the function's URL, or K_SINK")
	}
	sinks := &sinks{cfg: eventing.SinkConfig{CACerts: d.env.CACerts, TokenFile: d.opts.tokenFile}, clients: map[string]*http.Client{}}
	printed := &results{desk: d, count: map[string]int{}}
	err := d.each(ctx, func(list []sinkwriter.DeadEvent) error {
		group, ctx := errgroup.WithContext(ctx)
		group.SetLimit(d.opts.parallel)
		for _, e := range list {
			group.Go(func() error {
				res, err := d.replayOne(ctx, sinks, strings.ReplaceAll(to, "{function}", url.PathEscape(e.Function)), e)
				if errors.Is(err, sinkwriter.ErrNoDeadLetter) {
					return nil // somebody else was quicker
				}
				if err != nil {
					return fmt.Errorf("replay event %s of %s: %w", e.ID, e.Source, err)
				}
				return printed.add(res)
			})
		}
		return group.Wait()
	})
	if !d.opts.json {
		_, _ = fmt.Fprintf(d.out, "%d won, %d lost (done before), %d refused\n", printed.count[resultWon], printed.count[resultLost], printed.count[resultRefused])
	}
	if n := printed.count[resultRefused]; err == nil && n > 0 {
		err = fmt.Errorf("%d events were refused again and are still there", n)
	}
	return err
}

// replayOne sends one event, and takes its letters out if the function says that
// it is done. The error says that no event can be replayed now.
func (d desk) replayOne(ctx context.Context, sinks *sinks, to string, e sinkwriter.DeadEvent) (result, error) {
	res := result{Function: e.Function, Source: e.Source, ID: e.ID}
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
	a, err := send(ctx, client, to, header, body, d.opts.patience)
	if err != nil {
		return res, err
	}
	if a.code/100 != 2 {
		res.Result, res.Code, res.Reason = resultRefused, a.code, a.reason
		return res, nil
	}
	// Whoever answers 2xx to everything, as a broker does, has not said that the
	// function is done with it.
	if want := sinkwriter.NewKey(e.Function, e.Source, e.ID).String(); a.key != want {
		return res, fmt.Errorf("%s answered %d, but not as function %s does: --to must be that function's own address", public(to), a.code, e.Function)
	}
	if _, err := d.verdicts.Drop(ctx, e.Function, e.Source, e.ID, letters); err != nil {
		return res, err
	}
	res.Result = a.receipt
	return res, nil
}

// sinks has a client for each function's address. For concurrent use.
type sinks struct {
	cfg     eventing.SinkConfig
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

// encode gives an event as it is sent, without what made it a dead letter: in the
// binary content mode, as the source sent it, or, if it is not valid in every
// respect, as it is stored.
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
	if err != nil {
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

// ofDeath says whether an attribute was added when the event was dead-lettered.
func ofDeath(attribute string) bool {
	return strings.HasPrefix(attribute, "knativeerror") || attribute == "tandemfunction" || attribute == "tandemattempts"
}

// answer is a function's.
type answer struct {
	code         int
	reason       string
	receipt, key string
}

// send tries until there is an answer that says something about the event, for as
// long as patience lasts.
func send(ctx context.Context, client *http.Client, to string, header http.Header, body []byte, patience time.Duration) (a answer, err error) {
	backoff := retry.WithMaxDuration(patience, retry.WithCappedDuration(5*time.Second, retry.NewExponential(200*time.Millisecond)))
	err = retry.Do(ctx, backoff, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, time.Minute) // a cold start
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
		defer func() { _ = res.Body.Close() }() // nothing is lost with it
		said, err := io.ReadAll(io.LimitReader(res.Body, 4096))
		if err != nil {
			return retry.RetryableError(err)
		}
		a = answer{
			code: res.StatusCode, reason: strings.Join(strings.Fields(string(said)), " "),
			receipt: res.Header.Get("Tandem-Receipt"), key: res.Header.Get("Tandem-Key"),
		}
		status := &eventing.StatusError{Code: a.code}
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

// withoutURL takes the URL out of an error of net/http, which may have a password.
func withoutURL(err error) error {
	var at *url.Error
	if errors.As(err, &at) {
		return at.Err
	}
	return err
}

func public(to string) string {
	u, err := url.Parse(to)
	if err != nil {
		return strconv.Quote("?")
	}
	u.User = nil
	return u.String()
}
