// Command harmful is the process of the function harm, served as func would.
package main

import (
	"fmt"
	"os"

	"knative.dev/func-go/http"

	"github.com/tandem-fn/tandem/eventing/process"
	"github.com/tandem-fn/tandem/test/deployment/workload/harm"
)

func main() {
	if err := http.Start(process.New(harm.Function())); err != nil {
		fmt.Fprintln(os.Stderr, err.Error())
		os.Exit(1)
	}
}
