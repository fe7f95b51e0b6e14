package source

import (
	"context"
	"slices"
	"time"

	"github.com/tandem-fn/tandem/eventing/source/internal/inflight"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

const (
	// peersInterval is the time between lookups of the clusters that catch up, while
	// this one does. peerSilence is the time without a checkpoint after which a cluster
	// does not count.
	peersInterval = 250 * time.Millisecond
	peerSilence   = 3 * time.Second
	peersTimeout  = time.Second
)

// followPeers divides the work between the active clusters until ctx ends: the events of
// clusters that share, or the blocks of a backlog. The division is a preference, not a
// lease: an event that its cluster does not commit is delivered by another one that is
// idle.
func (s *Source) followPeers(ctx context.Context) {
	if s.cfg.Peers == nil {
		return
	}
	ticker := time.NewTicker(peersInterval)
	defer ticker.Stop()
	var shared view
	for {
		select {
		case <-ticker.C:
		case <-s.table.LagChanged():
		case <-ctx.Done():
			return
		}
		shares := s.table.Hedge().Share
		switch {
		case shares && s.cfg.Now().Sub(shared.at) < shareInterval:
			continue
		case shares || s.table.Lagging():
		case shared.prefers:
			shared = view{}
			s.table.SetPreference(nil)
			continue
		default:
			continue
		}
		clusters, err := s.clusters(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			s.peers.Failed(ctx, err)
		default:
			s.peers.Succeeded(ctx)
		}
		switch {
		case !shares:
			shared = view{}
			s.table.SetPreference(blocksOf(s.cfg.Cluster, atWork(clusters)))
		case err == nil: // after an error the last view holds
			shared = s.share(ctx, shared, clusters)
		}
	}
}

// clusters returns the clusters of the function.
func (s *Source) clusters(ctx context.Context) ([]ledger.ClusterStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, peersTimeout)
	defer cancel()
	return s.cfg.Peers.Clusters(ctx, s.cfg.Function)
}

// atWork returns the active clusters, sorted.
func atWork(clusters []ledger.ClusterStatus) (members []string) {
	for _, c := range clusters {
		if c.Age <= peerSilence && c.Hedge != "standby" {
			members = append(members, c.Cluster)
		}
	}
	slices.Sort(members)
	return members
}

// blocksOf returns the predicate for the blocks that a cluster goes first with: every
// n-th of n members; nil for all.
func blocksOf(cluster string, members []string) func(*inflight.Entry) bool {
	rank, ok := slices.BinarySearch(members, cluster)
	if !ok || len(members) < 2 {
		return nil
	}
	n := uint64(len(members))
	return func(e *inflight.Entry) bool { return e.Block()%n == uint64(rank) }
}
