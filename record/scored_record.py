"""A record whose run is trained and scored: what can be published, and checked."""

from record.errors import UserError
from record.run_record import Record, Training
from record.scores import Contract, Scores


class ScoredRecord(Record):
    training: Training
    contract: Contract
    scores: Scores


def require_scores(record: Record) -> ScoredRecord:
    """The same record; it shares its sections with `record`.

    Raises:
        `UserError`: it lacks the scores, or what they were taken with.
    """
    if record.scores is None or record.contract is None or record.training is None:
        raise UserError("the record holds no scores")
    return ScoredRecord.model_construct(**{name: getattr(record, name) for name in Record.model_fields})
