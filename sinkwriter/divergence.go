package sinkwriter

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"log/slog"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tandem-fn/tandem/functions"
)

const (
	winnersSQL = `select writer, cluster, version from tandem.writer where writer = any($1::bigint[])`

	divergenceSQL = `insert into tandem.divergence (function, version, source, id, lost_cluster, won_cluster, lost_digest, won_digest, wanted)
select $1, $2, $3, $4, $5, $6, $7, $8, $9
where (select count(*) from tandem.divergence where function = $1 and version = $2) < 1000
on conflict do nothing`

	divergenceCountSQL = `insert into tandem.divergence_count as c (function, lost_version, won_version, lost_cluster, events)
values ($1, $2, $3, $4, 1)
on conflict (function, lost_version, won_version, lost_cluster) do update set events = c.events + 1, last_at = now()`

	// maxWanted bounds what is kept of a loser's effects, in bytes.
	maxWanted = 64 << 10
)

// difference is a loser whose digest is not the winner's.
type difference struct {
	offer  *offer
	writer int64 // the winner
	digest digest
}

// newDifference is that of an offer and a row of key, writer and digest.
func newDifference(o *offer, row [][]byte) difference {
	d := difference{offer: o, writer: int64(binary.BigEndian.Uint64(row[1]))}
	copy(d.digest[:], row[2])
	return d
}

// winner is a row of tandem.writer.
type winner struct {
	cluster, version string
}

// lost finishes offers that have lost, those that differ once that is recorded.
// The connection is outside a transaction, or broken: then it is only logged.
func (w *Writer) lost(ctx context.Context, s *session, lost []*offer, differences []difference) {
	for _, o := range lost {
		countLost(o)
	}
	different := map[*offer]Receipt{}
	if len(differences) > 0 {
		winners, err := s.winners(ctx, differences)
		if err != nil {
			w.config.Logger.LogAttrs(ctx, slog.LevelWarn, "could not record divergence", slog.Int("events", len(differences)), slog.Any("err", err))
		} else {
			w.record(ctx, s, differences, winners)
		}
		for _, d := range differences {
			won, known := winners[d.writer]
			different[d.offer] = Receipt{Key: d.offer.key, Diverged: known && won.version == d.offer.version, Digest: d.digest}
		}
	}
	for _, o := range lost {
		receipt, differs := different[o]
		if !differs {
			receipt = Receipt{Key: o.key, Digest: o.digest}
		}
		o.finish(result{receipt: receipt})
	}
}

// winners looks up who won where a digest differs.
func (s *session) winners(ctx context.Context, differences []difference) (map[int64]winner, error) {
	ids := make([]int64, 0, len(differences))
	for _, d := range differences {
		ids = append(ids, d.writer)
	}
	found := map[int64]winner{}
	err := s.run(ctx, []step{{
		sql: winnersSQL, oids: []uint32{pgtype.Int8ArrayOID}, params: [][]byte{int8Array(ids)}, table: "tandem.writer",
		row: func(v [][]byte) {
			found[int64(binary.BigEndian.Uint64(v[0]))] = winner{cluster: string(v[1]), version: string(v[2])}
		},
	}})
	return found, err
}

// record keeps the differences of a batch, in a transaction of their own. A
// failure is logged: nobody has to wait for it.
func (w *Writer) record(ctx context.Context, s *session, differences []difference, winners map[int64]winner) {
	text := []uint32{pgtype.TextOID, pgtype.TextOID, pgtype.TextOID, pgtype.TextOID}
	var steps []step
	for _, d := range differences {
		o, won := d.offer, winners[d.writer]
		cluster := []byte(w.config.Cluster)
		steps = append(steps, step{
			sql: divergenceCountSQL, oids: text, table: "tandem.divergence_count",
			params: [][]byte{[]byte(o.function), []byte(o.version), []byte(won.version), cluster},
		})
		if won.version != o.version {
			o.counters.otherVersion.Add(1)
			continue
		}
		o.counters.diverged.Add(1)
		w.config.Logger.LogAttrs(ctx, slog.LevelError, "divergence: the function computed other effects than the winner, with the same version: it is not deterministic, or two events share a source and id",
			slog.String("lost_cluster", w.config.Cluster), slog.String("won_cluster", won.cluster), slog.String("function", o.function), slog.String("version", o.version),
			slog.String("event_source", o.event.Source()), slog.String("event_id", o.event.ID()))
		steps = append(steps, step{
			sql: divergenceSQL, table: "tandem.divergence",
			oids: append(append([]uint32{}, text...), pgtype.TextOID, pgtype.TextOID, pgtype.ByteaOID, pgtype.ByteaOID, pgtype.JSONOID),
			params: [][]byte{
				[]byte(o.function), []byte(o.version), []byte(o.event.Source()), []byte(o.event.ID()),
				cluster, []byte(won.cluster), o.digest[:], d.digest[:], wanted(o.effects),
			},
		})
	}
	if err := s.run(ctx, steps); err != nil {
		w.config.Logger.LogAttrs(ctx, slog.LevelWarn, "could not record divergence", slog.Int("events", len(differences)), slog.Any("err", err))
	}
}

// wanted shows effects to people.
func wanted(fx functions.Effects) []byte {
	text, err := json.Marshal(fx)
	if err != nil || len(text) > maxWanted {
		text, _ = json.Marshal(map[string]int{"writes": len(fx.Writes), "outputs": len(fx.Outputs), "bytes": len(text)})
	}
	return text
}
