#!/bin/busybox sh
# Process 1 of dom0: runs each folder of /guests as a domain, and sends what came of it by the second serial port.
#
# A folder holds `name`, `seconds`, `kernel` and xl's `config`. For each a tar archive is sent, with
#   create    what the domain builder said        hvmctx   processors and platform before the first instruction
#   xenstore  the domain's tree                   console  what it wrote to its PV console ring
#   dmesg     Xen's own log since the creation    end      how it ended, in xl's words: state, reason code
#   hvmctx-end  the same as hvmctx, of a domain that did not end by a power-off
# and before all an archive with `versions`. Xen's log and complaints of this script go to the first serial port.

PATH=/bin:/usr/bin:/usr/lib/xen/bin
export PATH
EXIT_PORT=244 # QEMU's isa-debug-exit
SERIAL=/dev/ttyS1
OUT=/run/out

leave() {
    printf "\\$1" | dd of=/dev/port bs=1 seek=$EXIT_PORT conv=notrunc 2>/dev/null
    poweroff -f
}

fail() {
    echo "oracle: $*"
    leave 2
}

send() {
    tar -c -f - -C "$OUT" "$1" >$SERIAL || fail "sending $1"
}

set_up() {
    mount -t devtmpfs devtmpfs /dev
    mkdir -p /dev/pts
    mount -t devpts devpts /dev/pts
    mount -t proc proc /proc
    mount -t sysfs sysfs /sys
    mount -t tmpfs tmpfs /run
    for module in /modules/*.ko; do
        insmod "$module" || fail "insmod $module"
    done
    mount -t xenfs xenfs /proc/xen || fail "no xenfs"
    mkdir -p /run/xen /run/xenstored /run/lock $OUT /var/lib/xen /var/lib/xenstored /var/log/xen/console
    ln -s /run /var/run
    stty -F $SERIAL raw 115200 || fail "no second serial port"
    xenstored --pid-file /run/xen/xenstored.pid || fail "no xenstored"
    xen-init-dom0 || fail "xen-init-dom0"
    xenconsoled --log=guest --log-dir=/var/log/xen/console --pid-file=/run/xen/xenconsoled.pid || fail "no xenconsoled"
}

# xl's letters: r running, b blocked, p paused, s shut down, c crashed, d dying. Nothing when it is gone.
state() {
    xl list "$1" 2>/dev/null | awk 'NR == 2 { print $5 }'
}

# Wait until the domain $1 shuts down, or for $2 seconds; then stop it.
wait_for_end() {
    limit=$(($(date +%s) + $2))
    while [ "$(date +%s)" -lt $limit ]; do
        case $(state "$1") in
            *[scd]* | '') return ;;
        esac
        usleep 100000
    done
    xl pause "$1"
}

# Run the domain of folder $1; leave what came of it in the current one.
run_domain() {
    read -r name <"$1/name"
    read -r seconds <"$1/seconds"
    xl dmesg -c >/dev/null
    if ! xl -v create -e -p "$1/config" >create 2>&1; then
        xl dmesg -c >dmesg
        return
    fi
    domain=$(xl domid "$name")
    xen-hvmctx "$domain" >hvmctx 2>&1
    xenstore-ls -f "/local/domain/$domain" >xenstore
    xl unpause "$domain"
    wait_for_end "$domain" "$seconds"
    xl list -v "$domain" >end
    if [ "$(awk 'NR == 2 { print $8 }' end)" != 0 ]; then # 0: SHUTDOWN_poweroff; "-": not shut down
        xen-hvmctx "$domain" >hvmctx-end 2>&1
    fi
    cp "/var/log/xen/console/guest-$name.log" console 2>/dev/null
    xl dmesg -c >dmesg
    xl destroy "$domain"
}

set_up
uname -srv >$OUT/versions
send versions
for folder in /guests/*; do
    number=${folder#/guests/}
    mkdir $OUT/"$number" && cd $OUT/"$number" || fail "$folder"
    run_domain "$folder"
    send "$number"
done
leave 0
