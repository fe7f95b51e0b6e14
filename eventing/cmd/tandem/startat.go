package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

const startAtHelp = `Sets where a function starts in a stream, for all clusters: before its first source is
started, or after tandem retire. Without it, a function starts at the beginning of the
stream, and one that was retired continues where it ended.

POSITION is one of

  4712                  The sequence of the first message that the function receives: one more
                        than the last one that another consumer has processed.
  after:CONSUMER        The first message that another consumer of the stream has not
                        acknowledged, such as that of a service which the function replaces.
                        It is rejected while the consumer waits for acknowledgements.
  2006-01-02T15:04:05Z  The first message that the stream stored at this time or later; an
                        age, such as 90m, is a time too.
  new                   The first message that the stream stores from now on.
  beginning             The first message that the stream has.

Messages before it are not delivered in any cluster. The position is a row of table
tandem.horizon. The command refuses if a cluster has a checkpoint in the stream: then
retire the function first. The role of the database URL must be the one that migrates.`

// starting is one run of the command.
type starting struct {
	tool *tool

	function, position string
	stream             string
}

// started is the output of the command.
type started struct {
	Function string `json:"function"`
	Stream   string `json:"stream"`
	Sequence uint64 `json:"sequence"` // of the first message
	Messages uint64 `json:"messages"` // from there on, at most
}

func (t *tool) startAtCommand() *cobra.Command {
	s := &starting{tool: t}
	cmd := &cobra.Command{
		Use:   "start-at FUNCTION POSITION",
		Short: "Set where a function starts in a stream",
		Long:  startAtHelp,
		Example: `  tandem start-at orders 4712
  tandem start-at orders after:orders-worker
  tandem start-at orders new --stream SHOP
  tandem start-at orders 2026-03-01T00:00:00Z`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usage(cmd, errors.New("want FUNCTION and POSITION"))
			}
			s.function, s.position = args[0], args[1]
			return explain(s.run(cmd.Context()))
		},
	}
	cmd.Flags().StringVar(&s.stream, "stream", "EVENTS", "`name` of the stream, NAME@DOMAIN for one of a JetStream domain beyond a leaf node")
	return cmd
}

func (s *starting) run(ctx context.Context) error {
	pool, err := s.tool.openDatabase(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	conn, err := s.tool.openNATS(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	stream := jetstream.ParseStream(s.stream)
	extent, err := conn.Extent(ctx, stream)
	if err != nil {
		return err
	}
	sequence, err := s.find(ctx, conn, stream, extent)
	if err != nil {
		return err
	}
	ok, err := ledger.NewCheckpoints(pool, "").StartAt(ctx, s.function, extent.Origin, extent.Epoch, sequence)
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("a cluster has a checkpoint of function %s in stream %s: tandem retire %s first", s.function, s.stream, s.function)
	}
	first := max(sequence, extent.First)
	result := started{Function: s.function, Stream: s.stream, Sequence: first, Messages: extent.Last + 1 - min(first, extent.Last+1)}
	if s.tool.output.json {
		return s.tool.printJSON(result)
	}
	return s.tool.print("function %s starts at message %d of stream %s, in every cluster; %d messages wait for it\n", result.Function, result.Sequence, result.Stream, result.Messages)
}

// find returns the sequence of the position; 0 for the beginning.
func (s *starting) find(ctx context.Context, conn *jetstream.Conn, stream jetstream.StreamConfig, extent jetstream.Extent) (uint64, error) {
	switch s.position {
	case "beginning":
		return 0, nil
	case "new":
		return extent.Last + 1, nil
	}
	if consumer, ok := strings.CutPrefix(s.position, "after:"); ok {
		sequence, waiting, err := conn.SequenceAfter(ctx, stream, consumer)
		if err == nil && waiting > 0 {
			err = fmt.Errorf("consumer %s waits for the acknowledgement of %d messages, the first of which is %d: stop its service in an orderly way, or name a sequence", consumer, waiting, sequence)
		}
		return sequence, err
	}
	if sequence, err := strconv.ParseUint(s.position, 10, 64); err == nil {
		if sequence > extent.Last+1 {
			return 0, fmt.Errorf("position %d: the last message of stream %s is %d", sequence, s.stream, extent.Last)
		}
		return sequence, nil
	}
	at := timeValue{new(time.Time)}
	if err := at.Set(s.position); err != nil {
		return 0, fmt.Errorf("position %q: want a sequence, new, beginning, after:CONSUMER, an age such as 90m, or a time such as 2006-01-02T15:04:05Z", s.position)
	}
	return conn.SequenceAt(ctx, stream, *at.at)
}
