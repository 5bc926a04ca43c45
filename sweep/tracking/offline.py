"""Offline folders: which are damaged. The format is a LevelDB log with W&B's own header.

A file is the 7 bytes ``:W&B``, 0xBEE1, version 0, then blocks of 32 KiB that hold chunks of
(CRC-32 of type and data, length, type, data); a block's last bytes are zero where no chunk header
fits. https://github.com/google/leveldb/blob/main/doc/log_format.md
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

_HEADER = b":W&B" + struct.pack("<HB", 0xBEE1, 0)
_BLOCK = 32768
_CHUNK = struct.Struct("<IHB")
_FULL, _FIRST, _LAST = 1, 2, 4  # 3 is a middle part


def damaged_folders(folder: Path) -> dict[str, str]:
    """Offline folders that `wandb sync` could not read, with the reason, by path."""
    found = {}
    for path in sorted(folder.glob("offline-run-*")):
        try:
            check_folder(path)
        except (ValueError, OSError) as error:
            found[str(path)] = str(error)
    return found


def check_folder(path: Path) -> None:
    """Raise ``ValueError`` if the folder's one ``.wandb`` file is missing, cut short or changed."""
    if not read_records(path):
        raise ValueError("its log is empty")


def read_records(path: Path) -> list[bytes]:
    """The records in a folder's log, each a serialised ``wandb_internal.Record``.

    Raises:
        ValueError: the log is missing, cut short or changed.
    """
    logs = list(path.glob("*.wandb"))
    if len(logs) != 1:
        raise ValueError(f"holds {len(logs)} .wandb files instead of one")
    data = logs[0].read_bytes()
    if not data.startswith(_HEADER):
        raise ValueError(f"{logs[0].name} does not begin like a W&B log")
    records: list[bytes] = []
    position, begun = len(_HEADER), b""
    while position < len(data):
        if (room := _BLOCK - position % _BLOCK) < _CHUNK.size:
            position += room
            continue
        if position + _CHUNK.size > len(data):
            raise ValueError(f"{logs[0].name} is cut short at byte {position}")
        crc, length, kind = _CHUNK.unpack_from(data, position)
        payload = data[position + _CHUNK.size : position + _CHUNK.size + length]
        if len(payload) < length:
            raise ValueError(f"{logs[0].name} is cut short at byte {position}")
        if zlib.crc32(payload, zlib.crc32(bytes([kind]))) != crc:
            raise ValueError(f"{logs[0].name} is damaged at byte {position}")
        begun = payload if kind in (_FULL, _FIRST) else begun + payload
        if kind in (_FULL, _LAST):
            records.append(begun)
        position += _CHUNK.size + length
    return records
