"""The venv with transformers that parity.py and bench.py compare with. Made once, in the cache.

PyTorch's Linux wheel links CUDA libraries of several GB that no CPU run calls. `stub_cuda` puts
empty stand-ins in their place, so that the wheel alone suffices.
"""

import os
import pathlib
import re
import subprocess
import sys
import venv

PACKAGES = ["transformers==5.17.*", "gguf==0.18.*", "numpy", "filelock", "typing-extensions",
            "sympy", "networkx", "jinja2", "fsspec", "psutil"]
WITHOUT_DEPENDENCIES = ["torch==2.11.0", "nvidia-cuda-runtime==13.0.96",
                        "nvidia-cuda-cupti==13.0.85", "accelerate==1.*"]
ABSENT = ["libcublas.so.13", "libcublasLt.so.13", "libcudnn.so.9", "libcufft.so.12",
          "libcufile.so.0", "libcurand.so.10", "libcusolver.so.12", "libcusparse.so.12",
          "libcusparseLt.so.0", "libnccl.so.2", "libnvrtc.so.13", "libnvshmem_host.so.3"]

ROOT = pathlib.Path(__file__).resolve().parents[2]


def cache() -> pathlib.Path:
    if chosen := os.environ.get("ASSAY_CACHE"):
        return pathlib.Path(chosen)
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(home) / "assay"


def model() -> pathlib.Path:
    """The GGUF, fetched when it is not there."""
    script = ROOT / "scripts/fetch-model.sh"
    return pathlib.Path(subprocess.check_output([script], text=True).strip())


def ours(*target: str, stdin: str) -> str:
    """What a program of ours prints: `target` says which, and its arguments, as cargo wants it."""
    command = ["cargo", "run", "--quiet", "--release", "-p", "assay-trainer", *map(str, target)]
    return subprocess.run(command, input=stdin, text=True, check=True, stdout=subprocess.PIPE,
                          cwd=ROOT).stdout


def enter() -> None:
    """Goes on in the venv: makes it when it is not there, and starts this program again in it."""
    folder = cache() / "oracle-venv"
    python = folder / "bin/python"
    if pathlib.Path(sys.prefix) == folder:
        return
    done = folder / ".complete"
    if not done.exists():
        print(f"making the oracle's venv in {folder} (once)", file=sys.stderr)
        venv.create(folder, with_pip=True, clear=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.check_call([*pip, "--no-deps", *WITHOUT_DEPENDENCIES])
        subprocess.check_call([*pip, *PACKAGES])
        stub_cuda(next(folder.glob("lib/python3*/site-packages/torch/lib")))
        done.touch()
    os.execv(python, [python, *sys.argv])


def stub_cuda(folder: pathlib.Path) -> None:
    """Defines every symbol of the absent libraries as a null word, in one library that empty
    libraries with the wanted names depend on."""
    libraries = [*folder.glob("libtorch_*.so"), *folder.glob("libcaffe2_nvrtc.so")]
    listing = subprocess.check_output(["nm", "-D", "--undefined-only", *libraries], text=True)
    pattern = r" U ((?:cublas|cudnn|cufft|cuFile|curand|cusolver|cusparse|p?nccl|nvrtc|nvshmem)\w*)"
    source = "".join(f"void *{name};\n" for name in sorted(set(re.findall(pattern, listing))))
    cc = ["cc", "-shared", "-fPIC", "-x", "c", "-"]
    stubs = folder / "libstubs.so"
    stubs.unlink(missing_ok=True)
    subprocess.run([*cc, "-Wl,-soname,libstubs.so", "-o", stubs], input=source, text=True, check=True)
    for name in ABSENT:
        subprocess.run(
            [*cc, f"-Wl,-soname,{name}", "-Wl,--no-as-needed", f"-L{folder}", "-x", "none", "-lstubs",
             "-Wl,-rpath,$ORIGIN", "-o", folder / name],
            input="", text=True, check=True)
