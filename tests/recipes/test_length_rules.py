import numpy as np
import pytest
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from recipes.data.splits import apply_rules
from recipes.length_rules import parse_rule
from recipes.summary import length_remarks
from record.errors import UserError


@pytest.fixture(scope="module")
def tokenizer():
    """One token a word, and a final `</s>` as T5 adds it."""
    words = Tokenizer(models.WordLevel({"</s>": 0, "<unk>": 1, "a": 2, "b": 3}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 0)])
    return words


def rows(*texts):
    return Dataset.from_dict({"prompt": list(texts), "target": ["t" * len(text) for text in texts]})


def test_drop_counts_each_row_under_the_first_rule_it_breaks(tokenizer):
    rules = [parse_rule("drop characters(prompt) >= 4"), parse_rule("drop words(prompt) > 1")]
    kept, dropped, _, _ = apply_rules(rows("abc", "abcd", "a b", "a b c", "x"), rules, tokenizer)
    assert kept["prompt"][:] == ["abc", "x"]
    assert dropped == {"drop characters(prompt) >= 4": 2, "drop words(prompt) > 1": 1}


def test_sum_of_texts_is_what_is_measured(tokenizer):
    rule = parse_rule("drop characters(prompt + target) > 6")
    kept, dropped, _, _ = apply_rules(rows("abc", "abcd"), [rule], tokenizer)
    assert kept["prompt"][:] == ["abc"] and list(dropped.values()) == [1]


def test_tokens_count_the_end_of_sequence(tokenizer):
    rule = parse_rule("drop tokens(prompt) > 3")
    kept, _, _, _ = apply_rules(rows("a b", "a b c"), [rule], tokenizer)
    assert kept["prompt"][:] == ["a b"]


def test_percentile_is_taken_over_all_loaded_rows(tokenizer):
    texts = ["a" * n for n in range(1, 102)]
    rules = [parse_rule("drop characters(prompt) > 90"), parse_rule("drop characters(prompt) > p50")]
    kept, dropped, _, limits = apply_rules(rows(*texts), rules, tokenizer)
    assert limits == {"drop characters(prompt) > p50": np.percentile(range(1, 102), 50)} == {rules[1].text: 51.0}
    assert dropped == {rules[0].text: 11, rules[1].text: 39} and len(kept) == 51


@pytest.mark.parametrize(
    ("rule", "text", "cut"),
    [
        ("truncate characters(prompt) > 3", "abcde", "abc"),
        ("truncate characters(prompt) >= 3", "abcde", "ab"),
        ("truncate words(prompt) > 2", "a b  c", "a b"),
        ("truncate words(prompt) > 3", "a b  c", "a b  c"),
        ("truncate tokens(prompt) > 3", "a b a", "a b"),
        ("truncate tokens(prompt) > 4", "a b a", "a b a"),
    ],
)
def test_truncate_cuts_to_the_longest_allowed_length(rule, text, cut, tokenizer):
    kept, _, truncated, _ = apply_rules(rows(text), [parse_rule(rule)], tokenizer)
    assert kept["prompt"][:] == [cut]
    assert truncated == {rule: int(cut != text)}


@pytest.mark.parametrize(
    ("relation", "kept"),
    [("<", ["aa", "aaa"]), ("<=", ["aaa"]), ("==", ["a", "aaa"]), (">=", ["a"]), (">", ["a", "aa"])],
)
def test_rules_compare_by_every_relation(relation, kept, tokenizer):
    rule = f"drop characters(prompt) {relation} 2"
    left, dropped, _, _ = apply_rules(rows("a", "aa", "aaa"), [parse_rule(rule)], tokenizer)
    assert left["prompt"][:] == kept and dropped == {rule: 3 - len(kept)}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "drop",
        "drop letters(a) > 3",
        "keep characters(a) > 3",
        "drop characters(a) <> 3",
        "drop characters(a) = 3",
        "truncate characters(a) < 3",
        "truncate characters(a) == 3",
        "drop tokens() > 3",
        "drop tokens(a) > p101",
        "drop tokens(a) > p0",
        "truncate words(a + b) > 3",
        "drop words(a b) > 3",
        "drop words(a) > -1",
    ],
)
def test_what_is_no_rule_is_refused_with_a_sentence(text):
    with pytest.raises(UserError, match="length rule"):
        parse_rule(text)


def test_lengths_beyond_the_base_models_training_are_counted():
    tokens = Dataset.from_dict({"input_ids": [[5] * n for n in (512, 513, 60_000)], "labels": [[1]] * 3})
    (line,) = length_remarks(tokens, 512, "a/base")
    assert line == (
        "2 of 3 training prompts have more than the 512 tokens that a/base was trained with, the longest 60,000: see "
        "`length_rules` (truncate tokens(prompt) > 512)"
    )
    (_, line) = length_remarks(tokens.select([2]).map(lambda row: {"labels": row["input_ids"]}), 512, "a/base")
    assert line.startswith("1 of 1 training targets have") and line.endswith("(drop tokens(target) > 512)")
