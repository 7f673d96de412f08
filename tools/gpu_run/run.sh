#!/bin/sh
# Trains for so many minutes from the checkpoint carried here and leaves the next one in a folder:
#   run.sh MINUTES OUT [options of rsb-pose train sce]
# OUT/carried: parts of at most 15 MiB, at most 60 MiB together, renewed at every save.
# OUT/log.jsonl and OUT/train.txt: what happened. PYTHON names the interpreter, else python3.
set -eu
if [ $# -lt 2 ]; then
    sed -n '2,5s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
minutes=$1 out=$2
shift 2
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
run=$(mktemp -d)
trap 'rm -rf "$run"' EXIT
mkdir -p "$out/carried"
out=$(cd "$out" && pwd)
ln -s "$out/carried" "$run/carried" # so a killed run leaves its last checkpoint too

if [ -d "$here/wheels" ]; then
    "$python" -m pip install -q --no-index --no-deps --target "$run/site" "$here"/wheels/*.whl
fi
PYTHONPATH="$here:$run/site${PYTHONPATH:+:$PYTHONPATH}"
PYTHONUNBUFFERED=1
export PYTHONPATH PYTHONUNBUFFERED
"$python" "$here/run_facts.py" modules

set -- --config "$here/config.yaml" --render "$here/data" --out "$run" "$@"
if [ -d "$here/data/photos" ]; then
    set -- "$@" --photographs "$here"/data/photos/*/
fi
if [ ! -e "$out/carried/carried.json" ] && [ -d "$here/run/carried" ]; then
    cp "$here"/run/carried/* "$out/carried/"
fi
if [ -e "$out/carried/carried.json" ]; then
    set -- "$@" --resume
    cp "$out/carried/carried.json" "$run/before.json"
fi
status=0
timeout --signal=TERM --kill-after=2m "${minutes}m" \
    "$python" -m rsb_pose_core train sce "$@" >"$out/train.txt" 2>&1 || status=$?
cp "$run"/log.jsonl "$run"/model.safetensors "$out/" 2>/dev/null || true
tail -c 2000 "$out/train.txt"
case $status in
0 | 124) ;; # done, or time was up
*) exit "$status" ;;
esac
"$python" "$here/run_facts.py" rate "$run/before.json" "$out/carried/carried.json"
