package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// root is the folder config/ of the checkout.
var root = filepath.Join("..", "..", "config")

// Tree is a copy of config/ in memory, which may be changed.
type Tree struct{ fs filesys.FileSystem }

// NewTree copies config/.
func NewTree() (Tree, error) {
	t := Tree{filesys.MakeFsInMemory()}
	err := filepath.WalkDir(root, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		return t.Write(name, string(content))
	})
	return t, err
}

// Write creates or replaces a file.
func (t Tree) Write(name, content string) error {
	return t.fs.WriteFile("/config/"+filepath.ToSlash(name), []byte(content))
}

// Read returns a file's content.
func (t Tree) Read(name string) (string, error) {
	content, err := t.fs.ReadFile("/config/" + name)
	return string(content), err
}

// Kustomizations returns the folders with a kustomization of one kind:
// Kustomization or Component.
func (t Tree) Kustomizations(kind string) ([]string, error) {
	var folders []string
	err := t.fs.Walk("/config", func(path string, info os.FileInfo, err error) error {
		if err != nil || info.IsDir() || filepath.Base(path) != "kustomization.yaml" {
			return err
		}
		content, err := t.fs.ReadFile(path)
		if err != nil {
			return err
		}
		var meta struct{ Kind string }
		if err := yaml.Unmarshal(content, &meta); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if meta.Kind == kind {
			folders = append(folders, strings.TrimPrefix(filepath.Dir(path), "/config/"))
		}
		return nil
	})
	return folders, err
}

// Build returns the objects that kubectl apply -k would apply.
func (t Tree) Build(folder string) ([]*unstructured.Unstructured, error) {
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(t.fs, "/config/"+folder)
	if err != nil {
		return nil, fmt.Errorf("build %s: %w", folder, err)
	}
	var objects []*unstructured.Unstructured
	for _, r := range built.Resources() {
		text, err := r.AsYAML()
		if err != nil {
			return nil, err
		}
		if text, err = yaml.YAMLToJSON(text); err != nil {
			return nil, err
		}
		var o unstructured.Unstructured
		if err := o.UnmarshalJSON(text); err != nil {
			return nil, err
		}
		objects = append(objects, &o)
	}
	return objects, nil
}

// With creates a copy of overlay east with components enabled, as a user does it,
// and returns its folder.
func (t Tree) With(components ...string) (string, error) {
	name := "overlays/with-" + strings.ReplaceAll(strings.ReplaceAll(strings.Join(components, "-"), "components/", ""), "/", "-")
	const last = "  - ../../images\n"
	for _, file := range []string{"kustomization.yaml", "addresses.env", "migrate.env"} {
		text, err := t.Read("overlays/east/" + file)
		if err != nil {
			return "", err
		}
		if file == "kustomization.yaml" && !strings.Contains(text, last) {
			return "", fmt.Errorf("overlays/east/%s lacks the line %q", file, last)
		}
		text = strings.Replace(text, last, last+"  - ../../"+strings.Join(components, "\n  - ../../")+"\n", 1)
		if err := t.Write(name+"/"+file, text); err != nil {
			return "", err
		}
	}
	return name, nil
}
