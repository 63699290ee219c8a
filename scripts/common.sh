# shellcheck shell=bash
# Sourced by the scripts here, not run: where the project is, how to speak, how to get a Debian package.
root=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")
me=scripts/$(basename "$0")
log=$root/.cache/${0##*/}.log

say() { echo "${0##*/}: $*" >&2; }
fail() { # one line: what is missing, what mends it
    echo "$me: $*" >&2
    exit 2
}

{ mkdir -p "${log%/*}" && : >"$log"; } 2>/dev/null ||
    fail "$root: not writable for this user; run it as the owner, or from a clone of your own"

install_packages() { # install_packages PACKAGE...: with apt-get, as root or through sudo; 1 and one line if that cannot be
    local sudo=() mend="apt-get install $*"
    if ! command -v apt-get >/dev/null; then
        say "missing: $* (Debian's names); install them with this system's package manager"
        return 1
    fi
    if [ "$(id -u)" != 0 ]; then
        sudo=(sudo)
        [ -t 0 ] || sudo=(sudo -n) # nobody there to type a password
        if ! "${sudo[@]}" true 2>/dev/null; then
            say "missing: $*; run as root: $mend"
            return 1
        fi
    fi
    say "installing $*"
    "${sudo[@]}" apt-get update -qq >>"$log" 2>&1 || say "apt-get update failed; going on with the lists at hand"
    if ! "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq -o DPkg::Lock::Timeout=120 --no-install-recommends "$@" >>"$log" 2>&1; then
        say "missing: $*; apt-get could not install them ($(grep -m1 '^E:' "$log" || echo "see $log")); run as root: $mend"
        return 1
    fi
}
