#!/bin/bash
# Checks and measures a GPU in one command, from a checkout:
#   bash scripts/gpu_check.sh [--here] [--wheels FOLDER] [--small] [--out FILE]
#
#   --here           use python3, or $PYTHON, which has the dependencies
#   --wheels FOLDER  install the dependencies from the wheels in a folder alone
#   --small          little of everything, which a CPU does in two minutes
#   --out FILE       where measurements go, as lines of JSON (gpu_check.jsonl)
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
here=0 wheels="" small=() from=() out="$PWD/gpu_check.jsonl"
while [ $# -gt 0 ]; do
  case "$1" in
    --here) here=1 ;;
    --wheels) wheels=$(cd "$2" && pwd); shift ;;
    --small) small=(--small) ;;
    --out) out=$(cd "$(dirname "$2")" && pwd)/$(basename "$2"); shift ;;
    *) sed -n 's/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
  esac
  shift
done
python=${PYTHON:-python3}
dependencies='import sys, tomllib
project = tomllib.load(open(sys.argv[1], "rb"))["project"]
print(*project["dependencies"], sep="\n")'
if [ "$here" = 0 ] && ! "$python" -c "import jax, diffrax, tyro" 2>/dev/null; then
  echo "installing the dependencies in $root/.venv-gpu" >&2
  "$python" -m venv "$root/.venv-gpu"
  python=$root/.venv-gpu/bin/python
  [ -z "$wheels" ] || from=(--no-index --find-links "$wheels")
  mapfile -t needed < <("$python" -c "$dependencies" "$root/pyproject.toml")
  if command -v nvidia-smi >/dev/null; then needed+=("jax[cuda12]"); fi
  "$python" -m pip install -q ${from[@]+"${from[@]}"} "${needed[@]}"
fi
cd "$root"
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" -m scripts.bench devices gpu ${small[@]+"${small[@]}"} --out "$out"
