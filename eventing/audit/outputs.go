package audit

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/eventing/jetstream"
)

// identity identifies an event.
type identity struct{ source, id string }

// outputs are the expected outputs of the stream.
type outputs struct {
	want map[identity]*output
	lost []event.Event

	// settled is the newest message at the time of the snapshot: later messages may
	// belong to later events.
	settled uint64
}

type output struct {
	of      *item
	event   event.Event
	found   bool
	waiting bool // in the outbox, or rejected
}

func (o *outputs) expect(it *item, e event.Event) {
	o.want[identity{e.Source(), e.ID()}] = &output{of: it, event: e}
}

func (a *audit) compareOutputs(ctx context.Context) error {
	if err := a.database.EachUnpublished(ctx, func(source, id string, rejected bool) {
		o := a.outputs.want[identity{source, id}]
		switch {
		case o == nil:
		case rejected:
			o.waiting = true
			a.report.Rejected++
		default:
			o.waiting = true
			a.report.Waiting++
		}
	}); err != nil {
		return err
	}
	a.report.Outputs = int64(len(a.outputs.want))
	first, err := a.readOutputs(ctx)
	if err != nil {
		return err
	}
	for _, o := range a.outputs.want {
		if o.found || o.waiting {
			continue
		}
		if first > 1 {
			a.report.unchecked("outputs that the stream may have deleted: its oldest messages are deleted", 1)
			continue
		}
		finding := o.finding(Missing, "it is neither in the stream nor in the outbox, and was not rejected")
		a.report.add(a.Limit, finding)
		a.outputs.lost = append(a.outputs.lost, o.event)
	}
	return nil
}

// readOutputs reads all outputs of functions, and returns the sequence of the oldest
// message.
func (a *audit) readOutputs(ctx context.Context) (first uint64, err error) {
	extent, err := a.Conn.Extent(ctx, a.Outputs)
	if err != nil {
		if len(a.outputs.want) == 0 {
			return 1, nil // without outputs the stream may not exist
		}
		return 0, err
	}
	sources := map[string]bool{}
	for _, f := range a.Functions {
		sources["/tandem/"+f.Name] = true
	}
	return extent.First, a.Conn.History(ctx, a.Outputs, 1, extent.Last, func(p jetstream.Past) error {
		o := a.outputs.want[identity{p.Event.Source(), p.Event.ID()}]
		switch {
		case o == nil && sources[p.Event.Source()]:
			// An event that was not read, or not committed at the time of the snapshot,
			// may have outputs already.
			if !a.report.Complete || a.expected.holes || a.report.Pending > 0 || p.Sequence > a.outputs.settled {
				a.report.unchecked("outputs that may be of events that were not read", 1)
				return nil
			}
			a.report.add(a.Limit, Finding{
				Kind: Extra, Thing: Output, Source: p.Event.Source(), ID: p.Event.ID(), Stream: extent.Origin, Sequence: p.Sequence,
				Detail: fmt.Sprintf("no event explains it; its type is %s, and it was caused by event %v", p.Event.Type(), p.Event.Extensions()["causationid"]),
			})
		case o == nil:
		case o.found:
			a.report.Duplicates++
			fallthrough
		default:
			o.found = true
			if what := differ(o.event, p.Event); what != "" {
				a.report.add(a.Limit, o.finding(Different, what))
			}
		}
		return nil
	})
}

func (o *output) finding(kind Kind, detail string) Finding {
	return Finding{
		Kind: kind, Thing: Output, Function: o.of.function.Name, Source: o.event.Source(), ID: o.event.ID(),
		Detail: fmt.Sprintf("%s; caused by event %s of %s", detail, o.of.event.ID(), o.of.event.Source()),
	}
}

// differ describes the difference between an output and the expected one; empty if
// there is none.
func differ(want, is event.Event) string {
	var parts []string
	for _, part := range []struct{ name, want, is string }{
		{"type", want.Type(), is.Type()},
		{"subject", want.Subject(), is.Subject()},
		{"datacontenttype", want.DataContentType(), is.DataContentType()},
		{"extensions", extensions(want), extensions(is)},
	} {
		if part.want != part.is {
			parts = append(parts, fmt.Sprintf("%s is %q, should be %q", part.name, part.is, part.want))
		}
	}
	if !want.Time().Equal(is.Time()) {
		parts = append(parts, fmt.Sprintf("time is %s, should be %s", is.Time(), want.Time()))
	}
	if !bytes.Equal(want.Data(), is.Data()) {
		parts = append(parts, fmt.Sprintf("data is %.200q, should be %.200q", is.Data(), want.Data()))
	}
	return strings.Join(parts, "; ")
}

// extensions returns the extensions as text; fmt sorts them.
func extensions(e event.Event) string { return fmt.Sprint(e.Extensions()) }
