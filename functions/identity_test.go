package functions_test

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/tandem-fn/tandem/functions"
)

// vectors reads a table in testdata: fields are separated by tabs, and '#' begins
// a comment.
func vectors(tb testing.TB, file string, fields int) [][]string {
	tb.Helper()

	f, err := os.Open("testdata/" + file)
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // only read from
	var rows [][]string
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "#") {
			continue
		}
		row := strings.Split(lines.Text(), "\t")
		if len(row) != fields {
			tb.Fatalf("%s: line %q has %d fields, want %d", file, lines.Text(), len(row), fields)
		}
		rows = append(rows, row)
	}
	if err := lines.Err(); err != nil || len(rows) == 0 {
		tb.Fatalf("%s: %d rows, error %v", file, len(rows), err)
	}
	return rows
}

func TestOrderGivesThePublishedVectors(t *testing.T) {
	t.Parallel()

	for _, row := range vectors(t, "order.tsv", 2) {
		order, ok := functions.Order(row[0])
		got := "-"
		if ok {
			got = strconv.FormatUint(order, 10)
		}
		if got != row[1] {
			t.Errorf("Order(%q) is %s, want %s", row[0], got, row[1])
		}
	}
	if order, ok := functions.Order(""); ok {
		t.Errorf(`Order("") is %d, want none`, order)
	}
}

// A second implementation of the rules, with regular expressions.
var (
	uuidV7   = regexp.MustCompile(`\A([0-9a-fA-F]{8})-([0-9a-fA-F]{4})-7[0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}\z`)
	sequence = regexp.MustCompile(`\A([0-9]+)-[0-9a-f]{16}\z`)
	trailing = regexp.MustCompile(`([0-9]+)\z`)
)

func orderByPattern(id string) (uint64, bool) {
	if m := uuidV7.FindStringSubmatch(id); m != nil {
		order, _ := strconv.ParseUint(m[1]+m[2], 16, 64)
		return order, true
	}
	m := sequence.FindStringSubmatch(id)
	if m == nil {
		m = trailing.FindStringSubmatch(id)
	}
	if m == nil {
		return 0, false
	}
	order, _ := strconv.ParseUint(m[1][max(0, len(m[1])-14):], 10, 64)
	return order, true
}

func FuzzOrderFollowsItsRules(f *testing.F) {
	for _, row := range vectors(f, "order.tsv", 2) {
		f.Add(row[0])
	}
	f.Fuzz(func(t *testing.T, id string) {
		order, ok := functions.Order(id)
		wantOrder, wantOK := orderByPattern(id)
		if order != wantOrder || ok != wantOK {
			t.Errorf("Order(%q) is %d, %t, want %d, %t", id, order, ok, wantOrder, wantOK)
		}
		if order >= 1<<48 {
			t.Errorf("Order(%q) is %d, more than 48 bits", id, order)
		}
	})
}

func TestOutputIdentityGivesThePublishedVectors(t *testing.T) {
	t.Parallel()

	for _, row := range vectors(t, "output_identity.tsv", 6) {
		position, err := strconv.Atoi(row[3])
		if err != nil {
			t.Fatal(err)
		}
		source, id := functions.OutputIdentity(row[0], row[1], row[2], position)
		if source != row[4] || id != row[5] {
			t.Errorf("OutputIdentity(%v) is %s %s, want %s %s", row[:4], source, id, row[4], row[5])
		}
	}
}

func TestOutputIdentityTellsPartsApart(t *testing.T) {
	t.Parallel()

	type parts struct {
		function, source, id string
		position             int
	}
	all := []parts{
		{"tally", "/orders", "42", 0},
		{"tally", "/orders", "42", 1},
		{"tally", "/orders", "43", 0},
		{"tally", "/refunds", "42", 0},
		{"count", "/orders", "42", 0},
		{"tally/", "orders", "42", 0},
		{"tally", "/orders4", "2", 0},
		{"tally", "/Orders", "42", 0},
		{"", "tally/orders", "42", 0},
		{"tally", "/orders", "", 42},
	}
	seen := map[string]parts{}
	for _, p := range all {
		_, id := functions.OutputIdentity(p.function, p.source, p.id, p.position)
		if other, ok := seen[id]; ok {
			t.Errorf("%v and %v have the same id %s", p, other, id)
		}
		seen[id] = p
	}
}

func TestOutputIDsLieInTheOrderOfTheirInputs(t *testing.T) {
	t.Parallel()

	last := ""
	for line := 1; line <= 20000; line += 1 + rand.IntN(200) {
		_, id := functions.OutputIdentity("flights", "/tandem/flights-2001", fmt.Sprintf("flight-2001-%06d", line), 0)
		if id <= last {
			t.Fatalf("output id %s of line %d is not behind %s", id, line, last)
		}
		last = id
	}
}

func FuzzOutputIdentityIsAUUIDv7WithTheInputsOrder(f *testing.F) {
	for _, row := range vectors(f, "output_identity.tsv", 6) {
		f.Add(row[0], row[1], row[2], 0)
	}
	f.Fuzz(func(t *testing.T, function, source, id string, position int) {
		_, outID := functions.OutputIdentity(function, source, id, position)
		if !uuidV7.MatchString(outID) || outID != strings.ToLower(outID) {
			t.Fatalf("id %q is no UUIDv7", outID)
		}
		order, ok := functions.Order(id)
		if outOrder, _ := functions.Order(outID); ok && outOrder != order {
			t.Errorf("output of id %q has order %d, want %d", id, outOrder, order)
		}
		if _, again := functions.OutputIdentity(function, source, id, position); again != outID {
			t.Errorf("second call returned %s, first %s", again, outID)
		}
	})
}

func BenchmarkOrder(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		functions.Order("flight-2001-012345")
		functions.Order("0190163d-8694-739b-aea5-966c26f8ad91")
	}
}

func BenchmarkOutputIdentity(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		functions.OutputIdentity("flights", "/tandem/flights-2001", "flight-2001-012345", 0)
	}
}
