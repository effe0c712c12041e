from small_run import predictions, record  # noqa: F401
