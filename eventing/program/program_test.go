package program_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5" //nolint:depguard // the test looks into the database

	"github.com/tandem-fn/tandem/eventing/devcluster/pgtest"
	"github.com/tandem-fn/tandem/eventing/program"
	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/functions/flights"
	"github.com/tandem-fn/tandem/functions/functionstest"
)

const (
	root = "../.."

	// buildTimeout bounds a build with an empty cache on a busy machine.
	buildTimeout = 8 * time.Minute
)

func build(t *testing.T, folder string) *program.Program {
	t.Helper()

	ctx, cancel := context.WithTimeout(t.Context(), buildTimeout)
	defer cancel()
	p, err := program.Build(ctx, folder)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// otherModule writes the module of another user, which has a function and requires this
// one, and returns its folder.
func otherModule(t *testing.T) string {
	t.Helper()

	checkout, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	_, requirements, _ := strings.Cut(read("go.mod"), "\n")
	folder := t.TempDir()
	for name, text := range map[string]string{
		"go.mod": "module example.com/orders\n" + requirements +
			"\nrequire github.com/tandem-fn/tandem v0.0.0\n\nreplace github.com/tandem-fn/tandem => " + checkout + "\n",
		"go.sum":          read("go.sum"),
		"0001_orders.sql": "create table orders (id text not null, cents bigint not null, constraint orders_pkey primary key (id));\n",
		"orders.go": `package orders

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"os"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/eventing/process"
	"github.com/tandem-fn/tandem/functions"
)

//go:embed *.sql
var tables embed.FS

type order struct{ Cents int64 }

func New() *process.Runtime {
	return process.New(functions.Function{
		Name: "orders", Version: "v7", Types: []string{"placed"}, Migrations: tables,
		Handle: functions.JSON(func(_ context.Context, e event.Event, o order) (functions.Effects, error) {
			fmt.Println("a function that prints")
			var fx functions.Effects
			switch {
			case o.Cents < 0:
				return fx, functions.Reject(errors.New("cents: below 0"))
			case o.Cents == 0:
				return fx, errors.New("zero")
			case o.Cents == 1:
				panic("one")
			case o.Cents == 2:
				fmt.Fprintln(os.Stderr, "out of memory")
				os.Exit(9)
			}
			fx.Insert("orders", functions.Row{"id": e.ID(), "cents": o.Cents})
			return fx, nil
		}),
	})
}
`,
	} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return folder
}

func order(id, data string) event.Event {
	e := event.New()
	e.SetID(id)
	e.SetSource("/shop")
	e.SetType("placed")
	e.DataEncoded = []byte(data)
	e.SetDataContentType(event.ApplicationJSON)
	return e
}

func TestTheProgramOfAnotherModuleIsBuiltAndUsed(t *testing.T) {
	t.Parallel()

	folder := otherModule(t)
	p := build(t, folder)
	if left, err := filepath.Glob(filepath.Join(folder, "*")); err != nil || len(left) != 4 {
		t.Errorf("the folder has %v, %v", left, err)
	}
	got, err := p.Describe(t.Context())
	want := program.Description{Functions: []program.Function{{Name: "orders", Version: "v7", Types: []string{"placed"}, Migrations: []string{"0001_orders.sql"}}}}
	if err != nil || !cmp.Equal(want, got) {
		t.Errorf("%v\n%s", err, cmp.Diff(want, got))
	}

	url := pgtest.URL(t)
	for range 2 {
		if err := p.Migrate(t.Context(), url); err != nil {
			t.Fatal(err)
		}
	}
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	var n int
	if err := conn.QueryRow(t.Context(), "select count(*) from pg_tables where tablename in ('orders', 'ledger')").Scan(&n); err != nil || n != 2 {
		t.Errorf("%d of the tables were created, %v; want 2", n, err)
	}
	if err := p.Migrate(t.Context(), "postgres://user:secret@127.0.0.1:1/x"); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("without a database: %v", err)
	}

	c, err := p.Compute(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f := c.Functions()[0]
	fx, err := f.Handle(t.Context(), order("1", "{\n\"cents\": 1250}"))
	if err != nil || len(fx.Writes) != 1 || fx.Writes[0].Row["cents"] != int64(1250) {
		t.Errorf("%+v, %v", fx, err)
	}
	var rejected *functions.RejectError
	if _, err := f.Handle(t.Context(), order("2", `{"cents":-1}`)); !errors.As(err, &rejected) || rejected.Error() != "cents: below 0" {
		t.Errorf("refused: %v", err)
	}
	for data, want := range map[string]string{`{"cents":0}`: "zero", `{"cents":1}`: "panic: one"} {
		if _, err := f.Handle(t.Context(), order("3", data)); err == nil || err.Error() != want || errors.As(err, &rejected) {
			t.Errorf("%s: %v, want %s", data, err, want)
		}
	}
	if err := c.Err(); err != nil {
		t.Errorf("the process failed: %v", err)
	}
	if _, err := f.Handle(t.Context(), order("4", `{"cents":2}`)); err == nil || !strings.Contains(err.Error(), "out of memory") || c.Err() == nil {
		t.Errorf("a process that ended: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// TestAProgramComputesAsItsFunctionDoes compares with the function linked into this
// test, by the canonical form.
func TestAProgramComputesAsItsFunctionDoes(t *testing.T) {
	t.Parallel()

	c, err := build(t, root).Compute(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	linked, all := flights.Function(), c.Functions()
	at := slices.IndexFunc(all, func(f functions.Function) bool { return f.Name == linked.Name })
	if at < 0 {
		t.Fatalf("it has %+v", all)
	}
	there := all[at]
	if there.Name != linked.Name || there.Version != linked.Version || !cmp.Equal(there.Types, linked.Types) {
		t.Errorf("it describes %+v", there)
	}
	for _, e := range functionstest.Events(t, filepath.Join(root, "functions", "flights", "testdata", "events.json")) {
		want, wantErr := linked.Handle(t.Context(), e)
		got, err := there.Handle(t.Context(), e)
		if (err == nil) != (wantErr == nil) || err != nil && err.Error() != wantErr.Error() {
			t.Errorf("event %s: error %v, want %v", e.ID(), err, wantErr)
			continue
		}
		wantForm, _, _ := want.AppendCanonical(nil)
		if form, _, err := got.AppendCanonical(nil); err != nil || !bytes.Equal(form, wantForm) {
			t.Errorf("event %s: %v\n%q, want\n%q", e.ID(), err, form, wantForm)
		}
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func TestAFolderWithoutAFunctionIsExplained(t *testing.T) {
	t.Parallel()

	empty := t.TempDir()
	for folder, want := range map[string]string{
		empty:                                   "go.mod",
		filepath.Join(root, "hack", "serve"):    "it is a main package",
		filepath.Join(root, "functions"):        "New",
		filepath.Join(empty, "nothing", "here"): "no such file",
	} {
		if p, err := program.Build(t.Context(), folder); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %v, want %q", folder, p, err, want)
		}
	}
}

// TestAnImageIsRunByAContainerEngine replaces the engine by a script, because a test
// cannot rely on one: it checks how the engine is called, and runs the program of the
// image.
func TestAnImageIsRunByAContainerEngine(t *testing.T) {
	inside := build(t, otherModule(t)).Binary(t.Context())
	engines := t.TempDir()
	t.Setenv("PATH", engines)
	if _, err := program.Image("registry.example.com/orders"); err == nil || !strings.Contains(err.Error(), "want docker, podman or nerdctl in PATH") {
		t.Errorf("without an engine: %v", err)
	}
	script := `#!/bin/sh
echo "$*" >>'` + filepath.Join(engines, "calls") + `'
exec '` + inside + `'
`
	if err := os.WriteFile(filepath.Join(engines, "podman"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	const reference = "registry.example.com/orders@sha256:0123"
	p, err := program.Image(reference)
	if err != nil {
		t.Fatal(err)
	}
	if d, err := p.Describe(t.Context()); err != nil || len(d.Functions) != 1 || d.Functions[0].Name != "orders" {
		t.Errorf("%+v, %v", d, err)
	}
	if err := p.Migrate(t.Context(), "postgres://user:secret@127.0.0.1:1/x"); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("without a database: %v", err)
	}
	c, err := p.Compute(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if fx, err := c.Functions()[0].Handle(t.Context(), order("1", `{"cents":5}`)); err != nil || len(fx.Writes) != 1 {
		t.Errorf("%+v, %v", fx, err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	calls, err := os.ReadFile(filepath.Join(engines, "calls"))
	if err != nil {
		t.Fatal(err)
	}
	for call := range strings.Lines(string(calls)) {
		if !strings.HasPrefix(call, "run --rm --interactive --network host --env TANDEM_COMMAND --env LISTEN_ADDRESS ") || !strings.HasSuffix(call, " "+reference+"\n") {
			t.Errorf("the engine was called with %s", call)
		}
		if strings.Contains(call, "secret") {
			t.Errorf("the arguments show a password: %s", call)
		}
	}
}
