# Sourced by the other scripts: sets up what they need. `root` is the checkout, `venv` its environment.
#   setup_environment LOCK  the client and the packages of that lock file, in .venv
#   setup_tools NAME...     those programs, with apt-get: ffmpeg, mkvmerge, HandBrakeCLI, and for the tests faketime
# They say what they do on standard error, a line for each thing, and nothing when all is in place.
# shellcheck shell=bash

root=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")
venv=$root/.venv
stamp=$venv/setup.stamp # what the environment was made for; there only while it is complete
log=$venv/setup.log

setup_environment() { is_ready "$1" || alone install_environment "$1"; }
setup_tools() { have "$@" || alone install_tools "$@"; }

install_environment() {
    if is_ready "$1"; then return; fi # another call has done it meanwhile
    is_complete || make_environment
    rm -f "$stamp"
    say "installing the packages of $1"
    pip_install --require-hashes --requirement "$root/$1"
    pip_install --no-deps --no-build-isolation --editable "$root"
    { origin && count_files && packages requirements.lock && packages "$1"; } >"$stamp.new"
    mv "$stamp.new" "$stamp"
}

make_environment() {
    local python version
    python=$(find_python)
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    "$python" -c 'import ensurepip, venv' 2>/dev/null || apt_install "python$version-venv"
    say "making an environment for Python $version in .venv"
    rm -f "$stamp"
    find "$venv" -mindepth 1 -maxdepth 1 ! -name 'setup.*' -exec rm -rf {} +
    quietly "$python" -m venv "$venv"
}

find_python() {
    local python
    for python in python3 python3.{14..11}; do
        "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$python" && return
    done
    give_up "Python 3.11 or newer is missing: install it, as python3 or python3.11 or the like on PATH"
}

declare -A package_of=([ffmpeg]=ffmpeg [mkvmerge]=mkvtoolnix [HandBrakeCLI]=handbrake-cli [faketime]=faketime)
have() {
    local name
    for name; do command -v "$name" || return; done
} >/dev/null
install_tools() {
    local name packages=()
    for name; do have "$name" || packages+=("${package_of[$name]}"); done
    ((${#packages[@]} == 0)) || apt_install "${packages[@]}"
}

# The stamp: where and with which Python the environment was made (moved, it does not work), how many files it has (fewer:
# someone has deleted some), and a line for each lock file installed. All of requirements.lock is in the others too.
is_ready() { is_complete && grep -qxF "$(packages "$1")" "$stamp"; }
is_complete() {
    local was
    [[ -r $stamp ]] && mapfile -t was <"$stamp" && [[ ${was[0]-} == "$(origin)" && $(count_files) -ge ${was[1]} ]]
}
origin() { echo "$root, $("$venv/bin/python" -V)"; } 2>/dev/null
count_files() { find "$venv"/{bin,lib,pyvenv.cfg} -name __pycache__ -prune -o ! -type d -print | wc -l; } 2>/dev/null
packages() { echo "$1 $(cd "$root" && cat pyproject.toml requirements.lock "$1" | sha256sum)"; }

pip_install() { quietly "$venv/bin/python" -m pip install --quiet --no-input --disable-pip-version-check "$@"; }

apt_install() {
    local as_root=() apt=(env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300)
    if ((EUID != 0)); then
        as_root=(sudo -p "setup: password for sudo, to install $*: ")
        [[ -t 0 && -t 2 ]] || as_root+=(-n) # nobody is there to type it
    fi
    "${as_root[@]}" "${apt[@]}" --version &>/dev/null || give_up "missing: as root, run apt-get install $*"
    say "installing $*"
    "${as_root[@]}" "${apt[@]}" update &>>"$log" || true # a broken source matters only if the install then fails
    quietly "${as_root[@]}" "${apt[@]}" install -y --no-install-recommends "$@"
}

alone() { # while no other call does it
    mkdir -p "$venv"
    (
        trap 'exit 130' INT # else Ctrl-C would look like a failure of the command it ends
        flock -n 9 || { say "waiting for another call to set up" && flock 9; }
        "$@"
    ) 9>"$venv/setup.lock"
}

quietly() { # into the log; if it fails, show the end of that
    "$@" &>>"$log" </dev/null && return
    tail -n 20 "$log" >&2
    give_up "failed: $*"
}

say() { echo "setup: $*" >&2; }
give_up() { say "$*" && exit 1; }
