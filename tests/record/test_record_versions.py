"""The record as a public format: its schema stands in the repository, and an older record is read for ever."""

import hashlib
import json
from pathlib import Path
from typing import get_args

import pytest

from record.errors import UserError
from record.release_files import RECORD_FILE
from record.run_record import Record, load_record
from record.schema import SCHEMAS, schema
from record.scores import METRIC_NAMES, Metric
from record.versions import UPGRADES, VERSION

OLD = Path("tests/record/records")
# Of every version of which a record was published: `sha256sum record/schemas/record-N.json`. Never change one: raise
# the version (`record.versions` says how).
RELEASED = {
    1: "0492561535feb275a3d914f4fecafd528f6a028e9e3ab42d47dc6443c9a74bfb",
    2: "86bcbd9e70a1c7a322778fb9508b0f423c644e750a97ddb4aa08056dd9479492",
    3: "e039071a8b37c535ffff3999b091ab2674e6964bdbcaa18e52cbd7431b73b13a",
    4: "7155391c64627a1c93f71bc79075b9eda34273ac046449704bcb3ea8425a1b71",
    5: "abb2102f71d41fc2838383f728ba050232d606b9769afc162e942dd3bcf958bf",
    6: "d00b2903099d24e7155dabf8ed1298a9f910816e234d99fb79ead0e947988284",
}


def test_the_schema_in_the_repository_is_the_model_s():
    assert (SCHEMAS / f"record-{VERSION}.json").read_text(encoding="utf-8") == schema(), "run python -m record.schema"


def test_every_metric_of_the_format_has_its_name():
    assert get_args(Metric) == tuple(METRIC_NAMES)


def test_a_released_schema_never_changes():
    found = {
        number: hashlib.sha256((SCHEMAS / f"record-{number}.json").read_bytes()).hexdigest() for number in RELEASED
    }
    assert found == RELEASED


def test_what_is_published_is_of_a_version_whose_schema_is_frozen():
    kept = [json.loads(path.read_text()) for path in Path("docs/claims").glob(f"*/{RECORD_FILE}")]
    assert kept and {record["schema_version"] for record in kept} <= RELEASED.keys(), (
        "a record of this version is published: add its schema's hash to RELEASED"
    )


def test_every_version_has_its_schema_its_upgrade_and_a_kept_record():
    older = range(1, VERSION)
    assert sorted(SCHEMAS.iterdir()) == sorted(SCHEMAS / f"record-{number}.json" for number in range(1, VERSION + 1))
    assert list(UPGRADES) == list(older)
    assert sorted(OLD.iterdir()) == [OLD / f"version-{number}.json" for number in older]


def kept(read, stated):
    """What was read, without what was not stated."""
    if isinstance(read, list) and isinstance(stated, list):
        return [kept(*pair) for pair in zip(read, stated, strict=True)]
    if not isinstance(read, dict) or not isinstance(stated, dict):
        return read
    return {key: kept(read[key], value) for key, value in stated.items()}


@pytest.mark.parametrize("number", UPGRADES)
def test_an_older_record_reads_as_it_was_written(number, tmp_path):
    stated = json.loads((OLD / f"version-{number}.json").read_text())
    (tmp_path / RECORD_FILE).write_bytes((OLD / f"version-{number}.json").read_bytes())
    record = load_record(tmp_path)
    assert (stated["schema_version"], record.schema_version) == (number, VERSION)
    read = record.model_dump()
    assert kept(read, stated) == stated | {"schema_version": VERSION}
    # What it lacks has its default.
    lacking = read.keys() - stated.keys()
    assert {key: read[key] for key in lacking} == {key: Record.model_fields[key].get_default() for key in lacking}
    record.save(tmp_path)
    assert load_record(tmp_path) == record


def test_a_newer_record_asks_for_a_newer_clone(tmp_path):
    newer = json.loads((OLD / "version-1.json").read_text()) | {"schema_version": VERSION + 1, "novelty": 1}
    (tmp_path / RECORD_FILE).write_text(json.dumps(newer))
    with pytest.raises(UserError) as refusal:
        load_record(tmp_path)
    assert str(refusal.value).endswith(
        f"it was written by version {VERSION + 1} of the format, this clone reads up to {VERSION}: update the clone"
    )
