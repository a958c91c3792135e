"""Machines as files: what Linux tells on a Raspberry Pi 5, a Jetson Orin Nano, an RK3588S and in a small container."""

from __future__ import annotations

from pathlib import Path

Files = dict[str, str]


def arm_cpuinfo(parts: list[str], features: str) -> str:
    return "\n".join(
        f"processor\t: {core}\nBogoMIPS\t: 108.00\nFeatures\t: {features}\nCPU implementer\t: 0x41\n"
        f"CPU architecture: 8\nCPU variant\t: 0x4\nCPU part\t: {part}\nCPU revision\t: 1\n"
        for core, part in enumerate(parts)
    )


def policy(number: int, cores: str, governor: str, low: int, high: int, now: int, hardware: int, driver: str) -> Files:
    folder = f"sys/devices/system/cpu/cpufreq/policy{number}"
    files = {
        f"{folder}/affected_cpus": cores,
        f"{folder}/scaling_governor": governor,
        f"{folder}/scaling_driver": driver,
        f"{folder}/scaling_min_freq": str(low),
        f"{folder}/scaling_max_freq": str(high),
        f"{folder}/scaling_cur_freq": str(now),
        f"{folder}/cpuinfo_max_freq": str(hardware),
    }
    files |= {f"sys/devices/system/cpu/cpu{core}/cpufreq/cpuinfo_max_freq": str(hardware) for core in cores.split()}
    return files


_A76 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
RASPBERRY_PI_5: Files = {
    "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
    "proc/device-tree/serial-number": "deadbeef01234567\0",
    "etc/hostname": "pi-in-the-sky\n",
    "proc/sys/kernel/arch": "aarch64\n",
    "proc/sys/kernel/osrelease": "6.12.25+rpt-rpi-2712\n",
    "etc/os-release": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nNAME="Debian GNU/Linux"\n',
    "proc/cpuinfo": arm_cpuinfo(["0xd0b"] * 4, _A76) + "\nSerial\t\t: deadbeef01234567\nModel\t: Raspberry Pi 5\n",
    "proc/meminfo": "MemTotal:        8254320 kB\nMemAvailable:    7340032 kB\nSwapTotal: 524272 kB\n",
    "proc/self/status": "Name:\tpython\nCpus_allowed:\tf\nCpus_allowed_list:\t0-3\n",
    "proc/self/cgroup": "0::/user.slice/user-1000.slice/session-1.scope\n",
    "proc/1/cgroup": "0::/init.scope\n",
    "sys/fs/cgroup/user.slice/memory.max": "max\n",
    "sys/devices/system/cpu/present": "0-3\n",
    "sys/devices/system/cpu/online": "0-3\n",
    **policy(0, "0 1 2 3", "ondemand", 1500000, 2400000, 1500000, 2400000, "cpufreq-dt"),
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "61200\n",
    "sys/class/thermal/thermal_zone0/trip_point_0_type": "critical\n",
    "sys/class/thermal/thermal_zone0/trip_point_0_temp": "110000\n",
    "sys/class/thermal/cooling_device0/type": "pwm-fan\n",
    "sys/class/thermal/cooling_device0/cur_state": "2\n",
    "sys/devices/platform/soc/soc:firmware/get_throttled": "50005\n",
}

_A78 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp uscat ilrcpc"
JETSON_ORIN_NANO: Files = {
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
    "proc/sys/kernel/osrelease": "5.15.148-tegra\n",
    "etc/os-release": 'PRETTY_NAME="Ubuntu 22.04.5 LTS"\n',
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n",
    "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=15W >\nCPU_ONLINE CORE_0 1\n< POWER_MODEL ID=1 NAME=7W >\n",
    "var/lib/nvpmodel/status": "pmode:0001\n",
    "proc/cpuinfo": arm_cpuinfo(["0xd42"] * 4, _A78),
    "proc/meminfo": "MemTotal:        7802144 kB\nMemAvailable:    6100000 kB\nSwapTotal: 3901056 kB\n",
    "proc/self/status": "Cpus_allowed_list:\t0-3\n",
    "sys/devices/system/cpu/present": "0-5\n",
    "sys/devices/system/cpu/online": "0-3\n",
    **policy(0, "0 1 2 3", "schedutil", 729600, 960000, 729600, 1510400, "tegra194"),
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "99500\n",
    "sys/class/thermal/thermal_zone0/trip_point_1_type": "passive\n",
    "sys/class/thermal/thermal_zone0/trip_point_1_temp": "99000\n",
    "sys/class/thermal/thermal_zone1/type": "cv0-thermal\n",
    "sys/class/thermal/thermal_zone1/temp": "-256000\n",
    "sys/class/thermal/cooling_device1/type": "cpufreq-cpu0\n",
    "sys/class/thermal/cooling_device1/cur_state": "3\n",
}

_X86 = "fpu sse sse2 avx avx2 fma f16c hypervisor avx512f avx512_vnni"
SMALL_CONTAINER: Files = {
    "sys/class/dmi/id/sys_vendor": "Dell Inc.\n",
    "sys/class/dmi/id/product_name": "PowerEdge R650\n",
    "sys/class/dmi/id/product_serial": "SECRET-7\n",
    "proc/sys/kernel/arch": "x86_64\n",
    "proc/sys/kernel/osrelease": "6.8.0-45-generic\n",
    "etc/os-release": 'PRETTY_NAME="Alpine Linux v3.20"\n',
    "proc/cpuinfo": "".join(
        f"processor\t: {core}\nmodel name\t: Intel(R) Xeon(R) Gold 6338 CPU @ 2.00GHz\nflags\t\t: {_X86}\n\n"
        for core in range(64)
    ),
    "proc/meminfo": "MemTotal:       131072000 kB\nMemAvailable:   100000000 kB\nSwapTotal: 0 kB\n",
    "proc/self/status": "Cpus_allowed_list:\t0-15,32-47\n",
    "proc/self/cgroup": "0::/\n",
    ".dockerenv": "",
    "sys/fs/cgroup/memory.max": "268435456\n",
    "sys/fs/cgroup/cpu.max": "50000 100000\n",
    "sys/devices/system/cpu/present": "0-63\n",
    "sys/devices/system/cpu/online": "0-63\n",
    "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "0\n",
    "sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count": "12\n",
}

OLD_CONTAINER: Files = {
    **{name: text for name, text in SMALL_CONTAINER.items() if "fs/cgroup" not in name},
    "proc/self/cgroup": "9:memory:/docker/0123abc\n4:cpu,cpuacct:/docker/0123abc\n1:name=systemd:/docker/0123abc\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": "536870912\n",
    "sys/fs/cgroup/memory/docker/memory.limit_in_bytes": "9223372036854771712\n",
    "sys/fs/cgroup/cpu,cpuacct/docker/0123abc/cpu.cfs_quota_us": "150000\n",
    "sys/fs/cgroup/cpu,cpuacct/docker/0123abc/cpu.cfs_period_us": "100000\n",
}
"""The same under version 1, whose groups were mounted without a namespace."""

KHADAS_EDGE2: Files = {
    "sys/firmware/devicetree/base/model": "Khadas Edge2\0",
    "proc/cpuinfo": arm_cpuinfo(["0xd05"] * 4 + ["0xd0b"] * 4, _A76),
    "proc/meminfo": "MemTotal:       16213108 kB\n",
    **policy(0, "0 1 2 3", "powersave", 408000, 1800000, 408000, 1800000, "cpufreq-dt"),
    **policy(4, "4 5", "powersave", 408000, 2400000, 408000, 2400000, "cpufreq-dt"),
    **policy(6, "6 7", "powersave", 408000, 2400000, 408000, 2400000, "cpufreq-dt"),
}
"""Two kinds of core, and a board that no card is of."""

ALL = {
    "raspberry-pi-5": RASPBERRY_PI_5,
    "jetson-orin-nano": JETSON_ORIN_NANO,
    "small-container": SMALL_CONTAINER,
    "khadas-edge2": KHADAS_EDGE2,
}


def write(files: Files, root: Path) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
    return root
