package oidc

import (
	"context"
	"crypto"
	"fmt"
	"sync"
	"time"
)

const (
	// fetchTimeout bounds one request to the issuer.
	fetchTimeout = 5 * time.Second

	// refreshAfter is the age of keys after which they are fetched again while they are
	// used. A key that the issuer has withdrawn is accepted for that long.
	refreshAfter = 10 * time.Minute

	// pauseAfterKeys and pauseAfterFailure are the times between requests to the
	// issuer.
	pauseAfterKeys    = 10 * time.Second
	pauseAfterFailure = time.Second
)

// key is a public key of the issuer.
type key struct {
	id     string
	public crypto.PublicKey
}

// keySet holds the keys of the issuer.
type keySet struct {
	now   func() time.Time
	fetch func(context.Context) ([]key, error)

	mu         sync.Mutex
	list       []key
	generation int       // of list, starting at 1
	fetched    time.Time // when list was fetched
	err        error     // of the last fetch
	until      time.Time // the earliest time of the next fetch
	flight     chan struct{}
}

// findKeys returns the keys with this id, all for an empty id, and their generation. It
// returns no keys if the issuer has no such key, and an error if the keys are currently
// unavailable.
func (k *keySet) findKeys(ctx context.Context, id string) ([]crypto.PublicKey, int, error) {
	asked := false
	for {
		k.mu.Lock()
		found, generation, now := k.matchKeys(id), k.generation, k.now()
		flight, wait := k.flight, k.until.Sub(now)
		switch {
		case len(found) > 0:
			k.refreshKeys(now)
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
			return nil, 0, fmt.Errorf("the key is unknown, and keys are fetched again in %s", wait.Round(time.Second))
		case flight == nil:
			flight, asked = k.startFetch(), true
		}
		k.mu.Unlock()
		select {
		case <-flight:
		case <-ctx.Done():
			return nil, 0, fmt.Errorf("wait for the issuer's keys: %w", ctx.Err())
		}
	}
}

// currentGeneration returns the generation of the keys, and refreshes old ones.
func (k *keySet) currentGeneration() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.refreshKeys(k.now())
	return k.generation
}

// refreshKeys starts to fetch keys that are old. It is called with mu held.
func (k *keySet) refreshKeys(now time.Time) {
	if k.generation > 0 && k.flight == nil && now.After(k.until) && now.Sub(k.fetched) > refreshAfter {
		k.startFetch()
	}
}

func (k *keySet) matchKeys(id string) []crypto.PublicKey {
	var found []crypto.PublicKey
	for _, key := range k.list {
		if id == "" || key.id == id {
			found = append(found, key.public)
		}
	}
	return found
}

// startFetch starts to fetch the keys. It is called with mu held and without a fetch in
// flight.
func (k *keySet) startFetch() (flight chan struct{}) {
	flight = make(chan struct{})
	k.flight = flight
	go func() {
		// The request that started the fetch may end before others that wait for it.
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
