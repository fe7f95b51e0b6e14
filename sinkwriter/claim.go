package sinkwriter

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

const (
	// The claim. Keys are sorted, and a plain unnest keeps their order, so that two
	// overlapping claims wait for each other in one direction only. As in all
	// statements that process many rows, unnest stands in the select list: in the
	// from clause PostgreSQL would materialize the rows, which takes a tenth of the
	// statement's time. The number of rows in the answer is the number of keys that
	// were won; returning the keys would take a sixth of the time.
	claimSQL = `insert into tandem.ledger (key, digest, writer)
select unnest($1::uuid[]), unnest($2::bytea[]), unnest($3::bigint[])
on conflict (key) do nothing`

	// The claim of the other keys of a batch, which is executed only if the first one was
	// won: then the transaction has an id. Otherwise another cluster has usually committed
	// all of them, and a lookup takes half of the time of a lost claim. Usually all are won, so
	// the function inserts them without "on conflict", which takes half of the time.
	claimRestSQL = `select tandem.claim($1::uuid[], $2::bytea[], $3::bigint[])`

	// Returns the keys that this transaction has won, and the ledger rows of the other keys
	// whose digest differs from the offered one. It also compares the time of the
	// transaction, because transaction ids are reused.
	claimedSQL = `select u.k, l.won, l.writer, l.digest from (select unnest($1::uuid[]) as k, unnest($2::bytea[]) as d) as u
cross join lateral (
  select digest, writer, xmin = pg_catalog.pg_current_xact_id_if_assigned()::xid and committed_at = now() as won from tandem.ledger where key = u.k offset 0
) as l
where l.won or (l.digest <> u.d and l.digest <> '' and u.d <> '')`

	registerSQL = `insert into tandem.writer (writer, cluster, function, version)
values ($1, $2, $3, $4) on conflict do nothing`

	// Returns the ledger rows of lost keys whose digest differs from the offered
	// one. It runs after the claim, so that it sees a winner that the claim
	// waited for. The lateral join with offset forces one index lookup per key,
	// whatever the planner estimates.
	divergedSQL = `select u.k, l.writer, l.digest from (select unnest($1::uuid[]) as k, unnest($2::bytea[]) as d) as u
cross join lateral (select digest, writer from tandem.ledger where key = u.k offset 0) as l
where l.digest <> u.d and l.digest <> ''`

	// Returns the keys that are not in the ledger, or have another digest
	// there, without claiming anything. If all events were committed before, it
	// returns no row.
	recognizeSQL = `select u.k, l.writer, l.digest from (select unnest($1::uuid[]) as k, unnest($2::bytea[]) as d) as u
left join lateral (select digest, writer from tandem.ledger where key = u.k offset 0) as l on true
where l.writer is null or (l.digest <> u.d and l.digest <> '' and u.d <> '')`
)

var errStrangeKey = errors.New("the server named a key that it was not asked for")

// claimed is the result of a claim.
type claimed struct {
	won, lost   []*offer // both sorted by key
	differences []difference
	compared    bool // whether differences are known

	// unclaimed is set if the first key is lost and none was won. The other keys have to be
	// looked up, because they were probably not claimed.
	unclaimed bool
}

// claim inserts the keys into the ledger, except those that exist. Unless whole is true, it
// does so only if the first key does not exist.
func (w *Writer) claim(ctx context.Context, s *session, batch []*offer, whole bool, lockTimeout time.Duration) (*claimed, error) {
	steps := append([]step{{sql: beginSQL}, s.settings()}, w.outbox.measure()...)
	if lockTimeout > 0 {
		steps = append(steps, step{
			sql: lockTimeoutSQL, oids: []uint32{pgtype.TextOID}, params: [][]byte{[]byte(milliseconds(lockTimeout))},
		})
	}
	var won int64
	whole = whole || len(batch) == 1
	first := 1
	if whole {
		first = len(batch)
	}
	claim := s.claimStep(claimSQL, batch[:first])
	claim.affected = func(rows int64) { won += rows }
	steps = append(steps, claim)
	if !whole {
		rest := s.claimStep(claimRestSQL, batch[first:])
		rest.row = func(v [][]byte) { won += int64(binary.BigEndian.Uint64(v[0])) }
		steps = append(steps, rest)
	}
	begin := now()
	if err := s.run(ctx, steps); err != nil {
		return nil, err
	}
	s.state.trip = min(s.state.trip, now().Sub(begin)) // the first measurement may have been taken at a bad moment
	switch {
	case won == int64(len(batch)):
		return &claimed{won: batch}, nil
	case won == 0 && whole:
		return &claimed{lost: batch}, nil
	case won == 0:
		return &claimed{unclaimed: true}, nil
	}
	return distinguish(ctx, s, batch, int(won))
}

// claimStep returns a statement that claims the keys of offers.
func (s *session) claimStep(sql string, offers []*offer) step {
	var id [8]byte
	writers := appendArray(s.state.scratch.take(20+12*len(offers)), pgtype.Int8OID, len(offers), func(i int) ([]byte, bool) {
		binary.BigEndian.PutUint64(id[:], uint64(offers[i].writer))
		return id[:], false
	})
	return step{
		sql: sql, oids: []uint32{pgtype.UUIDArrayOID, pgtype.ByteaArrayOID, pgtype.Int8ArrayOID},
		params: [][]byte{s.keys(offers), s.digests(offers), writers}, table: "tandem.ledger",
	}
}

// distinguish returns which keys of a batch were won, and where the winner's effects
// differ.
func distinguish(ctx context.Context, s *session, batch []*offer, count int) (*claimed, error) {
	won := make([]bool, len(batch))
	c := &claimed{won: make([]*offer, 0, count), lost: make([]*offer, 0, len(batch)-count), compared: true}
	found := 0
	if err := s.run(ctx, []step{{
		sql: claimedSQL, oids: []uint32{pgtype.UUIDArrayOID, pgtype.ByteaArrayOID},
		params: [][]byte{s.keys(batch), s.digests(batch)}, table: "tandem.ledger",
		row: func(v [][]byte) {
			switch i := find(batch, v[0]); {
			case i < 0:
			case v[1][0] != 0:
				won[i] = true
				found++
			default:
				c.differences = append(c.differences, newDifference(batch[i], v[1:]))
			}
		},
	}}); err != nil {
		return nil, err
	}
	if found != count {
		return nil, errStrangeKey
	}
	for i, o := range batch {
		if won[i] {
			c.won = append(c.won, o)
		} else {
			c.lost = append(c.lost, o)
		}
	}
	return c, nil
}

// check returns the step that finds the lost offers whose effects differ from
// the winner's.
func (w *Writer) check(s *session, c *claimed) []step {
	if len(c.lost) == 0 || c.compared || w.config.NoDivergence {
		return nil
	}
	return []step{{
		sql: divergedSQL, oids: []uint32{pgtype.UUIDArrayOID, pgtype.ByteaArrayOID},
		params: [][]byte{s.keys(c.lost), s.digests(c.lost)}, table: "tandem.ledger",
		row: func(v [][]byte) {
			if i := find(c.lost, v[0]); i >= 0 {
				c.differences = append(c.differences, newDifference(c.lost[i], v))
			}
		},
	}}
}

// recognize finishes the offers whose keys are in the ledger already, and returns the others. A
// key that is found is committed, so a cluster that lags is spared the claim. A key that is not
// found may be committed a moment later.
//
// The steps in more are sent in the same round trip. They end the transaction, if there is one.
func (w *Writer) recognize(ctx context.Context, s *session, batch []*offer, more ...step) ([]*offer, error) {
	missing := make([]bool, len(batch))
	var differences []difference
	strange := false
	if err := s.run(ctx, append([]step{{
		sql: recognizeSQL, oids: []uint32{pgtype.UUIDArrayOID, pgtype.ByteaArrayOID},
		params: [][]byte{s.keys(batch), s.digests(batch)}, table: "tandem.ledger",
		row: func(v [][]byte) {
			switch i := find(batch, v[0]); {
			case i < 0:
				strange = true
			case v[1] == nil:
				missing[i] = true
			default:
				differences = append(differences, newDifference(batch[i], v))
			}
		},
	}}, more...)); err != nil {
		return batch, err
	}
	if strange { // a key that is not returned counts as committed, so the answer must be complete
		return batch, errStrangeKey
	}
	var lost, rest []*offer
	for i, o := range batch {
		if missing[i] {
			rest = append(rest, o)
		} else {
			lost = append(lost, o)
		}
	}
	w.lost(ctx, s, lost, differences)
	return rest, nil
}

// register returns the steps that insert into tandem.writer the writers of the
// offers that won, if this connection has not seen them there. Writers of lost
// offers are not inserted: they write nothing.
func (w *Writer) register(s *session, won []*offer) []step {
	var steps []step
	var done []int64
	for _, o := range won {
		if s.state.writers[o.writer] || slices.Contains(done, o.writer) {
			continue
		}
		done = append(done, o.writer)
		steps = append(steps, step{
			sql:    registerSQL,
			oids:   []uint32{pgtype.Int8OID, pgtype.TextOID, pgtype.TextOID, pgtype.TextOID},
			params: [][]byte{int8Param(o.writer), []byte(w.config.Cluster), []byte(o.function), []byte(o.version)},
			table:  "tandem.writer",
		})
	}
	// In one order everywhere, because these rows may be new to other sessions,
	// too.
	slices.SortFunc(steps, func(a, b step) int { return bytes.Compare(a.params[0], b.params[0]) })
	return steps
}

// find returns the index of a key in a batch, which is sorted, or -1.
func find(batch []*offer, key []byte) int {
	i, ok := slices.BinarySearchFunc(batch, key, func(o *offer, key []byte) int { return bytes.Compare(o.key[:], key) })
	if !ok {
		return -1
	}
	return i
}

func (s *session) keys(batch []*offer) []byte {
	return appendArray(s.state.scratch.take(20+20*len(batch)), pgtype.UUIDOID, len(batch), func(i int) ([]byte, bool) { return batch[i].key[:], false })
}

func (s *session) digests(batch []*offer) []byte {
	return appendArray(s.state.scratch.take(20+20*len(batch)), pgtype.ByteaOID, len(batch), func(i int) ([]byte, bool) { return batch[i].digest.stored(), false })
}
