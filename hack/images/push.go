package main

import (
	"context"
	"fmt"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// sbomType is the type by which registries and scanners recognise an SBOM
// among the referrers of an image (OCI 1.1).
const sbomType types.MediaType = "application/spdx+json"

// push pushes the index under the tag, and the SBOM of each platform's image.
func push(ctx context.Context, repository name.Repository, tag string, b built) error {
	options := []remote.Option{remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain)}
	reference, err := name.NewTag(repository.String() + ":" + tag)
	if err != nil {
		return fmt.Errorf("--tag %s: %w", tag, err)
	}
	if err := remote.WriteIndex(reference, b.index, options...); err != nil {
		return err
	}
	for _, p := range b.platforms {
		artifact, err := sbomArtifact(p)
		if err != nil {
			return err
		}
		digest, err := artifact.Digest()
		if err != nil {
			return err
		}
		if err := remote.Write(repository.Digest(digest.String()), artifact, options...); err != nil {
			return fmt.Errorf("SBOM for %s: %w", p.name, err)
		}
	}
	return nil
}

// sbomArtifact returns the SBOM as a referrer of the platform's image.
func sbomArtifact(p platform) (v1.Image, error) {
	subject, err := partial.Descriptor(p.image)
	if err != nil {
		return nil, err
	}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), sbomType)
	if img, err = mutate.Append(img, mutate.Addendum{Layer: static.NewLayer(p.sbom, sbomType), MediaType: sbomType}); err != nil {
		return nil, err
	}
	return mutate.Subject(img, v1.Descriptor{MediaType: subject.MediaType, Digest: subject.Digest, Size: subject.Size}).(v1.Image), nil
}
