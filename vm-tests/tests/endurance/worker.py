# Keeps promises and counts, on a disk that several guests share.
#
# usage: worker.py DISK NUMBER PROMISED COUNTED (what this guest's disk was last known to hold: a sequence number, a count)
#
# Promises are sequence numbers that are written to eight blocks of this guest's own, one after another; what was answered with GOOD stays. The count is
# this guest's place in a block in which all guests count, with COMPARE AND WRITE; nobody else changes this place.
#
# It works until there is a file `stop`; `told` says how far it is. The file `fences` holds how often this guest was fenced and let in again: where that is
# odd, commands may end with reservation conflicts, or aborted. Otherwise whatever fails makes it end with a traceback.

import ctypes
import errno
import fcntl
import mmap
import os
import struct
import sys
import time

SG_IO = 0x2285
TO_DEVICE, FROM_DEVICE = -2, -3
GOOD, CHECK_CONDITION, RESERVATION_CONFLICT, TASK_ABORTED = 0x00, 0x02, 0x18, 0x40
DID_OK, DID_ABORT, DID_RESET = 0, 5, 8
UNIT_ATTENTION, MISCOMPARE = 0x6, 0xE

BLOCK = 512
AREA = 8 << 20
PROMISES = 8
GUESTS = 3
COUNTER = struct.Struct(">8sQ3Q")
MAGIC = b"counters"


class Header(ctypes.Structure):
    """struct sg_io_hdr of <scsi/sg.h>."""

    _fields_ = [
        ("interface_id", ctypes.c_int), ("dxfer_direction", ctypes.c_int),
        ("cmd_len", ctypes.c_ubyte), ("mx_sb_len", ctypes.c_ubyte), ("iovec_count", ctypes.c_ushort),
        ("dxfer_len", ctypes.c_uint), ("dxferp", ctypes.c_void_p), ("cmdp", ctypes.c_void_p), ("sbp", ctypes.c_void_p),
        ("timeout", ctypes.c_uint), ("flags", ctypes.c_uint), ("pack_id", ctypes.c_int), ("usr_ptr", ctypes.c_void_p),
        ("status", ctypes.c_ubyte), ("masked_status", ctypes.c_ubyte), ("msg_status", ctypes.c_ubyte), ("sb_len_wr", ctypes.c_ubyte),
        ("host_status", ctypes.c_ushort), ("driver_status", ctypes.c_ushort),
        ("resid", ctypes.c_int), ("duration", ctypes.c_uint), ("info", ctypes.c_uint),
    ]


disk, number, promised, counted = sys.argv[1], *map(int, sys.argv[2:])
file = os.open(disk, os.O_RDWR | os.O_DIRECT)
page = mmap.mmap(-1, BLOCK)
tally = dict.fromkeys("promises swaps races conflicts aborted attentions done_all_the_same pause_ms".split(), 0)
last_good = None


def fences():
    with open("fences") as counter:
        return int(counter.read())


def excused(before):
    """Whether this guest was fenced at some moment since then."""
    return before % 2 == 1 or fences() != before


def good():
    """Notes the longest time without an answer."""
    global last_good
    now = time.monotonic()
    if last_good is not None:
        tally["pause_ms"] = max(tally["pause_ms"], int((now - last_good) * 1000))
    last_good = now


def bad(kind):
    """A fenced guest waits as long as it takes."""
    global last_good
    last_good = None
    tally[kind] += 1
    time.sleep(0.1)


def read(lba):
    if os.preadv(file, [page], lba * BLOCK) != BLOCK:
        sys.exit("a short read")
    return page[:]


def promise(sequence):
    return struct.pack(">QQ", number, sequence) * (BLOCK // 16)


def sequence_in(block):
    who, sequence = struct.unpack_from(">QQ", block)
    if block == bytes(BLOCK):
        return 0
    if who != number or block != promise(sequence):
        sys.exit(f"not a promise of this guest: {block.hex()}")
    return sequence


def place(sequence):
    return (1 + number) * AREA // BLOCK + sequence % PROMISES


def compare_and_write(lba, old, new):
    """What became of it: good, lost (somebody was faster), again (not done), conflict, unknown."""
    data = ctypes.create_string_buffer(old + new, 2 * BLOCK)
    command = ctypes.create_string_buffer(struct.pack(">BBQ3xBxx", 0x89, 0, lba, 1), 16)
    sense = ctypes.create_string_buffer(64)
    header = Header(
        interface_id=ord("S"), dxfer_direction=TO_DEVICE, cmd_len=16, mx_sb_len=64, dxfer_len=2 * BLOCK,
        dxferp=ctypes.addressof(data), cmdp=ctypes.addressof(command), sbp=ctypes.addressof(sense), timeout=600000,
    )
    fcntl.ioctl(file, SG_IO, header)
    key = None
    if header.sb_len_wr:
        key = sense.raw[2] & 0xF if sense.raw[0] & 0x7E == 0x70 else sense.raw[1] & 0xF
    answer = header.host_status, header.status, key
    if answer == (DID_OK, GOOD, None):
        return "good"
    if answer == (DID_OK, CHECK_CONDITION, MISCOMPARE):
        return "lost"
    if answer == (DID_OK, CHECK_CONDITION, UNIT_ATTENTION):
        return "again"
    if answer == (DID_OK, RESERVATION_CONFLICT, None):
        return "conflict"
    if header.host_status in (DID_RESET, DID_ABORT) or header.status == TASK_ABORTED:
        return "reset" if header.host_status == DID_RESET else "unknown"
    sys.exit(f"COMPARE AND WRITE: status {header.status:#x}, host {header.host_status:#x}, sense {sense.raw[:header.sb_len_wr].hex()}")


def tell():
    with open("told.new", "w") as told:
        told.write(f"promised={promised} counted={counted} " + " ".join(f"{name}={value}" for name, value in tally.items()) + "\n")
    os.rename("told.new", "told")


# What may be in each block of the promises; there is more than one only after a write that failed.
held = [set() for _ in range(PROMISES)]
for at in range(PROMISES):
    found = sequence_in(read(place(at)))
    least = max(0, promised - (promised - at) % PROMISES)
    if found < least or found and found % PROMISES != at:
        sys.exit(f"block {at} of the promises has {found}: {promised} had been answered")
    held[at] = {found}
promised = max(max(one) for one in held)


def keep_a_promise():
    global promised
    sequence = promised + 1
    at = sequence % PROMISES
    # Every write may be the last that is answered: what it writes over is what was answered before.
    found = sequence_in(read(place(at)))
    if found not in held[at]:
        sys.exit(f"block {at} of the promises has {found}, not {held[at]}")
    held[at] = {found}
    page[:] = promise(sequence)
    held[at].add(sequence)
    if os.pwritev(file, [page], place(sequence) * BLOCK) != BLOCK:
        sys.exit("a short write")
    held[at] = {sequence}
    promised = sequence
    tally["promises"] += 1
    good()


def parse(block):
    magic, total, *places = COUNTER.unpack_from(block)
    if block == bytes(BLOCK):
        return 0, [0] * GUESTS
    if magic != MAGIC or total != sum(places) or block[COUNTER.size:] != bytes([total % 251]) * (BLOCK - COUNTER.size):
        sys.exit(f"not the counters: {block.hex()}")
    return total, places


def count(sure):
    """One more; `sure` is whether the outcome of the last one is known. Whether it is now."""
    global counted
    before = fences()
    old = read(0)
    total, places = parse(old)
    if not sure and places[number] == counted + 1:
        tally["done_all_the_same"] += 1
        counted += 1
    if places[number] != counted:
        sys.exit(f"counted {counted}, but the disk says {places[number]}")
    places[number] += 1
    new = COUNTER.pack(MAGIC, total + 1, *places) + bytes([(total + 1) % 251]) * (BLOCK - COUNTER.size)
    outcome = compare_and_write(0, old, new)
    if outcome == "good":
        counted += 1
        tally["swaps"] += 1
        good()
    elif outcome == "lost":
        tally["races"] += 1
        good()
    elif outcome == "again":
        tally["attentions"] += 1
    elif outcome == "reset":
        tally["aborted"] += 1
        return False
    elif not excused(before):
        sys.exit(f"COMPARE AND WRITE: {outcome}, but this guest was not fenced")
    else:
        bad("conflicts" if outcome == "conflict" else "aborted")
        return outcome == "conflict"
    return True


def unless_fenced(step, otherwise):
    """What the step returns, or that if this guest was fenced meanwhile."""
    before = fences()
    try:
        return step()
    except OSError as error:
        if error.errno not in (errno.EBADE, errno.EIO) or not excused(before):
            raise
        bad("conflicts" if error.errno == errno.EBADE else "aborted")
        return otherwise


found = parse(read(0))[1][number]
if found < counted:
    sys.exit(f"the disk says {found}: {counted} had been counted")
counted = found
sure = True
while True:
    stopping = os.path.exists("stop")
    if not stopping:
        unless_fenced(keep_a_promise, None)
    if not stopping or not sure:
        sure = unless_fenced(lambda: count(sure), sure)
    tell()
    if stopping and sure:
        break
    time.sleep(0.02)
