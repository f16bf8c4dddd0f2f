# What a guest does all the time: the worker, and fio that verifies what it writes; until there is a file `stop`. Each leaves a file `*.over` when it ends, and
# `*.failed` if it failed. DISK, NUMBER, PROMISED and COUNTED are set before.

[ -e fences ] || echo 0 > fences
rm -f stop ./*.over ./*.failed

worker() {
    python3 worker.py "$DISK" "$NUMBER" "$PROMISED" "$COUNTED" > worker.log 2>&1 || cp worker.log worker.failed
    echo > worker.over
}

# Runs, reads, writes and flushes of those that ended well, and runs that a fence ended.
verify() {
    local runs=0 reads=0 writes=0 syncs=0 cut=0
    while [ ! -e stop ]; do
        local before after
        before=$(cat fences)
        if fio --name=verified --filename="$DISK" --thread --numjobs=2 --cpus_allowed=0,1 --cpus_allowed_policy=split --ioengine=libaio --iodepth=8 \
            --direct=1 --rw=randwrite --bssplit=512/20:4k/50:16k/20:64k/10 --offset=$(((1 + NUMBER) * 8 + 1))M --offset_increment=2M --size=1M \
            --fsync=32 --verify=crc32c --verify_fatal=1 --verify_backlog=32 --rate_iops=80 --group_reporting > fio.log 2>&1; then
            # shellcheck disable=SC2046
            set -- $(sed -n 's/.*issued rwts: total=\([0-9]*\),\([0-9]*\),[0-9]*,\([0-9]*\).*/\1 \2 \3/p' fio.log)
            runs=$((runs + 1)) reads=$((reads + $1)) writes=$((writes + $2)) syncs=$((syncs + $3))
        else
            after=$(cat fences)
            if grep -q '^verify:' fio.log || [ "$before" = "$after" ] && [ $((before % 2)) = 0 ]; then
                cp fio.log fio.failed
                break
            fi
            cut=$((cut + 1))
        fi
        echo "runs=$runs reads=$reads writes=$writes syncs=$syncs cut=$cut" > fio.told.new
        mv fio.told.new fio.told
        # Nobody is in a hurry while the guest is fenced.
        [ $(($(cat fences) % 2)) = 0 ] || sleep 1
    done
    echo > fio.over
}

(worker) > /dev/null 2>&1 < /dev/null &
(verify) > /dev/null 2>&1 < /dev/null &
until [ -e told ] || [ -e worker.over ]; do sleep 0.1; done
