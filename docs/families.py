"""Write docs/families.md: what recognition makes of every architecture that transformers knows.

    .venv/bin/python docs/families.py [OUTPUT]

Each model type is built from its default configuration on the meta device: names and shapes, no
numbers, no downloads. What counts as a q, k or v bias is judged here by words in its name, apart
from the table of `beftkit.biases`, so that the table cannot vouch for itself.
"""

from __future__ import annotations

import contextlib
import gc
import io
import logging
import re
import sys
import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from architectures import CONFIG_MAPPING, FIX, VERSION, make, parts, reason

from beftkit.biases import Recognition, Tensor, recognise
from beftkit.errors import BeftError

OUTPUT = Path(__file__).with_suffix(".md")

# --- judging -------------------------------------------------------------------------------------

_WORDS = {
    **dict.fromkeys(("q", "wq", "query", "queries"), "q"),
    **dict.fromkeys(("k", "wk", "key", "keys"), "k"),
    **dict.fromkeys(("v", "wv", "value", "values"), "v"),
    **dict.fromkeys(("qkv", "wqkv", "kv", "wkv", "qk", "qv"), "several"),
}
_FUSED = ("c_attn", "att_proj", "in_proj_bias", "query_key_value")
_SWITCH = re.compile(
    r"(?!mlp_|conv_|mamba_)(\w+_)?(attention|attn|qkv|qv|query|key|value|use|enable)_bias"
    r"|bias|add_bias_linear"
)


def says(name: str) -> str:
    """What a bias's own name calls it: q, k, v, several of them, or nothing of the kind."""
    *owners, last = name.replace(".convolution.", ".").split(".")
    word = (owners[-1] if owners else "") if last == "bias" else last.removesuffix("_bias")
    if last in _FUSED or word in _FUSED:
        return "several"
    words = word.lower().split("_")
    found = {_WORDS[word] for word in words if word in _WORDS}
    if not found or re.search(r"norm|(^|_)(ln|conv)_", word.lower()) or not last.endswith("bias"):
        return ""
    return found.pop() if len(found) == 1 else "several"


@dataclass
class Verdict:
    """What the page says of one model type."""

    status: str
    found: Recognition | None = None
    missed: list[str] = field(default_factory=list)
    outside: int = 0
    why: str = ""
    switches: dict[str, str] = field(default_factory=dict)

    def bearing(self) -> set[str]:
        """Names of the tensors that carry q, k or v."""
        return {s.name for s in self.found.sites if s.role in "qkv"} if self.found else set()


def judge(model: Any) -> Verdict:
    """Compare what recognition finds with what the names say."""
    tensors = [Tensor(n, "F32", tuple(p.shape)) for n, p in model.named_parameters()]
    named = {t.name: says(t.name) for t in tensors if len(t.shape) == 1 and says(t.name)}
    inside = {name for name in named if any(part.isdigit() for part in name.split("."))}
    try:
        found = recognise(tensors, model.config.to_dict(), "here")
    except BeftError as error:
        return Verdict("unknown", None, sorted(inside), len(named) - len(inside), str(error))
    roles: dict[str, set[str]] = {}
    for site in found.sites:
        roles.setdefault(site.name, set()).add(site.role)
    missed = {
        name
        for name in inside
        if not roles.get(name, {""}) <= set("qkv")
        or (named[name] != "several" and roles[name] != {named[name]})
    }
    bearing = {name for name, role in roles.items() if role <= set("qkv")}
    status = "unknown" if missed else "recognised" if bearing else "bias-free"
    return Verdict(status, found, sorted(missed), len(set(named) - inside))


def turned_off(model_type: str) -> list[str]:
    """The bias switches that the default configuration leaves off."""
    config = CONFIG_MAPPING[model_type](**FIX.get(model_type, {}))
    return sorted(
        {
            key
            for part in parts(config)
            for key, value in vars(part).items()
            if _SWITCH.fullmatch(key) and (value is False or value == [False] * 3)
        }
    )


def turn_on(config: Any, switch: str) -> None:
    for part in parts(config):
        value = vars(part).get(switch)
        if value is False or value == [False] * 3:
            setattr(part, switch, value is False or [True] * 3)


def verdict(model_type: str) -> Verdict:
    """Build one model type, with and without its switches, and judge it."""
    try:
        model = make(model_type)
    except Exception as error:
        return Verdict("not made", why=reason(error))
    result = judge(model)
    for switch in turned_off(model_type):
        try:
            changed = judge(make(model_type, lambda config, key=switch: turn_on(config, key)))
        except Exception:
            continue
        if changed.missed != result.missed or changed.bearing() != result.bearing():
            result.switches[switch] = changed.status
            result.missed += [f"{n} ({switch})" for n in changed.missed if n not in result.missed]
    return result


# --- writing -------------------------------------------------------------------------------------

#: those that are asked for most, which the page shows first
NAMED = """
    bert roberta xlm-roberta camembert electra albert distilbert mpnet deberta deberta-v2 esm
    longformer opt gpt2 openai-gpt gpt_neox bloom falcon gpt_bigcode phi qwen2 qwen2_moe qwen2_vl
    qwen2_5_vl starcoder2 llama gpt_oss glm4 bart mbart marian pegasus whisper wav2vec2 vit deit
    clip siglip
""".split()
PAGE = """\
# Every architecture of transformers

| by default | model types |
|---|--:|
| recognised | {recognised} |
| bias-free | {free} |
| unknown | {unknown} |
| not made | {failed} |
| all | {all} |

- **recognised**: every bias in the numbered layers whose name says q, k or v bears that role.
- **bias-free**: there is no such bias. {switched} of these types have configuration entries that
  add some, and {then} of them are recognised then.
- **unknown**: some are not recognised, or only under their raw names: [which](#not-recognised).
- **not made**: transformers makes no model of the defaults; [the long table](#all-model-types) says
  why.

Each was built from its default configuration, with 2 layers, without weights: a row says what holds
of a family, `beftkit inspect CHECKPOINT` what holds of yours. First come those that are asked for
most. A family that is not recognised is a few lines of TOML: [families-file.md](families-file.md).

How to read the tables: *towers* are the parts that have attention biases; "fused" means that one
tensor holds several of q, k and v; *others* are the other roles found; *key bias inert* says
whether softmax ignores it; *outside the layers* counts q, k and v biases of pooling heads and the
like, which are not scored; *switch* names configuration entries that add biases, and what the type
then is.

Made by `.venv/bin/python docs/families.py` with transformers {version}.
"""
COLUMNS = (
    "model type", "status", "towers", "q, k, v", "others", "key bias inert", "outside the layers",
    "switch",
)  # fmt: skip


def row(model_type: str, one: Verdict) -> str:
    """One line of the page."""
    sites = one.found.sites if one.found else ()
    heads = [site for site in sites if site.role in "qkv"]
    roles = {site.role for site in sites}
    inert = {
        tower: "/".join(sorted({s.inert for s in heads if s.tower == tower and s.role == "k"}))
        for tower in sorted({site.tower for site in heads if site.role == "k"})
    }
    same = len(set(inert.values())) == 1
    fused = {site.cut is not None for site in heads}
    kinds = " ".join(role for role in "qkv" if role in roles)
    cells = (
        model_type,
        f"{one.status}: {one.why}" if one.status == "not made" else one.status,
        ", ".join(sorted({site.tower for site in heads})),
        kinds + (" (fused)" if fused == {True} else " (some fused)" if True in fused else ""),
        " ".join(role for role in ("m1", "m2", "m3", "ln1", "ln2") if role in roles),
        next(iter(inert.values())) if same else ", ".join(f"{t} {a}" for t, a in inert.items()),
        str(one.outside or ""),
        ", ".join(f"`{key}`: {status}" for key, status in one.switches.items()),
    )
    return "| " + " | ".join(cells) + " |"


def table(verdicts: dict[str, Verdict], names: Iterable[str]) -> str:
    """A table of these model types."""
    head = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    return "\n".join([*head, *(row(name, verdicts[name]) for name in names)])


def page(verdicts: dict[str, Verdict]) -> str:
    """The whole page: what it comes to first, the long table last."""
    counts = Counter(one.status for one in verdicts.values())
    switched = [v for v in verdicts.values() if v.status == "bias-free" and v.switches]
    missed = [f"- {name}: {missed_names(one)}" for name, one in sorted(verdicts.items())
              if one.missed]  # fmt: skip
    summary = PAGE.format(
        recognised=counts["recognised"], free=counts["bias-free"], unknown=counts["unknown"],
        failed=counts["not made"], all=len(verdicts), switched=len(switched),
        then=sum("recognised" in v.switches.values() for v in switched), version=VERSION,
    )  # fmt: skip
    parts = [
        summary.rstrip(), "## Named families", table(verdicts, NAMED),
        "## Not recognised", "In brackets: only with that switch.",
        "\n".join(missed or ["Nothing."]), "## All model types", table(verdicts, sorted(verdicts)),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def missed_names(one: Verdict) -> str:
    """The missed biases, indices as ``*``."""
    patterns = {re.sub(r"(?<![^.])\d+(?=\.)", "*", name): None for name in one.missed}
    return ", ".join(f"`{pattern}`" for pattern in patterns)


def main(output: Path) -> None:
    """Build and judge every model type; write the page."""
    gc.disable()  # a fifth faster; the garbage holds no numbers
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        verdicts = {name: verdict(name) for name in CONFIG_MAPPING}
    output.write_text(page(verdicts), encoding="utf-8")
    print(f"{output}: {len(verdicts)} model types")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else OUTPUT)
