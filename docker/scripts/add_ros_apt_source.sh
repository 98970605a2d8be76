#!/bin/sh
# Adds the apt source of ROS 2: the package `ros2-apt-source`, which carries key and address.
set -eu

version=1.2.0
# shellcheck source=/dev/null
codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
case "$codename" in
  jammy) sha256=767884cf4ed03116b9d64438930a832ed854147ae435279a7924dfdf60f94433 ;;
  noble) sha256=0804d9b13db770eb87019be414cd78378835228ad5fa801fc88758596dd8f7e5 ;;
  *)
    echo "no ROS 2 apt source is known here for Ubuntu '$codename'; known are jammy and noble" >&2
    exit 1
    ;;
esac

package=/tmp/ros2-apt-source.deb
curl --fail --silent --show-error --location --retry 3 --output "$package" \
  "https://github.com/ros-infrastructure/ros-apt-source/releases/download/$version/ros2-apt-source_$version.${codename}_all.deb"
echo "$sha256  $package" | sha256sum --check --strict -
dpkg --install "$package"
rm "$package"
