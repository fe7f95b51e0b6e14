#!/bin/sh
# Removes a folder of `make run` (.tandem unless another is named) with all that
# was stored, also PostgreSQL's data where that lies elsewhere: a clone in a
# closed folder, as /root is, has only a link to it.
set -eu

dir=${1:-.tandem}
[ -d "$dir" ] || exit 0

if pid=$(cat "$dir/lock" 2>/dev/null) && kill -0 "$pid" 2>/dev/null; then
	echo "tandem: a run (pid $pid) works in $dir: end it first (kill $pid)" >&2
	exit 1
fi
if data=$(readlink "$dir/postgres"); then
	case "$data" in
	*/postgres-????????????) rm -rf "$data" "$data.new" "$data.new.password" ;;
	*) echo "tandem: $dir/postgres leads to $data, which no run made: left alone" >&2 ;;
	esac
	rmdir "$(dirname "$data")" 2>/dev/null || true # if it was the last one there
fi
rm -rf "$dir"
