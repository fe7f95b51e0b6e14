package clusters_test

import (
	"context"
	"syscall"
	"testing"

	"github.com/tandem-fn/tandem/eventing/devcluster"
)

// TestReplicasOfASourceTakeOver has a single cluster, so that no other one does the work
// meanwhile.
func TestReplicasOfASourceTakeOver(t *testing.T) {
	t.Parallel()
	for name, env := range map[string][]string{
		"without order":    nil,
		"order by subject": {"TANDEM_ORDERING=subject"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if env != nil {
				long(t)
			}
			w := newWorldOf(t, 1500, devcluster.Config{Clusters: []devcluster.ClusterConfig{{Name: "east", Sources: 3, Env: env}}})
			w.waitFor(t, 1000)
			east := w.Clusters()[0]
			w.hasWon(t, east)
			active := func(but int) (replica int) {
				t.Helper()
				poll(t, "no other replica is active", func(ctx context.Context) bool {
					replica = east.ActiveSource(ctx)
					return replica >= 0 && replica != but
				})
				return replica
			}
			signal := func(replica int, sig syscall.Signal) {
				t.Helper()
				if err := east.Sources[replica].Kill(sig); err != nil {
					t.Fatal(err)
				}
			}
			progress := func() {
				t.Helper()
				before := w.won(t, east)
				poll(t, "the next replica commits nothing", func(context.Context) bool { return w.won(t, east) > before })
			}
			frozen := active(-1)
			signal(frozen, syscall.SIGSTOP)
			next := active(frozen)
			progress()
			signal(frozen, syscall.SIGCONT) // it has to detect that its lease is over
			kill(t, east.Sources[next], 1)
			progress()
			ended := active(-1)
			signal(ended, syscall.SIGTERM)
			active(ended)
			progress()
			gone := active(-1)
			east.Sources[gone].Destroy()
			active(gone)
			w.finish(t, east)
			w.compare(t)
		})
	}
}
