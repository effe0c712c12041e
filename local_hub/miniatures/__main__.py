"""Makes the shipped tokenizer and weights again: python -m local_hub.miniatures [base large xl xxl]

Seeded: the same machine writes the same bytes twice. Another processor may round differently in the last place, which
is why the results are checked in.
"""

import argparse
from itertools import islice

from local_hub.miniatures import finance, models, news, pretraining_text, sql, tokenizer

CORPUS_SEED = 1


def corpus() -> list[str]:
    """What the tokenizer's words are counted from: every dataset, and a sample of the pre-training text."""
    rows = [*finance.rows(), *sql.rows(), *(row for part in news.rows().values() for row in part)]
    texts = [value for row in rows for key, value in row.items() if key != "id"]
    texts += [text for row in sql.rows() for text in sql.prompted(row).values()]
    return texts + [text for pair in islice(pretraining_text.pairs(CORPUS_SEED), 3000) for text in pair]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(models.SHAPES), help="which miniatures (default: all)")
    parser.add_argument("--steps", type=int, default=models.STEPS, help=f"training steps (default: {models.STEPS})")
    arguments = parser.parse_args()
    for name in arguments.names:
        if name not in models.SHAPES:
            parser.error(f"there is no miniature {name!r}; choose from {', '.join(models.SHAPES)}")

    # After the arguments: --help must not wait for torch.
    from safetensors.torch import save
    from tokenizers import Tokenizer

    from local_hub.miniatures import pretrain

    models.WEIGHTS.mkdir(exist_ok=True)
    words = tokenizer.tokenizer_json(corpus())
    (models.WEIGHTS / "tokenizer.json").write_bytes(words)
    print(f"tokenizer.json: {len(words):,} bytes", flush=True)
    for name in arguments.names:
        weights = pretrain.pretrain(name, Tokenizer.from_str(words.decode()), arguments.steps)
        path = models.WEIGHTS / f"{name}.safetensors"
        path.write_bytes(save(weights, metadata={"format": "pt"}))
        print(f"{path.name}: {path.stat().st_size:,} bytes", flush=True)


if __name__ == "__main__":
    main()
