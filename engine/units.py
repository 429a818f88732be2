"""Amounts of bytes as people read them, never rounded to nothing."""

KIB, MIB, GIB = 2**10, 2**20, 2**30


def megabytes(size: int) -> str:
    """Bytes of files, in kB, MB or GB of a thousand of each other, as disks are told."""
    if size >= 10**9:
        return f"{size / 1e9:,.1f} GB"
    if size >= 10**5 or size == 0:
        return f"{size / 1e6:,.0f} MB" if size >= 10**7 else f"{size / 1e6:,.1f} MB"
    return f"{size / 1e3:,.1f} kB"


def mebibytes(size: int) -> str:
    """Bytes of memory, in KiB, MiB or GiB."""
    if size >= GIB:
        return f"{size / GIB:,.1f} GiB"
    if size >= MIB // 10 or size == 0:
        return f"{size / MIB:,.0f} MiB" if size >= 10 * MIB else f"{size / MIB:,.1f} MiB"
    return f"{size / KIB:,.1f} KiB"
