package devcluster

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// otherProcess is the variable that makes the test binary the other process. It names
// the port that the process tries first.
const otherProcess = "TANDEM_TEST_PORT"

func TestAPortIsReturnedToOneProcessOnly(t *testing.T) {
	t.Parallel()

	if text := os.Getenv(otherProcess); text != "" {
		port, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		nextPort.Store(uint32(port - firstFreePort))
		got, err := FreePort()
		_, _ = fmt.Fprintf(os.Stdout, "got %d, %v\n", got, err)
		return
	}
	// No server listens on them yet. Several clusters take as many in a row.
	const row = 400
	first, err := FreePorts(row)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), otherProcess+"="+strconv.Itoa(first))
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var got int
	if _, err := fmt.Sscanf(string(out), "got %d, <nil>", &got); err != nil || got >= first && got < first+row {
		t.Errorf("%s; want a port that is not one of %d to %d", strings.TrimSpace(string(out)), first, first+row-1)
	}
}

func TestAPortStaysFreeWhileProcessesStart(t *testing.T) {
	t.Parallel()

	// Before a new process executes its program it has the sockets of this one.
	var starting sync.WaitGroup
	defer starting.Wait()
	done := make(chan struct{})
	defer close(done)
	for range 4 {
		starting.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					_ = exec.CommandContext(t.Context(), "true").Run()
				}
			}
		})
	}
	port, err := FreePort()
	if err != nil {
		t.Fatal(err)
	}
	for range 1_000 {
		if err := CheckPort(port); err != nil {
			t.Fatal(err)
		}
	}
}
