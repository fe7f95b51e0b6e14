// Package harm is a function whose events contain the harm that they do to their
// process: none, or one of the ways in which a function ends, hangs, or requests too
// much.
package harm

import (
	"bytes"
	"context"
	"embed"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/functions"
)

// Type is the type of the events.
const Type = "com.example.harm.done"

// Kind is the effect of an event on the process.
type Kind string

// The kinds.
const (
	None   Kind = "none"
	Exit   Kind = "exit"   // calls os.Exit
	Panic  Kind = "panic"  // panics in a goroutine of its own
	Stack  Kind = "stack"  // recurses until the stack overflows
	Memory Kind = "memory" // allocates until the system refuses
	Loop   Kind = "loop"   // computes indefinitely
	Hang   Kind = "hang"   // waits indefinitely
	Large  Kind = "large"  // has an output that no stream accepts
)

// Data is the data of an event.
type Data struct {
	Kind Kind `json:"kind"`
}

//go:embed *.sql
var migrations embed.FS

// Function returns the function.
func Function() functions.Function {
	return functions.Function{Name: "harm", Version: "v1", Types: []string{Type}, Handle: functions.JSON(handle), Migrations: migrations}
}

func handle(_ context.Context, e event.Event, d Data) (functions.Effects, error) {
	switch d.Kind {
	case None, Large:
	case Exit:
		os.Exit(3)
	case Panic:
		go func() { panic("harm") }()
		select {}
	case Stack:
		debug.SetMaxStack(16 << 20)
		recurse(0)
	case Memory:
		allocate(128 << 20)
	case Loop:
		for turns := uint64(0); ; turns++ {
		}
	case Hang:
		select {}
	}
	var fx functions.Effects
	if d.Kind == Large {
		fx.Emit(functions.Output{Type: Type + ".large", Data: strings.Repeat("x", 2<<20)})
	}
	fx.Insert("harm_events", functions.Row{"id": e.ID(), "sent_at": e.Time()})
	return fx, nil
}

func recurse(depth int) int {
	var frame [1 << 10]byte
	frame[depth%len(frame)] = 1
	return recurse(depth+1) + int(frame[0]) //nolint:staticcheck // until the stack overflows
}

// allocate allocates without end; the system refuses more than limit.
func allocate(limit uint64) {
	if status, err := os.ReadFile("/proc/self/statm"); err == nil {
		pages, _ := strconv.ParseUint(string(bytes.Fields(status)[0]), 10, 64)
		limit += pages * uint64(os.Getpagesize())
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_AS, &syscall.Rlimit{Cur: limit, Max: limit}); err != nil {
		panic(err)
	}
	for kept := [][]byte(nil); ; runtime.KeepAlive(kept) {
		kept = append(kept, bytes.Repeat([]byte{1}, 8<<20))
	}
}
