"""A Hub on 127.0.0.1: the Hugging Face Hub's HTTP protocol over real git history, for the unmodified clients."""
