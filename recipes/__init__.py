import logging

# bitsandbytes 0.50 regrets at import that it cannot download a kernel; code from the Hub is never run here.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
