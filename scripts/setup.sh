# Sourced by the other scripts: sets up what they need. `root` is the checkout, `venv` its environment.
#   set_up LOCK [PROGRAM...]  the client and the packages of that lock file, in .venv, and those programs, with apt-get:
#                             ffmpeg, mkvmerge, HandBrakeCLI, faketime, strace, man, Redis, PostgreSQL and Chromium
# It says what it does on standard error, a line for each thing, and nothing when all is in place. What it may not install
# itself, for want of root or sudo, it names all at once, in one line that can be pasted.
# shellcheck shell=bash

[[ $OSTYPE == linux* ]] || { echo "setup: the client needs Linux, and this is $OSTYPE" >&2 && exit 1; }
root=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")
venv=$root/.venv
stamp=$venv/setup.stamp # what the environment was made for; there only while it is complete
log=$venv/setup.log
build=$venv/setup.build # pip and what only builds: there while it is used

declare -A package_of=([ffmpeg]=ffmpeg [mkvmerge]=mkvtoolnix [HandBrakeCLI]=handbrake-cli [faketime]=faketime
    [strace]=strace [man]=man-db [redis-server]=redis-server [chromium]=chromium
    [pg_ctlcluster]=postgresql) # Debian's own program: the server's are not on PATH
# Megabytes that pip downloads for an environment, unless it has them in its cache.
declare -A download_of=([requirements.lock]=15 [requirements-dev.lock]=100 [requirements-bench.lock]=101)

set_up() { { is_ready "$1" && have "${@:2}"; } || alone install_missing "$@"; }

install_missing() {
    install_packages "${@:2}"
    is_ready "$1" || install_environment "$1" # another call may have done it meanwhile
}

# --- packages of the system ---

install_packages() { # for these programs, and for Python
    local python program too_old="" missing=()
    if ! is_complete; then
        python=$(find_python)
        if [[ $python ]]; then
            "$python" -c 'import ensurepip, venv' 2>/dev/null || missing+=("python$(version_of "$python")-venv")
        elif have python3; then
            too_old="Python $(version_of python3) is too old (install 3.11 or newer beside it, as python3.11)"
        else
            missing+=(python3 python3-venv)
        fi
    fi
    for program; do have "$program" || missing+=("${package_of[$program]}"); done
    [[ ! $too_old ]] || give_up "$too_old${missing:+; missing, too: ${missing[*]}}"
    ((${#missing[@]} == 0)) || apt_install "${missing[@]}"
}

have() {
    local name
    for name; do command -v "$name" || return; done
} >/dev/null

find_python() { # the first that is new enough; nothing if there is none
    local python
    for python in python3 python3.{15..11}; do
        "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$python" && return
    done
    return 0
}

version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])'; }

apt_install() {
    local as_root=() apt=(env LC_ALL=C DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300)
    have apt-get || give_up "missing, and there is no apt-get to install it: $*"
    if ((EUID != 0)); then
        as_root=(sudo -p "setup: password for sudo, to install $*: ")
        [[ -t 0 && -t 2 ]] || as_root+=(-n) # nobody is there to type it
    fi
    "${as_root[@]}" "${apt[@]}" --version &>/dev/null ||
        give_up "some packages are missing; as root, run: apt-get update && apt-get install -y --no-install-recommends $*"
    say "missing: $*; reading the lists of packages (10 to 40 MB)"
    "${as_root[@]}" "${apt[@]}" update &>>"$log" || true # a broken source matters only if the install then fails
    apt+=(install -y --no-install-recommends)
    say "installing $* (about $("${apt[@]}" --print-uris -qq "$@" 2>>"$log" | megabytes) MB to download)"
    quietly "${as_root[@]}" "${apt[@]}" "$@"
}

megabytes() { awk '{ sum += $3 } END { printf "%.0f\n", sum / 1e6 }'; } # of lines: URI, name, bytes

# --- the environment ---

install_environment() {
    is_complete || make_environment
    rm -f "$stamp"
    say "installing the packages of $1 (about ${download_of[$1]} MB to download)"
    make_build --require-hashes --requirement "$root/requirements-build.lock"
    pip_install "$venv" --require-hashes --requirement "$root/$1"
    with_build pip_install "$venv" --no-deps --no-build-isolation --editable "$root"
    rm -rf "$build"
    { origin && count_files && packages requirements.lock && packages "$1"; } >"$stamp.new"
    mv "$stamp.new" "$stamp"
}

make_environment() {
    local python
    python=$(find_python)
    say "making an environment for Python $(version_of "$python") in .venv"
    rm -f "$stamp"
    find "$venv" -mindepth 1 -maxdepth 1 ! -name 'setup.*' -exec rm -rf {} +
    quietly "$python" -m venv --without-pip "$venv"
}

make_build() { # an environment that installs into others and builds, with these packages
    rm -rf "$build"
    quietly "$(find_python)" -m venv "$build"
    pip_install "$build" "$@"
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

with_build() { PYTHONPATH=$(echo "$build"/lib/python*/site-packages) "$@"; } # beside the packages that run

pip_install() { # into an environment
    quietly "$build/bin/python" -m pip --python "$1/bin/python" install --quiet --no-input --disable-pip-version-check "${@:2}"
}

# --- for both ---

alone() { # while no other call does it
    { mkdir -p "$venv" && [[ -w $venv ]]; } 2>/dev/null || give_up "$venv cannot be written: use a checkout of your own"
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
