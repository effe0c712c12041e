"""Where this project is to be had."""

# What `uvx --from` takes: a git address as `git+https://…`, or a package's name. Empty until there is one; every card
# and paper then says "this project's tool" instead.
PROJECT_URL = ""
