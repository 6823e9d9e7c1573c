"""Files that are not what their name says, told by their first bytes."""

from __future__ import annotations

#: the first bytes (of texts: in lower case, blanks before them aside) -> what such a file is
_TEXTS = {
    b"version ": "a Git LFS pointer, not the file itself; fetch that with `git lfs pull`",
    b"# xet ve": "a Git Xet pointer, not the file itself; fetch that with `git xet checkout`",
    b"/annex/o": "a git-annex pointer, not the file itself; fetch that with `git annex get`",
    b"<": "a web page (HTML or XML), not the file; was an error or a login saved in its place?",
}
_BINARY = {
    b"GGUF": "a GGUF file, in which the biases have other names; give the model's .safetensors",
    b"GGML": "a GGML file, in which the biases have other names; give the model's .safetensors",
    b"\x89HDF": "an HDF5 file (TensorFlow or Keras); give the model's .safetensors",
    b"\x1f\x8b\x08": "a gzip file; unpack it first",
    b"\x28\xb5\x2f\xfd": "a zstd file; unpack it first",
}
#: how many bytes `foreign` looks at
LOOK = 8


def foreign(first: bytes) -> str | None:
    """What a file is that holds no tensors and no JSON, and what to do; None if it may be ours.

    Args:
        first: its first bytes, `LOOK` of them at least where there are so many.
    """
    first = first[:64]
    for start, what in _BINARY.items():
        if first.startswith(start):
            return what
    text = first.removeprefix(b"\xef\xbb\xbf").lstrip().lower()[:LOOK]
    # A header of 60 bytes begins with "<" too, and goes on with zeros.
    if not text.isascii() or b"\0" in text:
        return None
    return next((what for start, what in _TEXTS.items() if text.startswith(start)), None)
