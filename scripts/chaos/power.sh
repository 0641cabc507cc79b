# Disks whose power can be cut, for scripts/chaos.sh: one for each node, ext4 on a loop device. Owns the mounts. Sourced by it.
#
# ext4's shutdown (EXT4_IOC_SHUTDOWN without a flush of its journal) is what a loss of power does to a file system: what was not
# synced is gone, and nothing can be written any more.
# shellcheck shell=bash

DISK_MIB=1024
# Its request number, and EXT4_GOING_FLAGS_NOLOGFLUSH.
SHUT_DOWN='for (@ARGV) { open(my $f, "<", $_) or die "$_: $!"; my $how = pack("L", 2); ioctl($f, 0x8004587D, $how) or die "$_: $!" }'

DISKS=()
data_dir() { printf '%s/data\n' "$(node_dir "$1")"; }

check_disks() {
    local program
    [ "$(id -u)" = 0 ] || skip 'disks of their own need root'
    for program in mkfs.ext4 mount perl; do
        command -v "$program" >/dev/null || skip "the program $program is missing"
    done
}

# An empty disk as the data directory of node $1.
make_disk() {
    local dir image
    dir=$(data_dir "$1") image=$NODES_DIR/disk-$1.img
    mkdir -p "$dir"
    truncate -s "${DISK_MIB}M" "$image"
    mkfs.ext4 -q -F "$image"
    mount -o loop "$image" "$dir" 2>/dev/null || skip 'a loop device cannot be mounted here'
    DISKS+=("$1")
    # A new node wants an empty directory.
    rmdir "$dir/lost+found"
    sync -f "$dir"
}

# All disks at once.
cut_power() {
    local number dirs=()
    for number in "${DISKS[@]}"; do dirs+=("$(data_dir "$number")"); done
    perl -e "$SHUT_DOWN" "${dirs[@]}"
}

# The power is back: what was synced is there.
mount_disks() {
    local number
    for number in "${DISKS[@]}"; do
        umount "$(data_dir "$number")"
        mount -o loop "$NODES_DIR/disk-$number.img" "$(data_dir "$number")"
    done
}

drop_disks() {
    local number
    for number in "${DISKS[@]}"; do umount "$(data_dir "$number")" || true; done
}
