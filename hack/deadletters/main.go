// Command deadletters lists, shows, replays and drops the events that could not be
// got through a function, from the database of DATABASE_URL. --help explains.
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

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/sethvargo/go-envconfig"

	"github.com/tandem-fn/tandem/sinkwriter"
)

const help = `deadletters looks after the events that could not be got through a function.

  DATABASE_URL=postgres://MIGRATOR:PASSWORD@HOST:5432/NAME deadletters COMMAND [flags]

  list     One line an event: what to think of it, the function, the last answer's
           code and reason, which clusters refused it, how often it was offered.
  show     The events whole, as CloudEvents in JSON, with what each cluster said.
  replay   Sends the events to the function again and takes those out that it
           answers 2xx to. What was done before is not done again: the ledger knows
           it, the answer is "lost", and the letter goes.
  drop     Takes the events out for good. Nothing else remembers them; keep what
           "show --json" prints if in doubt.

What to think of an event, its verdict:

  poison        Every cluster that is at work refused it, and none handled it. Look
                at the reason; mend the function, or whoever sends such events; then
                replay, or drop.
  sick cluster  Some cluster refused it, yet it was handled: look what is wrong with
                that cluster, an old version or a missing permission. The event is
                fine; a replay clears the letter away.
  undecided     Another cluster has not come to it yet. Wait, or replay.

Which events (all flags together; replay and drop want at least one, or --all):

  --function NAME   --source URI   --id ID   --type TYPE   --cluster NAME
  --verdict poison | sick | undecided
  --code 422        the status that was answered last
  --reason TEXT     part of what was answered, in any case
  --since 2h        handed in within the last two hours; or a time, 2006-01-02T15:04:05Z
  --until 2h        handed in last before that
  --limit N         at most so many, those first that were handed in first;
                    100 for list, 10 for show, else no limit
  --all             all of them

  --json            One JSON object a line instead of a table.

Of replay:

  --to URL          The function's own address. {function} in it stands for the
                    function's name: http://{function}.shop.svc.cluster.local.
                    Not an ingest or a broker: others would get the event too.
                    Default: K_SINK.
  --parallel N      So many at once; 8.
  --patience 1m     How long one event is tried while the function answers 503 or
                    not at all. After that the replay ends; what is left stays.
  --token-file FILE A token that is sent along, read for each request; /oidc/token.
                    Certificates to trust: K_CA_CERTS, in PEM.

The role of DATABASE_URL is the one that migrates (see migrate --help): the one that
functions and sources use cannot delete letters. The exit status is 1 if something
was not done.

Examples:

  deadletters list --verdict poison --function orders
  deadletters show --id 4711
  deadletters replay --function orders --reason "no such product" --since 2h --to http://orders.shop.svc.cluster.local
  deadletters drop --function orders --id 4711 --source /shop
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], envconfig.OsLookuper(), os.Stdout)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "deadletters:", err)
		os.Exit(1)
	}
}

// environment is what is not said by flags.
type environment struct {
	DatabaseURL string `env:"DATABASE_URL"`
	Sink        string `env:"K_SINK"`
	CACerts     string `env:"K_CA_CERTS"`
}

// desk is what every command works with.
type desk struct {
	verdicts *sinkwriter.Verdicts
	env      environment
	opts     options
	out      io.Writer
}

func run(ctx context.Context, args []string, lookup envconfig.Lookuper, out io.Writer) error {
	opts, err := parse(args)
	if errors.Is(err, flag.ErrHelp) {
		_, _ = io.WriteString(out, help)
		return err
	}
	if err != nil {
		return fmt.Errorf("%w: deadletters --help says how it is used", err)
	}
	d := desk{opts: opts, out: out}
	if err := envconfig.ProcessWith(ctx, &envconfig.Config{Target: &d.env, Lookuper: lookup}); err != nil {
		return err
	}
	if d.env.DatabaseURL == "" {
		return errors.New("DATABASE_URL is not set: want postgres://USER:PASSWORD@HOST:5432/NAME")
	}
	cfg, err := pgxpool.ParseConfig(d.env.DatabaseURL)
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
	d.verdicts = sinkwriter.NewVerdicts(pool)
	err = map[string]func(context.Context) error{
		"list": d.list, "show": d.show, "replay": d.replay, "drop": d.drop,
	}[opts.command](ctx)
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		switch pgErr.Code {
		case "42501":
			return fmt.Errorf("%w: take the role that migrates", err)
		case "42P01", "3F000":
			return fmt.Errorf("%w: run migrate first, or look at DATABASE_URL", err)
		}
	}
	return err
}

// each calls do with every event that is asked for, a page at a time, up to the
// limit. Events that do takes out meanwhile do no harm.
func (d desk) each(ctx context.Context, do func([]sinkwriter.DeadEvent) error) error {
	const page = 100
	left := d.opts.limit
	var after *sinkwriter.DeadEvent
	for left > 0 {
		list, err := d.verdicts.List(ctx, d.opts.filter, after, min(page, left))
		if err != nil {
			return err
		}
		if len(list) == 0 {
			return nil
		}
		if err := do(list); err != nil {
			return err
		}
		left -= len(list)
		after = &list[len(list)-1]
	}
	return nil
}
