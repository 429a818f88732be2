#!/usr/bin/env bash
# Build the image where there is neither Docker nor a registry: on a Debian or Ubuntu, as root, after
#
#     apt-get install --no-install-recommends buildah mmdebstrap
#
# The base is made of Debian's own packages (mmdebstrap), everything else comes from PyPI. Arguments are handed
# on to `buildah build`, such as --volume /etc/pip.conf:/etc/pip.conf:ro for a proxy or a mirror. SUITE and
# MIRROR choose the Debian. Takes about ten minutes on two cores.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

suite=${SUITE:-bookworm}
base=localhost/debian-python:$suite
# Neither namespaces nor cgroups: works inside containers and virtual machines of all kinds.
export BUILDAH_ISOLATION=chroot

if ! buildah inspect --type image "$base" > /dev/null 2>&1; then
    rootfs=$(mktemp --suffix=.tar)
    trap 'rm -f "$rootfs"' EXIT
    mmdebstrap --variant=minbase --include=python3,python3-venv,ca-certificates \
        "$suite" "$rootfs" ${MIRROR:+"$MIRROR"}
    container=$(buildah from scratch)
    buildah add --quiet "$container" "$rootfs" /
    buildah commit --rm --quiet "$container" "$base"
fi
buildah build --layers --build-arg "BASE_IMAGE=$base" --tag mlc-compiler \
    --file docker/Dockerfile.mlc "$@" .
