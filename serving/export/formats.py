"""The formats for CPU hosts: how each is written from the merged model, and how it is loaded again."""

import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForSeq2SeqLM,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from recipes.families import FAMILIES
from record.errors import UserError
from record.scores import Contract

# What CTranslate2 stores the weights in.
CT2 = {"ct2": "float32", "ct2-int8": "int8"}
FORMATS = ("merged", "int8", *CT2)
INT8_FILE = "int8.safetensors"


class Int8Linear(nn.Module):
    """A linear layer with a whole number from -127 to 127 for each weight, and a scale for each row of them."""

    def __init__(self, weight, scale):
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)

    def forward(self, x):
        # In float32 this product takes several times as long as that of plain float32 weights.
        y = torch._weight_int8pack_mm(x.flatten(0, -2).bfloat16(), self.weight, self.scale)
        return y.to(x.dtype).unflatten(0, x.shape[:-1])


def load_int8(folder):
    with torch.device("meta"):
        model = AutoModelForSeq2SeqLM.from_config(AutoConfig.from_pretrained(folder))
    with safe_open(f"{folder}/int8.safetensors", "pt") as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    # The product reads aligned memory only; of models of the usual widths nothing has to be copied for it.
    weights = {name: part if part.data_ptr() % 64 == 0 else part.clone() for name, part in weights.items()}
    for name in [key.removesuffix(".scale") for key in weights if key.endswith(".scale")]:
        layer = Int8Linear(weights.pop(f"{name}.weight"), weights.pop(f"{name}.scale"))
        model.set_submodule(name, layer)
    model.set_input_embeddings(nn.Embedding.from_pretrained(weights.pop("shared.weight")))
    model.load_state_dict(weights, strict=False, assign=True)
    model.generation_config = GenerationConfig.from_pretrained(folder)
    return model.eval()


# What a reader of the card copies is what is measured here.
INT8_CODE = "\n\n\n".join(inspect.getsource(item).strip() for item in (Int8Linear, load_int8)).replace(
    "  # noqa: SIM118", ""
)


def write(form: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, folder: Path) -> None:
    """Writes the merged `model` (float32, its head untied; not to be used afterwards) into the new `folder`.

    Parameters:
        tokenizer: with the adapter's added tokens. Without one, for measurements, CTranslate2 takes ids as texts.

    Raises:
        `UserError`: CTranslate2 is not installed.
    """
    if form in CT2:
        _write_ct2(model, tokenizer, folder, CT2[form])
    else:
        folder.mkdir(parents=True)
        if form == "merged":
            model.save_pretrained(folder, max_shard_size="4GB")
        else:
            model.config.save_pretrained(folder)
            model.generation_config.save_pretrained(folder)
            _save_aligned(_quantized(model), folder / INT8_FILE)
        if FAMILIES[model.config.model_type].flat:
            _state_scaling(folder / "config.json", model)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)


def _state_scaling(path: Path, model: PreTrainedModel) -> None:
    """transformers 5.23 writes that every T5 is tied, and reads it back as "scale the decoder's outputs": other logits.

    False is what FLAN-T5's own config.json says; the head stays untied, because the file of weights holds it.
    """
    config = json.loads(path.read_text(encoding="utf-8"))
    config["tie_word_embeddings"] = _scales(model)
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _scales(model: PreTrainedModel) -> bool:
    return model.config.model_type == "t5" and model.config.scale_decoder_outputs


@torch.no_grad()
def _quantized(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """The weights by name: of linear layers in int8 with `.scale` next to `.weight`, of all others as they are."""
    tensors = {}
    for name, layer in model.named_modules():
        if type(layer) is nn.Linear:
            # A row of zeros would have no scale. bfloat16 rounds a scale down too: then 127 is the end.
            scale = (layer.weight.abs().amax(1) / 127).clamp(min=torch.finfo(torch.bfloat16).tiny).bfloat16()
            tensors[f"{name}.weight"] = (layer.weight / scale[:, None]).round().clamp(-127, 127).to(torch.int8)
            tensors[f"{name}.scale"] = scale
    tied = {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight"}
    rest = {name: weight for name, weight in model.state_dict().items() if name not in tensors.keys() | tied}
    return tensors | {name: weight.contiguous() for name, weight in rest.items()}


def _save_aligned(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Saves them so that the first begins at a multiple of 64 bytes, and the others too where all sizes are such."""
    save_file(tensors, path, {"format": "pt", "padding": " "})
    with path.open("rb") as file:
        # The header's own size comes first, in 8 bytes; safetensors fills the header up to a multiple of 8.
        first = 8 + int.from_bytes(file.read(8), "little")
    save_file(tensors, path, {"format": "pt", "padding": " " * (1 + -first % 64)})


def _write_ct2(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, folder: Path, weights: str) -> None:
    try:
        from scoring.decoding.ctranslate import FromMemory
    except ModuleNotFoundError as error:
        if error.name != "ctranslate2":
            raise
        raise UserError("CTranslate2 is an extra: pip install -r requirements-ctranslate2.txt") from None
    FromMemory(model, tokenizer).convert(str(folder), quantization=weights)


def load(form: str, folder: Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A model of the format `merged`, in the data type, or `int8`."""
    if form == "int8":
        return load_int8(folder)
    return AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=dtype, use_safetensors=True).eval()


def answers(
    form: str, folder: Path, tokenizer: PreTrainedTokenizerBase, prompts: list[str], contract: Contract
) -> list[list[int]]:
    """Token ids of an output for every prompt, as `scoring.decoding.generate.generate` gives them, of the export."""
    if form not in CT2:
        from scoring.decoding.generate import generate

        return generate(load(form, folder), tokenizer, prompts, contract, adapter=True)[0]
    from ctranslate2 import Translator

    threads = torch.get_num_threads()
    translator = Translator(str(folder), inter_threads=threads, intra_threads=1)
    results = translator.translate_batch(
        [tokenizer.convert_ids_to_tokens(ids) for ids in tokenizer(prompts)["input_ids"]],
        max_batch_size=contract.batch_size, beam_size=contract.num_beams, max_decoding_length=contract.max_new_tokens,
        max_input_length=0, min_decoding_length=0,
    )  # fmt: skip
    # CTranslate2 has set OpenMP to one thread, and with it PyTorch.
    torch.set_num_threads(threads)
    return [tokenizer.convert_tokens_to_ids(one.hypotheses[0]) for one in results]


@dataclass(frozen=True)
class Contender:
    """One way to run an adapter on a CPU: an export in `folder`, or (`form` "adapter") the adapter in `folder` on the
    base model in the folder `base`; weights that are not in 8 bits in `dtype`."""

    form: str
    folder: Path
    base: Path | None = None
    dtype: torch.dtype = torch.float32


def writer(contender: Contender) -> Callable[[list[int], int, int], list[int]]:
    """Loads the model as its card says; what comes back writes greedily for one prompt (token ids).

    Its arguments are the prompt, the most and the fewest tokens to write.
    """
    if contender.form in CT2:
        return _ct2_writer(contender.folder)
    on_base = contender.form == "adapter"
    model = (
        load("merged", contender.base, contender.dtype)
        if on_base
        else load(contender.form, contender.folder, contender.dtype)
    )
    if on_base:
        model = PeftModel.from_pretrained(model, contender.folder).eval()

    def write(prompt: list[int], most: int, fewest: int) -> list[int]:
        ids = torch.tensor([prompt])
        with torch.inference_mode():
            output = model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=most, min_new_tokens=fewest,
                num_beams=1, do_sample=False,
            )  # fmt: skip
        return output[0, 1:].tolist()

    return write


def _ct2_writer(folder: Path) -> Callable[[list[int], int, int], list[int]]:
    from ctranslate2 import Translator

    pieces = json.loads((folder / "shared_vocabulary.json").read_text(encoding="utf-8"))
    numbers = {piece: number for number, piece in enumerate(pieces)}
    translator = Translator(str(folder))

    def write(prompt: list[int], most: int, fewest: int) -> list[int]:
        (result,) = translator.translate_batch(
            [[pieces[token] for token in prompt]], beam_size=1, max_decoding_length=most, max_input_length=0,
            min_decoding_length=fewest,
        )  # fmt: skip
        return [numbers[piece] for piece in result.hypotheses[0]]

    return write
