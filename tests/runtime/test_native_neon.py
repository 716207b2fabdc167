"""Every task of every family and weight type has the same bits with NEON, emulated by QEMU.

apt-get install gcc-aarch64-linux-gnu qemu-user-static
"""

import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest

from .conftest import SETS

DRIVER, BUILD = Path(__file__).with_name("same_bits.c"), Path("native") / "build.py"
COMPILER, EMULATOR = "aarch64-linux-gnu-gcc", "qemu-aarch64-static"


def load_build():
    spec = importlib.util.spec_from_file_location("native_build", BUILD)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def printed(folder, compiler, machine, command, sets):
    """The lines that the driver prints with each instruction set of a machine."""
    folder.mkdir()
    load_build().build(folder / "libhsoftmax.so", compiler=compiler, machine=machine)
    program = folder / "same_bits"
    flags = ["-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", f"-I{folder}", f"-L{folder}"]
    linked = ["-lhsoftmax", f"-Wl,-rpath,{folder}"]
    subprocess.run([compiler, *flags, DRIVER, "-o", program, *linked], check=True)
    return [
        subprocess.run([*command, program, name], check=True, capture_output=True, text=True).stdout
        for name in sets
    ]


@pytest.mark.slow
@pytest.mark.skipif(
    not shutil.which(COMPILER) or not shutil.which(EMULATOR), reason="no compiler or QEMU for ARM"
)
@pytest.mark.skipif("neon" in SETS, reason="this machine is the one to be emulated")
def test_neon_has_the_bits_of_this_machine(tmp_path):
    here = printed(tmp_path / "x86", "gcc", "x86_64", [], SETS)
    emulator = [EMULATOR, "-L", "/usr/aarch64-linux-gnu"]
    neon = printed(tmp_path / "arm", COMPILER, "aarch64", emulator, ["neon"])
    assert here[0].count("status 0") == 52
    for lines in (*here, *neon):
        assert lines == here[0]
