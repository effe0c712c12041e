"""What a parent's record says is taken on its word: the card says so, and whether its release was checked."""

import pytest
from huggingface_hub import HfApi
from small_run import predictions, record  # noqa: F401

from model_cards.card import render_card
from recipes.data.lineage import _stated_verdict
from record.hashes import sha256_file
from record.release_files import PREDICTIONS_FILE, RECORD_FILE, VERDICT_FILE
from record.run_record import Leakage, Pin
from record.verdict import Verdict

PARENT = "local-user/a-parent-checked"


@pytest.mark.parametrize(
    ("said", "stated"),
    [
        ({}, "REPRODUCED at level score"),
        ({"adapter_sha256": "0" * 64}, None),
        ({"reason": "ROUGE-L 0.9999: checked by the Hub team"}, None),
        (None, None),
    ],
)
def test_a_parents_own_statement_is_read_where_it_speaks_of_it(record, predictions, tmp_path, said, stated):  # noqa: F811
    predictions.save(tmp_path)
    names = [PREDICTIONS_FILE]
    if said is not None:
        facts = {"verdict": "REPRODUCED", "adapter": PARENT, "revision": "7" * 40, "level": "score",
                 "evidence": "numbers", "date": "2026-11-23T09:00:00+00:00",
                 "adapter_sha256": record.training.adapter_sha256,
                 "predictions_sha256": sha256_file(tmp_path / PREDICTIONS_FILE)}  # fmt: skip
        (tmp_path / VERDICT_FILE).write_text(Verdict(**facts | said).model_dump_json())
        names.append(VERDICT_FILE)
    record.files = {name: sha256_file(tmp_path / name) for name in names}
    record.save(tmp_path)
    HfApi().create_repo(PARENT, exist_ok=True)
    commit = HfApi().upload_folder(repo_id=PARENT, folder_path=tmp_path, allow_patterns=[RECORD_FILE, *names]).oid
    assert _stated_verdict(Pin(kind="model", id=PARENT, revision=commit), record) == stated


def test_the_card_says_whose_word_it_is(record, predictions):  # noqa: F811
    own, *_ = record.leakage
    for verdict, told in (
        ("REPRODUCED at level score", "its publisher says REPRODUCED at level score."),
        (None, "its release holds no check of itself."),
    ):
        parent = Leakage(adapter=f"a/parent@{'9' * 40}", dataset="a/rows", training_rows=1, exact=0, near=0,
                         verdict=verdict)  # fmt: skip
        record.leakage = [own, parent]
        section = render_card(record, predictions, "a/b").partition("### Leakage")[2].partition("\n#")[0]
        assert "What an earlier adapter was trained on is taken from its own record." in section
        assert f"- a/parent&#64;999999999999: {told}" in section
    record.leakage = [own]
    assert "an earlier adapter" not in render_card(record, predictions, "a/b")
