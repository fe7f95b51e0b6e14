package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"runtime/debug"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	spdxjson "github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdx/v2/common"
	"github.com/spdx/tools-golang/spdx/v2/v2_3"
	"github.com/spdx/tools-golang/spdxlib"
)

// origin returns the time and the revision of the commit from which a binary was
// built. Without git the time is zero.
func origin(settings []debug.BuildSetting) (created time.Time, revision string) {
	created = time.Unix(0, 0).UTC()
	for _, s := range settings {
		switch s.Key {
		case "vcs.time":
			if t, err := time.Parse(time.RFC3339, s.Value); err == nil {
				created = t.UTC()
			}
		case "vcs.revision":
			revision = s.Value
		}
	}
	return created, revision
}

// listContents returns the contents of an image in SPDX: the modules that are
// linked into the binary, according to its build information, and Go's standard
// library.
func listContents(p program, platformName string, img v1.Image, info *debug.BuildInfo, created time.Time) ([]byte, error) {
	digest, err := img.Digest()
	if err != nil {
		return nil, err
	}
	const unknown = "NOASSERTION"
	top := &v2_3.Package{
		PackageName:               p.name,
		PackageSPDXIdentifier:     "image",
		PackageVersion:            digest.String(),
		PackageDownloadLocation:   unknown,
		PackageLicenseDeclared:    "Apache-2.0",
		PackageLicenseConcluded:   unknown,
		PackageCopyrightText:      unknown,
		PrimaryPackagePurpose:     "CONTAINER",
		PackageChecksums:          []common.Checksum{{Algorithm: common.SHA256, Value: digest.Hex}},
		IsFilesAnalyzedTagPresent: true,
	}
	doc := &v2_3.Document{
		SPDXVersion:       v2_3.Version,
		DataLicense:       v2_3.DataLicense,
		SPDXIdentifier:    "DOCUMENT",
		DocumentName:      p.name + " " + platformName,
		DocumentNamespace: "https://github.com/tandem-fn/tandem/sbom/" + p.name + "/" + digest.Hex,
		CreationInfo: &v2_3.CreationInfo{
			Created:  created.Format(time.RFC3339),
			Creators: []common.Creator{{CreatorType: "Tool", Creator: "tandem/hack/images"}},
		},
		Packages:      []*v2_3.Package{top},
		Relationships: []*v2_3.Relationship{relation("DOCUMENT", common.TypeRelationshipDescribe, "image")},
	}
	modules := append([]*debug.Module{
		&info.Main,
		{Path: "std", Version: strings.TrimPrefix(info.GoVersion, "go")},
		{Path: "golang.org/x/crypto/x509roots/fallback", Version: rootsVersion()},
	}, info.Deps...)
	for i, m := range modules {
		if m.Replace != nil {
			m = m.Replace
		}
		id := common.ElementID(fmt.Sprintf("module-%d", i))
		pkg := &v2_3.Package{
			PackageName:               m.Path,
			PackageSPDXIdentifier:     id,
			PackageVersion:            m.Version,
			PackageDownloadLocation:   unknown,
			PackageLicenseConcluded:   unknown,
			PackageLicenseDeclared:    unknown,
			PackageCopyrightText:      unknown,
			IsFilesAnalyzedTagPresent: true,
			PackageExternalReferences: []*v2_3.PackageExternalReference{{
				Category: common.CategoryPackageManager, RefType: common.TypePackageManagerPURL,
				Locator: "pkg:golang/" + m.Path + "@" + strings.ReplaceAll(m.Version, "+", "%2B"),
			}},
		}
		if sum, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(m.Sum, "h1:")); err == nil && len(sum) > 0 {
			pkg.PackageChecksums = []common.Checksum{{Algorithm: common.SHA256, Value: hex.EncodeToString(sum)}}
		}
		doc.Packages = append(doc.Packages, pkg)
		doc.Relationships = append(doc.Relationships, relation("image", common.TypeRelationshipContains, id))
	}
	if err := spdxlib.ValidateDocument(doc); err != nil {
		return nil, fmt.Errorf("list the contents: %w", err)
	}
	var b bytes.Buffer
	err = spdxjson.Write(doc, &b)
	return b.Bytes(), err
}

func relation(a common.ElementID, kind string, b common.ElementID) *v2_3.Relationship {
	return &v2_3.Relationship{RefA: common.MakeDocElementID("", string(a)), Relationship: kind, RefB: common.MakeDocElementID("", string(b))}
}

// rootsVersion returns the version of the certificates, which are not part of a
// binary.
func rootsVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == "golang.org/x/crypto/x509roots/fallback" {
				return m.Version
			}
		}
	}
	return ""
}
