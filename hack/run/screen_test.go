package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func exampleStatus() status {
	return status{
		elapsed:         12_400 * time.Millisecond,
		published:       6_150,
		feedTotal:       20_000,
		eventsPerSecond: 501.7,
		rows:            known(6_149),
		outputs:         known(342),
		clusters: []clusterStatus{
			{name: "east", counts: counts{delivered: 6_149, won: 3_411, lost: 2_738}, p50: known(1.84), p99: known(212.2), lag: known(0), restarts: 1},
			{name: "west", counts: counts{delivered: 6_100, failed: 3}},
		},
	}
}

func TestStatusIsATableOnATerminal(t *testing.T) {
	t.Parallel()

	var out strings.Builder
	s := newScreen(&out, true, func() int { return 200 })
	s.show(exampleStatus())
	s.say("west-source: signal: killed")
	want := `12 s  fed 6,150 of 20,000  502 events/s  rows 6,149  outputs 342  outbox –
cluster delivered     won    lost rejected failed p50 ms p99 ms    lag restarts
east        6,149   3,411   2,738        0      0    1.8    212      0        1
west        6,100       0       0        0      3      –      –      –        0
`
	if diff := cmp.Diff(want+"\x1b[4A\r\x1b[Jwest-source: signal: killed\n"+want, out.String()); diff != "" {
		t.Errorf("on the terminal (-want +got):\n%s", diff)
	}
}

func TestStatusIsALineInAFile(t *testing.T) {
	t.Parallel()

	var out strings.Builder
	s := newScreen(&out, false, nil)
	s.show(exampleStatus())
	s.say("a word")
	want := "12 s: fed 6,150 of 20,000, 502/s, rows 6,149, outputs 342, outbox –" +
		" | east delivered 6,149 won 3,411 lost 2,738 rejected 0 failed 0 p50 1.8 p99 212 ms lag 0" +
		" | west delivered 6,100 won 0 lost 0 rejected 0 failed 3 p50 – p99 – ms lag –\na word\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("in a file (-want +got):\n%s", diff)
	}
}

func TestLineThatWouldWrapIsCut(t *testing.T) {
	t.Parallel()

	var out strings.Builder
	newScreen(&out, true, func() int { return 40 }).show(exampleStatus())
	for line := range strings.Lines(out.String()) {
		if n := len([]rune(strings.TrimSuffix(line, "\n"))); n > 40 {
			t.Errorf("line of %d columns on a terminal of 40: %q", n, line)
		}
	}
}

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }

func TestPipeThatNobodyReadsIsNoticed(t *testing.T) {
	t.Parallel()

	s := newScreen(brokenPipe{}, false, nil)
	s.say("hello")
	s.say("hello")
	select {
	case <-s.broken:
	default:
		t.Error("nothing says that nobody reads")
	}
}
