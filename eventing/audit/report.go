package audit

import (
	"encoding/json"
	"fmt"
)

// Kind is what is wrong with something.
type Kind string

// The kinds.
const (
	Missing   Kind = "missing"
	Extra     Kind = "extra"
	Different Kind = "different"
)

// Thing is what something is wrong with.
type Thing string

// The things.
const (
	// Event is an input: missing if it is acknowledged and neither in the ledger
	// nor a dead letter; extra if the ledger has it and the stream has not;
	// different if what was committed is not what the function computes.
	Event Thing = "event"

	// Row is a row of a table that a function writes to.
	Row Thing = "row"

	// Output is an event that a function emits.
	Output Thing = "output"

	// Letter is a dead letter.
	Letter Thing = "dead letter"
)

// Finding is one thing that is not as it should be.
type Finding struct {
	Kind  Kind  `json:"kind"`
	Thing Thing `json:"thing"`

	Function string `json:"function,omitempty"`

	// Source and ID are those of the event or output.
	Source string `json:"source,omitempty"`
	ID     string `json:"id,omitempty"`

	// Sequence is the input's place in its stream, 0 if it has none.
	Stream   string `json:"stream,omitempty"`
	Sequence uint64 `json:"sequence,omitempty"`

	// Table and Key address a row.
	Table string          `json:"table,omitempty"`
	Key   json.RawMessage `json:"key,omitempty"`

	// Detail says more, for people.
	Detail string `json:"detail,omitempty"`
}

// String is the finding in one line.
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

// Report is what an audit has found.
type Report struct {
	// Messages were read from the streams, Repeated were events that had been
	// read before, and Ignored are those whose type no function takes.
	Messages int64 `json:"messages"`
	Repeated int64 `json:"repeated"`
	Ignored  int64 `json:"ignored"`

	// Events is how many different events and functions there are to compare:
	// those in the ledger are Handled, those that are dead letters and not in
	// the ledger Dead, those that are stored behind a dead letter of their subject
	// Blocked, those that wait for a change of the deployment Deferred, those that
	// nobody has acknowledged yet Pending, and those
	// below the horizon, which the ledger may have forgotten, Forgotten.
	Events    int64 `json:"events"`
	Handled   int64 `json:"handled"`
	Dead      int64 `json:"dead"`
	Blocked   int64 `json:"blocked"`
	Deferred  int64 `json:"deferred"`
	Pending   int64 `json:"pending"`
	Forgotten int64 `json:"forgotten"`

	// OtherVersion were handled by another version of the function, and
	// NoDigest by one that looks for no divergence.
	OtherVersion int64 `json:"other_version"`
	NoDigest     int64 `json:"no_digest"`

	// Outputs is how many different outputs there should be, Waiting how many of
	// them are in the outbox, Rejected how many the stream or the sink rejected for
	// good, and Duplicates how many messages of the stream of outputs repeat one that
	// is there, which is allowed.
	Outputs    int64 `json:"outputs"`
	Waiting    int64 `json:"waiting"`
	Rejected   int64 `json:"rejected"`
	Duplicates int64 `json:"duplicates"`

	// Rows is how many were compared. Unchecked is what was not, by reason.
	Rows      int64            `json:"rows"`
	Unchecked map[string]int64 `json:"unchecked,omitempty"`

	// Complete says that the streams were read from their beginning.
	Complete bool `json:"complete"`

	// Findings are what is wrong, at most so many of each kind as was asked for.
	// Counts has all of them.
	Findings []Finding        `json:"findings"`
	Counts   map[string]int64 `json:"counts"`
}

// OK says that nothing is wrong.
func (r *Report) OK() bool { return len(r.Counts) == 0 }

// add notes a finding.
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
