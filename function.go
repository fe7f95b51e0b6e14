// Package tandem is what func builds and serves: every function of this
// repository in one image. TANDEM_FUNCTIONS picks some of them.
//
// A function in a folder of its own, in a module of its own too, needs the same:
// a package with New beside its func.yaml. See docs/write-a-function.md.
package tandem

import (
	"github.com/tandem-fn/tandem/eventing/process"
	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/functions/chat"
	"github.com/tandem-fn/tandem/functions/flights"
)

// Functions lists all functions, whichever of them are served.
func Functions() []functions.Function {
	return []functions.Function{
		chat.Function(),
		flights.Function(),
	}
}

// New makes what func's scaffolding serves.
func New() *process.Runtime { return process.New(Functions()...) }
