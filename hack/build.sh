#!/bin/sh
# Builds programs into a folder and shows the progress: on one line of a terminal,
# otherwise with a line every five seconds. Compiler errors are printed at the end.
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
looks=5 # checks of the process per second
clear=
[ ! -t 2 ] || clear=$(printf '\r\033[K')

end() {
	[ -z "$running" ] || kill "$running" 2>/dev/null || true
	printf '%s' "$clear" >&2
	rm -f "$log" "$log.stale"
}
trap end EXIT
trap 'exit 130' INT TERM HUP

# show prints the progress, on a terminal over the previous line.
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

# await waits for the process and shows its progress. If the process fails, its errors are
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

# Listing the packages downloads missing modules.
go list -deps -f '{{if and .Stale (ne .Name "main")}}{{.ImportPath}}{{end}}' "$@" >"$log.stale" 2>"$log" &
running=$!
await
total=$(grep -c . "$log.stale" || true)

# Without VCS information: git reports it only to the owner of the clone.
go build -buildvcs=false -v -o "$dir/" "$@" >"$log" 2>&1 &
running=$!
await
