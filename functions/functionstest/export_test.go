package functionstest

import (
	"testing"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/functions"
)

// Double substitutes for a test, and holds it.
type Double interface {
	testing.TB
	Real() *testing.T
}

// CheckOn is Check for a Double, with all abilities of a *testing.T.
func CheckOn(tb Double, f functions.Function, events []event.Event) {
	tb.Helper()
	check(tb, bubbleOf(tb.Real()), f, events)
}

// OwnHostPossible reports whether a host name can be set here.
var OwnHostPossible = ownHostPossible
