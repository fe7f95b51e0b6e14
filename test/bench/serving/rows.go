package serving

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"strings"
	"time"
)

// Names of rows.
const (
	RowBare   = "bare"
	RowBinary = "serve-binary"
	RowBatch  = "serve-batch"

	rowFlights = "serve-flights"
)

// Row is a line of the table.
type Row struct {
	Name  string
	About string // one line

	events int // per request
}

// batch is the number of events in a request of row serve-batch.
const batch = 100

// Rows lists the rows.
func Rows() []Row {
	return []Row{
		{Name: RowBare, events: 1, About: "a net/http handler that reads the body and answers 204"},
		{Name: RowBinary, events: 1, About: "the endpoint, binary mode, a function and a writer that do nothing"},
		{Name: RowBatch, events: batch, About: "the same, batches of 100 events"},
		{Name: rowFlights, events: 1, About: "serve-binary, and the function reads its data and computes effects"},
	}
}

// Options configure the measurement.
type Options struct {
	Rows        []Row
	Events      int // a trial of each row
	Rounds      int
	Connections int
	Profile     string // file for CPU profiles of the servers; the row's name is appended

	Now      func() time.Time
	Progress func(format string, args ...any)
	Stderr   io.Writer // of the servers
}

// sample is the measurement of one trial.
type sample struct {
	requests  int
	events    int
	elapsed   time.Duration
	mallocs   uint64
	serverCPU time.Duration
	clientCPU time.Duration
	busy      float64 // of the server's cores
	rss       int64
	latencies latencies
}

func (s sample) requestsPerSecond() float64 { return float64(s.requests) / s.elapsed.Seconds() }
func (s sample) eventsPerSecond() float64   { return float64(s.events) / s.elapsed.Seconds() }

// Result holds the measurements of a row, one sample per round.
type Result struct {
	Row     Row
	samples []sample
}

// cores divides the cores between server and generator.
func cores() (server, generator int) {
	all := runtime.GOMAXPROCS(0)
	return max(1, all/2), max(1, all-all/2)
}

// Run measures rows.
func Run(ctx context.Context, o Options) ([]Result, error) {
	server, generator := cores()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(generator))
	results := make([]Result, len(o.Rows))
	for round := range o.Rounds {
		for i, row := range o.Rows {
			results[i].Row = row
			s, err := o.trial(ctx, row, server)
			if err != nil {
				return nil, fmt.Errorf("row %s, round %d: %w", row.Name, round+1, err)
			}
			results[i].samples = append(results[i].samples, s)
			o.Progress("round %d/%d  %-22s %9.0f requests/s", round+1, o.Rounds, row.Name, s.requestsPerSecond())
		}
	}
	return results, nil
}

// trial measures a row once.
func (o Options) trial(ctx context.Context, row Row, cores int) (sample, error) {
	profile := o.Profile
	if profile != "" {
		profile += "." + row.Name
	}
	p, err := startRow(ctx, row.Name, cores, profile, o.Stderr)
	if err != nil {
		return sample{}, err
	}
	defer p.stop()

	requests := max(o.Events/row.events, 1)
	request := requestOf(row, p.address)
	l := &load{address: p.address, connections: min(o.Connections, requests), patience: patience, now: o.Now, request: func(int, int) []byte { return request }}
	l.requests = max(requests/10, 1) // to warm up
	if _, err := l.spin(ctx); err != nil {
		return sample{}, err
	}
	l.requests = requests
	before, err := p.used()
	if err != nil {
		return sample{}, err
	}
	client := cpuTime()
	outcome, err := l.spin(ctx)
	if err != nil {
		return sample{}, err
	}
	client = cpuTime() - client
	after, err := p.used()
	if err != nil {
		return sample{}, err
	}
	s := sample{
		requests: requests, events: requests * row.events, elapsed: outcome.elapsed, mallocs: after.Mallocs - before.Mallocs,
		serverCPU: time.Duration(after.CPU - before.CPU), clientCPU: time.Duration(client), rss: after.RSS, latencies: outcome.latencies,
	}
	s.busy = s.serverCPU.Seconds() / (s.elapsed.Seconds() * float64(cores))
	return s, nil
}

const (
	data       = `{"date":"2001/01/01 00:47","delay":66,"distance":1750,"origin":"DTW","destination":"LAS"}`
	attributes = "Ce-Specversion: 1.0\r\nCe-Id: flight-2001-000001\r\nCe-Source: /tandem/flights-2001\r\nCe-Type: com.example.flight.departed\r\n" +
		"Ce-Subject: DTW\r\nCe-Time: 2001-01-01T00:47:00Z\r\nContent-Type: application/json\r\n"
)

// requestOf returns the request of a row; the bare handler receives the same as
// serve-binary.
func requestOf(row Row, address string) []byte {
	if row.events == 1 {
		return post(address, attributes, data)
	}
	members := make([]string, row.events)
	for i := range members {
		members[i] = fmt.Sprintf(`{"specversion":"1.0","id":"flight-2001-%06d","source":"/tandem/flights-2001","type":"com.example.flight.departed",`+
			`"subject":"DTW","time":"2001-01-01T00:47:00Z","datacontenttype":"application/json","data":%s}`, i, data)
	}
	return post(address, "Content-Type: application/cloudevents-batch+json\r\n", "["+strings.Join(members, ",")+"]")
}
