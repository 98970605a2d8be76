#!/bin/sh
# add_user.sh UID GID: the user `spatial`, in group video, which owns the GPU's device files on a Jetson.
# Fast DDS shares memory between processes of one user only: give the ids of the host's user.
set -eu

uid=$1
gid=$2
# Ubuntu 24.04 images come with a user `ubuntu` of id 1000.
if id "$uid" >/dev/null 2>&1; then
  userdel --remove "$(id -un "$uid")"
fi
if ! getent group "$gid" >/dev/null; then
  groupadd --gid "$gid" spatial
fi
useradd --uid "$uid" --gid "$gid" --groups video --create-home --no-log-init --shell /bin/sh spatial
