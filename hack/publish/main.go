// Command publish lets other modules on this computer import this checkout, with
// local changes. It also works for the modules that func builds from them.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/tandem-fn/tandem/hack/publish/proxy"
)

const usage = `Lets other modules on this computer, and the modules that func builds from them, import this checkout:

    eval "$(go run ./hack/publish)"

sets GOPROXY and two more variables in this shell; then, in the folder of a function,

    go get ` + proxy.Module + `@latest

downloads the current state of the checkout. Repeat both after a change. The copy is in .tandem/proxy.
`

func main() {
	flag.Usage = func() { _, _ = io.WriteString(flag.CommandLine.Output(), usage) }
	flag.Parse()
	if err := run(context.Background(), flag.Args(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) > 0 {
		return fmt.Errorf("publish takes no arguments: %s", usage)
	}
	folder, err := filepath.Abs(filepath.Join(".tandem", "proxy"))
	if err != nil {
		return err
	}
	version, err := proxy.Write(".", folder, time.Now())
	if err != nil {
		return err
	}
	others, err := exec.CommandContext(ctx, "go", "env", "GOPROXY").Output()
	if err != nil {
		return fmt.Errorf("read GOPROXY: %w", err)
	}
	// If it is evaluated twice, the value does not grow.
	kept := strings.TrimPrefix(strings.TrimSpace(string(others)), "file://"+filepath.ToSlash(folder)+",")
	for _, setting := range proxy.Env(folder, kept) {
		name, value, _ := strings.Cut(setting, "=")
		if _, err := fmt.Fprintf(out, "export %s='%s'\n", name, value); err != nil {
			return err
		}
	}
	fmt.Fprintf(os.Stderr, "this checkout is %s %s\n", proxy.Module, version)
	return nil
}
