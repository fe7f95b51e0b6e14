// Command function is the function of the benchmark's clusters: orders, served as func
// serves it. Variables make it wait, or accept bad events:
//
//	TANDEM_BENCH_STALL=200ms   all computations sleep until that much of a second is over
//	TANDEM_BENCH_SLOW=1s       a computation of an order that orders.Slow reports sleeps
//	TANDEM_BENCH_WAIT=5ms      each computation holds one of 8 places for that time
//	TANDEM_BENCH_BURN=1ms      each computation uses that much processor time
//	TANDEM_BENCH_SPOILT=hang   it accepts bad events too, each of which has that effect
//	TANDEM_BENCH_CONTROL=ADDRESS
//
// At the control address, GET returns the number of computations so far, and POST with
// ?nap=300ms makes the next computation sleep, with ?sleep=300ms all later ones.
package main

import (
	"errors"
	"fmt"
	"net"
	stdhttp "net/http"
	"os"
	"sync/atomic"
	"time"

	"knative.dev/func-go/http"

	"github.com/tandem-fn/tandem/eventing/process"
	"github.com/tandem-fn/tandem/test/bench/e2e/orders"
)

// places is how many computations wait at the same time with TANDEM_BENCH_WAIT.
const places = 8

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err.Error())
		os.Exit(1)
	}
}

func run() error {
	p := pace{pool: make(chan struct{}, places)}
	var errs []error
	for name, to := range map[string]*time.Duration{
		"TANDEM_BENCH_STALL": &p.stall, "TANDEM_BENCH_SLOW": &p.slow, "TANDEM_BENCH_WAIT": &p.wait,
		"TANDEM_BENCH_BURN": &p.burn,
	} {
		if text := os.Getenv(name); text != "" {
			var err error
			if *to, err = time.ParseDuration(text); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", name, err))
			}
		}
	}
	if p.burn > 0 {
		errs = append(errs, burn(p.burn)) // to find out whether it can
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if address := os.Getenv("TANDEM_BENCH_CONTROL"); address != "" {
		listener, err := net.Listen("tcp", address) //nolint:noctx // at once, or not at all
		if err != nil {
			return err
		}
		control := &stdhttp.Server{Handler: stdhttp.HandlerFunc(p.control), ReadHeaderTimeout: 10 * time.Second}
		go control.Serve(listener) //nolint:errcheck // it ends with the process
	}
	f := orders.Function(p.before)
	if kind := os.Getenv("TANDEM_BENCH_SPOILT"); kind != "" {
		var err error
		if f, err = spoil(f, kind); err != nil {
			return err
		}
	}
	return http.Start(process.New(f))
}

// pace counts computations and makes them wait.
type pace struct {
	stall, slow, wait, burn time.Duration

	computed atomic.Int64
	nap      atomic.Int64 // how long the next computation sleeps
	sleep    atomic.Int64 // how long all computations sleep
	pool     chan struct{}
}

func (p *pace) before(o orders.Order) {
	p.computed.Add(1)
	if nap := time.Duration(p.nap.Swap(0)); nap > 0 {
		time.Sleep(nap)
	}
	time.Sleep(time.Duration(p.sleep.Load()))
	if p.stall > 0 {
		now := time.Now()
		time.Sleep(p.stall - now.Sub(now.Truncate(time.Second)))
	}
	if p.slow > 0 {
		if n, err := o.Number(); err == nil && orders.Slow(n) {
			time.Sleep(p.slow)
		}
	}
	if p.wait > 0 {
		p.pool <- struct{}{}
		time.Sleep(p.wait)
		<-p.pool
	}
	if p.burn > 0 {
		_ = burn(p.burn) // it succeeded at the start
	}
}

func (p *pace) control(w stdhttp.ResponseWriter, r *stdhttp.Request) {
	if r.Method == stdhttp.MethodPost {
		length, to := r.URL.Query().Get("nap"), &p.nap
		if length == "" {
			length, to = r.URL.Query().Get("sleep"), &p.sleep
		}
		d, err := time.ParseDuration(length)
		if err != nil {
			stdhttp.Error(w, err.Error(), stdhttp.StatusBadRequest)
			return
		}
		to.Store(int64(d))
	}
	_, _ = fmt.Fprintln(w, p.computed.Load()) // the client repeats the request
}
