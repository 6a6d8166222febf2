#!/usr/bin/env python3
"""extract-vmlinux.py BZIMAGE OUT: writes the uncompressed ELF kernel within a Linux x86 boot image.

QEMU boots an ELF kernel directly (PVH); letting an emulated guest unpack it doubles the time to boot. Where the
payload lies is told by the boot protocol (Documentation/arch/x86/boot.rst: setup_sects, payload_offset,
payload_length).
"""
import lzma
import struct
import subprocess
import sys
import zlib

SECTOR = 512


def payload(image: bytes) -> bytes:
    setup_sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    begin = (setup_sectors + 1) * SECTOR + offset
    return image[begin : begin + length]


def unpack(packed: bytes) -> bytes:
    if packed.startswith(b"\xfd7zXZ\0"):
        return lzma.LZMADecompressor().decompress(packed)
    if packed.startswith(b"\x1f\x8b"):
        return zlib.decompressobj(31).decompress(packed)
    for magic, program in ((b"\x28\xb5\x2f\xfd", "zstd"), (b"\x02\x21\x4c\x18", "lz4")):
        if packed.startswith(magic):
            return subprocess.run([program, "-dc"], input=packed, stdout=subprocess.PIPE, check=False).stdout
    sys.exit(f"extract-vmlinux: unknown compression {packed[:6].hex()}")


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    with open(sys.argv[1], "rb") as file:
        kernel = unpack(payload(file.read()))
    if not kernel.startswith(b"\x7fELF"):
        sys.exit(f"extract-vmlinux: {sys.argv[1]} holds no ELF kernel")
    with open(sys.argv[2], "wb") as file:
        file.write(kernel)


if __name__ == "__main__":
    main()
