package sinkwriter

import (
	"encoding/binary"
	"math/big"
	"testing"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tandem-fn/tandem/functions"
)

// exactly returns the value of an amount.
func (a amount) exactly() *big.Rat {
	unit := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(a.scale)), nil)
	return new(big.Rat).SetFrac(big.NewInt(a.n), unit)
}

func FuzzAmountsAreReadAsTheyWereWritten(f *testing.F) {
	for _, n := range []int64{0, 1, -1, 9999, 10000, -10001, 123456789, 1<<63 - 1, -1 << 62, 100000000} {
		f.Add(n, uint8(n%19+19))
	}
	types := pgtype.NewMap()
	f.Fuzz(func(t *testing.T, n int64, scale uint8) {
		a := amount{n, int(scale % 19)}
		binaryForm := appendNumeric(nil, a)
		var got pgtype.Numeric
		if err := types.Scan(pgtype.NumericOID, pgtype.BinaryFormatCode, binaryForm, &got); err != nil {
			t.Fatalf("%+v: %v", a, err)
		}
		value := new(big.Rat).SetInt(got.Int)
		power := new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(max(got.Exp, -got.Exp))), nil))
		if got.Exp < 0 {
			power.Inv(power)
		}
		if value.Mul(value, power).Cmp(a.exactly()) != 0 {
			t.Errorf("%+v is read as %v e%d", a, got.Int, got.Exp)
		}
		if back, ok := readNumeric(binaryForm); ok && back != a {
			t.Errorf("%+v is read back as %+v", a, back)
		} else if !ok && n > -1e14 && n < 1e14 {
			t.Errorf("%+v is not read back", a)
		}
	})
}

// The combined amounts still pass through the least and the greatest intermediate sum.
func FuzzSumsPassThroughTheirExtremes(f *testing.F) {
	f.Add([]byte{1, 2, 3})
	f.Add([]byte{200, 10, 100, 255, 0, 90})
	f.Add([]byte{255, 255, 1, 1, 128, 127})
	f.Fuzz(func(t *testing.T, amounts []byte) {
		if len(amounts) < 2 || len(amounts) > 100 {
			return
		}
		table := &table{key: []int{0}, columns: []column{
			{name: "k", elemOID: pgtype.Int4OID, inKey: true},
			{name: "n", elemOID: pgtype.Int4OID, columnConstraints: columnConstraints{typmod: -1}},
		}}
		s := &shape{op: functions.OpAdd, columns: []int{0, 1}, version: -1, mark: -1}
		var p plan
		var run []planned
		value := func(n int) span {
			from := len(p.arena)
			p.arena = binary.BigEndian.AppendUint32(p.arena, uint32(int32(n)))
			return span{from, len(p.arena)}
		}
		key := value(7)
		sum, least, greatest := 0, 0, 0
		for _, b := range amounts {
			n := int(int8(b))
			sum += n
			least, greatest = min(least, sum), max(greatest, sum)
			run = append(run, planned{table: table, shape: s, values: []span{key, value(n)}, key: []span{key}})
		}
		parts := p.sumAdds(run)
		if len(parts) > 3 {
			t.Errorf("%d writes are left of %v", len(parts), amounts)
		}
		got, low, high := 0, 0, 0
		for _, part := range parts {
			v := part.values[1]
			got += int(int32(binary.BigEndian.Uint32(p.arena[v.from:v.to])))
			low, high = min(low, got), max(high, got)
		}
		if got != sum || low != least || high != greatest {
			t.Errorf("%v: the sum is %d, from %d to %d, want %d, from %d to %d", amounts, got, low, high, sum, least, greatest)
		}
	})
}
