#!/usr/bin/env bash
# The first ten minutes on a machine with a GPU: is it right, is it repeatable, how fast is it?
#
#     tests/gpu/check.sh [SECONDS]          (default 600; needs pip install -e ".[test]")
#
# Without CUDA the same runs on the CPU, smaller, and says what it left out. What time is left goes
# into achille_blur at paper scale, if CLP_DATA holds CIFAR-10; the same call goes on with it.
set -uo pipefail
cd "$(dirname "$0")/../.."
limit=${1:-600} failed=0
device=$(python -c 'import torch; print("cuda" if torch.cuda.is_available() else "cpu")') || exit 1
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
export device out

left() { echo $((limit - SECONDS)); }

step() { # name, command …: one line that says how it went; its last lines only if it failed
    local name=$1 began=$SECONDS status log
    log=$(mktemp -p "$out")
    shift
    if [ "$(left)" -le 0 ]; then
        echo "- $name: left out, no time is left"
        return
    fi
    timeout "$(left)" "$@" > "$log" 2>&1
    status=$?
    case $status in
        0) echo "- $name: passed in $((SECONDS - began)) s" ;;
        124) echo "- $name: cut off, no time was left" ;;
        *) echo "- $name: FAILED (status $status)" && tail -n 5 "$log" && failed=1 ;;
    esac
}

twice() { # the main job twice: status 0 if all numbers are equal
    for run in a b; do
        python examples/blur_deficit.py --scale smoke --device "$device" --deterministic \
            --norm batch --out "$out/$run" || return 1
    done
    python - <<'PYTHON'
import json, os, pathlib, sys

one, two = (
    [json.loads(path.read_text())["series"] for path in sorted(folder.rglob("*.json"))]
    for folder in (pathlib.Path(os.environ["out"], run) for run in "ab")
)
sys.exit(not one or one != two)
PYTHON
}

export -f twice

echo "## $device"
[ "$device" = cuda ] || echo "no CUDA here: everything below ran on the CPU"
step "estimators, sweeps, checkpoints against the CPU" \
    python -m pytest -q -p no:cacheprovider tests/test_devices.py
step "the same numbers twice, bit for bit (--deterministic)" bash -c twice
if [ "$(left)" -gt 60 ]; then
    timeout "$(left)" python tests/gpu/throughput.py --device "$device"
    case $? in 0 | 124) echo ;; *) failed=1 ;; esac
fi
for script in $(grep -l "def main" examples/*.py); do
    step "$(basename "$script" .py), smoke" \
        python "$script" --scale smoke --device "$device" --out "$out/smoke"
done
if [ "$device" = cuda ] && [ -n "${CLP_DATA:-}" ] && [ "$(left)" -gt 30 ]; then
    timeout -s INT "$(left)" python examples/blur_deficit.py --scale paper --only achille_blur \
        --out results/gpu_check | tail -n 3
    case ${PIPESTATUS[0]} in 0 | 124) ;; *) failed=1 ;; esac # 124: time is up, it goes on next time
else
    echo "- achille_blur at paper scale: left out (it needs CUDA, CLP_DATA and time)"
fi
echo "$SECONDS seconds in all"
exit $failed
