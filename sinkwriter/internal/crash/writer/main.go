// Program writer commits offers until it is paused, killed or told to end. Each
// line of its input is an offer: id, size and whether to flood. Each line of its
// output is the outcome of one offer: the id, and won, lost or an error.
package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tandem-fn/tandem/sinkwriter"
	"github.com/tandem-fn/tandem/sinkwriter/internal/crash"
)

func main() {
	url := flag.String("url", "", "the database")
	cluster := flag.String("cluster", "east", "the cluster to be")
	claimTimeout := flag.Duration("claim-timeout", 0, "the claim timeout; 0 for the default")
	flag.Parse()
	if err := run(*url, *cluster, *claimTimeout, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(url, cluster string, claimTimeout time.Duration, in io.Reader, out io.Writer) error {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, url)
	if err != nil {
		return err
	}
	defer pool.Close()
	w, err := sinkwriter.New(pool, sinkwriter.Config{
		Cluster: cluster, Connections: 1, ClaimTimeout: claimTimeout, CommitTimeout: crash.CommitTimeout, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return err
	}

	var mu sync.Mutex
	var all sync.WaitGroup
	for lines := bufio.NewScanner(in); lines.Scan(); {
		var id string
		var size int
		var flood bool
		if _, err := fmt.Sscan(lines.Text(), &id, &size, &flood); err != nil {
			return fmt.Errorf("line %q: %w", lines.Text(), err)
		}
		all.Go(func() {
			r, err := w.Commit(ctx, crash.Offer(id, size, flood))
			answer := "lost"
			switch {
			case err != nil:
				answer = err.Error()
			case r.Diverged:
				answer = "diverged"
			case r.Won:
				answer = "won"
			}
			mu.Lock()
			defer mu.Unlock()
			_, _ = fmt.Fprintln(out, id, answer)
		})
	}
	all.Wait()
	return w.Close(ctx)
}
