package config

const eventingModule = "knative.dev/eventing@v0.50.0"

// Versions are the modules whose custom resources the manifests use, and the
// location of the definitions in each. Those of Knative are in go.mod, too, for
// their Go types.
var Versions = []struct {
	Module, Folder string
}{
	{"knative.dev/serving@v0.50.0", "config/core/300-resources"},
	{eventingModule, "config/core/resources"},
	{"github.com/prometheus-operator/prometheus-operator@v0.85.0", "example/prometheus-operator-crd"},
	{"github.com/cloudnative-pg/cloudnative-pg@v1.28.0", "config/crd/bases"},
	{"github.com/argoproj/argo-cd/v3@v3.4.0", "manifests/crds"},
}
