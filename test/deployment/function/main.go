// Command function is the function process for chaos: flights, bank and harm, served as
// func would. With a planted fault (see planted.go) it contains a typical mistake of a
// consumer without sinkwriter, which chaos must detect.
package main

import (
	"context"
	"fmt"
	"os"

	"knative.dev/func-go/http"

	"github.com/tandem-fn/tandem/eventing/process"
	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/functions/flights"
	"github.com/tandem-fn/tandem/test/deployment/workload/bank"
	"github.com/tandem-fn/tandem/test/deployment/workload/harm"
)

func main() {
	version := os.Getenv("TANDEM_CHAOS_VERSION")
	if version == "" {
		version = "v1"
	}
	fs := []functions.Function{flights.Function(), bank.Function(version), harm.Function()}
	var served http.Handler
	switch plant := os.Getenv("TANDEM_CHAOS_PLANT"); plant {
	case "":
		served = process.New(fs...)
	default:
		served = &planted{plant: plant, functions: fs}
	}
	if err := http.Start(served); err != nil {
		fmt.Fprintln(os.Stderr, err.Error())
		os.Exit(1)
	}
}

// func-go recognises these by their methods.
var (
	_ http.Starter           = (*planted)(nil)
	_ http.ReadinessReporter = (*planted)(nil)
)

// Ready implements func-go's ReadinessReporter.
func (p *planted) Ready(context.Context) (bool, error) { return p.handler.Load() != nil, nil }
