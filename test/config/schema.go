package config

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"sigs.k8s.io/yaml"
)

// Schemas are definitions of custom resources, by group, version and kind.
type Schemas map[schema.GroupVersionKind]definition

type definition struct {
	structural *structuralschema.Structural
	validator  validation.SchemaValidator
	rules      *cel.Validator
}

// LoadSchemas reads the definitions of all [Versions], and downloads missing ones.
func LoadSchemas(ctx context.Context) (Schemas, error) {
	s := Schemas{}
	for _, v := range Versions {
		dir, err := moduleDir(ctx, v.Module)
		if err != nil {
			return nil, err
		}
		files, err := filepath.Glob(filepath.Join(dir, v.Folder, "*.yaml"))
		if err != nil {
			return nil, err
		}
		before := len(s)
		for _, file := range files {
			if err := s.load(file); err != nil {
				return nil, fmt.Errorf("%s: %w", file, err)
			}
		}
		if len(s) == before {
			return nil, fmt.Errorf("%s: no custom resource is defined in %s", v.Module, v.Folder)
		}
	}
	return s, nil
}

// moduleDir returns the folder of a module in the module cache.
func moduleDir(ctx context.Context, module string) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "mod", "download", "-json", module).Output()
	var m struct{ Dir, Error string }
	if jsonErr := json.Unmarshal(out, &m); jsonErr != nil && err == nil {
		err = jsonErr
	}
	if m.Error != "" {
		err = errors.New(m.Error)
	}
	if err != nil {
		return "", fmt.Errorf("go mod download %s: %w", module, err)
	}
	return m.Dir, nil
}

func (s Schemas) load(file string) error {
	content, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	for _, text := range bytes.Split(content, []byte("\n---")) {
		var crd apiextensionsv1.CustomResourceDefinition
		if err := yaml.Unmarshal(text, &crd); err != nil {
			return err
		}
		if crd.Kind != "CustomResourceDefinition" {
			continue
		}
		for _, version := range crd.Spec.Versions {
			if !version.Served || version.Schema == nil {
				continue
			}
			var internal apiextensions.JSONSchemaProps
			if err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(version.Schema.OpenAPIV3Schema, &internal, nil); err != nil {
				return err
			}
			structural, err := structuralschema.NewStructural(&internal)
			if err != nil {
				return err
			}
			validator, _, err := validation.NewSchemaValidator(&internal)
			if err != nil {
				return err
			}
			gvk := schema.GroupVersionKind{Group: crd.Spec.Group, Version: version.Name, Kind: crd.Spec.Names.Kind}
			s[gvk] = definition{structural, validator, cel.NewValidator(structural, true, celconfig.PerCallLimit)}
		}
	}
	return nil
}

// Validate does the same as an API server with a custom resource: unknown
// fields, defaults, schema, rules.
func (s Schemas) Validate(ctx context.Context, o *unstructured.Unstructured) error {
	d, ok := s[o.GroupVersionKind()]
	if !ok {
		return fmt.Errorf("%s has no definition", o.GroupVersionKind())
	}
	content := runtime.DeepCopyJSON(o.Object)
	unknown := pruning.PruneWithOptions(content, d.structural, true, structuralschema.UnknownFieldPathOptions{TrackUnknownFieldPaths: true})
	if len(unknown) > 0 {
		return fmt.Errorf("unknown fields %s", strings.Join(unknown, ", "))
	}
	defaulting.Default(content, d.structural)
	if err := validation.ValidateCustomResource(nil, content, d.validator).ToAggregate(); err != nil {
		return err
	}
	if d.rules == nil {
		return nil
	}
	errs, _ := d.rules.Validate(ctx, field.NewPath(""), d.structural, content, nil, celconfig.RuntimeCELCostBudget)
	return errs.ToAggregate()
}
