"""Makes an environment of Triton's perf_analyzer under build/clients/perf-analyzer.

Its binary needs version 2.38 of the C library. On a system with an older one, the packages of
Debian 13 are unpacked beside it, from the mirror that the system uses, and their loader starts it.
"""

import platform
import re
import subprocess
import zipfile
from pathlib import Path

from .environments import FOLDER, REQUIREMENTS, need, run

_WHEEL_PLATFORM = "manylinux_2_38_x86_64"
_C_LIBRARY = (2, 38)
_PACKAGES = ("libc6", "libstdc++6", "libgcc-s1", "libssl3t64", "zlib1g", "libzstd1")
_SOURCES = Path("/etc/apt/sources.list.d/debian.sources")
_HOME = FOLDER / "perf-analyzer"
_PROGRAM = _HOME / "wheel" / "perf_analyzer" / "bin" / "perf_analyzer"
_LIBRARIES = _HOME / "debian" / "usr" / "lib" / "x86_64-linux-gnu"


def perf_analyzer(python: Path) -> list[str]:
    """Return the command of perf_analyzer; `python` has the pip that downloads it."""
    wanted = (REQUIREMENTS / "perf-analyzer.txt").read_text()
    installed = _HOME / "installed"
    if not (installed.is_file() and installed.read_text() == wanted):
        _download(python)
        installed.write_text(wanted)
    if _has_library():
        return [str(_PROGRAM)]
    loader = _LIBRARIES / "ld-linux-x86-64.so.2"
    return [str(loader), "--library-path", str(_LIBRARIES), str(_PROGRAM)]


def _has_library() -> bool:
    name, version = platform.libc_ver()
    return name == "glibc" and tuple(map(int, version.split(".")[:2])) >= _C_LIBRARY


def _download(python: Path) -> None:
    run(python, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:",
        "--platform", _WHEEL_PLATFORM, "--dest", _HOME,
        "--requirement", REQUIREMENTS / "perf-analyzer.txt")  # fmt: skip
    (wheel,) = _HOME.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(_HOME / "wheel")
    _PROGRAM.chmod(0o755)
    if not _has_library():
        _unpack_debian_packages()


def _unpack_debian_packages() -> None:
    """Download packages of Debian 13 with a state of apt's own, and unpack them; install none."""
    apt = _HOME / "apt"
    for folder in ("lists/partial", "cache/archives/partial", "packages"):
        (apt / folder).mkdir(parents=True, exist_ok=True)
    mirror = re.search(r"^URIs: (\S+/debian)$", _SOURCES.read_text(), re.MULTILINE)
    assert mirror is not None, f"expected a mirror of Debian in {_SOURCES}, got none"
    sources, config = apt / "trixie.sources", apt / "apt.conf"
    sources.write_text(
        f"Types: deb\nURIs: {mirror[1]}\nSuites: trixie\nComponents: main\n"
        "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
    )
    config.write_text(
        f'Dir::State::lists "{apt}/lists";\nDir::Cache "{apt}/cache";\n'
        f'Dir::Etc::sourcelist "{sources}";\nDir::Etc::sourceparts "-";\n'
        'Dir::State::status "/dev/null";\nAPT::Sandbox::User "root";\n'
    )
    program = need("apt-get", "apt")
    for arguments in (["update"], ["download", *_PACKAGES]):
        subprocess.run([program, "-q", *arguments], cwd=apt / "packages", check=True,
                       env={"APT_CONFIG": str(config), "PATH": "/usr/bin:/bin"},
                       stdout=subprocess.DEVNULL)  # fmt: skip
    for package in (apt / "packages").glob("*.deb"):
        run(need("dpkg-deb", "dpkg"), "-x", package, _HOME / "debian")
