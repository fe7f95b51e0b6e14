package program

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/functions/cloudevent"
)

// CommandVariable names the command that a program runs instead of serving.
const CommandVariable = "TANDEM_COMMAND"

// Commands are the values of [CommandVariable].
const (
	CommandDescribe = "describe"
	CommandMigrate  = "migrate"
	CommandCompute  = "compute"
)

// Description is the answer to [CommandDescribe].
type Description struct {
	Functions []Function `json:"functions"`
}

// Function describes a function.
type Function struct {
	Name    string   `json:"name"`
	Version string   `json:"version"`
	Types   []string `json:"types"`

	// Migrations are the names of its files, in their order.
	Migrations []string `json:"migrations"`
}

// Describe writes a [Description] of functions.
func Describe(fs []functions.Function, out io.Writer) error {
	d := Description{Functions: []Function{}}
	for _, f := range fs {
		if err := f.Validate(); err != nil {
			return err
		}
		files, err := migrations(f)
		if err != nil {
			return fmt.Errorf("read migrations of function %s: %w", f.Name, err)
		}
		d.Functions = append(d.Functions, Function{Name: f.Name, Version: f.Version, Types: f.Types, Migrations: files})
	}
	return json.NewEncoder(out).Encode(d)
}

func migrations(f functions.Function) ([]string, error) {
	if f.Migrations == nil {
		return []string{}, nil
	}
	files, err := fs.Glob(f.Migrations, "*.sql")
	slices.Sort(files)
	return files, err
}

// call requests the effects of an event.
type call struct {
	Function string          `json:"function"`
	Event    json.RawMessage `json:"event"`
}

// answer has one of its fields.
type answer struct {
	Effects  *effects `json:"effects,omitempty"`
	Rejected *string  `json:"rejected,omitempty"` // why the function rejects the event
	Error    string   `json:"error,omitempty"`    // why the function failed
}

// appendCall appends a call to b. The event is copied byte by byte, which encoding/json
// would not do.
func appendCall(b []byte, function string, e event.Event) ([]byte, error) {
	name, err := json.Marshal(function)
	if err != nil {
		return b, err
	}
	b = append(append(append(b, `{"function":`...), name...), `,"event":`...)
	if b, err = cloudevent.AppendJSON(b, e); err != nil {
		return b, err
	}
	return append(b, "}\n"...), nil
}

// Compute reads calls until in ends, and writes an answer to each.
func Compute(ctx context.Context, fs []functions.Function, in io.Reader, out io.Writer) error {
	calls := json.NewDecoder(in)
	for {
		var c call
		switch err := calls.Decode(&c); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("read an event: %w", err)
		}
		at := slices.IndexFunc(fs, func(f functions.Function) bool { return f.Name == c.Function })
		if at < 0 {
			return fmt.Errorf("there is no function %q", c.Function)
		}
		e, err := cloudevent.ReadJSON(c.Event, cloudevent.Rules{})
		if err != nil {
			return fmt.Errorf("read an event: %w", err)
		}
		var line bytes.Buffer
		encoder := json.NewEncoder(&line)
		encoder.SetEscapeHTML(false)
		if err := encoder.Encode(compute(ctx, fs[at], e)); err != nil {
			return err
		}
		if _, err := out.Write(line.Bytes()); err != nil {
			return err
		}
	}
}

// compute runs a function on an event.
func compute(ctx context.Context, f functions.Function, e event.Event) (a answer) {
	defer func() {
		if r := recover(); r != nil {
			a = answer{Error: fmt.Sprintf("panic: %v", r)}
		}
	}()
	fx, err := f.Handle(ctx, e)
	var rejected *functions.RejectError
	switch {
	case errors.As(err, &rejected):
		reason := err.Error()
		return answer{Rejected: &reason}
	case err != nil:
		return answer{Error: err.Error()}
	}
	encoded, err := encodeEffects(fx)
	if err != nil {
		return answer{Error: err.Error()}
	}
	return answer{Effects: &encoded}
}

// effects returns the function's result.
func (a answer) effects() (functions.Effects, error) {
	switch {
	case a.Rejected != nil:
		return functions.Effects{}, functions.Reject(errors.New(*a.Rejected))
	case a.Effects == nil:
		return functions.Effects{}, errors.New(a.Error)
	}
	return a.Effects.decode()
}
