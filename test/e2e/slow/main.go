// Command slow is the flights function, served as func serves it, but each event
// occupies its instance for 50 ms, one event after the other, as a computation on one
// processor would. It sleeps for that time, so that many instances fit on a machine.
package main

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"knative.dev/func-go/http"

	"github.com/tandem-fn/tandem/eventing/process"
	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/functions/flights"
)

const perEvent = 50 * time.Millisecond

func main() {
	f := flights.Function()
	var processor sync.Mutex
	handle := f.Handle
	f.Handle = func(ctx context.Context, e event.Event) (functions.Effects, error) {
		processor.Lock()
		time.Sleep(perEvent)
		processor.Unlock()
		return handle(ctx, e)
	}
	if err := http.Start(process.New(f)); err != nil {
		fmt.Fprintln(os.Stderr, err.Error())
		os.Exit(1)
	}
}
