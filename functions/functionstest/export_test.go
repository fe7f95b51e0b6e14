package functionstest

import (
	"testing"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/functions"
)

// Double stands for a test, and has it.
type Double interface {
	testing.TB
	Real() *testing.T
}

// CheckOn is Check for a Double, with everything that a *testing.T can do.
func CheckOn(tb Double, f functions.Function, events []event.Event) {
	tb.Helper()
	check(tb, bubbleOf(tb.Real()), f, events)
}

// OwnHostPossible tells whether a host name can be set here.
var OwnHostPossible = ownHostPossible
