package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// One program represents all: they only differ in the package that is built.
func TestAnImageIsPushedWithItsContentsListedAndIsTheSameAgain(t *testing.T) {
	t.Parallel()

	server := httptest.NewServer(registry.New(registry.WithReferrersSupport(true)))
	t.Cleanup(server.Close)
	host := strings.TrimPrefix(server.URL, "http://")
	file := filepath.Join(t.TempDir(), "kustomization.yaml")
	push := func(root string) string {
		t.Helper()
		opts, err := parse([]string{
			"--registry", host + "/team", "--tag", "v1", "--only", "tandem", "--kustomization", file,
		})
		if err != nil {
			t.Fatal(err)
		}
		opts.root = root
		var out bytes.Buffer
		if err := run(t.Context(), opts, &out); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	if err := os.Symlink(root, elsewhere); err != nil {
		t.Fatal(err)
	}
	first := push(root)
	if again := push(elsewhere); again != first {
		t.Errorf("built again: %s, the first time %s", again, first)
	}

	tag, err := name.NewTag(host + "/team/tandem:v1")
	if err != nil {
		t.Fatal(err)
	}
	index, err := remote.Index(tag)
	if err != nil {
		t.Fatal(err)
	}
	digest, err := index.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if written, err := os.ReadFile(file); err != nil || !strings.Contains(string(written), "- name: tandem/tandem\n    newName: "+host+"/team/tandem\n    digest: "+digest.String()) {
		t.Errorf("kustomization: %v\n%s", err, written)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	var architectures []string
	for _, d := range manifest.Manifests {
		architectures = append(architectures, d.Platform.Architecture)
		checkImage(t, tag.Context(), d)
		checkSBOM(t, tag.Context(), d)
	}
	if got := strings.Join(architectures, " "); got != "amd64 arm64" {
		t.Errorf("platforms %s, want amd64 arm64", got)
	}
}

func checkImage(t *testing.T, repository name.Repository, d v1.Descriptor) {
	t.Helper()

	img, err := remote.Image(repository.Digest(d.Digest.String()))
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if config.Config.User != "65532:65532" || config.Architecture != d.Platform.Architecture {
		t.Errorf("%s: runs as %q on %q", d.Platform.Architecture, config.Config.User, config.Architecture)
	}
	if config.Created.After(time.Now()) {
		t.Errorf("made in the future: %s", config.Created)
	}
	files := map[string]*tar.Header{}
	var certificates []byte
	unpacked := mutate.Extract(img)
	defer func() { _ = unpacked.Close() }()
	for r := tar.NewReader(unpacked); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if header.Typeflag == tar.TypeDir {
			continue
		}
		files[header.Name] = header
		if header.Name == certificatesPath {
			if certificates, err = io.ReadAll(r); err != nil {
				t.Fatal(err)
			}
		}
	}
	if len(files) != 2 || files["tandem"] == nil || files["tandem"].Mode != 0o555 {
		t.Errorf("files %v, want the program and the certificates", files)
	}
	n := 0
	for block, rest := pem.Decode(certificates); block != nil; block, rest = pem.Decode(rest) {
		n++
	}
	if n < 100 {
		t.Errorf("%d certificates", n)
	}
}

func checkSBOM(t *testing.T, repository name.Repository, d v1.Descriptor) {
	t.Helper()

	referrers, err := remote.Referrers(repository.Digest(d.Digest.String()))
	if err != nil {
		t.Fatal(err)
	}
	list, err := referrers.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	if len(list.Manifests) != 1 || list.Manifests[0].ArtifactType != string(sbomType) {
		t.Fatalf("referrers %+v, want one SBOM", list.Manifests)
	}
	artifact, err := remote.Image(repository.Digest(list.Manifests[0].Digest.String()))
	if err != nil {
		t.Fatal(err)
	}
	layers, err := artifact.Layers()
	if err != nil {
		t.Fatal(err)
	}
	r, err := layers[0].Compressed()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	var doc struct {
		Packages []struct{ Name, VersionInfo string } `json:"packages"`
	}
	if err := json.NewDecoder(r).Decode(&doc); err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, p := range doc.Packages {
		found[p.Name] = p.VersionInfo
	}
	for _, want := range []string{"std", "github.com/tandem-fn/tandem", "github.com/jackc/pgx/v5"} {
		if found[want] == "" {
			t.Errorf("SBOM lacks %s or its version: %v", want, found)
		}
	}
	if found["tandem"] != d.Digest.String() {
		t.Errorf("SBOM is of %s, the image is %s", found["tandem"], d.Digest)
	}
}

func TestWrongFlagsAreRefused(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct{ args, want string }{
		{"--only sauce", "want some of source, ingest, tandem, functions"},
		{"--platforms amd64", "want linux/ARCH"},
		{"--kustomization x", "--kustomization needs --registry"},
		{"push", `argument "push"`},
	} {
		if _, err := parse(strings.Fields(tt.args)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.args, err, tt.want)
		}
	}
}
