// Command serve is the function as a process: what func's scaffolding makes of the
// package that func.yaml lies beside, and no more, so that what is tried out here
// is what is deployed.
package main

import (
	"fmt"
	"os"

	"knative.dev/func-go/http"

	"github.com/tandem-fn/tandem"
)

func main() {
	if err := http.Start(tandem.New()); err != nil {
		fmt.Fprintln(os.Stderr, err.Error())
		os.Exit(1)
	}
}
