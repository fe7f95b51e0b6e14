// Command function is the function of the benchmark's clusters: orders, served as func
// would. With TANDEM_BENCH_STALL=200ms its computations stand still for as long at the
// beginning of each second.
package main

import (
	"fmt"
	"os"
	"time"

	"knative.dev/func-go/http"

	"github.com/tandem-fn/tandem/eventing/process"
	"github.com/tandem-fn/tandem/test/bench/e2e/orders"
)

func main() {
	if err := http.Start(process.New(orders.Function(stall(os.Getenv("TANDEM_BENCH_STALL"))))); err != nil {
		fmt.Fprintln(os.Stderr, err.Error())
		os.Exit(1)
	}
}

// stall gives what sleeps until that much of a second is over; nil for no duration.
func stall(text string) func() {
	length, err := time.ParseDuration(text)
	if err != nil || length <= 0 {
		return nil
	}
	return func() {
		now := time.Now()
		if left := length - now.Sub(now.Truncate(time.Second)); left > 0 {
			time.Sleep(left)
		}
	}
}
