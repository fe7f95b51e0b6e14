package delivery

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTypesAreReadWithTheirFunctions(t *testing.T) {
	t.Parallel()

	tests := []struct {
		name, header string
		want         map[string]string
	}{
		{"one function", "a;function=rooms,b%2Cc%3B", map[string]string{"a": "rooms", "b,c;": "rooms"}},
		{"several", "a;function=rooms, b; function=orders,c", map[string]string{"a": "rooms", "b": "orders", "c": "orders"}},
		{"a type that cannot be read", "a;function=rooms,%zz;function=orders,c", map[string]string{"a": "rooms", "c": "orders"}},
		{"no function", "a,b", map[string]string{"a": "", "b": ""}},
		{"another parameter", "a;q=1,b", map[string]string{"a": "", "b": ""}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			if diff := cmp.Diff(tt.want, parseTypes(tt.header)); diff != "" {
				t.Errorf("types (-want +got):\n%s", diff)
			}
		})
	}
}
