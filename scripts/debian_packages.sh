#!/bin/bash
# Install the Debian packages that a list names (one a line, "#" starts a comment) if any is missing:
# with apt as root; as anybody else, say the one command that does it, and fail.
set -euo pipefail

mapfile -t wanted < <(sed -E 's/[[:space:]]*#.*//; /^[[:space:]]*$/d' "$1")

if ! command -v dpkg-query >/dev/null; then
    echo "These tests need Debian packages (${wanted[*]}), and this is no Debian system." >&2
    exit 1
fi

missing=()
for package in "${wanted[@]}"; do
    state=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$state" = installed ] || missing+=("$package")
done
if [ ${#missing[@]} -eq 0 ]; then
    echo "Debian packages: all ${#wanted[@]} are installed."
    exit 0
fi

if [ "$(id -u)" -ne 0 ]; then
    echo "Debian packages are missing. Install them with:" >&2
    echo "    sudo apt-get install --no-install-recommends ${missing[*]}" >&2
    exit 1
fi

echo "Installing Debian packages: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq </dev/null
apt-get install -y -qq --no-install-recommends -o Dpkg::Use-Pty=0 "${missing[@]}" </dev/null >/dev/null
