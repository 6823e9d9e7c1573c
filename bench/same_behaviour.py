"""Show that two commits behave alike: the same commands in both, all that they leave compared.

    python bench/same_behaviour.py OLD NEW [--data DIR] [--keep DIR] [--only NAME,...]

Both run in a folder of the same path, by the command line alone, since internals may move. Exit
codes, stdout, stderr and every file have to be equal to the bit, times apart; of help texts the
options alone. Exit code 1 if anything differs. The cases stand in same_behaviour.txt.
"""

from __future__ import annotations

import argparse
import csv
import difflib
import fnmatch
import hashlib
import inspect
import json
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version
from itertools import zip_longest
from pathlib import Path
from string import Template
from typing import Any

#: What differs by nature: these keys of JSON (crc32 and log_bytes are in a run's state, and cover
#: times), the speed in a line of progress and the date in a card, these columns of tables; CSV's
#: columns that end in _seconds.
TIMES = re.compile(
    r'("\w*(?:seconds|examples_per_second|crc32|log_bytes|started|ended|peak_memory_mib)": ?)'
    r'("\d[\dT:+-]*"|[\w.+-]+)'
)
SPEED = re.compile(r"\d+(?: examples/s\b|-\d\d-\d\d\b)")
COLUMNS = re.compile(r"(?:train s|examples/s)\b")

FAMILIES = "bert roberta electra deberta deberta-v2 gpt2 gpt_neox bloom falcon opt qwen2 bart vit"
SIZES = """hidden_size=24 num_hidden_layers=2 num_attention_heads=3 intermediate_size=40
pad_token_id=0 max_position_embeddings=40 encoder_layers=2 decoder_layers=2 encoder_ffn_dim=40
encoder_attention_heads=3 decoder_attention_heads=3 decoder_ffn_dim=40"""
WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] good bad nice awful film plot the a was not very and but"
FILES = {
    "empty.jsonl": "",
    "broken.safetensors": "no such thing",
    "broken.yaml": "lr: [1\n",
    "list.yaml": "- lr\n",
    "key.yaml": "model: bert\ntrain_file: train.jsonl\nlearning_rate: 3\n",
    "own.toml": '[[layout]]\nname = "own"\nq = "attention.self.key"\nk = "attention.self.query"\n',
    "foreign/thesis.txt": "precious\n",
    "matplotlibrc": "svg.hashsalt: same\n",  # score --plot sets none, and names parts at random
}


def cases(data: Path | None) -> dict[str, list[str]]:
    """The commands of each case; none where it needs data that is not there."""
    short = {"families": FAMILIES.replace(" ", "|")}
    found: dict[str, list[str]] = {}
    text = Path(__file__).with_suffix(".txt").read_text(encoding="utf-8")
    for line in text.replace("\\\n", "").splitlines():
        while line != (line := Template(line).safe_substitute(short)):
            pass
        if name := re.match(r"(\w+) = ", line):
            short[name[1]] = line[name.end() :]
        elif line.startswith("["):
            lines = found.setdefault(line[1:-1], [])
        elif not line.startswith("#"):
            group = re.search(r"\{([^{}]*)\}", line) or [line, line]
            every = [line.replace(group[0], one) for one in group[1].split("|")]
            lines += [Template(one).safe_substitute(data=data or "$data") for one in every]
    return {name: [] if "$data" in str(lines) else lines for name, lines in found.items()}


def make_inputs(folder: Path) -> None:
    """Tiny random models of several families, each with a descendant, and data of three kinds."""
    import torch
    import transformers

    transformers.logging.disable_progress_bar()
    words = WORDS.split()
    sizes = {name: int(size) for name, size in (one.split("=") for one in SIZES.split())}
    tokenizer = transformers.BertTokenizer(vocab={word: n for n, word in enumerate(words)})
    for family in FAMILIES.split():
        torch.manual_seed(0)
        config = transformers.AutoConfig.for_model(family, vocab_size=len(words), **sizes)
        model = transformers.AutoModel.from_config(config)
        for name in (family, f"{family}-post"):  # other biases each time
            for parameter in (p.data for n, p in model.named_parameters() if "bias" in n):
                parameter += 0.1 * torch.randn_like(parameter)
            model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / family)
    rng, files = random.Random(0), dict(FILES)
    texts = [" ".join(rng.choices(words[5:], k=1 + n % 8)) for n in range(91)]
    ends = rng.choices(["bad", "good"], k=91)
    rows = [f'{{"text": "{a} {b}", "label": "{b}"}}' for a, b in zip(texts, ends, strict=True)]
    files |= {"train.jsonl": "\n".join(rows[:60]), "dev.jsonl": "\n".join(rows[60:])}
    pairs = [*zip(texts[:24], texts[24:48], strict=True)]
    rows = [f'{{"a": "{a}", "b": "{b}", "score": {n / 7}}}' for n, (a, b) in enumerate(pairs)]
    files["values.jsonl"] = "\n".join(rows)
    rows = [f"{a},{b},{'xyz'[n % 3]}" for n, (a, b) in enumerate(pairs)]
    files["pairs.csv"] = "\n".join(["first,second,kind", *rows])
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)


def export(revision: str, code: Path) -> None:
    """Put a commit's tree, or the working tree as it is, into a folder."""
    top = subprocess.check_output(["git", "rev-parse", "--show-toplevel"], text=True).strip()
    shutil.rmtree(code, ignore_errors=True)
    code.mkdir(parents=True)
    if revision != ".":
        tree = subprocess.check_output(["git", "-C", top, "archive", revision])
        subprocess.run(["tar", "-x", "-C", code], input=tree, check=True)
        return
    listing = ["git", "-C", top, "ls-files", "-coz", "--exclude-standard"]
    for name in subprocess.check_output(listing, text=True).rstrip("\0").split("\0"):
        if Path(top, name).is_file():  # else it is deleted, and that not yet committed
            (code / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(Path(top, name), code / name)


def start(place: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
    """Python on the code of the side whose turn it is: one thread, no network, one width."""
    environment = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    environment |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": f"{place}/hub"}
    code = f"{place}/code{os.pathsep}{place}/code/kernels"
    environment |= {"COLUMNS": "100", "LANG": "C.UTF-8", "PYTHONPATH": code}
    rest: Any = {"stdin": subprocess.DEVNULL, "capture_output": True, "env": environment}
    return subprocess.run([sys.executable, *words], cwd=place / "work", timeout=900, **rest)


def run_case(lines: list[str], place: Path, result: Path) -> None:
    """Run the lines in a fresh folder; what they say and leave goes to ``result``."""
    work, ran = place / "work", result / "commands"
    shutil.rmtree(work, ignore_errors=True)
    shutil.rmtree(result, ignore_errors=True)
    shutil.copytree(place / "inputs", work)
    ran.mkdir(parents=True)
    for number, line in enumerate(lines):
        words = shlex.split(line)
        if words[:1] == ["rm"]:
            for path in (work / word for word in words[1:]):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            continue
        done = start(place, "-m", "beftkit", *words)
        (ran / f"{number:02}.exit").write_text(str(done.returncode))
        (ran / f"{number:02}.stdout").write_bytes(done.stdout)
        (ran / f"{number:02}.stderr").write_bytes(done.stderr)
    work.rename(result / "files")


def masked(text: str) -> str:
    """The text without times."""
    lines = SPEED.sub("0 examples/s", TIMES.sub(r"\1 0", text)).split("\n")
    if re.match(r"[\w,]*_seconds", lines[0]):
        timed = [name.endswith("_seconds") for name in lines[0].split(",")]
        for number, row in enumerate(csv.reader(lines[1:-1]), 1):
            lines[number] = str([cell for cell, time in zip(row, timed, strict=True) if not time])
    heading = ""  # of the table that a line is in, where that has a column of times
    for number, line in enumerate(lines):
        if COLUMNS.search(line):
            heading = line
        elif not line or line.startswith("</tbody>"):
            heading = ""
        elif heading.startswith(("|", "<")):
            cells, heads = (re.split(r"\||<t[hd]\b", one) for one in (line, heading))
            both = zip_longest(cells, heads, fillvalue="")
            lines[number] = "|".join(cell for cell, head in both if not COLUMNS.search(head))
        else:
            for found in COLUMNS.finditer(heading):  # a number ends where its heading ends
                begin, end = found.span()
                lines[number] = line = f"{line[:begin]:{begin}}{'-' * (end - begin)}{line[end:]}"
    return "\n".join(lines)


def plain(raw: bytes) -> str:
    """What has to be equal: text without times, and a hash of bytes that are none."""
    if raw[8:9] == b"{" and b'"crc32"' in raw:  # a run's state: its header is in no fixed order
        return json.dumps(document(raw))
    try:
        return masked(raw.decode())
    except UnicodeDecodeError:
        return f"{len(raw)} bytes, sha256 {hashlib.sha256(raw).hexdigest()}"


def document(raw: bytes) -> Any:
    """What can be told apart key by key: tensors, JSON, JSON lines; numbers as they are written."""
    end, text = 8 + int.from_bytes(raw[:8], "little"), ""
    if raw[8:9] == b"{" and end <= len(raw):  # safetensors
        found = json.loads(raw[8:end])
        said = sorted(found.pop("__metadata__", {}).items())
        for tensor in found.values():
            begin, stop = (end + offset for offset in tensor["data_offsets"])
            tensor["sha256"] = hashlib.sha256(raw[begin:stop]).hexdigest()
        found |= {key: json.loads(value) if value[0] == "{" else value for key, value in said}
        text = json.dumps(found)
    text = masked(text or raw.decode())
    as_written: Any = {"parse_float": str, "parse_int": str}
    try:
        return json.loads(text, **as_written)
    except ValueError:
        return [json.loads(line, **as_written) for line in text.splitlines()]


def gaps(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """Where two documents differ, key by key."""
    if isinstance(old, dict) and isinstance(new, dict):
        if [*old] != [*new] and {*old} == {*new}:
            yield f"{path} has its keys in another order"
        for key in {**old, **new}:
            yield from gaps(old.get(key, "nothing"), new.get(key, "nothing"), f"{path}.{key}")
    elif isinstance(old, list) and isinstance(new, list):
        for n, (one, other) in enumerate(zip_longest(old, new, fillvalue="nothing")):
            yield from gaps(one, other, f"{path}[{n}]")
    elif old != new:
        old, new = str(old), str(new)
        unlike = (n for n, (a, b) in enumerate(zip(old, new, strict=False)) if a != b)
        begin = max(0, next(unlike, 0) - 60)
        yield f"{path}: {old[begin:][:120]} -> {new[begin:][:120]}"


def differences(old: bytes, new: bytes) -> list[str]:
    """Where two outputs or files differ, times apart."""
    one, other = plain(old), plain(new)
    if one == other:
        return []
    try:
        found = [*gaps(document(old), document(new))]
    except ValueError:
        found = []
    lines = [*difflib.unified_diff(one.split("\n"), other.split("\n"), n=0, lineterm="")][2:]
    gone, come = ([line[1:] for line in lines if line[0] == sign] for sign in "-+")
    return found or [*gaps(gone, come)]


def listed_options(text: str) -> str:
    """The names of the options that a help text lists, each on a line."""
    heads = re.findall(r"^ {2,4}(-.*?)(?:  |$)", text, re.MULTILINE)
    return "\n".join(sorted({name for one in heads for name in re.findall(r"--?[a-z][\w-]*", one)}))


def compare(lines: list[str], old: Path, new: Path) -> list[str]:
    """Every difference of a case, by command or file."""
    found = []
    for path in sorted({one.relative_to(side) for side in (old, new) for one in side.rglob("*")}):
        one, other = old / path, new / path
        name = str(path)
        if path.parts[0] == "commands" and path.suffix:
            name = f"`{lines[int(path.stem)]}` {path.suffix[1:]}"
        if not (one.exists() and other.exists()):
            found.append(f"{name}: only in {'OLD' if one.exists() else 'NEW'}")
        elif one.stat().st_mode != other.stat().st_mode:
            found.append(f"{name}: mode {one.stat().st_mode:o} -> {other.stat().st_mode:o}")
        elif one.is_file():
            texts = [one.read_bytes(), other.read_bytes()]
            if all(b"-h, --help " in text for text in texts):  # wording is free
                texts = [listed_options(text.decode()).encode() for text in texts]
            found += [f"{name} {line}" for line in differences(*texts)]
    return found


def run_side(side: str, revision: str, chosen: dict[str, list[str]], place: Path) -> Iterator[str]:
    """Run the cases, but for what OLD left in a former run; yields the name of each when done."""
    asked = ["git", "rev-parse", "--verify", f"{revision}^{{commit}}"]
    commit = revision if revision == "." else subprocess.check_output(asked, text=True).strip()
    export(commit, place / "code")
    (place / "work").mkdir(exist_ok=True)
    where = start(place, "-c", "import beftkit, beftkit_kernels as k; print(beftkit, k)").stdout
    if where.count(bytes(place / "code")) != 2:
        raise SystemExit(f"{revision}: another beftkit would run: {where.decode()}")
    for name, lines in chosen.items():
        key = f"{commit} {lines} {(place / 'stamp').read_text()}"
        held = place / side / f"{name}.key"
        if side == "OLD" and commit != "." and held.is_file() and held.read_text() == key:
            print(f"{side} {name}: as a former run left it", flush=True)
        else:
            held.unlink(missing_ok=True)
            before = sum(os.times()[2:4])
            run_case(lines, place, place / side / name)
            held.write_text(key)
            cpu = sum(os.times()[2:4]) - before
            print(f"{side} {name}: {len(lines)} commands, {cpu:.0f} s of CPU", flush=True)
        yield name


def main() -> int:
    """Run OLD, then NEW; a line a case."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("old", metavar="OLD", help="a revision, or . for the working tree")
    parser.add_argument("new", metavar="NEW", help="the same")
    parser.add_argument("--data", type=Path, default=os.environ.get("BEFTKIT_DATA"))
    parser.add_argument("--keep", type=Path, help="folder of it all; OLD's outputs are used again")
    parser.add_argument("--only", default="*", help="cases, with commas; * and ? match")
    given = parser.parse_args()
    every, patterns = cases(given.data and Path(given.data).resolve()), given.only.split(",")
    chosen = {n: c for n, c in every.items() if any(fnmatch.fnmatch(n, one) for one in patterns)}
    if missing := [one for one in patterns if not fnmatch.filter(every, one)]:
        parser.error(f"no case {', '.join(missing)}; there are {', '.join(every)}")
    for name in [name for name, lines in chosen.items() if not lines]:
        print(f"{name}: left out, as it needs --data", flush=True)
        del chosen[name]
    place = (given.keep or Path(tempfile.mkdtemp(prefix="beftkit-"))).resolve()
    made = [inspect.getsource(one) for one in (make_inputs, start, run_case)]
    versions = [version(name) for name in ("torch", "transformers", "numpy", "matplotlib")]
    stamp, held = str([FILES, FAMILIES, SIZES, WORDS, *made, *versions]), place / "stamp"
    if not held.is_file() or held.read_text() != stamp:
        shutil.rmtree(place / "inputs", ignore_errors=True)
        make_inputs(place / "inputs")
        held.write_text(stamp)
    list(run_side("OLD", given.old, chosen, place))
    differing = []
    for name in run_side("NEW", given.new, chosen, place):
        found = compare(chosen[name], place / "OLD" / name, place / "NEW" / name)
        differing += [name] if found else []
        codes = Counter(one.read_text() for one in (place / "NEW" / name).glob("commands/*.exit"))
        verdict = f"DIFFERS in {len(found)} places" if found else "same"
        print(f"{name}: {verdict}; exit codes {dict(sorted(codes.items()))}", flush=True)
        print(*(f"    {line}\n" for line in found[:8]), sep="", end="", flush=True)
    if given.keep is None:
        shutil.rmtree(place)
    print(f"{len(chosen)} cases, {len(differing)} differ {' '.join(differing)}".rstrip())
    return int(bool(differing))


if __name__ == "__main__":
    sys.exit(main())
