#!/bin/bash
# Unpack newer tools than Debian 12 has, from Debian 13's packages, into a folder: nothing is installed, and the
# system's package sources stay as they are.
#
#   scripts/deployments/trixie_tools.sh [FOLDER]        (.venv-deployments/trixie by default)
#
# prometheus, promtool  2.53: Debian 12's are built without the discovery of pods
# docker-compose        2.26: checks compose files without an engine
# kubectl               1.32: Debian 12's has a kustomize without components
set -euo pipefail
folder=${1:-$(dirname "${BASH_SOURCE[0]}")/../../.venv-deployments/trixie}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
[ ! -e "$folder/.done" ] || exit 0

root=$folder/apt
mkdir -p "$root"/{lists/partial,cache/archives/partial,etc}
mirror=$(grep -rhoE 'https?://[^ ]+' /etc/apt/sources.list /etc/apt/sources.list.d 2>/dev/null | grep -E '/debian/?$' | head -n 1 || true)
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
echo "deb [signed-by=$keyring] $mirror trixie main" > "$root/etc/sources.list"
: > "$root/status"
apt=(apt-get -q -o Dir::Etc::sourcelist="$root/etc/sources.list" -o Dir::Etc::sourceparts=/dev/null
    -o Dir::State::lists="$root/lists" -o Dir::State::status="$root/status" -o Dir::Cache="$root/cache"
    -o APT::Sandbox::User=root)
"${apt[@]}" update
cd "$root/cache/archives"
"${apt[@]}" download prometheus promtool docker-compose kubectl >/dev/null
for package in *.deb; do dpkg -x "$package" "$folder"; done
rm -rf "$root"
touch "$folder/.done"
