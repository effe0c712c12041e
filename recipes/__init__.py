import logging

from recipes.quantization import leave_out_bitsandbytes

leave_out_bitsandbytes()
# bitsandbytes 0.50 regrets at import that it cannot download a kernel; code from the Hub is never run here.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
