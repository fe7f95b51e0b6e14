package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/sinkwriter/snapshot"
)

const eventHelp = `Prints everything in the database and the streams about one event, for all functions:
which cluster committed it and when, its dead letters with the verdict, in which clusters it
is deferred and why, a divergence, its outputs, its position in the stream, which clusters
have acknowledged it, whether its subject is blocked, and in which clusters it is stored for
that reason.

The streams have no index by source and id, so a part of each is read: at most --search
messages, up to the time of the commit if there is one, otherwise the newest. The
sequence number of an event whose stream has assigned its id (ID is
<sequence>-<16 hexadecimal digits>) is known, and nothing is searched. Without
--nats-url only the database is read.

The exit status is 1 if the event has dead letters or a divergence, if it is deferred, or if
it is found nowhere. An event that is found nowhere may still have been committed: the ledger
forgets events below its horizon, which is printed.`

const (
	// maxOutputs is the number of outputs of one event that are searched for.
	maxOutputs = 256

	// clockSlack is the maximum difference between the clocks of the database and of
	// NATS.
	clockSlack = 10 * time.Second
)

// inquiry is one run of the command.
type inquiry struct {
	tool             *tool
	source, id       string
	streams, outputs string
	search           uint64

	database *snapshot.Snapshot
	conn     *jetstream.Conn // nil without NATS
	found    eventFound
}

// eventFound is the output of the command.
type eventFound struct {
	Source string `json:"source"`
	ID     string `json:"id"`
	snapshot.Event
	Outputs  []eventOutput      `json:"outputs"`
	Messages []eventMessage     `json:"messages"`
	Blockers []snapshot.Blocker `json:"blockers,omitempty"` // dead letters and deferred events of its subject
	Horizons []eventHorizon     `json:"horizons,omitempty"`
	Notes    []string           `json:"notes,omitempty"`
}

// eventOutput is an output of the event.
type eventOutput struct {
	Function string `json:"function"`
	Position int    `json:"position"`
	ID       string `json:"id"`
	Type     string `json:"type"`
	Stream   string `json:"stream,omitempty"`   // empty if it waits in the outbox, or was rejected
	Rejected string `json:"rejected,omitempty"` // the reason
	Sequence uint64 `json:"sequence,omitempty"`
}

// eventMessage is a message of the event in a stream.
type eventMessage struct {
	Stream   string         `json:"stream"`
	Sequence uint64         `json:"sequence"`
	Arrived  time.Time      `json:"arrived"`
	Type     string         `json:"type"`
	Subject  string         `json:"subject,omitempty"`
	Clusters []eventCluster `json:"clusters"`
}

// eventCluster is the state of a message in a cluster.
type eventCluster struct {
	Function string `json:"function"`
	Cluster  string `json:"cluster"`
	State    string `json:"state"` // acknowledged, received or waiting
	Horizon  bool   `json:"below_horizon,omitempty"`
}

// eventHorizon is the sequence in a stream below which the ledger may have forgotten
// events.
type eventHorizon struct {
	Function string `json:"function"`
	Stream   string `json:"stream"`
	Sequence uint64 `json:"sequence"`
}

func (t *tool) eventCommand() *cobra.Command {
	q := &inquiry{tool: t}
	cmd := &cobra.Command{
		Use:   "event SOURCE ID",
		Short: "Print everything known about one event",
		Long:  eventHelp,
		Example: `  tandem event /shop 4711
  tandem event /shop 4711 --search 1000000 -o json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) != 2:
				return usage(cmd, fmt.Errorf("%d arguments: want SOURCE and ID", len(args)))
			case args[0] == "" || args[1] == "":
				return usage(cmd, errors.New("want SOURCE and ID, neither of them empty"))
			}
			q.source, q.id = args[0], args[1]
			return q.run(cmd.Context())
		},
	}
	t.streamFlags(cmd, &q.streams, &q.outputs)
	cmd.Flags().Uint64Var(&q.search, "search", 100_000, "maximum `number` of messages read of each stream; 0 reads none")
	return cmd
}

func (q *inquiry) run(ctx context.Context) error {
	pool, err := q.tool.openDatabase(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	if cmp.Or(q.tool.natsURL, q.tool.env("NATS_URL")) != "" {
		if q.conn, err = q.tool.openNATS(ctx); err != nil {
			return err
		}
		defer func() { _ = q.conn.Close(context.WithoutCancel(ctx)) }()
	}
	q.found = eventFound{Source: q.source, ID: q.id, Outputs: []eventOutput{}, Messages: []eventMessage{}}
	err = snapshot.Read(ctx, pool, func(s *snapshot.Snapshot) error {
		q.database = s
		return q.read(ctx)
	})
	if err != nil {
		return explain(err)
	}
	if err := q.found.print(q.tool); err != nil {
		return err
	}
	f := &q.found
	if len(f.Letters) > 0 || len(f.Divergences) > 0 || len(f.Deferred) > 0 || len(f.Commits) == 0 && len(f.Messages) == 0 && len(f.Stored) == 0 {
		return &foundError{}
	}
	return nil
}

func (q *inquiry) read(ctx context.Context) (err error) {
	f := &q.found
	if f.Event, err = q.database.Event(ctx, q.source, q.id); err != nil {
		return err
	}
	progress, err := q.database.Progress(ctx)
	if err != nil {
		return err
	}
	waiting, err := q.database.Outbox(ctx, q.id)
	if err != nil {
		return err
	}
	outputs := q.outputIdentities(progress)
	for _, w := range waiting {
		if o, ok := outputs[[2]string{w.Source, w.ID}]; ok {
			o.Type = w.Type
			if w.Code != 0 {
				o.Rejected = fmt.Sprintf("%d %s", w.Code, w.Reason)
			}
			f.Outputs = append(f.Outputs, o)
		}
	}
	for _, p := range progress {
		h := eventHorizon{Function: p.Function, Stream: p.Stream, Sequence: p.Horizon}
		if p.Horizon > 0 && !slices.Contains(f.Horizons, h) {
			f.Horizons = append(f.Horizons, h)
		}
	}
	if q.conn == nil {
		f.Notes = append(f.Notes, "the streams were not read: set --nats-url or NATS_URL")
	} else if err := q.readStreams(ctx, progress, outputs); err != nil {
		return err
	}
	for _, m := range f.Messages {
		if m.Subject == "" {
			continue
		}
		blockers, err := q.database.Blockers(ctx, m.Subject, q.source, q.id)
		if err != nil {
			return err
		}
		f.Blockers = append(f.Blockers, blockers...)
		break
	}
	if len(f.Commits) == 0 && len(f.Letters) == 0 && len(f.Deferred) == 0 && len(f.Horizons) > 0 && len(f.Messages) == 0 {
		f.Notes = append(f.Notes, "the ledger may have forgotten the event: it remembers none below the horizons")
	}
	return nil
}

// outputIdentities returns the identities of all outputs that the event may have.
func (q *inquiry) outputIdentities(progress []snapshot.Progress) map[[2]string]eventOutput {
	names := map[string]bool{}
	for _, p := range progress {
		names[p.Function] = true
	}
	for _, c := range q.found.Commits {
		names[c.Function] = true
	}
	all := map[[2]string]eventOutput{}
	for name := range names {
		for position := range maxOutputs {
			source, id := functions.OutputIdentity(name, q.source, q.id, position)
			all[[2]string{source, id}] = eventOutput{Function: name, Position: position, ID: id}
		}
	}
	return all
}

// committedBetween returns the times of the first and the last commit.
func (q *inquiry) committedBetween() (first, last time.Time) {
	for i, c := range q.found.Commits {
		if i == 0 {
			first = c.CommittedAt
		}
		last = c.CommittedAt
	}
	return first, last
}

func (q *inquiry) readStreams(ctx context.Context, progress []snapshot.Progress, outputs map[[2]string]eventOutput) error {
	f := &q.found
	first, last := q.committedBetween()
	for _, stream := range parseStreams(q.streams) {
		extent, err := q.conn.Extent(ctx, stream)
		if err != nil {
			return err
		}
		from, until, err := q.span(ctx, stream, extent, last)
		if err != nil {
			return err
		}
		found := len(f.Messages)
		err = q.conn.History(ctx, stream, from, until, func(m jetstream.Past) error {
			if m.Event.Source() == q.source && m.Event.ID() == q.id {
				f.Messages = append(f.Messages, eventMessage{
					Stream: extent.Origin, Sequence: m.Sequence, Arrived: m.Arrived, Type: m.Event.Type(), Subject: m.Event.Subject(),
					Clusters: clustersOf(progress, extent, m.Sequence),
				})
			}
			return nil
		})
		if err != nil {
			return err
		}
		if len(f.Messages) == found {
			f.Notes = append(f.Notes, fmt.Sprintf("stream %s: not among the messages %d to %d of %d to %d", stream, from, until, extent.First, extent.Last))
		}
	}
	if first.IsZero() || q.search == 0 {
		return nil // no commit, no outputs
	}
	stream := jetstream.ParseStream(q.outputs)
	extent, err := q.conn.Extent(ctx, stream)
	if err != nil {
		f.Notes = append(f.Notes, fmt.Sprintf("outputs were not read: %v", err))
		return nil
	}
	from, err := q.conn.SequenceAt(ctx, stream, first.Add(-clockSlack))
	if err != nil {
		return err
	}
	until := min(extent.Last, from+q.search-1)
	published := 0
	err = q.conn.History(ctx, stream, from, until, func(m jetstream.Past) error {
		if o, ok := outputs[[2]string{m.Event.Source(), m.Event.ID()}]; ok {
			o.Type, o.Stream, o.Sequence = m.Event.Type(), extent.Origin, m.Sequence
			f.Outputs = append(f.Outputs, o)
			published++
		}
		return nil
	})
	if err == nil && published == 0 {
		f.Notes = append(f.Notes, fmt.Sprintf("stream %s: no output of the event among the messages %d to %d of %d to %d", stream, from, until, extent.First, extent.Last))
	}
	return err
}

// span returns the sequences of the messages to read: the one in the id, or those
// before the last commit, or the newest.
func (q *inquiry) span(ctx context.Context, stream jetstream.StreamConfig, extent jetstream.Extent, committed time.Time) (from, until uint64, err error) {
	if name, ok := strings.CutPrefix(q.source, "/tandem/streams/"); ok {
		plain, err := url.PathUnescape(name)
		number, _, _ := strings.Cut(q.id, "-")
		sequence, bad := strconv.ParseUint(number, 10, 64)
		if err == nil && bad == nil && plain == extent.Origin {
			return sequence, sequence, nil
		}
	}
	until = extent.Last
	if !committed.IsZero() {
		after, err := q.conn.SequenceAt(ctx, stream, committed.Add(clockSlack))
		if err != nil {
			return 0, 0, err
		}
		until = min(until, after-1)
	}
	if q.search == 0 {
		return until + 1, until, nil
	}
	from = extent.First
	if until >= q.search {
		from = max(from, until-q.search+1)
	}
	return from, until, nil
}

// clustersOf returns the state of a message in the clusters whose sources read it.
func clustersOf(progress []snapshot.Progress, extent jetstream.Extent, sequence uint64) []eventCluster {
	states := []eventCluster{}
	for _, p := range progress {
		if p.Stream != extent.Origin || p.Epoch != extent.Epoch {
			continue
		}
		state := "waiting"
		switch {
		case sequence < p.Floor:
			state = "acknowledged"
		case sequence < p.Head:
			state = "received"
		}
		states = append(states, eventCluster{Function: p.Function, Cluster: p.Cluster, State: state, Horizon: sequence < p.Horizon})
	}
	return states
}

// print prints the result.
func (f *eventFound) print(t *tool) error {
	if t.output.json {
		return t.printJSON(f)
	}
	table := tabwriter.NewWriter(t.out, 0, 0, 2, ' ', 0)
	at := func(when time.Time) string { return when.UTC().Format(time.RFC3339) }
	// A separate table for each kind, with an empty line in between.
	section := func(n int, cells ...string) {
		if n > 0 {
			_ = table.Flush()
			if cells[0] != "COMMITTED BY" {
				t.printf("\n")
			}
			row(table, cells...)
		}
	}
	section(1, "COMMITTED BY", "VERSION", "FUNCTION", "AT", "KEY")
	for _, c := range f.Commits {
		row(table, c.Cluster, c.Version, c.Function, at(c.CommittedAt), c.Key)
	}
	if len(f.Commits) == 0 {
		row(table, "not in the ledger")
	}
	section(len(f.Messages), "STREAM", "SEQUENCE", "ARRIVED", "TYPE", "SUBJECT")
	for _, m := range f.Messages {
		row(table, m.Stream, strconv.FormatUint(m.Sequence, 10), at(m.Arrived), m.Type, cmp.Or(m.Subject, "-"))
		for _, c := range m.Clusters {
			state := c.State
			if c.Horizon {
				state += ", below the horizon"
			}
			row(table, "  "+c.Cluster, c.Function, state)
		}
	}
	section(len(f.Letters), "DEAD LETTER IN", "FUNCTION", "VERDICT", "CODE", "ATTEMPTS", "LAST", "BLOCKS", "REASON")
	for _, l := range f.Letters {
		row(table, l.Cluster, l.Function, l.Verdict, number(int64(l.Code)), number(l.Attempts), at(l.LastAt), cmp.Or(l.Blocks, "-"), l.Reason)
	}
	section(len(f.Blockers), "SUBJECT BLOCKED IN", "FUNCTION", "BY SOURCE", "ID")
	for _, b := range f.Blockers {
		row(table, b.Cluster, b.Function, b.Source, b.ID)
	}
	section(len(f.Stored), "STORED IN", "FUNCTION", "SUBJECT", "SINCE")
	for _, s := range f.Stored {
		row(table, s.Cluster, s.Function, s.Subject, at(s.StoredAt))
	}
	section(len(f.Deferred), "DEFERRED IN", "FUNCTION", "MISSING", "ATTEMPTS", "LAST", "NEXT RUN", "BLOCKS", "REASON")
	for _, d := range f.Deferred {
		row(table, d.Cluster, d.Function, d.Fingerprint, number(d.Attempts), at(d.LastFailedAt), nextRun(d.NextRunAt, d.Held), cmp.Or(d.Blocks, "-"), d.Reason)
	}
	section(len(f.Divergences), "DIVERGED IN", "FROM", "FUNCTION", "VERSION", "FOUND")
	for _, d := range f.Divergences {
		row(table, d.LostCluster, d.WonCluster, d.Function, d.Version, at(d.FoundAt))
	}
	section(len(f.Outputs), "OUTPUT", "FUNCTION", "TYPE", "WHERE")
	for _, o := range f.Outputs {
		where := "in the outbox"
		switch {
		case o.Rejected != "":
			where = "rejected: " + o.Rejected
		case o.Stream != "":
			where = fmt.Sprintf("%s %d", o.Stream, o.Sequence)
		}
		row(table, o.ID, o.Function, o.Type, where)
	}
	section(len(f.Horizons), "HORIZON OF", "STREAM", "SEQUENCE")
	for _, h := range f.Horizons {
		row(table, h.Function, h.Stream, strconv.FormatUint(h.Sequence, 10))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if len(f.Notes) > 0 {
		t.printf("\n")
	}
	for _, note := range f.Notes {
		t.printf("note: %s\n", note)
	}
	return nil
}
