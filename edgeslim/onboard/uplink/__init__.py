"""Uplink: a new artifact brought to a computer that is out of reach, over a link of kilobytes.

packed     an xz stream written the same every time, and read with suspicion
bundle     an artifact as one archive
matching   which bytes of a new file the old one has already
delta      what changed between two artifacts
place      the folder that an artifact stands in, and how another takes its place
apply      bundle or delta -> proven -> in place; and back
"""
