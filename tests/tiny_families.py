"""A tiny model with random weights of every family in `recipes.families`, and a repository of it as such are published.

Some repositories hold a tokenizer.json, others the files that came before it.
"""

import json

import torch
import transformers
from huggingface_hub import CommitOperationAdd, HfApi
from peft import LoraConfig, get_peft_model
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors, trainers
from tokenizers import models as kinds
from transformers import AutoModelForSeq2SeqLM, PreTrainedTokenizerFast

from hub.pins import pin
from local_hub.miniatures import models
from recipes.data.built_tokenizer import MBART, MBART_50
from recipes.families import FAMILIES, VARIANTS

LANGUAGES = {"m2m_100": ("eng_Latn", "deu_Latn"), "mbart": ("en_XX", "de_DE"), "mbart50": ("en_XX", "de_DE")}
ROWS = [{"question": f"Question {n}: what is {n} plus {2 * n}?", "answer": f"It is {3 * n}."} for n in range(80)]
IDS = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 1, "decoder_start_token_id": 0}
LIKE_T5 = {"d_model": 64, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 4, "dropout_rate": 0.0,
           "feed_forward_proj": "gated-gelu", "local_radius": 8, "global_block_size": 4}  # fmt: skip
LIKE_BART = {"d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
             "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 96,
             "dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0, "scale_embedding": True,
             "encoder_layerdrop": 0.0, "decoder_layerdrop": 0.0,
             "forced_eos_token_id": None, "forced_bos_token_id": None}  # fmt: skip
LIKE_GEMMA = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
              "head_dim": 16, "num_key_value_heads": 2, "query_pre_attn_scalar": 16, "sliding_window": 64,
              "max_position_embeddings": 96}  # fmt: skip
LIKE_SIGLIP = {"model_type": "siglip_vision_model", "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1,
               "num_attention_heads": 2, "image_size": 28, "patch_size": 14}  # fmt: skip
# Where they are not those in `IDS`, as of the families' real models.
OTHER_IDS = {
    # NLLB's decoder starts with </s>, as mBART-50's; its positions begin after the id of <pad>.
    "m2m_100": {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2},
    "mbart50": {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2},
    "codet5": {"bos_token_id": 1, "eos_token_id": 2},
    "madlad": {"bos_token_id": None, "pad_token_id": 1, "eos_token_id": 2},
    # Its decoder starts with the token that other texts begin with, and sees no padding, which is 0.
    "t5gemma": {"bos_token_id": 3, "decoder_start_token_id": None},
    "t5gemma2": {"bos_token_id": 3},
}
NAMES = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}


def type_of(kind):
    """What config.json of the family's models names as their type."""
    return next((mark[0] for mark, variant in VARIANTS.items() if variant == kind), kind)


def config_of(kind, rows):
    """A tiny configuration of the family, for `rows` tokens, without dropout."""
    ids = IDS | OTHER_IDS.get(kind, {}) | {"vocab_size": rows}
    if kind == "t5gemma":
        stack = transformers.T5GemmaModuleConfig(**LIKE_GEMMA, dropout_rate=0.0, **ids)
        return transformers.T5GemmaConfig(encoder=stack, decoder=stack, dropout_rate=0.0, **ids)
    if kind == "t5gemma2":
        # It states no start of the decoder's at all.
        del ids["decoder_start_token_id"]
        encoder = transformers.T5Gemma2EncoderConfig(
            text_config=LIKE_GEMMA | ids, vision_config=LIKE_SIGLIP, mm_tokens_per_image=4, boi_token_index=rows - 3,
            eoi_token_index=rows - 2, image_token_index=rows - 1,
        )  # fmt: skip
        decoder = transformers.T5Gemma2DecoderConfig(**LIKE_GEMMA, **ids)
        return transformers.T5Gemma2Config(encoder=encoder, decoder=decoder, image_token_index=rows - 1, **ids)
    like = LIKE_T5 if "q" in FAMILIES[kind].lora_targets else LIKE_BART
    return transformers.CONFIG_MAPPING[type_of(kind)](**like | ids)


def model_of(kind, rows=40):
    """A random model of the family."""
    transformers.set_seed(0)
    model = AutoModelForSeq2SeqLM.from_config(config_of(kind, rows))
    if FAMILIES[kind].images:
        model.set_submodule(FAMILIES[kind].images, transformers.modeling_utils.nn.Identity())
    return model


def with_adapter(kind, scale=1.0):
    """A random model of the family with LoRA where the family has it.

    Parameters:
        scale: by which the matrices' weights are multiplied: as they are drawn, a model writes one token again and
            again.
    """
    model = model_of(kind)
    with torch.no_grad():
        for weight in {id(weight): weight for weight in model.parameters() if weight.dim() > 1}.values():
            weight.mul_(scale)
    transformers.set_seed(0)
    lora = LoraConfig(task_type="SEQ_2_SEQ_LM", r=4, target_modules=list(FAMILIES[kind].lora_targets))
    return get_peft_model(model, lora)


def byte_pairs(*special):
    """A BPE over letters of bytes, trained on the rows."""
    tokenizer = Tokenizer(kinds.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=list(special), show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())  # fmt: skip
    tokenizer.train_from_iterator([text for row in ROWS for text in row.values()], trainer)
    return json.loads(tokenizer.to_str())["model"]


def merges(kind):
    """vocab.json and merges.txt, as BART and CodeT5 are published with."""
    special = ["<pad>", "<s>" if kind == "codet5" else "</s>", "</s>" if kind == "codet5" else "<s>", "<unk>", "<mask>"]
    model = byte_pairs(*special)
    config = {"tokenizer_class": "RobertaTokenizer" if kind == "codet5" else "BartTokenizer", "model_max_length": 64,
              "bos_token": "<s>", "cls_token": "<s>", "sep_token": "</s>", "mask_token": "<mask>"}  # fmt: skip
    if kind == "codet5":
        config["additional_special_tokens"] = ["<extra_id_1>", "<extra_id_0>"]
    pairs = [" ".join(pair) if isinstance(pair, list) else pair for pair in model["merges"]]
    return {
        "vocab.json": json.dumps(model["vocab"]),
        "merges.txt": "\n".join(["#version: 0.2", *pairs, ""]),
        "tokenizer_config.json": json.dumps(config | NAMES),
    }


def sentencepiece(special):
    """A SentencePiece model with the miniature's pieces after three special ones."""
    model = sentencepiece_model_pb2.ModelProto()
    content = json.loads(models.files("base")["tokenizer.json"])
    pieces = [piece for piece in content["model"]["vocab"][3:] if "<extra_id" not in piece[0]]
    for piece, score in [*((name, 0.0) for name in special), *pieces]:
        model.pieces.add(piece=piece, score=score, type=2 if piece == "<unk>" else 3 if piece in special else 1)
    model.trainer_spec.model_type, model.trainer_spec.unk_id = 1, special.index("<unk>")
    return model.SerializeToString()


def pieces(special, *languages):
    """A tokenizer.json with the miniature's pieces after the special ones."""
    content = json.loads(models.files("base")["tokenizer.json"])
    vocabulary = content["model"]["vocab"]
    vocabulary[:3] = [[name, 0.0] for name in special]
    content["model"]["unk_id"] = special.index("<unk>")
    content["added_tokens"] = [token | {"id": special.index(token["content"])} for token in content["added_tokens"]
                               if token["content"] in special]  # fmt: skip
    end = special.index("</s>")
    content["post_processor"]["special_tokens"]["</s>"]["ids"] = [end]
    tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.add_special_tokens([*special, *languages])
    return tokenizer


def spaced():
    """A tokenizer.json as Gemma's is made: a BPE that parts at spaces."""
    tokenizer = Tokenizer(kinds.BPE(unk_token="<unk>"))
    special = ["<pad>", "</s>", "<unk>", "<s>"]
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=special, show_progress=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.train_from_iterator([text for row in ROWS for text in row.values()], trainer)
    tokenizer.post_processor = processors.TemplateProcessing("$A </s>", None, [("</s>", 1)])
    tokenizer.decoder = decoders.Fuse()
    return tokenizer


def tokenizer_files(kind, folder):
    """Writes the files of a tokenizer as the family is published with them; how many rows an embedding needs."""
    (folder).mkdir(exist_ok=True)
    if kind == "byt5":
        files = {"tokenizer_config.json": json.dumps({"tokenizer_class": "ByT5Tokenizer"} | NAMES)}
        rows = 384
    elif kind in ("bart", "codet5"):
        files = merges(kind)
        rows = 512
    elif kind == "mbart50":
        config = {"tokenizer_class": "MBart50Tokenizer", "additional_special_tokens": MBART + MBART_50} | NAMES
        files = {"sentencepiece.bpe.model": sentencepiece(["<unk>", "<s>", "</s>"]),
                 "tokenizer_config.json": json.dumps(config)}  # fmt: skip
        rows = 1408
    elif kind == "pegasus":
        files = {"spiece.model": sentencepiece(["<pad>", "</s>", "<unk>"]),
                 "tokenizer_config.json": json.dumps({"tokenizer_class": "PegasusTokenizer"} | NAMES)}  # fmt: skip
        rows = 1408
    elif kind in ("t5", "mt5", "longt5"):
        files = {name: content for name, content in models.files("base").items()
                 if name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")}  # fmt: skip
        rows = 1280
    else:
        tokenizer = tokenizer_of(kind)
        names = NAMES | ({"pad_token": "<s>"} if kind == "madlad" else {})
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
        files, rows = {}, tokenizer.get_vocab_size() + 4
    for name, content in files.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return rows


def tokenizer_of(kind):
    """A small tokenizer.json, laid out as the family's."""
    if kind in ("t5gemma", "t5gemma2"):
        return spaced()
    if kind == "madlad":
        return pieces(["<unk>", "<s>", "</s>"], "<2de>")
    if kind == "m2m_100":
        return pieces(["<s>", "<pad>", "</s>", "<unk>"], *LANGUAGES[kind])
    tokenizer = Tokenizer.from_str(models.files("base")["tokenizer.json"].decode())
    tokenizer.add_special_tokens(list(LANGUAGES.get(kind, ())))
    return tokenizer


def base_of(kind, folder):
    """The family's miniature on the Hub."""
    repo, files = f"local-user/tiny-{kind}", folder / kind
    rows = tokenizer_files(kind, files)
    transformers.set_seed(0)
    # The whole of it, what is for images too.
    AutoModelForSeq2SeqLM.from_config(config_of(kind, rows)).save_pretrained(files)
    HfApi().create_repo(repo, exist_ok=True)
    operations = [CommitOperationAdd(path.name, path) for path in files.iterdir()]
    HfApi().create_commit(repo, operations, commit_message=f"A {kind} with random weights")
    return pin("model", repo, "main")
