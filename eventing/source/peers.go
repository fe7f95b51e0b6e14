package source

import (
	"context"
	"slices"
	"time"
)

const (
	// peersInterval is how often a source that catches up looks up who else does, and
	// peerSilence after what time without a checkpoint a cluster is not counted.
	peersInterval = 250 * time.Millisecond
	peerSilence   = 3 * time.Second
	peersTimeout  = time.Second
)

// followPeers divides the blocks of a backlog between the clusters at work, until ctx
// ends. It is a preference, and no lease: a block that its cluster does not commit is
// delivered by another one that has nothing else to do.
func (s *Source) followPeers(ctx context.Context) {
	if s.cfg.Peers == nil || s.catchUpLag() == 0 {
		return
	}
	ticker := time.NewTicker(peersInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-s.table.LagChanged():
		case <-ctx.Done():
			return
		}
		if !s.table.Lagging() {
			continue
		}
		members, err := s.members(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			s.peers.Failed(ctx, err)
		default:
			s.peers.Succeeded(ctx)
		}
		s.table.SetPreference(preference(s.cfg.Cluster, members))
	}
}

// members returns the clusters that are at work, sorted.
func (s *Source) members(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, peersTimeout)
	defer cancel()
	clusters, err := s.cfg.Peers.Clusters(ctx, s.cfg.Function)
	if err != nil {
		return nil, err
	}
	var members []string
	for _, c := range clusters {
		if c.Age <= peerSilence && c.Hedge != "standby" {
			members = append(members, c.Cluster)
		}
	}
	slices.Sort(members)
	return members, nil
}

// preference returns which blocks a cluster goes first with: every n-th of n members; nil
// for all.
func preference(cluster string, members []string) func(block uint64) bool {
	rank, ok := slices.BinarySearch(members, cluster)
	if !ok || len(members) < 2 {
		return nil
	}
	n := uint64(len(members))
	return func(block uint64) bool { return block%n == uint64(rank) }
}
