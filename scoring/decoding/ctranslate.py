"""Greedy decoding by CTranslate2, on the CPU in float32: `engine: ctranslate2`.

An extra: pip install -r requirements-ctranslate2.txt. The model is converted with the adapter merged into it; tokens go
in and come out by their ids, so that no vocabulary stands between.
"""

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from ctranslate2 import Translator
from ctranslate2.converters.converter import Converter
from ctranslate2.converters.transformers import T5Loader
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from scoring.decoding import slot_decoding


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
    # CTranslate2 answers an empty text, `</s>` alone, with nothing, without asking the model.
    numbers = [row for row, prompt in enumerate(prompts) if prompt != [generation.eos_token_id]]
    if lengths is not None:
        how["suppress_sequences"] = [[str(generation.eos_token_id)]]
        how["callback"] = lambda result: result.step + 1 >= lengths[numbers[result.batch_id]]
    outputs = {}
    if len(numbers) < len(prompts):
        (answer,) = slot_decoding.greedy(model, [[generation.eos_token_id]], max_new_tokens, 1)
        outputs = dict.fromkeys(set(range(len(prompts))) - set(numbers), answer)
        finished(len(outputs))
    answers = translator.translate_batch([[str(token) for token in prompts[row]] for row in numbers], **how)
    for row, answer in zip(numbers, answers, strict=True):
        outputs[row] = [int(token) for token in answer.result().hypotheses[0]]
        finished(1)
    # CTranslate2 has set OpenMP to one thread, and with it PyTorch.
    torch.set_num_threads(threads)
    return [outputs[row] for row in range(len(prompts))]


class FromMemory(Converter):
    """Converts a T5 as it lies in memory; it may not be what it was afterwards.

    Parameters:
        tokenizer: gives the vocabulary its pieces; without one they are the ids, written as texts.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None = None):
        self.model, self.tokenizer = model, tokenizer

    def _load(self):
        config = self.model.config
        # transformers 5 sets this for every T5; what CTranslate2 means by it, it keeps under another name.
        config.tie_word_embeddings = config.model_type == "t5" and config.scale_decoder_outputs
        return (_ByIds() if self.tokenizer is None else _ByPieces())(self.model, self.tokenizer)


class _ByPieces(T5Loader):
    """A loader that names each spare row once: CTranslate2 4.8 would give it the name of another token."""

    def get_vocabulary(self, model, tokenizer):
        pieces = {number: piece for piece, number in tokenizer.get_vocab().items()}
        return [pieces.get(row, f"<spare_{row}>") for row in range(model.config.vocab_size)]


class _ByIds(T5Loader):
    """A loader whose vocabulary is the ids, written as texts."""

    def get_vocabulary(self, model, tokenizer):
        return [str(token) for token in range(model.config.vocab_size)]

    def set_config(self, config, model, tokenizer):
        generation = model.generation_config
        config.bos_token = str(generation.pad_token_id)
        config.eos_token = str(generation.eos_token_id)
        config.unk_token = str(generation.pad_token_id)
        config.decoder_start_token = str(generation.decoder_start_token_id)
