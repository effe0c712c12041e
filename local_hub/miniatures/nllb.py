"""A miniature of NLLB: an M2M-100 with random weights, and a tokenizer that spells."""

import json
from random import Random

import numpy as np

from local_hub.miniatures import models, translation

SEED = 200
LANGUAGES = ("deu_Latn", "eng_Latn", "fra_Latn")
SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")
D_MODEL, D_FF, LAYERS, HEADS = 64, 128, 2, 4


def tokenizer_json() -> bytes:
    """As the real one is laid out: pieces of a BPE, here single characters, then the languages, then the mask."""
    texts = [text for part in translation.rows().values() for row in part for text in row.values()]
    pieces = [
        *SPECIALS,
        "▁",
        *sorted({character for text in texts for character in text} - {" "}),
        *LANGUAGES,
        "<mask>",
    ]
    ids = {piece: number for number, piece in enumerate(pieces)}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}

    def token(name: str) -> dict:
        return {"SpecialToken": {"id": name, "type_id": 0}}

    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    ends = ("eng_Latn", "</s>")
    whole = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": ids[name], "content": name, **flags} for name in (*SPECIALS, *LANGUAGES, "<mask>")
        ],
        "normalizer": {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
        "pre_tokenizer": metaspace,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [token(ends[0]), first, token(ends[1])],
            "pair": [token(ends[0]), first, second, token(ends[1])],
            "special_tokens": {name: {"id": name, "ids": [ids[name]], "tokens": [name]} for name in ends},
        },
        "decoder": metaspace,
        "model": {
            "type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": False, "vocab": ids, "merges": [],
        },
    }  # fmt: skip
    return (json.dumps(whole, ensure_ascii=False, indent=0) + "\n").encode()


def config(rows: int) -> dict:
    """config.json for `rows` tokens, with the real model's keys."""
    return {
        "activation_dropout": 0.0,
        "activation_function": "relu",
        "architectures": ["M2M100ForConditionalGeneration"],
        "attention_dropout": 0.1,
        "bos_token_id": 0,
        "d_model": D_MODEL,
        "decoder_attention_heads": HEADS,
        "decoder_ffn_dim": D_FF,
        "decoder_layerdrop": 0,
        "decoder_layers": LAYERS,
        "decoder_start_token_id": 2,
        "dropout": 0.1,
        "encoder_attention_heads": HEADS,
        "encoder_ffn_dim": D_FF,
        "encoder_layerdrop": 0,
        "encoder_layers": LAYERS,
        "eos_token_id": 2,
        "init_std": 0.02,
        "is_encoder_decoder": True,
        "max_position_embeddings": 1024,
        "model_type": "m2m_100",
        "num_hidden_layers": LAYERS,
        "pad_token_id": 1,
        "scale_embedding": True,
        "tokenizer_class": "NllbTokenizer",
        "use_cache": True,
        "vocab_size": rows,
    }


def shapes(rows: int) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor, by its name in the checkpoint."""
    named: dict[str, tuple[int, ...]] = {"model.shared.weight": (rows, D_MODEL)}

    def linear(name: str, outputs: int, inputs: int) -> None:
        named[f"{name}.weight"], named[f"{name}.bias"] = (outputs, inputs), (outputs,)

    for stack, attentions in (("encoder", ("self_attn",)), ("decoder", ("self_attn", "encoder_attn"))):
        for layer in range(LAYERS):
            prefix = f"model.{stack}.layers.{layer}"
            for attention in attentions:
                for part in ("k_proj", "v_proj", "q_proj", "out_proj"):
                    linear(f"{prefix}.{attention}.{part}", D_MODEL, D_MODEL)
            linear(f"{prefix}.fc1", D_FF, D_MODEL)
            linear(f"{prefix}.fc2", D_MODEL, D_FF)
            for norm in (*(f"{attention}_layer_norm" for attention in attentions), "final_layer_norm"):
                named[f"{prefix}.{norm}.weight"] = named[f"{prefix}.{norm}.bias"] = (D_MODEL,)
        named[f"model.{stack}.layer_norm.weight"] = named[f"model.{stack}.layer_norm.bias"] = (D_MODEL,)
    return named


def checkpoint(rows: int) -> bytes:
    """model.safetensors: norms as they begin, all else drawn evenly, as wide as Xavier's rule says."""
    rng, header, parts, at = Random(SEED), {}, [], 0
    for name, shape in shapes(rows).items():
        if "norm" in name or len(shape) == 1:
            values = np.full(shape, float("norm.weight" in name), "<f4")
        else:
            bound = (6 / sum(shape)) ** 0.5
            if name == "model.shared.weight":
                # The head is tied to it: were it not small, every token would be followed by itself.
                bound /= 20
            drawn = [rng.random() for _ in range(shape[0] * shape[1])]
            values = ((2 * np.array(drawn) - 1) * bound).astype("<f4").reshape(shape)
            if name == "model.shared.weight":
                # The padding's, which the model takes for nothing.
                values[1] = 0
        parts.append(values.tobytes())
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + len(parts[-1])]}
        at += len(parts[-1])
    top = json.dumps({"__metadata__": {"format": "pt"}, **header}, separators=(",", ":")).encode()
    top += b" " * (-len(top) % 8)
    return len(top).to_bytes(8, "little") + top + b"".join(parts)


def files() -> dict[str, bytes]:
    """Every file of the model's repository but its card."""
    words = tokenizer_json()
    rows = len(json.loads(words)["model"]["vocab"])
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    generation = {"bos_token_id": 0, "decoder_start_token_id": 2, "eos_token_id": 2, "max_length": 200,
                  "pad_token_id": 1}  # fmt: skip
    return {
        "config.json": models.pretty(config(rows)),
        "generation_config.json": models.pretty(generation),
        "model.safetensors": checkpoint(rows),
        "tokenizer.json": words,
        "tokenizer_config.json": models.pretty({**names, "model_max_length": 1024, "tokenizer_class": "NllbTokenizer"}),
        "special_tokens_map.json": models.pretty({**names, "additional_special_tokens": list(LANGUAGES)}),
    }
