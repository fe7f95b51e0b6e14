package functions

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cloudevents/sdk-go/v2/event"
)

// ByType makes one function of several, each for a CloudEvent type:
//
//	handlers := functions.ByType{
//		"com.example.ordered":  functions.JSON(ordered),
//		"com.example.canceled": functions.JSON(canceled),
//	}
//	return functions.Function{Name: "orders", Types: handlers.Types(), Handle: handlers.Handle, …}
type ByType map[string]Func

// Types are the types, in order.
func (t ByType) Types() []string { return slices.Sorted(maps.Keys(t)) }

// Handle has the event handled by the [Func] of its type, and refuses it if there
// is none. It is a Func itself.
func (t ByType) Handle(ctx context.Context, e event.Event) (Effects, error) {
	handle := t[e.Type()]
	if handle == nil {
		return Effects{}, Reject(fmt.Errorf("type %q: want one of %s", e.Type(), strings.Join(t.Types(), ", ")))
	}
	return handle(ctx, e)
}
