#!/bin/sh
# Builds programs into a folder and shows its progress: on one line of a terminal,
# else with a line every five seconds. What the compiler reports comes at the end.
#
#   hack/build.sh FOLDER PACKAGE...
set -eu

dir=$1
shift
mkdir -p "$dir"
log=$(mktemp)
running= # the process to wait for
total=   # packages to compile; empty before that is known
begun=$(date +%s)
looks=5 # in a second, at the process
clear=
[ ! -t 2 ] || clear=$(printf '\r\033[K')

end() {
	[ -z "$running" ] || kill "$running" 2>/dev/null || true
	printf '%s' "$clear" >&2
	rm -f "$log" "$log.stale"
}
trap end EXIT
trap 'exit 130' INT TERM HUP

# show prints the progress, on a terminal over the line before.
show() {
	if [ -z "$total" ]; then
		line="$(grep -c '^go: downloading ' "$log" || true) modules downloaded"
	else
		compiled=$(grep -c '^[a-z][^ :]*$' "$log" || true)
		line="$compiled of $total packages"
		[ "$compiled" -lt "$total" ] || line="the last packages and linking"
	fi
	line="building: $line, $(($(date +%s) - begun)) s"
	if [ -n "$clear" ]; then
		printf '%s%s' "$clear" "$line" >&2
	else
		echo "$line" >&2
	fi
}

# await waits for the process and shows its progress. If it fails, what it reported is
# printed and the script ends.
await() {
	look=0
	while kill -0 "$running" 2>/dev/null; do
		sleep "0.$((10 / looks))"
		look=$((look + 1))
		if [ -n "$clear" ] || [ $((look % (5 * looks))) -eq 0 ]; then
			show
		fi
	done
	status=0
	wait "$running" || status=$?
	running=
	[ "$status" -ne 0 ] || return 0
	printf '%s' "$clear" >&2
	grep -v -e '^go: downloading ' -e '^[a-z][^ :]*$' "$log" >&2 || true
	exit "$status"
}

# Asking for the packages downloads the modules that are missing.
go list -deps -f '{{if and .Stale (ne .Name "main")}}{{.ImportPath}}{{end}}' "$@" >"$log.stale" 2>"$log" &
running=$!
await
total=$(grep -c . "$log.stale" || true)

# Without the version: git reports it only to the owner of the clone.
go build -buildvcs=false -v -o "$dir/" "$@" >"$log" 2>&1 &
running=$!
await
