package sinkwriter

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

// BenchmarkAppendValue encodes the kinds that most columns have.
func BenchmarkAppendValue(b *testing.B) {
	at := time.Date(2001, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, bb := range []struct {
		name  string
		col   *column
		value any
	}{
		{"text", builtinColumn(pgtype.TextOID, kindText), strings.Repeat("x", 160)},
		{"int8", builtinColumn(pgtype.Int8OID, kindInt8), int64(1 << 40)},
		{"float8", builtinColumn(pgtype.Float8OID, kindFloat8), 1.5},
		{"bool", builtinColumn(pgtype.BoolOID, kindBool), true},
		{"timestamptz", builtinColumn(pgtype.TimestamptzOID, kindTimestamptz), at},
		{"numeric", builtinColumn(pgtype.NumericOID, kindNumeric), "12345.67"},
		{"json-raw", builtinColumn(pgtype.JSONBOID, kindJSONB), json.RawMessage(`{"id":"event-00001234","text":"` + strings.Repeat("y", 120) + `"}`)},
		{"json-map", builtinColumn(pgtype.JSONBOID, kindJSONB), map[string]any{"id": "event-00001234", "n": 12, "list": []any{"a", 1.5}}},
	} {
		b.Run(bb.name, func(b *testing.B) {
			arena := make([]byte, 0, 1024)
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := appendValue(arena, bb.col, bb.value); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
