package oidc

import (
	"crypto/sha256"
	"sync"
	"time"
)

// maxKnown bounds the tokens that are remembered. A sender shows the same one for
// the better part of an hour.
const maxKnown = 1024

// known remembers tokens that were verified, since that takes longer than all else
// there is to do for an event.
type known struct {
	mu         sync.RWMutex
	generation int // of the keys by which they were verified
	tokens     map[[sha256.Size]byte]holder
}

type holder struct {
	subject string
	expiry  time.Time
}

func newKnown() *known { return &known{tokens: make(map[[sha256.Size]byte]holder)} }

// find gives whose token it is, if that is known from these keys.
func (k *known) find(token string, generation int, now time.Time) (subject string, ok bool) {
	digest := sha256.Sum256([]byte(token))
	k.mu.RLock()
	defer k.mu.RUnlock()
	h, ok := k.tokens[digest]
	if !ok || k.generation != generation || h.expiry.Before(now) {
		return "", false
	}
	return h.subject, true
}

func (k *known) add(token, subject string, expiry time.Time, generation int) {
	digest := sha256.Sum256([]byte(token))
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case generation < k.generation:
		return
	case generation > k.generation || len(k.tokens) >= maxKnown:
		clear(k.tokens)
		k.generation = generation
	}
	k.tokens[digest] = holder{subject, expiry}
}
