#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# glusterfs.sh PROGRAM: two FUSE clients of one GlusterFS volume, and PROGRAM on both of them.
#
# All of it lives in name spaces of its own: processes, mounts and network end with this script.

skip() {
	echo "SKIP: $1"
	exit 77
}

if [ -z "$KVK_INSIDE" ]; then
	[ "$(id -u)" = 0 ] || skip "a GlusterFS server needs root"
	[ -c /dev/fuse ] || skip "there is no /dev/fuse"
	for tool in glusterd:glusterfs-server mount.glusterfs:glusterfs-client ip:iproute2; do
		PATH=$PATH:/usr/sbin:/sbin command -v "${tool%:*}" >/dev/null || skip "${tool%:*} of package ${tool#*:} is missing"
	done
	unshare -n -m -p -f --mount-proc true 2>/dev/null || skip "name spaces are not to be had"
	KVK_INSIDE=1 exec timeout -k 5 "${KVK_SHARED_LIMIT:-170}" unshare -n -m -p -f --mount-proc --kill-child \
		"$(readlink -f "$0")" "$(readlink -f "$1")" </dev/null 2>&1
fi

export PATH="$PATH:/usr/sbin:/sbin"
ip link set lo up
# Names of the loop-back network are refused.
ip link add kvk0 type veth peer name kvk1 && ip addr add 10.99.1.1/24 dev kvk0 && ip link set kvk0 up &&
	ip link set kvk1 up || skip "there is no virtual network device"
mount -t tmpfs world /mnt
mkdir -p /mnt/brick /mnt/a /mnt/b /var/lib/glusterd /var/log/glusterfs /var/run/gluster
for folder in /var/lib/glusterd /var/log/glusterfs /var/run; do
	mount -t tmpfs own $folder
done
mkdir -p /var/run/gluster
glusterd
for _ in $(seq 100); do
	gluster --mode=script volume info >/dev/null 2>&1 && break
	sleep 0.1
done
{
	gluster --mode=script volume create kvk 10.99.1.1:/mnt/brick force && gluster --mode=script volume start kvk
} >/dev/null || { echo "shared: no volume"; exit 1; }
# As it comes, and with the layers off but the usual two threads, it is refused.
KVK_SHARED_DIRS=/mnt/a:/mnt/b:/mnt/brick
export KVK_SHARED_DIRS
refused() {
	mount -t glusterfs 10.99.1.1:/kvk /mnt/a && KVK_SHARED_REFUSED=$1 "$PROGRAM" || { echo "shared: status 1"; exit 1; }
	umount /mnt/a
}
PROGRAM=$1
refused performance.
for layer in quick-read stat-prefetch open-behind write-behind; do
	gluster --mode=script volume set kvk performance.$layer off >/dev/null
done
refused client.event-threads
gluster --mode=script volume set kvk client.event-threads 32 >/dev/null
if mount -t glusterfs 10.99.1.1:/kvk /mnt/a && mount -t glusterfs 10.99.1.1:/kvk /mnt/b; then
	KVK_SHARED_SECONDS=${KVK_SHARED_SECONDS:-8} "$PROGRAM"
	echo "shared: status $?"
else
	echo "shared: no mount"
fi
