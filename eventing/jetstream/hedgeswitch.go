package jetstream

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	natsjs "github.com/nats-io/nats.go/jetstream"
)

// HedgeBucket is the bucket that says at run time how much redundancy is wanted:
// under FUNCTION for all clusters, under FUNCTION.CLUSTER for one, which wins.
const HedgeBucket = "tandem-hedge"

// HedgeSwitch is how much redundancy was set for functions at run time, in a bucket of
// JetStream that all clusters can read. It may be shared.
type HedgeSwitch struct {
	conn    *Conn
	cluster string
	domain  string

	mu     sync.Mutex
	bucket natsjs.KeyValue // nil until it was found
}

// NewHedgeSwitch reads what was set for one cluster. The bucket is in a domain of
// JetStream, which must be the same for all clusters; empty for the server's own.
func NewHedgeSwitch(conn *Conn, cluster, domain string) *HedgeSwitch {
	return &HedgeSwitch{conn: conn, cluster: cluster, domain: domain}
}

// Hedge gives what was set for function in the cluster; empty if nothing was.
func (s *HedgeSwitch) Hedge(ctx context.Context, function string) (string, error) {
	ctx, cancel := s.conn.api(ctx)
	defer cancel()
	value, err := s.hedge(ctx, function)
	if err != nil {
		return "", fmt.Errorf("read what bucket %s has for function %s: %w", HedgeBucket, function, because(ctx, err))
	}
	return value, nil
}

func (s *HedgeSwitch) hedge(ctx context.Context, function string) (string, error) {
	if err := s.conn.Ready(); err != nil {
		return "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bucket == nil {
		bucket, err := s.conn.in(s.domain).KeyValue(ctx, HedgeBucket)
		if errors.Is(err, natsjs.ErrBucketNotFound) {
			return "", nil // nobody has ever set anything
		}
		if err != nil {
			return "", err
		}
		s.bucket = bucket
	}
	for _, key := range []string{function + "." + s.cluster, function} {
		entry, err := s.bucket.Get(ctx, key)
		switch {
		case errors.Is(err, natsjs.ErrKeyNotFound):
			continue
		case err != nil:
			s.bucket = nil // it may be another one by now
			return "", err
		}
		if value := strings.TrimSpace(string(entry.Value())); value != "" {
			return value, nil
		}
	}
	return "", nil
}

// Hedges sets how much redundancy is wanted.
type Hedges struct {
	// Conn is a connection to the servers.
	Conn *Conn

	// Domain is where the bucket is, as in [NewHedgeSwitch].
	Domain string

	// Replicas is on how many servers the bucket is stored if it is made because
	// it is missing. From 1 to 5. Defaults to 1.
	Replicas int
}

// Set sets how much redundancy is wanted for function, in one cluster, or, with an
// empty cluster, in all at once, whatever was set for one. An empty value takes
// back what was set. It does not look whether the value makes sense.
func (h Hedges) Set(ctx context.Context, function, cluster, value string) error {
	return Do(ctx, func(ctx context.Context) error {
		ctx, cancel := h.Conn.api(ctx)
		defer cancel()
		if err := h.set(ctx, function, cluster, value); err != nil {
			return fmt.Errorf("set what bucket %s has for function %s: %w", HedgeBucket, function, because(ctx, err))
		}
		return nil
	})
}

func (h Hedges) set(ctx context.Context, function, cluster, value string) error {
	if err := h.Conn.Ready(); err != nil {
		return err
	}
	bucket, err := h.Conn.in(h.Domain).KeyValue(ctx, HedgeBucket)
	if errors.Is(err, natsjs.ErrBucketNotFound) {
		bucket, err = h.Conn.in(h.Domain).CreateKeyValue(ctx, natsjs.KeyValueConfig{
			Bucket: HedgeBucket, Description: "made by Tandem: how much redundancy is wanted", History: 8, Replicas: max(h.Replicas, 1),
		})
		if errors.Is(err, natsjs.ErrBucketExists) { // somebody was quicker
			bucket, err = h.Conn.in(h.Domain).KeyValue(ctx, HedgeBucket)
		}
	}
	if err != nil {
		return err
	}
	key := function
	if cluster != "" {
		key += "." + cluster
	}
	if value == "" {
		err = bucket.Delete(ctx, key)
	} else {
		_, err = bucket.PutString(ctx, key, value)
	}
	if err != nil || cluster != "" {
		return err
	}
	// All of them at once, also those that one was set for.
	keys, err := bucket.ListKeysFiltered(ctx, function+".*")
	if err != nil {
		return err
	}
	for one := range keys.Keys() {
		if err := bucket.Delete(ctx, one); err != nil {
			return err
		}
	}
	return nil
}

// All gives all that is set for function: by cluster, and under the empty name
// what counts for those that have nothing of their own.
func (h Hedges) All(ctx context.Context, function string) (map[string]string, error) {
	return Ask(ctx, func(ctx context.Context) (map[string]string, error) {
		ctx, cancel := h.Conn.api(ctx)
		defer cancel()
		set, err := h.all(ctx, function)
		if err != nil {
			return nil, fmt.Errorf("read what bucket %s has for function %s: %w", HedgeBucket, function, because(ctx, err))
		}
		return set, nil
	})
}

func (h Hedges) all(ctx context.Context, function string) (map[string]string, error) {
	if err := h.Conn.Ready(); err != nil {
		return nil, err
	}
	set := map[string]string{}
	bucket, err := h.Conn.in(h.Domain).KeyValue(ctx, HedgeBucket)
	if errors.Is(err, natsjs.ErrBucketNotFound) {
		return set, nil
	}
	if err != nil {
		return nil, err
	}
	keys, err := bucket.ListKeysFiltered(ctx, function, function+".*")
	if err != nil {
		return nil, err
	}
	for key := range keys.Keys() {
		entry, err := bucket.Get(ctx, key)
		if errors.Is(err, natsjs.ErrKeyNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		cluster := strings.TrimPrefix(strings.TrimPrefix(key, function), ".")
		set[cluster] = strings.TrimSpace(string(entry.Value()))
	}
	return set, nil
}
