# Preempts a key with the disk's PERSISTENT RESERVE OUT and reads an area in the next moment: what is there then is all that the
# preempted may ever have written.
#
# usage: pounce.py DISK OWN-KEY VICTIM SERVICE-ACTION AREA-OFFSET AREA-LENGTH (keys and service action in hexadecimal)
#
# Prints the SHA-256 of what it read, then keeps it in the file `seen`.

import ctypes
import fcntl
import hashlib
import mmap
import os
import sys

SG_IO = 0x2285
SG_DXFER_TO_DEV = -2
WRITE_EXCLUSIVE_REGISTRANTS_ONLY = 5


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


disk, own, victim, action, offset, length = sys.argv[1:]
own, victim, action = (int(word, 16) for word in (own, victim, action))
offset, length = int(offset), int(length)

parameters = ctypes.create_string_buffer(own.to_bytes(8, "big") + victim.to_bytes(8, "big") + bytes(8), 24)
command = ctypes.create_string_buffer(bytes([0x5F, action, WRITE_EXCLUSIVE_REGISTRANTS_ONLY, 0, 0, 0, 0, 0, 24, 0]), 10)
sense = ctypes.create_string_buffer(64)
header = Header(
    interface_id=ord("S"), dxfer_direction=SG_DXFER_TO_DEV, cmd_len=10, mx_sb_len=64, dxfer_len=24,
    dxferp=ctypes.addressof(parameters), cmdp=ctypes.addressof(command), sbp=ctypes.addressof(sense), timeout=60000,
)
area = mmap.mmap(-1, length)
area.write(b"\xff" * length)
file = os.open(disk, os.O_RDWR | os.O_DIRECT)

fcntl.ioctl(file, SG_IO, header)
got = os.preadv(file, [area], offset)

if (header.status, header.host_status, header.driver_status) != (0, 0, 0):
    sys.exit(f"status {header.status:#x}, host {header.host_status:#x}, sense {sense.raw[:header.sb_len_wr].hex()}")
if got != length:
    sys.exit(f"read {got} of {length} bytes")
with open("seen", "wb") as seen:
    seen.write(area)
print(hashlib.sha256(area).hexdigest())
