package orders_test

import (
	"encoding/json"
	"testing"

	"github.com/tandem-fn/tandem/test/bench/e2e/orders"
)

func TestAnOrderAndItsOutputHaveAbout200Bytes(t *testing.T) {
	t.Parallel()

	o := orders.New(12345)
	for name, value := range map[string]any{"order": o, "output": o.Accept()} {
		text, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		if len(text) < 150 || len(text) > 270 {
			t.Errorf("the %s has %d bytes, want about 200", name, len(text))
		}
	}
}

func TestAnOutputSaysWhichOrderItIsAbout(t *testing.T) {
	t.Parallel()

	text, err := json.Marshal(orders.New(12345).Accept())
	if err != nil {
		t.Fatal(err)
	}
	if n, err := orders.Number(text); err != nil || n != 12345 {
		t.Errorf("Number(%s) = %d, %v; want 12345", text, n, err)
	}
}
