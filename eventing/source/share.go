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
	// shareInterval is how often the view of the clusters that share is read.
	shareInterval = time.Second

	// racedShare is of how many keys one is delivered by every cluster, so that clusters
	// that compute something else than others are still found, and one whose function did
	// not answer finds out that it does again.
	racedShare = 64

	// defaultShareDelay is the default of [Config.ShareDelay].
	defaultShareDelay = 100 * time.Millisecond
)

// view is what a cluster knows of those that it shares the events with.
type view struct {
	at      time.Time
	members []string // sorted
	prefers bool     // the table has a preference
}

// share reads the view from the clusters' status, and divides the events between its
// members.
//
// # Design
//
// Views of two clusters may differ: then both go first with an event, which is a race, or
// none, and it is delivered after the delay. The ledger decides in any case, so nothing else
// can happen.
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

// sharing returns the clusters that share the events, sorted: those that are fit to; all
// that share, if none is.
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

// firstOf returns which events this cluster goes first with among members, by rendezvous
// hashing: when a member comes or goes, only its own events change. With order it is decided
// by the subject. Nil for all.
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

// mix returns a number each of whose bits depends on all bits of n: the finalizer of
// SplitMix64.
func mix(n uint64) uint64 {
	n = (n ^ n>>30) * 0xbf58476d1ce4e5b9
	n = (n ^ n>>27) * 0x94d049bb133111eb
	return n ^ n>>31
}
