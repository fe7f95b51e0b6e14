package functions

import (
	"encoding/json"
	"testing"
)

// BenchmarkCanonicalOutput measures the canonical form of an output whose data are
// JSON: the largest part of a digest.
func BenchmarkCanonicalOutput(b *testing.B) {
	fx := Effects{Outputs: []Output{{
		Type: "com.example.flight.delayed",
		Data: json.RawMessage(`{"flight":"flight-2001-000001","date":"2001/01/01 00:47","delay":66,"distance":1750,"origin":"DTW","destination":"LAS","legs":[{"from":"DTW","to":"ORD","miles":235.5},{"from":"ORD","to":"LAS","miles":1514.5}],"note":"caf\u00e9"}`),
	}}}
	var buf []byte
	var err error
	b.ReportAllocs()
	for b.Loop() {
		if buf, _, err = fx.AppendCanonical(buf[:0]); err != nil {
			b.Fatal(err)
		}
	}
}
