package config_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	psa "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"

	"github.com/tandem-fn/tandem/test/config"
)

// unchecked are kinds whose definitions are in no available module. They are only
// parsed as YAML.
var unchecked = map[string]string{
	"KafkaSource": "knative.dev/eventing-kafka-broker",
	"Gslb":        "github.com/k8gb-io/k8gb",
}

// schemas are loaded once, because that is slow.
var schemas = sync.OnceValues(func() (config.Schemas, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	return config.LoadSchemas(ctx)
})

func newTree(t *testing.T) config.Tree {
	t.Helper()

	tree, err := config.NewTree()
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// everything returns all kustomizations, and overlay east with each component and
// with compatible combinations.
func everything(t *testing.T, tree config.Tree) []string {
	t.Helper()

	folders, err := tree.Kustomizations("Kustomization")
	if err != nil {
		t.Fatal(err)
	}
	components, err := tree.Kustomizations("Component")
	if err != nil {
		t.Fatal(err)
	}
	if len(folders) < 8 || len(components) < 6 {
		t.Fatalf("found kustomizations %v and components %v", folders, components)
	}
	for _, c := range components {
		if c != "images" { // it is part of the overlay
			folders = append(folders, with(t, tree, c))
		}
	}
	return append(folders, with(t, tree, "components/plain", "components/prometheus"),
		with(t, tree, "components/func", "components/broker", "components/prometheus"),
		with(t, tree, "components/kafka", "components/prometheus"))
}

func with(t *testing.T, tree config.Tree, components ...string) string {
	t.Helper()

	folder, err := tree.With(components...)
	if err != nil {
		t.Fatal(err)
	}
	return folder
}

// check performs all checks that need no cluster.
func check(t *testing.T, objects []*unstructured.Unstructured) error {
	t.Helper()

	types, err := config.NewTypes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all, err := schemas()
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		err := func() error {
			if unchecked[o.GetKind()] != "" {
				return nil
			}
			known := types.Knows(o)
			if known {
				if err := types.Validate(t.Context(), o); err != nil {
					return err
				}
			}
			if group := o.GroupVersionKind().Group; !known || strings.Contains(group, "knative.dev") {
				return all.Validate(t.Context(), o)
			}
			return nil
		}()
		if err == nil {
			err = restricted(o)
		}
		if err != nil {
			return fmt.Errorf("%s %s: %w", o.GetKind(), o.GetName(), err)
		}
	}
	return nil
}

// podOf returns the template of the pods that an object creates.
func podOf(o *unstructured.Unstructured) (*corev1.PodTemplateSpec, error) {
	if !slices.Contains([]string{"Deployment", "Job", "Service", "ContainerSource"}, o.GetKind()) {
		return nil, nil
	}
	raw, found, err := unstructured.NestedMap(o.Object, "spec", "template")
	if err != nil || !found {
		return nil, err
	}
	var pod corev1.PodTemplateSpec
	spec := raw["spec"].(map[string]any)
	delete(spec, "containerConcurrency")
	delete(spec, "timeoutSeconds")
	return &pod, runtime.DefaultUnstructuredConverter.FromUnstructured(raw, &pod)
}

// restricted applies Kubernetes' pod security standards to the pods, at the level
// of the namespace, and requires limits and an account without a token.
func restricted(o *unstructured.Unstructured) error {
	pod, err := podOf(o)
	if err != nil || pod == nil {
		return err
	}
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		return err
	}
	results := evaluator.EvaluatePod(psa.LevelVersion{Level: psa.LevelRestricted, Version: psa.LatestVersion()}, &pod.ObjectMeta, &pod.Spec)
	if r := policy.AggregateCheckResults(results); !r.Allowed {
		return fmt.Errorf("not fit for pod security level restricted: %s", r.ForbiddenDetail())
	}
	for _, c := range pod.Spec.Containers {
		if c.SecurityContext.ReadOnlyRootFilesystem == nil || !*c.SecurityContext.ReadOnlyRootFilesystem {
			return fmt.Errorf("container %s may write to its file system", c.Name)
		}
		if c.Resources.Limits.Memory().IsZero() || c.Resources.Requests.Memory().IsZero() || c.Resources.Requests.Cpu().IsZero() {
			return fmt.Errorf("container %s lacks a request or the limit of memory", c.Name)
		}
	}
	return nil
}

func TestEveryKustomizationIsAcceptedByThoseWhoReadIt(t *testing.T) {
	t.Parallel()

	tree := newTree(t)
	for _, folder := range everything(t, tree) {
		t.Run(folder, func(t *testing.T) {
			t.Parallel()

			objects, err := tree.Build(folder)
			if err != nil {
				t.Fatal(err)
			}
			if len(objects) == 0 {
				t.Fatal("no objects")
			}
			if err := check(t, objects); err != nil {
				t.Error(err)
			}
			for _, o := range objects {
				if module := unchecked[o.GetKind()]; module != "" {
					t.Logf("NOT CHECKED against its definition (%s): %s %s", module, o.GetKind(), o.GetName())
				}
			}
		})
	}
}

// Requirements that no schema expresses: referenced objects exist, the pods can reach
// their servers, and no account has rights.
func TestAnOverlayIsWhole(t *testing.T) {
	t.Parallel()

	tree := newTree(t)
	for _, folder := range []string{"overlays/east", "overlays/west", with(t, tree, "components/plain"), with(t, tree, "components/broker")} {
		t.Run(folder, func(t *testing.T) {
			t.Parallel()

			objects, err := tree.Build(folder)
			if err != nil {
				t.Fatal(err)
			}
			exists := map[string]*unstructured.Unstructured{}
			for _, o := range objects {
				exists[o.GetKind()+" "+o.GetName()] = o
				if strings.Contains(o.GetKind(), "Role") {
					t.Errorf("%s %s: no component of Tandem uses the Kubernetes API", o.GetKind(), o.GetName())
				}
				if o.GetKind() != "Namespace" && o.GetNamespace() != "tandem" {
					t.Errorf("%s %s is in namespace %q", o.GetKind(), o.GetName(), o.GetNamespace())
				}
			}
			if got, _, _ := unstructured.NestedString(exists["ConfigMap tandem"].Object, "data", "cluster"); !strings.HasSuffix(folder, got) && !strings.Contains(folder, "with") {
				t.Errorf("the cluster is called %s", got)
			}
			for _, o := range objects {
				pod, err := podOf(o)
				if err != nil {
					t.Fatal(err)
				}
				if pod != nil {
					whole(t, o.GetKind()+" "+o.GetName(), pod, exists)
				}
			}
		})
	}
}

func whole(t *testing.T, name string, pod *corev1.PodTemplateSpec, exists map[string]*unstructured.Unstructured) {
	t.Helper()

	wants := []string{"ServiceAccount " + pod.Spec.ServiceAccountName}
	for _, c := range pod.Spec.Containers {
		for _, from := range c.EnvFrom {
			wants = append(wants, "ConfigMap "+from.ConfigMapRef.Name)
		}
		for _, env := range c.Env {
			if env.ValueFrom == nil {
				continue
			}
			kind, object, key := "ConfigMap", "", ""
			if ref := env.ValueFrom.SecretKeyRef; ref != nil {
				kind, object, key = "Secret", ref.Name, ref.Key
			} else {
				object, key = env.ValueFrom.ConfigMapKeyRef.Name, env.ValueFrom.ConfigMapKeyRef.Key
			}
			wants = append(wants, kind+" "+object)
			if o := exists[kind+" "+object]; o != nil {
				if _, found, _ := unstructured.NestedString(o.Object, "data", key); !found {
					t.Errorf("%s: %s %s has no key %s", name, kind, object, key)
				}
			}
		}
	}
	for _, want := range wants {
		if exists[want] == nil {
			t.Errorf("%s refers to %s, which does not exist", name, want)
		}
	}
	account := exists["ServiceAccount "+pod.Spec.ServiceAccountName]
	if mounts, found, _ := unstructured.NestedBool(account.Object, "automountServiceAccountToken"); mounts || !found {
		t.Errorf("%s: its account receives a token, which it does not need", name)
	}
	if pod.Labels["app.kubernetes.io/component"] == "" {
		t.Errorf("%s: no network policy knows it: label app.kubernetes.io/component is missing", name)
	}
}

// Faults of each kind are planted and must be detected, as a test of the checks
// above.
func TestNonsenseIsRefused(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct{ name, file, old, new, want string }{
		{"a field that Kubernetes does not have", "base/migrate.yaml", "backoffLimit:", "backoffLimits:", `unknown field "spec.backoffLimits"`},
		{"a field that Serving does not have", "functions/flights/function.yaml", "containerConcurrency:", "containerConcurency:", "containerConcurency"},
		{"what Serving's webhook refuses", "functions/flights/function.yaml", `autoscaling.knative.dev/min-scale: "0"`, `autoscaling.knative.dev/min-scale: "-1"`, "-1"},
		{"a field that Serving keeps for itself", "base/ingest.yaml", "enableServiceLinks: false", "enableServiceLinks: false\n      hostNetwork: true", "hostNetwork"},
		{"a sink that is none", "functions/flights/source.yaml", "      name: flights\n  template", "  template", "name"},
		{"a trigger's broker is missing", "components/broker/flights.yaml", "broker: tandem", "broker: ''", "broker"},
		{"a duration that is none", "components/broker/flights.yaml", "PT0.5S", "500ms", "backoffDelay"},
		{"a filter by an attribute that cannot be", "components/broker/flights.yaml", "      type: com", "      Type_: com", "Type_"},
		{"a field that the Prometheus operator does not have", "components/prometheus/monitors.yaml", "portNumber", "portNo", "portNo"},
		{"a type that it does not have", "components/prometheus/monitors.yaml", "portNumber: 9095", "portNumber: metrics", "portNumber"},
		{"a field that CloudNativePG does not have", "components/cloudnative-pg/base/cluster.yaml", "dataDurability", "durability", "durability"},
		{"a value that it does not have", "components/cloudnative-pg/base/cluster.yaml", "poolMode: transaction", "poolMode: statement", "poolMode"},
		{"a field that Argo CD does not have", "components/argocd/applicationset.yaml", "applicationsSync", "applicationSync", "applicationSync"},
		{"a container as root", "functions/flights/source.yaml", "runAsNonRoot: true", "runAsNonRoot: false", "runAsNonRoot"},
		{"capabilities", "base/migrate.yaml", "drop: [ALL]", "drop: [NET_RAW]", "capabilities"},
		{"a file system that can be written", "functions/flights/function.yaml", "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false", "may write"},
		{"no limit", "functions/flights/source.yaml", "limits: {memory: 512Mi}", "limits: {}", "limit of memory"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			tree := newTree(t)
			text, err := tree.Read(tt.file)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(text, tt.old) {
				t.Fatalf("%s has no %q any more", tt.file, tt.old)
			}
			if err := tree.Write(tt.file, strings.ReplaceAll(text, tt.old, tt.new)); err != nil {
				t.Fatal(err)
			}
			var found []string
			for _, folder := range everything(t, tree) {
				objects, err := tree.Build(folder)
				if err == nil {
					err = check(t, objects)
				}
				if err != nil {
					found = append(found, err.Error())
				}
			}
			if len(found) == 0 || !strings.Contains(strings.Join(found, "\n"), tt.want) {
				t.Errorf("found %q, want something about %q", found, tt.want)
			}
		})
	}
}
