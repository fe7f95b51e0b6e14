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

// leastAge is the shortest max_age that is not a risk: with a shorter one, messages
// expire in an ordinary outage, or while an event that breaks its function is retried.
const leastAge = time.Hour

// settingsLooks is the number of lookups of the position after which the settings of the
// stream are checked again.
const settingsLooks = 10

// checkSettings returns why a stream cannot be read without losing events, whatever happens
// to it later.
func checkSettings(name string, cfg natsjs.StreamConfig) error {
	const makeAnother = "this cannot be changed: create another stream and copy the messages"
	switch {
	case cfg.Retention == natsjs.WorkQueuePolicy:
		return fmt.Errorf("stream %s has retention workqueue: one cluster would take events from the other; want limits; %s", name, makeAnother)
	case cfg.PersistMode == natsjs.AsyncPersistMode:
		return fmt.Errorf("stream %s has persist_mode async: its server loses events that it has accepted when it ends; want the default; %s", name, makeAnother)
	case cfg.Mirror != nil && len(cfg.Mirror.SubjectTransforms) > 0:
		return fmt.Errorf("stream %s is a mirror that changes subjects: its messages would have other identities than those of its origin; create it again without subject_transforms", name)
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
		add("retention interest drops messages that arrive before a consumer exists, and those that must be re-read after a failover: set limits")
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
// far as known. The stream is still read.
func (r *reader) Risk() error {
	if err := r.risk.Load(); err != nil {
		return *err
	}
	return nil
}

// noteRisk records the risks in the settings of the stream and of its origin. If the origin is
// unreachable, its last known settings count.
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

// lookAtSettings checks the settings of the stream periodically, in the background,
// because the origin of a mirror may be unreachable.
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

// changedByHand returns the setting of a consumer that keeps messages, or parts of them,
// from its source; empty if none does.
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
		return "deliver_policy " + cfg.DeliverPolicy.String() // not created by Tandem
	}
	return ""
}

// checkConsumer returns an error if a consumer does not have the settings of its source.
// Either it was left in the middle of [Stream.reclaim], because an unanswered request was
// executed later, or an operator changed it.
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
// stream from the beginning: lookups in the ledger and the horizon skip committed events. A
// stream that deletes acknowledged messages cannot be read again; there the setting is
// removed.
func (s *Stream) readAgain(ctx context.Context, want consumerWanted, setting string) (natsjs.Consumer, error) {
	attrs := []slog.Attr{slog.String("stream", s.cfg.String()), slog.String("consumer", s.consumer), slog.String("setting", setting)}
	if want.retention != natsjs.LimitsPolicy {
		s.conn.logger.LogAttrs(ctx, slog.LevelError, "consumer was changed by hand and kept messages from this source, which the stream may have deleted; the setting is removed: publish missing events again", attrs...)
		want.corrected = true
		return s.configure(ctx, want)
	}
	s.conn.logger.LogAttrs(ctx, slog.LevelWarn, "consumer was changed by hand and kept messages from this source; it is recreated and reads the stream from the retention horizon; nothing else to do", attrs...)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recreateTimeout)
	defer cancel()
	if err := s.deleteConsumer(ctx); err != nil {
		return nil, err
	}
	return repeat(ctx, func(ctx context.Context) (natsjs.Consumer, error) { return s.configure(ctx, want) })
}
