package e2e

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// Work is the work that a trial has caused, in total or per event.
type Work struct {
	Computations float64 `json:"computations"` // of all clusters together
	Transactions float64 `json:"transactions"`
	WALBytes     float64 `json:"wal_bytes"`

	// SiteBytes are the bytes over the connections of one cluster, east, to database and
	// stream, both directions together. If east has a site of its own, they are the
	// bytes between the sites.
	SiteBytes float64 `json:"site_bytes"`
}

// work returns the work of the processes so far, which must be running. It returns nothing
// unless the row measures a mode.
func (d *deployment) work(ctx context.Context, r Row) (w Work, err error) {
	if r.mode == nil {
		return Work{}, nil
	}
	counts, err := d.computed(ctx)
	if err != nil {
		return Work{}, err
	}
	for _, n := range counts {
		w.Computations += float64(n)
	}
	for _, address := range d.metrics[east] {
		n, err := readMetric(ctx, address, "tandem_link_bytes_total")
		if err != nil {
			return Work{}, fmt.Errorf("read the bytes over the links of %s: %w", east, err)
		}
		w.SiteBytes += n
	}
	return w, nil
}

// databaseWork adds the work of the database so far. At the end of a trial the processes
// have ended: PostgreSQL counts transactions when a connection is closed, or once a
// second.
func (d *deployment) databaseWork(ctx context.Context, r Row, w Work) (_ Work, err error) {
	if r.mode != nil {
		w.Transactions, w.WALBytes, err = d.database.Work(ctx)
	}
	return w, err
}

// perEvent returns the work since before, divided by the number of events.
func (w Work) perEvent(before Work, events int) Work {
	n := float64(events)
	return Work{
		Computations: (w.Computations - before.Computations) / n,
		Transactions: (w.Transactions - before.Transactions) / n,
		WALBytes:     (w.WALBytes - before.WALBytes) / n,
		SiteBytes:    (w.SiteBytes - before.SiteBytes) / n,
	}
}

// readMetric returns the sum of a metric of a process over its labels. It fails if the process
// does not have it.
func readMetric(ctx context.Context, address, name string) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/metrics", http.NoBody)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	sum, found := 0.0, false
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if !strings.HasPrefix(lines.Text(), name+"{") {
			continue
		}
		n, err := strconv.ParseFloat(lines.Text()[strings.LastIndexByte(lines.Text(), ' ')+1:], 64)
		if err != nil {
			return 0, fmt.Errorf("parse %q: %w", lines.Text(), err)
		}
		sum, found = sum+n, true
	}
	if err := lines.Err(); err != nil {
		return 0, err
	}
	if !found {
		return 0, fmt.Errorf("GET http://%s/metrics: %s, without %s", address, resp.Status, name)
	}
	return sum, nil
}
