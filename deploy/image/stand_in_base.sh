#!/usr/bin/env bash
# Makes a base image with Debian and Python where no image registry can be reached, under the name
# that the Dockerfile gives. `make image` calls it when buildah has no image of that name.
#   deploy/image/stand_in_base.sh docker.io/library/python:3.12-slim-bookworm
# It needs root, debootstrap, buildah, and a Python 3.12 that was built with a prefix of its own
# (PYTHON_PREFIX, by default the newest 3.12 of pyenv).
set -euo pipefail

image=${1:?expected the name of the base image}
prefix=${PYTHON_PREFIX:-$(ls -d "$(pyenv root)"/versions/3.12.* | sort -V | tail -1)}
libraries=ca-certificates,libbz2-1.0,libexpat1,libffi8,liblzma5,libncursesw6,libreadline8,libsqlite3-0,libssl3,libuuid1,zlib1g
export STORAGE_DRIVER=${STORAGE_DRIVER:-vfs} BUILDAH_ISOLATION=${BUILDAH_ISOLATION:-chroot}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
debootstrap --variant=minbase --include="$libraries" bookworm "$work/root" > "$work/log" ||
    { tail -n 20 "$work/log" >&2; exit 1; }
cp --archive "$prefix"/. "$work/root/usr/local/"
echo /usr/local/lib > "$work/root/etc/ld.so.conf.d/python.conf"
chroot "$work/root" ldconfig
for script in "$work"/root/usr/local/bin/pip*; do # they name the prefix on their first line
    sed --in-place '1s|^#!.*|#!/usr/local/bin/python3.12|' "$script"
done

tar --create --file "$work/root.tar" --directory "$work/root" .
container=$(buildah from scratch)
buildah add --quiet "$container" "$work/root.tar" / > /dev/null
buildah config --cmd python3 --env PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
buildah commit --quiet --rm "$container" "$image" > /dev/null
echo "$image"
