package delivery

import (
	"context"
	"encoding/base64"
	"log/slog"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/eventing"
)

// deadLetter returns the event for the dead letter sink: the event itself, with the
// attributes that Knative's delivery adds, tandemfunction for the function that
// rejected the event, and tandemattempts for the number of its attempts.
func deadLetter(e event.Event, function, dest string, status int, reason []byte, attempts int) event.Event {
	letter := e.Clone()
	letter.SetExtension(eventing.ErrorDestExtension, dest)
	letter.SetExtension(eventing.ErrorCodeExtension, status)
	if len(reason) > 0 {
		letter.SetExtension(eventing.ErrorDataExtension, base64.StdEncoding.EncodeToString(reason))
	} else {
		letter.SetExtension(eventing.ErrorDataExtension, nil)
	}
	letter.SetExtension(eventing.FunctionExtension, function)
	letter.SetExtension(eventing.AttemptsExtension, attempts)
	return letter
}

const (
	// letterRefusals is how often a dead letter sink must reject a dead letter before it is
	// saved in the database instead.
	letterRefusals = 3

	// saveTimeout bounds saving a dead letter.
	saveTimeout = 5 * time.Second
)

// saveRefused saves a dead letter that its sink rejects, for example because a proxy has a
// size limit that rejected the event too. It reports whether the dead letter is saved.
func (d *Sender) saveRefused(ctx context.Context, e *Delivery, status int) bool {
	if e.refusals++; d.cfg.SaveDeadLetter == nil || e.refusals < letterRefusals || ctx.Err() != nil {
		return false
	}
	saving, cancel := context.WithTimeout(ctx, saveTimeout)
	defer cancel()
	err := d.cfg.SaveDeadLetter(saving, d.cfg.Sink.Apply(e.Event), e.status, string(e.reason), e.attempts)
	attrs := append(EventAttrs(e.Event), slog.Int("code", e.status), slog.Int("answered", status), slog.String("url", d.deadLetters.public))
	if err != nil {
		d.cfg.Logger.LogAttrs(ctx, slog.LevelError, "dead letter sink rejects the dead letter, and it could not be saved in the database; retrying: check the dead letter sink and the database", append(attrs, slog.Any("err", err))...)
		return false
	}
	d.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "event rejected, and the dead letter sink rejects the dead letter; it is saved in the database: see tandem dead-letters list", attrs...)
	return true
}
