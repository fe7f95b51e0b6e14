package ledger_test

import (
	"bufio"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/tandem-fn/tandem/eventing/devcluster/sinktest"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

var update = flag.Bool("update", false, "rewrite testdata")

// vectorInputs returns the events whose keys are published in testdata/key.tsv.
func vectorInputs() [][3]string {
	all := [][3]string{
		{"orders", "/shop", "1"},
		{"orders", "/shop", "2"},
		{"orders", "/shop", "order-000017"},
		{"orders", "/Shop", "1"},
		{"refunds", "/shop", "1"},
		{"o", "rders/shop", "1"},
		{"orders", "/shop", "0190163d-8694-739b-aea5-966c26f8ad91"},
		{"orders", "/shop", "0190163D-8694-739B-AEA5-966C26F8AD91"},
		{"orders", "/shop", "0190163d-8694-439b-aea5-966c26f8ad91"},
		{"orders", "/shop", "0190163d-8694-739b-cea5-966c26f8ad91"},
		{"orders", "/shop", "42-0123456789abcdef"},
		{"orders", "/shop", "42-0123456789ABCDEF"},
		{"orders", "/shop", "a42-0123456789abcdef"},
		{"orders", "/shop", "99999999999999"},
		{"orders", "/shop", "100000000000000"},
		{"orders", "/shop", "123456789012345678901234567890"},
		{"orders", "/shop", "abc"},
		{"orders", "/shop", "x"},
		{"orders", "/shop", "partition:3/offset:1234"},
		{"orders", "/shop", "größe-7"},
		{"orders", "/läden/ö", "日本語"},
		{"orders", "/shop", "٣"},
		{"orders", "/shop", "a b 9"},
		{"orders", "https://example.com/a?b=c#d", "9"},
		{"orders", "/shop", "7\n"},
		{"orders", "/shop", "0"},
		{"orders", "/shop", "-1"},
		{"orders", "/shop", strings.Repeat("x", 300) + "5"},
	}
	r := rand.New(rand.NewPCG(1, 2))
	for i := len(all); i < 60; i++ {
		all = append(all, [3]string{
			fmt.Sprintf("f%d", r.IntN(5)), fmt.Sprintf("/s/%x", r.Uint32()), fmt.Sprintf("%x-%d", r.Uint64(), r.IntN(1e6)),
		})
	}
	return all
}

func TestKeysAreThoseOfThePublishedVectors(t *testing.T) {
	t.Parallel()
	const path = "testdata/key.tsv"
	if *update {
		var b strings.Builder
		b.WriteString("# function, source, id (each quoted as in Go), key\n")
		for _, v := range vectorInputs() {
			fmt.Fprintf(&b, "%q\t%q\t%q\t%s\n", v[0], v[1], v[2], ledger.NewKey(v[0], v[1], v[2]))
		}
		if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pool := sinktest.NewDatabase(t)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	lines, n := bufio.NewScanner(f), 0
	for lines.Scan() {
		fields := strings.Split(lines.Text(), "\t")
		if len(fields) != 4 {
			continue
		}
		var in [3]string
		for i := range in {
			if in[i], err = strconv.Unquote(fields[i]); err != nil {
				t.Fatalf("line %s: %v", lines.Text(), err)
			}
		}
		n++
		if got := ledger.NewKey(in[0], in[1], in[2]).String(); got != fields[3] {
			t.Errorf("NewKey(%q) = %s, published %s", in, got, fields[3])
		}
		if got := sinktest.Query[string](t, pool, `select tandem.key($1, $2, $3)::text`, in[0], in[1], in[2]); got != fields[3] {
			t.Errorf("tandem.key(%q) = %s, published %s", in, got, fields[3])
		}
	}
	if n < 50 {
		t.Errorf("%d vectors, want at least 50", n)
	}
}

func TestKeysFollowTheOrderOfIDs(t *testing.T) {
	t.Parallel()
	last := ""
	for i := range 2000 {
		k := ledger.NewKey("f", "/s", fmt.Sprintf("event-%07d", i*37)).String()
		if k <= last {
			t.Fatalf("key of %d, %s, is not behind %s", i, k, last)
		}
		last = k
	}
}
