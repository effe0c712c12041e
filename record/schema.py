"""The record's format as a JSON schema, for those who read records without this code.

    python -m record.schema

Writes record/schemas/record-N.json of the present version N from the model in `record.run_record`.
"""

import json
from pathlib import Path

from record.run_record import Record
from record.versions import VERSION

SCHEMAS = Path(__file__).with_name("schemas")


def schema() -> str:
    """The JSON schema of the present version."""
    document = {"$schema": "https://json-schema.org/draft/2020-12/schema"} | Record.model_json_schema()
    return json.dumps(document, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


if __name__ == "__main__":
    (SCHEMAS / f"record-{VERSION}.json").write_text(schema(), encoding="utf-8")
    print(f"Written: {SCHEMAS / f'record-{VERSION}.json'}")
