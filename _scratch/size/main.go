package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tandem-fn/tandem/sinkwriter"
)

const claim = `insert into tandem.ledger (key, digest, writer)
select unnest($1::uuid[]), unnest($2::bytea[]), unnest($3::bigint[])
on conflict (key) do nothing`

func main() {
	ctx := context.Background()
	kind := os.Args[2]
	rate, _ := strconv.Atoi(os.Args[3])
	keep, _ := time.ParseDuration(os.Args[4])
	dur, _ := time.ParseDuration(os.Args[5])
	pool, err := pgxpool.New(ctx, os.Args[1])
	check(err)
	r, err := sinkwriter.NewRetention(pool, sinkwriter.RetentionConfig{Keep: keep})
	check(err)
	ctx, cancel := context.WithTimeout(ctx, dur)
	defer cancel()
	go func() {
		for ctx.Err() == nil {
			if _, err := r.Sweep(ctx); err != nil && ctx.Err() == nil {
				fmt.Println("sweep:", err)
			}
			time.Sleep(keep / 50)
		}
	}()
	n, start := 0, time.Now()
	lsn := func() (l int64) {
		check(pool.QueryRow(context.Background(), "select pg_current_wal_insert_lsn() - '0/0'::pg_lsn").Scan(&l))
		return
	}
	said, before, at := time.Now(), lsn(), 0
	digest := make([]byte, 16)
	for ctx.Err() == nil {
		keys := make([][16]byte, 512)
		digests := make([][]byte, 512)
		writers := make([]int64, 512)
		for i := range keys {
			n++
			var id string
			switch kind {
			case "sequence":
				id = fmt.Sprintf("order-%d", n)
			case "uuid7":
				id = uuid.Must(uuid.NewV7()).String()
			case "uuid4":
				id = uuid.NewString()
			}
			keys[i] = sinkwriter.NewKey("orders", "/till", id)
			digests[i] = digest
		}
		slices.SortFunc(keys, func(a, b [16]byte) int { return bytes.Compare(a[:], b[:]) })
		_, err := pool.Exec(ctx, claim, keys, digests, writers)
		if ctx.Err() != nil {
			break
		}
		check(err)
		if ahead := time.Duration(n)*time.Second/time.Duration(rate) - time.Since(start); ahead > 0 {
			time.Sleep(ahead)
		}
		if time.Since(said) > 20*time.Second {
			var rows, heap, index int64
			check(pool.QueryRow(context.Background(), "select count(*), pg_relation_size('tandem.ledger'), pg_relation_size('tandem.ledger_pkey') from tandem.ledger").Scan(&rows, &heap, &index))
			now := lsn()
			fmt.Printf("%s %4.0fs rate %d rows %d heap %.1f B/row index %.1f B/row total %.1f MiB, WAL %.0f B/row\n", kind, time.Since(start).Seconds(), int(float64(n)/time.Since(start).Seconds()), rows, float64(heap)/float64(rows), float64(index)/float64(rows), float64(heap+index)/(1<<20), float64(now-before)/float64(n-at))
			said, before, at = time.Now(), now, n
		}
	}
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
