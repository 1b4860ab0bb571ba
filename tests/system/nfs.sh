#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# nfs.sh PROGRAM: two mounts of one NFS 4.2 export that share no cache, and PROGRAM on both of them.
#
# Server and client are those of a kernel in user mode, an ordinary process that boots in two seconds with the file tree of this
# machine as a read-only root. It runs this script again, as its init.

skip() {
	echo "SKIP: $1"
	exit 77
}

if [ $$ -ne 1 ]; then
	[ "$(id -u)" = 0 ] || skip "a kernel in user mode that serves NFS needs root"
	for tool in linux.uml:user-mode-linux rpc.nfsd:nfs-kernel-server mount.nfs4:nfs-common mkfs.ext4:e2fsprogs \
		    modprobe:kmod; do
		PATH=$PATH:/usr/sbin:/sbin command -v "${tool%:*}" >/dev/null || skip "${tool%:*} of package ${tool#*:} is missing"
	done
	disk=$(mktemp "${TMPDIR:-/tmp}/kvk-nfs-XXXXXX") || exit 1
	trap 'rm -f "$disk"' EXIT
	truncate -s 512M "$disk"
	timeout -k 5 "${KVK_SHARED_LIMIT:-110}" linux.uml mem=768M root=/dev/root rootfstype=hostfs rootflags=/ ro "ubd0=$disk" \
		con=null con0=fd:0,fd:1 con1=null "init=$(readlink -f "$0")" quiet "KVK_PROGRAM=$(readlink -f "$1")" \
		${KVK_SEED:+"KVK_SEED=$KVK_SEED"} ${KVK_SHARED_SECONDS:+"KVK_SHARED_SECONDS=$KVK_SHARED_SECONDS"} </dev/null 2>&1
	exit 0
fi

export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs run /run
mount -t tmpfs world /mnt
mkdir -p "/mnt/modules/lib/modules" /mnt/disk /mnt/a /mnt/b /run/lock
ln -s "/usr/lib/uml/modules/$(uname -r)" "/mnt/modules/lib/modules/$(uname -r)"
for module in nfs nfsv4 nfsd; do
	modprobe -d /mnt/modules $module
done
ip link set lo up
mkfs.ext4 -q -F /dev/ubda
mount /dev/ubda /mnt/disk
mkdir /mnt/disk/export
mount -t nfsd nfsd /proc/fs/nfsd
mount -t tmpfs nfs /var/lib/nfs
mkdir -p /var/lib/nfs/v4recovery /var/lib/nfs/rpc_pipefs
touch /var/lib/nfs/etab /var/lib/nfs/rmtab
mount -t rpc_pipefs pipes /var/lib/nfs/rpc_pipefs
rpc.mountd -N 2 -N 3 --foreground >/dev/null 2>&1 &
rpc.nfsd -N 3 -V 4.2 8
# Two mounts of one kernel are one client, and a server does not recall a client's delegation for what that client does itself: the
# other mount would go on reading what it has. Between machines it does.
echo 0 >/proc/sys/fs/leases-enable
# Nobody had a lock before.
echo Y >/proc/fs/nfsd/v4_end_grace
exportfs -o rw,no_root_squash,fsid=0,insecure,sync 127.0.0.1:/mnt/disk/export
if mount -t nfs4 -o vers=4.2,proto=tcp,nosharecache 127.0.0.1:/ /mnt/a &&
   mount -t nfs4 -o vers=4.2,proto=tcp,nosharecache 127.0.0.1:/ /mnt/b; then
	KVK_SHARED_DIRS=/mnt/a:/mnt/b:/mnt/disk/export "$KVK_PROGRAM"
	echo "shared: status $?"
else
	echo "shared: no mount"
fi
poweroff -f
