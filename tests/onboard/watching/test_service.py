from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from edgeslim.onboard.watching.service import Heartbeat, ServiceManager


def received(listener: socket.socket) -> list[str]:
    listener.settimeout(0.2)
    found = []
    while True:
        try:
            found.append(listener.recv(4096).decode())
        except TimeoutError:  # of socket, too, since Python 3.10
            return found


@pytest.mark.parametrize("abstract", [False, True])
def test_notifications_reach_the_service_manager(tmp_path: Path, abstract: bool) -> None:
    name = f"edgeslim-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + name if abstract else str(tmp_path / name))
        address = "@" + name if abstract else str(tmp_path / name)
        service = ServiceManager({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "60000000"})
        service.tell(READY=1)
        service.status("idle")
        service.status("idle")
        service.status("two\nlines")
        service.feed_watchdog()
        service.feed_watchdog()
        service.tell(STOPPING=1)
        assert received(listener) == ["READY=1", "STATUS=idle", "STATUS=two lines", "WATCHDOG=1", "STOPPING=1"]


def test_silent_without_a_service_manager_and_after_it_went(tmp_path: Path) -> None:
    ServiceManager({}).tell(READY=1)
    ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "gone")}).tell(READY=1)


def test_the_watchdog_of_another_process_is_not_fed(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "s"))
        environment = {"NOTIFY_SOCKET": str(tmp_path / "s"), "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"}
        ServiceManager(environment).feed_watchdog()
        assert received(listener) == []


def test_the_heartbeat_is_replaced_whole_and_at_each_change(tmp_path: Path) -> None:
    path = tmp_path / "beat.json"
    heartbeat = Heartbeat(path, 3600)
    heartbeat.beat("idle", {"scene": None})
    first = path.stat().st_ino
    heartbeat.beat("idle", {"scene": None})
    assert path.stat().st_ino == first
    heartbeat.beat("classifying", {"scene": "a.tif"})
    record = json.loads(path.read_text(encoding="utf-8"))
    assert (record["state"], record["scene"], record["beat"], record["pid"]) == ("classifying", "a.tif", 2, os.getpid())
    assert path.stat().st_ino != first
    assert [p.name for p in tmp_path.iterdir()] == ["beat.json"]


def test_a_heartbeat_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    assert not Heartbeat(tmp_path / "nowhere" / "beat.json", 1).beat("idle", {})
    assert Heartbeat(tmp_path / "beat.json", 1).beat("idle", {})
