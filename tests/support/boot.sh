# Makes a machine of namespaces, and becomes its systemd. `boot.rs` runs this with bash as the first process of new
# process, mount, cgroup, uts and ipc namespaces; $@ are units that are not to be there.
set -eu
umask 022

# All that is written goes into memory, and with the namespace: the machine's own files lie below, unchanged.
mount -t tmpfs -o mode=755 boot /run
mkdir -p /run/upper/etc/systemd/system /run/work /run/root
: >/run/upper/etc/fstab
: >/run/upper/etc/crypttab
tr -d - </proc/sys/kernel/random/uuid >/run/upper/etc/machine-id
mount -t overlay -o lowerdir=/,upperdir=/run/upper,workdir=/run/work boot /run/root
cd /run/root

# What the machine has enabled or installed of its own is no part of a test.
rm -rf ./etc/systemd/system/* ./etc/systemd/user/* ./etc/rc?.d/* ./var/log/journal
# Kept journals are the usual thing, and without them people have none of their own.
mkdir -p ./var/log/journal
rm -rf ./etc/reimagined ./srv/reimagine ./var/lib/reimagined ./usr/local/bin/reimagined ./usr/bin/reimagined
for unit in "$@"; do ln -s /dev/null "./etc/systemd/system/$unit"; done

# What the kernel shows is shown, but not to be changed: it is the machine's, too.
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
for dir in dev run; do mount -t tmpfs -o mode=755 boot "$dir"; done
mount -t tmpfs -o mode=1777 boot tmp
mkdir dev/pts dev/shm dev/mqueue
for node in null:3 zero:5 full:7 random:8 urandom:9; do mknod -m 666 "dev/${node%:*}" c 1 "${node#*:}"; done
mknod -m 666 dev/tty c 5 0
mount -t devpts -o newinstance,ptmxmode=666,mode=620,gid=5 devpts dev/pts
mount -t tmpfs -o mode=1777 boot dev/shm
mount -t mqueue mqueue dev/mqueue
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
for n in 0:stdin 1:stdout 2:stderr; do ln -s "fd/${n%:*}" "dev/${n#*:}"; done

pivot_root . mnt
cd /
umount -l mnt
mount --make-rshared /

# "lxc" tells systemd that this is a container. What could reach the machine is given up for good.
exec env -i container=lxc PATH="$PATH" \
    setpriv --bounding-set=-sys_module,-sys_rawio,-sys_time,-syslog,-audit_control,-audit_read \
    /lib/systemd/systemd --system --unit=multi-user.target --log-target=journal
