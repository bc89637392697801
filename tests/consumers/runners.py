"""What runs files in a program: a process, a page in a browser, or a GPU's driver."""

from __future__ import annotations

import concurrent.futures
import functools
import importlib.metadata
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
from gpu import measure as gpu
from gpu import vulkan
from harness.installed import installed, npm_install
from harness.releases import python_of
from web import packages
from web.browser import BUILDS, LiteRt, Page, chromium

from tflite_export.file import from_bytes

from . import run_consumer
from .measure import Answers
from .programs import Program

# Runs files, and may write into an empty folder.
Runner = Callable[[list[Path], Path], Answers]
_SECONDS = 120  # All files take an interpreter a few.
_TFJS_MODULES = ("@tensorflow/tfjs-core@4.9.0", "@tensorflow/tfjs-backend-cpu@4.9.0")
_TFJS_PAGE = Path(__file__).with_name("tfjs_tflite.html")
# Of `CompiledModel` on a GPU, as `gpu.run_compiled` calls it.
_ACCELERATOR = "gpu"


def runner_of(program: Program, runtimes: Path, web: Path, driver: Path) -> Runner:
    """Installs a program if it is not there yet, and returns what runs files in it.

    Args:
        program: The program.
        runtimes: Folder of the environments of programs.
        web: Folder of what the browser needs.
        driver: Folder of the software Vulkan.

    Raises:
        RuntimeError: If a package cannot be had.
    """
    if program.call == "gpu":
        _check_installed(program)
        environment = vulkan.environment(driver)
        return functools.partial(_by_gpu, environment=environment)
    if program.in_browser:
        folder = web if program.call == "litert_js" else _tfjs(program, runtimes)
        browser = packages.set_up(web)
        return functools.partial(
            _by_browser, call=program.call, modules=folder, web=web, browser=browser
        )
    return functools.partial(
        _by_processes,
        python=python_of(program.release, runtimes),
        program=program,
    )


# --- Python ----------------------------------------------------------------------


def _by_processes(
    files: list[Path], output: Path, python: Path, program: Program
) -> Answers:
    """Returns what a program answers.

    Classifiers may not answer any more after a file that they refuse, or end with it:
    each file is run by a process of its own.
    """
    shares = [[file] for file in files] if program.classifies else [files]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        calls = [
            pool.submit(answer, python, program.call, share, output) for share in shares
        ]
        return {name: one for call in calls for name, one in call.result().items()}


def answer(python: Path, call: str, files: list[Path], output: Path) -> Answers:
    """Returns what a program answers.

    Args:
        python: The Python of the program's environment.
        call: How `run_consumer` calls it.
        files: The `.tflite` files.
        output: An empty folder.
    """
    command = [python, "-I", run_consumer.__file__, call, output, *files]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_SECONDS)
        end = f"the process ended with {done.returncode}"
    except subprocess.TimeoutExpired:
        end = f"no answer within {_SECONDS} seconds"
    answers = {}
    for file in files:
        result = output / f"{file.stem}.npz"
        answers[file.stem] = {"error": np.array(end)}
        if result.exists():
            with np.load(result) as found:
                answers[file.stem] = dict(found)
    return answers


# --- A GPU -------------------------------------------------------------------------


def _check_installed(program: Program) -> None:
    """Checks that this Python has a program's release, since it runs the files."""
    installed = importlib.metadata.version(program.release.package)
    if installed != program.release.version:
        raise RuntimeError(
            f"This Python must have {program.release.requirement}. Received: "
            f"{installed}. Change `programs.PROGRAMS`, or install it."
        )


def _by_gpu(files: list[Path], output: Path, environment: dict[str, str]) -> Answers:
    """Returns what `CompiledModel` answers on a GPU."""
    [folder] = {file.parent for file in files}
    with np.load(files[0].with_suffix(".npz")) as inputs:
        count = len(inputs[inputs.files[0]])
    gpu.run(folder, output, environment, count)
    answers = {}
    for file in files:
        result = output / f"{file.stem}.{_ACCELERATOR}.npz"
        error = result.with_suffix(".error")
        if error.exists():
            answers[file.stem] = {"error": np.array(error.read_text())}
            continue
        with np.load(result) as found:
            answers[file.stem] = dict(found)
    return answers


# --- Browsers ----------------------------------------------------------------------


def _tfjs(program: Program, cache: Path) -> Path:
    """Returns the folder of the packages of tfjs-tflite, which is made if missing."""
    wanted = [program.release.requirement, *_TFJS_MODULES]
    return installed(
        cache / program.release.requirement.replace("/", "_"),
        lambda folder: npm_install(folder, *wanted),
        f"{wanted} must be packages that `npm install` finds.",
        json.dumps(wanted),
    )


def _by_browser(
    files: list[Path], output: Path, call: str, modules: Path, web: Path, browser: Path
) -> Answers:
    """Returns what a library answers in Chromium."""
    with chromium(web, browser) as running:
        if call == "litert_js":
            page: Page = LiteRt(running, modules, next(iter(BUILDS)))
        else:
            packages_of_tfjs = modules / "node_modules/@tensorflow"
            page = Page(running, _TFJS_PAGE, packages_of_tfjs, "")
        return {
            file.stem: _in_page(page, file, by_tensor=call != "litert_js")
            for file in files
        }


def _in_page(page: Page, file: Path, *, by_tensor: bool) -> dict[str, np.ndarray]:
    """Returns what a page answers; its outputs have names of tensors or of ends."""
    content = file.read_bytes()
    graph = from_bytes(content)
    with np.load(file.with_suffix(".npz")) as data:
        inputs = dict(data)
    size = graph.tensors[next(iter(graph.inputs.values()))].shape[0]
    ends = {tensor: end for end, tensor in graph.outputs.items()}
    if by_tensor:
        inputs = {graph.inputs[end]: array for end, array in inputs.items()}
    try:
        found = page.run(content, inputs, size)
    except RuntimeError as error:
        return {"error": np.array(_first_line(str(error)))}
    return {ends[name] if by_tensor else name: x for name, x in found.items()}


def _first_line(message: str) -> str:
    """Returns the message of a page, without the places in its scripts."""
    return message.removeprefix("Page.evaluate: ").partition("\n")[0]
