package program

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const (
	// describeTimeout bounds the answer of a program that serves instead, because it
	// was built with a version of Tandem that does not know the command.
	describeTimeout = 2 * time.Minute

	// stopTimeout is how long a program may take to end after it was interrupted.
	stopTimeout = 10 * time.Second
)

// Program is a program of functions that a tool runs. It is safe for concurrent use.
type Program struct {
	name string // for errors

	// command returns the command that runs the program with these variables.
	command func(ctx context.Context, variables []string) *exec.Cmd
	remove  func() error
}

const mainFile = `package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	function %q
)

func main() {
	env := map[string]string{}
	for _, variable := range os.Environ() {
		name, value, _ := strings.Cut(variable, "=")
		env[name] = value
	}
	err := function.New().Start(context.Background(), env)
	if err == nil {
		err = fmt.Errorf("this version of github.com/tandem-fn/tandem does not support TANDEM_COMMAND: update it")
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(2)
}
`

// Build builds the program of the function in folder, a package with New, like func
// does. It needs the go command, and changes nothing in the folder. Close removes the
// program.
func Build(ctx context.Context, folder string) (*Program, error) {
	list := exec.CommandContext(ctx, "go", "list", "-json=Name,Dir,ImportPath", ".")
	list.Dir = folder
	out, err := output(list)
	if err != nil {
		return nil, fmt.Errorf("look for a function in %s: %w", folder, err)
	}
	var pkg struct{ Name, Dir, ImportPath string }
	if err := json.Unmarshal(out, &pkg); err != nil {
		return nil, fmt.Errorf("look for a function in %s: %w", folder, err)
	}
	if pkg.Name == "main" {
		return nil, fmt.Errorf("look for a function in %s: it is a main package: want the package with New, beside func.yaml", folder)
	}
	temporary, err := os.MkdirTemp("", "tandem-program-")
	if err != nil {
		return nil, err
	}
	remove := func() error { return os.RemoveAll(temporary) }
	binary, err := build(ctx, temporary, pkg.Dir, pkg.ImportPath)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("build the program of %s: %w", folder, err), remove())
	}
	return &Program{
		name: folder,
		command: func(ctx context.Context, variables []string) *exec.Cmd {
			cmd := exec.CommandContext(ctx, binary)
			cmd.Env = append(os.Environ(), variables...)
			return cmd
		},
		remove: remove,
	}, nil
}

// build compiles a main package that the overlay places beside the function, so that it
// belongs to the function's module, with its requirements and replacements.
func build(ctx context.Context, temporary, folder, importPath string) (binary string, err error) {
	source := filepath.Join(temporary, "main.go")
	if err := os.WriteFile(source, fmt.Appendf(nil, mainFile, importPath), 0o600); err != nil {
		return "", err
	}
	beside := filepath.Base(temporary)
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(folder, beside, "main.go"): source}})
	if err != nil {
		return "", err
	}
	replacements := filepath.Join(temporary, "overlay.json")
	if err := os.WriteFile(replacements, overlay, 0o600); err != nil {
		return "", err
	}
	binary = filepath.Join(temporary, "program")
	cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-overlay", replacements, "-o", binary, "./"+beside)
	cmd.Dir = folder
	_, err = output(cmd)
	return binary, err
}

// Image returns the program of an image, for example REGISTRY/NAME@sha256:…, which it
// runs with docker, podman or nerdctl, in the network of this machine.
func Image(reference string) (*Program, error) {
	var engine string
	for _, name := range []string{"docker", "podman", "nerdctl"} {
		if path, err := exec.LookPath(name); err == nil {
			engine = path
			break
		}
	}
	if engine == "" {
		return nil, fmt.Errorf("run image %s: want docker, podman or nerdctl in PATH", reference)
	}
	return &Program{
		name: reference,
		command: func(ctx context.Context, variables []string) *exec.Cmd {
			// Only the names of the variables, because arguments are visible to other
			// users.
			args := []string{"run", "--rm", "--interactive", "--network", "host"}
			for _, variable := range variables {
				name, _, _ := strings.Cut(variable, "=")
				args = append(args, "--env", name)
			}
			cmd := exec.CommandContext(ctx, engine, append(args, reference)...)
			cmd.Env = append(os.Environ(), variables...)
			return cmd
		},
		remove: func() error { return nil },
	}, nil
}

// String returns the folder or the image of the program.
func (p *Program) String() string { return p.name }

// Shared returns the program with a Close that does nothing, for several users.
func (p *Program) Shared() *Program {
	shared := *p
	shared.remove = func() error { return nil }
	return &shared
}

// Close removes the files that Build created.
func (p *Program) Close() error { return p.remove() }

// Describe returns the functions of the program.
func (p *Program) Describe(ctx context.Context) (Description, error) {
	ctx, cancel := context.WithTimeout(ctx, describeTimeout)
	defer cancel()
	out, err := output(p.run(ctx, CommandDescribe))
	var d Description
	if err == nil {
		err = json.Unmarshal(out, &d)
	}
	if err != nil {
		return Description{}, fmt.Errorf("ask %s for its functions: %w", p.name, err)
	}
	return d, nil
}

// Migrate runs the program to create and change the tables of its functions and of its
// version of Tandem.
func (p *Program) Migrate(ctx context.Context, databaseURL string) error {
	if _, err := output(p.run(ctx, CommandMigrate, "DATABASE_URL="+databaseURL)); err != nil {
		return fmt.Errorf("migrate with %s: %w", p.name, err)
	}
	return nil
}

// run returns the process of one command, which is interrupted when ctx ends.
func (p *Program) run(ctx context.Context, command string, variables ...string) *exec.Cmd {
	cmd := p.command(ctx, append([]string{
		CommandVariable + "=" + command,
		"LISTEN_ADDRESS=127.0.0.1:0", // func's main package listens before it starts the function
	}, variables...))
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = stopTimeout
	return cmd
}

// output returns the standard output of a command. Its error has the last line of the
// standard error.
func output(cmd *exec.Cmd) ([]byte, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, withReason(err, stderr.String())
	}
	return stdout.Bytes(), nil
}

// maxReason bounds the part of the standard error that is shown.
const maxReason = 4000

// withReason adds the end of the standard error to an error, without the lines that
// func's runtime logs.
func withReason(err error, stderr string) error {
	var lines []string
	for line := range strings.Lines(stderr) {
		if !strings.HasPrefix(line, `{"level":`) {
			lines = append(lines, strings.TrimRight(line, "\n"))
		}
	}
	reason := strings.TrimSpace(strings.Join(lines, "\n"))
	reason = reason[max(0, len(reason)-maxReason):]
	return fmt.Errorf("%w: %s", err, cmp.Or(reason, "it wrote no reason"))
}

var _ io.Closer = (*Program)(nil)
