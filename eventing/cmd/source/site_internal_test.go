package main

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"

	"github.com/tandem-fn/tandem/sinkwriter/lease"
)

func TestTheSiteIsThatOfTheClusterOrElseOfTheMachine(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	write := func(name, text string) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	ca, machine, missing := write("ca.crt", "certificate"), write("machine-id", "5af3\n"), filepath.Join(dir, "missing")
	sum := sha256.Sum256([]byte("certificate"))
	for _, tt := range []struct{ ca, machine, want string }{
		{ca, machine, hex.EncodeToString(sum[:])},
		{missing, machine, "5af3"},
		{missing, missing, unknownSite},
		{missing, write("empty", "\n"), unknownSite},
	} {
		if got := findSite(tt.ca, tt.machine); got != tt.want {
			t.Errorf("the site is %q, want %q", got, tt.want)
		}
	}
}

func TestAReplicaIsTheHostUnlessItIsNamed(t *testing.T) {
	t.Parallel()

	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for want, c := range map[lease.Holder]config{
		{Site: "rack-1", Replica: host}: {Site: "rack-1"},
		{Site: "rack-1", Replica: "b"}:  {Site: "rack-1", Replica: "b"},
	} {
		if got, err := c.holder(); err != nil || got != want {
			t.Errorf("the holder is %+v, %v, want %+v", got, err, want)
		}
	}
}
