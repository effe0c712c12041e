"""Outputs run on the dataset's own databases, beside those made from the reference; needs no model."""

import math

from datasets import Dataset

from recipes.config import RecipeArguments
from recipes.data.database_files import find_databases
from record.predictions import Predictions
from record.run_record import Pin
from record.scores import Contract, OwnDatabases
from scoring.bootstrap import compared
from scoring.metrics.sql import sql_of
from scoring.sql.files import matches_on_files

METRIC = "sql_execution_match"


def score_databases(
    recipe: RecipeArguments, dataset: Pin, test: Dataset, predictions: Predictions, contract: Contract
) -> OwnDatabases | None:
    """Execution match on the own databases of the test rows; None where the recipe names none.

    Parameters:
        test: the test rows, as `recipes.data.splits.Splits` holds them.

    Raises:
        as `recipes.data.database_files.find_databases`.
    """
    if recipe.sql_database is None:
        return None
    found = find_databases(test["database"][:], recipe, dataset)
    own, agree, both = {}, {}, 0
    for who, texts in (("base", predictions.base), ("adapter", predictions.adapter)):
        own[who] = matches_on_files(found.paths, texts, predictions.reference)
        made = sql_of(texts, predictions.reference, predictions.schema, contract).scores[METRIC]
        pairs = [pair for pair in zip(own[who], made, strict=True) if not any(map(math.isnan, pair))]
        agree[who], both = sum(one == other for one, other in pairs), len(pairs)
    runs = [not math.isnan(match) for match in own["base"]]
    return OwnDatabases(
        rows=sum(runs),
        **compared({METRIC: own["base"]}, {METRIC: own["adapter"]}, contract),
        not_executable=runs.count(False),
        both=both,
        base_agree=agree["base"],
        adapter_agree=agree["adapter"],
        files=found.files,
        bytes=found.bytes,
        sha256=found.sha256,
    )
