package jetstream

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
)

const (
	// RequestTimeout bounds one request to a NATS server.
	RequestTimeout = 5 * time.Second

	// askLimit bounds the retries for a caller without a deadline.
	askLimit = 30 * time.Second
)

// Ask calls request until it is answered or ctx ends; for half a minute if ctx has no
// deadline. Each call has [RequestTimeout]. A request that reaches a server during a
// change of leader is never answered, not even with an error, while the next one is
// answered within milliseconds. The client of NATS bounds a request only if its context
// has no deadline: with a deadline of minutes, one lost request takes minutes.
//
// Ask returns the answer to the last call. The request must be idempotent.
func Ask[T any](ctx context.Context, request func(ctx context.Context) (T, error)) (T, error) {
	return repeat(ctx, func(ctx context.Context) (T, error) {
		ctx, cancel := context.WithTimeout(ctx, RequestTimeout)
		defer cancel()
		return request(ctx)
	})
}

// Do is [Ask] for a request without a result.
func Do(ctx context.Context, request func(ctx context.Context) error) error {
	_, err := Ask(ctx, func(ctx context.Context) (struct{}, error) { return struct{}{}, request(ctx) })
	return err
}

// repeat is [Ask] for requests with their own timeout.
func repeat[T any](ctx context.Context, request func(ctx context.Context) (T, error)) (T, error) {
	limit := ctx
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		limit, cancel = context.WithTimeout(ctx, askLimit)
		defer cancel()
	}
	for {
		answer, err := request(ctx)
		if !unanswered(err) || limit.Err() != nil {
			return answer, err
		}
	}
}

// unanswered reports whether a request failed because there was no answer.
func unanswered(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrTimeout) || errors.Is(err, natsjs.ErrAsyncPublishTimeout)
}
