"""What this project's package is called, and where it is to be had."""

PACKAGE = "publish-and-reproduce"
# Raised, too, where a number is computed in another way, were it by the order of a sum: in bfloat16 and on GPUs that
# shows.
__version__ = "0.3.0"

# What `uvx --from` takes: a git address as `git+https://…`, or a package's name. Empty until there is one; every card
# and paper then says "this project's tool" instead.
PROJECT_URL = ""
