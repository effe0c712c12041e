"""A record with scores, of a run that was trained here or of what was only evaluated: both can be checked."""

from record.errors import UserError
from record.run_record import Evaluated, Record, Training
from record.scores import Contract, Scores


class ScoredRecord(Record):
    training: Training
    contract: Contract
    scores: Scores


class EvaluatedRecord(Record):
    evaluated: Evaluated
    contract: Contract
    scores: Scores


AnyScored = ScoredRecord | EvaluatedRecord


def require_scores(record: Record) -> ScoredRecord:
    """The same record; it shares its sections with `record`.

    Raises:
        `UserError`: it lacks the scores, or what they were taken with.
    """
    if record.evaluated is not None:
        raise UserError(f"{record.evaluated.source.id} was not trained here, only evaluated: `pubrep reproduce` "
                        "checks its scores, nothing else is done with them")  # fmt: skip
    if record.scores is None or record.contract is None or record.training is None:
        raise UserError("the record holds no scores")
    return ScoredRecord.model_construct(**{name: getattr(record, name) for name in Record.model_fields})


def require_evaluation(record: Record) -> EvaluatedRecord:
    """The same record, which is evaluation-only; it shares its sections with `record`.

    Raises:
        `UserError`: it lacks the scores, what they were taken with, or where.
    """
    if record.evaluated is None or record.scores is None or record.contract is None or record.scored_in is None:
        raise UserError("the record holds no scores")
    return EvaluatedRecord.model_construct(**{name: getattr(record, name) for name in Record.model_fields})
