package outcome

import (
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Kind is the kind of an outcome.
type Kind uint8

const (
	// Unavailable means that the outcome is unknown, or that something other than the
	// event is at fault. The event is retried, and the attempt does not count.
	Unavailable Kind = iota

	// Committed means that the event is committed, now or before.
	Committed

	// Rejected means that the event is at fault and can never succeed. It becomes a dead
	// letter.
	Rejected

	// Failed means that the function broke on the event. It is retried, and the attempt
	// counts.
	Failed

	// Deployment means that only a change of the deployment, such as a migration or a
	// grant, can help. The event is retried or deferred, and the attempt does not count.
	Deployment

	// Pending means that most of the batch was answered before the event was computed.
	// The function continues to compute it. A retry, alone or in another batch, is
	// answered with the outcome of that computation.
	Pending
)

// The classes of effects, for [Outcome.EffectClass].
const (
	// Commuting effects may be applied at any time.
	Commuting = "commuting"

	// Inserting effects insert rows, and may add to others: applied late, they overwrite
	// nothing, and an existing row does not change.
	Inserting = "inserting"

	// OrderBound effects must be applied in the order of the stream.
	OrderBound = "order-bound"
)

// kinds are the names of the kinds.
var kinds = [...]string{
	Unavailable: "unavailable",
	Committed:   "committed",
	Rejected:    "rejected",
	Failed:      "failed",
	Deployment:  "deployment",
	Pending:     "pending",
}

// String returns the name of the kind, as in the JSON form and in headers.
func (k Kind) String() string {
	if int(k) < len(kinds) {
		return kinds[k]
	}
	return kinds[Unavailable]
}

// kindOf returns the kind with a name; Unavailable if the name is unknown.
func kindOf(name string) Kind {
	for kind, known := range kinds {
		if name == known {
			return Kind(kind)
		}
	}
	return Unavailable
}

// Outcome is the outcome of one event. The zero Outcome is Unavailable.
type Outcome struct {
	Kind Kind

	// Won reports, for Committed, whether this cluster committed the event first.
	// Otherwise the event is lost: another delivery had committed it.
	Won bool

	// Digest is, for Committed, the digest of the effects in hexadecimal; empty if
	// unknown.
	Digest string

	// Status is the HTTP status with which the event would have been answered alone; 0
	// for Pending.
	Status int

	// Reason is why the event is not committed: one line of at most 1024 bytes.
	Reason string

	// Fingerprint identifies, for Deployment, the missing object: the SQLSTATE, and the
	// table with the column or constraint, such as "42703 flights.gate".
	Fingerprint string

	// EffectClass is, for Deployment, [Commuting], [Inserting] or [OrderBound]; empty if
	// unknown.
	EffectClass string

	// RetryAfter is the wait before the next attempt; 0 if the answer does not state
	// it. At most a day.
	RetryAfter time.Duration
}

const (
	maxReason     = 1024 // bytes of Reason, and of Fingerprint
	maxRetryAfter = 24 * time.Hour
)

// FromHTTP returns the outcome of a single event from the status and header of its
// answer. The reason is the beginning of its body.
//
// Only an error that is clearly the event's fault counts against it. A wrong address, a
// missing permission and a media type that the sink does not support are faults of the
// configuration; until it is corrected the event waits. Of the 5xx only 500 means that
// the function broke on this event: 502 and 504 are a gateway's. A 3xx is a wrong
// address too, since redirects are not followed.
//
// RetryAfter is set only from a number of seconds, not from a date.
//
// A 2xx is Committed, even without a receipt: the caller knows whether the sink is a
// function, whose answers have one.
func FromHTTP(status int, header http.Header, reason string) Outcome {
	o := Outcome{Kind: kindOfStatus(status), Status: status}
	if o.Kind == Committed {
		o.Won = header.Get(ReceiptHeader) == ReceiptWon
		o.Digest = header.Get(DigestHeader)
		return o
	}
	o.Reason = boundedLine(reason)
	if seconds, err := strconv.ParseUint(header.Get("Retry-After"), 10, 31); err == nil {
		o.RetryAfter = min(time.Duration(seconds)*time.Second, maxRetryAfter)
	}
	if value := header.Get(OutcomeHeader); value != "" {
		name, parameters, err := mime.ParseMediaType(value)
		kind := kindOf(name)
		if err == nil && kind != Committed && kind != Pending {
			o.Kind = kind
		}
		if err == nil && o.Kind == Deployment {
			o.Fingerprint = boundedLine(parameters["fingerprint"])
			o.EffectClass = effectClass(parameters["effect-class"])
		}
	}
	return o
}

// kindOfStatus returns the kind for a status, if no header states it.
func kindOfStatus(status int) Kind {
	switch {
	case status >= 200 && status < 300:
		return Committed
	case status == http.StatusInternalServerError:
		return Failed
	case status < 400 || status > 500:
		return Unavailable
	}
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound,
		http.StatusRequestTimeout, http.StatusConflict,
		http.StatusUnsupportedMediaType, http.StatusTooManyRequests:
		return Unavailable
	}
	return Rejected
}

// Header returns the value of [OutcomeHeader] for an outcome that is not
// Committed, such as `deployment; effect-class=commuting; fingerprint="42703 flights.gate"`.
func (o Outcome) Header() string {
	if o.Kind != Deployment || o.Fingerprint == "" && o.EffectClass == "" {
		return o.Kind.String()
	}
	value := o.Kind.String()
	if o.EffectClass != "" {
		value += "; effect-class=" + o.EffectClass
	}
	if o.Fingerprint != "" {
		value += `; fingerprint="` + quoted.Replace(boundedLine(o.Fingerprint)) + `"`
	}
	return value
}

// quoted escapes the characters that a quoted string of a header must escape.
var quoted = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

// effectClass returns the class if this version knows it; else empty.
func effectClass(class string) string {
	switch class {
	case Commuting, Inserting, OrderBound:
		return class
	}
	return ""
}

// boundedLine returns s as one line of valid UTF-8 of at most maxReason bytes.
func boundedLine(s string) string {
	s = strings.ToValidUTF8(s, "\ufffd")
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	if len(s) <= maxReason {
		return s
	}
	end := maxReason
	for !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end]
}
