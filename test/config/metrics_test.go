package config_test

import (
	"strings"
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/parser"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/tandem-fn/tandem/test/config"
)

func TestAlertsAskForMetricsThatAreMade(t *testing.T) {
	t.Parallel()

	made, err := config.Metrics()
	if err != nil {
		t.Fatal(err)
	}
	if !made["tandem_source_commit_seconds_bucket"] || !made["tandem_source_delivered_total"] || !made["tandem_source_pending"] {
		t.Fatalf("found metrics %v", made)
	}
	tree := newTree(t)
	objects, err := tree.Build(with(t, tree, "components/prometheus"))
	if err != nil {
		t.Fatal(err)
	}
	alerts := 0
	for _, o := range objects {
		if o.GetKind() != "PrometheusRule" {
			continue
		}
		var rule monitoringv1.PrometheusRule
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &rule); err != nil {
			t.Fatal(err)
		}
		for _, group := range rule.Spec.Groups {
			for _, r := range group.Rules {
				alerts++
				checkAlert(t, r, made)
			}
		}
	}
	if alerts < 8 {
		t.Errorf("%d alerts", alerts)
	}
}

func checkAlert(t *testing.T, r monitoringv1.Rule, made map[string]bool) {
	t.Helper()

	expr, err := parser.ParseExpr(r.Expr.String())
	if err != nil {
		t.Errorf("%s: %v", r.Alert, err)
		return
	}
	asked := 0
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		selector, ok := n.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		for _, m := range selector.LabelMatchers {
			if m.Name == model.MetricNameLabel {
				if asked++; !made[m.Value] {
					t.Errorf("%s uses %s, which no program exports", r.Alert, m.Value)
				}
			}
		}
		return nil
	})
	if asked == 0 {
		t.Errorf("%s asks for nothing", r.Alert)
	}
	if r.Annotations["summary"] == "" || r.Annotations["description"] == "" || r.Labels["severity"] == "" {
		t.Errorf("%s does not say what it is, what to do and how bad it is", r.Alert)
	}
	if strings.Count(r.Annotations["summary"], "{{") != strings.Count(r.Annotations["summary"], "}}") {
		t.Errorf("%s: summary %q", r.Alert, r.Annotations["summary"])
	}
}
