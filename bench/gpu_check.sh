#!/usr/bin/env bash
# Everything that needs a GPU, in under nine minutes: build, kernel tests, compute-sanitizer, benches.
#
#   bench/gpu_check.sh            results and logs go to $OUT, by default build/gpu_check
#
# Each step has a time limit of its own, and the next one runs whatever became of it.
set -uo pipefail
cd "$(dirname "$0")/.." || exit

OUT=${OUT:-build/gpu_check}
PYTHON=${PYTHON:-python3}
mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)
unset TRITON_INTERPRET # on a GPU the kernels run compiled
export PYTHONUNBUFFERED=1
failed=0
summary=()

note() { # status, step, remark
  summary+=("$(printf '%-7s %-28s %s' "$1" "$2" "$3")")
  printf '%s\n' "${summary[-1]}"
}

missing() { # needs...: prints the first that the machine lacks, or fails
  local need
  for need in "$@"; do
    case $need in
      gpu) [ -n "$gpu" ] || { echo "no CUDA device that torch can use" && return; } ;;
      *) command -v "$need" >/dev/null || { echo "$need is not on the path" && return; } ;;
    esac
  done
  return 1
}

step() { # name, seconds, what it needs, command...
  local name=$1 limit=$2 needs=$3 log reason start=$SECONDS code
  shift 3
  log="$OUT/${name// /-}.log"
  # shellcheck disable=SC2086 # a list of words
  if reason=$(missing $needs); then
    note MISSING "$name" "$reason"
    return
  fi
  printf '\n== %s (at most %s s)\n' "$name" "$limit"
  timeout --kill-after=5 "$limit" "$@" >"$log" 2>&1
  code=$?
  tail -n 15 "$log"
  case $code in
    0) note PASS "$name" "$((SECONDS - start)) s" ;;
    124 | 137) note FAIL "$name" "stopped after $limit s" && failed=1 ;;
    *) note FAIL "$name" "exit code $code, see ${log##*/}" && failed=1 ;;
  esac
}

PATH=$PATH:/usr/local/cuda/bin
gpu=$("$PYTHON" -c 'import torch; print(torch.cuda.get_device_name())' 2>/dev/null | tr 'A-Z ' 'a-z-')
results="$OUT/$gpu.json"
sanitize=(env PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer
  --error-exitcode 1 --report-api-errors no)
benches=("$PYTHON" -m pytest bench --device cuda --rounds 5 --results "$results" -p no:cacheprovider)

step "build" 120 "nvcc cmake" env FASTINN_CUDA=ON \
  "$PYTHON" -m pip install --no-build-isolation --no-deps -e .
step "backends" 20 "gpu" "$PYTHON" -c 'import fastinn; print(fastinn.backends())'
step "kernel tests" 100 "gpu" "$PYTHON" -m pytest tests/ops tests/nn -p no:cacheprovider
step "memcheck" 40 "gpu compute-sanitizer" "${sanitize[@]}" --tool memcheck \
  "$PYTHON" bench/small_shapes.py
step "racecheck" 40 "gpu compute-sanitizer" "${sanitize[@]}" --tool racecheck \
  "$PYTHON" bench/small_shapes.py
# The cases that have targets first; both write one file, figure by figure.
targets="(fast and not training) or affine or moments"
step "benches with targets" 115 "gpu" "${benches[@]}" -k "$targets"
step "other benches" 75 "gpu" "${benches[@]}" -k "not ($targets)"

printf '\n== summary\n'
printf '%s\n' "${summary[@]}"
[ -s "$results" ] && echo "results: ${results##*/} in $OUT"
[ -n "$gpu" ] && exit "$failed"
exit 1
