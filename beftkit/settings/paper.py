"""Settings of the paper's tables: which cells, and what is to be other than published."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import field_validator

from beftkit.settings.parts import Precision
from beftkit.settings.topics import (
    Part,
    described,
    of_course,
    of_data,
    of_device,
    of_evaluation,
    of_model,
    seeds_checked,
    words_of,
)

Table = Literal["figure1", "table1", "table2", "table3", "figure4", "table4", "lr-epochs", "table5"]
CELLS = "Cells"


class PaperSettings(Part):
    """What is run of a table; what is None is as published."""

    table: Table | None = described(None, CELLS, "Which table or figure.")
    cells: tuple[str, ...] = described(
        (), CELLS, "Only cells whose names match, such as 'sst2-*' or '*-v'; several with commas."
    )
    seeds: tuple[int, ...] = described(
        (),
        CELLS,
        "Seeds, such as 0,1,2: a run each.  [0; table2: 0,1,2]",
        aliases=("--seed",),
    )
    part: str | None = described(
        None, CELLS, "A share of the runs, such as 1/4, for one of several machines or GPUs."
    )
    model: str | None = of_model(None, "One model in the place of the published ones.")
    data_dir: str | None = of_data(
        None,
        "Folder of GLUE or SuperGLUE in its original layout, or one that holds both as glue and "
        "superglue; without it the hub.",
    )
    train_size: int | None = of_data(None, "So many training examples in every cell.", gt=0)
    validation_size: int | None = of_data(None, "Evaluate on so many examples.", gt=0)
    epochs: int | None = of_course(None, "Passes over the data in every cell.", gt=0)
    batch_size: int | None = of_course(None, "Examples a batch in every cell.", gt=0)
    precision: Precision | None = of_device(None, "Arithmetic.  [fp32; table5: fp16]")
    device: str | None = of_device(None, "cpu, cuda, cuda:1, ...  [a GPU if there is one]")
    eval_steps: int | None = of_evaluation(None, "Evaluate every so many updates.", gt=0)

    _seed_words = field_validator("seeds", mode="before")(words_of)

    @field_validator("seeds")
    @classmethod
    def _seeds_fit(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        return seeds_checked(value) if value else value

    @field_validator("cells", mode="before")
    @classmethod
    def _patterns(cls, value: Any) -> Any:
        given = [value] if isinstance(value, str) else value or ()
        return [word for one in given for word in one.replace(" ", "").split(",") if word]

    @field_validator("part")
    @classmethod
    def _share(cls, value: str | None) -> str | None:
        if value is not None:
            number, slash, of = value.partition("/")
            fits = slash and number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)
            if not fits or not (number.isascii() and of.isascii()):
                raise ValueError("expected such as 1/4: the first of four")
        return value

    @property
    def share(self) -> tuple[int, int]:
        """Which one, from 0, of how many."""
        number, _, of = (self.part or "1/1").partition("/")
        return int(number) - 1, int(of)

    @property
    def changes(self) -> dict[str, Any]:
        """What is other than published, by name."""
        names = "model train_size validation_size epochs batch_size precision eval_steps".split()
        return {name: one for name in names if (one := getattr(self, name)) is not None}
