import contextlib
import copy
import threading

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, GenerationConfig, T5Config, T5ForConditionalGeneration

from benchmarks.generation import measure
from benchmarks.shapes import make_model, make_rows
from recipes.config import RecipeArguments
from recipes.quantization import bring_in_bitsandbytes
from record.errors import UserError
from record.scores import Contract
from scoring.contract import contract_of
from scoring.decoding import caches, slot_decoding
from scoring.decoding.generate import NEUTRAL, engine_here, generate, is_plain

MOST = 40
PROMPTS = [
    *[row["input_ids"] for row in make_rows(5, seed=1)[1]], [1], [7, 7, 7, 1], [*range(3, 200), 1],
]  # fmt: skip


@contextlib.contextmanager
def threads(number: int):
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    yield
    torch.set_num_threads(before)


def with_adapter(model, **how):
    lora = {
        "task_type": "SEQ_2_SEQ_LM",
        "r": 4,
        "lora_alpha": 8,
        "target_modules": ["q", "v"],
        "init_lora_weights": False,
    }
    return get_peft_model(model, LoraConfig(**lora | how)).eval()


def alone(model, prompts, most: int = MOST, beams: int = 1) -> list[list[int]]:
    """What transformers' `generate` writes for each prompt by itself, without decoder start and `</s>`."""
    how = GenerationConfig(
        max_new_tokens=most, num_beams=beams, do_sample=False, decoder_start_token_id=0, pad_token_id=0, eos_token_id=1
    )
    found = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        written = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=how)[
            0, 1:
        ].tolist()
        found.append(written[: written.index(1)] if 1 in written else written)
    return found


@pytest.fixture(scope="module")
def trained():
    """The base miniature, which answers and stops, with an adapter that moves its answers, and its tokenizer."""
    base = AutoModelForSeq2SeqLM.from_pretrained("google/flan-t5-large")
    torch.manual_seed(0)
    model = with_adapter(base)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            weight.data.mul_(0.3)
    return model, AutoTokenizer.from_pretrained("google/flan-t5-large")


@pytest.fixture(scope="module")
def questions():
    from local_hub.miniatures import finance

    asked = [f"Answer the financial question. {row['instruction']}" for row in finance.rows()[:24]]
    return [*asked, "", "?", " ".join(asked[:5])]


@pytest.fixture(scope="module")
def answers(trained, questions):
    model, tokenizer = trained
    ids = tokenizer(questions)["input_ids"]
    with model.disable_adapter():
        base = alone(model, ids)
    return {False: base, True: alone(model, ids)}


def contract(**how) -> Contract:
    return Contract(
        metric="m", metric_version="1", stemmer=True, sentences="s", resamples=1, confidence=0.5, seed=0,
        **{"max_new_tokens": MOST, "num_beams": 1, "dtype": "float32", "batch_size": 8} | how,
    )  # fmt: skip


@pytest.mark.parametrize("slots", [1, 3, 64])
def test_base_and_adapter_write_what_generate_writes(trained, questions, answers, slots):
    lengths = {len(one) for one in answers[True]}
    # Rows that stop by themselves at many lengths; the two models do not answer alike.
    assert len(lengths) > 5 and sum(len(one) < MOST for one in answers[True]) > 5 and answers[True] != answers[False]
    for adapter in (False, True):
        found, seconds = generate(*trained, questions, contract(batch_size=slots), adapter)
        assert found == answers[adapter] and seconds > 0


def test_in_bfloat16_tokens_are_as_likely_as_those_of_generate(trained, questions):
    """Rounding decides near-ties otherwise: the same weights in float32 say how near."""
    exact, tokenizer = trained
    rounded = copy.deepcopy(exact)
    rounded.get_base_model().to(torch.bfloat16)
    for name, weight in rounded.named_parameters():
        if "lora_" in name:
            weight.data = weight.data.float()
    exact = copy.deepcopy(rounded).float()
    ids = tokenizer(questions)["input_ids"]

    def short(outputs: list[list[int]]) -> float:
        """The mean over all tokens of the nats by which they fall short of the likeliest."""
        missed = []
        for prompt, written in zip(ids, outputs, strict=True):
            with torch.no_grad():
                logits = exact(input_ids=torch.tensor([prompt]), decoder_input_ids=torch.tensor([[0, *written]])).logits
            tokens = torch.tensor([*written, 1])[:MOST]
            missed.append(logits[0, : len(tokens)].amax(1) - logits[0, : len(tokens)].gather(1, tokens[:, None])[:, 0])
        return torch.cat(missed).mean().item()

    ours, _ = generate(rounded, tokenizer, questions, contract(dtype="bfloat16"), adapter=True)
    theirs = alone(rounded, ids)
    print(f"bfloat16 falls short by {short(ours):.2g} nats a token, transformers' generate by {short(theirs):.2g}")
    assert short(alone(exact, ids)) < 1e-5 and max(short(ours), short(theirs)) < 3e-3


def test_rows_are_cut_at_the_limit(trained, questions, answers):
    found, _ = generate(*trained, questions, contract(max_new_tokens=3), adapter=True)
    assert found == [one[:3] for one in answers[True]]
    assert {len(one) for one in found} >= {3}


@pytest.mark.parametrize("workers", [2, 3])
def test_threads_share_the_slots_and_give_the_number_of_threads_back(trained, questions, answers, workers):
    names = set()
    with threads(workers):
        ids = trained[1](questions)["input_ids"]
        rows = workers * slot_decoding.ROWS_PER_THREAD
        found = slot_decoding.greedy(
            trained[0], ids, MOST, rows, lambda rows: names.add(threading.current_thread().name)
        )
        assert torch.get_num_threads() == workers
    assert found == answers[True] and len(names) == workers


SHAPES = {
    "gated": {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    "relu, scaled": {"feed_forward_proj": "relu"},
    "odd": {"feed_forward_proj": "gated-silu", "relative_attention_max_distance": 20, "num_layers": 3,
            "num_decoder_layers": 2, "vocab_size": 1001},
}  # fmt: skip


def random_model(seed=0, **how):
    config = {"vocab_size": 1024, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 1, "num_heads": 3}
    torch.manual_seed(seed)
    model = T5ForConditionalGeneration(T5Config(**config | how, decoder_start_token_id=0))
    model.lm_head.weight = torch.nn.Parameter(torch.randn(model.config.vocab_size, 32))
    model.generation_config = GenerationConfig(decoder_start_token_id=0, pad_token_id=0, eos_token_id=1)
    return model


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("targets", [["q", "v"], ["k", "o", "wo"], ["lm_head", "q"]])
def test_every_kind_of_t5(shape, targets):
    model = with_adapter(random_model(**SHAPES[shape]), target_modules=targets)
    prompts = [[token % 1000 + 1 for token in prompt] for prompt in PROMPTS]
    written = slot_decoding.greedy(model, prompts, MOST, 3)
    assert written == alone(model, prompts)
    assert len({tuple(one) for one in written}) == len(prompts)


def test_the_true_vocabulary_and_lengths_beyond_the_first_cache():
    model = make_model("tiny").eval()
    assert slot_decoding.greedy(model, PROMPTS[:3], 150, 64) == alone(model, PROMPTS[:3], 150)


def test_added_tokens_are_read_and_written():
    model = random_model(tie_word_embeddings=False)
    lora = LoraConfig(task_type="SEQ_2_SEQ_LM", r=4, target_modules=["q", "v"], init_lora_weights=False,
                      trainable_token_indices={"shared": [1000, 1001], "head": [1000, 1001]})  # fmt: skip
    model = get_peft_model(model, lora).eval()
    for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
        layer.token_adapter.trainable_tokens_delta["default"].data.normal_(std=3.0)
    prompts = [[5, 1000, 7, 1], [1001, 1], [8, 9, 1], [1000, 1001, 1000, 1]]
    found = slot_decoding.greedy(model, prompts, MOST, 3)
    assert found == alone(model, prompts)
    assert any({1000, 1001} & set(one) for one in found)
    with model.disable_adapter():
        base = slot_decoding.greedy(model, prompts, MOST, 3)
        assert base == alone(model, prompts)
    assert base != found


@pytest.mark.parametrize("bits", [4, 8])
def test_quantized_layers_are_called_as_they_are(bits):
    bring_in_bitsandbytes()
    from bitsandbytes.nn import Linear4bit, Linear8bitLt

    base = random_model(tie_word_embeddings=False, d_model=64, d_kv=32, d_ff=64, num_heads=2)
    base.lm_head.weight = torch.nn.Parameter(torch.randn(1024, 64))
    for block in (*base.encoder.block, *base.decoder.block):
        attention = block.layer[0].SelfAttention
        for name in ("q", "o"):
            weight = getattr(attention, name).weight
            layer = Linear4bit(64, 64, bias=False) if bits == 4 else Linear8bitLt(64, 64, False, has_fp16_weights=False)
            layer.load_state_dict({"weight": weight.data})
            setattr(attention, name, layer.to("cpu"))
    model = with_adapter(base, target_modules=["q", "v"])
    prompts = [[token % 1000 + 1 for token in prompt] for prompt in PROMPTS]
    with threads(2):
        names = set()
        written = slot_decoding.greedy(
            model, prompts, MOST, 64, lambda rows: names.add(threading.current_thread().name)
        )
    # Such layers keep what they last computed with: one thread alone may call them.
    assert written == alone(model, prompts) and len(names) == 1


def test_beams_are_those_of_one_row_alone(trained, questions):
    model, tokenizer = trained
    ids = tokenizer(questions)["input_ids"]
    expected = alone(model, ids, most=12, beams=3)
    assert expected != alone(model, ids, most=12)
    found, _ = generate(model, tokenizer, questions, contract(num_beams=3, max_new_tokens=12), adapter=True)
    assert found == expected


def test_what_a_models_own_generation_config_asks_for_is_done(trained, questions, answers):
    model, tokenizer = trained
    token = max((one for ids in answers[True] for one in ids), key=[one for ids in answers[True] for one in ids].count)
    own = model.generation_config
    assert is_plain(own)
    try:
        own.suppress_tokens = [token]
        assert not is_plain(own)
        found, _ = generate(model, tokenizer, questions, contract(), adapter=True)
        assert found == alone(model, tokenizer(questions)["input_ids"])
    finally:
        own.suppress_tokens = None
    assert any(token in ids for ids in answers[True]) and not any(token in ids for ids in found)


def test_a_generation_config_that_asks_for_nothing_is_no_hindrance(trained, questions, answers):
    """As older versions saved it: `generate` itself shows that none of the values changes a token."""
    model, tokenizer = trained
    own = model.generation_config
    stated = {key: values[0] for key, values in NEUTRAL.items()}
    try:
        model.generation_config = GenerationConfig(**own.to_diff_dict(), **stated)
        assert is_plain(model.generation_config)
        assert alone(model, tokenizer(questions)["input_ids"]) == answers[True]
        for key, value in (("num_beams", 4), ("repetition_penalty", 1.2), ("no_repeat_ngram_size", 3)):
            model.generation_config = GenerationConfig(**own.to_diff_dict(), **stated | {key: value})
            assert not is_plain(model.generation_config)
    finally:
        model.generation_config = own


def test_where_memory_runs_out_fewer_rows_run(trained, questions, answers, monkeypatch):
    """The allocator's own refusal, at the size of cache from which on it refuses."""
    enlarged, refused = caches._enlarge, []

    def limited(old, rows, places, used):
        if rows > 6:
            refused.append(rows)
            torch.empty(2**60)
        return enlarged(old, rows, places, used)

    monkeypatch.setattr(caches, "_enlarge", limited)
    ids = trained[1](questions)["input_ids"]
    counted = []
    assert slot_decoding.greedy(trained[0], ids, MOST, 20, counted.append) == answers[True]
    # Room for all slots is made at once: 20 and 10 do not fit, 5 do.
    assert refused == [20, 10] and sum(counted) == len(questions)
    monkeypatch.setattr(caches, "_enlarge", lambda *how: torch.empty(2**60))
    with pytest.raises(RuntimeError, match=r"can't allocate memory"):
        slot_decoding.greedy(trained[0], ids, MOST, 20)
    longest = max(range(len(ids)), key=lambda row: len(ids[row]))
    line = f"memory does not suffice to answer test row {longest}, whose prompt has {len(ids[longest])} tokens: cut or"
    with pytest.raises(UserError, match=line):
        generate(*trained, questions, contract(), adapter=True)


def test_another_error_is_no_lack_of_memory(trained):
    with pytest.raises(IndexError):
        slot_decoding.greedy(trained[0], [[10**6, 1]], MOST, 4)


def test_rows_end_at_imposed_lengths():
    model = make_model("tiny").eval()
    lengths = [1, 7, 20, 33, 2, 9, 40, 3]
    found = slot_decoding.greedy(model, PROMPTS, 35, 3, lengths=lengths)
    assert [len(one) for one in found] == [min(one, 35) for one in lengths] and not any(1 in one for one in found)


def test_a_recipe_names_an_engine_that_there_is():
    needed = {"title": "t", "adapter_name": "a", "dataset_name": "d", "prompt": ["{p}"], "target": "{t}"}
    assert RecipeArguments(**needed).engine == "transformers"
    with pytest.raises(UserError, match="`engine` should be 'transformers' or 'ctranslate2', not 'vllm'"):
        RecipeArguments(**needed, engine="vllm")
    with pytest.raises(UserError, match="decodes greedily only"):
        RecipeArguments(**needed, engine="ctranslate2", num_beams=4)
    assert engine_here("anything else") == "transformers"


def test_the_measurement_compares_equal_tokens():
    found = measure("cpu", rows=6, repeats=1, size="tiny")
    assert found["score_equal_rows"] == found["equal_rows"]["torch"] == found["equal_rows"]["predict"] == 1
    assert found["score_vs_predict"] == pytest.approx(found["seconds"]["predict"] / found["seconds"]["torch"], rel=0.05)


@pytest.fixture
def ctranslate():
    pytest.importorskip("ctranslate2", reason="needs pip install -r requirements-ctranslate2.txt")
    from scoring.decoding import ctranslate

    return ctranslate


def test_ctranslate2_writes_what_generate_writes(ctranslate, trained, questions, answers):
    model, before = trained[0], {name: weight.clone() for name, weight in trained[0].state_dict().items()}
    asked = contract(engine=engine_here("ctranslate2"))
    with threads(2):
        for adapter in (False, True):
            assert generate(*trained, questions, asked, adapter)[0] == answers[adapter]
        assert torch.get_num_threads() == 2
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


@pytest.mark.parametrize("shape", ["gated", "relu, scaled"])
def test_ctranslate2_takes_every_id_and_length(ctranslate, shape):
    model = with_adapter(random_model(**SHAPES[shape]), trainable_token_indices={"shared": [1000], "head": [1000]})
    for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
        layer.token_adapter.trainable_tokens_delta["default"].data.normal_(std=3.0)
    prompts = [[token % 1000 + 1 for token in prompt] for prompt in PROMPTS]
    prompts += [[1], [1000, 1001, 1023, 0, 2, 1], [1], [token % 1000 + 2 for token in range(1500)]]
    found = ctranslate.greedy(model, True, prompts, MOST, 4)
    assert found == alone(model, prompts)
    with model.disable_adapter():
        assert ctranslate.greedy(model, False, prompts, MOST, 4) == alone(model, prompts) != found


def test_ctranslate2_scales_as_the_checkpoint_says(ctranslate):
    from ctranslate2.specs.model_spec import OPTIONAL

    for how, scale in (({}, 32**-0.5), ({"tie_word_embeddings": False}, OPTIONAL)):
        spec = ctranslate.FromMemory(random_model(**how))._load()
        assert spec.decoder.scale_outputs == scale


def test_ctranslate2_refuses_what_it_cannot(ctranslate, trained, questions, monkeypatch):
    needed = {"title": "t", "adapter_name": "a", "dataset_name": "d", "prompt": ["{p}"], "target": "{t}"}
    recipe = RecipeArguments(**needed, engine="ctranslate2")
    assert contract_of(recipe, "float32", 8).engine == engine_here("ctranslate2") != "transformers"
    with pytest.raises(UserError, match="computes in float32"):
        contract_of(recipe, "bfloat16", 8)
    with pytest.raises(UserError, match="decodes greedily only"):
        generate(*trained, questions, contract(engine="ctranslate2 4", num_beams=2), adapter=True)


def test_without_ctranslate2_recipes_are_refused_and_records_are_generated_all_the_same(
    trained, questions, answers, monkeypatch
):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    needed = {"title": "t", "adapter_name": "a", "dataset_name": "d", "prompt": ["{p}"], "target": "{t}"}
    with pytest.raises(UserError, match=r"pip install -r requirements-ctranslate2.txt"):
        contract_of(RecipeArguments(**needed, engine="ctranslate2"), "float32", 8)
    assert generate(*trained, questions, contract(engine="ctranslate2 4.8.5"), adapter=True)[0] == answers[True]
