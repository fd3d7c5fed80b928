#!/usr/bin/env bash
# Everything that needs a GPU, in under nine minutes: build, kernel tests, compute-sanitizer, benches.
#
#   bench/gpu_check.sh            results and logs go to $OUT, by default build/gpu_check
#
# Each step has a time limit of its own, and the next one runs whatever became of it. CUDA comes
# before Triton, whose kernels are compiled anew for every shape, and targets before the rest.
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
    note MISSING "$name" "$reason" && failed=1
    return
  fi
  printf '\n== %s (at most %s s)\n' "$name" "$limit"
  # Interrupted and not terminated, so that pytest still says what had failed.
  timeout --signal=INT --kill-after=10 "$limit" "$@" >"$log" 2>&1
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
tests=("$PYTHON" -m pytest tests/ops tests/nn tests/align tests/study/test_on_cuda.py
  tests/embed/test_packing.py tests/embed/test_rows.py -p no:cacheprovider -n 12)
benches=("$PYTHON" -m pytest --device cuda --rounds 5 --results "$results" -p no:cacheprovider)
sanitize="PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --error-exitcode 1"
sanitize+=" --report-api-errors no"
shapes="$PYTHON bench/small_shapes.py cuda"
every_kernel="import fastinn, fastinn._cuda; found = fastinn.backends(); print(found); assert all(
    found[op][name] is True
    for op in ('affine_coupling', 'coupling_mlp', 'second_moments') for name in ('cuda', 'triton')
)"

step "build" 120 "nvcc cmake" env FASTINN_CUDA=ON \
  "$PYTHON" -m pip install --no-build-isolation --no-deps -e .
step "backends" 20 "gpu" "$PYTHON" -c "$every_kernel"
step "cuda tests" 70 "gpu" "${tests[@]}" -k "cuda or fused or graphed or gpu"
step "triton tests" 90 "gpu" "${tests[@]}" -k "triton"
step "sanitizers" 70 "gpu compute-sanitizer" \
  bash -c "$sanitize --tool memcheck $shapes && $sanitize --tool racecheck $shapes"
step "benches of ops" 105 "gpu" "${benches[@]}" bench/ops \
  -k "moments and not exact or affine or coupling_mlp and fast and cuda and not training"
step "benches of flows" 40 "gpu" "${benches[@]}" bench/nn bench/ops/bench_coupling_mlp.py \
  -k "(flow or inn or training) and fast and not triton"

printf '\n== summary\n'
printf '%s\n' "${summary[@]}"
[ -s "$results" ] && echo "results: ${results##*/} in $OUT"
[ -n "$gpu" ] && exit "$failed"
exit 1
