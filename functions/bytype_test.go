package functions_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/functions"
)

func TestEventGoesToTheFuncOfItsType(t *testing.T) {
	t.Parallel()

	emits := func(name string) functions.Func {
		return func(context.Context, event.Event) (functions.Effects, error) {
			var fx functions.Effects
			fx.Emit(functions.Output{Type: name})
			return fx, nil
		}
	}
	handlers := functions.ByType{"com.example.happened": emits("first"), "com.example.ended": emits("second")}
	if got := handlers.Types(); !slices.Equal(got, []string{"com.example.ended", "com.example.happened"}) {
		t.Errorf("the types are %q", got)
	}
	e := happened(t, "/x", "1", "")
	fx, err := handlers.Handle(t.Context(), e)
	if err != nil || len(fx.Outputs) != 1 || fx.Outputs[0].Type != "first" {
		t.Errorf("effects are %v, error %v", fx, err)
	}
	e.SetType("com.example.other")
	_, err = handlers.Handle(t.Context(), e)
	var rejected *functions.RejectError
	if !errors.As(err, &rejected) || !strings.Contains(err.Error(), `"com.example.other": want one of com.example.ended, com.example.happened`) {
		t.Errorf("error is %v, want a rejection that says what there is", err)
	}
}
