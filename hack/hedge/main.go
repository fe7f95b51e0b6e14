// Command hedge says how much redundancy a function has in each cluster, and
// switches it while everything runs. --help explains.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/sethvargo/go-envconfig"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/sinkwriter"
)

const help = `hedge says how much redundancy a function has in each cluster, and switches it.

  hedge FUNCTION                           Shows it.
  hedge FUNCTION VALUE                     Switches all clusters at once.
  hedge --cluster NAME FUNCTION VALUE      Switches one.
  hedge [--cluster NAME] --unset FUNCTION  Takes back what was switched: then the
                                           variable TANDEM_HEDGE of each source counts.

VALUE is one of

  0, race   Every cluster computes every event at once. Lowest latency.
  300ms     This long after an event came, the source asks the ledger whether
            another cluster has done it, and delivers only what is not done. The
            function scales to zero while others are healthy. Up to 1m.
  standby   Nothing is delivered; what others have done is acknowledged. When it is
            switched, what is not done by then is delivered.

To stand by in every cluster is refused, here and by the sources themselves: a
cluster stands by only while another one is at work. To swap two clusters, switch
the one that stands by first. A switch from standby says first how many events
have been left lying.

  --wait 10s   How long to wait until the sources have done it. They look once a
               second.
  --replicas N On how many NATS servers the bucket is stored if it has to be made;
               3 in production. Default 1.

environment:
  NATS_URL             where the bucket tandem-hedge is. Keys are FUNCTION for all
                       clusters and FUNCTION.CLUSTER for one, which wins; so
                       "nats kv put tandem-hedge orders.west standby" does it too,
                       without looking what it leads to
  TANDEM_HEDGE_DOMAIN  its JetStream domain, as the sources have it
  DATABASE_URL         where the sources say what they do
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], envconfig.OsLookuper(), os.Stdout)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "hedge:", err)
		os.Exit(1)
	}
}

// options are what the flags say.
type options struct {
	function, value, cluster string
	unset                    bool
	wait                     time.Duration
	replicas                 int
}

// parse reads the flags. The error says what is wrong with them.
func parse(args []string) (o options, err error) {
	flags := flag.NewFlagSet("hedge", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&o.cluster, "cluster", "", "")
	flags.BoolVar(&o.unset, "unset", false, "")
	flags.DurationVar(&o.wait, "wait", 10*time.Second, "")
	flags.IntVar(&o.replicas, "replicas", 1, "")
	if err := flags.Parse(args); err != nil {
		return options{}, err
	}
	o.function, o.value = flags.Arg(0), flags.Arg(1)
	switch {
	case o.function == "":
		return options{}, errors.New("which function?")
	case flags.NArg() > 2:
		return options{}, fmt.Errorf("what is %q? Flags come first, then the function, then the value", flags.Arg(2))
	case o.unset && o.value != "":
		return options{}, errors.New("--unset and a value: take one of them")
	case o.cluster != "" && o.value == "" && !o.unset:
		return options{}, errors.New("--cluster: which value is it to have?")
	case o.replicas < 1 || o.replicas > 5:
		return options{}, fmt.Errorf("--replicas %d: want 1 to 5", o.replicas)
	}
	if o.value != "" {
		if _, err := eventing.ParseHedge(o.value); err != nil {
			return options{}, err
		}
	}
	return o, nil
}

// environment is what is not said by flags.
type environment struct {
	NATSURL     string `env:"NATS_URL, required"`
	Domain      string `env:"TANDEM_HEDGE_DOMAIN"`
	DatabaseURL string `env:"DATABASE_URL, required"`
}

func run(ctx context.Context, args []string, lookup envconfig.Lookuper, out io.Writer) error {
	o, err := parse(args)
	if errors.Is(err, flag.ErrHelp) {
		_, _ = io.WriteString(out, help)
		return err
	}
	if err != nil {
		return fmt.Errorf("%w: hedge --help says how it is used", err)
	}
	var env environment
	if err := envconfig.ProcessWith(ctx, &envconfig.Config{Target: &env, Lookuper: lookup}); err != nil {
		return err
	}
	cfg, err := pgxpool.ParseConfig(env.DatabaseURL)
	if err != nil {
		// Not the parser's error: it repeats the URL, and not always without
		// the password.
		return errors.New("DATABASE_URL: want postgres://USER:PASSWORD@HOST:5432/NAME")
	}
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return err
	}
	defer pool.Close()
	conn, err := jetstream.Connect(ctx, env.NATSURL, jetstream.Config{Name: "tandem-hedge"})
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if err := conn.Wait(ctx, o.wait); err != nil {
		return err
	}
	s := switching{
		options:  o,
		hedges:   jetstream.Hedges{Conn: conn, Domain: env.Domain, Replicas: o.replicas},
		progress: sinkwriter.NewProgress(pool, ""),
		out:      out,
	}
	return s.run(ctx)
}
