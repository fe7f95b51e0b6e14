package source

import (
	"context"
	"encoding/binary"
	"hash/fnv"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/tandem-fn/tandem/eventing/source/internal/inflight"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

const (
	// shareInterval is the time between reads of the clusters that share.
	shareInterval = time.Second

	// racedShare is the number of keys among which one is delivered by every cluster.
	// This detects clusters that compute different effects, and shows a cluster whose
	// function did not answer that it answers again.
	racedShare = 64

	// defaultShareDelay is the default of [Config.ShareDelay].
	defaultShareDelay = 100 * time.Millisecond
)

// view is what a cluster knows about the clusters with which it shares the events.
type view struct {
	at      time.Time
	members []string // sorted
	prefers bool     // the table has a preference
}

// share derives the view from the clusters' status, and divides the events between its
// members.
//
// # Design
//
// The views of two clusters may differ. Then both go first with an event, which is a race,
// or neither does, and the event is delivered after the delay. The ledger decides in any
// case, so nothing else can happen.
func (s *Source) share(ctx context.Context, last view, clusters []ledger.ClusterStatus) view {
	now := view{at: s.cfg.Now(), members: sharing(clusters), prefers: true}
	delay := s.cfg.ShareDelay
	for _, c := range clusters {
		if slices.Contains(now.members, c.Cluster) {
			delay = max(delay, 2*c.CommitP99)
		}
	}
	s.table.SetShareDelay(delay)
	if last.prefers && slices.Equal(now.members, last.members) {
		return now
	}
	s.table.SetPreference(s.firstOf(now.members))
	s.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "clusters that share the events changed",
		slog.String("members", strings.Join(now.members, ", ")), slog.String("members_before", strings.Join(last.members, ", ")))
	return now
}

// sharing returns the clusters that share the events, sorted: those that are fit, or all
// if none is.
func sharing(clusters []ledger.ClusterStatus) (members []string) {
	var all []string
	for _, c := range clusters {
		if c.Hedge != "share" || c.Age > peerSilence {
			continue
		}
		all = append(all, c.Cluster)
		if c.Fit {
			members = append(members, c.Cluster)
		}
	}
	if len(members) == 0 {
		members = all
	}
	slices.Sort(members)
	return members
}

// firstOf returns the predicate for the events that this cluster goes first with among
// members, by rendezvous hashing: when a member is added or removed, only its own events
// move. If the source keeps the order, the subject decides. Nil means all events.
func (s *Source) firstOf(members []string) func(*inflight.Entry) bool {
	if len(members) == 0 {
		return nil
	}
	seeds := make([]uint64, len(members))
	for i, m := range members {
		h := fnv.New64a()
		_, _ = h.Write([]byte(m))
		seeds[i] = h.Sum64()
	}
	self := slices.Index(members, s.cfg.Cluster)
	return func(e *inflight.Entry) bool {
		key := ledger.NewKey(s.cfg.Function, e.ID.Source, e.ID.ID)
		if s.cfg.Ordered && e.Subject != "" {
			key = ledger.NewKey(s.cfg.Function, "", e.Subject)
		}
		hash := binary.BigEndian.Uint64(key[8:])
		return hash%racedShare == 0 || self == first(seeds, hash)
	}
}

// first returns the index of the seed that goes first with a key.
func first(seeds []uint64, key uint64) (index int) {
	most := uint64(0)
	for i, seed := range seeds {
		if score := mix(seed ^ key); score > most {
			index, most = i, score
		}
	}
	return index
}

// mix returns a number in which each bit depends on all bits of n: the finalizer of
// SplitMix64.
func mix(n uint64) uint64 {
	n = (n ^ n>>30) * 0xbf58476d1ce4e5b9
	n = (n ^ n>>27) * 0x94d049bb133111eb
	return n ^ n>>31
}
