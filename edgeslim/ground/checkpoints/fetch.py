"""Fetch: a checkpoint from a hub into the user's cache folder. Only ever because a person asked for it."""

from __future__ import annotations

import contextlib
import socket
import sys
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

import torch.hub

from edgeslim.errors import InputError
from edgeslim.families.hub import Asked
from edgeslim.ground.checkpoints.checkpoint import shapes_of

_SILENT_S = 60.0
"""After which a server that says nothing is given up."""


def fetch(asked: Asked) -> Path:
    """Fetch a checkpoint, whole or not at all, and return where it lies; one that lies there is looked at, and kept.

    Its SHA-256 must begin as the hub's card says, where it says, and it must be a checkpoint. Raises InputError where
    it cannot be fetched, is another file, or the folder cannot be written.
    """
    path, file = asked.path, asked.file
    if path.is_file():
        shapes_of(path)
        return path
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_SILENT_S)
    part = path.with_name(f".{path.stem}.part{path.suffix}")  # the suffix says how it is read
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(file.url, str(part), file.sha256 or None, progress=sys.stderr.isatty())
        shapes_of(part)
        part.replace(path)
    except HTTPError as error:
        raise InputError(
            f"{asked.name}: found {error.code} {error.reason} at {file.url}, expected a file; is the name right?"
        ) from None
    except (URLError, TimeoutError, ConnectionError) as error:
        host, reason = urlsplit(file.url).hostname, getattr(error, "reason", error)
        raise InputError(
            f"{asked.name}: {host} cannot be reached ({reason}); fetch {file.url} where there is a network, and give "
            "the file's path instead"
        ) from None
    except HTTPException as error:
        raise InputError(f"{asked.name}: the transfer broke off ({error}), kept nothing; try again") from None
    except RuntimeError as error:  # torch.hub's word for another hash
        raise InputError(f"{asked.name}: found another file than the card's ({error}), kept none; try again") from None
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror}); set XDG_CACHE_HOME to a folder that can"
        ) from None
    finally:
        socket.setdefaulttimeout(before)
        with contextlib.suppress(OSError):  # where it could not be made it cannot be there
            part.unlink()
    return path
