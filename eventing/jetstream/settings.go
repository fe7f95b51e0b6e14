package jetstream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"
)

// leastAge is the shortest max_age that is no risk: a shorter one expires in an ordinary
// outage, or while an event that breaks its function is retried.
const leastAge = time.Hour

// settingsLooks is after how many questions for the position the settings of the stream are
// looked at again.
const settingsLooks = 10

// checkSettings returns why a stream cannot be read without losing events, whatever happens
// or does not happen to them later.
func checkSettings(name string, cfg natsjs.StreamConfig) error {
	const makeAnother = "this cannot be changed: create another stream and copy the messages"
	switch {
	case cfg.Retention == natsjs.WorkQueuePolicy:
		return fmt.Errorf("stream %s has retention workqueue: one cluster would take events from the other; want limits; %s", name, makeAnother)
	case cfg.PersistMode == natsjs.AsyncPersistMode:
		return fmt.Errorf("stream %s has persist_mode async: its server loses events that it has accepted when it ends; want the default; %s", name, makeAnother)
	case cfg.Mirror != nil && len(cfg.Mirror.SubjectTransforms) > 0:
		return fmt.Errorf("stream %s is a mirror that changes subjects: its messages would be other events than those of its origin; create it again without subject_transforms", name)
	}
	return nil
}

// risks returns which settings of a stream can lose events before they are delivered; nil if
// none can. The stream can be read.
func risks(name string, cfg natsjs.StreamConfig) error {
	var list []string
	add := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	if cfg.Discard == natsjs.DiscardOld {
		for _, limit := range []struct {
			name  string
			value int64
		}{{"max_msgs", cfg.MaxMsgs}, {"max_bytes", cfg.MaxBytes}, {"max_msgs_per_subject", cfg.MaxMsgsPerSubject}} {
			if limit.value > 0 {
				add("%s %d with discard old drops events that are not delivered yet: set discard new, or no limit", limit.name, limit.value)
			}
		}
	}
	if cfg.MaxAge > 0 && cfg.MaxAge < leastAge {
		add("max_age %s is shorter than an outage: set at least %s", cfg.MaxAge, leastAge)
	}
	if cfg.Retention == natsjs.InterestPolicy {
		add("retention interest drops what comes before a consumer exists, and what is to be re-read after a failover: set limits")
	}
	if cfg.Mirror != nil && cfg.Mirror.FilterSubject != "" {
		add("the mirror has only subject %s of its origin: create it again without filter_subject", cfg.Mirror.FilterSubject)
	}
	if list == nil {
		return nil
	}
	return fmt.Errorf("stream %s can lose events: %s", name, strings.Join(list, "; "))
}

// Risk returns which settings of the stream can lose events before they are delivered, as
// far as is known. The stream is read all the same.
func (r *reader) Risk() error {
	if err := r.risk.Load(); err != nil {
		return *err
	}
	return nil
}

// noteRisk notes the risks of the settings of the stream and of its origin. Those of an origin
// that cannot be asked are as they were.
func (r *reader) noteRisk(found natsjs.StreamConfig, o origin) {
	if o.config.Name != "" {
		r.originConfig = o.config
	}
	err := risks(r.stream.cfg.String(), found)
	if r.originConfig.Name != "" && found.Mirror != nil {
		err = errors.Join(err, risks(r.originConfig.Name+", the origin of "+r.stream.cfg.String(), r.originConfig))
	}
	if err == nil {
		r.risk.Store(nil)
		return
	}
	err = errors.New(strings.ReplaceAll(err.Error(), "\n", "; "))
	r.risk.Store(&err)
}

// lookAtSettings looks at the settings of the stream again, now and then, and lets nobody
// wait for that: the origin of a mirror may be unreachable.
func (r *reader) lookAtSettings(ctx context.Context) {
	if r.looks.Add(1)%settingsLooks != 0 || !r.looking.CompareAndSwap(false, true) {
		return
	}
	go func() {
		defer r.looking.Store(false)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askLimit)
		defer cancel()
		found, err := r.conn.findStream(ctx, r.stream.cfg)
		if err != nil {
			return
		}
		if o, err := r.stream.findOrigin(ctx, found); err == nil {
			r.noteRisk(found.CachedInfo().Config, o)
		}
	}()
}

// changedByHand returns which setting of a consumer keeps messages, or parts of them, from
// its source; empty if none does.
func changedByHand(cfg natsjs.ConsumerConfig) string {
	switch {
	case cfg.FilterSubject != "":
		return "filter_subject " + cfg.FilterSubject
	case len(cfg.FilterSubjects) > 0:
		return "filter_subjects " + strings.Join(cfg.FilterSubjects, ", ")
	case cfg.HeadersOnly:
		return "headers_only"
	}
	if _, ours := recall(cfg.Metadata); !ours && cfg.DeliverPolicy != natsjs.DeliverAllPolicy {
		return "deliver_policy " + cfg.DeliverPolicy.String() // somebody else has created it
	}
	return ""
}

// checkConsumer reports that a consumer is not as its source has made it: it was left in the
// middle of [Stream.reclaim], as a request that nobody answered was carried out later, or
// somebody changed it.
func checkConsumer(info *natsjs.ConsumerInfo) error {
	if setting := changedByHand(info.Config); setting != "" {
		return fmt.Errorf("consumer %s of stream %s has %s, which keeps messages from the source", info.Name, info.Stream, setting)
	}
	if wait := info.Config.AckWait; wait == reclaimWait {
		return fmt.Errorf("consumer %s of stream %s has an AckWait of %s, want %s", info.Name, info.Stream, wait, ackWait)
	}
	return nil
}

// readAgain replaces a consumer that has kept messages from its source by one that reads the
// stream from the beginning: the ledger and the horizon sort out what is done. A stream that
// drops what is acknowledged cannot be read again; there the setting is removed.
func (s *Stream) readAgain(ctx context.Context, want consumerWanted, setting string) (natsjs.Consumer, error) {
	attrs := []slog.Attr{slog.String("stream", s.cfg.String()), slog.String("consumer", s.consumer), slog.String("setting", setting)}
	if want.retention != natsjs.LimitsPolicy {
		s.conn.logger.LogAttrs(ctx, slog.LevelError, "consumer was changed by hand and kept messages from this source, which the stream may have deleted; the setting is removed", attrs...)
		want.corrected = true
		return s.configure(ctx, want)
	}
	s.conn.logger.LogAttrs(ctx, slog.LevelWarn, "consumer was changed by hand and kept messages from this source; it is created again and reads the stream from the retention horizon", attrs...)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recreateTimeout)
	defer cancel()
	if err := s.deleteConsumer(ctx); err != nil {
		return nil, err
	}
	return repeat(ctx, func(ctx context.Context) (natsjs.Consumer, error) { return s.configure(ctx, want) })
}
