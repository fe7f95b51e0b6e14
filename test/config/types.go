package config

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	kubernetes "k8s.io/client-go/kubernetes/scheme"
	eventingconfig "knative.dev/eventing/pkg/apis/config"
	eventingv1 "knative.dev/eventing/pkg/apis/eventing/v1"
	"knative.dev/eventing/pkg/apis/feature"
	sourcesv1 "knative.dev/eventing/pkg/apis/sources/v1"
	"knative.dev/pkg/apis"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	servingv1beta1 "knative.dev/serving/pkg/apis/serving/v1beta1"
	"sigs.k8s.io/yaml"
)

// Types holds the Go types of Kubernetes and Knative, which define each field,
// and Knative's webhook validation.
type Types struct {
	decoder  runtime.Decoder
	features feature.Flags
	defaults *eventingconfig.Defaults
}

// NewTypes returns Types with Eventing's default settings.
func NewTypes(ctx context.Context) (Types, error) {
	scheme := runtime.NewScheme()
	err := errors.Join(kubernetes.AddToScheme(scheme), servingv1.AddToScheme(scheme), servingv1beta1.AddToScheme(scheme),
		eventingv1.AddToScheme(scheme), sourcesv1.AddToScheme(scheme))
	if err != nil {
		return Types{}, err
	}
	t := Types{decoder: serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()}
	features, err := shipped(ctx, "features.yaml")
	if err != nil {
		return Types{}, err
	}
	if t.features, err = feature.NewFlagsConfigFromConfigMap(features); err != nil {
		return Types{}, err
	}
	brokers, err := shipped(ctx, "default-broker.yaml")
	if err != nil {
		return Types{}, err
	}
	t.defaults, err = eventingconfig.NewDefaultsConfigFromConfigMap(brokers)
	return t, err
}

// shipped returns one of Eventing's default config maps.
func shipped(ctx context.Context, file string) (*corev1.ConfigMap, error) {
	dir, err := moduleDir(ctx, eventingModule)
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(filepath.Join(dir, "config/core/configmaps", file))
	if err != nil {
		return nil, err
	}
	var m corev1.ConfigMap
	return &m, yaml.Unmarshal(text, &m)
}

// Knows reports whether there is a type for the object.
func (t Types) Knows(o *unstructured.Unstructured) bool {
	text := fmt.Sprintf(`{"apiVersion":%q,"kind":%q}`, o.GetAPIVersion(), o.GetKind())
	_, _, err := t.decoder.Decode([]byte(text), nil, nil)
	return !runtime.IsNotRegisteredError(err)
}

// Validate decodes the object, rejects unknown fields, and applies the defaults and
// the validation of Knative's webhooks.
func (t Types) Validate(ctx context.Context, o *unstructured.Unstructured) error {
	text, err := o.MarshalJSON()
	if err != nil {
		return err
	}
	typed, _, err := t.decoder.Decode(text, nil, nil)
	if err != nil {
		return err
	}
	ctx = eventingconfig.ToContext(feature.ToContext(apis.WithinCreate(ctx), t.features), &eventingconfig.Config{Defaults: t.defaults})
	if d, ok := typed.(apis.Defaultable); ok {
		d.SetDefaults(ctx)
	}
	if v, ok := typed.(apis.Validatable); ok {
		if err := v.Validate(ctx); err != nil {
			return err
		}
	}
	return nil
}
