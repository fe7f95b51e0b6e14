package eventing_test

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/tandem-fn/tandem/eventing"
)

func TestMessageIDIsAsPublished(t *testing.T) {
	t.Parallel()

	seen := map[string]bool{}
	for _, v := range vectors(t, "testdata/message_id.tsv", 3) {
		got := eventing.MessageID(v[0], v[1])
		if got != v[2] {
			t.Errorf("MessageID(%q, %q) = %s, want %s", v[0], v[1], got, v[2])
		}
		if seen[got] {
			t.Errorf("MessageID(%q, %q) is another one's too", v[0], v[1])
		}
		seen[got] = true
	}
}

func TestIdentityIsAsPublished(t *testing.T) {
	t.Parallel()

	seen := map[string]bool{}
	for _, v := range vectors(t, "testdata/identity.tsv", 7) {
		sequence, err := strconv.ParseUint(v[1], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		var header map[string][]string
		if err := json.Unmarshal([]byte(v[3]), &header); err != nil {
			t.Fatal(err)
		}
		data, err := hex.DecodeString(v[4])
		if err != nil {
			t.Fatal(err)
		}
		origin := eventing.Origin{Stream: v[0], Sequence: sequence}
		for range 10 { // the iteration order of a map varies
			source, id := origin.Identity(v[2], header, data)
			if source != v[5] || id != v[6] {
				t.Errorf("%v: identity %s %s, want %s %s", v[:5], source, id, v[5], v[6])
			}
		}
		if seen[v[5]+" "+v[6]] {
			t.Errorf("%v: identity of another message too", v[:5])
		}
		seen[v[5]+" "+v[6]] = true
	}
}

func vectors(t *testing.T, file string, columns int) [][]string {
	t.Helper()

	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var rows [][]string
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		row := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(row) != columns {
			t.Fatalf("%s: %q has %d columns, want %d", file, line, len(row), columns)
		}
		rows = append(rows, row)
	}
	if len(rows) == 0 {
		t.Fatalf("%s is empty", file)
	}
	return rows
}
