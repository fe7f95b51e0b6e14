package functions_test

import (
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/functions"
)

// happened returns an event; at is its time in RFC 3339, empty for none.
func happened(tb testing.TB, source, id, at string) event.Event {
	tb.Helper()

	e := event.New()
	e.SetSource(source)
	e.SetID(id)
	e.SetType("com.example.happened")
	if at != "" {
		parsed, err := time.Parse(time.RFC3339Nano, at)
		if err != nil {
			tb.Fatal(err)
		}
		e.SetTime(parsed)
	}
	return e
}

func TestWhatIsDerivedGivesThePublishedVectors(t *testing.T) {
	t.Parallel()

	for _, row := range vectors(t, "derived.tsv", 9) {
		e := happened(t, row[0], row[1], strings.Trim(row[2], "-"))
		var index []int
		if row[4] != "-" {
			for text := range strings.SplitSeq(row[4], ",") {
				i, err := strconv.Atoi(text)
				if err != nil {
					t.Fatal(err)
				}
				index = append(index, i)
			}
		}
		seed, err := hex.DecodeString(row[7])
		if err != nil {
			t.Fatal(err)
		}
		if got := functions.ID(e, row[3], index...); got != row[5] {
			t.Errorf("ID(%v) is %s, want %s", row[:5], got, row[5])
		}
		if got := strconv.FormatInt(functions.Int64(e, row[3], index...), 10); got != row[6] {
			t.Errorf("Int64(%v) is %s, want %s", row[:5], got, row[6])
		}
		random, want := functions.Rand(e, row[3], index...), rand.NewChaCha8([32]byte(seed))
		first := random.Uint64()
		if strconv.FormatUint(first, 10) != row[8] || first != want.Uint64() || random.Uint64() != want.Uint64() {
			t.Errorf("Rand(%v) begins with %d, want %s and what follows it", row[:5], first, row[8])
		}
	}
}

func TestTimeIsTheEvents(t *testing.T) {
	t.Parallel()

	const v7 = "0190163d-8694-739b-aea5-966c26f8ad91"
	tests := []struct{ name, id, at, want string }{
		{"its attribute", "1", "2001-01-01T00:47:00.123456789Z", "2001-01-01T00:47:00.123456789Z"},
		{"in UTC", "1", "2001-01-01T00:47:00+05:45", "2000-12-31T19:02:00Z"},
		{"the attribute before the id", v7, "2001-01-01T00:47:00Z", "2001-01-01T00:47:00Z"},
		{"that of a UUIDv7", v7, "", "2024-06-14T10:14:09.3Z"},
		{"none", "0190163d-8694-439b-aea5-966c26f8ad91", "", "0001-01-01T00:00:00Z"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			if got := functions.Time(happened(t, "/x", tt.id, tt.at)).Format(time.RFC3339Nano); got != tt.want {
				t.Errorf("Time is %s, want %s", got, tt.want)
			}
		})
	}
}

func TestIDsDoNotMeet(t *testing.T) {
	t.Parallel()

	ids, rands := map[string]string{}, map[uint64]string{}
	take := func(what, id string, random uint64) {
		if other, ok := ids[id]; ok {
			t.Errorf("%s and %s have the same id %s", other, what, id)
		}
		if other, ok := rands[random]; ok {
			t.Errorf("%s and %s have the same random number %d", other, what, random)
		}
		ids[id], rands[random] = what, what
	}
	const at = "2001-01-01T00:47:00Z"
	for _, e := range []event.Event{
		happened(t, "/orders", "42", at),
		happened(t, "/orders", "43", at),
		happened(t, "/orders4", "2", at),
		happened(t, "/Orders", "42", at),
		happened(t, "/order", "s42", at),
	} {
		for _, name := range []string{"", "line", "Line", "line1", "2line"} {
			what := fmt.Sprintf("%s %s %q", e.Source(), e.ID(), name)
			take(what, functions.ID(e, name), functions.Rand(e, name).Uint64())
			for i := range 3 {
				take(fmt.Sprintf("%s %d", what, i), functions.ID(e, name, i), functions.Rand(e, name, i).Uint64())
				for j := range 3 {
					take(fmt.Sprintf("%s %d,%d", what, i, j), functions.ID(e, name, i, j), functions.Rand(e, name, i, j).Uint64())
				}
			}
		}
		if _, out := functions.OutputIdentity("", e.Source(), e.ID(), 0); ids[out] != "" {
			t.Errorf("%s is the id of an output, too", out)
		}
	}
}

func TestInt64sOfOneEventDoNotMeet(t *testing.T) {
	t.Parallel()

	e := happened(t, "/orders", "42", "2026-01-01T00:00:00Z")
	seen := make(map[int64]bool, 1<<20)
	for i := range 1 << 17 {
		n := functions.Int64(e, "line", i)
		if n < 0 || seen[n] {
			t.Fatalf("number %d is %d, which is negative or there twice", i, n)
		}
		seen[n] = true
	}
	index := []int{1, 2}
	functions.Int64(e, "cell", index...)
	if index[0] != 1 || index[1] != 2 {
		t.Errorf("the caller's indexes are now %v", index)
	}
}

func TestIDsLieInTheOrderOfTime(t *testing.T) {
	t.Parallel()

	last, lastNumber := "", int64(-1)
	at := time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range 1000 {
		e := happened(t, "/x", strconv.Itoa(-i), at.Format(time.RFC3339Nano))
		id, number := functions.ID(e, "a"), functions.Int64(e, "a")
		if id <= last || number <= lastNumber {
			t.Fatalf("at %s the id is %s after %s, the number %d after %d", at, id, last, number, lastNumber)
		}
		last, lastNumber = id, number
		at = at.Add(time.Millisecond + time.Duration(i)*time.Hour)
	}
}

func TestInt64sOfManyEventsAreSpreadAsChanceHasIt(t *testing.T) {
	t.Parallel()

	// 2,000 in one millisecond are 2·10⁶ pairs: about one in 2²¹ collides.
	met, seen := 0, map[int64]bool{}
	for millisecond := range 20 {
		at := time.Date(2026, 1, 1, 0, 0, 0, millisecond*1e6, time.UTC).Format(time.RFC3339Nano)
		for i := range 2000 {
			n := functions.Int64(happened(t, "/x", fmt.Sprintf("%d-%d", millisecond, i), at), "a")
			if seen[n] {
				met++
			}
			seen[n] = true
		}
	}
	if met > 60 { // 19 are expected
		t.Errorf("%d of 40,000 numbers met, want about 19", met)
	}
}

func FuzzIDsAreUUIDv7sAndNumbersAreNotNegative(f *testing.F) {
	f.Add("/x", "1", "a", int64(0), int64(0), 0)
	f.Add("/x", "0190163d-8694-739b-aea5-966c26f8ad91", "", int64(-62135596800), int64(0), -1)
	f.Add("", "", "", int64(253402300799), int64(999999999), 1<<30)
	f.Fuzz(func(t *testing.T, source, id, name string, seconds, nanos int64, index int) {
		e := event.New()
		e.SetSource(source)
		e.SetID(id)
		e.SetTime(time.Unix(seconds, nanos))
		got := functions.ID(e, name, index)
		if !uuidV7.MatchString(got) || got != strings.ToLower(got) || got != functions.ID(e, name, index) {
			t.Errorf("id %q is no UUIDv7, or another one the second time", got)
		}
		if n := functions.Int64(e, name, index); n < 0 || n != functions.Int64(e, name, index) {
			t.Errorf("number %d is negative, or another one the second time", n)
		}
	})
}

func BenchmarkID(b *testing.B) {
	e := happened(b, "/tandem/flights-2001", "flight-2001-012345", "2001-01-01T00:47:00Z")
	b.ReportAllocs()
	for b.Loop() {
		functions.ID(e, "line", 3)
	}
}
