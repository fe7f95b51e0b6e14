package oidc

import (
	"context"
	"crypto"
	"fmt"
	"sync"
	"time"
)

const (
	// fetchTimeout bounds one look at the issuer.
	fetchTimeout = 5 * time.Second

	// refreshAfter is how old keys may be before they are fetched again while they
	// are used: one that the issuer has withdrawn is believed for that long.
	refreshAfter = 10 * time.Minute

	// pauseAfterKeys and pauseAfterFailure are how long the issuer is left alone.
	pauseAfterKeys    = 10 * time.Second
	pauseAfterFailure = time.Second
)

// key is one of the issuer's.
type key struct {
	id     string
	public crypto.PublicKey
}

// keys are the issuer's keys, as they were last seen.
type keys struct {
	now   func() time.Time
	fetch func(context.Context) ([]key, error)

	mu         sync.Mutex
	list       []key
	generation int       // of list, from 1
	fetched    time.Time // when list was fetched
	err        error     // why the last look brought nothing, if it did not
	until      time.Time // the issuer is left alone until then
	flight     chan struct{}
}

// find gives the keys with this id, all for an empty one, and their generation. None
// means that the issuer has no such key; an error, that this cannot be known now.
func (k *keys) find(ctx context.Context, id string) ([]crypto.PublicKey, int, error) {
	asked := false
	for {
		k.mu.Lock()
		found, generation, now := k.match(id), k.generation, k.now()
		flight, wait := k.flight, k.until.Sub(now)
		switch {
		case len(found) > 0:
			k.refresh(now)
			k.mu.Unlock()
			return found, generation, nil
		case asked && k.err == nil:
			k.mu.Unlock()
			return nil, generation, nil
		case flight == nil && (asked || wait > 0):
			err := k.err
			k.mu.Unlock()
			if err != nil {
				return nil, 0, fmt.Errorf("fetch the issuer's keys: %w", err)
			}
			return nil, 0, fmt.Errorf("the key is not known, and the issuer is asked again in %s", wait.Round(time.Second))
		case flight == nil:
			flight, asked = k.look(), true
		}
		k.mu.Unlock()
		select {
		case <-flight:
		case <-ctx.Done():
			return nil, 0, fmt.Errorf("wait for the issuer's keys: %w", ctx.Err())
		}
	}
}

// current gives the generation of the keys, which are in use.
func (k *keys) current() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.refresh(k.now())
	return k.generation
}

// refresh begins to fetch keys that are old. It is called with mu held.
func (k *keys) refresh(now time.Time) {
	if k.generation > 0 && k.flight == nil && now.After(k.until) && now.Sub(k.fetched) > refreshAfter {
		k.look()
	}
}

func (k *keys) match(id string) []crypto.PublicKey {
	var found []crypto.PublicKey
	for _, key := range k.list {
		if id == "" || key.id == id {
			found = append(found, key.public)
		}
	}
	return found
}

// look begins to fetch the keys. It is called with mu held and without a flight.
func (k *keys) look() (flight chan struct{}) {
	flight = make(chan struct{})
	k.flight = flight
	go func() {
		// Whoever asked first may go before the others.
		ctx, cancel := context.WithTimeout(context.Background(), fetchTimeout)
		defer cancel()
		list, err := k.fetch(ctx)

		k.mu.Lock()
		defer k.mu.Unlock()
		defer close(flight)
		now := k.now()
		k.flight, k.err = nil, err
		if err != nil {
			k.until = now.Add(pauseAfterFailure)
			return
		}
		k.list, k.fetched, k.until = list, now, now.Add(pauseAfterKeys)
		k.generation++
	}()
	return flight
}
