"""Greedy decoding by CTranslate2, on the CPU in float32: `engine: ctranslate2`.

An extra: pip install -r requirements-ctranslate2.txt. The model is converted with the adapter merged into it; tokens go
in and come out by their ids, so that no vocabulary stands between.
"""

import contextlib
import copy
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from ctranslate2 import Translator
from ctranslate2.converters import transformers as converters
from ctranslate2.converters.converter import Converter
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from recipes.families import FAMILIES

# Where a model of the type has its norms: before each part of a layer, and after the embeddings. CTranslate2's loaders
# read both from the configuration, which not every repository states them in.
NORMS = {"bart": (False, True), "mbart": (True, True), "pegasus": (True, False), "marian": (False, False),
         "m2m_100": (True, False)}  # fmt: skip


def greedy(
    model: PeftModel,
    adapter: bool,
    prompts: list[list[int]],
    max_new_tokens: int,
    batch_size: int,
    finished: Callable[[int], object] = lambda rows: None,
    lengths: list[int] | None = None,
) -> list[list[int]]:
    """As `slot_decoding.greedy`: batches of `batch_size` rows of like length, one on each of torch's threads.

    Parameters:
        adapter: whether the adapter is merged into the base model, or left out.
    """
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        # Some conversions were seen to change the weights.
        clone = copy.deepcopy(model)
        plain = (clone.merge_and_unload() if adapter else clone.unload()).float()
        converted = FromMemory(plain).convert(str(Path(folder, "model")))
        del clone, plain
        translator = Translator(converted, compute_type="float32", inter_threads=threads, intra_threads=1)
    generation = model.generation_config
    how = {
        "max_batch_size": batch_size, "asynchronous": True, "beam_size": 1, "max_decoding_length": max_new_tokens,
        # By default inputs are cut at 1,024 tokens, and no row may be empty.
        "max_input_length": 0, "min_decoding_length": 0,
    }  # fmt: skip
    if generation.forced_bos_token_id is not None:
        how["target_prefix"] = [[str(generation.forced_bos_token_id)]] * len(prompts)
    # CTranslate2 answers an empty text, `</s>` alone, with nothing, without asking the model.
    numbers = [row for row, prompt in enumerate(prompts) if prompt != [generation.eos_token_id]]
    if lengths is not None:
        how["suppress_sequences"] = [[str(generation.eos_token_id)]]
        how["callback"] = lambda result: result.step + 1 >= lengths[numbers[result.batch_id]]
    outputs = {}
    if len(numbers) < len(prompts):
        answer = _empty(model, adapter, max_new_tokens)
        outputs = dict.fromkeys(set(range(len(prompts))) - set(numbers), answer)
        finished(len(outputs))
    if "target_prefix" in how:
        how["target_prefix"] = how["target_prefix"][: len(numbers)]
    answers = translator.translate_batch([[str(token) for token in prompts[row]] for row in numbers], **how)
    for row, answer in zip(numbers, answers, strict=True):
        outputs[row] = [int(token) for token in answer.result().hypotheses[0]]
        finished(1)
    # CTranslate2 has set OpenMP to one thread, and with it PyTorch.
    torch.set_num_threads(threads)
    return [outputs[row] for row in range(len(prompts))]


def _empty(model: PeftModel, adapter: bool, max_new_tokens: int) -> list[int]:
    """What transformers writes for an empty text."""
    end = model.generation_config.eos_token_id
    ids = torch.tensor([[end]], device=model.device)
    with torch.inference_mode(), contextlib.nullcontext() if adapter else model.disable_adapter():
        how = {"max_new_tokens": max_new_tokens, "do_sample": False, "num_beams": 1}
        written = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **how)[0, 1:].tolist()
    return written[: written.index(end)] if end in written else written


class FromMemory(Converter):
    """Converts a model as it lies in memory; it may not be what it was afterwards.

    Parameters:
        tokenizer: gives the vocabulary its pieces; without one they are the ids, written as texts.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None = None):
        self.model, self.tokenizer = model, tokenizer

    def _load(self):
        config, family = self.model.config, FAMILIES[self.model.config.model_type]
        if family.flat:
            # transformers 5 sets this for every T5; what CTranslate2 means by it, it keeps under another name.
            config.tie_word_embeddings = config.model_type == "t5" and config.scale_decoder_outputs
        if config.model_type in NORMS:
            config.normalize_before, config.normalize_embedding = NORMS[config.model_type]
        loader = vars(converters)[family.converter]
        return type("Loader", (_Vocabulary, loader), {})()(self.model, self.tokenizer)


class _Vocabulary:
    """What a loader of CTranslate2's says of tokens, in place of its own: there is a name for every row.

    A spare row gets a name of its own: CTranslate2 4.8 would give it that of another token.
    """

    def get_vocabulary(self, model, tokenizer):
        rows = range(model.config.vocab_size)
        if tokenizer is None:
            return [str(row) for row in rows]
        pieces = {number: piece for piece, number in tokenizer.get_vocab().items()}
        return [pieces.get(row, f"<spare_{row}>") for row in rows]

    def set_config(self, config, model, tokenizer):
        names, generation = self.get_vocabulary(model, tokenizer), model.generation_config
        config.bos_token = names[generation.pad_token_id]
        config.eos_token = names[generation.eos_token_id]
        config.unk_token = config.bos_token if tokenizer is None else tokenizer.unk_token
        start = generation.decoder_start_token_id
        config.decoder_start_token = names[generation.bos_token_id if start is None else start]
