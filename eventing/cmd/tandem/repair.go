package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/eventing/outcome"
	"github.com/tandem-fn/tandem/eventing/sink"
	"github.com/tandem-fn/tandem/functions/cloudevent"
)

// deliver sends an event to a function, once, in structured mode.
func deliver(ctx context.Context, client *http.Client, url string, e event.Event) error {
	body, err := cloudevent.AppendJSON(nil, e)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", event.ApplicationCloudEventsJSON)
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(res.Body, 1000))
	if err != nil {
		return err
	}
	if res.StatusCode/100 == 2 && res.Header.Get(outcome.ReceiptHeader) == "" {
		return fmt.Errorf("POST %s: %w", url, &sink.StatusError{Code: res.StatusCode})
	}
	if res.StatusCode/100 != 2 {
		return fmt.Errorf("POST %s: %s: %s", url, res.Status, strings.TrimSpace(string(text)))
	}
	return nil
}

const (
	deliverTimeout = time.Minute
	publishTimeout = 10 * time.Second
)

// publisher publishes missing outputs again. Unlike package jetstream's, it sets no
// message id: the stream deduplicates an id for some minutes, even if the first message
// was deleted, and would drop the output.
type publisher struct {
	nc     *nats.Conn
	js     natsjs.JetStream
	stream jetstream.StreamConfig
}

func newPublisher(url string, stream jetstream.StreamConfig) (*publisher, error) {
	nc, err := nats.Connect(url, nats.Name("tandem"))
	if err != nil {
		return nil, fmt.Errorf("connect to NATS: %w", err)
	}
	p := &publisher{nc: nc, stream: stream}
	if p.js, err = natsjs.New(nc); stream.Domain != "" {
		p.js, err = natsjs.NewWithDomain(nc, stream.Domain)
	}
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("connect to NATS: %w", err)
	}
	return p, nil
}

func (p *publisher) close() { p.nc.Close() }

// publish returns after the stream has stored the event.
func (p *publisher) publish(ctx context.Context, e event.Event) error {
	header, data, err := jetstream.Encode(e)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	_, err = p.js.PublishMsg(ctx, &nats.Msg{
		Subject: jetstream.Subject(strings.ToLower(p.stream.Name), e.Type()), Header: header, Data: data,
	}, natsjs.WithExpectStream(p.stream.Name))
	return err
}
