// Command serve is the function as a process: the same as func's scaffolding for
// the package next to func.yaml, and nothing else, so that local runs use the
// deployed code.
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
