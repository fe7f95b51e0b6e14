package outcome

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// The form of a committed event. [Append] writes it and [Parse] recognizes it without
// a decoder, since almost all outcomes have it.
const (
	committedWon  = `{"kind":"committed","receipt":"won"`
	committedLost = `{"kind":"committed","receipt":"lost"`
	digestField   = `,"digest":"`
)

// Append appends outcomes in their JSON form to body.
func Append(body []byte, outcomes []Outcome) []byte {
	body = append(body, '[')
	for i := range outcomes {
		if i > 0 {
			body = append(body, ',')
		}
		body = outcomes[i].appendJSON(body)
	}
	return append(body, ']')
}

func (o *Outcome) appendJSON(body []byte) []byte {
	if o.Kind == Committed {
		if o.Won {
			body = append(body, committedWon...)
		} else {
			body = append(body, committedLost...)
		}
		if o.Digest != "" {
			body = appendString(append(body, `,"digest":`...), o.Digest)
		}
		if o.Status != 0 && o.Status != http.StatusNoContent {
			body = strconv.AppendInt(append(body, `,"status":`...), int64(o.Status), 10)
		}
		return append(body, '}')
	}
	body = append(body, `{"kind":"`...)
	body = append(body, o.Kind.String()...)
	body = append(body, '"')
	if o.Status != 0 {
		body = strconv.AppendInt(append(body, `,"status":`...), int64(o.Status), 10)
	}
	if o.Reason != "" {
		body = appendString(append(body, `,"reason":`...), boundedLine(o.Reason))
	}
	if o.Fingerprint != "" {
		body = appendString(append(body, `,"fingerprint":`...), boundedLine(o.Fingerprint))
	}
	if o.EffectClass != "" {
		body = appendString(append(body, `,"effect_class":`...), o.EffectClass)
	}
	if o.RetryAfter > 0 {
		body = strconv.AppendInt(append(body, `,"retry_after_ms":`...), o.RetryAfter.Milliseconds(), 10)
	}
	return append(body, '}')
}

// appendString appends s as a JSON string.
func appendString(body []byte, s string) []byte {
	if isHex(s) {
		body = append(body, '"')
		body = append(body, s...)
		return append(body, '"')
	}
	encoded, err := json.Marshal(s)
	if err != nil { // strings can always be encoded
		return append(body, `""`...)
	}
	return append(body, encoded...)
}

func isHex[S string | []byte](s S) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// wireOutcome is an outcome in its JSON form.
type wireOutcome struct {
	Kind        string `json:"kind"`
	Receipt     string `json:"receipt"`
	Digest      string `json:"digest"`
	Status      int    `json:"status"`
	Reason      string `json:"reason"`
	Fingerprint string `json:"fingerprint"`
	EffectClass string `json:"effect_class"`
	RetryMillis int64  `json:"retry_after_ms"`
}

// Parse returns the n outcomes of an answer to a batch of n events. Unknown kinds are
// Unavailable. The error means that body is not an array of n outcomes; then the outcome
// of every event is unknown.
func Parse(body []byte, n int) ([]Outcome, error) {
	rest := bytes.TrimLeft(body, space)
	if len(rest) == 0 || rest[0] != '[' {
		return nil, errors.New("parse outcomes: want a JSON array")
	}
	rest = bytes.TrimLeft(rest[1:], space)
	outcomes := make([]Outcome, 0, min(n, len(rest)/2))
	for i := 0; len(rest) > 0 && rest[0] != ']'; i++ {
		if i == n {
			return nil, fmt.Errorf("parse outcomes: there are more than the %d events of the batch", n)
		}
		if i > 0 {
			if rest[0] != ',' {
				return nil, fmt.Errorf("parse outcomes: want a comma after outcome %d", i-1)
			}
			rest = bytes.TrimLeft(rest[1:], space)
		}
		o, after, ok := parseCommitted(rest)
		if !ok {
			var err error
			if o, after, err = parseAny(rest); err != nil {
				return nil, fmt.Errorf("parse outcomes: outcome %d: %w", i, err)
			}
		}
		outcomes = append(outcomes, o)
		rest = bytes.TrimLeft(after, space)
	}
	switch {
	case len(rest) == 0:
		return nil, errors.New("parse outcomes: the array does not end")
	case len(bytes.TrimLeft(rest[1:], space)) > 0:
		return nil, errors.New("parse outcomes: want nothing after the array")
	case len(outcomes) != n:
		return nil, fmt.Errorf("parse outcomes: there are %d for a batch of %d events", len(outcomes), n)
	}
	return outcomes, nil
}

// space is what JSON permits between values.
const space = " \t\r\n"

// parseCommitted parses an outcome that has the form in which [Append] writes a
// committed one. Rest is what follows it.
func parseCommitted(body []byte) (o Outcome, rest []byte, ok bool) {
	o = Outcome{Kind: Committed, Status: http.StatusNoContent}
	if rest, o.Won = bytes.CutPrefix(body, []byte(committedWon)); !o.Won {
		if rest, ok = bytes.CutPrefix(body, []byte(committedLost)); !ok {
			return Outcome{}, nil, false
		}
	}
	if after, found := bytes.CutPrefix(rest, []byte(digestField)); found {
		end := bytes.IndexByte(after, '"')
		if end < 0 || !isHex(after[:end]) {
			return Outcome{}, nil, false
		}
		o.Digest, rest = string(after[:end]), after[end+1:]
	}
	if len(rest) == 0 || rest[0] != '}' {
		return Outcome{}, nil, false
	}
	return o, rest[1:], true
}

// parseAny parses an outcome of any form. Rest is what follows it.
func parseAny(body []byte) (o Outcome, rest []byte, err error) {
	var wire wireOutcome
	if len(body) == 0 || body[0] != '{' {
		return Outcome{}, nil, errors.New("want a JSON object")
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	if err := decoder.Decode(&wire); err != nil {
		return Outcome{}, nil, err
	}
	o = Outcome{Kind: kindOf(wire.Kind), Status: wire.Status}
	if o.Kind == Committed {
		if o.Status == 0 {
			o.Status = http.StatusNoContent
		}
		o.Won, o.Digest = wire.Receipt == ReceiptWon, wire.Digest
	} else {
		o.Reason = boundedLine(wire.Reason)
		o.RetryAfter = time.Duration(min(max(wire.RetryMillis, 0), maxRetryAfter.Milliseconds())) * time.Millisecond
	}
	if o.Kind == Deployment {
		o.Fingerprint, o.EffectClass = boundedLine(wire.Fingerprint), effectClass(wire.EffectClass)
	}
	return o, body[decoder.InputOffset():], nil
}
