#!/usr/bin/env bash
# Prepares a Debian or Ubuntu machine for working on slurm-power. Called by the Makefile; safe to run again.
#
#   setup.sh packages base|cluster   what is missing of: compiler and Python (base), also Slurm, its
#                                    accounting, InfluxDB, snmpd and Chromium (cluster)
#   setup.sh venv                    .venv with the product installed editable
#   setup.sh train                   torch, DeepSpeed and what else training and serving need, into .venv
#
# A package counts as present when what we need of it is there, so a Slurm from elsewhere is left alone.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

PATH="$PATH:/usr/sbin:/sbin"
VENV=.venv
STAMP="$VENV/.installed"
TRAIN_STAMP="$VENV/.installed-train"
POLICY="${POLICY_RC_D:-/usr/sbin/policy-rc.d}"

die() {
    printf 'setup: %s\n' "$*" >&2
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }
have_header() { echo "#include <$1>" | cc -E -x c - >/dev/null 2>&1; }
have_library() { [[ "$(ldconfig -p)" == *"$1"* ]]; }
usable_python() { "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
    local one
    for one in ${PYTHON:-} python3 python3.13 python3.12 python3.11; do
        if have "$one" && usable_python "$one"; then
            echo "$one"
            return
        fi
    done
    return 1
}

python_packages() {
    if have python3 && ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        echo python3.11-venv  # the machine's own Python is older
    else
        echo python3-venv
    fi
}

missing_base() {
    have cc || echo gcc
    have_header stdio.h || echo libc6-dev  # gcc only recommends it
    [ -x "$VENV/bin/python" ] || find_python >/dev/null || python_packages
}

missing_cluster() {
    have slurmctld || echo slurmctld
    have slurmd || echo slurmd
    have sbatch || echo slurm-client
    have_header slurm/spank.h || echo libslurm-dev
    have munged || echo munge
    have_library libmunge.so.2 || echo libmunge2
    have lua5.3 || echo lua5.3
    have influxd || echo influxdb
    have nginx || echo nginx-light
    have snmpd || echo snmpd
    have slurmdbd || echo slurmdbd
    have mariadbd || echo mariadb-server
    missing_browser
}

# For the tests of the dashboard. Ubuntu has no Chromium package but a snap: there those tests are left out.
missing_browser() {
    [[ "$(< /etc/os-release)" == *$'\nID=debian'* ]] || return 0
    have chromium || echo chromium
    have chromedriver || echo chromium-driver
    [ -e /usr/share/fonts/truetype/dejavu ] || echo fonts-dejavu-core
}

packages() {
    local missing
    missing="$(missing_base)"
    [ "$1" = base ] || missing="$(missing_base; missing_cluster)"
    missing="$(echo $missing)"
    [ -n "$missing" ] || return 0
    local line="apt-get install --no-install-recommends $missing"
    have apt-get || die "not a Debian or Ubuntu machine; install what these packages bring: $missing"
    if [ "$(id -u)" -eq 0 ]; then
        install_packages "" $missing
    elif have sudo; then
        echo "setup: needs root once, for: $line"
        install_packages sudo $missing
    else
        die "missing packages; as root run: $line"
    fi
}

# Debian starts and enables a service when its package is installed. Nobody asked for that here: the development
# cluster runs its own copies. policy-rc.d (invoke-rc.d(8)) keeps them from starting while we install.
install_packages() {
    local as_root="$1"
    shift
    echo "setup: installing $*"
    local ours=""
    if [ ! -e "$POLICY" ]; then
        ours=yes
        printf '#!/bin/sh\nexit 101\n' | $as_root tee "$POLICY" >/dev/null
        trap "$as_root rm -f '$POLICY'" EXIT
        $as_root chmod 755 "$POLICY"
    fi
    apt_install "$as_root" "$@" || {
        echo "setup: not found in the package lists; refreshing them"
        $as_root apt-get -qq update
        apt_install "$as_root" "$@"
    } || die "apt-get could not install: $*"
    if [ -n "$ours" ]; then
        $as_root rm -f "$POLICY"
        trap - EXIT
        disable_services "$as_root" "$@"
    fi
}

apt_install() {
    local as_root="$1"
    shift
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y install --no-install-recommends "$@" >/dev/null
}

# Only of packages that were not there before.
disable_services() {
    local as_root="$1" package
    shift
    have systemctl || return 0
    for package in "$@"; do
        case "$package" in
            slurmctld | slurmd | slurmdbd | munge | influxdb | snmpd) $as_root systemctl --quiet disable "$package.service" || true ;;
            mariadb-server) $as_root systemctl --quiet disable mariadb.service || true ;;
            nginx-light) $as_root systemctl --quiet disable nginx.service || true ;;
        esac
    done
    echo "setup: the services of these packages are neither started nor enabled at boot"
}

pip_install() { "$VENV/bin/python" -m pip install -qq --disable-pip-version-check "$@"; }

venv() {
    if [ "$STAMP" -nt setup.cfg ] && [ "$STAMP" -nt pyproject.toml ]; then
        return
    fi
    if [ ! -x "$VENV/bin/python" ]; then
        local python
        python="$(find_python)" || die "no Python >= 3.11 with venv"
        echo "setup: $VENV with $("$python" --version)"
        "$python" -m venv "$VENV"
    fi
    echo "setup: installing the product and its Python packages into $VENV (a minute or two the first time)"
    pip_install --editable '.[dev]' ||
        die "pip could not install; is a package index reachable?"
    touch "$STAMP"
}

has_gpu() { [ -e /proc/driver/nvidia/version ]; }

# DeepSpeed looks at torch while it is installed, so torch comes first and the build is not isolated from it.
# Without a GPU the pinned torch: indexes that have a build without CUDA have it under this version. TORCH= overrides.
train() {
    if [ "$TRAIN_STAMP" -nt setup.cfg ]; then
        return
    fi
    local torch="${TORCH:-torch==2.13.0}"
    ! has_gpu || torch="${TORCH:-torch}"
    echo "setup: installing $torch, DeepSpeed and transformers into $VENV (a few minutes the first time)"
    "$VENV/bin/python" -c 'import torch' 2>/dev/null || pip_install "$torch" || die "pip could not install $torch"
    pip_install setuptools wheel && pip_install --no-build-isolation deepspeed || die "pip could not install deepspeed"
    pip_install --editable '.[dev,train,train-dev,serve]' ||
        die "pip could not install what setup.cfg lists for training and serving"
    touch "$TRAIN_STAMP"
}

case "${1:-} ${2:-}" in
    "packages base" | "packages cluster") packages "$2" ;;
    "venv ") venv ;;
    "train ") train ;;
    *) die "usage: setup.sh packages base|cluster | setup.sh venv | setup.sh train" ;;
esac
