"""Runs `vela`, Arm's compiler of the Ethos-U, if installed, and reads its results."""

from __future__ import annotations

import csv
import dataclasses
import functools
import shutil
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path

from ..file import CUSTOM, from_bytes
from .tool import last_lines, run_tool

COMMAND = "vela"
INSTALL = "pip install tf-lsq[ethos-u]"
VELA_MISSING = (
    f"{COMMAND} is not installed: only the documented rules of the Ethos-U were "
    f"checked. `{INSTALL}` installs it."
)
_CONFIG = "Arm/vela.ini"  # Comes with Vela.
_KIBI = 1024


@dataclasses.dataclass(frozen=True)
class VelaSettings:
    """What Vela compiles for, in its own words.

    Attributes:
        accelerator: Configuration of the NPU.
        system: Clock and bandwidths.
        memory: What is stored where.
    """

    accelerator: str
    system: str
    memory: str

    def __str__(self) -> str:
        """Returns the options of the command."""
        return (
            f"--accelerator-config {self.accelerator} --config {_CONFIG} "
            f"--system-config {self.system} --memory-mode {self.memory}"
        )


# Constants in flash and tensors in SRAM, as on a microcontroller.
VELA_SETTINGS = {
    name: VelaSettings(name, system, "Shared_Sram")
    for name, system in (
        ("ethos-u55-128", "Ethos_U55_High_End_Embedded"),
        ("ethos-u65-256", "Ethos_U65_Embedded"),
        ("ethos-u85-256", "Ethos_U85_SYS_Flash_High"),
    )
}


@dataclasses.dataclass(frozen=True)
class CompiledFile:
    """A file as Vela compiled it.

    Attributes:
        version: Vela's version.
        settings: What it was compiled for.
        file_bytes: Size of the compiled file, which the device stores.
        weight_bytes: What Vela encoded kernels, biases and scales to.
        flash_bytes: What the NPU reads from flash: weights and other constants.
        sram_bytes: SRAM for the tensors.
        cycles: Vela's estimate of one inference.
        on_cpu: Output -> operator that Vela left to the CPU.
    """

    version: str
    settings: VelaSettings
    file_bytes: int
    weight_bytes: int
    flash_bytes: int
    sram_bytes: int
    cycles: int
    on_cpu: dict[str, str]

    def lines(self, predicted: Collection[str]) -> list[str]:
        """Returns readable lines.

        Args:
            predicted: Outputs of the operators that the rules leave to the CPU.
        """
        lines = [
            f"{f'vela {self.version}':<20} {self.file_bytes} bytes compiled, of them "
            f"{self.weight_bytes} of weights; {self.sram_bytes} bytes of SRAM, "
            f"{self.cycles} cycles, {len(self.on_cpu)} operators on the CPU",
            f"  compiled with      {self.settings}",
        ]
        if set(predicted) == self.on_cpu.keys():
            return lines
        left = [f"`{name}` ({code})" for name, code in self.on_cpu.items()]
        return [
            *lines,
            f"vela leaves to the CPU {', '.join(left) or 'nothing'}; the rules predict "
            f"{', '.join(f'`{name}`' for name in predicted) or 'nothing'}.",
        ]


def find_vela() -> str | None:
    """Returns the path of `vela`, on PATH or beside this Python; None if missing."""
    beside = str(Path(sys.executable).parent)
    return shutil.which(COMMAND) or shutil.which(COMMAND, path=beside)


def check_vela(purpose: str) -> None:
    """Raises an error if `vela` is not installed.

    Args:
        purpose: What needs it, as the start of a sentence.

    Raises:
        RuntimeError: If `vela` is neither on PATH nor beside this Python.
    """
    if find_vela() is None:
        raise RuntimeError(
            f"{purpose} needs {COMMAND}, Arm's compiler. Received: no {COMMAND} on "
            f"PATH. Install it with `{INSTALL}`."
        )


def compile_with_vela(content: bytes, target: str) -> CompiledFile | None:
    """Compiles a file for an Ethos-U in a temporary folder.

    Args:
        content: The bytes of a `.tflite` file.
        target: A key of `VELA_SETTINGS`.

    Returns:
        What the compiled file needs; None if `vela` is not installed.

    Raises:
        RuntimeError: If Vela refuses the file, crashes or does not finish, or if its
            results are not readable.
    """
    command = find_vela()
    if command is None:
        return None
    settings = VELA_SETTINGS[target]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.tflite")
        path.write_bytes(content)
        options = str(settings).split()
        arguments = [command, str(path), *options, "--output-dir", folder]
        done = run_tool(COMMAND, arguments)
        try:
            compiled = Path(folder, "model_vela.tflite").read_bytes()
            [summary] = Path(folder).glob("model_summary_*.csv")
            return _read(compiled, summary.read_text(), settings, _version(command))
        except (OSError, ValueError, KeyError) as error:
            raise RuntimeError(
                f"{COMMAND} must write a compiled file and one summary. Received: "
                f"{error}\n{last_lines(done)}"
            ) from error


@functools.cache
def _version(command: str) -> str:
    """Returns the version of Vela."""
    return run_tool(COMMAND, [command, "--version"]).stdout.strip()


def _read(
    compiled: bytes, summary: str, settings: VelaSettings, version: str
) -> CompiledFile:
    """Reads what Vela wrote.

    Args:
        compiled: The bytes of the compiled file.
        summary: The text of the summary, in CSV with one row.
        settings: What it was compiled for.
        version: Vela's version.
    """
    [row] = csv.DictReader(summary.splitlines())
    flash = float(row["on_chip_flash_memory_used"])
    flash += float(row["off_chip_flash_memory_used"])
    return CompiledFile(
        version,
        settings,
        file_bytes=len(compiled),
        weight_bytes=int(row["total_npu_encoded_weights"]),
        flash_bytes=round(_KIBI * flash),
        sram_bytes=round(_KIBI * float(row["sram_memory_used"])),
        cycles=int(float(row["cycles_total"])),
        # The NPU's part is one operator that TFLite does not have.
        on_cpu={
            op.outputs[0]: op.code
            for op in from_bytes(compiled).ops
            if op.code != CUSTOM
        },
    )
