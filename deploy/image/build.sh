#!/usr/bin/env bash
# Builds the image of the Dockerfile with Docker, or with buildah where there is no Docker engine.
#   deploy/image/build.sh [cpu|full|cuda]      the image is localhost/hsoftmax:<variant>
# PYTHON names the base image, in a release with its digest. Where buildah can reach no registry,
# stand_in_base.sh makes a base image of that name.
set -euo pipefail

variant=${1:-cpu}
base=${PYTHON:-docker.io/library/python:3.12-slim-bookworm}
image=localhost/hsoftmax:$variant
cd "$(dirname "$0")/../.."
arguments=(--build-arg "VARIANT=$variant" --build-arg "PYTHON=$base"
    --build-arg "REVISION=$(git rev-parse HEAD 2> /dev/null || echo unknown)")

if docker info > /dev/null 2>&1; then
    docker build "${arguments[@]}" --tag "$image" .
    exit
fi

export STORAGE_DRIVER=${STORAGE_DRIVER:-vfs} BUILDAH_ISOLATION=${BUILDAH_ISOLATION:-chroot}
if ! buildah inspect --type image "$base" > /dev/null 2>&1; then
    buildah pull --quiet "$base" 2> /dev/null || deploy/image/stand_in_base.sh "$base"
fi
volumes=()
for path in /etc/pip.conf /etc/xdg /etc/ssl; do # what pip is told on this machine
    if test -e "$path"; then volumes+=(--volume "$path:$path:ro"); fi
done
# Only Docker's format has health checks.
buildah bud --pull-never --format docker --network host "${volumes[@]}" "${arguments[@]}" --tag "$image" .
