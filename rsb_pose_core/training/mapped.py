"""Large arrays of .npz files, left on disk: the system keeps of them what is used and fits.

Processes that read the same file share its pages, and loading takes no time.
"""

import struct
import zipfile
from pathlib import Path

import numpy as np

LOCAL_HEADER = 30  # bytes before an entry's name; the lengths of name and extra field end it


def mapped_array(path: str | Path, name: str) -> np.ndarray:
    """Array `name` of an .npz that np.savez wrote, mapped read-only; a compressed one is read.

    Raises KeyError where there is none, and what zipfile and NumPy raise for damaged files.
    """
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo(f'{name}.npy')
    if entry.compress_type == zipfile.ZIP_STORED:
        with open(path, 'rb') as file:
            file.seek(entry.header_offset)
            lengths = struct.unpack('<HH', file.read(LOCAL_HEADER)[-4:])
            file.seek(entry.header_offset + LOCAL_HEADER + sum(lengths))
            if np.lib.format.read_magic(file) == (1, 0):
                shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
                order = 'F' if fortran else 'C'
                return np.memmap(path, dtype, 'r', file.tell(), shape, order)  # type: ignore[call-overload, no-any-return]
    with np.load(path) as archive:
        return np.asarray(archive[name])
