package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tandem-fn/tandem/eventing/program"
)

// built is the program of this repository's functions, which tests share.
var built struct {
	once    sync.Once
	program *program.Program
	err     error
}

func TestMain(m *testing.M) {
	if os.Getenv(runTool) != "" { // in a process that a test has started
		main()
	}
	code := m.Run()
	if built.program != nil {
		_ = built.program.Close()
	}
	os.Exit(code)
}

// buildShared replaces program.Build.
func buildShared(ctx context.Context, _ string) (*program.Program, error) {
	built.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 8*time.Minute) // with an empty cache
		defer cancel()
		built.program, built.err = program.Build(ctx, root)
	})
	if built.err != nil {
		return nil, built.err
	}
	return built.program.Shared(), nil
}

// ran is the result of one run of the tool.
type ran struct {
	out, err string
	code     int
}

// invoke runs the tool with its own environment.
func invoke(t *testing.T, env map[string]string, args ...string) ran {
	t.Helper()

	return invokeTool(t, tool{env: func(name string) string { return env[name] }}, args...)
}

func invokeTool(t *testing.T, tool tool, args ...string) ran {
	t.Helper()

	var out, err bytes.Buffer
	tool.in, tool.out, tool.err = strings.NewReader(""), &out, &err
	code := tool.execute(t.Context(), args)
	return ran{out: out.String(), err: err.String(), code: code}
}

// ok fails the test unless the run succeeded, and returns its output.
func (r ran) ok(t *testing.T) string {
	t.Helper()

	if r.code != 0 || r.err != "" {
		t.Fatalf("exit code %d, %s\n%s", r.code, r.err, r.out)
	}
	return r.out
}

// fails fails the test unless the run ended with code and an error that contains want.
func (r ran) fails(t *testing.T, code int, want string) {
	t.Helper()

	if r.code != code || !strings.Contains(r.err, want) {
		t.Errorf("exit code %d, error %q; want %d and %q", r.code, r.err, code, want)
	}
	if strings.Contains(r.err, "secret") {
		t.Errorf("the error shows a password: %s", r.err)
	}
}

const topLevelHelp = `tandem is the tool of users and operators of Tandem.

It reads and changes the database and the streams that the clusters share. It
needs no access to a cluster, and it links no function: where a command needs
functions, it builds or runs their own program.

Environment:
  DATABASE_URL   the database, if --database-url is not set
  NATS_URL       the NATS servers, if --nats-url is not set

Exit status: 0 on success, 1 if the command found a problem that needs
an operator, 2 if it failed.

Usage:
  tandem [flags]
  tandem [command]

Examples:
  tandem migrate --grant tandem_writer
  tandem hedge orders
  tandem dead-letters list --verdict poison
  tandem event /shop 4711
  tandem verify --since 2h

Available Commands:
  completion       Generate the autocompletion script for the specified shell
  dead-letters     List, show, replay and drop dead letters
  deferred         List, show, run and drop deferred events
  drill            Watch a deployment while you interrupt it, and report the cost
  event            Print everything known about one event
  hedge            Show and switch how much redundancy a function has
  help             Help about any command
  migrate          Create and change the tables of Tandem and of a function
  rejected-outputs List, show, replay and drop outputs that were rejected
  retire           Retire a function, or one cluster of it, for good
  start-at         Set where a function starts in a stream
  verify           Compare the database with the stream, and repair
  version          Print the version of this tool

Flags:
      --database-url URL   URL of the database, for example postgres://USER:PASSWORD@HOST:5432/NAME (DATABASE_URL)
  -h, --help               help for tandem
      --nats-url URL       URL of the NATS servers, for example nats://HOST:4222 (NATS_URL)
  -o, --output format      format of the output: table, or json for one JSON object per line (default table)

Use "tandem [command] --help" for more information about a command.
`

func TestHelpListsTheCommands(t *testing.T) {
	t.Parallel()

	for _, args := range [][]string{{}, {"--help"}, {"help"}} {
		if out := invoke(t, nil, args...).ok(t); out != topLevelHelp {
			t.Errorf("%v printed\n%s", args, out)
		}
	}
	tool := tool{env: func(string) string { return "" }}
	for _, cmd := range tool.command().Commands() {
		if cmd.Name() == "help" || cmd.Name() == "completion" {
			continue
		}
		if cmd.Example == "" && cmd.Name() != "version" {
			t.Errorf("%s has no example", cmd.CommandPath())
		}
	}
	invoke(t, nil, "frobnicate").fails(t, 2, `unknown command "frobnicate": want completion, dead-letters, deferred, drill, event, hedge, migrate, `)
	invoke(t, nil, "version", "--colour").fails(t, 2, "unknown flag: --colour: see tandem version --help")
	invoke(t, nil, "version", "-o", "yaml").fails(t, 2, "want table or json")
}

func TestVersion(t *testing.T) {
	t.Parallel()

	if out := invoke(t, nil, "version").ok(t); !strings.HasPrefix(out, "tandem ") || !strings.Contains(out, " go1.") {
		t.Errorf("printed %s", out)
	}
	var v version
	if out := invoke(t, nil, "version", "-o", "json").ok(t); json.Unmarshal([]byte(out), &v) != nil || v != readVersion() {
		t.Errorf("printed %s", out)
	}
}

func TestTheShellCompletesFlagsAndCommands(t *testing.T) {
	t.Parallel()

	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if out := invoke(t, nil, "completion", shell).ok(t); !strings.Contains(out, "tandem") {
			t.Errorf("%s: %s", shell, out)
		}
	}
	for want, args := range map[string][]string{
		"poison\nsick\nundecided\n": {"dead-letters", "list", "--verdict", ""},
		"table\njson\n":             {"version", "--output", ""},
		"replay\t":                  {"dead-letters", "re"},
	} {
		got := invoke(t, nil, append([]string{"__complete"}, args...)...)
		if got.code != 0 || !strings.Contains(got.out, want) {
			t.Errorf("%v: completes to %q, want %q", args, got.out, want)
		}
	}
}

func TestFlagsWinOverTheEnvironment(t *testing.T) {
	t.Parallel()

	for want, args := range map[string][]string{
		"no database: set --database-url or DATABASE_URL": {"dead-letters", "list"},
		"database URL: want postgres://":                  {"dead-letters", "list", "--database-url", "postgres://user:secret@x:y/"},
	} {
		invoke(t, nil, args...).fails(t, 2, want)
	}
	env := map[string]string{"DATABASE_URL": "postgres://user:secret@x:y/"}
	invoke(t, env, "hedge", "orders").fails(t, 2, "database URL: want postgres://")
	invoke(t, env, "hedge", "orders", "--database-url", "postgres://127.0.0.1:1/x").fails(t, 2, "list the clusters of function orders: failed to connect")
}
