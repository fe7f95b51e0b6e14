package clusters_test

import (
	"testing"
)

func TestBatchesWhileAFunctionAndASourceAreKilled(t *testing.T) {
	long(t)
	t.Parallel()
	env := []string{"TANDEM_BATCH=100"}
	w := newWorldWith(t, 4000, env, env)
	w.waitFor(t, 2000)
	w.kill(t, w.Clusters()[0].Function, 3)
	w.kill(t, w.Clusters()[1].Source, 3)
	w.finish(t, w.Clusters()...)
	if delivered, _ := metric(t, w.Clusters()[0].MetricsURL(), "tandem_source_delivered_total"); delivered == 0 {
		t.Error("the source counts no deliveries")
	}
	if won, _ := metric(t, w.Clusters()[0].MetricsURL(), "tandem_source_receipts_total"); won == 0 {
		t.Error("the source counts no receipts")
	}
}
