package main

import (
	"errors"
	"flag"
	"io"
	"strings"
	"testing"
)

func TestFlagsThatCannotBeAreRefusedInOneLine(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct{ args, want string }{
		{"--clusters 1", "--clusters 1: want 2 to 3"},
		{"--clusters 4", "--clusters 4: want 2 to 3"},
		{"--clusters two", "--help lists the flags"},
		{"--rate -1", "--rate -1: want events per second"},
		{"--rate NaN", "--rate NaN: want events per second"},
		{"--feed trains", "--feed trains: want flights or none"},
		{"--input x --feed flights", "use one of them"},
		{"--ports 65530", "--ports 65530: want the first"},
		{"--sync-interval often", "--sync-interval often: want a duration"},
		{"--sync-interval 0s", "--sync-interval 0s: want a duration"},
		{"--until-don", "flag provided but not defined"},
		{"until-done", `unexpected argument "until-done"`},
	} {
		t.Run(tt.args, func(t *testing.T) {
			t.Parallel()

			_, err := parseOptions(strings.Fields(tt.args), func(string) string { return "" }, io.Discard)
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v, want one line with %q", err, tt.want)
			}
		})
	}
}

func TestALogLevelThatNoPartKnowsIsRefusedAtOnce(t *testing.T) {
	t.Parallel()

	_, err := parseOptions(nil, func(name string) string { return map[string]string{"LOG_LEVEL": "loud"}[name] }, io.Discard)
	if err == nil || err.Error() != `LOG_LEVEL "loud": want debug, info, warn or error` {
		t.Errorf("error is %v", err)
	}
}

func TestHelpNamesEveryFlagAndFailsNobody(t *testing.T) {
	t.Parallel()

	var out strings.Builder
	_, err := parseOptions([]string{"--help"}, func(string) string { return "" }, &out)
	if !errors.Is(err, flag.ErrHelp) {
		t.Errorf("--help: %v, want flag.ErrHelp", err)
	}
	for _, name := range []string{"clusters", "rate", "input", "feed", "until-done", "dir", "ports", "sync-interval"} {
		if !strings.Contains(out.String(), "\n  --"+name+" ") {
			t.Errorf("--help does not explain --%s", name)
		}
	}
}

func TestDefaultsAreTwoClustersAndTheFlights(t *testing.T) {
	t.Parallel()

	o, err := parseOptions(nil, func(string) string { return "" }, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if o.clusters != 2 || o.rate != 500 || !o.flights() || o.untilDone || o.ports != 7300 {
		t.Errorf("defaults are %+v", o)
	}
	if o, err := parseOptions([]string{"--input", "-"}, func(string) string { return "" }, io.Discard); err != nil || o.flights() {
		t.Errorf("with --input: flights %t, err %v", o.flights(), err)
	}
}
