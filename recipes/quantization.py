"""bitsandbytes comes in where something is quantized, and not before: PEFT imports it at once, which takes a second."""

import sys

NAME = "bitsandbytes"


def leave_out_bitsandbytes() -> None:
    """Lets nobody import it, unless that has been done, until `bring_in_bitsandbytes`."""
    sys.modules.setdefault(NAME, None)


def bring_in_bitsandbytes() -> None:
    """Lets it be imported; transformers and PEFT look again whether it is there."""
    if sys.modules.get(NAME, sys) is not None:
        return
    del sys.modules[NAME]
    from peft.import_utils import is_bnb_4bit_available, is_bnb_available
    from transformers.utils import is_bitsandbytes_available

    for available in (is_bnb_available, is_bnb_4bit_available, is_bitsandbytes_available):
        available.cache_clear()
