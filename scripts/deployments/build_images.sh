#!/bin/bash
# Build both images without a Docker engine: buildah in a chroot, on a Debian base that mmdebstrap makes.
#
#   scripts/deployments/build_images.sh [hamiltonian] [coordination]     (both by default)
#
#   BASE_IMAGE       build on this image; empty: Debian 12 with its own Python 3.11, made here in two sizes, one
#                    of them with pip to build in
#   TAG              of the images (4.0.0)
#   TORCH_INDEX_URL  the package index that torch comes from; empty: pip's own configuration
#   DEVICE           cpu or cuda
#
# This machine's configuration of pip and of certificates is mounted read-only while packages are installed, and
# is in no layer. Needs the Debian packages buildah and mmdebstrap, and root.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

tag=${TAG:-4.0.0}
base=${BASE_IMAGE:-}
[ $# -gt 0 ] || set -- hamiltonian coordination

debian() {  # NAME PACKAGES: a Debian root with these packages, as an image
    ! buildah inspect --type image "$1" >/dev/null 2>&1 || return 0
    echo "Making $1"
    local folder container
    folder=$(mktemp -d)
    mmdebstrap --quiet --variant=minbase --include="$2" \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        --customize-hook='rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/* "$1"/var/log/*' \
        bookworm "$folder/root.tar"
    container=$(buildah from scratch)
    buildah add --quiet "$container" "$folder/root.tar" / >/dev/null
    buildah config --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
    buildah commit --quiet --format docker --rm "$container" "$1" >/dev/null
    rm -rf "$folder"
}

build=$base
if [ -z "$base" ]; then
    run=python3-minimal,libpython3-stdlib,ca-certificates,libgomp1 make=python3,python3-venv,ca-certificates,libgomp1
    # Another list of packages is another image.
    base=localhost/cert-base:$(sha256sum <<<"$run" | cut -c1-12)
    build=localhost/cert-build:$(sha256sum <<<"$make" | cut -c1-12)
    debian "$base" "$run"
    debian "$build" "$make"
fi

# Whatever pip is told on this machine, it is told in the build: files and folders that its settings name.
mounts=() environment=()
mount() { [ ! -e "$1" ] || mounts+=(--volume "$1:$1:ro"); }
for file in /etc/pip.conf "$HOME/.config/pip/pip.conf" /etc/ssl/certs/ca-certificates.crt; do
    mount "$file"
done
for path in $(python3 -m pip config list 2>/dev/null | grep -oE "(file://)?/[A-Za-z0-9._/-]+" | sed 's,^file://,,' | sort -u); do
    case $path in /etc/ssl/*) ;; *) mount "$(echo "$path" | sed -E 's,(/opt/[^/]+)/.*,\1,')" ;; esac
done
mkdir -p "${XDG_CACHE_HOME:-$HOME/.cache}/cert-images/pip"
mounts+=(--volume "${XDG_CACHE_HOME:-$HOME/.cache}/cert-images/pip:/var/cache/pip:rw")

for name in "$@"; do
    echo "Building cert-framework/$name:$tag"
    buildah bud --quiet --isolation chroot --pull-never --format docker --layers \
        "${mounts[@]}" \
        --build-arg "BASE_IMAGE=$base" --build-arg "BUILD_IMAGE=$build" \
        $([ "$name" = hamiltonian ] && echo "--build-arg DEVICE=${DEVICE:-cpu}") \
        $([ "$name" = hamiltonian ] && [ -n "${TORCH_INDEX_URL:-}" ] && echo "--build-arg TORCH_INDEX_URL=$TORCH_INDEX_URL") \
        --tag "cert-framework/$name:$tag" \
        --file "deployments/docker/Dockerfile.$name" .
done
