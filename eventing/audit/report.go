package audit

import (
	"encoding/json"
	"fmt"
)

// Kind is the kind of a finding.
type Kind string

// The kinds.
const (
	Missing   Kind = "missing"
	Extra     Kind = "extra"
	Different Kind = "different"
)

// Thing is the subject of a finding.
type Thing string

// The subjects.
const (
	// Event is an input. It is missing if it is acknowledged and neither in the ledger
	// nor a dead letter; extra if the ledger has it and the stream does not; different
	// if the function computes other effects than those committed.
	Event Thing = "event"

	// Row is a row of a table that a function writes to.
	Row Thing = "row"

	// Output is an event that a function emits.
	Output Thing = "output"

	// Letter is a dead letter.
	Letter Thing = "dead letter"
)

// Finding is one difference.
type Finding struct {
	Kind  Kind  `json:"kind"`
	Thing Thing `json:"thing"`

	Function string `json:"function,omitempty"`

	// Source and ID identify the event or output.
	Source string `json:"source,omitempty"`
	ID     string `json:"id,omitempty"`

	// Sequence is the input's position in its stream, 0 if it has none.
	Stream   string `json:"stream,omitempty"`
	Sequence uint64 `json:"sequence,omitempty"`

	// Table and Key identify a row.
	Table string          `json:"table,omitempty"`
	Key   json.RawMessage `json:"key,omitempty"`

	// Detail describes the difference.
	Detail string `json:"detail,omitempty"`
}

// String returns the finding in one line.
func (f Finding) String() string {
	what := fmt.Sprintf("%s %s", f.Kind, f.Thing)
	switch {
	case f.Thing == Row:
		what += fmt.Sprintf(" of %s %s", f.Table, f.Key)
	case f.ID != "":
		what += fmt.Sprintf(" %s of %s", f.ID, f.Source)
	}
	if f.Sequence != 0 {
		what += fmt.Sprintf(" (%s %d)", f.Stream, f.Sequence)
	}
	if f.Function != "" && f.Thing != Row {
		what += ", function " + f.Function
	}
	if f.Detail != "" {
		what += ": " + f.Detail
	}
	return what
}

// Report is the result of an audit.
type Report struct {
	// Messages is the number of messages read from the streams, Repeated the number of
	// events that had been read before, and Ignored the number of those of which no
	// function has the type.
	Messages int64 `json:"messages"`
	Repeated int64 `json:"repeated"`
	Ignored  int64 `json:"ignored"`

	// Events is the number of distinct events and functions to compare: Handled ones
	// are in the ledger; Dead ones are dead letters and not in the ledger; Blocked ones
	// are stored behind a dead letter of their subject; Deferred ones wait for a change
	// of the deployment; Pending ones are not acknowledged yet; Forgotten ones are
	// below the horizon, and the ledger may have forgotten them.
	Events    int64 `json:"events"`
	Handled   int64 `json:"handled"`
	Dead      int64 `json:"dead"`
	Blocked   int64 `json:"blocked"`
	Deferred  int64 `json:"deferred"`
	Pending   int64 `json:"pending"`
	Forgotten int64 `json:"forgotten"`

	// OtherVersion events were committed by another version of the function, NoDigest
	// events by one that does not detect divergence.
	OtherVersion int64 `json:"other_version"`
	NoDigest     int64 `json:"no_digest"`

	// Outputs is the number of distinct expected outputs, Waiting the number of those
	// in the outbox, Rejected the number of those that the stream or the sink rejected
	// permanently, and Duplicates the number of messages in the stream of outputs that
	// repeat another one, which is allowed.
	Outputs    int64 `json:"outputs"`
	Waiting    int64 `json:"waiting"`
	Rejected   int64 `json:"rejected"`
	Duplicates int64 `json:"duplicates"`

	// Rows is the number of compared rows. Unchecked counts what could not be compared,
	// by reason.
	Rows      int64            `json:"rows"`
	Unchecked map[string]int64 `json:"unchecked,omitempty"`

	// Complete reports whether the streams were read from their beginning.
	Complete bool `json:"complete"`

	// Findings are the differences, up to the limit for each kind. Counts has the
	// number of all of them.
	Findings []Finding        `json:"findings"`
	Counts   map[string]int64 `json:"counts"`
}

// OK reports whether there are no findings.
func (r *Report) OK() bool { return len(r.Counts) == 0 }

// add adds a finding.
func (r *Report) add(limit int, f Finding) {
	name := string(f.Kind) + " " + string(f.Thing)
	if r.Counts == nil {
		r.Counts = map[string]int64{}
	}
	r.Counts[name]++
	if r.Counts[name] <= int64(limit) {
		r.Findings = append(r.Findings, f)
	}
}

func (r *Report) unchecked(reason string, n int64) {
	if n == 0 {
		return
	}
	if r.Unchecked == nil {
		r.Unchecked = map[string]int64{}
	}
	r.Unchecked[reason] += n
}
