package delivery

import (
	"net/url"
	"strings"
	"time"

	"github.com/tandem-fn/tandem/eventing/outcome"
)

// Lack is what the deployment lacks for an event. It is the zero value if the event was never
// answered with [outcome.Deployment].
type Lack struct {
	// Fingerprint is the [outcome.Outcome.Fingerprint] of the latest such answer; empty if
	// it had none.
	Fingerprint string

	// Version is the version of the function that sent the latest such answer.
	Version string

	// EffectClass and Reason are those of the latest such answer.
	EffectClass, Reason string

	// Since is the time of the first such answer of this version, and Attempts the
	// number of all of them.
	Since    time.Time
	Attempts int
}

// recordLack records an answer with [outcome.Deployment].
func (d *Sender) recordLack(e *Delivery, o outcome.Outcome, versions string) {
	version := d.VersionOf(versions, e.Event.Type())
	if e.Lack.Since.IsZero() || e.Lack.Version != version {
		e.Lack = Lack{Version: version, Since: d.cfg.Now()}
	}
	e.Lack.Attempts++
	e.Lack.Fingerprint, e.Lack.EffectClass, e.Lack.Reason = o.Fingerprint, o.EffectClass, o.Reason
}

// VersionOf returns the version of the function of an event type, as stated in an answer's
// header ([Step.Versions]); empty if it states none. If the header states one function, the
// type does not matter.
func (d *Sender) VersionOf(versions, eventType string) string {
	function := d.FunctionOf(eventType)
	several := strings.Contains(versions, ",")
	for stated := range strings.SplitSeq(versions, ",") {
		name, encoded, ok := strings.Cut(strings.TrimSpace(stated), "=")
		if !ok || several && name != function {
			continue
		}
		if version, err := url.QueryUnescape(encoded); err == nil {
			return version
		}
	}
	return ""
}

// TryFor returns [Config.TryFor].
func (d *Sender) TryFor() time.Duration { return d.cfg.TryFor }
