package sinkwriter

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"
)

const progressSQL = `insert into tandem.progress as p (cluster, function, stream, epoch, floor, head)
values ($1, $2, $3, $4, $5::text::numeric, greatest($6::text::numeric, $5::text::numeric))
on conflict (cluster, function, stream) do update
set epoch = excluded.epoch, floor = excluded.floor, head = excluded.head, saved_at = now()`

// Progress keeps how far the sources of one cluster have come. It may be shared.
type Progress struct {
	pool    *pgxpool.Pool
	cluster string
}

// NewProgress keeps the progress of one cluster in the database behind pool.
func NewProgress(pool *pgxpool.Pool, cluster string) *Progress {
	return &Progress{pool: pool, cluster: cluster}
}

// Save notes that every message of the stream with a sequence number below floor
// is acknowledged, and none from head on was delivered. Epoch tells one making of
// the stream from the next.
func (p *Progress) Save(ctx context.Context, function, stream, epoch string, floor, head uint64) error {
	if _, err := p.pool.Exec(ctx, progressSQL, p.cluster, function, stream, epoch, number(floor), number(head)); err != nil {
		return fmt.Errorf("save progress of function %s in stream %s: %w", function, stream, err)
	}
	return nil
}

// number is a sequence number as a numeric, which holds all 64 bits.
func number(n uint64) string { return strconv.FormatUint(n, 10) }

// storable makes a text that PostgreSQL can store out of any bytes, and not too
// long a one.
func storable(text string) string {
	if len(text) > maxReason {
		text = text[:maxReason]
	}
	return strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
}
