"""Doctor: what this machine is, as far as Linux, its firmware and the installed libraries tell. Nothing here raises."""
