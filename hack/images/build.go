package main

import (
	"archive/tar"
	"bytes"
	"context"
	"debug/buildinfo"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/crypto/x509roots/fallback/bundle"
)

const (
	// maxBytes is the limit of an image's unpacked size, because each cold start
	// on a new node pulls the image. Raise it only for a good reason.
	maxBytes = 25 << 20

	// user owns no files, and may be any user except root.
	user = "65532:65532"

	certificatesPath = "etc/ssl/certs/ca-certificates.crt"
)

// built is an image for several platforms.
type built struct {
	index     v1.ImageIndex
	platforms []platform
}

// platform is the image for one platform.
type platform struct {
	name  string // linux/amd64
	image v1.Image
	bytes int64  // unpacked
	sbom  []byte // SPDX, JSON
}

func build(ctx context.Context, opts options, p program) (built, error) {
	dir, err := os.MkdirTemp("", "tandem-images-")
	if err != nil {
		return built{}, err
	}
	defer func() { _ = os.RemoveAll(dir) }()

	b := built{index: mutate.IndexMediaType(empty.Index, types.OCIImageIndex)}
	for _, name := range opts.platforms {
		one, err := buildOne(ctx, opts.root, filepath.Join(dir, strings.ReplaceAll(name, "/", "-")), p, name)
		if err != nil {
			return built{}, fmt.Errorf("%s: %w", name, err)
		}
		if one.bytes > maxBytes {
			return built{}, fmt.Errorf("%s: %.1f MiB, want at most %d", name, float64(one.bytes)/(1<<20), maxBytes>>20)
		}
		b.platforms = append(b.platforms, one)
		b.index = mutate.AppendManifests(b.index, mutate.IndexAddendum{
			Add:        one.image,
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: strings.TrimPrefix(name, "linux/")}},
		})
	}
	return b, nil
}

func buildOne(ctx context.Context, root, binary string, p program, platformName string) (platform, error) {
	arch := strings.TrimPrefix(platformName, "linux/")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w -buildid=", "-o", binary, p.pkg)
	cmd.Dir = root
	// Other Go settings in the environment must not affect the result.
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch, "GOFLAGS=-mod=readonly", "GOWORK=off",
		"GOAMD64=v1", "GOARM64=v8.0", "GOEXPERIMENT=", "GO111MODULE=on")
	if out, err := cmd.CombinedOutput(); err != nil {
		return platform{}, fmt.Errorf("go build %s: %w\n%s", p.pkg, err, out)
	}
	content, err := os.ReadFile(binary)
	if err != nil {
		return platform{}, err
	}
	info, err := buildinfo.Read(bytes.NewReader(content))
	if err != nil {
		return platform{}, fmt.Errorf("read the build information of %s: %w", p.pkg, err)
	}
	created, revision := origin(info.Settings)

	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	certificates := trusted()
	for _, file := range []struct {
		path    string
		mode    int64
		content []byte
	}{{certificatesPath, 0o444, certificates}, {p.name, 0o555, content}} {
		layer, err := layerOf(file.path, file.mode, file.content, created)
		if err != nil {
			return platform{}, err
		}
		if img, err = mutate.Append(img, mutate.Addendum{
			Layer:   layer,
			History: v1.History{Created: v1.Time{Time: created}, CreatedBy: "tandem/hack/images", Comment: "/" + file.path},
		}); err != nil {
			return platform{}, err
		}
	}
	config, err := img.ConfigFile()
	if err != nil {
		return platform{}, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", arch
	config.Created = v1.Time{Time: created}
	config.Config = v1.Config{
		User:       user,
		Entrypoint: []string{"/" + p.name},
		WorkingDir: "/",
		Labels: map[string]string{
			"org.opencontainers.image.title":    p.title,
			"org.opencontainers.image.source":   "https://github.com/tandem-fn/tandem",
			"org.opencontainers.image.licenses": "Apache-2.0",
			"org.opencontainers.image.revision": revision,
			"org.opencontainers.image.version":  info.Main.Version,
		},
	}
	if img, err = mutate.ConfigFile(img, config); err != nil {
		return platform{}, err
	}
	sbom, err := listContents(p, platformName, img, info, created)
	if err != nil {
		return platform{}, err
	}
	return platform{name: platformName, image: img, bytes: int64(len(content) + len(certificates)), sbom: sbom}, nil
}

// layerOf returns a layer with one file and its parent folders, all with the time
// of the commit.
func layerOf(path string, mode int64, content []byte, modified time.Time) (v1.Layer, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i, c := range path {
		if c == '/' {
			if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: path[:i+1], Mode: 0o755, ModTime: modified}); err != nil {
				return nil, err
			}
		}
	}
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: path, Mode: mode, Size: int64(len(content)), ModTime: modified}); err != nil {
		return nil, err
	}
	if _, err := w.Write(content); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil },
		tarball.WithMediaType(types.OCILayer))
}

// trusted returns the roots that Mozilla trusts, as PEM, without those that it
// trusts only under a condition, which PEM cannot express.
func trusted() []byte {
	var b bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint == nil {
			_ = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}) // writing to a Buffer cannot fail
		}
	}
	return b.Bytes()
}
