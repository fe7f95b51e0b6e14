// Command nats runs a NATS server with JetStream and file storage: the server of make
// run, in a process of its own, so that it can be killed and restarted like any other
// component.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

const (
	exitFailure  = 1
	exitUsage    = 2
	readyTimeout = 30 * time.Second
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	opts, err := parse(os.Args[1:])
	switch {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil:
		fmt.Fprintln(os.Stderr, "nats:", err)
		os.Exit(exitUsage)
	}
	if err := run(ctx, opts); err != nil {
		fmt.Fprintln(os.Stderr, "nats:", err)
		os.Exit(exitFailure)
	}
}

func parse(args []string) (*server.Options, error) {
	opts := &server.Options{
		ServerName: "tandem",
		JetStream:  true,
		NoSigs:     true, // this program handles them
		Logtime:    true,
	}
	flags := flag.NewFlagSet("nats", flag.ContinueOnError)
	flags.StringVar(&opts.Host, "host", "127.0.0.1", "`ADDRESS` to listen on")
	flags.IntVar(&opts.Port, "port", server.DEFAULT_PORT, "port to listen on")
	flags.StringVar(&opts.StoreDir, "dir", "", "folder for the streams (required)")
	flags.Func("sync-interval", "interval at which stored messages are synced to the disk: a duration, or always, which is before each acknowledgement (default 2m)", func(s string) error {
		if s == "always" {
			opts.SyncAlways = true
			return nil
		}
		d, err := time.ParseDuration(s)
		if err != nil || d <= 0 {
			return errors.New("want a duration like 10s, or always")
		}
		opts.SyncInterval = d
		return nil
	})
	flags.StringVar(&opts.ServerName, "name", opts.ServerName, "name of the server, unique in its cluster")
	flags.StringVar(&opts.Cluster.Name, "cluster", "", "name of the server's cluster, with -cluster-port and -routes")
	flags.IntVar(&opts.Cluster.Port, "cluster-port", 0, "port on 127.0.0.1 for the other servers of the cluster")
	flags.StringVar(&opts.Cluster.Advertise, "cluster-advertise", "", "`HOST:PORT` at which other servers of the cluster connect to this one (default: where it listens)")
	routes := flags.String("routes", "", "comma-separated `URLs` of the cluster's servers, such as nats://127.0.0.1:6222")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if opts.Cluster.Name != "" {
		opts.Cluster.Host = "127.0.0.1"
		// Clients must use only the addresses that they were given: a proxy may be
		// in between.
		opts.Cluster.NoAdvertise = true
		opts.Routes = server.RoutesFromStr(*routes)
	}
	if opts.StoreDir == "" {
		return nil, errors.New("set the folder for the streams with -dir")
	}
	return opts, nil
}

func run(ctx context.Context, opts *server.Options) error {
	srv, err := server.NewServer(opts)
	if err != nil {
		return fmt.Errorf("set up the server: %w", err)
	}
	srv.ConfigureLogger()
	srv.Start()
	if !srv.ReadyForConnections(readyTimeout) {
		srv.Shutdown()
		return fmt.Errorf("not ready on port %d within %s", opts.Port, readyTimeout)
	}
	<-ctx.Done()
	srv.Shutdown()
	srv.WaitForShutdown()
	return nil
}
