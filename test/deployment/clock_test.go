//go:build chaos

package deployment

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestAWrongClockIsOffByWhatItIsToldAndGoesOn(t *testing.T) {
	dir := t.TempDir()
	overlay, err := wrongTime(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "main.go")
	if err := os.WriteFile(program, []byte(`package main

import "time"

func main() {
	begun := time.Now()
	time.Sleep(20 * time.Millisecond)
	println(begun.Unix(), time.Since(begun) < time.Minute)
}
`), 0o644); err != nil {
		t.Fatal(err)
	}
	for value, off := range map[string]time.Duration{"": 0, "1h": time.Hour, "-1h": -time.Hour} {
		cmd := exec.CommandContext(t.Context(), "go", "run", "-overlay", overlay, program)
		cmd.Env = append(os.Environ(), clockVariable+"="+value)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		at, measured, _ := strings.Cut(strings.TrimSpace(string(out)), " ")
		seconds, err := strconv.ParseInt(at, 10, 64)
		if err != nil || measured != "true" {
			t.Fatalf("%v: %s", err, out)
		}
		if wrong := time.Unix(seconds, 0).Sub(time.Now().Add(off)).Abs(); wrong > time.Minute {
			t.Errorf("%s=%s: the clock is off by %s from the expected time", clockVariable, value, wrong)
		}
	}
}
