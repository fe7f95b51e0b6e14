package oidc

import (
	"crypto/sha256"
	"sync"
	"time"
)

// maxTokens bounds the tokens in the cache. A sender uses one token for most of an
// hour.
const maxTokens = 1024

// tokenCache holds verified tokens, because a verification takes longer than the rest
// of the work for an event.
type tokenCache struct {
	mu         sync.RWMutex
	generation int // of the keys with which they were verified
	holders    map[[sha256.Size]byte]holder
}

type holder struct {
	subject string
	expiry  time.Time
}

func newTokenCache() *tokenCache { return &tokenCache{holders: make(map[[sha256.Size]byte]holder)} }

// subject returns the subject of a token that was verified with the keys of this
// generation.
func (c *tokenCache) subject(token string, generation int, now time.Time) (subject string, ok bool) {
	digest := sha256.Sum256([]byte(token))
	c.mu.RLock()
	defer c.mu.RUnlock()
	h, ok := c.holders[digest]
	if !ok || c.generation != generation || h.expiry.Before(now) {
		return "", false
	}
	return h.subject, true
}

func (c *tokenCache) add(token, subject string, expiry time.Time, generation int) {
	digest := sha256.Sum256([]byte(token))
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case generation < c.generation:
		return
	case generation > c.generation || len(c.holders) >= maxTokens:
		clear(c.holders)
		c.generation = generation
	}
	c.holders[digest] = holder{subject, expiry}
}
