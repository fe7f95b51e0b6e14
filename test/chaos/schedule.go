package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/tandem-fn/tandem/test/deployment"
)

// strike is an injected fault: its kind, target, start and duration.
type strike struct {
	At     time.Duration `json:"at"`
	For    time.Duration `json:"for"`
	Kind   string        `json:"kind"`
	Target string        `json:"target,omitempty"`

	// Failed is the reason if the strike was not possible, for example because
	// the target did not exist.
	Failed string `json:"failed,omitempty"`
}

func (s strike) String() string {
	text := s.Kind
	if s.Target != "" {
		text += " " + s.Target
	}
	if s.For > 0 {
		text += fmt.Sprintf(", for %s", s.For.Round(time.Millisecond))
	}
	return text
}

// kind is a kind of fault.
type kind struct {
	name    string
	targets []string
	longest time.Duration // 0 for a strike without a duration
	weight  int
}

var kinds = []kind{
	{"kill", deployment.Processes(), 0, 5},
	{"kill-function", deployment.FunctionProcesses(), 0, 1},
	{"stop", deployment.Processes(), 3 * time.Second, 4},
	{"end", deployment.Processes(), 0, 1},
	{"cluster gone", deployment.Clusters(), 3 * time.Second, 2},
	{"upgrade", deployment.Clusters(), 2 * time.Second, 1},
	{"clock an hour ahead", deployment.Clusters(), 2 * time.Second, 1},
	{"clock an hour behind", deployment.Clusters(), 2 * time.Second, 1},
	{"clock right", deployment.Clusters(), 2 * time.Second, 1},
	{"disk full", deployment.Disks(), 3 * time.Second, 3},
	{"database crashes", nil, 0, 1},
	{"database restarts", nil, 0, 1},
	{"database is read-only", nil, 2 * time.Second, 1},
	{"database refuses connections", nil, 2 * time.Second, 1},
	{"leader killed", []string{"EVENTS", "OUTPUTS"}, 0, 2},
	{"stop", []string{"nats-1", "nats-2", "nats-3"}, 3 * time.Second, 1},
	{"link cut", deployment.Links(), 3 * time.Second, 2},
	{"link cut one way", deployment.Links(), 3 * time.Second, 2},
	{"link silent", deployment.Links(), 3 * time.Second, 2},
	{"link slow", deployment.Links(), 3 * time.Second, 1},
	{"link lossy", deployment.Links(), 3 * time.Second, 1},
	{"link resets", deployment.Links(), 2 * time.Second, 2},
	{"duplicates", nil, 0, 2},
	{"poison", nil, 0, 2},
	{"kill-event", nil, 0, 1},
	{"hang-event", nil, 0, 1},
	{"fail-type", nil, 5 * time.Second, 2},
	{"big-output", nil, 0, 2},
}

// picked returns the kinds whose names equal, or else begin with, one of the words; all for
// none.
func picked(words []string) []kind {
	if len(words) == 0 {
		return kinds
	}
	return slices.DeleteFunc(slices.Clone(kinds), func(k kind) bool {
		return !slices.ContainsFunc(words, func(word string) bool {
			isName := slices.ContainsFunc(kinds, func(other kind) bool { return other.name == word })
			return k.name == word || !isName && strings.HasPrefix(k.name, word)
		})
	})
}

// schedule returns the strikes of some kinds, determined by a seed. Each kind is scheduled
// before others are repeated more often than their weight, so that a short run includes all of
// them if possible.
func schedule(kinds []kind, seed uint64, duration time.Duration) []strike {
	random := rand.New(rand.NewPCG(seed, 1))
	var deck []kind
	draw := func() kind {
		if len(deck) == 0 {
			for _, k := range kinds {
				for range k.weight {
					deck = append(deck, k)
				}
			}
			random.Shuffle(len(deck), func(i, j int) { deck[i], deck[j] = deck[j], deck[i] })
		}
		k := deck[0]
		deck = deck[1:]
		return k
	}
	var strikes []strike
	at := 500 * time.Millisecond
	for at < duration {
		k := draw()
		s := strike{At: at, Kind: k.name}
		if len(k.targets) > 0 {
			s.Target = k.targets[random.IntN(len(k.targets))]
		}
		if k.longest > 0 {
			s.For = 100*time.Millisecond + time.Duration(random.Int64N(int64(k.longest)))
		}
		strikes = append(strikes, s)
		at += 50*time.Millisecond + time.Duration(random.ExpFloat64()*float64(500*time.Millisecond))
	}
	return strikes
}
