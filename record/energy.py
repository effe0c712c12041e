"""The forecast of a training and the electricity that it took, as sections of the record."""

from pydantic import Field

from record.field_types import Amount, Count, Line, Section


class Energy(Section):
    """Electricity of the session that finished the training, the whole machine's, as codecarbon gives it.

    `cpu_measured` says whether the CPU's was read from its own counters or estimated from its load and thermal design
    power; a GPU's is read from its driver, the memory's estimated from its size. `co2_grams` is the energy times the
    yearly mean carbon intensity of the grid of `country` (ISO 3166-1 alpha-3), or of its `region`.
    """

    kwh: Amount
    cpu_kwh: Amount
    gpu_kwh: Amount
    ram_kwh: Amount
    co2_grams: Amount
    country: str = Field(pattern=r"^[A-Z]{3}$")
    region: Line | None = None
    hardware: Line
    cpu_measured: bool
    codecarbon: Line


class Forecast(Section):
    """What was said of the session that finished the training before it started.

    `tokens` (source and target, no padding) and `teraflop` are counted from the rows, `seconds` follow from a rate that
    was measured for moments; `ratio` is what the session took over that, for the steps that it did.
    """

    tokens: Count
    teraflop: Amount
    seconds: Amount
    ratio: Amount | None = None
