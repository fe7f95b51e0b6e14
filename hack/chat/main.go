// Command chat is make chat: functions/chat in two clusters on this machine, each
// component a process of its own. Each cluster has a websocket server with a page;
// messages that are typed on either side appear on both.
//
// With the argument push it is the websocket server of one cluster.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/tandem-fn/tandem/eventing/devcluster"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	context.AfterFunc(ctx, stop) // the second Ctrl-C ends this program at once, and the system ends the rest

	var err error
	if len(os.Args) == 2 && os.Args[1] == "push" {
		err = servePush(ctx)
	} else {
		err = launch(ctx, os.Args[1:])
	}
	if err != nil && !errors.Is(err, flag.ErrHelp) && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "chat:", strings.ReplaceAll(err.Error(), "\n", "; "))
		os.Exit(1)
	}
}

const (
	defaultPort = 7400

	// pagePort is the offset of the page's port in the ports of a cluster.
	pagePort = 8
)

// options are parsed from the flags and the environment.
type options struct {
	dir   string
	ports int

	databaseURL, natsURL string
}

const usage = `usage: make chat ARGS="[flags]"

Runs PostgreSQL, NATS and two clusters on this machine, each component a process of its own,
and a page for each cluster on which Ann in the east and Bob in the west chat. Open it,
type on either side, rename the room on both at once, kill any process you like
(kill -9): it is restarted after a second, and nothing is lost or duplicated.
Ctrl-C ends it; the next run continues where this one ended.

flags:
  --dir DIR   folder for data and logs; default .tandem/chat
  --ports N   first port, on 127.0.0.1: PostgreSQL N, NATS N+1, the components of the clusters
              from N+10 and N+20 on, their pages N+18 and N+28; default 7400

environment:
  DATABASE_URL     an existing PostgreSQL, which is used instead of a new one
  NATS_URL         an existing NATS with JetStream, likewise
  TANDEM_PG_BIN    the folder of initdb and postgres; default an installed server, else
                   a pinned build that is downloaded once
  LOG_LEVEL        debug, info, warn or error, for the components' logs in DIR/log
`

// parseOptions parses the flags. If it returns flag.ErrHelp, the usage has been
// written to out.
func parseOptions(args []string, getenv func(string) string, out io.Writer) (options, error) {
	o := options{databaseURL: getenv("DATABASE_URL"), natsURL: getenv("NATS_URL")}
	flags := flag.NewFlagSet("chat", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // an error is printed in one line
	flags.StringVar(&o.dir, "dir", ".tandem/chat", "")
	flags.IntVar(&o.ports, "ports", defaultPort, "")
	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		_, _ = io.WriteString(out, usage)
		return options{}, err
	case err != nil:
		return options{}, fmt.Errorf("%w; --help lists the flags", err)
	case flags.NArg() > 0:
		return options{}, fmt.Errorf("unexpected argument %q: want flags only; --help lists them", flags.Arg(0))
	case o.dir == "":
		return options{}, errors.New("--dir: want a folder")
	case o.ports < 1 || o.page(len(clusterNames())-1) > 65_535:
		return options{}, fmt.Errorf("--ports %d: want the first of ports between 1 and 65535", o.ports)
	}
	return o, nil
}

func clusterNames() []string { return []string{"east", "west"} }

func (o options) page(i int) int { return o.ports + devcluster.PortStep*(i+1) + pagePort }
