package functions

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cloudevents/sdk-go/v2/event"
)

// ByType maps CloudEvent types to functions, and is itself a function.
type ByType map[string]Func

// Types returns the types, sorted.
func (t ByType) Types() []string { return slices.Sorted(maps.Keys(t)) }

// Handle calls the [Func] for the type of e, and rejects e if there is none. It is a
// Func itself.
func (t ByType) Handle(ctx context.Context, e event.Event) (Effects, error) {
	handle := t[e.Type()]
	if handle == nil {
		return Effects{}, Reject(fmt.Errorf("type %q: want one of %s", e.Type(), strings.Join(t.Types(), ", ")))
	}
	return handle(ctx, e)
}
