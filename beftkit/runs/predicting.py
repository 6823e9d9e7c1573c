"""`beftkit.predict`: answers to a file of texts, or to some texts, in the order they stand."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any, Literal, get_args

from beftkit.errors import BeftError, UsageError
from beftkit.files import check_writable, headed, plain_of, same_file, whole_file
from beftkit.objectives import Answer
from beftkit.progress import displayed
from beftkit.runs.asked import Source, of_file, of_texts
from beftkit.runs.predictor import Answered, Predictor, Text, load_with
from beftkit.runs.rows import Row, Streamed, Writer, open_writer, plain
from beftkit.settings.predict import PredictSettings
from beftkit.settings.resolve import resolve
from beftkit.settings.signatures import documented
from beftkit.shown import Shown
from beftkit.watching import Unwatched, Watcher, never

#: rows that are answered together: their batches are of like length
CHUNK = 4096
Format = Literal["table", "json", "csv", "markdown", "jsonl", "parquet"]
_ENDINGS: dict[str, Format] = {
    **{".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json"},
    **{".parquet": "parquet", ".pq": "parquet", ".md": "markdown", ".txt": "table"},
}


@dataclass(frozen=True, repr=False)
class PredictionResult(Shown):
    """What `predict` answered.

    Attributes:
        model: the base or whole model.
        adapter: put on it, or None.
        source: the file, or what the texts were.
        output: the file written, or None.
        labels: in the order of their numbers; empty for values.
        columns: ours, as they are called in the result.
        fields: the columns of the texts.
        examples: how many rows there were.
        counts: label -> rows that got it; empty for values.
        unanswered: rows without a text.
        below: rows whose answer was withheld, below the threshold.
        truncated: rows that were cut.
        seconds: wall time of answering.
        notes: what a reader should know.
        rows: of the result, where they are kept: not of a form that is written as it grows.
    """

    model: str
    adapter: str | None
    source: str
    output: str | None
    labels: tuple[str, ...]
    columns: tuple[str, ...]
    fields: tuple[str, ...]
    examples: int
    counts: Mapping[str, int]
    unanswered: int
    below: int
    truncated: int
    seconds: float
    notes: tuple[str, ...]
    rows: tuple[dict[str, Any], ...] = field(default=(), repr=False)

    def in_short(self) -> dict[str, Any]:
        """What its line says."""
        return plain_of(self, "model adapter source examples counts output")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        said = {name: one for name, one in vars(self).items() if name != "rows"}
        names = ("labels", "columns", "fields", "notes")
        lists = {name: list(getattr(self, name)) for name in names}
        rows = [plain(row) for row in self.rows]
        return headed({**said, **lists, "counts": dict(self.counts), "predictions": rows})


@documented(PredictSettings)
def predict(
    model: str | Path | None = None,
    *,
    adapter: str | Path | None = None,
    texts: Iterable[Text] | str | None = None,
    file: str | Path | None = None,
    output: str | Path | None = None,
    format: Format | None = None,
    all_probabilities: bool | None = None,
    sink: IO[bytes] | None = None,
    watcher: Watcher | None = None,
    progress: bool = False,
    asked_to_stop: Callable[[], int] | None = None,
    **settings: Any,
) -> PredictionResult:
    """Answer every row of a file, or some texts, and write the answers beside them.

    Args:
        model: a model, an adapter, or a run's folder, as of `beftkit.load`.
        adapter: the same as there.
        texts: texts, or tuples of two; may be endless. A string is one text.
        file: .csv, .tsv, .jsonl, .json or .parquet instead; text also as .gz. No labels are needed,
            and its other columns are kept.
        output: the file to write, whole or not at all.
        format: of it; None: as its ending says. CSV, JSON lines and Parquet are written as they
            grow; for the other forms the rows are kept, and come back in the result.
        all_probabilities: each label's, not the answer's alone; None: in JSON.
        sink: where CSV or JSON lines go instead of to a file.
        watcher: told how it goes.
        progress: show that on stderr instead.
        asked_to_stop: the number of a signal once one came.
        settings: as of `beftkit.load`; ``text_columns``, ``quotes`` of the file.

    Raises:
        BeftError: as by `load`, a file that cannot be read, a row that holds no text.
        beftkit.training.trainer.Interrupted: stopped; no output is written.
    """
    given = {**settings, "model": model, "adapter": adapter}
    s = resolve(PredictSettings, None, given)
    if (texts is None) == (file is None):
        raise UsageError("texts and a file of them: expected one of the two")
    form = format_of(output, format)
    if output is not None:
        check_writable(output)
        inputs = [one for one in (file, model, adapter) if one is not None]
        if any(same_file(Path(output), str(one)) for one in inputs):
            raise UsageError(f"{output}: is an input as well; choose another place")
    predictor = load_with(s)
    if predictor.accelerator.num_processes > 1:
        raise UsageError("predict: answers in one process, and several were started; start one")
    source = of_file(predictor, Path(file)) if file is not None else of_texts(predictor, texts)
    with displayed(progress, watcher) as looking:
        how = form, all_probabilities, looking, asked_to_stop or never
        return _Journey(predictor, source, *how).run(output, sink)


def format_of(output: str | Path | None, format: str | None) -> Format:
    """The form that is meant: the one given, or the one that the file's name ends in.

    Raises:
        UsageError: an ending that says nothing.
    """
    if format is not None:
        if format not in get_args(Format):
            raise UsageError(f"format {format!r}: expected {', '.join(get_args(Format))}")
        return format  # type: ignore[return-value]
    if output is None:
        return "table"
    found = _ENDINGS.get(Path(output).suffix.lower())
    if found is None:
        raise UsageError(
            f"{output}: its ending tells no format; expected {', '.join(_ENDINGS)}, or --format"
        )
    return found


class _Journey:
    """One call."""

    def __init__(
        self,
        predictor: Predictor,
        source: Source,
        form: Format,
        all_probabilities: bool | None,
        watcher: Watcher | None,
        asked_to_stop: Callable[[], int],
    ) -> None:
        self.predictor, self.source, self.form = predictor, source, form
        self.watcher, self.asked_to_stop = watcher or Unwatched(), asked_to_stop
        by_itself = form in ("json", "jsonl")
        each = by_itself if all_probabilities is None else all_probabilities
        fields = [*predictor.objective.answer_fields]
        labels = predictor.labels if each else ()
        self.nested = by_itself and bool(labels)
        self.labels = labels
        own = [
            *fields,
            *(["probabilities"] if self.nested else [f"probability_{n}" for n in labels]),
        ]
        self.fields, self.columns = fields, _free(own, source.columns)
        self.kept: list[dict[str, Any]] = []
        self.counts: Counter[str] = Counter()
        self.sums = Answered([])
        self.examples = 0

    def run(self, output: str | Path | None, sink: IO[bytes] | None) -> PredictionResult:
        started = time.perf_counter()
        predictor, source = self.predictor, self.source
        with ExitStack() as held:
            writer: Writer | None = None
            if self.form in get_args(Streamed):
                file = sink if output is None else held.enter_context(whole_file(output))
                if file is not None:
                    form: Any = self.form
                    given = (source.columns, self.columns, self._schema())
                    writer = open_writer(form, file, *given)
            if source.about is not None:
                self.watcher.started(source.where, source.about, 0)
            for chunk in _chunks(source.rows):
                self._answer(chunk, writer)
            if writer is not None:
                writer.close()
        s = predictor.settings
        return PredictionResult(
            model=s.model,
            adapter=s.adapter,
            source=source.where,
            output=None if output is None else str(output),
            labels=predictor.labels,
            columns=tuple(self.columns),
            fields=source.fields,
            examples=self.examples,
            counts={label: self.counts[label] for label in predictor.labels},
            unanswered=self.sums.unanswered,
            below=self.sums.below,
            truncated=self.sums.truncated,
            seconds=round(time.perf_counter() - started, 3),
            notes=tuple(self._notes()),
            rows=tuple(self.kept),
        )

    def _answer(self, chunk: Sequence[Row], writer: Writer | None) -> None:
        from beftkit.training.trainer import Interrupted

        texts = [self.source.texts(where, row) for where, row in chunk]
        where = f"{chunk[0][0]} and after" if len(chunk) > 1 else chunk[0][0]
        found = self.predictor.answered([*zip(*texts, strict=True)], where)
        rows = []
        for (place, row), answer in zip(chunk, found.answers, strict=True):
            ours = self._cells(answer)
            if not ours.keys().isdisjoint(row):  # JSON's rows may differ
                raise BeftError(
                    f"{place}: has {next(name for name in ours if name in row)!r}, which the first "
                    "row has not, and which is a column of the answers; rename it"
                )
            rows.append((place, {**row, **ours}))
        if writer is None:
            self.kept += [row for _, row in rows]
        else:
            writer.write(rows)
        self.examples += len(rows)
        self.counts.update(found.counts)
        names = ("truncated", "empty", "unanswered", "below")
        sums = {name: getattr(self.sums, name) + getattr(found, name) for name in names}
        self.sums = Answered([], **sums)
        self.watcher.advanced(len(rows))
        if number := self.asked_to_stop():
            raise Interrupted(number)

    def _cells(self, answer: Answer) -> dict[str, Any]:
        values: list[Any] = [getattr(answer, name) for name in self.fields]
        each = answer.probabilities
        if self.nested:
            values.append(dict(each) or None)
        else:
            values += [each.get(label) for label in self.labels]
        return dict(zip(self.columns, values, strict=True))

    def _schema(self) -> Any:
        """Parquet's types, as far as they are known beforehand."""
        if self.form != "parquet":
            return None
        import pyarrow

        known = [*self.source.schema] if self.source.schema is not None else []
        kinds = [
            pyarrow.string() if name in ("label", "answer") else pyarrow.float64()
            for name in self.fields
        ]
        kinds += [pyarrow.float64()] * (len(self.columns) - len(kinds))
        return [*known, *(pyarrow.field(*one) for one in zip(self.columns, kinds, strict=True))]

    def _notes(self) -> Iterator[str]:
        predictor, sums = self.predictor, self.sums
        yield from predictor.notes
        yield from self.source.notes
        yield from predictor.eager
        if self.columns[0] != self.fields[0]:
            names = ", ".join(self.columns)
            yield f"{self.source.where}: has such columns; those of the answers are {names}"
        if not self.examples:
            yield f"{self.source.where}: no rows"
        if sums.truncated:
            count = f"{sums.truncated} of {self.examples}"
            yield f"{count} texts cut to {predictor.max_length} tokens (--max-length)"
        if sums.empty:
            yield f"{sums.empty} of {self.examples} texts are empty: answered like any other"
        if sums.unanswered:
            yield f"no answer to {_rows(sums.unanswered)}: no text, or none that gives a token"
        if sums.below:
            least = f"{predictor.settings.threshold:g}"
            yield f"no answer to {_rows(sums.below)}: no label's probability is {least} or more"


def _rows(count: int) -> str:
    return f"{count} row{'s' * (count != 1)}"


def _chunks(rows: Iterator[Row]) -> Iterator[list[Row]]:
    while chunk := [*islice(rows, CHUNK)]:
        yield chunk


def _free(names: Sequence[str], taken: Sequence[str]) -> list[str]:
    """Our columns' names: all with a word before them as long as one of them is the user's own."""
    found = [*names]
    while {*found} & {*taken}:
        found = [f"predicted_{name}" for name in found]
    return found
