# shellcheck shell=bash
# Finds out which Debian or Ubuntu packages are missing, and installs them. Sourced by bazelw and by
# the scripts beside this one. Everything is printed to stderr.

packages_missing=()

say() { echo "${0##*/}: $*" >&2; }

# need PACKAGE REASON COMMAND...: PACKAGE is wanted unless COMMAND succeeds.
need() {
  local package=$1 reason=$2
  shift 2
  if ! "$@" > /dev/null 2>&1; then
    [[ ${#packages_missing[@]} -gt 0 ]] || say "this machine lacks"
    printf '    %-20s %s\n' "$package" "$reason" >&2
    packages_missing+=("$package")
  fi
}

have_command() { command -v "$1"; }

have_header() { [[ -e /usr/include/$1 || -e /usr/local/include/$1 ]]; }

# Installs what `need` found missing. Returns 1, with the command to run, if it cannot.
install_missing() {
  [[ ${#packages_missing[@]} -gt 0 ]] || return 0
  # No package that somebody installed is removed to make room for ours.
  local install=(apt-get install --yes --no-install-recommends --no-remove "${packages_missing[@]}")
  packages_missing=()
  if ! command -v apt-get > /dev/null; then
    say "this machine has no apt-get: install these, or what they are called here, and try again"
    return 1
  fi
  local as_root=(env DEBIAN_FRONTEND=noninteractive)
  if [[ $EUID -ne 0 ]]; then
    if ! sudo -n true 2> /dev/null; then
      say "installing them needs root. Please run:"
      echo "    sudo apt-get update && sudo ${install[*]}" >&2
      return 1
    fi
    as_root=(sudo -n "${as_root[@]}")
  fi
  say "installing them: ${install[*]}"
  # The lists of a fresh machine are empty, and those of an old one name files that are gone.
  local wait=(-o DPkg::Lock::Timeout=600)
  "${as_root[@]}" "${install[@]}" "${wait[@]}" < /dev/null >&2 && return 0
  say "that failed, so perhaps the package lists are old: apt-get update"
  "${as_root[@]}" apt-get update "${wait[@]}" < /dev/null >&2 &&
    "${as_root[@]}" "${install[@]}" "${wait[@]}" < /dev/null >&2
}
