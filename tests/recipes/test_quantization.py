"""bitsandbytes is imported where something is quantized, and nowhere else."""

import subprocess
import sys

CODE = """
import sys
from recipes.training.model import load_base
from benchmarks.shapes import make_model
from recipes.quantization import bring_in_bitsandbytes

model = make_model("tiny")
print(sys.modules["bitsandbytes"])
bring_in_bitsandbytes()
bring_in_bitsandbytes()
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForSeq2SeqLM, BitsAndBytesConfig

model.unload().save_pretrained(sys.argv[1])
four = BitsAndBytesConfig(load_in_4bit=True)
lora = LoraConfig(r=2, target_modules=["q"])
quantized = AutoModelForSeq2SeqLM.from_pretrained(sys.argv[1], quantization_config=four)
layer = get_peft_model(quantized, lora).base_model.model.encoder.block[0].layer[0]
print(type(layer.SelfAttention.q))
"""


def test_bitsandbytes_waits_until_it_is_needed(tmp_path):
    answer = subprocess.run([sys.executable, "-c", CODE, str(tmp_path)], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.splitlines() == ["None", "<class 'peft.tuners.lora.bnb.Linear4bit'>"]
