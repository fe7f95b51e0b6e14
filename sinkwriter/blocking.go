package sinkwriter

import (
	"context"
	"encoding/binary"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

const (
	// Finds the sessions that hold the locks for which the transaction with mark $1 waits,
	// directly or through other waiting sessions. Among them it ends those of Tandem
	// (recognized by their mark) that have been waiting for their client for more than $2
	// milliseconds plus the round trip in the mark: sessions of its own role directly, those of
	// other roles with function tandem.end_session. A session waits for its client while it
	// waits for the next message, reads the rest of one, or sends an answer. The last column
	// has the same values as the result of that function.
	blockingSQL = `with recursive marks as materialized (
  select pid, objid from pg_catalog.pg_locks where locktype = 'advisory' and classid = 1413566020 and objsubid = 2
  and database = (select oid from pg_catalog.pg_database where datname = current_database())
), blocking (pid) as (
  select unnest(pg_catalog.pg_blocking_pids(m.pid)) from marks m where m.objid = $1::bigint::oid
  union
  select unnest(pg_catalog.pg_blocking_pids(b.pid)) from blocking b
), sessions as materialized (
  select a.pid, a.usename, a.application_name, a.state, a.wait_event, pg_catalog.pg_has_role(a.usesysid, 'usage') as own,
    m.pid is not null as marked, $2::bigint + m.trip as quiet,
    ceil(extract(epoch from a.state_change - pg_catalog.clock_timestamp()) * 1000)::bigint + $2::bigint + m.trip as remaining
  from blocking b join pg_catalog.pg_stat_activity a on a.pid = b.pid
  left join (select pid, max(objid::bigint & 4095) as trip from marks group by pid) as m on m.pid = a.pid
)
select pid, coalesce(usename, ''), coalesce(application_name, ''), coalesce(state, ''), marked,
  case when not marked then null
    when not own then tandem.end_session(pid, $1::bigint, quiet)
    when wait_event not in ('ClientRead', 'ClientWrite') then null
    when remaining > 0 then remaining
    when pg_catalog.pg_terminate_backend(pid) then 0 end
from sessions where pid <> pg_catalog.pg_backend_pid()`

	// blockerLogged is the minimum interval between two log lines about one blocking
	// session; blockersLogged is the minimum between lines about any.
	blockerLogged, blockersLogged = time.Minute, time.Second
)

// blocker is a session that holds a lock for which an attempt waits.
type blocker struct {
	pid               int32
	role, application string
	state             string
	marked, ended     bool
	denied            bool          // it would be ended if this role had the privilege
	remaining         time.Duration // until it is ended, unless it continues
}

// blockers remembers which session was logged last.
type blockers struct {
	looking sync.Mutex // one lookup at a time, because each uses a connection

	mu     sync.Mutex
	logged int32
	at     time.Time
}

// watch ends sessions of Tandem that block an attempt and do not continue, and logs other
// blocking sessions. It looks for them after first, and then repeatedly until stop is
// called.
func (w *Writer) watch(s *session, first time.Duration) (stop func()) {
	ended := make(chan struct{})
	number := s.mark()
	timer := time.AfterFunc(first, func() {
		for looks := 1; ; looks++ {
			pause := min(w.lookForBlockers(number, ended), time.Duration(min(looks, 8))*w.config.ClaimTimeout/4)
			select {
			case <-ended:
				return
			case <-w.ctx.Done():
				return
			case <-time.After(pause):
			}
		}
	})
	return func() {
		timer.Stop()
		close(ended)
	}
}

// lookForBlockers looks once, and returns the time until one of them may be ended.
func (w *Writer) lookForBlockers(number int32, ended <-chan struct{}) time.Duration {
	pause := time.Minute
	w.blockers.looking.Lock()
	defer w.blockers.looking.Unlock()
	select {
	case <-ended:
		return pause
	default:
	}
	found, err := w.endBlockers(number)
	if err != nil {
		w.config.Logger.LogAttrs(w.ctx, slog.LevelDebug, "could not look for blocking sessions", slog.Any("err", err))
		return pause
	}
	for _, b := range found {
		w.logBlocker(b)
		if b.remaining > 0 {
			pause = min(pause, b.remaining+time.Millisecond)
		}
	}
	return pause
}

// endBlockers looks for the sessions that block a marked transaction, on another connection.
func (w *Writer) endBlockers(number int32) ([]blocker, error) {
	ctx, cancel := context.WithTimeout(w.ctx, w.config.CommitTimeout)
	defer cancel()
	s, err := w.acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer s.release()
	var found []blocker
	err = s.run(ctx, []step{{
		sql: blockingSQL, oids: []uint32{pgtype.Int8OID, pgtype.Int8OID},
		params: [][]byte{int8Param(int64(number)), int8Param(w.config.ClaimTimeout.Milliseconds())},
		row: func(v [][]byte) {
			b := blocker{
				pid:  int32(binary.BigEndian.Uint32(v[0])),
				role: string(v[1]), application: string(v[2]), state: string(v[3]), marked: v[4][0] != 0,
			}
			if v[5] != nil {
				remaining := int64(binary.BigEndian.Uint64(v[5]))
				b.ended, b.denied = remaining == 0, remaining < 0
				b.remaining = time.Duration(max(remaining, 0)) * time.Millisecond
			}
			found = append(found, b)
		},
	}})
	return found, err
}

// logBlocker logs that a session was ended, or that an attempt waits for it: about each
// session at most once a minute, and never about a session of Tandem that is at work.
func (w *Writer) logBlocker(b blocker) {
	if b.marked && !b.ended && !b.denied {
		return
	}
	l := &w.blockers
	l.mu.Lock()
	at := now()
	quiet := blockersLogged
	if l.logged == b.pid {
		quiet = blockerLogged
	}
	if !b.ended && at.Sub(l.at) < quiet {
		l.mu.Unlock()
		return
	}
	l.logged, l.at = b.pid, at
	l.mu.Unlock()
	attrs := []slog.Attr{
		slog.Int("pid", int(b.pid)), slog.String("application_name", b.application), slog.String("role", b.role), slog.String("state", b.state),
	}
	switch log := w.config.Logger; {
	case b.ended:
		log.LogAttrs(w.ctx, slog.LevelWarn, "ended a session of Tandem that held a lock without making progress; its events are retried: nothing to do, unless it repeats", attrs...)
	case b.denied:
		log.LogAttrs(w.ctx, slog.LevelError, "a session of another role holds a lock, and the migration role may not end it if it hangs: grant that role to the migration role", attrs...)
	default:
		log.LogAttrs(w.ctx, slog.LevelWarn, "waiting for a lock that a session outside Tandem holds: end its transaction, or the session with this pid", attrs...)
	}
}
