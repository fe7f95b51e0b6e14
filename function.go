// Package tandem is the package that func builds and serves: every function of
// this repository in one image. TANDEM_FUNCTIONS selects some of them.
//
// A function in its own folder, or its own module, needs the same: a package
// with New next to its func.yaml. See docs/write-a-function.md.
package tandem

import (
	"github.com/tandem-fn/tandem/eventing/process"
	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/functions/chat"
	"github.com/tandem-fn/tandem/functions/flights"
)

// Functions returns all functions, whether they are served or not.
func Functions() []functions.Function {
	return []functions.Function{
		chat.Function(),
		flights.Function(),
	}
}

// New returns the runtime that func's scaffolding serves.
func New() *process.Runtime { return process.New(Functions()...) }
